"""Sampling and training on a GPU, with the share of the hardware that is used.

    python benchmarks/device.py [--device cuda] [--models 85m 1b] [--batches 1 16 128]

Tokens/s of all sequences with the grammar on, all on the device (`engine_graph`); beside it
`transformers.generate` with a static cache, compiled, without grammar, and our plain torch engine.
`floor` is what the device's memory allows if a step reads the weights and nothing else; the
bandwidth is measured by copying. Training: tokens/s of one step, and the share of the product of
large matrices that its FLOPs come to (MFU).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, rates, spread
from generation import random_checkpoint
from transformers import LlamaForCausalLM

from jpeglm.generation.constraint import Constraint, Prompt
from jpeglm.generation.engine_graph import GraphEngine
from jpeglm.generation.engine_torch import TorchEngine
from jpeglm.generation.generate import run
from jpeglm.generation.sampling import Sampling
from jpeglm.models.llama import build, flops_per_token, parameters, preset


def seconds(call: Any, device: str, repeats: int = 5) -> float:
    """Median time of a call whose work the device may still be doing when it returns."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def bandwidth(device: str) -> float:
    """Bytes a second that the device's memory gives, reading and writing."""
    data = torch.zeros(1 << (28 if device != "cpu" else 25), device=device)
    other = torch.empty_like(data)
    return 2 * data.nbytes / seconds(lambda: other.copy_(data), device)


def peak(device: str, kind: torch.dtype) -> float:
    """FLOPs a second of a product of large matrices."""
    size = 8192 if device != "cpu" else 1024
    a = torch.randn(size, size, device=device, dtype=kind)
    return 2 * size**3 / seconds(lambda: a @ a, device)


def sampling(
    name: str, batch: int, tokens: int, device: str, kind: torch.dtype, repeats: int
) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as home:
        checkpoint = random_checkpoint(name, Path(home, "model"))
        model: Any = LlamaForCausalLM.from_pretrained(checkpoint.folder, dtype=kind)
    model.to(device).eval()
    constraint = Constraint(checkpoint.tokenizer)
    bos = checkpoint.tokenizer.bos
    prompt = Prompt(np.array([bos], np.int32), np.zeros(0, np.int32))
    budget = max(tokens, constraint.grammar.shortest(constraint.grammar.start()) + 2)
    counts = {}

    def ours(kind: Any) -> Any:
        engine = kind(model)
        settings = Sampling(1.0, 40, 0.9)

        def call() -> int:
            arguments = (engine, constraint, prompt, batch, settings, 0, budget, batch)
            return sum(map(len, run(*arguments)[0]))

        counts[kind.__name__] = call()
        return call

    ids = torch.full((batch, 1), bos, device=device)
    compiled = {"cache_implementation": "static"} if device != "cpu" else {}

    def theirs() -> None:
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=40, top_p=0.9,
            max_new_tokens=budget - 1, min_new_tokens=budget - 1, pad_token_id=bos, **compiled,
        )  # fmt: skip

    counts["theirs"] = batch * (budget - 1)
    found = rates(
        {"theirs": theirs, "TorchEngine": ours(TorchEngine), "GraphEngine": ours(GraphEngine)},
        1.0,
        repeats,
    )
    titles = {
        "theirs": "transformers.generate, static cache",
        "TorchEngine": "jpeglm, plain torch",
        "GraphEngine": "jpeglm, on the device",
    }
    rows = {
        titles[key]: {name: value * counts[key] for name, value in figures.items()}
        for key, figures in found.items()
    }
    width = 2 if kind == torch.bfloat16 else 4
    rows["floor"] = spread([batch * bandwidth(device) / (width * parameters(checkpoint.config))])
    return rows


def training(
    name: str, context: int, tokens: int, device: str, kind: torch.dtype
) -> dict[str, dict[str, float]]:
    shape = preset(name, 1024, context)
    model: Any = build(shape, 0).to(device)
    adamw = torch.optim.AdamW(model.parameters(), fused=True)
    rows = max(1, tokens // context)
    ids = torch.randint(0, 1000, (rows, context), device=device)

    def step() -> None:
        with torch.autocast(device.split(":")[0], kind, enabled=kind != torch.float32):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        adamw.step()
        adamw.zero_grad()

    each = flops_per_token(shape, context)
    speed = ids.numel() / seconds(step, device, 3)
    return {
        "tokens/s": spread([speed]),
        "share of the matrix product's FLOPs": spread([speed * each / peak(device, kind)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["85m", "1b"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 128])
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--train", nargs="*", default=["85m", "1b"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[4096, 12288])
    parser.add_argument("--batch-tokens", type=int, default=24576, help="of a training step")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    device = arguments.device
    kind = torch.float32 if device == "cpu" else torch.bfloat16
    tables: dict[str, Any] = {}
    for name in arguments.models:
        for batch in arguments.batches:
            tables[f"sampling, {name}, batch {batch}"] = sampling(
                name, batch, arguments.tokens, device, kind, arguments.repeats
            )
    for name in arguments.train:
        for context in arguments.contexts:
            title = f"training, {name}, context {context}"
            tables[title] = training(name, context, arguments.batch_tokens, device, kind)
    what = torch.cuda.get_device_name(device) if device != "cpu" else "cpu"
    finish(f"device-{device.split(':')[0]}", f"tokens/s on {what}", tables)


if __name__ == "__main__":
    main()
