"""One interface to a prepared folder and to plain pictures, which are coded as they are read.

data = open_data(Path("data"))                      prepared: Dataset
data = open_data(Path("photos"), codec)             pictures or films: Pictures
for key, stream, label, text in data.streams("train"): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jpeglm.config import InputError, differences
from jpeglm.data.leftout import tell_left_out
from jpeglm.data.shards import Streams, joined, read_shard, shard_path, table_streams
from jpeglm.data.splits import side_of
from jpeglm.files import read_json
from jpeglm.folders import DATA_FORMAT, argument, quoted, shell

if TYPE_CHECKING:
    import pyarrow as pa

    from jpeglm.codecs.base import Codec

__all__ = ["Dataset", "Pictures", "Stream", "open_data"]


class Stream(NamedTuple):
    """One canonical stream; label -1 and text None where there is none."""

    key: str
    stream: bytes
    label: int
    text: str | None


class Dataset:
    """A prepared folder. Raises InputError if it is unfinished or not one of ours."""

    prepared = True

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not (self.path / "dataset.json").exists():
            if (self.path / "prepare.json").exists():
                raise InputError(f"{path} is not finished; run the same jpeglm prepare again")
            raise InputError(f"{path} is not a prepared folder (it has no dataset.json)")
        self.info = read_json(self.path / "dataset.json")
        if self.info.get("format") != DATA_FORMAT:
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

    def __repr__(self) -> str:
        return f"<Dataset {self.path}: {self.info['streams']}, {self.codec}>"

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

    def streams(self, split: str | None = None) -> Iterator[Stream]:
        """Shard by shard."""
        for table in self.tables(split):
            for row in zip(*(table.column(name) for name in Stream._fields)):
                yield Stream(*(cell.as_py() for cell in row))

    def load(self, split: str | None = None) -> Streams:
        """All streams of the split in memory."""
        return joined(table_streams(table) for table in self.tables(split))


class Pictures:
    """Plain pictures or films behind the interface of `Dataset`: whole, coded as they are read.

    The split is that of `prepare` (by content). What cannot be read is listed in `rejected`,
    and told of once.
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

    def __repr__(self) -> str:
        return f"<Pictures of {self.path}, as {self.codec}>"

    def count(self, split: str | None = None) -> int:
        """Streams of a split; reading every picture is the only way to know."""
        return sum(1 for _ in self.streams(split))

    def streams(self, split: str | None = None) -> Iterator[Stream]:
        """Coded one after the other."""
        from jpeglm.data.crops import whole_of
        from jpeglm.data.sources import Item

        self.rejected = [found._asdict() for found in self.source.rejected]
        try:
            for unit in self.source.units:
                for item in unit.read():
                    if not isinstance(item, Item):
                        self.rejected.append(item._asdict())
                        continue
                    if split not in (None, side_of(item, self.validation)):
                        continue
                    try:
                        for key, media in whole_of(item, self.codec):
                            yield Stream(key, self.codec.encode(media), item.label, item.caption)
                    except InputError as error:
                        self.rejected.append({"name": item.name, "reason": str(error)})
        finally:
            tell_left_out(self.path, ((row["name"], row["reason"]) for row in self.rejected))

    def load(self, split: str | None = None) -> Streams:
        """All streams of the split in memory."""
        rows = list(self.streams(split))
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row.stream) for row in rows], out=offsets[1:])
        data = np.frombuffer(b"".join(row.stream for row in rows), np.uint8)
        labels = np.array([row.label for row in rows], np.int32)
        return Streams(offsets, data, labels, [row.text for row in rows])


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
    from jpeglm.data.settings import PrepareConfig
    from jpeglm.places import checkpoint_name

    source, path = Path(dataset.info["source"]["path"]), dataset.path
    if like is None:
        return f"prepare {source} again, with --like and the checkpoint's folder"
    name = checkpoint_name(like)
    if not source.exists():  # the path was another folder's, or the pictures are gone
        return f"prepare its pictures again, with --like {quoted(name)}"
    path = path if path.name else path.resolve()
    given = dataset.info["settings"]
    words = ["jpeglm", "prepare", argument(source), argument(f"{path}-like-{Path(name).name}")]
    for option in fields(PrepareConfig):
        if given.get(option.name, option.default) != option.default:
            words += [f"--{option.name.replace('_', '-')}", str(given[option.name])]
    return f"run: {' '.join(map(shell, [*words, '--like', str(name)]))}"
