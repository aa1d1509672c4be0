"""Batches for the training loop, made before they are asked for.

Trade-off: a thread does for what only gathers ids, at tens of millions a second. Cutting holes
takes a picture apart and encodes it again, about a million ids a second, which a GPU outruns: there
processes do it. They are forked, as torch's own loader has it on Linux, so that the ids of a split
are in memory once; no child touches the device.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from jpeglm.data.loader import TrainingLoader, ahead
from jpeglm.data.packing import Batches
from jpeglm.environment import cores

Batch = dict[str, np.ndarray]
WORKERS = 4
"""Processes at most that cut holes."""


def feed(loader: TrainingLoader, device: str) -> Iterator[Batch]:
    """The endless batches of a loader from where it stands, in order. device: `cuda` or `cpu`."""
    count = workers(loader, device)
    if not count:
        return ahead(iter(loader))
    return iter(
        DataLoader(
            Planned(loader.batches),
            sampler=loader.places(),
            batch_size=None,
            num_workers=count,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals,
            multiprocessing_context="fork",
        )
    )


def workers(loader: TrainingLoader, device: str) -> int:
    """How many processes make the batches; 0: a thread of this one does."""
    if device != "cuda" or loader.batches.arrange is None or sys.platform != "linux":
        return 0
    return min(WORKERS, cores() - 1)


class Planned(Dataset[Batch]):
    """Batch (epoch, index) of a plan."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        return self.batches.batch(*place)


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals(worker: int) -> None:
    """A stop that is asked of the whole group is the parent's to answer; it ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
