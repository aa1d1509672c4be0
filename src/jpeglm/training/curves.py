"""How a run went, out of its metrics.jsonl: as points, and as lines of text for a terminal.

What random weights are worth lies far above all that follows and would flatten the curve: it is
drawn at the upper edge, with its figure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jpeglm.config import InputError
from jpeglm.files import printable, read_bytes

OTHERS = "_bits_per_image"
"""How the keys of baselines end in the row of step 0; what stands before is their name."""
AGAINST = "against_"
"""How the key begins that has an evaluation's bits as a share, above or below 1, of the streams'
own code; what follows is its name."""
ERROR = "error"
"""The key of half the 95 % interval of that share."""
HOLE = "bits_per_hole"
"""The key of what the content of a hole takes, in an evaluation of a run that learns to fill."""


def worth(row: dict[str, Any]) -> float:
    """What the best evaluation has least of: bits of a held-out picture and, of a run that learns
    both, of the hole in it."""
    return float(row["bits_per_image"] + row.get(HOLE, 0.0))


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl."""
    file = out / "metrics.jsonl"
    return parse_rows(read_bytes(file).splitlines(), file) if file.exists() else []


def parse_rows(lines: list[bytes], file: Path) -> list[dict[str, Any]]:
    """Rows of a log; InputError names the first line that is none."""
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError
        except ValueError as error:
            raise InputError(
                f"line {number} of {printable(file)} is no row of a run's log; remove that line, "
                "or move the file away: the run goes on without it"
            ) from error
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Curves:
    """Rows of metrics.jsonl; of an older run step 0 and the intervals are missing."""

    rows: list[dict[str, Any]]

    @classmethod
    def read(cls, out: Path) -> Curves:
        return cls(read_rows(out))

    @cached_property
    def trained(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "loss" in row]

    @cached_property
    def measured(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "bits_per_image" in row]

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The evaluation whose weights are in OUT/model."""
        return min(self.measured, key=worth, default=None)

    @property
    def first(self) -> dict[str, Any] | None:
        """Step 0, if it was measured."""
        return self.measured[0] if self.measured and not self.measured[0]["step"] else None

    @property
    def others(self) -> dict[str, float]:
        """Bits of the baselines by their names."""
        found = self.first or {}
        return {k.removesuffix(OTHERS): v for k, v in found.items() if k.endswith(OTHERS)}

    @property
    def bits(self) -> list[tuple[float, float]]:
        return [(row["step"], row["bits_per_image"]) for row in self.measured]

    @property
    def top(self) -> float:
        """The upper edge of a plot of bits: a twentieth above what is drawn, but for a step 0 that
        is worse than all others by more than all of those differ."""
        known = [value for _, value in self.bits] + [*self.others.values()]
        rest = sorted(known)[:-1] or known
        far = self.first and self.first["bits_per_image"] > 2 * rest[-1] - rest[0]
        low, high = rest[0], rest[-1] if far and len(rest) > 1 else max(known)
        return high + 0.05 * (high - low or high)

    def plot(self) -> bytes:
        """PNG; needs matplotlib."""
        from jpeglm.evaluation.figures import curves_plot

        losses = [(row["step"], row["loss"]) for row in self.trained]
        own = next(iter(self.others.values()), 0.0)
        errors = [row.get(ERROR, 0.0) * own for row in self.measured]
        return curves_plot(losses, self.bits, errors=errors, lines=self.others, top=self.top)

    def text(self, width: int = 60, height: int = 10) -> list[str]:
        """The bits of held-out pictures over steps, `o`, and the baselines, dashed, in letters that
        every terminal has; nothing of fewer than two evaluations."""
        if len(self.bits) < 2:
            return []
        top, last = self.top, self.bits[-1][0]
        low = min([value for _, value in self.bits] + [*self.others.values()])
        canvas = [[" "] * width for _ in range(height)]

        def line(value: float) -> int:
            share = (top - min(value, top)) / (top - low)
            return min(height - 1, round(share * (height - 1)))

        labels, names = {line(self.bits[-1][1]): self.bits[-1][1]}, [""] * height
        for name, value in self.others.items():
            canvas[line(value)] = list(("- " * width)[:width])
            labels[line(value)], names[line(value)] = value, name
        for step, value in self.bits:
            column = round(step / max(last, 1) * (width - 1))
            canvas[line(value)][column] = "^" if value > top else "o"
        lines = [
            f"{f'{labels[i]:,.0f}' if i in labels else '':>9} |{''.join(row)}  {names[i]}".rstrip()
            for i, row in enumerate(canvas)
        ]
        axis = [f"{'':>9} +{'-' * width}"]
        end = f"{last:,} steps"
        axis.append(f"{'':>11}0{end:>{width - 1}}")
        above = [f"^ step {s:,}: {v:,.0f}" for s, v in self.bits if v > top]
        return ["bits a held-out picture", *lines, *axis, *above]
