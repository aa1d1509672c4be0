"""What every benchmark shares: repeated timing, and the record of where it ran."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.environment import environment
from jpeglm.files import write_json
from jpeglm.kernels import njit

ROOT = Path(__file__).resolve().parents[1]


KINDS = ("avx512-vnni", "avx512", "avx2", "neon", "h100", "h200", "other")
"""Kinds of processors, in the page's order."""
SETTLE = 0.05
"""Seconds before each turn: threads of the contestant before go on spinning for a while."""


def memory(size: float) -> np.ndarray:
    """int64 of so many bytes, every one written: pages of zeros that nobody wrote are all one page,
    which the nearest cache holds."""
    return np.ones(max(1, int(size) // 8), np.int64)


@njit(fastmath=True)
def read_all(data):
    """Read int64 [n] once, as fast as one core can: what a pass over so many bytes takes."""
    total = np.int64(0)
    for i in range(len(data)):
        total += data[i]
    return total


def rates(
    contestants: dict[str, Callable[[], Any]], work: float, repeats: int
) -> dict[str, dict[str, float]]:
    """Units of work a second of each contestant: median, least, most of `repeats` timed turns.

    The contestants take turns, so that a machine whose speed drifts drifts for all of them; each
    has one turn before that does not count.
    """
    for call in contestants.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, call in contestants.items():
            time.sleep(SETTLE)
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: spread([work / one for one in times]) for name, times in seconds.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def number(value: float) -> str:
    """Three digits at least, none behind the point from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(
    name: str,
    unit: str,
    tables: dict[str, dict[str, dict[str, float]]],
    unavailable: dict[str, str] | None = None,
    compare: bool = True,
) -> None:
    """Print the tables; the words are those of `finish`."""
    print(f"\n{name} ({unit}, median of turns{'; ratio to the first row' if compare else ''})")
    for title, rows in tables.items():
        print(f"  {title}")
        first = next(iter(rows.values()))["median"]
        for row, figures in rows.items():
            ratio = f"{figures['median'] / first:7.2f}x" if compare else ""
            print(
                f"    {row:34s} {number(figures['median']):>12s}   {ratio}"
                f"   ({number(figures['least'])} to {number(figures['most'])})"
            )
    if unavailable:
        print("  not measured: " + "; ".join(f"{who} ({why})" for who, why in unavailable.items()))


def machine() -> dict[str, Any]:
    """The command that runs, and where."""
    packages = (
        "numpy", "numba", "Pillow", "tokenizers", "torch", "triton", "transformers",
        "sentencepiece", "ctranslate2", "onnxruntime-genai", "xllamacpp",
    )  # fmt: skip
    command = " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
    return environment(*packages) | {"command": command}


def write(
    out: Path,
    unit: str,
    tables: dict[str, dict[str, dict[str, float]]],
    unavailable: dict[str, str] | None,
    compare: bool,
    where: dict[str, Any],
) -> None:
    """A result's JSON, as `report.py` reads it."""
    result = {"unit": unit, "compare": compare, "tables": tables, "machine": where}
    write_json(out, result | ({"unavailable": unavailable} if unavailable else {}))


def kind_of(vectors: str) -> str:
    """The kind of processor in a file's name: one of `KINDS`, or other."""
    kind = vectors.lower().replace("-", "").replace(" ", "-")
    return kind if kind in KINDS else "other"


def finish(
    name: str,
    unit: str,
    tables: dict[str, dict[str, dict[str, float]]],
    unavailable: dict[str, str] | None = None,
    compare: bool = True,
) -> None:
    """Print the tables and write docs/results/bench-NAME-VECTORS.json, a file for each kind of
    processor; unavailable: peers, and why; compare: whether ratios to the first row say anything.
    """
    show(name, unit, tables, unavailable, compare)
    where = machine()
    kind = kind_of(where["vectors"])
    out = ROOT / "docs" / "results" / f"bench-{name}-{kind}.json"
    write(out, unit, tables, unavailable, compare, where)
    print(f"  {out.relative_to(ROOT)}")
