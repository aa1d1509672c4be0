"""Llama on a CPU without torch: numba kernels over float32, bfloat16 or int8 weights.

One call computes all layers for a group of tokens. Each row of a weight matrix is expanded to
float32 once and used for every token of the group, in one dot product whose order of summation
never changes: a sequence gives the same logits, to the bit, in any batch, and a prompt the same
whether it is prefilled or fed token by token. Several sequences are spread over threads, each
thread walking the whole model for its share, so that nothing waits at a barrier inside a token.

int8 weights have one float32 scale a row and are made at load; activations stay float32.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.kernels import COMPILED, njit

PRECISIONS = ("float32", "bfloat16", "int8")
PREFILL = 64
"""Tokens of a prompt computed together."""
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@njit(cache=True, fastmath=_FAST, nogil=True)
def _dot(a, b):
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@njit(cache=True, nogil=True)
def _expand(row, bits, values):
    """A stored row as float32 in `values`; `bits` is a uint32 view of it."""
    if row.itemsize == 2:
        for i in range(len(row)):
            bits[i] = np.uint32(row[i]) << np.uint32(16)
    else:
        for i in range(len(row)):
            values[i] = np.float32(row[i])


@njit(cache=True, nogil=True)
def _linear(x, weight, scale, out, bits, values):
    """out[n, r] = scale[r] · Σ weight[r, i] x[n, i]; x [N, d], weight [rows, d]."""
    width = weight.shape[1]
    row_bits, row_values = bits[:width], values[:width]
    for r in range(weight.shape[0]):
        _expand(weight[r], row_bits, row_values)
        for n in range(x.shape[0]):
            out[n, r] = _dot(x[n], row_values) * scale[r]


@njit(cache=True, fastmath=_FAST, nogil=True)
def _rms_norm(x, gain, eps, out):
    for n in range(x.shape[0]):
        total = np.float32(0)
        for i in range(x.shape[1]):
            total += x[n, i] * x[n, i]
        factor = np.float32(1) / np.sqrt(total / np.float32(x.shape[1]) + eps)
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] * factor * gain[i]


@njit(cache=True, fastmath=_FAST, nogil=True)
def _rotate(vector, cos, sin):
    """Rotary embedding of one head, halves paired as Hugging Face does (Su et al. 2021)."""
    half = len(vector) // 2
    for i in range(half):
        a, b = vector[i], vector[i + half]
        vector[i] = a * cos[i] - b * sin[i]
        vector[i + half] = b * cos[i] + a * sin[i]


@njit(cache=True, fastmath=_FAST, nogil=True)
def _attend(query, keys, values, length, scale, weight, out):
    """One head of one token over `length` positions; keys, values [T, head]."""
    peak = np.float32(-np.inf)
    for t in range(length):
        weight[t] = _dot(query, keys[t]) * scale
        peak = max(peak, weight[t])
    total = np.float32(0)
    for t in range(length):
        weight[t] = np.exp(weight[t] - peak)
        total += weight[t]
    out[:] = np.float32(0)
    for t in range(length):
        share = weight[t] / total
        for i in range(len(out)):
            out[i] += share * values[t, i]


@njit(cache=True, fastmath=_FAST, nogil=True)
def _gate(both, out):
    """SwiGLU: silu(gate) · up; both [N, 2f] holds gate, then up."""
    inner = out.shape[1]
    for n in range(out.shape[0]):
        for i in range(inner):
            gate = both[n, i]
            out[n, i] = gate / (np.float32(1) + np.exp(-gate)) * both[n, inner + i]


@njit(cache=True, nogil=True)
def _forward(
    ids, slots, places, first_logit, shape, eps, layers, scales, norms, rope, cache, logits
):
    """All layers for N tokens; logits of tokens first_logit.. go to logits [N - first_logit, V].

    ids, slots, places: token, cache slot and position of each token. layers: (embedding, qkv,
    output, gate and up, down, head). cache: (K, V), float32 [L, slots, KV heads, T, head].
    """
    heads, kv_heads, head = shape
    embedding, qkv, output, gate_up, down, final = layers
    scale_embedding, scale_qkv, scale_output, scale_gate_up, scale_down, scale_final = scales
    cos, sin = rope
    keys, values = cache
    n_tokens, width = len(ids), embedding.shape[1]
    inner = down.shape[2]
    widest = max(width, inner, heads * head)
    buffer = np.empty(widest, np.float32)
    bits = buffer.view(np.uint32)
    x = np.empty((n_tokens, width), np.float32)
    for n in range(n_tokens):
        _expand(embedding[ids[n]], bits[:width], buffer[:width])
        x[n] = buffer[:width] * scale_embedding[ids[n]]
    normed = np.empty((n_tokens, width), np.float32)
    mixed = np.empty((n_tokens, (heads + 2 * kv_heads) * head), np.float32)
    attended = np.empty((n_tokens, heads * head), np.float32)
    added = np.empty((n_tokens, width), np.float32)
    both = np.empty((n_tokens, 2 * inner), np.float32)
    gated = np.empty((n_tokens, inner), np.float32)
    weight = np.empty(places.max() + 1, np.float32)
    factor = np.float32(1.0 / np.sqrt(head))
    group = heads // kv_heads
    for layer in range(qkv.shape[0]):
        _rms_norm(x, norms[2 * layer], eps, normed)
        _linear(normed, qkv[layer], scale_qkv[layer], mixed, bits, buffer)
        for n in range(n_tokens):
            place, slot = places[n], slots[n]
            for h in range(heads + kv_heads):
                _rotate(mixed[n, h * head : (h + 1) * head], cos[place], sin[place])
            for h in range(kv_heads):
                k = (heads + h) * head
                v = (heads + kv_heads + h) * head
                keys[layer, slot, h, place] = mixed[n, k : k + head]
                values[layer, slot, h, place] = mixed[n, v : v + head]
        for n in range(n_tokens):
            for h in range(heads):
                _attend(
                    mixed[n, h * head : (h + 1) * head],
                    keys[layer, slots[n], h // group],
                    values[layer, slots[n], h // group],
                    places[n] + 1,
                    factor,
                    weight,
                    attended[n, h * head : (h + 1) * head],
                )
        _linear(attended, output[layer], scale_output[layer], added, bits, buffer)
        x += added
        _rms_norm(x, norms[2 * layer + 1], eps, normed)
        _linear(normed, gate_up[layer], scale_gate_up[layer], both, bits, buffer)
        _gate(both, gated)
        _linear(gated, down[layer], scale_down[layer], added, bits, buffer)
        x += added
    if first_logit < n_tokens:
        _rms_norm(x, norms[2 * qkv.shape[0]], eps, normed)
        _linear(normed[first_logit:], final, scale_final, logits, bits, buffer)


def compiled() -> bool:
    """Whether the kernels lie compiled in numba's cache, so that the first call is quick."""
    if not COMPILED:
        return True
    cache = Path(_forward.stats.cache_path or ".")
    return any(cache.glob("engine_cpu._forward-*.nbc"))


def _as_float32(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array, np.float32)


def _store(array: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """(stored weights, float32 scale of each row) of a float32 array [..., rows, width]."""
    ones = np.ones(array.shape[:-1], np.float32)
    if precision == "float32":
        return np.ascontiguousarray(array), ones
    if precision == "bfloat16":
        bits = np.ascontiguousarray(array).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16), ones
    scale = np.maximum(np.abs(array).max(axis=-1), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(array / scale[..., None]).astype(np.int8), scale


def _rope_base(config: dict[str, Any]) -> float:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InputError(f"the cpu engine runs default rotary positions only, not {kind!r}")
    return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


class CpuEngine:
    """A Llama model on the CPU; `engine.Engine` tells what its methods do.

    config: Hugging Face's Llama configuration; weights: its names → float32, or bfloat16 as uint16
    bits; precision: how weights are held; threads: for several sequences, default all cores.
    """

    def __init__(
        self,
        config: dict[str, Any],
        weights: dict[str, np.ndarray],
        precision: str = "float32",
        max_length: int | None = None,
        threads: int | None = None,
    ) -> None:
        if not COMPILED:
            raise InputError("the cpu engine needs numba; run: pip install numba")
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
        if config.get("hidden_act", "silu") != "silu":
            raise InputError(f"the cpu engine runs silu models only, not {config['hidden_act']!r}")
        if config.get("attention_bias") or config.get("mlp_bias"):
            raise InputError("the cpu engine runs models without biases only")
        self.precision = precision
        self.vocab_size = int(config["vocab_size"])
        self.max_length = int(max_length or config["max_position_embeddings"])
        heads = int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head = int(config.get("head_dim") or config["hidden_size"] // heads)
        self._shape = (heads, kv_heads, head)
        self._n_layers = int(config["num_hidden_layers"])
        self._eps = np.float32(config.get("rms_norm_eps", 1e-6))
        self._load(weights, bool(config.get("tie_word_embeddings")))
        inverse = _rope_base(config) ** (-np.arange(0, head, 2, dtype=np.float32) / head)
        angles = np.arange(self.max_length, dtype=np.float32)[:, None] * inverse.astype(np.float32)
        self._rope = (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._cache: tuple[np.ndarray, np.ndarray] | None = None
        self._slots = np.zeros(0, np.int64)
        self._lengths = np.zeros(0, np.int64)

    def _load(self, weights: dict[str, np.ndarray], tied: bool) -> None:
        def get(name: str) -> np.ndarray:
            if name not in weights:
                raise InputError(f"the checkpoint's model.safetensors lacks {name}")
            return _as_float32(weights[name])

        def stack(*names: str) -> np.ndarray:
            layers = (f"model.layers.{i}." for i in range(self._n_layers))
            return np.stack(
                [np.concatenate([get(f"{p}{name}.weight") for name in names]) for p in layers]
            )

        attention, mlp = "self_attn", "mlp"
        embedding = get("model.embed_tokens.weight")
        parts = [
            embedding,
            stack(f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"),
            stack(f"{attention}.o_proj"),
            stack(f"{mlp}.gate_proj", f"{mlp}.up_proj"),
            stack(f"{mlp}.down_proj"),
        ]
        stored = [_store(part, self.precision) for part in parts]
        untied = not tied and "lm_head.weight" in weights
        stored.append(_store(get("lm_head.weight"), self.precision) if untied else stored[0])
        self._weights = tuple(weight for weight, _ in stored)
        self._scales = tuple(scale for _, scale in stored)
        norms = []
        for i in range(self._n_layers):
            norms.append(get(f"model.layers.{i}.input_layernorm.weight"))
            norms.append(get(f"model.layers.{i}.post_attention_layernorm.weight"))
        self._norms = np.stack([*norms, get("model.norm.weight")])

    @property
    def weight_bytes(self) -> int:
        """Bytes that a step reads of the weights (a tied head is counted once)."""
        return sum(weight.nbytes for weight in self._weights[1:])

    def _room(self, slots: int, length: int, fresh: bool) -> tuple[np.ndarray, np.ndarray]:
        """A cache for so many slots and positions; doubled when it grows, kept unless `fresh`."""
        _, kv_heads, head = self._shape
        old = None if fresh else self._cache
        if self._cache is not None:
            have = self._cache[0].shape
            if have[1] >= slots and have[3] >= length:
                return self._cache
            slots = slots if fresh else max(slots, have[1])
        capacity = min(self.max_length, max(256, 1 << (length - 1).bit_length()))
        shape = (self._n_layers, slots, kv_heads, capacity, head)
        new = (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        if old is not None:
            for target, source in zip(new, old):
                target[:, : source.shape[1], :, : source.shape[3]] = source
        self._cache = new
        return new

    def _compute(
        self, ids: np.ndarray, slots: np.ndarray, places: np.ndarray, first: int, out: np.ndarray
    ) -> None:
        assert self._cache is not None
        _forward(
            ids,
            slots,
            places,
            first,
            self._shape,
            self._eps,
            self._weights,
            self._scales,
            self._norms,
            self._rope,
            self._cache,
            out,
        )

    def start(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        assert len(prompts) and lengths.min() > 0
        if lengths.max() > self.max_length:
            raise InputError(
                f"the prompt has {lengths.max()} tokens, the model's context {self.max_length}"
            )
        self._slots = np.arange(len(prompts))
        self._lengths = lengths
        keys, values = self._room(len(prompts), int(lengths.max()), fresh=True)
        logits = np.empty((len(prompts), self.vocab_size), np.float32)
        seen: dict[bytes, int] = {}
        for slot, prompt in enumerate(prompts):
            ids = np.ascontiguousarray(prompt, np.int64)
            twin = seen.setdefault(ids.tobytes(), slot)
            if twin != slot:
                keys[:, slot, :, : len(ids)] = keys[:, twin, :, : len(ids)]
                values[:, slot, :, : len(ids)] = values[:, twin, :, : len(ids)]
                logits[slot] = logits[twin]
                continue
            for begin in range(0, len(ids), PREFILL):
                part = ids[begin : begin + PREFILL]
                last = begin + len(part) == len(ids)
                self._compute(
                    part,
                    np.full(len(part), slot, np.int64),
                    np.arange(begin, begin + len(part)),
                    len(part) - 1 if last else len(part),
                    logits[slot : slot + 1],
                )
        return logits

    def step(self, ids: np.ndarray) -> np.ndarray:
        ids = np.ascontiguousarray(ids, np.int64)
        assert len(ids) == len(self._slots)
        if self._lengths.max() >= self.max_length:
            raise InputError(f"a sequence is longer than the model's context, {self.max_length}")
        slots = int(self._slots.max()) + 1
        self._room(slots, int(self._lengths.max()) + 1, fresh=False)
        logits = np.empty((len(ids), self.vocab_size), np.float32)
        parts = min(self._threads, len(ids))
        if self._pool is None or parts == 1:
            self._compute(ids, self._slots, self._lengths, 0, logits)
        else:
            bounds = np.linspace(0, len(ids), parts + 1).astype(int)
            jobs = [
                self._pool.submit(
                    self._compute, ids[a:b], self._slots[a:b], self._lengths[a:b], 0, logits[a:b]
                )
                for a, b in pairwise(bounds)
            ]
            for job in jobs:
                job.result()
        self._lengths += 1
        return logits

    def keep(self, rows: np.ndarray) -> None:
        self._slots = self._slots[rows]
        self._lengths = self._lengths[rows]
