"""Fréchet and kernel distances between two sets of features, with intervals.

Fréchet (Heusel et al. 2017): |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½, Gaussians fitted to the
features. The last term is the sum of singular values of A Bᵀ with A and B the centred features over
√(N − 1): no matrix root, exact with fewer pictures than dimensions, and fast enough to resample.
It is biased upwards at small N. KID (Bińkowski et al. 2018), the squared maximum mean discrepancy
under the kernel (x·y / d + 1)³, is not, so it stands beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jpeglm.config import InputError


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between features [N, d] and [M, d]; N and M at least 2."""
    if len(a) < 2 or len(b) < 2:
        raise InputError(
            f"a Fréchet distance needs at least two pictures on each side; there are {len(a)} and "
            f"{len(b)}"
        )
    if a.shape[1] != b.shape[1]:
        raise InputError(f"features have {a.shape[1]} and {b.shape[1]} numbers; use one extractor")
    a, b = a.astype(np.float64), b.astype(np.float64)
    gap = a.mean(0) - b.mean(0)
    a = (a - a.mean(0)) / np.sqrt(len(a) - 1)
    b = (b - b.mean(0)) / np.sqrt(len(b) - 1)
    product = a @ b.T if max(len(a), len(b)) <= a.shape[1] else _half(a) @ _half(b).T
    cross = np.linalg.svd(product, compute_uv=False).sum()
    return float(max(gap @ gap + (a**2).sum() + (b**2).sum() - 2 * cross, 0.0))


def _half(a: np.ndarray) -> np.ndarray:
    """A matrix [≤ d, d] with the same a.T @ a, so that a product of two stays small."""
    return a if len(a) <= a.shape[1] else np.asarray(np.linalg.qr(a, mode="r"))


def kernel_distance(
    a: np.ndarray, b: np.ndarray, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """(KID, its standard error): unbiased, mean over random subsets of `size` features a side; all
    of them where there are no more.

    The error is that of other pictures drawn, by the jackknife (Efron & Stein 1981) over either
    side, and beside it that of other subsets. Between sets that hardly differ it is too careful.
    """
    size = min(size, len(a), len(b))
    if size < 3:
        raise InputError(
            f"a kernel distance needs at least three pictures on each side; there are {len(a)} and "
            f"{len(b)}"
        )
    rng = np.random.default_rng(seed)
    values, variances = [], []
    for _ in range(subsets if size < max(len(a), len(b)) else 1):
        x = a[rng.permutation(len(a))[:size]].astype(np.float64)
        y = b[rng.permutation(len(b))[:size]].astype(np.float64)
        value, of_x, of_y = _mmd(x, y)
        values.append(value)
        variances.append(of_x * size / len(a) + of_y * size / len(b))
    between = np.var(values, ddof=1) / len(values) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(np.sqrt(np.mean(variances) + between))


def _mmd(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """(unbiased squared maximum mean discrepancy under the cubic kernel, its variance over x, over
    y) of equally many features."""
    m, width = x.shape

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        similar: np.ndarray = (p @ q.T / width + 1) ** 3
        return similar

    def apart(p: np.ndarray) -> np.ndarray:
        """What each is to all others of its side, in sum."""
        similar = kernel(p, p)
        return np.asarray(similar.sum(1) - similar.diagonal())

    xx, yy, xy = apart(x), apart(y), kernel(x, y)
    value = (xx.sum() + yy.sum()) / (m * (m - 1)) - 2 * xy.mean()
    variances = []
    for own, other in ((xx, xy.sum(1)), (yy, xy.sum(0))):
        without = (own.sum() - 2 * own) / ((m - 1) * (m - 2))
        without = without - 2 * (xy.sum() - other) / ((m - 1) * m)
        variances.append(float((m - 1) * without.var()))
    return float(value), variances[0], variances[1]


def bootstrap(a: np.ndarray, b: np.ndarray, resamples: int = 20, seed: int = 0) -> list[float]:
    """95 % interval of the Fréchet distance: its value ± 1.96 deviations over resampled sets.

    Drawing with replacement raises the distance itself, so only the spread is taken from it.
    """
    rng = np.random.default_rng(seed)
    values = [
        frechet_distance(a[rng.integers(0, len(a), len(a))], b[rng.integers(0, len(b), len(b))])
        for _ in range(resamples)
    ]
    middle, spread = frechet_distance(a, b), 1.96 * float(np.std(values, ddof=1))
    return [max(middle - spread, 0.0), middle + spread]


def compare(a: np.ndarray, b: np.ndarray, resamples: int = 20, seed: int = 0) -> dict[str, Any]:
    """Both distances of drawn features `a` from reference features `b`, with intervals."""
    kid, error = kernel_distance(a, b, seed=seed)
    result: dict[str, Any] = {
        "distance": frechet_distance(a, b),
        "interval": bootstrap(a, b, resamples, seed),
        "kid": kid,
        "kid_error": error,
        "n": [len(a), len(b)],
    }
    least = min(len(a), len(b))
    if least < a.shape[1]:
        result["warning"] = (
            f"{least} pictures are fewer than the {a.shape[1]} dimensions of the features: the "
            "Fréchet distance is biased upwards; compare equal N only, and read KID beside it"
        )
    return result
