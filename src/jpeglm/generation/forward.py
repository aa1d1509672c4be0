"""A Llama's forward pass over float32, bfloat16 or int8 weights, as numba kernels.

One call computes all layers for a group of tokens, each of any sequence at any position:

    x [tokens, d] -> norm -> q k v -> rotary -> cache, attention -> output, + x
                  -> norm -> gate, up -> silu(gate) up -> down, + x          (each layer)

The products (`generation.matmul`) sum in an order that depends on nothing else, so a sequence gives
the same logits, to the bit, in any group. A job that is worth it is shared with helper threads
(`generation.threads`), none waiting for one that has lost its core. Kernels take the tuples below,
`board`, int64, as `threads.make_board` has it, and numbers as int64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.generation.layers import add, attend, rms_norm, rotate, swiglu
from jpeglm.generation.matmul import LEVEL, NARROW, PANEL, Quantised, as_stored, panel, ready
from jpeglm.generation.threads import alone, claim, describe, mark, next_chunk, post, whose
from jpeglm.kernels import kernel, njit


class Shape(NamedTuple):
    """Of a model; tokens and positions: how many at most, of a group and of a sequence."""

    width: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int
    tokens: int
    positions: int


class Matrix(NamedTuple):
    """Weights [rows, columns], of all layers or of one, as `matmul.store` has them."""

    panels: np.ndarray
    """[layers, rows / 64, ...], each panel the columns of 64 rows."""
    scale: np.ndarray
    """float32 [layers, rows], of int8 weights."""


class Weights(NamedTuple):
    embedding: np.ndarray
    """float32 [V, width]"""
    qkv: Matrix
    output: Matrix
    gate_up: Matrix
    down: Matrix
    final: Matrix
    """The output's, as that of a single layer."""
    norms: np.ndarray
    """float32 [2 layers + 1, width]: of each layer, before attention and before the MLP; last."""
    cos: np.ndarray
    """float32 [positions, head / 2], as sin."""
    sin: np.ndarray
    eps: np.float32


class Cache(NamedTuple):
    """Keys and values of all sequences, float32 or bfloat16's bits; a slot each."""

    keys: np.ndarray
    """[L, slots, KV heads, T / 64, head, 64]"""
    values: np.ndarray
    """[L, slots, KV heads, T, head padded]"""


class Rooms(NamedTuple):
    """What is computed in, float32."""

    shared: np.ndarray
    """`Work`, which the leader writes and helpers read."""
    own: np.ndarray
    """[threads, ...]: `Own`."""
    results: np.ndarray
    """[threads, N, widest]: a thread's products, until the leader takes them."""


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
    quantised: Quantised
    """As `matmul.ready` fills it."""


class Own(NamedTuple):
    """What every thread has for itself."""

    scratch: tuple[np.ndarray, np.ndarray]
    """As `matmul.panel` needs it."""
    weight: np.ndarray
    """[1, positions]: attention's."""
    mean: np.ndarray
    """[1, head width padded]"""


def make_rooms(shape: Shape, threads: int) -> Rooms:
    """Room for a leader and threads - 1 helpers."""
    width, heads, kv_heads, head, inner, vocabulary, n, positions = shape
    mixed = (heads + 2 * kv_heads) * head
    shared = 12 + 3 * width + mixed + 3 * inner + heads * head + max(width, heads * head, inner)
    own = 8 * PANEL + -(-positions // PANEL) * PANEL + -(-head // NARROW) * NARROW
    widest = max(mixed, 2 * inner, vocabulary, width)
    return Rooms(
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
    """`Work` in float32 [Rooms.shared], as `make_rooms` has measured it."""
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
    """`Own` in float32, one thread's part of `Rooms.own`."""
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
def _product(x, weights, layer, begin, end, work, own, out):
    """Panels from `begin` to `end` of a layer's product."""
    for p in range(begin, min(end, weights.panels.shape[1])):
        panel(x, weights.panels[layer], weights.scale[layer], work.quantised, own.scratch, p, out)


@kernel(nogil=True)
def _parts(kind, layer, first, n, begin, end, shape, model, cache, work, own, out):
    """Panels, or heads of tokens, from `begin` to `end` of a job for tokens first.. (n of them),
    written to their places in out [>= n, ...]. A late helper's numbers may belong to several jobs.
    """
    if kind == QKV:
        _product(work.normed[first : first + n], model.qkv, layer, begin, end, work, own, out)
    elif kind == OUTPUT:
        _product(work.attended[first : first + n], model.output, layer, begin, end, work, own, out)
    elif kind == GATE_UP:
        _product(work.normed[first : first + n], model.gate_up, layer, begin, end, work, own, out)
    elif kind == DOWN:
        _product(work.gated[first : first + n], model.down, layer, begin, end, work, own, out)
    elif kind == FINAL:
        _product(work.normed[first : first + n], model.final, 0, begin, end, work, own, out)
    else:
        for part in range(begin, min(end, n * shape.heads)):
            token, h = part // shape.heads, part % shape.heads
            group = h // (shape.heads // shape.kv_heads)
            slot, head = work.places[0, token], shape.head
            attend(
                work.mixed[token : token + 1, h * head : (h + 1) * head],
                cache.keys[layer, slot, group],
                cache.values[layer, slot, group],
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
    heads, head = shape.heads, shape.head
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
def assist(who, board, rooms, shape, model, cache):
    """What a helper does until it is sent away, or nothing has come for a while."""
    work, own, out = _work(rooms.shared, shape), _own(rooms.own[who], shape), rooms.results[who]
    while True:
        job, chunk = next_chunk(board)
        if job < 0:
            break
        kind, layer, first, n, grain = describe(board, job)
        begin, end = chunk * grain, (chunk + 1) * grain
        _parts(kind, layer, first, n, begin, end, shape, model, cache, work, own, out)
        mark(board, job, chunk, who)


@njit(nogil=True)
def forward(tokens, first_logit, helpers, board, rooms, shape, model, cache, logits):
    """All layers for N tokens; logits of tokens first_logit.. go to logits [N - first_logit, V].

    tokens: int64 [3, N], id, cache slot and position of each. rooms, shape, model, cache: `Rooms`,
    `Shape`, `Weights`, `Cache` as plain tuples all the way down: of a named one numba asks its
    class at every call, one to three microseconds each.
    """
    embedding, qkv, output, gate_up, down, final, norms, cos, sin, eps = model
    weights = Weights(
        embedding, Matrix(*qkv), Matrix(*output), Matrix(*gate_up), Matrix(*down), Matrix(*final),
        norms, cos, sin, eps,
    )  # fmt: skip
    named = Rooms(*rooms), Shape(*shape), weights, Cache(*cache)
    _forward(tokens, first_logit, helpers, board, *named, logits)


@njit(nogil=True)
def _forward(tokens, first_logit, helpers, board, rooms, shape, model, cache, logits):
    """`forward`, with `Rooms`, `Shape`, `Weights` and `Cache` by their names."""
    heads, kv_heads, head = shape.heads, shape.kv_heads, shape.head
    embedding, norms, eps = model.embedding, model.norms, model.eps
    keys, values = cache.keys, cache.values
    n = tokens.shape[1]
    assert n <= shape.tokens
    work, own, results = _work(rooms.shared, shape), _own(rooms.own[0], shape), rooms.results
    x, normed, mixed, added = work.x[:n], work.normed[:n], work.mixed[:n], work.added[:n]
    attended, both, gated = work.attended[:n], work.both[:n], work.gated[:n]
    qkv, output, gate_up = model.qkv.panels, model.output.panels, model.gate_up.panels
    down = model.down.panels
    final = model.final.panels
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
        rms_norm(x, norms[2 * layer], eps, normed)
        ready(normed, qkv[layer], work.quantised)
        job = (QKV + none, layer, none, n, qkv.shape[1], qkv[layer].nbytes)
        _job(job, helpers, board, results, shape, model, cache, work, own, mixed)
        for token in range(n):
            slot, place = tokens[1, token], tokens[2, token]
            for h in range(heads + kv_heads):
                rotate(mixed[token, h * head : (h + 1) * head], model.cos[place], model.sin[place])
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
        add(x, added)
        rms_norm(x, norms[2 * layer + 1], eps, normed)
        ready(normed, gate_up[layer], work.quantised)
        job = (GATE_UP + none, layer, none, n, gate_up.shape[1], gate_up[layer].nbytes)
        _job(job, helpers, board, results, shape, model, cache, work, own, both)
        swiglu(both, gated)
        ready(gated, down[layer], work.quantised)
        job = (DOWN + none, layer, none, n, down.shape[1], down[layer].nbytes)
        _job(job, helpers, board, results, shape, model, cache, work, own, added)
        add(x, added)
    rest = n - first_logit
    if rest > 0:
        rms_norm(x, norms[2 * qkv.shape[0]], eps, normed)
        ready(normed[first_logit:], final[0], work.quantised)
        last = (FINAL + none, none, first_logit, rest, final.shape[1], final.nbytes)
        _job(last, helpers, board, results, shape, model, cache, work, own, logits)
