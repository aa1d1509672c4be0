"""A thread that writes a checkpoint while the next steps run; one checkpoint at a time.

A process group of its own lets it talk to the threads of other processes while training talks over
the usual one. torch's `async_save` does this for shares alone; here a checkpoint is also drafted,
and pointed to when it is whole, so that the parts of it, `DefaultStager` and `save`, are called one
by one. Trade-off: a thread dies with its process, so that nothing goes on writing after a kill, but
it shares Python's lock, which torch's process for checkpoints would not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

__all__ = ["Background", "copied"]


class Background:
    """What this process does beside training."""

    def __init__(self, sharded: bool) -> None:
        """sharded: whether all processes write; they make this together then."""
        self.group = dist.new_group(backend="gloo") if sharded else None
        self._last: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Do it in a thread; whatever was begun before must have been waited for."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._last = done
        # Not one that the interpreter waits for: a second Ctrl-C ends the process at once.
        threading.Thread(target=run, name="checkpoint", daemon=True).start()

    @property
    def failed(self) -> bool:
        """Whether the last work is known to have met an error."""
        last = self._last
        return last is not None and last.done() and last.exception() is not None

    def wait(self) -> BaseException | None:
        """What the last work met, once it has ended."""
        return None if self._last is None else self._last.exception()


def copied(values: dict[str, Any]) -> dict[str, Any]:
    """The same with all tensors in memory of their own on the host, a share as a share."""
    stager = DefaultStager(StagingOptions(False, False, False, False))
    try:
        found: dict[str, Any] = stager.stage(values)  # type: ignore[assignment]
        return found
    finally:
        stager.close()
