"""Sources: every kind gives the same pictures, in the same order, and names what is broken."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jpeglm.config import InputError
from jpeglm.data.sources import EXTENSIONS, Item, Rejected, open_source


def picture(seed: int, form: str = "PNG") -> bytes:
    """The bytes of a small noise picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def items(source):
    return [item for unit in source.units for item in unit.read() if isinstance(item, Item)]


def rejected(source):
    found = [item for unit in source.units for item in unit.read() if isinstance(item, Rejected)]
    return source.rejected + found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        path = tmp_path / "photos" / f"class{number % 2}" / "deep" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "photos" / "readme.txt").write_text("no picture")
    (tmp_path / "photos" / "._3.png").write_bytes(b"of macOS")
    (tmp_path / "photos" / "folder.png").mkdir()
    (tmp_path / "photos" / ".folder.png").mkdir()
    return tmp_path / "photos"


def test_extensions_are_those_that_pillow_opens():
    assert len(set(EXTENSIONS)) == len(EXTENSIONS)
    assert set(EXTENSIONS) - {".avif"} <= set(Image.registered_extensions())


def test_folder_is_sorted_and_cut_into_units(folder: Path):
    source = open_source(folder, unit_size=4)
    assert [unit.count for unit in source.units] == [4, 4, 2]
    assert source.count == 10
    keys = [item.key for item in items(source)]
    assert keys == sorted(keys)
    assert keys[0] == "class0/deep/0.png"
    assert {item.label for item in items(source)} == {-1}
    assert items(source)[0].data == picture(0)
    assert open_source(folder, unit_size=4).digest == source.digest
    assert source.passed == {".txt": 1, "hidden": 1}


def test_digest_follows_the_pictures_not_the_place(folder: Path, tmp_path: Path):
    before = open_source(folder).digest
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_source(moved).digest == before
    (moved / "new.png").write_bytes(picture(99))
    assert open_source(moved).digest != before


def test_folder_labels(folder: Path):
    source = open_source(folder, labels="folder")
    assert source.label_names == ["class0", "class1"]
    assert {item.key.split("/")[0]: item.label for item in items(source)} == {
        "class0": 0,
        "class1": 1,
    }


def test_links_in_a_circle_end(folder: Path):
    (folder / "again").symlink_to(folder)
    assert open_source(folder).count == 10


def test_a_single_picture_is_a_source(folder: Path):
    source = open_source(folder / "class0" / "deep" / "0.png")
    assert [item.key for item in items(source)] == ["0.png"]


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_webdataset_tars(tmp_path: Path, name: str):
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as tar:
        for number in range(7):
            add(tar, f"a/{number}.cls", str(number % 3).encode())
            add(tar, f"a/{number}.jpg", picture(number, "JPEG"))
            add(tar, f"a/{number}.json", b"{}")
            add(tar, f"a/{number}.seg.png", picture(100 + number))
        add(tar, "a/7.webp", picture(7, "WEBP"))
        add(tar, "a/8.cls", b"cat")
        add(tar, "a/8.jpg", picture(8, "JPEG"))
    for path in (tmp_path, tmp_path / name):
        source = open_source(path, unit_size=3)
        assert source.count == 9
        found = items(source)
        assert [item.label for item in found] == [0, 1, 2, 0, 1, 2, 0, -1]
        assert found[6].data == picture(6, "JPEG")
        assert found[6].key == f"{name}/a/6.jpg"
        (bad,) = rejected(source)
        assert "a/8.jpg" in bad.name and "cat" in bad.reason
    assert {item.label for item in items(open_source(tmp_path, labels="none"))} == {-1}


@pytest.mark.parametrize("size", [4500, 5000])
def test_a_truncated_tar_gives_what_is_whole(tmp_path: Path, size: int):
    """Cut inside a header, which tarfile takes for the end, and inside a picture."""
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(4):
            add(tar, f"{number}.png", picture(number))
    path.write_bytes(path.read_bytes()[:size])
    source = open_source(path)
    found = items(source)
    assert len(found) == 2
    assert found[0].data == picture(0)
    assert any("set.tar" in bad.name for bad in rejected(source))


def image_table(rows: list[bytes | None], struct: bool, labels: list[int | None]) -> pa.Table:
    if struct:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": row, "path": None} for row in rows], kind)
    else:
        column = pa.array(rows, pa.binary())
    return pa.table({"image": column, "label": pa.array(labels, pa.int64())})


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("groups", [3, 1000])
def test_parquet(tmp_path: Path, struct: bool, groups: int):
    rows: list[bytes | None] = [picture(number) for number in range(10)]
    rows[4] = None
    table = image_table(rows, struct, [0, 1, None, 3, 4, 5, 6, 7, 8, 9])
    features = {"label": {"names": ["x", "y"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    stored = json.dumps({"info": {"features": features}})
    table = table.replace_schema_metadata({"huggingface": stored})
    pq.write_table(table, tmp_path / "train-00000.parquet", row_group_size=groups)
    source = open_source(tmp_path, unit_size=4)
    assert [unit.count for unit in source.units] == [4, 4, 2]
    found = items(source)
    assert [item.label for item in found] == [0, 1, -1, 3, 5, 6, 7, 8, 9]
    assert found[8].data == picture(9)
    assert found[8].key == "train-00000.parquet:9"
    assert source.label_names == ["x", "y"]
    (bad,) = rejected(source)
    assert bad.name.endswith("train-00000.parquet:4")


def test_parquet_without_pictures_or_with_text_labels(tmp_path: Path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"caption": ["a"]}), path)
    with pytest.raises(InputError, match=r"data\.parquet has no column of pictures.*caption"):
        open_source(path)
    pq.write_table(pa.table({"image": [picture(0)], "label": ["cat"]}), path)
    with pytest.raises(InputError, match="--labels none"):
        open_source(path)
    assert open_source(path, labels="none").count == 1


def test_saved_hugging_face_dataset(tmp_path: Path):
    """The layout of `DatasetDict.save_to_disk`: Arrow streams with state.json in a folder each."""
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    for part, split in enumerate(["test", "train"]):
        home = tmp_path / split
        home.mkdir()
        rows = [picture(10 * part + number) for number in range(5)]
        table = image_table(rows, True, [0, 1, 0, 1, 0])
        name = "data-00000-of-00001.arrow"
        with pa.ipc.new_stream(home / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        (home / "cache-1234.arrow").write_bytes((home / name).read_bytes())
        (home / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        features = {"image": {"_type": "Image"}, "label": {"names": ["x", "y"]}}
        (home / "dataset_info.json").write_text(json.dumps({"features": features}))
    source = open_source(tmp_path, unit_size=3)
    assert [unit.count for unit in source.units] == [3, 2, 3, 2]
    found = items(source)
    assert [item.data for item in found] == [picture(n) for n in [0, 1, 2, 3, 4, *range(10, 15)]]
    assert [item.label for item in found] == [0, 1, 0, 1, 0] * 2
    assert found[5].key == "train/data-00000-of-00001.arrow:0"
    assert source.label_names == ["x", "y"]
    assert open_source(tmp_path / "train").count == 5


def test_damaged_files_are_set_aside(folder: Path):
    (folder / "bad.parquet").write_bytes(b"PAR1 not really")
    (folder / "bad.tar").write_bytes(b"no tar at all")
    (folder / "bad.arrow").write_bytes(b"no arrow at all")
    source = open_source(folder)
    assert source.count == 10
    names = {Path(bad.name).name for bad in source.rejected}
    assert names == {"bad.parquet", "bad.tar", "bad.arrow"}


def test_nothing_to_read(tmp_path: Path):
    with pytest.raises(InputError, match=r"there is no file or folder .*nowhere"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no picture found in .*empty"):
        open_source(tmp_path / "empty")
    (tmp_path / "bad.tar").write_bytes(b"no tar at all")
    with pytest.raises(InputError, match=r"no picture found.*bad\.tar"):
        open_source(tmp_path / "bad.tar")


def test_what_would_be_read_and_is_no_file_is_told(tmp_path):
    """As git-annex leaves the data that were not fetched."""
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    names = ["1.jpg", "a.tar", "b.tar.gz", "c.parquet", "d.arrow"]
    for name in names:
        (tmp_path / name).symlink_to(tmp_path / "nowhere" / name)
    (tmp_path / "notes.md").symlink_to(tmp_path / "nowhere")
    source = open_source(tmp_path)
    assert sorted(one.name for one in source.rejected) == [str(tmp_path / name) for name in names]
    assert source.passed == {".md": 1}
