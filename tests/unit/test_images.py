"""Pictures of every kind become the pixels that other programs show, or one true sentence."""

import io
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from jpeglm.codecs import colours, images
from jpeglm.codecs.clips import is_picture
from jpeglm.codecs.images import holds_more, open_image, opened
from jpeglm.config import InputError

RAMP = np.linspace(0, 1, 48)[None, :] * np.linspace(0.3, 1, 32)[:, None]
"""A picture in shares of white."""


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data):
    return np.asarray(open_image(data)).astype(int)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, bits, colour, *chunks):
    """A PNG of raw rows (bytes each), with more chunks before its pixels."""
    width = len(rows[0]) * 8 // (bits * {0: 1, 2: 3, 4: 2}[colour])
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def grey(levels):
    return np.repeat(levels[..., None], 3, 2)


@pytest.mark.parametrize("white", [1, 9, 255, 256, 1023, 4095, 40_000, 65_535])
@pytest.mark.parametrize("share", [0.003, 0.5, 1.0])
def test_any_maxval_of_a_netpbm_is_white(white, share):
    """A dark picture stays dark: the file says what is white, not its brightest pixel."""
    values = np.rint(RAMP * share * white)
    data = values.astype(">u2" if white > 255 else np.uint8).tobytes()
    shown = pixels(b"P5 48 32 %d\n" % white + data)
    assert np.abs(shown - grey(values / white * 255)).max() <= 0.51
    colour = values.repeat(3, 1).astype(">u2" if white > 255 else np.uint8).tobytes()
    shown = pixels(b"P6 48 32 %d\n" % white + colour)
    assert np.abs(shown - grey(values / white * 255)).max() <= 1


@pytest.mark.parametrize("share", [0.003, 1.0])
def test_16_bits_of_png_and_tiff(share):
    values = np.rint(RAMP * share * 65535).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        shown = pixels(saved(Image.fromarray(values), kind))
        assert np.abs(shown - grey(values / 257)).max() <= 0.51
    rows = [row.astype(">u2").tobytes() for row in values]
    value = int(values[20, 30])
    shown = pixels(png(rows, 16, 0, chunk(b"tRNS", struct.pack(">H", value))))
    clear = values == value
    assert (shown[clear] == 255).all() and clear.sum() < 400
    assert np.abs(shown - grey(values / 257))[~clear].max() <= 0.51
    rows = [row.repeat(3).astype(">u2").tobytes() for row in values]
    shown = pixels(png(rows, 16, 2, chunk(b"tRNS", struct.pack(">HHH", value, value, value))))
    assert (shown[clear] == 255).all()
    assert np.abs(shown - grey(values / 257))[~clear].max() <= 1


def test_lab():
    """In D50, as libtiff's default (ImageMagick takes D65)."""
    image = Image.fromarray((np.stack([RAMP, RAMP[::-1], 1 - RAMP], 2) * 255).astype(np.uint8))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    coded = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    assert np.abs(pixels(saved(coded, "TIFF")) - np.asarray(image)).mean() < 2


def test_tiff_where_white_is_zero():
    values = np.rint(RAMP * 65535).astype(np.uint16)
    image = Image.fromarray(values)
    shown = pixels(saved(image, "TIFF", tiffinfo={262: 0}))
    assert np.abs(shown - grey(255 - values / 257)).max() <= 0.51


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats(white):
    """No number, infinities and a few values beyond white leave all other pixels as they are."""
    values = (RAMP * white).astype(np.float32)
    expected = grey(np.rint(RAMP * 255))
    assert np.abs(pixels(saved(Image.fromarray(values), "TIFF")) - expected).max() <= 1
    values[0, :4] = np.nan, np.inf, -np.inf, -5 * white
    values[5, 5] = 40 * white
    values[6, 40:] = 1.04 * white
    shown = pixels(saved(Image.fromarray(values), "TIFF"))
    assert shown[0, :4, 0].tolist() == [0, 255, 0, 0] and shown[5, 5, 0] == 255
    assert (shown[6, 40:] == 255).all()
    assert np.abs(shown - expected)[7:].max() <= 1
    assert (pixels(saved(Image.fromarray(values * np.nan), "TIFF")) == 0).all()


def test_floats_of_which_a_twentieth_is_brighter_than_one():
    """They are no hot pixels: the values reach to 255."""
    values = np.ones((20, 20), np.float32)
    values[0] = 200
    shown = pixels(saved(Image.fromarray(values), "TIFF"))
    assert (shown[0] == 200).all() and (shown[1:] == 1).all()


def profile(gamma=2.2, swap=False):
    """sRGB's own profile with other primaries: red and green change places, or another curve."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for place in range(132, 132 + 12 * count, 12):
        name, start, _ = struct.unpack(">4sII", data[place : place + 12])
        if swap and name in (b"rXYZ", b"gXYZ"):
            other = b"gXYZ" if name == b"rXYZ" else b"rXYZ"
            data[place : place + 4] = other
        if not swap and name in (b"rTRC", b"gTRC", b"bTRC"):
            data[start : start + 16] = struct.pack(">4sIHHI", b"para", 0, 0, 0, int(gamma * 65536))
    return bytes(data)


def test_colour_profiles_lead_to_srgb():
    image = Image.fromarray(np.stack([RAMP, RAMP[::-1], RAMP * 0.5], 2).__mul__(255).astype("u1"))
    plain = np.asarray(image).astype(int)
    swapped = plain[..., [1, 0, 2]]
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        shown = pixels(saved(image, kind, icc_profile=profile(swap=True), **options))
        assert np.abs(shown - swapped).max() <= 3, kind
    shown = pixels(saved(image, "JPEG", icc_profile=profile(swap=True), quality=98, subsampling=0))
    assert np.abs(shown - swapped).mean() <= 3
    half = image.copy()
    half.putalpha(128)
    shown = pixels(saved(half, "PNG", icc_profile=profile(swap=True)))
    assert np.abs(shown - (swapped * 128 + 255 * 127) / 255).max() <= 3
    palette = image.quantize(64)
    expected = np.asarray(palette.convert("RGB")).astype(int)[..., [1, 0, 2]]
    assert (
        np.abs(pixels(saved(palette, "PNG", icc_profile=profile(swap=True))) - expected).max() < 4
    )
    linear = pixels(saved(image, "PNG", icc_profile=profile(1.0)))
    light = plain / 255
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(linear - 255 * coded).max() <= 3


def test_srgb_itself_and_broken_profiles_change_no_bit():
    image = Image.effect_noise((64, 48), 80).convert("RGB")
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    whole = profile(swap=True)
    cuts = [whole[:n] for n in range(1, len(whole), 37)] + [b"x" * 200, whole[:60] + b"\xff" * 400]
    for data in [own, *cuts]:
        assert (pixels(saved(image, "PNG", icc_profile=data)) == np.asarray(image)).all()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert (pixels(saved(image, "PNG", icc_profile=lab)) == np.asarray(image)).all()


def test_a_png_whose_profile_cannot_be_unpacked():
    row = np.arange(0, 256, 5).astype(np.uint8).tobytes()
    unpackable = [
        b"a\0\7abc",
        b"a\0\0abc",
        b"",
        b"a" * 99,
        b"a\0\0" + zlib.compress(bytes(3 << 20)),
    ]
    for data in unpackable:
        shown = pixels(png([row] * 4, 8, 0, chunk(b"iCCP", data)))
        assert (shown[0, :, 0] == np.arange(0, 256, 5)).all()
    with pytest.raises(InputError, match="tEXt"):
        wrong = chunk(b"tEXt", b"a\0b")[:-1] + b"?"
        open_image(png([row] * 4, 8, 0, chunk(b"iCCP", unpackable[0]), wrong))


def test_gamma_of_a_png():
    level = np.arange(0, 256, 5)
    rows = [level.astype(np.uint8).tobytes()] * 4
    usual = pixels(png(rows, 8, 0, chunk(b"gAMA", struct.pack(">I", 45455))))
    assert (usual[..., 0] == level).all()
    light = pixels(png(rows, 8, 0, chunk(b"gAMA", struct.pack(">I", 100000))))
    coded = np.where(level / 255 <= 0.0031308, 0, 1.055 * (level / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(light[0, :, 0] - 255 * coded).max() <= 1
    srgb = chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sRGB", b"\0")
    assert (pixels(png(rows, 8, 0, srgb))[..., 0] == level).all()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"garbage" * 9])
def test_broken_exif_says_nothing_about_the_pixels(exif):
    image = Image.effect_noise((64, 48), 80).convert("RGB")
    expected = np.asarray(open_image(saved(image, "JPEG"))).astype(int)
    assert (pixels(saved(image, "JPEG", exif=exif)) == expected).all()
    assert (pixels(saved(image, "PNG", exif=exif)) == np.asarray(image)).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_all_orientations(turn):
    """As Pillow's own exif_transpose."""
    from PIL import ImageOps

    image = Image.effect_noise((24, 16), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(image, "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as again:
        expected = np.asarray(ImageOps.exif_transpose(again))
    assert (pixels(data) == expected).all()


def test_the_reason_is_true(tmp_path):
    whole = png([b"\x80" * 8] * 8, 8, 0, chunk(b"tEXt", b"Comment\0hello"))
    bad = whole.replace(b"hello", b"jello")
    with pytest.raises(InputError, match=r"^the picture .*checksum.*tEXt"):
        open_image(bad)
    with pytest.raises(InputError, match=r"empty"):
        open_image(b"")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png is empty"):
        open_image(tmp_path / "a.png")
    with pytest.raises(InputError, match="no known format"):
        open_image(b"eggs, milk, bread")
    for size in range(1, 60):  # a header of any length
        with pytest.raises(InputError, match="the picture"):
            open_image(whole[:size])


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_other_program_is_started(monkeypatch, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(POSTSCRIPT)
    started = []
    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, lambda *a, **k: started.append(a))
    with pytest.raises(InputError, match=r"photo\.jpg is a file of format EPS, which is not read"):
        open_image(tmp_path / "photo.jpg")
    assert not started


def test_megapixels_are_counted_as_said():
    """Pillow's own limit lies below 200 megapixels and stays what it was for others."""
    rows = zlib.compress(b"\0" * (1751 * 14000), 9)
    header = struct.pack(">IIBBBBB", 14_000, 14_000, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match=r"14000 × 14000 pixels, more than the 0\.5 megapixels"):
        open_image(data, max_pixels=500_000)
    with pytest.raises(InputError, match="more than the 195 megapixels"):
        open_image(data, max_pixels=195_000_000)
    assert open_image(data).size == (14_000, 14_000)
    assert limit == Image.MAX_IMAGE_PIXELS
    # A GIF of a few bytes, whose canvas Pillow would allocate while it reads the header.
    gif = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    with pytest.raises(InputError, match="more pixels than the 200 megapixels allowed"):
        open_image(bytes(gif))
    assert not holds_more(bytes(gif)) and is_picture(bytes(gif))


def test_strips_are_the_whole(monkeypatch):
    """A large picture is converted in strips, to the same pixels."""
    noise = Image.effect_noise((50, 37), 80).convert("RGB")
    clear = noise.copy()
    clear.putalpha(noise.getchannel("G"))
    exif = Image.Exif()
    exif[0x0112] = 6
    profiled = {"icc_profile": profile(swap=True), "exif": exif}
    deep = [row.repeat(3).astype(">u2").tobytes() for row in np.rint(RAMP * 65535).astype("u2")]
    files = [
        saved(noise, "PNG"), saved(noise, "PNG", **profiled), saved(clear, "PNG", **profiled),
        saved(clear, "WEBP"),
        saved(noise.quantize(16), "PNG", transparency=3), saved(noise.convert("CMYK"), "TIFF"),
        saved(noise.convert("L"), "PNG"), saved(noise.convert("1"), "PNG"),
        png(deep, 16, 2, chunk(b"tRNS", bytes(6))),
    ]  # fmt: skip
    for data in files:
        whole = pixels(data)
        monkeypatch.setattr(colours, "STRIP", 50 * 7)
        assert (pixels(data) == whole).all()
        monkeypatch.undo()


def test_animations_are_told():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        if kind == "AVIF" and ".avif" not in Image.registered_extensions():
            continue
        many = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert holds_more(many) and not holds_more(saved(frames[0], kind))
        assert np.abs(pixels(many) - np.asarray(frames[0])).max() <= 3
    assert not holds_more(b"no picture") and not holds_more(saved(frames[0], "ICO"))


def test_heic_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brand in (b"heic", b"mif1"):
        head = struct.pack(">I", 24) + b"ftyp" + brand + b"\0\0\0\0" + b"mif1heic"
        (tmp_path / "a.heic").write_bytes(head + b"\0" * 100)
        with pytest.raises(InputError, match=r"a\.heic is HEIC.*jpeglm\[heif\]"):
            open_image(tmp_path / "a.heic")


def test_heic_is_read_with_its_extra():
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(np.rint(grey(RAMP) * 255).astype(np.uint8))
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=95)
    assert np.abs(pixels(out.getvalue()) - np.asarray(image)).mean() < 4


def imagemagick():
    """Whether `convert` is ImageMagick's, and not another program of that name."""
    found = shutil.which("convert")
    if not found:
        return False
    told = subprocess.run([found, "-version"], capture_output=True)
    return told.returncode == 0 and b"ImageMagick" in told.stdout


@pytest.mark.skipif(not imagemagick(), reason="needs ImageMagick")
def test_modes_look_as_imagemagick_shows_them(tmp_path):
    colours = np.stack([RAMP, RAMP[::-1], 1 - RAMP], 2) * 255
    image = Image.fromarray(colours.astype(np.uint8))
    clear = image.copy()
    clear.putalpha(Image.fromarray((RAMP[:, ::-1] * 255).astype(np.uint8)))
    grey_clear = image.convert("L")
    grey_clear.putalpha(clear.getchannel("A"))
    some = {
        "cmyk.tif": image.convert("CMYK"), "cmyk.jpg": image.convert("CMYK"),
        "l.png": image.convert("L"), "one.png": image.convert("1"), "p.png": image.quantize(32),
        "p.gif": image.quantize(32), "rgba.png": clear, "la.png": grey_clear, "rgba.webp": clear,
        "one.xbm": image.convert("1"), "one.tif": image.convert("1"), "rgba.tif": clear,
        "deep.png": Image.fromarray((RAMP * 65535).astype(np.uint16)),
        "deep.tif": Image.fromarray((RAMP * 65535).astype(np.uint16)),
        "float.tif": Image.fromarray(RAMP.astype(np.float32)),
        "rgb.bmp": image, "rgb.tga": image, "rgba.tga": clear, "rgb.pcx": image, "rgb.sgi": image,
        "rgb.jp2": image,
    }  # fmt: skip
    for name, picture in some.items():
        options = {"lossless": True} if name.endswith("webp") else {}
        picture.save(tmp_path / name, **options)
        flags = [
            "-auto-orient",
            "-background",
            "white",
            "-alpha",
            "remove",
            "-colorspace",
            "sRGB",
            "-depth",
            "8",
        ]
        command = ["convert", f"{tmp_path / name}[0]", *flags, "ppm:-"]
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        with Image.open(io.BytesIO(shown)) as expected:
            difference = np.abs(pixels((tmp_path / name).read_bytes()) - np.asarray(expected))
        assert difference.mean() < 2.5, f"{name} differs by {difference.mean():.1f} levels"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    from jpeglm.codecs.avc import AvcConfig
    from jpeglm.codecs.clips import read_clip

    for name in ("a.gif", "a.mp4", "a.jpg"):
        os.mkfifo(tmp_path / name)
        for path in (tmp_path / name, Path("/dev/zero")):
            assert not holds_more(path)
            with pytest.raises(InputError, match="a pipe or a device"):
                open_image(path)
    pytest.importorskip("av")
    with pytest.raises(InputError, match="a pipe or a device"):
        read_clip(tmp_path / "a.mp4", AvcConfig())


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    (tmp_path / "a.png").write_bytes(png([b"\x80" * 8] * 8, 8, 0) + bytes(100))
    with pytest.raises(InputError, match=r"a\.png has 0 MB, more than the 0 MB"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_transparent_grey_of_few_bits(bits):
    levels = np.tile(np.arange(1 << bits, dtype=np.uint8), 8).reshape(2, -1)
    rows = [
        np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()
        for row in levels
    ]
    white = (1 << bits) - 1
    for clear in range(2 << bits):  # what no sample can be is no sample
        shown = pixels(png(rows, bits, 0, chunk(b"tRNS", struct.pack(">H", clear))))
        expected = np.where(levels == clear, 255, levels.astype(int) * 255 // white)
        assert (shown == grey(expected)).all(), clear


@pytest.mark.parametrize("gamma", [0, 1, 900, 2_000_000, 2**31 - 1])
def test_a_gamma_that_cannot_be_is_ignored(gamma):
    rows = [np.arange(0, 256, 5).astype(np.uint8).tobytes()] * 4
    shown = pixels(png(rows, 8, 0, chunk(b"gAMA", struct.pack(">I", gamma))))
    assert (shown[0, :, 0] == np.arange(0, 256, 5)).all()


@pytest.mark.parametrize("kind", [1, 3])
def test_sun_raster_of_32_bits(kind):
    """The unused byte comes first; type 3 has red before blue (Sun's rasterfile.h)."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    first = np.full((6, 8, 1), 77, np.uint8)
    data = np.concatenate([first, image if kind == 3 else image[..., ::-1]], 2).tobytes()
    header = struct.pack(">8I", 0x59A66A95, 8, 6, 32, len(data), kind, 0, 0)
    assert (pixels(header + data) == image).all()


def tiff(order, planes, tags):
    """An uncompressed TIFF, a strip for each plane; tags: {number: values}."""
    data = b"".join(plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes)
    size = len(planes[0].tobytes())
    strips = [8 + size * i for i in range(len(planes))]
    height, width = planes[0].shape[:2]
    entries = {256: [width], 257: [height], 259: [1], 273: strips, 278: [height]}
    entries |= {277: [len(planes)], 279: [size] * len(planes)} | tags
    where = 8 + len(data)
    more = where + 2 + 12 * len(entries) + 4
    ifd, values = struct.pack(order + "H", len(entries)), b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack(order + "I", more + len(values)), values + packed
        ifd += struct.pack(order + "HHI", tag, 4, len(numbers)) + packed
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + struct.pack(order + "HI", 42, where)
    return head + data + ifd + bytes(4) + values


@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_of_16_bits_in_a_tiff(order):
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3))
    planes = [(image[..., i] * 257).astype(np.uint16) for i in range(3)]
    data = tiff(order, planes, {258: [16] * 3, 262: [2], 284: [2]})
    assert np.abs(pixels(data) - image).max() <= 1


@pytest.mark.parametrize("white", [255, 65_535, 2**32 - 1])
def test_32_bits_without_a_sign_in_a_tiff(white):
    """The upper half of the range is bright, not negative."""
    values = np.rint(RAMP.astype(np.float64) * white).astype(np.uint32)
    shown = pixels(tiff("<", [values], {258: [32], 262: [1], 339: [1]}))
    assert np.abs(shown - grey(values / white * 255)).max() <= 1


def test_jpeg_2000_of_deep_colours_is_refused():
    """Pillow rounds white of more than 8 bits up to 256, which is black."""
    codecs = pytest.importorskip("imagecodecs", exc_type=ImportError)
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3))
    for kind in ("jp2", "j2k"):
        shallow = codecs.jpeg2k_encode(image.astype(np.uint8), level=0, codecformat=kind)
        assert (pixels(shallow) == image).all()
        values = (image * 257).astype(np.uint16)
        with pytest.raises(InputError, match=r"the picture is JPEG 2000 of more than 8 bits"):
            open_image(codecs.jpeg2k_encode(values, level=0, codecformat=kind))
        deep = codecs.jpeg2k_encode(values[..., 0], level=0, codecformat=kind)
        assert np.abs(pixels(deep) - image[..., :1]).max() <= 1


def test_colours_of_an_xpm():
    text = '/* XPM */\nstatic char *a[] = {\n"2 1 2 1",\n"a c #%s",\n"b c #%s",\n"ab"};\n'
    assert pixels((text % ("102030", "ffeedd")).encode()).tolist() == [
        [[16, 32, 48], [255, 238, 221]]
    ]
    keys = '"% c #102030",\n"  c #ffeedd",\n"c c #000001",\n"# c #000002"'
    row = f'static char *a[] = {{\n"6 1 4 1",\n{keys},'
    shown = pixels(f'/* XPM */\n{row}\n"% c #%"}};\n'.encode())  # pixels that look like a colour
    assert shown[0, :, 2].tolist() == [48, 221, 1, 221, 2, 48]
    for odd in ("123", "101020203030", "111222333"):
        with pytest.raises(InputError, match="XPM with colours of other than six digits"):
            open_image((text % ("102030", odd)).encode())


def test_the_reason_is_true_of_an_open_file_too():
    with pytest.raises(InputError, match="no known format"):
        open_image(io.BytesIO(b"eggs, milk, bread"))
    with pytest.raises(InputError, match="EPS"):
        open_image(io.BytesIO(POSTSCRIPT))
    row = np.arange(0, 256, 5).astype(np.uint8).tobytes()
    file = io.BytesIO(png([row] * 4, 8, 0, chunk(b"iCCP", b"a\0\7abc")))
    assert (pixels(file)[0, :, 0] == np.arange(0, 256, 5)).all()
    double = np.zeros((4, 4), np.uint64)  # 64 bits: whole, but not read
    with pytest.raises(InputError, match="damaged or of a rare kind"):
        open_image(tiff("<", [double], {258: [64], 262: [1], 339: [1]}))


def test_pictures_opened_at_the_same_time_silence_nobody_else():
    """Whichever of two threads ends first."""
    data = saved(Image.new("RGB", (8, 8)), "PNG")
    before = list(warnings.filters)
    one, other = opened(data), opened(data)
    one.__enter__()
    other.__enter__()
    assert warnings.filters[0][0] == "ignore"
    one.__exit__(None, None, None)
    assert warnings.filters[0][0] == "ignore"
    other.__exit__(None, None, None)
    assert list(warnings.filters) == before
