"""What it changes whether the grammar comes before top-k and top-p, or behind them.

    python benchmarks/orders.py [--checkpoint photos] [-n 64] [--top-k 40] [--top-p 0.9]

jpeglm takes temperature, top-k and top-p of the model's own distribution and the grammar last;
`generate` of transformers and vLLM apply processors first. Pictures are drawn by transformers in
either order, from the same seed. At each step of both sets the two distributions are compared: how
likely an illegal token was, how often the two differ, by how much (total variation), and how often
the model's nucleus held nothing legal. Of the pictures: bits under the model, tokens, and how many
of them are the same. Last, what the processor itself costs. The result is docs/results/orders.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from common import ROOT, machine
from transformers import AutoModelForCausalLM

from jpeglm.config import Sampling
from jpeglm.files import write_json
from jpeglm.generation.matcher import Constraint, Matcher
from jpeglm.integrations.transformers import GrammarProcessor, narrowed
from jpeglm.places import checkpoint_folder
from jpeglm.tokenizer import Tokenizer

BATCH = 32


def draw(model: Any, tokenizer: Tokenizer, count: int, sampling: Sampling, first: bool) -> list:
    """Rows of ids; first: the grammar before top-k and top-p."""
    longest = model.config.max_position_embeddings
    torch.manual_seed(0)
    rows: list[list[int]] = []
    behind = {"top_k": sampling.top_k, "top_p": sampling.top_p}
    for _ in range(0, count, BATCH):
        processor = GrammarProcessor(tokenizer, longest, sampling=None if first else sampling)
        found = model.generate(
            torch.full((min(BATCH, count - len(rows)), 1), tokenizer.bos),
            max_length=longest, do_sample=True, pad_token_id=tokenizer.eos, temperature=1.0,
            logits_processor=[processor], **(behind if first else {"top_k": 0, "top_p": 1.0}),
        )  # fmt: skip
        for row in found.tolist():
            rows.append(row[: row.index(tokenizer.eos, 1) + 1])
    return rows


def compare(model: Any, tokenizer: Tokenizer, rows: list, sampling: Sampling) -> dict[str, float]:
    """Of all steps of some rows, how the two orders differ."""
    shared, steps = Constraint(tokenizer), []
    longest, bits = model.config.max_position_embeddings, []
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor(row)[None]).logits[0, :-1].float()
        matcher, masks = Matcher(shared, max_tokens=longest), []
        for token in row[1:]:
            masks.append(matcher.allowed())
            matcher.accept(token)
        legal = torch.from_numpy(np.array(masks))
        own = torch.softmax(logits, -1)
        behind = torch.softmax(narrowed(logits, legal, sampling), -1)
        anything = torch.ones_like(legal)
        kept = narrowed(logits.masked_fill(~legal, -torch.inf), anything, sampling)
        before = torch.softmax(kept, -1)
        apart = (before - behind).abs().sum(-1) / 2
        nucleus = torch.isfinite(narrowed(logits, anything, sampling))
        choice = legal.sum(-1) > 1  # where the grammar leaves one token, the orders are one
        lost = (own * ~legal).sum(-1)
        none = ~(nucleus & legal).any(-1)
        steps.append(
            torch.stack([lost, apart, (apart > 1e-6).float(), none.float(), choice.float()])
        )
        taken = own.gather(1, torch.tensor(row[1:])[:, None])[:, 0]
        bits.append(float(-taken.log2().sum()))
    lost, apart, differ, none, choice = torch.cat(steps, 1)
    return {
        "steps": float(len(lost)),
        "steps_with_a_choice": float(choice.mean()),
        "illegal_probability": float(lost.mean()),
        "differing_steps": float(differ.mean()),
        "total_variation": float(apart.mean()),
        "nothing_legal_in_the_nucleus": float(none.mean()),
        "bits_a_picture": float(np.mean(bits)),
        "bits_error": float(np.std(bits) / len(bits) ** 0.5),
        "tokens_a_picture": float(np.mean([len(row) for row in rows])),
    }


def cost(tokenizer: Tokenizer, rows: list) -> float:
    """Microseconds that the processor takes for a row and step, sixteen rows at a time."""
    shortest = min(map(len, rows[:16]))
    ids = torch.tensor([row[:shortest] for row in rows[:16]])
    scores = torch.zeros(len(ids), tokenizer.vocab_size)
    processor = GrammarProcessor(tokenizer, 1 << 20)
    start = time.perf_counter()
    for end in range(1, shortest + 1):
        processor(ids[:, :end], scores)
    return 1e6 * (time.perf_counter() - start) / ids.numel()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="photos")
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=40)
    parser.add_argument("--top-p", type=float, default=0.9)
    arguments = parser.parse_args()
    folder = checkpoint_folder(arguments.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer.load(folder)
    sampling = Sampling(top_k=arguments.top_k, top_p=arguments.top_p)
    drawn = {
        name: draw(model, tokenizer, arguments.n, sampling, first)
        for name, first in (("grammar first", True), ("grammar last", False))
    }
    found = {name: compare(model, tokenizer, rows, sampling) for name, rows in drawn.items()}
    one, other = drawn.values()
    same = sum(a == b for a, b in zip(one, other, strict=True))
    for name, row in found.items():
        print(f"pictures drawn with the {name}")
        for key, value in row.items():
            print(f"  {key:30s} {value:,.4f}")
    print(f"the same picture: {same} of {len(one)}")
    microseconds = min(cost(tokenizer, one) for _ in range(3))
    print(f"the processor takes {microseconds:.0f} µs a row and step")
    out = ROOT / "docs" / "results" / "orders.json"
    settings = {"checkpoint": arguments.checkpoint, "n": arguments.n, **sampling.to_dict()}
    result = {"settings": settings, "found": found, "same": same, "processor_us": microseconds}
    write_json(out, result | {"machine": machine()})
    print(out.relative_to(ROOT))


if __name__ == "__main__":
    main()
