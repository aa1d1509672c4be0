"""The paper's measurements of drawn pictures: completion, unconditional, reconstruction, long tail.

Each function gives the JSON that its verb of `jpeglm evaluate` prints. Drawn sets are kept in a
folder if one is given, so that a stopped measurement goes on.

    frechet         the distance of two sets of pictures
    completion      table 1, and table 4 with half: Fréchet distance of completions, by share kept
    unconditional   table 3
    reconstruction  what the codecs themselves lose, at their number of tokens
    longtail        per-class difference of two rivals against the class's frequency
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jpeglm.config import InputError
from jpeglm.data.arrays import Images
from jpeglm.evaluation.features import Extractor, extract
from jpeglm.evaluation.frechet import compare, frechet_distance
from jpeglm.evaluation.quality import psnr
from jpeglm.evaluation.sets import (
    active_part,
    check_count,
    coded,
    completions,
    half_size,
    kept,
    samples,
)
from jpeglm.generation.model import Model
from jpeglm.generation.pictures import Drawer
from jpeglm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jpeglm.generation.vae import VaePrior

Progress = Callable[[int, int, str], None]
Show = Callable[[np.ndarray], None]
"""Called with pictures to look at: the references, then what was made of them, set by set."""


def _named(extractor: Extractor) -> dict[str, Any]:
    return {
        "metric": extractor.metric,
        "extractor": extractor.name,
        "resizer": extractor.resizer,
        "dimensions": extractor.width,
    }


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row for several seeds: means, and the interval as wide as the widest seed's allows."""
    distances = [row["distance"] for row in rows]
    lows, highs = zip(*(row["interval"] for row in rows))
    joined = {
        "distance": float(np.mean(distances)),
        "interval": [float(np.mean(lows)), float(np.mean(highs))],
        "kid": float(np.mean([row["kid"] for row in rows])),
        "kid_error": float(np.mean([row["kid_error"] for row in rows])),
        "n": rows[0]["n"],
        "seeds": distances,
    }
    if "warning" in rows[0]:
        joined["warning"] = rows[0]["warning"]
    return joined


def frechet(
    pictures: Images, real: Images, extractor: Extractor, progress: Progress | None = None
) -> dict[str, Any]:
    """Two sets of pictures of one size."""
    drawn, truth = (extract(extractor, x.pixels, progress=progress) for x in (pictures, real))
    return {**_named(extractor), **compare(drawn, truth)}


def completion(
    model: Model | VaePrior,
    references: Images,
    extractor: Extractor,
    ratios: Sequence[float],
    seeds: Sequence[int],
    *,
    half: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Complete every reference at every ratio and seed; distances to the references themselves.

    half: pictures shrunk to half on black, measured on their part only. Row `codec` is the codec's
    own encoding of the whole pictures, the floor of any model of it.
    """
    if not isinstance(model, Model):
        model.complete()  # says in words why it cannot
    pictures = half_size(references.pixels) if half else references.pixels
    check_count(pictures, "completion")
    view = active_part if half else (lambda x: x)

    def features(x: np.ndarray) -> np.ndarray:
        return extract(extractor, view(_fitted(x, pictures.shape[1:3])), progress=progress)

    shown = show or (lambda x: None)
    shown(pictures)
    truth = features(pictures)
    rows: dict[str, Any] = {"codec": compare(features(coded(model, pictures)), truth)}
    name = "half-" if half else ""
    for ratio in ratios:
        found: list[dict[str, Any]] = []
        for seed in seeds:
            file = folder / f"{name}completion-{ratio:g}-{seed}.npz" if folder else None
            drawn = _completed(model, references, pictures, file, ratio, seed, progress, half)
            if not found:
                shown(_fitted(drawn["pictures"], pictures.shape[1:3]))
            row = compare(features(drawn["pictures"]), truth)
            found.append(row | {"bits": float(drawn["bits"].mean())})
        rows[f"{ratio:g}"] = _mean(found) | {"bits": float(np.mean([r["bits"] for r in found]))}
    return {**_named(extractor), "half": half, "ratios": rows}


def _completed(
    model: Model,
    references: Images,
    pictures: np.ndarray,
    file: Path | None,
    keep: float,
    seed: int,
    progress: Progress | None,
    half: bool = False,
) -> dict[str, np.ndarray]:
    """Completions of `pictures`, the references themselves or their halves; `file` keeps them."""
    record = {**model.record(), "keep": keep, "seed": seed, "half": half,
              "keys": references.keys, "weights": model.weights_mark}  # fmt: skip
    return kept(
        file, record, lambda: completions(model, pictures, keep, seed, references.labels, progress)
    )


def unconditional(
    model: Drawer,
    references: Images,
    extractor: Extractor,
    n: int,
    seeds: Sequence[int],
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """n new pictures a seed against the references; of a class-conditional model, their labels."""
    check_count(references.pixels, "unconditional")
    truth = extract(extractor, references.pixels, progress=progress)
    found = []
    for seed in seeds:
        file = folder / f"samples-{seed}.npz" if folder else None
        record = {**model.record(), "n": n, "seed": seed, "weights": model.weights_mark}
        drawn = kept(
            file,
            record,
            lambda s=seed: samples(model, n, s, references.labels, progress),  # type: ignore[misc]
        )
        shown = _fitted(drawn["pictures"], references.pixels.shape[1:3])
        if show:
            show(shown)
        found.append(compare(extract(extractor, shown, progress=progress), truth))
    return {
        **_named(extractor),
        "class_conditional": bool(model.classes),
        **_mean(found),
    }


def _fitted(pictures: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures at the references' size, so that one extractor's resizer sees the same shapes."""
    height, width = shape
    if pictures.shape[1:3] == (height, width):
        return pictures
    return np.stack(
        [
            np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC))
            for p in pictures
        ]
    )


def reconstruction(
    coders: dict[str, Any],
    references: Images,
    extractor: Extractor | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """PSNR, SSIM and Fréchet distance of codecs alone, with tokens and bits a picture.

    coders: name → a tokenizer (its codec is measured, and its number of tokens) or a `VaePrior`.
    LPIPS needs weights that no package brings, so it is left out and named under `unavailable`.
    """
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    def values(x: np.ndarray) -> Any:
        return torch.from_numpy(x).permute(0, 3, 1, 2).float()

    pixels = references.pixels
    if show:
        show(pixels)
    truth = extract(extractor, pixels, progress=progress) if extractor else None
    rows: dict[str, Any] = {}
    for number, (name, coder) in enumerate(coders.items()):
        row: dict[str, Any] = {}
        if not isinstance(coder, Tokenizer):
            own = _fitted(pixels, (coder.config.height, coder.config.width))
            shown = _fitted(coder.reconstruct(own), pixels.shape[1:3])
            row["latents"] = coder.config.latent
        else:
            codec = coder.codec
            streams = [codec.encode(Image.fromarray(p)) for p in pixels]
            shown = np.stack([np.asarray(codec.decode(s)) for s in streams])
            shown = _fitted(shown, pixels.shape[1:3])
            lengths = [len(coder.encode_stream(s)) for s in streams]
            row["tokens"] = float(np.mean(lengths))
            row["bits"] = float(np.mean([len(s) for s in streams]) * 8)
        if show:
            show(shown)
        decibels = psnr(pixels, shown)
        row["psnr"] = float(decibels.mean())
        row["psnr_interval"] = [
            float(row["psnr"] + sign * 1.96 * decibels.std(ddof=1) / np.sqrt(len(decibels)))
            for sign in (-1, 1)
        ]
        similarity: Any = ssim(values(shown), values(pixels), data_range=255.0)
        row["ssim"] = float(similarity)
        if extractor and truth is not None:
            row |= compare(extract(extractor, shown), truth)
        rows[name] = row
        if progress:
            progress(number + 1, len(coders), "codecs")
    named = _named(extractor) if extractor else {}
    return {
        **named,
        "n": len(pixels),
        "coders": rows,
        "unavailable": {"lpips": "its weights are in no package; they must be downloaded"},
    }


def longtail(
    model: Model,
    rival: Model,
    references: Images,
    extractor: Extractor,
    frequency: dict[int, int],
    keep: float,
    seed: int,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Completions by two models, class by class; frequency: class → pictures in training."""
    if show:
        show(references.pixels)
    truth = extract(extractor, references.pixels, progress=progress)
    features = []
    for name, drawer in (("checkpoint", model), ("rival", rival)):
        file = folder / f"longtail-{name}-{keep:g}-{seed}.npz" if folder else None
        drawn = _completed(drawer, references, references.pixels, file, keep, seed, progress)
        if show:
            show(_fitted(drawn["pictures"], references.pixels.shape[1:3]))
        features.append(extract(extractor, drawn["pictures"], progress=progress))
    by_class = class_differences(features[0], features[1], references.labels, truth, frequency)
    return {**_named(extractor), "keep": keep, **by_class}


def class_differences(
    a: np.ndarray,
    b: np.ndarray,
    labels: np.ndarray,
    truth: np.ndarray,
    frequency: dict[int, int],
) -> dict[str, Any]:
    """Per class: distance(a) − distance(b) against how often training saw the class.

    a, b: features of two rivals' pictures, truth: of the references, row by row the classes
    `labels`; frequency: class → training pictures. Negative differences are classes where `a` is
    better; the paper's claim is a positive correlation (JPEG-LM gains most where data are scarce).
    """
    from scipy import stats

    rows = []
    for label in sorted(frequency):
        chosen = labels == label
        if chosen.sum() < 2:
            raise InputError(
                f"class {label} has {int(chosen.sum())} pictures; at least two are needed"
            )
        first = frechet_distance(a[chosen], truth[chosen])
        second = frechet_distance(b[chosen], truth[chosen])
        rows.append(
            {
                "label": label,
                "frequency": frequency[label],
                "n": int(chosen.sum()),
                "a": first,
                "b": second,
                "difference": first - second,
            }
        )
    seen = np.log([row["frequency"] for row in rows])
    gap = [row["difference"] for row in rows]
    pearson, spearman = stats.pearsonr(seen, gap), stats.spearmanr(seen, gap)
    return {
        "classes": rows,
        "pearson_log_frequency": {"r": float(pearson.statistic), "p": float(pearson.pvalue)},
        "spearman": {"r": float(spearman.statistic), "p": float(spearman.pvalue)},
    }
