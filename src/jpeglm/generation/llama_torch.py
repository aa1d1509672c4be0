"""A Llama's decoding step in torch, of static shapes so that it can be a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


class Weights:
    """A Llama's forward pass for one token a sequence, each at its own position."""

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
        """float32 logits [B, V] after `token` at `position`, int64 [B], which enter the cache; only
        the first `size` positions are looked at."""
        rows = len(token)
        x = self.embedding[token]
        cos, sin = self.cos[position][:, None], self.sin[position][:, None]
        every = torch.arange(rows, device=x.device)
        seen = torch.arange(size, device=x.device) <= position[:, None]
        for layer, (first, qkv, out, second, both, down) in enumerate(self.layers):
            mixed = F.linear(_norm(x, first, self.eps), qkv)
            mixed = mixed.view(rows, self.heads + 2 * self.kv_heads, self.size)
            turned = _rotate(mixed[:, : -self.kv_heads], cos, sin)
            keys[layer][every, :, position] = turned[:, self.heads :]
            values[layer][every, :, position] = mixed[:, -self.kv_heads :]
            found = F.scaled_dot_product_attention(
                turned[:, : self.heads, None],
                keys[layer, :, :, :size],
                values[layer, :, :, :size],
                attn_mask=seen[:, None, None],
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
