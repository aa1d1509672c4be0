"""A run's weights on disk: the model for everybody, checkpoints for going on, and back again."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed.checkpoint.state_dict as dcp

from jpeglm.checkpoint import from_bfloat16, read_weights, write_checkpoint
from jpeglm.config import PAPER_SAMPLING, InputError
from jpeglm.files import atomic_folder
from jpeglm.folders import CHECKPOINT
from jpeglm.training.card import card
from jpeglm.training.job import Job, State
from jpeglm.training.run import Checkpoints, save_state


def write_model(job: Job, folder: Path, dtype: str) -> None:
    """A checkpoint folder of the present weights; every process takes part."""
    options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = dcp.get_model_state_dict(job.objective, options=options)
    if job.main:
        named = {name.removeprefix("model."): value for name, value in weights.items()}
        if job.shape["tie_word_embeddings"]:
            named.pop("lm_head.weight", None)
        write_checkpoint(folder, named, job.shape, job.tokenizer, card(job), PAPER_SAMPLING, dtype)


def save(job: Job) -> None:
    """Weights, optimizer and position as checkpoints/step-N, then the pointer to it."""
    options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
    optimizer = dcp.get_optimizer_state_dict(job.objective, job.optimizers, options=options)
    job.state.window_nats = float(cast(torch.Tensor, job.accelerator.reduce(job.window, "sum")))
    folder = job.checkpoints.place(job.state.step)
    ours = CHECKPOINT.names
    with atomic_folder(folder, ours) if job.main else nullcontext(folder) as draft:
        write_model(job, draft, "float32")
        if job.main:
            values = {
                "state": asdict(job.state),
                "optimizer": optimizer,
                "data": job.state.step * job.config.gradient_accumulation,
                "ema": {name: average.cpu() for name, average in job.ema.items()},
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state()
                if job.accelerator.device.type == "cuda"
                else torch.zeros(0, dtype=torch.uint8),
            }
            save_state(draft / "training_state.pt", values)
    if job.metrics:
        job.metrics.sync()
        job.checkpoints.wrote(job.state.step)
    job.accelerator.wait_for_everyone()


def read_last(
    checkpoints: Checkpoints, shape: dict[str, Any], model: torch.nn.Module
) -> dict[str, Any] | None:
    """Load the last checkpoint's weights; returns its training state, None at a new start."""
    folder = checkpoints.last()
    if folder is None:
        return None
    try:
        load_weights(model, folder, shape)
        file = folder / "training_state.pt"
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return saved
    except Exception as error:
        raise InputError(
            f"cannot resume from {folder}: {error}; point {checkpoints.pointer} to another "
            "checkpoint or train into a new folder"
        ) from error


def restore(job: Job, saved: dict[str, Any]) -> None:
    options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
    dcp.set_optimizer_state_dict(job.objective, job.optimizers, saved["optimizer"], options=options)
    state = saved["state"]
    job.state = State(**{"best_worth": state["best"], **state})  # older runs know bits alone
    job.window.fill_(job.state.window_nats / job.accelerator.num_processes)
    job.loader.seek(saved["data"])
    for name, average in saved["ema"].items():
        job.ema[name].copy_(average)
    torch.set_rng_state(saved["rng"])
    if job.accelerator.device.type == "cuda" and len(saved["cuda_rng"]):
        torch.cuda.set_rng_state(saved["cuda_rng"])


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
