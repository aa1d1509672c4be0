"""`njit` and `kernel`: numba's compiler, or the plain function where numba is not installed.

GPU hosts often lack numba. Training on token shards needs none, and the grammar's kernels are plain
Python underneath: they then run some hundred times slower, which is enough to draw a few sample
pictures. Everything that would be unusable that slow asks for `COMPILED`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import numba

    COMPILED = True
except ModuleNotFoundError:
    COMPILED = False

Decorator = Callable[[Any], Any]


def _compiled(**options: Any) -> Decorator:
    if COMPILED:
        return numba.njit(cache=True, **options)
    return lambda function: function


def njit(**options: Any) -> Decorator:
    """numba's `njit`, cached; the plain function where numba is not installed."""
    # Said aloud, because a function compiled for a kernel's sake would take over its lack.
    return _compiled(_nrt=True, **options)


def kernel(**options: Any) -> Decorator:
    """`njit` without reference counts: for functions that make no array and return none.

    numba counts a reference to every array that a tuple hands on, each count an atomic operation;
    in state machines, whose steps take a spec of several arrays, that was half of the time.
    Compilation fails where a kernel makes an array; that none returns one is tested.
    """
    return _compiled(_nrt=False, **options)


__all__ = ["COMPILED", "kernel", "njit"]
