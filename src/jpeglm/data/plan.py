"""An epoch's batches as numbers of rows in one array: twelve bytes a batch beside the order itself.

An order is a shuffled array of sequence numbers, four bytes each below 2³² of them. Nothing here
knows ids: lengths suffice. Trade-off: an order in memory is what makes an epoch pass over every
sequence once, at random, and the same again from a seed; 12 M pictures are 48 MB of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

import numpy as np

from jpeglm.data.token_set import stretches

__all__ = ["WINDOW", "Plan", "fill_rows", "length_batches", "numbers"]

WINDOW = 64
"""Batches sorted together in `length_batches`."""
Lengths = Callable[[np.ndarray], np.ndarray]
"""Of these sequences."""


class Plan:
    """Batch i is rows[first[i] : last[i]]; rows None: these numbers themselves."""

    def __init__(self, first: np.ndarray, last: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.first, self.last, self.rows = first, last, rows

    def __len__(self) -> int:
        return len(self.first)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        first, last = int(self.first[index]), int(self.last[index])
        return np.arange(first, last) if self.rows is None else self.rows[first:last]

    @property
    def largest(self) -> int:
        """Rows of the largest batch."""
        return int((self.last - self.first).max(initial=0))

    def turned(self, order: np.ndarray) -> Plan:
        """The same batches in another order."""
        return Plan(self.first[order], self.last[order], self.rows)

    @classmethod
    def even(cls, rows: int, each: int) -> Plan:
        """`rows` rows, `each` a batch, the last one what is left."""
        first = np.arange(0, rows, each)
        return cls(first, np.minimum(first + each, rows))


def numbers(count: int, taken: Callable[[slice], np.ndarray] | None = None) -> np.ndarray:
    """0 to `count`, without those of which `taken` says False (of a slice of them), as short as
    they may be."""
    kind = np.uint32 if count < 1 << 32 else np.int64
    if taken is None:
        return np.arange(count, dtype=kind)
    found = np.empty(sum(int(taken(part).sum()) for part in stretches(count)), kind)
    place = 0
    for part in stretches(count):
        some = np.flatnonzero(taken(part)) + part.start
        found[place : place + len(some)] = some
        place += len(some)
    return found


def length_batches(
    lengths: Lengths, order: np.ndarray, batch_tokens: int, window: int = WINDOW
) -> Plan:
    """Cut `order` (sequence numbers), which is sorted for it, into batches of at most
    `batch_tokens` ids with padding.

    Each stretch of `order` of about `window` batches is sorted by length. A sequence longer than
    `batch_tokens` is a batch of its own.
    """
    edges = array("q", [0])
    total = sum(int(lengths(order[part]).sum(dtype=np.int64)) for part in stretches(len(order)))
    # Whole windows of equal size: a small last one would pad more than the others.
    windows = max(1, round(total / (batch_tokens * window)))
    for part in np.array_split(order, windows):
        own = lengths(part)
        ranks = np.argsort(own, kind="stable")
        part[:], own = part[ranks], own[ranks].astype(np.int64)
        start, before = 0, edges[-1]
        while start < len(part):
            # rows × length of the last row grows with the rows, since the lengths ascend
            most = batch_tokens // max(1, int(own[start])) + 1
            some = own[start : start + most]
            cost = some * np.arange(1, len(some) + 1)
            start += max(1, int(np.searchsorted(cost, batch_tokens, side="right")))
            edges.append(before + start)
    found = np.frombuffer(edges, np.int64)
    return Plan(found[:-1], found[1:], order)


def fill_rows(sizes: np.ndarray, length: int) -> np.ndarray:
    """int64 edges of rows of `length` ids, each filled in order with as many sequences of these
    sizes, none above `length`, as it holds: row i has those from edges[i] to edges[i + 1]."""
    ends, edges = np.cumsum(sizes, dtype=np.int64), array("q", [0])
    while edges[-1] < len(ends):
        before = int(ends[edges[-1] - 1]) if edges[-1] else 0
        edges.append(int(np.searchsorted(ends, before + length, side="right")))
    return np.frombuffer(edges, np.int64)
