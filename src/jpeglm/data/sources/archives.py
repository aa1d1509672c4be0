"""The members of a tar, plain or compressed, one archive or several in a row, whole or damaged.

    file ──decompress──▶ stream that goes forwards ──tarfile──▶ headers

tarfile does the reading; what it takes for the end in silence (a second archive, a lone block of
zeros, a header that is cut) is told apart here, and its loops and buffers that a hostile header
could blow up are bounded.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jpeglm.files import file_size
from jpeglm.remote import opened

MAX_MEMBERS = 2_000_000
"""A few megabytes, compressed, can hold the headers of any number of empty files."""
MAX_HEADER = 1 << 20
"""Bytes of a header's extension (a long name, PAX records), which tarfile reads into memory."""
STEP = 1 << 14
"""Bytes that are decompressed at a time: what lies before a damage in the same step is lost."""
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class _Forward(io.RawIOBase):
    """A stream of decompressed bytes that knows its place and seeks forwards by reading."""

    def __init__(self, stream: Any, below: Any) -> None:
        self._stream, self._below, self._place = stream, below, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read1(min(len(buffer), STEP))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            place += self._place
        if place < self._place:
            raise OSError("it points backwards")
        while self._place < place:
            data = self._stream.read1(min(place - self._place, 64 * STEP))
            if not data:
                break
            self._place += len(data)
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._below.close()
        super().close()


def open_tar(path: Path) -> tuple[Any, bool]:
    """(the tar's bytes as a file that can be read forwards, whether they are compressed)."""
    file_size(path)
    file = opened(path)
    head = file.read(8)
    file.seek(0)
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    stream: Any
    if kind is None:
        return file, False
    if kind == "gzip":
        stream = gzip.GzipFile(fileobj=file)
    elif kind == "bz2":
        stream = bz2.BZ2File(file)
    elif kind == "xz":
        stream = lzma.LZMAFile(file)  # noqa: SIM115
    else:
        import pyarrow as pa  # the standard library has no zstd before Python 3.14

        stream = pa.CompressedInputStream(pa.PythonFile(file), "zstd")
    return io.BufferedReader(_Forward(stream, file), STEP), True


class _Info(tarfile.TarInfo):
    """A header that is read on behind zeros and behind damage; see `Tar`."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Info:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0:
            raise tarfile.InvalidHeaderError("negative size")  # type: ignore[attr-defined]
        if info.type in (b"x", b"g", b"X", b"L", b"K") and info.size > MAX_HEADER:
            raise tarfile.ReadError(f"a name or comment of {info.size / 1e6:,.0f} MB")
        return info

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> _Info:
        tar: Tar = tarfile_
        place = tar.offset
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tar.zeros += 1 + tar.skip(lambda chunk: len(chunk) - len(chunk.lstrip(b"\0")))
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            if place and not tar.zeros:  # tarfile takes a tar that breaks off for a whole one
                tar.damage.setdefault(tar.found, place)
            raise
        except tarfile.InvalidHeaderError:  # type: ignore[attr-defined]
            # Behind a long name or PAX records the archive's own count lags.
            tar.offset = place = tar.fileobj.tell() - tarfile.BLOCKSIZE
            tar.damage.setdefault(tar.found, place)
            tar.skip(_next_header)
            raise
        except tarfile.SubsequentHeaderError as error:  # type: ignore[attr-defined]
            if tar.found in tar.damage and tar.offset > place:  # it was passed over above
                raise tarfile.InvalidHeaderError(str(error)) from error  # type: ignore[attr-defined]
            raise
        except tarfile.TruncatedHeaderError:  # type: ignore[attr-defined]
            tar.damage.setdefault(tar.found, place)
            raise


def _next_header(chunk: bytes) -> int:
    """Bytes before the next block that looks like a header, or all."""
    place = chunk.find(b"ustar", 257)
    while place >= 0 and (place - 257) % tarfile.BLOCKSIZE:
        place = chunk.find(b"ustar", place + 1)
    return place - 257 if place >= 0 else len(chunk)


class Tar(tarfile.TarFile):
    """All members of a tar, whatever lies between them: zeros (another archive follows) and
    damage, whose places are kept, one for each stretch."""

    tarinfo = _Info

    def __init__(self, file: Any) -> None:
        self.zeros = self.found = 0
        self.damage: dict[int, int] = {}
        super().__init__(
            fileobj=file, mode="r", ignore_zeros=True, encoding="utf-8", errors="surrogateescape"
        )

    def skip(self, measure: Callable[[bytes], int]) -> int:
        """Pass over blocks quickly: `measure` says how many bytes of a chunk may go. How many
        blocks went."""
        start = self.offset
        while True:
            chunk = self.fileobj.peek(tarfile.BLOCKSIZE)  # type: ignore
            chunk = chunk[: len(chunk) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE]
            size = measure(chunk) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            self.fileobj.read(size)
            self.offset += size
            if not size or size < len(chunk):
                return (self.offset - start) // tarfile.BLOCKSIZE

    def walk(self) -> Iterator[tuple[tarfile.TarInfo, int]]:
        """(member, number of its archive); an archive ends with two zero blocks."""
        archive = place = 0
        while True:
            self.zeros = 0
            info = self.next()
            if info is None:
                return
            self.members.clear()  # type: ignore[attr-defined]  # or a large tar's headers would all stay in memory
            archive += self.zeros > 1
            self.found += 1
            if self.found > MAX_MEMBERS:
                raise tarfile.ReadError(f"it holds more than {MAX_MEMBERS:,} files; split it")
            if info.size < 0 or self.offset <= place:  # the records of a header may say so
                raise tarfile.ReadError("it points backwards")
            place = self.offset
            yield info, archive
