"""Two processes over gloo, launched by torchrun, train the same weights as one process.

As a script it is what torchrun launches.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.codecs import make_codec  # noqa: E402
from jpeglm.files import write_json  # noqa: E402
from jpeglm.tokenizer import Tokenizer  # noqa: E402
from jpeglm.training.lm import TrainConfig, train  # noqa: E402

CODEC = make_codec({"codec": "jpeg", "width": 16, "height": 16})
CONFIG = TrainConfig(
    # Muon orthogonalises in bfloat16, which enlarges what rounding does to a gradient.
    optimizer="adamw",
    steps=6,
    model={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    batch_tokens=1024,
    gradient_accumulation=2,
    warmup=2,
    precision="float32",
    log_every=1,
    eval_every=3,
    eval_images=7,
    save_every=3,
    threads=1,
)


def tokenizer() -> Tokenizer:
    return Tokenizer(CODEC, "jpeg-symbols", np.zeros((0, 2), np.int32))


def launch(data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--master-port", str(port), __file__, str(data), str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_two_processes_equal_one(data: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(data, tokenizer(), one, CONFIG)
    done = launch(data, two)
    assert done.returncode == 0, done.stderr[-3000:]

    # Two processes that do not know of each other would pass all that follows.
    assert json.loads((one / "config.json").read_text())["processes"] == 1
    assert json.loads((two / "config.json").read_text())["processes"] == 2
    ranks = [json.loads((two / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["rows"] != ranks[1]["rows"]
    assert [rank["said"] > 0 for rank in ranks] == [True, False]

    def rows(out: Path) -> list[dict[str, float]]:
        return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]

    assert len(rows(one)) == len(rows(two)) == 9
    for a, b in zip(rows(one), rows(two)):
        for key in set(a) - {"seconds", "tokens_per_second"}:
            assert b[key] == pytest.approx(a[key], rel=1e-4), (a["step"], key)

    from safetensors.torch import load_file

    file = "checkpoints/step-000006/model.safetensors"
    for name, weight in load_file(one / file).items():
        torch.testing.assert_close(load_file(two / file)[name], weight, atol=1e-4, rtol=0)


def _rank(data: Path, out: Path) -> None:
    """Train as one of the processes and leave a note of what this one saw."""
    import hashlib

    from jpeglm.training import lm

    seen, said = hashlib.sha256(), []
    step, result = lm.step, lm.result
    weights = ""

    def watched(job, batch, tokens, rate):
        for part in batch:
            seen.update(part["input_ids"].tobytes())
        step(job, batch, tokens, rate)

    def last(job, stopped):
        nonlocal weights
        values = [p.detach().numpy().tobytes() for p in job.model.parameters()]
        weights = hashlib.sha256(b"".join(values)).hexdigest()
        return result(job, stopped)

    lm.step, lm.result = watched, last
    train(data, tokenizer(), out, CONFIG, say=said.append)
    rank = os.environ["RANK"]
    write_json(
        out / f"rank-{rank}.json",
        {"weights": weights, "rows": seen.hexdigest(), "said": len(said)},
    )


if __name__ == "__main__":
    _rank(Path(sys.argv[1]), Path(sys.argv[2]))
