"""Token sequences of a split: where each lies, how long it is, and what is known of it.

The ids are one flat string, an array in memory or the token shards where they lie
(`mapped.MappedIds`); a sequence is a slice of it, made when it is asked for. Trade-off: nothing is
laid side by side beforehand, so that a set costs some twenty bytes a sequence, which may lie in a
mapped file themselves, and nothing a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from jpeglm.data.arrange import Arrange, cut
from jpeglm.data.mapped import MappedIds

__all__ = ["TokenSet", "digest_of", "in_memory", "stretches", "together"]

STRETCH = 1 << 20
"""Sequences that are looked at together where all are: temporary arrays stay some megabytes."""


def stretches(count: int, size: int = STRETCH) -> Iterator[slice]:
    """0 to `count` in slices of at most `size`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


@dataclass(frozen=True)
class TokenSet:
    """Sequences from their captions, or else from BOS or class, to EOS.

    tokens: uint16, those of sequence i from starts[i] on. starts: int64 [n]. lengths: int [n], ids
    of each sequence, caption, BOS and EOS included. labels: int32 [n], -1 where there is none.
    stream_bytes: int [n], of each picture's canonical stream. text: int [n], ids of each caption.
    trimmed: int [n], ids behind each caption's `text` that are left out; None: nowhere. digest: of
    all sequences that were loaded, selected or not, trimmed or not.
    """

    tokens: np.ndarray | MappedIds
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    stream_bytes: np.ndarray
    text: np.ndarray
    trimmed: np.ndarray | None = None
    digest: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def total(self) -> int:
        """Ids of all sequences."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def stream_bits(self) -> np.ndarray:
        """int64 [n], of each picture's canonical stream."""
        return self.stream_bytes.astype(np.int64) * 8

    def ids(self, number: int, captioned: bool = True) -> np.ndarray:
        """Those of a sequence, with its caption or without; not to be written to."""
        start, length = int(self.starts[number]), int(self.lengths[number])
        text = int(self.text[number])
        left = 0 if self.trimmed is None else int(self.trimmed[number])
        behind = start + text + left
        if not captioned:
            return self.tokens[behind : behind + length - text]
        if left:
            head = self.tokens[start : start + text]
            return np.concatenate([head, self.tokens[behind : behind + length - text]])
        return self.tokens[start : start + length]

    def select(self, rows: np.ndarray) -> TokenSet:
        """The sequences `rows`, in that order."""
        return replace(
            self,
            starts=self.starts[rows],
            lengths=self.lengths[rows],
            labels=self.labels[rows],
            stream_bytes=self.stream_bytes[rows],
            text=self.text[rows],
            trimmed=None if self.trimmed is None else self.trimmed[rows],
        )

    def holed(self, arrange: Arrange, hole: int, seed: int = 0) -> TokenSet:
        """Each sequence with a hole, the same one at each call, in memory; `text` then reaches to
        where its content begins. hole: the id before that. Ids are int64: addresses may be beyond
        uint16."""
        parts, given = [], []
        for number in range(len(self)):
            ids = self.ids(number).astype(np.int64)
            rng = np.random.default_rng([seed, 3, number])
            parts.append(cut(ids, self.text[number] + 1, arrange, rng))
            given.append(int(np.flatnonzero(parts[-1] == hole)[0]) + 1)
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in parts])]).astype(np.int64)
        text = np.array(given, np.int32)
        return in_memory(np.concatenate(parts), offsets, self.labels, self.stream_bytes, text)

    def fitted(self, length: int) -> tuple[TokenSet, int]:
        """The set with captions cut at their ends where a sequence has more than `length` ids, as
        far as that helps; and how many were cut."""
        assert self.trimmed is None, "captions are cut once"
        excess: np.ndarray | None = None
        for part in stretches(len(self)):
            over = np.clip(self.lengths[part] - length, 0, self.text[part])
            if over.any():
                if excess is None:
                    excess = np.zeros(len(self), np.int32)
                excess[part] = over
        if excess is None:
            return self, 0
        lengths, text = self.lengths - excess, self.text - excess
        return replace(self, lengths=lengths, text=text, trimmed=excess), int((excess > 0).sum())


def in_memory(
    tokens: np.ndarray,
    offsets: np.ndarray,
    labels: np.ndarray,
    stream_bytes: np.ndarray,
    text: np.ndarray,
    digest: str = "",
) -> TokenSet:
    """The sequences tokens[offsets[i] : offsets[i + 1]]; offsets: int64 [n + 1]."""
    lengths = np.diff(offsets).astype(np.int32)
    return TokenSet(tokens, offsets[:-1], lengths, labels, stream_bytes, text, digest=digest)


def digest_of(tokens: np.ndarray, offsets: np.ndarray, text: np.ndarray, rows: np.ndarray) -> str:
    """32 hex digits of the sequences `rows` (ascending) of those in memory."""
    whole = hashlib.sha256()
    lengths = np.diff(offsets)[rows]
    whole.update(lengths.astype("<i4").tobytes())
    whole.update(text[rows].astype("<i4").tobytes())
    if len(rows) == len(offsets) - 1:
        whole.update(np.ascontiguousarray(tokens, "<u2").data)
    else:
        for start, length in zip(offsets[rows].tolist(), lengths.tolist()):
            whole.update(np.ascontiguousarray(tokens[start : start + length], "<u2").data)
    return whole.hexdigest()[:32]


def together(digests: Iterable[str]) -> str:
    """32 hex digits of sequences that are known by those of their parts, in order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:32]
