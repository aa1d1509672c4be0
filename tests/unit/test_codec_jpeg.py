"""The JPEG codec: Pillow's bytes exactly, any picture in, one sentence for what cannot be read."""

import hashlib
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import JpegCodec, make_codec
from jpeglm.codecs.images import open_image
from jpeglm.config import PAPER_JPEG, InputError, JpegConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "jpeg.json"
SETTINGS = [
    PAPER_JPEG,
    JpegConfig(64, 64, 25, "4:2:0", 1),
    JpegConfig(96, 72, 75, "4:2:2", 3),
    JpegConfig(72, 40, 90, "4:4:4", 0),
    JpegConfig(64, 40, 25, "gray", 0),
]


def gradient():
    y, x = np.mgrid[:300, :400]
    return Image.fromarray(np.stack([x % 256, y % 256, (x * y // 97) % 256], -1).astype(np.uint8))


def test_golden_bytes(picture_files):
    """Canonical bytes never change; JPEGLM_REGENERATE=1 rewrites the hashes on purpose."""
    found = {}
    for config in SETTINGS:
        codec = JpegCodec(config)
        streams = codec.encode(gradient()) + codec.encode(open_image(picture_files[3]))
        found[json.dumps(config.to_dict())] = {
            "sha256": hashlib.sha256(streams).hexdigest(),
            "fingerprint": codec.fingerprint,
        }
    if os.environ.get("JPEGLM_REGENERATE"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_the_papers_setting_is_the_papers_call():
    image = gradient().resize((256, 256))
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=25, subsampling="4:2:0", streamtype=2,
               restart_marker_blocks=1)  # fmt: skip
    assert JpegCodec(PAPER_JPEG).encode(image) == out.getvalue()


@pytest.mark.parametrize("config", SETTINGS, ids=lambda c: c.subsampling)
def test_wrapped_file_is_what_pillow_writes(config):
    codec = JpegCodec(config)
    image = gradient().resize((config.width, config.height))
    if config.subsampling == "gray":
        image = image.convert("L")
    out = io.BytesIO()
    options = {} if config.subsampling == "gray" else {"subsampling": config.subsampling}
    if config.restart_interval:
        options["restart_marker_blocks"] = config.restart_interval
    image.save(out, "JPEG", quality=config.quality, **options)
    stream = codec.encode(image)
    assert codec.wrap(stream) == out.getvalue()
    assert codec.unwrap(codec.wrap(stream)) == stream == codec.unwrap(stream)
    shown = Image.open(io.BytesIO(codec.wrap(stream))).convert("RGB")
    assert (np.asarray(codec.decode(stream)) == np.asarray(shown)).all()
    assert make_codec(codec.to_dict()).fingerprint == codec.fingerprint


def test_cut_keeps_the_pixels_above():
    codec = JpegCodec(JpegConfig(64, 64, 75, "4:4:4", 0))
    stream = codec.encode(gradient())
    whole = np.asarray(codec.decode(stream))
    for rows in range(9):
        cut = np.asarray(codec.decode(codec.cut(stream, rows * 8)))
        assert (cut[: rows * 8] == whole[: rows * 8]).all()


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def close(data, expected, tolerance=2.0):
    image = open_image(data)
    assert image.mode == "RGB"
    difference = np.asarray(image, float) - np.asarray(expected.convert("RGB"), float)
    assert np.abs(difference).mean() < tolerance


def test_modes_of_all_kinds():
    image = gradient()
    grey = image.convert("L")
    close(saved(grey, "PNG"), grey)
    close(saved(image.quantize(256), "PNG"), image, 12)
    close(saved(image.convert("CMYK"), "TIFF"), image)
    close(saved(grey.convert("1"), "PNG"), grey.convert("1"))
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    close(saved(wide, "PNG"), grey)
    close(saved(wide, "TIFF"), grey)
    close(saved(Image.fromarray(np.asarray(grey).astype(np.float32) / 255), "TIFF"), grey)
    frames = [image, Image.new("RGB", image.size)]
    close(saved(frames[0].quantize(256), "GIF", save_all=True, append_images=frames[1:]), image, 12)


def test_transparency_lies_on_white():
    image = gradient().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert np.asarray(open_image(saved(image, "PNG"))).min() == 255
    half = Image.new("LA", (8, 8), (0, 128))
    assert np.abs(np.asarray(open_image(saved(half, "PNG"))).astype(int) - 127).max() <= 1
    palette = gradient().quantize(8)
    clear = np.asarray(palette) == 3
    shown = np.asarray(open_image(saved(palette, "PNG", transparency=3)))
    assert clear.any() and (shown[clear] == 255).all() and shown[~clear].min() < 128


def test_exif_orientation_is_applied():
    image = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise to show
    shown = open_image(saved(image, "JPEG", quality=95, exif=exif))
    assert shown.size == (300, 400)
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270), float)
    assert np.abs(np.asarray(shown, float) - expected).mean() < 12


def test_comments_and_colour_profiles_stay_out_of_the_stream():
    codec = JpegCodec(JpegConfig(64, 64))
    image = gradient().resize((64, 64))
    expected = codec.encode(image)
    marked = image.copy()
    marked.info |= {"comment": b"hello", "icc_profile": b"x" * 50, "exif": b"Exif\0\0abc"}
    assert codec.encode(marked) == expected
    assert marked.info["comment"] == b"hello"


def test_crop_and_pad():
    wide = Image.new("RGB", (200, 100), (250, 250, 250))
    crop = JpegCodec(JpegConfig(64, 64, 95)).encode(wide)
    pad = JpegCodec(JpegConfig(64, 64, 95, fit="pad")).encode(wide)
    codec = JpegCodec(JpegConfig(64, 64, 95))
    assert np.asarray(codec.decode(crop)).min() > 240
    padded = np.asarray(codec.decode(pad))
    assert padded[:12].max() < 10 and padded[20:44].min() > 240


def huge_png(width, height):
    """A valid PNG header of gigantic size with next to no data."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_what_cannot_be_read_is_named(tmp_path, picture_files):
    whole = picture_files[3].read_bytes()
    bad = {
        "text.jpg": b"this is no picture",
        "empty.jpg": b"",
        "half.jpg": whole[: len(whole) // 2],
        "huge.png": huge_png(20_001, 10_000),
        "bomb.png": huge_png(200_000, 100_000),
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    for name in [*bad, "missing.jpg"]:
        with pytest.raises(InputError, match=name) as caught:
            open_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="200 megapixels"):
        open_image(tmp_path / "huge.png")
    with pytest.raises(InputError, match="folder"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"width": 60}, {"height": 0}, {"quality": 0}, {"quality": 101}, {"subsampling": "4:1:1"},
        {"restart_interval": -1}, {"fit": "stretch"}, {"width": 65536},
    ],
)  # fmt: skip
def test_settings_are_checked(values):
    with pytest.raises(InputError, match=next(iter(values))):
        JpegConfig(**values)


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="colour"):
        JpegConfig.from_dict({"colour": 1})
    with pytest.raises(InputError, match="gif"):
        make_codec({"codec": "gif"})
