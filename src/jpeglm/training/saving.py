"""A run's weights on disk: the model for everybody, checkpoints for going on, and back again.

A checkpoint of whole weights holds them in Hugging Face form and all else in training_state.pt.
Under FSDP every process writes its shares of weights, optimizer and averages, as safetensors
(`shares.py`), and training_state.pt has what is left. Each kind is gone on from under any number of
processes and either strategy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed.checkpoint.state_dict as dcp
from torch.distributed.tensor import DTensor, distribute_tensor

from jpeglm.checkpoint import from_bfloat16, read_weights, write_checkpoint
from jpeglm.config import PAPER_SAMPLING, InputError
from jpeglm.files import atomic_folder
from jpeglm.folders import CHECKPOINT
from jpeglm.training.card import card
from jpeglm.training.job import Job, State
from jpeglm.training.run import Checkpoints, save_state
from jpeglm.training.sharding import local, whole
from jpeglm.training.shares import drafted, read_shares, write_shares

__all__ = ["load_weights", "read_last", "restore", "resuming", "save", "write_model"]

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
    """Weights, optimizer and position as checkpoints/step-N, then the pointer to it; every process
    takes part."""
    windows = job.accelerator.gather(job.window.reshape(1)).tolist()
    job.state.window_nats = float(cast(torch.Tensor, job.accelerator.reduce(job.window, "sum")))
    folder = job.checkpoints.place(job.state.step)
    values = {
        "state": asdict(job.state),
        "windows": windows,
        "data": job.state.step * job.config.gradient_accumulation,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state()
        if job.accelerator.device.type == "cuda"
        else torch.zeros(0, dtype=torch.uint8),
    }
    if job.sharded:
        with drafted(job.accelerator, folder) as draft:
            write_shares(job, draft)
            if job.main:
                save_state(draft / STATE, values)
    else:
        options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
        values["optimizer"] = dcp.get_optimizer_state_dict(
            job.objective, job.optimizers, options=options
        )
        values["ema"] = {name: average.cpu() for name, average in job.ema.items()}
        names = CHECKPOINT.names
        with atomic_folder(folder, names) if job.main else nullcontext(folder) as draft:
            write_model(job, draft, "float32")
            if job.main:
                save_state(draft / STATE, values)
    if job.metrics:
        job.metrics.sync()
        job.checkpoints.wrote(job.state.step)
    job.accelerator.wait_for_everyone()


@contextmanager
def resuming(checkpoints: Checkpoints) -> Iterator[None]:
    """Whatever is wrong with the last checkpoint is InputError with what to do."""
    try:
        yield
    except Exception as error:
        folder = checkpoints.last()
        if folder is None:
            raise
        raise InputError(
            f"cannot resume from {folder}: {error}; point {checkpoints.pointer} to another "
            "checkpoint or train into a new folder"
        ) from error


def read_last(checkpoints: Checkpoints) -> dict[str, Any] | None:
    """The last checkpoint's training state, None at a new start; without `optimizer` it is one of
    shares."""
    folder = checkpoints.last()
    if folder is None:
        return None
    saved: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
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


def load_weights(model: torch.nn.Module, folder: Path, shape: dict[str, Any]) -> None:
    """A checkpoint's weights into a model of that shape; of tied weights the file holds one. Tokens
    that only the model has keep the rows it was made with."""
    weights = {
        name: torch.from_numpy(
            from_bfloat16(array) if array.dtype == np.uint16 else np.array(array, np.float32)
        )
        for name, array in read_weights(folder, shape).items()
    }
    own = model.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name] = torch.cat([weights[name], own[name][len(weights[name]) :]])
    model.load_state_dict(weights, strict=False)
