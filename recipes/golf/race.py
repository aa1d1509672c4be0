"""Photo golf: fewest bits a held-out picture after 1e14 FLOPs of training, or 15 minutes of a core.

    python recipes/golf/race.py run 00-llama [--seeds 3]            1e14 FLOPs, what counts
    python recipes/golf/race.py run 00-llama --minutes 15           the same by the clock
    python recipes/golf/race.py run 00-llama --set tokens_a_step=2048 --flops 2e13 --seeds 1
    python recipes/golf/race.py table                               records, into README.md

A record is a folder of `records`: an `entry.py` that says what it changes, and the `result.json`
that `run` writes into it. Runs lie in runs/golf/<record>/<budget>-<seed>, go on where they were
stopped, and take one core. README.md has the rules.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from task import ARTEFACT, DATA, Entry, Rows, Task, check, flops, score, weights
from trial import changed, name_of, parsed

from jpeglm.config import InputError
from jpeglm.environment import environment
from jpeglm.files import atomic_write, read_json, write_json
from jpeglm.training.run import has_bfloat16

HERE = Path(__file__).resolve().parent
ROOT, RECORDS = HERE.parents[1], HERE / "records"
FLOPS, MINUTES = 1e14, 15
POINTS = 6
"""Measurements of a run, the last at its end."""
COUNTED = 64
"""FLOPs are counted for rows of multiples of so many ids."""
SAVE = 120
"""Seconds between states that a stopped run goes on from."""
LEVEL = 0.01
"""A record is better than the one before with a smaller p-value than this."""


def module_of(record: str) -> ModuleType:
    """The `entry.py` of a record; records import the one that they change by this, too."""
    path = RECORDS / record / "entry.py"
    if not path.exists():
        names = ", ".join(sorted(entry.parent.name for entry in RECORDS.glob("*/entry.py")))
        raise InputError(f"there is no {path}; the records are {names}")
    spec = importlib.util.spec_from_file_location(f"golf_{record.replace('-', '_')}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Run:
    """One training of a record. spent: FLOPs or seconds, whatever `budget` is counted in."""

    def __init__(
        self,
        kind: type[Entry],
        task: Task,
        seed: int,
        budget: float,
        clock: bool,
        out: Path,
        eager: bool = False,
    ) -> None:
        self.begun = time.monotonic()
        self.task, self.budget, self.clock, self.out = task, budget, clock, out
        self.entry = kind(task, seed)
        self.model = self.entry.model()
        check(self.entry, self.model, task.held_out[:3])
        self.rows = Rows(self.entry, task.train)
        self.seed, self.step, self.tokens, self.flops, self.seconds = seed, 0, 0, 0, 0.0
        self.curve: list[tuple[float, float]] = []
        self.costs: dict[int, int] = {}
        self.optimizers = self.entry.optimizers(self.model)
        self.peaks = [[group["lr"] for group in one.param_groups] for one in self.optimizers]
        self.reduced = torch.bfloat16 if has_bfloat16(torch.device("cpu")) else torch.float32
        self.compiled = self.objective if eager else torch.compile(self.objective, dynamic=True)

    @property
    def share(self) -> float:
        return (self.seconds if self.clock else self.flops) / self.budget

    def objective(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.reduced is torch.bfloat16):
            logits = self.model(inputs)
        return self.entry.loss(logits.float(), targets)

    def cost(self, rows: int, length: int) -> int:
        """FLOPs of a step, on a straight line between lengths that are counted."""
        below = length // COUNTED * COUNTED
        for edge in (below, below + COUNTED):
            if edge not in self.costs:
                self.costs[edge] = flops(self.entry.model(), edge, self.rows.columns) if edge else 0
        slope = (self.costs[below + COUNTED] - self.costs[below]) / COUNTED
        return round(rows * (self.costs[below] + slope * (length - below)))

    def train(self) -> dict[str, Any]:
        """To the budget's end, from where the run was stopped; what it came to."""
        self.resume()
        saved = self.begun
        plans = itertools.islice(
            self.rows.plans(self.entry.tokens_a_step, self.seed), self.step, None
        )
        for plan in plans:
            if self.share >= 1:
                break
            inputs, targets = self.rows.batch(plan)
            self.take(inputs, targets)
            now = time.monotonic()
            self.seconds += now - self.begun
            self.begun = now
            if self.share >= (len(self.curve) + 1) / POINTS and self.share < 1:
                self.measure()
                self.begun = time.monotonic()
            if self.begun - saved > SAVE:
                self.save()
                saved = self.begun = time.monotonic()
        return self.finish()

    def take(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        rate = self.entry.rate(self.step, self.share)
        for optimizer, peaks in zip(self.optimizers, self.peaks):
            for group, peak in zip(optimizer.param_groups, peaks):
                group["lr"] = rate * peak
        self.compiled(inputs, targets).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.entry.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += int((targets >= 0).sum())
        self.flops += self.cost(*targets.shape)

    def measure(self) -> np.ndarray:
        bits = score(self.entry, self.model, self.task.held_out)
        self.curve.append((self.seconds if self.clock else self.flops, float(bits.mean())))
        print(f"{self.out}: step {self.step}, {100 * self.share:.0f} %, {self.tokens:,} tokens, "
              f"{self.seconds:.0f} s, {bits.mean():.1f} bits", flush=True)  # fmt: skip
        return bits

    def finish(self) -> dict[str, Any]:
        kept = weights(self.model)
        save_file(kept, self.out / "model.safetensors")
        self.entry.tokenizer.save(self.out)
        size = sum(
            path.stat().st_size
            for path in self.out.iterdir()
            if path.name in ("model.safetensors", "tokenizer.json")
        )
        if size > ARTEFACT:
            raise InputError(f"the artefact takes {size:,} bytes; {ARTEFACT:,} are allowed")
        with torch.no_grad():
            for value in self.model.state_dict().values():
                if value.is_floating_point():
                    value.copy_(value.to(torch.bfloat16))
        check(self.entry, self.model, self.task.held_out[:3])
        bits = self.measure()
        result = {
            "seed": self.seed,
            "bits": float(bits.mean()),
            "steps": self.step,
            "tokens": self.tokens,
            "flops": self.flops,
            "seconds": round(self.seconds, 1),
            "parameters": sum(value.numel() for value in self.model.parameters()),
            "artefact_bytes": size,
            "arithmetic": str(self.reduced).removeprefix("torch."),
            "curve": self.curve,
        } | environment()
        write_json(self.out / "result.json", result)
        (self.out / "state.pt").unlink(missing_ok=True)
        return result

    def save(self) -> None:
        draft = self.out / "state.pt.tmp"
        state = {name: getattr(self, name) for name in STATE}
        state |= {"model": self.model.state_dict()}
        state |= {"optimizers": [one.state_dict() for one in self.optimizers]}
        torch.save(state, draft)
        os.replace(draft, self.out / "state.pt")

    def resume(self) -> None:
        if not (self.out / "state.pt").exists():
            return
        state = torch.load(self.out / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(kept)
        for name in STATE:
            setattr(self, name, state[name])
        self.begun = time.monotonic()


STATE = ("step", "tokens", "flops", "seconds", "curve")


def named(budget: float, clock: bool = False) -> str:
    """A budget as results and folders name it: `1e14`, `15min`."""
    return f"{budget / 60:g}min" if clock else f"{budget:.0e}".replace("+", "")


def results(path: Path, task: Task) -> dict[str, Any]:
    """What a record came to so far; InputError if that was on other pictures."""
    found: dict[str, Any] = {"task": task.fingerprint, "budgets": {}}
    if path.exists():
        found = read_json(path)
    if found["task"] != task.fingerprint:
        raise InputError(f"{path} is of other pictures than {task.folder}; prepare those anew")
    return found


def run(
    record: str,
    changes: dict[str, Any],
    seeds: list[int],
    budget: float,
    clock: bool,
    work: Path,
    eager: bool = False,
) -> None:
    """Train a record with each seed and write what it came to into its result.json; with changes
    of the entry's fields it is a trial, whose results stay in its runs."""
    if not 0 < budget < math.inf:
        raise InputError(f"the budget is {budget:g}; give a number above 0")
    if not seeds:
        raise InputError("no seed is to be run; give --seeds 1 or more")
    kind = changed(module_of(record).Entry, changes)
    runs = work / "runs/golf" / name_of(record, changes)
    task, name, path = Task(work / DATA), named(budget, clock), RECORDS / record / "result.json"
    if not changes:
        results(path, task)
    for seed in seeds:
        out = runs / f"{name}-{seed}"
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "result.json").exists():
            Run(kind, task, seed, budget, clock, out, eager).train()
        if changes:
            continue
        found = results(path, task)  # as it is now: another seed may have ended beside this one
        rows = {row["seed"]: row for row in found["budgets"].get(name, [])}
        rows[seed] = read_json(out / "result.json")
        found["budgets"][name] = [rows[seed] for seed in sorted(rows)]
        write_json(path, found)


def table() -> str:
    """The records as a Markdown table, in their order; p-values are Welch's, one-sided, bold below
    LEVEL."""
    from scipy.stats import ttest_ind

    titles = (
        "record", "bits a picture (seeds)", "change", "p", "parameters", "tokens",
        f"after {MINUTES} minutes of one core",
    )  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    before: list[float] = []
    for path in sorted(RECORDS.glob("*/result.json")):
        budgets = read_json(path)["budgets"]
        rows = budgets.get(named(FLOPS), [])
        if not rows:
            continue
        bits = [row["bits"] for row in rows]
        clocked = budgets.get(named(60 * MINUTES, clock=True), [])
        of = ", ".join(sorted({f"{row['processor']}, {row['vectors']}" for row in clocked}))
        by_clock = f"{np.mean([row['bits'] for row in clocked]):.0f} ({of})" if clocked else "–"
        change = p = "–"
        if before:
            change = f"{100 * (np.mean(bits) / np.mean(before) - 1):+.1f} %"
        if min(len(before), len(bits)) > 1:
            value = ttest_ind(bits, before, equal_var=False, alternative="less").pvalue
            p = f"**{value:.1g}**" if value < LEVEL else f"{value:.1g}"
        spread = f" ({min(bits):.0f} to {max(bits):.0f}, {len(bits)})" if len(bits) > 1 else " (1)"
        lines.append(
            f"| [{path.parent.name}](records/{path.parent.name}/entry.py) | "
            f"{np.mean(bits):.0f}{spread} | {change} | {p} | {rows[0]['parameters'] / 1e6:.2f} M | "
            f"{np.mean([row['tokens'] for row in rows]) / 1e6:.1f} M | {by_clock} |"
        )
        before = bits
    return "\n".join(lines)


def plot(out: Path) -> None:
    """Bits against FLOPs of all runs, a colour a record."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for number, path in enumerate(sorted(RECORDS.glob("*/result.json"))):
        for seed, row in enumerate(read_json(path)["budgets"].get(named(FLOPS), [])):
            label = path.parent.name if seed == 0 else None
            axes.plot(*zip(*row["curve"]), "o-", markersize=3, color=f"C{number}", label=label)
    axes.set(xlabel="training FLOPs", ylabel="bits a held-out picture")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("run", help="train a record and write its result.json")
    one.add_argument("record")
    one.add_argument("--seeds", type=int, default=3, help="how many (3)")
    one.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (0)")
    one.add_argument("--flops", type=float, default=FLOPS, help="of a run (1e14)")
    one.add_argument("--minutes", type=float, help="of a run, in place of FLOPs")
    one.add_argument(
        "--set", nargs="+", default=[], metavar="FIELD=VALUE", help="try it with other fields"
    )
    one.add_argument("--eager", action="store_true", help="without torch.compile, which needs g++")
    one.add_argument("--work", type=Path, default=ROOT, help="where data/ and runs/ lie")
    verbs.add_parser("table", help="write the table of records and their curves")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "run":
            torch.set_num_threads(1)
            seeds = list(range(arguments.first, arguments.first + arguments.seeds))
            clock = arguments.minutes is not None
            budget = 60 * arguments.minutes if clock else arguments.flops
            changes = parsed(arguments.set)
            run(arguments.record, changes, seeds, budget, clock, arguments.work, arguments.eager)
            if changes:  # a trial, which changes no record
                return
        plot(RECORDS / "curves.svg")
        page, first, last = HERE / "README.md", "<!-- records -->\n", "\n<!-- /records -->"
        head, rest = page.read_text().split(first)
        atomic_write(page, f"{head}{first}{table()}{last}{rest.split(last)[1]}".encode())
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
