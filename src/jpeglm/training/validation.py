"""How well a run's present weights do on held-out pictures, and what they draw."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from jpeglm.data.loader import validation_batches
from jpeglm.data.token_set import TokenSet
from jpeglm.files import atomic_write
from jpeglm.folders import quoted
from jpeglm.training.advice import held_out_warning
from jpeglm.training.curves import AGAINST, ERROR, HOLE, OTHERS, worth
from jpeglm.training.job import Job
from jpeglm.training.saving import write_model
from jpeglm.training.sharding import local, reshard
from jpeglm.training.summary import write_summary


def evaluate(job: Job, others: dict[str, float] | None = None) -> None:
    """Bits of the held-out pictures; the best weights so far become OUT/model."""
    state = job.state
    state.evaluated = state.step
    job.objective.eval()
    with averaged(job):
        row = validate(job, others) if job.held_out is not None else None
        if row is None or worth(row) < state.best_worth:
            if row is not None:
                state.best, state.best_worth = row["bits_per_image"], worth(row)
            state.best_step = state.step
            write_model(job, job.out / "model", "bfloat16")
        draw(job)
    job.objective.train()
    write_summary(job)
    job.accelerator.wait_for_everyone()


def begin(job: Job, others: dict[str, float]) -> None:
    """Step 0: what the first weights are worth, beside what others take for the same pictures.

    Weights that a run begins with are the best so far, which training must beat; random ones are
    only measured.
    """
    if job.held_out is None:
        return
    if job.config.init:
        evaluate(job, others)
        return
    job.state.evaluated = 0
    job.objective.eval()
    validate(job, others)
    job.objective.train()
    job.accelerator.wait_for_everyone()


def validate(job: Job, others: dict[str, float] | None = None) -> dict[str, Any]:
    """Bits of the held-out pictures, into the log, whose row it gives; `others`: baselines that
    stand beside them."""
    held_out = cast(TokenSet, job.held_out)
    bits = held_out_bits(job, held_out)
    mean = float(bits.mean())
    row: dict[str, Any] = {
        "step": job.state.step,
        "validation_loss": float(bits.sum())
        * math.log(2)
        / int((held_out.lengths - held_out.text - 1).sum()),
        "bits_per_image": mean,
        "bits_per_pixel": mean / job.tokenizer.codec.pixels,
        "validation_pictures": len(held_out),
        AGAINST + job.code: mean / float(job.code_bits.mean()) - 1,
    }
    error = error_of_ratio(bits, job.code_bits, job.sources)
    if error is not None:
        row[ERROR] = error
    if job.held_out_holes is not None:
        row[HOLE] = float(held_out_bits(job, job.held_out_holes).mean())
    job.record(row | {name + OTHERS: value for name, value in (others or {}).items()})
    beside = ", ".join(f"{name} takes {value:,.1f}" for name, value in (others or {}).items())
    if job.state.step or job.config.init:
        limited = len(held_out) == job.config.eval_images
        pictures = min(len(held_out), job.sources)
        job.warn("held out", held_out_warning(error, job.state.tokens, pictures, limited))
    job.say(
        f"step {job.state.step}: {mean:.1f} bits an image, "
        f"{row['bits_per_pixel']:.4f} bits a pixel on {len(held_out)} held-out pictures"
        + (f" ({beside})" if beside else "")
        + (f", {row[HOLE]:.1f} a hole in them" if HOLE in row else "")
    )
    return row


@torch.no_grad()
def held_out_bits(job: Job, held_out: TokenSet) -> np.ndarray:
    """float64 [pictures] under the present weights; every process takes part."""
    accelerator = job.accelerator
    longest = int(held_out.lengths.max())
    nats = torch.zeros(len(held_out), dtype=torch.float32, device=accelerator.device)
    most, marks = max(job.config.batch_tokens, longest), job.tokenizer.hole
    batches = list(validation_batches(held_out, most, longest, marks=marks))
    # FSDP gathers weights in every forward pass, so all processes need equally many: the
    # surplus ones repeat the last batch with weight 0.
    ranks = accelerator.num_processes
    # Uncompiled: a few batches of shapes of their own would each be compiled for half a minute.
    with torch.compiler.set_stance("force_eager"):
        for first in range(0, len(batches), ranks):
            index = first + accelerator.process_index
            part = batches[min(index, len(batches) - 1)]
            rows = torch.from_numpy(part["index"]).to(accelerator.device)
            nats[rows] += job.nats(part) * float(index < len(batches))
    reshard(job.objective)
    summed = cast(torch.Tensor, accelerator.reduce(nats, "sum"))
    return cast(np.ndarray, summed.cpu().numpy().astype(np.float64) / math.log(2))


def error_of_ratio(above: np.ndarray, below: np.ndarray, sources: int) -> float | None:
    """Half the 95 % interval of Σ above / Σ below over pictures, None of less than two.

    What a picture holds moves both, so that the ratio is known far better than its parts (Cochran,
    Sampling Techniques, 6.4). Streams beyond `sources` are crops of the same pictures, counted as
    if they told nothing new.
    """
    count = min(len(above), sources)
    if count < 2:
        return None
    rest = above - above.sum() / below.sum() * below
    return float(1.96 * math.sqrt(float((rest**2).sum()) / (len(rest) - 1) / count) / below.mean())


def draw(job: Job) -> None:
    if not (job.main and job.sampler and job.config.samples):
        return
    if job.sharded:
        job.warn("samples", "no samples are drawn under fsdp, where no process has the whole "
                 f"model; jpeglm generate --checkpoint {quoted(job.out)} draws some")  # fmt: skip
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
    _swap(pairs, job.sharded)
    try:
        yield
    finally:
        _swap(pairs, job.sharded)


@torch.no_grad()
def _swap(pairs: list[tuple[torch.nn.Parameter, torch.Tensor]], sharded: bool) -> None:
    for parameter, average in pairs:
        if sharded:  # FSDP gathers from where the share lies
            present = local(parameter).clone()
            local(parameter).copy_(local(average))
            local(average).copy_(present)
        else:
            parameter.data, average.data = average.data, parameter.data
