"""Which side of a data set an item falls on: training or validation.

By its file's content, so that copies fall on the same side whatever else is prepared with them; or
as its source or its first-level folder says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jpeglm.config import InputError

if TYPE_CHECKING:
    from jpeglm.data.sources import Item

SPLITS = ("train", "validation")
"""Token shards store a split as its place here."""
ANEW = "prepare more pictures, or into another folder with --validation 0.3"
"""What to do where a side is empty."""
FOLDERS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
"""First-level folders that name a split, as Hugging Face's image folders do."""


def check_split(split: str, known: Sequence[str] = SPLITS) -> None:
    """InputError unless it is one of those `known`."""
    if split not in known:
        raise InputError(f"split is {split!r}; choose one of {', '.join(known)}")


def split_of(data: bytes, validation: float) -> str:
    """The side of an item by its file's content, so that copies fall on the same side."""
    place = int.from_bytes(hashlib.sha256(data).digest()[:8]) / 2**64
    return "validation" if place < validation else "train"


def side_of(item: Item, validation: float) -> str:
    """The side of an item: the one that its source says, else by content."""
    return item.split or split_of(item.data, validation)


def split_by(item: Item, rule: str, validation: float) -> str:
    """The side of an item by `PrepareConfig.split`; InputError where folders decide and none of its
    names one."""
    if rule == "hash":
        return side_of(item, validation)
    if rule != "folder":
        return rule
    first = item.key.split("/")[0]
    if first not in FOLDERS:
        raise InputError(
            f"it lies in none of the folders {', '.join(FOLDERS)}, which say the split"
        )
    return FOLDERS[first]
