"""Worker processes: each builds its codec once, then makes shards until there are none to make.

Those of this machine are spawned, leave Ctrl-C to the parent from their first moment on, which lets
a shard that is begun be finished, and end with a parent that was killed. One worker is no process:
the work is then done in this one. Those of a cluster are `data.cluster`'s.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from jpeglm.config import InputError
from jpeglm.data.jobs import Setup, fill_worker
from jpeglm.data.settings import PoolConfig
from jpeglm.environment import cores


def run(
    job: Callable[..., Any], tasks: list[tuple[Any, ...]], pool: PoolConfig, setup: Setup
) -> Iterator[Any]:
    """Results of job(*task) as they come; a failure lets running tasks end and drops the rest."""
    if pool.engine == "ray":
        from jpeglm.data.cluster import run_on_ray

        yield from run_on_ray(job, tasks, pool, setup)
    else:
        yield from _run_here(job, tasks, pool.workers or cores(), setup)


def _run_here(
    job: Callable[..., Any], tasks: list[tuple[Any, ...]], workers: int, setup: Setup
) -> Iterator[Any]:
    workers = min(workers, len(tasks))
    if workers <= 1:
        if tasks:
            fill_worker(setup)
        yield from (job(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of torch, numba
    pool = ProcessPoolExecutor(workers, context, _start_worker, (setup,))
    waiting: set[Future[Any]] = set()
    queue = iter(tasks)
    try:
        while True:
            for task in queue:
                with _sheltered():
                    waiting.add(pool.submit(job, *task))
                if len(waiting) >= 2 * workers:
                    break
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed (by the system, if memory ran out); run the same "
            "command again, with fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _sheltered() -> Iterator[None]:
    """Processes that are started here never see Ctrl-C, which a terminal sends to all: a second may
    pass before their own code runs. The parent sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(setup: Setup) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and finishes the shard
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        if setup.codec["codec"] == "vq":
            import torch

            torch.set_num_threads(1)  # one core a worker
    fill_worker(setup)


def _end_with(parent: Any) -> None:
    """A pool's workers outlive a killed parent: they wait on a pipe that they hold open."""
    parent.join()
    os._exit(1)
