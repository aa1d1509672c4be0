"""The scan of a baseline JPEG as a state machine, over entropy-coder symbols and over bytes.

One automaton serves both alphabets. Its core, `symbol_step`, is the order of T.81 F.1.2: block by
block a DC size, its amplitude, then run/size and amplitude until EOB or coefficient 63. The byte
form walks the Huffman trees bit by bit and calls the same core at each leaf, so what is legal is
written once. On top it knows byte stuffing, the 1-bits that fill the last byte of a restart
interval, the markers, and (preset `paper`) the constant header and EOI.

The state is a small int64 vector instead of a compiled table of 60,000 states: a byte costs eight
short steps (about 30 ns), nothing has to be built or shipped, and running DC values fit in. Paths
that cannot be completed are pruned at every tree node, so an accepted prefix always has a legal
continuation, and `shortest` tells exactly how many symbols the shortest one takes. The codes of
learned codecs, all of one length, go through the same kernels (`codes_spec`).

Symbol numbers: 0–11 DC size, 12–173 run/size (`AC_RUN_SIZES`), 174–203 amplitude chunks of 1–4
bits, most significant first; the leading chunk of a long amplitude has 4 bits. In the alphabet
`jpeg-block-symbols` the DC sizes of block b > 0 of an MCU are 204 + 12 (b - 1) onwards.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel
from jpeglm.syntax.jpeg_tables import AC_INDEX, AC_RUN_SIZES, AC_TABLES, DC_SIZES, DC_TABLES

AC_FIRST = DC_SIZES
AMPLITUDE_FIRST = AC_FIRST + len(AC_RUN_SIZES)
SYMBOLS = AMPLITUDE_FIRST + 30
CHUNK = 4

SYMBOL_KIND, BYTE_KIND, CODES_KIND = 0, 1, 2
DC_LIMIT = 32767
"""Running DC values are int16 in every decoder; a size that could leave that range is illegal."""

# Fields of a state.
MCU, BLOCK, K, PENDING, SIZE, VALUE, ZEROS, PREDICTION = 0, 1, 2, 3, 4, 5, 6, 7
INTERVAL_END, NODE, PHASE, POSITION = 10, 11, 12, 13
PASS = 14  # with `coarse`: 0 the DC coefficients of all blocks, 1 their AC coefficients
STATE_SIZE = 15
# Values of PHASE, byte form only.
DATA, STUFFING, MARKER, HEADER, TRAILER = 0, 1, 2, 3, 4
RST0, FIRST_RST_SYMBOL = 0xD0, 256
NODES = 512
"""More than any tree of the standard tables has."""
LARGEST_DC = 2047
"""Of a difference of the largest size, 11."""
GROWTH = 4
"""A symbol lengthens the shortest completion by at most three (a long amplitude)."""


class JpegSpec(NamedTuple):
    """All that a state machine needs to know, as numbers and arrays that numba takes."""

    kind: int
    codes: int  # CODES_KIND only: `mcus` symbols, each any of so many
    by_block: int  # 1: DC sizes of blocks 1.. of an MCU have symbols of their own
    coarse: int  # 1: the DC coefficients of the whole picture come first (symbols only)
    mcus: int
    interval: int  # MCUs between restart markers, 0: none
    atomic: int  # 1: a restart marker is one symbol (256 + n), 0: its two bytes
    component: np.ndarray  # int64 [blocks in an MCU]
    header: np.ndarray  # uint8, bytes before the scan that belong to the alphabet
    trailer: np.ndarray  # uint8, bytes after it
    child: np.ndarray  # int32 [4, nodes, 2]: trees of DC luma, DC chroma, AC luma, AC chroma
    need: np.ndarray  # int32 [4, nodes, 2]: least DC size, or least run (zrl = 0, 1), below
    cost: np.ndarray  # int32 [4, nodes, 64, 2]: least bits from here to the block's end
    block_bits: np.ndarray  # int64 [blocks + 1]: least bits of blocks b.. of an MCU


_NEVER = 1 << 20


def _leaf_cost(value: int, end_of_block: int, after_zeros: np.ndarray | None) -> np.ndarray:
    """Least bits to end a block once the run/size `value` was read, int32 [64 (k), 2 (zeros)]."""
    cost = np.full((64, 2), _NEVER, np.int32)
    run, size = value >> 4, value & 15
    if value == 0x00:
        cost[1:, 0] = 0
    elif value == 0xF0:
        if after_zeros is not None:
            cost[1:48] = after_zeros[17:64, None]
    else:
        cost[1 : 63 - run] = size + end_of_block
        cost[63 - run] = size
    return cost


@lru_cache(maxsize=1)
def _tree_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`child`, `need` and `cost` of a spec; the same for every geometry."""
    tables = (*DC_TABLES, *AC_TABLES)
    nodes = max(len(table.child) for table in tables)
    child = np.full((4, nodes, 2), -1, np.int32)
    need = np.full((4, nodes, 2), _NEVER, np.int32)
    cost = np.full((4, nodes, 64, 2), _NEVER, np.int32)
    for t, table in enumerate(tables):
        child[t, : len(table.child)] = table.child
        end_of_block = int(tables[t | 2].length[0])
        after_zeros: np.ndarray | None = None

        def leaf(value: int) -> tuple[np.ndarray, np.ndarray]:
            if t < 2:  # noqa: B023 - called within this turn of the loop
                dc = np.full((64, 2), value + end_of_block, np.int32)  # noqa: B023
                return np.array([value, value]), dc
            run = 16 if value == 0xF0 else value >> 4
            least = np.array([run, run if value else _NEVER])
            return least, _leaf_cost(value, end_of_block, after_zeros)  # noqa: B023

        def fill(node: int) -> tuple[np.ndarray, np.ndarray]:
            below = [
                fill(int(step)) if step >= 0 else leaf(-2 - int(step))
                for step in child[t, node]  # noqa: B023
                if step != -1
            ]
            need[t, node] = np.minimum.reduce([least for least, _ in below])  # noqa: B023
            total = 1 + np.minimum.reduce([bits for _, bits in below])
            cost[t, node] = np.minimum(total, _NEVER)  # noqa: B023
            return need[t, node], cost[t, node]  # noqa: B023

        # Twice: what follows a ZRL is needed for its leaf. It is never the cheapest from the
        # root (11 bits against 7), so the first pass, without it, has the root's costs right.
        fill(0)
        after_zeros = cost[t, 0, :, 1].copy()
        fill(0)
    return child, need, cost


def jpeg_spec(
    kind: int,
    component: tuple[int, ...],
    mcus: int,
    interval: int,
    atomic: bool = False,
    header: bytes = b"",
    trailer: bytes = b"",
    by_block: bool = False,
    coarse: bool = False,
) -> JpegSpec:
    """The state machine for `mcus` MCUs whose blocks belong to the components `component`."""
    child, need, cost = _tree_tables()
    bits = [int(cost[min(c, 1), 0, 0, 0]) for c in component]
    block_bits = np.array([sum(bits[b:]) for b in range(len(bits) + 1)], np.int64)
    return JpegSpec(
        kind,
        0,
        int(by_block),
        int(coarse),
        mcus,
        interval,
        int(atomic),
        np.array(component, np.int64),
        np.frombuffer(header, np.uint8),
        np.frombuffer(trailer, np.uint8),
        child,
        need,
        cost,
        block_bits,
    )


def start_state(spec: JpegSpec) -> np.ndarray:
    """int64 [STATE_SIZE]: before the first symbol."""
    state = np.zeros(STATE_SIZE, np.int64)
    if spec.kind == BYTE_KIND and len(spec.header) > 0:
        state[PHASE] = HEADER
    return state


@kernel()
def _next_block(spec, state):
    state[K] = state[PASS]
    state[ZEROS] = 0
    state[BLOCK] += 1
    if state[BLOCK] == len(spec.component):
        state[BLOCK] = 0
        state[MCU] += 1
        if state[MCU] == spec.mcus or (spec.interval and state[MCU] % spec.interval == 0):
            state[INTERVAL_END] = 1
            for i in range(3):
                state[PREDICTION + i] = 0
        if spec.coarse and state[MCU] == spec.mcus and state[PASS] == 0:
            state[PASS] = state[K] = 1
            state[MCU] = 0


@kernel()
def _amplitude(spec, state, value, bits):
    """Take `bits` more bits of the pending amplitude (T.81 F.1.2.1.1)."""
    state[VALUE] = (state[VALUE] << bits) | value
    state[PENDING] -= bits
    if state[PENDING] == 0:
        size = state[SIZE]
        if size > 0:  # a DC difference; 0 marks an AC amplitude
            difference = state[VALUE]
            if difference < (1 << (size - 1)):
                difference -= (1 << size) - 1
            state[PREDICTION + spec.component[state[BLOCK]]] += difference
            state[SIZE] = 0
            if spec.coarse:
                _next_block(spec, state)
        elif state[K] == 64:
            _next_block(spec, state)


@kernel()
def _dc_fits(spec, state, size):
    prediction = state[PREDICTION + spec.component[state[BLOCK]]]
    return abs(prediction) + (1 << size) - 1 <= DC_LIMIT


@kernel()
def symbol_step(spec, state, symbol):
    """Advance by one entropy-coder symbol; False (state untouched) when it is illegal."""
    if state[MCU] >= spec.mcus:
        return False
    if state[PENDING] > 0:
        bits = min(CHUNK, state[PENDING])
        value = symbol - AMPLITUDE_FIRST - ((1 << bits) - 2)
        if value < 0 or value >= (1 << bits):
            return False
        _amplitude(spec, state, value, bits)
        return True
    k = state[K]
    if k == 0:
        size = symbol
        if spec.by_block and state[BLOCK] > 0:
            size = symbol - SYMBOLS - (state[BLOCK] - 1) * DC_SIZES
        if size < 0 or size >= DC_SIZES or not _dc_fits(spec, state, size):
            return False
        state[K] = 1
        state[PENDING] = size
        state[SIZE] = size
        state[VALUE] = 0
        state[INTERVAL_END] = 0
        if spec.coarse and size == 0:
            _next_block(spec, state)
        return True
    index = symbol - AC_FIRST
    if index < 0 or symbol >= AMPLITUDE_FIRST:
        return False
    if index == 0:  # EOB
        if state[ZEROS]:
            return False
        _next_block(spec, state)
    elif index == 1:  # ZRL
        if k + 16 > 63:
            return False
        state[K] = k + 16
        state[ZEROS] = 1
    else:
        run = (index - 2) // 10
        if k + run > 63:
            return False
        state[K] = k + run + 1
        state[PENDING] = (index - 2) % 10 + 1
        state[SIZE] = 0
        state[VALUE] = 0
        state[ZEROS] = 0
    return True


@kernel()
def _bit_step(spec, state, bit):
    """Advance by one bit of entropy-coded data."""
    if state[INTERVAL_END]:  # the last byte of an interval is filled with 1-bits
        return bit == 1
    if state[PENDING] > 0:
        _amplitude(spec, state, bit, 1)
        return True
    k = state[K]
    chroma = 1 if spec.component[state[BLOCK]] > 0 else 0
    table = chroma if k == 0 else 2 + chroma
    step = spec.child[table, state[NODE], bit]
    if step == -1:
        return False
    if step >= 0:
        need = spec.need[table, step, state[ZEROS]]
        if (not _dc_fits(spec, state, need)) if k == 0 else (k + need > 63):
            return False
        state[NODE] = step
        return True
    state[NODE] = 0
    symbol = -2 - step
    if k > 0:
        run, size = symbol >> 4, symbol & 15
        if size == 0:
            symbol = AC_FIRST + (run > 0)
        else:
            symbol = AC_FIRST + 2 + run * 10 + size - 1
    return symbol_step(spec, state, symbol)


@kernel()
def _scan_over(spec, state):
    return state[MCU] == spec.mcus and state[INTERVAL_END] == 1 and state[PHASE] == DATA


@kernel()
def byte_step(spec, state, symbol):
    """Advance by one byte (or atomic marker); False when illegal, the state is then undefined."""
    phase = state[PHASE]
    if phase == HEADER:
        if symbol != spec.header[state[POSITION]]:
            return False
        state[POSITION] += 1
        if state[POSITION] == len(spec.header):
            state[PHASE] = DATA
            state[POSITION] = 0
        return True
    if phase == TRAILER or (_scan_over(spec, state) and len(spec.trailer) > 0):
        if state[POSITION] >= len(spec.trailer) or symbol != spec.trailer[state[POSITION]]:
            return False
        state[PHASE] = TRAILER
        state[POSITION] += 1
        return True
    if phase == STUFFING:
        state[PHASE] = DATA
        return symbol == 0
    marker = RST0 + (state[MCU] // max(spec.interval, 1) - 1) % 8
    if phase == MARKER:
        state[PHASE] = DATA
        state[INTERVAL_END] = 0
        return symbol == marker
    if state[INTERVAL_END]:
        if state[MCU] == spec.mcus:
            return False
        if spec.atomic:
            state[INTERVAL_END] = 0
            return symbol == FIRST_RST_SYMBOL + marker - RST0
        state[PHASE] = MARKER
        return symbol == 0xFF
    if symbol > 255:
        return False
    for shift in range(7, -1, -1):
        if not _bit_step(spec, state, (symbol >> shift) & 1):
            return False
    if symbol == 0xFF:
        state[PHASE] = STUFFING
    return True


@kernel()
def step(spec, state, symbol):
    if spec.kind == BYTE_KIND:
        return byte_step(spec, state, symbol)
    if spec.kind == CODES_KIND:
        if state[MCU] >= spec.mcus or symbol < 0 or symbol >= spec.codes:
            return False
        state[MCU] += 1
        return True
    return symbol_step(spec, state, symbol)


@kernel()
def complete(spec, state):
    """Whether the stream may end here (it may then do nothing else)."""
    if spec.kind != BYTE_KIND:
        return state[MCU] == spec.mcus
    if len(spec.trailer) > 0:
        return state[PHASE] == TRAILER and state[POSITION] == len(spec.trailer)
    return _scan_over(spec, state)


@kernel()
def _shortest_symbols(spec, state):
    if state[MCU] >= spec.mcus:
        return 0
    blocks = len(spec.component)
    rest = (spec.mcus - state[MCU]) * blocks - state[BLOCK] - 1
    k = state[K]
    if spec.coarse and state[PASS] == 0:
        now = (state[PENDING] + CHUNK - 1) // CHUNK if state[PENDING] > 0 else 1
        return rest + now + spec.mcus * blocks
    if state[PENDING] > 0:
        now = (state[PENDING] + CHUNK - 1) // CHUNK + (1 if k < 64 else 0)
    elif k == 0:
        now = 2
    elif state[ZEROS]:
        now = 2 if k >= 48 else 3  # a coefficient must come; a run of up to 15 may reach 63
    else:
        now = 1
    return (1 if spec.coarse else 2) * rest + now


@kernel()
def _shortest_bytes(spec, state):
    """Exact, because the shortest way to end a block always has a 0-bit: no byte of it is FF."""
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
    if state[INTERVAL_END]:
        if mcu == spec.mcus:
            return total
        total += 1 if state[PHASE] == MARKER else marker
        bits = mcu_bits
    else:
        if state[PENDING] > 0:
            bits = state[PENDING]
            if state[K] < 64:
                chroma = 1 if spec.component[state[BLOCK]] > 0 else 0
                bits += spec.cost[2 + chroma, 0, state[K], 0]
        else:
            chroma = 1 if spec.component[state[BLOCK]] > 0 else 0
            table = chroma if state[K] == 0 else 2 + chroma
            bits = spec.cost[table, state[NODE], state[K], state[ZEROS]]
        bits += spec.block_bits[state[BLOCK] + 1]
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


@kernel()
def shortest(spec, state):
    """How many symbols the shortest completion takes; 0 when the stream is complete."""
    if spec.kind == BYTE_KIND:
        return _shortest_bytes(spec, state)
    if spec.kind == CODES_KIND:
        return spec.mcus - state[MCU]
    return _shortest_symbols(spec, state)


def _is_dc(symbol: int) -> bool:
    return symbol < DC_SIZES or symbol >= SYMBOLS


def _of_header(symbols: tuple[int, ...]) -> bool:
    pairs = itertools.pairwise(symbols)
    return any(a == 0xFF and b not in (0, 0xD9) and not 0 <= b - RST0 < 8 for a, b in pairs)


def limits(spec: JpegSpec, spelling: list[tuple[int, ...]]) -> tuple[int, int]:
    """(blocks that one of these tokens may reach into, by how much it may move a running DC)."""
    longest = max(map(len, spelling))
    if spec.kind == BYTE_KIND:
        # Markers that only a header has bar a token from the scan, where alone keys are given.
        longest = max(len(symbols) for symbols in spelling if not _of_header(symbols))
        # A block has at least 4 bits, one with a DC difference of the largest size 24.
        return 2 * longest + 2, (longest // 3 + 2) * LARGEST_DC
    if spec.kind == CODES_KIND:
        return longest, 0
    sizes = [
        [(s if s < DC_SIZES else s - SYMBOLS) % DC_SIZES for s in symbols if _is_dc(s)]
        for symbols in spelling
    ]
    moved = max(sum((1 << size) - 1 for size in row) for row in sizes)
    # A block may also end at coefficient 63, without a symbol that says so.
    blocks = longest if spec.coarse else max(map(len, sizes))
    return blocks + 1, moved + LARGEST_DC  # the last: of a size read before


@kernel()
def key(spec, state, reach, swing):
    """A number that only states share in which the same tokens are legal, budgets aside; -1: none.

    reach, swing: `limits` of the tokens. What lies further ahead is no part of the number.
    """
    if spec.kind == CODES_KIND:
        return min(spec.mcus - state[MCU], reach)
    phase = state[PHASE]
    if phase in (HEADER, TRAILER):
        return np.int64(-1)
    for i in range(3):
        if abs(state[PREDICTION + i]) + swing > DC_LIMIT:
            return np.int64(-1)
    blocks = len(spec.component)
    here = state[MCU] * blocks + state[BLOCK]
    number = min(spec.mcus * blocks - here, reach)
    if spec.coarse:
        rest = (2 - state[PASS]) * spec.mcus * blocks - here
        number = (number * (reach + 1) + min(rest, reach)) * 2 + state[PASS]
    if spec.kind == BYTE_KIND:
        if spec.interval > 0:
            intervals = state[MCU] // spec.interval
            end = min((intervals + 1) * spec.interval * blocks - here, reach)
            if spec.atomic:  # no token goes past a marker, so nothing behind it counts
                number = end * 8 + (intervals % 8 if state[INTERVAL_END] else 0)
            else:
                number = (number * (reach + 1) + end) * 8 + intervals % 8
        number = ((number * 8 + phase) * NODES + state[NODE]) * 2 + state[INTERVAL_END]
    number = (number * 2 + (state[SIZE] > 0)) * 2 + state[ZEROS]
    return ((number * 16 + state[PENDING]) * 128 + state[K]) * 8 + state[BLOCK]


def codes_spec(codes: int, count: int) -> JpegSpec:
    """The simplest machine: `count` symbols of fixed length, each any of `codes`."""
    return jpeg_spec(CODES_KIND, (0,), count, 0)._replace(codes=codes)


def symbol_name(symbol: int) -> str:
    """What a symbol says, as T.81 writes it: `DC 3`, `AC 0/1`, `EOB`, `amp 0110`."""
    if symbol >= SYMBOLS:
        block, size = divmod(symbol - SYMBOLS, DC_SIZES)
        return f"DC {size} block {block + 1}"
    if symbol < AC_FIRST:
        return f"DC {symbol}"
    if symbol < AMPLITUDE_FIRST:
        value = int(AC_RUN_SIZES[symbol - AC_FIRST])
        return {0x00: "EOB", 0xF0: "ZRL"}.get(value, f"AC {value >> 4}/{value & 15}")
    rest = symbol - AMPLITUDE_FIRST + 2
    bits = rest.bit_length() - 1
    return f"amp {rest - (1 << bits):0{bits}b}"


assert int(AC_INDEX[0x01]) == 2 and int(AC_INDEX[0xFA]) == len(AC_RUN_SIZES) - 1
