"""The index of a folder's token shards: where each sequence lies, so that training opens one file.

    OUT/tokens-index.safetensors    of each split: starts, lengths, labels, stream_bytes, and text
                                    where there are captions; of each shard: begins, places, sizes,
                                    checks, as `mapped.MappedIds` has them; digests of the splits

`prepare` writes it behind the shards. It is mapped, so that processes of a machine share it: 20
bytes a sequence, 24 with captions. Where it is missing or of other shards, it is made again in
memory, which reads the small columns of every shard. Trade-off: at the start the index is read
through for its checksum, since one wrong start would be learnt in silence, and a shard's size is
compared; a shard's header when it is first asked for, and its ids never again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jpeglm.config import InputError
from jpeglm.data.mapped import MappedIds, head_of
from jpeglm.data.splits import SPLITS
from jpeglm.data.token_set import TokenSet, together
from jpeglm.data.token_shards import TokenShard, metadata, read_token_shard, token_path
from jpeglm.remote import is_remote, names_in, opened
from jpeglm.tensors import read_header, read_safetensors, write_arrays

__all__ = ["INDEX", "TokenIndex", "index_of", "knows", "read_index", "write_index"]

INDEX = "tokens-index.safetensors"
COLUMNS = {"starts": "I64", "lengths": "I32", "labels": "I32", "stream_bytes": "I32", "text": "I32"}
FILES = {"begins": "I64", "places": "I64", "sizes": "I64", "checks": "I64"}
KINDS = {"I64": np.int64, "I32": np.int32}


class TokenIndex(NamedTuple):
    """Of a folder; columns: by split and name; files: by name; digests: of the splits."""

    tokenizer: str
    fingerprint: str
    columns: dict[str, dict[str, np.ndarray]]
    files: dict[str, np.ndarray]
    digests: dict[str, str]

    def token_set(self, folder: Path, split: str | None) -> TokenSet:
        """The sequences of a split, or of all in the order of the shards, of this folder."""
        ids = MappedIds(partial(token_path, folder), **self.files)
        if split is not None:
            return TokenSet(ids, digest=self.digests[split], **self.columns[split])
        both = [self.columns[name] for name in SPLITS]
        order = np.argsort(np.concatenate([part["starts"] for part in both]), kind="stable")
        columns = {name: np.concatenate([p[name] for p in both])[order] for name in COLUMNS}
        return TokenSet(ids, digest=together(self.digests.values()), **columns)


def index_of(paths: Iterable[Path], fingerprint: str) -> TokenIndex:
    """The index of these token shards, made by reading all but their ids; of shards of an earlier
    version, which hold no digests, those as well. InputError if one is of another codec, or of
    another tokenizer than the first."""
    columns: dict[str, dict[str, list[np.ndarray]]] = {
        split: {name: [] for name in COLUMNS} for split in SPLITS
    }
    files: dict[str, list[int]] = {name: [] for name in FILES}
    digests: dict[str, list[str]] = {split: [] for split in SPLITS}
    begin, tokenizer = 0, ""
    for path in paths:
        shard = read_token_shard(path)
        tokenizer = tokenizer or shard.tokenizer
        _check(path, shard, tokenizer, fingerprint)
        for split in SPLITS:
            rows = shard.rows(split)
            found = {
                "starts": begin + shard.offsets[rows],
                "lengths": np.diff(shard.offsets)[rows].astype(np.int32),
                "labels": shard.label[rows],
                "stream_bytes": shard.stream_bytes[rows],
                "text": shard.text[rows],
            }
            for name, values in found.items():
                columns[split][name].append(values)
            digests[split].append(shard.digest(split))
        with opened(path) as file:
            head = file.read(8)
            head += file.read(int.from_bytes(head, "little"))
            size = file.seek(0, os.SEEK_END)
        place = read_header(path)["tokens"].begin
        for name, value in zip(FILES, (begin, place, size, head_of(head))):
            files[name].append(value)
        begin += len(shard.tokens)
    files["begins"].append(begin)
    return TokenIndex(
        tokenizer,
        fingerprint,
        {
            split: {
                name: np.concatenate([*parts, np.zeros(0, KINDS[COLUMNS[name]])])
                for name, parts in own.items()
            }
            for split, own in columns.items()
        },
        {name: np.array(values, np.int64) for name, values in files.items()},
        {split: together(parts) for split, parts in digests.items()},
    )


def _check(path: Path, shard: TokenShard, tokenizer: str, fingerprint: str) -> None:
    if shard.fingerprint != fingerprint:
        raise InputError(
            f"{path} holds tokens of codec {shard.fingerprint}, {fingerprint} is expected; "
            "delete it and prepare the tokens again"
        )
    if shard.tokenizer != tokenizer:
        raise InputError(
            f"{path} was made with tokenizer {shard.tokenizer}, the shards before it with "
            f"{tokenizer}; run jpeglm prepare --tokenizer again"
        )


def write_index(folder: Path, index: TokenIndex) -> None:
    """Into a prepared folder, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    for split, own in index.columns.items():
        arrays |= {f"{split}.{name}": values for name, values in own.items()
                   if name != "text" or values.any()}  # fmt: skip
    arrays |= {f"shards.{name}": values for name, values in index.files.items()}
    # The widest first, so that all are aligned.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    kinds = {
        name: ((COLUMNS | FILES)[name.partition(".")[2]], array.shape)
        for name, array in arrays.items()
    }
    about: dict[str, Any] = {
        "tokenizer": index.tokenizer, "fingerprint": index.fingerprint, "digests": index.digests
    }  # fmt: skip
    about["check"] = _checksum(about, arrays)
    told = {"jpeglm": json.dumps(about, sort_keys=True)}
    write_arrays(folder / INDEX, kinds, arrays.values(), told)


def _checksum(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> int:
    """CRC-32 of what an index says of itself and of its arrays with their names, in their order."""
    said = {name: value for name, value in about.items() if name != "check"}
    found = zlib.crc32(json.dumps(said, sort_keys=True).encode())
    for name, array in arrays.items():
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, found)
    return found


def read_index(folder: Path, tokenizer: str | None, fingerprint: str, shards: int) -> (
    TokenIndex | None
):  # fmt: skip
    """The index in a folder, mapped; None if there is none, or none of so many shards of this codec
    and tokenizer (None: of any), or if a shard is missing or of another size than it knows."""
    path = folder / INDEX
    if not path.exists():
        return None
    about = metadata(path, "a readable index of token shards")
    if about.get("fingerprint") != fingerprint or tokenizer not in (None, about.get("tokenizer")):
        return None
    arrays = {name: np.asarray(array) for name, array in read_safetensors(path)[0].items()}
    if "check" in about and about["check"] != _checksum(about, arrays):
        raise InputError(f"{path} is damaged: its checksum is another; delete it")
    try:
        columns = {split: _columns(arrays, split) for split in SPLITS}
        files = {name: arrays[f"shards.{name}"] for name in FILES}
        digests = {split: str(about["digests"][split]) for split in SPLITS}
        whole = {len(values) for name, values in files.items() if name != "begins"}
        sound = whole == {len(files["begins"]) - 1} and all(
            array.ndim == 1 and array.dtype == KINDS[kind]
            for own, kinds in [*((c, COLUMNS) for c in columns.values()), (files, FILES)]
            for array, kind in ((own[name], kinds[name]) for name in kinds)
        )
    except (LookupError, TypeError) as error:
        raise InputError(f"{path} is not an index of this version; delete it") from error
    if not sound:
        raise InputError(f"{path} is damaged: its columns do not fit together; delete it")
    if files["sizes"].tolist() != _sizes(folder, shards):
        return None
    return TokenIndex(str(about["tokenizer"]), fingerprint, columns, files, digests)


def knows(folder: Path, tokenizer: str, fingerprint: str, shards: int) -> bool:
    """Whether the index in a folder, of this machine or of a store, is one of so many shards of
    this codec and tokenizer."""
    if not is_remote(folder):
        return read_index(folder, tokenizer, fingerprint, shards) is not None
    if INDEX not in names_in(folder):
        return False
    about = metadata(folder / INDEX, "a readable index of token shards")
    return (about.get("tokenizer"), about.get("fingerprint")) == (tokenizer, fingerprint)


def _sizes(folder: Path, shards: int) -> list[int]:
    """Bytes of so many token shards, -1 of one that is not there."""
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    return [found.get(token_path(folder, index).name, -1) for index in range(shards)]


def _columns(arrays: dict[str, Any], split: str) -> dict[str, np.ndarray]:
    """Those of a split; without captions `text` is one zero for all."""
    none = np.broadcast_to(np.zeros(1, np.int32), arrays[f"{split}.lengths"].shape)
    given = {f"{split}.text": none} | arrays
    found = {name: given[f"{split}.{name}"] for name in COLUMNS}
    if len({len(values) for values in found.values()}) > 1:
        raise LookupError
    return found
