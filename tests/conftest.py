"""What the tests share: pictures, those of tests/pictures and synthetic ones; the command line."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(scope="session")
def picture_files() -> list[Path]:
    return sorted(PICTURES.glob("*.jpg"))


@pytest.fixture(scope="session")
def pictures(picture_files) -> list[Image.Image]:
    """Real photographs, noise, a flat picture and a smooth one."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    smooth = rng.normal(0, 8, (48, 48, 3)).cumsum(0).cumsum(1) + 128
    return [
        *(Image.open(file).convert("RGB") for file in picture_files[:4]),
        noise,
        Image.new("RGB", (50, 70), (200, 30, 90)),
        Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)),
    ]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `jpeglm …` in this process, where what is imported and compiled stays.

    What is printed goes to two files that live as long as this: libraries keep the stream that they
    found at their first message. Their descriptors stand in for 1 and 2 too, for what C and worker
    processes print. Tests of what a process does (kills, pipes, other interpreters) start one.
    """

    def __init__(self, out: IO[str], err: IO[str]) -> None:
        self.streams = out, err

    def __call__(self, *words: object, cwd: Path | None = None) -> Ended:
        """In the folder `cwd`, or where we are."""
        from jpeglm import cli

        for stream in self.streams:
            stream.seek(0)
            stream.truncate()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd or Path.cwd())
            patch.setattr(sys, "argv", ["jpeglm", *map(str, words)])
            patch.setattr(sys, "stdout", self.streams[0])
            patch.setattr(sys, "stderr", self.streams[1])
            with self.descriptors(), pytest.raises(SystemExit) as ended:
                cli.main()
        code = ended.value.code
        assert isinstance(code, int)
        out, err = map(self.text, self.streams)
        assert "Traceback" not in err, err
        return Ended(code, out, err)

    def told(self, *words: object, cwd: Path | None = None) -> Any:
        """What a command that ends well says with --json: one line, one object."""
        ended = self(*words, "--json", cwd=cwd)
        assert ended.code == 0, ended.err
        assert ended.out.count("\n") == 1
        return json.loads(ended.out)

    @contextmanager
    def descriptors(self) -> Iterator[None]:
        kept = [os.dup(1), os.dup(2)]
        try:
            for descriptor, stream in enumerate(self.streams, 1):
                os.dup2(stream.fileno(), descriptor)
            yield
        finally:
            for descriptor, (stream, before) in enumerate(zip(self.streams, kept), 1):
                stream.flush()
                os.dup2(before, descriptor)
                os.close(before)

    @staticmethod
    def text(stream: IO[str]) -> str:
        stream.seek(0)
        return stream.read()


@pytest.fixture(scope="session")
def jpeglm() -> Iterator[CommandLine]:
    """The command line, run in this process."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        yield CommandLine(out, err)
