"""A warning of what is left out where plain pictures are read without being prepared.

`prepare` lists it in rejected.jsonl; whoever trains on a folder, or measures it, hears of it once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from jpeglm.config import LeftOut
from jpeglm.files import printable

__all__ = ["tell_left_out"]

_told: set[str] = set()
"""The same folder is read for several purposes."""


def tell_left_out(data: Path, rejected: Iterable[tuple[str, str]]) -> None:
    """Warn (`LeftOut`) of items (name, reason) that were not told of before."""
    new = {name: reason for name, reason in rejected if name not in _told}
    if not new:
        return
    _told.update(new)
    name, reason = next(iter(new.items()))
    why = reason if reason.startswith(name) else f"{name}: {reason}"
    more = f", and {len(new) - 1} more; jpeglm prepare lists all" if len(new) > 1 else ""
    warnings.warn(printable(f"left out of {data}: {why}{more}"), LeftOut, stacklevel=2)
