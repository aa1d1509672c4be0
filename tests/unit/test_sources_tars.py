"""Tars as the world makes them: a picture is found with its own label, or listed with a reason."""

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jpeglm.config import InputError
from jpeglm.data.sources import Item, archives, open_source, tars
from jpeglm.files import printable


def picture(seed: int, form: str = "JPEG") -> bytes:
    """The bytes of a small noise picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def tar(*files, form: int = tarfile.GNU_FORMAT, end: bool = True) -> bytes:
    """An archive of (name, bytes) and of (name, "hard" or "soft", what it leads to)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, *what in files:
            info = tarfile.TarInfo(name)
            if len(what) == 1:
                info.size = len(what[0])
                archive.addfile(info, io.BytesIO(what[0]))
            else:
                info.type = tarfile.LNKTYPE if what[0] == "hard" else tarfile.SYMTYPE
                info.linkname = what[1]
                archive.addfile(info)
        size = archive.offset
    return out.getvalue() if end else out.getvalue()[:size]


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


PACKERS = {
    ".tar": bytes, ".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress, ".tar.zst": zstd,
}  # fmt: skip


def read(path: Path, **options):
    """(items, {name of what is rejected: reason}) of a source."""
    source = open_source(path, **options)
    found = [item for unit in source.units for item in unit.read()]
    items = [item for item in found if isinstance(item, Item)]
    rejected = source.rejected + [item for item in found if not isinstance(item, Item)]
    return items, {bad.name.removeprefix(str(path)).lstrip(":"): bad.reason for bad in rejected}


def labels(path: Path, data: bytes, **options) -> dict[str, int]:
    """By name in the tar; nothing may be rejected."""
    path.write_bytes(data)
    items, rejected = read(path, **options)
    assert not rejected
    return {item.key.removeprefix(f"{path.name}/"): item.label for item in items}


@pytest.mark.parametrize("end", PACKERS)
@pytest.mark.parametrize("way", ["archives", "streams", "without end"])
def test_archives_in_a_row(tmp_path, end, way):
    """Every shard begins with key 0 again, and its labels are its own."""
    parts = [
        [file for n in range(3) for file in ((f"{n}.cls", b"%d" % (3 * part + n)),
         (f"{n}.jpg", picture(3 * part + n)))] for part in range(3)
    ]  # fmt: skip
    pack = PACKERS[end]
    if way == "streams":
        data = b"".join(pack(tar(*part)) for part in parts)
    else:
        data = pack(b"".join(tar(*part, end=way == "archives") for part in parts) + bytes(1024))
    path = tmp_path / f"set{end}"
    path.write_bytes(data)
    items, rejected = read(path, unit_size=4)
    assert not rejected
    assert [item.label for item in items] == list(range(9))
    assert [item.data for item in items] == [picture(n) for n in range(9)]
    assert len({item.key for item in items}) == 9


def test_a_label_does_not_cross_archives(tmp_path):
    data = tar(("0.jpg", picture(0))) + tar(("0.cls", b"7"), ("0.jpg", picture(1)))
    assert labels(tmp_path / "a.tar", data) == {"0.jpg": -1, "0.jpg (2)": 7}
    data = tar(("0.jpg", picture(0)), ("1.jpg", picture(1))) + tar(("0.cls", b"7"))
    assert labels(tmp_path / "b.tar", data) == {"0.jpg": 7, "1.jpg": -1}


@pytest.mark.parametrize("end", PACKERS)
def test_a_lone_block_of_zeros_is_no_end(tmp_path, end):
    files = [file for n in range(6) for file in ((f"{n}.jpg", picture(n)), (f"{n}.cls", b"%d" % n))]
    middle = tar(*files[:5], end=False)
    data = middle + bytes(512) + tar(*files[5:])
    assert list(labels(tmp_path / f"a{end}", PACKERS[end](data)).values()) == list(range(6))
    # Nor does another archive begin behind it: a mask is still of the sample before.
    data = tar(("7.jpg", picture(0)), ("7.cls", b"3"), end=False) + bytes(512)
    data += tar(("7.seg.png", picture(1, "PNG")))
    assert labels(tmp_path / f"b{end}", PACKERS[end](data)) == {"7.jpg": 3}


@pytest.mark.parametrize("end", [".tar", ".tar.gz"])
def test_links_lead_to_what_they_name(tmp_path, end):
    files = [
        ("early.jpg", "soft", "deep/late.jpg"),
        ("a.jpg", picture(0)), ("a.cls", b"4"), ("b.jpg", "hard", "a.jpg"),
        ("b.cls", "hard", "a.cls"), ("c.jpg", "soft", "./b.jpg"), ("d.jpg", "soft", "c.jpg"),
        ("deep/late.jpg", picture(1)), ("deep/up.jpg", "soft", "../a.jpg"),
        ("blob.jpg", "soft", "blobs/1234"), ("blobs/1234", picture(2)),
        ("lost.jpg", "soft", "nowhere.jpg"), ("hardly.jpg", "hard", "nowhere.jpg"),
        ("round.jpg", "soft", "about.jpg"), ("about.jpg", "soft", "round.jpg"),
        ("self.jpg", "hard", "self.jpg"), ("out.jpg", "soft", "/etc/passwd"),
    ]  # fmt: skip
    path = tmp_path / f"set{end}"
    path.write_bytes(PACKERS[end](tar(*files)))
    items, rejected = read(path)
    found = {item.key.split("/", 1)[1]: (item.data, item.label) for item in items}
    assert found == {
        "a.jpg": (picture(0), 4), "b.jpg": (picture(0), 4), "c.jpg": (picture(0), -1),
        "d.jpg": (picture(0), -1), "deep/up.jpg": (picture(0), -1),
        "deep/late.jpg": (picture(1), -1), "early.jpg": (picture(1), -1),
        "blob.jpg": (picture(2), -1),
    }  # fmt: skip
    lost = {"lost.jpg", "hardly.jpg", "round.jpg", "about.jpg", "self.jpg", "out.jpg"}
    assert set(rejected) == lost and all("link" in reason for reason in rejected.values())


def test_links_stay_in_their_archive(tmp_path):
    parts = [
        (("a.jpg", picture(n)), ("b.jpg", "hard", "a.jpg"), ("c.jpg", "soft", "b.jpg"),
         ("a.cls", b"%d" % n), ("b.cls", "hard", "a.cls")) for n in range(3)
    ]  # fmt: skip
    (tmp_path / "a.tar").write_bytes(b"".join(tar(*part) for part in parts))
    items, rejected = read(tmp_path / "a.tar")
    assert not rejected and len({item.key for item in items}) == 9
    assert [item.data for item in items] == [picture(n) for n in range(3) for _ in range(3)]
    assert [item.label for item in items] == [0, 0, -1, 1, 1, -1, 2, 2, -1]


def test_links_of_one_name_lead_each_where_it_says(tmp_path):
    """Two archives in a row, whose links bear one name."""
    parts = [tar((f"{n}.jpg", picture(n)), ("last.jpg", "soft", f"{n}.jpg")) for n in range(2)]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    items, rejected = read(tmp_path / "a.tar")
    assert not rejected
    assert [item.data for item in items if "last" in item.key] == [picture(0), picture(1)]


def test_a_link_may_lead_into_another_archive(tmp_path):
    """Where its own does not hold what it names: a picture's, and a label's."""
    parts = [
        (("a.jpg", picture(0)), ("a.cls", b"4")),
        (("b.jpg", "hard", "a.jpg"), ("b.cls", "hard", "a.cls")),
    ]
    data = b"".join(tar(*part) for part in parts)
    assert labels(tmp_path / "a.tar", data) == {"a.jpg": 4, "b.jpg": 4}


SAMPLES = {
    "dots in names": (
        {"v1.0_a.jpg": 0, "v1.0_b.jpg": 1, "v2.0_a.jpg": 2, "v2.0_b.jpg": 3},
        [f"v{v}.0_{c}.{e}" for e in ("jpg", "cls") for v in (1, 2) for c in "ab"], 0,
    ),
    "dates": ({"IMG.2020.01.02.jpg": 0, "IMG.2020.01.03.jpg": 1},
              ["IMG.2020.01.02.jpg", "IMG.2020.01.03.jpg", "IMG.2020.01.02.cls",
               "IMG.2020.01.03.cls"], 0),
    "numbers": ({"photo.jpg": -1, "photo.1.jpg": -1, "photo.2.jpg": -1},
                ["photo.jpg", "photo.1.jpg", "photo.2.jpg"], 0),
    "words": ({"trip.paris.jpg": -1, "trip.rome.jpg": -1, "cat.jpg": -1},
              ["trip.paris.jpg", "trip.rome.jpg", "cat.jpg"], 0),
    "dots in folders": ({"v1.0/7.jpg": 0, "v2.0/7.jpg": 1, "./v3.1/x.y/7.jpg": 2},
                        ["v1.0/7.jpg", "v2.0/7.jpg", "./v3.1/x.y/7.jpg", "v1.0/7.cls",
                         "v2.0/7.cls", "v3.1/x.y/7.cls"], 0),
    "a mask of its own name": ({"7.jpg": 0, "8.jpg": 1},
                               ["7.jpg", "7.seg.png", "8.jpg", "8.seg.png", "7.cls", "8.cls"], 2),
    "a mask of another kind": ({"7.jpg": 0}, ["7.png", "7.jpg", "7.cls"], 1),
    "one image of a name": ({"7.front.jpg": 0, "8.front.jpg": 1},
                            ["7.front.jpg", "8.front.jpg", "7.cls", "8.cls"], 0),
    "called image": ({"7.image.png": 0, "8.image.png": 1},
                     ["7.mask.png", "7.image.png", "8.mask.png", "8.image.png", "7.cls", "8.cls"],
                     2),
    "capitals": ({"7.JPG": 0}, ["7.JPG", "7.CLS"], 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_picture_of_a_sample_and_its_label(tmp_path, kind):
    expected, names, passed = SAMPLES[kind]
    counts: dict[str, int] = {}

    def content(name):
        if not name.lower().endswith(".cls"):
            return picture(0, "PNG" if name.endswith("png") else "JPEG")
        counts["cls"] = counts.get("cls", -1) + 1
        return b"%d\n" % counts["cls"]

    data = tar(*((name, content(name)) for name in names))
    assert labels(tmp_path / "a.tar", data) == expected
    assert sum(open_source(tmp_path / "a.tar").passed.values()) == passed


def test_hidden_pictures_are_counted_and_folders_are_none(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("folder.png", ".folder.png"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name in ("folder.png/7.jpg", "._7.jpg", "__MACOSX/7.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(picture(0))
            archive.addfile(info, io.BytesIO(picture(0)))
    items, rejected = read(tmp_path / "a.tar")
    assert [item.key for item in items] == ["a.tar/folder.png/7.jpg"] and not rejected
    assert open_source(tmp_path / "a.tar").passed == {"hidden": 2}


def test_a_choice_is_said_or_asked_for(tmp_path):
    files = [(f"{n}.{end}", picture(n)) for n in range(3) for end in ("left.jpg", "right.jpg")]
    path = tmp_path / "a.tar"
    path.write_bytes(tar(*files, ("extra.json", b"{}"), ("extra.md", b"")))
    with pytest.raises(InputError, match=r"left\.jpg, right\.jpg.*--column"):
        open_source(path)
    items, rejected = read(path, column="right.jpg")
    assert [item.key for item in items] == [f"a.tar/{n}.right.jpg" for n in range(3)]
    assert not rejected
    passed = open_source(path, column="right.jpg").passed
    assert passed == {".left.jpg": 3, ".json": 1, ".md": 1}
    assert len(read(path, column=".LEFT.jpg")[0]) == 3
    path.write_bytes(tar(("7.jpg", picture(0)), ("7.png", picture(1)), ("7.seg.png", picture(2))))
    for column, key in ((None, "7.jpg"), ("png", "7.png"), ("seg.png", "7.seg.png")):
        assert [item.key for item in read(path, column=column)[0]] == [f"a.tar/{key}"]
        assert open_source(path, column=column).passed.total() == 2


@pytest.mark.parametrize(
    "text", [b"cat", b"", b"3.5", b"99999999999999", b"-2", b"2147483648", b"9" * 5000, b"1" * 100]
)
def test_labels_that_are_no_labels_are_listed(tmp_path, text):
    path = tmp_path / "a.tar"
    files = [("0.jpg", picture(0)), ("0.cls", text), ("1.jpg", picture(1)), ("1.cls", b" 5\n")]
    path.write_bytes(tar(*files))
    items, rejected = read(path)
    assert [item.label for item in items] == [5]
    assert set(rejected) == {"0.jpg"} and "--labels none" in rejected["0.jpg"]
    assert len(read(path, labels="none")[0]) == 2


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_bytes_and_length(tmp_path, form):
    odd = [os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"\xff\xfe/\x80.jpg"), "猫/straße.jpg"]
    if form != tarfile.USTAR_FORMAT:
        odd.append("/".join(["long" * 20] * 9) + ".jpg")
    data = tar(*((name, picture(n)) for n, name in enumerate(odd)), form=form)
    assert labels(tmp_path / "a.tar", data) == {printable(name): -1 for name in odd}
    assert "caf\\xe9.jpg" in labels(tmp_path / "a.tar", data)


@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
@pytest.mark.parametrize("form", ["gnu", "posix", "0.0", "0.1", "oldgnu"])
@pytest.mark.parametrize("end", [".tar", ".tar.gz"])
def test_sparse_files(tmp_path, form, end):
    """As GNU tar itself writes them: a picture with holes of zeros."""
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[::150, :50] = np.arange(50)[:, None] * 5
    whole = b"P6 400 400 255\n" + pixels.tobytes()
    with open(tmp_path / "holes.ppm", "wb") as file:
        for start in range(0, len(whole), 4096):
            piece = whole[start : start + 4096]
            if any(piece):
                file.seek(start)
                file.write(piece)
        file.truncate(len(whole))
    flags = [f"--format={form}"]
    if form[0] == "0":
        flags = ["--format=posix", f"--sparse-version={form}"]
    (tmp_path / "z.jpg").write_bytes(picture(1))
    command = ["tar", "-C", str(tmp_path), "--sparse", *flags, "-cf", "-", "holes.ppm", "z.jpg"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(data) < len(whole) / 2, "the file is not sparse here"
    path = tmp_path / f"set{end}"
    path.write_bytes(PACKERS[end](data))
    items, rejected = read(path)
    assert [item.data for item in items] == [whole, picture(1)] and not rejected


FILES = [(f"{n}.jpg", picture(n)) for n in range(8)]


def test_a_damaged_header_costs_one_picture(tmp_path):
    whole = tar(*FILES)
    places = [n for n in range(0, len(whole), 512) if whole[n + 257 : n + 262] == b"ustar"]
    assert len(places) == 8
    for number, place in enumerate(places):
        data = bytearray(whole)
        data[place + 100 : place + 300] = bytes(range(1, 201))
        (tmp_path / "a.tar").write_bytes(data)
        items, rejected = read(tmp_path / "a.tar")
        assert [item.data for item in items] == [picture(n) for n in range(8) if n != number]
        assert f"damaged at byte {place}" in rejected[""]


@pytest.mark.parametrize("end", [".tar", ".tar.gz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_damaged_header_behind_a_long_name_costs_one_picture(tmp_path, form, end):
    """Either of the two. Python writes such a pair of every file whose time has a fraction of a
    second."""
    name = "long/" * 30
    whole = tar(*((f"{name}{n}.jpg", data) for n, (_, data) in enumerate(FILES)), form=form)
    places = [n for n in range(0, len(whole), 512) if whole[n + 257 : n + 262] == b"ustar"]
    assert len(places) == 16
    for number, place in enumerate(places):
        data = bytearray(whole)
        data[place + 100 : place + 300] = bytes(range(1, 201))
        (tmp_path / f"a{end}").write_bytes(PACKERS[end](data))
        items, rejected = read(tmp_path / f"a{end}")
        assert [item.data for item in items] == [picture(n) for n in range(8) if n != number // 2]
        assert f"damaged at byte {place}" in rejected[""]


@pytest.mark.parametrize("end", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_what_breaks_off_is_listed(tmp_path, end):
    """Cut anywhere before the zeros at the end: what is whole is found, the rest is no secret."""
    whole = PACKERS[end](tar(*FILES, end=False))
    path = tmp_path / f"a{end}"
    counts = set()
    for size in sorted({*range(512, len(whole), 701), *range(512, len(whole), 512)}):
        path.write_bytes(whole[:size])
        try:
            items, rejected = read(path)
        except InputError as error:
            assert path.name in str(error)
            continue
        assert rejected, size
        assert [item.data for item in items] == [picture(n) for n in range(len(items))]
        counts.add(len(items))
    assert len(counts) > 2 or end in (".tar.bz2", ".tar.zst")  # their blocks hold all of this tar


def test_mutants_end_and_lose_nothing_in_silence(tmp_path):
    """Bytes changed at random: a source, or one sentence; the untouched pictures of a plain tar are
    found."""
    rng = random.Random(0)
    links = (("9.jpg", "soft", "0.jpg"), ("10.jpg", "hard", "1.jpg"), ("3.cls", b"3"))
    for end in PACKERS:
        whole = PACKERS[end](tar(*FILES, *links, form=tarfile.PAX_FORMAT))
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(rng.choice([1, 3, 30])):
                data[rng.randrange(len(data))] = rng.randrange(256)
            (tmp_path / f"a{end}").write_bytes(data)
            try:
                items, rejected = read(tmp_path / f"a{end}")
            except InputError:
                continue
            assert len(items) >= 8 or rejected
            if end == ".tar":
                left = {content for _, content in FILES if content in bytes(data)}
                assert left <= {item.data for item in items} or rejected


def block(name: bytes, size: bytes, kind: bytes) -> bytes:
    """A header with a right checksum around any values."""
    head = name.ljust(100, b"\0") + b"0000644\0" * 3 + size.rjust(12, b"0") + b"0" * 11 + b"\0"
    head += b" " * 8 + kind + bytes(100) + b"ustar  \0"
    head = head.ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


HOSTILE = {
    "negative size": block(b"0.jpg", b"\xff" * 12, b"0"),
    "gigantic name": block(b"././@LongLink", b"77777777777\0", b"L"),
    "gigantic records": block(b"pax", b"77777777777\0", b"x"),
    "names of names": (block(b"././@LongLink", b"5\0", b"L") + b"a.jpg".ljust(512, b"\0")) * 3000,
    "records without end": block(b"pax", b"512\0".rjust(12, b"0"), b"x") + b"9" * 512,
    "a size that goes back": block(b"pax", b"22\0", b"x") + b"17 size=-99999999\n".ljust(512, b"\0")
    + block(b"0.jpg", b"1\0", b"0"),
    "a sparse map": block(b"0.jpg", b"1000\0", b"S") + bytes(1024),
    "a device": block(b"0.jpg", b"0\0", b"3") + block(b"1.jpg", b"0\0", b"6"),
}  # fmt: skip


@pytest.mark.parametrize("end", [".tar", ".tar.gz"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_headers(tmp_path, kind, end):
    path = tmp_path / f"a{end}"
    path.write_bytes(PACKERS[end](tar(*FILES[:3], end=False) + HOSTILE[kind] + tar(*FILES[3:])))
    items, rejected = read(path)
    assert [item.data for item in items][:3] == [picture(n) for n in range(3)]
    assert rejected or len(items) >= 8


@pytest.mark.parametrize("size", [-1536, -1024, -512, -1])
def test_a_size_below_zero_hides_nothing(tmp_path, size):
    """Of the first member: back to byte 0, where tarfile takes a tar to have ended, or to headers
    that were read before."""
    record = f" size={size}\n"
    record = f"{len(record) + 2}{record}".encode().ljust(512, b"\0")
    head = block(b"pax", b"%o\0" % len(record.rstrip(b"\0")), b"x") + record
    (tmp_path / "a.tar").write_bytes(head + block(b"0.jpg", b"1\0", b"0") + tar(*FILES))
    with pytest.raises(InputError, match="points backwards"):
        open_source(tmp_path / "a.tar")


@pytest.mark.parametrize("end", [".tar", ".tar.gz"])
def test_too_large_a_member_is_passed_by(tmp_path, end, monkeypatch):
    monkeypatch.setattr(tars, "size_limit", lambda name: 5000)
    path = tmp_path / f"a{end}"
    bomb = ("bomb.jpg", bytes(30_000_000))
    path.write_bytes(PACKERS[end](tar(*FILES[:3], bomb, *FILES[3:])))
    items, rejected = read(path)
    assert [item.data for item in items] == [picture(n) for n in range(8)]
    assert list(rejected) == ["bomb.jpg"] and "30 MB" in rejected["bomb.jpg"]


def test_members_are_counted_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    (tmp_path / "a.tar").write_bytes(tar(*FILES))
    items, rejected = read(tmp_path / "a.tar")
    assert len(items) == 5 and "more than 5 files" in rejected[""]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_are_bounded_before_they_are_read(tmp_path, monkeypatch, form):
    monkeypatch.setattr(archives, "MAX_HEADER", 4096)
    path = tmp_path / "a.tar"
    short, long = "d/" * 1500 + "0.jpg", "d/" * 2500 + "0.jpg"
    assert set(labels(path, tar((short, picture(0)), form=form))) == {short}
    path.write_bytes(tar(("a.jpg", picture(1)), (long, picture(0)), form=form))
    items, rejected = read(path)
    assert [item.data for item in items] == [picture(1)]
    assert any("a name or comment of" in reason for reason in rejected.values())
