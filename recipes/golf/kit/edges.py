"""What the pixels along a block's edges foretell of its coefficients, as numbers for a model.

The last row of the block above and the last column of the block on the left are known; a smooth
picture goes on there. The first row of a block is, column frequency by column frequency, a sum over
its coefficients of that frequency: what the row above says, less what is decoded already, is what
is left for the coefficient that comes next. So Lepton predicts DC and the first row and column of
AC (Horn et al. 2017, NSDI, section 3.3); here it is a hint for each coefficient, and the model says
what it is worth.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from jpeglm.codecs.jpeg import JpegCodec
from jpeglm.kernels import kernel
from jpeglm.syntax.jpeg_tables import ZIGZAG
from kit.parse import COLUMNS, LEVELS, NONE_LEVEL, Layout, cut

HERE, SOON = 8, 4
"""Half steps of the quantiser at which a foretold coefficient is cut off: of the next, and of the
three behind it."""
EDGES = {
    "edge_level": NONE_LEVEL + 1,
    "edge_above": 2 * HERE + 2,
    "edge_left": 2 * HERE + 2,
    "edge_1": 2 * SOON + 2,
    "edge_2": 2 * SOON + 2,
    "edge_3": 2 * SOON + 2,
}
"""Of `foretold`, and how many values each has, the last: none."""
PLACE = np.argsort(ZIGZAG)
"""Place in zigzag order of each row · 8 + column."""
LINES = np.stack([
    np.stack([PLACE[8 * np.arange(8) + natural % 8] for natural in ZIGZAG.tolist()]),
    np.stack([PLACE[8 * (natural // 8) + np.arange(8)] for natural in ZIGZAG.tolist()]),
])  # fmt: skip
"""int64 [2, 64, 8]: the coefficients in the column, and in the row, of each, by frequency."""
FIRST = np.array(
    [math.sqrt(1 / 8), *(0.5 * math.cos(math.pi * v / 16) for v in range(1, 8))], np.float64
)
"""What a coefficient of frequency v adds to the first of eight samples."""
LAST = FIRST * np.where(np.arange(8) % 2 == 0, 1.0, -1.0)
BLOCK, COEFFICIENT, PENDING, ACROSS, DOWN = (
    list(COLUMNS).index(name) for name in ("block", "coefficient", "pending", "across", "down")
)


def steps_of(codec: JpegCodec) -> np.ndarray:
    """float64 [3, 64]: quantiser steps of each component, in zigzag order."""
    image = Image.open(io.BytesIO(codec.wrap(codec.encode(codec.blank()))))
    tables = image.quantization
    return np.array([np.array(tables[min(one, 1)], float)[ZIGZAG] for one in range(3)])


def foretold(
    layout: Layout, steps: np.ndarray, known: np.ndarray, planes: np.ndarray
) -> np.ndarray:
    """int64 [n, EDGES] for rows and coefficients as `parse.decode` gives them."""
    assert layout.side == 2 and layout.spec.interval == 1, "4:2:0 with a marker after every MCU"
    out = np.zeros((len(known), len(EDGES)), np.int64)
    edges(known, planes, steps, LINES, FIRST, LAST, out)
    return out


@kernel()
def edges(known, planes, steps, lines, first, last, out):
    for i in range(len(known)):
        block, k, pending = known[i, BLOCK], known[i, COEFFICIENT], known[i, PENDING]
        here = k - 1 if pending > 0 else k
        out[i, 0] = NONE_LEVEL
        out[i, 1], out[i, 2] = 2 * HERE + 1, 2 * HERE + 1
        for j in range(3):
            out[i, 3 + j] = 2 * SOON + 1
        if block > 5 or here > 63:
            continue
        y, x, component = known[i, DOWN], known[i, ACROSS], max(0, block - 3)
        plane, quantiser = planes[component], steps[component]
        if here == 0:
            guess = mean(plane, quantiser, y, x, 0, 0, lines, first, last)
            out[i, 0] = cut(np.int64(round(guess)) - running(plane, block, y, x), LEVELS)
            continue
        if y > 0:
            value = hint(plane, quantiser, y, x, here, here, 0, lines, first, last)
            out[i, 1] = cut(np.int64(round(2 * value)), HERE)
        if x > 0:
            value = hint(plane, quantiser, y, x, here, here, 1, lines, first, last)
            out[i, 2] = cut(np.int64(round(2 * value)), HERE)
        if y > 0 or x > 0:
            for j in range(min(3, 63 - here)):
                value = mean(plane, quantiser, y, x, here + 1 + j, here, lines, first, last)
                out[i, 3 + j] = cut(np.int64(round(2 * value)), SOON)


@kernel()
def running(plane, block, y, x):
    """The DC that a difference is taken from: a marker stands before each MCU."""
    if block == 1 or block == 3:
        return plane[y, x - 1, 0]
    if block == 2:
        return plane[y - 1, x + 1, 0]
    return np.int64(0)


@kernel()
def mean(plane, quantiser, y, x, k, here, lines, first, last):
    """Of the hints of both sides that there are; 0 without any."""
    value, count = 0.0, 0
    if y > 0:
        value += hint(plane, quantiser, y, x, k, here, 0, lines, first, last)
        count += 1
    if x > 0:
        value += hint(plane, quantiser, y, x, k, here, 1, lines, first, last)
        count += 1
    return value / max(count, 1)


@kernel()
def hint(plane, quantiser, y, x, k, here, side, lines, first, last):
    """What the block above (side 0) or on the left (1) leaves for coefficient k, in steps of its
    quantiser, when those before `here` are decoded."""
    near = plane[y - 1, x] if side == 0 else plane[y, x - 1]
    line = lines[side, k]
    total, own = 0.0, 0
    for along in range(8):
        i = line[along]
        total += last[along] * near[i] * quantiser[i]
        if i < here:
            total -= first[along] * plane[y, x, i] * quantiser[i]
        if i == k:
            own = along
    return total / (first[own] * quantiser[k])
