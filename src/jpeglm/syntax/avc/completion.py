"""The flat way to the end of a clip, from any state: always legal, and it says as little as it can.

I frames get Intra_16x16 macroblocks without coefficients, P frames skip runs. The sampler keeps
`shortest` symbols free, so that a stream ends within its budget. Kernels take an `AvcSpec` and the
state `s`, int64 [`start_state`].
"""

from __future__ import annotations

import numpy as np

from jpeglm.kernels import kernel, njit
from jpeglm.syntax.avc.machine import step
from jpeglm.syntax.avc.state import AFTER, FRAME, KIND, MB, ONES, PENDING, SIZE, SLICE, VALUE
from jpeglm.syntax.avc.symbols import (
    BASE,
    BITS,
    CHUNK,
    END,
    HIGHEST_QP,
    INTRA4,
    QP_DELTA,
    SIGNS,
    SKIP,
    TYPE_I,
    TYPE_P,
)

GROWTH = 64
"""More than an Intra_4x4 type or a coeff_token of 16 makes the rest of a macroblock longer."""


@kernel()
def units(spec, s):
    """Whole frames, of every machine whose state begins with this one's."""
    return s[FRAME]


@kernel()
def flat_symbol(spec, s):
    """A symbol that is legal here and says as little as possible."""
    kind = s[KIND]
    if kind == SKIP:
        left = spec.first[s[SLICE] + 1] - s[MB]
        size = 0
        while (2 << size) - 1 <= left:
            size += 1
        return BASE[SKIP] + size
    if kind == BITS:
        size = min(CHUNK, s[PENDING])
        if s[AFTER] == SKIP:
            # The largest chunk that does not skip past the slice: all of it in the end.
            most = spec.first[s[SLICE] + 1] - s[MB] - ((1 << s[SIZE]) - 1)
            rest = s[PENDING] - size
            part = min((most >> rest) - (s[VALUE] << size), (1 << size) - 1)
            return BASE[BITS] + (1 << size) - 2 + part
        # Zeros; but the last bit of a change of the quantiser past 25 says -26.
        past = s[AFTER] == QP_DELTA and (1 << s[SIZE]) - 1 + (s[VALUE] << size) > HIGHEST_QP
        return BASE[BITS] + (1 << size) - 2 + (1 if past else 0)
    if kind == TYPE_I:
        return BASE[TYPE_I] + 3  # Intra_16x16, DC, no coefficients
    if kind == TYPE_P:
        return BASE[TYPE_P]
    if kind == INTRA4:
        return BASE[INTRA4] + 2
    if kind == SIGNS:
        return BASE[SIGNS] + (1 << s[ONES]) - 2
    return BASE[kind]


@kernel()
def _skip_symbols(left):
    """Symbols that skip so many macroblocks: a size, and its bits in chunks."""
    size = 0
    while (2 << size) - 1 <= left:
        size += 1
    return 1 + (size + CHUNK - 1) // CHUNK


@njit()
def shortest(spec, s):
    """Symbols that `flat_symbol` takes to the end: not always the fewest, but always possible."""
    if s[KIND] == END:
        return np.int64(0)
    total = np.int64(0)
    trial = s.copy()
    # To the end of the skip run that is begun, and of the macroblock behind it.
    while trial[KIND] != SKIP and trial[KIND] != TYPE_I and trial[KIND] != END:
        step(spec, trial, flat_symbol(spec, trial))
        total += 1
    if trial[KIND] == END:
        return total
    slices = len(spec.first) - 1
    if trial[FRAME] == 0:
        total += 4 * (spec.columns * spec.rows - trial[MB])
    else:
        total += _skip_symbols(spec.first[trial[SLICE] + 1] - trial[MB])
        for number in range(trial[SLICE] + 1, slices):
            total += _skip_symbols(spec.first[number + 1] - spec.first[number])
    frame = np.int64(0)
    for number in range(slices):
        frame += _skip_symbols(spec.first[number + 1] - spec.first[number])
    return total + frame * (spec.frames - trial[FRAME] - 1)
