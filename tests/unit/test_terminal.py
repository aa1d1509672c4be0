"""Sheets in terminals: what is sent is the picture, by decoders that others wrote."""

import base64
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from jpeglm.cli.terminal import CHUNK, LARGEST, escapes, way_of
from jpeglm.config import InputError


@pytest.fixture(scope="module")
def picture():
    x, y = np.meshgrid(np.arange(90), np.arange(47))
    return Image.fromarray(np.stack([2 * x, 5 * y, x + y], 2).astype(np.uint8))


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({}, "off"),
        ({"TERM": "xterm-256color"}, "off"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "off"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, "off"),
        ({"TERM": "dumb", "JPEGLM_TERMINAL": "sixel"}, "sixel"),
        ({"TERM": "xterm-kitty", "JPEGLM_TERMINAL": "off"}, "off"),
    ],
)
def test_terminals_are_known_by_their_environment(environment, way):
    assert way_of(environment) == way


def test_an_unknown_wish_is_refused():
    with pytest.raises(InputError, match="choose one of kitty, iterm, sixel, off"):
        way_of({"JPEGLM_TERMINAL": "ascii"})


def test_kitty_and_iterm_get_the_png(picture):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    for image in (picture, noise):
        parts = list(escapes(image, "kitty"))
        found = [re.fullmatch(r"\033_G([\w=,]*);([\w+/=]*)\033\\", part) for part in parts]
        assert all(found) and all(len(one[2]) <= CHUNK for one in found)
        assert [one[1][-1] for one in found] == ["1"] * (len(parts) - 1) + ["0"]
        assert found[0][1].startswith("a=T,f=100,m=")
        data = base64.b64decode("".join(one[2] for one in found))
        assert (np.asarray(Image.open(io.BytesIO(data))) == np.asarray(image)).all()
        (one,) = escapes(image, "iterm")
        size, data = re.fullmatch(r"\033\]1337;File=inline=1;size=(\d+):(.*)\a", one).groups()
        data = base64.b64decode(data)
        assert len(data) == int(size)
        assert (np.asarray(Image.open(io.BytesIO(data))) == np.asarray(image)).all()
    assert len(parts) > 1


def test_sixel_is_what_another_decoder_shows(picture, tmp_path):
    decode = shutil.which("sixel2png")
    if not decode:
        pytest.skip("there is no sixel2png (libsixel-bin)")
    (tmp_path / "x.six").write_text("".join(escapes(picture, "sixel")))
    subprocess.run([decode, "-i", tmp_path / "x.six", "-o", tmp_path / "x.png"], check=True)
    shown = Image.open(tmp_path / "x.png").convert("RGB")
    assert shown.size == picture.size
    apart = np.abs(np.asarray(shown, int) - np.asarray(picture.quantize(256).convert("RGB"), int))
    assert apart.max() <= 2, "colours are told in hundredths"


def test_large_pictures_are_shrunk():
    (one,) = escapes(Image.new("RGB", (4 * LARGEST, LARGEST)), "iterm")
    data = base64.b64decode(one.partition(":")[2][:-1])
    assert Image.open(io.BytesIO(data)).size == (LARGEST, LARGEST // 4)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_only_terminals_get_pictures(picture, tmp_path):
    """The same call beside a pipe, and beside a terminal."""
    picture.save(tmp_path / "sheet.png")
    code = "import sys; from pathlib import Path; from jpeglm.cli.terminal import show_sheet; "
    words = [sys.executable, "-c", code + "show_sheet(Path(sys.argv[1]), ['sheet.png'])", tmp_path]
    environment = {**os.environ, "JPEGLM_TERMINAL": "iterm"}
    assert subprocess.run(words, env=environment, capture_output=True).stdout == b""
    ours, theirs = pty.openpty()
    said = bytearray()

    def read():
        with open(ours, "rb", 0, closefd=False) as file:
            while not said.endswith(b"\a\r\n"):
                said.extend(file.read(1 << 16))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    subprocess.run(words, env=environment, stdout=theirs, check=True)
    reader.join(10)
    assert said.startswith(b"\033]1337;File=inline=1")
