"""A prepared folder as whole files, which any tool opens: plain folders, or WebDataset's tars.

    images        OUT/train/000000017.jpg, OUT/train/metadata.jsonl, OUT/validation/ …
                  load_dataset("imagefolder", data_dir=OUT)
    webdataset    OUT/train-00003.tar with 000000017.jpg, .json and, where there are, .cls and .txt
                  load_dataset("webdataset", data_files={"train": "OUT/train-*.tar"})

The stream of a shard's row is abbreviated, without the tables that all of them share, so other
tools show none of them; here every file has its tables, and the codec's `unwrap` gives the stream
back. One shard is in memory at a time.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jpeglm.config import InputError
from jpeglm.data.open import Dataset
from jpeglm.data.splits import SPLITS
from jpeglm.files import atomic_folder, printable
from jpeglm.folders import check_writable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Written", "export_pictures"]

FORMS = ("images", "webdataset")


@dataclass(frozen=True)
class Written:
    """What an export came to."""

    pictures: dict[str, int]
    """Of each split."""
    files: int
    bytes: int
    """Of the pictures alone."""


class Sample(NamedTuple):
    """A picture with what is known of it."""

    name: str
    file: bytes
    about: dict[str, Any]
    """key, width, height, and where there are any label, label_name and text."""


def export_pictures(
    data: Path, out: Path, form: str, progress: Callable[[int, int], None] | None = None
) -> Written:
    """Write the folder `out`, which is new or empty, whole or not at all; form: of `FORMS`."""
    if form not in FORMS:
        raise InputError(f"the form is {form!r}; choose one of {', '.join(FORMS)}")
    dataset = Dataset(data)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{printable(out)} already holds files; empty it or give another folder")
    check_writable(out)
    write = _write_folder if form == "images" else _write_tar
    counts, files, size, done = dict.fromkeys(SPLITS, 0), 0, 0, 0
    with atomic_folder(out) as draft:
        for number, table in enumerate(dataset.tables()):
            for split in SPLITS:
                samples = list(_samples(dataset, table, split, done))
                counts[split] += len(samples)
                size += sum(len(sample.file) for sample in samples)
                if samples:
                    files += write(draft, split, number, samples, dataset.codec.extension)
            done += len(table)
            if progress:
                progress(done, dataset.count())
    return Written({split: count for split, count in counts.items() if count}, files, size)


def _samples(dataset: Dataset, table: pa.Table, split: str, first: int) -> Iterator[Sample]:
    """Of a shard whose first row is number `first` of all."""
    for place, row in enumerate(table.to_pylist()):
        if row["split"] != split:
            continue
        about = {name: row[name] for name in ("key", "width", "height")}
        if row["label"] >= 0:
            about["label"] = row["label"]
            if row["label"] < len(dataset.label_names):
                about["label_name"] = dataset.label_names[row["label"]]
        if row["text"] is not None:
            about["text"] = row["text"]
        yield Sample(f"{first + place:09d}", dataset.codec.wrap(row["stream"]), about)


def _write_folder(
    draft: Path, split: str, number: int, samples: list[Sample], extension: str
) -> int:
    folder = draft / split
    folder.mkdir(exist_ok=True)
    with open(folder / "metadata.jsonl", "a", encoding="utf-8") as lines:
        for sample in samples:
            name = sample.name + extension
            (folder / name).write_bytes(sample.file)
            row = {"file_name": name, **sample.about}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(samples)


def _write_tar(draft: Path, split: str, number: int, samples: list[Sample], extension: str) -> int:
    with tarfile.open(draft / f"{split}-{number:05d}.tar", "w") as tar:
        for sample in samples:
            parts = {extension: sample.file, ".json": json.dumps(sample.about).encode()}
            if "label" in sample.about:
                parts[".cls"] = str(sample.about["label"]).encode()
            if "text" in sample.about:
                parts[".txt"] = sample.about["text"].encode()
            for suffix, content in parts.items():
                member = tarfile.TarInfo(sample.name + suffix)
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))
    return 1
