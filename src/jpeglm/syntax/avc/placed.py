"""H.264's syntax elements with addresses for skip runs: each macroblock says where it is.

The elements of `symbols`, but in place of «skip so many macroblocks» stands the row and column
of the next coded one, or END where the slice has no more. In I frames the address is implied and
said all the same, so that a model need not count macroblocks to know what lies above. The numbers:

    elements without skip sizes ▸ rows ▸ END ▸ columns

Kernels take an `AvcPlacedSpec` and the state `s`, int64 [`start_state`], the elements' before our
own, which they change in place; arrays of symbols are int32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel, njit
from jpeglm.syntax.avc import completion, machine, state
from jpeglm.syntax.avc.completion import units as units
from jpeglm.syntax.avc.state import AFTER, FRAME, KIND, MB, SLICE, TOP, TOP_STEP, AvcSpec
from jpeglm.syntax.avc.symbols import BASE, BITS, CHUNK, COUNTS, END, SKIP, TYPE_I
from jpeglm.syntax.avc.symbols import symbol_count as element_count

SKIPS = COUNTS[SKIP]
"""Skip sizes stand first among the elements and are left out."""
FIELDS = 2
STAGE, ROW = range(2)
"""Behind the machine's state: 0 a row is next, 1 a column, 2 the macroblock itself; the row."""


class AvcPlacedSpec(NamedTuple):
    """elements: the machine of the slices; rows: number of the first row's symbol."""

    elements: AvcSpec
    rows: int


def avc_placed_spec(elements: AvcSpec) -> AvcPlacedSpec:
    return AvcPlacedSpec(elements, element_count(elements.references) - SKIPS)


def symbol_count(spec: AvcPlacedSpec) -> int:
    return spec.rows + spec.elements.rows + 1 + spec.elements.columns


def start_state(spec: AvcPlacedSpec) -> np.ndarray:
    return np.concatenate([state.start_state(spec.elements), np.zeros(FIELDS, np.int64)])


@kernel()
def _address(spec, s, symbol):
    """Take a row, END or a column."""
    extra = len(s) - FIELDS
    elements = spec.elements
    end = elements.first[s[SLICE] + 1]
    value = symbol - spec.rows
    if s[extra + STAGE] == 0:
        if value == elements.rows:
            if s[FRAME] == 0:
                return False
            machine.take_number(elements, s, np.int64(SKIP), end - s[MB])
            return True
        if value < s[MB] // elements.columns or value * elements.columns >= end:
            return False
        if s[FRAME] == 0 and value != s[MB] // elements.columns:
            return False
        s[extra + STAGE], s[extra + ROW] = 1, value
        return True
    column = value - elements.rows - 1
    if column < 0 or column >= elements.columns:
        return False
    place = s[extra + ROW] * elements.columns + column
    if place < s[MB] or place >= end or (s[FRAME] == 0 and place != s[MB]):
        return False
    if s[FRAME]:
        machine.take_number(elements, s, np.int64(SKIP), place - s[MB])
    s[extra + STAGE] = 2
    return True


@kernel()
def step(spec, s, symbol):
    """Take a symbol; False, and the state undefined, when it is illegal here."""
    extra = len(s) - FIELDS
    if s[extra + STAGE] < 2:
        if s[KIND] == END or symbol < spec.rows:
            return False
        return _address(spec, s, symbol)
    if symbol >= spec.rows or not machine.step(spec.elements, s, symbol + SKIPS):
        return False
    if s[KIND] == SKIP or s[KIND] == TYPE_I or s[KIND] == END:
        s[extra + STAGE] = 0
    return True


def limits(spec: AvcPlacedSpec, spelling: list[tuple[int, ...]]) -> tuple[int, int]:
    """As in `syntax.jpeg`; but too much of these states decides for masks to come back."""
    return 0, 0


@kernel()
def key(spec, s, reach, swing):
    """-1: no states are known to be alike."""
    return np.int64(-1)


@kernel()
def complete(spec, s):
    """Whether all frames are there; nothing may follow."""
    return s[KIND] == END


GROWTH = 80
"""As of the elements, and an address."""


@kernel()
def flat_symbol(spec, s):
    """A symbol that is legal here and says as little as possible."""
    extra = len(s) - FIELDS
    elements = spec.elements
    if s[extra + STAGE] == 2:
        return completion.flat_symbol(elements, s) - SKIPS
    row = s[MB] // elements.columns
    if s[extra + STAGE] == 0:
        return spec.rows + (elements.rows if s[FRAME] else row)
    column = s[MB] % elements.columns if s[extra + ROW] == row else 0
    return spec.rows + elements.rows + 1 + column


@njit()
def shortest(spec, s):
    """Symbols that `flat_symbol` takes to the end: not always the fewest, but always possible."""
    extra = len(s) - FIELDS
    total = np.int64(0)
    trial = s.copy()
    while trial[extra + STAGE] > 0:
        step(spec, trial, flat_symbol(spec, trial))
        total += 1
    elements = spec.elements
    if trial[KIND] == END:
        return total
    slices = len(elements.first) - 1
    if trial[FRAME] == 0:
        total += 6 * (elements.columns * elements.rows - trial[MB])
    else:
        total += slices - trial[SLICE]
    return total + slices * (elements.frames - trial[FRAME] - 1)


@njit()
def place(spec, symbols, out):
    """Elements → placed symbols, in out, at most three for each; how many there are."""
    elements = spec.elements
    s = np.zeros(TOP + TOP_STEP * elements.columns, np.int64)
    s[KIND] = TYPE_I
    used = 0
    for symbol in symbols:
        kind, before = s[KIND], s[MB]
        if kind == TYPE_I:
            out[used] = spec.rows + before // elements.columns
            out[used + 1] = spec.rows + elements.rows + 1 + before % elements.columns
            used += 2
        skips = kind == SKIP or (kind == BITS and s[AFTER] == SKIP)
        frame, number = s[FRAME], s[SLICE]
        machine.step(elements, s, symbol)
        if not skips:
            out[used] = symbol - SKIPS
            used += 1
        elif s[FRAME] != frame or s[SLICE] != number:
            out[used] = spec.rows + elements.rows
            used += 1
        elif s[KIND] != BITS:
            out[used] = spec.rows + s[MB] // elements.columns
            out[used + 1] = spec.rows + elements.rows + 1 + s[MB] % elements.columns
            used += 2
    return used


@kernel()
def _skip(run, out, used):
    """A skip run as elements."""
    size = 0
    while (2 << size) - 1 <= run:
        size += 1
    out[used] = BASE[SKIP] + size
    used += 1
    value, left = run + 1 - (1 << size), size
    while left:
        chunk = min(CHUNK, left)
        left -= chunk
        out[used] = BASE[BITS] + (1 << chunk) - 2 + (value >> left)
        value &= (1 << left) - 1
        used += 1
    return used


@njit()
def unplace(spec, symbols, out):
    """Placed symbols → elements, in out, up to the first that is illegal, at most six for each; how
    many there are."""
    elements = spec.elements
    s = np.zeros(TOP + TOP_STEP * elements.columns + FIELDS, np.int64)
    s[KIND] = TYPE_I
    extra = len(s) - FIELDS
    used = 0
    for symbol in symbols:
        before, stage, frame = s[MB], s[extra + STAGE], s[FRAME]
        end = elements.first[s[SLICE] + 1]
        if s[KIND] == END or not step(spec, s, symbol):
            break
        if stage == 2:
            out[used] = symbol + SKIPS
            used += 1
        elif frame and s[extra + STAGE] != 1:
            used = _skip((s[MB] if stage == 1 else end) - before, out, used)
    return used
