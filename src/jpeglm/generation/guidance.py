"""Classifier-free guidance (Ho and Salimans 2022).

A model that was trained with `--class-dropout` or `--caption-dropout` also knows what it writes
without a class, without a text. A guided sequence runs twice, behind its text and class token and
behind BOS alone, and the logits are moved away from the second: l = l_bos + guidance (l_given −
l_bos). 1 is the model as it is, 0 forgets what was given, more than 1 exaggerates it. It costs
twice the compute.
"""

from __future__ import annotations

import numpy as np


def without_head(prompt: np.ndarray, head: int, bos: int) -> np.ndarray:
    """The prompt of a guided sequence's second run; `head` ids come before the picture's."""
    return np.concatenate([[bos], prompt[head:]]).astype(np.int32)


def guide(conditional: np.ndarray, free: np.ndarray, guidance: np.ndarray) -> np.ndarray:
    """Float32 logits [B, V] of both runs, guidance float32 [B] → the guided logits."""
    guided: np.ndarray = free + guidance[:, None] * (conditional - free)
    return guided
