"""What a language model's run folder says of itself, of config.json and metrics.jsonl alone."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from jpeglm.files import read_json
from jpeglm.folders import argument, quoted
from jpeglm.training import WARMUP, TrainConfig
from jpeglm.training.curves import ERROR, Curves
from jpeglm.training.job import Job
from jpeglm.training.pages import (
    MARK,
    STATES,
    code,
    command_line,
    files_table,
    picture,
    plain,
    write_pages,
)

FILES = {
    "model/": "the best weights in bfloat16, with tokenizer and codec: what every other command, "
    "and stock `transformers`, loads",
    "checkpoints/": "float32 weights, optimizer and place in the data: what the run goes on from",
    "metrics.jsonl": "a row of loss, learning rate and speed each `--log-every` steps; a row of "
    "held-out bits each `--eval-every` steps, the first at step 0 with the baselines",
    "samples/": "a sheet of pictures drawn at each evaluation",
    "tensorboard/": "the same figures and sheets for TensorBoard",
    "config.json": "settings, model, data, versions, commit",
}
"""What lies in a run folder beside its pages."""


def write_summary(job: Job, stopped: bool | None = None) -> None:
    """The pages of a run, on the first process; stopped: None while it goes on."""
    if not job.main:
        return
    curves = Curves.read(job.out)
    write_pages(
        job.out,
        curves.plot if curves.trained and curves.measured else None,
        lambda: readme(job, read_json(job.out / "config.json"), curves, stopped),
        job.warn,
    )


def command(out: Path, record: dict[str, Any]) -> str:
    """The command line of a run: every setting that is not the default."""
    settings, words = record["settings"], ["jpeglm", "train", argument(record["data"]["path"])]
    if record["processes"] > 1:
        machines = record.get("machines", 1)
        launcher = f"torchrun --nnodes {machines}" if machines > 1 else "torchrun"
        each = record["processes"] // machines
        words[:2] = f"{launcher} --nproc-per-node {each} -m jpeglm train".split()
    if record.get("tokenizer_path") and record["tokenizer_path"] != settings["init"]:
        words += ["--tokenizer", record["tokenizer_path"]]
    words += ["--out", argument(out)]
    usual = {field.name: field.default for field in fields(TrainConfig)} | {"model": {}}
    usual["optimizer"] = "muon"  # what auto stood for
    if settings["init"]:
        usual["preset"] = settings["preset"]
    if settings["warmup"] == WARMUP:
        usual["warmup"] = WARMUP
    return command_line(words, settings, usual)


def standing(record: dict[str, Any], curves: Curves) -> list[list[str]]:
    """Rows (what, bits a held-out picture, against the streams' own code): the run's steps and the
    others, of which that code is the first."""
    begun = record["settings"]["init"]
    own = next(iter(curves.others.items()), ("", 0.0))

    def row(what: str, bits: float, error: float = 0) -> list[str]:
        share = f"{100 * (bits / own[1] - 1):+.1f} %" if own[1] and what != own[0] else ""
        return [what, f"{bits:,.1f}", share + (f" ± {100 * error:.1f}" if share and error else "")]

    found = []
    named = {id(curves.best): "best, in model/"}
    if curves.measured:
        named.setdefault(id(curves.measured[-1]), "last")
    if curves.first is not None:
        what = f"the weights of {begun}" if begun else "random weights"
        named[id(curves.first)] = ", ".join(
            [what, *(["best, in model/"] if begun and curves.best is curves.first else [])]
        )
    for one in curves.measured:
        if id(one) in named:
            what = f"step {one['step']:,} ({named[id(one)]})"
            found.append(row(what, one["bits_per_image"], one.get(ERROR, 0)))
    return found + [row(name, bits) for name, bits in curves.others.items()]


def readme(job: Job, record: dict[str, Any], curves: Curves, stopped: bool | None) -> str:
    out, told = job.out, job.told.values()
    settings, data, codec = record["settings"], record["data"], record["codec"]
    last = curves.trained[-1] if curves.trained else {"step": 0, "seconds": 0.0, "images": 0}
    run = quoted(out)
    of = f" of {record['steps']:,}" if record["steps"] else ""
    minutes = f" of {settings['minutes']:g}" if settings["minutes"] else ""
    streams, sources = data["validation_pictures"], data.get("validation_sources")
    held_out = f"{streams:,} streams"
    if sources and sources != streams:
        held_out += f" (crops of {sources:,} pictures)"
    size = ", ".join(f"{k} {v}" for k, v in codec.items() if k != "codec")
    table = "\n".join(f"| {' | '.join(map(plain, row))} |" for row in standing(record, curves))
    own, *shipped = curves.others or [""]
    explained = f"`{own}`: what the streams themselves take. " if own else ""
    for name in shipped:
        explained += f"`{name}`: the model that ships with jpeglm, in its own tokens. "
    record = {**record, "data": data | {"path": str(job.data)}}  # as it is, were it no UTF-8
    parts = [
        MARK,
        f"# {plain(out.name)}: a Llama of {record['parameters'] / 1e6:.1f} M parameters on "
        f"{codec['codec']} streams",
        f"Step {last['step']:,}{of}, {last['seconds'] / 60:.1f}{minutes} minutes, "
        f"{last['images']:,} pictures seen. {STATES[stopped]}",
    ]
    parts += picture(out, "curves.png")
    if curves.measured:
        against, spread = "", ""
        if own:
            against, spread = f"against {own}", "±: 95 % interval over pictures. "
        parts += [
            f"| | bits a held-out picture | {against} |\n|---|---|---|\n{table}",
            f"{explained}{spread}Held out are {held_out}.",
        ]
    parts += picture(out, "samples.jpg")
    if told:
        parts.append("**Warnings.**\n\n" + "\n".join(f"- {plain(line)}" for line in told))
    if job.advice:
        parts.append("**At its start.**\n\n" + "\n".join(f"- {plain(line)}" for line in job.advice))
    parts += [
        f"## How to go on\n\n    {command(out, record)}",
        "The same command resumes after a stop or a kill. The budget and the intervals of "
        "measuring and saving may change; other settings need another folder.",
        f"    jpeglm complete PHOTO --checkpoint {run}\n"
        f"    jpeglm generate --checkpoint {run}\n"
        f"    jpeglm evaluate likelihood {quoted(data['path'])} --split validation "
        f"--checkpoint {run}\n"
        f"    tensorboard --logdir {run}/tensorboard",
        "## What it was made of\n\n"
        f"- data: {code(data['path'])}, {data['pictures']:,} training streams of "
        f"{data['tokens']:,} tokens\n- codec: {codec['codec']} ({size})\n"
        f"- model: {record['parameters']:,} parameters, "
        + (f"begun with the weights of {plain(settings['init'])}" if settings["init"] else
           f"size {settings['preset']}, random weights of seed {settings['seed']}")
        + f", {record['model']['max_position_embeddings']:,} tokens of context\n"
        f"- machine: {record['hardware']}, {record['processes']} process(es), mixed precision "
        f"{record['precision']}\n"
        f"- jpeglm {record['versions'].get('jpeglm')}, torch {record['versions'].get('torch')}, "
        f"commit {record['commit'] or 'unknown'}",
        files_table(FILES),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"
