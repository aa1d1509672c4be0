"""Pictures that lie inside a file of a package: rows of a table, resources of a Qt program."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from jpeglm.config import InputError


def unpack_parquet(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The groceries' pictures: column `image_data`, named by their class and row."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("groceries come as parquet; run: pip install pyarrow") from error
    row = 0
    columns = ["finegrained_cat", "image_data"]
    for batch in pyarrow.parquet.ParquetFile(io.BytesIO(data)).iter_batches(256, columns=columns):
        for entry in batch.to_pylist():
            if entry["image_data"]:
                yield f"{entry['finegrained_cat']}-{row:04d}.jpg", entry["image_data"]
            row += 1


def unpack_qt(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """(qrc:/path, bytes) of the files of a Qt resource collection, `.rcc` of version 1 to 3.

    Three tables: nodes of a tree, their names, the files' bytes with their length before them
    (qtbase, src/corelib/io/qresource.cpp).
    """
    magic, version, tree, content, names = struct.unpack(">4s4I", data[:20])
    if magic != b"qres" or version not in (1, 2, 3):
        raise InputError(f"{name} is no Qt resource collection of version 1 to 3")
    size = 14 if version == 1 else 22

    def name_of(place: int) -> str:
        start = names + place + 6  # behind its length and hash
        length = int.from_bytes(data[start - 6 : start - 4])
        return data[start : start + 2 * length].decode("utf-16-be")

    def walk(at: int, path: str) -> Iterator[tuple[str, bytes]]:
        (flags,) = struct.unpack(">H", data[at + 4 : at + 6])
        if flags & 2:  # a folder
            count, first = struct.unpack(">2I", data[at + 6 : at + 14])
            for child in range(tree + first * size, tree + (first + count) * size, size):
                place = int.from_bytes(data[child : child + 4])
                yield from walk(child, f"{path}/{name_of(place)}")
            return
        start = content + int.from_bytes(data[at + 10 : at + 14]) + 4
        body = data[start : start + int.from_bytes(data[start - 4 : start])]
        if flags & 4:
            raise InputError(f"{name}: {path} is compressed with Zstandard, which is not read")
        yield path, zlib.decompress(body[4:]) if flags & 1 else body

    yield from walk(tree, "qrc:")  # the root has no name
