"""Contact sheets: what was given and what was drawn, side by side, large enough to be seen; of many
pictures several pages, what was given on each.

your photo   64 x 64, quality 25   given   completion 0   completion 1 …

On the photo a frame shows what is cut out of it; on the others a thin line what is new.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jpeglm.codecs import Codec
from jpeglm.codecs.images import crop_box
from jpeglm.config import JpegConfig

MARGIN, CAPTION, LINE = 8, 18, 14
"""Pixels between tiles, above a picture with one line, and for each further one."""
TILE = 192
"""Pixels that small pictures are enlarged to, about."""
GREY = 128
"""Of what is not given."""
PAGE = {"picture": 64, "clip": 16}
"""How many drawn ones a page shows: some 8 rows of pictures, 16 of clips."""


class Call(Protocol):
    """What is known of a call before all is drawn: `pictures.Pictures` in part."""

    original: bytes | None
    prompt: bytes | None
    source: Image.Image | None
    units_kept: int
    settings: dict[str, Any]


def given_of(call: Call | None) -> dict[str, bytes]:
    """Name → stream of what a call was given: nothing, or the original and what was kept of it."""
    if call is None or call.original is None or call.prompt is None:
        return {}
    return {"original": call.original, "prompt": call.prompt}


def new_units(codec: Codec, call: Call) -> np.ndarray:
    """bool [units]: those that a call draws anew."""
    order, hole = np.arange(codec.units), call.settings.get("hole")
    return order >= call.units_kept if hole is None else np.isin(order, hole)


def enlarged(image: Image.Image, new: np.ndarray | None = None) -> Image.Image:
    """A picture at about `TILE` pixels, with a line around what is new."""
    scale = max(1, round(TILE / max(image.size)))
    shown = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    if new is None or new.all() or not new.any():
        return shown
    draw = ImageDraw.Draw(shown)
    height, width = shown.height // len(new), shown.width // len(new[0])
    for shift, colour in ((0, (0, 0, 0)), (-1, (255, 255, 255))):  # seen on dark and on light
        for row, column in np.argwhere(new[1:] != new[:-1]).tolist():
            y = (row + 1) * height + shift
            draw.line((column * width, y, (column + 1) * width - 1, y), colour)
        for row, column in np.argwhere(new[:, 1:] != new[:, :-1]).tolist():
            x = (column + 1) * width + shift
            draw.line((x, row * height, x, (row + 1) * height - 1), colour)
    return shown


def framed(photo: Image.Image, size: tuple[int, int], codec: Codec, fit: str) -> Image.Image:
    """A photo within `size` pixels on white, with a frame around what a codec takes of it."""
    config, small = codec.config, photo.convert("RGB")
    small.thumbnail(size, Image.Resampling.LANCZOS)
    if fit != "pad":
        box = crop_box(small.size, config.width, config.height, fit)
        draw = ImageDraw.Draw(small)
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=(0, 0, 0))
        inner = box[0] + 1, box[1] + 1, box[2] - 2, box[3] - 2
        if inner[0] <= inner[2] and inner[1] <= inner[3]:
            draw.rectangle(inner, outline=(255, 255, 255))
    tile = Image.new("RGB", size, "white")
    tile.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
    return tile


def tiles_of(
    codec: Codec | None, call: Call | None, images: list[tuple[str, Any]]
) -> list[tuple[str, Any]]:
    """Captions and pictures of a sheet: what was given, then what was drawn."""
    given = given_of(call)
    if codec is None or call is None or not given:
        return images
    original, prompt = (codec.show(stream) for stream in given.values())
    if codec.media == "clip":
        prompt[call.units_kept :] = GREY
        return [("original", original), ("given", prompt), *images]
    config, new, quality = codec.config, None, ""
    if isinstance(config, JpegConfig):
        new, quality = new_units(codec, call).reshape(config.grid), f", quality {config.quality}"
    shown = [
        (f"{config.width} x {config.height}{quality}", enlarged(original)),
        ("given", enlarged(prompt, new)),
        *((name, enlarged(image, new)) for name, image in images),
    ]
    if call.source is not None:
        size = f"{call.source.width} x {call.source.height}"
        fit = call.settings.get("fit", config.fit)
        photo = framed(call.source, shown[0][1].size, codec, fit)
        shown.insert(0, (f"your photo, {size}", photo))
    return shown


def pages_of(codec: Codec | None, count: int) -> list[range]:
    """The numbers that each page shows, of so many pictures or clips."""
    size = PAGE[codec.media if codec else "picture"]
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def page_names(codec: Codec | None, count: int, most: int) -> list[str]:
    """What the pages of `count` are called, without extension, where `most` were to be drawn."""
    pages, digits = len(pages_of(codec, count)), len(str(len(pages_of(codec, most))))
    if pages == 1:
        return ["sheet"]
    return [f"sheet-{page:0{digits}d}" for page in range(1, pages + 1)]


def sheet_of(codec: Codec | None, call: Call | None, images: list[tuple[str, Any]]) -> Image.Image:
    """One page of a call, whose pictures or clips have these captions."""
    return strips(tiles_of(codec, call, images), kept=call.units_kept if call else 0)


def contact_sheet(
    tiles: list[tuple[str, Image.Image]], columns: int | None = None, tile: int = TILE
) -> Image.Image:
    """Captioned pictures side by side, long captions over several lines; small pictures are
    enlarged to about `tile` pixels."""
    columns = columns or min(len(tiles), 8)
    rows = -(-len(tiles) // columns)
    width, height = tiles[0][1].size
    scale = max(1, round(tile / max(width, height)))
    font = ImageFont.load_default(size=12)
    captions = [wrapped(caption, width * scale, font) for caption, _ in tiles]
    above = CAPTION + LINE * (max(map(len, captions)) - 1)
    cell_width, cell_height = width * scale + MARGIN, height * scale + above + MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (lines, (_, image)) in enumerate(zip(captions, tiles)):
        x = MARGIN + i % columns * cell_width
        y = MARGIN + i // columns * cell_height
        if scale > 1:
            image = image.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
        for number, line in enumerate(lines):
            draw.text((x, y + LINE * number), line, fill="black", font=font)
        sheet.paste(image, (x, y + above))
    return sheet


def wrapped(caption: str, width: int, font: Any) -> list[str]:
    """The lines of a caption, each as wide as it may be in pixels; a wider word is cut."""
    lines: list[str] = []
    for word in caption.split():
        while font.getlength(word) > width and len(word) > 1:
            word = word[:-1]
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def strips(tiles: list[tuple[str, Any]], columns: int = 8, kept: int = 0) -> Image.Image:
    """The sheet of pictures, at most `columns` side by side, or of clips, one below the other;
    kept: frames that were given, behind which those of completions are marked as new."""
    frames = [media for _, media in tiles if isinstance(media, np.ndarray)]
    if not frames:
        return contact_sheet(tiles, min(len(tiles), columns))
    shown = []
    for caption, clip in tiles:
        given = kept if caption.startswith("completion") else len(clip)
        for number, frame in enumerate(clip):
            mark = " new" * (number >= given)
            title = f"{number + 1}{mark}" if number else f"{caption}{mark}"
            shown.append((title, Image.fromarray(frame)))
    return contact_sheet(shown, len(frames[0]), tile=128)


def animation(tiles: list[tuple[str, np.ndarray]], fps: float) -> bytes:
    """Clips side by side as a GIF that plays for ever."""
    shown = [
        contact_sheet(
            [(caption, Image.fromarray(clip[number])) for caption, clip in tiles],
            min(len(tiles), 8),
        )
        for number in range(len(tiles[0][1]))
    ]
    out = BytesIO()
    duration = round(1000 / fps)
    shown[0].save(out, "GIF", save_all=True, append_images=shown[1:], duration=duration, loop=0)
    return out.getvalue()
