"""Choosing the next token: temperature, top-k, top-p on the model's own distribution, then grammar.

The order matters: the nucleus is the model's, and of it the legal tokens remain; where none is
legal, the most probable legal token is taken. Random numbers are a hash of (seed, picture, step),
so a picture does not depend on the batch it was drawn in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jpeglm.config import InputError, Settings
from jpeglm.generation.constraint import advance, token_mask
from jpeglm.kernels import njit


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
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; it must be 0 (off) or more")
        if self.guidance < 0:
            raise InputError(f"guidance is {self.guidance}; it must be 0 (no class) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")


@njit()
def _uniform(seed, picture, step):
    """A number in [0, 1) from three integers (splitmix64, Steele et al. 2014)."""
    x = np.zeros(1, np.uint64)  # an array, whose overflow wraps without a warning in numpy too
    for part in (seed, picture, step):
        x += np.uint64(part)
        x += np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return np.float64(x[0] >> np.uint64(11)) * 2.0**-53


@njit()
def choose(logits, mask, temperature, top_k, top_p, uniform):
    """Draw a token id; logits float32 [V], mask bool [V], uniform in [0, 1)."""
    size = len(logits)
    best, best_legal = 0, -1
    for i in range(size):
        if logits[i] > logits[best]:
            best = i
        if mask[i] and (best_legal < 0 or logits[i] > logits[best_legal]):
            best_legal = i
    if temperature == 0.0:
        return best_legal
    weight = np.empty(size, np.float64)
    for i in range(size):
        weight[i] = np.exp((np.float64(logits[i]) - np.float64(logits[best])) / temperature)
    if top_k > 0 or top_p < 1.0:
        order = np.argsort(-weight, kind="mergesort")
        kept = size if top_k == 0 else min(top_k, size)
        total = 0.0
        for i in range(kept):
            total += weight[order[i]]
        nucleus, sum_kept = 0, 0.0
        while nucleus < kept and (nucleus == 0 or sum_kept < top_p * total):
            sum_kept += weight[order[nucleus]]
            nucleus += 1
        for i in range(nucleus, size):
            weight[order[i]] = 0.0
    total = 0.0
    for i in range(size):
        if not mask[i]:
            weight[i] = 0.0
        total += weight[i]
    if total <= 0.0:
        return best_legal
    target = uniform * total
    last = best_legal
    for i in range(size):
        if weight[i] > 0.0:
            last = i
            target -= weight[i]
            if target < 0.0:
                break
    return last


@njit()
def sample_step(
    spec,
    logits,
    states,
    forced_at,
    forced,
    value,
    bits,
    need_after,
    tokens_left,
    table,
    scratch,
    use_grammar,
    temperature,
    top_k,
    top_p,
    seed,
    pictures,
    count,
    ids,
    nats,
):
    """One token for each row of logits [B, V], written to ids [B]; states move on.

    nats [B] grows by −ln p of the token under the model's own distribution (temperature 1).
    """
    offsets, symbols, _, _, _, eos = table
    size = logits.shape[1]
    mask = np.zeros(size, np.bool_)
    for row in range(logits.shape[0]):
        if use_grammar:
            token_mask(
                spec,
                states[row],
                forced_at[row],
                forced,
                value,
                bits,
                tokens_left,
                need_after,
                table,
                scratch,
                mask,
            )
        else:
            mask[: len(offsets) - 1] = True
            mask[eos] = True
        token = choose(
            logits[row],
            mask,
            temperature,
            top_k,
            top_p,
            _uniform(seed, pictures[row], count),
        )
        ids[row] = token
        peak = logits[row].max()
        total = 0.0
        for i in range(size):
            total += np.exp(np.float64(logits[row, i] - peak))
        nats[row] += np.log(total) - np.float64(logits[row, token] - peak)
        if token != eos and use_grammar:
            forced_at[row] += advance(spec, states[row], token, offsets, symbols)
