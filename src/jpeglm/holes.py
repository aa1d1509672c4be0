"""Pictures with holes: what stays comes first, then what is drawn anew.

    head  <mcu_0> ids of MCUs 0–17  <mcu_22> ids of 22–63  <hole>  <mcu_18> ids of 18–21  EOS

A span is a stretch of MCUs in order; each begins with the address of its first MCU, whatever stays
before `<hole>` and what is missing behind it, both in order. So one arrangement serves any set of
MCUs, and a model that only ever looks back sees all that stays (Bavarian et al. 2022, fill in the
middle). `Tokenizer.around` makes it. It needs MCUs that stand apart: a restart at every one.
"""

from __future__ import annotations

import numpy as np


def spans(chosen: np.ndarray) -> np.ndarray:
    """int64 [S, 2]: first MCU of each stretch of True in bool [MCUs], and how many there are."""
    edges = np.diff(np.concatenate([[0], np.asarray(chosen, np.int8), [0]]))
    first, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return np.stack([first, end - first], axis=1).astype(np.int64)


def random_hole(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """bool [rows * columns]: one to three rectangles of MCUs anywhere, but never all of a picture
    that has more than one."""
    while True:
        hole = np.zeros((rows, columns), bool)
        for _ in range(int(rng.integers(1, 4))):
            height, width = rng.integers(1, rows + 1), rng.integers(1, columns + 1)
            top, left = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
            hole[top : top + height, left : left + width] = True
        if not hole.all() or hole.size == 1:
            return hole.reshape(-1)
