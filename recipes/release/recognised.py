"""Whether one sees what a drawn emoji is meant to be: its nearest true picture of many.

Captions are of `held_out: style`: training saw the emoji in other sets, in this one never. Each is
of a concept of its own (`Emoji.concept`: no skin tone, gender or direction). A gallery has two
kinds of true pictures of each: the one that was held out, and those of the same code in the other
sets, which training saw. A picture is recognised if the nearest of the whole gallery is of its own
concept. What the true pictures come to by the same measure, each against the gallery without
itself, is what a distance can reach.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from steps import ROOT

from jpeglm.codecs.base import Codec
from jpeglm.evaluation.features import ResNet50, extract
from jpeglm.evaluation.likelihood import share_interval
from release.drawn import as_coded, rows_of

sys.path.append(str(ROOT / "recipes" / "data"))  # behind this folder, whose emoji.py is another
from emoji_names import Emoji

MEASURED = 100
"""Captions, the first ones, on which a model is measured; how it draws is chosen on others."""
AMONG = 5
"""Of how many concepts a second figure is told."""
Description = Callable[[np.ndarray], np.ndarray]
"""uint8 [N, H, W, 3] → float [N, F], of which squared differences are taken."""


def concept(row: dict[str, Any]) -> str:
    """What a row of the emoji's metadata shows, whoever drew it."""
    return Emoji(row["code"], row["name"]).concept


def captions(source: Path) -> list[dict[str, Any]]:
    """Rows of `compositions` in a set that never showed them, one of each concept that training
    shows by the same code in another set; in an order that is always the same, so that the first
    ones are of all sets."""
    seen = {row["code"] for row in rows_of(source / "train")}
    rows = [row for row in rows_of(source / "compositions") if row["held_out"] == "style"]
    Random(0).shuffle(rows)
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["code"] in seen:
            first.setdefault(concept(row), row)
    return list(first.values())


@dataclass(frozen=True)
class Gallery:
    """True pictures of N captions as the codec gives them back, uint8 [·, H, W, 3]."""

    held_out: np.ndarray
    """[N]: each caption's own."""
    others: np.ndarray
    """[M]: the same emoji in other sets."""
    owners: np.ndarray
    """int [M]: of which caption."""
    styles: Sequence[str]
    """The set of each caption."""


def gallery(source: Path, rows: Sequence[dict[str, Any]], codec: Codec) -> Gallery:
    """The true pictures of these captions."""
    known = defaultdict(list)
    for row in rows_of(source / "train"):
        known[row["code"]].append(source / "train" / row["file_name"])
    others = [(number, file) for number, row in enumerate(rows) for file in known[row["code"]]]
    return Gallery(
        as_coded(codec, [source / "compositions" / row["file_name"] for row in rows]),
        as_coded(codec, [file for _, file in others]),
        np.array([number for number, _ in others]),
        [row["style"] for row in rows],
    )


def pixels(pictures: np.ndarray) -> np.ndarray:
    """Pictures as their pixels."""
    return pictures.reshape(len(pictures), -1).astype(np.float64)


def directions(network: ResNet50) -> Description:
    """Pictures as the directions of their features: of true pictures more are recognised by the
    angle between these than by their differences."""

    def describe(pictures: np.ndarray) -> np.ndarray:
        found = extract(network, pictures)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    return describe


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared, float64 [N, M] of [N, F] and [M, F]."""
    some, others = some.astype(np.float64), others.astype(np.float64)
    return np.asarray((some**2).sum(1)[:, None] + (others**2).sum(1) - 2 * some @ others.T)


def places(apart: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """int [Q, N]: how many other concepts lie as near to each of Q pictures as each of N does, or
    nearer; a concept is as far as its nearest picture. apart: [Q, M], owners: int [M] below N."""
    count = int(owners.max()) + 1
    nearest = np.stack([apart[:, owners == one].min(1) for one in range(count)], 1)
    return np.asarray((nearest[:, None, :] <= nearest[:, :, None]).sum(2) - 1)


def shares(place: np.ndarray) -> dict[str, Any]:
    """What is told of the places int [N] of N pictures' concepts: at the first, among the first
    ones, and the mean of 1 over the place counted from 1."""
    right = float((place == 0).mean())
    return {
        "recognised": right,
        "interval": share_interval(right, len(place)),
        "among": float((place < AMONG).mean()),
        "reciprocal_place": float((1 / (place + 1)).mean()),
    }


def recognised(drawn: np.ndarray, known: Gallery, describe: Description) -> dict[str, Any]:
    """How many of the pictures drawn for a gallery's captions, uint8 [N, H, W, 3], are recognised:

    drawn           in the whole gallery, and in_other_sets: among pictures that training saw
    true            held-out pictures by the same measure, each without itself
    drawn_for_others  drawn pictures taken for another caption of the same set: what drawing in the
                    right style alone would reach
    own_set         how often, of all true pictures of its own concept, that of the asked set is
                    nearest, beside guessing
    """
    count, styles = len(known.held_out), np.array(known.styles)
    own, every = np.arange(count), np.concatenate([np.arange(count), known.owners])
    true = describe(known.held_out)
    shown = np.concatenate([true, describe(known.others)])
    apart, itself = distances(describe(drawn), shown), distances(true, shown)
    itself[own, own] = np.inf
    found = places(apart, every)
    others = found[(styles[:, None] == styles) & ~np.eye(count, dtype=bool)]
    nearest = [int(np.argmin(np.where(every == one, apart[one], np.inf))) == one for one in own]
    return {
        "drawn": shares(found[own, own]),
        "drawn_in_other_sets": shares(places(apart[:, count:], known.owners)[own, own]),
        "true": shares(places(itself, every)[own, own]),
        "true_in_other_sets": shares(places(itself[:, count:], known.owners)[own, own]),
        "drawn_for_others": {
            "recognised": float((others == 0).mean()),
            "among": float((others < AMONG).mean()),
        },
        "by_chance": {"recognised": 1 / count, "among": min(1.0, AMONG / count)},
        "own_set": float(np.mean(nearest)),
        "own_set_by_chance": float(np.mean(1 / np.bincount(every))),
    }
