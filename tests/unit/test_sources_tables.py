"""Tables and folders as the world makes them: every picture with its own label, or a reason."""

import io
import json
import os
import random
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.open import Dataset, open_data
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import Item, open_source

CODEC = make_codec({"codec": "jpeg", "width": 32, "height": 32, "quality": 25})


def picture(seed: int, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def read(path: Path, **options):
    source = open_source(path, **options)
    found = [item for unit in source.units for item in unit.read()]
    items = [item for item in found if isinstance(item, Item)]
    return items, source.rejected + [item for item in found if not isinstance(item, Item)]


def structs(seeds):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": picture(seed), "path": None} for seed in seeds], kind)


def write(path: Path, metadata: bytes | None = None, **columns) -> Path:
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, path)
    return path


BROKEN = [
    b"{x", b"null", b"[]", b"3", b'"a"', b"\xff\xfe", b"{}", b'{"info": null}', b'{"info": []}',
    b'{"info": {"features": null}}', b'{"info": {"features": [1]}}', b"[" * 100_000,
    b'{"info": {"features": {"image": null, "label": 3}}}',
    b'{"info": {"features": {"label": {"names": 7}, "gone": {"_type": "Image"}}}}',
    b'{"info": {"features": {"image": {"_type": ["Image"]}, "label": {"names": {"a": 1}}}}}',
]  # fmt: skip


@pytest.mark.parametrize("metadata", BROKEN, ids=range(len(BROKEN)))
def test_the_schema_suffices(tmp_path, metadata):
    path = write(tmp_path / "a.parquet", metadata, image=structs([0, 1]), label=pa.array([4, 5]))
    items, rejected = read(path)
    assert [item.data for item in items] == [picture(0), picture(1)]
    assert [item.label for item in items] == [4, 5] and not rejected


@pytest.mark.parametrize("kind", ["struct", "binary", "datasets"])
def test_several_columns_of_pictures(tmp_path, kind):
    """As `datasets` itself writes them, and by the schema alone."""

    def table(path, *names):
        seeds = {name: [10 * n, 10 * n + 1] for n, name in enumerate(names)}
        if kind == "datasets":
            features = datasets.Features(dict.fromkeys(names, datasets.Image()))
            rows = {n: [{"bytes": picture(s), "path": None} for s in seeds[n]] for n in names}
            datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
        elif kind == "struct":
            write(path, **{name: structs(seeds[name]) for name in names})
        else:
            write(path, **{n: pa.array([picture(s) for s in seeds[n]]) for n in names})
        return path

    path = table(tmp_path / "a.parquet", "conditioning", "image", "mask")
    assert [item.data for item in read(path)[0]] == [picture(10), picture(11)]
    assert open_source(path).passed == {"column conditioning": 1, "column mask": 1}
    assert [item.data for item in read(path, column="mask")[0]] == [picture(20), picture(21)]
    with pytest.raises(InputError, match=r"no column nothing .*conditioning, image, mask"):
        open_source(path, column="nothing")
    path = table(tmp_path / "b.parquet", "jpg", "png")
    with pytest.raises(InputError, match=r"b\.parquet.*\(jpg, png\).*--column"):
        open_source(path)
    assert len(read(path, column="jpg")[0]) == 2
    path = table(tmp_path / "c.parquet", "anything")
    assert len(read(path)[0]) == 2
    # One table that cannot be used ends no run over a folder.
    items, rejected = read(tmp_path)
    assert len(items) == 4 and len(rejected) == 1 and "--column" in rejected[0].reason


TYPES = {
    "int8": ([0, None, -1, 100], pa.int8(), [0, -1, -1, 100]),
    "int64": ([0, 2**31, 2**31 - 1, -2], pa.int64(), [0, None, 2**31 - 1, None]),
    "uint64": ([0, 2**63 + 5], pa.uint64(), [0, None]),
    "double": ([0.0, float("nan"), 7.0, 0.5, float("inf"), None],
               pa.float64(), [0, -1, 7, None, None, -1]),
    "dictionary": ([3, 4, 3], pa.dictionary(pa.int8(), pa.int64()), [3, 4, 3]),
    "null": ([None, None], pa.null(), [-1, -1]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_labels_that_fit_and_those_that_do_not(tmp_path, kind):
    values, type_, expected = TYPES[kind]
    images = structs(range(len(values)))
    path = write(tmp_path / "a.parquet", image=images, label=pa.array(values, type_))
    items, rejected = read(path)
    assert [item.label for item in items] == [label for label in expected if label is not None]
    assert len(rejected) == expected.count(None)
    assert all("--labels none" in bad.reason for bad in rejected)
    info = prepare(path, tmp_path / "out", CODEC, PrepareConfig(split="train"), workers=1)
    assert info["rejected"] == expected.count(None)
    stored = [label for _, _, label, _ in Dataset(tmp_path / "out").streams()]
    assert stored == [item.label for item in items]


@pytest.mark.parametrize("values", [["cat", "dog"], [True, False], [[1], [2]]])
def test_labels_of_other_types_are_refused_with_the_way_out(tmp_path, values):
    write(tmp_path / "a.parquet", image=structs([0, 1]), label=pa.array(values))
    (tmp_path / "b.png").write_bytes(picture(5))
    items, rejected = read(tmp_path)
    assert len(items) == 1 and "--labels none" in rejected[0].reason
    assert len(read(tmp_path, labels="none")[0]) == 3


def test_classes_of_other_names_are_not_mixed(tmp_path):
    def classes(*names):
        feature = {"names": list(names), "_type": "ClassLabel"}
        return json.dumps({"info": {"features": {"label": feature}}}).encode()

    labels = pa.array([0, 1])
    write(tmp_path / "a.parquet", classes("cat", "dog"), image=structs([0, 1]), label=labels)
    write(tmp_path / "b.parquet", classes("dog", "cat"), image=structs([2, 3]), label=labels)
    items, rejected = read(tmp_path)
    assert len(items) == 2 and "b.parquet" in rejected[0].name
    assert len(read(tmp_path, labels="none")[0]) == 4


def test_rows_of_every_kind(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (tmp_path / "beside.png").write_bytes(picture(1))
    rows = [
        {"bytes": picture(0), "path": "x.png"}, None, {"bytes": None, "path": None},
        {"bytes": None, "path": "beside.png"}, {"bytes": b"", "path": "beside.png"},
        {"bytes": None, "path": "gone.png"}, {"bytes": None, "path": "/dev/zero"},
        {"bytes": None, "path": ""}, {"bytes": picture(2), "path": None},
    ]  # fmt: skip
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "a.parquet", image=pa.array(rows, kind))
    items, rejected = read(path, unit_size=4)
    assert [item.data for item in items] == [picture(n) for n in (0, 1, 1, 2)]
    assert [bad.name.rpartition(":")[2] for bad in rejected] == ["1", "2", "5", "6", "7"]


def test_paths_that_are_no_text(tmp_path):
    """Arrow stores what it is given as text and does not look at it."""
    raw = pa.array([b"caf\xe9.png", b"caf\xe9.png", b"gone\xff.png"], pa.binary())
    paths = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    images = pa.StructArray.from_arrays(
        [pa.array([picture(0), None, None], pa.binary()), paths], ["bytes", "path"]
    )
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:
        file.write(picture(1))
    path = write(tmp_path / "a.parquet", image=images)
    items, rejected = read(path)
    assert [item.data for item in items] == [picture(0), picture(1)]
    (bad,) = rejected
    assert bad.name.endswith(":2") and "gone\\xff.png" in bad.reason


@pytest.mark.parametrize("type_", [pa.large_binary(), pa.binary_view(), pa.binary()])
def test_binary_columns_of_all_widths(tmp_path, type_):
    path = write(tmp_path / "a.parquet", image=pa.array([picture(0), None], type_))
    items, rejected = read(path)
    assert [item.data for item in items] == [picture(0)] and len(rejected) == 1


def test_damaged_parquet_ends_no_run(tmp_path):
    rng = random.Random(1)
    whole = write(tmp_path / "a.parquet", image=structs(range(9)), label=pa.array(range(9)))
    (tmp_path / "z.png").write_bytes(picture(99))
    data = whole.read_bytes()
    for _ in range(150):
        mutant = bytearray(data)
        for _ in range(rng.choice([1, 3, 20])):
            mutant[rng.randrange(len(data))] = rng.randrange(256)
        whole.write_bytes(mutant[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        items, _ = read(tmp_path)
        assert items[0].data == picture(99)


def saved(path: Path, **splits: int) -> Path:
    """A DatasetDict, as `datasets` saves it."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(2)})
    start, made = 0, {}
    for name, count in splits.items():
        seeds = range(start, start + count)
        images = [{"bytes": picture(seed), "path": None} for seed in seeds]
        rows = {"image": images, "label": [seed % 2 for seed in seeds]}
        made[name] = datasets.Dataset.from_dict(rows, features=features)
        start += count
    datasets.DatasetDict(made).save_to_disk(path)
    return path


def test_a_saved_dataset_keeps_its_splits(tmp_path):
    home = saved(tmp_path / "saved", train=7, validation=3, test=4)
    info = prepare(home, tmp_path / "out", CODEC, workers=1)
    assert info["pictures"] == {"train": 7, "validation": 7}
    assert info["source"]["splits"] == {
        "test": "validation", "train": "train", "validation": "validation",
    }  # fmt: skip
    keys = {key.split("/")[0] for key, *_ in Dataset(tmp_path / "out").streams("train")}
    assert keys == {"train"} and not info["rejected"] and not info["passed_over"]
    plain = open_data(home, CODEC)
    assert {key.split("/")[0] for key, *_ in plain.streams("train")} == {"train"}
    assert plain.count("validation") == 7
    only = prepare(home, tmp_path / "all", CODEC, PrepareConfig(split="train"), workers=1)
    assert only["pictures"] == {"train": 14, "validation": 0}
    alone = prepare(home / "test", tmp_path / "one", CODEC, PrepareConfig(validation=0), workers=1)
    assert alone["pictures"]["train"] == 4


@pytest.mark.parametrize("broken", [b"{x", b"null", b"[]", b"{}", b'{"splits": 3}', b""])
def test_a_saved_dataset_with_broken_papers(tmp_path, broken):
    for name in ("dataset_dict.json", "train/state.json", "train/dataset_info.json"):
        home = saved(tmp_path / name.replace("/", "-"), train=3, test=2)
        (home / name).write_bytes(broken)
        items, _ = read(home)
        assert sorted(item.label for item in items) == [0, 0, 0, 1, 1]


def test_what_is_passed_over_is_counted(tmp_path):
    home = tmp_path / "in"
    (home / "deep").mkdir(parents=True)
    for number in range(3):
        (home / f"{number}.png").write_bytes(picture(number))
        (home / "deep" / f"{number}.TXT").write_text("x")
    (home / "README").write_text("x")
    (home / "a.zip").write_bytes(b"PK")
    info = prepare(home, tmp_path / "out", CODEC, PrepareConfig(split="train"), workers=1)
    assert info["passed_over"] == {".txt": 3, "without extension": 1, ".zip": 1}
    for path in home.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"no picture found in .*passed over: 3 \.txt"):
        open_source(home)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_dead_links_are_listed(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    items, rejected = read(tmp_path)
    assert len(items) == 1
    assert {Path(bad.name).name for bad in rejected} >= {
        "pipe.png", "dead.png", "self.png", "zero.png",
    }  # fmt: skip
    with pytest.raises(InputError, match="pipe or a device"):
        open_source(tmp_path / "pipe.png")


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 here")
def test_names_that_are_no_text(tmp_path):
    home = os.fsencode(tmp_path / "in")
    os.makedirs(home + b"/d\xfcr")
    for name in (b"caf\xe9.png", b"d\xfcr/a.png", b"bad\xff.png", b"bad.parquet\xff", b"\xe9.tar"):
        with open(home + b"/" + name, "wb") as file:
            file.write(b"bad" if b"bad" in name or b"tar" in name else picture(len(name)))
    info = prepare(tmp_path / "in", tmp_path / "out", CODEC, PrepareConfig(split="train"))
    keys = [key for key, *_ in Dataset(tmp_path / "out").streams()]
    assert keys == ["caf\\xe9.png", "d\\xfcr/a.png"]
    lines = (tmp_path / "out" / "rejected.jsonl").read_text("utf-8").splitlines()
    names = {json.loads(line)["name"].rpartition("/")[2] for line in lines}
    assert names == {"bad\\xff.png", "\\xe9.tar"} and info["rejected"] == 2
    again = prepare(tmp_path / "in", tmp_path / "out", CODEC, PrepareConfig(split="train"))
    assert again == info
    with pytest.raises(InputError, match=r"d\\xfcr") as caught:
        open_source(Path(os.fsdecode(home + b"/d\xfcr")) / "no.png")
    str(caught.value).encode()


def test_one_bad_item_ends_no_run(tmp_path, monkeypatch):
    """Whatever an encoder raises at one picture, all others are written."""
    home = tmp_path / "in"
    home.mkdir()
    for number in range(4):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(home / f"{number}.png")
    whole = type(CODEC).encode

    def encode(self, image):
        if np.asarray(image)[0, 0, 0] == 2:
            raise ZeroDivisionError("strange")
        return whole(self, image)

    monkeypatch.setattr(type(CODEC), "encode", encode)
    info = prepare(home, tmp_path / "out", CODEC, PrepareConfig(split="train"), workers=1)
    assert info["pictures"]["train"] == 3 and info["rejected"] == 1
    assert "ZeroDivisionError: strange" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_animations_and_heic_are_said(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    home = tmp_path / "in"
    home.mkdir()
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "green")]
    for name in ("a.gif", "b.webp", "c.png"):
        frames[0].save(home / name, save_all=True, append_images=frames[1:])
    frames[0].save(home / "still.png")
    (home / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    info = prepare(home, tmp_path / "out", CODEC, PrepareConfig(split="train"), workers=1)
    assert info["animations"] == 3 and info["pictures"]["train"] == 4
    assert info["rejected"] == 1 and "pip install 'jpeglm[heif]'" in info["warnings"][0]


def test_caches_of_datasets_are_no_data(tmp_path):
    """What `map` leaves beside a table that no state.json describes."""
    for name in ("data.arrow", "cache-0123456789abcdef.arrow"):
        table = pa.table({"image": structs([1, 2])})
        with (
            pa.OSFile(str(tmp_path / name), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table)
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text("{}")
    assert len(read(tmp_path)[0]) == 2
    assert open_source(tmp_path).passed[".arrow"] == 1


def test_the_rows_that_damage_costs_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"image": [picture(0)] * 128})
    pq.write_table(table, path, row_group_size=64, compression="none", use_dictionary=False)
    page = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    found = [item for unit in open_source(path, unit_size=128).units for item in unit.read()]
    assert [item.key for item in found[:-1]] == [f"a.parquet:{row}" for row in range(64)]
    assert found[-1].reason.startswith("rows 64 to 127 cannot be read")


def test_rows_that_never_come_are_named(tmp_path):
    """A footer with one wrong bit may count rows in a column that has none: pyarrow reads nothing
    and raises nothing."""
    whole = write(tmp_path / "a.parquet", image=pa.array([picture(0)] * 2))
    data, silent = whole.read_bytes(), 0
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for bit in range(8 * footer, 8 * (footer + 80)):
        mutant = bytearray(data)
        mutant[bit // 8] ^= 1 << bit % 8
        whole.write_bytes(mutant)
        try:
            units = open_source(whole).units
        except InputError:
            continue
        for unit in units:
            *found, last = unit.read()
            told = (
                not isinstance(last, Item) and f"to {unit.first + unit.count - 1} " in last.reason
            )
            assert len(found) + 1 == unit.count or told
            silent += told and "ends before them" in last.reason
    assert silent
