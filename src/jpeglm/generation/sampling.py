"""Choosing the next token: temperature, top-k, top-p on the model's own distribution, then grammar.

The order matters: the nucleus is the model's, and of it the legal tokens remain; where none is
legal, the most probable legal token is taken. Random numbers are a hash of (seed, picture, step),
so a picture does not depend on the batch it was drawn in.
"""

from __future__ import annotations

from dataclasses import astuple, fields, replace
from typing import NamedTuple

import numpy as np

from jpeglm.config import MAX_SEED, Sampling, check_seed
from jpeglm.generation.masks import WALK, Masks, Vocabulary, advance, token_mask
from jpeglm.generation.matcher import Constraint
from jpeglm.generation.nucleus import nucleus
from jpeglm.kernels import LOWEST, exp, highest, kernel, log, record
from jpeglm.syntax.machine import units

KINDS = {"bool": "?", "int": "i8", "float": "f8"}
SETTINGS = {field.name: KINDS[str(field.type)] for field in fields(Sampling)}
DRAW = record(**SETTINGS, inverse="f8", seed="i8", picture="i8")
"""`Sampling`, seed and the picture's number in it, as numba takes them; inverse: of the
temperature, 0 is greedy."""


def make_draw(sampling: Sampling, seed: int = 0, picture: int = 0) -> np.void:
    """A `DRAW`: what compiled code needs of it."""
    inverse = 0.0
    if sampling.temperature:  # as much as float32 holds; beyond, nothing changes any more
        inverse = 1.0 / min(max(sampling.temperature, 1e-30), 1e30)
    made = np.zeros(1, DRAW)
    settings = replace(sampling, top_k=min(sampling.top_k, MAX_SEED))
    made[0] = (*astuple(settings), inverse, check_seed(seed), picture)
    row: np.void = made[0]
    return row


@kernel()
def _uniform(seed, picture, step, x):
    """A number in [0, 1) from three integers (splitmix64, Steele et al. 2014); x uint64 [1]."""
    x[:] = 0
    for part in (seed, picture, step):
        x += np.uint64(part)
        x += np.uint64(0x9E3779B97F4A7C15)
        x[0] ^= x[0] >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x[0] ^= x[0] >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x[0] ^= x[0] >> np.uint64(31)
    return np.float64(x[0] >> np.uint64(11)) * 2.0**-53


@kernel()
def _total(weight):
    """Sum of float32 [V] in float64, in an order that no processor chooses: four sums, then one."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = len(weight) // 4 * 4
    for i in range(0, whole, 4):
        a += weight[i]
        b += weight[i + 1]
        c += weight[i + 2]
        d += weight[i + 3]
    for i in range(whole, len(weight)):
        a += weight[i]
    return (a + b) + (c + d)


@kernel()
def choose(logits, mask, draw, uniform, weight, order):
    """(token, −ln p of it under the model's own distribution at temperature 1).

    logits float32 [V], mask bool [V], uniform in [0, 1); weight float32 [V] and order int64 [V] are
    scratch. Nothing but the mask may be legal in the nucleus: then its most probable token is it.
    """
    size = len(logits)
    peak = highest(logits)
    for i in range(size):
        below = logits[i] - peak
        weight[i] = exp(below) if below > LOWEST else np.float32(0)
    whole = _total(weight)
    inverse = np.float32(draw.inverse)
    total = whole
    if draw.inverse != 1.0:
        for i in range(size):
            below = (logits[i] - peak) * inverse
            weight[i] = exp(below) if below > LOWEST else np.float32(0)
        total = _total(weight)
    inside = size
    narrowed = draw.top_k > 0 or draw.top_p < 1.0
    if draw.inverse > 0.0:
        legal, last = 0.0, np.int64(-1)
        if narrowed:
            inside = nucleus(weight, total, draw.top_k, draw.top_p, order)
        for i in range(inside):
            token = order[size - 1 - i] if narrowed else i
            if mask[token] and weight[token] >= draw.min_p:
                legal += weight[token]
        target = uniform * legal
        for i in range(inside):
            token = order[size - 1 - i] if narrowed else i
            if mask[token] and weight[token] > 0 and weight[token] >= draw.min_p:
                last = np.int64(token)
                target -= weight[token]
                if target < 0.0:
                    break
        if last >= 0:
            return last, log(whole) - (logits[last] - peak)
    best = np.int64(-1)
    for i in range(size):
        if mask[i] and (best < 0 or logits[i] > logits[best]):
            best = np.int64(i)
    return best, log(whole) - (logits[best] - peak)


class Table(NamedTuple):
    """What a session knows of its sequences, a row each, as numba takes it."""

    rows: np.ndarray
    """`ROW` [rows]"""
    states: np.ndarray
    """int64 [rows, state]: the grammar's."""
    forced: np.ndarray
    """int32 [rows, F]: symbols that a prompt still forces, `WALK.known` of them."""
    spans: np.ndarray
    """int64 [rows, S, NEXT + state]: those of a hole, `WALK.spans` of them."""
    drawn: np.ndarray
    """int32 [rows, tokens]: the tokens chosen so far, `ROW.count` of them."""
    nats: np.ndarray
    """float64 [rows, tokens]: −ln p of each under the model's own distribution."""
    unit: np.ndarray
    """int64 [rows, tokens]: whole units before each."""


ROW = record(walk=WALK, draw=DRAW, count="i8", token="i8", nats="f8")
"""token: the last one; nats: the sum of all."""


class Scratch(NamedTuple):
    """What choosing writes on; V logits."""

    weight: np.ndarray
    """float32 [V]"""
    order: np.ndarray
    """int64 [V]"""
    free: np.ndarray
    """bool [V]: the tokens that are drawn from without a grammar."""
    bits: np.ndarray
    """uint64 [1]: an array, whose overflow wraps without a warning in numpy too."""


def scratch(size: int, vocabulary: Vocabulary) -> Scratch:
    """Of logits [B, size], which have class and text tokens too."""
    free = np.zeros(size, np.bool_)
    free[: len(vocabulary.offsets) - 1] = True
    free[vocabulary.eos] = True
    return Scratch(
        np.empty(size, np.float32), np.empty(size, np.int64), free, np.zeros(1, np.uint64)
    )


@kernel()
def sample_step(spec, table, places, logits, vocabulary, masks, room):
    """A token for each row of logits [B, V], which belong to the table's rows `places` int64 [B]:
    chosen, written down, and the grammar moved on. V is the vocabulary's size and the width of
    masks and scratch (a checkpoint with another is refused). Gives how many have ended.

    table, vocabulary, masks, room: their fields, as a plain tuple (see `forward.forward`).
    """
    table, vocabulary = Table(*table), Vocabulary(*vocabulary)
    masks, room = Masks(*masks), Scratch(*room)
    ended = 0
    for i in range(len(places)):
        place = places[i]
        row = table.rows[place]
        state, walk, draw = table.states[place], row.walk, row.draw
        mask = room.free
        if draw.grammar:
            forced, spans = table.forced[place], table.spans[place]
            mask = masks.legal[token_mask(spec, state, walk, forced, spans, vocabulary, masks)]
        uniform = _uniform(draw.seed, draw.picture, row.count, room.bits)
        token, nat = choose(logits[i], mask, draw, uniform, room.weight, room.order)
        ended += _write(spec, table, place, token, nat, draw.grammar, vocabulary)
    return ended


@kernel()
def _write(spec, table, place, token, nat, grammar, vocabulary):
    """Note a row's token, and move its grammar on; whether it is the last."""
    row = table.rows[place]
    table.drawn[place, row.count] = token  # count stays below the budget, at most the context
    table.nats[place, row.count] = nat
    table.unit[place, row.count] = units(spec, table.states[place]) - row.walk.ahead
    row.token = token
    row.nats += nat
    row.count += 1
    row.walk.left -= 1
    if token != vocabulary.eos and grammar:
        advance(spec, table.states[place], row.walk, token, table.spans[place], vocabulary)
    return token == vocabulary.eos or row.walk.left <= 0


@kernel()
def follow(spec, table, places, chosen, nats, vocabulary):
    """Note what a device has chosen, int64 and float64 [B, N], for the table's rows `places`: up to
    EOS of each. Gives how many tokens there were, and how many rows have ended."""
    tokens, ended = 0, 0
    for i in range(len(places)):
        for n in range(chosen.shape[1]):
            tokens += 1
            if _write(spec, table, places[i], chosen[i, n], nats[i, n], True, vocabulary):
                ended += 1
                break
    return tokens, ended


class Die:
    """The chooser that samples: `Sampling` says how, a seed says which."""

    def __init__(self, constraint: Constraint) -> None:
        size = constraint.tokenizer.vocab_size
        self._spec = constraint.spec
        self._vocabulary = tuple(constraint.vocabulary)
        self._masks = tuple(constraint.masks)
        self._scratch = tuple(scratch(size, constraint.vocabulary))

    def choose(self, table: Table, places: np.ndarray, logits: np.ndarray) -> int:
        ended = sample_step(
            self._spec, tuple(table), places, logits, self._vocabulary, self._masks, self._scratch
        )
        return int(ended)
