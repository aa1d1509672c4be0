"""Captions on their way from a source into shards."""

import hashlib
import io
import json
import tarfile

import pytest
from PIL import Image

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.data.open import Dataset, open_data
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.shards import read_shard, shard_path
from jpeglm.data.sources import Item, open_source

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

CODEC = JpegCodec(JpegConfig(16, 16))
LONG = "word " * 3000


def png(number):
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (number * 20, 100, 50)).save(out, "PNG")
    return out.getvalue()


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def read(path, **options):
    """({key: caption}, {name: reason}) of a source."""
    source = open_source(path, **options)
    found = [item for unit in source.units for item in unit.read()]
    refused = source.rejected + [item for item in found if not isinstance(item, Item)]
    texts = {i.key: i.caption for i in found if isinstance(i, Item)}
    return texts, {one.name: one.reason for one in refused}, source


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_texts_of_a_tar(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    members = [
        ("7.png", png(1)), ("7.txt", " a red\n heart ❤️ \n".encode()),  # behind its picture
        ("8.txt", "\ufeffقلب".encode()), ("8.png", png(2)),
        ("9.png", png(3)),
        ("bad.png", png(4)), ("bad.txt", b"caf\xe9"),
        ("long.png", png(5)), ("long.txt", LONG.encode()),
        ("none.png", png(6)), ("none.txt", b" \n"),
        ("nul.png", png(7)), ("nul.txt", b"a\0b"),
    ]  # fmt: skip
    tar_of(path, members, "w:gz" if ending == "tar.gz" else "w")
    texts, refused, source = read(path)
    name = f"a.{ending}"
    assert texts == {
        f"{name}/7.png": "a red heart ❤️", f"{name}/8.png": "قلب", f"{name}/9.png": None,
        f"{name}/none.png": None, f"{name}/nul.png": "a\0b",
    }  # fmt: skip
    assert "its caption is not UTF-8" in refused[f"{path}:bad.png"]
    assert "its caption has more than 8192 bytes" in refused[f"{path}:long.png"]
    assert not source.passed and list(source.caption_from) == [".txt files"]
    texts, refused, source = read(path, caption="none")
    assert set(texts.values()) == {None} and not refused and source.passed == {".txt": 6}
    texts, refused, source = read(path, caption="names")
    assert texts[f"{name}/7.png"] == "7" and texts[f"{name}/bad.png"] == "bad"


def test_the_captions_of_a_tar_have_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr("jpeglm.data.sources.tars.MAX_CAPTIONS", 20)
    tar_of(tmp_path / "a.tar", [("1.png", png(1)), *((f"{i}.txt", b"x" * 9) for i in range(3))])
    _, refused, _ = read(tmp_path / "a.tar")
    assert "captions have more than" in refused[str(tmp_path / "a.tar")]


def table(path, **columns):
    pq.write_table(pa.table(columns), path)


def test_columns_of_a_table(tmp_path):
    path = tmp_path / "a.parquet"
    pictures = [png(i) for i in range(3)]
    both = {"text": ["t", "t", "t"], "caption": ["a  cat", None, ""], "alt": ["x", "y", "z"]}
    table(path, image=pictures, **both)
    texts, _, source = read(path)
    assert list(texts.values()) == ["a cat", None, None]
    assert list(source.caption_from) == ["column caption"]
    assert list(read(path, caption_column="alt")[0].values()) == ["x", "y", "z"]
    assert set(read(path, caption="none")[0].values()) == {None}
    for name in ("nothing", "image"):
        with pytest.raises(InputError, match=f"no column {name} of text; its columns are image"):
            read(path, caption_column=name)
    table(
        path, image=pictures, caption=[1, 2, 3], text=pa.array(["a", "b", "a"]).dictionary_encode()
    )
    assert list(read(path)[0].values()) == ["a", "b", "a"]  # a caption that is no text counts not
    table(path, image=pictures, caption=[1, 2, 3])
    assert set(read(path)[0].values()) == {None}


def test_bad_cells_of_a_table_are_told_one_by_one(tmp_path):
    path = tmp_path / "a.parquet"
    bad = pa.array([b"caf\xe9", b"fine", LONG.encode()]).view(pa.string())
    table(path, image=[png(i) for i in range(3)], caption=bad)
    texts, refused, _ = read(path)
    assert texts == {"a.parquet:1": "fine"}
    assert "not UTF-8" in refused[f"{path}:0"] and "8192" in refused[f"{path}:2"]


def test_metadata_of_an_image_folder(tmp_path):
    for name in ("train/1.png", "train/deep/2.png", "validation/3.png", "4.png", "5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(int(name[-5])))
    lines = [
        {"file_name": "1.png", "text": "one"}, {"file_name": "deep/2.png", "text": "two"},
        {"file_name": "gone.png", "text": "nobody"}, {"file_name": "1.png"}, {"text": "x"},
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "train" / "metadata.jsonl").write_text(text + '{"broken\n')
    (tmp_path / "validation" / "metadata.jsonl").write_text(
        '{"file_name": "3.png", "text": "drei"}'
    )
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "4.png", "caption": "\\ud800", "alt": "vier"}\n'
        '{"file_name": "5.png", "caption": 5, "alt": "fünf"}\n'
    )
    texts, refused, source = read(tmp_path)
    assert texts == {
        "train/1.png": "one", "train/deep/2.png": "two", "validation/3.png": "drei", "5.png": None,
    }  # fmt: skip
    assert "not UTF-8" in refused[str(tmp_path / "4.png")]
    assert {reason.split("\n")[0] for reason in refused.values()} == {
        "its caption is not UTF-8; mend it, or use --caption none",
        'the line is not a JSON object with a "file_name"',
        "the caption in the line is not text",
    }
    assert len(refused) == 4 and source.passed == {"captions of no picture": 1}
    texts, refused, source = read(tmp_path, caption_column="alt")
    assert texts["4.png"] == "vier" and texts["5.png"] == "fünf" and texts["train/1.png"] is None
    # Without captions the files are what they were: passed over.
    assert read(tmp_path, caption="none")[2].passed == {".jsonl": 3}
    assert source.digest != open_source(tmp_path, caption="none").digest


def test_strange_lines_of_metadata_cost_no_other(tmp_path):
    """A second caption of a picture, here or in another file; a line without an end; no file."""
    for name in ("1.png", "2.png", "a/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    lines = [
        {"file_name": "1.png", "text": "first"}, {"file_name": "./1.png", "text": "second"},
        {"file_name": "1.png", "text": "first"}, {"file_name": "a/3.png", "text": "outer"},
        {"file_name": "x.png", "text": "x" * 3_000_000}, {"file_name": "2.png", "text": "two"},
    ]  # fmt: skip
    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "a" / "metadata.jsonl").write_text('{"file_name": "3.png", "text": "inner"}')
    texts, refused, _ = read(tmp_path)
    assert texts == {"1.png": "first", "2.png": "two", "a/3.png": "inner"}
    assert refused == {
        f"{path}:2": "the line has a second caption for 1.png; the first counts",
        f"{path}:4": "the line has a second caption for a/3.png; the first counts",
        f"{path}:5": "the line has more than 1048576 bytes",
    }


def test_metadata_that_cannot_be_read_end_no_run(tmp_path, monkeypatch):
    (tmp_path / "1.png").write_bytes(png(1))
    path = tmp_path / "metadata.jsonl"
    path.symlink_to(tmp_path / "nowhere")
    texts, refused, _ = read(tmp_path)
    assert texts == {"1.png": None} and "link to nothing" in refused[str(path)]
    path.unlink()
    path.write_text("{}")

    def no_right(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("builtins.open", no_right)  # root may read everything
    source = open_source(tmp_path)
    assert source.count == 1
    assert [tuple(one) for one in source.rejected] == [
        (str(path), "it cannot be read: Permission denied")
    ]


def test_captions_that_nothing_asks_for_are_counted(tmp_path):
    members = [("1.png", png(1)), ("1.txt", b"a"), ("1.txt", b"b"), ("readme.txt", b"x")]
    tar_of(tmp_path / "a.tar", members)
    texts, _, source = read(tmp_path / "a.tar")
    assert texts == {"a.tar/1.png": "a"} and source.passed == {"captions of no picture": 2}
    table(tmp_path / "a.parquet", image=[png(1)], caption=[["a", "b"]], text=["c"])
    texts, _, source = read(tmp_path / "a.parquet")
    assert texts == {"a.parquet:0": "c"} and source.passed == {"column caption": 1}


def test_what_bears_a_pictures_whole_name_comes_before_what_bears_its_key(tmp_path):
    tar_of(
        tmp_path / "a.tar",
        [("7.left.png", png(1)), ("7.txt", b"both"), ("7.left.txt", b"left"), ("7.cls", b"1"),
         ("7.left.cls", b"2"), ("7.right.png", png(2)), ("7.right.cls", b"3")],
    )  # fmt: skip
    source = open_source(tmp_path / "a.tar")
    found = [item for unit in source.units for item in unit.read()]
    assert [(item.key, item.label, item.caption) for item in found] == [
        ("a.tar/7.left.png", 2, "left"), ("a.tar/7.right.png", 3, "both")
    ]  # fmt: skip


def test_a_text_of_its_own_makes_a_picture_of_an_image(tmp_path):
    """`7.left` and `7.right` would else be two images of one sample."""
    images = [(f"{n}.{side}.png", png(n)) for n in (7, 8) for side in ("left", "right")]
    texts = [(name.replace("png", "txt"), name.encode()) for name, _ in images]
    tar_of(tmp_path / "a.tar", images)
    assert not open_source(tmp_path / "a.tar", column="left.png").rejected
    with pytest.raises(InputError, match="several images"):
        open_source(tmp_path / "a.tar")
    tar_of(tmp_path / "a.tar", images + texts)
    found, refused, _ = read(tmp_path / "a.tar")
    assert found == {f"a.tar/{name}": name for name, _ in images} and not refused


def test_a_compressed_tar_is_one_unit(tmp_path):
    """Each unit decompresses it anew."""
    members = [(f"{n}.png", png(n)) for n in range(5)]
    for ending, mode, units in (("tar", "w", 3), ("tar.gz", "w:gz", 1)):
        tar_of(tmp_path / f"a.{ending}", members, mode)
        assert len(open_source(tmp_path / f"a.{ending}", unit_size=2).units) == units


def test_other_captions_are_another_source(tmp_path):
    """Or a run that is gone on with would mix them."""
    digests = set()
    for text in (b"a", b"b"):
        tar_of(tmp_path / "a.tar", [("1.png", png(1)), ("1.txt", text)])
        digests |= {open_source(tmp_path / "a.tar", caption=c).digest for c in ("source", "none")}
    assert len(digests) == 3
    table(tmp_path / "a.parquet", image=[png(1)], caption=["a"], text=["b"])
    choices = [{}, {"caption": "none"}, {"caption_column": "text"}]
    assert len({open_source(tmp_path / "a.parquet", **choice).digest for choice in choices}) == 3


def test_names_of_files(tmp_path):
    for name in ("red_heart-2.png", "blue star.x.png", "\u05d0.png"):
        (tmp_path / name).write_bytes(png(1))
    texts, _, _ = read(tmp_path, caption="names")
    assert set(texts.values()) == {"red heart 2", "blue star", "\u05d0"}


def folder_of(home, captions):
    home.mkdir()
    for number in range(len(captions)):
        (home / f"{number}.png").write_bytes(png(number))
    rows = ({"file_name": f"{n}.png", "text": c} for n, c in enumerate(captions) if c)
    (home / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_shards_carry_them(tmp_path, jpeglm):
    folder_of(tmp_path / "in", ["a cat", None, "a dog", "x" * 9000, None, "a cow"])
    config = PrepareConfig(crops=2, validation=0.0, unit_size=2)
    info = prepare(tmp_path / "in", tmp_path / "out", CODEC, config, workers=1)
    assert info["captions"] == {"pictures": 3, "without": 2, "from": ["metadata.jsonl"]}
    assert info["rejected"] == 1 and "captions" not in json.dumps(info["settings"])
    rows = list(Dataset(tmp_path / "out").streams())
    of_number = {row.key.split(".")[0]: row.text for row in rows}
    assert of_number == {"0": "a cat", "1": None, "2": "a dog", "4": None, "5": "a cow"}
    assert Dataset(tmp_path / "out").load().texts == [row.text for row in rows]
    plain = open_data(tmp_path / "in", CODEC)
    assert [row.text for row in plain.streams()] == ["a cat", None, "a dog", None, "a cow"]
    ended = jpeglm("prepare", tmp_path / "in", tmp_path / "again", "--size", "16", "--workers", 1)
    assert "3 pictures have captions (metadata.jsonl), 2 have none" in ended.out
    ended = jpeglm("prepare", tmp_path / "in", tmp_path / "third", "--size", "16", "--workers", 1,
                   "--caption-column", "title")  # fmt: skip
    assert ended.code == 0 and "warning: no picture has a caption" in ended.err
    ended = jpeglm("prepare", tmp_path / "in", tmp_path / "fourth", "--caption", "names",
                   "--caption-column", "text")  # fmt: skip
    assert ended.code == 1 and "leave one out" in ended.err
    assert jpeglm("prepare", tmp_path / "in", tmp_path / "fifth", "--caption", "all").code == 1


def test_data_without_captions_are_what_they_were(tmp_path):
    """A column, a key or a setting more would make them others."""
    folder_of(tmp_path / "in", [None] * 4)
    prepare(tmp_path / "in", tmp_path / "out", CODEC, PrepareConfig(unit_size=2), workers=1)
    shard = shard_path(tmp_path / "out", 0)
    assert pq.read_schema(shard).names == ["key", "stream", "width", "height", "label", "split"]
    assert set(read_shard(shard)["text"].to_pylist()) == {None}
    written = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("*.json")]
    assert len(written) == 2
    assert not any("caption" in key for part in written for key in (*part, *part["settings"]))
    assert b"caption" not in shard.read_bytes()
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    folder_of(tmp_path / "in2", ["a cat"] * 4)
    prepare(tmp_path / "in2", tmp_path / "out2", CODEC, PrepareConfig(unit_size=2, caption="none"),
            workers=1)  # fmt: skip
    again = shard_path(tmp_path / "out2", 0)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == digest


def test_a_damaged_column_of_text(tmp_path):
    folder_of(tmp_path / "in", ["a cat"] * 2)
    prepare(tmp_path / "in", tmp_path / "out", CODEC, PrepareConfig(), workers=1)
    shard = shard_path(tmp_path / "out", 0)
    good = pq.read_table(shard)
    place = good.column_names.index("text")
    for column in (pa.array([b"\xff", b"x"]).view(pa.string()), pa.array([b"\xff", b"x"])):
        pq.write_table(good.set_column(place, "text", column), shard)
        with pytest.raises(InputError, match="is damaged"):
            read_shard(shard)
    pq.write_table(good.set_column(place, "text", good["text"].cast(pa.large_string())), shard)
    assert read_shard(shard)["text"].to_pylist() == ["a cat"] * 2
