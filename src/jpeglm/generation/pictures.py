"""What a call draws: pictures or clips, their streams and tokens, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Progress = Callable[[int, int, int], None]
"""Called with (pictures done, pictures in all, tokens sampled so far)."""


@dataclass
class Pictures:
    """What a call drew; all lists have one entry a picture."""

    images: list[Any]
    """PIL pictures, or clips uint8 [frames, height, width, 3]."""
    streams: list[bytes]
    ids: list[np.ndarray]
    """Sampled tokens, EOS included where it was reached; the prompt's are not among them."""
    bits: list[float]
    """−log2 p of the sampled tokens under the model."""
    seconds: float = 0.0
    """Prefill and sampling, without start and load."""
    prompt_tokens: int = 0
    original: bytes | None = None
    prompt: bytes | None = None
    units_kept: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(len(ids) for ids in self.ids)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)
