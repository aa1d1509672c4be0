"""A checkpoint's weights as the CPU engine's kernels take them: checked, stacked, in panels."""

from __future__ import annotations

from typing import Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.generation.forward import Matrix, Shape, Weights
from jpeglm.generation.matmul import store
from jpeglm.generation.rotary import rotary_tables
from jpeglm.models.llama import rope_base

PRECISIONS = ("float32", "bfloat16", "int8")


def shape_of(config: dict[str, Any], tokens: int, positions: int) -> Shape:
    """Of Hugging Face's Llama configuration."""
    heads = int(config["num_attention_heads"])
    return Shape(
        int(config["hidden_size"]),
        heads,
        int(config.get("num_key_value_heads") or heads),
        int(config.get("head_dim") or config["hidden_size"] // heads),
        int(config["intermediate_size"]),
        int(config["vocab_size"]),
        tokens,
        positions,
    )


def load_weights(
    config: dict[str, Any], weights: dict[str, np.ndarray], shape: Shape, precision: str
) -> Weights:
    """weights: Hugging Face's names → float32, or bfloat16 as uint16 bits."""
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    _refuse_unknown(config, weights)
    width, heads, kv_heads, head, inner, vocabulary, _, positions = shape
    layers = range(int(config["num_hidden_layers"]))

    def get(name: str, *shape: int) -> np.ndarray:
        if name not in weights:
            raise InputError(f"the checkpoint's model.safetensors lacks {name}")
        if weights[name].shape != shape:
            raise InputError(
                f"{name} in the checkpoint's model.safetensors is {weights[name].shape}; "
                f"by its config.json it must be {shape}"
            )
        return _as_float32(weights[name])

    def stack(columns: int, **rows: int) -> Matrix:
        """One kind of matrix of all layers, those of `rows` below each other."""
        room = "mlp" if "gate" in rows or "down" in rows else "self_attn"
        panels, scales = [], []
        for i in layers:
            prefix = f"model.layers.{i}.{room}."
            parts = [get(f"{prefix}{k}_proj.weight", n, columns) for k, n in rows.items()]
            stored, scale = store(np.concatenate(parts), precision)
            panels.append(stored)
            scales.append(scale)
        return Matrix(np.stack(panels), np.stack(scales))

    embedding = get("model.embed_tokens.weight", vocabulary, width)
    tied = config.get("tie_word_embeddings", False)
    final, scale = store(embedding if tied else get("lm_head.weight", vocabulary, width), precision)
    norms = [
        get(f"model.layers.{i}.{kind}_layernorm.weight", width)
        for i in layers
        for kind in ("input", "post_attention")
    ]
    norms.append(get("model.norm.weight", width))
    cos, sin = rotary_tables(rope_base(config), head, positions)
    return Weights(
        embedding,
        stack(width, q=heads * head, k=kv_heads * head, v=kv_heads * head),
        stack(heads * head, o=width),
        stack(width, gate=inner, up=inner),
        stack(inner, down=width),
        Matrix(final[None], scale[None]),
        np.stack(norms),
        cos,
        sin,
        np.float32(config.get("rms_norm_eps", 1e-6)),
    )


def _as_float32(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array, np.float32)


def _refuse_unknown(config: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
    if config.get("model_type", "llama") != "llama":
        raise InputError(f"the cpu engine runs Llama models only, not {config['model_type']!r}")
    if config.get("hidden_act", "silu") != "silu":
        raise InputError(f"the cpu engine runs silu models only, not {config['hidden_act']!r}")
    if (
        config.get("attention_bias")
        or config.get("mlp_bias")
        or any(name.endswith(".bias") for name in weights)
    ):
        raise InputError("the cpu engine runs models without biases only")
