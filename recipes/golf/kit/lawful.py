"""Which tokens can come at all: legal ones that a tokenizer would write.

Two masks are functions of what came before: the grammar's, and that of pairs which the merges would
have joined otherwise, so that no stream of this tokenizer has them side by side.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from jpeglm.generation.masks import token_mask
from jpeglm.generation.matcher import Constraint, bare_prompt
from jpeglm.syntax.machine import complete, step
from jpeglm.tokenizer import Tokenizer

ENDLESS = 1 << 30


class Lawful:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.constraint, self.bos = Constraint(tokenizer), tokenizer.bos
        self.legal = torch.from_numpy(self.constraint.masks.legal)
        self.pairs = torch.from_numpy(written_pairs(tokenizer))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """int64 [n]: behind each id of a picture the row of `legal` that says what may come; 0
        where it is complete, -1 where the table was full."""
        begin = self.constraint.start(bare_prompt(self.bos), ENDLESS)
        found = _rows(
            self.constraint.spec, begin.state, begin.walk[0], np.zeros(0, np.int32), begin.spans,
            ids, self.constraint.vocabulary, self.constraint.masks,
        )  # fmt: skip
        self.legal[0] = False
        self.legal[0, self.constraint.vocabulary.eos] = True
        return found

    def allowed(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """bool [B, T, vocabulary] behind these ids [B, T], with their `rows`."""
        legal = self.legal[rows.clamp(min=0)] | (rows < 0)[..., None]
        return legal & self.pairs[ids]


@njit
def _rows(spec, state, walk, forced, spans, ids, vocabulary, masks):
    rows = np.empty(len(ids), np.int64)
    for i in range(len(ids)):
        if i and ids[i] < len(vocabulary.offsets) - 1:
            for j in range(vocabulary.offsets[ids[i]], vocabulary.offsets[ids[i] + 1]):
                step(spec, state, vocabulary.symbols[j])
        row = token_mask(spec, state, walk, forced, spans, vocabulary, masks)
        rows[i] = -1 if row == 0 and not complete(spec, state) else row
    return rows


def written_pairs(tokenizer: Tokenizer) -> np.ndarray:
    """bool [vocabulary, vocabulary]: whether the second token may stand behind the first. Only of
    tokens that spell something is anything barred."""
    many = len(tokenizer.spelling)
    good = np.ones((tokenizer.vocab_size, tokenizer.vocab_size), np.bool_)
    spelt = [np.array(symbols, np.int32) for symbols in tokenizer.spelling]
    for a in range(many):
        for b in range(many):
            ids = tokenizer.encode_symbols(np.concatenate([spelt[a], spelt[b]]))
            good[a, b] = len(ids) == 2 and ids[0] == a and ids[1] == b
    return good
