"""What a decoded picture looks like, as 8-bit sRGB: mode, transparency, profile, orientation.

    palette, CMYK, Lab, 16 bits, floats ▸ 8 bits a channel      transparency ▸ on white
    ICC profile or gAMA ▸ sRGB                                  EXIF orientation ▸ upright

A PNG without a profile is taken by its gAMA, as ImageMagick and browsers do; cHRM is ignored, as
ImageMagick does. Trade-off: a picture is decoded to 8 bits a channel before its profile is applied,
so wide colour spaces lose up to a level; in return one road serves all formats.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

STRIP = 1 << 24
"""Pixels that are converted at a time."""
GAMMAS = 0.1, 10.0
"""Of a PNG's gAMA; others are slips, and would make all of it black or white."""
COLOURS = {"icc_profile", "gamma", "transparency"}
"""What else than its pixels decides what an RGB picture looks like."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's tag Orientation: what shows the picture upright."""


def _unsigned_32(image: Any) -> bool:
    """Whether a TIFF of 32-bit integers says that they have no sign, which is the default."""
    bits, sample = image.tag_v2.get(258) or (1,), image.tag_v2.get(339) or (1,)
    return tuple(bits) == (32,) and tuple(sample) == (1,)


def to_rgb(
    image: Image.Image,
    white: float | None = None,
    alpha: Image.Image | None = None,
    ground: int = 255,
) -> Image.Image:
    """8-bit RGB on the grey `ground`, sRGB, EXIF orientation applied; a loaded picture of any mode.

    white: the value of integers that is white; None: told from the values, as it is of floats.
    alpha: opacity beside the picture's own.
    """
    turn = _turn(image)
    rows = max(1, STRIP // image.width)
    if image.height <= rows or image.mode.startswith(("I", "F", "1")):
        shown = _flat(image, white, alpha, ground)
    elif image.mode == "RGB" and alpha is None and not set(image.info) & COLOURS:
        shown = image._new(image.im)  # the same pixels: a second copy would be another gigabyte
    else:  # in strips: the copies that a conversion makes would take five times the picture
        shown = Image.new("RGB", image.size)
        for top in range(0, image.height, rows):
            box = (0, top, image.width, min(top + rows, image.height))
            part = alpha.crop(box) if alpha is not None else None
            shown.paste(_flat(image.crop(box), white, part, ground), box)
    shown.info.clear()
    return shown.transpose(turn) if turn is not None else shown


def _flat(
    image: Image.Image, white: float | None, alpha: Image.Image | None, ground: int
) -> Image.Image:
    """`to_rgb` but for the orientation."""
    profile = image.info.get("icc_profile")
    gamma = None if profile or "srgb" in image.info else image.info.get("gamma")
    clear = image.info.get("transparency")
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.format == "TIFF" and image.mode == "I" and _unsigned_32(image):
            values = values.view(np.uint32)  # Pillow knows signed ones alone
        if isinstance(clear, int):
            alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        if white is None and image.mode.startswith("I;16"):
            white = 65535.0
        inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
        floats = image.mode.startswith("F")
        image = Image.fromarray(_levels(values, None if floats else white, inverted))
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or clear is not None:
        grey = image.mode in ("LA", "La")
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        image = whole.getchannel("R") if grey else whole.convert("RGB")
    elif image.mode in ("P", "1"):
        ink = image.format == "XBM"  # X11 draws its ones, Pillow takes them for white
        image = ImageOps.invert(image.convert("L")) if ink else image.convert("RGB")
    image = _srgb(image, profile)
    if gamma and GAMMAS[0] <= gamma <= GAMMAS[1] and abs(2.2 * gamma - 1) > 0.05:
        image = image.point(_gamma_table(gamma) * 3)
    if alpha is not None:
        image.putalpha(alpha)
        below = Image.new("RGBA", image.size, (ground, ground, ground, 255))
        image = Image.alpha_composite(below, image).convert("RGB")
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF says nothing about the pixels
        return None


def _levels(values: np.ndarray, white: float | None, inverted: bool) -> np.ndarray:
    """Grey of any range as uint8: 0 is black, `white` is white, what lies outside is cut.

    Where no format says it, white is the least of 1 (floats), 255, 65535 and the type's largest
    that all but the brightest 0.5 % keep within twice: overshoot and hot pixels darken nothing.
    Infinities are black and white, no number is black.
    """
    unsigned = values.dtype == np.uint32
    values = values.astype(np.float64)
    if white is None:
        finite = values[np.isfinite(values)]
        top = float(np.quantile(finite, 0.995)) if finite.size else 1.0
        largest = (2.0**32 - 1,) if unsigned else (2.0**31 - 1, 2.0**32 - 1)
        scales = (1.0, 255.0, 65535.0, *largest)
        white = next((scale for scale in scales if top <= 2 * scale), top)
    levels = np.nan_to_num(values / white * 255, nan=0.0, posinf=255.0, neginf=0.0)
    levels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return 255 - levels if inverted else levels


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours that the profile means as sRGB in mode RGB; a profile that is broken or of other
    channels is ignored."""
    transform = _transform(profile, image.mode) if profile else None
    if transform is None:
        return image.convert("RGB")
    shown = ImageCms.applyTransform(image, transform)
    assert shown is not None  # None is of transforms in place
    return shown


def _gamma_table(gamma: float) -> list[int]:
    """What a PNG's sample means in sRGB: sample = light ** gamma (PNG, clause 13.13)."""
    light = np.linspace(0, 1, 256) ** (1 / gamma)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return [int(level) for level in np.rint(255 * coded)]


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where it is of no use, or is sRGB itself (within 2 levels):
    those colours stay as they are, to the bit."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", intent
        )
        if mode in ("RGB", "L"):
            steps = np.linspace(0, 255, 9).astype(np.uint8)
            grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
            probe = Image.fromarray(grid).convert(mode)
            moved = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
            if np.abs(moved - np.asarray(probe.convert("RGB"))).max() <= 2:
                return None
        return transform
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        return None
