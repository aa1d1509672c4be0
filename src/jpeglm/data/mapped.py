"""Many files of ids as one string, read where they lie: a slice is looked up in a mapped file.

    ids = MappedIds(path_of, begins, places, sizes, checks)
    ids[start:stop]        a view of the file that holds them; a slice lies in one file

Files are mapped when they are first asked for and let go of, those first that were asked for
longest ago. Trade-off: what is mapped and was touched counts as the process's memory, though the
system takes it back when it needs it; letting go of files costs mapping them again, some tens of
microseconds, and keeps a process small and far from the limit of open files.
"""

from __future__ import annotations

import mmap
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jpeglm.config import InputError
from jpeglm.files import explain

__all__ = ["MappedIds", "head_of"]

MAPPED_BYTES = 128 << 20
"""Of files that are mapped at the same time."""
MAPPED_FILES = 128
"""That are mapped at the same time; a process may often have no more than 1024 open."""


def head_of(data: mmap.mmap | bytes) -> int:
    """CRC-32 of a safetensors file's header, which tells what lies in it: of token shards its hash
    too."""
    return zlib.crc32(data[: 8 + int.from_bytes(data[:8], "little")])


class MappedIds:
    """The ids of many token shards, one after the other.

    path_of: each file by its number. begins: int64 [files + 1], where in the string each begins.
    places: int64, the byte of each file at which its ids begin. sizes, checks: int64, bytes of each
    and its `head_of`, which must be what they were.
    """

    def __init__(
        self,
        path_of: Callable[[int], Path],
        begins: np.ndarray,
        places: np.ndarray,
        sizes: np.ndarray,
        checks: np.ndarray,
    ) -> None:
        self.path_of, self.begins = path_of, begins
        self.places, self.sizes, self.checks = places, sizes, checks
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return int(self.begins[-1])

    def __getitem__(self, part: slice) -> np.ndarray:
        file = int(np.searchsorted(self.begins, part.start, side="right")) - 1
        ids = self._mapped.get(file)
        if ids is None:
            ids = self._map(file, part)
        else:
            self._mapped.move_to_end(file)
        begin = int(self.begins[file])
        found = ids[part.start - begin : part.stop - begin]
        if len(found) != part.stop - part.start:
            raise self._unfit()
        return found

    @property
    def _folder(self) -> Path:
        return self.path_of(0).parent

    def _unfit(self) -> InputError:
        return InputError(f"{self._folder} has an index that does not fit its token shards; "
                          "prepare the tokens again")  # fmt: skip

    def _map(self, file: int, part: slice) -> np.ndarray:
        if not 0 <= file < len(self.sizes):
            raise InputError(f"{self._folder} has an index that names ids {part.start} to "
                             f"{part.stop} of {len(self)}; prepare the tokens again")  # fmt: skip
        path = self.path_of(file)
        count = int(self.begins[file + 1] - self.begins[file])
        size, place = int(self.sizes[file]), int(self.places[file])
        try:
            with open(path, "rb") as opened:
                data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise InputError(f"there is no file {path}; prepare the tokens again") from error
        except (OSError, ValueError) as error:  # ValueError: it is empty
            raise explain(error, path) from error
        if len(data) != size or head_of(data) != int(self.checks[file]):
            raise InputError(
                f"{path} is not the token shard that its folder's index knows; prepare the tokens "
                "again"
            )
        if not 0 <= place <= size - 2 * count <= size:
            raise self._unfit()
        ids = np.frombuffer(data, np.uint16, count, place)
        self._mapped[file] = ids
        self._bytes += size
        while len(self._mapped) > 1 and (
            len(self._mapped) > MAPPED_FILES or self._bytes > MAPPED_BYTES
        ):
            gone, _ = self._mapped.popitem(last=False)  # unmapped when no slice is used any more
            self._bytes -= int(self.sizes[gone])
        return ids
