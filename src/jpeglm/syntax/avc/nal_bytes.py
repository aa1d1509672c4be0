"""H.264 slices as a state machine over their bytes: the paper's alphabet, with a grammar.

Symbols 0 to 255 are the bytes of NAL units as they stand in the file, emulation prevention
included; START is a start code, 00 00 01. A byte is taken if its bits go on a legal slice: the
header that the codec writes, elements that `machine` takes in turn, and at the end a one and
zeros. The bits behind the last whole element must begin some legal one, so there are no dead ends.

    machine state ▸ bits of an element not yet whole ▸ zeros in a row (00 00 needs 03 before 0 to 3)

Kernels take an `AvcByteSpec` and the state `s`, int64 [`start_state`], which they change in place;
symbols, bytes and bits are int64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel, njit
from jpeglm.syntax.avc import machine, state
from jpeglm.syntax.avc.bits import element_bits, read_element
from jpeglm.syntax.avc.completion import flat_symbol
from jpeglm.syntax.avc.completion import units as units
from jpeglm.syntax.avc.state import FRAME, KIND, PENDING, SLICE, SLICES_DONE, AvcSpec
from jpeglm.syntax.avc.symbols import BASE, BITS, CHUNK, END

START = 256
SYMBOLS = 257
FIELDS = 6
"""Behind the machine's state: bits not yet an element (how many, which), what is expected, bits of
the header that are read, zero bytes in a row, whether a 03 has just been taken."""
COUNT, VALUE, PHASE, AT, ZERO_BYTES, ESCAPED = range(6)
CODE, HEAD, DATA, TAIL = range(4)
"""Phases: a start code, a slice's header, its data, its trailing bits."""


class AvcByteSpec(NamedTuple):
    """elements: the machine of the slices; heads: uint8 [slices of the clip, bits], NAL and slice
    headers as bits, head_bits int64 their lengths; rest: int64 [slices + 1], symbols that the flat
    slices from each on take at most."""

    elements: AvcSpec
    heads: np.ndarray
    head_bits: np.ndarray
    rest: np.ndarray


def avc_byte_spec(elements: AvcSpec, heads: list[str], flat: list[bytes]) -> AvcByteSpec:
    """heads: bits before each slice's data; flat: each slice's NAL unit, unescaped, flat."""
    table = np.zeros((len(heads), max(map(len, heads))), np.uint8)
    for row, bits in zip(table, heads):
        row[: len(bits)] = [int(bit) for bit in bits]
    each = np.array([1 + len(nal) + _most_escapes(len(nal), 0) for nal in flat], np.int64)
    rest = np.concatenate([np.cumsum(each[::-1])[::-1], [0]])
    return AvcByteSpec(elements, table, np.array([len(bits) for bits in heads], np.int64), rest)


def start_state(spec: AvcByteSpec) -> np.ndarray:
    return np.concatenate([state.start_state(spec.elements), np.zeros(FIELDS, np.int64)])


@kernel()
def _number(spec, s):
    """Which slice of the clip is next."""
    return s[FRAME] * (len(spec.elements.first) - 1) + s[SLICE]


@njit()
def _may_begin(spec, s, value, count):
    """Whether some legal element has more than `count` bits and begins with these."""
    symbol, bits = read_element(spec, s, value << (32 - count))
    if symbol >= 0 and bits > count:
        trial = s.copy()
        if machine.step(spec, trial, symbol):
            return True
    return _first_that_begins(spec, s, value, count) >= 0


@njit()
def _first_that_begins(spec, s, value, count):
    """The first legal symbol of more than `count` bits whose code begins with `value`; -1: none."""
    kind = s[KIND]
    for symbol in range(BASE[kind], BASE[kind + 1]):
        if kind == BITS and symbol < BASE[BITS] + (1 << min(CHUNK, s[PENDING])) - 2:
            continue
        code, length = element_bits(spec, s, symbol)
        if length > count and code >> (length - count) == value:
            trial = s.copy()
            if machine.step(spec, trial, symbol):
                return np.int64(symbol)
    return np.int64(-1)


@kernel()
def _take_bits(spec, s, byte):
    """Feed eight bits of an RBSP (or of the NAL unit's first byte).

    At most 23 bits are looked at: those that wait begin some legal element, none longer than 16.
    """
    extra = len(s) - FIELDS
    value, count = (s[extra + VALUE] << 8) | byte, s[extra + COUNT] + 8
    if s[extra + PHASE] == HEAD:
        number = _number(spec, s)
        size = spec.head_bits[number]
        while count and s[extra + AT] < size:
            if (value >> (count - 1)) & 1 != spec.heads[number, s[extra + AT]]:
                return False
            s[extra + AT] += 1
            count -= 1
        value &= (np.int64(1) << count) - 1
        if s[extra + AT] == size:
            s[extra + PHASE] = DATA
    if s[extra + PHASE] == DATA:
        done = s[SLICES_DONE]
        while count:
            symbol, bits = read_element(spec.elements, s, value << (32 - count))
            if symbol < 0 or bits > count:
                break
            if not machine.step(spec.elements, s, symbol):
                return False
            count -= bits
            value &= (np.int64(1) << count) - 1
            if s[SLICES_DONE] != done:
                s[extra + PHASE] = TAIL
                break
        if s[extra + PHASE] == DATA and count and not _may_begin(spec.elements, s, value, count):
            return False
    if s[extra + PHASE] == TAIL and count:
        if value != 1 << (count - 1):
            return False
        value = count = np.int64(0)
        s[extra + PHASE] = CODE
    s[extra + VALUE], s[extra + COUNT] = value, count
    return True


@njit()
def step(spec, s, symbol):
    """Take a symbol; False, and the state undefined, when it is illegal here."""
    extra = len(s) - FIELDS
    if s[extra + PHASE] == CODE:
        if symbol != START or s[KIND] == END:
            return False
        for i in range(FIELDS):
            s[extra + i] = 0
        s[extra + PHASE] = HEAD
        return True
    if symbol == START:
        return False
    if s[extra + ESCAPED]:
        if symbol > 3:
            return False
        s[extra + ESCAPED] = 0
    elif s[extra + ZERO_BYTES] >= 2:
        if symbol < 3:
            return False
        s[extra + ZERO_BYTES] = 0
        if symbol == 3:
            s[extra + ESCAPED] = 1
            # Only where one of the four bytes that need it may follow.
            for byte in range(4):
                trial = s.copy()
                if _take_bits(spec, trial, np.int64(byte)):
                    return True
            return False
    s[extra + ZERO_BYTES] = s[extra + ZERO_BYTES] + 1 if symbol == 0 else 0
    return _take_bits(spec, s, np.int64(symbol))


def limits(spec: AvcByteSpec, spelling: list[tuple[int, ...]]) -> tuple[int, int]:
    """As in `syntax.jpeg`; but too much of these states decides for masks to come back."""
    return 0, 0


@kernel()
def key(spec, s, reach, swing):
    """-1: no states are known to be alike."""
    return np.int64(-1)


@kernel()
def complete(spec, s):
    """Whether all frames are there; nothing may follow."""
    return s[KIND] == END and s[len(s) - FIELDS + PHASE] == CODE


GROWTH = 96
"""More than the rest of a macroblock can grow in bytes by one of them."""


@kernel()
def _most_escapes(count, zeros):
    """Emulation prevention bytes that `count` bytes can need at most, after so many zero bytes."""
    if zeros >= 2:
        return (count + 1) // 2
    return count // 2 if zeros == 1 else max(count - 1, 0) // 2


@njit()
def _flat_bits(spec, s):
    """(bits to the end of the slice, the first eight of them): the header's rest, the first element
    that goes on as the pending bits begin, then flat ones, a one and zeros to a whole byte."""
    extra = len(s) - FIELDS
    elements = spec.elements
    total, opening = np.int64(0), np.int64(0)
    if s[extra + PHASE] == HEAD:
        number = _number(spec, s)
        for at in range(s[extra + AT], spec.head_bits[number]):
            if total < 8:
                opening = (opening << 1) | spec.heads[number, at]
            total += 1
    if s[extra + PHASE] != TAIL:
        trial = s.copy()
        done = s[SLICES_DONE]
        count = s[extra + COUNT] if s[extra + PHASE] == DATA else 0
        while trial[SLICES_DONE] == done:
            if count:
                symbol = _first_that_begins(elements, trial, s[extra + VALUE], count)
            else:
                symbol = np.int64(flat_symbol(elements, trial))
            code, length = element_bits(elements, trial, symbol)
            machine.step(elements, trial, symbol)
            for i in range(length - count - 1, -1, -1):
                if total < 8:
                    opening = (opening << 1) | ((code >> i) & 1)
                total += 1
            count = np.int64(0)
    if total < 8:
        opening = (opening << 1) | 1
    total += 1
    if total < 8:
        opening <<= 8 - total
    return (total + 7) // 8 * 8, opening


@njit()
def shortest(spec, s):
    """Symbols of a completion that is always possible: not the fewest, but enough for the flat
    one and for all the emulation prevention that it can need."""
    extra = len(s) - FIELDS
    if s[extra + PHASE] == CODE:
        return spec.rest[_number(spec, s)]
    zeros = s[extra + ZERO_BYTES]
    bits, opening = _flat_bits(spec, s)
    # Where the slice's data is whole, the machine already stands at the next slice.
    rest = spec.rest[_number(spec, s) + (0 if s[extra + PHASE] == TAIL else 1)]
    if s[extra + ESCAPED] and opening > 3:
        for byte in range(4):
            trial = s.copy()
            trial[extra + ESCAPED] = 0
            trial[extra + ZERO_BYTES] = 1 if byte == 0 else 0
            if _take_bits(spec, trial, np.int64(byte)):
                if trial[extra + PHASE] == CODE:
                    return 1 + rest
                bits = _flat_bits(spec, trial)[0]
                zeros = trial[extra + ZERO_BYTES]
                return 1 + bits // 8 + _most_escapes(bits // 8, zeros) + rest
    return bits // 8 + _most_escapes(bits // 8, zeros) + rest
