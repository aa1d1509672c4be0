"""Sets of pictures to measure: drawn by a model, or read from a folder; kept once drawn.

A set is uint8 [N, H, W, 3]. Drawing thousands of pictures takes long, so a set is written as .npz
when it is complete and read again the next time; its record must match.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from jpeglm.config import InputError, fingerprint
from jpeglm.files import atomic_write
from jpeglm.generation.model import Model
from jpeglm.generation.outputs import Drawn
from jpeglm.generation.pictures import Drawer

Progress = Callable[[int, int, str], None]


def kept(
    file: Path | None, record: dict[str, Any], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `make` gives, out of `file` if it lies there and was made for this very record.

    What else lies there is not written over: the record's mark is then added to the name.
    """
    mark = fingerprint(record)
    places = [file, file.with_name(f"{file.stem}-{mark}{file.suffix}")] if file else []
    for place in places:
        if not place.exists():
            break
        found = _read_set(place, mark)
        if found is not None:
            return found
    else:
        if places:
            raise InputError(f"{places[-1]} is not a readable set of pictures; remove it")
    arrays = make()
    if places:
        out = io.BytesIO()
        np.savez_compressed(out, allow_pickle=False, record=np.array(mark), **arrays)
        atomic_write(place, out.getvalue())
    return arrays


def _read_set(file: Path, mark: str) -> dict[str, np.ndarray] | None:
    """A set that was kept for the record of this mark, None if the file holds anything else."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["record"]) == mark:
                return {name: stored[name] for name in stored.files if name != "record"}
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile):
        pass
    return None


def half_size(pictures: np.ndarray) -> np.ndarray:
    """Each picture shrunk to half and centred on black (the paper's table 4); H and W even."""
    count, height, width, _ = pictures.shape
    out = np.zeros_like(pictures)
    top, left = height // 4, width // 4
    for i in range(count):
        small = Image.fromarray(pictures[i]).resize(
            (width // 2, height // 2), Image.Resampling.LANCZOS
        )
        out[i, top : top + height // 2, left : left + width // 2] = np.asarray(small)
    return out


def active_part(pictures: np.ndarray) -> np.ndarray:
    """The middle that `half_size` leaves for the picture."""
    height, width = pictures.shape[1:3]
    return pictures[
        :, height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2
    ]


def coded(model: Model, pictures: np.ndarray) -> np.ndarray:
    """What the codec itself makes of pictures: the best that any model of it can do."""
    images = [Image.fromarray(picture) for picture in pictures]
    return np.stack([np.asarray(model.codec.decode(model.codec.encode(i))) for i in images])


def completions(
    model: Model,
    pictures: np.ndarray,
    keep: float,
    seed: int = 0,
    labels: np.ndarray | None = None,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """One completion of each picture: pictures, and bits float64 [N] of what was sampled."""
    seeds = (seed * 1_000_003 + number for number in range(len(pictures)))
    streams = (model.codec.encode(Image.fromarray(picture)) for picture in pictures)
    known = labels.tolist() if labels is not None and model.classes else [None] * len(pictures)
    found: dict[int, Drawn] = {}
    units, _ = model.units_kept(keep)
    for drawn in model.continue_each(streams, units, seeds, known):
        found[drawn.number] = drawn
        if progress and (len(found) % 16 == 0 or len(found) == len(pictures)):
            progress(len(found), len(pictures), f"keep {keep:g}, seed {seed}")
    rows = [found[number] for number in range(len(pictures))]
    return {
        "pictures": np.stack([np.asarray(row.image) for row in rows]),
        "bits": np.array([row.bits for row in rows]),
    }


def samples(
    model: Drawer,
    n: int,
    seed: int = 0,
    labels: np.ndarray | None = None,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """n new pictures; of a class-conditional model, one for each of `labels` if given."""

    def report(done: int, total: int, tokens: int) -> None:
        if progress:
            progress(done, total, f"samples, seed {seed}")

    if labels is None or not model.classes:
        images = model.generate(n, seed=seed, progress=report).images
    else:
        images = [None] * n
        for label in np.unique(labels[:n]).tolist():
            rows = np.flatnonzero(labels[:n] == label)
            found = model.generate(len(rows), seed=seed * 1009 + label, label=label).images
            for row, image in zip(rows, found):
                images[row] = image
            report(int((labels[:n] <= label).sum()), n, 0)
    return {"pictures": np.stack([np.asarray(image) for image in images])}


def check_count(pictures: np.ndarray, what: str) -> None:
    """A covariance needs two pictures."""
    if len(pictures) < 2:
        raise InputError(f"{what}: at least two pictures are needed; there are {len(pictures)}")
