"""A checkpoint as a GGUF file, for llama.cpp and what is built on it.

    OUT/model.gguf       weights and configuration; its tokens are ids with our characters as names
    OUT/tokenizer.json, codec.json …    between ids and files, as in the checkpoint
    OUT/export.json      what made it

llama.cpp turns rotary pairs that are neighbours where transformers' lie half a head apart, so the
rows of q and k move; nothing else does. Weights go tensor by tensor; those of one row (norms,
biases) stay float32, as llama.cpp asks. q8_0 needs rows of a multiple of 32 values: a matrix of
others is stored as float16, and named.

No grammar goes along: a GBNF grammar is of characters and knows no counts, while ours has a state
that is numbers (MCUs left, coefficients left, running DC values, bits of a byte). Give llama.cpp
ids for prompts, take its ids, and either check files afterwards or mask its logits by `Matcher`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm import __version__
from jpeglm.checkpoint import Checkpoint, from_bfloat16
from jpeglm.config import InputError
from jpeglm.files import atomic_folder, atomic_write, write_json
from jpeglm.folders import GGUF, claim
from jpeglm.models.llama import rope_base

__all__ = ["FORMATS", "Exported", "export_gguf"]

FORMATS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "q8_0": "Q8_0"}
"""Of the matrices, by gguf's names of types."""
FILE = "model.gguf"


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    file: Path
    bytes: int
    float16: list[str]
    """Matrices that q8_0 cannot hold."""


def export_gguf(checkpoint: Checkpoint, out: Path, dtype: str = "bfloat16") -> Exported:
    """Write the folder `out`, whole or not at all; dtype: one of `FORMATS`."""
    import gguf

    if dtype not in FORMATS:
        raise InputError(f"dtype is {dtype!r}; GGUF takes {', '.join(FORMATS)}")
    claim(out, GGUF, inputs=[checkpoint.folder])
    kind = gguf.GGMLQuantizationType[FORMATS[dtype]]
    tensors, others = list(_planned(checkpoint, kind)), []
    with atomic_folder(out, GGUF.names) as draft:
        writer = gguf.GGUFWriter(draft / FILE, "llama")
        _describe(writer, checkpoint, dtype)
        for name, target, own in tensors:
            shape = _shape(checkpoint, name)
            if own != kind and len(shape) > 1:
                others.append(target)
            size = int(np.prod(shape))
            block, width = gguf.GGML_QUANT_SIZES[own]
            writer.add_tensor_info(target, shape, np.dtype(np.float32), size // block * width, own)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        weights = checkpoint.weights
        for name, _, own in tensors:
            writer.write_tensor_data(_stored(checkpoint, name, weights[name], own))
        writer.close()
        checkpoint.tokenizer.save(draft)
        card = checkpoint.folder / "README.md"
        if card.exists():
            atomic_write(draft / card.name, card.read_bytes())
        record = {"format": "jpeglm-export", "to": "gguf", "dtype": dtype, "version": __version__}
        write_json(draft / GGUF.record, {**record, "float16": others})
    return Exported(out / FILE, (out / FILE).stat().st_size, others)


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in checkpoint.weights[name].shape)


def _planned(checkpoint: Checkpoint, kind: Any) -> Iterator[tuple[str, str, Any]]:
    """(name, llama.cpp's name, type) of each tensor."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    layers = checkpoint.config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for name in checkpoint.weights:
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        shape = _shape(checkpoint, name)
        own = kind if len(shape) > 1 else kinds.F32
        if own == kinds.Q8_0 and shape[-1] % gguf.GGML_QUANT_SIZES[own][0]:
            own = kinds.F16
        yield name, target, own


def _stored(checkpoint: Checkpoint, name: str, array: np.ndarray, kind: Any) -> np.ndarray:
    import gguf

    if array.dtype == np.uint16:
        values = from_bfloat16(array)
    else:
        values = np.ascontiguousarray(array, np.float32)
    config = checkpoint.config
    heads = config["num_attention_heads"]
    if ".q_proj." in name:
        values = paired(values, heads)
    elif ".k_proj." in name:
        values = paired(values, config.get("num_key_value_heads") or heads)
    if kind == gguf.GGMLQuantizationType.F16 and np.abs(values).max() > np.finfo(np.float16).max:
        raise InputError(
            f"{name} of {checkpoint.folder} has values beyond float16; export it as bfloat16"
        )
    stored: np.ndarray = np.ascontiguousarray(gguf.quants.quantize(values, kind))
    return stored


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads · size, …] with the two of a rotary pair beside each other."""
    split = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows.shape)


def _describe(writer: Any, checkpoint: Checkpoint, dtype: str) -> None:
    """The file's keys: the model's shape, and a vocabulary of names."""
    import gguf

    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head = config.get("head_dim") or width // heads
    writer.add_name(checkpoint.folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope_base(config))
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_vocab_size(tokenizer.vocab_size)
    writer.add_file_type(
        {
            "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
            "float16": gguf.LlamaFileType.MOSTLY_F16,
            "float32": gguf.LlamaFileType.ALL_F32,
            "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        }[dtype]
    )
    names, kinds = _names(checkpoint)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(names)
    writer.add_token_scores([-float(place) for place in range(len(names))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_string("jpeglm.codec", json.dumps(tokenizer.codec.to_dict()))
    writer.add_string("jpeglm.alphabet", tokenizer.alphabet.name)


def _names(checkpoint: Checkpoint) -> tuple[list[str], list[int]]:
    """(name, type) of each id, as tokenizer.json has them."""
    import gguf

    stored = checkpoint.tokenizer.to_hugging_face()
    special = {token["id"]: token["content"] for token in stored["added_tokens"]}
    names = {token: name for name, token in stored["model"]["vocab"].items()} | special
    kinds = [
        int(gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL)
        for token in range(len(names))
    ]
    return [names[token] for token in range(len(names))], kinds
