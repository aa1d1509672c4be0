"""Captions: where a source holds them, and what counts as one.

tar        7.txt beside 7.jpg
table      the column `caption` or `text`
folder     metadata.jsonl, a line {"file_name": "7.png", "text": "a red heart"} for each picture
           (Hugging Face's image folders), in any folder; its names are meant from there on
any file   its own name, where that is asked for: red_heart-2.png is "red heart 2"
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterator
from typing import IO, Any

from jpeglm.data.sources.base import Rejected, Source
from jpeglm.files import printable
from jpeglm.remote import below, opened
from jpeglm.text import tidy

METADATA = "metadata.jsonl"
ALONE = "captions of no picture"
"""What captions are counted under that nothing asks for."""
COLUMNS = ("caption", "text")
"""Names under which tables and metadata hold captions; the first that is there counts."""
MAX_CAPTION = 8192
"""Bytes of UTF-8."""
MAX_LINE = 1 << 20
"""Bytes of a line of metadata."""


def read_caption(data: bytes | str | None) -> str | None:
    """A caption as the data carry it, tidied; None where there is none. ValueError says what is
    wrong."""
    if isinstance(data, str):
        data = data.encode(errors="surrogatepass")
    if data is not None and len(data) > MAX_CAPTION:
        raise ValueError(
            f"its caption has more than {MAX_CAPTION} bytes; shorten it, or use --caption none"
        )
    try:
        return tidy((data or b"").decode("utf-8-sig")) or None
    except UnicodeDecodeError:
        raise ValueError("its caption is not UTF-8; mend it, or use --caption none") from None


def name_caption(name: str) -> str:
    """What a file's name says, up to its first dot."""
    first = posixpath.basename(name).partition(".")[0]
    return printable(first.replace("_", " ").replace("-", " "))


def columns(source: Source) -> tuple[str, ...]:
    """The names to look for."""
    if source.caption != "source":
        return ()
    return COLUMNS if source.caption_column is None else (source.caption_column,)


def list_metadata(source: Source, names: Collection[str]) -> dict[str, str]:
    """Captions of pictures by their paths, out of the metadata files among `names`; what is no line
    of metadata goes to the source's `rejected`."""
    found: dict[str, str] = {}
    for name in names:
        if posixpath.basename(name) != METADATA or not columns(source):
            continue
        before, folder = len(found), posixpath.dirname(name)
        path = printable(below(source.root, name))
        try:
            with opened(below(source.root, name)) as file:
                for number, line in enumerate(_lines(file), 1):
                    try:
                        _read_line(line, folder, source, found)
                    except ValueError as error:
                        source.rejected.append(Rejected(f"{path}:{number}", str(error)))
        except OSError as error:
            source.rejected.append(Rejected(path, f"it cannot be read: {error.strerror}"))
        if len(found) > before:
            source.caption_from[printable(name)] += len(found) - before
        else:
            source.passed[".jsonl"] += 1
    return found


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """A file's lines; of one with more than MAX_LINE bytes a byte more than those."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)


def _read_line(line: bytes, folder: str, source: Source, found: dict[str, str]) -> None:
    if not line.strip():
        return
    if len(line) > MAX_LINE:
        raise ValueError(f"the line has more than {MAX_LINE} bytes")
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise ValueError('the line is not a JSON object with a "file_name"')
    text = next((row[key] for key in columns(source) if row.get(key) is not None), None)
    if text is None:
        return
    if not isinstance(text, str):
        raise ValueError("the caption in the line is not text")
    place = posixpath.normpath(posixpath.join(folder, row["file_name"]))
    if found.setdefault(place, text) != text:
        raise ValueError(f"the line has a second caption for {printable(place)}; the first counts")
