"""What the run folder of a VAE or VQ-VAE says of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jpeglm.folders import argument, quoted
from jpeglm.training.curves import read_rows
from jpeglm.training.pages import (
    MARK,
    STATES,
    Warn,
    code,
    command_line,
    files_table,
    picture,
    plain,
    write_pages,
)

FILES = {
    "model/": "the best weights: a codec folder",
    "state.pt": "weights, optimizer and step of the last evaluation: what the run goes on from",
    "metrics.jsonl": "a row of loss and learning rate each `--log-every` steps; a row of held-out "
    "measures each `--eval-every` steps",
    "samples/": "held-out pictures above, what the model makes of them below, and of a VAE what it "
    "draws below that",
    "tensorboard/": "the same figures for TensorBoard",
    "config.json": "settings, model, data, versions, commit",
}
"""What lies in a run folder beside its pages."""
MEASURES = {
    "psnr": ("PSNR, dB", ".2f"),
    "usage": ("codes in use", ".1%"),
    "perplexity": ("perplexity of codes", ".1f"),
    "elbo_bits_per_value": ("bits a value by the ELBO", ".4f"),
    "kl_nats": ("of it KL, nats a picture", ".1f"),
}
"""Columns of the table of what was measured: key → (title, form)."""
KINDS = {"vqvae": "VQ-VAE", "vae": "VAE"}


def write_summary(
    out: Path,
    record: dict[str, Any],
    usual: dict[str, Any],
    warn: Warn,
    stopped: bool | None = None,
) -> None:
    """The pages of a run. record: its config.json; usual: defaults of the settings, which its
    command leaves out; stopped: None while it goes on."""
    rows = read_rows(out)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    measured = [row for row in rows if "psnr" in row]

    def plot() -> bytes:
        from jpeglm.evaluation.figures import curves_plot

        points = [(row["step"], row["psnr"]) for row in measured]
        return curves_plot(losses, points, ("loss", "PSNR of held-out pictures, dB"))

    write_pages(
        out,
        plot if losses and measured else None,
        lambda: readme(out, record, usual, measured, stopped),
        warn,
    )


def command(out: Path, record: dict[str, Any], usual: dict[str, Any]) -> str:
    """The command line of a run: every setting that is not the default."""
    values = record["views"] | record["model"] | record["settings"]
    size = "x".join(map(str, record["size"]))
    words = ["jpeglm", f"train-{record['kind']}", argument(record["data"]["path"])]
    words += ["--out", argument(out)]
    known = {name: value for name, value in values.items() if name not in ("width", "height")}
    return command_line([*words, "--size", size], known, usual)


def readme(
    out: Path,
    record: dict[str, Any],
    usual: dict[str, Any],
    measured: list[dict[str, Any]],
    stopped: bool | None,
) -> str:
    kind, settings, run = record["kind"], record["settings"], quoted(out)
    width, height = record["size"]
    last = measured[-1]
    best = min(measured, key=lambda row: row["objective"])
    of = f" of {settings['steps']:,}" if settings["steps"] else ""
    minutes = f" of {settings['minutes']:g}" if settings["minutes"] else ""
    columns = {key: told for key, told in MEASURES.items() if key in last}
    table = ["| | " + " | ".join(title for title, _ in columns.values()) + " |"]
    table.append("|---|" + "---|" * len(columns))
    for row, what in [(best, "best, in model/"), (last, "last")][: 2 - (best is last)]:
        cells = " | ".join(format(row[key], form) for key, (_, form) in columns.items())
        table.append(f"| step {row['step']:,} ({what}) | {cells} |")
    parts = [
        MARK,
        f"# {plain(out.name)}: a {KINDS[kind]} of {record['parameters'] / 1e6:.1f} M parameters "
        f"for pictures of {width} × {height}",
        f"Step {last['step']:,}{of}, {last['seconds'] / 60:.1f}{minutes} minutes, "
        f"{last['images']:,} pictures seen. {STATES[stopped]}",
        *picture(out, "curves.png"),
        "\n".join(table),
        f"Held out are {record['pictures']['validation']:,} pictures, of which at most "
        f"{settings['eval_images']:,} are measured. {_explained(record)}",
        *picture(out, "samples.jpg"),
        f"## How to go on\n\n    {command(out, record, usual)}",
        "The same command resumes after a stop or a kill. The budget and the intervals of "
        "measuring may change; other settings need another folder.",
        _uses(record, run),
        "## What it was made of\n\n"
        f"- data: {code(record['data']['path'])}, {record['pictures']['train']:,} pictures\n"
        f"- model: {record['parameters']:,} parameters ("
        + ", ".join(f"{name} {value}" for name, value in record["model"].items())
        + f")\n- machine: {record['device']}, jpeglm {record['versions'].get('jpeglm')}, "
        f"torch {record['versions'].get('torch')}, commit {record['commit'] or 'unknown'}",
        files_table(FILES),
    ]
    return "\n\n".join(parts) + "\n"


def _explained(record: dict[str, Any]) -> str:
    if record["kind"] == "vae":
        return (
            "The ELBO bounds the bits that a value of a pixel takes from above; the last row of "
            "each sheet is drawn from the prior."
        )
    model = record["model"]
    codes = math.prod(side // model["downsampling"] for side in record["size"])
    bits = codes * math.log2(model["codes"])
    return (
        f"A picture is {codes:,} codes of {model['codes']:,}, at most {bits:,.0f} bits; "
        "a perplexity far below the number of codes says that many of those are hardly used."
    )


def _uses(record: dict[str, Any], run: str) -> str:
    data = quoted(record["data"]["path"])
    if record["kind"] == "vae":
        return (
            f"    jpeglm generate --checkpoint {run}/model\n"
            f"    jpeglm evaluate reconstruction {data} --checkpoint {run}/model"
        )
    return (
        f"    jpeglm prepare {data} {run}-data --codec vq --codec-dir {run}/model\n"
        f"    jpeglm train {run}-data --minutes 30"
    )
