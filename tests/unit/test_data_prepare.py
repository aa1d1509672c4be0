"""prepare: what lands in the shards, what is refused, and that a second run changes nothing."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.codecs.images import open_image
from jpeglm.config import InputError
from jpeglm.data.crops import random_crop
from jpeglm.data.loader import load_tokens, made_in_memory, tokenizer_of
from jpeglm.data.mapped import MappedIds
from jpeglm.data.open import Dataset, Pictures, open_data
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import open_source
from jpeglm.data.splits import ANEW, split_of
from jpeglm.data.token_set import TokenSet
from jpeglm.data.token_shards import read_token_shard
from jpeglm.tokenizer import Tokenizer

CODEC = make_codec({"codec": "jpeg", "width": 32, "height": 32, "quality": 25})


def picture(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A gradient with some noise."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    pixels = 255 * np.stack([x, y, (x + y * rng.random()) / 2], 2)
    pixels += rng.normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures in three classes, two copies, a text file named .jpg, a truncated photo."""
    home = tmp_path_factory.mktemp("photos")
    for number in range(24):
        path = home / "abc"[number % 3] / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        picture(number, (90 + number, 70)).save(path, quality=90)
    for number in range(6):
        data = (home / "abc"[number % 3] / f"{number:02d}.jpg").read_bytes()
        (home / "c" / f"copy{number}.jpg").write_bytes(data)
    (home / "a" / "text.jpg").write_text("this is no picture")
    whole = (home / "b" / "01.jpg").read_bytes()
    (home / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return home


SETTINGS = PrepareConfig(validation=0.3, unit_size=8, labels="folder")


@pytest.fixture(scope="module")
def prepared(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(photos, out, CODEC, SETTINGS, workers=2)
    return out


@pytest.fixture(scope="module")
def tokenizer(prepared: Path) -> Tokenizer:
    streams = [stream for _, stream, *_ in Dataset(prepared).streams("train")]
    return Tokenizer.train(streams, CODEC, "jpeg-symbols", 260, n_classes=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_whole_pictures_are_the_codecs_own_streams(photos: Path, prepared: Path):
    data = Dataset(prepared)
    rows = {key: (stream, label) for key, stream, label, _ in data.streams()}
    assert len(rows) == 30
    for key, (stream, label) in rows.items():
        assert stream == CODEC.encode(open_image(photos / key))
        assert label == "abc".index(key[0])
    assert data.label_names == ["a", "b", "c"]
    assert data.codec_dict == CODEC.to_dict()
    assert data.fingerprint == CODEC.fingerprint
    assert make_codec(data.codec_dict).fingerprint == data.fingerprint


def test_counts_agree_with_the_rows(prepared: Path):
    data = Dataset(prepared)
    for split in ("train", "validation"):
        found = list(data.streams(split))
        assert data.count(split) == len(found) > 0
        assert data.info["bytes"][split] == sum(len(row.stream) for row in found)
        loaded = data.load(split)
        assert [loaded.stream(i) for i in range(len(found))] == [row.stream for row in found]
        assert loaded.labels.tolist() == [row.label for row in found]
    assert data.count() == 30


def test_unreadable_pictures_are_set_aside_with_the_reason(prepared: Path):
    lines = (prepared / "rejected.jsonl").read_text().splitlines()
    found = {Path(entry["name"]).name: entry["reason"] for entry in map(json.loads, lines)}
    assert set(found) == {"text.jpg", "cut.jpg"}
    assert "text.jpg" in found["text.jpg"]
    assert Dataset(prepared).info["rejected"] == 2


def test_copies_fall_on_the_same_side(photos: Path, prepared: Path):
    data = Dataset(prepared)
    side = {key: name for name in ("train", "validation") for key, *_ in data.streams(name)}
    for number in range(6):
        assert side[f"{'abc'[number % 3]}/{number:02d}.jpg"] == side[f"c/copy{number}.jpg"]
    assert side["a/00.jpg"] == split_of((photos / "a" / "00.jpg").read_bytes(), 0.3)


def test_split_share():
    sides = [split_of(str(number).encode(), 0.05) for number in range(4000)]
    assert sides.count("validation") / 4000 == pytest.approx(0.05, abs=0.012)


def test_workers_and_a_second_run_change_no_byte(photos: Path, prepared: Path, tmp_path: Path):
    before = contents(prepared)
    prepare(photos, tmp_path / "alone", CODEC, SETTINGS, workers=1)
    assert contents(tmp_path / "alone") == before
    seen: list[tuple[int, int, int]] = []
    prepare(photos, prepared, CODEC, SETTINGS, progress=lambda *done: seen.append(done))
    assert contents(prepared) == before
    assert seen[-1] == (32, 32, 30)


def test_a_lost_shard_and_litter_are_repaired(photos: Path, prepared: Path):
    before = contents(prepared)
    (prepared / "shard-00001.parquet").unlink()
    (prepared / "dataset.json").unlink()
    (prepared / ".shard-00001.parquet.abc.tmp").write_bytes(b"half")
    with pytest.raises(InputError, match="not finished"):
        open_data(prepared)
    prepare(photos, prepared, CODEC, SETTINGS)
    assert contents(prepared) == before


def test_crops(photos: Path, tmp_path: Path):
    settings = PrepareConfig(crops=6, validation=0.3, unit_size=8)
    info = prepare(photos, tmp_path / "a", CODEC, settings, workers=1)
    assert info["streams"]["train"] == 6 * info["pictures"]["train"]
    assert info["streams"]["validation"] == 5 * info["pictures"]["validation"]
    data = Dataset(tmp_path / "a")
    train = {key: stream for key, stream, *_ in data.streams("train")}
    assert len(set(train.values())) > 0.8 * len(train)
    views = {key: stream for key, stream, *_ in data.streams("validation")}
    whole = [key for key in views if "#" not in key]
    assert len(whole) == info["pictures"]["validation"]
    assert views[whole[0]] == CODEC.encode(open_image(photos / whole[0]))
    prepare(photos, tmp_path / "b", CODEC, settings, workers=2)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    other = PrepareConfig(crops=6, validation=0.3, unit_size=8, seed=1)
    prepare(photos, tmp_path / "c", CODEC, other, workers=1)
    streams = {key: stream for key, stream, *_ in Dataset(tmp_path / "c").streams("train")}
    assert set(streams) == set(train) and streams != train


def test_random_crop_stays_inside_and_spreads_over_scales():
    """The picture tells each pixel's place, so a crop tells where it was taken."""
    width, height = 400, 240
    x, y = np.meshgrid(np.arange(width) / width * 255, np.arange(height) / height * 255)
    image = Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    rng = np.random.default_rng(0)
    scales, flips = [], 0
    for _ in range(400):
        crop = np.asarray(random_crop(image, 48, 24, 0.25, rng), float)
        assert crop.shape == (24, 48, 3)
        across = (crop[12, 40, 0] - crop[12, 8, 0]) / 32 * 48 / 255
        flips += across < 0
        scales.append(abs(across))
        down = (crop[20, 24, 1] - crop[4, 24, 1]) / 16 * 24 / 255 * height
        assert down == pytest.approx(abs(across) * width / 2, abs=9), "the aspect is kept"
    assert 0.22 < min(scales) < 0.28 and 0.95 < max(scales) < 1.03
    assert np.median(scales) == pytest.approx(0.5, abs=0.06), "log-uniform from 0.25 to 1"
    assert 150 < flips < 250
    small = random_crop(image.resize((20, 30)), 48, 24, 0.25, rng)
    assert small.size == (48, 24)


def test_split_may_be_given(photos: Path, tmp_path: Path):
    settings = PrepareConfig(split="validation", unit_size=16)
    info = prepare(photos, tmp_path / "a", CODEC, settings, workers=1)
    assert info["pictures"] == {"train": 0, "validation": 30}
    assert info["warnings"] == []


def test_folders_may_say_the_split(tmp_path: Path):
    for number, name in enumerate(("train/a", "train/b/c", "val/d", "test/e", "f")):
        file = tmp_path / "in" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    info = prepare(tmp_path / "in", tmp_path / "out", CODEC, PrepareConfig(split="folder"))
    assert info["pictures"] == {"train": 2, "validation": 1}
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"].rsplit("/", 1)[1] for line in lines] == ["f.png", "e.png"]
    assert all("which say the split" in line for line in lines)
    side = {key: "validation" for key, *_ in Dataset(tmp_path / "out").streams("validation")}
    assert side == {"val/d.png": "validation"}


def test_an_empty_side_is_a_warning(tmp_path: Path):
    (tmp_path / "in").mkdir()
    picture(0).save(tmp_path / "in" / "a.png")
    info = prepare(tmp_path / "in", tmp_path / "out", CODEC, PrepareConfig(validation=1e-9))
    assert info["warnings"] == ["no picture fell into validation; " + ANEW]


def test_other_settings_into_the_same_folder_are_refused(photos: Path, prepared: Path):
    with pytest.raises(InputError, match=r"crops 0 is now 3; run it as before or give another"):
        prepare(
            photos, prepared, CODEC, PrepareConfig(3, validation=0.3, unit_size=8, labels="folder")
        )
    other = make_codec({**CODEC.to_dict(), "quality": 50})
    with pytest.raises(InputError, match="quality 25 is now 50"):
        prepare(photos, prepared, other, SETTINGS)
    with pytest.raises(InputError, match="pictures of the source are not the same"):
        (photos / "new").mkdir()
        try:
            picture(77).save(photos / "new" / "77.png")
            prepare(photos, prepared, CODEC, SETTINGS)
        finally:
            shutil.rmtree(photos / "new")


def test_what_cannot_be_prepared(photos: Path, prepared: Path, tmp_path: Path):
    with pytest.raises(InputError, match="already prepared"):
        prepare(prepared, tmp_path / "a", CODEC)
    with pytest.raises(InputError, match="give another folder for the shards"):
        prepare(photos, photos, CODEC)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"none of the 1 pictures .*text\.png"):
        prepare(tmp_path / "bad", tmp_path / "b", CODEC)
    with pytest.raises(InputError, match="not finished"):
        open_data(tmp_path / "b")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file"):
        prepare(photos, tmp_path / "file", CODEC)


def test_out_below_the_source_is_not_read_again(tmp_path: Path):
    home = tmp_path / "in"
    home.mkdir()
    picture(0).save(home / "a.png")
    first = prepare(home, home / "shards", CODEC, PrepareConfig(split="train"))
    assert prepare(home, home / "shards", CODEC, PrepareConfig(split="train")) == first


def test_two_runs_at_once_are_refused(photos: Path, prepared: Path):
    fcntl = pytest.importorskip("fcntl")
    handle = os.open(prepared, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another jpeglm prepare is writing"):
            prepare(photos, prepared, CODEC, SETTINGS)
    finally:
        os.close(handle)


def test_a_bomb_is_set_aside(tmp_path: Path):
    (tmp_path / "in").mkdir()
    picture(0).save(tmp_path / "in" / "a.png")
    Image.new("L", (2000, 1000)).save(tmp_path / "in" / "bomb.png")
    settings = PrepareConfig(split="train", max_pixels=1_000_000)
    info = prepare(tmp_path / "in", tmp_path / "out", CODEC, settings)
    assert info["pictures"]["train"] == 1 and info["rejected"] == 1
    assert "megapixel" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_settings_are_checked():
    bad = [
        {"crops": -1}, {"min_scale": 2}, {"validation": 1}, {"split": "test"}, {"unit_size": 0},
        {"labels": "x"}, {"max_pixels": 0},
    ]  # fmt: skip
    for values in bad:
        with pytest.raises(InputError, match=next(iter(values))):
            PrepareConfig(**values)


def same_ids(one: TokenSet, other: TokenSet) -> bool:
    return len(one) == len(other) and all(
        (one.ids(row) == other.ids(row)).all() for row in range(len(one))
    )


def test_token_shards(photos: Path, tmp_path: Path, tokenizer: Tokenizer):
    out = tmp_path / "out"
    prepare(photos, out, CODEC, SETTINGS, tokenizer=tokenizer, workers=1)
    assert tokenizer_of(out) == out / "tokenizer"
    assert Tokenizer.load(out / "tokenizer").fingerprint == tokenizer.fingerprint
    shard = read_token_shard(out / "shard-00000.tokens.safetensors")
    assert shard.tokens.dtype == np.uint16 and shard.offsets.dtype == np.int64
    assert shard.split.dtype == np.int8 and shard.label.dtype == np.int32
    streams = [stream for _, stream, *_ in Dataset(out).streams("train")]
    found = load_tokens(out, None, "train")
    for number, stream in enumerate(streams):
        ids = found.ids(number)
        assert ids[0] == tokenizer.class_token(found.labels[number]) and ids[-1] == tokenizer.eos
        assert tokenizer.decode_stream(ids[1:-1].astype(np.int32)) == stream
        assert found.stream_bits[number] == 8 * len(stream)
    assert len(found) == len(streams)
    before = contents(out)
    fewer = Tokenizer(CODEC, "jpeg-symbols", tokenizer.merges[:10])
    prepare(photos, out, CODEC, SETTINGS, tokenizer=fewer, workers=1)
    assert load_tokens(out, None, "train").ids(0)[0] == fewer.bos
    prepare(photos, out, CODEC, SETTINGS, tokenizer=tokenizer, workers=2)
    assert contents(out) == before


def test_tokens_on_the_fly_are_those_of_the_shards(
    photos: Path, tmp_path: Path, tokenizer: Tokenizer
):
    out = tmp_path / "out"
    prepare(photos, out, CODEC, SETTINGS, workers=1)
    with pytest.raises(InputError, match=r"no file .*tokens\.safetensors"):
        load_tokens(out, None, "train")
    seen: list[tuple[int, int]] = []
    loose = load_tokens(out, tokenizer, "train", progress=lambda *done: seen.append(done))
    assert seen[-1] == (len(loose), len(loose))
    assert made_in_memory(out, tokenizer) == Dataset(out).info["bytes"]["train"] > 0
    load_tokens(out, tokenizer, "validation", cache=True)
    assert made_in_memory(out, tokenizer) == 0
    stored = load_tokens(out, None, "train")
    assert same_ids(loose, stored) and loose.digest == stored.digest
    assert isinstance(stored.tokens, MappedIds) and not isinstance(loose.tokens, MappedIds)
    assert (loose.stream_bits == stored.stream_bits).all()
    some = load_tokens(out, tokenizer, "train", limit=5)
    assert len(some) == 5
    assert same_ids(some, load_tokens(out, None, "train", limit=5))
    assert len(load_tokens(out, None, None)) == 30
    with pytest.raises(InputError, match="split"):
        load_tokens(out, None, "test")


def test_plain_pictures_give_the_same_tokens(photos: Path, prepared: Path, tokenizer: Tokenizer):
    plain = load_tokens(photos, tokenizer, None)
    unlabelled = Tokenizer(CODEC, "jpeg-symbols", tokenizer.merges)
    assert sorted(plain.lengths) == sorted(load_tokens(prepared, unlabelled, None).lengths)
    source = open_data(photos, CODEC)
    assert isinstance(source, Pictures)
    whole = {key: stream for key, stream, *_ in source.streams()}
    assert whole == {key: stream for key, stream, *_ in Dataset(prepared).streams()}
    assert len(source.rejected) == 2
    assert source.count("train") + source.count("validation") == 30
    assert len(source.load("train").labels) == source.count("train")


def test_mismatches_are_refused_by_name(
    photos: Path, prepared: Path, tokenizer: Tokenizer, tmp_path: Path
):
    other = make_codec({**CODEC.to_dict(), "quality": 60})
    with pytest.raises(InputError, match=f"{prepared.name} was prepared with codec"):
        open_data(prepared, other)
    with pytest.raises(InputError, match="tokenizer was trained for codec"):
        prepare(photos, tmp_path / "x", other, SETTINGS, tokenizer=tokenizer)
    with pytest.raises(InputError, match="run jpeglm prepare on it first"):
        open_data(photos)
    with pytest.raises(InputError, match="no file or folder"):
        open_data(tmp_path / "nowhere")
    small = Tokenizer(CODEC, "jpeg-symbols", tokenizer.merges, n_classes=2)
    with pytest.raises(InputError, match="label 2"):
        load_tokens(prepared, small, None)


def test_damaged_shards_are_named(photos: Path, tmp_path: Path, tokenizer: Tokenizer):
    out = tmp_path / "out"
    prepare(photos, out, CODEC, SETTINGS, tokenizer=tokenizer, workers=1)
    strange = make_codec({**CODEC.to_dict(), "quality": 60})
    elsewhere = tmp_path / "elsewhere"
    prepare(photos, elsewhere, strange, SETTINGS, workers=1)
    shard = out / "shard-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes((elsewhere / shard.name).read_bytes())
    with pytest.raises(InputError, match=r"shard-00001\.parquet holds streams of codec"):
        Dataset(out).load()
    shard.write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"shard-00001\.parquet is not a readable"):
        Dataset(out).load()
    tokens = out / "shard-00000.tokens.safetensors"
    tokens.write_bytes(tokens.read_bytes()[:100])
    with pytest.raises(InputError, match=r"shard-00000\.tokens\.safetensors"):
        load_tokens(out, None, "train")


def test_source_kinds_end_in_the_same_streams(photos: Path, prepared: Path, tmp_path: Path):
    """A tar of the folder holds the same pictures, so the same streams."""
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(photos, "photos")
    prepare(tmp_path / "set.tar", tmp_path / "out", CODEC, PrepareConfig(validation=0.3))
    for split in ("train", "validation"):
        streams = sorted(stream for _, stream, *_ in Dataset(tmp_path / "out").streams(split))
        assert streams == sorted(stream for _, stream, *_ in Dataset(prepared).streams(split))
    assert open_source(tmp_path / "set.tar").count == 32


def test_training_on_token_shards_needs_no_numba_and_no_pyarrow(
    photos: Path, tmp_path: Path, tokenizer: Tokenizer
):
    out = tmp_path / "out"
    prepare(photos, out, CODEC, SETTINGS, tokenizer=tokenizer, workers=1)
    script = f"""
import sys
for name in ("numba", "pyarrow", "torch", "PIL"):
    sys.modules[name] = None
from pathlib import Path
from jpeglm.data.loader import TrainingLoader, load_tokens
loader = TrainingLoader(load_tokens(Path({str(out)!r}), None, "train"), "pictures", 4096, 2048)
print(next(iter(loader))["input_ids"].shape[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
