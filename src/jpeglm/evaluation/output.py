"""The folder of an evaluation: its figures, and a plot and a sheet where there is something to see.

OUT/result.json   what the verb prints with --json, and `files`, the names of the others
OUT/plot.png      of completion, continuation and classes; needs matplotlib
OUT/sheet.png     rows of pictures as they come: the originals, then what was made of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.config import install
from jpeglm.evaluation.figures import completion_plot, confusion_plot, frames_plot, sheet
from jpeglm.files import atomic_write, write_json
from jpeglm.folders import EVALUATION, claim, record_of

WIDE = 16
"""Pictures in a row of a sheet."""
PLOTS: dict[str, Callable[[dict[str, Any]], bytes | None]] = {
    "completion": lambda result: completion_plot({"model": result["ratios"]}, result["metric"]),
    "classify": lambda result: (
        confusion_plot(result["classes"], result["confusion"]) if "confusion" in result else None
    ),
    "continuation": lambda result: frames_plot(result["rows"], result["keep_frames"]),
}


class Output:
    """The folder OUT, or none; InputError before the work if it cannot be written."""

    def __init__(self, out: Path | None, inputs: Iterable[Path | None]) -> None:
        self.out = out
        self.rows: list[np.ndarray] = []
        if out is not None:
            claim(out, EVALUATION, inputs=[path for path in inputs if path is not None])

    def show(self, pictures: np.ndarray) -> None:
        """Another row of the sheet: the first of uint8 [N, H, W, 3], all rows of one size."""
        if self.out is not None:
            self.rows.append(pictures[:WIDE])

    def write(self, verb: str, result: dict[str, Any], say: Callable[[str], None]) -> None:
        """The files of a result, which it names then too, under `files`; those of an earlier one
        that have no successor are removed."""
        if self.out is None:
            return
        pictures: dict[str, bytes] = {}
        if verb in PLOTS:
            try:
                plot = PLOTS[verb](result)
                pictures |= {"plot.png": plot} if plot else {}
            except ModuleNotFoundError as error:
                say(f"no plot is drawn: {error.name} is not installed; {install('eval')}")
        if self.rows:
            pictures["sheet.png"] = sheet(self.rows, max(1, 96 // self.rows[0].shape[1]))
        before = record_of(self.out, EVALUATION) or {"files": []}
        result["files"] = [*pictures]
        write_json(self.out / "result.json", result)
        for name, data in pictures.items():
            atomic_write(self.out / name, data)
        for name in {"plot.png", "sheet.png"} & {*before["files"]} - pictures.keys():
            with suppress(FileNotFoundError):
                (self.out / name).unlink()
