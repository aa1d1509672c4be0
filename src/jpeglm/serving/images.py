"""Files in and out: uploads become pictures and masks, streams become JPEG, PNG or WebP."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageOps

from jpeglm.codecs import Codec, JpegCodec
from jpeglm.codecs.images import open_image, opened
from jpeglm.config import InputError
from jpeglm.serving.errors import Problem

__all__ = ["FORMATS", "hole_of", "picture_of", "stream_of", "written"]

FORMATS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
"""What `output_format` takes, and the extension of each."""
OURS = 100
"""The `output_compression` that leaves a file as the model wrote it."""


def written(codec: Codec, stream: bytes, form: str, compression: int) -> bytes:
    """A whole file of a stream, finished or not: what is not drawn yet is flat. The model's own
    bytes where the form is its codec's, unless `compression` (a JPEG's or WebP's quality, `OURS`
    without loss) asks for a smaller file."""
    if FORMATS[form] == codec.extension and compression == OURS:
        return codec.wrap(stream)
    options: dict[str, Any] = {}
    if form != "png":
        options["quality"] = compression
    if form == "webp":
        options["lossless"] = compression == OURS
    out = io.BytesIO()
    codec.show(stream).save(out, form.upper(), **options)
    return out.getvalue()


def picture_of(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """An upload as 8-bit RGB, upright. InputError for what is no picture, `Problem` 413 for one of
    more than max_pixels."""
    _judge_size(data, name, max_pixels)
    return open_image(data, name, max_pixels)


def stream_of(codec: Codec, data: bytes, picture: Image.Image) -> bytes:
    """The stream of an upload, which shows this picture. A file that is one of the codec's already
    is taken as it is, so that one may go on from what a model drew and lose nothing."""
    own = codec.own_stream(data) if isinstance(codec, JpegCodec) else None
    return codec.encode(picture) if own is None else own


def hole_of(data: bytes, size: tuple[int, int], max_pixels: int) -> Image.Image:
    """A mask as that API has it, of a picture of this (width, height): L, 255 where it is
    transparent, which is drawn anew, and 0 elsewhere. Errors as above, and for other masks."""
    picture_of(data, "mask", max_pixels)  # which refuses what is none
    with opened(data, "mask") as image:
        if not image.has_transparency_data:
            raise InputError(
                "mask has no transparency, which says where to draw; save it as PNG with what is "
                "to be drawn anew erased"
            )
        alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    if alpha.size != size:
        raise InputError(
            "mask has {} × {} pixels, its picture {} × {}; a mask has the size of its "
            "picture".format(*alpha.size, *size)
        )
    return alpha.point(lambda value: 255 * (value < 128))


def _judge_size(data: bytes, name: str, max_pixels: int) -> None:
    """What its header claims, before anything of that size is made."""
    try:
        with opened(data, name) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise Problem(
            413, f"{name} claims more pixels than the {max_pixels / 1e6:g} megapixels allowed", name
        ) from error
    except Exception:  # whoever reads it says why not
        return
    if width * height > max_pixels:
        raise Problem(
            413,
            f"{name} has {width} × {height} pixels, more than the {max_pixels / 1e6:g} megapixels "
            "allowed; scale it down first",
            name,
        )
