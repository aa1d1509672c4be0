"""Llama in torch on any device: transformers' own model and KV cache, no numba.

Plain on purpose: it is the reference for the other engines and runs wherever torch does. Prompts
of different lengths are padded on the left, with position ids and an attention mask that hide the
padding; the cache then holds that padding until the next start.
Run it: `TorchEngine.from_checkpoint(folder, "cuda", "bfloat16").start([ids])`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache, LlamaForCausalLM

from jpeglm.config import InputError


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
            raise InputError(f"{folder} is no whole checkpoint folder: {error}") from error
        try:
            torch.nn.Module.to(model, torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used: {error}") from error
        return cls(model.eval())

    @torch.inference_mode()
    def start(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
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
        self._cache, self._columns, self._padding = DynamicCache(), 0, padding
        logits = self._compute(ids)
        if len(unique) < len(prompts):
            self.keep(np.array(rows))
            logits = logits[rows]
        return logits

    @torch.inference_mode()
    def step(self, ids: np.ndarray) -> np.ndarray:
        if self._columns - self._padding.min() >= self.max_length:
            raise InputError(f"a sequence is longer than the model's context, {self.max_length}")
        return self._compute(np.asarray(ids, np.int64)[:, None])

    def _compute(self, ids: np.ndarray) -> np.ndarray:
        """Logits after ids [B, N], which follow what the cache holds."""
        begin, self._columns = self._columns, self._columns + ids.shape[1]
        columns, padding = np.arange(self._columns), self._padding[:, None]
        # Without padding the mask is left out, which lets attention take its fast causal road.
        seen = torch.from_numpy(columns >= padding).long().to(self.device)
        out = self.model(
            input_ids=torch.from_numpy(ids).to(self.device),
            attention_mask=seen if padding.any() else None,
            position_ids=torch.from_numpy(np.maximum(columns[begin:] - padding, 0)).to(self.device),
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: self._cache},
        )
        return out.logits[:, -1].float().cpu().numpy()

    @torch.inference_mode()
    def keep(self, rows: np.ndarray) -> None:
        rows = np.asarray(rows, np.int64)
        self._cache.batch_select_indices(torch.from_numpy(rows).to(self.device))
        self._padding = self._padding[rows]
