"""What `complete` and `generate` leave behind: picture files, contact sheets, `run.json`."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from PIL import Image

from jpeglm.codecs import Codec
from jpeglm.codecs.clips import ClipShape
from jpeglm.config import InputError, Stopped
from jpeglm.files import explain, halves, staged, write_json
from jpeglm.folders import PICTURES, claim, ours
from jpeglm.generation.sheets import (
    Call,
    animation,
    given_of,
    page_names,
    pages_of,
    sheet_of,
    tiles_of,
)


class Drawn(NamedTuple):
    """One picture of a call; `pictures.Pictures` says what its parts are."""

    number: int
    image: Any
    stream: bytes | None
    """None of a VAE's, which has none."""
    tokens: int
    bits: float


class Result(Call, Protocol):
    """And what is known then."""

    images: list[Any]
    bits: list[float]
    seconds: float
    prompt_tokens: int

    @property
    def tokens(self) -> int: ...

    @property
    def tokens_per_second(self) -> float: ...


def png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def file_of(codec: Codec | None, stream: bytes | None, image: Any) -> bytes:
    """A whole file: the stream's own, or PNG where there is none."""
    return codec.wrap(stream) if codec and stream is not None else png(image)


def summary(pictures: Result) -> dict[str, Any]:
    """The figures that `run.json` and `--json` show."""
    return {
        "pictures": len(pictures.images),
        "tokens": pictures.tokens,
        "prompt_tokens": pictures.prompt_tokens,
        "seconds": round(pictures.seconds, 4),
        "tokens_per_second": round(pictures.tokens_per_second, 1),
        "settings": pictures.settings,
    } | ({"bits_per_image": round(float(np.mean(pictures.bits)), 1)} if pictures.bits else {})


class Gallery:
    """The folder that pictures are written into as they are drawn, with `run.json` as its record.

        with Gallery(out, codec, "sample", n, record) as gallery:
            result = gallery.finish(model.generate(n, each=gallery.add))

    `Pictures.save` is this for pictures that are there.

    Files of an earlier run, which its run.json lists, make room when the first picture comes; what
    else lies in the folder stays. run.json never lists less than lies there, so that a process
    killed at any moment leaves nothing unknown behind. Ctrl-C keeps what was drawn. What fails
    otherwise, a full disk for instance, leaves the folder as it was, but for samples: each of
    those stands for itself, so they stay, and completions are one set.
    """

    FLUSH_SECONDS = 0.5
    """Pictures are written together after so long: the disk is waited for once."""

    def __init__(
        self,
        out: Path,
        codec: Codec | None,
        kind: str,
        n: int,
        record: dict[str, Any],
        inputs: Iterable[Path] = (),
    ) -> None:
        """kind: `completion` or `sample`, the files' name; codec None writes PNG."""
        self.out, self.codec, self.kind, self.n, self.record = Path(out), codec, kind, n, record
        self.extension = codec.extension if codec else ".png"
        self.clips = codec is not None and codec.media == "clip"
        claim(self.out, PICTURES, inputs=inputs, names=self._names())
        self.drawn: dict[int, Drawn] = {}
        """Those on the disk."""
        self._waiting: list[Drawn] = []
        self._files: list[str] = []
        self._call: Call | None = None
        self._aside: Path | None = None
        self._made = not self.out.exists()
        self._flushed = time.monotonic()

    def _name(self, number: int) -> str:
        digits = max(2, len(str(self.n - 1)))  # listed in the order of their numbers
        return f"{self.kind}-{number:0{digits}d}{self.extension}"

    def _names(self) -> Iterator[str]:
        """All that may be written."""
        yield "run.json"
        yield from ("original" + self.extension, "prompt" + self.extension)[
            : 2 * (self.kind == "completion")
        ]
        yield from (self._name(number) for number in range(self.n))
        # One page, if only few are drawn before Ctrl-C.
        for name in dict.fromkeys(["sheet", *page_names(self.codec, self.n, self.n)]):
            yield from (name + ".png", name + ".gif")[: 1 + self.clips]

    def add(self, call: Call, drawn: Drawn) -> None:
        """Take a picture; see `generation.pictures.Each`."""
        self._call = call
        self._waiting.append(drawn)
        if time.monotonic() - self._flushed > self.FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Write the pictures that wait."""
        files = {}
        given = given_of(self._call) if self.codec and not self.drawn else {}
        for name, stream in given.items():
            files[name + self.extension] = file_of(self.codec, stream, None)
        for one in self._waiting:
            files[self._name(one.number)] = file_of(self.codec, one.stream, one.image)
        drawn = self.drawn | {one.number: one for one in self._waiting}
        self._write(files, self._told(drawn, False))
        self.drawn, self._waiting = drawn, []
        self._flushed = time.monotonic()

    def _write(self, files: dict[str, bytes], told: dict[str, Any]) -> dict[str, Any]:
        """Write `files` and then run.json, or nothing where one of them finds no room; give what
        run.json holds."""
        if self._aside is None:
            self._set_aside()
        names = [*self._files, *(name for name in files if name not in self._files)]
        order = {name: place for place, name in enumerate(self._names())}
        told |= {"files": [*sorted(names, key=order.__getitem__), "run.json"]}
        with ExitStack() as stack:
            for name, data in files.items():
                stack.enter_context(staged(self.out / name, [data]))
            write_json(self.out / "run.json", told)
            self._files = names
        return told

    def _set_aside(self) -> None:
        """Move what an earlier run wrote into a hidden folder inside `out`, its record last: while
        that is there, the files are known."""
        out = self.out
        try:
            out.mkdir(parents=True, exist_ok=True)
            for path, name in halves(out, ("run.json",), "old"):
                # Of a run that was killed, maybe in the midst of the moving.
                moved = (path / name).exists()
                if moved and len(ours(out, PICTURES)) > 1:
                    shutil.rmtree(path)
                    continue
                if moved:  # the record of pictures that never came
                    (out / name).unlink(missing_ok=True)
                _take_back(out, path)
            for path, _ in halves(out, PICTURES.names):
                path.unlink()
            self._aside = Path(tempfile.mkdtemp(prefix=".run.json.", suffix=".old", dir=out))
            for name in sorted(ours(out, PICTURES), key=lambda name: name == "run.json"):
                os.replace(out / name, self._aside / name)
        except OSError as error:
            raise explain(error, out) from error

    def _told(self, drawn: dict[int, Drawn], finished: bool) -> dict[str, Any]:
        rows = [drawn[number] for number in sorted(drawn)]
        return {
            "finished": finished,
            "pictures": len(rows),
            "tokens": sum(row.tokens for row in rows),
            "settings": self._call.settings if self._call else {},
            "out": str(self.out),
            "bits": [round(row.bits, 1) for row in rows if row.stream is not None],
            **self.record,
        }

    def finish(self, pictures: Result) -> dict[str, Any]:
        """Write what is left; give the record of `run.json`."""
        self._call = pictures
        if self._waiting:
            self._flush()
        told = self._told(self.drawn, True) | summary(pictures)
        result = self._write(self._sheets(), told)
        self._forget()
        return result

    def _sheets(self) -> dict[str, bytes]:
        rows, files = [self.drawn[number] for number in sorted(self.drawn)], {}
        names = page_names(self.codec, len(rows), self.n)
        for name, page in zip(names, pages_of(self.codec, len(rows))):
            images = [(f"{self.kind} {rows[i].number}", rows[i].image) for i in page]
            files[name + ".png"] = png(sheet_of(self.codec, self._call, images))
            if self.codec and isinstance(self.codec.config, ClipShape):
                tiles = tiles_of(self.codec, self._call, images)
                files[name + ".gif"] = animation(tiles, self.codec.config.fps)
        return files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        stopped = isinstance(error, KeyboardInterrupt)
        with suppress(InputError, OSError):
            if stopped and self._waiting:
                self._flush()
        keep = self.drawn and (stopped or self.kind == "sample")
        if keep:
            with suppress(InputError, OSError):  # a full disk may have no room for a sheet
                self._write(self._sheets(), self._told(self.drawn, False))
            self._forget()
        else:
            self._restore()
        if stopped:
            raise Stopped(
                f"stopped, {len(self.drawn) if keep else 0} of {self.n} written to {self.out}"
                if keep
                else f"stopped, 0 of {self.n} written"
            ) from error

    def _forget(self) -> None:
        """The earlier run is no longer wanted."""
        if self._aside:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _restore(self) -> None:
        """Leave the folder as it was before."""
        for name in [*self._files, "run.json"] if self._files else ():
            (self.out / name).unlink(missing_ok=True)
        if self._aside:
            _take_back(self.out, self._aside)
        if self._made:
            with suppress(OSError):
                self.out.rmdir()


def _take_back(out: Path, aside: Path) -> None:
    for file in sorted(aside.iterdir(), key=lambda file: file.name != "run.json"):
        if not os.path.lexists(out / file.name):
            os.replace(file, out / file.name)
    shutil.rmtree(aside, ignore_errors=True)
