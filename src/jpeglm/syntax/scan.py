"""Whole scans at speed: bytes to entropy-coder symbols and back.

Reading uses 16-bit look-up tables (T.81 F.2.2) and checks everything that makes a stream
canonical: fill bits, stuffing, markers, coefficient counts, nothing after the last MCU. So
`write_scan(inspect_scan(x)[0]) == x` for every x that is accepted. Writing steps the grammar of
`syntax.jpeg` and never fails: at the first illegal symbol, or where the symbols end early, the
rest of the picture is coded flat. Kernels take a `JpegSpec`; data and `out` are uint8 arrays,
symbols int32 ones.
"""

from __future__ import annotations

import numpy as np

from jpeglm.config import StreamError
from jpeglm.kernels import kernel
from jpeglm.syntax.jpeg import (
    AC_FIRST,
    AMPLITUDE_FIRST,
    BLOCK,
    CHUNK,
    DC_LIMIT,
    INTERVAL_END,
    MCU,
    NO_NAMES,
    PASS,
    PENDING,
    RST0,
    SYMBOLS,
    JpegSpec,
    K,
    first_dc,
    start_state,
    symbol_step,
)
from jpeglm.syntax.jpeg_tables import (
    AC_INDEX,
    AC_RUN_SIZES,
    AC_TABLES,
    DC_SIZES,
    DC_TABLES,
)

LOOKUP = np.stack([table.lookup for table in (*DC_TABLES, *AC_TABLES)])
LENGTH = np.stack([table.length for table in (*DC_TABLES, *AC_TABLES)])
CODE = np.stack([table.code for table in (*DC_TABLES, *AC_TABLES)])


def _symbols_a_bit() -> float:
    """Most symbols that a bit of a scan can hold: a code and the chunks of the amplitude behind it
    for the bits of both. The shortest codes decide, two bits and an amplitude of one."""
    return max(
        (1 + -(-size // CHUNK)) / (int(table.length[value]) + size)
        for table in (*DC_TABLES, *AC_TABLES)
        for value in np.flatnonzero(table.length).tolist()
        for size in [value & 15]  # of a run and a size the latter (T.81 F.1.2.2.1)
    )


SYMBOLS_A_BIT = _symbols_a_bit()
PROBLEMS = (
    "",
    "the data ends before the picture is complete",
    "no Huffman code of the standard tables begins here",
    "a run of zeros leaves the 64 coefficients of its block",
    "an end of block follows a run of 16 zeros, which no encoder writes",
    "the bits that fill the last byte of a restart interval are not ones",
    "a restart marker is missing here or has the wrong number",
    "data follows the last MCU",
    "a marker stands inside entropy-coded data",
)


@kernel()
def _byte_of(data, at, unread):
    """The byte that holds the first of the last `unread` bits before `at`, stuffing left out."""
    while unread > 0 and at > 0:
        at -= 1
        if at > 0 and data[at] == 0 and data[at - 1] == 0xFF:
            at -= 1
        unread -= 8
    return at


@kernel()
def _read(data, spec, lookup, ac_index, symbols, starts, prediction, prediction_peaks):
    """Fill `symbols` (SYMBOLS_A_BIT says how many there may be); give (symbols read, problem,
    byte). `starts[m]`, [MCUs + 1], = symbols before MCU m; prediction and its peaks: zeros, int64
    [3]."""
    at, n = 0, 0
    buffer, bits = np.uint64(0), 0
    end = len(data)
    blocks = len(spec.component)
    for mcu in range(spec.mcus + 1):
        starts[mcu] = n
        if mcu == spec.mcus or (spec.interval and mcu and mcu % spec.interval == 0):
            if bits >= 8:
                return n, 7 if mcu == spec.mcus else 6, _byte_of(data, at, bits // 8 * 8)
            if bits and (buffer & np.uint64((1 << bits) - 1)) != np.uint64((1 << bits) - 1):
                return n, 5, at - 1
            bits = 0
            if mcu == spec.mcus:
                return n, 0 if at == end else 7, at
            marker = RST0 + (mcu // spec.interval - 1) % 8
            if at + 1 >= end or data[at] != 0xFF or data[at + 1] != marker:
                return n, 6 if at + 1 < end else 1, at
            at += 2
            prediction[:] = 0
        for block in range(blocks):
            component = spec.component[block]
            chroma = 1 if component > 0 else 0
            k = 0
            zeros = False
            while k < 64:
                while bits <= 48 and at < end:
                    byte = data[at]
                    if byte == 0xFF:
                        if at + 1 >= end or data[at + 1] != 0:
                            break
                        at += 1
                    at += 1
                    buffer = (buffer << np.uint64(8)) | np.uint64(byte)
                    bits += 8
                if bits >= 16:
                    window = (buffer >> np.uint64(bits - 16)) & np.uint64(0xFFFF)
                else:
                    window = (buffer << np.uint64(16 - bits)) & np.uint64(0xFFFF)
                entry = lookup[(2 if k else 0) + chroma, np.int64(window)]
                if entry < 0 or (entry & 255) > bits:
                    stop = 1
                    if bits >= 16:
                        stop = 2
                    elif at < end:
                        stop = 8
                    return n, stop, _byte_of(data, at, bits) if stop == 2 else at
                value = entry >> 8
                bits -= entry & 255
                size = value
                is_dc = k == 0
                if not is_dc:
                    size = value & 15
                    if value == 0:
                        if zeros:
                            return n, 4, _byte_of(data, at, bits + 1)
                        symbols[n] = AC_FIRST
                        n += 1
                        break
                    run = 16 if value == 0xF0 else value >> 4
                    if k + run > 63:
                        return n, 3, _byte_of(data, at, bits + 1)
                    symbols[n] = AC_FIRST + ac_index[value]
                    n += 1
                    zeros = value == 0xF0
                    k += run if zeros else run + 1
                else:
                    symbols[n] = first_dc(spec, block, mcu) + size
                    n += 1
                    k = 1
                if size > bits:
                    return n, 1 if at >= end else 8, at
                amplitude = (buffer >> np.uint64(bits - size)) & np.uint64((1 << size) - 1)
                bits -= size
                if is_dc:
                    difference = np.int64(amplitude)
                    if size and difference < (1 << (size - 1)):
                        difference -= (1 << size) - 1
                    prediction[component] += difference
                    peak = abs(prediction[component])
                    if peak > prediction_peaks[component]:
                        prediction_peaks[component] = peak
                left = size
                while left > 0:
                    chunk = min(CHUNK, left)
                    left -= chunk
                    part = (amplitude >> np.uint64(left)) & np.uint64((1 << chunk) - 1)
                    symbols[n] = AMPLITUDE_FIRST + (1 << chunk) - 2 + np.int64(part)
                    n += 1
    return n, 0, at


@kernel()
def _write(symbols, spec, state, length, code, run_sizes, out, mcu_limit):
    """Fill `out` (`write_scan` has its size); give (bytes, bits of the last byte in use (0: all),
    symbols used).

    Stops after `mcu_limit` MCUs if that is less than the picture; then nothing is filled up.
    state: `start_state`.
    """
    n, used = 0, 0
    buffer, bits = np.int64(0), 0
    flat = False
    while state[MCU] < spec.mcus:
        block, k, pending, mcu = state[BLOCK], state[K], state[PENDING], state[MCU]
        if mcu >= mcu_limit:
            break
        if state[INTERVAL_END] and mcu:
            if bits:
                last = ((buffer << (8 - bits)) | ((1 << (8 - bits)) - 1)) & 0xFF
                out[n] = last
                n += 1
                if last == 0xFF:
                    out[n] = 0
                    n += 1
            out[n] = 0xFF
            out[n + 1] = RST0 + (mcu // spec.interval - 1) % 8
            n += 2
            buffer, bits = np.int64(0), 0
        symbol = np.int64(-1)
        if not flat and used < len(symbols):
            symbol = np.int64(symbols[used])
            used += 1
            if not symbol_step(spec, state, symbol):
                flat = True
                used -= 1
                symbol = np.int64(-1)
        else:
            flat = True
        if symbol < 0:
            if pending > 0:
                symbol = AMPLITUDE_FIRST + (1 << min(CHUNK, pending)) - 2
            elif k == 0:
                symbol = np.int64(0)
            else:
                symbol = np.int64(AC_FIRST)
            if not symbol_step(spec, state, symbol):
                symbol = np.int64(AC_FIRST + 2)  # run 0, size 1: EOB may not follow a ZRL
                symbol_step(spec, state, symbol)
        if symbol >= AMPLITUDE_FIRST:
            rest = symbol - AMPLITUDE_FIRST + 2
            size = 1
            while (2 << size) <= rest:
                size += 1
            word = rest - (1 << size)
        else:
            chroma = 1 if spec.component[block] > 0 else 0
            table = chroma if k == 0 else 2 + chroma
            value = symbol if k == 0 else run_sizes[symbol - AC_FIRST]
            size, word = length[table, value], code[table, value]
        buffer = (buffer << size) | word
        bits += size
        while bits >= 8:
            bits -= 8
            byte = (buffer >> bits) & 0xFF
            out[n] = byte
            n += 1
            if byte == 0xFF:
                out[n] = 0
                n += 1
        buffer &= (1 << bits) - 1
    if bits and state[MCU] == spec.mcus:
        last = ((buffer << (8 - bits)) | ((1 << (8 - bits)) - 1)) & 0xFF
        out[n] = last
        n += 1
        if last == 0xFF:
            out[n] = 0
            n += 1
        bits = 0
    elif bits:
        out[n] = (buffer << (8 - bits)) & 0xFF
        n += 1
    return n, bits, used


@kernel()
def _sequential(symbols, spec, state, first, known, out):
    """Symbols whose DC coefficients come first (`coarse`) → the order of a scan; how many.

    What is missing or illegal is flat; a block that ends early loses its AC coefficients. `out`:
    every symbol lies in one part of one block and is copied once, of a missing part there is one.
    state: `start_state`; first: zeros, int64 [2, blocks + 1], gets where the DC and the AC part of
    each block begin; known: zeros, int64 [2].
    """
    total = spec.mcus * len(spec.component)
    for i in range(len(symbols)):
        turn, before = state[PASS], state[MCU] * len(spec.component) + state[BLOCK]
        if not symbol_step(spec, state, symbols[i]):
            break
        after = state[MCU] * len(spec.component) + state[BLOCK]
        if after != before or state[PASS] != turn:
            known[turn] = before + 1
            first[turn, before + 1] = i + 1
            if state[PASS] != turn:
                first[1, 0] = i + 1
    n = 0
    for block in range(total):
        for turn in range(2):
            if block < known[turn]:
                for i in range(first[turn, block], first[turn, block + 1]):
                    out[n] = symbols[i]
                    n += 1
            else:
                out[n] = AC_FIRST if turn else 0
                n += 1
    return n


def coarse_first(symbols: np.ndarray) -> np.ndarray:
    """A scan's symbols with the DC coefficients of all blocks before the AC coefficients."""
    begins = (symbols < AMPLITUDE_FIRST) | (symbols >= SYMBOLS)
    owner = np.maximum.accumulate(np.where(begins, np.arange(len(symbols)), 0))
    dc = ((symbols < DC_SIZES) | (symbols >= SYMBOLS))[owner]
    return np.concatenate([symbols[dc], symbols[~dc]])


def in_sequence(symbols: np.ndarray, spec: JpegSpec) -> np.ndarray:
    """The inverse, of any symbols; spec: of the coarse order."""
    symbols = np.ascontiguousarray(symbols, np.int32)
    blocks = spec.mcus * len(spec.component)
    out = np.empty(len(symbols) + 2 * blocks, np.int32)  # each once, and two of a flat block
    first, known = np.zeros((2, blocks + 1), np.int64), np.zeros(2, np.int64)
    return out[: _sequential(symbols, spec, start_state(spec), first, known, out)]


def inspect_scan(data: bytes, spec: JpegSpec) -> tuple[np.ndarray, np.ndarray, bool]:
    """Symbols, int32 [n], of the entropy-coded `data` (after SOS, without EOI), in its own order;
    `starts[m]`, int64 [MCUs + 1], symbols before MCU m; and `fits`, whether every running DC value
    stays within int16, as decoders need it.

    Raises StreamError with the byte's place in `data` when it is no canonical, complete scan.
    """
    array = np.frombuffer(data, np.uint8)
    # Every symbol is of a code whose bits are there, and of the amplitude behind it; one code whose
    # amplitude is cut off has fewer symbols for its bits.
    symbols = np.empty(int(8 * len(array) * SYMBOLS_A_BIT) + 2, np.int32)
    starts = np.zeros(spec.mcus + 1, np.int64)
    prediction, peaks = np.zeros(3, np.int64), np.zeros(3, np.int64)
    n, problem, place = _read(array, spec, LOOKUP, AC_INDEX, symbols, starts, prediction, peaks)
    if problem:
        raise StreamError(PROBLEMS[problem], int(place))
    return symbols[:n].copy(), starts, bool(peaks.max() <= DC_LIMIT)


def write_scan(
    symbols: np.ndarray, spec: JpegSpec, mcus: int | None = None
) -> tuple[bytes, int, int]:
    """(bytes, bits, used): the scan that `symbols` spell.

    Whatever is illegal or missing is replaced by flat blocks, so the scan is always complete. With
    `mcus` it is a prefix instead: the given number of MCUs, whose last byte holds `bits` bits (0:
    all eight), the others zero. `used` counts the symbols that were taken as they are.
    """
    assert spec.names == NO_NAMES and not spec.coarse, "a scan names nothing, in order"
    symbols = np.ascontiguousarray(symbols, np.int32)
    blocks = spec.mcus * len(spec.component)
    # At most 2 bytes a symbol, doubled by stuffing; flat blocks take 1, doubled too; 4 for each
    # marker and the byte filled before it; and what ends an amplitude or a run that was begun.
    out = np.empty(5 * len(symbols) + 4 * blocks + 4 * spec.mcus + 16, np.uint8)
    limit = spec.mcus if mcus is None else mcus
    n, bits, used = _write(symbols, spec, start_state(spec), LENGTH, CODE, AC_RUN_SIZES, out, limit)
    return out[:n].tobytes(), int(bits), int(used)
