"""Choosing the next token: temperature, top-k, top-p on the model's own distribution, then grammar.

The order matters: the nucleus is the model's, and of it the legal tokens remain; where none is
legal, the most probable legal token is taken. Random numbers are a hash of (seed, picture, step),
so a picture does not depend on the batch it was drawn in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jpeglm.config import MAX_SEED, InputError, Settings, check_seed
from jpeglm.generation.constraint import Vocabulary, advance, token_mask
from jpeglm.kernels import LOWEST, exp, float_of, highest, kernel, log

MAX_GUIDANCE = 1e6
"""Beyond it guided logits would leave float32."""


class Draw(NamedTuple):
    """`Sampling` and the seed, as numba takes them; an inverse temperature of 0 is greedy."""

    grammar: bool
    inverse: float
    top_k: int
    top_p: float
    seed: int


@dataclass(frozen=True)
class Sampling(Settings):
    """How tokens are drawn; top_k = 0 and top_p = 1 leave the distribution as it is, and so does
    guidance = 1 (`generation.guidance`)."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    grammar: bool = True
    guidance: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)}; it must be a finite number")
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; it must be 0 (off) or more")
        if not 0 <= self.guidance <= MAX_GUIDANCE:
            raise InputError(
                f"guidance is {self.guidance}; it goes from 0 (no class) to {MAX_GUIDANCE:g}"
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")

    def draw(self, seed: int) -> Draw:
        """What compiled code needs of it."""
        inverse = 0.0
        if self.temperature:  # as much as float32 holds; beyond, nothing changes any more
            inverse = 1.0 / min(max(self.temperature, 1e-30), 1e30)
        top_k = min(self.top_k, MAX_SEED)
        return Draw(self.grammar, inverse, top_k, float(self.top_p), check_seed(seed))


class Scratch(NamedTuple):
    """What `sample_step` writes on; V tokens."""

    weight: np.ndarray
    """float32 [V]"""
    order: np.ndarray
    """int64 [V]"""
    free: np.ndarray
    """bool [V]: the tokens that are drawn from without a grammar."""
    bits: np.ndarray
    """uint64 [1]: an array, whose overflow wraps without a warning in numpy too."""


def scratch(size: int, vocabulary: Vocabulary) -> Scratch:
    """Of logits [B, size], which have class tokens too."""
    free = np.zeros(size, np.bool_)
    free[: len(vocabulary.offsets) - 1] = True
    free[vocabulary.eos] = True
    return Scratch(
        np.empty(size, np.float32), np.empty(size, np.int64), free, np.zeros(1, np.uint64)
    )


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


FEW = 128
"""So many tokens are found sooner by insertion than by a heap of all."""


@kernel()
def _threshold(weight, count):
    """A value that `count` of the weights, all in [0, 1], reach, and hardly more do: bisection of
    their bits, which are in their order; each count of the others is a few vector instructions."""
    low, high = np.int32(0), np.int32(0x3F800001)
    while high - low > 1:
        middle = (low + high) >> 1
        at = float_of(np.int32(middle))
        reached = np.int32(0)
        for i in range(len(weight)):
            reached += np.int32(weight[i] >= at)
        if reached < count:
            high = middle
        else:
            low = middle
            if reached <= count + count // 2:
                break
    return float_of(np.int32(low))


@kernel()
def _best(weight, count, order):
    """The `count` largest weights' places, as `_nucleus` leaves them: the last `count` of `order`.

    All of them are written: `count` weights reach `least`, and NaN, which reaches nothing, is not
    passed over either.
    """
    end = len(weight) - 1  # the first of them comes last
    least = _threshold(weight, count)
    n = 0
    for i in range(len(weight)):
        w = weight[i]
        if w < least:
            continue
        if n < count:
            n += 1
        elif w <= weight[order[end - n + 1]]:
            continue
        place = end - n + 1
        while place < end and weight[order[place + 1]] < w:
            order[place] = order[place + 1]
            place += 1
        order[place] = i


@kernel()
def _sift(weight, order, place, size):
    """Restore the heap order[:size] below `place`: on top the largest weight, of equals the
    first."""
    token = order[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        a = order[child]
        if child + 1 < size:
            b = order[child + 1]
            if weight[b] > weight[a] or (weight[b] == weight[a] and b < a):
                child += 1
                a = b
        if weight[token] > weight[a] or (weight[token] == weight[a] and token < a):
            break
        order[place] = a
        place = child
    order[place] = token


@kernel()
def _nucleus(weight, total, top_k, top_p, order):
    """How many of the most probable tokens are in the nucleus: the last so many of `order`, the
    most probable one last, of equals the first."""
    size = len(weight)
    kept = size if top_k == 0 else min(top_k, size)
    inside = 0.0
    if kept <= FEW:
        _best(weight, kept, order)
        for i in range(kept):
            inside += weight[order[size - 1 - i]]
    else:
        for i in range(size):
            order[i] = i
        for place in range(size // 2 - 1, -1, -1):
            _sift(weight, order, place, size)
        for i in range(kept):
            last = size - 1 - i
            order[0], order[last] = order[last], order[0]
            _sift(weight, order, 0, last)
            inside += weight[order[last]]
            if top_k == 0 and inside >= top_p * total:
                return i + 1
    if top_p < 1.0:
        share, inside = top_p * inside, 0.0
        for i in range(kept):
            inside += weight[order[size - 1 - i]]
            if inside >= share:
                return i + 1
    return kept


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
    nucleus = size
    narrowed = draw.top_k > 0 or draw.top_p < 1.0
    if draw.inverse > 0.0:
        legal, last = 0.0, np.int64(-1)
        if narrowed:
            nucleus = _nucleus(weight, total, draw.top_k, draw.top_p, order)
        for i in range(nucleus):
            token = order[size - 1 - i] if narrowed else i
            if mask[token]:
                legal += weight[token]
        target = uniform * legal
        for i in range(nucleus):
            token = order[size - 1 - i] if narrowed else i
            if mask[token] and weight[token] > 0:
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


@kernel()
def sample_step(
    spec, logits, states, forced_at, ahead, tokens_left, vocabulary, masks, draw, pictures, count,
    ids, nats, scratch,
):  # fmt: skip
    """One token for each row of logits [B, V], written to ids [B]; states move on. V is the
    vocabulary's size and the width of masks and scratch (a checkpoint with another is refused).

    nats [B] grows by −ln p of the token under the model's own distribution (temperature 1).
    """
    for row in range(logits.shape[0]):
        mask = scratch.free
        if draw.grammar:
            found = token_mask(
                spec, states[row], forced_at[row], ahead, tokens_left, vocabulary, masks
            )
            mask = masks.legal[found]
        uniform = _uniform(draw.seed, pictures[row], count, scratch.bits)
        token, nat = choose(logits[row], mask, draw, uniform, scratch.weight, scratch.order)
        ids[row] = token
        nats[row] += nat
        if token != vocabulary.eos and draw.grammar:
            forced_at[row] += advance(spec, states[row], token, vocabulary)
