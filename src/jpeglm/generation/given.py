"""The chooser that knows: a stream's own tokens, and what each costs under the model.

That is the model's likelihood of the stream (teacher forcing). Nothing is drawn, so the engine
reads the tokens in pieces instead of one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jpeglm.generation.masks import advance, token_mask
from jpeglm.generation.matcher import Begin, Constraint
from jpeglm.kernels import LOWEST, exp, highest, kernel, log
from jpeglm.syntax.machine import units


@dataclass(frozen=True, eq=False)
class Given:
    """ids: int [N], the tokens behind the prompt, EOS included where it is to be counted."""

    ids: np.ndarray


NOTHING = np.zeros(0, np.int32)
"""Forced of a stream that is given."""


@kernel()
def _cost(spec, state, walk, spans, logits, ids, vocabulary, masks, weight, costs, done):
    """−ln p of each of ids [N] under logits [N, V] to costs[0], and among the legal tokens alone to
    costs[1], float64 [2, N]; done int64 [N]: whole units before each token.

    Infinite is what the grammar forbids. weight: float32 [V], scratch.
    """
    for i in range(len(ids)):
        row, token = logits[i], ids[i]
        peak = highest(row)
        for v in range(len(row)):
            below = row[v] - peak
            weight[v] = exp(below) if below > LOWEST else np.float32(0)
        mask = masks.legal[token_mask(spec, state, walk, NOTHING, spans, vocabulary, masks)]
        whole, legal = 0.0, 0.0
        for v in range(len(row)):
            whole += weight[v]
            if mask[v]:
                legal += weight[v]
        done[i] = units(spec, state) - walk.ahead
        chosen = row[token] - peak
        costs[0, i] = log(whole) - chosen
        costs[1, i] = max(0.0, log(legal) - chosen) if mask[token] else np.inf
        if token != vocabulary.eos:
            advance(spec, state, walk, token, spans, vocabulary)


class Reading:
    """One stream on its way through the model."""

    def __init__(self, constraint: Constraint, given: Given, begin: Begin, before: int) -> None:
        """begin: before the first token that is given, with nothing forced and no budget; before:
        how many logits come ahead of its own, those of the prompt."""
        self.constraint, self.ids = constraint, np.ascontiguousarray(given.ids, np.int64)
        count, size = len(self.ids), constraint.tokenizer.vocab_size
        self._before = before
        self.costs = np.zeros((2, count))
        self.units = np.zeros(count, np.int64)
        self.done = 0
        self._state, self._walk, self._spans = begin.state.copy(), begin.walk.copy(), begin.spans
        self._weight = np.empty(size, np.float32)

    @property
    def units_done(self) -> int:
        """Whole units by now."""
        return int(units(self.constraint.spec, self._state) - self._walk["ahead"][0])

    def take(self, logits: np.ndarray) -> None:
        """Float32 logits [n, V] after the next n tokens, the prompt's among them."""
        skipped = min(self._before, len(logits))
        self._before -= skipped
        logits = logits[skipped:]
        own, begin = self.constraint, self.done
        end = self.done = min(begin + len(logits), len(self.ids))
        _cost(
            own.spec, self._state, self._walk[0], self._spans, logits[: end - begin],
            self.ids[begin:end], own.vocabulary, own.masks, self._weight,
            self.costs[:, begin:end], self.units[begin:end],
        )  # fmt: skip
