"""What every training run does besides learning: its folder, its log, its end.

A run folder belongs to one run. Going on with other settings, data or another model is refused in
words; rows of metrics.jsonl that will be written again are dropped; a first SIGINT or SIGTERM ends
the run after the present step, saved, a second one at once.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from jpeglm.config import InputError
from jpeglm.files import atomic_write

PACKAGES = ("torch", "transformers", "accelerate", "numpy")
"""Whose versions decide the numbers."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; an older CPU emulates it, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
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
        for name, value in new["settings"].items()
        if name not in free and old["settings"].get(name) != value
    ]
    if changed:
        raise InputError(
            f"the run in {out} was started with {', '.join(changed)}; "
            "give the same settings to go on, or another folder to start anew"
        )
    before = facts(old)
    for what, now in facts(new).items():
        if before[what] != now:
            raise InputError(
                f"the run in {out} was started with {what} {before[what]}, this is {now}; "
                "choose another folder to start anew"
            )


def cut_metrics(file: Path, step: int) -> None:
    """Drop rows after `step`, which are about to be written again, and a half-written last one."""
    if not file.exists():
        return
    lines = file.read_bytes().split(b"\n")[:-1]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    atomic_write(file, b"".join(line + b"\n" for line in kept))


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
