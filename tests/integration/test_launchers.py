"""`python -m jpeglm train` under torchrun, accelerate launch and srun's environment; what processes
that cannot train together are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.config import InputError  # noqa: E402
from jpeglm.launch import join_slurm  # noqa: E402
from tests.integration.launched import SHAPE, free_port, torchrun  # noqa: E402

MODEL = [word for key, value in SHAPE.items() for word in ("--model", f"{key}={value}")]
SHORT = ["--steps", "2", "--eval-every", "2", "--eval-images", "4", "--samples", "0", *MODEL,
         "--batch-tokens", "1024", "--precision", "float32", "--threads", "1"]  # fmt: skip
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train(data: Path, out: Path, *more: object) -> list[object]:
    return ["-m", "jpeglm", "train", data, "--out", out, *SHORT, *more]


def processes(out: Path) -> int:
    return int(json.loads((out / "config.json").read_text())["processes"])


def alone(words: list[object], **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**clean, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.slow
def test_torchrun_says_all_once(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = torchrun(2, *train(data, out, "--strategy", "fsdp", "--json"))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)  # one object
    assert result["steps"] == 2 and processes(out) == 2
    said = "2 processes, fsdp over 2 on cpu, float32, muon, at most 1,024 tokens a step"
    assert done.stderr.count(said) == 1
    assert "torchrun --nproc-per-node 2 -m jpeglm train" in (out / "README.md").read_text()

    wrong = torchrun(2, *train(data, tmp_path / "other", "--strategy", "fsdp", "--replicas", "3"))
    told = [line for line in wrong.stderr.splitlines() if line.startswith("jpeglm:")]
    assert wrong.returncode != 0 and len(told) == 1
    assert "replicas is 3, which does not part 2 processes" in told[0]
    assert not (tmp_path / "other" / "config.json").exists()


@pytest.mark.slow
def test_accelerate_launch(data: Path, tmp_path: Path) -> None:
    """It has no processes of its own on a processor; under its environment for FSDP nothing is
    trained that is not split."""
    words = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", 1, "--num_machines", 1]
    done = alone([*words, *train(data, tmp_path / "run")])
    assert done.returncode == 0, done.stderr[-3000:]
    assert processes(tmp_path / "run") == 1
    done = alone(train(data, tmp_path / "other"), ACCELERATE_USE_FSDP="true")
    assert done.returncode == 1 and "--use_fsdp, which has no effect here" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "other" / "config.json").exists()


def slurm(task: int, **changes: str) -> dict[str, str]:
    """What srun sets in a task of two, as far as it is read."""
    return {
        "SLURM_JOB_ID": str(free_port() - 20000),
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task),
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        **changes,
    }


@pytest.mark.slow
def test_srun(data: Path, tmp_path: Path) -> None:
    port = str(free_port())
    with subprocess.Popen(
        [sys.executable, *map(str, train(data, tmp_path / "run"))],
        env={**os.environ, "OMP_NUM_THREADS": "1", **slurm(1), "MASTER_PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        done = alone(train(data, tmp_path / "run"), **slurm(0), MASTER_PORT=port)
        out, err = other.communicate(timeout=60)
    assert done.returncode == other.returncode == 0, done.stderr + err
    assert processes(tmp_path / "run") == 2
    assert "2 processes, ddp" in done.stderr and "finished: 2 steps" in done.stdout
    assert out == "" and "processes" not in err


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[007-010,12],login", "gpu007"), ("node3", "node3"), ("a,b", "a"), ("r[1-2]n", "r1n"),
     ("gpu-a[1,3-4]", "gpu-a1")],
)  # fmt: skip
def test_slurm_says_where_to_meet(nodes: str, first: str) -> None:
    environ = slurm(1, SLURM_STEP_NODELIST=nodes, SLURM_JOB_ID="123456")
    join_slurm(environ)
    assert [environ[name] for name in LAUNCHED] == ["1", "2", "1", "2", first, "23456"]
    batch = slurm(0)
    del batch["SLURM_STEP_NUM_TASKS"]  # the script of sbatch, beside which no other task runs
    join_slurm(batch)
    assert "RANK" not in batch
    lacking = slurm(0)
    del lacking["SLURM_LOCALID"]
    with pytest.raises(InputError, match="SLURM_LOCALID is not set"):
        join_slurm(lacking)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2"}, "2 processes were launched, but RANK is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' in the environment"),
    ],
)
def test_processes_that_were_not_joined(
    environment: dict[str, str], words: str, data: Path, tmp_path: Path
) -> None:
    done = alone(train(data, tmp_path / "run"), **environment)
    assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1


def test_other_trainings_are_one_process(tmp_path: Path) -> None:
    words = ["-m", "jpeglm", "train-vqvae", "tests/pictures", "--minutes", 1, "--out", tmp_path]
    done = alone(words, WORLD_SIZE="2", RANK="0")
    assert done.returncode == 1 and "train-vqvae runs in one process" in done.stderr
