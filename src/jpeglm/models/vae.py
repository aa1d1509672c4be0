"""VAE: pictures as one Gaussian vector (Kingma and Welling 2013).

    x ─encoder─▶ μ, log σ² ─ z = μ + σ ε ─▶ decoder ─▶ x̂
    −ELBO = −log N(x; x̂, s²) + β KL(N(μ, σ²) ‖ N(0, 1))

s, the spread of the pixels around x̂, is learnt, one number for all (Rybkin et al. 2021): so no
weight between the two terms has to be guessed and the ELBO bounds a real density. Pictures are
drawn by decoding z ~ N(0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from jpeglm.config import InputError, Settings, bounded
from jpeglm.models.autoencoder import decoder, encoder, stages


@dataclass(frozen=True)
class VaeConfig(Settings):
    """The shape of a VAE and the weight of its terms."""

    width: int = 32
    """Pixels; the linear layers depend on the size."""
    height: int = 32
    """Pixels."""
    latent: int = bounded(128, least=1)
    """Numbers in the latent vector."""
    channels: int = 64
    """Width of the convolutions, a multiple of 8."""
    blocks: int = bounded(2, least=0)
    """Residual blocks a stage."""
    downsampling: int = 4
    """Pixels a side of one cell of the encoder's grid: 2, 4, 8, 16."""
    beta: float = bounded(1.0, least=0)
    """Weight of the KL term."""

    def __post_init__(self) -> None:
        stages(self.downsampling)
        for name in ("width", "height"):
            if getattr(self, name) % self.downsampling or getattr(self, name) < 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}; it must be a multiple of the "
                    f"downsampling, {self.downsampling}"
                )
        if self.channels < 8 or self.channels % 8:
            raise InputError(f"channels is {self.channels}; it must be a multiple of 8")
        self.check_bounds()


def gaussian_kl(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) in nats, summed over the last axis (appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(-1)


def gaussian_nll(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """−log N(x; mean, exp(log_scale)²) in nats, summed over all axes but the first."""
    scaled = (x - mean) * (-log_scale).exp()
    return (0.5 * scaled.square() + log_scale + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


class Vae(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] ⇄ z [B, latent]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        f = config.downsampling
        self.grid = (config.height // f, config.width // f)
        cells = self.grid[0] * self.grid[1]
        self.depth = max(8, min(64, 4096 // cells))
        shape = (config.channels, config.blocks, f, self.depth)
        self.encoder, self.decoder = encoder(*shape), decoder(*shape)
        self.to_latent = nn.Linear(self.depth * cells, 2 * config.latent)
        self.from_latent = nn.Linear(config.latent, self.depth * cells)
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.5)))

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, log variance) of z, each [B, latent]."""
        mean, log_variance = self.to_latent(self.encoder(x).flatten(1)).float().chunk(2, 1)
        return mean, log_variance.clamp(-20, 10)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        cells = self.from_latent(z).unflatten(1, (self.depth, *self.grid))
        pictures: torch.Tensor = self.decoder(cells)
        return pictures

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(reconstruction, mean, log variance); z is drawn in training, the mean in eval mode."""
        mean, log_variance = self.posterior(x)
        z = mean
        if self.training:
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decode(z), mean, log_variance

    def loss(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(−ELBO in nats a pixel value, its parts); β weighs the KL term."""
        rebuilt, mean, log_variance = self(x)
        values = x[0].numel()
        nll = gaussian_nll(x, rebuilt.float(), self.log_scale).mean() / values
        kl = gaussian_kl(mean, log_variance).mean() / values
        reconstruction = (rebuilt.float() - x).square().mean()
        return nll + self.config.beta * kl, {"reconstruction": reconstruction, "nll": nll, "kl": kl}

    def sample(self, n: int, seed: int = 0) -> torch.Tensor:
        """n pictures from the prior; the same seed gives the same pictures."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, self.config.latent, generator=generator)
        return self.decode(z.to(self.log_scale.device))
