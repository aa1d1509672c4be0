"""Trainings in processes that torchrun launches: what such tests share.

As a script, `launched.py JOBS` is what torchrun launches: JOBS, a JSON file, lists trainings, each
{data, out, config} and perhaps {kill: [rank, step]}, to be killed there by SIGKILL, {die: [rank,
moment]}, to be killed at a moment of its second checkpoint, or {limit: [rank, bytes]}, the largest
file that it may write. Each process leaves rank-N.json in OUT: what it said and which rows it saw.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.data.shards import Row, write_shard
from jpeglm.files import write_json
from jpeglm.tokenizer import Tokenizer
from jpeglm.training import TrainConfig

LONGEST = 240
"""Seconds that launched processes may take on a busy machine."""
CODEC = make_codec({"codec": "jpeg", "width": 16, "height": 16})
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def tokenizer() -> Tokenizer:
    return Tokenizer(CODEC, "jpeg-symbols", np.zeros((0, 2), np.int32))


def make_data(folder: Path) -> Path:
    """80 pictures of noise of different strength, so that rows differ in length."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(80):
        pixels = 128 + rng.normal(0, 1 + number % 40, (16, 16, 3))
        stream = CODEC.encode(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
        split = "validation" if number % 8 == 0 else "train"
        rows.append(Row(f"{number:02d}", stream, 16, 16, -1, split))
    about = {"codec": CODEC.to_dict(), "fingerprint": CODEC.fingerprint}
    write_shard(folder / "shard-00000.parquet", rows, about)
    held_out = sum(row.split == "validation" for row in rows)
    write_json(
        folder / "dataset.json",
        {
            "format": "jpeglm-dataset",
            **about,
            "label_names": [],
            "shards": 1,
            "streams": {"train": 80 - held_out, "validation": held_out},
        },
    )
    tokenizer().save(folder / "tokenizer")
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def torchrun(
    processes: int,
    *words: object,
    options: tuple[str, ...] = (),
    cwd: Path | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """torchrun of a script or, with `-m`, of a module, one thread each."""
    place = () if "--standalone" in options else ("--master-port", str(free_port()))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
               *place, *options, *map(str, words)]  # fmt: skip
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    ) as running:
        try:
            out, err = running.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            running.terminate()  # torchrun ends what it launched
            out, err = running.communicate()
            raise AssertionError(f"{command} took over {LONGEST} seconds: {err}") from None
    return subprocess.CompletedProcess(command, running.returncode, out, err)


def launch(
    processes: int, *jobs: dict[str, Any], options: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Trainings, one after the other, in so many processes."""
    asked = Path(jobs[0]["out"]).with_suffix(".jobs.json")
    write_json(asked, {"jobs": jobs, "ports": [free_port() for _ in jobs]})
    return torchrun(processes, __file__, asked, options=options, **environment)


def job(data: Path, out: Path, config: TrainConfig, **more: Any) -> dict[str, Any]:
    return {"data": str(data), "out": str(out), "config": config.to_dict(), **more}


def rows(out: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in found
    ]


MOMENTS = ("copied", "writing", "whole", "pointed")


def die_at(moment: str) -> None:
    """SIGKILL at a moment of the second checkpoint: once the weights are copied, halfway through
    the last file while steps are done, before last.json, and before older ones are removed."""
    from jpeglm.training import lm, saving
    from jpeglm.training.run import Checkpoints

    calls = {name: 0 for name in MOMENTS}
    done = 0

    def counted(name: str, real: Callable[..., Any], which: int, first: bool) -> Callable[..., Any]:
        def called(*given: Any, **more: Any) -> Any:
            calls[name] += 1
            if name == moment and calls[name] == which:
                if not first:
                    real(*given, **more)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **more)

        return called

    step, state = lm.step, saving.save_state

    def stepped(running: Any, *given: Any) -> None:
        nonlocal done
        step(running, *given)
        done = running.state.step + 1

    def written(path: Path, values: dict[str, Any]) -> None:
        state(path, values)
        number = values["state"]["step"]
        if moment == "writing" and number == 8:
            os.truncate(path, path.stat().st_size // 2)
            while done < number + 3:
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)

    lm.step, saving.save_state = stepped, written
    saving.copied = counted("copied", saving.copied, 2, first=False)  # type: ignore[attr-defined]
    Checkpoints.wrote = counted("whole", Checkpoints.wrote, 2, first=True)  # type: ignore
    # At the start too.
    Checkpoints.remove_old = counted("pointed", Checkpoints.remove_old, 3, first=True)  # type: ignore


def _rank(one: dict[str, Any]) -> None:
    """Train as one of the processes and leave a note of what this one saw."""
    from jpeglm.training import lm

    seen, said = hashlib.sha256(), []
    out, rank, step = Path(one["out"]), int(os.environ["RANK"]), lm.step
    kill = one.get("kill")

    def watched(job: Any, batch: Any, tokens: int, rate: float) -> None:
        for part in batch:
            seen.update(part["input_ids"].tobytes())
        if kill == [rank, job.state.step] and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        step(job, batch, tokens, rate)

    if one.get("limit", [None])[0] == rank:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (one["limit"][1], resource.RLIM_INFINITY))
    lm.step = watched
    if one.get("die", [None])[0] == rank:
        die_at(one["die"][1])
    try:
        config = TrainConfig.from_dict(one["config"])
        result = lm.train(Path(one["data"]), tokenizer(), out, config, say=said.append)
    finally:
        lm.step = step
    note = {"rows": seen.hexdigest(), "said": said, "warnings": result["warnings"]}
    write_json(out / f"rank-{rank}.json", note)


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    for number, one in enumerate(asked["jobs"]):
        if number:  # torchrun's own meeting place serves once
            os.environ |= {
                "MASTER_PORT": str(asked["ports"][number]), "TORCHELASTIC_USE_AGENT_STORE": "False"
            }  # fmt: skip
        _rank(one)
