"""What a run says of itself: its model card, and what it came to."""

from __future__ import annotations

import json
import math
from typing import Any

from jpeglm import __version__
from jpeglm.checkpoint.card import about, front_matter
from jpeglm.environment import commit
from jpeglm.files import read_json
from jpeglm.folders import quoted
from jpeglm.models.llama import DEPTH, flops_per_token, parameters
from jpeglm.training.job import Job


def card(job: Job) -> str:
    """What it writes and how to use it, what it learnt from, how, and how well it knows it."""
    tokenizer, folder = job.tokenizer, job.out.resolve().name
    codec = tokenizer.codec
    verbs = ["jpeglm generate -n 16 --checkpoint DIR"]
    if codec.name in ("jpeg", "avc"):
        source = "FILM" if codec.media == "clip" else "PHOTO"
        verbs.insert(0, f"jpeglm complete {source} --checkpoint DIR")
    if tokenizer.class_names:
        verbs.append(f"jpeglm generate --label {quoted(tokenizer.class_names[0])} --checkpoint DIR")
    if tokenizer.text is not None:
        verbs.append('jpeglm generate --text "WORDS" --checkpoint DIR')
    known = [name for name in tokenizer.class_names if name]
    lines = [
        front_matter(tokenizer),
        f"# {folder}",
        "",
        f"A Llama of {parameters(job.shape):,} parameters that writes {codec.name} streams, "
        "token by token, trained by `jpeglm train`.",
        "",
        *(f"    {verb}" for verb in verbs),
        "",
        "Stock `transformers` loads it; `jpeglm export` adds a sheet of what it draws, and code.",
        "",
        *about(tokenizer),
        *([f"- classes: {', '.join(known)}"] if known else []),
        "",
        "## Data",
        "",
        *_data(job),
        "",
        "## Training",
        "",
        *_training(job),
        "",
        f"## Bits per held-out {codec.media}",
        "",
        *_bits(job),
        "",
        "## What to expect",
        "",
        "It draws what its data show and knows nothing else: their contents, their gaps and their "
        "licence are its own. Files that it writes under the grammar are whole; what is in them "
        "was invented.",
    ]
    return "\n".join(lines) + "\n"


def _data(job: Job) -> list[str]:
    data = _record(job)["data"]
    what = job.tokenizer.codec.media + "s"
    lines = [f"- {data['pictures']:,} {what} to learn from, {data['tokens']:,} tokens in all"]
    if data["validation_pictures"]:
        lines.append(
            f"- {data['validation_pictures']:,} held out, of {data['validation_sources']:,} sources"
        )
    if data.get("captions"):
        lines.append(f"- {data['captions']:,} have captions ({data['captions_cut']:,} cut to fit)")
    return lines


def _training(job: Job) -> list[str]:
    record, state = _record(job), job.state
    begun = f", begun with the weights of {job.config.init}" if job.config.init else ""
    if job.config.init and job.config.model:
        begun += f", for which {job.shape[DEPTH]} layers were made of them"
    media = job.tokenizer.codec.media + "s"
    return [
        f"- {state.step:,} steps, {state.images:,} {media} seen, {state.tokens:,} tokens, "
        f"{state.seconds / 60:.0f} minutes on {record['hardware']}{begun}",
        f"- settings: `{json.dumps(job.config.to_dict())}`",
        f"- jpeglm {__version__}, commit {commit() or 'unknown'}",
    ]


def _bits(job: Job) -> list[str]:
    """A table of this model beside the code of the streams themselves, of the best evaluation."""
    if not math.isfinite(job.state.best):
        return ["Not evaluated."]
    code = float(job.code_bits.mean())
    return [
        f"| coder | bits | against {job.code} |",
        "|---|---|---|",
        f"| model | {job.state.best:.1f} | {job.state.best / code - 1:+.1%} |",
        f"| {job.code} | {code:.1f} | |",
        "",
        f"Mean over the held-out {job.tokenizer.codec.media}s, at step {job.state.best_step:,}; "
        "`jpeglm evaluate likelihood` adds other coders and intervals.",
    ]


def _record(job: Job) -> dict[str, Any]:
    return read_json(job.out / "config.json")


def result(job: Job, stopped: bool) -> dict[str, Any]:
    state, pixels = job.state, job.tokenizer.codec.pixels
    model, saved = job.out / "model", job.checkpoints.last()
    known = math.isfinite(state.best)
    length = job.shape["max_position_embeddings"]
    if job.config.packing == "pictures" and state.images:
        length = round(state.tokens / state.images)
    return {
        "out": str(job.out),
        "model": str(model) if model.is_dir() else None,
        "checkpoint": str(saved) if saved else None,
        "stopped": stopped,
        "steps": state.step,
        "tokens": state.tokens,
        "images": state.images,
        "seconds": round(state.seconds, 3),
        "parameters": parameters(job.shape),
        "flops": state.tokens * flops_per_token(job.shape, length),
        "bits_per_image": state.best if known else None,
        "bits_per_pixel": state.best / pixels if known else None,
        "best_step": state.best_step,
        "warnings": [*job.told.values()],
    }
