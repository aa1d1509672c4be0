"""What every source gives: items and rejected ones, in units of work that read themselves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from jpeglm.codecs.images import MAX_BYTES
from jpeglm.files import printable

# fmt: off
EXTENSIONS = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif",
    ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi",
    ".sgi", ".tga", ".tif", ".tiff", ".webp",
)
# fmt: on
"""Names of picture files, all opened by Pillow (documents, film and scripts left out)."""

HEIF = (".heic", ".heif", ".hif")
"""Of phones' photos; Pillow opens them with the extra `heif`."""

FILMS = (
    ".3gp", ".avi", ".flv", ".h264", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".ogv", ".webm", ".wmv", ".y4m",
)  # fmt: skip
"""Names of film files, opened by FFmpeg."""

TARS = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst",
)  # fmt: skip
"""Names of tar archives."""

TABLES = (".parquet", ".arrow")
"""Names of files with tables."""

MAX_FILM_BYTES = 1 << 32
"""A film is read into memory whole; larger ones are set aside."""
LABELS = ("source", "folder", "none")
CAPTIONS = ("source", "names", "none")
MAX_LABEL = 2**31 - 1
"""Shards hold labels as int32."""
HIDDEN = "hidden"
"""What pictures with hidden names are counted under."""
PREPARED = "prepare.json"
"""A folder with this file is our own output and never a source."""


class Item(NamedTuple):
    """One picture as its file's bytes; `label` is -1 where there is none; `split` is train or
    validation where the source itself says it; `caption` says what it shows. Key and name are text,
    whatever bytes the file's name is made of."""

    key: str
    data: bytes
    label: int
    name: str
    split: str | None = None
    caption: str | None = None


class Rejected(NamedTuple):
    """Something that could not be read, and why."""

    name: str
    reason: str


class Unit(Protocol):
    """A share of the source that one worker reads; `item_keys` are those of its items, readable
    or not."""

    @property
    def count(self) -> int: ...
    def describe(self) -> tuple[Any, ...]: ...
    def item_keys(self) -> Iterator[str]: ...
    def read(self) -> Iterator[Item | Rejected]: ...


@dataclass
class Source:
    """A listed source; `rejected` holds what could not even be listed, `passed` how many files of
    each other kind were passed over; `splits`, of data that are split, where each of them goes."""

    root: Path
    labels: str = "source"
    films: bool = False
    column: str | None = None
    caption: str = "source"
    caption_column: str | None = None
    caption_from: Counter[str] = field(default_factory=Counter)
    """Where captions were found."""
    units: list[Unit] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    label_names: list[str] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)

    @property
    def extensions(self) -> tuple[str, ...]:
        """Names that count."""
        return (*(FILMS if self.films else ()), *EXTENSIONS, *HEIF)

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


def has(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def extension(name: str) -> str:
    """What a file that is passed over is counted under."""
    return printable(PurePosixPath(name).suffix.lower()) or "without extension"


def size_limit(name: str) -> int:
    """Bytes that a file of this name may have."""
    return MAX_FILM_BYTES if has(name, FILMS) else MAX_BYTES


def read_label(value: Any) -> int:
    """A label as the data carry it, as a number; -1 for none. ValueError says what is wrong."""
    if value is None or value != value:  # no number: how a table of floats says that it has none
        return -1
    try:
        label = int(value)
        whole = not isinstance(value, float) or label == value
    except (ValueError, TypeError, OverflowError):
        whole = False
    if not whole or not -1 <= label <= MAX_LABEL:
        shown = repr(value)[:40]
        raise ValueError(
            f"its label is {shown}, no whole number from 0 to {MAX_LABEL}; use --labels none"
        )
    return label
