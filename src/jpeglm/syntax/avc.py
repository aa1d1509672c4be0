"""Baseline H.264 slices as a state machine over syntax elements (ITU-T H.264, 7.3.4 and 7.3.5).

What `avc-symbols` are: macroblock types, prediction modes, coded block patterns, coeff_tokens,
signs, level prefixes, total_zeros, run_before, each its own symbol; numbers without a bound
(skip runs, motion vector differences, level suffixes) as a size and then their bits in chunks of
at most four, as JPEG's amplitudes. Start codes, NAL and slice headers, stuffing and the choice of
VLC table are implied by the geometry and the symbols before, so the model never sees them.

`step` is the one place that knows what may follow what. The reader turns a slice's bits into
symbols and the writer does the reverse; both ask the state which element is next. Covered is what
x264's baseline profile writes: I and P slices, CAVLC, no I_PCM, frames only; several references as
long as macroblocks are not split into 8 × 8, which then is P_8x8ref0 at most.

The state is an int64 vector: what is being read, and of the macroblocks to the left and above the
numbers of coefficients and the intra modes on which the next tables depend.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel, njit
from jpeglm.syntax.avc_tables import (
    CBP_INTER,
    CBP_INTRA,
    CODE,
    COEFF_DC_TABLE,
    COEFF_TABLE,
    LENGTH,
    LOOKUP,
    RUN_TABLE,
    SHORT,
    SHORT_BITS,
    WINDOW,
    ZEROS_DC_TABLE,
    ZEROS_TABLE,
)

# Kinds of elements, in the order of their symbols.
SKIP, TYPE_I, TYPE_P, INTRA4, CHROMA, SUB, MVD_X, MVD_Y, PATTERN_INTRA, PATTERN_INTER = range(10)
QP_DELTA, COEFF, COEFF_DC, SIGNS, PREFIX, ZEROS, ZEROS_DC, RUN, BITS, REF, END = range(10, 21)
COUNTS = (13, 25, 29, 9, 4, 4, 14, 14, 48, 48, 6, 62, 14, 14, 16, 16, 4, 15, 30, 16)
"""Symbols of each kind. SKIP, MVD and QP_DELTA: Exp-Golomb sizes; INTRA4: the mode itself; BITS:
chunks of 1 to 4 bits, most significant first, the leading chunk of a long number has 4. REF, the
picture that a partition refers to, stands last: with one reference there is none."""
LONGEST_SKIP = (2 << (COUNTS[SKIP] - 1)) - 2
"""Macroblocks that a skip run of the largest size spans; a slice of more could not be left out."""
BASE = np.concatenate([[0], np.cumsum(COUNTS)])
SYMBOLS = int(BASE[-1])
NAMES = (
    "skip size", "I type", "P type", "intra mode", "chroma mode", "sub type", "mvd x size",
    "mvd y size", "pattern", "inter pattern", "qp size", "coeff", "chroma coeff", "signs",
    "level prefix", "zeros", "chroma zeros", "run", "bits", "reference",
)  # fmt: skip
CHUNK = 4

_PAIRS = [(total, ones) for total in range(17) for ones in range(min(total, 3) + 1)]
TOKEN = np.array([4 * total + ones for total, ones in _PAIRS])
"""Value of coeff_token (4 TotalCoeff + TrailingOnes) of each COEFF symbol; the first 14 are
those of COEFF_DC too."""
TOKEN_SYMBOL = np.full(68, -1, np.int64)
TOKEN_SYMBOL[TOKEN] = np.arange(len(TOKEN))
PATTERN_CODE = np.stack([np.argsort(CBP_INTRA), np.argsort(CBP_INTER)])
PATTERN_VALUE = np.stack([CBP_INTRA, CBP_INTER])

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
    """`avc_tables.LOOKUP`; too large for a constant of compiled code."""
    references: int
    """Frames that a P slice may refer to, as far as there are so many before it."""


def avc_spec(
    frames: int, columns: int, rows: int, first: list[int], references: int = 1
) -> AvcSpec:
    """The machine of a clip; first: first macroblock of each slice of a frame."""
    ends = np.array([*first, columns * rows], np.int64)
    return AvcSpec(frames, columns, rows, ends, LOOKUP, references)


def symbol_count(references: int) -> int:
    """Symbols of an alphabet: those of REF only where there is a choice."""
    return SYMBOLS if references > 1 else int(BASE[REF])


def start_state(spec: AvcSpec) -> np.ndarray:
    # Columns 0 to columns - 1 have TOP_STEP fields each; all else lies below TOP.
    state = np.zeros(TOP + TOP_STEP * spec.columns, np.int64)
    state[KIND] = TYPE_I
    return state


@kernel()
def _left(spec, s):
    return s[MB] % spec.columns > 0 and s[MB] - 1 >= spec.first[s[SLICE]]


@kernel()
def _above(spec, s):
    return s[MB] - spec.columns >= spec.first[s[SLICE]]


@kernel()
def _corner(spec, s):
    return s[MB] % spec.columns > 0 and s[MB] - spec.columns - 1 >= spec.first[s[SLICE]]


@kernel()
def _end_slice(spec, s):
    s[SLICES_DONE] += 1
    s[SLICE] += 1
    if s[MB] == spec.columns * spec.rows:
        s[MB] = 0
        s[SLICE] = 0
        s[FRAME] += 1
    if s[FRAME] == spec.frames:
        s[KIND] = END
    else:
        s[KIND] = SKIP if s[FRAME] else TYPE_I


@kernel()
def _next_mb(spec, s):
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
def _clear(s):
    for i in range(24):
        s[CURRENT + i] = 0
    for i in range(16):
        s[MODE + i] = 2


@kernel()
def _end_mb(spec, s):
    _next_mb(spec, s)
    if s[MB] == spec.first[s[SLICE] + 1]:
        _end_slice(spec, s)
    else:
        s[KIND] = SKIP if s[FRAME] else TYPE_I


@kernel()
def _next_block(spec, s):
    """To the next coded block of the macroblock: 0 Intra16x16 DC, 1-16 luma, 17-18 chroma DC,
    19-26 chroma AC."""
    pattern = s[PATTERN]
    while True:
        s[STAGE] += 1
        stage = s[STAGE]
        if stage == 0:
            if s[SIXTEEN]:
                s[MOST] = 16
                break
        elif stage <= 16:
            if (pattern >> ((stage - 1) // 4)) & 1:
                s[MOST] = 15 if s[SIXTEEN] else 16
                break
        elif stage <= 18:
            if pattern >> 4:
                s[MOST] = 4
                break
        elif stage <= 26:
            if pattern >> 4 == 2:
                s[MOST] = 15
                break
        else:
            _end_mb(spec, s)
            return
    s[KIND] = COEFF_DC if 17 <= s[STAGE] <= 18 else COEFF


@kernel()
def _place(stage):
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
    place, x, y, side = _place(s[STAGE])
    plane = 0 if side == 4 else 4 + 2 * ((s[STAGE] - 19) >> 2)
    number, known = 0, 0
    if x > 0:
        number += s[CURRENT + place - 1]
        known += 1
    elif _left(spec, s):
        number += s[LEFT + plane + y]
        known += 1
    if y > 0:
        number += s[CURRENT + place - side]
        known += 1
    elif _above(spec, s):
        number += s[TOP + TOP_STEP * (s[MB] % spec.columns) + plane + x]
        known += 1
    if known == 2:
        number = (number + 1) >> 1
    return COEFF_TABLE + (0 if number < 2 else 1 if number < 4 else 2 if number < 8 else 3)


@kernel()
def predicted_mode(spec, s):
    """Intra4x4PredMode that the neighbours suggest for block INDEX (8.3.1.1)."""
    place, x, y, _ = _place(s[INDEX] + 1)
    a = b = -1
    if x > 0:
        a = s[MODE + place - 1]
    elif _left(spec, s):
        a = s[LEFT_MODE + y]
    if y > 0:
        b = s[MODE + place - 4]
    elif _above(spec, s):
        b = s[TOP + TOP_STEP * (s[MB] % spec.columns) + 8 + x]
    return np.int64(2) if a < 0 or b < 0 else np.int64(min(a, b))


@kernel()
def _mode_fits(spec, s, mode):
    """Whether the samples that an Intra_4x4 mode reads are there (8.3.1.2)."""
    _, x, y, _ = _place(s[INDEX] + 1)
    left = x > 0 or _left(spec, s)
    above = y > 0 or _above(spec, s)
    if x > 0:
        corner = above
    elif y > 0:
        corner = left
    else:
        corner = _corner(spec, s)
    if mode in (0, 3, 7):
        return above
    if mode in (1, 8):
        return left
    return mode == 2 or (left and above and corner)


@kernel()
def _area_fits(spec, s, vertical, horizontal, mode):
    """The same for Intra_16x16 and chroma, whose modes number differently; 3 is plane."""
    if mode == vertical:
        return _above(spec, s)
    if mode == horizontal:
        return _left(spec, s)
    return mode != 3 or (_above(spec, s) and _left(spec, s) and _corner(spec, s))


@kernel()
def _levels(spec, s):
    """After a level or the signs: the next level, or the zeros, or the next block."""
    if s[LEVELS] > 0:
        s[KIND] = PREFIX
    elif s[TOTAL] < s[MOST]:
        s[KIND] = ZEROS_DC if s[MOST] == 4 else ZEROS
    else:
        _next_block(spec, s)


@kernel()
def _intra(spec, s, kind):
    """Take an I macroblock type: 0 is Intra_4x4, 1 to 24 Intra_16x16 (Table 7-11)."""
    if kind == 0:
        s[INTRA], s[SIXTEEN] = 1, 0
        s[INDEX] = 0
        s[KIND] = INTRA4
        return True
    if not _area_fits(spec, s, 0, 1, (kind - 1) % 4):
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
    s[PENDING], s[VALUE], s[AFTER] = count, 0, after
    s[KIND] = BITS


@kernel()
def _number(spec, s, kind, number):
    """Go on after an Exp-Golomb number or a level whose bits are all known."""
    if kind == SKIP:
        for _ in range(number):
            _clear(s)
            _next_mb(spec, s)
        if s[MB] == spec.first[s[SLICE] + 1]:
            _end_slice(spec, s)
        else:
            s[KIND] = TYPE_P
    elif kind == MVD_X:
        s[KIND] = MVD_Y
    elif kind == MVD_Y:
        s[PARTS] -= 1
        s[KIND] = MVD_X if s[PARTS] > 0 else PATTERN_INTER
    elif kind == QP_DELTA:
        s[STAGE] = -1
        _next_block(spec, s)
    else:  # a level; SIZE holds its prefix (9.2.2.1)
        prefix = s[SIZE]
        code = (prefix << s[SUFFIX]) + number
        if prefix == 15 and s[SUFFIX] == 0:
            code += 15
        if s[FIRST]:
            code += 2
            s[FIRST] = 0
        if s[SUFFIX] == 0:
            s[SUFFIX] = 1
        if (code >> 1) + 1 > 3 << (s[SUFFIX] - 1) and s[SUFFIX] < 6:
            s[SUFFIX] += 1
        s[LEVELS] -= 1
        _levels(spec, s)


@kernel()
def _token(spec, s, token):
    total, ones = token >> 2, token & 3
    if total > s[MOST]:
        return False
    if s[STAGE] > 0 and s[MOST] != 4:
        s[CURRENT + _place(s[STAGE])[0]] = total
    if total == 0:
        _next_block(spec, s)
        return True
    s[TOTAL], s[ONES], s[LEVELS] = total, ones, total - ones
    s[SUFFIX] = 1 if total > 10 and ones < 3 else 0
    s[FIRST] = 1 if ones < 3 else 0
    if ones:
        s[KIND] = SIGNS
    else:
        _levels(spec, s)
    return True


@kernel()
def _chunk(spec, s, value):
    """Take a chunk of bits; refuse one of another length, or a skip run past the slice."""
    size = min(CHUNK, s[PENDING])
    part = value + 2 - (1 << size)
    if part < 0 or part >= 1 << size:
        return False
    found = (s[VALUE] << size) | part
    left = s[PENDING] - size
    after = s[AFTER]
    if after == SKIP:
        least = (1 << s[SIZE]) - 1 + (found << left)
        if least > spec.first[s[SLICE] + 1] - s[MB]:
            return False
    s[VALUE], s[PENDING] = found, left
    if left == 0:
        _number(spec, s, after, found if after == PREFIX else (1 << s[SIZE]) - 1 + found)
    return True


@kernel()
def _size(spec, s, kind, size):
    if kind == SKIP and (1 << size) - 1 > spec.first[s[SLICE] + 1] - s[MB]:
        return False
    s[SIZE] = size
    if size:
        _bits_for(s, size, kind)
    else:
        _number(spec, s, kind, 0)
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
            _next_block(spec, s)
    elif kind in (COEFF, COEFF_DC):
        return _token(spec, s, TOKEN[value])
    elif kind in (ZEROS, ZEROS_DC):
        if value > s[MOST] - s[TOTAL]:
            return False
        s[ZEROS_LEFT], s[RUNS] = value, s[TOTAL] - 1
        if value and s[RUNS]:
            s[KIND] = RUN
        else:
            _next_block(spec, s)
    elif kind == SIGNS:
        if value + 2 >> s[ONES] != 1:
            return False
        _levels(spec, s)
    elif kind == PREFIX:
        s[SIZE] = value
        size = 12 if value == 15 else 4 if value == 14 and s[SUFFIX] == 0 else s[SUFFIX]
        if size:
            _bits_for(s, size, PREFIX)
        else:
            _number(spec, s, PREFIX, 0)
    elif kind == BITS:
        return _chunk(spec, s, value)
    elif kind in (SKIP, MVD_X, MVD_Y, QP_DELTA):
        return _size(spec, s, kind, value)
    elif kind in (TYPE_I, TYPE_P):
        _clear(s)
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
        if not _mode_fits(spec, s, value):
            return False
        s[MODE + _place(s[INDEX] + 1)[0]] = value
        s[INDEX] += 1
        if s[INDEX] == 16:
            s[KIND] = CHROMA
    elif kind == CHROMA:
        if not _area_fits(spec, s, 2, 1, value):
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
            _end_mb(spec, s)
    return True


def limits(spec, spelling):
    """As in `syntax.jpeg`; but too much of these states decides for masks to come back."""
    return 0, 0


@kernel()
def key(spec, s, reach, swing):
    return np.int64(-1)


@kernel()
def complete(spec, s):
    return s[KIND] == END


GROWTH = 64
"""More than an Intra_4x4 type or a coeff_token of 16 makes the rest of a macroblock longer."""


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


# Bits


PADDING = 8
"""Zero bytes that `read_slice` wants behind an RBSP: a window reads five bytes from one that is
at most the first of them."""


@kernel()
def _window(data, at):
    """The 32 bits from bit `at` on."""
    byte = at >> 3
    value = np.uint64(0)
    for i in range(5):
        value = (value << np.uint64(8)) | np.uint64(data[byte + i])
    return np.int64((value >> np.uint64(8 - (at & 7))) & np.uint64(0xFFFFFFFF))


@kernel()
def _golomb(window):
    """(leading zeros, codeNum) of the Exp-Golomb code that a window begins with; zeros 16: none."""
    zeros = 0
    while zeros < 16 and not (window >> (31 - zeros)) & 1:
        zeros += 1
    if zeros == 16:
        return 16, np.int64(0)
    return zeros, (window >> (31 - 2 * zeros)) - 1


@kernel()
def _run_table(s):
    return RUN_TABLE + min(s[ZEROS_LEFT], 7) - 1


@kernel()
def element_table(spec, s):
    """The VLC table of the element that is next."""
    kind = s[KIND]
    if kind == COEFF:
        return coeff_table(spec, s)
    if kind == COEFF_DC:
        return COEFF_DC_TABLE
    if kind == ZEROS:
        return ZEROS_TABLE + s[TOTAL] - 1
    if kind == ZEROS_DC:
        return ZEROS_DC_TABLE + s[TOTAL] - 1
    return _run_table(s)


@kernel()
def _read_element(spec, s, window):
    """(symbol, bits) of the element that begins here; symbol -1 where there is none."""
    kind = s[KIND]
    none = np.int64(-1)
    if kind == BITS:
        size = min(CHUNK, s[PENDING])
        return BASE[BITS] + (1 << size) - 2 + (window >> (32 - size)), size
    if kind == SIGNS:
        ones = s[ONES]
        return BASE[SIGNS] + (1 << ones) - 2 + (window >> (32 - ones)), ones
    if kind == INTRA4:
        mode = predicted_mode(spec, s)
        if window >> 31:
            return BASE[INTRA4] + mode, np.int64(1)
        other = (window >> 28) & 7
        return BASE[INTRA4] + other + (1 if other >= mode else 0), np.int64(4)
    if kind == REF and active_references(spec, s) == 2:  # te(v): one bit, inverted (9.1)
        return BASE[REF] + 1 - (window >> 31), np.int64(1)
    if kind == PREFIX:
        zeros = 0
        while zeros < 16 and not (window >> (31 - zeros)) & 1:
            zeros += 1
        return BASE[PREFIX] + zeros if zeros < 16 else none, np.int64(zeros + 1)
    if COEFF <= kind < REF:
        table = element_table(spec, s)
        entry = SHORT[table, window >> (32 - SHORT_BITS)]
        if entry < 0:
            entry = spec.lookup[table, window >> (32 - WINDOW)]
        if entry < 0:
            return none, np.int64(0)
        value = np.int64(entry >> 5)
        if kind in (COEFF, COEFF_DC):
            value = TOKEN_SYMBOL[value]
        return BASE[kind] + value, np.int64(entry & 31)
    zeros, number = _golomb(window)
    if zeros == 16:
        return none, np.int64(0)
    if kind in (SKIP, MVD_X, MVD_Y, QP_DELTA):
        # The size only; its bits are elements of their own.
        return BASE[kind] + zeros if zeros < COUNTS[kind] else none, np.int64(zeros + 1)
    if kind == TYPE_P:
        # Where all references are 0, x264 writes P_8x8ref0 (4), never P_8x8 (3).
        if number == 3:
            return none, np.int64(0)
        number -= 1 if number > 3 else 0
    elif kind in (PATTERN_INTRA, PATTERN_INTER):
        if number > 47:
            return none, np.int64(0)
        number = PATTERN_VALUE[kind - PATTERN_INTRA, number]
    if number >= COUNTS[kind]:
        return none, np.int64(0)
    return BASE[kind] + number, np.int64(2 * zeros + 1)


@kernel()
def read_slice(spec, s, data, at, symbols, used):
    """Read the slice data of one slice from bit `at` of an RBSP, padded, into symbols[used:].

    Gives (symbols in use, bit after the last element, whether all was legal). `s` stands at the
    slice's start and ends at the start of the next one. symbols: one for each bit of `data` is
    enough, since every element takes at least one and none goes past its end.
    """
    done = s[SLICES_DONE]
    end = 8 * (len(data) - PADDING)
    while s[SLICES_DONE] == done:
        symbol, bits = _read_element(spec, s, _window(data, at))
        if symbol < 0 or at + bits > end or not step(spec, s, symbol):
            return used, at, False
        symbols[used] = symbol
        used += 1
        at += bits
    return used, at, True


@kernel()
def _element_bits(spec, s, symbol):
    """(code, length) of a legal symbol in the present state."""
    kind = s[KIND]
    value = np.int64(symbol - BASE[kind])
    if kind == BITS:
        size = min(CHUNK, s[PENDING])
        return value + 2 - (1 << size), size
    if kind == SIGNS:
        return value + 2 - (1 << s[ONES]), s[ONES]
    if kind == INTRA4:
        mode = predicted_mode(spec, s)
        if value == mode:
            return np.int64(1), np.int64(1)
        return value - (1 if value > mode else 0), np.int64(4)
    if kind == REF and active_references(spec, s) == 2:
        return 1 - value, np.int64(1)
    if kind in (PREFIX, SKIP, MVD_X, MVD_Y, QP_DELTA):
        return np.int64(1), value + 1
    if COEFF <= kind < REF:
        if kind in (COEFF, COEFF_DC):
            value = np.int64(TOKEN[value])
        table = element_table(spec, s)
        return CODE[table, value], LENGTH[table, value]
    if kind == TYPE_P and value >= 3:
        value += 1
    elif kind in (PATTERN_INTRA, PATTERN_INTER):
        value = np.int64(PATTERN_CODE[kind - PATTERN_INTRA, value])
    size = 0
    while (2 << size) - 1 <= value:
        size += 1
    return value + 1, np.int64(2 * size + 1)


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
        return BASE[BITS] + (1 << size) - 2
    if kind == TYPE_I:
        return BASE[TYPE_I] + 3  # Intra_16x16, DC, no coefficients
    if kind == TYPE_P:
        return BASE[TYPE_P]
    if kind == INTRA4:
        return BASE[INTRA4] + 2
    if kind == SIGNS:
        return BASE[SIGNS] + (1 << s[ONES]) - 2
    return BASE[kind]


@njit()
def write_slice(spec, s, symbols, used, flat, out, bits):
    """Append one slice's data to `out` from bit `bits` on (zeros before); the inverse of reading.

    After the first symbol that is illegal, or when they run out, or once `flat` is set, flat ones
    follow. Gives (symbols used, bits in `out`, flat). out: 4 bytes a symbol (no code is longer than
    31 bits, and an illegal one is not written) and 64 for every macroblock of the slice: finished
    flat, the worst one takes 16 levels of 7 bits and 26 coeff_tokens of 6.
    """
    done = s[SLICES_DONE]
    start, begun = s.copy(), used
    while s[SLICES_DONE] == done:
        kind = s[KIND]
        if not flat and used < len(symbols) and BASE[kind] <= symbols[used] < BASE[kind + 1]:
            symbol = np.int64(symbols[used])
        else:
            flat = True
            symbol = np.int64(flat_symbol(spec, s))
        code, length = _element_bits(spec, s, symbol)
        if not step(spec, s, symbol):
            # Only what was given can be illegal, and the state is then undefined: back to it.
            s[:] = start
            for i in range(begun, used):
                step(spec, s, symbols[i])
            flat = True
            continue
        if not flat:
            used += 1
        while length > 0:
            room = 8 - (bits & 7)
            taken = min(room, length)
            length -= taken
            part = (code >> length) & ((1 << taken) - 1)
            out[bits >> 3] |= part << (room - taken)
            bits += taken
    return used, bits, flat


def symbol_name(symbol: int) -> str:
    """A symbol in words."""
    kind = int(np.searchsorted(BASE, symbol, "right")) - 1
    value = symbol - int(BASE[kind])
    if kind in (COEFF, COEFF_DC):
        total, ones = _PAIRS[value]
        return f"{NAMES[kind]} {total}, {ones} ones"
    if kind in (BITS, SIGNS):
        size = (value + 2).bit_length() - 1
        return f"{NAMES[kind]} {value + 2 - (1 << size):0{size}b}"
    return f"{NAMES[kind]} {value}"
