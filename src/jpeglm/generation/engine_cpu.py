"""Llama on a CPU without torch: numba kernels over float32, bfloat16 or int8 weights.

One call computes all layers for a group of tokens. The products (`generation.tiles`) sum in an
order that depends on nothing else: a sequence gives the same logits, to the bit, in any batch, on
any number of threads, and a prompt the same whether it is prefilled or fed token by token. Weights
that are read serve up to four tokens.

    x [tokens, d] -> norm -> q k v -> rotary -> cache, attention -> output, + x
                  -> norm -> gate, up -> silu(gate) up -> down, + x          (each layer)

Several sequences are spread over threads, each walking the whole model for its share, so that
nothing waits inside a token. Up to four go through the model together, and so does a prompt: then
threads share the rows of every matrix (`generation.team`), none waiting for one that has lost its
core.
int8 rounds weights at load (a scale a row) and what they are multiplied with at each product (a
scale a token); the cache of bfloat16 and int8 holds bfloat16, norms and sums stay float32. int8
costs 0.02 to 0.06 % of the bits of a held-out clip or picture (docs/log.md).
Run it: `CpuEngine(checkpoint.config, checkpoint.weights).start([ids])`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jpeglm.config import InputError
from jpeglm.environment import cores
from jpeglm.generation.rotary import rotary_tables
from jpeglm.generation.team import (
    ALONE,
    STOP,
    alone,
    claim,
    describe,
    make_board,
    mark,
    next_chunk,
    post,
    whose,
)
from jpeglm.generation.tiles import (
    FUSED,
    LEVEL,
    NARROW,
    PANEL,
    as_stored,
    panel,
    ready,
    store,
    tile_1,
    tile_narrow,
)
from jpeglm.kernels import COMPILED, exp, highest, kernel, njit
from jpeglm.models.llama import rope_base

PRECISIONS = ("float32", "bfloat16", "int8")
PREFILL = 64
"""Tokens of a prompt computed together."""
MOST_HELPERS = 3
"""Beside the leader: more would wait for the same memory."""
Desk = tuple[tuple[int, ...], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(shape, rooms), as `_forward` takes them."""
_ORDERED = {"contract", "nsz"}
"""Not `reassoc`: sums would be ordered when a caller is compiled, and each in its own way."""


@kernel(fastmath=_ORDERED, nogil=True)
def _sum(row):
    """Of float32 [n], in an order that no compiler chooses: eight sums side by side."""
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    e, f, g, h = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    whole = len(row) // 8 * 8
    for i in range(0, whole, 8):
        a += row[i]
        b += row[i + 1]
        c += row[i + 2]
        d += row[i + 3]
        e += row[i + 4]
        f += row[i + 5]
        g += row[i + 6]
        h += row[i + 7]
    for i in range(whole, len(row)):
        a += row[i]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel(fastmath=_ORDERED, nogil=True)
def _rms_norm(x, gain, eps, out):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] * x[n, i]
        total = _sum(out[n])
        factor = np.float32(1) / np.sqrt(total / np.float32(x.shape[1]) + eps)
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] * factor * gain[i]


@kernel(nogil=True)
def _add(x, more):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[n, i] += more[n, i]


@kernel(fastmath=_ORDERED, nogil=True)
def _rotate(vector, cos, sin):
    """Rotary embedding of one head, halves paired as Hugging Face does (Su et al. 2021)."""
    half = len(vector) // 2
    for i in range(half):
        a, b = vector[i], vector[i + half]
        vector[i] = a * cos[i] - b * sin[i]
        vector[i + half] = b * cos[i] + a * sin[i]


@kernel(fastmath=_ORDERED, nogil=True)
def _attend(query, keys, values, length, scale, weight, out):
    """One head of one token over `length` positions.

    query [1, head], keys in panels [T / 64, head, 64], values [T, head padded], both float32 or
    bfloat16 bits; weight [1, T] and out [1, head padded] scratch and result.
    """
    for p in range((length + PANEL - 1) // PANEL):
        tile_1(query, keys[p], weight[:, p * PANEL :])
    row = weight[0]
    peak = highest(row[:length])
    for t in range(length):
        row[t] = exp((row[t] - peak) * scale)
    share = np.float32(1) / _sum(row[:length])
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


class Work(NamedTuple):
    """What a group of at most N tokens is computed in; the leader writes it, helpers read it."""

    places: np.ndarray
    """int64 [2, N]: cache slot and position of each token."""
    x: np.ndarray
    normed: np.ndarray
    mixed: np.ndarray
    """[N, (heads + 2 KV heads) head width]: queries, keys, values."""
    attended: np.ndarray
    added: np.ndarray
    both: np.ndarray
    """[N, 2 feed-forward width]: gate, then up."""
    gated: np.ndarray
    quantised: tuple[np.ndarray, np.ndarray, np.ndarray]
    """As `tiles.ready` fills it."""


class Own(NamedTuple):
    """What every thread has for itself."""

    paper: tuple[np.ndarray, np.ndarray]
    """As `tiles.panel` needs it."""
    weight: np.ndarray
    """[1, positions]: attention's."""
    mean: np.ndarray
    """[1, head width padded]"""


def _rooms(shape: tuple[int, ...], threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(shared, own, results), float32: what `_work` and, a row a thread, `_own` cut up, and what
    each thread's products go to until the leader takes them, [threads, N, widest]."""
    width, heads, kv_heads, head, inner, vocabulary, n, positions = shape
    mixed = (heads + 2 * kv_heads) * head
    shared = 12 + 3 * width + mixed + 3 * inner + heads * head + max(width, heads * head, inner)
    own = 8 * PANEL + -(-positions // PANEL) * PANEL + -(-head // NARROW) * NARROW
    widest = max(mixed, 2 * inner, vocabulary, width)
    return (
        np.zeros(n * shared, np.float32),
        np.zeros((threads, own), np.float32),
        np.zeros((threads, n, widest), np.float32),
    )


@njit()
def _rows(shared, at, n, width):
    """float32 [n, width] that begins at `at`, and where it ends."""
    return shared[at : at + n * width].reshape(n, width), at + n * width


@njit()
def _work(shared, shape):
    width, heads, kv_heads, head, inner, _, n, _ = shape
    level = (max(width, heads * head, inner) + 3) // 4 * 4
    places, at = shared[: 4 * n].view(np.int64).reshape(2, n), 4 * n
    x, at = _rows(shared, at, n, width)
    normed, at = _rows(shared, at, n, width)
    mixed, at = _rows(shared, at, n, (heads + 2 * kv_heads) * head)
    attended, at = _rows(shared, at, n, heads * head)
    added, at = _rows(shared, at, n, width)
    both, at = _rows(shared, at, n, 2 * inner)
    gated, at = _rows(shared, at, n, inner)
    steps, starts, at = shared[at : at + n], shared[at + n : at + 2 * n].view(np.int32), at + 2 * n
    levels = shared[at : at + n * level].view(LEVEL)[: n * level].reshape(n, level)
    return Work(places, x, normed, mixed, attended, added, both, gated, (levels, steps, starts))


@njit()
def _own(own, shape):
    _, _, _, head, _, _, _, positions = shape
    block, sums = own[: 4 * PANEL], own[4 * PANEL : 8 * PANEL].view(np.int32)
    long, padded = -(-positions // PANEL) * PANEL, -(-head // NARROW) * NARROW
    rest = own[8 * PANEL :]
    return Own(
        (block.reshape(4, PANEL), sums.reshape(4, PANEL)),
        rest[:long].reshape(1, long),
        rest[long : long + padded].reshape(1, padded),
    )


QKV, OUTPUT, GATE_UP, DOWN, FINAL, ATTENTION = range(6)
"""Kinds of jobs. The products' are cut into panels of their weights, attention into heads."""
WORTH = 1 << 17
"""Bytes that a job reads times tokens, from which on it is shared: some three microseconds."""
GRAIN = 1 << 16
"""Of a chunk, at least: else claims, and calls with so many arrays, would be felt."""


@kernel(nogil=True)
def _parts(kind, layer, first, n, begin, end, shape, model, cache, work, own, out):
    """Panels, or heads of tokens, from `begin` to `end` of a job for tokens first.. (n of them),
    written to their places in out [>= n, ...]. A late helper's numbers may belong to several jobs.
    """
    qkv, output, gate_up, down, final = model[1]
    scale_qkv, scale_output, scale_gate_up, scale_down, scale_final = model[2]
    quantised, paper = work.quantised, own.paper
    x = work.normed[first : first + n]
    if kind == QKV:
        for p in range(begin, min(end, qkv.shape[1])):
            panel(x, qkv[layer], scale_qkv[layer], quantised, paper, p, out)
    elif kind == OUTPUT:
        x = work.attended[first : first + n]
        for p in range(begin, min(end, output.shape[1])):
            panel(x, output[layer], scale_output[layer], quantised, paper, p, out)
    elif kind == GATE_UP:
        for p in range(begin, min(end, gate_up.shape[1])):
            panel(x, gate_up[layer], scale_gate_up[layer], quantised, paper, p, out)
    elif kind == DOWN:
        x = work.gated[first : first + n]
        for p in range(begin, min(end, down.shape[1])):
            panel(x, down[layer], scale_down[layer], quantised, paper, p, out)
    elif kind == FINAL:
        for p in range(begin, min(end, final.shape[0])):
            panel(x, final, scale_final, quantised, paper, p, out)
    else:
        heads, kv_heads, head = shape[1], shape[2], shape[3]
        for part in range(begin, min(end, n * heads)):
            token, h = part // heads, part % heads
            group = h // (heads // kv_heads)
            _attend(
                work.mixed[token : token + 1, h * head : (h + 1) * head],
                cache[0][layer, work.places[0, token], group],
                cache[1][layer, work.places[0, token], group],
                work.places[1, token] + 1,
                np.float32(1.0 / np.sqrt(head)),
                own.weight,
                own.mean,
            )
            for i in range(head):
                out[token, h * head + i] = own.mean[0, i]


@kernel(nogil=True)
def _job(job, helpers, board, results, shape, model, cache, work, own, out):
    """A whole job: (kind, layer, first, n, parts, bytes that it reads)."""
    kind, layer, first, n, parts, size = job
    if helpers == 0 or size * n < WORTH or alone(board):
        _parts(kind, layer, first, n, 0, parts, shape, model, cache, work, own, out)
        return
    grain = max(1, GRAIN * parts // (size * n))
    chunks = (parts + grain - 1) // grain
    number = post(board, kind, layer, first, n, grain, chunks)
    begin = claim(board) * grain
    while begin < parts:
        _parts(kind, layer, first, n, begin, begin + grain, shape, model, cache, work, own, out)
        mark(board, number, begin // grain, 0)
        begin = claim(board) * grain
    heads, head = shape[1], shape[3]
    for chunk in range(chunks):
        who = whose(board, number, chunk)
        begin, end = chunk * grain, min((chunk + 1) * grain, parts)
        if who < 0:
            _parts(kind, layer, first, n, begin, end, shape, model, cache, work, own, out)
        elif who > 0 and kind == ATTENTION:
            for part in range(begin, end):
                token, h = part // heads, part % heads
                for i in range(h * head, (h + 1) * head):
                    out[token, i] = results[who, token, i]
        elif who > 0:
            for token in range(n):
                for i in range(begin * PANEL, min(end * PANEL, out.shape[1])):
                    out[token, i] = results[who, token, i]


@njit(nogil=True)
def _assist(who, board, rooms, shape, model, cache):
    """What a helper does until it is sent away, or nothing has come for a while."""
    shared, owns, results = rooms
    work, own, out = _work(shared, shape), _own(owns[who], shape), results[who]
    while True:
        job, chunk = next_chunk(board)
        if job < 0:
            break
        kind, layer, first, n, grain = describe(board, job)
        begin, end = chunk * grain, (chunk + 1) * grain
        _parts(kind, layer, first, n, begin, end, shape, model, cache, work, own, out)
        mark(board, job, chunk, who)


@njit(nogil=True)
def _forward(tokens, first_logit, helpers, board, rooms, shape, model, cache, logits):
    """All layers for N tokens; logits of tokens first_logit.. go to logits [N - first_logit, V].

    tokens: int64 [3, N], id, cache slot and position of each. rooms: `_rooms`. shape: (width, query
    heads, KV heads, head width, feed-forward width, vocabulary, tokens and positions at most).
    model: (embedding, weights, scales, norms, cos, sin, eps); weights: (qkv, output, gate and up,
    down, head) in panels. cache: (K [L, slots, KV heads, T / 64, head, 64], V [L, slots, KV heads,
    T, head padded]).
    """
    _, heads, kv_heads, head, _, _, most, _ = shape
    embedding, weights, _, norms, cos, sin, eps = model
    qkv, output, gate_up, down, final = weights
    keys, values = cache
    n = tokens.shape[1]
    assert n <= most
    work, own, results = _work(rooms[0], shape), _own(rooms[1][0], shape), rooms[2]
    x, normed, mixed, added = work.x[:n], work.normed[:n], work.mixed[:n], work.added[:n]
    attended, both, gated = work.attended[:n], work.both[:n], work.gated[:n]
    # Loops, for numba would compile what it says about arrays of unequal shapes, four seconds.
    longest = np.int64(0)
    for token in range(n):
        word, slot, place = tokens[0, token], tokens[1, token], tokens[2, token]
        assert 0 <= word < len(embedding)
        for i in range(embedding.shape[1]):
            x[token, i] = embedding[word, i]
        work.places[0, token], work.places[1, token] = slot, place
        longest = max(longest, place + 1)
    seen = longest * 2 * heads * head * keys.itemsize
    none = np.int64(0)  # numba would compile `_job` again for every constant that it is given
    for layer in range(qkv.shape[0]):
        _rms_norm(x, norms[2 * layer], eps, normed)
        ready(normed, qkv[layer], work.quantised)
        job = (QKV + none, layer, none, n, qkv.shape[1], qkv[layer].nbytes)
        _job(job, helpers, board, results, shape, model, cache, work, own, mixed)
        for token in range(n):
            slot, place = tokens[1, token], tokens[2, token]
            for h in range(heads + kv_heads):
                _rotate(mixed[token, h * head : (h + 1) * head], cos[place], sin[place])
            for h in range(kv_heads):
                k = (heads + h) * head
                v = (heads + kv_heads + h) * head
                for i in range(head):
                    keys[layer, slot, h, place // PANEL, i, place % PANEL] = as_stored(
                        mixed[token, k + i], keys
                    )
                    values[layer, slot, h, place, i] = as_stored(mixed[token, v + i], values)
        job = (ATTENTION + none, layer, none, n, n * heads, seen)
        _job(job, helpers, board, results, shape, model, cache, work, own, attended)
        ready(attended, output[layer], work.quantised)
        job = (OUTPUT + none, layer, none, n, output.shape[1], output[layer].nbytes)
        _job(job, helpers, board, results, shape, model, cache, work, own, added)
        _add(x, added)
        _rms_norm(x, norms[2 * layer + 1], eps, normed)
        ready(normed, gate_up[layer], work.quantised)
        job = (GATE_UP + none, layer, none, n, gate_up.shape[1], gate_up[layer].nbytes)
        _job(job, helpers, board, results, shape, model, cache, work, own, both)
        _gate(both, gated)
        ready(gated, down[layer], work.quantised)
        job = (DOWN + none, layer, none, n, down.shape[1], down[layer].nbytes)
        _job(job, helpers, board, results, shape, model, cache, work, own, added)
        _add(x, added)
    rest = n - first_logit
    if rest > 0:
        _rms_norm(x, norms[2 * qkv.shape[0]], eps, normed)
        ready(normed[first_logit:], final, work.quantised)
        last = (FINAL + none, none, first_logit, rest, final.shape[0], final.nbytes)
        _job(last, helpers, board, results, shape, model, cache, work, own, logits)


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
    than float32 is bfloat16); max_length: default the model's context; threads: default all cores
    of the process.
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
        if not FUSED:
            warnings.warn(
                "this processor has no fused multiply-add, so that its logits differ in the last "
                "bits: a seed may give other pictures here than elsewhere",
                stacklevel=2,
            )
        self.precision = precision
        self.vocab_size = int(config["vocab_size"])
        self.max_length = int(max_length or config["max_position_embeddings"])
        heads = int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head = int(config.get("head_dim") or config["hidden_size"] // heads)
        inner, width = int(config["intermediate_size"]), int(config["hidden_size"])
        self._shape = (width, heads, kv_heads, head, inner, self.vocab_size)
        self._n_layers = int(config["num_hidden_layers"])
        self._model = (
            *self._load(config, weights),
            *rotary_tables(rope_base(config), head, self.max_length),
            np.float32(config.get("rms_norm_eps", 1e-6)),
        )
        self._threads = threads or cores()
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._helpers = min(self._threads - 1, MOST_HELPERS)
        panels = max(-(-rows // PANEL) for rows in (3 * heads * head, 2 * inner, self.vocab_size))
        self._board = make_board(max(panels, PREFILL * heads))
        self._assisting: dict[int, Future[None]] = {}
        self._desks: dict[int, Desk] = {}
        """Of each thread that walks through the model by itself; 0 is the leader, whose rooms have
        a row for each helper too."""
        self._cache: tuple[np.ndarray, np.ndarray] | None = None
        self._tokens = np.zeros((3, 0), np.int64)
        """[3, B], as `_forward` takes them: id, cache slot and position of each next token."""

    def _load(self, config: dict[str, Any], weights: dict[str, np.ndarray]) -> tuple[Any, ...]:
        """(embedding, weights, scales, norms) as `_forward` takes them."""
        width, heads, kv_heads, head, inner, _ = self._shape

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
        _, _, kv_heads, head, _, _ = self._shape
        if self._cache is not None:
            have = self._cache[1].shape
            if have[1] >= slots and have[3] >= length:
                return self._cache
            slots = slots if fresh else max(slots, have[1])
        capacity = min(self.max_length, max(256, 1 << (length - 1).bit_length()))
        panels = -(-capacity // PANEL)
        lead = (self._n_layers, slots, kv_heads)
        padded = -(-head // NARROW) * NARROW
        self._dismiss()
        old, self._cache = self._cache, None
        kind = np.float32 if self.precision == "float32" else np.uint16
        keys = np.zeros((*lead, panels, head, PANEL), kind)
        values = np.zeros((*lead, panels * PANEL, padded), kind)
        if old is not None and not fresh:
            for target, source in zip((keys, values), old):
                target[:, : source.shape[1], :, : source.shape[3]] = source
        self._cache = (keys, values)
        return self._cache

    def _desk(self, number: int, tokens: int) -> Desk:
        """The desk of a thread, for so many tokens at least."""
        if number not in self._desks or self._desks[number][0][6] < tokens:
            if number == 0:
                self._dismiss()
                tokens = max(tokens, PREFILL)
            shape = (*self._shape, tokens, self.max_length)
            rooms = _rooms(shape, 1 + (self._helpers if number == 0 else 0))
            self._desks[number] = shape, rooms
        return self._desks[number]

    def _compute(
        self, tokens: np.ndarray, first: int, out: np.ndarray, desk: int = 0, helpers: int = 0
    ) -> None:
        """Run tokens int64 [3, N] through the model; logits of tokens first.. to `out`."""
        assert self._cache is not None
        shape, rooms = self._desk(desk, tokens.shape[1])
        for who in range(1, helpers + 1 if self._board[ALONE] == 0 else 0):
            if who not in self._assisting or self._assisting[who].done():
                assert self._pool is not None
                self._assisting[who] = self._pool.submit(
                    _assist, who, self._board, rooms, shape, self._model, self._cache
                )
        _forward(tokens, first, helpers, self._board, rooms, shape, self._model, self._cache, out)

    def _dismiss(self) -> None:
        """Send the helpers away: they know this cache and these rooms, and they hold threads."""
        self._board[STOP] = 1
        for helper in self._assisting.values():
            helper.result()
        self._board[STOP] = 0
        self._assisting = {}

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
                out = logits[slot : slot + 1]
                self._compute(part, count - 1 if last else count, out, helpers=self._helpers)
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
        if count <= share:
            self._compute(tokens, 0, logits, helpers=self._helpers)
        else:
            self._dismiss()
            jobs = []
            for desk, begin in enumerate(range(share, count, share), 1):
                assert self._pool is not None
                part = np.ascontiguousarray(tokens[:, begin : begin + share])
                out = logits[begin : begin + share]
                jobs.append(self._pool.submit(self._compute, part, 0, out, desk))
            self._compute(np.ascontiguousarray(tokens[:, :share]), 0, logits[:share])
            for job in jobs:
                job.result()
        tokens[2] += 1
        return logits

    def keep(self, rows: np.ndarray) -> None:
        assert len(set(map(int, rows))) == len(rows)
        # numba would compile all of it again for the order that numpy chooses.
        self._tokens = np.ascontiguousarray(self._tokens[:, rows])
