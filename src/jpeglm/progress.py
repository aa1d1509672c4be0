"""Progress of long work: a bar with rate and ETA on a terminal, plain lines in a log.

Everything goes to stderr, so that `--json` output on stdout stays one object.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jpeglm.files import printable

LOG_SECONDS = 10.0


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Reporter:
    """`with Reporter("complete", "pictures") as report: report(done, total, "12 tokens/s")`."""

    def __init__(self, title: str, unit: str, quiet: bool = False) -> None:
        self.title, self.unit, self.quiet = title, unit, quiet
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and not quiet
        self.start = self.last = time.monotonic()
        self.first_done: int | None = None
        self.before = 0
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self.live:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=None, note="", rate="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        now = time.monotonic()
        if self.first_done is None or done < self.before:  # the next of several parts
            self.first_done, self.start = done, now if self.first_done is not None else self.start
        self.before = done
        rate = (done - self.first_done) / max(now - self.start, 1e-9)
        if self._bar:
            self._bar.update(
                self._task,
                completed=done,
                total=total,
                note=note,
                rate=f"{rate:.3g} {self.unit}/s" if rate else "",
            )
        elif not self.quiet and now - self.last >= LOG_SECONDS:
            self.last = now
            eta = f", ETA {clock((total - done) / rate)}" if total and rate else ""
            of = f" of {total}" if total else ""
            pace = f", {rate:.3g}/s" if rate else ""
            line = f"{self.title}: {done}{of} {self.unit}{pace}{eta}"
            self._print(f"{line}, {note}" if note else line)

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        line = printable(line)
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif not self.quiet:
            self._print(line)

    def _print(self, line: str) -> None:
        try:
            print(line, file=sys.stderr, flush=True)
        except BrokenPipeError:  # whoever read has gone (`2>&1 | head -1`); the work goes on
            self.quiet = True
