"""Products of a few tokens with a weight matrix, in the vector instructions of this processor.

Weights lie in panels of 64 output rows, inputs running slowest, so that one instruction advances
many rows of one token. Sums do not depend on the processor or on how many tokens share a tile:
floats are added by FMA, strictly in the order of the inputs, integers exactly.

    float32, bfloat16   [panels, inputs, 64]        expanded to float32 in registers
    int8                [panels, inputs / G, 64, G] times int8 activations, G inputs at a time

int8 activations have one scale a token, weights one a row; both are symmetric. Stored weights have
128 added, because the instruction of AVX-512 VNNI (G = 4) multiplies unsigned by signed. Without it
G is 2, and 16-bit products are added in pairs, which AVX2 does in one instruction.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from jpeglm.kernels import COMPILED, bits_of, intrinsic, kernel, magnitude

overload: Any
if COMPILED:
    from llvmlite import binding, ir
    from numba import extending
    from numba.core import cgutils, types

    overload = extending.overload
    _FEATURES = binding.get_host_cpu_features()
else:
    overload, _FEATURES = lambda *_, **__: staticmethod, {}

PANEL = 64
"""Rows of a weight matrix, or positions of the key cache, that lie side by side."""
_WIDE = _FEATURES.get("avx512f", False)
_VNNI = _WIDE and _FEATURES.get("avx512vnni", False)
_KIND = "vnni" if _VNNI else "avx2" if _FEATURES.get("avx2", False) else "plain"
FUSED = _FEATURES.get("fma", platform.machine().lower() in ("aarch64", "arm64"))
"""Whether a · b + c is rounded once; where it is, logits are equal to the bit on all processors."""
GROUP = 4 if _VNNI else 2
"""Inputs of one row of int8 weights that lie side by side."""
LEVEL = np.int8 if _VNNI else np.int16
"""What int8 activations are held in."""
_LANES_2, _LANES_4 = (64, 64) if _WIDE else (32, 16)  # what 32 or 16 vector registers hold
NARROW = 16
Quantised = tuple[np.ndarray, np.ndarray, np.ndarray]
"""int8 activations: levels [N, d in whole groups], float32 steps and int32 starts [N]."""


def _rows_of(context: Any, b: Any, signature: Any, arguments: Any) -> tuple[list[Any], list[Any]]:
    """(arrays, strides of their rows) of 2- or 3-dimensional arguments."""
    arrays = [
        context.make_array(kind)(context, b, array)
        for kind, array in zip(signature.args, arguments)
    ]
    strides = [
        cgutils.unpack_tuple(b, array.strides, kind.ndim)[0]
        for kind, array in zip(signature.args, arrays)
    ]
    return arrays, strides


def _place(b: Any, array: Any, offset: Any, kind: Any) -> Any:
    """A pointer to a `kind`, `offset` bytes into an array."""
    data = b.bitcast(array.data, ir.IntType(8).as_pointer())
    return b.bitcast(b.gep(data, [offset]), kind.as_pointer())


def _make_tile(tokens: int, lanes: int) -> Callable[..., Any]:
    """An intrinsic tile(x, w, out): out[t, l] = sum over i of x[t, i] w[i, l], i in order.

    x float32 [>= tokens, d], w [d, >= lanes] float32 or bfloat16 bits, out float32; rows are
    contiguous. numba cannot keep an array in registers, hence the vector instructions by hand.
    """

    @intrinsic
    def tile(context, x, w, out):
        def build(context, b, signature, arguments):
            int32, real = ir.IntType(32), ir.FloatType()
            vector, integers = ir.VectorType(real, lanes), ir.VectorType(int32, lanes)
            undefined = ir.Constant(vector, ir.Undefined)
            stored = context.get_data_type(signature.args[1].dtype)
            (x, w, out), (x_stride, w_stride, out_stride) = _rows_of(
                context, b, signature, arguments
            )
            depth = cgutils.unpack_tuple(b, x.shape, 2)[1]
            size = depth.type

            multiply_add = cgutils.get_or_insert_function(
                b.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f32"
            )
            sums = [cgutils.alloca_once_value(b, ir.Constant(vector, None)) for _ in range(tokens)]
            with cgutils.for_range(b, depth) as loop:
                row = _place(b, w, b.mul(loop.index, w_stride), ir.VectorType(stored, lanes))
                weight = b.load(row)
                weight.align = 1
                if isinstance(stored, ir.IntType):
                    shift = ir.Constant(integers, [16] * lanes)
                    weight = b.bitcast(b.shl(b.zext(weight, integers), shift), vector)
                for t, total in enumerate(sums):
                    at = b.add(b.mul(x_stride, size(t)), b.mul(loop.index, size(4)))
                    value = b.insert_element(undefined, b.load(_place(b, x, at, real)), int32(0))
                    spread = b.shuffle_vector(value, undefined, ir.Constant(integers, None))
                    b.store(b.call(multiply_add, [weight, spread, b.load(total)]), total)
            for t, total in enumerate(sums):
                b.store(b.load(total), _place(b, out, b.mul(out_stride, size(t)), vector)).align = 4
            return context.get_dummy_value()

        return types.void(x, w, out), build

    return tile


def _make_integer_tile(tokens: int, lanes: int, kind: str) -> Callable[..., Any]:
    """An intrinsic tile(q, w, out): out[t, r] += sum over i, k of q[t, G i + k] w[i, r, k].

    q [>= tokens, >= G d] of 32 / G bits, w uint8 [d, >= lanes, G], out int32 [>= tokens, >= lanes];
    kind, what multiplies: `vnni` (G = 4), `avx2` or `plain` (G = 2), which any processor has.
    """
    width, group = (16, 4) if kind == "vnni" else (8, 2)

    @intrinsic
    def tile(context, q, w, out):
        def build(context, b, signature, arguments):
            int32 = ir.IntType(32)
            vector = ir.VectorType(int32, width)
            bytes_, words = (ir.VectorType(ir.IntType(n), 16) for n in (8, 16))
            undefined = ir.Constant(vector, ir.Undefined)
            (q, w, out), (q_stride, w_stride, out_stride) = _rows_of(
                context, b, signature, arguments
            )
            depth = cgutils.unpack_tuple(b, w.shape, 3)[0]
            size = depth.type

            def constant(value: int) -> Any:
                return ir.Constant(vector, [value] * width)

            def instruction(name: str, result: Any, *operands: Any) -> Any:
                return cgutils.get_or_insert_function(
                    b.module, ir.FunctionType(result, operands), f"llvm.x86.{name}"
                )

            if kind == "vnni":
                dot = instruction("avx512.vpdpbusd.512", vector, vector, vector, vector)
            elif kind == "avx2":
                madd = instruction("avx2.pmadd.wd", vector, words, words)

            def weights(at: Any) -> tuple[Any, ...]:
                """What lies at `at` for `width` rows, as the products take it."""
                loaded = b.load(_place(b, w, at, vector if kind == "vnni" else bytes_))
                loaded.align = 1
                if kind == "vnni":
                    return (loaded,)
                if kind == "avx2":
                    return (b.zext(loaded, words),)
                none = ir.Constant(bytes_, ir.Undefined)
                halves = (ir.Constant(vector, list(range(k, 16, 2))) for k in (0, 1))
                return tuple(b.zext(b.shuffle_vector(loaded, none, h), vector) for h in halves)

            def add_products(total: Any, weight: tuple[Any, ...], value: Any) -> Any:
                if kind == "vnni":
                    return b.call(dot, [total, weight[0], value])
                if kind == "avx2":
                    return b.add(total, b.call(madd, [weight[0], b.bitcast(value, words)]))
                first = b.ashr(b.shl(value, constant(16)), constant(16))
                second = b.ashr(value, constant(16))
                return b.add(b.add(total, b.mul(weight[0], first)), b.mul(weight[1], second))

            columns = range(lanes // width)
            sums = []
            for t in range(tokens):
                for column in columns:
                    at = b.add(b.mul(out_stride, size(t)), size(4 * width * column))
                    start = b.load(_place(b, out, at, vector))
                    start.align = 4
                    sums.append(cgutils.alloca_once_value(b, start))
            with cgutils.for_range(b, depth) as loop:
                spread = []
                for t in range(tokens):
                    at = b.add(b.mul(q_stride, size(t)), b.mul(loop.index, size(4)))
                    some = b.load(_place(b, q, at, int32))
                    some.align = 1
                    value = b.insert_element(undefined, some, int32(0))
                    spread.append(b.shuffle_vector(value, undefined, constant(0)))
                for column in columns:
                    at = b.add(b.mul(loop.index, w_stride), size(group * width * column))
                    weight = weights(at)
                    for t in range(tokens):
                        total = sums[t * len(columns) + column]
                        b.store(add_products(b.load(total), weight, spread[t]), total)
            for t in range(tokens):
                for column in columns:
                    at = b.add(b.mul(out_stride, size(t)), size(4 * width * column))
                    total = b.load(sums[t * len(columns) + column])
                    b.store(total, _place(b, out, at, vector)).align = 4
            return context.get_dummy_value()

        return types.void(q, w, out), build

    return tile


tile_1 = _make_tile(1, PANEL)
tile_narrow = _make_tile(1, NARROW)
_tile_2 = _make_tile(2, _LANES_2)
_tile_4 = _make_tile(4, _LANES_4)
_INTEGER_1, _INTEGER_2, _INTEGER_4 = (64, 64, 64) if _VNNI else (64, 32, 16)
_integer_1 = _make_integer_tile(1, _INTEGER_1, _KIND)
_integer_2 = _make_integer_tile(2, _INTEGER_2, _KIND)
_integer_4 = _make_integer_tile(4, _INTEGER_4, _KIND)


def store(matrix: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """(panels, float32 scale [rows]) of a float32 matrix [rows, inputs]."""
    rows, width = matrix.shape
    scale = np.ones(rows, np.float32)
    if precision == "bfloat16":
        bits = np.ascontiguousarray(matrix).view(np.uint32)
        matrix = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    elif precision == "int8":
        scale = np.maximum(np.abs(matrix).max(axis=1), 1e-12).astype(np.float32) / np.float32(127)
        matrix = (np.rint(matrix / scale[:, None]) + 128).astype(np.uint8)
        width = -(-width // 4) * 4
    panels = np.zeros((-(-rows // PANEL) * PANEL, width), matrix.dtype)
    panels[:rows, : matrix.shape[1]] = matrix
    if precision == "int8":
        panels = panels.reshape(-1, PANEL, width // GROUP, GROUP)
    else:
        panels = panels.reshape(-1, PANEL, width)
    return np.ascontiguousarray(panels.swapaxes(1, 2)), scale


def as_stored(x: np.float32, array: np.ndarray) -> np.float32 | np.uint16:
    """A float32 as an element of `array`: itself, or its nearest bfloat16's bits (of two the even).

    Compiled code alone.
    """
    raise NotImplementedError


@overload(as_stored, jit_options={"_nrt": False})
def _as_stored(x, array):
    if array.dtype == types.uint16:

        def rounded(x, array):
            bits = bits_of(x)
            return np.uint16((bits + np.int32(0x7FFF) + ((bits >> 16) & np.int32(1))) >> 16)

        return rounded
    return lambda x, array: x


def ready(x: np.ndarray, weight: np.ndarray, quantised: Quantised) -> None:
    """Make x [N, d] ready for its products with `weight` in panels: for int8, fill `quantised`:
    levels [>= N, d in whole groups], their steps and starts [>= N]; else nothing.

    Compiled code alone, as `panel`: which product it is depends on the panels' form.
    """
    raise NotImplementedError


@overload(ready, jit_options={"_nrt": False})
def _ready(x, weight, quantised):
    if weight.ndim == 4:
        return lambda x, weight, quantised: _quantise(x, *quantised)
    return lambda x, weight, quantised: None


def panel(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    quantised: Quantised,
    scratch: tuple[np.ndarray, np.ndarray],
    p: int,
    out: np.ndarray,
) -> None:
    """Panel p of a product: out[n, r] = scale[r] · Σ weight[r, i] x[n, i] for its rows r. x [N, d];
    quantised: (levels, steps, starts) as `ready` made them; scratch: float32 and int32 [4, 64]."""
    raise NotImplementedError


@overload(panel, jit_options={"_nrt": False})
def _panel(x, weight, scale, quantised, scratch, p, out):
    if weight.ndim == 4:
        return _integer_panel
    return _float_panel


def _float_panel(x, weight, scale, quantised, scratch, p, out):
    block = scratch[0]
    tokens, rows = x.shape[0], len(scale)
    of_panel = weight[p]
    first = p * PANEL
    count = min(PANEL, rows - first)
    n = 0
    while n < tokens:
        if tokens - n >= 4:
            step = 4
            for lane in range(0, PANEL, _LANES_4):
                _tile_4(x[n : n + 4], of_panel[:, lane:], block[:, lane:])
        elif tokens - n >= 2:
            step = 2
            for lane in range(0, PANEL, _LANES_2):
                _tile_2(x[n : n + 2], of_panel[:, lane:], block[:, lane:])
        else:
            step = 1
            tile_1(x[n : n + 1], of_panel, block)
        for t in range(step):
            for r in range(count):
                out[n + t, first + r] = block[t, r] * scale[first + r]
        n += step


@kernel(nogil=True)
def _quantise(x, levels, steps, starts):
    """Rows of x as int8: levels[n, i] = x[n, i] / steps[n]; starts: what the weights' 128 adds."""
    for n in range(x.shape[0]):
        peak = max(magnitude(x[n]), np.float32(1e-12))
        steps[n] = peak / np.float32(127)
        inverse = np.float32(127) / peak
        total = np.int32(0)
        for i in range(x.shape[1]):
            level = np.int32(np.rint(x[n, i] * inverse))
            levels[n, i] = level
            total += level
        for i in range(x.shape[1], (x.shape[1] + 3) // 4 * 4):
            levels[n, i] = 0
        starts[n] = -128 * total


def _integer_panel(x, weight, scale, quantised, scratch, p, out):
    levels, steps, starts = quantised
    sums = scratch[1]
    tokens, rows = x.shape[0], len(scale)
    of_panel = weight[p]
    first = p * PANEL
    count = min(PANEL, rows - first)
    n = 0
    while n < tokens:
        step = 4 if tokens - n >= 4 else 2 if tokens - n >= 2 else 1
        for t in range(step):
            for r in range(PANEL):
                sums[t, r] = starts[n + t]
        if step == 4:
            for lane in range(0, PANEL, _INTEGER_4):
                _integer_4(levels[n : n + 4], of_panel[:, lane:], sums[:, lane:])
        elif step == 2:
            for lane in range(0, PANEL, _INTEGER_2):
                _integer_2(levels[n : n + 2], of_panel[:, lane:], sums[:, lane:])
        else:
            _integer_1(levels[n : n + 1], of_panel, sums)
        for t in range(step):
            unit = steps[n + t]
            for r in range(count):
                out[n + t, first + r] = np.float32(sums[t, r]) * (unit * scale[first + r])
        n += step
