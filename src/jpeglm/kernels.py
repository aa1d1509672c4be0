"""`njit` and `kernel`: numba's compiler, or the plain function where there is no numba that works.

GPU hosts often lack numba. Training on token shards needs none, and the grammar's kernels are plain
Python underneath: they then run some hundred times slower, which is enough to draw a few sample
pictures. Everything that would be unusable that slow asks for `COMPILED`.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

try:
    import numba
    from llvmlite import ir
    from numba import extending
    from numba.core import cgutils, types
    from numba.core.caching import IndexDataCacheFile

    COMPILED = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
except ImportError:  # a numba that does not know this numpy says so in the same way
    COMPILED = False

F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """Gives a function of the same signature, compiled when it is first called."""

    def __call__(self, function: F, /) -> F: ...


_KERNEL = re.compile(rb"^@(kernel|njit|intrinsic|overload)\b", re.MULTILINE)
_IMPORT = re.compile(rb"^from jpeglm((?:\.\w+)+) import (\([^)]*\)|.*)", re.MULTILINE)
_CONSTANT = re.compile(rb"\b[A-Z][A-Z0-9_]+\b")


def kernel_sources(home: Path) -> list[Path]:
    """The package's files that compiled code comes from: those with kernels, and all that these
    take constants from."""
    found: dict[Path, bytes] = {}
    waiting = sorted(file for file in home.rglob("*.py") if _KERNEL.search(file.read_bytes()))
    while waiting:
        file = waiting.pop()
        if file not in found and file.exists():
            found[file] = file.read_bytes()
            for name, what in _IMPORT.findall(found[file]):
                if _CONSTANT.search(what):
                    place = home.joinpath(*name.decode().strip(".").split("."))
                    waiting += [place.with_suffix(".py"), place / "__init__.py"]
    return sorted(found)


@lru_cache(maxsize=1)
def _sources() -> str:
    """A fingerprint of the files whose kernels others call."""
    files = kernel_sources(Path(__file__).parent)
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files)).hexdigest()


@lru_cache(maxsize=1)
def _say_uncached() -> None:
    """Once a process: compiled code is not kept."""
    print(
        "compiled code cannot be kept (no folder for it can be written to), so every start "
        "compiles again; set NUMBA_CACHE_DIR to a folder with room",
        file=sys.stderr,
    )


if COMPILED:

    class _Kept(IndexDataCacheFile):
        """numba's cache files of a function, which stop nobody: a damaged one (a full disk, a
        machine that lost power) counts as missing and is written anew, one that cannot be written
        is done without."""

        def _load_index(self) -> dict[Any, str]:
            try:
                index: dict[Any, str] = super()._load_index()  # type: ignore[no-untyped-call]
            except Exception:  # unpickling damaged bytes raises anything
                return {}
            return index

        def _load_data(self, name: str) -> Any:
            content = Path(self._data_path(name)).read_bytes()
            if hashlib.blake2b(content[DIGEST:], digest_size=DIGEST).digest() != content[:DIGEST]:
                raise OSError("damaged")  # `load` takes it as missing
            return pickle.loads(content[DIGEST:])

        def _save_data(self, name: str, data: Any) -> None:
            content = self._dump(data)
            with self._open_for_write(self._data_path(name)) as file:
                file.write(hashlib.blake2b(content, digest_size=DIGEST).digest() + content)

        def save(self, key: Any, data: Any) -> None:
            try:
                super().save(key, data)  # type: ignore[no-untyped-call]
            except OSError:
                _say_uncached()


DIGEST = 16
"""Bytes of the digest before a cached function."""


def _compiled(**options: Any) -> Decorator:
    def compile_later(function: Any) -> Any:
        dispatcher = numba.njit(**options)(function)
        try:
            dispatcher.enable_caching()
        except RuntimeError:  # no folder that can be written
            _say_uncached()
            return dispatcher
        # numba takes a function from its cache unless the function's own file has changed. A kernel
        # that it calls lies compiled in there too, perhaps as it was before.
        cache = dispatcher._cache
        stamp = (cache._impl.locator.get_source_stamp(), _sources())
        cache._cache_file = _Kept(cache._cache_path, cache._impl.filename_base, stamp)
        return dispatcher

    return compile_later if COMPILED else lambda function: function


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


def record(**fields: Any) -> np.dtype[Any]:
    """The type of a table's rows, whose fields are attributes, for numba and for plain Python."""
    return np.dtype((np.record, np.dtype(list(fields.items()), align=True)))


def intrinsic(build: Callable[..., Any]) -> Callable[..., Any]:
    """numba's `intrinsic`: a function whose instructions `build`(context, *types) writes, called
    with values of these types by compiled code alone."""
    made: Callable[..., Any] = extending.intrinsic(build) if COMPILED else build
    return made


LOWEST = np.float32(-87)
"""Where `exp` stops falling."""

if COMPILED:

    @intrinsic
    def float_of(context, bits):
        """The float32 whose bits an int32 holds."""

        def build(context, b, signature, arguments):
            return b.bitcast(arguments[0], ir.FloatType())

        return types.float32(types.int32), build

    @intrinsic
    def bits_of(context, x):
        """The bits of a float32 as an int32."""

        def build(context, b, signature, arguments):
            return b.bitcast(arguments[0], ir.IntType(32))

        return types.int32(types.float32), build

    @intrinsic
    def multiply_add(context, a, b, c):
        """a b + c of float32, rounded once where the processor can. `contract` would leave it to
        the compiler which product of two is rounded, and ARM's chooses otherwise than x86's."""

        def build(context, builder, signature, arguments):
            real = ir.FloatType()
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(real, [real] * 3), "llvm.fmuladd.f32"
            )
            return builder.call(function, arguments)

        return types.float32(types.float32, types.float32, types.float32), build

    _LOG2_E = np.float32(1.44269504)
    _LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
    _E6, _E5, _E4 = (
        np.float32(1.9875691500e-4),
        np.float32(1.3981999507e-3),
        np.float32(8.3334519073e-3),
    )
    _E3, _E2, _E1 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(0.5)

    @kernel(fastmath={"nsz"}, nogil=True)
    def exp(x):
        """float32 e^x for x below 88, to 2e-7 (Cephes' expf); unlike the library's it vectorises.
        Below LOWEST it is e^-87."""
        x = max(x, LOWEST)
        k = np.floor(multiply_add(x, _LOG2_E, np.float32(0.5)))
        r = multiply_add(-k, _LN2_LOW, multiply_add(-k, _LN2_HIGH, x))
        p = multiply_add(multiply_add(multiply_add(_E6, r, _E5), r, _E4), r, _E3)
        p = multiply_add(multiply_add(p, r, _E2), r, _E1)
        power = float_of(np.int32((np.int32(k) + 127) << 23))
        return (multiply_add(p * r, r, r) + np.float32(1)) * power

else:

    def exp(x):
        """The same, by numpy."""
        return np.exp(np.maximum(np.float32(x), LOWEST))

    def float_of(bits):
        """The same, by numpy."""
        return np.int32(bits).view(np.float32)

    def bits_of(x):
        """The same, by numpy."""
        return np.float32(x).view(np.int32)

    def multiply_add(a, b, c):
        """The same, rounded twice."""
        return np.float32(a) * np.float32(b) + np.float32(c)


_LN2_1, _LN2_2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # fdlibm's halves
_ATANH = tuple(1 / (2 * n + 1) for n in range(12))


@kernel()
def log(x):
    """ln x of a positive float64, to 1e-15, by operations that IEEE 754 fixes: the C library's
    differs from one machine to the next. With x = m 2^k, 2 artanh((m - 1) / (m + 1)) + k ln 2."""
    m, k = math.frexp(x)
    if m < 0.7071067811865476:
        m *= 2.0
        k -= 1
    s = (m - 1.0) / (m + 1.0)
    square, series = s * s, 0.0
    for n in range(11, -1, -1):
        series = series * square + _ATANH[n]
    return k * _LN2_1 + (2.0 * s * series + k * _LN2_2)


_BELOW_SIGN = np.int32(0x7FFFFFFF)


@kernel(nogil=True)
def highest(row):
    """Largest of float32 [n], none NaN: as integers in the same order, whose maximum vectorises
    (six times as fast)."""
    top = np.int32(-(1 << 31))
    for i in range(len(row)):
        bits = bits_of(row[i])
        top = max(top, bits ^ ((bits >> 31) & _BELOW_SIGN))
    return float_of(np.int32(top ^ ((top >> 31) & _BELOW_SIGN)))


@kernel(nogil=True)
def magnitude(row):
    """Largest absolute value of float32 [n], none NaN."""
    top = np.int32(0)
    for i in range(len(row)):
        top = max(top, bits_of(row[i]) & _BELOW_SIGN)
    return float_of(np.int32(top))


__all__ = [
    "COMPILED",
    "LOWEST",
    "bits_of",
    "exp",
    "float_of",
    "highest",
    "intrinsic",
    "kernel",
    "log",
    "magnitude",
    "multiply_add",
    "njit",
]
