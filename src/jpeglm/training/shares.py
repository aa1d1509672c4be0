"""A checkpoint of shares: each process writes what it holds, and any number of them read it.

torch.distributed.checkpoint plans who writes and who reads which part of which tensor; the files
are safetensors (its Hugging Face writer), since its own format keeps a pickle beside them. A folder
appears whole: all write into a draft that the first process renames once everybody is done. The
processes need a file system that they share. Whatever keeps one of them from writing is the error
of all, so that none waits for another that has given up.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict as states
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from jpeglm.config import InputError, shorten
from jpeglm.files import atomic_folder
from jpeglm.folders import CHECKPOINT
from jpeglm.training.job import Job

__all__ = ["drafted", "read_shares", "shares", "write_shares"]


class _Writer(HuggingFaceStorageWriter):
    """Every process writes its shares into a draft of a folder, which the first one made."""

    def __init__(self, draft: Path, folder: Path) -> None:
        super().__init__(str(draft), save_distributed=True)
        self.folder = folder

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Raises, as all of torch's own steps, on every process what one of them meets."""
        if not Path(self.path).is_dir():  # torch would make one
            raise InputError(
                f"process {dist.get_rank()} does not see the draft of {self.folder} that the first "
                "one made; the run's folder must lie on a file system that all machines share"
            )
        return super().prepare_local_plan(plan)


@contextmanager
def drafted(folder: Path, group: dist.ProcessGroup | None) -> Iterator[Path]:
    """A draft of the folder, the same for all processes of the group; it takes the folder's place
    when the block has ended on the first."""
    told: list[Path | InputError | None] = [None]
    if dist.get_rank():
        dist.broadcast_object_list(told, src=0, group=group)
        if isinstance(told[0], InputError):
            raise told[0]
        yield cast(Path, told[0])
        return
    with ExitStack() as stack:
        try:
            draft = stack.enter_context(atomic_folder(folder, CHECKPOINT.names))
        except InputError as error:
            dist.broadcast_object_list([error], src=0, group=group)
            raise
        dist.broadcast_object_list([draft], src=0, group=group)
        yield draft


def write_shares(
    held: dict[str, torch.Tensor], draft: Path, folder: Path, group: dist.ProcessGroup | None
) -> None:
    """`shares` of all processes into a draft of the folder, a file each."""
    try:
        save(held, storage_writer=_Writer(draft, folder), process_group=group)
    except CheckpointException as error:  # on every process, whichever of them it met
        number, (met, _) = next(iter(error.failures.items()))
        if isinstance(met, InputError):
            raise met from error
        raise InputError(
            f"process {number} cannot write its share of {folder}: {shorten(str(met))}; make room, "
            "and the same command goes on"
        ) from error


def read_shares(job: Job, folder: Path) -> None:
    """The same into a run of any number of processes, split or not. InputError for what lacks."""
    reader = HuggingFaceStorageReader(str(folder))
    known = reader.read_metadata().state_dict_metadata
    if any(name.startswith("optimizer.") for name in known):
        states.get_optimizer_state_dict(job.objective, job.optimizers)  # makes what is filled now
    wanted = shares(job)
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


def shares(job: Job) -> dict[str, torch.Tensor]:
    """All that is learnt, by name: `model.…`, `optimizer.…` and `ema.…`."""
    found = {f"model.{name}": value.detach() for name, value in job.model.named_parameters()}
    found |= {f"ema.{name}": value for name, value in job.ema.items()}
    names = {id(value): name for name, value in job.model.named_parameters()}
    for optimizer in job.optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                found[f"optimizer.{names[id(parameter)]}.{key}"] = value
    return found
