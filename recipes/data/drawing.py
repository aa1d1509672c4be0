"""Drawings out of vector graphics, by Node, and their folder of pictures with captions.

What the recipes of avatars and emoji share. DiceBear, which composes the avatars, is JavaScript;
the resvg beside it draws the emoji's SVG as well, so that no second renderer is needed. Packages
are fetched by npm into a folder that stays.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from packages import command
from PIL import Image

from jpeglm.config import InputError
from jpeglm.files import atomic_folder, atomic_write

SIDE = 64
"""Pixels of a drawing's width and height."""
RESVG = "@resvg/resvg-js@2.6.2"
NPM = Path(__file__).resolve().parents[2] / "data" / "npm"
"""Where npm packages lie if no other place is named."""
AHEAD = 4
"""Requests on their way besides the next: their answers fit into a pipe, so that Node never waits
to write while we wait to write."""
SCRIPT = Path(__file__).with_suffix(".mjs")
INSTALLED = "installed.txt"


def installed(packages: Sequence[str], folder: Path) -> Path:
    """The folder with these npm packages in its node_modules; fetched unless they lie there."""
    wanted = "".join(f"{name}\n" for name in packages)
    stamp = folder / INSTALLED
    if not stamp.exists() or stamp.read_text() != wanted:
        with atomic_folder(folder, ("*",)) as draft:
            (draft / "package.json").write_text('{"private": true}')
            words = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent")
            command(*words, *packages, folder=draft)
            (draft / INSTALLED).write_text(wanted)
    return folder


class Drawer:
    """A Node process that draws: `with Drawer(folder) as drawer: drawer.draw(requests)`."""

    def __init__(self, folder: Path) -> None:
        words = ["node", "--input-type=module", "--eval", SCRIPT.read_text()]
        try:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=os.environ | {"SIDE": str(SIDE)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise InputError("node is not installed; drawings need it") from error

    def draw(self, requests: Iterable[dict[str, Any]]) -> Iterator[np.ndarray | str]:
        """uint8 [SIDE, SIDE, 3] of each request (see drawing.mjs), or why it cannot be drawn; drawn
        while the ones before are used."""
        assert self.process.stdin is not None
        waiting = 0
        try:
            for request in requests:
                with suppress(BrokenPipeError):  # Node has ended, as the next answer tells
                    self.process.stdin.write(json.dumps(request).encode() + b"\n")
                    self.process.stdin.flush()
                waiting += 1
                if waiting > AHEAD:
                    answer = self._answer()
                    waiting -= 1
                    yield answer
            while waiting:
                answer = self._answer()
                waiting -= 1
                yield answer
        finally:
            if waiting:  # answers that no one will read
                self.process.kill()

    def _answer(self) -> np.ndarray | str:
        assert self.process.stdout is not None
        size = int.from_bytes(self.process.stdout.read(4), "little")
        data = self.process.stdout.read(size)
        if not size or len(data) < size:
            raise InputError("node ended before all was drawn; its own words stand above")
        if size != SIDE * SIDE * 3:
            return data.decode()
        return np.frombuffer(data, np.uint8).reshape(SIDE, SIDE, 3)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def write_pictures(folder: Path, pictures: Iterable[tuple[dict[str, Any], np.ndarray]]) -> int:
    """An image folder as Hugging Face's `datasets` reads it, whole or not at all: each picture as
    the PNG that its row of metadata.jsonl names; their number."""
    lines = []
    for draft in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a run that was killed
        shutil.rmtree(draft)
    with atomic_folder(folder) as draft:
        for row, pixels in pictures:
            Image.fromarray(pixels).save(draft / row["file_name"])
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        (draft / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Note in `out` what makes its pictures; InputError if other settings made what lies there."""
    record = out / "recipe.json"
    text = json.dumps(settings, indent=2) + "\n"
    if record.exists() and record.read_text() != text:
        raise InputError(f"{out} was made with other settings; empty it or give another folder")
    atomic_write(record, text.encode())
