"""Sampling speed of the shipped model: our engine against transformers.generate, same sampling.

python benchmarks/generation.py [--tokens 200] [--repeats 3] [--checkpoint DIR]

Tokens/s of all sequences, prefill of one BOS included. The peer samples without grammar; our rows
say whether the grammar was on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import finish, rates
from transformers import LlamaForCausalLM

from jpeglm.checkpoint import load_checkpoint, shipped_checkpoint
from jpeglm.generation.constraint import Constraint, Prompt
from jpeglm.generation.generate import make_engine, run
from jpeglm.generation.sampling import Sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint or shipped_checkpoint())
    peer = LlamaForCausalLM.from_pretrained(
        checkpoint.folder, local_files_only=True, dtype=torch.float32
    ).eval()
    constraint = Constraint(checkpoint.tokenizer)
    prompt = Prompt(np.array([checkpoint.tokenizer.bos], np.int32), np.zeros(0, np.int32))
    grammar = constraint.grammar
    shortest = grammar.shortest(grammar.start()) + 2
    budget = max(arguments.tokens, shortest)
    tables = {}
    for batch in (1, 16):
        ids = torch.full((batch, 1), checkpoint.tokenizer.bos)
        sampled: dict[str, int] = {}

        def transformers_generate(ids: torch.Tensor = ids) -> None:
            # No end of sequence, so that every turn draws the same number of tokens.
            peer.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=40,
                top_p=0.9,
                max_new_tokens=budget - 1,
                min_new_tokens=budget - 1,
                pad_token_id=checkpoint.tokenizer.eos,
            )

        rows = {"transformers.generate, float32": transformers_generate}
        for precision in ("float32", "bfloat16", "int8"):
            engine = make_engine(checkpoint, precision=precision)
            for name, legal in (("", True), (", no grammar", False)):
                if name and precision != "float32":
                    continue

                def ours(
                    engine=engine,
                    legal=legal,
                    batch=batch,
                    key=precision + name,
                    sampled=sampled,
                ) -> None:
                    sampling = Sampling(1.0, 40, 0.9, grammar=legal)
                    drawn, _ = run(
                        engine, constraint, prompt, batch, sampling, 0, budget, batch=batch
                    )
                    sampled[key] = sum(map(len, drawn))

                rows[f"jpeglm, {precision}{name}"] = ours
        table = rates(rows, 1.0, arguments.repeats)
        for name, figures in table.items():
            tokens = sampled.get(name.removeprefix("jpeglm, "), batch * (budget - 1))
            table[name] = {key: value * tokens for key, value in figures.items()}
        tables[f"batch {batch}, {budget} tokens"] = table
    finish("generation", "tokens/s", tables)


if __name__ == "__main__":
    main()
