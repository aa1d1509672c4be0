"""From levels to what is added to a prediction: scaling, integer transform (H.264, 8.5)."""

from __future__ import annotations

import numpy as np

from jpeglm.inspection.macroblocks import Macroblock

__all__ = ["ZIGZAG_4", "chroma_qp", "residual", "step_size"]

ZIGZAG_4 = np.array([0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15])
"""Place in zigzag order → row-major place (Figure 8-8)."""
NORMS = np.array(
    [(10, 16, 13), (11, 18, 14), (13, 20, 16), (14, 23, 18), (16, 25, 20), (18, 29, 23)]
)
"""8.5.9: of places with even column and row, with odd ones, and the others."""
PLACE = np.array([0 if x % 2 == y % 2 == 0 else 1 if x % 2 == y % 2 else 2
                  for y in range(4) for x in range(4)]).reshape(4, 4)  # fmt: skip
CHROMA_QP = (29, 30, 31, 32, 32, 33, 34, 34, 35, 35, 36, 36, 37, 37, 37, 38, 38, 38, 39, 39, 39, 39)
"""Of 30 and more (Table 8-15)."""
HADAMARD = np.array([(1, 1, 1, 1), (1, 1, -1, -1), (1, -1, -1, 1), (1, -1, 1, -1)])
PAIR = np.array([(1, 1), (1, -1)])


def chroma_qp(qp: int, offset: int) -> int:
    """The quantiser of chroma where luma has `qp`."""
    index = min(max(qp + offset, 0), 51)
    return index if index < 30 else CHROMA_QP[index - 30]


def step_size(qp: int) -> float:
    """What a level stands for: it doubles every six."""
    return float((0.625, 0.6875, 0.8125, 0.875, 1, 1.125)[qp % 6] * 2 ** (qp // 6))


def residual(one: Macroblock, offset: int) -> dict[str, np.ndarray]:
    """int64 of Y [16, 16], Cb and Cr [8, 8]: what the levels of a macroblock add; offset: of
    chroma's quantiser."""
    found = {"Y": np.zeros((16, 16), np.int64)}
    means = _luma_means(one)
    for row in range(4):
        for column in range(4):
            block = one.block("Y", column, row)
            mean = None if means is None else int(means[row, column])
            _put(
                found["Y"], column, row, _transformed(block.levels if block else None, one.qp, mean)
            )
    qp = chroma_qp(one.qp, offset)
    for plane in ("Cb", "Cr"):
        found[plane] = np.zeros((8, 8), np.int64)
        first = one.block(f"{plane} DC")
        levels = np.array(first.levels if first else [0] * 4).reshape(2, 2)
        scaled = (PAIR @ levels @ PAIR * (16 * NORMS[qp % 6, 0]) << qp // 6) >> 5
        for number in range(4):
            column, row = number % 2, number // 2
            block = one.block(plane, column, row)
            mean = int(scaled[row, column])
            _put(found[plane], column, row, _transformed(block.levels if block else None, qp, mean))
    return found


def _luma_means(one: Macroblock) -> np.ndarray | None:
    """int64 [4, 4]: the first coefficient of each block of Intra_16x16 (8.5.10); None of others."""
    first = one.block("Y DC")
    if first is None:
        return None
    levels = np.zeros(16, np.int64)
    levels[ZIGZAG_4] = first.levels
    sums = HADAMARD @ levels.reshape(4, 4) @ HADAMARD
    scale, shift = 16 * NORMS[one.qp % 6, 0], one.qp // 6
    if shift >= 6:
        return np.asarray(sums * scale << (shift - 6))
    return np.asarray((sums * scale + (1 << (5 - shift))) >> (6 - shift))


def _put(plane: np.ndarray, column: int, row: int, block: np.ndarray) -> None:
    plane[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = block


def _transformed(levels: list[int] | None, qp: int, mean: int | None) -> np.ndarray:
    """int64 [4, 4]; mean: the first coefficient where it comes from elsewhere, already scaled."""
    flat = np.zeros(16, np.int64)
    if levels:
        flat[ZIGZAG_4[16 - len(levels) :]] = levels
    scaled = flat.reshape(4, 4) * NORMS[qp % 6][PLACE] << qp // 6
    if mean is not None:
        scaled[0, 0] = mean
    return (_half(_half(scaled).T).T + 32) >> 6


def _half(rows: np.ndarray) -> np.ndarray:
    """The one-dimensional transform of each row (8.5.12.2)."""
    a, b, c, d = rows.T
    even, odd = (a + c, a - c), ((b >> 1) - d, b + (d >> 1))
    return np.stack([even[0] + odd[1], even[1] + odd[0], even[1] - odd[0], even[0] - odd[1]], 1)
