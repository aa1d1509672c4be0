"""Prepared data in other people's hands: Hugging Face's datasets reads shards, folders and tars."""

import io
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.data.open import open_data

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def prepared(jpeglm, pictures, tmp_path_factory):
    """A folder of two labels with captions, two shards, both splits."""
    folder = tmp_path_factory.mktemp("prepared")
    for number, picture in enumerate(pictures * 6):
        place = folder / "photos" / ("brick wall", "cat")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture.rotate(7 * number).save(place / f"{number}.png")
        row = {"file_name": f"{number}.png", "text": f"picture {number}"}
        with open(place / "metadata.jsonl", "a") as lines:
            lines.write(json.dumps(row) + "\n")
    told = jpeglm.told(
        "prepare", "photos", "data", "--size", 32, "--validation", 0.3, "--labels", "folder",
        "--unit-size", 20, cwd=folder,
    )  # fmt: skip
    assert told["shards"] > 1 and told["streams"]["validation"] > 2
    return folder / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def read(kind, tmp_path, **where):
    return datasets.load_dataset(kind, cache_dir=str(tmp_path / "cache"), **where)


def known(data, split):
    found = open_data(data)
    codec = make_codec(found.codec_dict, data)
    return [(key, codec.wrap(s), label, text) for key, s, label, text in found.streams(split)]


def test_shards_load_as_parquet(prepared, tmp_path):
    """As docs/integrations.md has the columns; a stream is no whole file, and wrap makes one."""
    files = str(prepared / "shard-*.parquet")
    table = read("parquet", tmp_path, data_files=files, split="train")
    assert table.column_names == ["key", "stream", "width", "height", "label", "split", "text"]
    codec = make_codec(open_data(prepared).codec_dict, prepared)
    for row in table.select(range(5)):
        with pytest.raises(OSError):
            Image.open(io.BytesIO(row["stream"])).load()
        image = Image.open(io.BytesIO(codec.wrap(row["stream"])))
        assert image.size == (row["width"], row["height"]) == (32, 32)
    wanted = [file for split in ("train", "validation") for _, file, _, _ in known(prepared, split)]
    assert sorted(codec.wrap(stream) for stream in table["stream"]) == sorted(wanted)


def pixels(images):
    return [np.asarray(image.convert("RGB")).tobytes() for image in images]


@pytest.mark.parametrize("to", ["images", "webdataset"])
def test_datasets_reads_what_is_exported(jpeglm, prepared, tmp_path, to):
    told = jpeglm.told("export", prepared, "--out", "out", "--to", to, cwd=tmp_path)
    out = tmp_path / "out"
    if to == "images":
        found = read("imagefolder", tmp_path, data_dir=str(out))
    else:
        files = {split: str(out / f"{split}-*.tar") for split in ("train", "validation")}
        found = read("webdataset", tmp_path, data_files=files)
    assert told["pictures"] == {split: len(rows) for split, rows in found.items()}
    for split, rows in found.items():
        expected = known(prepared, split)
        image = "image" if to == "images" else "jpg"
        shown = [Image.open(io.BytesIO(file)) for _, file, _, _ in expected]
        assert pixels(rows[image]) == pixels(shown)
        about = rows if to == "images" else [row["json"] for row in rows]
        assert [row["key"] for row in about] == [key for key, *_ in expected]
        assert [row["text"] for row in about] == [text for *_, text in expected]
        assert [row["label"] for row in about] == [label for _, _, label, _ in expected]
        names = {row["label"]: row["label_name"] for row in about}
        assert names == {0: "brick wall", 1: "cat"}
        if to == "webdataset":
            assert rows["cls"] == [label for _, _, label, _ in expected]
            assert rows["txt"] == [text for *_, text in expected]


@pytest.mark.parametrize("to", ["images", "webdataset"])
def test_every_file_is_whole(jpeglm, prepared, tmp_path, to):
    """djpeg takes each, and `unwrap` gives the very streams back."""
    jpeglm.told("export", prepared, "--out", "out", "--to", to, cwd=tmp_path)
    if to == "webdataset":
        for tar in sorted((tmp_path / "out").glob("*.tar")):
            shutil.unpack_archive(tar, tmp_path / "unpacked")
    files = sorted((tmp_path / ("out" if to == "images" else "unpacked")).rglob("*.jpg"))
    assert len(files) == open_data(prepared).count()
    for file in files if shutil.which("djpeg") else []:
        said = subprocess.run(["djpeg", "-outfile", "/dev/null", file], capture_output=True)
        assert said.returncode == 0 and not said.stderr
    codec = make_codec(open_data(prepared).codec_dict, prepared)
    streams = sorted(row.stream for row in open_data(prepared).streams())
    assert sorted(codec.unwrap(file.read_bytes()) for file in files) == streams


def test_without_labels_and_captions(jpeglm, picture_files, tmp_path):
    (tmp_path / "photos").mkdir()
    for file in picture_files:
        shutil.copy(file, tmp_path / "photos")
    jpeglm.told("prepare", "photos", "data", "--size", 32, "--validation", 0, cwd=tmp_path)
    jpeglm.told("export", "data", "--out", "out", "--to", "webdataset", cwd=tmp_path)
    shutil.unpack_archive(tmp_path / "out" / "train-00000.tar", tmp_path / "unpacked")
    assert {path.suffix for path in (tmp_path / "unpacked").iterdir()} == {".jpg", ".json"}
    row = json.loads(next((tmp_path / "unpacked").glob("*.json")).read_text())
    assert row.keys() == {"key", "width", "height"}


def test_nothing_of_the_user_s_is_replaced(jpeglm, prepared, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    words = ("export", prepared, "--out", "out", "--to", "images")
    ended = jpeglm(*words, cwd=tmp_path)
    assert ended.code == 1 and "already holds files" in ended.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "images"), "give their folder"),
        (("DATA", "--to", "hf"), "by --checkpoint"),
        (("DATA", "--to", "images", "--checkpoint", "photos"), "--checkpoint says nothing"),
        (("DATA", "--to", "webdataset", "--dtype", "float32"), "--dtype says nothing"),
        (("gone", "--to", "images"), "not a prepared folder"),
        (("--to", "gguf", "--license", "mit"), "--license says nothing"),
    ],
)
def test_what_does_not_fit_is_told(jpeglm, prepared, tmp_path, words, said):
    words = [prepared if word == "DATA" else word for word in words]
    ended = jpeglm("export", *words, "--out", tmp_path / "out")
    assert ended.code == 1 and said in ended.err and not (tmp_path / "out").exists()
