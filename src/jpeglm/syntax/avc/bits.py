"""A slice's data as bits: elements read into symbols, symbols written back (9.1 and 9.2).

Both directions ask the state which element is next and which VLC table it has, then let `step` take
the symbol. Kernels take an `AvcSpec` and the state `s`, int64 [`start_state`]; data and `out` are
uint8 arrays, symbols int32 ones, windows and codes int64.
"""

from __future__ import annotations

import numpy as np

from jpeglm.kernels import kernel, njit
from jpeglm.syntax.avc.completion import flat_symbol
from jpeglm.syntax.avc.machine import active_references, step
from jpeglm.syntax.avc.neighbours import coeff_table, predicted_mode
from jpeglm.syntax.avc.state import KIND, ONES, PENDING, SLICES_DONE, TOTAL, ZEROS_LEFT
from jpeglm.syntax.avc.symbols import (
    BASE,
    BITS,
    CHUNK,
    COEFF,
    COEFF_DC,
    COUNTS,
    INTRA4,
    MVD_X,
    MVD_Y,
    PATTERN_CODE,
    PATTERN_INTER,
    PATTERN_INTRA,
    PATTERN_VALUE,
    PREFIX,
    QP_DELTA,
    REF,
    SIGNS,
    SKIP,
    TOKEN,
    TOKEN_SYMBOL,
    TYPE_P,
    ZEROS,
    ZEROS_DC,
)
from jpeglm.syntax.avc.tables import (
    CODE,
    COEFF_DC_TABLE,
    LENGTH,
    RUN_TABLE,
    SHORT,
    SHORT_BITS,
    WINDOW,
    ZEROS_DC_TABLE,
    ZEROS_TABLE,
)

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
    """The VLC table of run_before (Table 9-10), which the zeros left choose."""
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
def read_element(spec, s, window):
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
        symbol, bits = read_element(spec, s, _window(data, at))
        if symbol < 0 or at + bits > end or not step(spec, s, symbol):
            return used, at, False
        symbols[used] = symbol
        used += 1
        at += bits
    return used, at, True


@kernel()
def element_bits(spec, s, symbol):
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
        code, length = element_bits(spec, s, symbol)
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
