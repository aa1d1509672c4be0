"""Parquet shards of canonical streams: a prepared folder as it lies on a disk.

    OUT/dataset.json                      settings, counts, codec and its fingerprint, label names
    OUT/shard-00012.parquet               key, stream, width, height, label, split, and text where
                                          there are captions
    OUT/codec.safetensors                 of a learned codec
    OUT/rejected.jsonl                    what could not be read, and why

Parquet because every data tool reads it; streams lie in it uncompressed (entropy-coded bytes do not
shrink). `token_shards` has what may lie beside them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jpeglm.config import InputError, differences
from jpeglm.data.parquet import parquet
from jpeglm.data.splits import SPLITS
from jpeglm.files import atomic_write, read_json, told
from jpeglm.remote import Unreachable

if TYPE_CHECKING:
    import pyarrow as pa


class Row(NamedTuple):
    """One stream; width and height in pixels of the coded picture, label -1 and text None where
    there is none."""

    key: str
    stream: bytes
    width: int
    height: int
    label: int
    split: str
    text: str | None = None


class Streams(NamedTuple):
    """Streams in memory: stream i is data[offsets[i] : offsets[i + 1]]; texts: their captions."""

    offsets: np.ndarray
    data: np.ndarray
    labels: np.ndarray
    texts: list[str | None]

    def stream(self, index: int) -> bytes:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.parquet"


def _schema(text: bool) -> pa.Schema:
    """The columns of a shard, in the order of `Row`; that of captions may be left out."""
    import pyarrow as pa

    kinds = [pa.string(), pa.binary(), pa.int32(), pa.int32(), pa.int32(), pa.string(), pa.string()]
    columns = [
        pa.field(name, kind, nullable=name == "text") for name, kind in zip(Row._fields, kinds)
    ]
    return pa.schema(columns if text else columns[:-1])


def write_shard(path: Path, rows: list[Row], meta: dict[str, Any]) -> None:
    """Write the rows whole or not at all; `meta` holds at least `codec` and `fingerprint`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = any(row.text is not None for row in rows)
    schema = _schema(text).with_metadata({"jpeglm": json.dumps(meta, sort_keys=True)})
    columns = [[row[place] for row in rows] for place in range(len(schema))]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema)], schema=schema)
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        compression={name: "none" if name == "stream" else "zstd" for name in schema.names},
        use_dictionary=["width", "height", "label", "split", "text"][: 4 + text],
        write_statistics=False,
    )
    atomic_write(path, out.getvalue())


def read_meta(path: Path) -> dict[str, Any]:
    """What `write_shard` was given as `meta`; InputError if the file is no shard of ours."""
    import pyarrow as pa

    try:
        with parquet(path) as file:
            stored = file.schema_arrow.metadata or {}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}; prepare the data again") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not a readable Parquet file; delete it and prepare again"
        ) from (error)
    try:
        meta: dict[str, Any] = json.loads(stored[b"jpeglm"])
        if not isinstance(meta["codec"], dict) or not isinstance(meta["fingerprint"], str):
            raise TypeError
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a shard written by jpeglm prepare") from error
    return meta


def read_shard(path: Path, fingerprint: str | None = None) -> pa.Table:
    """The rows of a shard as an Arrow table with all columns of `Row`; another fingerprint than
    expected is refused."""
    import pyarrow as pa

    meta = read_meta(path)
    if fingerprint not in (None, meta["fingerprint"]):
        record = path.parent / "dataset.json"
        wanted = read_json(record).get("codec", {}) if record.exists() else {}
        changed = differences(meta["codec"], wanted) if wanted else meta["fingerprint"]
        raise InputError(
            f"{path} holds streams of codec settings that the rest has not ({changed}); delete "
            "it and prepare again"
        )
    try:
        table = parquet(path).read(use_threads=False)
        # Another tool may have written it again: its wider types hold the same.
        if "text" not in table.column_names:
            table = table.append_column("text", pa.nulls(len(table), pa.string()))
        table = table.select(list(Row._fields)).cast(_schema(True))
        table.column("text").validate(full=True)
    except Unreachable:
        raise
    except (OSError, LookupError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged; delete it and prepare again: {told(error)}") from (
            error
        )
    holes = [name for name in Row._fields[:-1] if table.column(name).null_count]
    strange = set(table.column("split").unique().to_pylist()) - {None, *SPLITS}
    if holes or strange:
        reason = f"the column {holes[0]} has rows without a value" if holes else "unknown splits"
        raise InputError(f"{path} is damaged; delete it and prepare again: {reason}")
    return table


def table_streams(table: pa.Table) -> Streams:
    """Columns `stream`, `label` and `text`, the first two without a Python object a row."""
    column = table.column("stream").combine_chunks()
    _, places, data = column.buffers()
    if not len(column):
        return Streams(np.zeros(1, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.int32), [])
    offsets = np.frombuffer(places, np.int32, len(column) + 1, column.offset * 4).astype(np.int64)
    flat = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    labels = table.column("label").to_numpy().astype(np.int32)
    return Streams(offsets - offsets[0], flat, labels, table.column("text").to_pylist())


def joined(parts: Iterable[Streams]) -> Streams:
    """The parts one after the other."""
    parts = list(parts)
    lengths = [np.diff(part.offsets) for part in parts]
    offsets = np.zeros(sum(map(len, lengths)) + 1, np.int64)
    np.cumsum(np.concatenate([*lengths, np.zeros(0, np.int64)]), out=offsets[1:])
    data = np.concatenate([part.data for part in parts] + [np.zeros(0, np.uint8)])
    labels = np.concatenate([part.labels for part in parts] + [np.zeros(0, np.int32)])
    return Streams(offsets, data, labels, [text for part in parts for text in part.texts])
