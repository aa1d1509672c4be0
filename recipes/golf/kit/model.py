"""A Llama in plain torch, with what records change as options; names of weights are Hugging Face's.

Without options its logits are those of transformers' LlamaForCausalLM (tests/integration/
test_golf.py). Rows are short, so attention is plain products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from kit.entry import Entry

Shared = dict[str, torch.Tensor]
"""What all layers read beside their input: cos and sin [T, d / 2], values and x0 [B, T, width], and
near, int64 [B, T, 3], places in the row."""


class Model(nn.Module):
    def __init__(self, entry: Entry) -> None:
        super().__init__()
        vocabulary, width = entry.tokenizer.vocab_size, entry.width
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.context = nn.Embedding(int(entry.starts[-1]), width) if entry.context else None
        self.values = nn.Embedding(vocabulary, width) if entry.value_embeddings else None
        self.head = nn.Linear(width, vocabulary, bias=False) if entry.untied else None
        self.layers = nn.ModuleList(Layer(entry, number) for number in range(entry.layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.lawful, self.head_width = entry.lawful, width // entry.heads
        self.known, self.near = entry.known, entry.near

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """int64 [B, T, columns] of `Entry.inputs` → logits [B, T, vocabulary]."""
        ids = inputs[..., 0]
        x = self.embed_tokens(ids)
        if self.context is not None:
            known = inputs[..., -self.known :].flatten(0, 1)
            around = F.embedding_bag(known, self.context.weight, mode="sum")
            x = x + around.unflatten(0, inputs.shape[:2])
        cos, sin = rotary(inputs.shape[1], self.head_width, inputs.device)
        shared = {"cos": cos, "sin": sin, "x0": x}
        if self.values is not None:
            shared["values"] = self.values(ids)
        if self.near:
            shared["near"] = inputs[..., -self.known - 3 : -self.known]
        for layer in self.layers:
            x = layer(x, shared)
        head = self.embed_tokens if self.head is None else self.head
        logits = F.linear(self.norm(x), head.weight)
        if self.lawful is not None:
            legal = self.lawful.allowed(ids, inputs[..., 1])
            logits = logits.float().masked_fill(~legal, float("-inf"))
        return logits


class Layer(nn.Module):
    def __init__(self, entry: Entry, number: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor([1.0, 0.0])) if entry.skip else None
        self.self_attn = None
        if entry.attending is None or number in entry.attending:
            self.input_layernorm = nn.RMSNorm(entry.width, eps=1e-5)
            self.before_attn = Around(entry)
            self.self_attn = Attention(entry)
        self.post_attention_layernorm = nn.RMSNorm(entry.width, eps=1e-5)
        self.before_mlp = Around(entry)
        self.mlp = FeedForward(entry)

    def forward(self, x: torch.Tensor, shared: Shared) -> torch.Tensor:
        if self.mix is not None:
            x = self.mix[0] * x + self.mix[1] * shared["x0"]
        if self.self_attn is not None:
            x = x + self.self_attn(self.before_attn(self.input_layernorm(x), shared), shared)
        return x + self.mlp(self.before_mlp(self.post_attention_layernorm(x), shared))


class Around(nn.Module):
    """Adds to what each place holds what places before it hold, with a gain a channel."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        # Vectors, so that they are trained as gains are.
        width, beside = entry.width, 3 if entry.near else 0
        self.shifts = nn.ParameterList(torch.zeros(width) for _ in range(entry.shift))
        self.nears = nn.ParameterList(torch.zeros(width) for _ in range(beside))

    def forward(self, x: torch.Tensor, shared: Shared) -> torch.Tensor:
        total = x
        for back, gain in enumerate(self.shifts, 1):
            total = total + gain * F.pad(x, (0, 0, back, 0))[:, : x.shape[1]]
        for beside, gain in enumerate(self.nears):
            places = shared["near"][..., beside, None].expand(-1, -1, x.shape[-1])
            total = total + gain * x.gather(1, places)
        return total


class Attention(nn.Module):
    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.heads, self.steps = entry.heads, entry.steps
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(entry.width, entry.width, bias=False) for _ in range(4)
        )
        size = entry.width // entry.heads
        self.q_norm = nn.RMSNorm(size, eps=1e-5) if entry.query_norm else None
        self.k_norm = nn.RMSNorm(size, eps=1e-5) if entry.query_norm else None
        self.share = nn.Parameter(torch.tensor([0.5])) if entry.value_embeddings else None

    def forward(self, x: torch.Tensor, shared: Shared) -> torch.Tensor:
        v = self.v_proj(x)
        if self.share is not None:
            v = v + self.share * shared["values"]
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj(x), self.k_proj(x), v)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        mixed = attend(turned(q, shared), turned(k, shared), v.to(x.dtype), self.steps)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, entry: Entry) -> None:
        super().__init__()
        gated = entry.activation == "silu"
        inner = entry.inner if gated else entry.inner * 3 // 2
        self.gate_proj = nn.Linear(entry.width, inner, bias=False) if gated else None
        self.up_proj = nn.Linear(entry.width, inner, bias=False)
        self.down_proj = nn.Linear(inner, entry.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.gate_proj is not None:
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(F.relu(self.up_proj(x)).square())


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, steps: int) -> torch.Tensor:
    """Causal attention [B, heads, T, d], in stripes of queries."""
    length, parts = q.shape[2], []
    stripe = -(-length // steps)
    for number in range(steps):
        # No step of `range` may be a length: torch.compile would compile each one anew.
        at, end = number * stripe, min((number + 1) * stripe, length)
        if at >= length:
            break
        parts.append(_stripe(q[:, :, at:end], k[:, :, :end], v[:, :, :end]))
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def _stripe(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The last queries of a row, against all keys up to their end."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    first = k.shape[2] - q.shape[2]
    places = torch.arange(q.shape[2], device=q.device)[:, None] + first
    ahead = torch.arange(k.shape[2], device=q.device) > places
    return scores.masked_fill(ahead, float("-inf")).softmax(-1).to(v.dtype) @ v


def turned(x: torch.Tensor, shared: Shared) -> torch.Tensor:
    """Queries or keys turned by their places (Su et al. 2021, arXiv 2104.09864)."""
    a, b = x.float().chunk(2, -1)
    cos, sin = shared["cos"], shared["sin"]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def rotary(length: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos, sin) [T, width / 2], base 10,000."""
    speeds = 10000.0 ** -(torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(length, device=device)[:, None] * speeds
    return angles.cos(), angles.sin()
