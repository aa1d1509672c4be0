"""Which tokens may come next, so that the stream ends valid and in time: the kernels.

A token is legal when every symbol it spells is legal in turn and the shortest completion after it
still fits into the token budget. A merged token continues from the state that its left half
reached, so a whole mask costs about one grammar step per token; and where the machine can tell
which states are alike, masks are kept and found again. Where the prompt was cut inside a token (or
inside a byte), the symbols after the last stable token are forced: tokens must spell them before
anything new, so that the model chooses its own tokens and the prompt stays as given. A hole's spans
(`jpeglm.holes`) are walked one after the other, each as the end of a picture of its own; where one
is complete, the address of the next is all that may come.
`generation.matcher` is their face for people, `generation.sampling` asks them for every token.

Kernels take the machine's spec and state (`syntax.machine`: int64 [state], changed in place), a
`WALK` as one record, `forced`, int32 [>= walk.known], and `spans`, int64 [>= walk.spans, NEXT +
state]; tokens, symbols and room are int64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel, record
from jpeglm.syntax.machine import Spec, complete, key, shortest, start_state, step

WALK = record(
    at="i8", known="i8", value="i8", bits="i8", need="i8", left="i8",
    span="i8", spans="i8", later="i8", ahead="i8",
)  # fmt: skip
"""How far a stream is beside its grammar's state. A prompt leaves `known` symbols to be spelt (they
lie beside), of which `at` are, then the leading `bits` bits of the byte `value`; need: symbols of
the shortest completion behind them. left: tokens that may still come, EOS among them. Of `spans`
that a hole has behind the present one, `span` is the next; `later` tokens are kept for them all,
which are `ahead` units."""

ADDRESS, LATER, AHEAD, NEXT = 0, 1, 2, 3
"""Columns of a row's spans: the address token; `WALK.later` and `ahead` once it is begun; and from
NEXT on the grammar's state then."""


class Vocabulary(NamedTuple):
    """A tokenizer's tokens, as numba takes them."""

    offsets: np.ndarray
    """int64 [tokens + 1]: token t spells symbols[offsets[t] : offsets[t + 1]]."""
    symbols: np.ndarray
    parent: np.ndarray
    """int64 [tokens]: the left half of a merged token, -1 of the others."""
    rest: np.ndarray
    """int64 [tokens]: where in `symbols` the right half begins."""
    margin: int
    """By how much a token may lengthen the shortest completion, at most."""
    eos: int
    reach: int
    swing: int


class Masks(NamedTuple):
    """Masks that were computed: rows of `legal`, found by the machine's `key` of the state.

    Row 0 is for masks that have no key or no room. A table that is full is not emptied: what came
    first is what comes most.
    """

    keys: np.ndarray
    """int64 [slots], -1 is free; a key lies at the first free slot from its own on. There is one:
    no more keys than rows are entered, of which there are at most half as many."""
    rows: np.ndarray
    """int64 [slots]"""
    legal: np.ndarray
    """bool [rows, vocabulary], as wide as the logits."""
    used: np.ndarray
    """int64 [1]: rows in use."""
    states: np.ndarray
    """int64 [tokens, state], scratch."""


SLOTS = 1 << 17
PRIME = 131071
ROWS = SLOTS // 2
MEMORY = 32 << 20
"""Bytes that the rows may take."""


def make_masks(spec: Spec, tokens: int, vocabulary: int) -> Masks:
    """An empty table for a machine and a vocabulary."""
    rows = max(2, min(ROWS, MEMORY // vocabulary))
    return Masks(
        np.full(SLOTS, -1, np.int64),
        np.zeros(SLOTS, np.int64),
        np.zeros((rows, vocabulary), np.bool_),
        np.ones(1, np.int64),
        np.empty((tokens, len(start_state(spec))), np.int64),
    )


@kernel()
def _fits(symbol, place, walk, forced):
    """Whether a symbol agrees with the forced ones at `place`."""
    if place < walk.known:
        return symbol == forced[place]
    if place == walk.known and walk.bits > 0:
        return symbol < 256 and symbol >> (8 - walk.bits) == walk.value >> (8 - walk.bits)
    return True


@kernel()
def _copy(source, target):
    """target = source, int64 [state] both."""
    for i in range(len(source)):
        target[i] = source[i]


@kernel()
def _fill(spec, state, walk, forced, room, loose, vocabulary, states, mask):
    """Compute a mask, bool [vocabulary], token by token; states: a row for each token that spells
    something of a picture, of which the vocabulary has more (BOS, EOS, classes, text)."""
    offsets, symbols = vocabulary.offsets, vocabulary.symbols
    mask[:] = False
    known = walk.known + (1 if walk.bits else 0)
    for token in range(len(offsets) - 1):
        left = vocabulary.parent[token]
        start = offsets[token]
        trial = states[token]
        if left >= 0 and mask[left]:
            _copy(states[left], trial)
            start = vocabulary.rest[token]
        elif left >= 0 and loose:
            continue
        else:
            # The left half may be barred by the budget alone: the whole decides itself.
            _copy(state, trial)
        place = walk.at + start - offsets[token]
        good = True
        for i in range(start, offsets[token + 1]):
            symbol = symbols[i]
            if place < known and not _fits(symbol, place, walk, forced):
                good = False
            else:
                good = step(spec, trial, symbol)
            if not good:
                break
            place += 1
        if good and not loose:
            if place < walk.known:
                good = walk.known - place + walk.need <= room
            else:
                good = shortest(spec, trial) <= room
        mask[token] = good


@kernel()
def token_mask(spec, state, walk, forced, spans, vocabulary, masks):
    """Row of `masks.legal` with the tokens that may come next."""
    known = walk.known + (1 if walk.bits else 0)
    if walk.at >= known and complete(spec, state):
        masks.legal[0] = False
        last = walk.span == walk.spans
        masks.legal[0, vocabulary.eos if last else spans[walk.span, ADDRESS]] = True
        return np.int64(0)
    room = walk.left - 2 - walk.later  # after this token, and with EOS kept in reserve
    loose = room > shortest(spec, state) + walk.need + vocabulary.margin
    number, slot, row = np.int64(-1), np.int64(0), np.int64(0)
    if loose and walk.at >= known:
        number = key(spec, state, vocabulary.reach, vocabulary.swing)
    if number >= 0:
        slot = number % PRIME
        while masks.keys[slot] >= 0:
            if masks.keys[slot] == number:
                return masks.rows[slot]
            slot = (slot + 1) & (SLOTS - 1)
        if masks.used[0] < len(masks.legal):
            row = masks.used[0]
            masks.used[0] += 1
            masks.keys[slot], masks.rows[slot] = number, row
    mask = masks.legal[row]
    _fill(spec, state, walk, forced, room, loose, vocabulary, masks.states, mask)
    return row


@kernel()
def advance(spec, state, walk, token, spans, vocabulary):
    """Take a legal token other than EOS."""
    if token > vocabulary.eos:  # an address: of all that spells nothing the only one
        for i in range(len(state)):
            state[i] = spans[walk.span, NEXT + i]
        walk.later, walk.ahead = spans[walk.span, LATER], spans[walk.span, AHEAD]
        walk.span += 1
        return
    first, end = vocabulary.offsets[token], vocabulary.offsets[token + 1]
    for i in range(first, end):
        step(spec, state, vocabulary.symbols[i])
    walk.at += end - first
