"""Token sequences to training batches, as a pure function of (seed, epoch, position).

Three ways:
`chunks`    all sequences of an epoch in random order end to end, cut to rows of `length` ids: no
            padding, and rows begin anywhere (the paper's way; attention crosses pictures).
`pictures`  one sequence a row; rows of similar length share a batch. Sorting inside windows of
            about 64 batches leaves 1–3 % of padding and a random order of pictures and of batches.
`rows`      whole sequences end to end in rows of `length` ids (attention crosses pictures). Every
            batch has one shape, which a GPU's compiler needs; what is left at the end of a row is
            padding, half a picture of it on average.

A plan is one for all processes, which share the rows of its batches: what a step learns does not
depend on how many there are. It is made of lengths alone, and a batch reads its own sequences: in
memory are 4 to 14 bytes a sequence, whatever the ids take. No batch is remembered: a plan is made
again from the seed, so training resumes at any step.
Labels are as transformers takes them: a copy of the ids, -100 on padding, on captions and on the
BOS or class behind one, and on what says where a hole is, shifted by the model: what is learnt is
pictures.
Right padding needs no attention mask under causal attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jpeglm.config import InputError
from jpeglm.data.arrange import Arrange, cut
from jpeglm.data.plan import Plan, fill_rows, length_batches, numbers
from jpeglm.data.token_set import TokenSet, stretches

MODES = ("chunks", "pictures", "rows")
IGNORE = -100
"""The label that the loss leaves out (torch.nn.CrossEntropyLoss.ignore_index)."""

NO_MARKS = 1 << 62
"""No id is so large."""
SPARE = 16
"""Ids that a row keeps free for each picture in it that may get a hole, which make it longer."""
STRETCH = 1 << 22
"""Ids whose sequences are looked at together where all of an epoch are."""


class Batches:
    """Batches of one rank over `sequences`.

    batch_tokens: ids of one step over all ranks, padding included. length: a row's ids in `chunks`
    and `rows`, the longest sequence taken in `pictures` and `rows` (longer ones are counted in
    `n_dropped`).
    Classes become `bos` with probability `class_dropout`, captions are lacking with
    `caption_dropout`.
    arrange: cuts a hole into a picture, not of `chunks`, with probability `fim`, unless its row
    would be longer than `length` then; ids from `marks` on say where holes are.
    """

    def __init__(
        self,
        sequences: TokenSet,
        *,
        mode: str,
        batch_tokens: int,
        length: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        bos: int = 0,
        class_dropout: float = 0.0,
        caption_dropout: float = 0.0,
        fim: float = 0.0,
        arrange: Arrange | None = None,
        marks: int = NO_MARKS,
    ) -> None:
        if mode not in MODES:
            raise InputError(f"packing is {mode!r}; choose {' or '.join(MODES)}")
        if length < 2:
            raise InputError(f"max_length is {length}; it must be at least 2")
        if batch_tokens < length:
            raise InputError(
                f"batch_tokens is {batch_tokens}; a row of {length} tokens needs at least {length}"
            )
        assert 0 <= rank < world_size
        self.sequences, self.whole = sequences, sequences.lengths
        self.captioned = bool(sequences.text.any())
        self.caption_dropout = caption_dropout if self.captioned else 0.0
        self.arrange, self.fim, self.marks = arrange if fim else None, fim, marks
        self.mode, self.batch_tokens, self.length = mode, batch_tokens, length
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.bos, self.class_dropout = bos, class_dropout
        self.n_dropped = 0
        if mode != "chunks":
            parts = stretches(len(sequences))
            self.n_dropped = sum(int((self.whole[part] > length).sum()) for part in parts)
        self._epoch = -1
        self._plan = Plan.even(0, 1)
        self._bare: np.ndarray | None = None
        self._drop: np.ndarray | None = None
        if self.n_dropped == len(sequences):
            raise InputError(
                f"max_length is {length}, but the shortest of the {len(self.whole)} training "
                f"sequences has {int(self.whole.min())} tokens; raise max_length"
            )
        if not self.plan(0):
            raise InputError(
                f"the {len(self.whole)} training sequences ({sequences.total} tokens, "
                f"{self.n_dropped} longer than {length}) do not fill one batch; prepare more "
                "pictures or lower max_length"
            )

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch for all ranks: numbers of sequences, or of rows in `chunks` and
        `rows`."""
        if epoch == self._epoch:
            return self._plan
        # Random numbers of their own: those of classes and of the order stay what they are.
        self._bare = self._chosen(np.random.default_rng([self.seed, epoch, 1]),
                                  self.caption_dropout)  # fmt: skip
        rng = np.random.default_rng([self.seed, epoch])
        order = numbers(len(self.whole), self._fits if self.n_dropped else None)
        rng.shuffle(order)
        if self.mode == "chunks":
            self._plan = self._plan_chunks(order)
        elif self.mode == "rows":
            self._plan = self._plan_rows(order)
        else:
            plan = length_batches(self._lengths, order, self.batch_tokens)
            self._plan = plan.turned(rng.permutation(len(plan)))
        self._drop = self._chosen(rng, self.class_dropout)
        self._epoch = epoch
        return self._plan

    def _fits(self, part: slice) -> np.ndarray:
        """Which of these sequences are not too long."""
        return np.asarray(self.whole[part] <= self.length)

    def _chosen(self, rng: np.random.Generator, share: float) -> np.ndarray | None:
        """bool [sequences], True with probability `share`; None where it is 0."""
        if share <= 0:
            return None
        found = np.empty(len(self.whole), np.bool_)
        for part in stretches(len(found)):
            found[part] = rng.random(part.stop - part.start) < share
        return found

    def _heads(self, rows: np.ndarray) -> np.ndarray:
        """int64, ids of the captions that sequences have this epoch."""
        text: np.ndarray = self.sequences.text[rows].astype(np.int64)
        return text if self._bare is None else np.where(self._bare[rows], 0, text)

    def _lengths(self, rows: np.ndarray) -> np.ndarray:
        """int64, ids of sequences as they are this epoch."""
        lengths: np.ndarray = self.whole[rows].astype(np.int64)
        if self._bare is not None:
            lengths -= np.where(self._bare[rows], self.sequences.text[rows], 0)
        return lengths

    def _plan_chunks(self, order: np.ndarray) -> Plan:
        """Rows cut from the epoch's one long string of ids, in which sequence order[i] lies at
        ends[i]."""
        ends = np.zeros(len(order) + 1, np.int64)
        for part in stretches(len(order)):
            ends[part.start + 1 : part.stop + 1] = self._lengths(order[part])
        np.cumsum(ends, out=ends)
        self._order, self._ends = order, ends
        step = self.batch_tokens // self.length
        plan = Plan.even(int(ends[-1]) // self.length, step)
        if not self.captioned:  # something is learnt in every row then
            return plan
        kept = np.zeros(len(plan), np.bool_)
        for part in stretches(len(plan), max(1, STRETCH // (step * self.length))):
            first = int(plan.first[part.start])
            learnt = self._learnt(first, int(plan.last[part.stop - 1]))
            edges = plan.first[part] - first
            kept[part] = np.add.reduceat(learnt, edges) > 0
        return plan.turned(np.flatnonzero(kept))

    def _learnt(self, first: int, last: int) -> np.ndarray:
        """int64, how many ids are learnt of each of the rows `first` to `last` of `chunks`: those
        of no caption but a row's first, which nothing foretells."""
        rows = np.arange(first, last) * self.length
        begin = int(np.searchsorted(self._ends, rows[0], side="right")) - 1
        stop = int(np.searchsorted(self._ends, rows[-1] + self.length, side="left"))
        some, ends = self._order[begin:stop], self._ends[begin : stop + 1]
        heads = self._heads(some)
        given = np.where(heads > 0, heads + 1, 0)
        whole = np.concatenate([[0], np.cumsum(np.diff(ends) - given)])

        def before(places: np.ndarray) -> np.ndarray:
            number = np.searchsorted(ends[1:-1], places, side="right")
            return whole[number] + np.maximum(places - ends[number] - given[number], 0)

        return np.asarray(before(rows + self.length) - before(rows + 1))

    def _plan_rows(self, order: np.ndarray) -> Plan:
        """Rows each filled in order with as many sequences as it holds: numbers in `_order`, which
        row i has from _ends[i] to _ends[i + 1]."""
        spare, sizes = SPARE if self.arrange else 0, np.empty(len(order), np.int32)
        for part in stretches(len(order)):
            sizes[part] = np.minimum(self._lengths(order[part]) + spare, self.length)
        self._order, self._ends = order, fill_rows(sizes, self.length)
        return Plan.even(len(self._ends) - 1, self.batch_tokens // self.length)

    def _rows_each(self) -> int:
        """Rows of a batch of `rows` that a rank has, of which the last may be padding."""
        return -(-(self.batch_tokens // self.length) // self.world_size)

    def batch(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        """This rank's rows of batch `index`: int64 input_ids and labels, both [rows, ids]; where
        there is none for it, one of padding, from which nothing is learnt."""
        rows = self.plan(epoch)[index][self.rank :: self.world_size]
        if self.mode == "rows":
            return self._in_rows(rows, epoch)
        if not len(rows):
            empty = np.zeros((1, 2), np.int64)
            return {"input_ids": empty, "labels": np.full_like(empty, IGNORE)}
        if self.mode == "chunks":
            return self._in_chunks(rows)
        parts = [self._sequence(row) for row in rows.tolist()]
        if not self.arrange:
            return pad_rows(parts)
        holed = [
            (self._holed(ids, head, row, epoch, self.arrange, self.length), head)
            for (ids, head), row in zip(parts, rows.tolist())
        ]
        return pad_rows(holed, self.marks)

    def _sequence(self, number: int) -> tuple[np.ndarray, int]:
        """A sequence as it is this epoch, int64, and how many of its ids are its caption."""
        bare = self._bare is not None and bool(self._bare[number])
        ids = self.sequences.ids(number, captioned=not bare).astype(np.int64)
        head = 0 if bare else int(self.sequences.text[number])
        if self._drop is not None and self._drop[number] and self.sequences.labels[number] >= 0:
            ids[head] = self.bos
        return ids, head

    def _holed(
        self, ids: np.ndarray, head: int, number: int, epoch: int, arrange: Arrange, most: int
    ) -> np.ndarray:
        """A sequence, perhaps with a hole in its picture, if it has at most so many ids then;
        whether and where, its own dice say."""
        rng = np.random.default_rng([self.seed, epoch, 2, number])
        if rng.random() < self.fim:
            holed = cut(ids, head + 1, arrange, rng)
            ids = holed if len(holed) <= most else ids
        return ids

    def _in_chunks(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Rows of the epoch's string; what they have of a sequence is where its slice and theirs
        overlap."""
        batch = _blank(len(rows), self.length)
        for line, row in enumerate(rows.tolist()):
            begin, end = row * self.length, (row + 1) * self.length
            place = int(np.searchsorted(self._ends, begin, side="right")) - 1
            while (start := int(self._ends[place])) < end:
                ids, head = self._sequence(int(self._order[place]))
                part = slice(max(begin - start, 0), end - start)
                _lay(batch, line, max(start - begin, 0), ids[part], part.start, head)
                place += 1
        return batch

    def _in_rows(self, rows: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """Rows of the plan; one that is missing at the end of an epoch is padding."""
        batch = _blank(self._rows_each(), self.length)
        for line, row in enumerate(rows.tolist()):
            chosen = self._order[self._ends[row] : self._ends[row + 1]].tolist()
            parts = [self._sequence(number) for number in chosen]
            place, left = 0, sum(len(ids) for ids, _ in parts)
            for number, (ids, head) in zip(chosen, parts):
                left -= len(ids)
                if self.arrange:
                    most = self.length - place - left
                    ids = self._holed(ids, head, number, epoch, self.arrange, most)
                _lay(batch, line, place, ids, 0, head, self.marks)
                place += len(ids)
        return batch


def _blank(rows: int, length: int) -> dict[str, np.ndarray]:
    """Rows of padding."""
    shape = rows, length
    return {"input_ids": np.zeros(shape, np.int64), "labels": np.full(shape, IGNORE)}


def _lay(
    batch: dict[str, np.ndarray],
    line: int,
    place: int,
    ids: np.ndarray,
    begin: int,
    head: int,
    marks: int = NO_MARKS,
) -> None:
    """Ids of a sequence from its id `begin` on into a row of a batch; its first `head` ids are its
    caption, and those from `marks` on say where a hole is."""
    there, ids = (line, slice(place, place + len(ids))), ids.astype(np.int64, copy=False)
    batch["input_ids"][there] = ids
    labels = np.where(ids < marks, ids, IGNORE)
    if head:  # nor is the id behind a caption learnt
        labels[: max(0, head + 1 - begin)] = IGNORE
    batch["labels"][there] = labels


def pad_rows(
    parts: Sequence[tuple[np.ndarray, int]], marks: int = NO_MARKS
) -> dict[str, np.ndarray]:
    """Sequences, each with the number of its ids that are its caption, side by side, padded on the
    right with id 0 and label -100; ids from `marks` on say where a hole is."""
    batch = _blank(len(parts), max(len(ids) for ids, _ in parts))
    for line, (ids, head) in enumerate(parts):
        _lay(batch, line, 0, ids, 0, head, marks)
    return batch
