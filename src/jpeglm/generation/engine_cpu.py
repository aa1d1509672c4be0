"""Llama on a CPU without torch: numba kernels over float32, bfloat16 or int8 weights.

A sequence gives the same logits, to the bit, in any batch, on any number of threads, and a prompt
the same whether it is read in pieces or fed token by token. Weights that are read serve up to four
tokens. Several sequences are spread over threads, each walking the whole model for its share, so
that nothing waits inside a token. Up to four go through the model together, and so does a prompt:
then threads share the rows of every matrix (`generation.threads`).
int8 rounds weights at load (a scale a row) and what they are multiplied with at each product (a
scale a token); the cache of bfloat16 and int8 holds bfloat16, norms and sums stay float32. int8
costs 0.02 to 0.06 % of the bits of a held-out clip or picture (docs/log.md).
Run it: `CpuEngine(checkpoint.config, checkpoint.weights).add([ids])`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jpeglm.config import InputError
from jpeglm.environment import cores
from jpeglm.generation.engine import Pieces
from jpeglm.generation.forward import Cache, Matrix, Rooms, Shape, assist, forward, make_rooms
from jpeglm.generation.matmul import FUSED, NARROW, PANEL
from jpeglm.generation.threads import ALONE, STOP, make_board
from jpeglm.generation.weights_cpu import load_weights, shape_of
from jpeglm.kernels import COMPILED

PREFILL = 64
"""Tokens of a prompt computed together."""
MOST_HELPERS = 3
"""Beside the leader: more would wait for the same memory."""


class Held(NamedTuple):
    """What a slot of the cache begins with."""

    prompt: bytes
    logits: np.ndarray
    """float32 [V], at its last token."""


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
        if not FUSED:
            warnings.warn(
                "this processor has no fused multiply-add, so that its logits differ in the last "
                "bits: a seed may give other pictures here than elsewhere",
                stacklevel=2,
            )
        self.precision = precision
        self.vocab_size = int(config["vocab_size"])
        self.max_length = int(max_length or config["max_position_embeddings"])
        shape = self._shape = shape_of(config, PREFILL, self.max_length)
        own = self._weights = load_weights(config, weights, shape, precision)
        self._plain = tuple(tuple(w) if isinstance(w, Matrix) else w for w in own)
        """As `forward` takes them."""
        self._threads = threads or cores()
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._helpers = min(self._threads - 1, MOST_HELPERS)
        rows = (3 * shape.heads * shape.head, 2 * shape.inner, self.vocab_size)
        panels = max(-(-count // PANEL) for count in rows)
        self._board = make_board(max(panels, PREFILL * shape.heads))
        self._assisting: dict[int, Future[None]] = {}
        self._desks: dict[int, tuple[Shape, Rooms]] = {}
        """Of each thread that walks through the model by itself; 0 is the leader, whose rooms have
        a row for each helper too."""
        self._cache: Cache | None = None
        self._tokens = np.zeros((3, 0), np.int64)
        """[3, B], as `forward` takes them: id, cache slot and position of each next token."""
        self._reading: set[int] = set()
        """Slots of sequences that `read` goes through."""
        self._held: dict[int, Held] = {}
        """Of slots in use, and of those left behind and not taken again."""

    @property
    def sequences(self) -> int:
        return self._tokens.shape[1]

    @property
    def weight_bytes(self) -> int:
        """Bytes that a step reads of the weights (the embedding, one row a token, not counted)."""
        own = self._weights
        kinds = (own.qkv, own.output, own.gate_up, own.down, own.final)
        return sum(matrix.panels.nbytes for matrix in kinds)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values held, room for growth included."""
        return sum(array.nbytes for array in self._cache or ())

    def _room(self, slots: int, length: int) -> Cache:
        """A cache for so many slots and positions; doubled when it grows."""
        old = self._cache
        if old is not None:
            have = old.values.shape
            if have[1] >= slots and have[3] >= length:
                return old
            slots, length = max(slots, have[1]), max(length, have[3])
        used = self._tokens.shape[1] + len(self._reading) > 0
        capacity = min(self.max_length, max(256, 1 << (length - 1).bit_length()))
        panels = -(-capacity // PANEL)
        layers, shape = len(self._weights.qkv.panels), self._shape
        lead = (layers, slots, shape.kv_heads)
        padded = -(-shape.head // NARROW) * NARROW
        self._dismiss()
        if not used:  # before the new one is made: both need not fit
            self._cache = old = None
            self._held = {}
        kind = np.float32 if self.precision == "float32" else np.uint16
        made = Cache(
            np.zeros((*lead, panels, shape.head, PANEL), kind),
            np.zeros((*lead, panels * PANEL, padded), kind),
        )
        if old is not None:
            for target, source in zip(made, old):
                target[:, : source.shape[1], :, : source.shape[3]] = source
        self._cache = made
        return made

    def _desk(self, number: int, tokens: int) -> tuple[Shape, Rooms]:
        """The desk of a thread, for so many tokens at least."""
        if number not in self._desks or self._desks[number][0].tokens < tokens:
            if number == 0:
                self._dismiss()
                tokens = max(tokens, PREFILL)
            shape = self._shape._replace(tokens=tokens)
            rooms = make_rooms(shape, 1 + (self._helpers if number == 0 else 0))
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
                    assist, who, self._board, rooms, shape, self._weights, self._cache
                )
        forward(
            tokens, first, helpers, self._board, tuple(rooms), tuple(shape), self._plain,
            tuple(self._cache), out,
        )  # fmt: skip

    def _dismiss(self) -> None:
        """Send the helpers away: they know this cache and these rooms, and they hold threads."""
        self._board[STOP] = 1
        for helper in self._assisting.values():
            helper.result()
        self._board[STOP] = 0
        self._assisting = {}

    def _free(self, count: int, length: int) -> list[int]:
        """All slots that nobody uses, so many at least, with room for so many positions."""
        used = {*self._tokens[1].tolist(), *self._reading}
        slots = self._cache.values.shape[1] if self._cache is not None else 0
        missing = count - (slots - len(used))
        if missing > 0:
            slots += max(missing, slots // 2 if used else 0)
        slots = self._room(slots, length).values.shape[1]
        return [slot for slot in range(slots) if slot not in used]

    def _check(self, prompts: Sequence[np.ndarray]) -> int:
        """Refuse what the context cannot hold; the longest prompt's length."""
        longest = max(map(len, prompts))
        assert min(map(len, prompts)) > 0
        if longest > self.max_length:
            raise InputError(
                f"the prompt has {longest} tokens, the model's context {self.max_length}"
            )
        return longest

    def add(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        free = self._free(len(prompts), self._check(prompts))
        logits = np.empty((len(prompts), self.vocab_size), np.float32)
        joining = np.zeros((3, len(prompts)), np.int64)
        for i, prompt in enumerate(prompts):
            key = np.ascontiguousarray(prompt, np.int64).tobytes()
            begun = (s for s in free if s in self._held and self._held[s].prompt == key)
            slot = next(begun, None)
            if slot is None:
                slot = min(free, key=lambda s: s in self._held)
                self._begin(slot, prompt, key)
            free.remove(slot)
            logits[i] = self._held[slot].logits
            joining[1:, i] = slot, len(prompt)
        self._tokens = np.ascontiguousarray(np.concatenate([self._tokens, joining], axis=1))
        return logits

    def _begin(self, slot: int, prompt: np.ndarray, key: bytes) -> None:
        """Let a slot begin with a prompt: copied from another that does, or computed."""
        assert self._cache is not None
        keys, values = self._cache
        self._held.pop(slot, None)
        for twin, held in self._held.items():
            if held.prompt == key:
                panels = -(-len(prompt) // PANEL)
                keys[:, slot, :, :panels] = keys[:, twin, :, :panels]
                values[:, slot, :, : len(prompt)] = values[:, twin, :, : len(prompt)]
                self._held[slot] = held
                return
        *_, logits = self._pieces(slot, np.asarray(prompt), last_only=True)
        self._held[slot] = Held(key, logits[0])

    def _pieces(self, slot: int, ids: np.ndarray, last_only: bool = False) -> Iterator[np.ndarray]:
        """Compute a sequence in a slot, from its beginning; logits of each piece, or [1, V] of the
        last token alone."""
        places = np.arange(len(ids))
        tokens = np.stack([ids.astype(np.int64), np.full_like(places, slot), places])
        for begin in range(0, len(ids), PREFILL):
            part = np.ascontiguousarray(tokens[:, begin : begin + PREFILL])
            count = part.shape[1]
            first = 0
            if last_only:
                first = count - 1 if begin + count == len(ids) else count
            out = np.empty((count - first, self.vocab_size), np.float32)
            self._compute(part, first, out, helpers=self._helpers)
            yield out

    def read(self, ids: np.ndarray) -> Pieces:
        self._check([ids])
        slot = min(self._free(1, len(ids)), key=lambda s: s in self._held)
        self._held.pop(slot, None)
        self._reading.add(slot)
        try:
            yield from self._pieces(slot, np.asarray(ids))
        finally:
            self._reading.discard(slot)

    def step(self, ids: np.ndarray) -> np.ndarray:
        tokens = self._tokens
        tokens[0] = ids
        longest = max(tokens[2].tolist())
        if longest >= self.max_length:
            raise InputError(f"a sequence is longer than the model's context, {self.max_length}")
        assert self._cache is not None
        self._room(self._cache.values.shape[1], longest + 1)
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

    def remove(self, rows: np.ndarray) -> None:
        # numba would compile all of it again for the order that numpy chooses.
        self._tokens = np.ascontiguousarray(np.delete(self._tokens, rows, axis=1))
