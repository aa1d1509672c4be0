"""Training of VAE and VQ-VAE: pictures to a codec folder, resumable like the language models.

    OUT/config.json, OUT/metrics.jsonl     settings; a row each log and each evaluation
    OUT/state.pt                           weights, optimizer, step: what resuming needs
    OUT/model                              the best evaluated codec folder
    OUT/samples/step-000500.png            held-out pictures above, their reconstructions below
    OUT/README.md, report.html, …          what the run is and how it went (training/pages.py)

The two differ in the module that gives the loss; this loop is the same. Batches are a function of
(seed, step) alone, so that a stopped run goes on with the losses it would have had. One process:
the networks are small, and a GPU is used where torch finds one.

    jpeglm train-vqvae cifar10/ --size 32 --minutes 15
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from jpeglm.codecs import save_codec
from jpeglm.codecs.learned import WEIGHTS, weights_hash
from jpeglm.codecs.vq import VqCodec, VqConfig
from jpeglm.config import MAX_SEED, InputError, Settings, bounded, fingerprint
from jpeglm.data.settings import PrepareConfig
from jpeglm.environment import commit, versions
from jpeglm.files import atomic_folder, atomic_write, read_json, remove_halves, write_json
from jpeglm.folders import CODEC, RUN, claim
from jpeglm.models.autoencoder import flops_per_picture, to_tensor
from jpeglm.models.vae import Vae, VaeConfig
from jpeglm.models.vqvae import VqVae, VqVaeConfig
from jpeglm.training.autoencoder_summary import write_summary
from jpeglm.training.reconstruction import Autoencoder, measure, sheet
from jpeglm.training.run import (
    PACKAGES,
    Metrics,
    alone,
    has_bfloat16,
    identity_of,
    open_metrics,
    refuse_foreign,
    refuse_other_run,
    source,
    stop_on_signals,
)

Progress = Callable[[int, int | None, str], None]
FREE = ("steps", "minutes", "eval_every", "log_every", "threads")
"""Settings that a resumed run may change: the budget, and what no loss depends on."""
VIEWS = ("crops", "validation")
"""What of `PrepareConfig` says how pictures are cut and held out here."""


@dataclass(frozen=True)
class AutoencoderConfig(Settings):
    """Budget in steps or minutes (at least one; 0: not given) and how the steps are taken."""

    steps: int = bounded(0, least=0)
    """Budget in steps; 0 is none. --steps or --minutes is needed."""
    minutes: float = bounded(0.0, least=0)
    """Budget in minutes."""
    batch: int = bounded(128, least=1)
    """Pictures a step."""
    learning_rate: float = bounded(1e-3, least=1e-7, most=1000)
    """Peak learning rate."""
    warmup: int = bounded(100, least=0)
    """Steps of linear warm-up."""
    weight_decay: float = bounded(0.0, least=0, most=1000)
    """Weight decay of AdamW."""
    clip: float = bounded(1.0, least=0, most=1e6)
    """Largest norm of the whole gradient; 0 is off."""
    eval_every: int = bounded(500, least=1)
    """Steps between evaluations."""
    eval_images: int = bounded(1000, least=1)
    """Held-out pictures measured."""
    log_every: int = bounded(50, least=1)
    """Steps between rows of metrics.jsonl."""
    threads: int = bounded(0, least=0, most=4096)
    """CPU threads of torch; 0: torch decides."""
    seed: int = bounded(0, least=0, most=MAX_SEED)
    """Seed of the first weights and of the order of the data."""

    def __post_init__(self) -> None:
        if not (self.steps or self.minutes):
            raise InputError("training has no end; give --steps or --minutes")
        self.check_bounds()

    def rate(self, step: int, share: float) -> float:
        """Learning rate: linear warm-up, then a cosine to a tenth over the budget."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        return self.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * min(share, 1.0)))


@dataclass
class State:
    """Where a run stands; with weights and optimizer all that resuming needs."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    """Lowest objective; its weights are in OUT/model."""


@dataclass
class Job:
    """One run as its parts see it; `start` makes it."""

    out: Path
    config: AutoencoderConfig
    train: np.ndarray
    """Pictures, uint8 [N, H, W, 3]; held_out: the same, as many as are measured."""
    held_out: np.ndarray
    model: Autoencoder
    optimizer: torch.optim.Optimizer
    flops: int
    """Of training on one picture."""
    device: torch.device
    record: dict[str, Any]
    """Its config.json."""
    state: State = field(default_factory=State)
    say: Callable[[str], None] | None = None
    told: set[str] = field(default_factory=set)
    """What has been warned of."""

    def warn(self, about: str, line: str) -> None:
        """Say once what is wrong beside the run."""
        if self.say and about not in self.told:
            self.say(f"warning: {line}")
        self.told.add(about)

    @property
    def share(self) -> float:
        """How much of the budget is used up."""
        config, state = self.config, self.state
        by_steps = state.step / config.steps if config.steps else 0.0
        by_time = state.seconds / 60 / config.minutes if config.minutes else 0.0
        return max(by_steps, by_time)


def train_autoencoder(
    train: np.ndarray,
    held_out: np.ndarray,
    out: Path,
    model_config: VqVaeConfig | VaeConfig,
    config: AutoencoderConfig,
    *,
    data: Path | str = "DATA",
    views: PrepareConfig | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train on uint8 [N, H, W, 3], or go on with the run in `out`; returns its last measures.

    data, views: where the pictures are from and how they were cut, for what the run says of itself.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    origin = {"path": str(data), "views": views or PrepareConfig()}
    claim(Path(out), RUN)
    with alone(Path(out)):
        job = start(train, held_out, Path(out), model_config, config, origin)
        state, job.say = job.state, say
        if state.step and say:
            say(f"resuming from step {state.step} of {job.out}")
        loop(job, progress)
        write_summary(job.out, job.record, _usual(job), job.warn, stopped=job.share < 1)
    best = read_json(job.out / "model" / "codec.json")["measured"]
    return {
        "out": str(job.out),
        "model": str(job.out / "model"),
        "steps": state.step,
        "stopped": job.share < 1,
        **best,
    }


def start(
    train: np.ndarray,
    held_out: np.ndarray,
    out: Path,
    model_config: VqVaeConfig | VaeConfig,
    config: AutoencoderConfig,
    origin: dict[str, Any],
) -> Job:
    """Data and model of a run, new or where it was left, in a folder that is claimed."""
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Autoencoder = (
        VqVae(model_config) if isinstance(model_config, VqVaeConfig) else Vae(model_config)
    )
    model.to(device)
    settings = {
        "kind": "vae" if isinstance(model_config, VaeConfig) else "vqvae",
        "model": model_config.to_dict(),
        "settings": config.to_dict(),
        "size": list(train.shape[2:0:-1]),
        "data": {
            **source(origin["path"]),
            "fingerprint": hashlib.sha256(train.tobytes()).hexdigest()[:16],
        },
        "views": {name: getattr(origin["views"], name) for name in VIEWS},
        "pictures": {"train": len(train), "validation": len(held_out)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": versions(*PACKAGES),
        "device": str(device),
        "commit": commit(),
    }
    if (out / "config.json").exists():
        refuse_other_run(out, read_json(out / "config.json"), settings, FREE, _facts)
    for folder, names in ((out, RUN.names), (out / "samples", ("step-*",))):
        remove_halves(folder, names)
    write_json(out / "config.json", settings)
    height, width = train.shape[1:3]
    job = Job(
        out=out,
        config=config,
        train=train,
        held_out=held_out[: config.eval_images],
        model=model,
        optimizer=torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.99),
        ),
        flops=flops_per_picture(model, width, height),
        device=device,
        record=settings,
    )
    if (out / "state.pt").exists():
        try:
            saved = torch.load(out / "state.pt", map_location=device, weights_only=True)
            refuse_foreign(saved.get("run", {}), identity_of(settings, FREE, _facts))
            model.load_state_dict(saved["model"])
            job.optimizer.load_state_dict(saved["optimizer"])
            job.state = State(**saved["state"])
        except Exception as error:
            damaged = ", which is damaged or of another version"
            why = f": {error}" if isinstance(error, InputError) else damaged
            raise InputError(
                f"cannot resume from {out / 'state.pt'}{why}; "
                "train into another folder, or remove the file and begin this run anew"
            ) from error
    model.train()
    return job


def loop(job: Job, progress: Progress | None) -> None:
    """Train until the budget is used up or someone asks to stop; evaluated at its end."""
    state, config = job.state, job.config
    begun = time.perf_counter() - state.seconds
    measured: dict[str, Any] = {}
    with stop_on_signals() as stop, open_metrics(job.out, state.step or -1) as metrics:
        while job.share < 1 and not stop:
            rate = config.rate(state.step, job.share)
            loss, parts = step(job, rate)
            state.step += 1
            state.seconds = time.perf_counter() - begun
            if state.step % config.log_every == 0:
                _demand_finite("loss", loss.item(), state.step)
                row = {"step": state.step, "loss": round(loss.item(), 6)}
                row |= {name: round(part.item(), 6) for name, part in parts.items()}
                metrics.write(row | {"learning_rate": rate})
            if state.step % config.eval_every == 0:
                measured = evaluate(job, metrics)
            if progress:
                shown = f"psnr {measured['psnr']:.2f} dB" if measured else f"loss {loss.item():.4f}"
                progress(state.step, config.steps or None, shown)
        if not measured or measured["images"] != state.step * config.batch:
            evaluate(job, metrics)


def step(job: Job, rate: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(loss, its parts) of a batch that follows from the seed and the step's number."""
    config, number = job.config, job.state.step
    rng = np.random.default_rng([config.seed, number])
    torch.manual_seed((config.seed * 1_000_003 + number) % (1 << 63))
    pixels = job.train[rng.integers(0, len(job.train), config.batch)]
    flip = rng.random(config.batch) < 0.5
    pixels[flip] = pixels[flip, :, ::-1]
    for group in job.optimizer.param_groups:
        group["lr"] = rate
    able = has_bfloat16(job.device)
    with torch.autocast(job.device.type, torch.bfloat16) if able else nullcontext():
        loss, parts = job.model.loss(to_tensor(pixels).to(job.device))
    job.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)  # loss.backward() has no types
    if config.clip:
        torch.nn.utils.clip_grad_norm_(job.model.parameters(), config.clip)
    job.optimizer.step()
    return loss, parts


def evaluate(job: Job, metrics: Metrics) -> dict[str, Any]:
    """Measures on held-out pictures; the best weights so far become OUT/model, the present ones
    what the run goes on from."""
    state = job.state
    images = state.step * job.config.batch
    measures = measure(job.model, job.held_out) | {
        "images": images,
        "flops": images * job.flops,
        "seconds": round(state.seconds, 1),
    }
    score = measures["objective"]
    _demand_finite("objective", score, state.step)
    metrics.write({"step": state.step, **measures})
    if score < state.best or not (job.out / "model").exists():
        state.best = score
        _write_model(job, measures)
    sheet(job.out / "samples" / f"step-{state.step:06d}.png", job.model, job.held_out[:8])
    file = io.BytesIO()
    values = {
        "model": job.model.state_dict(),
        "optimizer": job.optimizer.state_dict(),
        "state": asdict(state),
        "run": identity_of(job.record, FREE, _facts),
    }
    torch.save(values, file)
    atomic_write(job.out / "state.pt", file.getvalue())
    write_summary(job.out, job.record, _usual(job), job.warn)
    return measures


def _demand_finite(what: str, value: float, step: int) -> None:
    """InputError for a run that has run away, before any of it is what is gone on from."""
    if not math.isfinite(value):
        raise InputError(
            f"the {what} is {value} at step {step}; lower --learning-rate and start again in "
            "another folder"
        )


def _usual(job: Job) -> dict[str, Any]:
    """The defaults of every setting."""
    kinds = (PrepareConfig, type(job.model.config), AutoencoderConfig)
    return {field.name: field.default for kind in kinds for field in fields(kind)}


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a run that goes on must have in common with its start."""
    return {
        "kind": record["kind"],
        "model": record["model"],
        "data": record["data"]["fingerprint"],
    }


def _write_model(job: Job, measured: dict[str, Any]) -> None:
    """A codec folder; of a VAE, the same form with `codec` = vae, which no tokenizer takes."""
    model = job.model
    weights = save(
        {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    )
    with atomic_folder(job.out / "model", CODEC.names) as draft:
        if isinstance(model, VqVae):
            height, width = job.train.shape[1:3]
            config = VqConfig(width, height, model=model.config.to_dict())
            save_codec(VqCodec(config, weights), draft)
        else:
            atomic_write(draft / WEIGHTS, weights)
            values = {"codec": "vae", **model.config.to_dict(), "weights": weights_hash(weights)}
            write_json(draft / "codec.json", {"codec": values, "fingerprint": fingerprint(values)})
        record = read_json(draft / "codec.json")
        write_json(draft / "codec.json", {**record, "measured": measured})
