"""The size and the warm-up of a run that is told its minutes alone, by how fast this machine is.

A few training steps of one preset after the other are timed, from the smallest on, until one is
large enough for the budget (`advice.choose_preset`): some seconds. A run that goes on keeps what
was chosen for it. Trade-off: two equal commands with --minutes may choose differently at the edge
between two sizes; a budget in steps times nothing.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from jpeglm.checkpoint import Checkpoint
from jpeglm.data.token_set import TokenSet
from jpeglm.files import read_json
from jpeglm.folders import RUN, record_of
from jpeglm.models.llama import build, like, nearest_preset, parameters, preset
from jpeglm.tokenizer import Tokenizer
from jpeglm.training import AUTO, PRESET, WARMUP, TrainConfig
from jpeglm.training.advice import (
    PASSES,
    WARMUP_SHARE,
    choose_preset,
    crops_advice,
    expected_share,
)
from jpeglm.training.job import Objective
from jpeglm.training.optimizers import optimizers

STEPS = 3
"""Steps that are timed, after a first one."""
SECONDS = 5.0
"""If the first one takes longer, it is the measurement."""


def resolve(
    config: TrainConfig,
    out: Path,
    init: Checkpoint | None,
    tokens: TokenSet,
    length: int,
    tokenizer: Tokenizer,
    accelerator: Accelerator,
) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings with preset and warm-up told, and what was found of the budget: `tokens` and
    `tokens_per_second`, {} of none; both of the run in `out` where there is one."""
    record = record_of(out, RUN)
    if record is not None and "preset" in record["settings"]:
        old = record["settings"]
        chosen = {name: old[name] for name, kept in
                  (("preset", config.preset != AUTO), ("warmup", config.warmup is not None))
                  if not kept}  # fmt: skip
        return replace(config, **chosen), record.get("advice", {})
    name = nearest_preset(init.config) if init else PRESET
    if not config.timed:
        return _told(config, name, WARMUP), _of_steps(config)
    measured: dict[str, float] = {}
    worth = PASSES * tokens.total

    def shape_of(size: str) -> dict[str, Any]:
        if init:
            return like(init.config, length, **config.model)
        return preset(size, tokenizer.vocab_size, length, **config.model)

    def tokens_in(size: str) -> float:
        measured[size] = speed(replace(config, preset=size), shape_of(size), tokens, accelerator)
        return min(measured[size] * 60 * config.minutes, worth)

    if config.preset != AUTO:
        name = config.preset
    elif not (init or config.model):
        name = choose_preset(tokens_in, lambda size: parameters(shape_of(size)))
    if name not in measured:
        tokens_in(name)
    seen = measured[name] * 60 * config.minutes
    steps = max(1, int(seen / (config.batch_tokens * config.gradient_accumulation)))
    told: list[Any] = [name, min(WARMUP, max(1, steps // WARMUP_SHARE)), measured[name]]
    if accelerator.num_processes > 1:
        broadcast_object_list(told)  # clocks differ
    name, warmup, rate = told
    about = {"tokens": rate * 60 * config.minutes, "tokens_per_second": rate}
    return _told(config, name, warmup), about


def _told(config: TrainConfig, name: str, warmup: int) -> TrainConfig:
    return replace(
        config,
        preset=name if config.preset == AUTO else config.preset,
        warmup=warmup if config.warmup is None else config.warmup,
    )


def _of_steps(config: TrainConfig) -> dict[str, Any]:
    each = config.batch_tokens * config.gradient_accumulation
    return {"tokens": config.steps * each} if config.steps else {}


def speed(
    config: TrainConfig, shape: dict[str, Any], tokens: TokenSet, accelerator: Accelerator
) -> float:
    """Training tokens/s of all processes, uncompiled, in rows as long as the data's are."""
    length = shape["max_position_embeddings"]
    if config.packing == "pictures":
        length = min(length, max(2, round(float(tokens.lengths.mean()))))
    rows = max(1, config.batch_tokens // accelerator.num_processes // length)
    device = accelerator.device
    model = build(shape, config.seed, attention(accelerator)).to(device)
    objective, stepping = Objective(model), optimizers(model, config)
    ids = torch.zeros((rows, length), dtype=torch.int64, device=device)
    began = time.monotonic()
    for count in range(1 + STEPS):
        with accelerator.autocast():
            loss = objective(ids, ids)
        torch.autograd.backward(loss / ids.numel())
        for one in stepping:
            one.step()
            one.zero_grad(set_to_none=True)
        float(loss.detach())  # a GPU has done it then
        seconds = time.monotonic() - began
        if count == 0 and seconds > SECONDS:
            break
        if count == 0:
            began = time.monotonic()
    return float(rows * length * max(1, count) * accelerator.num_processes / seconds)


def attention(accelerator: Accelerator) -> str:
    """How rows attend fastest in training (`models.llama.build`)."""
    cpu = accelerator.device.type == "cpu"
    return "short" if cpu and accelerator.mixed_precision == "bf16" else "causal"


def advice(
    config: TrainConfig,
    about: dict[str, Any],
    shape: dict[str, Any],
    tokens: TokenSet,
    tokenizer: Tokenizer,
    own_bits: float,
    data: Path,
) -> list[str]:
    """What was chosen, what to expect, and whether the data suffice, in sentences."""
    if not about:
        return []
    seen, said = about["tokens"], []
    if "tokens_per_second" in about:
        steps = seen / (config.batch_tokens * config.gradient_accumulation)
        said.append(
            f"{config.minutes:g} minutes here are about {seen / 1e6:.1f} M tokens "
            f"({about['tokens_per_second']:,.0f} a second), {steps:,.0f} steps: size "
            f"{config.preset} ({parameters(shape) / 1e6:.1f} M parameters), peak learning rate "
            f"{config.peak:g}, steps of warm-up {config.warmup_steps}"
        )
    share = expected_share(seen, tokenizer.codec.to_dict(), tokenizer.alphabet.name)
    if share and own_bits and not config.init:
        said.append(
            f"to expect: about {share * own_bits:,.0f} bits a held-out picture, {share:.0%} of "
            "Huffman's, if the pictures are like photographs (the law of docs/tokens.md)"
        )
    record = data / "dataset.json"
    crops = read_json(record).get("settings", {}).get("crops", 0) if record.exists() else 0
    if more := crops_advice(seen, tokens.total, crops, str(data)):
        said.append(more)
    return said
