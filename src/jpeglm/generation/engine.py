"""What runs a model: token ids in, logits out, KV cache inside.

An engine knows no codec, no tokenizer and no grammar, so that any of them can be swapped. Sequences
join and leave at any time, each at its own position; those that are there advance together.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

Pieces = Generator[np.ndarray, None, None]


class Engine(Protocol):
    vocab_size: int
    max_length: int
    """Tokens of one sequence, prompt included."""

    @property
    def sequences(self) -> int:
        """How many there are."""

    def add(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        """Begin a sequence for each prompt (1-D ids, of any lengths above 0), behind those that
        are there.

        Gives float32 logits [n, V] at each prompt's last token. Equal prompts are computed once; an
        engine may also know one again that an earlier sequence began with.
        """

    def step(self, ids: np.ndarray) -> np.ndarray:
        """Append one id to each sequence; float32 logits [B, V], valid until the next call."""

    def remove(self, rows: np.ndarray) -> None:
        """End these sequences, by their numbers; the others keep their order."""

    def read(self, ids: np.ndarray) -> Pieces:
        """Float32 logits [N, V] after each of N known ids, in pieces; a sequence of its own, beside
        those that are there. A piece is valid until the next one."""


@dataclass(frozen=True)
class DeviceTables:
    """A grammar of P places and V tokens, so that a device can follow it.

    after: int32 [P, V], the place behind a token, -1 where it is illegal whatever remains. ended:
    int16 [P, V], blocks that it ends; before: int16 [P, V], those that end before its last symbol,
    of which there must be fewer than remain. need: int64 [P], symbols to the end of the block that
    is begun.
    """

    after: np.ndarray
    ended: np.ndarray
    before: np.ndarray
    need: np.ndarray
    eos: int


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine that can choose tokens by itself where the grammar stands in tables."""

    def decode_on_device(
        self,
        tables: DeviceTables,
        logits: np.ndarray,
        places: np.ndarray,
        remaining: np.ndarray,
        rows: np.ndarray,
        leader: np.ndarray,
        guidance: np.ndarray,
        steps: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose so many tokens for each sequence, as `sampling.sample_step` would.

        logits: float32 [B, V] as of now; places, remaining: int64 [B], where the grammar is
        (`device_tables`); rows: `ROW` [B] of the session's table; leader: int64 [B], whose tokens
        each sequence takes: its own or, of a guided one's run without a class, those of the other;
        guidance: float32 [B].
        Gives int64 tokens and float64 nats [B, steps], EOS again and again behind the first, and
        the logits after them.
        """
