"""Cosine and sine of rotary positions, the same to the bit on every machine.

numpy and the C library choose their `cos`, `sin` and `pow` by the processor, and these differ in
the last bit, which int8 turns into another picture. Here the frequencies come from decimal
arithmetic, which is integers, and the rest is multiplications and additions in float64, which IEEE
754 fixes; then everything is rounded to float32 once. Angles are float32 products, as Hugging Face
has them.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext

import numpy as np

_HALF_PI = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624871116645580e-21)
"""π/2 in parts of 33 bits, whose products with whole numbers below 2^20 are exact (fdlibm)."""
_SINE = tuple((-1) ** n / float(np.prod(range(1, 2 * n + 2), dtype=object)) for n in range(9))
_COSINE = tuple((-1) ** n / float(np.prod(range(1, 2 * n + 1), dtype=object)) for n in range(9))
"""Taylor's coefficients; beyond them less than 1e-17 is left at π/4."""


def rotary_tables(base: float, head: int, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin), float32 [positions, head / 2], of position · base^(-2i / head)
    (Su et al. 2021, arXiv 2104.09864, 3.2.2)."""
    with localcontext(Context(prec=30)):
        powers = [Decimal(base) ** (Decimal(-2 * i) / head) for i in range(head // 2)]
    inverse = np.array([float(power) for power in powers]).astype(np.float32)
    angles = np.arange(positions, dtype=np.float32)[:, None] * inverse
    return cos_sin(angles.astype(np.float64))


def cos_sin(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin), float32, of float64 angles of at most 1.6 million radians."""
    turns = np.rint(angles * (2 / np.pi))
    for part in _HALF_PI:
        angles = angles - turns * part
    square = angles * angles
    cosine, sine = np.zeros_like(square), np.zeros_like(square)
    for c, s in zip(reversed(_COSINE), reversed(_SINE)):
        cosine = cosine * square + c
        sine = sine * square + s
    sine = sine * angles
    quarter = turns.astype(np.int64) & 3
    odd = (quarter & 1).astype(bool)
    cos = np.where(odd, sine, cosine) * np.where((quarter == 1) | (quarter == 2), -1.0, 1.0)
    sin = np.where(odd, cosine, sine) * np.where(quarter >= 2, -1.0, 1.0)
    return cos.astype(np.float32), sin.astype(np.float32)
