"""Token shards: the rows of a Parquet shard as uint16 ids, beside it.

    OUT/shard-00012.tokens.safetensors    tokens, offsets, split, label, stream_bytes of its rows,
                                          and text, ids of each caption, if there are any
    OUT/tokens-index.safetensors          where each sequence of all of them lies (`token_index`)
    OUT/tokenizer/                        the tokenizer that made them

They cost the streams' space again and spare a training host pyarrow and numba; they are read where
they lie, while Parquet's streams are made tokens of in memory, by every process anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.data.shards import Streams, read_shard, table_streams
from jpeglm.data.splits import SPLITS
from jpeglm.data.token_set import digest_of
from jpeglm.files import atomic_write
from jpeglm.remote import Unreachable
from jpeglm.tensors import read_metadata, read_safetensors

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

TOKENIZER = "tokenizer"
"""The folder of the tokenizer that made the token shards, inside a prepared folder."""


def token_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.tokens.safetensors"


@dataclass(frozen=True)
class TokenShard:
    """Rows as ids: row i is tokens[offsets[i] : offsets[i + 1]]: text[i] ids of a caption, BOS or
    class, the picture, EOS."""

    tokens: np.ndarray
    offsets: np.ndarray
    split: np.ndarray
    label: np.ndarray
    stream_bytes: np.ndarray
    text: np.ndarray
    tokenizer: str
    fingerprint: str
    digests: dict[str, str] | None
    """Of the rows of each split; None: an earlier version wrote none."""

    def rows(self, split: str) -> np.ndarray:
        """Numbers of the rows of a split."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def digest(self, split: str) -> str:
        """Of the rows of a split."""
        if self.digests is not None:
            return self.digests[split]
        return digest_of(self.tokens, self.offsets, self.text, self.rows(split))


def tokenize(
    streams: Streams, tokenizer: Tokenizer, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens uint16 flat, offsets int64 [n + 1], text int32 [n]) of [text ids…, BOS or class,
    ids…, EOS] for each stream; text: how many ids those are."""
    if tokenizer.vocab_size > 1 << 16:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} ids; token shards hold at most 65536"
        )
    if tokenizer.n_classes and streams.labels.max(initial=-1) >= tokenizer.n_classes:
        raise InputError(
            f"the data have label {streams.labels.max()}, the tokenizer has classes 0 to "
            f"{tokenizer.n_classes - 1}; train a tokenizer with more classes"
        )
    offsets = np.zeros(len(streams.labels) + 1, np.int64)
    text = np.zeros(len(streams.labels), np.int32)
    parts = []
    for index, label in enumerate(streams.labels.tolist()):
        ids = tokenizer.encode_stream(streams.stream(index))
        head = tokenizer.head(
            label if label >= 0 and tokenizer.n_classes else None,
            streams.texts[index] if tokenizer.text else None,
        )
        parts.append(np.concatenate([head, ids, [tokenizer.eos]]).astype(np.uint16))
        text[index] = len(head) - 1
        offsets[index + 1] = offsets[index] + len(parts[-1])
        if progress and (index % 256 == 255 or index + 1 == len(streams.labels)):
            progress(index + 1, len(streams.labels))
    return np.concatenate([*parts, np.zeros(0, np.uint16)]), offsets, text


def write_token_shard(path: Path, shard: Path, tokenizer: Tokenizer, fingerprint: str) -> None:
    """The rows of a Parquet shard as a token shard."""
    from safetensors.numpy import save

    table = read_shard(shard, fingerprint)
    streams = table_streams(table)
    tokens, offsets, text = tokenize(streams, tokenizer)
    split = np.array([SPLITS.index(s) for s in table.column("split").to_pylist()], np.int8)
    arrays = {
        "tokens": tokens,
        "offsets": offsets,
        "split": split,
        "label": streams.labels,
        "stream_bytes": np.diff(streams.offsets).astype(np.int32),
        **({"text": text} if text.any() else {}),
    }
    digests = {
        name: digest_of(tokens, offsets, text, np.flatnonzero(split == number))
        for number, name in enumerate(SPLITS)
    }
    meta = {
        "tokenizer": tokenizer.fingerprint, "fingerprint": fingerprint, "digests": digests
    }  # fmt: skip
    # One key: safetensors writes several in an order that changes from run to run.
    atomic_write(path, save(arrays, {"jpeglm": json.dumps(meta, sort_keys=True)}))


def token_meta(path: Path) -> dict[str, Any]:
    """Of which tokenizer and codec a token shard is, and the digests of its splits (None of one of
    an earlier version), without reading its tokens."""
    meta = metadata(path, "a readable token shard")
    try:
        found = {"tokenizer": str(meta["tokenizer"]), "fingerprint": str(meta["fingerprint"])}
        digests = meta.get("digests")
        if digests is not None:
            digests = {name: str(digests[name]) for name in SPLITS}
        return found | {"digests": digests}
    except (LookupError, TypeError) as error:
        raise InputError(f"{path} was not written by jpeglm prepare; delete it") from error


def metadata(path: Path, what: str) -> dict[str, Any]:
    """What a safetensors file of ours says of itself; what: as what it is told of if it cannot be
    read."""
    try:
        stored = read_metadata(path)
    except Unreachable:
        raise
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InputError(f"{error}; prepare the tokens again") from error
        raise InputError(f"{path} is not {what}; delete it: {error}") from error
    try:
        found = json.loads(stored["jpeglm"])
        if not isinstance(found, dict):
            raise TypeError
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} was not written by jpeglm prepare; delete it") from error
    return found


def read_token_shard(path: Path) -> TokenShard:
    """A token shard, mapped, so that of its ids are read those that are asked for; needs neither
    pyarrow nor numba."""
    meta = token_meta(path)
    try:
        values: dict[str, Any] = read_safetensors(path)[0]
        values.setdefault("text", np.zeros(len(values["label"]), np.int32))
        arrays = {name: np.asarray(array) for name, array in values.items()}
        shard = TokenShard(**(arrays | meta))
    except InputError as error:
        raise InputError(f"{error}; delete it") from error
    except (TypeError, LookupError) as error:
        raise InputError(
            f"{path} is not a token shard of this version; delete it: {error}"
        ) from error
    if not _sound(shard):
        raise InputError(f"{path} is damaged: its rows do not fit together; delete it")
    return shard


def _sound(shard: TokenShard) -> bool:
    """Whether every row lies inside the tokens and has a split, a label and a size."""
    kinds = [
        (shard.tokens, np.uint16), (shard.offsets, np.int64), (shard.split, np.int8),
        (shard.label, np.int32), (shard.stream_bytes, np.int32), (shard.text, np.int32),
    ]  # fmt: skip
    if any(array.dtype != kind or array.ndim != 1 for array, kind in kinds):
        return False
    rows = len(shard.offsets) - 1
    columns = (shard.split, shard.label, shard.stream_bytes, shard.text)
    if rows < 0 or {len(column) for column in columns} != {rows}:
        return False
    ends = shard.offsets[0] == 0 and shard.offsets[-1] == len(shard.tokens)
    known = np.isin(shard.split, range(len(SPLITS))).all()
    lengths = np.diff(shard.offsets)
    inside = (shard.text >= 0).all() and (shard.text <= lengths).all()
    return bool(ends and known and inside and (lengths >= 0).all())
