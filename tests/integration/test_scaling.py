"""What docs/scaling.md says of the paper's 7B: its shares on four processes, what travels where two
of its layers are trained; and that its launch files are what they should be.

As a script it is what torchrun launches.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.models.llama import parameters, preset, unfilled  # noqa: E402
from jpeglm.training import TrainConfig  # noqa: E402
from tests.integration.launched import torchrun  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text()
SBATCH = ROOT / "docs" / "cluster" / "train.sbatch"
JOB = ROOT / "docs" / "cluster" / "train.yaml"
PROCESSES, TOKENS = 4, 32


@pytest.mark.slow
def test_seven_billion_on_four_processes(tmp_path: Path) -> None:
    """The two layers have half the width; the whole one takes 16 GB, as the page tells."""
    done = torchrun(
        PROCESSES, "-m", "tests.integration.test_scaling", tmp_path / "told", 2048, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((tmp_path / f"told-{n}.json").read_text()) for n in range(PROCESSES)]
    whole = parameters(preset("7b", 323, 12288))
    assert whole == 6_478_917_632
    shares = [one["share"] for one in told]
    assert sum(shares) == whole and max(shares) < 1.001 * whole / PROCESSES

    two, tables = parameters(two_layers(2048)), 2 * 323 * 2048 + 2048
    for one in told:
        assert one["losses"][1] < one["losses"][0]
        # Layers travel in bfloat16, twice; tables in float32, once; gradients in float32.
        assert one["gathered"] == pytest.approx(2 * 2 * (two - tables) + 4 * tables, rel=0.01)
        assert one["reduced"] == pytest.approx(4 * two, rel=0.01)


def words_of(line: str) -> list[str]:
    """The arguments of `jpeglm train` in a line of any launcher."""
    return shlex.split(line.split("jpeglm train ", 1)[1])


def taken(words: list[str]) -> TrainConfig:
    """The settings that the command line makes of arguments, if it takes them."""
    import typer

    from jpeglm.cli import app

    command: Any = typer.main.get_command(app)
    given = command.commands["train"].make_context("train", list(words)).params
    named = {name: given[name] for name in TrainConfig.names() if given.get(name) is not None}
    return TrainConfig(**{**named, "model": {}})


def test_commands_of_the_page_are_taken() -> None:
    lines = re.findall(r"^ {4}(.*torchrun.* jpeglm train .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        assert taken(words_of(line)).steps == 20000


def test_slurm_script() -> None:
    """bash parses it, srun would start what the command line takes, for as many tasks as stated."""
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(SBATCH)], check=True)
    text = SBATCH.read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("4", "8", "8")
    lines = text.replace("\\\n", " ").splitlines()
    seven_billion(taken(words_of(next(line for line in lines if line.startswith("srun ")))))


def test_kubernetes_job() -> None:
    """Its parts belong together, and torchrun and the command line take its arguments."""
    yaml = pytest.importorskip("yaml")
    from torch.distributed.run import parse_args

    service, job = yaml.safe_load_all(JOB.read_text())
    spec, name = job["spec"], job["metadata"]["name"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": name}}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert {one["name"] for one in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    given = parse_args(container["args"])
    assert int(given.nnodes) == spec["completions"] == spec["parallelism"]
    assert int(given.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert given.rdzv_endpoint.startswith(f"{name}-0.{pod['subdomain']}:")
    assert given.module and given.training_script == "jpeglm"
    assert given.training_script_args[0] == "train"
    seven_billion(taken(given.training_script_args[1:]))


def seven_billion(config: TrainConfig) -> None:
    """Both examples launch the run that the page is about, a row for each of 32 processes."""
    assert (config.preset, config.strategy, config.packing) == ("7b", "fsdp", "chunks")
    assert config.batch_tokens == 32 * config.max_length == 32 * 12288
    assert config.batch_tokens * config.gradient_accumulation == 1_572_864
    assert config.activation_checkpointing and "1,572,864 tokens a step" in PAGE


def test_the_page_says_what_was_measured() -> None:
    told = json.loads((ROOT / "docs" / "results" / "scaling.json").read_text())
    assert told["flops_a_pass"] == told["flops_by_formula"]
    memory, moved = told["memory"], told["moved"]
    for value, words in (
        (told["memory_without_checkpointing"] / 1e9, "95.6"),
        (told["memory_with_checkpointing"] / 1e9, "15.0"),
        (memory["activations"] / 1e9, "89.8"),
        (memory["activations, checkpointed"] / 1e9, "9.3"),
        (3 * memory["weights"] / 1e9, "2.4"),
        (moved["gradients"] / 1e9, "25.1"),
        (told["flops_a_pass"] / 1e12, "715 TFLOPs"),
        (told["seconds"]["communication"], "1.0 s"),
        (told["seconds"]["compute, checkpointed"], "3.0 s"),
        (114e9 / told["tokens_a_second"] / 86400, "10 days"),
    ):
        digits = len(words.split()[0].partition(".")[2])
        assert f"{value:.{digits}f}" == words.split()[0] and words in PAGE, words


def two_layers(width: int) -> dict[str, Any]:
    inner = 11008 * width // 4096
    return preset("7b", 323, 12288, num_hidden_layers=2, hidden_size=width, intermediate_size=inner)


def _rank(out: Path, width: int) -> None:
    """Share 7B out without memory, then train two layers of it for two steps."""
    import resource

    import torch.distributed as dist
    from accelerate import Accelerator
    from torch.distributed.fsdp import fully_shard

    from jpeglm.training.job import Objective
    from jpeglm.training.optimizers import optimizers
    from jpeglm.training.sharding import local, policy, process_mesh, shard

    accelerator = Accelerator(cpu=True)
    config = TrainConfig(steps=1, strategy="fsdp", optimizer="adamw", preset="7b")
    mesh = process_mesh(config, accelerator)
    with torch.device("meta"):
        empty = unfilled(preset("7b", 323, 12288))
    for layer in empty.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(empty, mesh=mesh)
    share = sum(local(parameter).numel() for parameter in empty.parameters())

    moved = {"gathered": 0, "reduced": 0}  # bytes of whole tensors
    for kind, names in (
        ("gathered", ("all_gather_single", "all_gather_into_tensor")),
        ("reduced", ("reduce_scatter_single", "reduce_scatter_tensor")),
    ):
        name = next(name for name in names if hasattr(dist, name))
        real = getattr(dist, name)

        def counted(*args: Any, kind: str = kind, real: Any = real, **more: Any) -> Any:
            given = [*args, *more.values()]
            moved[kind] += max(t.nbytes for t in given if isinstance(t, torch.Tensor))
            return real(*args, **more)

        setattr(dist, name, counted)
    shape = two_layers(width)
    with torch.device("meta"):
        objective = Objective(unfilled(shape))
    shard(objective, shape, 0, mesh, policy("bf16"))
    stepping, losses, counts = optimizers(objective.model, config), [], {}
    ids = torch.randint(0, 323, (1, TOKENS + 1), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective(ids[:, :-1], ids[:, 1:])
        torch.autograd.backward(loss / TOKENS)
        for one in stepping:
            one.step()
            one.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()) / TOKENS)
        counts = counts or dict(moved)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = {"share": share, "losses": losses, **counts, "peak": peak}
    Path(f"{out}-{os.environ['RANK']}.json").write_text(json.dumps(told))
    accelerator.end_training()


if __name__ == "__main__":
    _rank(Path(sys.argv[1]), int(sys.argv[2]))
