"""Sampling that stays on the device: static cache, CUDA graphs, the grammar as tables.

`TorchEngine` takes the prompt, and the few tokens that a cut prompt still forces; then `finish`
draws the rest of all sequences without asking the host: logits, nucleus, grammar
(`generation.automaton`), the token, its place in the cache, all in one graph that is replayed. The
host looks every LOOK steps whether anything is left to do. On a device without graphs the same code
runs eagerly. Random numbers are those of `generation.sampling`, so that a seed gives the picture
that the CPU gives, as far as the logits agree.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from jpeglm.generation.engine_torch import TorchEngine

if TYPE_CHECKING:
    from jpeglm.generation.automaton import Automaton
    from jpeglm.generation.sampling import Draw

LOOK = 32
"""Steps between two looks at what has ended."""
SHORTEST = 256
"""Positions of the smallest graph; each next one has twice as many."""


class GraphEngine(TorchEngine):
    """A `TorchEngine` that can also `finish` sequences by itself."""

    @torch.inference_mode()
    def finish(
        self,
        logits: np.ndarray,
        automaton: Automaton,
        states: np.ndarray,
        left: int,
        draw: Draw,
        pictures: np.ndarray,
        count: int,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """(ids of each sequence up to EOS, nats [B]) after `logits` [B, V].

        states: the grammar's, [B, state]; left: tokens that each sequence may still have; pictures
        and count as for `sampling.sample_step`. All sequences have the same length.
        """
        assert not self._padding.any()
        begun = self._columns
        key = (len(logits), begun + left, id(automaton), draw[:-1])
        if key not in self._turns:
            self._turns = {key: Turn(self, len(logits), begun + left, automaton, draw)}
        turn = self._turns[key]
        layers: Any = self._cache.layers
        for layer, held in enumerate(layers):
            turn.keys[layer, :, :, :begun] = held.keys
            turn.values[layer, :, :, :begun] = held.values
        turn.begin(logits, *automaton.places(states), begun, left, draw.seed, pictures, count)
        for done in range(0, left, LOOK):
            for _ in range(min(LOOK, left - done)):
                turn.step()
            if not bool(turn.alive.any()):
                break
        drawn = turn.drawn[:, :left].cpu().numpy()
        ends = (drawn == automaton.eos).argmax(axis=1)
        return [row[: end + 1] for row, end in zip(drawn, ends)], turn.nats.cpu().numpy()

    @cached_property
    def weights(self) -> Weights:
        """The model as `finish` runs it."""
        return Weights(self.model)

    @cached_property
    def _turns(self) -> dict[Any, Turn]:
        return {}


STATE = ("place", "remaining", "pictures", "count", "seed", "left", "logits", "alive", "nats",
         "number", "position")  # fmt: skip
"""Tensors that a step changes, or that differ from one `finish` to the next."""


class Turn:
    """Room and graphs for one number of sequences and one budget; graphs work in place."""

    place: torch.Tensor
    remaining: torch.Tensor
    pictures: torch.Tensor
    count: torch.Tensor
    seed: torch.Tensor
    left: torch.Tensor
    logits: torch.Tensor
    alive: torch.Tensor
    nats: torch.Tensor
    number: torch.Tensor
    position: torch.Tensor

    def __init__(
        self, engine: GraphEngine, rows: int, capacity: int, automaton: Automaton, draw: Draw
    ) -> None:
        self.device, self.model, self.draw = engine.device, engine.weights, draw
        self.eos, self.capacity = automaton.eos, capacity
        self.after, self.ended = self._tensor(automaton.after), self._tensor(automaton.ended)
        self.before, self.need = self._tensor(automaton.before), self._tensor(automaton.need)
        self.keys, self.values = self.model.room(rows, capacity)
        self.drawn = torch.zeros((rows, capacity), dtype=torch.int64, device=self.device)
        self.graphs: dict[int, Any] = {}

    def begin(
        self,
        logits: np.ndarray,
        places: np.ndarray,
        remaining: np.ndarray,
        begun: int,
        left: int,
        seed: int,
        pictures: np.ndarray,
        count: int,
    ) -> None:
        """New sequences, whose first `begun` positions stand in the cache."""
        rows = len(logits)
        values = (
            places, remaining, pictures, [count], [seed], [left], logits, np.ones(rows, bool),
            np.zeros(rows), [0], [begun],
        )  # fmt: skip
        for name, value in zip(STATE, values):
            tensor = self._tensor(np.asarray(value))
            if hasattr(self, name):
                getattr(self, name).copy_(tensor)
            else:
                setattr(self, name, tensor)
        self.length = begun
        self.drawn.fill_(self.eos)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def step(self) -> None:
        """Draw a token for each sequence and compute the logits after it."""
        size = SHORTEST
        while size <= self.length:
            size *= 2
        size = min(size, self.capacity)
        self.length += 1
        if self.device.type != "cuda":
            self._step(size)
            return
        if size not in self.graphs:
            self.graphs[size] = self._capture(size)
        self.graphs[size].replay()

    def _capture(self, size: int) -> Any:
        """A graph of `_step`. Capturing runs nothing; the run before it, which the libraries need
        to be ready, is taken back."""
        before = {name: getattr(self, name).clone() for name in STATE}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step(size)
        torch.cuda.current_stream().wait_stream(stream)
        for name, value in before.items():
            getattr(self, name).copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(size)
        return graph

    def _step(self, size: int) -> None:
        token, nat = choose(self.logits, self.legal(), self.draw, self._uniform())
        token = torch.where(self.alive, token, self.eos)
        self.nats += torch.where(self.alive, nat, 0.0)
        self.drawn.index_copy_(1, self.number, token[:, None])
        self.alive &= token != self.eos
        row = token[:, None]
        ended = self.ended[self.place].gather(1, row)[:, 0]
        after = self.after[self.place].gather(1, row)[:, 0]
        self.remaining -= torch.where(self.alive, ended, 0)
        self.place.copy_(torch.where(self.alive, after, self.place))
        logits = self.model.decode(token, self.position, self.keys, self.values, size)
        self.logits.copy_(logits)
        self.position.clamp_(max=self.capacity - 2).add_(1)
        self.number.clamp_(max=self.drawn.shape[1] - 2).add_(1)
        self.count += 1
        self.left -= 1

    def legal(self) -> torch.Tensor:
        """bool [B, V], as `constraint.token_mask`."""
        after, ended = self.after[self.place], self.ended[self.place]
        remaining = self.remaining[:, None]
        rest = remaining - ended
        need = torch.where(rest > 0, 2 * (rest - 1) + self.need[after.clamp(min=0)], 0)
        fits = need <= self.left - 2
        mask = (after >= 0) & (self.before[self.place] < remaining) & fits
        mask[:, self.eos] = self.remaining == 0
        return mask

    def _uniform(self) -> torch.Tensor:
        """`sampling._uniform` of each sequence: splitmix64 in wrapping int64."""
        x = torch.zeros_like(self.pictures)
        for part in (self.seed, self.pictures, self.count):
            x = x + part + _signed(0x9E3779B97F4A7C15)
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
    logits: torch.Tensor, mask: torch.Tensor, draw: Draw, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token, nats), int64 and float64 [B]; as `sampling.choose`, for rows of logits [B, V]."""
    logits = logits.float()
    size = logits.shape[1]
    chances = logits.double().log_softmax(-1)
    lowest = torch.finfo(logits.dtype).min
    best = torch.where(mask, logits, lowest).argmax(-1)
    token = best
    if draw.inverse > 0:
        peak = logits.max(-1, keepdim=True).values
        weight = torch.exp(((logits - peak) * draw.inverse).double())
        if draw.top_k > 0 or draw.top_p < 1:
            weight, order = torch.sort(weight, dim=-1, descending=True, stable=True)
            kept = min(draw.top_k or size, size)
            weight[:, kept:] = 0
            total = weight.cumsum(-1)
            weight = torch.where(total - weight < draw.top_p * total[:, -1:], weight, 0)
        else:
            order = torch.arange(size, device=logits.device).expand_as(mask)
        weight = torch.where(mask.gather(1, order), weight, 0)
        total = weight.cumsum(-1)
        place = (total <= uniform[:, None] * total[:, -1:]).sum(-1).clamp(max=size - 1)
        drawn = order.gather(1, place[:, None])[:, 0]
        token = torch.where(total[:, -1] > 0, drawn, best)
    return token, -chances.gather(1, token[:, None])[:, 0]


class Weights:
    """A Llama's forward pass for one token a sequence, all at the same position."""

    def __init__(self, model: Any) -> None:
        config, inner = model.config, model.model
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps, self.embedding = config.rms_norm_eps, inner.embed_tokens.weight
        self.norm, self.head = inner.norm.weight, model.lm_head.weight
        self.layers = []
        for layer in inner.layers:
            own, mlp = layer.self_attn, layer.mlp
            projected = [own.q_proj.weight, own.k_proj.weight, own.v_proj.weight]
            self.layers.append(
                (
                    layer.input_layernorm.weight,
                    torch.cat(projected),
                    own.o_proj.weight,
                    layer.post_attention_layernorm.weight,
                    torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
                    mlp.down_proj.weight,
                )
            )
        everywhere = torch.arange(config.max_position_embeddings, device=self.norm.device)
        x = torch.zeros(1, 1, 1, dtype=self.norm.dtype, device=self.norm.device)
        cos, sin = inner.rotary_emb(x, everywhere[None])
        self.cos, self.sin = cos[0], sin[0]

    def room(self, rows: int, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [layers, B, KV heads, positions, head] of zeros."""
        shape = (len(self.layers), rows, self.kv_heads, positions, self.size)
        made = [torch.zeros(shape, dtype=self.norm.dtype, device=self.norm.device) for _ in "kv"]
        return made[0], made[1]

    def decode(
        self,
        token: torch.Tensor,
        position: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        size: int,
    ) -> torch.Tensor:
        """float32 logits [B, V] after `token` [B] at `position` [1], which enters the cache; only
        the first `size` positions are looked at."""
        rows = len(token)
        x = self.embedding[token]
        cos, sin = self.cos[position], self.sin[position]
        seen = torch.arange(size, device=x.device)[None] <= position[:, None]
        for layer, (first, qkv, out, second, both, down) in enumerate(self.layers):
            mixed = F.linear(_norm(x, first, self.eps), qkv)
            mixed = mixed.view(rows, self.heads + 2 * self.kv_heads, self.size)
            turned = _rotate(mixed[:, : -self.kv_heads], cos, sin)
            query, key = turned[:, : self.heads, None], turned[:, self.heads :, None]
            keys[layer].index_copy_(2, position, key)
            values[layer].index_copy_(2, position, mixed[:, -self.kv_heads :, None])
            found = F.scaled_dot_product_attention(
                query,
                keys[layer, :, :, :size],
                values[layer, :, :, :size],
                attn_mask=seen,
                enable_gqa=self.kv_heads != self.heads,
            )
            x = x + F.linear(found.reshape(rows, -1), out)
            gate, up = F.linear(_norm(x, second, self.eps), both).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return F.linear(_norm(x, self.norm, self.eps), self.head).float()


def _norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm as transformers computes it: in float32, then the gain in the model's type."""
    wide = x.float()
    return gain * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin
