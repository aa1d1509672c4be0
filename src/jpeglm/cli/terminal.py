"""A sheet in the terminal itself, in those that show pictures.

Three ways are in use: kitty's graphics protocol (kitty, Ghostty, WezTerm, Konsole), iTerm2's inline
images, and sixel (DEC VT340; foot, mlterm, contour, Windows Terminal). The terminal is known by its
environment; JPEGLM_TERMINAL=kitty, iterm, sixel or off decides where that is wrong.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jpeglm.cli.common import note
from jpeglm.config import InputError, shorten

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["WAYS", "escapes", "show_sheet", "way_of"]

VARIABLE = "JPEGLM_TERMINAL"
WAYS = ("kitty", "iterm", "sixel", "off")
PROGRAMS = {
    "kitty": "kitty", "ghostty": "kitty", "WezTerm": "iterm", "iTerm.app": "iterm",
    "vscode": "iterm", "mintty": "iterm",
}  # fmt: skip
"""TERM_PROGRAM → way."""
TERMS = {"xterm-kitty": "kitty", "xterm-ghostty": "kitty", "foot": "sixel", "mlterm": "sixel",
         "contour": "sixel", "yaft-256color": "sixel"}  # fmt: skip
"""TERM → way."""
MARKS = {"KITTY_WINDOW_ID": "kitty", "KONSOLE_VERSION": "kitty", "WT_SESSION": "sixel"}
"""Variable that is set → way."""
LARGEST = 1000
"""Pixels of a side that is shown."""
CHUNK = 4096
"""Characters that kitty takes at a time."""
COLOURS = 256
"""Of a sixel picture."""


def way_of(environment: Mapping[str, str]) -> str:
    """One of `WAYS`, for a terminal of this environment; InputError for an unknown wish."""
    asked = environment.get(VARIABLE, "")
    if asked:
        if asked not in WAYS:
            raise InputError(f"{VARIABLE} is {shorten(asked)}; choose one of {', '.join(WAYS)}")
        return asked
    if "TMUX" in environment or environment.get("TERM", "").startswith(("screen", "tmux")):
        return "off"  # which hands such sequences on only where it was told to
    for name, way in MARKS.items():
        if name in environment:
            return way
    program = PROGRAMS.get(environment.get("TERM_PROGRAM", ""), "off")
    return TERMS.get(environment.get("TERM", ""), program)


def show_sheet(folder: Path, files: Sequence[str]) -> None:
    """Show the first sheet among a run's files where standard output is a terminal that can."""
    sheets = [name for name in files if name.startswith("sheet") and name.endswith(".png")]
    if not sheets or sys.stdout is None or not sys.stdout.isatty():
        return
    try:
        way = way_of(os.environ)
    except InputError as error:  # the pictures are there all the same
        note(str(error))
        return
    if way == "off":
        return
    from PIL import Image

    with Image.open(folder / sheets[0]) as image:
        print("".join(escapes(image.convert("RGB"), way)), flush=True)


def escapes(image: Image.Image, way: str) -> Iterator[str]:
    """The control sequences that show an RGB picture, shrunk to `LARGEST` where it is larger."""
    image = image.copy()
    image.thumbnail((LARGEST, LARGEST))
    if way == "sixel":
        yield from _sixel(image)
        return
    out = io.BytesIO()
    image.save(out, "PNG")
    data = base64.b64encode(out.getvalue()).decode()
    if way == "iterm":
        yield f"\033]1337;File=inline=1;size={len(out.getvalue())}:{data}\a"
        return
    for start in range(0, len(data), CHUNK):
        more = int(start + CHUNK < len(data))
        head = "a=T,f=100," if start == 0 else ""
        yield f"\033_G{head}m={more};{data[start : start + CHUNK]}\033\\"


def _sixel(image: Image.Image) -> Iterator[str]:
    """Bands of six rows; in each, colour by colour, a character for each column, whose bits say
    which rows have it. Runs are written as `!count`."""
    drawn = image.quantize(COLOURS)
    palette = np.array(drawn.getpalette(), int).reshape(-1, 3)
    pixels = np.asarray(drawn)
    yield f'\033P0;1q"1;1;{image.width};{image.height}'
    for number in np.unique(pixels).tolist():
        red, green, blue = (round(value * 100 / 255) for value in palette[number])
        yield f"#{number};2;{red};{green};{blue}"
    for top in range(0, image.height, 6):
        band = pixels[top : top + 6]
        weights = 1 << np.arange(len(band))[:, None]
        for number in np.unique(band).tolist():
            columns = ((band == number) * weights).sum(0) + 63
            yield f"#{number}{_runs(columns)}$"
        yield "-"
    yield "\033\\"


def _runs(columns: np.ndarray) -> str:
    edges = np.concatenate([[0], np.flatnonzero(np.diff(columns)) + 1, [len(columns)]])
    return "".join(
        f"!{count}{chr(columns[start])}" if count > 3 else chr(columns[start]) * count
        for start, count in zip(edges[:-1].tolist(), np.diff(edges).tolist())
    )
