"""Whether drawn pictures are copies: the nearest training picture of each, beside that of pictures
that no training saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.evaluation.features import RESNET50, ResNet50, extract

BLOCK = 2000
"""Training pictures compared at a time."""


def nearest(some: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place in `others`, squared distance a value) of the nearest to each; [N, …] and [M, …]."""
    flat = some.reshape(len(some), -1).astype(np.float32)
    best, place = np.full(len(some), np.inf), np.zeros(len(some), np.int64)
    for first in range(0, len(others), BLOCK):
        part = others[first : first + BLOCK].reshape(-1, flat.shape[1]).astype(np.float32)
        apart = (flat**2).sum(1)[:, None] + (part**2).sum(1) - 2 * flat @ part.T
        own = apart.argmin(1)
        value = apart[np.arange(len(some)), own]
        place = np.where(value < best, own + first, place)
        best = np.minimum(best, value)
    return place, np.maximum(best, 0) / flat.shape[1]


def copied(
    drawn: np.ndarray, held_out: np.ndarray, seen: np.ndarray, features: int
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """What the card says of copying, and (drawn, seen) of all drawn pictures, the closest first.

    uint8 [N, H, W, 3] each: what the model drew, pictures that it never saw, what it learnt from;
    both as they come out of the codec. Distances are root mean squares of pixels, and of ResNet-50
    features among the first `features` of the pictures seen.
    """
    place, apart = nearest(drawn, seen)
    other, usual = nearest(held_out, seen)
    told: dict[str, Any] = {"drawn": len(drawn), "held out": len(held_out), "seen": len(seen)}
    told["the same as one seen"] = {
        "drawn": same(drawn, seen[place]),
        "held out": same(held_out, seen[other]),
    }
    told["pixels"] = compared(np.sqrt(apart), np.sqrt(usual))
    if RESNET50.exists():
        network = ResNet50(RESNET50)
        known = extract(network, seen[:features])
        ways = [np.sqrt(nearest(extract(network, x), known)[1]) for x in (drawn, held_out)]
        told["features"] = {"seen": len(known), **compared(*ways)}
    order = np.argsort(apart)
    return told, list(zip(order.tolist(), place[order].tolist()))


def compared(drawn: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Medians, and the share of the drawn that is nearer than nine of ten held-out pictures are."""
    border = np.quantile(held_out, 0.1)
    return {
        "drawn": float(np.median(drawn)),
        "held out": float(np.median(held_out)),
        "nearer than 90 % of the held out": float((drawn < border).mean()),
    }


def same(some: np.ndarray, others: np.ndarray) -> float:
    """Share of the pairs that agree in every pixel."""
    return float((some == others).reshape(len(some), -1).all(1).mean())


def pairs(
    order: Sequence[tuple[int, int]], drawn: np.ndarray, seen: np.ndarray, count: int
) -> list[tuple[str, Image.Image]]:
    """Tiles of the closest pairs."""
    tiles = []
    for one, other in order[:count]:
        tiles += [("drawn", Image.fromarray(drawn[one])), ("seen", Image.fromarray(seen[other]))]
    return tiles
