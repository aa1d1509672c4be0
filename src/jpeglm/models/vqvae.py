"""VQ-VAE: pictures as a grid of codes out of a learnt codebook (van den Oord et al. 2017).

    x ─encoder─▶ z_e ─nearest code─▶ z_q ─decoder─▶ x̂
    loss = |x − x̂|² + |sg[z_e] − z_q|² + β |z_e − sg[z_q]|²           (equation 3)

The gradient of the reconstruction passes from z_q to z_e as if nothing lay between (straight
through). By default the codebook term is replaced by exponential moving averages of the vectors
assigned to each code (appendix A.1 there), and a code that has fallen out of use restarts at a
vector of the batch (Dhariwal et al. 2020), which keeps the whole codebook in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from jpeglm.config import InputError, Settings, bounded
from jpeglm.models.autoencoder import decoder, encoder, stages


@dataclass(frozen=True)
class VqVaeConfig(Settings):
    """The shape of a VQ-VAE and how its codebook is learnt."""

    codes: int = bounded(512, least=2, most=65536)
    """Size of the codebook."""
    code_dim: int = bounded(32, least=1)
    """Width of its vectors."""
    channels: int = 64
    """Width of the convolutions, a multiple of 8."""
    blocks: int = bounded(2, least=0)
    """Residual blocks a stage."""
    downsampling: int = 4
    """Pixels a side of one code: 2, 4, 8, 16."""
    beta: float = bounded(0.25, least=0)
    """Weight of the commitment loss."""
    ema: float = bounded(0.99, least=0, below=1)
    """Decay of the codebook's moving averages; 0 learns it by the codebook loss instead."""
    restart_below: float = bounded(0.03, least=0)
    """A code whose average use falls below this share of even use restarts; 0 is off. Only with
    --ema."""

    def __post_init__(self) -> None:
        stages(self.downsampling)
        if self.channels < 8 or self.channels % 8:
            raise InputError(f"channels is {self.channels}; it must be a multiple of 8")
        self.check_bounds()


class Quantised(NamedTuple):
    """z [B, d, h, w] straight-through; codes int64 [B, h, w]; the two losses, scalars."""

    z: torch.Tensor
    codes: torch.Tensor
    codebook_loss: torch.Tensor
    commitment_loss: torch.Tensor


class Quantiser(nn.Module):
    """The codebook, float32 [codes, d], and the nearest-neighbour rule."""

    def __init__(self, codes: int, dim: int, ema: float, restart_below: float = 0.0) -> None:
        super().__init__()
        self.ema, self.restart_below = ema, restart_below
        self.codebook: torch.Tensor
        self.uses: torch.Tensor
        self.sums: torch.Tensor
        self.steps: torch.Tensor
        book = torch.randn(codes, dim) / dim**0.5
        if ema:
            self.register_buffer("codebook", book)
            self.register_buffer("uses", torch.zeros(codes))
            self.register_buffer("sums", torch.zeros(codes, dim))
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        else:
            self.codebook = nn.Parameter(book)

    def assign(self, flat: torch.Tensor) -> torch.Tensor:
        """int64 [N]: the nearest code of each vector [N, d], by Euclidean distance."""
        distances = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
        return distances.argmin(1)

    def forward(self, z: torch.Tensor) -> Quantised:
        z = z.float()
        flat = z.permute(0, 2, 3, 1).flatten(0, 2)
        if self.training and self.ema and not int(self.steps):
            # The first batch's own vectors are a codebook in the right place.
            chosen = torch.randint(len(flat), (len(self.codebook),), device=flat.device)
            self.codebook.copy_(flat[chosen].detach())
        codes = self.assign(flat.detach())
        book = F.embedding(codes, self.codebook)
        nearest = book.reshape(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2)
        commitment = F.mse_loss(z, nearest.detach())
        codebook = F.mse_loss(nearest, z.detach()) if not self.ema else commitment.detach()
        if self.training and self.ema:
            self._update(flat.detach(), codes)
        through = z + (nearest - z).detach()
        return Quantised(through, codes.reshape(z.shape[0], *z.shape[2:]), codebook, commitment)

    @torch.no_grad()
    def _update(self, flat: torch.Tensor, codes: torch.Tensor) -> None:
        size = len(self.codebook)
        uses = torch.bincount(codes, minlength=size).to(flat.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)
        self.steps += 1
        self.uses.lerp_(uses, 1 - self.ema)
        self.sums.lerp_(sums, 1 - self.ema)
        used = self.uses > 1e-6
        means = self.sums / self.uses.clamp_min(1e-6)[:, None]
        self.codebook.copy_(torch.where(used[:, None], means, self.codebook))
        if not self.restart_below:
            return
        unbiased = self.uses / (1 - self.ema ** float(self.steps))
        dead = unbiased < self.restart_below * len(flat) / size
        if dead.any():
            count = int(dead.sum())
            chosen = flat[torch.randint(len(flat), (count,), device=flat.device)]
            even = len(flat) / size * (1 - self.ema ** float(self.steps))
            self.codebook[dead], self.uses[dead] = chosen, even
            self.sums[dead] = chosen * even


def usage(codes: torch.Tensor, size: int) -> tuple[float, float]:
    """(share of the codebook that occurs, perplexity = exp of the codes' entropy)."""
    share = torch.bincount(codes.flatten(), minlength=size).double() / codes.numel()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return float((share > 0).double().mean()), float(entropy.exp())


class VqVae(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] ⇄ codes [B, H / f, W / f]."""

    def __init__(self, config: VqVaeConfig) -> None:
        super().__init__()
        self.config = config
        shape = (config.channels, config.blocks, config.downsampling, config.code_dim)
        self.encoder, self.decoder = encoder(*shape), decoder(*shape)
        self.quantiser = Quantiser(config.codes, config.code_dim, config.ema, config.restart_below)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Quantised]:
        """(reconstruction, Quantised)"""
        quantised = self.quantiser(self.encoder(x))
        return self.decoder(quantised.z), quantised

    def loss(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(equation 3, its parts); means over pixels and code entries, not sums."""
        rebuilt, quantised = self(x)
        reconstruction = F.mse_loss(rebuilt.float(), x)
        total = reconstruction + self.config.beta * quantised.commitment_loss
        if not self.config.ema:
            total = total + quantised.codebook_loss
        parts = {
            "reconstruction": reconstruction,
            "codebook": quantised.codebook_loss,
            "commitment": quantised.commitment_loss,
        }
        return total, parts

    @property
    def codebook(self) -> torch.Tensor:
        """float32 [codes, d]."""
        return self.quantiser.codebook

    def vectors(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures → what the encoder makes of each patch, float32 [B, d, h, w]."""
        return cast(torch.Tensor, self.encoder(x).float())

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures → codes int64 [B, h, w]."""
        z = self.vectors(x)
        codes = self.quantiser.assign(z.permute(0, 2, 3, 1).flatten(0, 2))
        return codes.reshape(z.shape[0], *z.shape[2:])

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes int64 [B, h, w] → pictures."""
        vectors = F.embedding(codes, self.quantiser.codebook).permute(0, 3, 1, 2)
        pictures: torch.Tensor = self.decoder(vectors)
        return pictures
