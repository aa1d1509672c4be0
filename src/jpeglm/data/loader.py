"""Prepared data to batches for the training loop; numpy alone, no torch.

    tokens = load_tokens(Path("data"), tokenizer, "train")
    loader = TrainingLoader(tokens, "pictures", batch_tokens=8192, max_length=512)
    for batch in loader: ...          # endless; loader.state() and loader.seek() resume

Token shards are read where they lie and fit the tokenizer; otherwise Parquet streams are tokenised
in memory (seconds for some ten thousand small pictures). Trade-off: all ids of a split sit in
memory as uint16, 2 GB for 1e9 tokens, so that any picture is a slice away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from jpeglm.config import InputError
from jpeglm.data.arrange import Arrange, cut
from jpeglm.data.open import Dataset, Pictures, open_data
from jpeglm.data.packing import NO_MARKS, Batches, length_batches, pad_rows
from jpeglm.data.shards import Streams, read_shard, table_streams
from jpeglm.data.splits import ANEW, SPLITS, check_split
from jpeglm.data.token_shards import (
    TOKENIZER,
    TokenShard,
    read_token_shard,
    token_meta,
    token_path,
    tokenize,
    write_token_shard,
)

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""Called with pictures tokenised and pictures in all."""


@dataclass(frozen=True)
class TokenSet:
    """Sequence i is tokens[offsets[i] : offsets[i + 1]], from its caption, or else from BOS or
    class, to EOS.

    tokens: uint16 flat. offsets: int64 [n + 1]. labels: int32 [n], -1 where there is none.
    stream_bits: int64 [n], bits of each picture's canonical stream. text: int32 [n], ids of each
    caption.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    stream_bits: np.ndarray
    text: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Ids of each sequence, caption, BOS and EOS included."""
        return np.diff(self.offsets)

    def select(self, rows: np.ndarray) -> TokenSet:
        """The sequences `rows`, in that order."""
        lengths = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return TokenSet(
            self.tokens[places],
            offsets,
            self.labels[rows],
            self.stream_bits[rows],
            self.text[rows],
        )

    def holed(self, arrange: Arrange, hole: int, seed: int = 0) -> TokenSet:
        """Each sequence with a hole, the same one at each call; `text` then reaches to where its
        content begins. hole: the id before that. Ids are int64: addresses may be beyond uint16."""
        parts, given = [], []
        for number in range(len(self)):
            ids = self.tokens[self.offsets[number] : self.offsets[number + 1]].astype(np.int64)
            rng = np.random.default_rng([seed, 3, number])
            parts.append(cut(ids, self.text[number] + 1, arrange, rng))
            given.append(int(np.flatnonzero(parts[-1] == hole)[0]) + 1)
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in parts])]).astype(np.int64)
        text = np.array(given, np.int32)
        return TokenSet(np.concatenate(parts), offsets, self.labels, self.stream_bits, text)

    def fitted(self, length: int) -> tuple[TokenSet, int]:
        """The set with captions cut at their ends where a sequence has more than `length` ids, as
        far as that helps; and how many were cut."""
        excess = np.clip(self.lengths - length, 0, self.text)
        if not excess.any():
            return self, 0
        within = np.arange(len(self.tokens)) - np.repeat(self.offsets[:-1], self.lengths)
        text, cut = (np.repeat(part, self.lengths) for part in (self.text, excess))
        kept = (within < text - cut) | (within >= text)
        offsets = self.offsets - np.concatenate([[0], np.cumsum(excess)])
        found = TokenSet(
            self.tokens[kept], offsets, self.labels, self.stream_bits,
            (self.text - excess).astype(np.int32),
        )  # fmt: skip
        return found, int((excess > 0).sum())


def load_tokens(
    data: Path,
    tokenizer: Tokenizer | None,
    split: str | None = "train",
    *,
    limit: int | None = None,
    cache: bool = False,
    progress: Progress | None = None,
) -> TokenSet:
    """The token sequences of a split (None: of all) of prepared data or of a folder of pictures.

    tokenizer None takes the token shards as they are (no numba is needed then). limit: at most so
    many pictures, the same ones at each call, spread over the whole split. cache: write the token
    shards that are missing. Raises InputError if there is nothing to load.
    """
    data = Path(data)
    source = open_data(data, tokenizer.codec, tokenizer.folder) if tokenizer else open_data(data)
    if split is not None:
        check_split(split)
    if isinstance(source, Pictures):
        assert tokenizer is not None
        found = _from_streams(source.load(split), tokenizer, progress)
    else:
        found = _from_dataset(source, tokenizer, split, cache, progress)
    if not len(found):
        raise InputError(f"{data} has no {split or 'readable'} pictures; {ANEW}")
    if limit is not None and limit < len(found):
        chosen = np.random.default_rng(0).permutation(len(found))[:limit]
        found = found.select(np.sort(chosen))
    return found


def _from_dataset(
    source: Dataset,
    tokenizer: Tokenizer | None,
    split: str | None,
    cache: bool,
    progress: Progress | None,
) -> TokenSet:
    wanted = None if tokenizer is None else tokenizer.fingerprint
    parts: list[TokenSet] = []
    total, done = source.count(split), 0
    for index, shard in enumerate(source.shards):
        path = token_path(source.path, index)
        usable = path.exists() and token_meta(path).get("tokenizer") == wanted
        if tokenizer is None:
            meta = token_meta(path)  # InputError if there is none
            if wanted is None:
                wanted = meta["tokenizer"]
            if meta["tokenizer"] != wanted:
                raise InputError(
                    f"{path} was made with tokenizer {meta['tokenizer']}, the shards before it "
                    f"with {wanted}; run jpeglm prepare --tokenizer again"
                )
            usable = True
        if not usable and cache:
            assert tokenizer is not None
            write_token_shard(path, shard, tokenizer, source.fingerprint)
            usable = True
        if usable:
            part = _from_token_shard(path, read_token_shard(path), source.fingerprint, split)
        else:
            assert tokenizer is not None
            table = read_shard(shard, source.fingerprint)
            if split is not None:
                import pyarrow.compute as pc

                table = table.filter(pc.equal(table.column("split"), split))
            part = _from_streams(table_streams(table), tokenizer, None)
        parts.append(part)
        done += len(part)
        if progress:
            progress(done, total)
    if tokenizer is not None and cache:
        tokenizer.save(source.path / TOKENIZER)
    return _join(parts)


def _from_token_shard(
    path: Path, shard: TokenShard, fingerprint: str, split: str | None
) -> TokenSet:
    if shard.fingerprint != fingerprint:
        raise InputError(
            f"{path} holds tokens of codec {shard.fingerprint}, {fingerprint} is expected; "
            "delete it and prepare the tokens again"
        )
    bits = shard.stream_bytes.astype(np.int64) * 8
    found = TokenSet(shard.tokens, shard.offsets, shard.label, bits, shard.text)
    if split is None:
        return found
    return found.select(np.flatnonzero(shard.split == SPLITS.index(split)))


def _from_streams(streams: Streams, tokenizer: Tokenizer, progress: Progress | None) -> TokenSet:
    tokens, offsets, text = tokenize(streams, tokenizer, progress)
    return TokenSet(tokens, offsets, streams.labels, np.diff(streams.offsets) * 8, text)


def _join(parts: list[TokenSet]) -> TokenSet:
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return TokenSet(
        np.concatenate([part.tokens for part in parts]),
        offsets,
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.stream_bits for part in parts]),
        np.concatenate([part.text for part in parts]),
    )


class TrainingLoader:
    """Endless batches of one rank; step s is the same batch whenever and however it is reached.

    See `Batches` for the parameters; max_length is its `length`, bos the id that takes the place
    of a class with probability class_dropout; a caption is left out with caption_dropout; holes:
    how pictures are cut with probability fim, and the first id that says where.
    """

    def __init__(
        self,
        token_set: TokenSet,
        mode: str,
        batch_tokens: int,
        max_length: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        *,
        bos: int | None = None,
        class_dropout: float = 0.0,
        caption_dropout: float = 0.0,
        fim: float = 0.0,
        holes: tuple[Arrange, int] | None = None,
    ) -> None:
        for name, share in (("class", class_dropout), ("caption", caption_dropout)):
            if not 0 <= share <= 1:
                raise InputError(f"{name}_dropout is {share}; it must be from 0 to 1")
        assert bos is not None or class_dropout == 0, "dropping classes needs the id of BOS"
        assert holes or not fim, "cutting holes needs to know how"
        arrange, marks = holes or (None, NO_MARKS)
        self.batches = Batches(
            token_set.tokens,
            token_set.offsets,
            mode=mode,
            batch_tokens=batch_tokens,
            length=max_length,
            seed=seed,
            rank=rank,
            world_size=world_size,
            bos=bos or 0,
            droppable=token_set.labels >= 0,
            class_dropout=class_dropout,
            text=token_set.text,
            caption_dropout=caption_dropout,
            fim=fim,
            arrange=arrange,
            marks=marks,
        )
        self.n_dropped = self.batches.n_dropped
        self.seek(0)

    def seek(self, step: int) -> None:
        """Make `step` (from 0) the next one; costs one plan for each epoch passed."""
        self.step, self.epoch, self.index = step, 0, step
        self._pass_epochs()

    def state(self) -> dict[str, int]:
        """`step` is what `seek` takes; `epoch` and `index` are for the log."""
        return {"step": self.step, "epoch": self.epoch, "index": self.index}

    @property
    def steps_per_epoch(self) -> int:
        """Of the present epoch; in `pictures` it may differ a little from one to the next."""
        return len(self.batches.plan(self.epoch))

    def places(self) -> Iterator[tuple[int, int]]:
        """(epoch, index) of the next batch and of all after it, without end."""
        while True:
            place = self.epoch, self.index
            # Counted before it is given out: state() after a step names the next one.
            self.step += 1
            self.index += 1
            self._pass_epochs()
            yield place

    def _pass_epochs(self) -> None:
        """To the epoch that holds the next batch; one whose captions are left out may have none."""
        while self.index >= len(self.batches.plan(self.epoch)):
            self.index -= len(self.batches.plan(self.epoch))
            self.epoch += 1

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.batches.batch(*place) for place in self.places())


T = TypeVar("T")


def ahead(batches: Iterator[T], depth: int = 4) -> Iterator[T]:
    """The same endless batches in the same order, `depth` of them made beforehand in a thread: a
    GPU takes some tens of milliseconds for a step, gathering its tokens some ten."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, batches) for _ in range(depth))
        while True:
            yield waiting.popleft().result()
            waiting.append(pool.submit(next, batches))


def validation_batches(
    token_set: TokenSet,
    batch_tokens: int,
    max_length: int,
    rank: int = 0,
    world_size: int = 1,
    marks: int = NO_MARKS,
) -> Iterator[dict[str, np.ndarray]]:
    """Every picture once, in a fixed order, one a row, over all ranks together.

    Beside input_ids and labels a batch has `index` int64 [rows], the pictures' places in the set.
    Sequences longer than max_length are left out; their number is what the caller misses. marks: as
    `Batches` has them.
    """
    lengths = token_set.lengths
    order = np.flatnonzero(lengths <= max_length)
    batches = length_batches(lengths, order, batch_tokens, window=max(1, len(order)))
    for rows in batches[rank::world_size]:
        starts, text = token_set.offsets[:-1], token_set.text
        found = pad_rows(token_set.tokens, starts, lengths, text, rows, marks=marks)
        yield {**found, "index": rows}


def tokenizer_of(data: Path) -> Path | None:
    """The tokenizer's folder of a prepared folder with token shards, if there is one."""
    path = Path(data) / TOKENIZER
    return path if path.is_dir() else None
