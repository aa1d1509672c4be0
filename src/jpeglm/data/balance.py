"""How many crops a picture gives, so that no folder gives more than its share of the training data.

    balanced({"shop": 1393, "stars": 512, "rooms": 400}, 24, 0.4) ──▶ {"shop": 7, "stars": 19, …}

A corpus of several sources mirrors their sizes: where one has most pictures, a model learns mostly
that one. The folder that gives most gives a crop less of each of its pictures until none gives more
than the share. So a small source keeps all its crops, and a picture's crops are the first of those
that it gives without a balance.

Trade-off: crops are whole, so that a folder may end up a little below its share; and pictures are
counted as they are listed, before it is known which of them can be read.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping

from jpeglm.config import InputError
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import TARS, Source
from jpeglm.data.sources.base import TABLES, has
from jpeglm.data.splits import FOLDERS

TOP = ""
"""The folder of pictures that lie in none."""


def folder_of(key: str, split: str) -> str:
    """The first-level folder of an item, behind that of its split where folders say it, and inside
    a tar if it lies in one."""
    parts = [part for part in key.split("/")[:-1] if not has(part, (*TARS, *TABLES))]
    if split == "folder":
        parts = parts[1:]
    return parts[0] if parts else TOP


def split_in(key: str) -> str:
    """How `folder_of` has to read the key of an item of which no more is known: `folder` where its
    first folder names a split, else `hash`."""
    return "folder" if key.split("/")[0] in FOLDERS else "hash"


def balanced(pictures: Mapping[str, int], crops: int, share: float) -> dict[str, int]:
    """Crops of each training picture by folder, `crops` at most; `pictures` of each folder.

    InputError where whole crops cannot keep every folder to its share.
    """
    if 1 / len(pictures) > share:
        raise InputError(
            f"balance is {share:g}, but the pictures lie in {len(pictures)} "
            f"folder{'s' if len(pictures) > 1 else ''}, of which one always gives more; "
            f"{_from(len(pictures))}"
        )
    given = dict.fromkeys(pictures, crops)
    most = [(-count * crops, name) for name, count in pictures.items()]
    heapq.heapify(most)
    total = crops * sum(pictures.values())
    while -most[0][0] > share * total * (1 + 1e-9):
        streams, name = most[0]
        given[name] -= 1
        if not given[name]:
            raise InputError(
                f"balance is {share:g}, but one crop of each of the {pictures[name]} pictures in "
                f"{name or 'no folder'} is more already; use more --crops than {crops}, or a "
                "greater --balance"
            )
        total -= pictures[name]
        heapq.heapreplace(most, (streams + pictures[name], name))
    return given


def _from(folders: int) -> str:
    if folders == 1:
        return "leave --balance out"
    return f"use --balance {math.ceil(1000 / folders) / 1000:g} or more"


def crops_by_folder(source: Source, config: PrepareConfig) -> dict[str, int]:
    """Crops of each training picture of a source by `folder_of`; empty where there is no balance.

    InputError where there are no crops to balance.
    """
    if config.balance == 1:
        return {}
    if not config.crops:
        raise InputError("balance limits crops; add --crops, or leave --balance out")
    if source.films:
        raise InputError(
            "balance is of pictures, but films give as many streams as they are long; leave it out"
        )
    keys = (key for unit in source.units for key in unit.item_keys())
    if config.split == "folder":
        keys = (key for key in keys if FOLDERS.get(key.split("/")[0]) == "train")
    found = Counter(folder_of(key, config.split) for key in keys)
    return balanced(found, config.crops, config.balance) if found else {}
