"""The scan of a baseline JPEG as a state machine over the entropy coder's own symbols.

`symbol_step` is the order of T.81 F.1.2: block by block a DC size, its amplitude, then run/size and
amplitude until EOB or coefficient 63. The state is a small int64 vector; nothing has to be built or
shipped, and running DC values fit in. Whatever could not be completed is illegal, so an accepted
prefix always has a legal continuation, and `shortest` tells exactly how many symbols the shortest
one takes. Over the scan's bytes the same language is `syntax.jpeg_bytes`. The codes of learned
codecs, all of one length, go through the same kernels (`codes_spec`).

Symbol numbers: 0–11 DC size, 12–173 run/size (`AC_RUN_SIZES`), 174–203 amplitude chunks of 1–4
bits, most significant first; the leading chunk of a long amplitude has 4 bits. Where DC sizes name
blocks (`JpegSpec.names`), those of block b > 0 of an MCU are 204 + 12 (b - 1) onwards; where they
name MCUs as well, those of MCU m > 0 follow behind these, 12 for the first block of each.

Kernels take a `JpegSpec` and its state, int64 [STATE_SIZE], which they change in place; symbols and
amplitudes are int64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel
from jpeglm.syntax.jpeg_tables import AC_INDEX, AC_RUN_SIZES, DC_SIZES

AC_FIRST = DC_SIZES
AMPLITUDE_FIRST = AC_FIRST + len(AC_RUN_SIZES)
SYMBOLS = AMPLITUDE_FIRST + 30
CHUNK = 4

SYMBOL_KIND, CODES_KIND = 0, 1
NO_NAMES, BLOCK_NAMES, MCU_NAMES = 0, 1, 2
"""What a DC size says beside itself: nothing; its block in the MCU; that, and an MCU's first one
which MCU it is."""
DC_LIMIT = 32767
"""Running DC values are int16 in every decoder; a size that could leave that range is illegal."""

# Fields of a state.
MCU, BLOCK, K, PENDING, SIZE, VALUE, ZEROS, PREDICTION = 0, 1, 2, 3, 4, 5, 6, 7
INTERVAL_END = 10
PASS = 11  # with `coarse`: 0 the DC coefficients of all blocks, 1 their AC coefficients
SHIFT = 12  # address of an MCU - MCU: not 0 where MCUs have changed places
STATE_SIZE = 13
RST0 = 0xD0
LARGEST_DC = 2047
"""Of a difference of the largest size, 11."""
GROWTH = 4
"""A symbol lengthens the shortest completion by at most three (a long amplitude)."""


class JpegSpec(NamedTuple):
    """All that a state machine needs to know, as numbers and arrays that numba takes."""

    kind: int
    codes: int  # CODES_KIND only: `mcus` symbols, each any of so many
    names: int  # NO_NAMES, BLOCK_NAMES, MCU_NAMES
    coarse: int  # 1: the DC coefficients of the whole picture come first (symbols only)
    mcus: int
    interval: int  # MCUs between restart markers, 0: none
    component: np.ndarray  # int64 [blocks in an MCU]


def jpeg_spec(
    component: tuple[int, ...],
    mcus: int,
    interval: int,
    names: int = NO_NAMES,
    coarse: bool = False,
) -> JpegSpec:
    """The state machine for `mcus` MCUs whose blocks belong to the components `component`."""
    blocks = np.array(component, np.int64)
    return JpegSpec(SYMBOL_KIND, 0, names, int(coarse), mcus, interval, blocks)


def start_state(spec: JpegSpec) -> np.ndarray:
    """int64 [STATE_SIZE]: before the first symbol."""
    return np.zeros(STATE_SIZE, np.int64)


def apart(spec: JpegSpec) -> bool:
    """Whether no MCU needs another one, so that they may change places."""
    return spec.kind == SYMBOL_KIND and spec.interval == 1 and not spec.coarse


def before_last(spec: JpegSpec, first: int, mcus: int) -> np.ndarray:
    """int64 [STATE_SIZE]: before `mcus` MCUs from the address `first` on, moved to the end of a
    picture whose MCUs stand apart."""
    assert 0 <= first <= first + mcus <= spec.mcus
    state = start_state(spec)
    state[MCU] = spec.mcus - mcus
    state[SHIFT] = first - state[MCU]
    return state


@kernel()
def first_dc(spec, block, address):
    """The symbol that says DC size 0 of this block of the MCU `address`; the other sizes follow."""
    if spec.names == NO_NAMES:
        return 0
    if block > 0:
        return SYMBOLS + DC_SIZES * (block - 1)
    if spec.names == MCU_NAMES and address > 0:
        return SYMBOLS + DC_SIZES * (len(spec.component) + address - 2)
    return 0


def symbol_count(spec: JpegSpec) -> int:
    """How many symbols the entropy coder has under these names."""
    if spec.names == NO_NAMES:
        return SYMBOLS
    others = len(spec.component) - 1 + (spec.mcus - 1 if spec.names == MCU_NAMES else 0)
    return SYMBOLS + DC_SIZES * others


@kernel()
def _next_block(spec, state):
    """To the next block: of the MCU, the next MCU, or the AC pass."""
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
    """Whether every DC difference of this size leaves the running value within DC_LIMIT."""
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
        size = symbol - first_dc(spec, state[BLOCK], state[MCU] + state[SHIFT])
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
def step(spec, state, symbol):
    """Take a symbol or a code; False, and the state untouched, when it is illegal here."""
    if spec.kind == CODES_KIND:
        if state[MCU] >= spec.mcus or symbol < 0 or symbol >= spec.codes:
            return False
        state[MCU] += 1
        return True
    return symbol_step(spec, state, symbol)


@kernel()
def complete(spec, state):
    """Whether the stream may end here (it may then do nothing else)."""
    return state[MCU] == spec.mcus


@kernel()
def units(spec, state):
    """Whole MCUs, or codes; of spectral passes the last one makes them whole."""
    return np.int64(0) if spec.coarse and state[PASS] == 0 else state[MCU]


@kernel()
def _shortest_symbols(spec, state):
    """`shortest` of a JPEG: of each missing block a DC size and EOB, or less."""
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
def shortest(spec, state):
    """How many symbols the shortest completion takes; 0 when the stream is complete."""
    if spec.kind == CODES_KIND:
        return spec.mcus - state[MCU]
    return _shortest_symbols(spec, state)


def _is_dc(symbol: int) -> bool:
    return symbol < DC_SIZES or symbol >= SYMBOLS


def limits(spec: JpegSpec, spelling: list[tuple[int, ...]]) -> tuple[int, int]:
    """(blocks that one of these tokens may reach into, by how much it may move a running DC)."""
    longest = max(map(len, spelling))
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
    for i in range(3):
        if abs(state[PREDICTION + i]) + swing > DC_LIMIT:
            return np.int64(-1)
    blocks = len(spec.component)
    here = state[MCU] * blocks + state[BLOCK]
    number = min(spec.mcus * blocks - here, reach)
    if spec.names == MCU_NAMES:
        # The address counts where a token may say it: at an MCU's start, or if it reaches the next.
        begins = state[BLOCK] == 0 and state[K] == 0
        says = begins or state[BLOCK] + reach > blocks
        number = number * (spec.mcus + 1) + (state[MCU] + state[SHIFT] if says else spec.mcus)
    # Pending bits are of a DC difference where K is 1, and of an AC coefficient beyond; so K says
    # which pass of coarse symbols this is, too.
    number = ((number * 2 + state[ZEROS]) * 16 + state[PENDING]) * 128 + state[K]
    return number * 8 + state[BLOCK]


def codes_spec(codes: int, count: int) -> JpegSpec:
    """The simplest machine: `count` symbols of fixed length, each any of `codes`."""
    return jpeg_spec((0,), count, 0)._replace(kind=CODES_KIND, codes=codes)


def symbol_name(symbol: int, blocks: int) -> str:
    """What a symbol says, as T.81 writes it: `DC 3`, `AC 0/1`, `EOB`, `amp 0110`; with what it
    names: `DC 3 block 1`, `DC 3 MCU 5`. blocks: of an MCU."""
    if symbol >= SYMBOLS:
        place, size = divmod(symbol - SYMBOLS, DC_SIZES)
        block, mcu = place + 1, place + 2 - blocks
        return f"DC {size} block {block}" if mcu < 1 else f"DC {size} MCU {mcu}"
    if symbol < AC_FIRST:
        return f"DC {symbol}"
    if symbol < AMPLITUDE_FIRST:
        value = int(AC_RUN_SIZES[symbol - AC_FIRST])
        return {0x00: "EOB", 0xF0: "ZRL"}.get(value, f"AC {value >> 4}/{value & 15}")
    rest = symbol - AMPLITUDE_FIRST + 2
    bits = rest.bit_length() - 1
    return f"amp {rest - (1 << bits):0{bits}b}"


assert int(AC_INDEX[0x01]) == 2 and int(AC_INDEX[0xFA]) == len(AC_RUN_SIZES) - 1
