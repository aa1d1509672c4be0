"""Checkpoints that are written beside the steps: whole, in their order, waited for, and killed at
any moment no loss but of steps.

As a script (`test_train_background.py DATA OUT MOMENT`) it trains and is killed with SIGKILL at a
moment of its second checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.config import InputError  # noqa: E402
from jpeglm.training import lm, saving  # noqa: E402
from jpeglm.training.background import Background  # noqa: E402
from jpeglm.training.run import Checkpoints  # noqa: E402
from tests.integration.launched import (  # noqa: E402
    MOMENTS,
    SHAPE,
    die_at,
    job,
    launch,
    rows,
    tokenizer,
)

CONFIG = lm.TrainConfig(
    steps=16,
    model=SHAPE,
    batch_tokens=512,
    warmup=2,
    ema=0.9,
    precision="float32",
    log_every=1,
    eval_every=8,
    eval_images=7,
    save_every=4,
    keep=2,
    threads=1,
)
FSDP = replace(CONFIG, strategy="fsdp", batch_tokens=1024)


def last(out: Path) -> int:
    return int(json.loads((out / "checkpoints/last.json").read_text())["step"])


def steps(out: Path) -> list[int]:
    return [row["step"] for row in rows(out)]


def same_run(out: Path, other: Path) -> None:
    from safetensors.torch import load_file

    assert rows(out) == rows(other)
    names = [path.name for path in sorted((other / "checkpoints").iterdir())]
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == names
    files = [path.relative_to(other) for path in other.rglob("*.safetensors")]
    assert len(files) > 2
    for file in files:
        if file.name.startswith("shard-"):  # whose header has its entries in any order
            mine, theirs = load_file(out / file), load_file(other / file)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine), file
        else:
            assert (out / file).read_bytes() == (other / file).read_bytes(), file
    for file in other.rglob("training_state.pt"):
        mine, theirs = (torch.load(path / file.relative_to(other)) for path in (out, other))
        assert mine.keys() == theirs.keys() and mine["windows"] == theirs["windows"]
        for held in (mine, theirs):
            held["optimizer"] = held.get("optimizer", {}).get("state", {})
        for name in ("optimizer", "ema", "rng"):
            if name in mine:
                torch.testing.assert_close(mine[name], theirs[name], rtol=0, atol=0)
    assert not [*out.rglob(".*.tmp")]


class Slow:
    """Lets every checkpoint wait before its first file until so many more steps are done, or until
    nobody steps any more; notes what is begun and whole, and what steps are done meanwhile. The
    checkpoint `full` finds no room; the step after the last one that it waits for ends when it has
    met that, however fast steps are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, more: int = 2, full: int = 0) -> None:
        self.seen: list[tuple[str, int]] = []
        self.done, self.more, self.full = 0, more, full
        self.stepped = time.monotonic()
        step, self.state, wrote = lm.step, saving.save_state, Checkpoints.wrote
        begin, self.folder = Background.begin, saving.atomic_folder

        def counted(running: Any, *given: Any) -> None:
            step(running, *given)
            if full and running.state.step == full + more:
                running.background.wait()
            self.done, self.stepped = running.state.step + 1, time.monotonic()
            self.seen.append(("step", self.done))

        def noted(checkpoints: Checkpoints, number: int) -> None:
            wrote(checkpoints, number)
            self.seen.append(("whole", number))

        def begun(background: Background, work: Any) -> None:
            self.seen.append(("begun", self.done))
            begin(background, work)

        monkeypatch.setattr(lm, "step", counted)
        monkeypatch.setattr(saving, "atomic_folder", self.wait)
        monkeypatch.setattr(saving, "save_state", self.last)
        monkeypatch.setattr(Checkpoints, "wrote", noted)
        monkeypatch.setattr(Background, "begin", begun)

    def wait(self, folder: Path, names: Any) -> Any:
        number = int(folder.name.removeprefix("step-"))
        while self.done < number + self.more and time.monotonic() < self.stepped + 5:
            time.sleep(0.005)
        return self.folder(folder, names)

    def last(self, path: Path, values: dict[str, Any]) -> None:
        if values["state"]["step"] == self.full:
            raise OSError(28, "No space left on device", str(path))
        self.state(path, values)


def test_steps_go_on_beside_a_checkpoint(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written late is what was there at its step; a second one waits, and so does the end
    of the run."""
    slow = Slow(monkeypatch, more=4)
    lm.train(data, tokenizer(), tmp_path / "run", CONFIG)
    same_run(tmp_path / "run", whole)
    told = [note for note in slow.seen if note[0] != "step"]
    assert told == [(what, n) for n in (4, 8, 12, 16) for what in ("begun", "whole")]
    for number in (4, 8, 12):
        began, ended = slow.seen.index(("begun", number)), slow.seen.index(("whole", number))
        beside = [n for what, n in slow.seen[began:ended] if what == "step"]
        assert number + 4 in beside


def test_a_stop_waits_for_what_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, out = Slow(monkeypatch), tmp_path / "run"

    def stop(done: int, total: int | None, note: str) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    assert lm.train(data, tokenizer(), out, CONFIG, progress=stop)["stopped"]
    told = [note for note in slow.seen if note[0] != "step"]
    assert told == [(what, n) for n in (4, 5) for what in ("begun", "whole")]
    assert last(out) == 5
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]


def raising(step: int, line: str) -> Callable[[int, int | None, str], None]:
    def progress(done: int, total: int | None, note: str) -> None:
        if done == step:
            raise InputError(line)

    return progress


def test_a_run_that_ends_by_an_error_keeps_its_checkpoint(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        slow = Slow(patched)
        with pytest.raises(InputError, match="met at 5"):
            lm.train(data, tokenizer(), out, CONFIG, progress=raising(5, "met at 5"))
        assert ("whole", 4) in slow.seen and last(out) == 4
    lm.train(data, tokenizer(), out, CONFIG)
    same_run(out, whole)


def test_an_error_beside_the_steps_ends_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon, with its own sentence; another error comes first, and is told with it."""
    out, both = tmp_path / "run", tmp_path / "both"
    config = replace(CONFIG, save_every=8, steps=100_000)
    said: list[str] = []
    with monkeypatch.context() as patched:
        Slow(patched, more=1, full=8)
        with pytest.raises(InputError, match=r"no space is left .*step-000008;") as met:
            lm.train(data, tokenizer(), out, config)
        assert ".tmp" not in str(met.value)
        assert steps(out)[-1] == 10
    with monkeypatch.context() as patched:
        Slow(patched, more=1, full=8)
        ended = raising(9, "met at 9")
        with pytest.raises(InputError, match="met at 9"):
            lm.train(data, tokenizer(), both, config, progress=ended, say=said.append)
    assert any("last checkpoint was not written" in line and "000008" in line for line in said)
    for run in (out, both):
        assert not [*run.glob("checkpoints/*")] and not [*run.rglob(".*.tmp")]


ENDS = """
import threading
from jpeglm.training.background import Background
Background(sharded=False).begin(threading.Event().wait)
"""


def test_a_process_that_ends_does_not_wait_for_what_is_written() -> None:
    """As at a second Ctrl-C; the work never ends."""
    subprocess.run([sys.executable, "-c", ENDS], check=True, timeout=60)


def left(out: Path, moment: str) -> None:
    """What a kill at a moment leaves."""
    assert last(out) == (8 if moment == "pointed" else 4)
    assert (out / "checkpoints/step-000008").exists() == (moment in ("whole", "pointed"))
    assert bool([*out.glob("checkpoints/.*.tmp")]) == (moment == "writing")
    assert steps(out)[-1] >= (10 if moment == "writing" else 8)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment(data: Path, whole: Path, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "run"
    words = [sys.executable, __file__, str(data), str(out), moment]
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left(out, moment)
    lm.train(data, tokenizer(), out, CONFIG)
    same_run(out, whole)


@pytest.mark.slow
def test_two_processes_killed_beside_the_steps(data: Path, tmp_path: Path) -> None:
    """While the first one writes, and before last.json; the second has written its share."""
    outs = {moment: tmp_path / moment for moment in ("writing", "whole")}
    for moment, out in outs.items():
        done = launch(2, job(data, out, FSDP, die=[0, moment]))
        assert done.returncode != 0
        left(out, moment)
    jobs = [job(data, out, FSDP) for out in [*outs.values(), tmp_path / "whole"]]
    done = launch(2, *jobs)
    assert done.returncode == 0, done.stderr[-3000:]
    for out in outs.values():
        same_run(out, tmp_path / "whole")


if __name__ == "__main__":
    die_at(sys.argv[3])
    lm.train(Path(sys.argv[1]), tokenizer(), Path(sys.argv[2]), CONFIG)
