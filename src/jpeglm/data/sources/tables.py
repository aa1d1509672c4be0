"""Pictures in tables: Parquet and Arrow files, and what Hugging Face's `datasets` saves.

What a file's own schema says suffices. The metadata that `datasets` leaves beside it (which columns
are pictures, the names of classes) is used where it can be read and otherwise ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jpeglm.config import InputError
from jpeglm.data.parquet import parquet
from jpeglm.data.sources.base import Item, Rejected, Source, read_label, size_limit
from jpeglm.data.sources.captions import columns, read_caption
from jpeglm.files import printable, read_bytes, read_json, told
from jpeglm.remote import Unreachable, below, is_remote, opened

PICTURES = ("image", "img", "picture", "jpg", "png", "video", "mp4", "bytes")
"""Names of binary columns that hold pictures, where a table has several binary columns."""


@dataclass(frozen=True)
class RowUnit:
    """Rows [first, first + count) of a Parquet file or of an Arrow file; `split` as in `Item`."""

    root: Path
    file: str
    size: int
    image: str
    label: str | None
    first: int
    count: int
    split: str | None = None
    caption: str | None = None

    def describe(self) -> tuple[Any, ...]:
        split = (self.split,) if self.split else ()
        caption = (("caption", self.caption),) if self.caption else ()
        return (
            "rows",
            self.file,
            self.size,
            self.image,
            self.label,
            self.first,
            self.count,
            *split,
            *caption,
        )

    def item_keys(self) -> Iterator[str]:
        return (self._key(row) for row in range(self.first, self.first + self.count))

    def _key(self, row: int) -> str:
        return printable(f"{self.file}:{row}")

    def read(self) -> Iterator[Item | Rejected]:
        path = below(self.root, self.file)
        batches = _parquet_batches if path.suffix.lower() == ".parquet" else _arrow_batches
        row, end = self.first, self.first + self.count
        try:
            for first, batch in batches(path, self):
                for index in range(max(0, row - first), min(batch.num_rows, end - first)):
                    yield self._item(path, batch, index, first + index)
                    row = first + index + 1
            if row < end:  # a damaged footer counts more than the column holds
                raise InputError("the file ends before them")
        except Unreachable:
            raise
        except Exception as error:  # pyarrow's, and those of values that no Python object holds
            reason = f"rows {row} to {end - 1} cannot be read: {told(error)}"
            yield Rejected(printable(path), reason)

    def _item(self, path: Path, batch: Any, index: int, row: int) -> Item | Rejected:
        name = printable(f"{path}:{row}")
        try:
            data = _picture(batch.column(self.image)[index], path.parent)
        except Unreachable:
            raise
        except InputError as error:
            return Rejected(name, str(error))
        if not data:
            return Rejected(name, "the row holds no picture")
        try:
            label = read_label(batch.column(self.label)[index].as_py() if self.label else None)
            caption = _text(batch.column(self.caption)[index]) if self.caption else None
        except ValueError as error:
            return Rejected(name, str(error))
        return Item(self._key(row), data, label, name, self.split, caption)


def _picture(cell: Any, folder: Path) -> bytes | None:
    """The picture of one cell: bytes, or a struct of bytes and of the path where they lie."""
    import pyarrow as pa

    if not cell.is_valid or not pa.types.is_struct(cell.type):
        plain: bytes | None = cell.as_py()
        return plain
    names = [part.name for part in cell.type]
    data: bytes | None = cell["bytes"].as_py()
    if data or "path" not in names or not cell["path"].is_valid:
        return data
    # The bytes of a path: it need not be UTF-8, which Arrow does not check.
    name = os.fsdecode(cell["path"].as_buffer().to_pybytes())
    return read_bytes(below(folder, name), size_limit(name)) if name else None


def _text(cell: Any) -> str | None:
    """The caption of one cell; ValueError says what is wrong. Arrow does not check its UTF-8."""
    import pyarrow as pa

    if pa.types.is_dictionary(cell.type):
        cell = cell.value
    return read_caption(cell.as_buffer().to_pybytes() if cell.is_valid else None)


def _parquet_batches(path: Path, unit: RowUnit) -> Iterator[tuple[int, Any]]:
    """(number of its first row, record batch) of the row groups that overlap the unit."""
    with parquet(path) as file:
        start, base = 0, 0
        groups: list[int] = []
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if start + rows > unit.first and start < unit.first + unit.count:
                if not groups:
                    base = start
                groups.append(group)
            start += rows
        wanted = [name for name in (unit.image, unit.label, unit.caption) if name]
        for batch in file.iter_batches(64, groups, wanted, use_threads=False):
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

    with _arrow(path) as file:
        yield from pa.ipc.open_stream(file)


def _arrow(path: Path) -> Any:
    """An Arrow file, mapped where it lies on this machine."""
    import pyarrow as pa

    return pa.PythonFile(opened(path)) if is_remote(path) else pa.memory_map(str(path))


def list_parquet(source: Source, name: str, size: int, unit_size: int) -> None:
    """Units of the rows of a Parquet file."""
    path = below(source.root, name)
    try:
        with parquet(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    except Unreachable:
        raise
    except Exception as error:  # whatever a damaged footer makes pyarrow say
        _refuse(source, name, f"no readable Parquet file: {told(error)}")
        return
    # A slice of a row group decodes what lies before it: at most 16 slices of one.
    step = max([unit_size] + [-(-group // 16) for group in groups])
    _add_rows(source, name, size, schema, _stored_features(schema), rows, step)


def _refuse(source: Source, name: str, reason: str) -> None:
    source.rejected.append(Rejected(printable(below(source.root, name)), reason))


def _stored_features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` calls the features, from a file's own metadata."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return _features(stored["info"]["features"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}


def _features(value: Any) -> dict[str, dict[str, Any]]:
    """Those that are features, of what should be a dictionary of them."""
    if not isinstance(value, dict):
        return {}
    return {name: feature for name, feature in value.items() if isinstance(feature, dict)}


@dataclass
class Saved:
    """What `save_to_disk` wrote: by folder its features and data files; folders that are splits."""

    features: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, set[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)

    def owns(self, name: str) -> bool:
        """Whether a file describes the data and was read."""
        folder, _, base = name.rpartition("/")
        if base == "dataset_dict.json":
            return any(split.rpartition("/")[0] == folder for split in self.splits)
        return folder in self.features and base in ("state.json", "dataset_info.json")


def saved_datasets(source: Source, files: list[tuple[str, int]]) -> Saved:
    """The saved datasets among these files. In a `DatasetDict` the rows of `train` are for
    training, those of all other splits for validation."""
    saved = Saved()
    names = {name for name, _ in files}
    for name in sorted(names):
        folder, slash, base = name.rpartition("/")
        try:
            if base == "state.json" and f"{folder}{slash}dataset_info.json" in names:
                info = read_json(below(source.root, f"{folder}{slash}dataset_info.json"))
                saved.features[folder] = _features(info.get("features"))
                parts = read_json(below(source.root, name))["_data_files"]
                saved.files[folder] = {str(part["filename"]) for part in parts}
            elif base == "dataset_dict.json":
                for split in read_json(below(source.root, name))["splits"]:
                    side = "train" if str(split).startswith("train") else "validation"
                    saved.splits[f"{folder}{slash}{split}"] = side
        except Unreachable:
            raise
        except (InputError, LookupError, TypeError) as error:
            reason = told(error) if isinstance(error, InputError) else "no file of datasets' form"
            _refuse(source, name, f"{reason}; the data are read without it")
    return saved


def list_arrow(source: Source, name: str, size: int, unit_size: int, saved: Saved) -> None:
    """Units of the rows of an Arrow file; what `datasets` keeps as a cache is passed over."""
    import pyarrow as pa

    path = below(source.root, name)
    folder, _, base = name.rpartition("/")
    if (folder in saved.files and base not in saved.files[folder]) or base.startswith("cache-"):
        source.passed[".arrow"] += 1
        return
    try:
        with _arrow(path) as file:
            schema = pa.ipc.open_stream(file).schema
        rows = sum(batch.num_rows for batch in _arrow_reader(path))
    except Unreachable:
        raise
    except Exception as error:  # whatever a damaged file makes pyarrow say
        _refuse(source, name, f"no readable Arrow stream: {told(error)}")
        return
    features = saved.features.get(folder) or _stored_features(schema)
    split = saved.splits.get(folder)
    if split is not None:
        source.splits[printable(folder)] = split
    _add_rows(source, name, size, schema, features, rows, unit_size, split)


def _add_rows(
    source: Source,
    name: str,
    size: int,
    schema: Any,
    features: dict[str, dict[str, Any]],
    rows: int,
    step: int,
    split: str | None = None,
) -> None:
    try:
        path = printable(below(source.root, name))
        image = _image_column(source, path, schema, features)
        label = _label_column(source, path, schema, features)
        caption = _caption_column(source, path, schema, image)
    except (InputError, UnicodeDecodeError) as error:  # a column's name may be no UTF-8
        _refuse(source, name, told(error))
        return
    for first in range(0, rows, step):
        count = min(step, rows - first)
        source.units.append(
            RowUnit(source.root, name, size, image, label, first, count, split, caption)
        )


def _plain(kind: Any) -> Any:
    """The type of a column's values."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _caption_column(source: Source, path: str, schema: Any, image: str) -> str | None:
    """The column of captions: the one that is asked for, else `caption` or `text` if it is there
    and holds text."""
    import pyarrow as pa

    kinds = ("is_string", "is_large_string", "is_string_view")
    tests = [getattr(pa.types, name) for name in kinds if hasattr(pa.types, name)]
    for name in columns(source):
        if name not in schema.names or name == image:
            continue
        once = schema.names.count(name) == 1
        if once and any(test(_plain(schema.field(name).type)) for test in tests):
            source.caption_from[f"column {name}"] += 1
            return name
        source.passed[f"column {name}"] += 1
    if source.caption_column is not None and source.caption == "source":
        raise InputError(
            f"{path} has no column {source.caption_column} of text; its columns are "
            f"{', '.join(map(printable, schema.names))}"
        )
    return None


def _label_column(
    source: Source, path: str, schema: Any, features: dict[str, dict[str, Any]]
) -> str | None:
    import pyarrow as pa

    if source.labels != "source" or schema.names.count("label") != 1:
        return None
    kind = _plain(schema.field("label").type)
    if pa.types.is_null(kind):
        return None
    if not pa.types.is_integer(kind) and not pa.types.is_floating(kind):
        raise InputError(
            f"the column label of {path} holds {kind}, whole numbers are needed; use --labels "
            "none to leave it out"
        )
    names = features.get("label", {}).get("names")
    if isinstance(names, list) and names:
        names = [str(name) for name in names]
        if source.label_names not in ([], names):
            raise InputError(
                f"the classes of {path} have other names than those of the files before; prepare "
                "it apart, or use --labels none"
            )
        source.label_names = names
    return "label"


def _image_column(
    source: Source, path: str, schema: Any, features: dict[str, dict[str, Any]]
) -> str:
    """The column of pictures: the one that is asked for, else of those that Hugging Face calls
    Image or Video, else of structs with bytes, else of binary ones the column `image` or the only
    one."""
    import pyarrow as pa

    def of(kind: str) -> list[str]:
        named = [name for name, feature in features.items() if feature.get("_type") == kind]
        return [name for name in named if name in schema.names]

    structs, binary = [], []
    for column in schema:
        kind = _plain(column.type)
        if pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(len(kind))]:
            structs.append(column.name)
        if any(test(kind) for test in _binary_tests()):
            binary.append(column.name)
    usual = [name for name in binary if name in PICTURES]
    held = f"its columns are {', '.join(map(printable, schema.names))}"
    if source.column is not None:
        if source.column in structs + binary and schema.names.count(source.column) == 1:
            return source.column
        raise InputError(f"{path} has no column {source.column} of pictures; {held}")
    videos = of("Video") if source.films else []
    for found in (videos, of("Image"), structs, binary if len(binary) == 1 else usual):
        found = [name for name in found if name in structs + binary]
        if len(found) == 1 or "image" in found:
            chosen = found[0] if len(found) == 1 else "image"
            others = binary if chosen in binary else found
            source.passed.update(f"column {name}" for name in others if name != chosen)
            return chosen
        if found:
            raise InputError(
                f"{path} has several columns of pictures ({', '.join(found)}); choose one with "
                "--column"
            )
    raise InputError(
        f"{path} has no column of pictures (a struct with bytes, or one binary column); {held}"
    )


def _binary_tests() -> list[Any]:
    import pyarrow as pa

    tests = ("is_binary", "is_large_binary", "is_binary_view")
    return [getattr(pa.types, name) for name in tests if hasattr(pa.types, name)]
