"""What `complete` and `generate` leave behind: picture files, one contact sheet, `run.json`."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jpeglm.codecs import Codec
from jpeglm.files import atomic_write, write_json
from jpeglm.generation.pictures import Pictures

MARGIN, CAPTION = 8, 18


def contact_sheet(
    tiles: list[tuple[str, Image.Image]], columns: int | None = None, tile: int = 192
) -> Image.Image:
    """Captioned pictures side by side; small ones are enlarged to about `tile` pixels."""
    columns = columns or min(len(tiles), 8)
    rows = -(-len(tiles) // columns)
    width, height = tiles[0][1].size
    scale = max(1, round(tile / max(width, height)))
    cell_width, cell_height = width * scale + MARGIN, height * scale + CAPTION + MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for i, (caption, image) in enumerate(tiles):
        x = MARGIN + i % columns * cell_width
        y = MARGIN + i // columns * cell_height
        if scale > 1:
            image = image.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
        draw.text((x, y), caption, fill="black", font=font)
        sheet.paste(image, (x, y + CAPTION))
    return sheet


def strips(tiles: list[tuple[str, Any]], columns: int = 8) -> Image.Image:
    """The sheet of pictures, at most `columns` side by side, or of clips, one below the other."""
    frames = [media for _, media in tiles if isinstance(media, np.ndarray)]
    if not frames:
        return contact_sheet(tiles, min(len(tiles), columns))
    shown = [
        (caption if number == 0 else str(number + 1), Image.fromarray(frame))
        for caption, clip in tiles
        for number, frame in enumerate(clip)
    ]
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


def png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def summary(pictures: Pictures) -> dict[str, Any]:
    """The figures that `run.json` and `--json` show."""
    return {
        "pictures": len(pictures.images),
        "tokens": pictures.tokens,
        "prompt_tokens": pictures.prompt_tokens,
        "seconds": round(pictures.seconds, 4),
        "tokens_per_second": round(pictures.tokens_per_second, 1),
        "settings": pictures.settings,
    } | ({"bits_per_image": round(float(np.mean(pictures.bits)), 1)} if pictures.bits else {})


def write_pictures(
    pictures: Pictures, codec: Codec | None, out: Path, kind: str, record: dict[str, Any]
) -> dict[str, Any]:
    """Write everything into the folder `out`; give the record of `run.json`.

    kind: `completion` or `sample`, the files' name; codec None writes the pictures as PNG. Files
    of an earlier run that this one does not write again are removed; whatever else lies in the
    folder stays.
    """
    out = Path(out)
    files: dict[str, bytes] = {}
    tiles: list[tuple[str, Any]] = []
    if codec is None:
        for i, image in enumerate(pictures.images):
            files[f"{kind}-{i:02d}.png"] = png(image)
            tiles.append((f"{kind} {i}", image))
    elif pictures.original is not None and pictures.prompt is not None:
        files[f"original{codec.extension}"] = codec.wrap(pictures.original)
        files[f"prompt{codec.extension}"] = codec.wrap(pictures.prompt)
        tiles += [
            ("original", codec.decode(pictures.original)),
            ("prompt", codec.decode(pictures.prompt)),
        ]
    for i, (stream, image) in enumerate(zip(pictures.streams, pictures.images)):
        assert codec is not None
        files[f"{kind}-{i:02d}{codec.extension}"] = codec.wrap(stream)
        tiles.append((f"{kind} {i}", image))
    files["sheet.png"] = png(strips(tiles))
    if codec is not None and codec.media == "clip":
        files["sheet.gif"] = animation(tiles, codec.config.fps)
    ours = re.compile(
        r"(original|prompt|(completion|sample)-\d+)\.(jpg|png|mp4)|sheet\.(png|gif)|run\.json"
    )
    if out.is_dir():
        for old in out.iterdir():
            if ours.fullmatch(old.name) and old.name not in files:
                old.unlink()
    for name, data in files.items():
        atomic_write(out / name, data)
    result = {
        **summary(pictures),
        "out": str(out),
        "files": [*files, "run.json"],
        "bits": [round(bits, 1) for bits in pictures.bits],
        **record,
    }
    write_json(out / "run.json", result)
    return result
