"""Which of several processes this is, by the launcher's environment; no torch.

torchrun and `accelerate launch` set RANK, WORLD_SIZE and where the first process is to be met.
Slurm's srun has names of its own, `join_slurm` gives them the usual ones. Only a job step of srun
counts: in a batch script itself SLURM_NTASKS stands for tasks that nobody has started.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

from jpeglm.config import InputError

__all__ = ["join_slurm", "launched", "machines", "rank"]

FIRST_PORT = 20000
"""Where a Slurm job's processes meet: a port by the job's number from here on."""
PORTS = 20000


def rank() -> int:
    """The number of this process among those that were launched together; 0 alone."""
    return _number("RANK", 0)


def launched() -> int:
    """How many processes were launched together."""
    return _number("WORLD_SIZE", 1)


def machines() -> int:
    """On how many machines they run, if each has as many as this one."""
    return max(1, launched() // max(1, _number("LOCAL_WORLD_SIZE", launched())))


def join_slurm(environ: MutableMapping[str, str] = os.environ) -> None:
    """Give a process that srun started together with others torchrun's variables."""
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1" or "RANK" in environ:
        return
    try:
        found = {
            "RANK": environ["SLURM_PROCID"],
            "WORLD_SIZE": tasks,
            "LOCAL_RANK": environ["SLURM_LOCALID"],
            "LOCAL_WORLD_SIZE": _here(environ.get("SLURM_STEP_TASKS_PER_NODE", tasks)),
            "MASTER_ADDR": _first(environ["SLURM_STEP_NODELIST"]),
            "MASTER_PORT": str(FIRST_PORT + int(environ["SLURM_JOB_ID"]) % PORTS),
        }
    except KeyError as error:
        raise InputError(
            f"srun started {tasks} processes, but {error.args[0]} is not set, without which they "
            "do not find each other; start torchrun by srun instead (docs/scaling.md)"
        ) from error
    for name, value in found.items():
        environ.setdefault(name, value)


def _first(nodes: str) -> str:
    """The first of Slurm's list of nodes, as `node[007-010,12],login` (scontrol show hostnames)."""
    found = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if found is None:
        raise InputError(f"SLURM_STEP_NODELIST is {nodes!r}, which names no node; set MASTER_ADDR")
    return "".join(part or "" for part in found.groups())


def _here(tasks: str) -> str:
    """Tasks of the first node in Slurm's list of them, as `4(x2),3`."""
    return re.split(r"[(,]", tasks)[0]


def _number(name: str, usual: int) -> int:
    given = os.environ.get(name, str(usual))
    if not given.isdigit():
        raise InputError(f"{name} is {given!r} in the environment; a launcher sets a number")
    return int(given)
