"""Encoder and decoder that VAE and VQ-VAE share: strided convolutions and residual blocks.

    picture [B, 3, H, W] ─conv─▶ (─stride 2 conv─▶ residual × n) × log2 f ─conv─▶ [B, d, H/f, W/f]
    and back, each stride-2 convolution answered by a transposed one

The shape is that of van den Oord et al. 2017 (appendix A.1) with the residual blocks at every
resolution. Pictures are float32 in [-1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from jpeglm.config import InputError


def stages(downsampling: int) -> int:
    """How many halvings give `downsampling`, which must be a power of two."""
    count = downsampling.bit_length() - 1
    if downsampling < 1 or 1 << count != downsampling:
        raise InputError(f"downsampling is {downsampling}; it must be 1, 2, 4, 8 or 16")
    return count


class Residual(nn.Module):
    """x + conv1(silu(conv3(silu(norm(x)))))"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.body(x)
        return x + added


def encoder(channels: int, blocks: int, downsampling: int, out: int) -> nn.Sequential:
    """Pictures [B, 3, H, W] → [B, out, H / downsampling, W / downsampling]."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1)]
    for _ in range(stages(downsampling)):
        layers += [nn.Conv2d(channels, channels, 4, stride=2, padding=1)]
        layers += [Residual(channels) for _ in range(blocks)]
    layers += [nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, out, 1)]
    return nn.Sequential(*layers)


def decoder(channels: int, blocks: int, downsampling: int, into: int) -> nn.Sequential:
    """[B, into, h, w] → pictures [B, 3, h · downsampling, w · downsampling]."""
    layers: list[nn.Module] = [nn.Conv2d(into, channels, 3, padding=1)]
    for _ in range(stages(downsampling)):
        layers += [Residual(channels) for _ in range(blocks)]
        layers += [nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)]
    layers += [nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, 3, 3, padding=1)]
    return nn.Sequential(*layers)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(x: torch.Tensor) -> np.ndarray:
    """The inverse of `to_tensor`, rounded and clipped."""
    values = ((x.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return values.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def flops_per_picture(model: nn.Module, width: int, height: int) -> int:
    """Floating-point operations of one training picture: 2 a multiplication, thrice the forward
    pass (Kaplan et al. 2020), counted over convolutions and linear layers as they run."""
    total = 0

    def count(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):
            # Every input position is spread over the kernel; the stride is 2 in both directions.
            total += 2 * layer.weight.numel() * out.shape[2] * out.shape[3] // 4
        elif isinstance(layer, nn.Conv2d):
            total += 2 * layer.weight.numel() * out.shape[2] * out.shape[3]
        elif isinstance(layer, nn.Linear):
            total += 2 * layer.weight.numel()

    handles = [layer.register_forward_hook(count) for layer in model.modules()]
    training = model.training
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, height, width, device=next(model.parameters()).device))
    model.train(training)
    for handle in handles:
        handle.remove()
    return 3 * total
