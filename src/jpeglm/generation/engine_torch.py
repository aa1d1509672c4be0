"""Llama in torch on any device: transformers' own model and KV cache, no numba.

Plain on purpose: it is the reference for the other engines and runs wherever torch does. Prompts
of one length are prefilled together; sequences of different lengths are kept left-padded, with
position ids and an attention mask that hide the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache, LlamaForCausalLM

from jpeglm.config import InputError


class TorchEngine:
    """`engine.Engine` tells what the methods do."""

    def __init__(self, model: LlamaForCausalLM, max_length: int | None = None) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.vocab_size = int(model.config.vocab_size)
        self.max_length = int(max_length or model.config.max_position_embeddings)
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self.device)

    @classmethod
    def from_checkpoint(
        cls, folder: Path, device: str = "cpu", precision: str = "float32"
    ) -> TorchEngine:
        """Load a checkpoint folder; precision float32 or bfloat16."""
        types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if precision not in types:
            raise InputError(
                f"precision is {precision!r}; the torch engine has {' and '.join(types)}"
            )
        try:
            model = LlamaForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=types[precision]
            )
            torch.nn.Module.to(model, torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used: {error}") from error
        return cls(model.eval())

    @torch.inference_mode()
    def start(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        longest = max(len(prompt) for prompt in prompts)
        if longest > self.max_length:
            raise InputError(
                f"the prompt has {longest} tokens, the model's context {self.max_length}"
            )
        unique: dict[bytes, int] = {}
        rows = [unique.setdefault(np.asarray(p, np.int64).tobytes(), len(unique)) for p in prompts]
        ids = np.zeros((len(unique), longest), np.int64)
        mask = np.zeros((len(unique), longest), np.int64)
        for row, prompt in zip(rows, prompts):
            ids[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        self._cache = DynamicCache()
        self._mask = torch.from_numpy(mask).to(self.device)
        logits = self._compute(torch.from_numpy(ids).to(self.device))
        if len(unique) < len(prompts):
            chosen = torch.tensor(rows, device=self.device)
            self._cache.batch_select_indices(chosen)
            self._mask = self._mask[chosen]
            logits = logits[rows]
        return logits

    @torch.inference_mode()
    def step(self, ids: np.ndarray) -> np.ndarray:
        if int(self._mask.sum(1).max()) >= self.max_length:
            raise InputError(f"a sequence is longer than the model's context, {self.max_length}")
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        return self._compute(
            torch.as_tensor(np.asarray(ids, np.int64), device=self.device)[:, None]
        )

    def _compute(self, ids: torch.Tensor) -> np.ndarray:
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float().cpu().numpy()

    @torch.inference_mode()
    def keep(self, rows: np.ndarray) -> None:
        chosen = torch.as_tensor(np.asarray(rows, np.int64), device=self.device)
        self._cache.batch_select_indices(chosen)
        self._mask = self._mask[chosen]
