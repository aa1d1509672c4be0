"""What a session is asked for, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np

from jpeglm.config import InputError, Sampling
from jpeglm.generation.given import Given, Reading
from jpeglm.generation.matcher import Constraint, Prompt
from jpeglm.generation.sampling import Die, Table

__all__ = ["Chooser", "Event", "Request"]

LN2 = float(np.log(2))


@dataclass(frozen=True, eq=False)
class Request:
    """A sequence to walk along.

    prompt: what is there (`matcher.make_prompt`, `bare_prompt`); chooser: who names the tokens.
    seed and picture give a sampler's random numbers: the same two, the same stream, whatever else
    runs. max_tokens counts the prompt as well; default the model's context. watch: after what an
    event comes: each token, each whole unit, or the end alone. tag: what the caller knows it by.
    """

    prompt: Prompt
    chooser: Sampling | Given = field(default_factory=Sampling)
    seed: int = 0
    picture: int = 0
    max_tokens: int | None = None
    watch: Literal["token", "unit", "end"] = "end"
    tag: int = 0


class Event(NamedTuple):
    """What has become of a request since its last event."""

    number: int
    """As `Session.add` gave it."""
    request: Request
    ids: np.ndarray
    """int32 [N]: the new tokens, EOS included."""
    nats: np.ndarray
    """float64 [N]: −ln p of each under the model's own distribution; where a hole is filled, 0 for
    the addresses of its spans, which no training learns and the grammar gives."""
    unit: np.ndarray
    """int64 [N]: whole units before each, the prompt's among them; 0 where no grammar counts."""
    units: int
    """Whole MCUs, frames or codes of the stream by now."""
    ended: bool
    total: float = 0.0
    """nats of all its tokens by now."""
    reading: Reading | None = None
    """Of `Given`, at its end: costs under the grammar too."""
    error: InputError | None = None

    @property
    def bits(self) -> float:
        """−log2 p of all its tokens by now."""
        return self.total / LN2


class Chooser(Protocol):
    """Names the next tokens of rows: writes them down, and moves the grammar on."""

    def choose(self, table: Table, places: np.ndarray, logits: np.ndarray) -> int:
        """For the table's rows `places` int64 [B] under float32 logits [B, V]; how many ended."""


CHOOSERS: dict[type, Callable[[Constraint], Chooser]] = {Sampling: Die}
"""By what a request has as its chooser."""
