"""Where pictures and films come from: folders, WebDataset tars, Parquet, saved Hugging Face data.

    base.py      what every source gives: items, rejected ones, units of work, names that count
    captions.py  where captions are looked for, and what counts as one
    folders.py   a tree of files
    tars.py      WebDataset tars: archives.py reads their members, samples.py tells what they mean
    tables.py    Parquet and Arrow files, datasets saved by Hugging Face

A source is listed once into units of about `unit_size` pictures, always in the same order, so that
a run that was killed finds the same units again. A unit is small, travels to a worker process and
reads itself there. A folder is walked whole: pictures, tars and Parquet files in it all count.
Nothing is lost in silence: what cannot be used is in `rejected` with its reason, files of other
kinds are counted in `passed`.

Trade-off: listing reads every tar header (about 20,000 a second) before the first picture is
coded; in return the number of pictures is known and one big tar keeps all cores busy.

    source = open_source(Path("photos"))
    for unit in source.units:
        for item in unit.read(): ...
"""

from __future__ import annotations

from pathlib import Path

from jpeglm.config import InputError
from jpeglm.data.sources.base import (
    CAPTIONS,
    EXTENSIONS,
    FILMS,
    LABELS,
    PREPARED,
    TARS,
    Item,
    Rejected,
    Source,
    Unit,
    extension,
    has,
)
from jpeglm.data.sources.captions import METADATA, columns
from jpeglm.data.sources.folders import list_pictures, walk
from jpeglm.data.sources.tables import list_arrow, list_parquet, saved_datasets
from jpeglm.data.sources.tars import list_tar
from jpeglm.files import file_size, printable
from jpeglm.remote import is_remote, place, there

__all__ = [
    "CAPTIONS", "EXTENSIONS", "FILMS", "LABELS", "PREPARED", "TARS", "Item", "Rejected", "Source",
    "Unit", "open_source",
]  # fmt: skip


def open_source(
    path: Path,
    *,
    unit_size: int = 256,
    labels: str = "source",
    films: bool = False,
    column: str | None = None,
    caption: str = "source",
    caption_column: str | None = None,
) -> Source:
    """List the pictures of `path`: a folder, a picture, a tar, a Parquet file, a saved dataset.

    `films` takes films as well as pictures (a camera pans over those), and in a unit an eighth as
    many: a film is many streams.

    `labels`: `source` takes what the data carry (`.cls` files, an integer column `label`),
    `folder` numbers the first-level folders by name, `none` takes no labels.

    `column`: where a table has several columns of pictures, or a sample in a tar several images,
    the one to take (of a tar: what follows the key, `png` or `seg.png`). By default that of a table
    is `image`, or the only one; for tars see `samples.choose`.

    `caption`: `source` takes what the data carry (`sources.captions`; `caption_column` names the
    column of a table, the key of metadata), `names` those of files, `none` takes none.
    Raises InputError if nothing is there or no picture is found.
    """
    path = place(path)
    name = printable(path)
    if labels not in LABELS:
        raise InputError(f"labels is {labels!r}; choose one of {', '.join(LABELS)}")
    if caption not in CAPTIONS:
        raise InputError(f"caption is {caption!r}; choose one of {', '.join(CAPTIONS)}")
    if unit_size < 1:
        raise InputError(f"unit_size is {unit_size}; it must be at least 1")
    if is_remote(path):
        folder, found_there = there(path) == "folder", bool(there(path))
    else:
        folder, found_there = path.is_dir(), path.exists()
    if folder:
        if (path / PREPARED).exists():
            raise InputError(f"{name} is already prepared; give the folder of the pictures instead")
        source = Source(path, labels, films, column, caption, caption_column)
        files = list(walk(source))
    else:
        if not found_there:
            raise InputError(f"there is no file or folder {name}")
        source = Source(path.parent, labels, films, column, caption, caption_column)
        files = [(path.name, file_size(path))]
    if films:
        unit_size = max(1, unit_size // 8)
    list_pictures(source, files, unit_size)
    described = {METADATA} if columns(source) else set()
    saved = saved_datasets(source, files)
    for file, size in files:
        if has(file, TARS):
            list_tar(source, file, size, unit_size)
    for file, size in files:
        if has(file, (".parquet",)):
            list_parquet(source, file, size, unit_size)
    for file, size in files:
        if has(file, (".arrow",)):
            list_arrow(source, file, size, unit_size, saved)
        elif has(file, (*source.extensions, *TARS, ".parquet")) or saved.owns(file):
            continue
        elif file.rpartition("/")[2] not in described:
            source.passed[extension(file)] += 1
    if not source.count:
        found = "; ".join(
            reason if name in reason else f"{name}: {reason}"
            for name, reason in source.rejected[:3]
        )
        if source.passed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in source.passed.most_common(5))
            found = "; ".join([part for part in (found, f"passed over: {kinds}") if part])
        needed = "it must hold pictures, .tar or .parquet files or a saved Hugging Face dataset"
        if films:
            needed = needed.replace("hold pictures", "hold films or pictures")
        what = "film or picture" if films else "picture"
        raise InputError(f"no {what} found in {name}; {found or needed}")
    return source
