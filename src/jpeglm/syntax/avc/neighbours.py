"""What a macroblock takes from those to its left and above, within its slice.

    nC chooses the column of Table 9-5 ▸ predicted intra modes ▸ which intra modes have samples

Blocks are numbered as they are read: inside a macroblock the neighbours lie in CURRENT and MODE,
across its edge in LEFT, LEFT_MODE and the column's part of TOP. Kernels take an `AvcSpec` and the
state `s`, int64 [`start_state`], which they change in place; numbers are int64.
"""

from __future__ import annotations

import numpy as np

from jpeglm.kernels import kernel
from jpeglm.syntax.avc.state import (
    CURRENT,
    INDEX,
    LEFT,
    LEFT_MODE,
    MB,
    MODE,
    SLICE,
    STAGE,
    TOP,
    TOP_STEP,
)
from jpeglm.syntax.avc.tables import COEFF_TABLE


@kernel()
def has_left(spec, s):
    """Whether the macroblock to the left is in this slice."""
    return s[MB] % spec.columns > 0 and s[MB] - 1 >= spec.first[s[SLICE]]


@kernel()
def has_above(spec, s):
    """The same of the one above."""
    return s[MB] - spec.columns >= spec.first[s[SLICE]]


@kernel()
def has_corner(spec, s):
    """The same of the one above to the left."""
    return s[MB] % spec.columns > 0 and s[MB] - spec.columns - 1 >= spec.first[s[SLICE]]


@kernel()
def clear_macroblock(s):
    """No coefficients, DC prediction: what a new macroblock begins with."""
    for i in range(24):
        s[CURRENT + i] = 0
    for i in range(16):
        s[MODE + i] = 2


@kernel()
def next_macroblock(spec, s):
    """Store what the macroblocks after this one need to know of it, and go on."""
    top = TOP + TOP_STEP * (s[MB] % spec.columns)
    for i in range(4):
        s[LEFT + i] = s[CURRENT + 4 * i + 3]
        s[top + i] = s[CURRENT + 12 + i]
        s[LEFT_MODE + i] = s[MODE + 4 * i + 3]
        s[top + 8 + i] = s[MODE + 12 + i]
    for plane in range(2):
        for i in range(2):
            s[LEFT + 4 + 2 * plane + i] = s[CURRENT + 16 + 4 * plane + 2 * i + 1]
            s[top + 4 + 2 * plane + i] = s[CURRENT + 16 + 4 * plane + 2 + i]
    s[MB] += 1


@kernel()
def place_of(stage):
    """(offset in CURRENT, column, row, blocks a side) of the block of a stage from 1 on."""
    if stage <= 16:
        i = max(stage - 1, 0)
        x, y = (i & 1) + 2 * ((i >> 2) & 1), ((i >> 1) & 1) + 2 * (i >> 3)
        return 4 * y + x, x, y, 4
    i = stage - 19
    x, y = i & 1, (i >> 1) & 1
    return 16 + 4 * (i >> 2) + 2 * y + x, x, y, 2


@kernel()
def coeff_table(spec, s):
    """Which column of Table 9-5 the neighbours choose (9.2.1)."""
    place, x, y, side = place_of(s[STAGE])
    plane = 0 if side == 4 else 4 + 2 * ((s[STAGE] - 19) >> 2)
    number, known = 0, 0
    if x > 0:
        number += s[CURRENT + place - 1]
        known += 1
    elif has_left(spec, s):
        number += s[LEFT + plane + y]
        known += 1
    if y > 0:
        number += s[CURRENT + place - side]
        known += 1
    elif has_above(spec, s):
        number += s[TOP + TOP_STEP * (s[MB] % spec.columns) + plane + x]
        known += 1
    if known == 2:
        number = (number + 1) >> 1
    return COEFF_TABLE + (0 if number < 2 else 1 if number < 4 else 2 if number < 8 else 3)


@kernel()
def predicted_mode(spec, s):
    """Intra4x4PredMode that the neighbours suggest for block INDEX (8.3.1.1)."""
    place, x, y, _ = place_of(s[INDEX] + 1)
    a = b = -1
    if x > 0:
        a = s[MODE + place - 1]
    elif has_left(spec, s):
        a = s[LEFT_MODE + y]
    if y > 0:
        b = s[MODE + place - 4]
    elif has_above(spec, s):
        b = s[TOP + TOP_STEP * (s[MB] % spec.columns) + 8 + x]
    return np.int64(2) if a < 0 or b < 0 else np.int64(min(a, b))


@kernel()
def mode_fits(spec, s, mode):
    """Whether the samples that an Intra_4x4 mode reads are there (8.3.1.2)."""
    _, x, y, _ = place_of(s[INDEX] + 1)
    left = x > 0 or has_left(spec, s)
    above = y > 0 or has_above(spec, s)
    if x > 0:
        corner = above
    elif y > 0:
        corner = left
    else:
        corner = has_corner(spec, s)
    if mode in (0, 3, 7):
        return above
    if mode in (1, 8):
        return left
    return mode == 2 or (left and above and corner)


@kernel()
def area_fits(spec, s, vertical, horizontal, mode):
    """The same for Intra_16x16 and chroma, whose modes number differently; 3 is plane."""
    if mode == vertical:
        return has_above(spec, s)
    if mode == horizontal:
        return has_left(spec, s)
    return mode != 3 or (has_above(spec, s) and has_left(spec, s) and has_corner(spec, s))
