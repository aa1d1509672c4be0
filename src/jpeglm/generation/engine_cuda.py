"""Sampling that stays on the device: static cache, CUDA graphs, the grammar as tables.

Prompts go through transformers' model and then into a cache of fixed shape, a slot for each
sequence, so that sequences come and go while the graphs stay. `decode_on_device` chooses a few
tokens for all of them without asking the host: logits, guidance, nucleus, grammar
(`generation.device_tables`), the token, its place in the cache, all in one graph that is replayed.
On a device without graphs the same code runs eagerly. Random numbers are those of
`generation.sampling`, so that a seed gives the picture that the CPU gives, as far as the logits
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np
import torch

from jpeglm.config import InputError, Sampling
from jpeglm.generation.engine import DeviceTables
from jpeglm.generation.engine_torch import TorchEngine
from jpeglm.generation.llama_torch import Weights

SHORTEST = 256
"""Positions that the smallest graph looks at; each next one has twice as many."""
INTEGERS = (
    "token", "position", "place", "remaining", "count", "left", "seed", "picture", "leader",
    "partner", *(field.name for field in fields(Sampling) if field.type == "int"),
)  # fmt: skip
FLOATS = ("inverse", "alive", *(field.name for field in fields(Sampling) if field.type == "float"))
"""What a step reads and changes of each slot, a row of `State.integers` or `State.floats`."""


class GraphEngine(TorchEngine):
    """A `TorchEngine` with slots, which can choose tokens by itself: an `engine.DeviceEngine`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._slots = np.zeros(0, np.int64)
        """Of each sequence."""
        self._positions = np.zeros(0, np.int64)
        """Of each slot, its next token's."""
        self._state: State | None = None

    @property
    def sequences(self) -> int:
        return len(self._slots)

    @cached_property
    def weights(self) -> Weights:
        return Weights(self.model)

    @torch.inference_mode()
    def add(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        rows, cache, padding, logits = self._prefill(prompts)
        state = self._room(len(self._slots) + len(prompts))
        free = np.setdiff1d(np.arange(state.slots), self._slots)[: len(prompts)]
        layers: Any = cache.layers
        for slot, row, prompt in zip(free.tolist(), rows, prompts):
            begun = len(prompt)
            for layer, held in enumerate(layers):
                state.keys[layer, slot, :, :begun] = held.keys[row, :, padding[row] :]
                state.values[layer, slot, :, :begun] = held.values[row, :, padding[row] :]
            self._positions[slot] = begun
        self._slots = np.concatenate([self._slots, free])
        return logits[rows]

    def _room(self, slots: int) -> State:
        """A state with so many slots; half as many again when it grows."""
        old = self._state
        if old is None or old.slots < slots:
            slots = max(slots, (old.slots * 3 // 2 if old else 0))
            made = State(self.weights, slots, self.max_length, self.device)
            if old is not None:
                made.keys[:, : old.slots], made.values[:, : old.slots] = old.keys, old.values
            self._state = made
            missing = slots - len(self._positions)
            self._positions = np.concatenate([self._positions, np.zeros(missing, np.int64)])
        assert self._state is not None
        return self._state

    @torch.inference_mode()
    def step(self, ids: np.ndarray) -> np.ndarray:
        state = self._ready(1)
        token = np.zeros(state.slots, np.int64)
        token[self._slots] = ids
        state.put(token=token, position=self._within())
        state.replay("forward", state.forward)
        self._positions[self._slots] += 1
        return self._logits(state)

    def _ready(self, steps: int) -> State:
        """The state, its graphs long enough for so many more tokens."""
        longest = int(self._positions[self._slots].max())
        if longest >= self.max_length:
            raise InputError(f"a sequence is longer than the model's context, {self.max_length}")
        assert self._state is not None
        size = SHORTEST
        while size < longest + steps:
            size *= 2
        self._state.size = min(size, self.max_length)
        return self._state

    def _within(self) -> np.ndarray:
        """Positions of all slots, those of ended sequences inside the cache too."""
        return np.minimum(self._positions, self.max_length - 1)

    def _logits(self, state: State) -> np.ndarray:
        found: np.ndarray = state.logits.cpu().numpy()[self._slots]
        return found

    @torch.inference_mode()
    def decode_on_device(
        self,
        tables: DeviceTables,
        logits: np.ndarray,
        places: np.ndarray,
        remaining: np.ndarray,
        rows: np.ndarray,
        leader: np.ndarray,
        guidance: np.ndarray,
        steps: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        state, own = self._ready(steps), self._slots
        partner = np.arange(len(own))
        partner[leader] = np.arange(len(own))  # the run without a class comes later, and stays
        draw = rows["draw"]
        asked = (*INTEGERS, *FLOATS)
        values = {name: draw[name] for name in draw.dtype.names or () if name in asked} | {
            "place": places, "remaining": remaining, "count": rows["count"],
            "left": rows["walk"]["left"], "leader": own[leader], "partner": own[partner],
            "guidance": guidance, "alive": np.ones(len(own)),
        }  # fmt: skip
        everywhere = {}
        for name, value in values.items():
            whole = np.arange(state.slots) if name in ("leader", "partner") else state.idle(name)
            whole[own] = value
            everywhere[name] = whole
        state.put(position=self._within(), **everywhere)
        now = np.zeros((state.slots, self.vocab_size), np.float32)
        now[own] = logits
        state.begin(tables, now, steps)
        for _ in range(steps):
            state.replay("choose", state.choose)
        self._positions[own] += steps
        drawn, nats = state.drawn[:, :steps], state.nats[:, :steps]
        return drawn.cpu().numpy()[own], nats.cpu().numpy()[own], self._logits(state)

    def remove(self, rows: np.ndarray) -> None:
        self._slots = np.delete(self._slots, rows)


class State:
    """Slots on the device, and the graphs that work on them in place."""

    def __init__(self, weights: Weights, slots: int, length: int, device: torch.device) -> None:
        self.weights, self.slots, self.device = weights, slots, device
        self.size = length
        """Positions that are looked at."""
        self.keys, self.values = weights.room(slots, length)
        self.integers = self._zeros(len(INTEGERS), slots, kind=torch.int64)
        self.floats = self._zeros(len(FLOATS), slots, kind=torch.float64)
        self.logits = self._zeros(slots, len(weights.head), kind=torch.float32)
        self.number = self._zeros(1, kind=torch.int64)
        """Of the next token since `begin`."""
        self.drawn = self._zeros(slots, 1, kind=torch.int64)
        self.nats = self._zeros(slots, 1, kind=torch.float64)
        self._tables: DeviceTables | None = None
        self._graphs: dict[tuple[str, int], Any] = {}

    def _zeros(self, *shape: int, kind: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=kind, device=self.device)

    def idle(self, name: str) -> np.ndarray:
        """What a slot without a sequence has of this."""
        return np.zeros(self.slots, np.int64 if name in INTEGERS else np.float64)

    def put(self, **values: np.ndarray) -> None:
        """Set rows of `integers` and `floats`, [slots] each."""
        for names, target in ((INTEGERS, self.integers), (FLOATS, self.floats)):
            given = [name for name in names if name in values]
            if given:
                stack = torch.from_numpy(np.stack([values[name] for name in given]))
                rows = torch.tensor([names.index(name) for name in given], device=self.device)
                target[rows] = stack.to(self.device, target.dtype)

    def get(self, name: str) -> torch.Tensor:
        """A view of one of them."""
        if name in INTEGERS:
            return self.integers[INTEGERS.index(name)]
        return self.floats[FLOATS.index(name)]

    def begin(self, tables: DeviceTables, logits: np.ndarray, steps: int) -> None:
        """Choose from these logits [slots, V] on, so many tokens."""
        if self._tables is not tables or self.drawn.shape[1] < steps:
            self._tables, self._graphs = tables, {}
            for name in ("after", "ended", "before", "need"):
                setattr(self, name, torch.from_numpy(getattr(tables, name)).to(self.device))
            self.drawn = self._zeros(self.slots, steps, kind=torch.int64)
            self.nats = self._zeros(self.slots, steps, kind=torch.float64)
        self.eos = tables.eos
        self.logits.copy_(torch.from_numpy(logits))
        self.number.zero_()

    after: torch.Tensor
    ended: torch.Tensor
    before: torch.Tensor
    need: torch.Tensor

    def replay(self, name: str, work: Callable[[], None]) -> None:
        """Do a step, through its graph where the device has such."""
        if self.device.type != "cuda":
            work()
            return
        key = name, self.size
        if key not in self._graphs:
            self._graphs[key] = self._capture(work)
        self._graphs[key].replay()

    def _capture(self, work: Callable[[], None]) -> Any:
        """A graph of a step. Capturing runs nothing; the run before it, which the libraries need
        to be ready, is taken back (what it writes into the cache the step itself writes again)."""
        changed = (self.integers, self.floats, self.logits, self.number, self.drawn, self.nats)
        before = [tensor.clone() for tensor in changed]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(changed, before):
            tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph

    def forward(self) -> None:
        """The logits after every slot's token."""
        self.logits.copy_(
            self.weights.decode(
                self.get("token"), self.get("position"), self.keys, self.values, self.size
            )
        )

    def choose(self) -> None:
        """A token for every slot, and the logits after it."""
        get = self.get
        free, strength = self.logits[get("partner")], get("guidance")[:, None].float()
        logits = free + strength * (self.logits - free)
        alive = get("alive") > 0
        token, nat = choose(logits, self.legal(), get, self.uniform())
        token = torch.where(alive, token, self.eos)[get("leader")]
        self.drawn.index_copy_(1, self.number, token[:, None])
        self.nats.index_copy_(1, self.number, torch.where(alive, nat, 0.0)[:, None])
        alive &= token != self.eos
        row = token[:, None]
        ended = self.ended[get("place")].gather(1, row)[:, 0]
        after = self.after[get("place")].gather(1, row)[:, 0].long()
        get("remaining").sub_(torch.where(alive, ended, 0))
        get("place").copy_(torch.where(alive, after, get("place")))
        get("alive").copy_(alive)
        get("token").copy_(token)
        self.forward()
        get("position").add_(1).clamp_(max=self.keys.shape[3] - 1)
        get("count").add_(1)
        get("left").sub_(1)
        self.number.add_(1).clamp_(max=self.drawn.shape[1] - 1)

    def legal(self) -> torch.Tensor:
        """bool [slots, V], as `masks.token_mask`."""
        place, remaining = self.get("place"), self.get("remaining")[:, None]
        after, ended = self.after[place], self.ended[place]
        rest = remaining - ended
        need = torch.where(rest > 0, 2 * (rest - 1) + self.need[after.clamp(min=0)], 0)
        fits = need <= self.get("left")[:, None] - 2
        mask = (after >= 0) & (self.before[place] < remaining) & fits
        mask[:, self.eos] = self.get("remaining") == 0
        return mask

    def uniform(self) -> torch.Tensor:
        """`sampling._uniform` of each slot: splitmix64 in wrapping int64."""
        x = torch.zeros_like(self.get("picture"))
        for name in ("seed", "picture", "count"):
            x = x + self.get(name) + _signed(0x9E3779B97F4A7C15)
            x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
            x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
            x = x ^ _shifted(x, 31)
        return _shifted(x, 11).double() * 2.0**-53


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    """A shift to the right that brings in zeros."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def choose(
    logits: torch.Tensor,
    mask: torch.Tensor,
    get: Callable[[str], torch.Tensor],
    uniform: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token, nats), int64 and float64 [B]; as `sampling.choose`, for rows of logits [B, V]; `get`
    gives each one's own settings [B] by their names in `sampling.DRAW`."""
    inverse, top_k, top_p = get("inverse"), get("top_k"), get("top_p")
    logits = logits.float()
    size = logits.shape[1]
    chances = logits.double().log_softmax(-1)
    lowest = torch.finfo(logits.dtype).min
    best = torch.where(mask, logits, lowest).argmax(-1)
    peak = logits.max(-1, keepdim=True).values
    weight = torch.exp(((logits - peak) * inverse[:, None].float()).double())
    mask = mask & (weight >= get("min_p")[:, None])
    numbers = torch.arange(size, device=logits.device)
    narrowed = ((top_k > 0) | (top_p < 1))[:, None]
    order = torch.sort(weight, dim=-1, descending=True, stable=True).indices
    order = torch.where(narrowed, order, numbers)
    weight = weight.gather(1, order)
    kept = torch.where(top_k > 0, top_k, size)
    weight = torch.where(numbers < kept[:, None], weight, 0)
    total = weight.cumsum(-1)
    inside = (total - weight < top_p[:, None] * total[:, -1:]) | ~narrowed
    weight = torch.where(inside & mask.gather(1, order), weight, 0)
    total = weight.cumsum(-1)
    place = (total <= uniform[:, None] * total[:, -1:]).sum(-1).clamp(max=size - 1)
    drawn = order.gather(1, place[:, None])[:, 0]
    token = torch.where((inverse > 0) & (total[:, -1] > 0), drawn, best)
    return token, -chances.gather(1, token[:, None])[:, 0]
