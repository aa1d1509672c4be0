"""What a codec is given of one item of a source: whole, or random crops of it.

    picture ──▶ the picture itself, or crops of many scales, mirrored half the time
    film    ──▶ clips one after the other, or clips from random times, places and scales
    picture, for a codec of clips ──▶ a camera that pans and zooms over it

Everything random is drawn from the item's key, so that crops do not depend on what ran before.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jpeglm.codecs.base import PictureShape
from jpeglm.codecs.clips import (
    ClipShape,
    Shot,
    is_picture,
    measure,
    read_shots,
    too_short,
    whole_clips,
)
from jpeglm.codecs.images import holds_more, open_image
from jpeglm.config import InputError
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import Item
from jpeglm.data.splits import split_by

if TYPE_CHECKING:
    from jpeglm.codecs import Codec

VALIDATION_CROPS = 4
"""Crops of a validation picture beside its centre: enough to measure, few to evaluate."""
Media = Image.Image | np.ndarray
"""A picture, or a clip: uint8 [frames, height, width, 3]."""


def random_crop(
    image: Image.Image, width: int, height: int, min_scale: float, rng: np.random.Generator
) -> Image.Image:
    """A crop of the aspect width : height, scaled to width × height pixels, flipped half the time.

    Its side is log-uniform from `min_scale` of the largest crop to the largest, its place uniform.
    """
    box = random_box(image.width, image.height, width, height, min_scale, rng)
    # reducing_gap shrinks by whole factors first: far faster on large photos, looks the same.
    crop = image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    flip = rng.random() < 0.5
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop


def random_box(
    wide: int, high: int, width: int, height: int, min_scale: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """left, top, right, bottom in pixels of a picture of wide × high."""
    largest = min(wide / width, high / height)
    smallest = min(max(1.0, min_scale * largest), largest)
    scale = largest * (smallest / largest) ** rng.random()
    left = rng.random() * (wide - scale * width)
    top = rng.random() * (high - scale * height)
    # Rounding may put an edge 1e-13 outside the picture, which Pillow refuses.
    return left, top, min(left + scale * width, wide), min(top + scale * height, high)


def random_pan(
    image: Image.Image, width: int, height: int, frames: int, min_scale: float,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """A camera that goes straight from one random crop to another: uint8 [frames, H, W, 3].

    The second crop's scale is within a fifth of the first's, its middle within half a crop of the
    first's: the speed differs from clip to clip and is constant in each.
    """
    first = np.array(random_box(image.width, image.height, width, height, min_scale, rng))
    zoom = 1.2 ** rng.uniform(-1, 1)
    largest = min(image.width / width, image.height / height)
    scale = min((first[2] - first[0]) / width * zoom, largest)
    middle = (first[:2] + first[2:]) / 2 + rng.uniform(-0.5, 0.5, 2) * (first[2:] - first[:2])
    size = scale * np.array([width, height])
    corner = np.clip(middle - size / 2, 0, np.array([image.width, image.height]) - size)
    second = np.concatenate([corner, corner + size])
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        first[[0, 2]], second[[0, 2]] = image.width - first[[2, 0]], image.width - second[[2, 0]]
    shown = []
    for place in np.linspace(0, 1, frames):
        left, top, right, bottom = first + place * (second - first)
        box = (max(left, 0.0), max(top, 0.0), min(right, image.width), min(bottom, image.height))
        shown.append(image.resize((width, height), Image.Resampling.BICUBIC, box, reducing_gap=3.0))
    return np.stack([np.asarray(frame) for frame in shown])


def crops_of(
    item: Item, shape: PictureShape, config: PrepareConfig, train_crops: int | None = None
) -> tuple[str, Iterator[tuple[str, Media]]]:
    """(split, (key, media) of each crop) of an item: of clips if the shape is a `ClipShape`, else
    of pictures. The iterator raises InputError if the item cannot be read. A whole picture comes in
    its own size, all else in the shape's. `train_crops` of a training picture, where not as many as
    the config says.
    """
    split = split_by(item, config.split, config.validation)
    whole = config.crops == 0 or split == "validation"
    crops = config.crops if train_crops is None else train_crops
    if split == "validation":
        crops = min(config.crops, VALIDATION_CROPS)
    if isinstance(shape, ClipShape) and not is_picture(item.data):
        films = _film_crops(item, shape, config, whole, crops)
        return split, _or_first_frame(
            films, item, lambda: _picture_crops(item, shape, config, whole, crops)
        )
    return split, _picture_crops(item, shape, config, whole, crops)


def _or_first_frame(
    clips: Iterator[tuple[str, Media]],
    item: Item,
    pictures: Callable[[], Iterator[tuple[str, Media]]],
) -> Iterator[tuple[str, Media]]:
    """The clips of a film; of an animation that is too short for one, or that FFmpeg cannot read,
    the crops of the picture that it is as well."""
    try:
        first = next(clips, None)
    except InputError:
        if not holds_more(item.data):
            raise
        yield from pictures()
    else:
        if first is not None:
            yield first
        yield from clips


def _picture_crops(
    item: Item, shape: PictureShape, config: PrepareConfig, whole: bool, crops: int
) -> Iterator[tuple[str, Media]]:
    image = open_image(io.BytesIO(item.data), name=item.name, max_pixels=config.max_pixels)
    rng = _generator(item, config.seed)
    if whole:
        yield item.key, _panned(image, item, shape) if isinstance(shape, ClipShape) else image
    for number in range(crops):
        crop: Media
        if isinstance(shape, ClipShape):
            size = (shape.width, shape.height, shape.frames)
            crop = random_pan(image, *size, config.min_scale, rng)
        else:
            crop = random_crop(image, shape.width, shape.height, config.min_scale, rng)
        yield f"{item.key}#{number}", crop


def _film_crops(
    item: Item, shape: ClipShape, config: PrepareConfig, whole: bool, crops: int
) -> Iterator[tuple[str, np.ndarray]]:
    if whole:
        clips = whole_clips(item.data, shape, item.name, config.clips or None)
        for number, clip in enumerate(clips):
            yield f"{item.key}@{number}", clip
    if not crops:
        return
    film = measure(item.data, item.name)
    length = shape.frames / shape.fps
    last = film.seconds - (shape.frames - 1) / shape.fps  # a clip begins before it
    if last <= 0:
        raise too_short(item.name, int(np.ceil(film.seconds * shape.fps - 1e-9)), shape)
    count = max(1, round(film.seconds / length))
    if config.clips:
        count = min(count, config.clips)
        last = min(last, (count - 1) * length + 1 / shape.fps)
    rng = _generator(item, config.seed)
    shots = []
    for _ in range(crops * count):
        start = rng.random() * last
        box = random_box(film.width, film.height, shape.width, shape.height, config.min_scale, rng)
        share = tuple(np.divide(box, (film.width, film.height) * 2).tolist())
        shots.append(Shot(start, share, bool(rng.random() < 0.5)))
    for number, clip in read_shots(item.data, shots, shape, item.name):
        yield f"{item.key}#{number}", clip


def _panned(image: Image.Image, item: Item, shape: ClipShape) -> np.ndarray:
    """A whole picture as a clip: a camera that goes over it."""
    rng = _generator(item, 0)
    return random_pan(image, shape.width, shape.height, shape.frames, 0.5, rng)


def whole_of(item: Item, codec: Codec) -> Iterator[tuple[str, Media]]:
    """(key, media) of an item as it is; InputError if it cannot be read."""

    shape = codec.config

    def picture() -> Iterator[tuple[str, Media]]:
        image = open_image(io.BytesIO(item.data), name=item.name)
        yield item.key, _panned(image, item, shape) if isinstance(shape, ClipShape) else image

    if isinstance(shape, ClipShape) and not is_picture(item.data):
        clips = whole_clips(item.data, shape, item.name)
        named = ((f"{item.key}@{number}", clip) for number, clip in enumerate(clips))
        yield from _or_first_frame(named, item, picture)
    else:
        yield from picture()


def _generator(item: Item, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{item.key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest))
