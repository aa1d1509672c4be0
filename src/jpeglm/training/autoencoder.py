"""Training of VAE and VQ-VAE: pictures to a codec folder, resumable like the language models.

    OUT/config.json, OUT/metrics.jsonl     settings; a row each log and each evaluation
    OUT/state.pt                           weights, optimizer, step: what resuming needs
    OUT/model                              the best evaluated codec folder
    OUT/samples/step-000500.png            held-out pictures above, their reconstructions below

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from jpeglm.codecs import save_codec
from jpeglm.codecs.learned import WEIGHTS, weights_hash
from jpeglm.codecs.vq import VqCodec, VqConfig
from jpeglm.config import MAX_SEED, InputError, Settings, bounded, fingerprint
from jpeglm.environment import commit, versions
from jpeglm.evaluation.quality import psnr
from jpeglm.files import atomic_folder, atomic_write, read_json, remove_halves, write_json
from jpeglm.folders import CODEC, RUN, claim
from jpeglm.models.autoencoder import flops_per_picture, to_pictures, to_tensor
from jpeglm.models.vae import Vae, VaeConfig
from jpeglm.models.vqvae import VqVae, VqVaeConfig, usage
from jpeglm.training.run import (
    PACKAGES,
    has_bfloat16,
    open_metrics,
    refuse_other_run,
    stop_on_signals,
)

Progress = Callable[[int, int | None, str], None]
FREE = ("steps", "minutes", "eval_every", "log_every", "threads")
"""Settings that a resumed run may change: the budget, and what no loss depends on."""


@dataclass(frozen=True)
class AutoencoderConfig(Settings):
    """Budget in steps or minutes (at least one; 0: not given) and how the steps are taken."""

    steps: int = bounded(0, least=0)
    """Budget in steps; 0 is none. --steps or --minutes is needed."""
    minutes: float = bounded(0.0, least=0)
    """Budget in minutes."""
    batch: int = bounded(128, least=1)
    """Pictures a step."""
    learning_rate: float = bounded(1e-3, least=1e-7)
    """Peak learning rate."""
    warmup: int = bounded(100, least=0)
    """Steps of linear warm-up."""
    weight_decay: float = bounded(0.0, least=0)
    """Weight decay of AdamW."""
    clip: float = bounded(1.0, least=0)
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


@torch.inference_mode()
def reconstruct(model: VqVae | Vae, pixels: np.ndarray, batch: int = 250) -> np.ndarray:
    """What the model in eval mode makes of pictures, uint8 [N, H, W, 3]."""
    device = next(model.parameters()).device
    parts = [
        to_pictures(model(to_tensor(pixels[i : i + batch]).to(device))[0])
        for i in range(0, len(pixels), batch)
    ]
    return np.concatenate(parts)


def train_autoencoder(
    train: np.ndarray,
    held_out: np.ndarray,
    out: Path,
    model_config: VqVaeConfig | VaeConfig,
    config: AutoencoderConfig,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train on uint8 [N, H, W, 3], or go on with the run in `out`; returns its last measures."""
    out = Path(out)
    claim(out, RUN)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = "vae" if isinstance(model_config, VaeConfig) else "vqvae"
    model: Any = VqVae(model_config) if isinstance(model_config, VqVaeConfig) else Vae(model_config)
    model.to(device)
    height, width = train.shape[1:3]
    settings = {
        "kind": kind,
        "model": model_config.to_dict(),
        "settings": config.to_dict(),
        "data": {"fingerprint": hashlib.sha256(train.tobytes()).hexdigest()[:16]},
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
    flops = flops_per_picture(model, width, height)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay,
        betas=(0.9, 0.99),
    )  # fmt: skip
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "best": math.inf}
    if (out / "state.pt").exists():
        saved = torch.load(out / "state.pt", map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
        if say:
            say(f"going on from step {state['step']} of {out}")
    model.train()
    able = has_bfloat16(device)
    cast = torch.autocast(device.type, torch.bfloat16) if able else nullcontext()
    last = measured = {}
    begun = time.perf_counter() - state["seconds"]

    def share() -> float:
        spent = [0.0]
        if config.steps:
            spent.append(state["step"] / config.steps)
        if config.minutes:
            spent.append(state["seconds"] / 60 / config.minutes)
        return max(spent)

    def write(row: dict[str, Any]) -> None:
        metrics.write({"step": state["step"], **row})

    def evaluate() -> dict[str, Any]:
        measures = _measure(model, held_out[: config.eval_images])
        images = state["step"] * config.batch
        measures |= {
            "images": images, "flops": images * flops, "seconds": round(state["seconds"], 1)
        }  # fmt: skip
        write(measures)
        score = measures["objective"]
        if score < state["best"] or not (out / "model").exists():
            state["best"] = score
            _write_model(out / "model", model, width, height, measures)
        _sheet(out / "samples" / f"step-{state['step']:06d}.png", model, held_out[:8])
        _save(out / "state.pt", model, optimizer, state)
        return measures

    with stop_on_signals() as stop, open_metrics(out, state["step"]) as metrics:
        while share() < 1 and not stop:
            rng = np.random.default_rng([config.seed, state["step"]])
            torch.manual_seed((config.seed * 1_000_003 + state["step"]) % (1 << 63))
            chosen = rng.integers(0, len(train), config.batch)
            pixels = train[chosen]
            flip = rng.random(config.batch) < 0.5
            pixels[flip] = pixels[flip, :, ::-1]
            rate = config.rate(state["step"], share())
            for group in optimizer.param_groups:
                group["lr"] = rate
            with cast:
                loss, parts = model.loss(to_tensor(pixels).to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            state["step"] += 1
            state["seconds"] = time.perf_counter() - begun
            if state["step"] % config.log_every == 0:
                if not math.isfinite(loss.item()):
                    raise InputError(
                        f"the loss is {loss.item()} at step {state['step']}; lower "
                        "--learning-rate and start again in another folder"
                    )
                last = {name: round(part.item(), 6) for name, part in parts.items()}
                write({"loss": round(loss.item(), 6), **last, "learning_rate": rate})
            if state["step"] % config.eval_every == 0:
                measured = evaluate()
            if progress:
                shown = f"psnr {measured['psnr']:.2f} dB" if measured else f"loss {loss.item():.4f}"
                progress(state["step"], config.steps or None, shown)
        if not measured or measured["images"] != state["step"] * config.batch:
            evaluate()
    best = read_json(out / "model" / "codec.json")["measured"]
    return {
        "out": str(out),
        "model": str(out / "model"),
        "steps": state["step"],
        "stopped": share() < 1,
        **best,
    }


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a run that goes on must have in common with its start."""
    return {
        "kind": record["kind"],
        "model": record["model"],
        "data": record["data"]["fingerprint"],
    }


def _measure(model: Any, pixels: np.ndarray) -> dict[str, Any]:
    """Held-out PSNR, and codebook usage or the ELBO; `objective` is what the best one minimises."""
    model.eval()
    rebuilt = reconstruct(model, pixels)
    measures: dict[str, Any] = {"psnr": round(float(psnr(pixels, rebuilt).mean()), 4)}
    device = next(model.parameters()).device
    with torch.inference_mode():
        batches = [to_tensor(pixels[i : i + 250]).to(device) for i in range(0, len(pixels), 250)]
        if isinstance(model, VqVae):
            codes = torch.cat([model.encode(x) for x in batches])
            used, perplexity = usage(codes, model.config.codes)
            measures |= {"usage": round(used, 4), "perplexity": round(perplexity, 2)}
            measures["objective"] = -measures["psnr"]
        else:
            # In training mode for z drawn from the posterior: the bound's own expectation.
            model.train()
            losses = [model.loss(x)[1] for x in batches]
            nats = sum(float(part["nll"] + part["kl"]) * len(x) for part, x in zip(losses, batches))
            # One grey level is 2/255 of the range [-1, 1]; the density becomes bits a value.
            per_value = nats / len(pixels) / math.log(2) + math.log2(127.5)
            measures |= {"elbo_bits_per_value": round(per_value, 4), "objective": per_value}
            measures["kl_nats"] = round(
                sum(float(p["kl"]) * len(x) for p, x in zip(losses, batches))
                / len(pixels) * batches[0][0].numel(), 2,
            )  # fmt: skip
    model.train()
    return measures


def _write_model(
    folder: Path, model: Any, width: int, height: int, measured: dict[str, Any]
) -> None:
    """A codec folder; of a VAE, the same form with `codec` = vae, which no tokenizer takes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in
               model.state_dict().items()}  # fmt: skip
    weights = save(tensors)
    with atomic_folder(folder, CODEC.names) as draft:
        if isinstance(model, VqVae):
            config = VqConfig(width, height, model=model.config.to_dict())
            save_codec(VqCodec(config, weights), draft)
        else:
            atomic_write(draft / WEIGHTS, weights)
            values = {"codec": "vae", **model.config.to_dict(), "weights": weights_hash(weights)}
            write_json(draft / "codec.json", {"codec": values, "fingerprint": fingerprint(values)})
        record = read_json(draft / "codec.json")
        write_json(draft / "codec.json", {**record, "measured": measured})


def _sheet(path: Path, model: Any, pixels: np.ndarray) -> None:
    model.eval()
    rows = [pixels, reconstruct(model, pixels)]
    if isinstance(model, Vae):
        with torch.inference_mode():
            rows.append(to_pictures(model.sample(len(pixels))))
    model.train()
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    image = Image.fromarray(sheet)
    scale = max(1, 96 // pixels.shape[1])
    file = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(
        file, "PNG"
    )
    atomic_write(path, file.getvalue())


def _save(path: Path, model: Any, optimizer: Any, state: dict[str, Any]) -> None:
    out = io.BytesIO()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, out
    )
    atomic_write(path, out.getvalue())
