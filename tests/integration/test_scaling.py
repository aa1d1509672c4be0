"""What docs/scaling.md says of the paper's 7B: its shares on four processes, what travels where two
of its layers are trained; and that its launch files are what they should be.

As a script it is what torchrun launches.
"""

from __future__ import annotations

import json
import os
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
PAGE = (ROOT / "docs" / "scaling.md").read_text() if (ROOT / "docs/scaling.md").exists() else ""
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
