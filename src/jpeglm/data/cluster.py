"""The same work on a Ray cluster: Ray Data hands shards to actors, which build their codec once.

A node that is lost takes nothing with it: its shards are made again elsewhere, and a shard is
written whole or not at all. Nodes begin in folders of their own, so paths are absolute, and source
and shards lie where all of them look.

Trade-off: Ray Data would also read, shuffle and write; only its scheduling, its pool of actors and
its way with lost nodes are used, so that the shards are those of one machine, byte for byte.

    for meta in run_on_ray(shard_job, tasks, PoolConfig(engine="ray"), setup): ...
"""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from jpeglm.config import InputError
from jpeglm.data.jobs import Setup, fill_worker
from jpeglm.data.settings import PoolConfig
from jpeglm.files import explain

__all__ = ["run_on_ray"]


class Worker:
    """An actor: runs jobs until there are none."""

    def __init__(self, setup: Setup) -> None:
        self.error = ""
        if not setup.folder.is_dir():
            self.error = (
                f"the node {socket.gethostname()} does not see {setup.folder}; put source and "
                "shards where every node of the cluster finds them under the same path"
            )
        else:
            fill_worker(setup)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The result of a pickled (job, task), or the sentence of its InputError."""
        error, result = self.error, None
        if not error:
            job, task = pickle.loads(row["task"])
            try:
                result = job(*task)
            except InputError as wrong:
                error = str(wrong)
            except OSError as wrong:
                error = str(explain(wrong, task[0]))
        return {"error": error, "result": pickle.dumps(result)}


def run_on_ray(
    job: Callable[..., Any], tasks: list[tuple[Any, ...]], pool: PoolConfig, setup: Setup
) -> Iterator[Any]:
    """Results of job(*task) as they come, by the processes of a cluster."""
    if not tasks:
        return
    ray: Any = import_module("ray")  # whose types are partial
    data: Any = import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if not ray.is_initialized():
        try:
            _knock(pool.address)
            ray.init(address=pool.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError) as error:
            raise InputError(
                f"there is no Ray cluster at {pool.address or 'RAY_ADDRESS'}; start one with ray "
                "start --head, or leave --address out"
            ) from error
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    setup = setup._replace(folder=setup.folder.absolute())
    if setup.tokenizer is not None:
        setup = setup._replace(tokenizer=setup.tokenizer.absolute())
    most = min(len(tasks), pool.workers or max(1, int(ray.cluster_resources().get("CPU", 1))))
    rows = [{"task": pickle.dumps((job, _absolute(task)))} for task in tasks]
    made = data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker, fn_constructor_args=(setup,), num_cpus=1, concurrency=(1, most)
    )
    for row in made.iter_rows():
        if row["error"]:
            raise InputError(row["error"])
        yield pickle.loads(row["result"])


def _knock(address: str | None) -> None:
    """OSError where nobody listens; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _absolute(task: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.absolute() if hasattr(part, "absolute") else part for part in task)
