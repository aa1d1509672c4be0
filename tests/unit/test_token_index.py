"""The index of token shards: damaged, of other shards, of an earlier version."""

import json
import random
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data import mapped
from jpeglm.data.loader import load_tokens, made_in_memory
from jpeglm.data.mapped import MappedIds
from jpeglm.data.open import Dataset
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.token_index import INDEX, read_index
from jpeglm.data.token_set import TokenSet
from jpeglm.data.token_shards import read_token_shard, token_meta, write_token_shard
from jpeglm.tensors import read_metadata, read_safetensors, write_arrays
from jpeglm.text import Text
from jpeglm.tokenizer import Tokenizer

CODEC = make_codec({"codec": "jpeg", "width": 16, "height": 16, "quality": 25})
SETTINGS = PrepareConfig(validation=0.3, unit_size=5, caption="names")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 captioned pictures in five token shards with their index."""
    home = tmp_path_factory.mktemp("index")
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
        (home / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(home / "photos" / f"a red {number}.png")
    tokenizer = Tokenizer(CODEC, "jpeg-symbols", np.zeros((0, 2)), text=Text.train(["a red"], 300))
    prepare(home / "photos", home / "data", CODEC, SETTINGS, tokenizer=tokenizer, workers=1)
    return home / "data"


def told(data: TokenSet) -> list[object]:
    """All that training may see of it."""
    return [data.digest, data.labels.tolist(), data.stream_bytes.tolist(), data.text.tolist(),
            [data.ids(number).tobytes() for number in range(len(data))]]  # fmt: skip


def hurt(data: bytes, chance: random.Random) -> bytes:
    """One bit, eight bytes, or the end of a file is another."""
    kind, at = chance.randrange(4), chance.randrange(len(data) - 8)
    if kind == 0:
        return data[:at]
    if kind == 1:
        new = chance.choice([b"\xff" * 8, bytes(8), (1 << 40).to_bytes(8, "little")])
        return data[:at] + new + data[at + 8 :]
    flipped = bytearray(data)
    flipped[at] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def test_a_damaged_index_is_refused_or_says_the_same(whole: Path, tmp_path: Path):
    folder = shutil.copytree(whole, tmp_path / "data")
    index, chance, refused = folder / INDEX, random.Random(5), 0
    data, usual = index.read_bytes(), told(load_tokens(whole, None, None))
    for _ in range(400):
        index.write_bytes(hurt(data, chance))
        try:
            assert told(load_tokens(folder, None, None)) == usual
        except InputError as error:
            assert "index" in str(error)
            refused += 1
    assert refused > 300


def test_an_index_without_a_checksum_is_read_and_never_beyond_its_shards(
    whole: Path, tmp_path: Path
):
    """As earlier versions wrote it."""
    folder = shutil.copytree(whole, tmp_path / "data")
    arrays, kinds = read_safetensors(whole / INDEX)
    about = json.loads(read_metadata(whole / INDEX)["jpeglm"])
    del about["check"]

    def written(changed: dict[str, np.ndarray]) -> TokenSet:
        held = arrays | changed
        write_arrays(
            folder / INDEX,
            {name: (kinds[name], array.shape) for name, array in held.items()},
            held.values(),
            {"jpeglm": json.dumps(about)},
        )
        return load_tokens(folder, None, "train")

    usual = told(load_tokens(whole, None, "train"))
    assert isinstance(written({}).tokens, MappedIds) and told(written({})) == usual
    places = arrays["shards.places"]
    for wrong in (places - 10**6, places + 10**6, places + 2**62, arrays["shards.sizes"] - 2):
        with pytest.raises(InputError, match="index that does not fit its token shards"):
            told(written({"shards.places": wrong}))


def test_a_token_shard_of_other_rows_is_not_learnt(whole: Path, tmp_path: Path):
    """Though it is of the same codec and tokenizer."""
    folder = shutil.copytree(whole, tmp_path / "data")
    shutil.copy(
        folder / "shard-00004.tokens.safetensors", folder / "shard-00003.tokens.safetensors"
    )
    assert Dataset(folder).count() == 24
    with pytest.raises(InputError, match=r"token shards of 23 +streams, .* tells of 24"):
        load_tokens(folder, None, None)
    (folder / INDEX).unlink()
    with pytest.raises(InputError, match="of other data"):
        load_tokens(folder, None, None)


def test_sequences_of_all_splits_come_in_the_order_of_the_shards(whole: Path):
    found = load_tokens(whole, None, None)
    rows = [
        shard.tokens[begin:end].tolist()
        for path in sorted(whole.glob("shard-*.tokens.safetensors"))
        for shard in [read_token_shard(path)]
        for begin, end in pairwise(shard.offsets.tolist())
    ]
    assert [found.ids(number).tolist() for number in range(len(found))] == rows


def test_a_shard_of_the_same_size_and_another_header_is_told(whole: Path, tmp_path: Path):
    folder = shutil.copytree(whole, tmp_path / "data")
    shard = folder / "shard-00002.tokens.safetensors"
    digest = token_meta(shard)["digests"]["train"].encode()
    shard.write_bytes(shard.read_bytes().replace(digest, digest[::-1]))
    data = load_tokens(folder, None, None)
    with pytest.raises(InputError, match=r"shard-00002.* is not the token shard that .* knows"):
        told(data)


def test_an_index_of_another_tokenizer_is_not_taken(whole: Path):
    other = Tokenizer(CODEC, "jpeg-symbols", np.array([[1, 2]]), text=Text.train(["a red"], 300))
    found = load_tokens(whole, other, "train")
    assert not isinstance(found.tokens, MappedIds)
    assert all(found.ids(number)[-1] == other.eos for number in range(len(found)))


@pytest.mark.parametrize("index", [True, False])
def test_tokens_made_in_memory_are_told_whichever_shard_lacks(
    index: bool, whole: Path, tmp_path: Path
):
    """With an index or without one; without, also where one is of another tokenizer."""
    tokenizer = Tokenizer.load(whole / "tokenizer")
    other = Tokenizer(CODEC, "jpeg-symbols", np.array([[9, 9]]), text=tokenizer.text)
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    if not index:
        (data / INDEX).unlink()
    assert made_in_memory(data, tokenizer) == 0
    assert made_in_memory(data, other) == Dataset(data).info["bytes"]["train"] > 0
    for number in (0, 2, 4):
        shard = data / f"shard-{number:05d}.tokens.safetensors"
        shard.unlink()
        assert made_in_memory(data, tokenizer) == Dataset(data).info["bytes"]["train"]
        if not index:
            parquet = data / f"shard-{number:05d}.parquet"
            write_token_shard(shard, parquet, other, CODEC.fingerprint)
            assert made_in_memory(data, tokenizer) == Dataset(data).info["bytes"]["train"]
        shutil.copy(whole / shard.name, shard)
        assert made_in_memory(data, tokenizer) == 0


def test_an_index_that_is_missing_or_of_other_shards_is_made_again(whole: Path, tmp_path: Path):
    """By the same command, where no token shard lacks."""
    data, photos = Path(shutil.copytree(whole, tmp_path / "data")), whole.parent / "photos"
    tokenizer = Tokenizer.load(whole / "tokenizer")
    index = (whole / INDEX).read_bytes()
    less = PrepareConfig(validation=0.3, unit_size=12, caption="names")
    prepare(photos, tmp_path / "less", CODEC, less, tokenizer=tokenizer, workers=1)
    other = (tmp_path / "less" / INDEX).read_bytes()
    assert other != index
    for left in (None, other):
        (data / INDEX).unlink() if left is None else (data / INDEX).write_bytes(left)
        prepare(photos, data, CODEC, SETTINGS, tokenizer=tokenizer, workers=1)
        assert (data / INDEX).read_bytes() == index


def test_no_index_stands_beside_token_shards_that_it_does_not_know(whole: Path, tmp_path: Path):
    """Where a run that replaces them ends halfway."""
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    shard = data / "shard-00003.parquet"
    kept = shard.read_bytes()
    shard.write_bytes(kept[:4] + bytes(64) + kept[68:])  # a page, not the footer
    text = Tokenizer.load(whole / "tokenizer").text
    other = Tokenizer(CODEC, "jpeg-symbols", np.array([[9, 9]]), text=text)
    again = whole.parent / "photos", data, CODEC, SETTINGS
    with pytest.raises(InputError, match=r"shard-00003\.parquet"):
        prepare(*again, tokenizer=other, workers=1)
    found = [token_meta(path)["tokenizer"] for path in sorted(data.glob("*.tokens.safetensors"))]
    assert other.fingerprint in found and not (data / INDEX).exists()
    shard.write_bytes(kept)
    prepare(*again, tokenizer=other, workers=1)
    assert read_index(data, other.fingerprint, CODEC.fingerprint, 5) is not None


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_as_many_shards_are_mapped_as_there_is_room_for(
    shards: int, whole: Path, monkeypatch: pytest.MonkeyPatch
):
    """Those last asked for, by their bytes or by their number; one is, however large."""
    size = max(path.stat().st_size for path in whole.glob("*.tokens.safetensors"))
    for name, limit in (("MAPPED_BYTES", shards * size), ("MAPPED_FILES", shards)):
        with monkeypatch.context() as patched:
            patched.setattr(mapped, name, limit if shards > 1 else 1)
            index = read_index(whole, None, CODEC.fingerprint, 5)
            assert index is not None
            ids = index.token_set(whole, None).tokens
            asked: list[int] = []
            for file in np.random.default_rng(0).integers(0, 5, 60).tolist():
                ids[int(ids.begins[file]) : int(ids.begins[file]) + 1]
                asked = [*(one for one in asked if one != file), file]
                wanted = asked[-shards:]
                assert [*ids._mapped][-len(wanted) :] == wanted
                if name == "MAPPED_FILES" or shards == 1:
                    assert len(ids._mapped) <= shards
                else:
                    assert sum(int(ids.sizes[one]) for one in ids._mapped) <= limit
