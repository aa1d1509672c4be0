"""THE training loop: token sequences to a Llama checkpoint, on one process or many.

    OUT/README.md                what this run is, how it stands, how to go on
    OUT/curves.png               loss and held-out bits over steps, beside the baselines
    OUT/config.json              settings and what they were resolved to, data, versions
    OUT/metrics.jsonl            a row each log_every steps, a row each evaluation, from step 0 on
    OUT/checkpoints/step-000500  float32 weights in Hugging Face form, and training_state.pt
    OUT/checkpoints/last.json    which of them to go on from
    OUT/model                    the best evaluated weights in bfloat16, for everything else
    OUT/samples, OUT/tensorboard

Killed at any moment, the same command goes on from the last checkpoint; metrics.jsonl is cut back
to it, so that a budget in steps ends with the same losses as if never stopped. Trade-off: losses
are summed over tokens and divided by the count over all processes, one small exchange a step, so
that the gradient does not depend on how rows fall to processes.

    jpeglm train data/photos-64 --out runs/photos --minutes 30
    torchrun --nproc-per-node 8 -m jpeglm train …     (or accelerate launch: DDP, FSDP)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from jpeglm.config import InputError
from jpeglm.training import TrainConfig
from jpeglm.training.advice import rate_warning
from jpeglm.training.baselines import baselines
from jpeglm.training.card import result
from jpeglm.training.feed import feed
from jpeglm.training.job import Job, Progress, Sampler
from jpeglm.training.parallel import joined, what_runs
from jpeglm.training.run import open_metrics, stop_on_signals
from jpeglm.training.saving import save, saving, settle
from jpeglm.training.sharding import local, whole
from jpeglm.training.start import start
from jpeglm.training.summary import write_summary
from jpeglm.training.validation import begin, evaluate

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

__all__ = ["TrainConfig", "train"]

FORECAST = 0.02
"""The share of a budget in minutes from which the number of steps in it is guessed."""


def train(
    data: Path,
    tokenizer: Tokenizer,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = True,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    """Train from scratch or from `config.init`, or go on with the run in `out`; returns what the
    run came to.

    resume False refuses a folder that holds a run. SIGINT and SIGTERM finish the step, save and
    return with `stopped` true; a second one ends the process at once. Raises InputError where data,
    settings and the run in `out` do not fit together.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    with joined(config) as accelerator, ExitStack() as held:
        job = start(Path(data), tokenizer, Path(out), config, accelerator, resume, held)
        job.sampler = sampler
        if job.main:
            job.progress, job.say = progress or job.progress, say or job.say
            job.say(what_runs(job.config, accelerator))
            for line in job.advice if not job.state.step else ():
                job.say(line)
            if job.captions:
                job.say(
                    "{captions} captions, {captions_cut} of them cut to fit".format(**job.captions)
                )
            if job.loader.n_dropped:
                whole = job.loader.batches.whole
                job.warn("length", f"{job.loader.n_dropped} of {len(whole)} training pictures have "
                         f"more than {job.loader.batches.length} tokens and are left out; "
                         f"--max-length {whole.max()} takes all")  # fmt: skip
            rows = job.loader.batches.plan(0).largest
            if rows < accelerator.num_processes:
                job.warn("rows", f"a batch has {rows} rows at most, so that "
                         f"{accelerator.num_processes - rows} of {accelerator.num_processes} "
                         "processes learn nothing; raise --batch-tokens")  # fmt: skip
        return loop(job)


def loop(job: Job) -> dict[str, Any]:
    """Train until the budget is used up or someone asks to stop."""
    state, config = job.state, job.config
    resumed = state.step
    saved_at = resumed or -1
    if resumed:
        job.say(f"resuming from step {resumed} of {job.out}")
    batches = feed(job.loader, job.accelerator.device.type)
    job.objective.train()
    # A run that was saved at step 0 has measured it.
    fresh = not resumed and state.evaluated < 0
    metrics: Any = open_metrics(job.out, -1 if fresh else resumed) if job.main else nullcontext()
    with stop_on_signals() as job.stop, metrics as job.metrics, saving(job):
        if fresh:
            begin(job, baselines(job))
        started, before = time.monotonic(), state.seconds
        while True:
            state.seconds = before + time.monotonic() - started
            batch = [next(batches) for _ in range(config.gradient_accumulation)]
            tokens, images, seconds, asked = agree(job, batch)
            share = share_of(job, seconds)
            if asked or share >= 1:
                break
            clock = time.monotonic()
            step(job, batch, tokens, config.rate(state.step, share))
            state.step += 1
            state.tokens += tokens
            state.images += images
            state.window_tokens += tokens
            state.window_seconds += time.monotonic() - clock
            total = job.steps or (round(state.step / share) if share > 0.001 else None)
            if state.step % config.log_every == 0:
                if total and (share > FORECAST or job.steps):
                    job.warn("rate", rate_warning(config, total, ended=False))
                job.progress(state.step, total, log(job))
            if state.step % config.eval_every == 0:
                evaluate(job)
            if state.step % config.save_every == 0 and state.step != job.steps:
                state.seconds = before + time.monotonic() - started
                save(job)
                saved_at = state.step
        stopped = share < 1
        if not stopped:
            if state.window_tokens:
                log(job)
            job.warn("rate", None)
            job.warn("end", rate_warning(config, state.step, ended=True))
            if state.evaluated != state.step:
                evaluate(job)
                saved_at = -1
            if config.init and not state.best_step:
                job.warn("init", f"no evaluation was better than the weights of {config.init}, "
                         "which model/ holds still; train longer or begin anew with a lower "
                         f"--learning-rate than {config.peak:g}")  # fmt: skip
        if saved_at != state.step:
            save(job)
        settle(job)
        write_summary(job, stopped)
    return result(job, stopped)


def agree(job: Job, batch: list[dict[str, np.ndarray]]) -> tuple[int, int, float, bool]:
    """(target tokens, pictures ended, seconds, stop asked) of the step over all processes.

    Every process must take the same decisions, so clocks are averaged and wishes shared, and raises
    what the last checkpoint met on one of them.
    """
    targets = [part["labels"][:, 1:] for part in batch]
    local = [
        float(sum((target >= 0).sum() for target in targets)),
        float(sum((target == job.tokenizer.eos).sum() for target in targets)),
        job.state.seconds / job.accelerator.num_processes,
        float(bool(job.stop)),
        float(job.background.failed),
    ]
    if job.accelerator.num_processes > 1:
        # float32 is exact to 2**24, which is more tokens than a step has.
        kind = torch.float32
        shared = torch.tensor(local, dtype=kind, device=job.accelerator.device)
        local = cast(torch.Tensor, job.accelerator.reduce(shared, "sum")).tolist()
    if local[4]:
        settle(job)
    return int(local[0]), int(local[1]), local[2], local[3] > 0


def share_of(job: Job, seconds: float) -> float:
    """How much of the budget is used up."""
    by_steps = job.state.step / job.steps if job.steps else 0.0
    by_time = seconds / (60 * job.config.minutes) if job.config.minutes else 0.0
    return max(by_steps, by_time)


def step(job: Job, batch: list[dict[str, np.ndarray]], tokens: int, rate: float) -> None:
    accelerator, config = job.accelerator, job.config
    for optimizer in job.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    for index, part in enumerate(batch):
        with accumulating(job, last=index + 1 == len(batch)):
            loss = job.nats(part)
            # Gradients are averaged over processes; the sum over all of them is wanted.
            accelerator.backward(loss * (accelerator.num_processes / tokens))
        job.window += loss.detach()
    norm = accelerator.clip_grad_norm_(job.objective.parameters(), config.clip or math.inf)
    job.norm = whole(norm)
    for optimizer in job.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    job.rate = rate
    if job.ema:
        # Young averages would otherwise remember the initial weights.
        decay = min(config.ema, (1 + job.state.step) / (10 + job.state.step))
        with torch.no_grad():
            averages = [local(average) for average in job.ema.values()]
            present = [local(weight) for weight in job.model.parameters()]
            torch._foreach_lerp_(averages, present, 1 - decay)


@contextmanager
def accumulating(job: Job, last: bool) -> Iterator[None]:
    """Gradients of several passes are added before processes exchange them, as far as they fit:
    shares are always summed, their replicas only after the last pass."""
    if job.sharded:
        job.objective.set_requires_all_reduce(last)
        yield
    else:
        with nullcontext() if last else job.accelerator.no_sync(job.objective):
            yield


def log(job: Job) -> str:
    """Write the mean loss since the last row, and begin a new window."""
    state = job.state
    nats = float(cast(torch.Tensor, job.accelerator.reduce(job.window, "sum")))
    loss = nats / state.window_tokens
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} at step {state.step} of {job.out}; lower the learning rate "
            f"({job.rate:.2g}) or use precision float32, and train into a new folder"
        )
    speed = state.window_tokens / max(state.window_seconds, 1e-9)
    row = {
        "step": state.step,
        "loss": loss,
        "learning_rate": job.rate,
        "gradient_norm": float(job.norm),
        "tokens": state.tokens,
        "images": state.images,
        "seconds": round(state.seconds, 3),
        "tokens_per_second": round(speed, 1),
    }
    job.record(row)
    job.window.zero_()
    state.window_tokens, state.window_seconds = 0, 0.0
    return f"loss {loss:.3f}, {speed:,.0f} tokens/s"
