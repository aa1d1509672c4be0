"""Paths that lie elsewhere: `s3://bucket/photos`, `gs://…`, whatever fsspec knows by its scheme.

    place("s3://bucket/photos")     universal_pathlib's path, which answers as pathlib's do
    place("photos")                 pathlib's own

The rest of the package works on paths and asks here where the difference shows: what is read by an
open file of this machine, how a tree is listed, what is told when a store does not answer. Reading
what is not there is an InputError as for files; a store that refuses or is silent is `Unreachable`,
which ends the work, since nothing is known of what lies there. Credentials and endpoints are the
business of the store's own library (s3fs, gcsfs) and of its environment.

Trade-off: listings are not cached, since other processes write meanwhile; one more request for a
question about a path.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from jpeglm.config import InputError, install

__all__ = [
    "CHAIN", "Unreachable", "below", "is_remote", "listed", "names_in", "near",
    "opened", "place", "reaching", "read", "there", "write",
]  # fmt: skip

BLOCK = 4 << 20
"""Bytes of a request where a file is read on."""
CHAIN = "::"
"""Joins addresses, as in `simplecache::s3://bucket`, so that no object's name may hold it."""
LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
             "abfs": "adlfs", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
"""What reads a scheme, where fsspec alone does not."""
SILENT = {"HTTPClientError", "EndpointConnectionError", "ConnectTimeoutError",
          "ClientConnectorError"}  # fmt: skip
"""What libraries call a store that does not answer, where it is none of Python's own errors."""
CUT = re.compile(r"([A-Za-z][\w+.-]+:)/(?!/)")
"""How an address begins whose second slash was dropped; one letter is a disk of Windows."""


class Unreachable(InputError):
    """A store that does not answer or refuses; whatever lies there, the work cannot go on."""


def place(name: str | Path) -> Path:
    """The path of this name, one of a store where it has a scheme. InputError if the scheme is
    unknown or what reads it is not installed."""
    if not isinstance(name, str) or "://" not in name:
        return cast(Path, name) if is_remote(name) else Path(name)
    scheme, _, rest = name.partition("://")
    if not scheme:
        return Path(name)
    if scheme.lower() == "file":
        return Path(rest)
    try:
        from upath import UPath
    except ImportError as error:
        what = f"{name} lies elsewhere, and what reads it is missing"
        raise InputError(f"{what}; {install('remote')}") from error
    try:
        found = UPath(f"{scheme.lower()}://{rest}", use_listings_cache=False)
        _ = found.fs
    except ImportError as error:
        library = LIBRARIES.get(scheme, "")
        how = f"run: pip install {library}" if library else str(error)
        raise InputError(f"what reads {scheme}:// is missing for {name}; {how}") from error
    except ValueError as error:
        raise InputError(f"{name} has a scheme that fsspec does not know: {error}") from error
    except Exception as error:  # some stores are asked at once
        raise Unreachable(_sentence(name, error)) from error
    return cast(Path, found)


def below(folder: Path, name: str) -> Path:
    """What is called `name` in a folder, with slashes, as `listed` and a walk give it; InputError
    if a store cannot be asked for it. Joined by hand: `/` takes `http:/x` and `/x` for addresses
    of their own."""
    if not is_remote(folder):
        return folder / name
    if CHAIN in name:
        raise InputError(
            f"{folder}/{name} has {CHAIN} in its name, which joins addresses; rename it"
        )
    found: Any = folder
    return cast(Path, found.with_segments(f"{found.path.rstrip('/')}/{name}"))


def is_remote(path: str | Path) -> bool:
    """Whether it is a path of a store."""
    return not isinstance(path, str | os.PathLike)


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """What goes wrong in the body ends in one sentence about `path`."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Exception as error:  # each store's library has its own
        raise Unreachable(_sentence(path, error)) from error


def _sentence(path: Path | str, error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    why = " ".join(str(error).split()) or type(error).__name__
    if kinds & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return (
            f"{path} needs credentials and there are none; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run: aws configure"
        )
    if isinstance(error, PermissionError):
        return f"{path} is refused ({why}); check the credentials and what they may do"
    if kinds & SILENT or isinstance(error, ConnectionError | TimeoutError):
        return f"the store of {path} does not answer ({why}); check the network and the endpoint"
    return f"cannot use {path}: {why}"


def there(path: Path) -> str:
    """`file`, `folder` or, where nothing is, an empty word."""
    with reaching(path):
        if path.is_file():
            return "file"
        return "folder" if path.is_dir() else ""


def listed(folder: Path) -> list[tuple[str, int]]:
    """(path relative to the folder, bytes) of all objects below it; a folder without any is not
    there, and neither is one of no bucket."""
    found: Any = folder
    with reaching(folder):
        try:
            objects = found.fs.find(found.path, detail=True)
        except FileNotFoundError:
            return []
        start = len(found.path.rstrip("/")) + 1
        return [
            (name[start:], int(about["size"] or 0))
            for name, about in objects.items()
            if about["type"] == "file" and not name.endswith("/")
        ]


def read(path: Path, limit: int | None = None) -> bytes:
    """A store's file, its first limit + 1 bytes at most, by one request."""
    found: Any = path
    with reaching(path):
        try:
            end = None if limit is None else limit + 1
            return bytes(found.fs.cat_file(found.path, end=end))
        except FileNotFoundError:
            raise
        except Exception:
            if found.fs.info(found.path).get("size") == 0:  # S3 has no range of nothing
                return b""
            raise


def write(path: Path, data: bytes) -> None:
    """An object of these bytes, which appears whole or not at all, and replaces what was there."""
    found: Any = path
    with reaching(path):
        try:
            found.fs.pipe_file(found.path, data)
        except FileNotFoundError as error:
            raise Unreachable(f"cannot write {path}: {error}; is there such a bucket?") from error


def names_in(folder: Path) -> set[str]:
    """Names of what lies directly in a folder; none where there is no folder."""
    if is_remote(folder):
        return {name.partition("/")[0] for name, _ in listed(folder)}
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _address_in(path: Path) -> str | None:
    """The address that became a pathlib.Path, which makes one of its two slashes and would be a
    folder `s3:` of this machine; None of other paths."""
    if is_remote(path) or not (cut := CUT.match(str(path))) or os.path.lexists(cut[1]):
        return None
    return f"{cut[1]}//{str(path)[cut.end() :]}"


def near(name: str | Path) -> Path:
    """A path of this machine; InputError if it is one elsewhere, where it can be no more than the
    pictures and the shards of `prepare`."""
    plain = isinstance(name, str) and not name.lower().startswith("file://")
    found = Path(name) if plain else place(name)  # nothing need be installed to refuse it
    if address := (str(found) if is_remote(found) else _address_in(found)):
        raise InputError(
            f"{address} lies elsewhere, where only what jpeglm prepare reads and writes may; "
            "give a path of this machine (copy it to a disk first, as with: aws s3 sync)"
        )
    return found


class _Raw(io.RawIOBase):
    """A store's file whose errors are sentences."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with reaching(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with reaching(self._path):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def opened(path: Path) -> BinaryIO:
    """A file for reading bytes at any place, of this machine or of a store."""
    if not is_remote(path):
        return open(path, "rb")
    with reaching(path):
        file: Any = cast(Any, path).fs.open(cast(Any, path).path, "rb", block_size=BLOCK)
    return cast(BinaryIO, io.BufferedReader(_Raw(path, file), 1 << 16))
