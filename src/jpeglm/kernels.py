"""`njit`: numba's compiler, or the plain function where numba is not installed.

GPU hosts often lack numba. Training on token shards needs none, and the grammar's kernels are plain
Python underneath: they then run some hundred times slower, which is enough to draw a few sample
pictures. Everything that would be unusable that slow asks for `COMPILED`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from numba import njit

    COMPILED = True
except ModuleNotFoundError:
    COMPILED = False

    def njit(*_: Any, **__: Any) -> Callable[[Any], Any]:  # type: ignore[no-redef]
        """Leave the decorated function as it is; always called with options here."""
        return lambda function: function


__all__ = ["COMPILED", "njit"]
