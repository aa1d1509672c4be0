"""FSDP2: a model whose weights, gradients and optimizer lie in shares on many processes.

torch's `fully_shard` (arXiv 2304.11277) gathers a layer's weights when it is computed and lets go
of them after it. Each layer is a group; embedding, last norm and output are another, so that tied
weights are one tensor. A model is never whole anywhere: it is built without memory, a layer gets
its values and is split before the next one gets any, so that a process needs its share and one
layer. Under bfloat16 the layers' weights travel in it and gradients are summed in float32, as
autocast has it without FSDP; embedding and output are gathered in float32, being small here.

Trade-off: gradients are reduced at every forward pass of an accumulated step, which costs messages,
since unreduced ones would be whole on every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from jpeglm.checkpoint import from_bfloat16
from jpeglm.models.llama import fill
from jpeglm.training import TrainConfig
from jpeglm.training.job import Objective

__all__ = ["local", "policy", "process_mesh", "reshard", "shard", "whole"]

LAYERS = "model.layers."
"""What the names of the layers' parameters begin with."""


def process_mesh(config: TrainConfig, accelerator: Accelerator) -> DeviceMesh:
    """All processes in a line, `shard`; or with replicas in a table, `replica` by `shard`."""
    count, device = accelerator.num_processes, accelerator.device.type
    if config.replicas == 1:
        return init_device_mesh(device, (count,), mesh_dim_names=("shard",))
    table = config.replicas, count // config.replicas
    return init_device_mesh(device, table, mesh_dim_names=("replica", "shard"))


def shard(
    objective: Objective,
    shape: dict[str, Any],
    seed: int,
    mesh: DeviceMesh,
    policy: MixedPrecisionPolicy,
    weights: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Give an objective whose model is on `meta` the values of `models.llama.build`, split over the
    mesh. weights: values to begin with instead, by name, bfloat16 as uint16; rows of the embedding
    that they lack stay random."""
    model = objective.model
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=model.config)  # its tables are no parameters
    holders: dict[int, list[tuple[torch.nn.Module, str]]] = {}  # of tied weights there are two
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            holders.setdefault(id(parameter), []).append((module, name))
    generator = torch.Generator().manual_seed(seed)
    for layer, named in groupby([*model.named_parameters()], lambda item: _layer(item[0])):
        for name, empty in named:
            values = torch.empty(empty.shape, dtype=torch.float32, device="cpu")
            fill(name, values, shape, generator)
            if weights is not None and name in weights:
                given = weights[name]
                given = from_bfloat16(given) if given.dtype == np.uint16 else given
                values[: len(given)] = torch.from_numpy(np.array(given, np.float32))
            made = torch.nn.Parameter(values)
            for module, own in holders[id(empty)]:
                setattr(module, own, made)
        if layer is not None:
            fully_shard(model.model.layers[layer], mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh)


def _layer(name: str) -> int | None:
    """The number of the layer that a parameter belongs to, if any."""
    return int(name.split(".")[2]) if name.startswith(LAYERS) else None


def policy(precision: str) -> MixedPrecisionPolicy:
    """How the layers' weights travel, in accelerate's words for precisions."""
    if precision == "no":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )


def reshard(objective: torch.nn.Module) -> None:
    """Let go of weights that a forward pass without gradients has left gathered."""
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor of which a process may hold a share, gathered; every process takes part."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local(value: torch.Tensor) -> torch.Tensor:
    """The share of a tensor that lies here: all of it, or a view of this process's rows."""
    return value.to_local() if isinstance(value, DTensor) else value
