"""Hugging Face transformers, `generate` with its default cache."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

NAME = "transformers.generate"
PRECISIONS = ("float32",)


def open(folder: Path, work: Path, precision: str) -> Callable[[int, int], None]:
    model = LlamaForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    model.eval()
    bos, eos = model.generation_config.bos_token_id, model.generation_config.eos_token_id

    def call(batch: int, tokens: int) -> None:
        ids = torch.full((batch, 1), bos)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=40,
            top_p=0.9,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=eos,
        )

    return call
