"""Prepared data to batches for the training loop; numpy alone, no torch.

    tokens = load_tokens(Path("data"), tokenizer, "train")
    loader = TrainingLoader(tokens, "pictures", batch_tokens=8192, max_length=512)
    for batch in loader: ...          # endless; loader.state() and loader.seek() resume

Token shards are read where they lie if they fit the tokenizer, by their index: a process then holds
a few bytes a picture and those ids that it is about to learn. Otherwise Parquet streams are
tokenised in memory (seconds for some ten thousand small pictures), where all ids of a split stay as
uint16, 2 GB for 1e9 tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from jpeglm.config import InputError
from jpeglm.data.arrange import Arrange
from jpeglm.data.open import Dataset, Pictures, open_data
from jpeglm.data.packing import NO_MARKS, Batches, pad_rows
from jpeglm.data.plan import length_batches
from jpeglm.data.shards import Streams, table_streams
from jpeglm.data.splits import ANEW, check_split
from jpeglm.data.token_index import INDEX, TokenIndex, index_of, read_index
from jpeglm.data.token_set import TokenSet, digest_of, in_memory, together
from jpeglm.data.token_shards import (
    TOKENIZER,
    token_meta,
    token_path,
    tokenize,
    write_token_shard,
)
from jpeglm.remote import names_in

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""Called with pictures tokenised and pictures in all."""


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
    index = read_index(source.path, wanted, source.fingerprint, source.info["shards"])
    index = index or _made_index(source, tokenizer, cache)
    if index is not None:
        found = index.token_set(source.path, split)
        if len(found) != source.count(split):
            raise InputError(
                f"{source.path} has token shards of {len(found)} {split or ''} streams, its "
                f"dataset.json tells of {source.count(split)}: one is of other data; delete "
                "*.tokens.safetensors there and prepare the tokens again"
            )
        if progress:
            progress(len(found), len(found))
        return found
    assert tokenizer is not None
    parts: list[TokenSet] = []
    total, done = source.count(split), 0
    for table in source.tables(split):
        parts.append(_from_streams(table_streams(table), tokenizer, None))
        done += len(parts[-1])
        if progress:
            progress(done, total)
    return _joined(parts)


def made_in_memory(data: Path, tokenizer: Tokenizer) -> int:
    """Bytes of streams of prepared data that `load_tokens` makes tokens of in memory; 0 where token
    shards of this tokenizer lie beside them."""
    source = open_data(data, tokenizer.codec, tokenizer.folder)
    if isinstance(source, Pictures):
        return 0
    names = names_in(source.path)
    paths = [token_path(source.path, index) for index in range(source.info["shards"])]
    if all(path.name in names for path in paths):
        asked = paths[-1:] if INDEX in names else paths  # an index is of one tokenizer's shards
        if all(token_meta(path)["tokenizer"] == tokenizer.fingerprint for path in asked):
            return 0
    return int(source.info.get("bytes", {}).get("train", 0))


def _made_index(source: Dataset, tokenizer: Tokenizer | None, cache: bool) -> TokenIndex | None:
    """The index of a folder's token shards, made now; None if some are of another tokenizer.
    cache: make those that are missing before."""
    paths = [token_path(source.path, index) for index in range(source.info["shards"])]
    if tokenizer is not None:
        for path, shard in zip(paths, source.shards):
            if path.exists() and token_meta(path)["tokenizer"] == tokenizer.fingerprint:
                continue
            if not cache:
                return None
            write_token_shard(path, shard, tokenizer, source.fingerprint)
        if cache:
            tokenizer.save(source.path / TOKENIZER)
    return index_of(paths, source.fingerprint)


def _from_streams(streams: Streams, tokenizer: Tokenizer, progress: Progress | None) -> TokenSet:
    tokens, offsets, text = tokenize(streams, tokenizer, progress)
    sizes = np.diff(streams.offsets).astype(np.int32)
    digest = digest_of(tokens, offsets, text, np.arange(len(text)))
    return in_memory(tokens, offsets, streams.labels, sizes, text, digest)


def _joined(parts: list[TokenSet]) -> TokenSet:
    """Sets in memory one after the other, known by their digests together."""
    begins = np.cumsum([0, *(part.total for part in parts)])
    return TokenSet(
        np.concatenate([np.asarray(part.tokens) for part in parts]),
        np.concatenate([part.starts + begin for part, begin in zip(parts, begins)]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.stream_bytes for part in parts]),
        np.concatenate([part.text for part in parts]),
        digest=together(part.digest for part in parts),
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
            token_set,
            mode=mode,
            batch_tokens=batch_tokens,
            length=max_length,
            seed=seed,
            rank=rank,
            world_size=world_size,
            bos=bos or 0,
            class_dropout=class_dropout,
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
    window = max(1, len(order))
    batches = length_batches(lambda some: lengths[some], order, batch_tokens, window)
    for index in range(rank, len(batches), world_size):
        rows = batches[index]
        parts = [(token_set.ids(row), int(token_set.text[row])) for row in rows.tolist()]
        yield {**pad_rows(parts, marks), "index": rows}


def tokenizer_of(data: Path) -> Path | None:
    """The tokenizer's folder of a prepared folder with token shards, if there is one."""
    path = Path(data) / TOKENIZER
    return path if path.is_dir() else None
