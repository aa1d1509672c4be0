"""The scan of a baseline JPEG as a state machine over its bytes: the paper's alphabet, constrained.

Symbols 0 to 255 are bytes, stuffing included; a restart marker is one symbol (256 + n) or, in the
preset `paper`, its two bytes, beside the constant header (which may begin with a symbol 256 that is
no byte) and EOI. Eight bits of a byte are eight
look-ups in a table of places in a block (`block_places`, some 20,000, the same for every geometry);
what is not local to a block (which block, how far the end, running DC values, markers) is a small
int64 vector beside it. Places from which no block can end are not in the table, so an accepted
prefix always has a legal continuation, and `shortest` tells exactly how many symbols the shortest
one takes.

Trade-off: the table (300 KB) is built once a process, in 0.1 to 0.2 s, so that a byte costs some
40 ns where walking the Huffman trees bit by bit cost 350.

Kernels take a `JpegByteSpec` and its state, int64 [STATE_SIZE], which they change in place; symbols
are int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel
from jpeglm.syntax.jpeg import DC_LIMIT, LARGEST_DC, RST0
from jpeglm.syntax.jpeg_tables import AC_TABLES, DC_TABLES

FIRST_RST_SYMBOL = 256
GROWTH = 4
"""A symbol lengthens the shortest completion by at most three (a long amplitude)."""

# Fields of a state. END: the interval's MCUs are read, its fill bits may be.
MCU, BLOCK, PLACE, SIZE, VALUE, END, PHASE, POSITION, PREDICTION = range(9)
STATE_SIZE = PREDICTION + 3
# Values of PHASE.
DATA, STUFFING, MARKER, HEADER, TRAILER = range(5)

# An entry of `after`: where a bit leads, and what it ends. Illegal bits are -1.
NEXT = (1 << 18) - 1
BLOCK_ENDS = 1 << 18
DC_CODE = 1 << 19
"""The bit belongs to the code of a DC size; bits 20 to 23: the least size that it can still be."""
LEAST = 20
SIZE_KNOWN = 1 << 24
"""It is the code's last."""
DIFFERENCE_KNOWN = 1 << 25
"""The bit is the last one of a DC amplitude."""
PLACES = 1 << 16

Place = tuple[str, int, int, int, int]
"""(kind, chroma, node of the Huffman tree or bits left of an amplitude, next coefficient, 1 just
after a ZRL): `dc` and `ac` stand inside a code, `difference` and `amplitude` in an amplitude."""


class BlockPlaces(NamedTuple):
    """after: int32 [2 · places], entries of bit 0 and bit 1; cost: int64 [places], least bits to
    the block's end; roots: int64 [2], the places before a block of luma and of chroma."""

    after: np.ndarray
    cost: np.ndarray
    roots: np.ndarray


Step = tuple[Place | None, int] | None
"""(place, flags) behind a bit, no place at a block's end; None where the bit is illegal."""


def _leaf(chroma: int, kind: str, value: int, k: int, zeros: int) -> Step:
    """Behind the last bit of the code of `value`."""
    if kind == "dc":
        flags = DC_CODE | SIZE_KNOWN | value << LEAST
        return (("difference" if value else "ac"), chroma, value, 1, 0), flags
    run, size = value >> 4, value & 15
    if value == 0x00:
        return None if zeros else (None, BLOCK_ENDS)
    if value == 0xF0:
        return (("ac", chroma, 0, k + 16, 1), 0) if k + 16 <= 63 else None
    return (("amplitude", chroma, size, k + run + 1, 0), 0) if k + run <= 63 else None


def _follow(place: Place, bit: int) -> Step:
    kind, chroma, at, k, zeros = place
    if kind in ("dc", "ac"):
        table = (DC_TABLES if kind == "dc" else AC_TABLES)[chroma]
        child = int(table.child[at, bit])
        if child <= -2:
            return _leaf(chroma, kind, -2 - child, k, zeros)
        if child == -1:
            return None
        return (kind, chroma, child, k, zeros), DC_CODE if kind == "dc" else 0
    if at > 1:
        return (kind, chroma, at - 1, k, 0), 0
    if kind == "difference":
        return ("ac", chroma, 0, 1, 0), DIFFERENCE_KNOWN
    return (("ac", chroma, 0, k, 0), 0) if k < 64 else (None, BLOCK_ENDS)


@lru_cache(maxsize=1)
def block_places() -> BlockPlaces:
    """All places between two bits of a block that lead on to its end (T.81 F.1.2, tables K.3 to
    K.6)."""
    numbers: dict[Place, int] = {("dc", chroma, 0, 0, 0): chroma for chroma in (0, 1)}
    waiting = list(numbers)
    rows: list[list[tuple[int, int]]] = []
    for place in waiting:
        row = []
        for bit in (0, 1):
            found = _follow(place, bit)
            if found is None:
                row.append((-1, 0))
                continue
            then, marks = found
            if then is not None and then not in numbers:
                numbers[then] = len(numbers)
                waiting.append(then)
            row.append((0 if then is None else numbers[then], marks))
        rows.append(row)
    table = np.array(rows)
    target, flags = table[..., 0], table[..., 1]
    never = 1 << 20
    # Least bits to the block's end, and least DC size, by relaxation until nothing changes.
    cost = np.full(len(rows), never)
    known = flags & SIZE_KNOWN > 0
    least = np.where((flags & DC_CODE).any(axis=1), never, 0)
    while True:
        ends = np.where(flags & BLOCK_ENDS, 0, cost[target])
        shorter = 1 + np.where(target < 0, never, ends).min(axis=1)
        sizes = np.where(target < 0, never, np.where(known, flags >> LEAST & 15, least[target]))
        smaller = np.where((flags & DC_CODE).any(axis=1), sizes.min(axis=1), 0)
        shorter = np.minimum(shorter, cost)
        if (shorter == cost).all() and (smaller == least).all():
            break
        cost, least = shorter, smaller
    legal = (target >= 0) & ((flags & BLOCK_ENDS > 0) | (cost[target] < never))
    inside = (flags & DC_CODE > 0) & ~known
    flags = np.where(inside, DC_CODE | least[target] << LEAST, flags)
    after = np.where(legal, target | flags, -1).astype(np.int32).reshape(-1)
    assert len(rows) <= PLACES
    return BlockPlaces(after, cost, np.arange(2))


class JpegByteSpec(NamedTuple):
    """All that the machine needs to know, as numbers and arrays that numba takes."""

    mcus: int
    interval: int  # MCUs between restart markers, 0: none
    atomic: int  # 1: a restart marker is one symbol (256 + n), 0: its two bytes
    component: np.ndarray  # int64 [blocks in an MCU]
    first: np.ndarray  # int64 [blocks in an MCU]: the place before each
    header: np.ndarray  # int32, symbols before the scan that belong to the alphabet
    trailer: np.ndarray  # uint8, bytes after it
    after: np.ndarray  # int32 [2 · places]
    cost: np.ndarray  # int64 [places]
    block_bits: np.ndarray  # int64 [blocks + 1]: least bits of blocks b.. of an MCU


def jpeg_byte_spec(
    component: tuple[int, ...],
    mcus: int,
    interval: int,
    atomic: bool,
    header: Sequence[int] | np.ndarray = (),
    trailer: bytes = b"",
) -> JpegByteSpec:
    """The machine for `mcus` MCUs whose blocks belong to the components `component`; header: the
    symbols before the scan."""
    places = block_places()
    first = places.roots[np.minimum(component, 1)]
    bits = places.cost[first].tolist()
    return JpegByteSpec(
        mcus,
        interval,
        int(atomic),
        np.array(component, np.int64),
        first,
        np.array(header, np.int32),
        np.frombuffer(trailer, np.uint8),
        places.after,
        places.cost,
        np.array([sum(bits[b:]) for b in range(len(bits) + 1)], np.int64),
    )


def start_state(spec: JpegByteSpec) -> np.ndarray:
    """int64 [STATE_SIZE]: before the first symbol."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[PLACE] = spec.first[0]
    if len(spec.header) > 0:
        state[PHASE] = HEADER
    return state


@kernel()
def _block_ends(spec, state):
    """To the next block; the place before it."""
    state[BLOCK] += 1
    if state[BLOCK] == len(spec.component):
        state[BLOCK] = 0
        state[MCU] += 1
        if state[MCU] == spec.mcus or (spec.interval and state[MCU] % spec.interval == 0):
            state[END] = 1
            for i in range(3):
                state[PREDICTION + i] = 0
    return spec.first[state[BLOCK]]


@kernel()
def _take_bits(spec, state, byte):
    """Advance by the eight bits of a byte. Every entry leads to a place of the table, or ends the
    block and to the place before the next."""
    place, value = state[PLACE], state[VALUE]
    for shift in range(7, -1, -1):
        bit = (byte >> shift) & 1
        entry = np.int64(spec.after[2 * place + bit])
        if entry < 0:
            return False
        place = entry & NEXT
        value = value << 1 | bit
        if entry > NEXT:
            if entry & DC_CODE:
                size = entry >> LEAST & 15
                prediction = state[PREDICTION + spec.component[state[BLOCK]]]
                if abs(prediction) + (1 << size) - 1 > DC_LIMIT:
                    return False
                state[SIZE] = size
                value = np.int64(0)
            elif entry & DIFFERENCE_KNOWN:  # T.81 F.1.2.1.1
                if value < (1 << (state[SIZE] - 1)):
                    value -= (1 << state[SIZE]) - 1
                state[PREDICTION + spec.component[state[BLOCK]]] += value
            else:
                place = _block_ends(spec, state)
                if state[END]:  # the last byte of an interval is filled with 1-bits
                    rest = (1 << shift) - 1
                    if byte & rest != rest:
                        return False
                    break
    state[PLACE], state[VALUE] = place, value & 0xFFFF
    return True


@kernel()
def _scan_over(spec, state):
    """Whether the last MCU is there."""
    return state[MCU] == spec.mcus and state[PHASE] == DATA


@kernel()
def step(spec, state, symbol):
    """Advance by one byte (or atomic marker); False when illegal, the state is then undefined."""
    phase = state[PHASE]
    if phase == DATA and state[END] == 0:
        if symbol > 255:
            return False
        if symbol == 0xFF:
            state[PHASE] = STUFFING
        return _take_bits(spec, state, np.int64(symbol))
    if phase == HEADER:
        if symbol != spec.header[state[POSITION]]:
            return False
        state[POSITION] += 1
        if state[POSITION] == len(spec.header):
            state[PHASE] = DATA
            state[POSITION] = 0
        return True
    if phase == STUFFING:
        state[PHASE] = DATA
        return symbol == 0
    if state[MCU] == spec.mcus:
        if state[POSITION] >= len(spec.trailer) or symbol != spec.trailer[state[POSITION]]:
            return False
        state[PHASE] = TRAILER
        state[POSITION] += 1
        return True
    marker = RST0 + (state[MCU] // spec.interval - 1) % 8
    if phase == DATA and not spec.atomic:
        state[PHASE] = MARKER
        return symbol == 0xFF
    state[PHASE] = DATA
    state[END] = 0
    return symbol == (FIRST_RST_SYMBOL + marker - RST0 if spec.atomic else marker)


@kernel()
def units(spec, state):
    """Whole MCUs so far."""
    return state[MCU]


@kernel()
def complete(spec, state):
    """Whether the stream may end here (it may then do nothing else)."""
    if len(spec.trailer) > 0:
        return state[PHASE] == TRAILER and state[POSITION] == len(spec.trailer)
    return _scan_over(spec, state)


@kernel()
def shortest(spec, state):
    """How many symbols the shortest completion takes; 0 when the stream is complete.

    Exact, because the shortest way to end a block always has a 0-bit: no byte of it is FF.
    """
    total = len(spec.trailer)
    if state[PHASE] == HEADER:
        total += len(spec.header) - state[POSITION]
    elif state[PHASE] == TRAILER:
        return total - state[POSITION]
    elif state[PHASE] == STUFFING:
        total += 1
    marker = 1 if spec.atomic else 2
    mcu_bits = spec.block_bits[0]
    mcu = state[MCU]
    if state[END]:
        if mcu == spec.mcus:
            return total
        total += 1 if state[PHASE] == MARKER else marker
        bits = mcu_bits
    else:
        bits = spec.cost[state[PLACE]] + spec.block_bits[state[BLOCK] + 1]
    mcu += 1
    if spec.interval == 0:
        return total + (bits + (spec.mcus - mcu) * mcu_bits + 7) // 8
    end = min(spec.mcus, (mcu + spec.interval - 1) // spec.interval * spec.interval)
    total += (bits + (end - mcu) * mcu_bits + 7) // 8
    whole, last = divmod(spec.mcus - end, spec.interval)
    total += whole * (marker + (spec.interval * mcu_bits + 7) // 8)
    if last:
        total += marker + (last * mcu_bits + 7) // 8
    return total


def _of_header(symbols: tuple[int, ...]) -> bool:
    if symbols[0] == 256:  # in a whole stream no marker but what stands before it
        return True
    pairs = pairwise(symbols)
    return any(a == 0xFF and b not in (0, 0xD9) and not 0 <= b - RST0 < 8 for a, b in pairs)


def limits(spec: JpegByteSpec, spelling: list[tuple[int, ...]]) -> tuple[int, int]:
    """(blocks that one of these tokens may reach into, by how much it may move a running DC)."""
    # Markers that only a header has bar a token from the scan, where alone keys are given.
    longest = max(len(symbols) for symbols in spelling if not _of_header(symbols))
    # A block has at least 4 bits, one with a DC difference of the largest size 24.
    return 2 * longest + 2, (longest // 3 + 2) * LARGEST_DC


@kernel()
def key(spec, state, reach, swing):
    """A number that only states share in which the same tokens are legal, budgets aside; -1: none.

    reach, swing: `limits` of the tokens. What lies further ahead is no part of the number.
    """
    phase = state[PHASE]
    if phase in (HEADER, TRAILER):
        return np.int64(-1)
    for i in range(3):
        if abs(state[PREDICTION + i]) + swing > DC_LIMIT:
            return np.int64(-1)
    blocks = len(spec.component)
    here = state[MCU] * blocks + state[BLOCK]
    number = min(spec.mcus * blocks - here, reach)
    if spec.interval > 0:
        intervals = state[MCU] // spec.interval
        # The last interval may end with the picture: what may follow a byte is then another thing.
        end = min((intervals + 1) * spec.interval * blocks - here, number)
        if spec.atomic:  # no token goes past a marker, so nothing behind it counts
            number = end * 8 + (intervals % 8 if state[END] else 0)
        else:
            number = (number * (reach + 1) + end) * 8 + intervals % 8
    number = (number * 8 + phase) * 2 + state[END]
    return (number * PLACES + state[PLACE]) * 8 + state[BLOCK]
