"""Shards that another tool, or an accident, has changed: one sentence that names the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.loader import load_tokens
from jpeglm.data.open import Dataset
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.token_shards import read_token_shard
from jpeglm.tokenizer import Tokenizer

CODEC = make_codec({"codec": "jpeg", "width": 16, "height": 16, "quality": 25})
SETTINGS = PrepareConfig(split="train")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    (home / "in").mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(home / "in" / f"{number}.png")
    prepare(home / "in", home / "out", CODEC, SETTINGS, workers=1)
    streams = [stream for _, stream, *_ in Dataset(home / "out").streams()]
    tokenizer = Tokenizer.train(streams, CODEC, "bytes", 260)
    prepare(home / "in", home / "out", CODEC, SETTINGS, tokenizer=tokenizer, workers=1)
    return home


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole / "out", tmp_path / "out")
    return tmp_path / "out"


def change(out: Path, how) -> None:
    path = out / "shard-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(how(table).replace_schema_metadata(table.schema.metadata), path)


def replaced(name, values):
    return lambda t: t.set_column(t.column_names.index(name), name, values(t.column(name)))


DAMAGED = {
    "no stream": lambda t: t.drop(["stream"]),
    "no label": lambda t: t.drop(["label"]),
    "no key": lambda t: t.drop(["key"]),
    "two streams": lambda t: t.append_column("stream", t.column("stream")),
    "null streams": replaced("stream", lambda c: pa.array([None, *c.to_pylist()[1:]])),
    "null labels": replaced("label", lambda c: pa.nulls(len(c), pa.int32())),
    "null splits": replaced("split", lambda c: pa.nulls(len(c), pa.string())),
    "another split": replaced("split", lambda c: pa.array(["tarin"] * len(c))),
    "labels that are text": replaced("label", lambda c: pa.array(["cat"] * len(c))),
    "labels beyond int32": replaced("label", lambda c: pa.array([2**40] * len(c))),
    "streams that are lists": replaced("stream", lambda c: pa.array([[1]] * len(c))),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_columns_that_are_missing_or_empty(out, kind):
    change(out, DAMAGED[kind])
    (out / "shard-00000.tokens.safetensors").unlink()
    for read in (
        lambda: Dataset(out).load("train"),
        lambda: list(Dataset(out).streams()),
        lambda: load_tokens(out, Tokenizer.load(out / "tokenizer"), "train"),
    ):
        with pytest.raises(InputError, match=r"shard-00000\.parquet is damaged"):
            read()


def test_wider_types_of_another_tool_are_the_same(out, whole):
    wide = pa.schema({
        "key": pa.large_string(), "stream": pa.large_binary(), "width": pa.int64(),
        "height": pa.int64(), "label": pa.int64(), "split": pa.dictionary(pa.int8(), pa.string()),
    })  # fmt: skip
    before = list(Dataset(whole / "out").streams("train"))
    change(out, lambda t: t.cast(wide).select(sorted(t.column_names)))
    assert list(Dataset(out).streams("train")) == before
    assert (Dataset(out).load().data == Dataset(whole / "out").load().data).all()


@pytest.mark.parametrize(
    "meta", [b"{x", b"null", b"{}", b"[]", b'{"codec": {}}', b'{"codec": 1, "fingerprint": 2}']
)
def test_metadata_that_is_none(out, whole, meta):
    path = out / "shard-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"jpeglm": meta}), path)
    with pytest.raises(InputError, match=r"shard-00000\.parquet is not a shard"):
        Dataset(out).load()
    with pytest.raises(InputError, match=r"shard-00000\.parquet"):
        prepare(whole / "in", out, CODEC, SETTINGS, workers=1)


@pytest.mark.parametrize("key", ["count", "streams", "rejected", "bytes"])
def test_metadata_that_lacks_something(out, whole, key):
    path = out / "shard-00000.parquet"
    table = pq.read_table(path)
    meta = json.loads(table.schema.metadata[b"jpeglm"])
    for broken in (None, {}, "x"):
        stored = json.dumps({**meta, key: broken})
        pq.write_table(table.replace_schema_metadata({"jpeglm": stored}), path)
        with pytest.raises(InputError, match=r"shard-00000\.parquet is damaged"):
            prepare(whole / "in", out, CODEC, SETTINGS, workers=1)


@pytest.mark.parametrize("key", ["codec", "fingerprint", "label_names", "shards", "streams"])
def test_a_record_that_lacks_something(out, key):
    info = json.loads((out / "dataset.json").read_text())
    for broken in ({**info, key: None}, {k: v for k, v in info.items() if k != key}):
        (out / "dataset.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match=rf"dataset\.json says no {key}"):
            Dataset(out)


BAD_TOKENS = {
    "no split": lambda a: a.pop("split"),
    "short labels": lambda a: a.update(label=a["label"][:-1]),
    "rows beyond the tokens": lambda a: a.update(offsets=a["offsets"] + 7),
    "rows backwards": lambda a: a.update(offsets=a["offsets"][::-1].copy()),
    "other types": lambda a: a.update(tokens=a["tokens"].astype(np.float32)),
    "no rows": lambda a: a.update(offsets=a["offsets"][:0]),
    "unknown splits": lambda a: a.update(split=a["split"] + 9),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_token_shards_that_do_not_fit_together(out, kind):
    path = out / "shard-00000.tokens.safetensors"
    arrays = load_file(path)
    shard = read_token_shard(path)
    BAD_TOKENS[kind](arrays)
    meta = {"tokenizer": shard.tokenizer, "fingerprint": shard.fingerprint}
    save_file(arrays, path, {"jpeglm": json.dumps(meta)})
    with pytest.raises(InputError, match=r"tokens\.safetensors"):
        read_token_shard(path)
