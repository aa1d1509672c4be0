"""Classifier-free guidance (Ho and Salimans 2022) over any engine.

A class-conditional model that was trained with `--class-dropout` also knows what it writes without
a class. Each sequence runs twice, behind its class token and behind BOS, and the logits are moved
away from the second: l = l_bos + guidance (l_class − l_bos). 1 is the model as it is, 0 forgets the
class, more than 1 exaggerates it. It costs twice the compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jpeglm.generation.engine import Engine


class Guided:
    """An engine whose logits are guided; prompts begin with a class token."""

    def __init__(self, engine: Engine, guidance: float, bos: int) -> None:
        self.engine, self.guidance, self.bos = engine, guidance, bos
        self.vocab_size, self.max_length = engine.vocab_size, engine.max_length
        self._living = 0

    def _mixed(self, logits: np.ndarray) -> np.ndarray:
        half = len(logits) // 2
        conditional, free = logits[:half], logits[half:]
        return free + np.float32(self.guidance) * (conditional - free)

    def start(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        self._living = len(prompts)
        free = [np.concatenate([[self.bos], prompt[1:]]).astype(np.int32) for prompt in prompts]
        return self._mixed(self.engine.start([*prompts, *free]))

    def step(self, ids: np.ndarray) -> np.ndarray:
        return self._mixed(self.engine.step(np.concatenate([ids, ids])))

    def keep(self, rows: np.ndarray) -> None:
        # The sequences without a class stand behind all those that have one.
        self.engine.keep(np.concatenate([rows, rows + self._living]))
        self._living = len(rows)
