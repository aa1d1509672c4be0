"""What a decoder knows before each token of a picture, as numbers for a model to read.

`walk` decodes a picture's coefficients token by token, as any decoder does, and says for the place
behind each token where the next symbol stands (MCU, block, coefficient) and what the blocks left,
above and, for the second chroma, of the first chroma hold there: the neighbourhood that Lepton's
arithmetic coder conditions on (Horn et al. 2017, NSDI, section 3). Nothing of it looks ahead.
"""

from __future__ import annotations

import numpy as np

from jpeglm.kernels import kernel
from jpeglm.syntax.jpeg import (
    BLOCK,
    MCU,
    PENDING,
    PREDICTION,
    VALUE,
    JpegSpec,
    K,
    start_state,
    symbol_step,
)
from jpeglm.tokenizer import Tokenizer

NEAR, FEW, LEVELS = 4, 15, 20
"""Where values of coefficients, numbers of them, and differences of DC are cut off."""
NONE_NEAR, NONE_LEVEL = 2 * NEAR + 1, 2 * LEVELS + 1
"""There is no such block; no DC comes next."""

COLUMNS = {
    "block": 16,
    "coefficient": 65,
    "pending": 12,
    "across": 17,
    "down": 17,
    "level": NONE_LEVEL + 1,
    "left": NONE_NEAR + 1,
    "above": NONE_NEAR + 1,
    "other": NONE_NEAR + 1,
    "left_rest": FEW + 2,
    "above_rest": FEW + 2,
    "other_rest": FEW + 2,
    "soon": FEW + 1,
}
"""What `decode` tells of a place, and how many values each has: block of the MCU; coefficient that
comes next, 64: none; bits of an amplitude that are to come; place of the block in its component's
plane; the DC that left and above foretell, less the running one; the coefficient there in the
blocks left, above, and of the other chroma; how many from there on are not zero, FEW + 1 without
such a block; sizes of the next four in left and above."""


class Layout:
    """Where the blocks of an MCU lie. spec: of 4:2:0 or 4:4:4 pictures; across: MCUs a row."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spec = tokenizer.alphabet.grammar().spec
        assert isinstance(spec, JpegSpec)
        self.spec = spec
        self.across = round(spec.mcus**0.5)
        assert self.across**2 == spec.mcus, "square pictures alone"
        self.side = 2 if len(spec.component) == 6 else 1
        self.symbols = tokenizer.symbols.astype(np.int64)
        self.offsets = tokenizer.offsets


def decode(layout: Layout, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(int64 [n, COLUMNS], of which row i is known behind id i of a picture, BOS first;
    coefficients, int64 [component, y, x, 64] in zigzag order; int64 [n, 3], the ids that wrote, in
    the blocks left, above and of the other chroma, the coefficient that comes next, 0: none)"""
    out, near = np.zeros((len(ids), len(COLUMNS)), np.int64), np.zeros((len(ids), 3), np.int64)
    planes = np.zeros((3, layout.across * layout.side, layout.across * layout.side, 64), np.int64)
    state, ids = start_state(layout.spec), np.asarray(ids, np.int64)
    walk(
        layout.spec, state, ids, layout.symbols, layout.offsets, layout.across, layout.side,
        planes, np.zeros_like(planes), out, near,
    )  # fmt: skip
    return out, planes, near


@kernel()
def walk(spec, state, ids, symbols, offsets, across, side, planes, wrote, out, near):
    size, done = np.int64(0), np.int64(0)
    tell(spec, state, planes, across, side, out[0])
    for i in range(1, len(ids)):
        if ids[i] < len(offsets) - 1:
            for j in range(offsets[ids[i]], offsets[ids[i] + 1]):
                size = take(spec, state, planes, across, side, symbols[j], size)
        tell(spec, state, planes, across, side, out[i])
        done = point(spec, state, wrote, across, side, i, done, near[i])


@kernel()
def point(spec, state, wrote, across, side, i, done, row):
    """Note id i as what wrote the coefficients since `done`, counted from the picture's first; who
    wrote those beside the next one; how many are written now."""
    many = len(spec.component)
    now = (state[MCU] * many + state[BLOCK]) * 64 + state[K]
    if state[PENDING] > 0:
        now -= 1
    for number in range(done, now):
        block = number // 64
        component, y, x = place(spec, block % many, block // many, across, side)
        wrote[component, y, x, number % 64] = i
    if state[MCU] < spec.mcus:
        component, y, x = place(spec, state[BLOCK], state[MCU], across, side)
        if x > 0:
            row[0] = wrote[component, y, x - 1, now % 64]
        if y > 0:
            row[1] = wrote[component, y - 1, x, now % 64]
        if component == 2:
            row[2] = wrote[1, y, x, now % 64]
    return now


@kernel()
def place(spec, block, mcu, across, side):
    """(component, y, x) of a block in its plane."""
    component = spec.component[block]
    inner = side if component == 0 else 1
    y, x = (mcu // across) * inner, (mcu % across) * inner
    if component == 0:
        y, x = y + block // side, x + block % side
    return component, y, x


@kernel()
def take(spec, state, planes, across, side, symbol, size):
    """Decode a symbol into `planes`; the size of the amplitude that is being read."""
    block, mcu = state[BLOCK], state[MCU]
    component, y, x = place(spec, block, mcu % spec.mcus, across, side)
    first, pending = state[K] == 0, state[PENDING]
    if pending > 0:
        k = state[K] - 1
        # Of a DC difference the running value tells, before the next block resets it.
        if not symbol_step(spec, state, symbol):
            return size
        if state[PENDING] == 0 or pending <= 4:
            if k == 0:
                planes[component, y, x, 0] = state[PREDICTION + component]
            else:
                value = state[VALUE]
                if value < (1 << (size - 1)):
                    value -= (1 << size) - 1
                planes[component, y, x, k] = value
        return size
    if not symbol_step(spec, state, symbol):
        return size
    if first and state[PENDING] == 0:
        planes[component, y, x, 0] = state[PREDICTION + component]
    return state[PENDING]


@kernel()
def cut(value, most):
    return min(max(value, -most), most) + most


@kernel()
def rest(plane, y, x, k):
    """How many coefficients from k on are not zero."""
    count = 0
    for i in range(max(k, 1), 64):
        if plane[y, x, i] != 0:
            count += 1
    return min(count, FEW)


@kernel()
def tell(spec, state, planes, across, side, row):
    if state[MCU] >= spec.mcus:
        row[0], row[1], row[2] = 15, 64, 0
        row[3], row[4], row[5] = 16, 16, NONE_LEVEL
        row[6], row[7], row[8] = NONE_NEAR, NONE_NEAR, NONE_NEAR
        row[9], row[10], row[11] = FEW + 1, FEW + 1, FEW + 1
        row[12] = 0
        return
    component, y, x = place(spec, state[BLOCK], state[MCU], across, side)
    k, pending = state[K], state[PENDING]
    plane = planes[component]
    dc = k == 0 or (k == 1 and pending > 0)
    here = 0 if dc else (k - 1 if pending > 0 else k)
    row[0], row[1], row[2], row[3], row[4] = state[BLOCK], k, pending, x, y
    row[5] = NONE_LEVEL
    if dc:
        guess = 0
        if x > 0 and y > 0:
            guess = (plane[y, x - 1, 0] + plane[y - 1, x, 0]) // 2
        elif x > 0:
            guess = plane[y, x - 1, 0]
        elif y > 0:
            guess = plane[y - 1, x, 0]
        row[5] = cut(guess - state[PREDICTION + component], LEVELS)
    row[6], row[9] = NONE_NEAR, FEW + 1
    row[7], row[10] = NONE_NEAR, FEW + 1
    row[8], row[11] = NONE_NEAR, FEW + 1
    if here > 63:
        return
    row[12] = 0
    soon = 0
    if x > 0:
        row[6], row[9] = cut(plane[y, x - 1, here], NEAR), rest(plane, y, x - 1, here)
        for i in range(max(here, 1), min(here + 4, 64)):
            soon += abs(plane[y, x - 1, i])
    if y > 0:
        row[7], row[10] = cut(plane[y - 1, x, here], NEAR), rest(plane, y - 1, x, here)
        for i in range(max(here, 1), min(here + 4, 64)):
            soon += abs(plane[y - 1, x, i])
    if component == 2:
        row[8], row[11] = cut(planes[1, y, x, here], NEAR), rest(planes[1], y, x, here)
    row[12] = min(soon, FEW)
