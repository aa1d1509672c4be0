"""How well a VAE's or VQ-VAE's present weights rebuild held-out pictures, in numbers and to see."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from jpeglm.evaluation.quality import psnr
from jpeglm.files import atomic_write
from jpeglm.models.autoencoder import to_pictures, to_tensor
from jpeglm.models.vae import Vae
from jpeglm.models.vqvae import VqVae, usage

Autoencoder = VqVae | Vae
BATCH = 250
"""Pictures of a forward pass."""


@torch.inference_mode()
def reconstruct(model: Autoencoder, pixels: np.ndarray) -> np.ndarray:
    """What the model in eval mode makes of pictures, uint8 [N, H, W, 3]."""
    return np.concatenate([to_pictures(model(x)[0]) for x in _batches(model, pixels)])


def _batches(model: Autoencoder, pixels: np.ndarray) -> list[torch.Tensor]:
    device = next(model.parameters()).device
    return [to_tensor(pixels[i : i + BATCH]).to(device) for i in range(0, len(pixels), BATCH)]


def measure(model: Autoencoder, pixels: np.ndarray) -> dict[str, Any]:
    """Held-out PSNR, and codebook usage or the ELBO; `objective` is what the best one minimises."""
    model.eval()
    measures: dict[str, Any] = {
        "psnr": round(float(psnr(pixels, reconstruct(model, pixels)).mean()), 4)
    }
    with torch.inference_mode():
        batches = _batches(model, pixels)
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


def sheet(path: Path, model: Autoencoder, pixels: np.ndarray) -> None:
    """Pictures, below them what the model makes of them, and below that what a VAE draws."""
    model.eval()
    rows = [pixels, reconstruct(model, pixels)]
    if isinstance(model, Vae):
        with torch.inference_mode():
            rows.append(to_pictures(model.sample(len(pixels))))
    model.train()
    image = Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows], 0))
    scale = max(1, 96 // pixels.shape[1])
    file = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(
        file, "PNG"
    )
    atomic_write(path, file.getvalue())
