"""What a run says of itself: its model card, and what it came to."""

from __future__ import annotations

import json
import math
from typing import Any

from jpeglm import __version__
from jpeglm.environment import commit
from jpeglm.models.llama import flops_per_token, parameters
from jpeglm.training.job import Job


def card(job: Job) -> str:
    state, codec = job.state, job.tokenizer.codec
    best = f"{state.best:.1f} bits an image" if math.isfinite(state.best) else "not evaluated"
    begun = f", begun with the weights of {job.config.init}" if job.config.init else ""
    return (
        f"# Llama on {codec.name}\n\n"
        f"A Llama language model of {parameters(job.shape):,} parameters that writes "
        f"{codec.name} streams, token by token; written by `jpeglm train`.\n\n"
        f"- step {state.step}, {state.images:,} pictures and {state.tokens:,} tokens seen"
        f"{begun}\n"
        f"- held-out pictures, best so far: {best}\n"
        f"- codec: `{json.dumps(codec.to_dict())}`\n"
        f"- tokenizer: {job.tokenizer.fingerprint}, {job.tokenizer.alphabet.name}, "
        f"{job.tokenizer.vocab_size} tokens\n"
        f"- settings: `{json.dumps(job.config.to_dict())}`\n"
        f"- jpeglm {__version__}, commit {commit() or 'unknown'}\n\n"
        "`jpeglm complete PHOTO --checkpoint DIR` runs it; stock `transformers` loads it.\n"
    )


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
