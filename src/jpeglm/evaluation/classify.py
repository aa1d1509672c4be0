"""Understanding for nothing: which class, or which caption, makes a picture most likely.

A model that draws to a class or to words says p(picture | answer). With all answers equally likely
beforehand, the most probable one is the one under which the picture costs the fewest bits (Bayes);
nothing is trained for it. Each picture is read once for every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.evaluation.likelihood import fitted_texts, pictures_of, share_interval
from jpeglm.generation.model import Model
from jpeglm.text import tidy

Progress = Callable[[int, int, str], None]
FIRST = 5
"""An answer counts as among the first if at most so many, itself included, are as likely."""


def by_class(
    model: Model,
    streams: Sequence[bytes],
    labels: Sequence[int],
    keys: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Each stream that has a class is read under every class of the model."""
    if not model.classes:
        raise InputError(_without("classes", "captions" if model.tokenizer.text else None))
    if max(labels) >= model.classes:
        raise InputError(
            f"a picture has label {max(labels)}, the checkpoint has classes 0 to "
            f"{model.classes - 1}"
        )
    known = [number for number, label in enumerate(labels) if label >= 0]
    if not known:
        raise InputError("no picture has a class, by which the choice could be judged")
    left_out = len(labels) - len(known)
    streams, labels = [streams[i] for i in known], [labels[i] for i in known]
    keys = [keys[i] for i in known]
    bits = np.zeros((len(streams), model.classes))
    for number, stream in enumerate(streams):
        scores = model.score_streams([stream] * model.classes, range(model.classes))
        bits[number] = [score.bits.sum() for score in scores]
        if progress:
            progress(number + 1, len(streams), "")
    names = model.tokenizer.class_names or tuple(map(str, range(model.classes)))
    confusion = np.zeros((model.classes, model.classes), int)
    np.add.at(confusion, (np.array(labels), bits.argmin(1)), 1)
    return {
        "answers": "classes",
        **_judged(bits, np.array(labels), keys),
        "classes": list(names),
        "confusion": confusion.tolist(),
        "left_out": left_out,
    }


def by_caption(
    model: Model,
    streams: Sequence[bytes],
    texts: Sequence[str | None],
    keys: Sequence[str],
    among: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Each stream that has a caption is read under it and `among` − 1 other ones of these pictures;
    where there are fewer, under all."""
    if not model.tokenizer.text:
        raise InputError(_without("text", "classes" if model.classes else None))
    captioned = [number for number, text in enumerate(texts) if tidy(text or "")]
    own = [tidy(texts[number] or "") for number in captioned]
    streams, keys = [streams[i] for i in captioned], [keys[i] for i in captioned]
    known = sorted(set(own))
    if len(known) < 2:
        raise InputError(
            f"{len(own)} of {len(texts)} pictures have a caption, with {len(known)} different "
            "ones; there is nothing to choose from"
        )
    among = min(among, len(known))
    rng, bits, cut = np.random.default_rng(seed), np.zeros((len(streams), among)), 0
    for number, stream in enumerate(streams):
        others = [known[i] for i in rng.permutation(len(known)) if known[i] != own[number]]
        offered = [own[number], *others[: among - 1]]
        told, short = fitted_texts(model, [stream] * among, offered)
        cut += short
        bits[number] = [s.bits.sum() for s in model.score_streams([stream] * among, None, told)]
        if progress:
            progress(number + 1, len(streams), "")
    return {
        "answers": "captions",
        **_judged(bits, np.zeros(len(streams), int), keys),
        "captions_cut": cut,
        "left_out": len(texts) - len(own),
    }


def _without(asked: str, other: str | None) -> str:
    """Why a checkpoint cannot choose by what is asked, and what it can choose among, if any."""
    if other is None:
        return "this checkpoint has neither classes nor text, so it has nothing to choose among"
    return f"this checkpoint has no {asked}; it can choose among {other} only"


def _judged(bits: np.ndarray, right: np.ndarray, keys: Sequence[str]) -> dict[str, Any]:
    """bits: float64 [N, A] of each picture under each answer; right: int [N]."""
    own = bits[np.arange(len(bits)), right]
    before = (bits < own[:, None]).sum(1)
    ties = (bits == own[:, None]).sum(1)
    found = np.where(before == 0, 1 / ties, 0.0)  # of equals one is guessed
    first = (before + ties <= FIRST).astype(float)
    others = bits.copy()
    others[np.arange(len(bits)), right] = np.inf
    pictures = len(np.unique(pictures_of(keys)))  # crops of one are alike
    return {
        "pictures": len(bits),
        "among": bits.shape[1],
        "by_chance": 1 / bits.shape[1],
        "accuracy": float(found.mean()),
        "interval": share_interval(float(found.mean()), pictures),
        "among_the_first": {"answers": FIRST, "accuracy": float(first.mean())},
        "bits": {
            "right": float(own.mean()),
            "best_other": float(others.min(1).mean()),
            "mean_of_all": float(bits.mean()),
        },
    }
