"""llama.cpp's server inside this process, by xllamacpp's wheel, q8_0 weights.

Sequences of a batch are parallel slots, which it decodes together (continuous batching).
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

from jpeglm.checkpoint import load_checkpoint
from jpeglm.environment import cores

SLOTS = 16
NAME = "llama.cpp"
PRECISIONS = ("q8_0",)
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def open(folder: Path, work: Path, precision: str) -> Callable[[int, int], None]:
    path = work / "model.gguf"
    _convert(folder, path)
    settings = json.loads((folder / "generation_config.json").read_text())
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel = 1024 * SLOTS, SLOTS
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = cores()
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    threads = ThreadPoolExecutor(SLOTS)

    def one(tokens: int) -> None:
        asked = {
            "prompt": [settings["bos_token_id"]], "n_predict": tokens, "ignore_eos": True,
            "temperature": 1.0, "top_k": 40, "top_p": 0.9, "min_p": 0.0, "cache_prompt": False,
        }  # fmt: skip
        found = server.handle_completions(asked)
        if found["usage"]["completion_tokens"] != tokens:
            raise RuntimeError(f"llama.cpp gave {found['usage']}")

    return lambda batch, tokens: list(threads.map(one, [tokens] * batch)) and None


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as ggml's rotary embedding pairs them: neighbours instead of halves."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def _convert(folder: Path, path: Path) -> None:
    checkpoint = load_checkpoint(folder)
    shape = checkpoint.config
    out = gguf.GGUFWriter(str(path), "llama")
    heads = shape["num_attention_heads"]
    out.add_context_length(shape["max_position_embeddings"])
    out.add_embedding_length(shape["hidden_size"])
    out.add_block_count(shape["num_hidden_layers"])
    out.add_feed_forward_length(shape["intermediate_size"])
    out.add_head_count(heads)
    out.add_head_count_kv(shape["num_key_value_heads"])
    out.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    out.add_rope_dimension_count(shape["hidden_size"] // heads)
    out.add_vocab_size(shape["vocab_size"])
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    out.add_tokenizer_model("llama")
    out.add_token_list([f"<{i}>".encode() for i in range(shape["vocab_size"])])
    out.add_token_scores([0.0] * shape["vocab_size"])
    out.add_token_types([gguf.TokenType.NORMAL] * shape["vocab_size"])
    out.add_bos_token_id(checkpoint.tokenizer.bos)
    out.add_eos_token_id(checkpoint.tokenizer.eos)
    for name, stored in checkpoint.weights.items():
        weight = np.ascontiguousarray(stored, np.float32)
        if name == "model.embed_tokens.weight":
            target = "token_embd"
        elif name == "model.norm.weight":
            target = "output_norm"
        elif name == "lm_head.weight":
            target = "output"
        else:
            _, _, layer, part = name.split(".", 3)
            target = f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}"
        if target.endswith(("attn_q", "attn_k")):
            weight = _permuted(weight, heads)
        kind = gguf.GGMLQuantizationType.F32
        if weight.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            weight = gguf.quants.quantize(weight, kind)
        out.add_tensor(f"{target}.weight", weight, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
