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
from collections.abc import Collection
from typing import Any

from jpeglm.data.sources.base import Rejected, Source
from jpeglm.files import printable
from jpeglm.text import tidy

METADATA = "metadata.jsonl"
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
        raise ValueError("its caption is no UTF-8; mend it, or use --caption none") from None


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
        with open(source.root / name, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                try:
                    _read_line(line, folder, source, found)
                except ValueError as error:
                    where = printable(f"{source.root / name}:{number}")
                    source.rejected.append(Rejected(where, str(error)))
                    if not line.endswith(b"\n"):
                        break
        if len(found) > before:
            source.caption_from[printable(name)] += len(found) - before
        else:
            source.passed[".jsonl"] += 1
    return found


def _read_line(line: bytes, folder: str, source: Source, found: dict[str, str]) -> None:
    if not line.strip():
        return
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise ValueError('the line is no JSON object with a "file_name"')
    text = next((row[key] for key in columns(source) if row.get(key) is not None), None)
    if text is None:
        return
    if not isinstance(text, str):
        raise ValueError("the caption in the line is no text")
    found[posixpath.normpath(posixpath.join(folder, row["file_name"]))] = text
