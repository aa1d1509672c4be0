"""A checkpoint of shares: each process writes what it holds, and any number of them read it.

torch.distributed.checkpoint plans who writes and who reads which part of which tensor; the files
are safetensors (its Hugging Face writer), since its own format keeps a pickle beside them. A folder
appears whole: all write into a draft that the first process renames once everybody is done. The
processes need a file system that they share.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict as states
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from jpeglm.config import InputError, shorten
from jpeglm.files import atomic_folder
from jpeglm.folders import CHECKPOINT
from jpeglm.training.job import Job

__all__ = ["drafted", "read_shares", "write_shares"]


@contextmanager
def drafted(accelerator: Accelerator, folder: Path) -> Iterator[Path]:
    """A draft of the folder, the same for all processes; it takes the folder's place when the block
    has ended on all."""
    if accelerator.is_main_process:
        with atomic_folder(folder, CHECKPOINT.names) as draft:
            broadcast_object_list([str(draft)])
            yield draft
            accelerator.wait_for_everyone()
    else:
        told = [""]
        broadcast_object_list(told)
        if not Path(told[0]).is_dir():
            raise InputError(
                f"process {accelerator.process_index} does not see {told[0]}, which the first one "
                "made; the run's folder must lie on a file system that all machines share"
            )
        yield Path(told[0])
        accelerator.wait_for_everyone()


def write_shares(job: Job, draft: Path) -> None:
    """Weights, optimizer and averages of all processes, a file each."""
    writer = HuggingFaceStorageWriter(str(draft), save_distributed=True)
    try:
        save(_tensors(job), storage_writer=writer)
    except CheckpointException as error:  # on every process, whichever of them it met
        number, (met, _) = next(iter(error.failures.items()))
        raise InputError(
            f"process {number} cannot write its share of {job.checkpoints.place(job.state.step)}: "
            f"{shorten(str(met))}; make room, and the same command goes on"
        ) from error


def read_shares(job: Job, folder: Path) -> None:
    """The same into a run of any number of processes, split or not. InputError for what lacks."""
    reader = HuggingFaceStorageReader(str(folder))
    known = reader.read_metadata().state_dict_metadata
    if any(name.startswith("optimizer.") for name in known):
        states.get_optimizer_state_dict(job.objective, job.optimizers)  # makes what is filled now
    wanted = _tensors(job)
    for name, value in wanted.items():
        stored = getattr(known.get(name), "size", None)
        if stored != value.shape:
            what = f"{tuple(stored)} of" if stored else "no"
            raise InputError(
                f"its files have {what} {name}, which is {tuple(value.shape)}; one may be missing"
            )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(wanted, storage_reader=reader, no_dist=not dist.is_initialized())


def _tensors(job: Job) -> dict[str, torch.Tensor]:
    """All that is learnt, by name: `model.…`, `optimizer.…` and `ema.…`."""
    found = {f"model.{name}": value.detach() for name, value in job.model.named_parameters()}
    found |= {f"ema.{name}": value for name, value in job.ema.items()}
    names = {id(value): name for name, value in job.model.named_parameters()}
    for optimizer in job.optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                found[f"optimizer.{names[id(parameter)]}.{key}"] = value
    return found
