"""The most probable tokens, found without sorting all of them: top-k and top-p.

Equal weights count in the order of their tokens, so that the choice is the same everywhere. Kernels
take weight float32 [V] in [0, 1], and order int64 [V], scratch and result.
"""

from __future__ import annotations

import numpy as np

from jpeglm.kernels import float_of, kernel

FEW = 128
"""So many tokens are found sooner by insertion than by a heap of all."""


@kernel()
def _threshold(weight, count):
    """A value that `count` of the weights, all in [0, 1], reach, and hardly more do: bisection of
    their bits, which are in their order; each count of the others is a few vector instructions."""
    low, high = np.int32(0), np.int32(0x3F800001)
    while high - low > 1:
        middle = (low + high) >> 1
        at = float_of(np.int32(middle))
        reached = np.int32(0)
        for i in range(len(weight)):
            reached += np.int32(weight[i] >= at)
        if reached < count:
            high = middle
        else:
            low = middle
            if reached <= count + count // 2:
                break
    return float_of(np.int32(low))


@kernel()
def _best(weight, count, order):
    """The `count` largest weights' places, as `nucleus` leaves them: the last `count` of `order`.

    All of them are written: `count` weights reach `least`, and NaN, which reaches nothing, is not
    passed over either.
    """
    end = len(weight) - 1  # the first of them comes last
    least = _threshold(weight, count)
    n = 0
    for i in range(len(weight)):
        w = weight[i]
        if w < least:
            continue
        if n < count:
            n += 1
        elif w <= weight[order[end - n + 1]]:
            continue
        place = end - n + 1
        while place < end and weight[order[place + 1]] < w:
            order[place] = order[place + 1]
            place += 1
        order[place] = i


@kernel()
def _sift(weight, order, place, size):
    """Restore the heap order[:size] below `place`: on top the largest weight, of equals the
    first."""
    token = order[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        a = order[child]
        if child + 1 < size:
            b = order[child + 1]
            if weight[b] > weight[a] or (weight[b] == weight[a] and b < a):
                child += 1
                a = b
        if weight[token] > weight[a] or (weight[token] == weight[a] and token < a):
            break
        order[place] = a
        place = child
    order[place] = token


@kernel()
def nucleus(weight, total, top_k, top_p, order):
    """How many of the most probable tokens are in the nucleus: the last so many of `order`, the
    most probable one last, of equals the first."""
    size = len(weight)
    kept = size if top_k == 0 else min(top_k, size)
    inside = 0.0
    if kept <= FEW:
        _best(weight, kept, order)
        for i in range(kept):
            inside += weight[order[size - 1 - i]]
    else:
        for i in range(size):
            order[i] = i
        for place in range(size // 2 - 1, -1, -1):
            _sift(weight, order, place, size)
        for i in range(kept):
            last = size - 1 - i
            order[0], order[last] = order[last], order[0]
            _sift(weight, order, 0, last)
            inside += weight[order[last]]
            if top_k == 0 and inside >= top_p * total:
                return i + 1
    if top_p < 1.0:
        share, inside = top_p * inside, 0.0
        for i in range(kept):
            inside += weight[order[size - 1 - i]]
            if inside >= share:
                return i + 1
    return kept
