"""How many processes train together, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from jpeglm.config import InputError
from jpeglm.training import TrainConfig
from jpeglm.training.run import has_bfloat16


@contextmanager
def joined(config: TrainConfig) -> Iterator[Accelerator]:
    """The processes that were launched together, until the block ends."""
    # Without cpu=True accelerate ignores torchrun's environment on a machine that has no device:
    # every process would train the whole run alone, into the same folder.
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=_precision(config),
        step_scheduler_with_optimizer=False,
    )
    try:
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != accelerator.num_processes:
            raise InputError(
                f"{launched} processes were launched but accelerate joined "
                f"{accelerator.num_processes}; start them with torchrun or accelerate launch"
            )
        yield accelerator
    finally:
        accelerator.end_training()
        # One process may train twice with other precisions; accelerate keeps the first otherwise.
        AcceleratorState._reset_state(reset_partial_state=True)


def _precision(config: TrainConfig) -> str:
    """accelerate's word for the precision."""
    if config.precision != "auto":
        return {"float32": "no", "bfloat16": "bf16"}[config.precision]
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    if torch.backends.mps.is_available():
        return "no"
    # Measured at 2m on one core: 1.4 times as fast as float32 with avx512_bf16.
    return "bf16" if has_bfloat16(torch.device("cpu")) else "no"
