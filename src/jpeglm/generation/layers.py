"""What a Llama layer does beside its products: norms, rotary positions, attention, gates.

Sums have an order of their own, which no compiler chooses. Arrays are float32, [tokens, width]
where nothing else is said, vectors [width]; results go to the last argument, or to the first.
"""

from __future__ import annotations

import numpy as np

from jpeglm.generation.matmul import NARROW, PANEL, tile_1, tile_narrow
from jpeglm.kernels import exp, highest, kernel, multiply_add

_ORDERED = {"nsz"}
"""Neither `reassoc`, by which sums would be ordered when a caller is compiled, and each in its own
way, nor `contract`, by which each processor's compiler would choose what is rounded once."""


@kernel(fastmath=_ORDERED, nogil=True)
def _sum(row):
    """Of float32 [n], in an order that no compiler chooses: eight sums side by side."""
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    e, f, g, h = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    whole = len(row) // 8 * 8
    for i in range(0, whole, 8):
        a += row[i]
        b += row[i + 1]
        c += row[i + 2]
        d += row[i + 3]
        e += row[i + 4]
        f += row[i + 5]
        g += row[i + 6]
        h += row[i + 7]
    for i in range(whole, len(row)):
        a += row[i]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel(fastmath=_ORDERED, nogil=True)
def rms_norm(x, gain, eps, out):
    """out = x / sqrt(mean(x²) + eps) · gain, a token at a time."""
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] * x[n, i]
        total = _sum(out[n])
        factor = np.float32(1) / np.sqrt(total / np.float32(x.shape[1]) + eps)
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] * factor * gain[i]


@kernel(nogil=True)
def add(x, more):
    """x += more."""
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[n, i] += more[n, i]


@kernel(fastmath=_ORDERED, nogil=True)
def rotate(vector, cos, sin):
    """Rotary embedding of one head, halves paired as Hugging Face does (Su et al. 2021)."""
    half = len(vector) // 2
    for i in range(half):
        a, b = vector[i], vector[i + half]
        vector[i] = multiply_add(a, cos[i], -(b * sin[i]))
        vector[i + half] = multiply_add(b, cos[i], a * sin[i])


@kernel(fastmath=_ORDERED, nogil=True)
def attend(query, keys, values, length, scale, weight, out):
    """One head of one token over `length` positions.

    query [1, head], keys in panels [T / 64, head, 64], values [T, head padded], both float32 or
    bfloat16 bits; weight [1, T] and out [1, head padded] scratch and result.
    """
    for p in range((length + PANEL - 1) // PANEL):
        tile_1(query, keys[p], weight[:, p * PANEL :])
    row = weight[0]
    peak = highest(row[:length])
    for t in range(length):
        row[t] = exp((row[t] - peak) * scale)
    share = np.float32(1) / _sum(row[:length])
    for t in range(length):
        row[t] *= share
    lane, width = 0, values.shape[1]
    while lane < width:
        if width - lane >= PANEL:
            tile_1(weight[:, :length], values[:, lane:], out[:, lane:])
            lane += PANEL
        else:
            tile_narrow(weight[:, :length], values[:, lane:], out[:, lane:])
            lane += NARROW


@kernel(fastmath=_ORDERED, nogil=True, error_model="numpy")
def swiglu(both, out):
    """SwiGLU: silu(gate) · up; both [N, 2f] holds gate, then up.

    Python's model of errors would look for a divisor of 0 in every lane, ten times as slow.
    """
    inner = out.shape[1]
    for n in range(out.shape[0]):
        gate, up, row = both[n, :inner], both[n, inner:], out[n]
        for i in range(inner):
            row[i] = gate[i] / (np.float32(1) + exp(min(-gate[i], np.float32(87)))) * up[i]
