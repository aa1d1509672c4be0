"""Training pictures with holes (`jpeglm.holes`), cut when they are asked for.

Trade-off: a picture is taken apart and encoded again each time, some tenths of a millisecond, so
that no epoch has the same holes and prepared tokens serve both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jpeglm.config import JpegConfig
from jpeglm.holes import random_hole

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

Arrange = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""ids of a whole picture → the same with a hole at random; neither with BOS nor EOS."""


def arranger(tokenizer: Tokenizer) -> Arrange:
    """For a tokenizer with holes."""
    config = tokenizer.codec.config
    assert isinstance(config, JpegConfig), "holes are of JPEG alone"
    rows, columns = config.grid

    def arrange(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        hole = random_hole(rng, rows, columns)
        return np.concatenate(tokenizer.around(tokenizer.decode(ids), hole))

    return arrange


def cut(ids: np.ndarray, begin: int, arrange: Arrange, rng: np.random.Generator) -> np.ndarray:
    """A sequence with a hole in its picture, which reaches from `begin` to EOS."""
    return np.concatenate([ids[:begin], arrange(ids[begin:-1], rng), ids[-1:]])
