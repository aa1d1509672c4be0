"""What is put round a model, in its order: checkpointing changes the layers, compile traces them,
DDP or FSDP wraps the result.

One process and DDP build the whole model; under FSDP it is built in shares (`sharding.py`), and
its layers are compiled one by one, since their hooks break a graph between any two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from jpeglm.models.llama import DEPTH, build, unfilled
from jpeglm.training import TrainConfig
from jpeglm.training.job import Objective
from jpeglm.training.optimizers import optimizers
from jpeglm.training.saving import load_weights, weights_for
from jpeglm.training.sharding import policy, process_mesh, shard

__all__ = ["wrapped"]


def wrapped(
    shape: dict[str, Any],
    config: TrainConfig,
    accelerator: Accelerator,
    strategy: str,
    attention: str,
    begin: tuple[Path, dict[str, Any]] | None,
) -> tuple[Any, Any, list[torch.optim.Optimizer]]:
    """(objective as it is called, the Llama inside, its optimizers). strategy: `single`, `ddp` or
    `fsdp`; begin: a folder with the weights to begin with and its configuration."""
    sharded = strategy == "fsdp"
    if sharded:
        with torch.device("meta"):
            model = unfilled(shape, attention)
    else:
        model = build(shape, config.seed, attention)
        if begin:
            load_weights(model, *begin)
    torch.manual_seed(config.seed)
    if config.activation_checkpointing:
        # transformers 5.23 renames it, older ones know only the old name.
        old = model.gradient_checkpointing_enable
        getattr(model, "activation_checkpointing_enable", old)({"use_reentrant": False})
    objective = Objective(model)
    if config.compile == "on" or (config.compile == "auto" and accelerator.device.type == "cuda"):
        for part in model.model.layers if sharded else [objective]:
            # Rows have one shape, but in chunks for the last batch of an epoch.
            part.compile(dynamic=config.packing == "pictures")
    if not sharded:
        whole, *stepping = accelerator.prepare(objective, *optimizers(model, config))
        return whole, accelerator.unwrap_model(whole).model, [one.optimizer for one in stepping]
    weights = weights_for(shape[DEPTH], *begin) if begin else None
    mesh = process_mesh(config, accelerator)
    shard(objective, shape, config.seed, mesh, policy(accelerator.mixed_precision), weights)
    return objective, model, optimizers(model, config)
