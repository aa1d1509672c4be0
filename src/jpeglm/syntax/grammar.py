"""Grammars: which symbol may come next, and when a stream is complete.

A grammar is a state machine without torch. Its state is an int64 vector that the caller owns and
may copy, so that a sampler can try a token and take it back. The kernels in `syntax.jpeg` do the
work; this class is their Python face. `generation.masks` calls the kernels directly.
"""

from __future__ import annotations

import numpy as np

from jpeglm.syntax import machine


class Grammar:
    """The state machine that a spec of `syntax.machine` describes.

    size: number of symbols.
    """

    def __init__(self, spec: machine.Spec, size: int) -> None:
        self.spec = spec
        self.size = size

    def start(self) -> np.ndarray:
        """The state before the first symbol."""
        return machine.start_state(self.spec)

    def advance(self, state: np.ndarray, symbol: int) -> bool:
        """Take a symbol; False, and `state` unchanged, when it is illegal here."""
        trial = state.copy()
        if not machine.step(self.spec, trial, symbol):
            return False
        state[:] = trial
        return True

    def allowed(self, state: np.ndarray) -> np.ndarray:
        """bool [size]: the symbols that may come next."""
        return np.array([machine.step(self.spec, state.copy(), s) for s in range(self.size)])

    def complete(self, state: np.ndarray) -> bool:
        """Whether the stream is complete; then no symbol is allowed."""
        return bool(machine.complete(self.spec, state))

    def shortest(self, state: np.ndarray) -> int:
        """Number of symbols that the shortest completion takes."""
        return int(machine.shortest(self.spec, state))
