"""The processes of a run: how they were launched, that all are there, what each of them does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from jpeglm.config import InputError, shorten
from jpeglm.launch import launched, rank
from jpeglm.training import AUTO, TrainConfig
from jpeglm.training.run import has_bfloat16

__all__ = ["joined", "strategy_of", "what_runs"]

MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher sets beside WORLD_SIZE."""
FOREIGN = {"FSDP": "use_fsdp", "DEEPSPEED": "use_deepspeed", "MEGATRON_LM": "use_megatron_lm",
           "PARALLELISM_CONFIG": "use_parallelism_config"}  # fmt: skip
"""What `accelerate launch` may ask for and by which option; none of it would come about."""


@contextmanager
def joined(config: TrainConfig) -> Iterator[Accelerator]:
    """The processes that were launched together, until the block ends; InputError where they
    cannot do what `config` asks of them."""
    if launched() > 1 and (missing := [name for name in MEETING if name not in os.environ]):
        raise InputError(
            f"WORLD_SIZE says that {launched()} processes were launched, but {missing[0]} is not "
            "set; start them with torchrun, accelerate launch or srun, or unset WORLD_SIZE"
        )
    for name, option in FOREIGN.items():
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise InputError(
                f"accelerate was told --{option}, which has no effect here; launch without it, and "
                "give jpeglm train --strategy fsdp to split a model over processes"
            )
    # Without cpu=True accelerate ignores torchrun's environment on a machine that has no device:
    # every process would train the whole run alone, into the same folder.
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=_precision(config),
            step_scheduler_with_optimizer=False,
        )
    except RuntimeError as error:  # DistError is one
        if launched() == 1:
            raise
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        what = "see that all were started and reach it"
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
            # torch 2.13 meets in one store again, in which the addresses of the dead are.
            what = (
                "processes start again only if torchrun has TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 "
                "in its environment and --standalone or --rdzv-backend c10d"
            )
        raise InputError(
            f"process {rank()} of {launched()} did not find the others at {place} "
            f"({shorten(str(error).splitlines()[0])}); {what}"
        ) from error
    try:
        if launched() != accelerator.num_processes:
            raise InputError(
                f"{launched()} processes were launched but accelerate joined "
                f"{accelerator.num_processes}; start them with torchrun, accelerate launch or srun"
            )
        strategy_of(config, accelerator)
        yield accelerator
    finally:
        accelerator.end_training()
        # One process may train twice with other precisions; accelerate keeps the first otherwise.
        AcceleratorState._reset_state(reset_partial_state=True)


def strategy_of(config: TrainConfig, accelerator: Accelerator) -> str:
    """`single`, `ddp` or `fsdp`; InputError where what was asked for cannot be had."""
    count = accelerator.num_processes
    config.check_processes(count)
    if config.strategy == "fsdp" and accelerator.device.type not in ("cpu", "cuda"):
        raise InputError(f"fsdp runs on cuda and cpu, not on {accelerator.device.type}; use ddp")
    if config.strategy == AUTO:
        return "single" if count == 1 else "ddp"
    return config.strategy


def what_runs(config: TrainConfig, accelerator: Accelerator) -> str:
    """A sentence of what a run's steps are made by."""
    count = accelerator.num_processes
    strategy = strategy_of(config, accelerator)
    how = "1 process" if count == 1 else f"{count} processes, {strategy}"
    if strategy == "fsdp":
        how += f" over {count // config.replicas}"
        how += f" in {config.replicas} replicas" if config.replicas > 1 else ""
    precision = {"no": "float32", "bf16": "bfloat16"}[accelerator.mixed_precision]
    tokens = config.batch_tokens * config.gradient_accumulation
    return (
        f"{how} on {accelerator.device.type}, {precision}, {config.optimizer}, at most {tokens:,} "
        "tokens a step"
    )


def _precision(config: TrainConfig) -> str:
    """accelerate's word for the precision."""
    if config.precision != AUTO:
        return {"float32": "no", "bfloat16": "bf16"}[config.precision]
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    if torch.backends.mps.is_available():
        return "no"
    # Measured at 2m on one core: 1.4 times as fast as float32 with avx512_bf16.
    return "bf16" if has_bfloat16(torch.device("cpu")) else "no"
