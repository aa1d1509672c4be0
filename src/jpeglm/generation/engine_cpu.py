"""Llama on a CPU without torch: numba kernels over float32, bfloat16 or int8 weights.

One call computes all layers for a group of tokens. The products (`generation.tiles`) sum in an
order that depends on nothing else: a sequence gives the same logits, to the bit, in any batch, on
any number of threads, and a prompt the same whether it is prefilled or fed token by token. Weights
that are read serve up to four tokens.

    x [tokens, d] -> norm -> q k v -> rotary -> cache, attention -> output, + x
                  -> norm -> gate, up -> silu(gate) up -> down, + x          (each layer)

Several sequences are spread over threads, each walking the whole model for its share, so that
nothing waits at a barrier inside a token. The price: up to four sequences run on one thread. Two
threads that meet after every matrix (numba's prange, 10M parameters) gained up to 2 times while
both cores were free, but took 130 ms a token instead of 0.4 once another process held one of them.
int8 rounds weights at load (a scale a row) and what they are multiplied with at each product (a
scale a token); the cache of bfloat16 and int8 holds bfloat16, norms and sums stay float32. int8
costs 0.02 to 0.06 % of the bits of a held-out clip or picture (docs/log.md).
Run it: `CpuEngine(checkpoint.config, checkpoint.weights).start([ids])`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.generation.tiles import (
    NARROW,
    PANEL,
    as_stored,
    linear,
    scratch,
    store,
    tile_1,
    tile_narrow,
)
from jpeglm.kernels import COMPILED, exp, highest, kernel, njit

PRECISIONS = ("float32", "bfloat16", "int8")
PREFILL = 64
"""Tokens of a prompt computed together."""
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_ORDERED = {"contract", "nsz"}


@kernel(fastmath=_FAST, nogil=True)
def _rms_norm(x, gain, eps, out):
    for n in range(x.shape[0]):
        total = np.float32(0)
        for i in range(x.shape[1]):
            total += x[n, i] * x[n, i]
        factor = np.float32(1) / np.sqrt(total / np.float32(x.shape[1]) + eps)
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] * factor * gain[i]


@kernel(fastmath=_ORDERED, nogil=True)
def _rotate(vector, cos, sin):
    """Rotary embedding of one head, halves paired as Hugging Face does (Su et al. 2021)."""
    half = len(vector) // 2
    for i in range(half):
        a, b = vector[i], vector[i + half]
        vector[i] = a * cos[i] - b * sin[i]
        vector[i + half] = b * cos[i] + a * sin[i]


@kernel(fastmath=_FAST, nogil=True)
def _attend(query, keys, values, length, scale, weight, out):
    """One head of one token over `length` positions.

    query [1, head], keys in panels [T / 64, head, 64], values [T, head padded], both float32 or
    bfloat16 bits; weight [1, T] and out [1, head padded] scratch and result.
    """
    for p in range((length + PANEL - 1) // PANEL):
        tile_1(query, keys[p], weight[:, p * PANEL :])
    row = weight[0]
    peak = highest(row[:length])
    total = np.float32(0)
    for t in range(length):
        row[t] = exp((row[t] - peak) * scale)
        total += row[t]
    share = np.float32(1) / total
    for t in range(length):
        row[t] *= share
    lane, width = 0, values.shape[1]
    while lane < width:
        if width - lane >= PANEL:
            tile_1(weight[:, :length], values[:, lane:], out[:, lane:])
            lane += PANEL
        else:
            tile_narrow(weight[:, :length], values[:, lane:], out[:, lane:])
            lane += NARROW


@kernel(fastmath=_ORDERED, nogil=True, error_model="numpy")
def _gate(both, out):
    """SwiGLU: silu(gate) · up; both [N, 2f] holds gate, then up.

    Python's model of errors would look for a divisor of 0 in every lane, ten times as slow.
    """
    inner = out.shape[1]
    for n in range(out.shape[0]):
        gate, up, row = both[n, :inner], both[n, inner:], out[n]
        for i in range(inner):
            row[i] = gate[i] / (np.float32(1) + exp(min(-gate[i], np.float32(87)))) * up[i]


@njit(nogil=True)
def _forward(tokens, first_logit, shape, model, cache, logits):
    """All layers for N tokens; logits of tokens first_logit.. go to logits [N - first_logit, V].

    tokens: int64 [3, N], id, cache slot and position of each. shape: (query heads, KV heads, head
    width, feed-forward width). model: (embedding, weights, scales, norms, cos, sin, eps); weights:
    (qkv, output, gate and up, down, head) in panels. cache: (K [L, slots, KV heads, T / 64, head,
    64], V [L, slots, KV heads, T, head padded]).
    """
    heads, kv_heads, head, inner = shape
    embedding, weights, scales, norms, cos, sin, eps = model
    qkv, output, gate_up, down, final = weights
    scale_qkv, scale_output, scale_gate_up, scale_down, scale_final = scales
    keys, values = cache
    ids, slots, places = tokens
    n_tokens, width = len(ids), embedding.shape[1]
    x = np.empty((n_tokens, width), np.float32)
    for n in range(n_tokens):
        assert 0 <= ids[n] < len(embedding)
        x[n] = embedding[ids[n]]
    normed = np.empty((n_tokens, width), np.float32)
    mixed = np.empty((n_tokens, (heads + 2 * kv_heads) * head), np.float32)
    attended = np.empty((n_tokens, heads * head), np.float32)
    added = np.empty((n_tokens, width), np.float32)
    both = np.empty((n_tokens, 2 * inner), np.float32)
    gated = np.empty((n_tokens, inner), np.float32)
    space = scratch(n_tokens, max(width, heads * head, inner))
    weight = np.empty((1, keys.shape[3] * PANEL), np.float32)
    mean = np.empty((1, values.shape[4]), np.float32)
    factor = np.float32(1.0 / np.sqrt(head))
    group = heads // kv_heads
    for layer in range(qkv.shape[0]):
        _rms_norm(x, norms[2 * layer], eps, normed)
        linear(normed, qkv[layer], scale_qkv[layer], space, mixed)
        for n in range(n_tokens):
            place, slot = places[n], slots[n]
            for h in range(heads + kv_heads):
                _rotate(mixed[n, h * head : (h + 1) * head], cos[place], sin[place])
            for h in range(kv_heads):
                k = (heads + h) * head
                v = (heads + kv_heads + h) * head
                for i in range(head):
                    keys[layer, slot, h, place // PANEL, i, place % PANEL] = as_stored(
                        mixed[n, k + i], keys
                    )
                    values[layer, slot, h, place, i] = as_stored(mixed[n, v + i], values)
        for n in range(n_tokens):
            for h in range(heads):
                _attend(
                    mixed[n : n + 1, h * head : (h + 1) * head],
                    keys[layer, slots[n], h // group],
                    values[layer, slots[n], h // group],
                    places[n] + 1,
                    factor,
                    weight,
                    mean,
                )
                for i in range(head):
                    attended[n, h * head + i] = mean[0, i]
        linear(attended, output[layer], scale_output[layer], space, added)
        x += added
        _rms_norm(x, norms[2 * layer + 1], eps, normed)
        linear(normed, gate_up[layer], scale_gate_up[layer], space, both)
        _gate(both, gated)
        linear(gated, down[layer], scale_down[layer], space, added)
        x += added
    if first_logit < n_tokens:
        _rms_norm(x, norms[2 * qkv.shape[0]], eps, normed)
        linear(normed[first_logit:], final, scale_final, space, logits)


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


def _rope_base(config: dict[str, Any]) -> float:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or rope.get("partial_rotary_factor", 1) != 1:
        raise InputError(f"the cpu engine runs default rotary positions only, not {rope}")
    return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


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


class CpuEngine:
    """A Llama model on the CPU; `engine.Engine` tells what its methods do.

    config: Hugging Face's Llama configuration; weights: its names → float32, or bfloat16 as uint16
    bits; precision: how weights are held (norms and embedding stay float32, the cache of others
    than float32 is bfloat16); max_length: default the model's context; threads: for several
    sequences, default all cores of the process.
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
        _refuse_unknown(config, weights)
        self.precision = precision
        self.vocab_size = int(config["vocab_size"])
        self.max_length = int(max_length or config["max_position_embeddings"])
        heads = int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head = int(config.get("head_dim") or config["hidden_size"] // heads)
        self._shape = (heads, kv_heads, head)
        self._inner = int(config["intermediate_size"])
        self._n_layers = int(config["num_hidden_layers"])
        power = np.arange(0, head, 2, dtype=np.float32) / np.float32(head)
        inverse = np.float32(1) / np.float32(_rope_base(config)) ** power
        angles = np.arange(self.max_length, dtype=np.float32)[:, None] * inverse
        self._model = (
            *self._load(config, weights),
            np.cos(angles),
            np.sin(angles),
            np.float32(config.get("rms_norm_eps", 1e-6)),
        )
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._cache: tuple[np.ndarray, np.ndarray] | None = None
        self._tokens = np.zeros((3, 0), np.int64)
        """[3, B], as `_forward` takes them: id, cache slot and position of each next token."""

    def _load(self, config: dict[str, Any], weights: dict[str, np.ndarray]) -> tuple[Any, ...]:
        """(embedding, weights, scales, norms) as `_forward` takes them."""
        heads, kv_heads, head = self._shape
        width, inner = int(config["hidden_size"]), self._inner

        def get(name: str, *shape: int) -> np.ndarray:
            if name not in weights:
                raise InputError(f"the checkpoint's model.safetensors lacks {name}")
            if weights[name].shape != shape:
                raise InputError(
                    f"{name} in the checkpoint's model.safetensors is {weights[name].shape}; "
                    f"by its config.json it must be {shape}"
                )
            return _as_float32(weights[name])

        def stack(columns: int, **rows: int) -> tuple[np.ndarray, np.ndarray]:
            """One kind of matrix of all layers, those of `rows` below each other."""
            room = "mlp" if "gate" in rows or "down" in rows else "self_attn"
            panels, scales = [], []
            for i in range(self._n_layers):
                prefix = f"model.layers.{i}.{room}."
                parts = [get(f"{prefix}{k}_proj.weight", n, columns) for k, n in rows.items()]
                stored, scale = store(np.concatenate(parts), self.precision)
                panels.append(stored)
                scales.append(scale)
            return np.stack(panels), np.stack(scales)

        embedding = get("model.embed_tokens.weight", self.vocab_size, width)
        tied = config.get("tie_word_embeddings", False)
        final = embedding if tied else get("lm_head.weight", self.vocab_size, width)
        kinds = [
            stack(width, q=heads * head, k=kv_heads * head, v=kv_heads * head),
            stack(heads * head, o=width),
            stack(width, gate=inner, up=inner),
            stack(inner, down=width),
            store(final, self.precision),
        ]
        norms = [
            get(f"model.layers.{i}.{kind}_layernorm.weight", width)
            for i in range(self._n_layers)
            for kind in ("input", "post_attention")
        ]
        norms.append(get("model.norm.weight", width))
        return (
            embedding,
            tuple(stored for stored, _ in kinds),
            tuple(scale for _, scale in kinds),
            np.stack(norms),
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes that a step reads of the weights (the embedding, one row a token, not counted)."""
        return sum(weight.nbytes for weight in self._model[1])

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values held, room for growth included."""
        return sum(array.nbytes for array in self._cache or ())

    def _room(self, slots: int, length: int, fresh: bool) -> tuple[np.ndarray, np.ndarray]:
        """A cache for so many slots and positions; doubled when it grows, kept unless `fresh`."""
        _, kv_heads, head = self._shape
        if self._cache is not None:
            have = self._cache[1].shape
            if have[1] >= slots and have[3] >= length:
                return self._cache
            slots = slots if fresh else max(slots, have[1])
        capacity = min(self.max_length, max(256, 1 << (length - 1).bit_length()))
        panels = -(-capacity // PANEL)
        lead = (self._n_layers, slots, kv_heads)
        padded = -(-head // NARROW) * NARROW
        old, self._cache = self._cache, None
        kind = np.float32 if self.precision == "float32" else np.uint16
        keys = np.zeros((*lead, panels, head, PANEL), kind)
        values = np.zeros((*lead, panels * PANEL, padded), kind)
        if old is not None and not fresh:
            for target, source in zip((keys, values), old):
                target[:, : source.shape[1], :, : source.shape[3]] = source
        self._cache = (keys, values)
        return self._cache

    def _compute(self, tokens: np.ndarray, first: int, out: np.ndarray) -> None:
        assert self._cache is not None
        _forward(tokens, first, (*self._shape, self._inner), self._model, self._cache, out)

    def start(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        assert len(prompts) and lengths.min() > 0
        if lengths.max() > self.max_length:
            raise InputError(
                f"the prompt has {lengths.max()} tokens, the model's context {self.max_length}"
            )
        keys, values = self._room(len(prompts), int(lengths.max()), fresh=True)
        self._tokens = np.stack([np.zeros_like(lengths), np.arange(len(prompts)), lengths])
        logits = np.empty((len(prompts), self.vocab_size), np.float32)
        seen: dict[bytes, int] = {}
        for slot, prompt in enumerate(prompts):
            ids = np.ascontiguousarray(prompt, np.int64)
            twin = seen.setdefault(ids.tobytes(), slot)
            if twin != slot:
                panels = -(-len(ids) // PANEL)
                keys[:, slot, :, :panels] = keys[:, twin, :, :panels]
                values[:, slot, :, : len(ids)] = values[:, twin, :, : len(ids)]
                logits[slot] = logits[twin]
                continue
            places = np.arange(len(ids))
            tokens = np.stack([ids, np.full_like(ids, slot), places])
            for begin in range(0, len(ids), PREFILL):
                part = np.ascontiguousarray(tokens[:, begin : begin + PREFILL])
                count = part.shape[1]
                last = begin + count == len(ids)
                self._compute(part, count - 1 if last else count, logits[slot : slot + 1])
        return logits

    def step(self, ids: np.ndarray) -> np.ndarray:
        tokens = self._tokens
        tokens[0] = ids
        longest, slots = max(tokens[2].tolist()), max(tokens[1].tolist()) + 1
        if longest >= self.max_length:
            raise InputError(f"a sequence is longer than the model's context, {self.max_length}")
        self._room(slots, longest + 1, fresh=False)
        count = tokens.shape[1]
        logits = np.empty((count, self.vocab_size), np.float32)
        # Every thread streams all weights, so it gets at least the four sequences of a tile.
        share = max(4, -(-count // self._threads))
        jobs = []
        for begin in range(share, count, share):
            assert self._pool is not None
            part = np.ascontiguousarray(tokens[:, begin : begin + share])
            out = logits[begin : begin + share]
            jobs.append(self._pool.submit(self._compute, part, 0, out))
        self._compute(np.ascontiguousarray(tokens[:, :share]), 0, logits[:share])
        for job in jobs:
            job.result()
        tokens[2] += 1
        return logits

    def keep(self, rows: np.ndarray) -> None:
        assert len(set(map(int, rows))) == len(rows)
        self._tokens = self._tokens[:, rows]
