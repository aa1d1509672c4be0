"""The grammar of baseline slices: `step` is the one place that knows what may follow what.

    SKIP ▸ TYPE ▸ modes, or references and vectors ▸ pattern ▸ QP_DELTA ▸ blocks ▸ SKIP …
    a block: COEFF ▸ SIGNS ▸ (PREFIX ▸ BITS) … ▸ ZEROS ▸ RUN …

It takes a symbol and leaves in the state which kind of element is next (ITU-T H.264, 7.3.4 and
7.3.5; the suffix lengths of levels: 9.2.2.1). Kernels take an `AvcSpec` and the state `s`, int64
[`start_state`], which they change in place; symbols and numbers are int64.
"""

from __future__ import annotations

import numpy as np

from jpeglm.kernels import kernel
from jpeglm.syntax.avc.blocks import end_macroblock, end_slice, next_block, next_level, take_token
from jpeglm.syntax.avc.neighbours import (
    area_fits,
    clear_macroblock,
    mode_fits,
    next_macroblock,
    place_of,
)
from jpeglm.syntax.avc.state import (
    AFTER,
    FIRST,
    FRAME,
    INDEX,
    INTRA,
    KIND,
    LEVELS,
    MB,
    MODE,
    MOST,
    ONES,
    PARTS,
    PATTERN,
    PENDING,
    REFS,
    RUNS,
    SIXTEEN,
    SIZE,
    SLICE,
    STAGE,
    SUFFIX,
    TOTAL,
    VALUE,
    ZEROS_LEFT,
    AvcSpec,
)
from jpeglm.syntax.avc.symbols import (
    BASE,
    BITS,
    CHROMA,
    CHUNK,
    COEFF,
    COEFF_DC,
    END,
    HIGHEST_QP,
    INTRA4,
    LOWEST_QP,
    MVD_X,
    MVD_Y,
    PATTERN_INTER,
    PATTERN_INTRA,
    PREFIX,
    QP_DELTA,
    REF,
    RUN,
    SIGNS,
    SKIP,
    SUB,
    TOKEN,
    TYPE_I,
    TYPE_P,
    ZEROS,
    ZEROS_DC,
)


@kernel()
def _intra(spec, s, kind):
    """Take an I macroblock type: 0 is Intra_4x4, 1 to 24 Intra_16x16 (Table 7-11)."""
    if kind == 0:
        s[INTRA], s[SIXTEEN] = 1, 0
        s[INDEX] = 0
        s[KIND] = INTRA4
        return True
    if not area_fits(spec, s, 0, 1, (kind - 1) % 4):
        return False
    s[INTRA], s[SIXTEEN] = 1, 1
    s[PATTERN] = ((kind - 1) // 4) % 3 * 16 + (15 if kind >= 13 else 0)
    s[KIND] = CHROMA
    return True


@kernel()
def active_references(spec, s):
    """How many pictures a P slice of the present frame may refer to."""
    return min(s[FRAME], spec.references)


@kernel()
def _vectors(spec, s, parts):
    """On to the motion of so many partitions: their references, where there is a choice, first."""
    s[REFS] = parts
    s[KIND] = REF if active_references(spec, s) > 1 else MVD_X


@kernel()
def _bits_for(s, count, after):
    """On to `count` bits of the number that belongs to element `after`."""
    s[PENDING], s[VALUE], s[AFTER] = count, 0, after
    s[KIND] = BITS


@kernel()
def take_number(spec, s, kind, number):
    """Go on after an Exp-Golomb number or a level whose bits are all known."""
    if kind == SKIP:
        for _ in range(number):
            clear_macroblock(s)
            next_macroblock(spec, s)
        if s[MB] == spec.first[s[SLICE] + 1]:
            end_slice(spec, s)
        else:
            s[KIND] = TYPE_P
    elif kind == MVD_X:
        s[KIND] = MVD_Y
    elif kind == MVD_Y:
        s[PARTS] -= 1
        s[KIND] = MVD_X if s[PARTS] > 0 else PATTERN_INTER
    elif kind == QP_DELTA:
        s[STAGE] = -1
        next_block(spec, s)
    else:  # a level; SIZE holds its prefix (9.2.2.1)
        # Only the suffix length depends on it, which grows behind any prefix of 15: what 9.2.2.1
        # adds to the code of an escape decides nothing more.
        code = (s[SIZE] << s[SUFFIX]) + number
        if s[FIRST]:
            code += 2
            s[FIRST] = 0
        if s[SUFFIX] == 0:
            s[SUFFIX] = 1
        if (code >> 1) + 1 > 3 << (s[SUFFIX] - 1) and s[SUFFIX] < 6:
            s[SUFFIX] += 1
        s[LEVELS] -= 1
        next_level(spec, s)


@kernel()
def _chunk(spec, s, value):
    """Take a chunk of bits; refuse one of another length, a skip run past the slice, or a change of
    the quantiser that is out of range."""
    size = min(CHUNK, s[PENDING])
    part = value + 2 - (1 << size)
    if part < 0 or part >= 1 << size:
        return False
    found = (s[VALUE] << size) | part
    left = s[PENDING] - size
    after = s[AFTER]
    if after in (SKIP, QP_DELTA):
        least = (1 << s[SIZE]) - 1 + (found << left)
        if after == SKIP and least > spec.first[s[SLICE] + 1] - s[MB]:
            return False
        if (
            after == QP_DELTA
            and least > HIGHEST_QP
            and not least <= LOWEST_QP < least + (1 << left)
        ):
            return False
    s[VALUE], s[PENDING] = found, left
    if left == 0:
        take_number(spec, s, after, found if after == PREFIX else (1 << s[SIZE]) - 1 + found)
    return True


@kernel()
def _size(spec, s, kind, size):
    """Take the number of bits of a skip run, reference or vector, and go on to them; refuse a run
    past the slice."""
    if kind == SKIP and (1 << size) - 1 > spec.first[s[SLICE] + 1] - s[MB]:
        return False
    s[SIZE] = size
    if size:
        _bits_for(s, size, kind)
    else:
        take_number(spec, s, kind, 0)
    return True


@kernel()
def step(spec, s, symbol):
    """Take a symbol; False, and `s` unchanged where nothing was legal, otherwise undefined."""
    kind = s[KIND]
    if kind == END or symbol < BASE[kind] or symbol >= BASE[kind + 1]:
        return False
    value = symbol - BASE[kind]
    # The most frequent kinds come first.
    if kind == RUN:
        if value > s[ZEROS_LEFT]:
            return False
        s[ZEROS_LEFT] -= value
        s[RUNS] -= 1
        if s[ZEROS_LEFT] == 0 or s[RUNS] == 0:
            next_block(spec, s)
    elif kind in (COEFF, COEFF_DC):
        return take_token(spec, s, TOKEN[value])
    elif kind in (ZEROS, ZEROS_DC):
        if value > s[MOST] - s[TOTAL]:
            return False
        s[ZEROS_LEFT], s[RUNS] = value, s[TOTAL] - 1
        if value and s[RUNS]:
            s[KIND] = RUN
        else:
            next_block(spec, s)
    elif kind == SIGNS:
        if value + 2 >> s[ONES] != 1:
            return False
        next_level(spec, s)
    elif kind == PREFIX:
        s[SIZE] = value
        size = 12 if value == 15 else 4 if value == 14 and s[SUFFIX] == 0 else s[SUFFIX]
        if size:
            _bits_for(s, size, PREFIX)
        else:
            take_number(spec, s, PREFIX, 0)
    elif kind == BITS:
        return _chunk(spec, s, value)
    elif kind in (SKIP, MVD_X, MVD_Y, QP_DELTA):
        return _size(spec, s, kind, value)
    elif kind in (TYPE_I, TYPE_P):
        clear_macroblock(s)
        if kind == TYPE_I:
            return _intra(spec, s, value)
        if value >= 4:
            return _intra(spec, s, value - 4)
        s[INTRA] = s[SIXTEEN] = 0
        s[INDEX] = 0
        s[PARTS] = 0 if value == 3 else 1 if value == 0 else 2
        if value == 3:
            s[KIND] = SUB
        else:
            _vectors(spec, s, s[PARTS])
    elif kind == REF:
        if value >= active_references(spec, s):
            return False
        s[REFS] -= 1
        if s[REFS] == 0:
            s[KIND] = MVD_X
    elif kind == INTRA4:
        if not mode_fits(spec, s, value):
            return False
        s[MODE + place_of(s[INDEX] + 1)[0]] = value
        s[INDEX] += 1
        if s[INDEX] == 16:
            s[KIND] = CHROMA
    elif kind == CHROMA:
        if not area_fits(spec, s, 2, 1, value):
            return False
        s[KIND] = QP_DELTA if s[SIXTEEN] else PATTERN_INTRA
    elif kind == SUB:
        s[PARTS] += 1 if value == 0 else 4 if value == 3 else 2
        s[INDEX] += 1
        if s[INDEX] == 4:
            s[KIND] = MVD_X
    else:  # PATTERN_INTRA, PATTERN_INTER
        s[PATTERN] = value
        if value:
            s[KIND] = QP_DELTA
        else:
            end_macroblock(spec, s)
    return True


def limits(spec: AvcSpec, spelling: list[tuple[int, ...]]) -> tuple[int, int]:
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
