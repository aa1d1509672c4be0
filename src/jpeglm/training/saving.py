"""A run's weights on disk: the model for everybody, checkpoints for going on, and back again.

A checkpoint of whole weights holds them in Hugging Face form and all else in training_state.pt.
Under FSDP every process writes its shares of weights, optimizer and averages, as safetensors
(`shares.py`), and training_state.pt has what is left. Each kind is gone on from under any number of
processes and either strategy. Training goes on while a checkpoint is written (`background.py`); it
costs the loop a copy in the host's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed.checkpoint.state_dict as dcp
import transformers
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor, distribute_tensor

from jpeglm.checkpoint import from_bfloat16, read_weights, write_checkpoint
from jpeglm.config import PAPER_SAMPLING, InputError
from jpeglm.files import atomic_folder, explain, file_size, told
from jpeglm.folders import CHECKPOINT, steps_in
from jpeglm.models.depth import deepened
from jpeglm.models.llama import DEPTH
from jpeglm.training.background import copied
from jpeglm.training.card import card
from jpeglm.training.job import Job, State
from jpeglm.training.run import Checkpoints, save_state
from jpeglm.training.sharding import local, whole
from jpeglm.training.shares import drafted, read_shares, shares, write_shares

__all__ = [
    "load_weights",
    "read_last",
    "restore",
    "resuming",
    "save",
    "saving",
    "settle",
    "write_model",
]

STATE = "training_state.pt"


def write_model(job: Job, folder: Path, dtype: str) -> None:
    """A checkpoint folder of the present weights; every process takes part, and of weights that
    are split one tensor after the other is whole on the first."""
    weights = dict(job.model.named_parameters())  # of tied ones the first alone
    if job.main:
        write_checkpoint(
            folder, weights, job.shape, job.tokenizer, card(job), PAPER_SAMPLING, dtype
        )
    elif job.sharded:
        for weight in weights.values():
            whole(weight.detach())


def save(job: Job) -> None:
    """Copy weights, optimizer and position to the host's memory, and begin to write them as
    checkpoints/step-N, then the pointer to it, while training goes on; every process takes part.
    Whatever the checkpoint before it met is raised here (`settle`)."""
    settle(job)
    windows = job.accelerator.gather(job.window.reshape(1)).tolist()
    job.state.window_nats = float(cast(torch.Tensor, job.accelerator.reduce(job.window, "sum")))
    values = {
        "state": asdict(job.state),
        "run": job.identity,
        "windows": windows,
        "data": job.state.step * job.config.gradient_accumulation,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state()
        if job.accelerator.device.type == "cuda"
        else torch.zeros(0, dtype=torch.uint8),
    }
    if job.sharded:
        write = partial(_write_shares, job, job.state.step, copied(shares(job)), values)
    else:
        options = dcp.StateDictOptions(full_state_dict=True)
        optimizer = dcp.get_optimizer_state_dict(job.objective, job.optimizers, options=options)
        if not job.main:
            return
        weights = {name: weight.detach() for name, weight in job.model.named_parameters()}
        held = copied({"weights": weights, "optimizer": optimizer, "ema": job.ema})
        write = partial(_write_whole, job, job.state.step, held, values, card(job))
    job.background.begin(write)


def settle(job: Job) -> None:
    """Wait until the checkpoint that is being written is whole; what kept any process from it is
    raised on all."""
    met = job.background.wait()
    told = [str(met) if met else ""]
    if job.accelerator.num_processes > 1:
        told = gather_object(told)
    if met:
        raise met
    for line in filter(None, told):
        raise InputError(line)


@contextmanager
def saving(job: Job) -> Iterator[None]:
    """What is being written when a run ends by an error becomes whole all the same."""
    try:
        yield
    except Exception as error:
        met = job.background.wait()
        if met and str(met) != str(error):
            job.warn("checkpoint", f"the last checkpoint was not written: {met}")
        raise


def _write_shares(
    job: Job, step: int, held: dict[str, torch.Tensor], values: dict[str, Any]
) -> None:
    """A checkpoint of shares, by all processes; in the background."""
    folder, group = job.checkpoints.place(step), job.background.group
    with drafted(folder, group) as draft:
        write_shares(held, draft, folder, group)
        if job.main:
            save_state(draft / STATE, values)
    _point(job, step)


def _write_whole(
    job: Job, step: int, held: dict[str, Any], values: dict[str, Any], text: str
) -> None:
    """A checkpoint of whole weights with its card, on the first process; in the background."""
    weights = held.pop("weights")
    with atomic_folder(job.checkpoints.place(step), CHECKPOINT.names) as draft:
        write_checkpoint(draft, weights, job.shape, job.tokenizer, text, PAPER_SAMPLING, "float32")
        save_state(draft / STATE, values | held)
    _point(job, step)


def _point(job: Job, step: int) -> None:
    """Once the rows of the log that it counts on last, last.json names a checkpoint."""
    if job.metrics:
        job.metrics.sync()
        job.checkpoints.wrote(step)


@contextmanager
def resuming(checkpoints: Checkpoints) -> Iterator[None]:
    """Whatever is wrong with the last checkpoint is InputError with what to do; the one before it
    is not taken unasked, since what was learnt since then would be lost in silence."""
    try:
        yield
    except Exception as error:
        folder = checkpoints.last()
        if folder is None:
            raise
        others = [path.name for path in steps_in(checkpoints.folder) if path != folder]
        how = f"point {checkpoints.pointer} to {others[-1]} or " if others else ""
        raise InputError(
            f"cannot resume from {folder}: {told(error)}; {how}train into a new folder"
        ) from error


def read_last(checkpoints: Checkpoints) -> dict[str, Any] | None:
    """The last checkpoint's training state, None at a new start; without `optimizer` it is one of
    shares."""
    folder = checkpoints.last()
    if folder is None:
        return None
    file = folder / STATE
    file_size(file)  # InputError if there is no such file
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise explain(error, file) from error
    except Exception as error:  # as many kinds as there are damages
        raise InputError(f"{file} is damaged, torch cannot read it") from error
    if not isinstance(saved, dict) or not {"state", "data", "rng"} <= saved.keys():
        raise InputError(f"{file} is no training state")
    return saved


def restore(job: Job, saved: dict[str, Any]) -> None:
    """Go on from what `read_last` gave; where it is of shares, weights are read now."""
    if "optimizer" in saved:
        options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
        dcp.set_optimizer_state_dict(
            job.objective, job.optimizers, saved["optimizer"], options=options
        )
        for name, average in saved["ema"].items():
            _lay(average, job.ema[name])
    else:
        read_shares(job, cast(Path, job.checkpoints.last()))
    state = saved["state"]
    job.state = State(**{"best_worth": state["best"], **state})  # older runs know bits alone
    windows = saved.get("windows", [])
    if len(windows) == job.accelerator.num_processes:
        job.window.fill_(windows[job.accelerator.process_index])
    else:
        job.window.fill_(job.state.window_nats / job.accelerator.num_processes)
    job.loader.seek(saved["data"])
    torch.set_rng_state(saved["rng"])
    if job.accelerator.device.type == "cuda" and len(saved["cuda_rng"]):
        torch.cuda.set_rng_state(saved["cuda_rng"])


def _lay(values: torch.Tensor, place: torch.Tensor) -> None:
    """Whole values into a tensor of which a share may lie here."""
    if isinstance(place, DTensor):
        values = distribute_tensor(values.to(place.device), place.device_mesh, place.placements)
    local(place).copy_(local(values))


def weights_for(layers: int, folder: Path, shape: dict[str, Any]) -> dict[str, np.ndarray]:
    """A checkpoint's weights, of a configuration `shape`, for a model of so many layers."""
    return deepened(read_weights(folder, shape), shape[DEPTH], layers)


def load_weights(model: transformers.LlamaForCausalLM, folder: Path, shape: dict[str, Any]) -> None:
    """A checkpoint's weights, of a configuration `shape`, into a model; of tied weights the file
    holds one. Tokens that only the model has keep the rows it was made with, and the layers that
    only it has begin as `models.depth` says."""
    weights = {
        name: torch.from_numpy(
            from_bfloat16(array) if array.dtype == np.uint16 else np.array(array, np.float32)
        )
        for name, array in weights_for(model.config.num_hidden_layers, folder, shape).items()
    }
    own = model.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name] = torch.cat([weights[name], own[name][len(weights[name]) :]])
    model.load_state_dict(weights, strict=False)
