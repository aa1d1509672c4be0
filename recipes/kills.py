"""Killed at any moment and run again, a command ends as one that nobody disturbed: asked often.

    python recipes/kills.py [--kills 100] [--seed 0] [--out docs/results/kills.json]

`prepare` (pictures to shards and token shards, one process or two) and `train` (a tiny model, with
evaluations and checkpoints) get SIGKILL so many times each. Half of the moments are drawn evenly
from the time that an undisturbed run takes, half from its operations on files (Python's audit
events: most harm can be done there, and the clock seldom hits them); what was killed is run again,
and every third time killed again. In the end all files must be those of a run in a process of its
own, bit for bit, and no other may lie beside them; only what the clock says in metrics.jsonl and
training_state.pt, a run's README.md, which tells minutes, and TensorBoard's logs, named by the
clock, are left out. The checkout must stay at its commit meanwhile (21 minutes on a machine at a
load of 9), for a run records it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.data.prepare import PrepareConfig, prepare
from jpeglm.environment import environment
from jpeglm.files import write_json
from jpeglm.tokenizer import Tokenizer
from jpeglm.training import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
CODEC = make_codec({"codec": "jpeg", "width": 32, "height": 32})
SHARDS = PrepareConfig(crops=2, validation=0.3, unit_size=3)
TRAINING = TrainConfig(
    steps=18,
    model={
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 32,
    },
    batch_tokens=512,
    warmup=2,
    ema=0.9,
    precision="float32",
    log_every=2,
    eval_every=5,
    eval_images=4,
    save_every=4,
    keep=2,
    threads=1,
)
AGAIN = 1 / 3
"""How often a run that goes on is killed again."""
EVENTS = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate",
    "os.listdir", "os.scandir",
}  # fmt: skip
HANGS = 300.0
"""Seconds after which a run is taken to be stuck."""
CLOCK = ("seconds", "tokens_per_second", "window_seconds")
PAGES = ("README.md", "report.html")
"""Which tell of the clock in words; a model's card too."""


def make_pictures(folder: Path) -> Path:
    """30 smooth pictures and two that cannot be read."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        smooth = Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC)
        smooth.save(folder / f"{number:02d}.png")
    for name in ("07-cut.png", "29-cut.png"):
        (folder / name).write_bytes((folder / "00.png").read_bytes()[:60])
    return folder


def prepare_once(home: Path, out: Path, workers: int = 1) -> None:
    tokenizer = Tokenizer(CODEC, "jpeg-symbols", np.zeros((0, 2), np.int32))
    prepare(home / "pictures", out, CODEC, SHARDS, tokenizer=tokenizer, workers=workers)


def train_once(home: Path, out: Path) -> None:
    from jpeglm.training.lm import train

    data = home / "prepare" / "alone"
    train(data, Tokenizer.load(data / "tokenizer"), out, TRAINING)


def prepare_by_two(home: Path, out: Path) -> None:
    prepare_once(home, out, workers=2)


WORKS: dict[str, Callable[[Path, Path], None]] = {
    "prepare": prepare_once,
    "prepare by two processes": prepare_by_two,
    "train": train_once,
}


def held(out: Path) -> dict[str, str]:
    """Name → hash of every file, whose content is without the clock's."""
    import torch

    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir() or path.name in PAGES or name.startswith("tensorboard/"):
            continue
        digest = hashlib.sha256()
        if path.name == "metrics.jsonl":
            feed([json.loads(line) for line in path.read_text().splitlines()], digest.update)
        elif path.name == "training_state.pt":
            feed(torch.load(path, weights_only=True), digest.update)
        else:
            digest.update(path.read_bytes())
        found[name] = digest.hexdigest()
    return found


def feed(value: Any, take: Callable[[bytes], None]) -> None:
    """All of a nested value but what the clock says."""
    if isinstance(value, dict):
        for name in sorted(value.keys() - {*CLOCK}, key=str):
            take(f"{name}:".encode())
            feed(value[name], take)
    elif isinstance(value, list | tuple):
        for part in value:
            feed(part, take)
    elif hasattr(value, "numpy"):
        take(f"{value.dtype}{list(value.shape)}".encode() + value.numpy().tobytes())
    else:
        take(f"{value!r};".encode())


def die_at(operation: int, out: Path, counted: Any) -> None:
    """Count this process's operations on files below `out`; SIGKILL before that one, from 1."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if os.fsdecode(arguments[0]).startswith(str(out)):
            counted.value += 1
            if counted.value == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


class Command:
    """A command, run in processes forked from this one, where all is imported."""

    def __init__(self, name: str, home: Path) -> None:
        self.work, self.home = partial(WORKS[name], home), home / name.replace(" ", "-")
        self.runs = 0
        self.counted = multiprocessing.get_context("fork").Value("q", 0, lock=False)
        alone = self.home / "alone"
        subprocess.run([sys.executable, __file__, "--alone", name, home, alone], check=True)
        self.expected = held(alone)
        began, again = time.monotonic(), self.home / "again"
        self.run(again, 0, HANGS)
        self.seconds, self.operations = time.monotonic() - began, self.counted.value
        if self.differs(again, "no kill"):
            sys.exit("a run that nobody disturbed is another one")

    def run(self, out: Path, operation: int, seconds: float) -> bool:
        """Whether it ended by itself; killed before an operation or after so many seconds."""
        self.counted.value = 0
        process = os.fork()
        if not process:
            try:
                die_at(operation, out, self.counted)
                self.work(out)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        end = time.monotonic() + seconds
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() >= end:
                os.kill(process, signal.SIGKILL)
                ended = os.waitpid(process, 0)
                break
            time.sleep(0.001)
        code = os.waitstatus_to_exitcode(ended[1])
        if code not in (0, -signal.SIGKILL):
            sys.exit(f"a run in {out} ended with {code}")
        return code == 0

    def differs(self, out: Path, told: str) -> list[str]:
        """What is not as in the undisturbed run; a folder that is as it should be is removed."""
        found = held(out)
        names = [n for n in found.keys() | self.expected if found.get(n) != self.expected.get(n)]
        if not names:
            shutil.rmtree(out)
            return []
        print(f"DIFFERENT after {told}: {', '.join(sorted(names))} in {out}", flush=True)
        return [f"{told}: {name}" for name in sorted(names)]

    def ask(self, kills: int, rng: random.Random, by_operation: bool) -> dict[str, Any]:
        """Kill so often, by operation or by the clock; what came of it."""
        done, before, different = 0, self.runs, []
        while done < kills:
            out, moments = self.home / f"run-{self.runs}", []
            while done < kills and (not moments or rng.random() < AGAIN):
                operation = rng.randint(1, self.operations) if by_operation else 0
                seconds = HANGS if by_operation else rng.uniform(0, self.seconds)
                if self.run(out, operation, seconds):
                    break
                done += 1
                moments.append(f"operation {operation}" if by_operation else f"{seconds:.3f} s")
            if not moments:  # it ended before its moment came
                shutil.rmtree(out)
                continue
            if not self.run(out, 0, HANGS):
                sys.exit(f"the run in {out} does not end")
            self.runs += 1
            different += self.differs(out, f"kills at {', '.join(moments)}")
        return {
            "kills": done,
            "runs": self.runs - before,
            "undisturbed_seconds": round(self.seconds, 2),
            "operations_on_files": self.operations,
            "different": different,
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "kills.json")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        name, home, out = arguments.alone
        WORKS[name](Path(home), Path(out))
        return 0
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # of what killed processes held
    rng = random.Random(arguments.seed)
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    make_pictures(home / "pictures")
    import jpeglm.training.lm  # noqa: F401 (here and not in every fork, as what prepare loads)

    prepare_once(home, home / "warm")
    # Two processes take seconds to start, and their operations are not counted here.
    kills, few = arguments.kills, arguments.kills // 10
    half = kills // 2
    shares = {
        "prepare": (half, kills - half - few),
        "prepare by two processes": (0, few),
        "train": (half, kills - half),
    }
    found: dict[str, Any] = {}
    for name, share in shares.items():
        if not any(share):
            continue
        command = Command(name, home)
        for by_operation, count in zip((True, False), share):
            told = f"{name}, by {'operations on files' if by_operation else 'the clock'}"
            if count:
                found[told] = command.ask(count, rng, by_operation)
                print(f"{told}: {json.dumps(found[told])}", flush=True)
    holds = not any(one["different"] for one in found.values())
    result = {
        "holds": holds,
        "kills": sum(one["kills"] for one in found.values()),
        "asked": found,
        "seconds": round(time.monotonic() - began, 1),
        "command": f"python recipes/kills.py --kills {arguments.kills} --seed {arguments.seed}",
        "machine": environment("torch", "numpy", "pyarrow"),
    }
    write_json(arguments.out, result)
    if holds:
        shutil.rmtree(home)
    print("all as undisturbed" if holds else "NOT all as undisturbed")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
