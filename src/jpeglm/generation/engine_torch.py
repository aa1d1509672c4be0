"""Llama in torch on any device: transformers' own model and KV cache, no numba.

Plain on purpose: it is the reference for the other engines and runs wherever torch does. Sequences
of different lengths are padded on the left, with position ids and an attention mask that hide the
padding.
Run it: `TorchEngine.from_checkpoint(folder, "cuda", "bfloat16").add([ids])`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import DynamicCache, LlamaForCausalLM

from jpeglm.config import InputError
from jpeglm.generation.engine import Pieces

PIECE = 512
"""Tokens of a known stream that are read at once."""


class TorchEngine:
    """`engine.Engine` tells what the methods do; the model should be in eval mode."""

    def __init__(self, model: LlamaForCausalLM, max_length: int | None = None) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.vocab_size = int(model.config.vocab_size)
        self.max_length = int(max_length or model.config.max_position_embeddings)
        # transformers 5.24 renames the argument and 5.40 drops the old name.
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        self._cache = DynamicCache()
        self._columns = 0  # positions in the cache, padding included
        self._padding = np.zeros(0, np.int64)  # of each sequence, in positions

    @classmethod
    def from_checkpoint(
        cls, folder: Path, device: str = "cpu", precision: str = "float32"
    ) -> TorchEngine:
        """Load a checkpoint folder; precision float32 or bfloat16, device as torch names it."""
        types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if precision not in types:
            raise InputError(
                f"precision is {precision!r}; the torch engine has {' and '.join(types)}"
            )
        try:
            model = LlamaForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=types[precision]
            )
        except Exception as error:  # transformers raises whatever its configuration meets
            raise InputError(f"{folder} is not a complete checkpoint folder: {error}") from error
        try:
            torch.nn.Module.to(model, torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used: {error}") from error
        return cls(model.eval())

    @property
    def sequences(self) -> int:
        return len(self._padding)

    @torch.inference_mode()
    def add(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        rows, cache, padding, logits = self._prefill(prompts)
        columns = cache.get_seq_length()
        width = max(columns, self._columns)
        for layer, held in enumerate(cache.layers):
            for name in ("keys", "values"):
                new = _padded(getattr(held, name)[rows], width - columns)
                if len(self._padding):
                    old = getattr(self._cache.layers[layer], name)
                    new = torch.cat([_padded(old, width - self._columns), new])
                setattr(held, name, new)
        self._padding = np.concatenate(
            [self._padding + width - self._columns, padding[rows] + width - columns]
        )
        self._cache, self._columns = cache, width
        return logits[rows]

    def _prefill(
        self, prompts: Sequence[np.ndarray]
    ) -> tuple[list[int], DynamicCache, np.ndarray, np.ndarray]:
        """(number of each prompt among the different ones, their cache, its padding on the left,
        float32 logits at their last tokens)."""
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        assert len(prompts) and lengths.min() > 0
        longest = int(lengths.max())
        if longest > self.max_length:
            raise InputError(
                f"the prompt has {longest} tokens, the model's context {self.max_length}"
            )
        unique: dict[bytes, int] = {}
        rows = [unique.setdefault(np.asarray(p, np.int64).tobytes(), len(unique)) for p in prompts]
        ids = np.zeros((len(unique), longest), np.int64)
        padding = np.zeros(len(unique), np.int64)
        for row, prompt in zip(rows, prompts):
            padding[row] = longest - len(prompt)
            ids[row, padding[row] :] = prompt
        cache = DynamicCache()
        return rows, cache, padding, self._compute(ids, cache, padding)[:, -1]

    @torch.inference_mode()
    def step(self, ids: np.ndarray) -> np.ndarray:
        if self._columns - self._padding.min() >= self.max_length:
            raise InputError(f"a sequence is longer than the model's context, {self.max_length}")
        logits = self._compute(np.asarray(ids, np.int64)[:, None], self._cache, self._padding)
        self._columns += 1
        return logits[:, -1]

    def _compute(
        self, ids: np.ndarray, cache: DynamicCache, padding: np.ndarray, logits: int = 1
    ) -> np.ndarray:
        """Float32 logits of the last so many (0: all) of ids [B, N], which follow what the cache
        holds."""
        begin = cache.get_seq_length()
        columns, before = np.arange(begin + ids.shape[1]), padding[:, None]
        # Without padding the mask is left out, which lets attention take its fast causal road.
        seen = torch.from_numpy(columns >= before).long().to(self.device)
        out = self.model(
            input_ids=torch.from_numpy(ids).to(self.device),
            attention_mask=seen if padding.any() else None,
            position_ids=torch.from_numpy(np.maximum(columns[begin:] - before, 0)).to(self.device),
            use_cache=True,
            logits_to_keep=logits,
            **{self._cache_name: cache},
        )
        found: np.ndarray = out.logits.float().cpu().numpy()
        return found

    @torch.inference_mode()
    def remove(self, rows: np.ndarray) -> None:
        kept = np.delete(np.arange(len(self._padding)), rows)
        self._padding = self._padding[kept]
        if not len(kept):
            self._cache, self._columns = DynamicCache(), 0
            return
        self._cache.batch_select_indices(torch.from_numpy(kept).to(self.device))
        # Columns that are padding for all who are left.
        spare = int(self._padding.min())
        if spare:
            layers: Any = self._cache.layers
            for layer in layers:
                layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]
            self._padding, self._columns = self._padding - spare, self._columns - spare

    def read(self, ids: np.ndarray) -> Pieces:
        if len(ids) > self.max_length:
            raise InputError(
                f"the stream has {len(ids)} tokens, the model's context {self.max_length}"
            )
        cache = DynamicCache()
        for begin in range(0, len(ids), PIECE):
            part = np.asarray(ids[begin : begin + PIECE], np.int64)[None]
            with torch.inference_mode():
                logits = self._compute(part, cache, np.zeros(1, np.int64), 0)[0]
            yield logits


def _padded(held: torch.Tensor, columns: int) -> torch.Tensor:
    """Keys or values [B, heads, T, head] with so many more positions in front."""
    return F.pad(held, (0, 0, columns, 0)) if columns else held
