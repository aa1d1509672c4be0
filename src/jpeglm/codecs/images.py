"""Pictures as people have them, made into the RGB picture that a codec takes.

    path, bytes, array, PIL picture ──▶ opened ▸ `colours.to_rgb` ──▶ `fit_image`

Of an animation or of several pages the first counts. What cannot be read is refused with one
sentence that names the file; nothing is guessed from half a picture.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from jpeglm.codecs.colours import to_rgb
from jpeglm.codecs.misread import amend
from jpeglm.config import InputError, install
from jpeglm.files import file_size, printable, read_bytes, told

MAX_PIXELS = 200_000_000
"""Larger pictures are refused: a few kilobytes can claim to be gigapixels."""
MAX_BYTES = 1 << 29
"""Larger files are refused; 200 megapixels of 16-bit RGB hardly come compressed to less."""
# fmt: off
FORMATS = (
    "JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "PPM", "BMP", "DIB", "ICO", "CUR", "ICNS",
    "JPEG2000", "PCX", "DCX", "TGA", "QOI", "SGI", "SUN", "PSD", "DDS", "FTEX", "BLP", "FLI", "GBR",
    "IM", "IMT", "MSP", "PCD", "PIXAR", "XBM", "XPM", "XVTHUMB",
)
# fmt: on
"""What Pillow may open. Left out: EPS and WMF, which start other programs, containers that open
any format inside, and tables of measurements whose values mean no brightness (FITS, GRIB)."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
MOVING = ("GIF", "PNG", "WEBP", "AVIF", "FLI")
"""Formats whose further pictures are frames of an animation, not thumbnails, layers or sizes."""
PAGED = ("TIFF", "DCX")


def open_image(
    source: Path | str | bytes | BinaryIO,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    ground: int = 255,
) -> Image.Image:
    """Read a picture as 8-bit RGB, upright, what is transparent on the grey `ground`; `name` is
    what errors call it."""
    if isinstance(source, str | Path):
        name = name or printable(source)
    name = name or "the picture"
    try:
        with opened(source, name, max_pixels=max_pixels) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"{name} has {width} × {height} pixels, more than the "
                    f"{max_pixels / 1e6:g} megapixels allowed; scale it down first"
                )
            amend(image, name)
            white, alpha = _white(image), _deep_transparency(image, source)
            image.load()
            return to_rgb(image, white, alpha, ground)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} claims more pixels than the {max(max_pixels, MAX_PIXELS) / 1e6:g} megapixels "
            "allowed; scale it down first"
        ) from error
    except Exception as error:  # Pillow's readers raise whatever their parsers meet
        plain = _without_profile(source)
        if plain is not None:
            return open_image(plain, name, max_pixels, ground)
        reason = f"cannot be read as a picture: {told(error)}; is it whole?"
        if isinstance(error, UnidentifiedImageError):
            reason = _why_not(source)
        raise InputError(f"{name} {reason}") from error


def holds_more(source: Path | bytes, formats: tuple[str, ...] = MOVING + PAGED) -> bool:
    """Whether a picture file of these formats holds more than the first frame or page, which
    `open_image` gives."""
    try:
        with opened(source, formats=formats) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # no picture, or a broken one: open_image tells
        return False


_header = threading.Lock()


class _Quiet:
    """No warnings while any thread is inside. `warnings.catch_warnings` in each thread would put
    back what another had set, and leave the whole process without warnings."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.kept: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.kept = warnings.catch_warnings()
                self.kept.__enter__()
                warnings.simplefilter("ignore")
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.kept.__exit__()


_quiet = _Quiet()


@contextmanager
def opened(
    source: Path | str | bytes | BinaryIO,
    name: str = "the picture",
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
    """A picture whose header is read, closed at the end; any error that Pillow has, InputError if
    a path leads to no regular file or to too large a one.

    Pillow's own limit is made ours for as long as the header takes, in which a GIF allocates its
    canvas; a lower one is for the caller to judge.
    """
    if isinstance(source, str | Path):
        file_size(Path(source), MAX_BYTES)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with _quiet:  # of broken EXIF, odd palettes: the pixels are judged
        with _header:
            kept = Image.MAX_IMAGE_PIXELS
            # Twice this is an error, once is a warning.
            Image.MAX_IMAGE_PIXELS = (max(max_pixels, MAX_PIXELS) + 1) // 2
            try:
                image = Image.open(file, formats=_with_heif(file, name, formats))
            finally:
                Image.MAX_IMAGE_PIXELS = kept
        with image:
            yield image


def _head(file: Any, length: int = 64) -> bytes:
    """The first bytes, which count wherever an open file stands; it stays there."""
    if isinstance(file, bytes):
        return file[:length]
    if isinstance(file, str | Path):
        with open(file, "rb") as opened_file:
            return opened_file.read(length)
    place = file.tell()
    file.seek(0)
    head: bytes = file.read(length)
    file.seek(place)
    return head


def _with_heif(file: Any, name: str, formats: tuple[str, ...]) -> tuple[str, ...]:
    """The formats to try: of HEIC only pillow-heif's, which Pillow's AVIF reader would claim."""
    head = _head(file)
    size = min(int.from_bytes(head[:4]), len(head))
    brands = [head[8:12]] + [head[i : i + 4] for i in range(16, size - 3, 4)]
    if head[4:8] != b"ftyp" or not set(brands) & set(HEIF_BRANDS):
        return formats
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{name} is HEIC, which needs pillow-heif; {install('heif')}") from error
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _why_not(source: Any) -> str:
    """What is wrong with a file whose header no reader takes: the reader that knows its first
    bytes is asked again, since Pillow's own error names no reason."""
    head = _head(source, 16)
    if not head:
        return "is empty"
    known = [name for name in Image.ID if _begins_as(name, head)]
    for name in [name for name in known if name in FORMATS]:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            with Image.OPEN[name][0](file, ""):
                pass
        except Exception as error:
            return (
                f"cannot be read as a picture: a {name} file that is damaged or of a rare kind "
                f"({told(error)}); save it as PNG where it opens"
            )
    for name in [name for name in known if name not in FORMATS]:
        return f"is a file of format {name}, which is not read here; save it as PNG first"
    return "is not a readable picture (no known format)"


def _begins_as(name: str, head: bytes) -> bool:
    try:
        accept = Image.OPEN[name][1]
        return accept is not None and accept(head) is True
    except Exception:  # too short even for that
        return False


def _deep_transparency(image: Any, source: Any) -> Image.Image | None:
    """The alpha that tRNS means in a PNG of 16-bit colours, of which Pillow keeps the upper bytes:
    the lower bytes are read too, since a transparent colour is one value of 2^48."""
    clear = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(clear, tuple) or "16B" not in str(image.tile):
        return None
    del image.info["transparency"]
    halves = []
    for mode in ("RGB;16B", "RGB;16L"):
        again: Any
        with opened(source) as again:
            again.tile = [tile._replace(args=mode) for tile in again.tile]
            again.load()
            halves.append(np.asarray(again).astype(np.uint16))
    found = (halves[0] * 256 + halves[1] == np.array(clear)).all(-1)
    return Image.fromarray(np.where(found, 0, 255).astype(np.uint8))


def _without_profile(source: Any) -> bytes | None:
    """A PNG without its colour profile, since Pillow refuses the picture for a profile that it
    cannot unpack; None of what has none."""
    if _head(source, 8) != b"\x89PNG\r\n\x1a\n":
        return None
    if isinstance(source, str | Path):
        source = read_bytes(Path(source), MAX_BYTES)
    if not isinstance(source, bytes):
        source.seek(0)
    data = source if isinstance(source, bytes) else source.read()
    place = 8
    while (kind := data[place + 4 : place + 8]) not in (b"IDAT", b"IEND", b""):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if kind == b"iCCP":
            return data[:place] + data[end:]
        place = end
    return None


def _white(image: Image.Image) -> float | None:
    """The value that is white in 16-bit grey data, where the format says it; before loading."""
    if image.format != "TIFF":  # Pillow has scaled the others' values to 16 bits
        return 65535.0
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, signed = (tags.get(258) or (1,))[0], (tags.get(339) or (1,))[0] == 2
    return float(2 ** (bits - signed) - 1) if bits <= 16 else None


def as_picture(media: Any, name: str = "the picture", ground: int = 255) -> Image.Image:
    """8-bit RGB, upright, what is transparent on the grey `ground`, of what people have: a path, a
    file's bytes, an array uint8 [H, W], [H, W, 3] or [H, W, 4], or a PIL picture; InputError for
    anything else."""
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
        picture = media
        try:
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        except Exception:  # what is no EXIF turns nothing
            picture, turned = picture.copy(), False
            picture.info.pop("exif", None)
        if picture.mode == "RGB" and not turned:
            return picture
        try:
            return to_rgb(picture, ground=ground)
        except Exception as error:  # a file that PIL opened is read only now
            raise InputError(f"{name} cannot be read: {error}; is it whole?") from error
    if isinstance(media, bytes | bytearray | memoryview):
        return open_image(bytes(media), name, ground=ground)
    if isinstance(media, str | os.PathLike):
        return open_image(Path(media), ground=ground)
    raise InputError(
        f"{name} is {'an' if type(media).__name__[0] in 'aeiou' else 'a'} {type(media).__name__}; "
        "give a path, a file's bytes, an array or a PIL picture"
    )


def fit_image(
    image: Image.Image,
    width: int,
    height: int,
    fit: str,
    how: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Scale to width × height pixels by a way of `jpeglm.config.FITS`."""
    if image.size == (width, height):
        return image
    if fit == "pad":
        return ImageOps.pad(image, (width, height), how, color=0)  # black, in any mode
    centre = 0.5, 0.0 if fit == "top" else 0.5
    return ImageOps.fit(image, (width, height), how, centering=centre)


def crop_box(size: tuple[int, int], width: int, height: int, fit: str) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what `fit_image` cuts out of a picture of this size."""
    share = min(size[0] / width, size[1] / height)
    wide, high = round(width * share), round(height * share)
    left, top = (size[0] - wide) // 2, 0 if fit == "top" else (size[1] - high) // 2
    return left, top, left + wide, top + high


def as_mask(mask: Any, size: tuple[int, int], name: str = "the mask") -> Image.Image:
    """A mask of a picture of this (width, height), as `as_picture` takes it or bool [H, W]: L,
    255 where it is lighter than half, or True, and 0 elsewhere. What is transparent lies on black:
    white strokes on an empty layer are a mask."""
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        mask = 255 * mask.astype(np.uint8)
    picture = as_picture(mask, name, ground=0)
    if picture.size != size:
        raise InputError(
            "{} has {} × {} pixels, its picture {} × {}; a mask has the size of its picture".format(
                name, *picture.size, *size
            )
        )
    return picture.convert("L").point(lambda value: 255 * (value >= 128))


def region_mask(region: Sequence[int], size: tuple[int, int]) -> Image.Image:
    """The mask, L, that is white in a rectangle (left, top, width, height), pixels of a picture of
    this size; InputError where no pixel of it lies in the picture."""
    left, top, width, height = region
    if width < 1 or height < 1:
        raise InputError(
            "the region {},{},{},{} (left, top, width, height) is empty; width and height are at "
            "least 1".format(*region)
        )
    mask = Image.new("L", size)
    box = max(left, 0), max(top, 0), min(left + width, size[0]), min(top + height, size[1])
    if box[0] >= box[2] or box[1] >= box[3]:
        raise InputError(
            "the region {},{},{},{} (left, top, width, height) lies outside the picture, which has "
            "{} × {} pixels".format(*region, *size)
        )
    mask.paste(255, box)
    return mask
