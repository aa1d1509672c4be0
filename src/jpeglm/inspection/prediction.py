"""What a macroblock is predicted to be: from what lies beside it, or from a frame before.

Intra prediction: ITU-T H.264, 8.3, from samples of the slice as they are before the loop filter.
Inter prediction: 8.4.2.2, from frames as they are shown. Planes are Y, Cb, Cr, int64 [H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jpeglm.inspection.macroblocks import CODED, Macroblock
from jpeglm.inspection.motion import Motion
from jpeglm.inspection.residual import residual

__all__ = ["PLANES", "Rebuilt", "rebuild"]

PLANES = ("Y", "Cb", "Cr")
Planes = dict[str, np.ndarray]


class Rebuilt:
    """A frame made of predictions and residuals, before the loop filter.

    samples: by plane; predictions and residuals: of each macroblock, by plane [16, 16] or [8, 8].
    """

    def __init__(self, columns: int, rows: int) -> None:
        sizes = {"Y": 16, "Cb": 8, "Cr": 8}
        self.columns = columns
        self.samples = {
            name: np.zeros((size * rows, size * columns), np.int64) for name, size in sizes.items()
        }
        self.known = {name: np.zeros(plane.shape, bool) for name, plane in self.samples.items()}
        """Which of them are there, in the slice that is made."""
        self.predictions: list[Planes] = []
        self.residuals: list[Planes] = []


def rebuild(
    macroblocks: Sequence[Macroblock],
    first: Sequence[int],
    columns: int,
    references: Sequence[Planes],
    chroma_offset: int,
) -> Rebuilt:
    """A frame of macroblocks. first: macroblock that each slice begins with; references: planes of
    frames that are shown before, the last one first."""
    made = Rebuilt(columns, len(macroblocks) // columns)
    for place, one in enumerate(macroblocks):
        if place in first:
            for known in made.known.values():
                known[:] = False
        made.predictions.append({})
        made.residuals.append(residual(one, chroma_offset))
        for name in PLANES:
            size = 16 if name == "Y" else 8
            y, x = size * (place // columns), size * (place % columns)
            if not one.intra:
                _inter(made, one, name, x, y, references)
            elif name == "Y" and one.type == "I 4×4":
                _blocks(made, one, x, y)
            else:
                # The two number their modes differently: vertical, horizontal, DC are 0, 1, 2 of
                # luma and 2, 1, 0 of chroma.
                mode = one.modes[0] if name == "Y" else (2, 1, 0, 3)[one.chroma_mode]
                area = _Area(made, name, x, y, size)
                _finish(made, name, x, y, area.predicted(mode))
    return made


def _finish(made: Rebuilt, name: str, x: int, y: int, prediction: np.ndarray) -> None:
    """A macroblock's plane of which the prediction is known."""
    size = len(prediction)
    made.predictions[-1][name] = prediction
    added = np.clip(prediction + made.residuals[-1][name], 0, 255)
    made.samples[name][y : y + size, x : x + size] = added
    made.known[name][y : y + size, x : x + size] = True


def _within(values: np.ndarray) -> np.ndarray:
    """Clipped to samples."""
    return np.asarray(np.clip(values, 0, 255))


# Intra


class _Area:
    """A square, and the samples around it that are there."""

    def __init__(self, made: Rebuilt, name: str, x: int, y: int, size: int) -> None:
        self.size = size
        plane, known = made.samples[name], made.known[name]
        self.has_left = x > 0 and bool(known[y, x - 1])
        self.has_above = y > 0 and bool(known[y - 1, x])
        self.has_corner = x > 0 and y > 0 and bool(known[y - 1, x - 1])
        nothing = np.zeros(size, np.int64)
        self.left = plane[y : y + size, x - 1] if self.has_left else nothing
        self.above = plane[y - 1, x : x + size] if self.has_above else nothing
        self.corner = int(plane[y - 1, x - 1]) if self.has_corner else 0
        beyond = plane[y - 1, x + size : x + 2 * size] if y else nothing[:0]
        there = len(beyond) == size and bool(known[y - 1, x + size])
        self.beyond = beyond if there else np.full(size, self.above[-1])
        """Above to the right; the last one above repeated where nothing is there."""

    def mean(self, left: np.ndarray | None = None, above: np.ndarray | None = None) -> int:
        """Of what is there; 128 of nothing."""
        near = [one for one in (left, above) if one is not None]
        if not near:
            return 128
        values = np.concatenate(near)
        return int((values.sum() + len(values) // 2) // len(values))

    def predicted(self, mode: int) -> np.ndarray:
        """Of 16 × 16 luma (8.3.3) or 8 × 8 chroma (8.3.4): vertical, horizontal, DC, plane."""
        size = self.size
        if mode == 0:
            return np.tile(self.above, (size, 1))
        if mode == 1:
            return np.tile(self.left[:, None], (1, size))
        if mode == 2:
            return self._means()
        half = size // 2
        ends = np.arange(1, half + 1)
        above = np.concatenate([[self.corner], self.above])
        left = np.concatenate([[self.corner], self.left])
        across = int((ends * (above[half + ends] - above[half - ends])).sum())
        down = int((ends * (left[half + ends] - left[half - ends])).sum())
        weight, shift = (5, 6) if size == 16 else (34, 6)
        b, c = (weight * across + 32) >> shift, (weight * down + 32) >> shift
        middle = 16 * (int(self.left[-1]) + int(self.above[-1]))
        place = np.arange(size) - (half - 1)
        return _within(middle + b * place[None] + c * place[:, None] + 16 >> 5)

    def _means(self) -> np.ndarray:
        """DC: one mean of luma, of chroma one for each block of 4 × 4."""
        left = self.left if self.has_left else None
        above = self.above if self.has_above else None
        if self.size == 16:
            return np.full((16, 16), self.mean(left, above))
        out = np.zeros((8, 8), np.int64)
        for y in (0, 4):
            for x in (0, 4):
                own = None if left is None else left[y : y + 4]
                over = None if above is None else above[x : x + 4]
                if x > y and over is not None:  # to the upper right, the one above counts alone
                    own = None
                if y > x and own is not None:
                    over = None
                out[y : y + 4, x : x + 4] = self.mean(own, over)
        return out

    def block(self, mode: int) -> np.ndarray:
        """Of 4 × 4 luma (8.3.1.2)."""
        if mode < 2:
            return self.predicted(mode)
        if mode == 2:
            return np.full(
                (4, 4),
                self.mean(
                    self.left if self.has_left else None, self.above if self.has_above else None
                ),
            )
        above = np.concatenate([self.above, self.beyond])
        if mode in (3, 7):  # down left, vertical left: only what lies above
            return _grid(LEANING[mode], above.tolist())
        edge = [*self.left[::-1].tolist(), self.corner, *self.above.tolist()]
        if mode == 8:  # horizontal up: only what lies to the left
            return _grid(LEANING[mode], self.left.tolist())
        return _grid(LEANING[mode], edge)


def _two(p: Sequence[int], i: int) -> int:
    return (p[i] + p[i + 1] + 1) >> 1


def _three(p: Sequence[int], i: int) -> int:
    """Around sample i, the ends repeated."""
    return (p[max(i - 1, 0)] + 2 * p[i] + p[min(i + 1, len(p) - 1)] + 2) >> 2


def _down_left(p: Sequence[int], x: int, y: int) -> int:
    return _three(p, x + y + 1)


def _down_right(p: Sequence[int], x: int, y: int) -> int:
    return _three(p, 4 + x - y)


def _vertical_right(p: Sequence[int], x: int, y: int) -> int:
    z = 2 * x - y
    if z >= 0:
        at = 4 + x - (y >> 1)
        return _two(p, at) if z % 2 == 0 else _three(p, at)
    return _three(p, 4) if z == -1 else _three(p, 5 - y)


def _horizontal_down(p: Sequence[int], x: int, y: int) -> int:
    z = 2 * y - x
    if z >= 0:
        at = 3 - y + (x >> 1)
        return _two(p, at) if z % 2 == 0 else _three(p, at + 1)
    return _three(p, 4) if z == -1 else _three(p, 3 + x)


def _vertical_left(p: Sequence[int], x: int, y: int) -> int:
    at = x + (y >> 1)
    return _two(p, at) if y % 2 == 0 else _three(p, at + 1)


def _horizontal_up(p: Sequence[int], x: int, y: int) -> int:
    z = x + 2 * y
    if z > 5:
        return p[3]
    at = y + (x >> 1)
    return _two(p, at) if z % 2 == 0 else _three(p, at + 1)


LEANING: dict[int, Callable[[Sequence[int], int, int], int]] = {
    3: _down_left,
    4: _down_right,
    5: _vertical_right,
    6: _horizontal_down,
    7: _vertical_left,
    8: _horizontal_up,
}
"""Modes by their numbers: the sample at x, y of an edge's samples p."""


def _grid(sample: Callable[[Sequence[int], int, int], int], samples: Sequence[int]) -> np.ndarray:
    return np.array([[sample(samples, x, y) for x in range(4)] for y in range(4)], np.int64)


def _blocks(made: Rebuilt, one: Macroblock, x: int, y: int) -> None:
    """16 blocks, each predicted from those before it."""
    whole = np.zeros((16, 16), np.int64)
    added, plane, known = made.residuals[-1]["Y"], made.samples["Y"], made.known["Y"]
    for mode, (column, row) in zip(one.modes, CODED):
        left, top = 4 * column, 4 * row
        prediction = _Area(made, "Y", x + left, y + top, 4).block(mode)
        own = slice(top, top + 4), slice(left, left + 4)
        whole[own] = prediction
        there = slice(y + top, y + top + 4), slice(x + left, x + left + 4)
        plane[there] = np.clip(prediction + added[own], 0, 255)
        known[there] = True
    made.predictions[-1]["Y"] = whole


# Inter


def _inter(
    made: Rebuilt, one: Macroblock, name: str, x: int, y: int, references: Sequence[Planes]
) -> None:
    size = 16 if name == "Y" else 8
    prediction = np.zeros((size, size), np.int64)
    for motion in one.motion:
        left, top, width, height = (value * size // 16 for value in motion[:4])
        plane = references[motion.reference][name]
        call = _luma if name == "Y" else _chroma
        prediction[top : top + height, left : left + width] = call(
            plane, x + left, y + top, width, height, motion
        )
    _finish(made, name, x, y, prediction)


def _around(plane: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Samples from x, y on; the border goes on for ever."""
    rows = np.clip(np.arange(y, y + height), 0, plane.shape[0] - 1)
    columns = np.clip(np.arange(x, x + width), 0, plane.shape[1] - 1)
    return np.asarray(plane[rows[:, None], columns[None]])


def _six(rows: np.ndarray) -> np.ndarray:
    """Between the third and fourth of each six neighbours of a row, times 32 (8-241)."""
    weights = (1, -5, 20, 20, -5, 1)
    width = rows.shape[1] - 5
    return np.asarray(
        sum(weight * rows[:, i : i + width] for i, weight in enumerate(weights)), np.int64
    )


def _rounded(values: np.ndarray, shift: int) -> np.ndarray:
    return _within((values + (1 << (shift - 1))) >> shift)


def _luma(plane: np.ndarray, x: int, y: int, width: int, height: int, motion: Motion) -> np.ndarray:
    """8.4.2.2.1: half samples of six neighbours, quarters the mean of two of those."""
    dx, dy = motion.vector
    fx, fy = dx & 3, dy & 3
    wide = _around(plane, x + (dx >> 2) - 2, y + (dy >> 2) - 2, width + 6, height + 6)

    def whole(right: int, below: int) -> np.ndarray:
        return wide[2 + below : 2 + below + height, 2 + right : 2 + right + width]

    def across(below: int) -> np.ndarray:
        return _rounded(_six(wide)[2 + below : 2 + below + height, :width], 5)

    def down(right: int) -> np.ndarray:
        return _rounded(_six(wide.T).T[:height, 2 + right : 2 + right + width], 5)

    def middle() -> np.ndarray:
        return _rounded(_six(_six(wide).T).T[:height, :width], 10)

    if fx % 2 == fy % 2 == 0:
        return (middle() if fy else across(0)) if fx else down(0) if fy else whole(0, 0)
    if fy == 0:
        pair = across(0), whole(fx // 2, 0)
    elif fx == 0:
        pair = down(0), whole(0, fy // 2)
    elif fx == 2:
        pair = middle(), across(fy // 2)
    elif fy == 2:
        pair = middle(), down(fx // 2)
    else:
        pair = across(fy // 2), down(fx // 2)
    return np.asarray((pair[0] + pair[1] + 1) >> 1)


def _chroma(
    plane: np.ndarray, x: int, y: int, width: int, height: int, motion: Motion
) -> np.ndarray:
    """8.4.2.2.2: the mean of four, weighted by eighths."""
    dx, dy = motion.vector
    fx, fy = dx & 7, dy & 7
    near = _around(plane, x + (dx >> 3), y + (dy >> 3), width + 1, height + 1)
    rows = (8 - fx) * near[:, :-1] + fx * near[:, 1:]
    return np.asarray(((8 - fy) * rows[:-1] + fy * rows[1:] + 32) >> 6)
