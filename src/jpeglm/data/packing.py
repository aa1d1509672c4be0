"""Token sequences to training batches, as a pure function of (seed, epoch, position).

Three ways, all over one flat array of ids:
`chunks`    all sequences of an epoch in random order end to end, cut to rows of `length` ids: no
            padding, and rows begin anywhere (the paper's way; attention crosses pictures).
`pictures`  one sequence a row; rows of similar length share a batch. Sorting inside windows of
            about 64 batches leaves 1–3 % of padding and a random order of pictures and of batches.
`rows`      whole sequences end to end in rows of `length` ids (attention crosses pictures). Every
            batch has one shape, which a GPU's compiler needs; what is left at the end of a row is
            padding, half a picture of it on average.

A plan is one for all processes, which share the rows of its batches: what a step learns does not
depend on how many there are. No batch is remembered: a plan is made again from the seed, so
training resumes at any step.
Labels are as transformers takes them: a copy of the ids, -100 on padding, on captions and on the
BOS or class behind one, and on what says where a hole is, shifted by the model: what is learnt is
pictures.
Right padding needs no attention mask under causal attention.
"""

from __future__ import annotations

import numpy as np

from jpeglm.config import InputError
from jpeglm.data.arrange import Arrange, cut

MODES = ("chunks", "pictures", "rows")
IGNORE = -100
"""The label that the loss leaves out (torch.nn.CrossEntropyLoss.ignore_index)."""

NO_MARKS = 1 << 62
"""No id is so large."""
WINDOW = 64
"""Batches sorted together in `pictures`."""
SPARE = 16
"""Ids that a row keeps free for each picture in it that may get a hole, which make it longer."""


def length_batches(
    lengths: np.ndarray, order: np.ndarray, batch_tokens: int, window: int = WINDOW
) -> list[np.ndarray]:
    """Cut `order` (sequence numbers) into batches of at most `batch_tokens` ids with padding.

    Each stretch of `order` of about `window` batches is sorted by length. A sequence longer than
    `batch_tokens` is a batch of its own.
    """
    batches: list[np.ndarray] = []
    if not len(order):
        return batches
    # Whole windows of equal size: a small last one would pad more than the others.
    windows = max(1, round(int(lengths[order].sum()) / (batch_tokens * window)))
    for part in np.array_split(order, windows):
        part = part[np.argsort(lengths[part], kind="stable")]
        start = 0
        while start < len(part):
            # rows × length of the last row grows with the rows, since the lengths ascend
            cost = lengths[part[start : start + batch_tokens]] * np.arange(
                1, min(batch_tokens, len(part) - start) + 1
            )
            rows = max(1, int(np.searchsorted(cost, batch_tokens, side="right")))
            batches.append(part[start : start + rows])
            start += rows
    return batches


class Batches:
    """Batches of one rank over `tokens` (flat ids) and `offsets` (int64 [n + 1]).

    batch_tokens: ids of one step over all ranks, padding included. length: a row's ids in `chunks`
    and `rows`, the longest sequence taken in `pictures` and `rows` (longer ones are counted in
    `n_dropped`).
    droppable: sequences whose class becomes `bos` with probability `class_dropout`. text: int [n],
    ids of each sequence's caption, at its beginning, which it lacks with `caption_dropout`.
    arrange: cuts a hole into a picture, not of `chunks`, with probability `fim`, unless its row
    would be longer than `length` then; ids from `marks` on say where holes are.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        *,
        mode: str,
        batch_tokens: int,
        length: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        bos: int = 0,
        droppable: np.ndarray | None = None,
        class_dropout: float = 0.0,
        text: np.ndarray | None = None,
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
        self.tokens, self.offsets = tokens, np.asarray(offsets, np.int64)
        self.whole = np.diff(self.offsets)
        self.text = np.zeros(len(self.whole), np.int64) if text is None else text.astype(np.int64)
        self.caption_dropout = caption_dropout
        self.arrange, self.fim, self.marks = arrange if fim else None, fim, marks
        self.mode, self.batch_tokens, self.length = mode, batch_tokens, length
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.bos, self.class_dropout = bos, class_dropout
        self.droppable = None if droppable is None or class_dropout <= 0 else droppable
        self.taken = np.arange(len(self.whole))
        if mode != "chunks":
            self.taken = self.taken[self.whole <= length]
        self.n_dropped = len(self.whole) - len(self.taken)
        self._epoch = -1
        self._plan: list[np.ndarray] = []
        self._drop: np.ndarray | None = None
        self._heads, self._starts, self._lengths = self.text, self.offsets[:-1], self.whole
        if not len(self.taken):
            raise InputError(
                f"max_length is {length}, but the shortest of the {len(self.whole)} training "
                f"sequences has {int(self.whole.min())} tokens; raise max_length"
            )
        if not self.plan(0):
            raise InputError(
                f"the {len(self.whole)} training sequences ({int(self.whole.sum())} tokens, "
                f"{self.n_dropped} longer than {length}) do not fill one batch; prepare more "
                "pictures or lower max_length"
            )

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch for all ranks: numbers of sequences, or of rows in `chunks`."""
        if epoch == self._epoch:
            return self._plan
        self._leave_captions(epoch)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.taken)
        if self.mode == "chunks":
            # Sequence order[i] lies at ends[i] of the epoch's one long string of ids.
            ends = np.zeros(len(order) + 1, np.int64)
            np.cumsum(self._lengths[order], out=ends[1:])
            self._order, self._ends = order, ends
            rows = np.arange(ends[-1] // self.length)
            step = self.batch_tokens // self.length
            batches = [rows[start : start + step] for start in range(0, len(rows), step)]
            learnt = self._learnt_before(rows * self.length + 1)  # nothing foretells a row's first
            learnt = self._learnt_before((rows + 1) * self.length) - learnt
            batches = [batch for batch in batches if learnt[batch].any()]
        elif self.mode == "rows":
            batches = self._plan_rows(order)
        else:
            batches = length_batches(self._lengths, order, self.batch_tokens)
            batches = [batches[index] for index in rng.permutation(len(batches))]
        self._plan = batches
        self._drop = None
        if self.droppable is not None:
            self._drop = self.droppable & (rng.random(len(self.whole)) < self.class_dropout)
        self._epoch = epoch
        return self._plan

    def _plan_rows(self, order: np.ndarray) -> list[np.ndarray]:
        """Batches of rows, each filled in order with as many sequences as it holds: numbers in
        `_order`, which row i has from _ends[i] to _ends[i + 1]."""
        spare = SPARE if self.arrange else 0
        ends, edges = np.cumsum(np.minimum(self._lengths[order] + spare, self.length)), [0]
        while edges[-1] < len(order):
            before = ends[edges[-1] - 1] if edges[-1] else 0
            edges.append(int(np.searchsorted(ends, before + self.length, side="right")))
        self._order, self._ends = order, np.array(edges, np.int64)
        rows, step = np.arange(len(edges) - 1), self.batch_tokens // self.length
        return [rows[start : start + step] for start in range(0, len(rows), step)]

    def _rows_each(self) -> int:
        """Rows of a batch of `rows` that a rank has, of which the last may be padding."""
        return -(-(self.batch_tokens // self.length) // self.world_size)

    def _learnt_before(self, places: np.ndarray) -> np.ndarray:
        """How many of the ids before these places of the epoch's string are no caption's."""
        heads = self._heads[self._order]
        given = np.where(heads > 0, heads + 1, 0)
        whole = np.concatenate([[0], np.cumsum(self._lengths[self._order] - given)])
        number = np.searchsorted(self._ends[1:-1], places, side="right")
        return whole[number] + np.maximum(places - self._ends[number] - given[number], 0)

    def _leave_captions(self, epoch: int) -> None:
        """Which sequences lack their captions this epoch; where they begin then, and how long they
        are. Random numbers of their own: those of classes and of the order stay what they are."""
        if not (self.caption_dropout and self.text.any()):
            return
        rng = np.random.default_rng([self.seed, epoch, 1])
        left = np.where(rng.random(len(self.whole)) < self.caption_dropout, self.text, 0)
        self._heads = self.text - left
        self._starts, self._lengths = self.offsets[:-1] + left, self.whole - left

    def batch(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        """This rank's rows of batch `index`: int64 input_ids and labels, both [rows, ids]; where
        there is none for it, one of padding, from which nothing is learnt."""
        rows = self.plan(epoch)[index][self.rank :: self.world_size]
        if self.mode == "rows":
            return self._in_rows(rows, epoch)
        if not len(rows):
            empty = np.zeros((1, 2), np.int64)
            return {"input_ids": empty, "labels": np.full_like(empty, IGNORE)}
        if self.mode == "pictures":
            found = pad_rows(
                self.tokens, self._starts, self._lengths, self._heads, rows, self._drop, self.bos
            )
            return self._cut_holes(found, rows, epoch, self.arrange) if self.arrange else found
        place = rows[:, None] * self.length + np.arange(self.length)
        number = np.searchsorted(self._ends, place, side="right") - 1
        within = place - self._ends[number]
        sequence = self._order[number]
        heads = self._heads[sequence]
        ids = self.tokens[self._starts[sequence] + within].astype(np.int64)
        if self._drop is not None:
            ids[(within == heads) & self._drop[sequence]] = self.bos
        return {"input_ids": ids, "labels": np.where(_given(within, heads), IGNORE, ids)}

    def _holed(
        self, ids: np.ndarray, row: int, epoch: int, arrange: Arrange, most: int
    ) -> np.ndarray:
        """A sequence, perhaps with a hole in its picture, if it has at most so many ids then;
        whether and where, its own dice say."""
        rng = np.random.default_rng([self.seed, epoch, 2, row])
        if rng.random() < self.fim:
            holed = cut(ids, int(self._heads[row]) + 1, arrange, rng)
            ids = holed if len(holed) <= most else ids
        return ids

    def _cut_holes(
        self, batch: dict[str, np.ndarray], rows: np.ndarray, epoch: int, arrange: Arrange
    ) -> dict[str, np.ndarray]:
        """The same with holes in some pictures."""
        parts = [
            self._holed(ids[: self._lengths[row]], row, epoch, arrange, self.length)
            for ids, row in zip(batch["input_ids"], rows.tolist())
        ]
        lengths = np.array([len(ids) for ids in parts], np.int64)
        starts, order = np.cumsum(lengths) - lengths, np.arange(len(parts))
        tokens = np.concatenate(parts)
        return pad_rows(tokens, starts, lengths, self._heads[rows], order, marks=self.marks)

    def _in_rows(self, rows: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """Rows of the plan; one that is missing at the end of an epoch is padding."""
        shape = self._rows_each(), self.length
        batch = {"input_ids": np.zeros(shape, np.int64), "labels": np.full(shape, IGNORE)}
        for line, row in enumerate(rows.tolist()):
            chosen = self._order[self._ends[row] : self._ends[row + 1]].tolist()
            place, left = 0, int(self._lengths[chosen].sum())
            for number in chosen:
                start, head, own = self._starts[number], self._heads[number], self._lengths[number]
                ids = self.tokens[start : start + own].astype(np.int64)
                if self._drop is not None and self._drop[number]:
                    ids[head] = self.bos
                left -= own
                if self.arrange:
                    most = self.length - place - left
                    ids = self._holed(ids, number, epoch, self.arrange, most)
                learnt = (ids < self.marks) & ~_given(np.arange(len(ids)), head)
                there = line, slice(place, place + len(ids))
                batch["input_ids"][there] = ids
                batch["labels"][there] = np.where(learnt, ids, IGNORE)
                place += len(ids)
        return batch


def _given(within: np.ndarray, heads: np.ndarray | int) -> np.ndarray:
    """Whether the ids at these places of sequences are a caption's, or follow one at once."""
    return (within <= heads) & (heads > 0)


def pad_rows(
    tokens: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    heads: np.ndarray,
    rows: np.ndarray,
    drop: np.ndarray | None = None,
    bos: int = 0,
    marks: int = NO_MARKS,
) -> dict[str, np.ndarray]:
    """Sequences `rows` side by side, padded on the right with id 0 and label -100; the first
    heads[i] ids of sequence i are its caption, and those from `marks` on say where a hole is."""
    columns = np.arange(lengths[rows].max())
    real = columns < lengths[rows][:, None]
    ids = np.zeros(real.shape, np.int64)
    ids[real] = tokens[(starts[rows][:, None] + columns)[real]]
    if drop is not None:
        ids[drop[rows], heads[rows][drop[rows]]] = bos
    learnt = real & (ids < marks) & ~_given(columns, heads[rows][:, None])
    return {"input_ids": ids, "labels": np.where(learnt, ids, IGNORE)}
