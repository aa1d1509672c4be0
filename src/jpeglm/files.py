"""Files and folders that appear whole or not at all.

Written beside their destination, flushed to the disk, then renamed: a killed command or a full
disk leaves what was there before. A reader never has to ask whether a file is finished.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jpeglm.config import InputError
from jpeglm.remote import is_remote, place, reaching, read, there, write


def explain(error: OSError | ValueError, path: Path) -> InputError:
    """The sentence a user sees when the system refuses `path`."""
    name = printable(path)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"no space is left on the disk for {name}; free some and run it again")
    return InputError(f"cannot use {name}: {getattr(error, 'strerror', None) or error}")


def _flush_folder(folder: Path) -> None:
    """Make a rename last, where the system lets a folder be flushed (Windows opens none)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):  # some network file systems know no flush of a folder
            os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """What new files' permissions leave out, which tempfile does not ask for."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def atomic_write(path: Path, data: bytes | Iterable[Any]) -> None:
    """Write `data`, bytes or parts that have a buffer of them, to `path`; on any failure the old
    content stays and no trace is left."""
    with staged(path, data):
        pass


@contextmanager
def staged(path: Path, data: bytes | Iterable[Any]) -> Iterator[None]:
    """`data` lies on the disk while the body runs, and is `path` after it; if the body raises,
    the old content stays."""
    path = place(path)
    parts: Iterable[Any] = (data,) if isinstance(data, bytes) else data
    if is_remote(path):  # an object appears whole by itself
        whole = b"".join(parts)
        yield
        write(path, whole)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise explain(error, path) from error
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        yield
        os.replace(name, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Give an empty folder to fill; at the end it takes the place of `path`.

    Of an older folder there the files of these `names` (as of fnmatch) are replaced, whatever else
    lies in it stays: `jpeglm.folders` knows which names are ours. Without names only an empty
    folder is replaced. If the body raises, `path` stays as it was.
    """
    path = Path(path)
    if path.is_symlink():  # what it leads to is replaced, on whatever disk that is
        path = path.resolve()
    try:
        if not names and path.exists() and any(path.iterdir()):
            raise InputError(f"{path} already holds files; empty it or give another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise explain(error, path) from error
    try:
        yield draft
        for entry in path.iterdir() if path.exists() else ():
            known = any(fnmatchcase(entry.name, name) for name in names)
            if not known and not os.path.lexists(draft / entry.name):
                _copy(entry, draft / entry.name)
        for entry in (*sorted(draft.rglob("*")), draft):
            if entry.is_symlink():
                continue
            if entry.is_file():
                # Windows flushes no file open for reading; of the user's, some may be read alone.
                with open(entry, "r+b" if os.access(entry, os.W_OK) else "rb") as handle:
                    os.fsync(handle.fileno())
            elif entry.is_dir():
                _flush_folder(entry)
        os.chmod(draft, 0o777 & ~_umask())
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
    except InputError as error:  # nobody has heard of the draft
        hidden = str(InputError(printable(draft)))  # its name as errors tell it
        if hidden not in str(error):
            raise
        raise InputError(str(error).replace(hidden, printable(path))) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def printable(name: str | Path) -> str:
    """A name as it may be printed, stored as a key or written as JSON: bytes of a file's name that
    are no UTF-8 become `\\xe9`, control characters `\\x0a`. Names on a disk and in a tar are bytes,
    Python holds those as lone surrogates, and no text file takes them; a line feed would make two
    lines of one, and ESC commands a terminal."""

    def escape(found: re.Match[str]) -> str:
        code = ord(found[0])
        code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return re.sub("[\0-\x1f\x7f-\x9f\ud800-\udfff]", escape, str(name))


def told(error: Exception) -> str:
    """What another library says of a file, in one line that can be printed."""
    return printable(" ".join(str(error).split()) or type(error).__name__)


def file_size(path: Path, limit: int | None = None) -> int:
    """Bytes of a regular file; InputError if there is none, if it is a folder, a pipe or a device
    (reading those may never end), or if it is larger than `limit` bytes or hides how large."""
    path = place(path)
    name = printable(path)
    if is_remote(path):
        return _size_elsewhere(path, limit)
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
    if not status.st_size and _hides_bytes(path):
        raise InputError(
            f"{name} says that it is empty but is not, as the system's own files do; save its "
            "content into a file first"
        )
    if limit is not None and status.st_size > limit:
        raise _too_large(name, status.st_size, limit)
    return status.st_size


def _size_elsewhere(path: Path, limit: int | None) -> int:
    kind = there(path)
    if kind != "file":
        name = printable(path)
        raise InputError(
            f"{name} is a folder; a file is needed here" if kind else f"there is no file {name}"
        )
    with reaching(path):
        size = int(path.stat().st_size)
    if limit is not None and size > limit:
        raise _too_large(printable(path), size, limit)
    return size


def _hides_bytes(path: Path) -> bool:
    """Whether a regular file of 0 bytes has some, or may have, as those below /proc: their end may
    never come."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise explain(error, path) from error
    try:
        return bool(os.read(handle, 1))
    except OSError:  # nothing yet
        return True
    finally:
        os.close(handle)


def _too_large(name: str, size: int, limit: int) -> InputError:
    return InputError(
        f"{name} has {size / 1e6:,.0f} MB, more than the {limit / 1e6:,.0f} MB that are read here"
    )


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes, or one sentence about why not."""
    path = place(path)
    if is_remote(path):
        data = read(path, limit)
    else:
        file_size(path, limit)
        try:
            with open(path, "rb") as file:
                # What grows is cut as well.
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
        raise InputError(f"{name} is not a JSON file: {error}") from error
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


def to_json(value: Any, indent: int | None = None) -> str:
    """A result as JSON, which knows neither NaN nor infinity: null stands for them, and the key
    `not_finite` of the outermost object tells where and what they were."""
    found: dict[str, str] = {}

    def finite(part: Any, place: str) -> Any:
        if isinstance(part, dict):
            return {
                key: finite(inner, f"{place}.{key}" if place else str(key))
                for key, inner in part.items()
            }
        if isinstance(part, list | tuple):
            return [finite(inner, f"{place}[{i}]") for i, inner in enumerate(part)]
        if isinstance(part, float) and not math.isfinite(part):
            found[place] = str(part)
            return None
        return part

    cleaned = finite(value, "")
    if found and isinstance(cleaned, dict):
        cleaned["not_finite"] = found
    text = json.dumps(cleaned, indent=indent, ensure_ascii=False, allow_nan=False)
    # A file's name may be no UTF-8: Python has its bytes as lone surrogates, which `parse_json` and
    # others refuse.
    return re.sub("[\ud800-\udfff]", lambda found: "\\" + printable(found[0]), text)


def write_json(path: Path, value: Any) -> None:
    atomic_write(path, (to_json(value, indent=2) + "\n").encode())


HALF = re.compile(r"\.(.+)\.[a-z0-9_]+\.(tmp|old)")
"""The hidden names that are used while something is written: its own name is the first group."""


def half_of(name: str) -> str | None:
    """What a hidden name was to become, None if it is no such name; a folder that is being written
    may have been written into one in the same way."""
    found = HALF.fullmatch(name)
    return None if found is None else half_of(found[1]) or found[1]


def halves(folder: Path, names: Collection[str], suffix: str = "tmp") -> list[tuple[Path, str]]:
    """(path, what it was to become) of what a killed process left half-written in a folder, of
    the names (as of fnmatch) that are ours."""
    found = ((path, half_of(path.name)) for path in Path(folder).glob(f".*.{suffix}"))
    return [
        (path, whole)
        for path, whole in found
        if whole and any(fnmatchcase(whole, name) for name in names)
    ]


def remove_halves(folder: Path, names: Collection[str]) -> None:
    """Remove what a killed process left half-written, directly inside the folder; in a store there
    is no such thing."""
    if is_remote(folder):
        return
    for old, name in halves(folder, names, "old"):
        # Killed between the two renames that replace a folder: the old one is all there is, unless
        # it was itself being written.
        whole = not old.name.startswith("..")
        if whole and (old / "previous").exists() and not (folder / name).exists():
            os.replace(old / "previous", folder / name)
    for path, _ in halves(folder, names) + halves(folder, names, "old"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
