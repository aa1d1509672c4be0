"""`check_file` against files of Pillow's, and against damage at known bytes."""

import io

import pytest
from PIL import Image

from jpeglm.codecs import JpegCodec
from jpeglm.codecs.base import Verdict
from jpeglm.codecs.check import check_file
from jpeglm.config import JpegConfig


def written(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4", "gray"])
@pytest.mark.parametrize("restart", [0, 1, 5])
def test_settings_are_read_from_pillows_files(subsampling, restart, pictures):
    image = pictures[0].resize((64, 48))
    options = {"quality": 37, "restart_marker_blocks": restart}
    if subsampling == "gray":
        data = written(image.convert("L"), **options)
    else:
        data = written(image, subsampling=subsampling, **options)
    verdict = check_file(data, {})
    assert verdict.valid and verdict.dc_fits, verdict.why
    assert verdict.codec is not None
    told = JpegConfig.from_dict({k: v for k, v in verdict.codec.items() if k != "codec"})
    assert told == JpegConfig(64, 48, 37, subsampling, restart)


def test_demands_that_the_file_does_not_meet(pictures):
    data = written(pictures[0].resize((64, 64)), quality=25, subsampling="4:2:0")
    assert check_file(data, {"quality": 25, "width": 64}).valid
    for wanted in ({"quality": 26}, {"width": 80}, {"subsampling": "4:4:4"}):
        verdict = check_file(data, wanted)
        assert not verdict.valid and verdict.why


def test_progressive_and_optimised_files_are_not_canonical(pictures):
    image = pictures[0].resize((64, 64))
    progressive = check_file(written(image, progressive=True), {})
    assert not progressive.valid and "not baseline" in progressive.why
    for marker in (0xC1, 0xC3, 0xC9, 0xCA):  # extended, lossless, and arithmetic of both kinds
        other = written(image).replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
        assert "not baseline" in check_file(other, {}).why, marker
    assert not check_file(written(image, quality=25, optimize=True), {}).valid


def test_an_ordinary_photo_hears_what_canonical_means(pictures):
    """Sides, tables and segments of any camera's file: no fault of the file's, and not told so."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    photo = pictures[0]
    files = [
        written(photo.resize((101, 67)), quality=90),
        written(photo.resize((64, 64)), exif=exif),
        written(photo.resize((64, 64)), progressive=True),
        written(photo.resize((64, 64)), optimize=True),
        written(photo.resize((64, 64)).convert("CMYK")),
    ]
    for data in files:
        verdict = check_file(data, {})
        assert not verdict.valid
        assert verdict.why.startswith("a JPEG, but not a canonical one (baseline")
        assert "must be" not in verdict.why
    assert "canonical" not in check_file(b"a shopping list", {}).why


@pytest.mark.parametrize("config", [JpegConfig(64, 64), JpegConfig(64, 64, restart_interval=1)])
def test_damage_is_placed(config, pictures):
    codec = JpegCodec(config)
    data = codec.wrap(codec.encode(pictures[0]))
    start = data.index(b"\xff\xda") + 14
    assert check_file(data, {}).valid
    assert not check_file(data + b"\0", {}).valid
    for cut in (0, 1, 2, 5, start - 20, start, start + 7, len(data) - 2, len(data) - 1):
        verdict = check_file(data[:cut], {})
        assert not verdict.valid and verdict.where is not None
    # A marker in the middle of the entropy-coded data, where none can be.
    middle = start + 5
    broken = data[:middle] + b"\xff\xc4" + data[middle + 2 :]
    verdict = check_file(broken, {})
    assert not verdict.valid
    place = verdict.where
    assert middle <= place <= middle + 1


def test_other_files_never_raise(pictures):
    png = io.BytesIO()
    pictures[0].save(png, "PNG")
    for data in (b"", b"hello", b"\xff\xd8", b"\xff\xd8\xff", png.getvalue(), b"\xff\xd8" * 50):
        verdict = check_file(data, {})
        assert not verdict.valid and verdict.why


def test_running_dc_beyond_int16_is_told(pictures):
    """Flat extremes at quality 100 stay inside; a DC that only ever grows leaves int16."""
    codec = JpegCodec(JpegConfig(64, 64, quality=100, subsampling="gray"))
    extremes = Image.new("L", (64, 64), 255)
    assert check_file(codec.wrap(codec.encode(extremes)), {}).dc_fits
    alphabet = codec.alphabet("bytes")
    # T.81 table K.3: size 11 is 111111110, 5 is 110, 4 is 101, 0 is 00; 1010 ends a block.
    whole, flat = ("111111110" + "1" * 11 + "1010") * 16, "001010"
    for last, fits in (("101" + "1111", True), ("110" + "10000", False)):  # 32,767 and 32,768
        bits = whole + last + "1010" + flat * 47
        bits += "1" * (-len(bits) % 8)
        body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
        head = codec.encode(extremes)
        head = head[: head.index(b"\xff\xda") + 10]
        verdict = check_file(codec.wrap(head + body + b"\xff\xd9"), {})
        assert verdict.valid and verdict.dc_fits == fits
    # DC size 11 with all amplitude bits set adds 2047 in each of the 64 blocks: 131,008 in all.
    bits = ("111111110" + "1" * 11 + "1010") * 64
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    stream = codec.encode(extremes)
    header = stream[: stream.index(b"\xff\xda") + 10]
    verdict = check_file(codec.wrap(header + body + b"\xff\xd9"), {})
    assert verdict.valid, verdict.why
    assert not verdict.dc_fits
    assert alphabet.join(alphabet.split(header + body + b"\xff\xd9")) == header + body + b"\xff\xd9"


def test_sizes_are_bounded_by_what_a_file_can_hold():
    """Headers that claim much: refused by arithmetic, no picture of that size is made."""
    import tracemalloc

    small = JpegCodec(JpegConfig(64, 64))
    stream = small.encode(Image.new("RGB", (64, 64)))
    body = small.scan(stream)
    for config in (
        JpegConfig(65520, 64),
        JpegConfig(8000, 24000),
        JpegConfig(20000, 9984, subsampling="gray"),
        JpegConfig(4096, 4096, restart_interval=1),
    ):
        codec = JpegCodec(config)
        tracemalloc.start()
        verdict = check_file(codec.file_header + body + b"\xff\xd9", {})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not verdict.valid and "pixels are claimed" in verdict.why
        assert peak < 20_000_000
    data = bytearray(small.wrap(stream))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = b"\xff\xf0\xff\xf0"
    assert "200 megapixels" in check_file(bytes(data), {}).why


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4", "gray"])
@pytest.mark.parametrize("restart", [0, 1, 7, 65535])
def test_headers_are_pillows_of_any_size(subsampling, restart):
    """A header is made from one MCU; Pillow's own of a whole picture is the same."""
    for width, height, quality in ((16, 16, 90), (208, 320, 1), (4096, 32, 25)):
        codec = JpegCodec(JpegConfig(width, height, quality, subsampling, restart))
        mode = "L" if subsampling == "gray" else "RGB"
        options = {} if mode == "L" else {"subsampling": subsampling}
        if restart:
            options["restart_marker_blocks"] = restart
        theirs = written(Image.new(mode, (width, height)), quality=quality, **options)
        assert theirs.startswith(codec.file_header)
        assert check_file(theirs, {}).valid


def test_the_flattest_picture_of_all_is_not_refused():
    """The bound on bytes is reached: every block of a grey picture takes its shortest code."""
    for subsampling in ("4:2:0", "4:2:2", "4:4:4", "gray"):
        for restart in (0, 1, 3):
            codec = JpegCodec(JpegConfig(64, 48, 50, subsampling, restart))
            data = codec.wrap(codec.encode(Image.new("RGB", (64, 48), (128, 128, 128))))
            assert check_file(data, {}).valid


def test_segments_are_read_as_they_stand(pictures):
    data = written(pictures[0].resize((64, 64)), quality=25)
    place = data.index(b"\xff\xc0")
    filled = data[:place] + b"\xff\xff" + data[place:]
    assert check_file(filled, {}) == Verdict(False, "not canonical: fill bytes", place)
    for frame in (
        b"\xff\xc0\0\0",
        b"\xff\xc0\0\2",
        b"\xff\xc0\0\7\x08\0\x40\0\x40",
        b"\xff\xdd\0\3\1",
    ):
        verdict = check_file(b"\xff\xd8" + frame + b"\xff\xda\0\2", {})
        assert not verdict.valid and verdict.where == 2
    for at in range(place):  # every length and marker of the header, turned round
        for value in (0x00, 0x7F, 0xFF):
            broken = data[:at] + bytes([value]) + data[at + 1 :]
            if broken != data:
                verdict = check_file(broken, {})
                assert not verdict.valid and verdict.why
