"""The state of a slice's machine: an int64 vector of named fields, and the geometry it moves in.

    what is being read ▸ left: coefficients, intra modes ▸ this macroblock's ▸ the row's above

Of the macroblocks to the left and above it holds what the next tables depend on, and nothing else:
numbers of coefficients and intra modes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.syntax.avc.symbols import TYPE_I
from jpeglm.syntax.avc.tables import LOOKUP

# Fields of a state.
KIND, FRAME, SLICE, MB, SLICES_DONE, INTRA, SIXTEEN, PATTERN, INDEX, PARTS = range(10)
STAGE, MOST, TOTAL, ONES, LEVELS, SUFFIX, FIRST, ZEROS_LEFT, RUNS, PENDING = range(10, 20)
VALUE, SIZE, AFTER, REFS = 20, 21, 22, 23
LEFT, CURRENT, LEFT_MODE, MODE, TOP = 24, 32, 56, 60, 76
TOP_STEP = 12
"""LEFT: coefficients of 4 luma, 2 Cb, 2 Cr blocks; CURRENT: of 16, 4, 4; TOP: a macroblock column
has 4, 2, 2 and 4 intra modes."""


class AvcSpec(NamedTuple):
    """frames and macroblocks of a clip; first: int64 [slices + 1], first macroblock of each slice
    of a frame, then the number of macroblocks."""

    frames: int
    columns: int
    rows: int
    first: np.ndarray
    lookup: np.ndarray
    """`tables.LOOKUP`; too large for a constant of compiled code."""
    references: int
    """Frames that a P slice may refer to, as far as there are so many before it."""


def avc_spec(
    frames: int, columns: int, rows: int, first: list[int], references: int = 1
) -> AvcSpec:
    """The machine of a clip; first: first macroblock of each slice of a frame."""
    ends = np.array([*first, columns * rows], np.int64)
    return AvcSpec(frames, columns, rows, ends, LOOKUP, references)


def start_state(spec: AvcSpec) -> np.ndarray:
    # Columns 0 to columns - 1 have TOP_STEP fields each; all else lies below TOP.
    state = np.zeros(TOP + TOP_STEP * spec.columns, np.int64)
    state[KIND] = TYPE_I
    return state
