"""A tree of picture files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jpeglm.config import InputError
from jpeglm.data.sources.base import (
    HIDDEN,
    PREPARED,
    TABLES,
    TARS,
    Item,
    Rejected,
    Source,
    extension,
    has,
    size_limit,
)
from jpeglm.data.sources.captions import (
    ALONE,
    METADATA,
    columns,
    list_metadata,
    name_caption,
    read_caption,
)
from jpeglm.files import printable, read_bytes
from jpeglm.remote import CHAIN, Unreachable, below, is_remote, listed


@dataclass(frozen=True)
class FileUnit:
    """Picture files; `files` holds (path relative to root, bytes, label), `captions` those that
    there are, by path."""

    root: Path
    files: tuple[tuple[str, int, int], ...]
    captions: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        return len(self.files)

    def describe(self) -> tuple[Any, ...]:
        return ("files", self.files, *((self.captions,) if self.captions else ()))

    def item_keys(self) -> Iterator[str]:
        return (printable(key) for key, _, _ in self.files)

    def read(self) -> Iterator[Item | Rejected]:
        captions = dict(self.captions)
        for key, _, label in self.files:
            path = below(self.root, key)
            try:
                data = read_bytes(path, size_limit(key))
                caption = read_caption(captions.get(key))
            except Unreachable:
                raise
            except (InputError, ValueError) as error:
                yield Rejected(printable(path), str(error))
            else:
                yield Item(printable(key), data, label, printable(path), caption=caption)


def walk(source: Source) -> Iterator[tuple[str, int]]:
    """(relative path, bytes) of all files below the root in the order of their names.

    Hidden names, of which pictures are counted, and our own output are passed over; links are
    followed, each folder once. What bears the name of something that is read and is no file, and
    folders that cannot be read, go to `rejected`.
    """
    if is_remote(source.root):
        return _walk_elsewhere(source)
    wanted = (*source.extensions, *TARS, *TABLES)
    described = {METADATA} if columns(source) else set()
    seen: set[tuple[int, int]] = set()

    def refuse(path: str, reason: str) -> None:
        source.rejected.append(Rejected(printable(path), reason))

    def visit(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            status = os.stat(folder)
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise InputError(f"cannot read {printable(folder)}: {error.strerror}") from error
            refuse(folder, f"the folder cannot be read: {error.strerror}")
            return
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        if any(entry.name == PREPARED for entry in entries):
            return
        for entry in entries:
            try:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    if has(entry.name, source.extensions) and not entry.is_dir():
                        source.passed[HIDDEN] += 1
                elif entry.is_dir():
                    yield from visit(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file():
                    yield prefix + entry.name, entry.stat().st_size
                elif has(entry.name, wanted) or entry.name in described:
                    refuse(entry.path, "it is a pipe, a device or a link to nothing")
                else:
                    source.passed[extension(entry.name)] += 1
            except OSError as error:
                refuse(entry.path, error.strerror or str(error))

    return visit(str(source.root), "")


def _walk_elsewhere(source: Source) -> Iterator[tuple[str, int]]:
    """The same of a store, which has no folders but names with slashes, no links and no pipes; in
    the order that a walk through folders has."""
    found = sorted(listed(source.root), key=lambda file: file[0].split("/"))
    ours = {name.removesuffix(PREPARED) for name, _ in found
            if name.rpartition("/")[2] == PREPARED}  # fmt: skip
    for name, size in found:
        parts = name.split("/")
        folders = ["/".join([*parts[:depth], ""]) for depth in range(len(parts))]
        if any(folder in ours for folder in folders):
            continue
        hidden = [part.startswith(".") or part == "__MACOSX" for part in parts]
        if CHAIN in name:
            refused = f"{CHAIN} in its name joins addresses; rename it"
            source.rejected.append(Rejected(printable(f"{source.root}/{name}"), refused))
        elif not any(hidden):
            yield name, size
        elif not any(hidden[:-1]) and has(name, source.extensions):
            source.passed[HIDDEN] += 1


def list_pictures(source: Source, files: list[tuple[str, int]], unit_size: int) -> None:
    """Units of the picture files among these (relative path, bytes)."""
    pictures = [file for file in files if has(file[0], source.extensions)]
    numbers: dict[str, int] = {}
    if source.labels == "folder":
        names = sorted({name.split("/")[0] for name, _ in pictures if "/" in name})
        if not names:
            raise InputError(
                "--labels folder needs pictures in one folder for each class below "
                f"{printable(source.root)}"
            )
        source.label_names = [printable(name) for name in names]
        numbers = {name: number for number, name in enumerate(names)}
    listed = [
        (name, size, numbers.get(name.split("/")[0], -1) if "/" in name else -1)
        for name, size in pictures
    ]
    captions = list_metadata(source, [name for name, _ in files])
    if source.caption == "names" and listed:
        captions = {name: name_caption(name) for name, _, _ in listed}
        source.caption_from["names of files"] += len(captions)
    nobody = len(captions.keys() - {name for name, _, _ in listed})
    source.passed.update({ALONE: nobody} if nobody else {})
    for start in range(0, len(listed), unit_size):
        part = tuple(listed[start : start + unit_size])
        own = tuple((name, captions[name]) for name, _, _ in part if name in captions)
        source.units.append(FileUnit(source.root, part, own))
