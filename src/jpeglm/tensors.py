"""The safetensors container, read and written without torch: a JSON header and raw arrays.

safetensors' own numpy side has no bfloat16, and the format is little enough to read here. A header
is judged before anything is mapped or allocated, by the format's own rules
(https://github.com/huggingface/safetensors#format): arrays lie one after the other, without gap or
overlap, to the end of the file, each as long as its shape and type say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jpeglm.config import InputError, fits, shorten
from jpeglm.files import MAX_JSON, atomic_write, file_size, parse_json
from jpeglm.remote import Unreachable, is_remote, opened, place

NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "U16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
MAX_AXES = 8


class Entry(NamedTuple):
    """What a header says of an array; begin and end are bytes of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """The arrays of a safetensors file by name; InputError says what is wrong with it."""
    with _opened(path) as file:
        return _header(place(path), file)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    path = place(path)
    file_size(path)  # InputError unless it is a regular file
    with opened(path) as file:
        yield file


def _header(path: Path, file: BinaryIO) -> dict[str, Entry]:
    whole = file.seek(0, os.SEEK_END)
    length, header = _parsed(path, file, whole)
    found = {
        name: _entry(path, name, value, 8 + length)
        for name, value in header.items()
        if name != "__metadata__"
    }
    at = 8 + length
    for name, entry in sorted(found.items(), key=lambda item: item[1][2:]):
        if entry.begin != at:
            raise _broken(path, f"{shorten(name)} begins at byte {entry.begin}, not at {at}")
        at = entry.end
    if at != whole:
        raise _broken(path, f"its arrays end at byte {at}, the file at {whole}")
    return found


def _parsed(path: Path, file: BinaryIO, whole: int) -> tuple[int, dict[str, Any]]:
    """A header and its bytes, of a file of `whole` bytes."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= whole - 8 or length > MAX_JSON:
        raise _broken(path, "its header does not fit into the file")
    try:
        return length, parse_json(file.read(length), "its header")
    except Unreachable:
        raise
    except InputError as error:
        raise _broken(path, str(error)) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What a file says of itself; its arrays are not looked at beyond their places."""
    with _opened(path) as file:
        _header(path, file)
        found = _parsed(path, file, file.seek(0, os.SEEK_END))[1].get("__metadata__", {})
    return found if isinstance(found, dict) else {}


def _entry(path: Path, name: str, value: Any, offset: int) -> Entry:
    what = shorten(name)
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"the entry of {what} is {shorten(value)}")
    dtype, shape, places = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMPY:
        raise _broken(path, f"{what} is of the type {shorten(dtype)}, which is not read here")
    for numbers in (shape, places):
        if not isinstance(numbers, list) or not all(fits(n, "int") and n >= 0 for n in numbers):
            raise _broken(path, f"{what} has {shorten(numbers)} for its shape or place")
    if len(shape) > MAX_AXES or len(places) != 2:
        raise _broken(path, f"{what} has {len(shape)} axes and {len(places)} offsets")
    size = prod(shape) * np.dtype(NUMPY[dtype]).itemsize
    if places[1] - places[0] != size:
        raise _broken(path, f"{what} has {places[1] - places[0]} bytes, by its shape {size}")
    return Entry(dtype, tuple(shape), offset + places[0], offset + places[1])


def _broken(path: Path, why: str) -> InputError:
    return InputError(f"{path} is not a complete safetensors file: {why}")


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, dtypes) of a safetensors file, memory-mapped where it lies on this machine; BF16
    comes as its uint16 bits."""
    with _opened(path) as file:  # header and data of one file, should another take its place
        header = _header(place(path), file)
        if is_remote(path):
            file.seek(0)
            data = np.frombuffer(file.read(), np.uint8)
        else:
            data = np.memmap(file, np.uint8, "r")
    arrays: dict[str, np.ndarray] = {
        name: np.require(  # writers need not align what they write
            data[entry.begin : entry.end].view(NUMPY[entry.dtype]), requirements="A"
        ).reshape(entry.shape)
        for name, entry in header.items()
    }
    return arrays, {name: entry.dtype for name, entry in header.items()}


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str]
) -> None:
    """Write arrays; a uint16 array may be named BF16 in `dtypes`."""
    kinds = {name: (dtypes[name], array.shape) for name, array in arrays.items()}
    write_arrays(path, kinds, arrays.values())


def write_arrays(
    path: Path,
    kinds: Mapping[str, tuple[str, tuple[int, ...]]],
    arrays: Iterable[np.ndarray],
    about: Mapping[str, str] | None = None,
) -> None:
    """Write arrays one after the other as they come, so that no two need be in memory; kinds: the
    type and shape of each by its name, in the same order; about: the file's metadata."""
    header: dict[str, Any] = {"__metadata__": dict(about or {"format": "pt"})}
    offset = 0
    for name, (dtype, shape) in kinds.items():
        size = prod(shape) * np.dtype(NUMPY[dtype]).itemsize
        header[name] = {
            "dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size],
        }  # fmt: skip
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def parts() -> Iterator[Any]:
        yield len(text).to_bytes(8, "little") + text
        for (name, (dtype, shape)), array in zip(kinds.items(), arrays, strict=True):
            assert array.dtype == NUMPY[dtype] and array.shape == shape, name
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    atomic_write(path, parts())


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """float32 → the uint16 bits of bfloat16, rounded to nearest even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 bits of bfloat16 → float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
