"""Motion vectors of a frame: each is predicted from its neighbours (ITU-T H.264, 8.4.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["SKIPPED", "Motion", "MotionField"]

SKIPPED = "skipped"
UNKNOWN, INTRA = -2, -1
"""In place of a reference: not there yet or of another slice; without motion."""


class Motion(NamedTuple):
    """A part of a macroblock, and where it comes from."""

    x: int
    y: int
    width: int
    height: int
    """Luma samples, in the macroblock."""
    reference: int
    """0 is the frame before, 1 the one before that."""
    vector: tuple[int, int]
    """To the right and down, in quarters of a sample."""
    predicted: tuple[int, int]
    """What the neighbours suggest; the stream says the difference."""


class MotionField:
    """References and vectors of the 4 × 4 blocks of a frame so far."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.references = np.full((4 * rows, 4 * columns), UNKNOWN)
        self.vectors = np.zeros((4 * rows, 4 * columns, 2), np.int64)

    def begin_slice(self, first: int) -> None:
        """Forget what came before: no slice looks into another."""
        self.references[:] = UNKNOWN

    def _corner(self, place: int) -> tuple[int, int]:
        """Row and column, in blocks of 4, of a macroblock."""
        return 4 * (place // self.columns), 4 * (place % self.columns)

    def intra(self, place: int) -> None:
        """A macroblock without motion."""
        row, column = self._corner(place)
        self.references[row : row + 4, column : column + 4] = INTRA
        self.vectors[row : row + 4, column : column + 4] = 0

    def skip(self, place: int) -> Motion:
        """P_Skip (8.4.1.1): as predicted, but still where a neighbour is still or missing."""
        row, column = self._corner(place)
        still = False
        for near in ((row, column - 1), (row - 1, column)):
            reference, vector = self._at(*near)
            still |= reference == UNKNOWN or (reference == 0 and vector == (0, 0))
        shape = (0, 0, 16, 16)
        vector = (0, 0) if still else self._predicted(row, column, shape, 0)
        return self._set(place, shape, 0, vector, vector)

    def move(
        self, place: int, shape: tuple[int, int, int, int], reference: int, change: tuple[int, int]
    ) -> Motion:
        """A partition (x, y, width, height) of a macroblock, `change` off what is predicted."""
        predicted = self._predicted(*self._corner(place), shape, reference)
        vector = (predicted[0] + change[0], predicted[1] + change[1])
        return self._set(place, shape, reference, vector, predicted)

    def _set(
        self,
        place: int,
        shape: tuple[int, int, int, int],
        reference: int,
        vector: tuple[int, int],
        predicted: tuple[int, int],
    ) -> Motion:
        x, y, width, height = shape
        row, column = self._corner(place)
        rows = slice(row + y // 4, row + (y + height) // 4)
        own = slice(column + x // 4, column + (x + width) // 4)
        self.references[rows, own] = reference
        self.vectors[rows, own] = vector
        return Motion(*shape, reference, vector, predicted)

    def _at(self, row: int, column: int) -> tuple[int, tuple[int, int]]:
        rows, columns = self.references.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return UNKNOWN, (0, 0)
        reference = int(self.references[row, column])
        x, y = self.vectors[row, column].tolist() if reference >= 0 else (0, 0)
        return reference, (x, y)

    def _predicted(
        self, row: int, column: int, shape: tuple[int, int, int, int], reference: int
    ) -> tuple[int, int]:
        """8.4.1.3: the median of those to the left, above, and above to the right."""
        x, y, width, height = shape
        row, column = row + y // 4, column + x // 4
        left, above = self._at(row, column - 1), self._at(row - 1, column)
        right = self._at(row - 1, column + width // 4)
        if right[0] == UNKNOWN:
            right = self._at(row - 1, column - 1)
        if (width, height) == (16, 8):
            one = left if y else above
            if one[0] == reference:
                return one[1]
        elif (width, height) == (8, 16):
            one = right if x else left
            if one[0] == reference:
                return one[1]
        if above[0] == right[0] == UNKNOWN and left[0] != UNKNOWN:
            return left[1]
        same = [one[1] for one in (left, above, right) if one[0] == reference]
        if len(same) == 1:
            return same[0]
        vectors = [left[1], above[1], right[1]]
        return sorted(v[0] for v in vectors)[1], sorted(v[1] for v in vectors)[1]
