"""Pictures as arrays in memory, for what learns from pixels: VAE, VQ-VAE, palettes, references.

    found = load_images(Path("photos"), 64, 64, PrepareConfig(crops=8), "train")

The crops, keys and split are those that `prepare` makes with the same settings, so that a learned
codec sees exactly the pictures that the JPEG model sees, before their compression. A prepared
folder works too; its streams are then decoded. Trade-off: all pictures sit in memory as uint8,
12 KB each at 64 × 64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jpeglm.codecs.clips import ClipShape, is_picture, whole_clips
from jpeglm.codecs.images import fit_image, open_image
from jpeglm.config import InputError
from jpeglm.data.crops import crops_of
from jpeglm.data.leftout import tell_left_out
from jpeglm.data.open import Dataset
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import Item, open_source
from jpeglm.environment import cores

Progress = Callable[[int, int], None]


class Size(NamedTuple):
    """Of pictures, in pixels."""

    width: int
    height: int


class Images(NamedTuple):
    """pixels uint8 [N, H, W, 3]; labels int32 [N], -1 where there is none; keys [N]."""

    pixels: np.ndarray
    labels: np.ndarray
    keys: list[str]


def load_images(
    data: Path,
    width: int,
    height: int,
    config: PrepareConfig | None = None,
    split: str | None = "train",
    *,
    fit: str = "crop",
    limit: int | None = None,
    progress: Progress | None = None,
) -> Images:
    """The pictures of a split (None: all) as `prepare` would crop them, whole ones fitted.

    limit: at most so many. InputError if there is none.
    """
    data = Path(data)
    prepared = (data / "dataset.json").exists()
    rows = (
        _decoded(Dataset(data), width, height, fit, split)
        if prepared
        else _read(data, width, height, config or PrepareConfig(), split, fit, progress)
    )
    found = list(islice(rows, limit))
    if not found:
        raise InputError(
            f"{data} has no {split or 'readable'} pictures; choose another --split or "
            "another share of them with --validation"
        )
    return Images(
        np.stack([pixels for pixels, _, _ in found]),
        np.array([label for _, label, _ in found], np.int32),
        [key for _, _, key in found],
    )


def _decoded(
    dataset: Dataset, width: int, height: int, fit: str, split: str | None
) -> Iterator[tuple[np.ndarray, int, str]]:
    for key, stream, label, _ in dataset.streams(split):
        image = fit_image(dataset.codec.decode(stream), width, height, fit)
        yield np.asarray(image), label, key


def _read(
    data: Path,
    width: int,
    height: int,
    config: PrepareConfig,
    split: str | None,
    fit: str,
    progress: Progress | None,
) -> Iterator[tuple[np.ndarray, int, str]]:
    source = open_source(
        data,
        unit_size=config.unit_size,
        labels=config.labels,
        column=config.column,
        caption="none",
    )

    rejected: list[tuple[str, str]] = [*source.rejected]

    def crops(item: Item) -> list[tuple[np.ndarray, int, str]]:
        try:
            side, found = crops_of(item, Size(width, height), config)
            if split not in (None, side):
                return []
            made = []
            for key, image in found:
                assert isinstance(image, Image.Image)  # of a shape without frames
                made.append((np.asarray(fit_image(image, width, height, fit)), item.label, key))
            return made
        except InputError as error:
            rejected.append((item.name, str(error)))
            return []

    def items() -> Iterator[Item]:
        for unit in source.units:
            for item in unit.read():
                if isinstance(item, Item):
                    yield item
                else:
                    rejected.append(item)

    done = 0
    try:
        # Pillow decodes and scales without holding the interpreter.
        with ThreadPoolExecutor(cores()) as pool:
            waiting = items()
            while group := list(islice(waiting, 256)):
                for found in pool.map(crops, group):
                    yield from found
                done += len(group)
                if progress:
                    progress(done, source.count)
    finally:
        tell_left_out(data, rejected)


def to_images(pixels: np.ndarray) -> list[Image.Image]:
    """uint8 [N, H, W, 3] as pictures."""
    return [Image.fromarray(picture) for picture in pixels]


def load_set(data: Path, size: tuple[int, int] | None = None, limit: int | None = None) -> Images:
    """Pictures of one size as they are, or fitted to `size` (width, height).

    InputError names the first picture of another size.
    """
    source = open_source(Path(data), caption="none")
    found: list[tuple[np.ndarray, int, str]] = []
    first: tuple[int, int] | None = size
    rejected: list[tuple[str, str]] = [*source.rejected]
    for unit in source.units:
        for item in unit.read():
            if not isinstance(item, Item):
                rejected.append(item)
                continue
            if limit is not None and len(found) >= limit:
                continue
            image = open_image(item.data, name=item.name)
            if size is not None:
                image = fit_image(image, *size, "crop")
            first = first or image.size
            if image.size != first:
                raise InputError(
                    f"{item.name} is {image.width} × {image.height}, the pictures before it "
                    f"{first[0]} × {first[1]}; give --size to bring all to one size"
                )
            found.append((np.asarray(image), item.label, item.key))
    tell_left_out(data, rejected)
    if not found:
        raise InputError(f"{data} has no picture that can be read")
    return Images(
        np.stack([pixels for pixels, _, _ in found]),
        np.array([label for _, label, _ in found], np.int32),
        [key for _, _, key in found],
    )


def film_clips(data: Path, shape: ClipShape) -> Iterator[np.ndarray]:
    """The clips of all films below `data`, one after the other, of that shape. Pictures, and films
    that are too short or cannot be read, are left out, which `LeftOut` tells when it ends."""
    source = open_source(Path(data), films=True, caption="none")
    rejected: list[tuple[str, str]] = [*source.rejected]
    try:
        for unit in source.units:
            for item in unit.read():
                if not isinstance(item, Item):
                    rejected.append(item)
                elif is_picture(item.data):
                    rejected.append((item.name, "a picture, no film"))
                else:
                    try:
                        yield from whole_clips(item.data, shape, item.name)
                    except InputError as error:
                        rejected.append((item.name, str(error)))
    finally:
        tell_left_out(data, rejected)
