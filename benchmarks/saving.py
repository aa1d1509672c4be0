"""What a checkpoint costs the training loop: seconds that it stands still, and that pass till the
checkpoint is whole.

    python benchmarks/saving.py [--presets 10m 85m] [--out docs/results/saving.json]

A run on a CPU, by one process and by two under FSDP, saves every few steps. `stands still` is a
call of `save`; `whole` is the time from it till last.json names the checkpoint; `step` and `step
beside` are steps while none and while one is written; `costs` is what a save takes from the run:
the time that it stands still and what the steps beside the writing take more than others. All are
medians. AdamW, whose two moments make the checkpoint three times the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, machine

from jpeglm.codecs import make_codec
from jpeglm.data.shards import Row, write_shard
from jpeglm.files import write_json
from jpeglm.tokenizer import Tokenizer

CODEC = make_codec({"codec": "jpeg", "width": 16, "height": 16})
SAVES = 3
EVERY = {"10m": 24, "85m": 10}
"""Steps from save to save: some seconds more than writing takes."""


def make_data(folder: Path) -> None:
    """Streams of 80 pictures of noise."""
    rng, rows = np.random.default_rng(0), []
    from PIL import Image

    for number in range(80):
        pixels = 128 + rng.normal(0, 10, (16, 16, 3))
        stream = CODEC.encode(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
        rows.append(Row(f"{number:02d}", stream, 16, 16, -1, "train"))
    about = {"codec": CODEC.to_dict(), "fingerprint": CODEC.fingerprint}
    write_shard(folder / "shard-00000.parquet", rows, about)
    told = {"format": "jpeglm-dataset", **about, "label_names": [], "shards": 1,
            "streams": {"train": 80, "validation": 0}}  # fmt: skip
    write_json(folder / "dataset.json", told)


def run(home: Path, name: str) -> None:
    """Train as one of the processes; the first leaves the clock's times in times.json."""
    from jpeglm.training import TrainConfig, lm

    every = EVERY.get(name, 10)
    many = int(os.environ.get("WORLD_SIZE", "1")) > 1
    config = TrainConfig(
        preset=name, steps=(SAVES + 1) * every, batch_tokens=128 * (1 + many), packing="chunks",
        max_length=128, optimizer="adamw", strategy="fsdp" if many else "auto", compile="off",
        precision="float32", threads=1, eval_images=0, eval_every=10**9, log_every=10**9,
        save_every=every, keep=1,
    )  # fmt: skip
    steps: list[float] = []
    saves: list[tuple[int, float, float]] = []
    step, save = lm.step, lm.save

    def timed_step(*given: Any) -> None:
        steps.append(time.time())
        step(*given)

    def timed_save(job: Any, *given: Any) -> None:
        began = time.time()
        save(job, *given)
        saves.append((job.state.step, began, time.time()))

    lm.step, lm.save = timed_step, timed_save
    whole: dict[int, float] = {}
    from jpeglm.training.run import Checkpoints

    wrote = Checkpoints.wrote

    def timed_wrote(self: Checkpoints, number: int) -> None:
        wrote(self, number)
        whole[number] = time.time()

    Checkpoints.wrote = timed_wrote  # type: ignore[method-assign]
    tokenizer = Tokenizer(CODEC, "jpeg-symbols", np.zeros((0, 2), np.int32))
    lm.train(home / "data", tokenizer, home / "run", config)
    if os.environ.get("RANK", "0") == "0":
        size = sum(p.stat().st_size for p in (home / "run/checkpoints").rglob("*") if p.is_file())
        told = {"steps": steps, "saves": saves, "whole": whole, "bytes": size, "every": every}
        write_json(home / "times.json", told)


def measure(name: str, processes: int) -> dict[str, float]:
    """Seconds, medians over the saves between steps."""
    with tempfile.TemporaryDirectory(prefix="saving-", dir=os.environ.get("TMPDIR")) as folder:
        home = Path(folder)
        make_data(home / "data")
        words = [__file__, "--child", str(home), name]
        if processes > 1:
            words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                     str(processes), *words]  # fmt: skip
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        told = json.loads((home / "times.json").read_text())
    steps, every = told["steps"], told["every"]
    saves = told["saves"][:SAVES]
    busy = [(end, told["whole"][str(number)]) for number, _, end in saves]
    alone, beside = [], []
    for number, (began, ended) in enumerate(pairwise(steps), 1):
        if number <= every // 4 or number % every == 0:  # the first ones warm up; a save is in it
            continue
        written = any(start < ended and began < whole for start, whole in busy)
        (beside if written else alone).append(ended - began)
    usual, stands = statistics.median(alone), statistics.median(b - a for _, a, b in saves)
    slower = statistics.median(beside) - usual if beside else 0.0
    return {
        "megabytes": told["bytes"] / 1e6,
        "stands still": stands,
        "whole": statistics.median(whole - a for (_, a, _), (_, whole) in zip(saves, busy)),
        "step": usual,
        "step beside": usual + slower,
        "costs": stands + slower * len(beside) / SAVES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--presets", nargs="+", default=[*EVERY])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "saving.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return run(Path(arguments.child[0]), arguments.child[1])
    found: dict[str, Any] = {}
    for name in arguments.presets:
        for processes in arguments.processes:
            key = f"{name}, {processes} process{'es, fsdp' if processes > 1 else ''}"
            figures = measure(name, processes)
            found[key] = {what: round(value, 3) for what, value in figures.items()}
            print(key, json.dumps(found[key]), flush=True)
    write_json(arguments.out, {"seconds": found, "machine": machine()})


if __name__ == "__main__":
    main()
