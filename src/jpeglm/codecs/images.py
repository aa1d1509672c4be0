"""Pictures as people have them, made into the RGB picture that a codec takes.

EXIF orientation is applied, transparency lies on white, palettes, CMYK, 16-bit and float data
become 8-bit RGB, of an animation the first frame counts. What cannot be read is refused with one
sentence that names the file; nothing is guessed from half a picture.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from jpeglm.config import InputError

MAX_PIXELS = 200_000_000
"""Larger pictures are refused: a few kilobytes can claim to be gigapixels."""


def open_image(
    source: Path | str | bytes | BinaryIO, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read a picture as 8-bit RGB, upright; `name` is what errors call it."""
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    if isinstance(source, str | Path):
        name = name or str(source)
        if Path(source).is_dir():
            raise InputError(f"{name} is a folder; a picture file is needed here")
        if not Path(source).exists():
            raise InputError(f"there is no file {name}")
    name = name or "the picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise InputError(
                        f"{name} has {width} × {height} pixels, more than the "
                        f"{max_pixels // 1_000_000} megapixels allowed; scale it down first"
                    )
                image.load()
                return to_rgb(image)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is no picture that can be read (no known format)") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} claims more pixels than the {max_pixels // 1_000_000} megapixels allowed; "
            "scale it down first"
        ) from error
    except Exception as error:  # Pillow's readers raise whatever their parsers meet
        raise InputError(f"{name} cannot be read as a picture: {error}; is it whole?") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB on white, EXIF orientation applied; a loaded picture of any mode."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        # 16-bit data keeps its scale; other integers and floats are taken as 0–255 (or 0–1).
        if image.mode.startswith("I;16") or values.max(initial=0) > 255:
            values = values / 257
        elif image.mode == "F" and values.max(initial=0) <= 1:
            values = values * 255
        image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def as_picture(media: Any, name: str = "the picture") -> Image.Image:
    """8-bit RGB, upright, of what people have: a path, a file's bytes, an array uint8 [H, W],
    [H, W, 3] or [H, W, 4], or a PIL picture; InputError for anything else."""
    if isinstance(media, np.ndarray):
        shape = media.shape
        if media.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)):
            raise InputError(
                f"{name} is an array {media.dtype} {list(shape)}; uint8 [height, width, 3] is "
                "needed, values from 0 to 255"
            )
        if not media.size:
            raise InputError(f"{name} is an array {list(shape)}, which has no pixels")
        media = Image.fromarray(np.ascontiguousarray(media))
    if isinstance(media, Image.Image):
        try:
            turned = media.getexif().get(ExifTags.Base.Orientation, 1) != 1
        except Exception:  # what is no EXIF turns nothing
            media, turned = media.copy(), False
            media.info.pop("exif", None)
        if media.mode == "RGB" and not turned:
            return media
        try:
            return to_rgb(media)
        except Exception as error:  # a file that PIL opened is read only now
            raise InputError(f"{name} cannot be read: {error}; is it whole?") from error
    if isinstance(media, bytes | bytearray | memoryview):
        return open_image(bytes(media), name)
    if isinstance(media, str | os.PathLike):
        return open_image(Path(media))
    raise InputError(
        f"{name} is {'an' if type(media).__name__[0] in 'aeiou' else 'a'} {type(media).__name__}; "
        "give a path, a file's bytes, an array or a PIL picture"
    )


def fit_image(image: Image.Image, width: int, height: int, fit: str) -> Image.Image:
    """Scale to width × height pixels: `crop` cuts the middle out, `pad` adds black."""
    if image.size == (width, height):
        return image
    if fit == "pad":
        return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=(0, 0, 0))
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
