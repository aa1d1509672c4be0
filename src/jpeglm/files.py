"""Files and folders that appear whole or not at all.

Written beside their destination, flushed to the disk, then renamed: a killed command or a full
disk leaves what was there before. A reader never has to ask whether a file is finished.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jpeglm.config import InputError


def explain(error: OSError | ValueError, path: Path) -> InputError:
    """The sentence a user sees when the system refuses `path`."""
    name = printable(path)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"no space is left on the disk for {name}; free some and run it again")
    return InputError(f"cannot use {name}: {getattr(error, 'strerror', None) or error}")


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`; on any failure the old content stays and no trace is left."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise explain(error, path) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; at the end it takes the place of `path`.

    An older folder of that name is replaced. If the body raises, `path` stays as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise explain(error, path) from error
    try:
        yield draft
        for file in sorted(draft.rglob("*")):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        os.chmod(draft, 0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, old / "previous")
            os.replace(draft, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(draft, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def printable(name: str | Path) -> str:
    """A name as it may be printed, stored as a key or written as JSON: bytes of a file's name that
    are no UTF-8 become `\\xe9`. Names on a disk and in a tar are bytes, Python holds those as lone
    surrogates, and no text file takes them."""

    def escape(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return re.sub("[\ud800-\udfff]", escape, str(name))


def told(error: Exception) -> str:
    """What another library says of a file, in one line that can be printed."""
    return printable(" ".join(str(error).split()) or type(error).__name__)


def file_size(path: Path, limit: int | None = None) -> int:
    """Bytes of a regular file; InputError if there is none, if it is a folder, a pipe or a device
    (reading those may never end), or if it is larger than `limit` bytes."""
    path = Path(path)
    name = printable(path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"there is no file {name}") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL byte
        raise explain(error, path) from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name} is a folder; a file is needed here")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name} is a pipe or a device; save its content into a file first")
    if limit is not None and status.st_size > limit:
        raise _too_large(name, status.st_size, limit)
    return status.st_size


def _too_large(name: str, size: int, limit: int) -> InputError:
    return InputError(
        f"{name} has {size / 1e6:,.0f} MB, more than the {limit / 1e6:,.0f} MB that are read here"
    )


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes, or one sentence about why not."""
    path = Path(path)
    file_size(path, limit)
    try:
        with open(path, "rb") as file:
            # What grows, or says that it has 0 bytes as files below /proc do, is cut as well.
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise explain(error, path) from error
    if limit is not None and len(data) > limit:
        raise _too_large(printable(path), len(data), limit)
    return data


MAX_JSON = 16 << 20
"""Bytes of JSON that are read: parsed, they may take 20 times as much."""
MAX_DEPTH = 32
"""Of objects and lists in each other; what walks through a value later may recurse."""


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object; `name` is what errors call its file.

    Refused besides what is no JSON: keys that come twice (readers differ in which they take), deep
    nesting, huge files, and halves of surrogate pairs, which could never be written again.
    """
    if len(data) > MAX_JSON:
        raise InputError(f"{name} has {len(data)} bytes of JSON; {MAX_JSON} are read at most")
    try:
        text = data.decode(json.detect_encoding(data))
        value = json.loads(text, object_pairs_hook=_named_once)
        level, depth = [[value]], 0
        while level:
            if depth > MAX_DEPTH:
                raise RecursionError
            level = [
                list(v.values()) if isinstance(v, dict) else v
                for part in level
                for v in part
                if isinstance(v, dict | list)
            ]
            depth += 1
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise InputError(f"{name} nests deeper than {MAX_DEPTH} levels of JSON") from error
    except ValueError as error:  # of the decoder, the parser, or a number of 5000 digits
        raise InputError(f"{name} is no JSON file: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{name} must hold a JSON object, it holds a {type(value).__name__}")
    return value


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} comes twice")
    return values


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; the error names the file and the place."""
    return parse_json(read_bytes(path, MAX_JSON), printable(path))


def write_json(path: Path, value: Any) -> None:
    atomic_write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def remove_halves(*folders: Path) -> None:
    """Remove what a killed process left half-written, directly inside these folders."""
    for folder in folders:
        for old in folder.glob(".*.old/previous"):
            # Killed between the two renames that replace a folder: the old one is all there is.
            name = old.parent.name[1:].rsplit(".", 2)[0]
            if not (folder / name).exists():
                os.replace(old, folder / name)
        for path in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
