"""Checkpoint folders that are damaged or made to harm: one sentence each, and nothing allocated."""

import json
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import (
    from_bfloat16,
    load_checkpoint,
    read_safetensors,
    to_bfloat16,
    write_safetensors,
)
from jpeglm.checkpoint.weights import SLICE, finite
from jpeglm.config import InputError
from jpeglm.files import parse_json
from jpeglm.generation.loading import load
from jpeglm.models.llama import tensors
from jpeglm.places import shipped_checkpoint


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(shipped_checkpoint("photos"), tmp_path / "model")


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


WRONG = [None, True, "64", [], {}, -1, 0, 0.5, 1e9, 2**70, float("nan")]


@pytest.mark.parametrize(
    "key",
    ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
     "max_position_embeddings", "rms_norm_eps", "rope_theta"],
)  # fmt: skip
def test_numbers_of_the_configuration(folder, key):
    for value in WRONG:
        if (key, value) in (("rms_norm_eps", 0.5), ("rope_theta", 1e9), ("rope_theta", 2**70)):
            continue
        change(folder / "config.json", **{key: value})
        with pytest.raises(InputError, match=r"config\.json"):
            load_checkpoint(folder)
        shutil.copy(shipped_checkpoint("photos") / "config.json", folder)
    change(folder / "config.json", max_position_embeddings=10**9)
    with pytest.raises(InputError, match="at most"):
        load_checkpoint(folder)


@pytest.mark.parametrize("key", ["temperature", "top_k", "top_p"])
def test_sampling_defaults(folder, key):
    file = folder / "generation_config.json"
    for value in ("1", [], {}, -1, float("nan"), float("inf"), 2**70, True):
        change(file, **{key: value})
        with pytest.raises(InputError, match=rf"generation_config\.json: {key} is"):
            load_checkpoint(folder)
    change(file, **{key: None})  # as transformers writes what is not set
    assert load_checkpoint(folder).generation.get(key) is None


def test_what_is_given_may_be_drawn_another_way(folder):
    """generation_config.json's `complete` holds where a part of a picture is given, and only there;
    what one asks for holds everywhere."""
    file = folder / "generation_config.json"
    change(file, temperature=0.9, top_p=0.95, complete={"temperature": 0.4})
    model = load(folder)
    stream = model.codec.encode(Image.new("RGB", (64, 64), (200, 30, 90)))
    nothing = model.prompts.bare(None, None)
    for units in (1, model.codec.units // 2):
        part = model.prompts.beginning(stream, units, None, None)
        assert (model.sampling(part).temperature, model.sampling(part).top_p) == (0.4, 0.95)
        assert model.sampling(part, temperature=0.7).temperature == 0.7
    none = model.prompts.beginning(stream, 0, None, None)
    assert model.sampling(nothing).temperature == model.sampling(none).temperature == 0.9
    for wrong in (5, {"temperature": -1}, {"top_k": 1.5}, ["x"]):
        change(file, complete=wrong)
        with pytest.raises(InputError, match=r"generation_config\.json: "):
            load_checkpoint(folder)


def test_merges_that_cannot_be(folder):
    file = folder / "tokenizer.json"
    good = json.loads(file.read_text())

    def refuse(match, change):
        values = json.loads(json.dumps(good))
        change(values)
        file.write_text(json.dumps(values))
        with pytest.raises(InputError, match=match):
            load_checkpoint(folder)

    pairs = good["model"]["merges"]
    refuse("repeats", lambda v: v["model"]["merges"].insert(5, pairs[0]))
    refuse("not there before it", lambda v: v["model"]["merges"].reverse())
    refuse("not there before it", lambda v: v["model"]["merges"].append(["x", "y"]))
    refuse("vocabulary is not the one", lambda v: v["model"]["merges"].pop())
    refuse("vocabulary is not the one", lambda v: v["model"]["vocab"].update(x=5000))
    refuse("no pair of tokens", lambda v: v["model"]["merges"].append(None))
    refuse("added_tokens", lambda v: v["added_tokens"].pop())
    refuse("added_tokens", lambda v: v["added_tokens"][0].update(id=7))
    refuse("no vocabulary", lambda v: v.update(model=[]))
    refuse("spells", lambda v: v["model"]["vocab"].update({pairs[0][0] + "xx": 0}) or
           v["model"]["merges"].insert(0, [pairs[0][0] + "xx"] * 2))  # fmt: skip

    def doubling(values):  # 40 merges that would spell 2**40 symbols
        text = pairs[0][0]
        first, model = len(values["model"]["vocab"]), values["model"]
        model["merges"], model["vocab"] = (
            [],
            {c: i for c, i in model["vocab"].items() if len(c) == 1},
        )
        first = len(model["vocab"])
        for i in range(14):
            model["merges"].append([text, text])
            text += text
            model["vocab"][text] = first + i

    refuse("spell more than", doubling)


def test_headers_that_lie(tmp_path):
    """What safetensors' own reader refuses too, and what it takes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as theirs

    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers = [
        "", 1, None, [], {"a": 1}, {"a": []}, {"a": {**entry, "shape": "x"}},
        {"a": {**entry, "dtype": []}},
        {"a": {**entry, "data_offsets": [0, 16]}}, {"a": {**entry, "data_offsets": [8, 0]}},
        {"a": {**entry, "data_offsets": [-8, 0]}}, {"a": {**entry, "data_offsets": [0]}},
        {"a": {**entry, "shape": [2**62, 4]}}, {"a": {**entry, "shape": [-2]}},
        {"a": entry, "b": entry}, {"a": {**entry, "data_offsets": [4, 12]}},
        {"a": {**entry, "shape": [3]}}, {"a": {**entry, "shape": [1], "data_offsets": [0, 4]}},
        {"a": {**entry, "shape": [2] + [1] * 99}},
        {"a": entry, "b": {**entry, "shape": [0], "data_offsets": [8, 8]}}, {"a": entry},
    ]  # fmt: skip
    taken = 0
    for header in headers:
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + bytes(8)
        (tmp_path / "x.safetensors").write_bytes(data)
        try:
            theirs(data)
        except (SafetensorError, ValueError, TypeError, OverflowError):
            with pytest.raises(InputError, match=r"x\.safetensors"):
                read_safetensors(tmp_path / "x.safetensors")
        else:
            assert "a" in read_safetensors(tmp_path / "x.safetensors")[0]
            taken += 1
    assert taken == 2
    for path, reason in (
        ("/dev/zero", "/dev/zero is a pipe or a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "none", "there is no file .*none"),
    ):
        with pytest.raises(InputError, match=reason):
            read_safetensors(path)


def test_weights_that_are_no_numbers(folder):
    file = folder / "model.safetensors"
    good = file.read_bytes()
    for bits in (b"\x80\x7f", b"\xc0\x7f", b"\x80\xff"):  # Inf, NaN, -Inf
        file.write_bytes(good[:-2] + bits)
        with pytest.raises(InputError, match="not finite"):
            load(folder)
    # Finite, but what they compute is not.
    size = 8 + int.from_bytes(good[:8], "little")
    large = to_bfloat16(np.full((len(good) - size) // 2, 1e15)).tobytes()
    file.write_bytes(good[:size] + large)
    with pytest.raises(InputError, match="what they compute is not"):
        load(folder)


def test_shards_of_save_pretrained(tmp_path, folder):
    """Cut by transformers itself: the same weights, and the same pictures."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    whole = load_checkpoint(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "cut", max_shard_size="600KB")
    for name in ("tokenizer.json", "codec.json"):
        shutil.copy(folder / name, tmp_path / "cut")
    cut = load_checkpoint(tmp_path / "cut")
    assert len(cut.weight_files) > 3
    assert set(cut.weights) == set(whole.weights)
    assert all((cut.weights[name] == array).all() for name, array in whole.weights.items())
    mark = cut.weights_mark
    for file in cut.weight_files:  # each of them makes them other weights
        data = bytearray(file.read_bytes())
        data[-2] ^= 1
        file.write_bytes(data)
        assert load_checkpoint(tmp_path / "cut").weights_mark != mark
        data[-2] ^= 1
        file.write_bytes(data)
    index = tmp_path / "cut" / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    name = next(iter(places))
    for file in ("../model/model.safetensors", "/etc/passwd", "gone.safetensors", 1, None, ""):
        index.write_text(json.dumps({"weight_map": places | {name: file}}))
        with pytest.raises(InputError):
            load_checkpoint(tmp_path / "cut")
    del places[name]
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(InputError, match="lacks"):
        load_checkpoint(tmp_path / "cut")


def test_arrays_that_are_not_the_models(folder):
    """What other writers store beside them is passed over, anything else is told."""
    config = json.loads((folder / "config.json").read_text())
    file = folder / "model.safetensors"
    arrays, dtypes = read_safetensors(file)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    norm = "model.norm.weight"

    def write(name, array, dtype):
        write_safetensors(file, arrays | {name: array}, dtypes | {name: dtype})

    write("model.layers.0.self_attn.rotary_emb.inv_freq", np.zeros(8, np.float32), "F32")
    assert set(load_checkpoint(folder).weights) == set(tensors(config))
    assert config["tie_word_embeddings"] and "lm_head.weight" not in arrays
    write("lm_head.weight", arrays["model.embed_tokens.weight"], "BF16")
    assert set(load_checkpoint(folder).weights) == set(tensors(config))
    write("model.layers.0.mlp.adapter.weight", np.zeros(8, np.float32), "F32")
    with pytest.raises(InputError, match=r"adapter\.weight.*is not part of the model"):
        load_checkpoint(folder)
    write(norm, np.ones(arrays[norm].shape, np.int8), "I8")
    with pytest.raises(InputError, match=rf"{norm} in .* is of the type I8"):
        load_checkpoint(folder)


def test_an_index_beside_whole_weights_counts_for_nothing(folder):
    """As transformers has it: of shards that were there before."""
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    assert load_checkpoint(folder).weight_files == [folder / "model.safetensors"]


def test_an_index_that_promises_too_much(folder):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    names = tensors(json.loads((folder / "config.json").read_text()))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "part.safetensors")}))
    assert len(load_checkpoint(folder).weights) == len(names)
    arrays, dtypes = read_safetensors(folder / "part.safetensors")
    kept = {name: np.array(array) for name, array in arrays.items() if name != "model.norm.weight"}
    write_safetensors(folder / "part.safetensors", kept, {name: dtypes[name] for name in kept})
    with pytest.raises(InputError, match=r"part\.safetensors lacks model\.norm\.weight"):
        load_checkpoint(folder)


def test_every_value_is_looked_at():
    """The last of many, and those that only float64 can hold."""
    for dtype, kind in (("BF16", np.uint16), ("F16", np.float16), ("F32", np.float32)):
        values = np.zeros(2 * SLICE + 1, kind)
        assert finite(values, dtype)
        values[-1] = 0xFF80 if dtype == "BF16" else -np.inf
        assert not finite(values, dtype)
    for value in (1e39, -1e39, np.nan):
        assert not finite(np.array([0.0, value]), "F64")
    assert finite(np.array([3e38, -3e38]), "F64")


def test_pickles_are_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are never read"):
        load_checkpoint(folder)


def test_json_that_is_made_to_harm():
    for data, match in (
        (b'{"a":' * 50 + b"1" + b"}" * 50, "nests deeper"),
        (b"[" * 200_000, "nests deeper"),
        (b'{"a": 1, "a": 2}', "comes twice"),
        (b'{"a": "\\ud800"}', "not a JSON file"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not a JSON file"),
        (b"\xff", "not a JSON file"),
        (b"[]", "must hold a JSON object"),
        (b" " * (17 << 20), "bytes of JSON"),
    ):
        with pytest.raises(InputError, match=match):
            parse_json(data, "x.json")
    assert parse_json('{"a": "é"}'.encode("utf-16"), "x.json") == {"a": "é"}


def test_float32_and_odd_headers(folder, tmp_path):
    """Another writer's types and alignment are read as they are."""
    from safetensors.numpy import save

    stored = {n: np.array(a) for n, a in load_checkpoint(folder).weights.items()}
    data = save({n: from_bfloat16(a) for n, a in stored.items()})
    (folder / "model.safetensors").write_bytes(data)
    change(folder / "config.json", dtype="float32")
    again = load_checkpoint(folder).weights
    assert all((to_bfloat16(again[n]) == a).all() for n, a in stored.items())


def test_a_vae_is_called_one(tmp_path):
    """Every verb that wants a language model says so, instead of which files it lacks."""
    (tmp_path / "codec.json").write_text(json.dumps({"codec": {"codec": "vae"}}))
    with pytest.raises(InputError, match="is a VAE, which writes no tokens"):
        load_checkpoint(tmp_path)
