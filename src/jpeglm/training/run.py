"""What every training run does besides learning: its folder, its log, its end.

A run folder belongs to one run. Going on with other settings, data or another model is refused in
words; rows of metrics.jsonl that will be written again are dropped; checkpoints appear whole, and
a pointer names the one to go on from; a first SIGINT or SIGTERM ends the run after the present
step, saved, a second one at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from jpeglm.config import InputError, differences
from jpeglm.files import (
    atomic_write,
    explain,
    printable,
    read_bytes,
    read_json,
    to_json,
    write_json,
)
from jpeglm.folders import only_one, steps_in
from jpeglm.training.curves import parse_rows

PACKAGES = ("torch", "transformers", "accelerate", "numpy")
"""Whose versions decide the numbers."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; an older CPU emulates it, slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def refuse_other_run(
    out: Path,
    old: dict[str, Any],
    new: dict[str, Any],
    free: tuple[str, ...],
    facts: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """InputError unless `new` goes on with the run that `old`, a config.json, tells of.

    Of their `settings` those in `free` may differ; what `facts` reads out of a record may not.
    """
    changed = [
        f"{name} {old['settings'].get(name)!r} (now {value!r})"
        for name, value in json.loads(to_json(new["settings"])).items()
        if name not in free and old["settings"].get(name) != value
    ]
    if changed:
        raise InputError(
            f"the run in {out} was started with {', '.join(changed)}; "
            "give the same settings to resume (the budget and the intervals of measuring and "
            "saving may change), or another folder to start anew"
        )
    before = facts(old)
    for what, now in json.loads(to_json(facts(new))).items():
        if before[what] == now:
            continue
        told = f"{what} {before[what]}, this is {now}"
        if isinstance(now, dict):
            told = f"another {what} ({differences(before[what], now)})"
        raise InputError(
            f"the run in {out} was started with {told}; choose another folder to start anew"
        )


def identity_of(
    record: dict[str, Any], free: tuple[str, ...], facts: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """What of a config.json `refuse_other_run` compares, to be kept in the run's checkpoints."""
    fixed = {name: value for name, value in record["settings"].items() if name not in free}
    known: dict[str, Any] = json.loads(to_json(fixed | facts(record)))
    return known


def refuse_foreign(kept: dict[str, Any], own: dict[str, Any]) -> None:
    """InputError for what another run has kept, as in a folder of checkpoints that was copied here;
    older versions kept less, or nothing."""
    told = [
        f"{name} ({differences(kept[name], now)})"
        if isinstance(now, dict) and isinstance(kept[name], dict)
        else f"{name} is {kept[name]}, not {now}"
        for name, now in own.items()
        if name in kept and kept[name] != now
    ]
    if told:
        raise InputError(f"it is another run's: {', '.join(told)}")


def source(data: Path | str) -> dict[str, str]:
    """Where a run's data are, as given and from everywhere."""
    return {"path": str(data), "absolute": os.path.realpath(data)}


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """A run folder, made where there is none, that no other training writes to meanwhile."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, out) from error
    with only_one(out, "training"):
        yield


def cut_metrics(file: Path, step: int) -> None:
    """Drop rows after `step`, which are about to be written again, and a half-written last one."""
    if not file.exists():
        return
    lines = read_bytes(file).split(b"\n")[:-1]
    kept = [line for line, row in zip(lines, parse_rows(lines, file)) if row["step"] <= step]
    atomic_write(file, b"".join(line + b"\n" for line in kept))


@contextmanager
def open_metrics(out: Path, resumed: int) -> Iterator[Metrics]:
    """The run's log from step `resumed` on, -1 for a new one; rows after it, to be written again,
    are dropped. Where the system takes no more, InputError says so."""
    from torch.utils.tensorboard import SummaryWriter

    path, purge = out / "metrics.jsonl", resumed + 1 if resumed > 0 else None
    cut_metrics(path, resumed)
    hook = threading.excepthook

    def quietly(met: threading.ExceptHookArgs) -> None:
        if not isinstance(met.exc_value, OSError):  # TensorBoard's thread raises it here again
            hook(met)

    threading.excepthook = quietly
    try:
        with (
            open(path, "a") as file,
            SummaryWriter(str(out / "tensorboard"), purge_step=purge) as board,
        ):
            yield Metrics(file, board)
    except OSError as error:
        # TensorBoard opens its own by a name of bytes.
        raise explain(error, Path(os.fsdecode(error.filename or out))) from error
    except UnicodeEncodeError as error:
        raise InputError(
            f"TensorBoard takes no folder whose name is not UTF-8, as {printable(out)}; give "
            "another --out"
        ) from error
    finally:
        threading.excepthook = hook


@dataclass
class Metrics:
    """OUT/metrics.jsonl and OUT/tensorboard."""

    file: TextIO
    board: Any

    def write(self, row: dict[str, Any]) -> None:
        """A row; it has a `step`."""
        self.file.write(to_json(row) + "\n")
        self.file.flush()
        for name, value in row.items():
            if name not in ("step", "seconds"):
                self.board.add_scalar(name, value, row["step"])

    def picture(self, pixels: np.ndarray, step: int) -> None:
        """A sheet of samples, uint8 [H, W, 3]."""
        self.board.add_image("samples", pixels, step, dataformats="HWC")

    def sync(self) -> None:
        """Rows written so far survive the machine's end, before a checkpoint counts on them."""
        os.fsync(self.file.fileno())


def save_state(path: Path, values: dict[str, Any]) -> None:
    """torch.save, but with the OSError that kept it from writing: torch tells of byte counts."""
    try:
        with open(path, "wb") as file:
            torch.save(values, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


class Checkpoints:
    """The folders step-000500 … of a run, and last.json, which names the one to go on from."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.pointer = folder / "last.json"

    def last(self) -> Path | None:
        """The folder to go on from, None at a new start: the one that is pointed to, or the latest
        where nothing points. InputError for a pointer to nothing."""
        if not self.pointer.exists():
            return next(reversed(steps_in(self.folder)), None)
        how = "delete it, and the latest checkpoint is gone on from"
        try:
            name = read_json(self.pointer).get("folder")
        except InputError as error:
            raise InputError(f"{error}; {how}") from error
        if not isinstance(name, str) or not name.strip("/.") or "\0" in name:
            raise InputError(f"{self.pointer} names no checkpoint; {how}")
        return self.folder / name

    def place(self, step: int) -> Path:
        """Where the checkpoint of a step is written."""
        return self.folder / f"step-{step:06d}"

    def wrote(self, step: int) -> None:
        """Point to a checkpoint that is whole, and remove those that are too old to be kept."""
        write_json(self.pointer, {"step": step, "folder": self.place(step).name})
        self.remove_old()

    def remove_old(self) -> None:
        """Keep the one that is pointed to and the latest of the others; asked at a start too, once
        that one is read, since a kill may have come between."""
        last = self.last()
        found = (path for path in steps_in(self.folder) if path != last)
        others = [path for path in found if not path.is_symlink()]
        for old in others[: -self.keep + 1 or None]:
            shutil.rmtree(old)


class Stop:
    """True once someone asked the run to end."""

    asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask to stop; the second one does what it always does."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        for kind in kinds:
            signal.signal(kind, before[kind])

    for kind in kinds:
        signal.signal(kind, ask)
    try:
        yield stop
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
