"""Pictures of results: contact sheets, and plots through matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

MOST_NUMBERS = 20
"""Classes whose confusions are written out."""


def sheet(rows: Iterable[np.ndarray], scale: int = 2) -> bytes:
    """PNG of rows of pictures, uint8 [N, H, W, 3] each; the captions are the caller's."""
    stacked = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    image = Image.fromarray(stacked)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def completion_plot(tables: dict[str, dict[str, Any]], metric: str) -> bytes:
    """PNG of the distance against the share kept, one line a rival, bars for the intervals."""
    figure, axes = _axes()
    for name, table in tables.items():
        shares = [key for key in table if key != "codec"]
        values = [table[key]["distance"] for key in shares]
        spread = np.abs(np.array([table[k]["interval"] for k in shares]).T - values)
        line = axes.errorbar([float(k) for k in shares], values, spread, marker="o", label=name,
                             capsize=3)  # fmt: skip
        axes.axhline(table["codec"]["distance"], ls=":", color=line[0].get_color(), lw=1)
    axes.set_xlabel("share of the picture kept (dotted: the codec alone)")
    axes.set_ylabel(metric)
    axes.set_ylim(bottom=0)
    axes.legend()
    return _png(figure)


def frames_plot(rows: dict[str, dict[str, Any]], kept: int) -> bytes:
    """PNG of PSNR against the frame's number, one line a rival; `kept` frames come before."""
    figure, axes = _axes()
    for name, row in rows.items():
        axes.plot(range(kept, kept + len(row["by_frame"])), row["by_frame"], marker="o", label=name)
    axes.set_xlabel("frame")
    axes.set_ylabel("PSNR, dB")
    axes.legend()
    return _png(figure)


def confusion_plot(names: list[str], confusion: list[list[int]]) -> bytes:
    """PNG of confusion[right][chosen], pictures, as shares of each right one."""
    figure, axes = _axes(1, len(names) / 2 + 3, len(names) / 2 + 2)
    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right")
    axes.set_yticks(places, names)
    axes.set_xlabel("chosen")
    axes.set_ylabel("right")
    if len(names) <= MOST_NUMBERS:
        for row in places:
            for column in places:
                dark = shares[row, column] > 0.5
                axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=8,
                          color="white" if dark else "black")  # fmt: skip
    return _png(figure)


Points = Sequence[tuple[float, float]]


def curves_plot(
    losses: Points,
    measured: Points,
    units: tuple[str, str] = ("loss, nats a token", "bits a held-out picture"),
    errors: Sequence[float] | None = None,
    lines: dict[str, float] | None = None,
    top: float | None = None,
) -> bytes:
    """PNG of a run: left the loss at each step, right what held-out pictures give, with half the
    95 % intervals `errors`, between the lines of others; what lies above `top` is a triangle at the
    edge."""
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = _axes(2, width=10)
    left.plot(*zip(*losses), lw=1)
    errors = errors or [0.0] * len(measured)
    far = [point for point in measured if top is not None and point[1] > top]
    inside = [(*point, error) for point, error in zip(measured, errors) if point not in far]
    if inside:
        steps, values, spread = zip(*inside)
        right.errorbar(steps, values, spread, marker="o", ms=4, capsize=2, label="this run")
    for step, value in far:
        told, edge = f"step {step:g}: {value:,.0f}", right.get_xaxis_transform()
        right.plot(step, 1, "^", color="C0", clip_on=False, label=told, transform=edge)
    for number, (name, value) in enumerate((lines or {}).items(), 1):
        right.axhline(value, ls="--", lw=1, color=f"C{number}", label=f"{name}: {value:,.0f}")
    right.set_ylim(top=top)
    right.legend(fontsize="small")
    for axes, unit in zip((left, right), units):
        axes.set_ylabel(unit)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.grid(alpha=0.3)
    return _png(figure)


def _axes(columns: int = 1, width: float = 7, height: float = 4) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), dpi=110)


def _png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png")
    plt.close(figure)
    return out.getvalue()
