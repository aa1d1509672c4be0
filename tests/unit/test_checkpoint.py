"""Checkpoint folders, read and written without torch, against safetensors' own code."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jpeglm import tensors
from jpeglm.checkpoint import (
    FILES,
    from_bfloat16,
    load_checkpoint,
    read_safetensors,
    to_bfloat16,
    weights,
    write_checkpoint,
    write_safetensors,
)
from jpeglm.config import InputError
from jpeglm.generation.loading import load
from jpeglm.places import (
    checkpoint_folder,
    checkpoint_name,
    shipped_checkpoint,
    shipped_checkpoints,
)
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    config, weights = random_llama(tokenizer.vocab_size, 600)
    out = tmp_path_factory.mktemp("checkpoint") / "model"
    write_checkpoint(out, weights, config, tokenizer, "# A card\n", {"top_k": 40})
    return out


def test_bfloat16_rounds_as_torch_does():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=5000) * 10.0 ** rng.integers(-30, 30, 5000)).astype(np.float32)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0, -0.0], np.float32)
    values = np.concatenate([values, ties])
    theirs = torch.from_numpy(values).bfloat16()
    assert (to_bfloat16(values) == theirs.view(torch.uint16).numpy()).all()
    assert (from_bfloat16(to_bfloat16(values)) == theirs.float().numpy()).all()


def test_safetensors_reads_what_we_write(tmp_path):
    from safetensors.torch import load_file

    rng = np.random.default_rng(1)
    arrays = {
        "a": to_bfloat16(rng.normal(size=(3, 5))),
        "b": rng.normal(size=7).astype(np.float32),
        "c": np.arange(6, dtype=np.int64).reshape(2, 3),
    }
    write_safetensors(tmp_path / "x.safetensors", arrays, {"a": "BF16", "b": "F32", "c": "I64"})
    theirs = load_file(tmp_path / "x.safetensors")
    assert theirs["a"].dtype == torch.bfloat16
    assert (theirs["a"].view(torch.uint16).numpy() == arrays["a"]).all()
    assert (theirs["b"].numpy() == arrays["b"]).all() and (theirs["c"].numpy() == arrays["c"]).all()


def test_we_read_what_safetensors_writes(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {
        "half": torch.randn(4, 4).half(),
        "brain": torch.randn(2, 3).bfloat16(),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "y.safetensors", metadata={"format": "pt"})
    ours, dtypes = read_safetensors(tmp_path / "y.safetensors")
    assert dtypes == {"half": "F16", "brain": "BF16", "empty": "F32", "flags": "BOOL"}
    assert (from_bfloat16(ours["brain"]) == tensors["brain"].float().numpy()).all()
    assert (ours["half"] == tensors["half"].numpy()).all() and ours["empty"].shape == (0, 3)
    assert ours["flags"].tolist() == [True, False]


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_truncated_weights_are_named(folder, tmp_path, cut):
    data = (folder / "model.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(data[:cut])
    with pytest.raises(InputError, match=r"short\.safetensors is not a complete safetensors file"):
        read_safetensors(tmp_path / "short.safetensors")


def test_round_trip(folder, tokenizer):
    checkpoint = load_checkpoint(folder)
    assert checkpoint.tokenizer.fingerprint == tokenizer.fingerprint
    assert checkpoint.generation["top_k"] == 40
    _, weights = random_llama(tokenizer.vocab_size, 600)
    assert set(checkpoint.weights) == set(weights)
    for name, bits in checkpoint.weights.items():
        assert (bits == to_bfloat16(weights[name])).all()


@pytest.fixture(scope="module")
def photos():
    return Tokenizer.load(shipped_checkpoint("photos"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "form", [np.array, to_bfloat16, torch.from_numpy], ids=lambda f: f.__name__
)
def test_weights_are_stored_as_asked(tmp_path, photos, dtype, form):
    """Of arrays, of bfloat16's bits, of tensors; float32 loses nothing."""
    config, arrays = random_llama(photos.vocab_size, 64)
    config["vocab_size"] = 7  # the tokenizer's counts
    given = {name: form(array) for name, array in arrays.items()}
    write_checkpoint(tmp_path / "model", given, config, photos, "", dtype=dtype)
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == dtype
    for name, stored in load_checkpoint(tmp_path / "model").weights.items():
        expected = to_bfloat16(arrays[name])
        if dtype == "float32":
            expected = from_bfloat16(expected) if form is to_bfloat16 else arrays[name]
        assert stored.dtype == expected.dtype and (stored == expected).all()
    with pytest.raises(InputError, match="dtype is 'float16'"):
        write_checkpoint(tmp_path / "other", given, config, photos, "", dtype="float16")
    assert not (tmp_path / "other").exists()


def test_what_stock_transformers_is_told(tmp_path, photos):
    """To sample, between which tokens, and how it was asked for."""
    transformers = pytest.importorskip("transformers")
    config, weights = random_llama(photos.vocab_size, 64)
    write_checkpoint(tmp_path, weights, config, photos, "", {"top_k": 40, "temperature": 0.5})
    for told in (
        transformers.GenerationConfig.from_pretrained(tmp_path),
        transformers.AutoConfig.from_pretrained(tmp_path),
    ):
        assert (told.bos_token_id, told.eos_token_id) == (photos.bos, photos.eos)
    told = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (told.do_sample, told.top_k, told.temperature) == (True, 40, 0.5)


def test_a_checkpoint_replaces_an_older_one_and_leaves_the_rest(tmp_path, photos):
    config, weights = random_llama(photos.vocab_size, 64)
    write_checkpoint(tmp_path, weights, config, photos, "", beside={"samples.jpg": b"a sheet"})
    assert (tmp_path / "samples.jpg").read_bytes() == b"a sheet"
    (tmp_path / "notes.txt").write_text("mine")
    write_checkpoint(tmp_path, weights, config, photos, "# New\n")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "README.md").read_text() == "# New\n"
    assert not (tmp_path / "samples.jpg").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"copy lacks {name}"):
        load_checkpoint(copy)


def test_files_that_do_not_belong_together(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 7}))
    with pytest.raises(InputError, match="do not belong together"):
        load_checkpoint(copy)
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(InputError, match="only llama can be run"):
        load_checkpoint(copy)
    (copy / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(InputError, match=r"by its config\.json it must be"):
        load(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json"):
        load_checkpoint(copy)
    with pytest.raises(InputError, match="there is no checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_shipped_checkpoints_by_name(tmp_path, monkeypatch):
    """A name is the shipped checkpoint's unless a checkpoint of that name lies here."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "clips"):
        assert checkpoint_folder(name) == shipped_checkpoint(name)
    assert checkpoint_folder(None) == shipped_checkpoint("photos")
    assert load_checkpoint(checkpoint_folder("clips")).codec.media == "clip"
    (tmp_path / "clips").mkdir()  # of films, say
    assert checkpoint_folder("clips") == shipped_checkpoint("clips")
    (tmp_path / "clips" / "config.json").touch()
    assert checkpoint_folder("clips") == checkpoint_folder(Path("clips")) == Path("clips")
    for given in ("nothing", "runs/photos", "../photos", ".", "./cifar10"):
        assert checkpoint_folder(given) == Path(given)
    (tmp_path / "avatars").mkdir()
    (tmp_path / "avatars" / "codec.json").touch()  # a VAE's
    assert checkpoint_folder("avatars") == Path("avatars")


def test_names_lead_to_what_they_name(tmp_path, monkeypatch):
    """As errors tell them in commands to paste."""
    monkeypatch.chdir(tmp_path)
    for folder in (*shipped_checkpoints(), tmp_path / "clips", Path("runs/clips")):
        assert checkpoint_folder(checkpoint_name(folder)) == folder
    names = ["avatars", "cifar10", "clips", "photos"]
    assert [checkpoint_name(folder) for folder in shipped_checkpoints()] == names
    with pytest.raises(InputError, match="ships no checkpoint 'cats'"):
        shipped_checkpoint("cats")


def test_a_tokenizer_is_named_as_a_model_is(folder, tmp_path, monkeypatch):
    """A shipped one's name, a run, a checkpoint, a tokenizer's folder or file."""
    monkeypatch.chdir(tmp_path)
    shipped = Tokenizer.load(shipped_checkpoint("photos")).fingerprint
    assert Tokenizer.load("photos").fingerprint == Tokenizer.load(Path("photos")).fingerprint
    assert Tokenizer.load("photos").fingerprint == shipped
    own = load(folder).tokenizer.fingerprint
    shutil.copytree(folder, "run/model")
    Path("run/config.json").write_text(json.dumps({"settings": {}, "parameters": 1}))
    for given in (folder, str(folder), "run", "run/model", "run/model/tokenizer.json"):
        assert Tokenizer.load(given).fingerprint == own, given
    with pytest.raises(InputError, match="no tokenizer folder nowhere"):
        Tokenizer.load("nowhere")


def test_a_file_that_is_replaced_while_it_is_read_stays_the_one_that_was_opened(
    tmp_path, monkeypatch
):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_safetensors(path, {"a": np.arange(6, dtype=np.float32)}, {"a": "F32"})
    write_safetensors(other, {"a": np.zeros(2, np.float32)}, {"a": "F32"})
    header = tensors._header

    def replacing(*given):
        found = header(*given)
        os.replace(other, path)
        return found

    monkeypatch.setattr(tensors, "_header", replacing)
    assert tensors.read_safetensors(path)[0]["a"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("names", [{"a": (2, 3)}, {"model.norm.weight": (3,)}])
def test_weights_that_are_replaced_after_they_were_judged(folder, tmp_path, monkeypatch, names):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    read = weights.read_safetensors
    arrays = {name: np.zeros(shape, np.float32) for name, shape in names.items()}

    def replacing(path):
        write_safetensors(path, arrays, dict.fromkeys(arrays, "F32"))
        return read(path)

    monkeypatch.setattr(weights, "read_safetensors", replacing)
    with pytest.raises(InputError, match=r"model\.safetensors became another file while it was"):
        load_checkpoint(copy).weights  # noqa: B018
