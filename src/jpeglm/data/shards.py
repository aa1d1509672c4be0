"""Prepared data on a disk: Parquet shards of canonical streams, token shards beside them.

    OUT/dataset.json                      settings, counts, codec and its fingerprint, label names
    OUT/shard-00012.parquet               key, stream, width, height, label, split
    OUT/shard-00012.tokens.safetensors    the same rows as uint16 ids, split and label
    OUT/tokenizer/                        the tokenizer of the token shards
    OUT/codec.safetensors                 of a learned codec
    OUT/rejected.jsonl                    what could not be read, and why

Parquet because every data tool reads it; streams lie in it uncompressed (entropy-coded bytes do not
shrink). Token shards cost the same space again and spare a training host pyarrow and numba.
`open_data` gives one interface to a prepared folder and to plain pictures, coded as they are read.
"""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jpeglm.config import InputError, differences
from jpeglm.files import atomic_write, read_bytes, read_json, told
from jpeglm.folders import DATA_FORMAT

if TYPE_CHECKING:
    import pyarrow as pa

    from jpeglm.codecs.base import Codec
    from jpeglm.tokenizer import Tokenizer

FORMAT = DATA_FORMAT
SPLITS = ("train", "validation")
"""Token shards store a split as its place here."""
TOKENIZER = "tokenizer"
"""The folder of the tokenizer that made the token shards, inside a prepared folder."""


class Row(NamedTuple):
    """One stream; width and height in pixels of the coded picture, label -1 where there is none."""

    key: str
    stream: bytes
    width: int
    height: int
    label: int
    split: str


class Streams(NamedTuple):
    """Streams in memory: stream i is data[offsets[i] : offsets[i + 1]]."""

    offsets: np.ndarray
    data: np.ndarray
    labels: np.ndarray

    def stream(self, index: int) -> bytes:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.parquet"


def token_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.tokens.safetensors"


def _schema() -> pa.Schema:
    """The columns of a shard, in the order of `Row`."""
    import pyarrow as pa

    kinds = [pa.string(), pa.binary(), pa.int32(), pa.int32(), pa.int32(), pa.string()]
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in zip(Row._fields, kinds)]
    )


def write_shard(path: Path, rows: list[Row], meta: dict[str, Any]) -> None:
    """Write the rows whole or not at all; `meta` holds at least `codec` and `fingerprint`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema().with_metadata({"jpeglm": json.dumps(meta, sort_keys=True)})
    columns = [[row[place] for row in rows] for place in range(len(schema))]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema)], schema=schema)
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        compression={name: "none" if name == "stream" else "zstd" for name in Row._fields},
        use_dictionary=["width", "height", "label", "split"],
        write_statistics=False,
    )
    atomic_write(path, out.getvalue())


def read_meta(path: Path) -> dict[str, Any]:
    """What `write_shard` was given as `meta`; InputError if the file is no shard of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_schema(path).metadata or {}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}; prepare the data again") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no readable Parquet file; delete it and prepare again") from (
            error
        )
    try:
        meta = json.loads(stored[b"jpeglm"])
        if not isinstance(meta["codec"], dict) or not isinstance(meta["fingerprint"], str):
            raise TypeError
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no shard written by jpeglm prepare") from error
    return meta


def read_shard(path: Path, fingerprint: str | None = None) -> pa.Table:
    """The rows of a shard as an Arrow table; another fingerprint than expected is refused."""
    import pyarrow as pa
    import pyarrow.parquet as pq

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
        table = pq.ParquetFile(path).read(use_threads=False)
        # Another tool may have written it again: its wider types hold the same.
        table = table.select(list(Row._fields)).cast(_schema())
    except (OSError, LookupError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged; delete it and prepare again: {told(error)}") from (
            error
        )
    holes = [name for name in Row._fields if table.column(name).null_count]
    strange = set(table.column("split").unique().to_pylist()) - {None, *SPLITS}
    if holes or strange:
        reason = f"the column {holes[0]} has rows without a value" if holes else "unknown splits"
        raise InputError(f"{path} is damaged; delete it and prepare again: {reason}")
    return table


def table_streams(table: pa.Table) -> Streams:
    """Columns `stream` and `label` without a Python object a row."""
    column = table.column("stream").combine_chunks()
    _, places, data = column.buffers()
    if not len(column):
        return Streams(np.zeros(1, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.int32))
    offsets = np.frombuffer(places, np.int32, len(column) + 1, column.offset * 4).astype(np.int64)
    flat = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    return Streams(offsets - offsets[0], flat, table.column("label").to_numpy().astype(np.int32))


class Dataset:
    """A prepared folder. Raises InputError if it is unfinished or not one of ours."""

    prepared = True

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not (self.path / "dataset.json").exists():
            if (self.path / "prepare.json").exists():
                raise InputError(f"{path} is not finished; run the same jpeglm prepare again")
            raise InputError(f"{path} is no prepared folder (it has no dataset.json)")
        self.info = read_json(self.path / "dataset.json")
        if self.info.get("format") != FORMAT:
            raise InputError(f"{self.path / 'dataset.json'} was not written by jpeglm prepare")
        kinds = {"codec": dict, "fingerprint": str, "label_names": list, "shards": int,
                 "streams": dict}  # fmt: skip
        for key, kind in kinds.items():
            if not isinstance(self.info.get(key), kind):
                raise InputError(
                    f"{self.path / 'dataset.json'} says no {key}; run the same jpeglm prepare again"
                )
        self.codec_dict: dict[str, Any] = self.info["codec"]
        self.fingerprint: str = self.info["fingerprint"]
        self.label_names: list[str] = self.info["label_names"]
        self.rejected: list[dict[str, str]] = []

    @cached_property
    def codec(self) -> Codec:
        from jpeglm.codecs import make_codec

        return make_codec(self.codec_dict, self.path)

    @property
    def shards(self) -> list[Path]:
        return [shard_path(self.path, index) for index in range(self.info["shards"])]

    def count(self, split: str | None = None) -> int:
        """Streams of a split, or of all."""
        return sum(n for name, n in self.info["streams"].items() if split in (None, name))

    def tables(self, split: str | None = None) -> Iterator[pa.Table]:
        """One Arrow table a shard, with the rows of the split in their order."""
        import pyarrow.compute as pc

        for path in self.shards:
            table = read_shard(path, self.fingerprint)
            if split is not None:
                table = table.filter(pc.equal(table.column("split"), split))
            yield table

    def streams(self, split: str | None = None) -> Iterator[tuple[str, bytes, int]]:
        """(key, stream, label), shard by shard."""
        for table in self.tables(split):
            for key, stream, label in zip(
                table.column("key"), table.column("stream"), table.column("label")
            ):
                yield key.as_py(), stream.as_py(), label.as_py()

    def load(self, split: str | None = None) -> Streams:
        """All streams of the split in memory."""
        return _joined(table_streams(table) for table in self.tables(split))


class Pictures:
    """Plain pictures or films behind the interface of `Dataset`: whole, coded as they are read.

    The split is that of `prepare` (by content). What cannot be read is listed in `rejected`.
    """

    prepared = False

    def __init__(self, path: Path, codec: Codec, validation: float = 0.05) -> None:
        from jpeglm.data.sources import open_source

        self.path = Path(path)
        self.source = open_source(self.path, films=codec.media == "clip")
        self.codec = codec
        self.validation = validation
        self.codec_dict = codec.to_dict()
        self.fingerprint = codec.fingerprint
        self.label_names = self.source.label_names
        self.rejected: list[dict[str, str]] = []

    def count(self, split: str | None = None) -> int:
        """Streams of a split; reading every picture is the only way to know."""
        return sum(1 for _ in self.streams(split))

    def streams(self, split: str | None = None) -> Iterator[tuple[str, bytes, int]]:
        """(key, stream, label), coded one after the other."""
        from jpeglm.data.sources import Item
        from jpeglm.data.views import side_of, whole_views

        self.rejected = [found._asdict() for found in self.source.rejected]
        for unit in self.source.units:
            for item in unit.read():
                if not isinstance(item, Item):
                    self.rejected.append(item._asdict())
                    continue
                if split not in (None, side_of(item, self.validation)):
                    continue
                try:
                    for key, media in whole_views(item, self.codec):
                        yield key, self.codec.encode(media), item.label
                except InputError as error:
                    self.rejected.append({"name": item.name, "reason": str(error)})

    def load(self, split: str | None = None) -> Streams:
        """All streams of the split in memory."""
        rows = [(stream, label) for _, stream, label in self.streams(split)]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(stream) for stream, _ in rows], out=offsets[1:])
        data = np.frombuffer(b"".join(stream for stream, _ in rows), np.uint8)
        return Streams(offsets, data, np.array([label for _, label in rows], np.int32))


def open_data(
    path: Path, codec: Codec | None = None, like: Path | None = None
) -> Dataset | Pictures:
    """A prepared folder, or pictures that are coded on the fly with `codec`.

    like: the folder that the codec is from, for the words of an error. Raises InputError if the
    folder was prepared with another codec, or if pictures are given and no codec.
    """
    path = Path(path)
    if (path / "dataset.json").exists() or (path / "prepare.json").exists():
        dataset = Dataset(path)
        if codec is not None and codec.fingerprint != dataset.fingerprint:
            changed = other_codec(dataset.codec_dict, codec)
            raise InputError(
                f"{path} was prepared with codec settings of its own ({changed}); "
                f"{_again(dataset, like)}"
            )
        return dataset
    if codec is None:
        if not path.exists():
            raise InputError(f"there is no file or folder {path}")
        raise InputError(f"{path} is not prepared; run jpeglm prepare on it first")
    return Pictures(path, codec)


def other_codec(settings: dict[str, Any], codec: Codec) -> str:
    """In what the codec of these settings is not `codec`; how pictures are fitted decides nothing
    of what streams mean."""
    now = codec.to_dict()
    changed = differences(settings | {"fit": now.get("fit")}, now)
    return changed or "the settings are the same, but the encoder is of another version"


def _again(dataset: Dataset, like: Path | None) -> str:
    """The command that prepares the same pictures as the folder `like` says."""
    from jpeglm.checkpoint import checkpoint_name
    from jpeglm.data.prepare import PrepareConfig

    source, path = Path(dataset.info["source"]["path"]), dataset.path
    if like is None:
        return f"prepare {source} again, with --like and the checkpoint's folder"
    name = checkpoint_name(like)
    if not source.exists():  # the path was another folder's, or the pictures are gone
        return f"prepare its pictures again, with --like {shlex.quote(name)}"
    path = path if path.name else path.resolve()
    usual = PrepareConfig().to_dict()
    given = dataset.info["settings"]
    words = ["jpeglm", "prepare", str(source), f"{path}-like-{Path(name).name}"]
    for option in ("crops", "clips", "validation", "split", "labels", "seed"):
        if given.get(option, usual[option]) != usual[option]:
            words += [f"--{option}", str(given[option])]
    return f"run: {shlex.join([*words, '--like', name])}"


def _joined(parts: Iterable[Streams]) -> Streams:
    parts = list(parts)
    lengths = [np.diff(part.offsets) for part in parts]
    offsets = np.zeros(sum(map(len, lengths)) + 1, np.int64)
    np.cumsum(np.concatenate([*lengths, np.zeros(0, np.int64)]), out=offsets[1:])
    data = np.concatenate([part.data for part in parts] + [np.zeros(0, np.uint8)])
    labels = np.concatenate([part.labels for part in parts] + [np.zeros(0, np.int32)])
    return Streams(offsets, data, labels)


@dataclass(frozen=True)
class TokenShard:
    """Rows as ids: row i is tokens[offsets[i] : offsets[i + 1]], BOS or class first, EOS last."""

    tokens: np.ndarray
    offsets: np.ndarray
    split: np.ndarray
    label: np.ndarray
    stream_bytes: np.ndarray
    tokenizer: str
    fingerprint: str


def tokenize(
    streams: Streams, tokenizer: Tokenizer, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens uint16 flat, offsets int64 [n + 1]) of [BOS or class, ids…, EOS] for each stream."""
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
    parts = []
    for index, label in enumerate(streams.labels.tolist()):
        ids = tokenizer.encode_stream(streams.stream(index))
        first = tokenizer.bos
        if label >= 0 and tokenizer.n_classes:
            first = tokenizer.class_token(label)
        parts.append(np.concatenate([[first], ids, [tokenizer.eos]]).astype(np.uint16))
        offsets[index + 1] = offsets[index] + len(ids) + 2
        if progress and (index % 256 == 255 or index + 1 == len(streams.labels)):
            progress(index + 1, len(streams.labels))
    return np.concatenate([*parts, np.zeros(0, np.uint16)]), offsets


def write_token_shard(path: Path, shard: Path, tokenizer: Tokenizer, fingerprint: str) -> None:
    """The rows of a Parquet shard as a token shard."""
    from safetensors.numpy import save

    table = read_shard(shard, fingerprint)
    streams = table_streams(table)
    tokens, offsets = tokenize(streams, tokenizer)
    split = np.array([SPLITS.index(s) for s in table.column("split").to_pylist()], np.int8)
    arrays = {
        "tokens": tokens,
        "offsets": offsets,
        "split": split,
        "label": streams.labels,
        "stream_bytes": np.diff(streams.offsets).astype(np.int32),
    }
    meta = {"tokenizer": tokenizer.fingerprint, "fingerprint": fingerprint}
    # One key: safetensors writes several in an order that changes from run to run.
    atomic_write(path, save(arrays, {"jpeglm": json.dumps(meta, sort_keys=True)}))


def token_meta(path: Path) -> dict[str, str]:
    """The metadata of a token shard, without reading its tokens."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            stored = file.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}; prepare the tokens again") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no readable token shard; delete it: {error}") from error
    try:
        meta = json.loads(stored["jpeglm"])
        return {"tokenizer": str(meta["tokenizer"]), "fingerprint": str(meta["fingerprint"])}
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} was not written by jpeglm prepare; delete it") from error


def read_token_shard(path: Path) -> TokenShard:
    """A token shard; needs neither pyarrow nor numba."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    meta = token_meta(path)
    try:
        values: dict[str, Any] = {**load(read_bytes(path)), **meta}
        shard = TokenShard(**values)
    except (SafetensorError, TypeError) as error:
        raise InputError(f"{path} is no token shard of this version; delete it: {error}") from error
    if not _sound(shard):
        raise InputError(f"{path} is damaged: its rows do not fit together; delete it")
    return shard


def _sound(shard: TokenShard) -> bool:
    """Whether every row lies inside the tokens and has a split, a label and a size."""
    kinds = [
        (shard.tokens, np.uint16), (shard.offsets, np.int64), (shard.split, np.int8),
        (shard.label, np.int32), (shard.stream_bytes, np.int32),
    ]  # fmt: skip
    if any(array.dtype != kind or array.ndim != 1 for array, kind in kinds):
        return False
    rows = len(shard.offsets) - 1
    if rows < 0 or {len(shard.split), len(shard.label), len(shard.stream_bytes)} != {rows}:
        return False
    ends = shard.offsets[0] == 0 and shard.offsets[-1] == len(shard.tokens)
    known = np.isin(shard.split, range(len(SPLITS))).all()
    return bool(ends and known and (np.diff(shard.offsets) >= 0).all())
