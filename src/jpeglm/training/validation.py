"""How well a run's present weights do on held-out pictures, and what they draw."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch

from jpeglm.data.loader import TokenSet, validation_batches
from jpeglm.files import atomic_write
from jpeglm.training.job import Job
from jpeglm.training.saving import write_model


def evaluate(job: Job) -> None:
    """Bits of the held-out pictures; the best weights so far become OUT/model."""
    state = job.state
    state.evaluated = state.step
    job.objective.eval()
    with averaged(job):
        bits = validate(job) if job.held_out is not None else None
        if bits is None or bits < state.best:
            state.best = state.best if bits is None else bits
            state.best_step = state.step
            write_model(job, job.out / "model", "bfloat16")
        draw(job)
    job.objective.train()
    job.accelerator.wait_for_everyone()


@torch.no_grad()
def validate(job: Job) -> float:
    held_out, accelerator = cast(TokenSet, job.held_out), job.accelerator
    longest = int(held_out.lengths.max())
    nats = torch.zeros((), dtype=torch.float32, device=accelerator.device)
    batches = list(validation_batches(held_out, max(job.config.batch_tokens, longest), longest))
    # FSDP gathers weights in every forward pass, so all processes need equally many: the
    # surplus ones repeat the last batch with weight 0.
    ranks = accelerator.num_processes
    # Uncompiled: a few batches of shapes of their own would each be compiled for half a minute.
    with torch.compiler.set_stance("force_eager"):
        for first in range(0, len(batches), ranks):
            index = first + accelerator.process_index
            part = batches[min(index, len(batches) - 1)]
            nats += job.objective(*job.inputs(part)) * float(index < len(batches))
    total = float(cast(torch.Tensor, accelerator.reduce(nats, "sum")))
    bits = total / math.log(2) / len(held_out)
    row = {
        "step": job.state.step,
        "validation_loss": total / int((held_out.lengths - held_out.text - 1).sum()),
        "bits_per_image": bits,
        "bits_per_pixel": bits / job.tokenizer.codec.pixels,
        "validation_pictures": len(held_out),
    }
    job.record(row)
    job.say(
        f"step {job.state.step}: {bits:.1f} bits an image, "
        f"{row['bits_per_pixel']:.4f} bits a pixel on {len(held_out)} held-out pictures"
    )
    return bits


def draw(job: Job) -> None:
    if not (job.main and job.sampler and job.config.samples) or job.sharded:
        return
    with torch.no_grad(), torch.random.fork_rng():
        sheet = job.sampler(job.model, job.tokenizer, job.config.samples, job.config.seed)
    if sheet is None:
        return
    file = io.BytesIO()
    sheet.convert("RGB").save(file, format="PNG")
    atomic_write(job.out / "samples" / f"step-{job.state.step:06d}.png", file.getvalue())
    picture = np.asarray(sheet.convert("RGB"))
    if job.metrics:
        job.metrics.picture(picture, job.state.step)


@contextmanager
def averaged(job: Job) -> Iterator[None]:
    """The averaged weights in the model's place, where there are any."""
    pairs = [(p, job.ema[name]) for name, p in job.model.named_parameters() if job.ema]
    for parameter, average in pairs:
        parameter.data, average.data = average.data, parameter.data
    try:
        yield
    finally:
        for parameter, average in pairs:
            parameter.data, average.data = average.data, parameter.data
