"""A model's next frames of a clip, against the true ones and against «repeat the last frame»."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.evaluation.features import Extractor, extract
from jpeglm.evaluation.frechet import compare
from jpeglm.evaluation.likelihood import interval, pictures_of, ratio_interval
from jpeglm.generation.model import KEEP, Model
from jpeglm.generation.outputs import Drawn

if TYPE_CHECKING:
    from jpeglm.generation.vae import VaePrior

Show = Callable[[np.ndarray], None]
Progress = Callable[[int, int, str], None]

SHOWN = 4
"""Clips to look at: all frames of the true one, and of the model's below it."""
EXACT = 1e-10
"""Mean square error that stands for none: 148 dB."""


def check_clips(model: Model | VaePrior) -> None:
    """Refuse a model that does not write clips."""
    if model.codec is None or model.codec.media != "clip":
        raise InputError("continuation is measured on clips; this checkpoint writes pictures")


def continuation(
    model: Model,
    streams: Sequence[bytes],
    keys: Sequence[str],
    keep_frames: int | None = None,
    seeds: Sequence[int] = (0,),
    extractor: Extractor | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
    **sampling: Any,
) -> dict[str, Any]:
    """Continue held-out clips; by frame, the distance to the true frames of model and rivals.

    Truth is what the codec shows of the whole clip. PSNR is of the mean square error over all
    clips, since single clips may be exact. `better` is the share of clips on which the model's
    frames are nearer to the truth than the last kept frame repeated, `still` that of clips where
    nothing moves, which none can beat.
    """
    check_clips(model)
    codec = model.codec
    keep = int(KEEP["clip"] * codec.units) if keep_frames is None else keep_frames
    if not 1 <= keep < codec.units:
        raise InputError(f"--keep-frames is {keep}; it must be from 1 to {codec.units - 1}")
    truth = np.stack([codec.decode(stream) for stream in streams])
    count = len(streams)
    found: dict[int, Drawn] = {}
    own = (seed * 1_000_003 + number for seed in seeds for number in range(count))
    every = (stream for _ in seeds for stream in streams)
    for one in model.continue_each(every, keep, own, repeat(None), **sampling):
        found[one.number] = one
        if progress:
            progress(len(found), len(seeds) * count, "")
    drawn = [found[number].image for number in range(len(seeds) * count)]
    bits = [found[number].bits for number in range(len(seeds) * count)]
    made = np.stack(drawn).reshape(len(seeds), *truth.shape)
    future, shown = truth[:, keep:], made[:, :, keep:]
    if show:
        for clip in range(min(count, SHOWN)):
            show(truth[clip])
            show(made[0, clip])
    repeated = np.broadcast_to(truth[:, keep - 1 : keep], future.shape)
    errors = {"model": _errors(shown, future).mean(0), "repeat": _errors(repeated, future)}
    films = pictures_of(keys)
    rows: dict[str, Any] = {}
    for name, error in errors.items():
        rows[name] = {
            "psnr": _decibels(error.mean()),
            "interval": [_decibels(x) for x in reversed(interval(error.mean(1), films))],
            "by_frame": [_decibels(value) for value in error.mean(0)],
        }
        if extractor is not None:
            frames = shown[0] if name == "model" else repeated
            rows[name]["frechet_by_frame"] = [
                compare(extract(extractor, frames[:, i]), extract(extractor, future[:, i]))
                for i in range(future.shape[1])
            ]
    ours, still = errors["model"].mean(1), errors["repeat"].mean(1)
    # Where nothing moves both errors are 0; a ratio of sums needs something, as decibels do.
    ratio = ratio_interval(np.maximum(still, EXACT), np.maximum(ours, EXACT), films)
    return {
        "clips": len(streams),
        "films": int(films.max()) + 1,
        "keep_frames": keep,
        "seeds": list(seeds),
        "rows": rows,
        "margin": rows["model"]["psnr"] - rows["repeat"]["psnr"],
        "margin_interval": [10 * float(np.log10(x)) for x in ratio],
        "better": float((ours < still).mean()),
        "still": float((still == 0).mean()),
        "bits": float(np.mean(bits)),
    }


def _errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean square error of each frame: float64, the three last axes taken."""
    squares = np.square(a.astype(np.float32) - b.astype(np.float32))
    errors: np.ndarray = squares.mean((-3, -2, -1), np.float64)
    return errors


def _decibels(error: float) -> float:
    return float(10 * np.log10(255**2 / max(error, EXACT)))
