"""What runs a model: token ids in, logits out, KV cache inside.

An engine knows no codec, no tokenizer and no grammar, so that any of them can be swapped. B
sequences advance in lockstep, each at its own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Engine(Protocol):
    vocab_size: int
    max_length: int
    """Tokens of one sequence, prompt included."""

    def start(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        """Forget all sequences and begin one for each prompt (1-D ids, of any lengths above 0).

        Gives float32 logits [B, V] at each prompt's last token. Equal prompts are computed once.
        """

    def step(self, ids: np.ndarray) -> np.ndarray:
        """Append one id to each sequence; float32 logits [B, V], valid until the next call."""

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these sequences only, in this order."""
