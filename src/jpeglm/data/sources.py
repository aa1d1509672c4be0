"""Where pictures and films come from: folders, WebDataset tars, Parquet, saved Hugging Face data.

A source is listed once into units of about `unit_size` pictures, always in the same order, so that
a run that was killed finds the same units again. A unit is small, travels to a worker process and
reads itself there. A folder is walked whole: pictures, tars and Parquet files in it all count.

Trade-off: listing reads every tar header (about 20,000 a second) before the first picture is
coded; in return the number of pictures is known and one big tar keeps all cores busy.

    source = open_source(Path("photos"))
    for unit in source.units:
        for item in unit.read(): ...
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from jpeglm.config import InputError
from jpeglm.files import read_json

# fmt: off
EXTENSIONS = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg",
    ".jpg", ".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".sgi", ".tga", ".tif",
    ".tiff", ".webp",
)
# fmt: on
"""Names of picture files, all opened by Pillow (documents, film and scripts left out)."""

FILMS = (
    ".3gp", ".avi", ".flv", ".h264", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".ogv", ".webm", ".wmv", ".y4m",
)  # fmt: skip
"""Names of film files, opened by FFmpeg."""

TARS = (".tar", ".tar.gz", ".tgz")
LABELS = ("source", "folder", "none")
PREPARED = "prepare.json"
"""A folder with this file is our own output and never a source."""


class Item(NamedTuple):
    """One picture as its file's bytes; `label` is -1 where there is none."""

    key: str
    data: bytes
    label: int
    name: str


class Rejected(NamedTuple):
    """Something that could not be read, and why."""

    name: str
    reason: str


class Unit(Protocol):
    """A share of the source that one worker reads."""

    @property
    def count(self) -> int: ...
    def describe(self) -> tuple[Any, ...]: ...
    def read(self) -> Iterator[Item | Rejected]: ...


@dataclass(frozen=True)
class FileUnit:
    """Picture files; `files` holds (path relative to root, bytes, label)."""

    root: Path
    files: tuple[tuple[str, int, int], ...]

    @property
    def count(self) -> int:
        return len(self.files)

    def describe(self) -> tuple[Any, ...]:
        return ("files", self.files)

    def read(self) -> Iterator[Item | Rejected]:
        for key, _, label in self.files:
            path = self.root / key
            try:
                data = path.read_bytes()
            except OSError as error:
                yield Rejected(str(path), error.strerror or str(error))
            else:
                yield Item(key, data, label, str(path))


@dataclass(frozen=True)
class Member:
    """A picture inside a tar: byte ranges of its data and of its `.cls` file (-1: none)."""

    name: str
    offset: int
    size: int
    label_offset: int
    label_size: int


@dataclass(frozen=True)
class TarUnit:
    """Consecutive pictures of one tar; a compressed tar is a single unit, read in one pass."""

    root: Path
    file: str
    members: tuple[Member, ...]
    compressed: bool

    @property
    def count(self) -> int:
        return len(self.members)

    def describe(self) -> tuple[Any, ...]:
        return ("tar", self.file, tuple((m.name, m.offset, m.size) for m in self.members))

    def read(self) -> Iterator[Item | Rejected]:
        path = self.root / self.file
        try:
            # A compressed tar's fileobj counts decompressed bytes, as the offsets do.
            with tarfile.open(path) as tar:
                for member in self.members:
                    yield self._item(tar.fileobj, member)
        except (OSError, EOFError, tarfile.TarError) as error:
            yield Rejected(str(path), f"the tar cannot be read: {error}")

    def _item(self, file: Any, member: Member) -> Item | Rejected:
        name = f"{self.root / self.file}:{member.name}"
        places = {"data": (member.offset, member.size)}
        if member.label_offset >= 0:
            places["label"] = (member.label_offset, member.label_size)
        parts: dict[str, bytes] = {}
        # In the order of the file: going back in a compressed tar starts it again.
        for part, (offset, size) in sorted(places.items(), key=lambda place: place[1]):
            file.seek(offset)
            parts[part] = file.read(size)
        data, text = parts["data"], parts.get("label", b"-1")
        try:
            label = int(text)
        except ValueError:
            return Rejected(
                name, f"its .cls file holds {text[:20]!r}, no number; use --labels none"
            )
        if len(data) < member.size:
            return Rejected(name, "the tar ends inside this picture")
        return Item(f"{self.file}/{member.name}", data, label, name)


@dataclass(frozen=True)
class RowUnit:
    """Rows [first, first + count) of a Parquet file or of an Arrow file."""

    root: Path
    file: str
    size: int
    image: str
    label: str | None
    first: int
    count: int

    def describe(self) -> tuple[Any, ...]:
        return ("rows", self.file, self.size, self.image, self.label, self.first, self.count)

    def read(self) -> Iterator[Item | Rejected]:
        import pyarrow as pa

        path = self.root / self.file
        batches = _parquet_batches if path.suffix == ".parquet" else _arrow_batches
        try:
            for first, batch in batches(path, self):
                for index in range(batch.num_rows):
                    row = first + index
                    if self.first <= row < self.first + self.count:
                        yield self._item(path, batch, index, row)
        except (OSError, pa.ArrowException) as error:
            yield Rejected(str(path), f"rows from {self.first} on cannot be read: {error}")

    def _item(self, path: Path, batch: Any, index: int, row: int) -> Item | Rejected:
        name = f"{path}:{row}"
        value = batch.column(self.image)[index].as_py()
        if isinstance(value, dict):
            data = value.get("bytes")
            if data is None and value.get("path"):
                try:
                    data = (path.parent / value["path"]).read_bytes()
                except OSError as error:
                    return Rejected(name, f"{value['path']}: {error.strerror or error}")
        else:
            data = value
        if not data:
            return Rejected(name, "the row holds no picture")
        label = batch.column(self.label)[index].as_py() if self.label else None
        return Item(f"{self.file}:{row}", data, -1 if label is None else int(label), name)


def _parquet_batches(path: Path, unit: RowUnit) -> Iterator[tuple[int, Any]]:
    """(number of its first row, record batch) of the row groups that overlap the unit."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        start, base = 0, 0
        groups: list[int] = []
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if start + rows > unit.first and start < unit.first + unit.count:
                if not groups:
                    base = start
                groups.append(group)
            start += rows
        columns = [unit.image] + ([unit.label] if unit.label else [])
        for batch in file.iter_batches(64, groups, columns, use_threads=False):
            if base >= unit.first + unit.count:
                return
            yield base, batch
            base += batch.num_rows


def _arrow_batches(path: Path, unit: RowUnit) -> Iterator[tuple[int, Any]]:
    """The same for an Arrow file; rows outside the unit stay on the disk (memory map)."""
    start = 0
    for batch in _arrow_reader(path):
        if start >= unit.first + unit.count:
            return
        if start + batch.num_rows > unit.first:
            yield start, batch
        start += batch.num_rows


def _arrow_reader(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        yield from pa.ipc.open_stream(file)


@dataclass
class Source:
    """A listed source; `rejected` holds whole files that could not even be listed."""

    root: Path
    units: list[Unit] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    label_names: list[str] = field(default_factory=list)
    films: bool = False

    @property
    def extensions(self) -> tuple[str, ...]:
        """Names that count."""
        return EXTENSIONS + FILMS if self.films else EXTENSIONS

    @property
    def count(self) -> int:
        """Pictures, readable or not."""
        return sum(unit.count for unit in self.units)

    @property
    def digest(self) -> str:
        """16 hex digits over names and sizes of all pictures, wherever the source lies."""
        digest = hashlib.sha256()
        for unit in self.units:
            digest.update(repr(unit.describe()).encode())
        return digest.hexdigest()[:16]


def open_source(
    path: Path, *, unit_size: int = 256, labels: str = "source", films: bool = False
) -> Source:
    """List the pictures of `path`: a folder, a picture, a tar, a Parquet file, a saved dataset.

    `films` takes films as well as pictures (a camera pans over those), and in a unit an eighth as
    many: a film is many streams.

    `labels`: `source` takes what the data carry (`.cls` files, an integer column `label`),
    `folder` numbers the first-level folders by name, `none` takes no labels.
    Raises InputError if nothing is there or no picture is found.
    """
    path = Path(path)
    if labels not in LABELS:
        raise InputError(f"labels is {labels!r}; choose one of {', '.join(LABELS)}")
    if unit_size < 1:
        raise InputError(f"unit_size is {unit_size}; it must be at least 1")
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    if path.is_dir():
        if (path / PREPARED).exists():
            raise InputError(f"{path} is already prepared; give the folder of the pictures instead")
        source = Source(path, films=films)
        files = list(_walk(path))
    else:
        source = Source(path.parent, films=films)
        files = [(path.name, path.stat().st_size)]
    if films:
        unit_size = max(1, unit_size // 8)
    pictures = [entry for entry in files if _has(entry[0], source.extensions)]
    _list_pictures(source, pictures, unit_size, labels)
    listers: list[tuple[tuple[str, ...], Callable[..., None]]] = [
        (TARS, _list_tar),
        ((".parquet",), _list_parquet),
        ((".arrow",), partial(_list_arrow, saved=_saved_datasets(source.root, files))),
    ]
    for suffixes, lister in listers:
        for name, size in files:
            if _has(name, suffixes):
                lister(source, name, size, unit_size, labels)
    if not source.count:
        found = "; ".join(f"{name}: {reason}" for name, reason in source.rejected[:3])
        needed = "it must hold pictures, .tar or .parquet files or a saved Hugging Face dataset"
        if films:
            needed = needed.replace("hold pictures", "hold films or pictures")
        what = "film or picture" if films else "picture"
        raise InputError(f"no {what} found in {path}; {found or needed}")
    return source


def _has(name: str, suffixes: list[str] | tuple[str, ...]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """(relative path, bytes) of all files below root in the order of their names.

    Hidden names and our own output are passed over; links are followed, each folder once.
    """
    seen: set[tuple[int, int]] = set()

    def visit(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        if any(entry.name == PREPARED for entry in entries):
            return
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from visit(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield prefix + entry.name, entry.stat().st_size

    try:
        yield from visit(str(root), "")
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error


def _list_pictures(
    source: Source, pictures: list[tuple[str, int]], unit_size: int, labels: str
) -> None:
    numbers: dict[str, int] = {}
    if labels == "folder":
        names = sorted({name.split("/")[0] for name, _ in pictures if "/" in name})
        if not names:
            raise InputError(
                f"--labels folder needs pictures in one folder for each class below {source.root}"
            )
        source.label_names = names
        numbers = {name: number for number, name in enumerate(names)}
    listed = [
        (name, size, numbers.get(name.split("/")[0], -1) if "/" in name else -1)
        for name, size in pictures
    ]
    for start in range(0, len(listed), unit_size):
        source.units.append(FileUnit(source.root, tuple(listed[start : start + unit_size])))


def _list_tar(source: Source, name: str, size: int, unit_size: int, labels: str) -> None:
    """Pictures of a tar, grouped by the name up to its first dot (WebDataset's convention).

    In a group with `a.jpg` and `a.seg.png` only the plain extension is the picture.
    """
    path = source.root / name
    groups: dict[str, list[tarfile.TarInfo]] = {}
    classes: dict[str, tarfile.TarInfo] = {}
    compressed = False
    try:
        with tarfile.open(path) as tar:
            compressed = not isinstance(tar.fileobj, io.BufferedReader)
            for info in tar:
                base = PurePosixPath(info.name).name
                if not info.isfile() or base.startswith("."):
                    continue
                stem = info.name[: len(info.name) - len(base)] + base.split(".")[0]
                if _has(base, source.extensions):
                    groups.setdefault(stem, []).append(info)
                elif base.lower().endswith(".cls") and labels == "source":
                    classes[stem] = info
            if not compressed:  # tarfile takes a header that is cut or garbled for the end
                assert tar.fileobj is not None
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                    reason = f"the tar breaks off at byte {tar.offset}"
                    source.rejected.append(Rejected(str(path), reason))
    except (OSError, EOFError, tarfile.TarError) as error:
        source.rejected.append(Rejected(str(path), f"the tar is damaged: {error}"))
    members = []
    for stem, infos in groups.items():
        plain = [info for info in infos if PurePosixPath(info.name).name.count(".") == 1]
        label = classes.get(stem)
        for info in plain or infos:
            members.append(
                Member(
                    info.name,
                    info.offset_data,
                    info.size,
                    label.offset_data if label else -1,
                    label.size if label else 0,
                )
            )
    step = max(1, len(members)) if compressed else unit_size
    for start in range(0, len(members), step):
        chosen = tuple(members[start : start + step])
        source.units.append(TarUnit(source.root, name, chosen, compressed))


def _list_parquet(source: Source, name: str, size: int, unit_size: int, labels: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = source.root / name
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        source.rejected.append(Rejected(str(path), f"no readable Parquet file: {error}"))
        return
    stored = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(stored).get("info", {}).get("features", {})
    # A slice of a row group decodes what lies before it: at most 16 slices of one.
    step = max([unit_size] + [-(-group // 16) for group in groups])
    _add_rows(source, name, size, schema, features, rows, step, labels)


def _saved_datasets(root: Path, files: list[tuple[str, int]]) -> dict[str, dict[str, Any]]:
    """By folder that `Dataset.save_to_disk` wrote: its features, its data files."""
    found = {}
    for name, _ in files:
        folder, _, base = name.rpartition("/")
        if base == "state.json" and (root / folder / "dataset_info.json").exists():
            state = read_json(root / folder / "state.json")
            info = read_json(root / folder / "dataset_info.json")
            parts = {part["filename"] for part in state.get("_data_files") or []}
            found[folder] = {"features": info.get("features") or {}, "files": parts}
    return found


def _list_arrow(
    source: Source,
    name: str,
    size: int,
    unit_size: int,
    labels: str,
    saved: dict[str, dict[str, Any]],
) -> None:
    import pyarrow as pa

    path = source.root / name
    dataset = saved.get(name.rpartition("/")[0], {})
    if dataset and path.name not in dataset["files"]:
        return  # left there by a cache
    try:
        with pa.memory_map(str(path)) as file:
            schema = pa.ipc.open_stream(file).schema
        rows = sum(batch.num_rows for batch in _arrow_reader(path))
    except (OSError, pa.ArrowException) as error:
        source.rejected.append(Rejected(str(path), f"no readable Arrow stream: {error}"))
        return
    features = dataset.get("features", {})
    _add_rows(source, name, size, schema, features, rows, unit_size, labels)


def _add_rows(
    source: Source,
    name: str,
    size: int,
    schema: Any,
    features: dict[str, Any],
    rows: int,
    step: int,
    labels: str,
) -> None:
    path = source.root / name
    image = _image_column(path, schema, features, source.films)
    label = None
    if labels == "source" and "label" in schema.names:
        import pyarrow as pa

        if not pa.types.is_integer(schema.field("label").type):
            raise InputError(
                f"the column label of {path} holds {schema.field('label').type}, integers are "
                "needed; use --labels none to leave it out"
            )
        label = "label"
        feature = features.get("label")
        if isinstance(feature, dict) and feature.get("names") and not source.label_names:
            source.label_names = list(feature["names"])
    for first in range(0, rows, step):
        count = min(step, rows - first)
        source.units.append(RowUnit(source.root, name, size, image, label, first, count))


def _image_column(path: Path, schema: Any, features: dict[str, Any], films: bool) -> str:
    """The column that Hugging Face calls Image or Video, else a struct with bytes, else a binary
    one."""
    import pyarrow as pa

    kinds = {
        feature["_type"]: name
        for name, feature in reversed(features.items())
        if isinstance(feature, dict) and "_type" in feature and name in schema.names
    }
    for kind in ("Video", "Image") if films else ("Image",):
        if kind in kinds:
            return kinds[kind]
    binary = []
    for column in schema:
        kind = column.type
        if pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(len(kind))]:
            return column.name
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            binary.append(column.name)
    usual = ("image", "img", "picture", "jpg", "png", "video", "mp4", "bytes")
    named = [name for name in binary if name in usual]
    if len(binary) == 1 or named:
        return (named or binary)[0]
    raise InputError(
        f"{path} has no column of pictures (a struct with bytes, or one binary column); its "
        f"columns are {', '.join(schema.names)}"
    )
