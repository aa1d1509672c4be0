"""GGUF files read by llama.cpp itself: its logits beside ours."""

import json

import numpy as np
import pytest

from jpeglm.checkpoint import load_checkpoint, write_checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.tokenizer import Tokenizer
from tests.unit.conftest import begin, hugging_face, random_llama, with_biases

gguf = pytest.importorskip("gguf")

from jpeglm.integrations.gguf import FORMATS, export_gguf, paired  # noqa: E402

CODEC = JpegCodec(JpegConfig(48, 32))
SHAPES = {
    "grouped heads": {},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 16},
    "another base": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "biases": {"attention_bias": True, "mlp_bias": True},
}
TOLERANCE = {"float32": 2e-4, "float16": 4e-2, "bfloat16": 0.15, "q8_0": 0.8}
"""Of log-probabilities down to 8 nats below the highest: llama.cpp rounds activations too, to the
weights' type (q8_0's are 8-bit)."""


def checkpoint(folder, pictures, dtype="float32", **changes):
    """A checkpoint of random weights, of widths that q8_0 can hold."""
    tokenizer = Tokenizer.train([CODEC.encode(p) for p in pictures], CODEC, "jpeg-symbols", 300)
    config, weights = random_llama(
        tokenizer.vocab_size, 128, intermediate_size=64, **{"head_dim": 8, **changes}
    )
    weights = with_biases(config, weights)
    write_checkpoint(folder, weights, config, tokenizer, "# card\n", dtype=dtype)
    return load_checkpoint(folder)


def llama_cpp(file, prompts, size):
    """float64 [prompts, V]: log-probabilities of what follows, by llama.cpp's own server."""
    xllamacpp = pytest.importorskip("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel = 256, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.verbosity = -1
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    # Its fused attention takes keys and values in float16 whatever the cache's type is.
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    rows = []
    for ids in prompts:
        asked = {
            "prompt": list(map(int, ids)), "n_predict": 1, "temperature": 0.0, "n_probs": size,
            "cache_prompt": False, "ignore_eos": False, "add_special": False,
        }  # fmt: skip
        found = server.handle_completions(asked)
        (step,) = probabilities(found)
        row = np.full(size, np.nan)
        for entry in step:
            row[entry["id"]] = entry["logprob"]
        rows.append(row)
    return np.array(rows)


def probabilities(found):
    """Of each token drawn, those of all tokens, wherever this release of the server has them."""
    for choice in (found, *(found.get("choices") or [])):
        for place in ("completion_probabilities", "logprobs"):
            steps = choice.get(place)
            steps = steps.get("content") if isinstance(steps, dict) else steps
            if steps:
                return [step.get("top_logprobs") or step["top_probs"] for step in steps]
    raise AssertionError(f"no probabilities in {json.dumps(found)[:300]}")


def ours(found, prompts):
    """The same by our engine; of models with biases, which it does not run, by transformers."""
    weights = {name: np.asarray(array, np.float32) for name, array in found.weights.items()}
    if any(name.endswith(".bias") for name in weights):
        torch = pytest.importorskip("torch")
        model = hugging_face(found.config, weights)
        with torch.no_grad():
            rows = [model(torch.from_numpy(ids)[None]).logits[0, -1].numpy() for ids in prompts]
        logits = np.array(rows, np.float64)
    else:
        logits = begin(CpuEngine(found.config, weights), prompts).astype(np.float64)
    below = logits - logits.max(1, keepdims=True)
    return below - np.log(np.exp(below).sum(1, keepdims=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", FORMATS)
def test_logits_are_llama_cpp_s(shape, dtype, pictures, tmp_path):
    found = checkpoint(tmp_path / "model", pictures, **SHAPES[shape])
    tokenizer = found.tokenizer
    made = export_gguf(found, tmp_path / "out", dtype)
    assert made.float16 == []
    rng = np.random.default_rng(2)
    prompts = [np.append(tokenizer.bos, rng.integers(0, tokenizer.bos, n)) for n in (3, 17, 40)]
    theirs = llama_cpp(made.file, prompts, tokenizer.vocab_size)
    known = ours(found, prompts)
    likely = known > known.max(1, keepdims=True) - 8
    assert np.isfinite(theirs[likely]).all()
    worst = np.abs(theirs - known)[likely].max()
    assert worst < TOLERANCE[dtype], worst


@pytest.mark.parametrize("dtype", FORMATS)
def test_bfloat16_is_stored_as_it_is(dtype, pictures, tmp_path):
    """Read by gguf's own reader; q and k in llama.cpp's order."""
    found = checkpoint(tmp_path / "model", pictures, dtype="bfloat16")
    made = export_gguf(found, tmp_path / "out", dtype)
    reader = gguf.GGUFReader(made.file)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert len(stored) == len(found.weights)
    tensor = stored["blk.1.ffn_down.weight"]
    assert tensor.tensor_type.name == FORMATS[dtype]
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    bits = found.weights["model.layers.1.mlp.down_proj.weight"]
    known = (bits.astype(np.uint32) << 16).view(np.float32)
    if dtype == "q8_0":
        assert 0 < np.abs(values - known).max() < 0.01
    else:
        lost = 1e-7 if dtype == "float16" else 0  # below what it has a normal number for
        assert np.abs(values - known).max() <= lost
    norm = stored["blk.0.attn_norm.weight"]
    assert norm.tensor_type.name == "F32"
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert keys["llama.rope.freq_base"] == 10000.0
    assert keys["tokenizer.ggml.bos_token_id"] == found.tokenizer.bos
    assert json.loads(keys["jpeglm.codec"]) == CODEC.to_dict()
    names = keys["tokenizer.ggml.tokens"]
    assert len(set(names)) == len(names) == found.tokenizer.vocab_size
    assert Tokenizer.load(tmp_path / "out").fingerprint == found.tokenizer.fingerprint


def test_pairs_are_neighbours():
    """A head of four: halves (0, 1), (2, 3) become pairs (0, 2), (1, 3)."""
    rows = np.arange(8)[:, None].astype(np.float32)
    assert paired(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_rows_that_q8_0_cannot_hold(pictures, tmp_path):
    tokenizer = Tokenizer.train([CODEC.encode(p) for p in pictures], CODEC, "jpeg-symbols", 300)
    config, weights = random_llama(tokenizer.vocab_size, 128)  # 48 inside
    write_checkpoint(tmp_path / "model", weights, config, tokenizer, "", dtype="float32")
    found = load_checkpoint(tmp_path / "model")
    made = export_gguf(found, tmp_path / "out", "q8_0")
    assert made.float16 == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    prompts = [np.array([tokenizer.bos, 3, 9])]
    theirs, known = llama_cpp(made.file, prompts, tokenizer.vocab_size), ours(found, prompts)
    likely = known > known.max(1, keepdims=True) - 8
    assert np.abs(theirs - known)[likely].max() < TOLERANCE["q8_0"]


def test_values_beyond_float16(pictures, tmp_path):
    tokenizer = Tokenizer.train([CODEC.encode(p) for p in pictures], CODEC, "jpeg-symbols", 300)
    config, weights = random_llama(tokenizer.vocab_size, 128)
    weights["lm_head.weight"][3, 3] = 1e5
    write_checkpoint(tmp_path / "model", weights, config, tokenizer, "# card\n")
    with pytest.raises(InputError, match="beyond float16"):
        export_gguf(load_checkpoint(tmp_path / "model"), tmp_path / "out", "float16")
    assert not (tmp_path / "out").exists()


def test_the_command(jpeglm, tmp_path):
    words = ("export", "--checkpoint", "photos", "--out", "out", "--to", "gguf")
    told = jpeglm.told(*words, cwd=tmp_path)
    assert told["bytes"] == (tmp_path / "out" / "model.gguf").stat().st_size
    jpeglm.told(*words, "--dtype", "q8_0", cwd=tmp_path)  # its own it replaces
    assert (tmp_path / "out" / "model.gguf").stat().st_size < told["bytes"]
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "mine.txt" in jpeglm(*words, cwd=tmp_path).err
    assert "int4" in jpeglm(*words[:-4], "--out", "b", "--to", "gguf", "--dtype", "int4").err
    assert "--samples" in jpeglm(*words, "--samples", 2, cwd=tmp_path).err
