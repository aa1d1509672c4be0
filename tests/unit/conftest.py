"""Small real models: random weights, every other part as in use; waiting for what comes about."""

import time

import numpy as np
import pytest

from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.masks import WALK, advance, token_mask
from jpeglm.tokenizer import Tokenizer


def until(happens, seconds=60):
    """Wait until `happens()`; a test fails where that takes longer."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.005)


def random_llama(vocab_size, max_length, seed=0, **changes):
    """(config, weights) of a small Llama with clearly non-uniform output."""
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "vocab_size": vocab_size,
        "max_position_embeddings": max_length,
        "tie_word_embeddings": False,
        **changes,
    }
    rng = np.random.default_rng(seed)
    d, f, hd = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * hd, config["num_key_value_heads"] * hd

    def matrix(*shape):
        return rng.normal(0, 0.25, shape).astype(np.float32)

    def gain():
        return rng.uniform(0.7, 1.3, d).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(vocab_size, d), "model.norm.weight": gain()}
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        weights |= {
            p + "input_layernorm.weight": gain(),
            p + "post_attention_layernorm.weight": gain(),
            p + "self_attn.q_proj.weight": matrix(q, d),
            p + "self_attn.k_proj.weight": matrix(kv, d),
            p + "self_attn.v_proj.weight": matrix(kv, d),
            p + "self_attn.o_proj.weight": matrix(d, q),
            p + "mlp.gate_proj.weight": matrix(f, d),
            p + "mlp.up_proj.weight": matrix(f, d),
            p + "mlp.down_proj.weight": matrix(d, f),
        }
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(vocab_size, d)
    return config, weights


def with_biases(config, weights, seed=9):
    """Random biases beside all matrices of the layers that the config has them for."""
    rng = np.random.default_rng(seed)
    rooms = [room for room in ("attention", "mlp") if config.get(f"{room}_bias")]
    kinds = tuple({"attention": ".self_attn.", "mlp": ".mlp."}[room] for room in rooms)
    return weights | {
        name.replace(".weight", ".bias"): rng.normal(0, 0.3, len(array)).astype(np.float32)
        for name, array in weights.items()
        if any(kind in name for kind in kinds)
    }


def hugging_face(config, weights):
    """transformers' Llama with these weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return model


def begin(engine, prompts):
    """Float32 logits of these sequences, and of no others."""
    engine.remove(np.arange(engine.sequences))
    return engine.add(prompts)


def keep(engine, rows):
    """Go on with these sequences alone; rows in ascending order."""
    engine.remove(np.setdiff1d(np.arange(engine.sequences), rows))


NOTHING = np.zeros(0, np.int32), np.zeros((0, 0), np.int64)
"""Symbols that are forced, and spans of a hole."""


def mask_at(constraint, state, left=1 << 30):
    """bool [vocabulary]: the tokens that may come next at a grammar's state, `left` at most."""
    walk = np.zeros(1, WALK)
    walk["left"] = left
    own = constraint
    row = token_mask(own.spec, state, walk[0], *NOTHING, own.vocabulary, own.masks)
    return own.masks.legal[row].copy()


def take(constraint, state, token):
    """Move a grammar's state on by a legal token."""
    walk = np.zeros(1, WALK)
    advance(constraint.spec, state, walk[0], token, NOTHING[1], constraint.vocabulary)


TOKENIZERS = {
    "symbols": (JpegConfig(48, 32), "jpeg-symbols", 300),
    "symbols-restart": (JpegConfig(48, 32, restart_interval=2), "jpeg-symbols", 300),
    "blocks": (JpegConfig(48, 32, restart_interval=1), "jpeg-block-symbols", 360),
    "placed": (JpegConfig(48, 32), "jpeg-placed-symbols", 420),
    "placed-restart": (JpegConfig(48, 32, restart_interval=4), "jpeg-placed-symbols", 420),
    "coarse": (JpegConfig(48, 32), "jpeg-coarse-symbols", 360),
    "bytes": (JpegConfig(48, 32), "bytes", 320),
    "bytes-restart": (JpegConfig(48, 32, restart_interval=1), "bytes", 320),
    "paper": (JpegConfig(48, 32, restart_interval=1), "paper-bytes", 320),
    "paper-prefixed": (JpegConfig(48, 32, restart_interval=1), "paper-bytes-prefixed", 320),
}


@pytest.fixture(scope="session", params=TOKENIZERS)
def tokenizer(request, pictures):
    config, alphabet, size = TOKENIZERS[request.param]
    codec = JpegCodec(config)
    return Tokenizer.train([codec.encode(p) for p in pictures], codec, alphabet, size)


@pytest.fixture(scope="session")
def engine(tokenizer):
    return CpuEngine(*random_llama(tokenizer.vocab_size, 600))
