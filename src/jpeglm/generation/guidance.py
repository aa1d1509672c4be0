"""Classifier-free guidance (Ho and Salimans 2022).

A class-conditional model that was trained with `--class-dropout` also knows what it writes without
a class. A guided sequence runs twice, behind its class token and behind BOS, and the logits are
moved away from the second: l = l_bos + guidance (l_class − l_bos). 1 is the model as it is, 0
forgets the class, more than 1 exaggerates it. It costs twice the compute.
"""

from __future__ import annotations

import numpy as np


def without_class(prompt: np.ndarray, bos: int) -> np.ndarray:
    """The prompt of a guided sequence's second run; prompts begin with a class token."""
    return np.concatenate([[bos], prompt[1:]]).astype(np.int32)


def guide(conditional: np.ndarray, free: np.ndarray, guidance: np.ndarray) -> np.ndarray:
    """Float32 logits [B, V] of both runs, guidance float32 [B] → the guided logits."""
    guided: np.ndarray = free + guidance[:, None] * (conditional - free)
    return guided
