"""What turns gradients into steps: AdamW alone, or Muon for the layers' matrices beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from jpeglm.training import TrainConfig
from jpeglm.training.run import has_bfloat16


def optimizers(model: torch.nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a Llama; each of its parameters belongs to exactly one.

    `adamw`: AdamW for all. `muon`: the matrices of the layers move along the orthogonalised
    momentum of their gradients (Jordan 2024, https://kellerjordan.github.io/posts/muon/), scaled so
    that one learning rate fits both (arXiv 2502.16982, 2.2); embeddings and gains stay with AdamW.
    Weight decay is on matrices and embeddings.
    """
    muon: list[torch.nn.Parameter] = []
    matrices: list[torch.nn.Parameter] = []
    gains: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            gains.append(parameter)
        elif config.optimizer == "muon" and ".layers." in name:
            muon.append(parameter)
        else:
            matrices.append(parameter)
    device = next(model.parameters()).device
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": gains, "weight_decay": 0.0},
            ],
            lr=config.peak,
            betas=(config.beta1, config.beta2),
            fused=device.type in ("cpu", "cuda"),
        )
    ]
    if muon:
        kind = torch.optim.Muon if has_bfloat16(device) else Float32Muon
        found.append(
            kind(
                muon,
                lr=config.peak,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return found


class Float32Muon(torch.optim.Muon):
    """torch's Muon with float32 Newton-Schulz iterations, for processors without bfloat16.

    Torch iterates in bfloat16, which such a processor emulates: on one Zen 3 core 2.8 s a step for
    the 28 matrices of 2m, whose gradients take 1.0 s; here 0.1 s. State and settings are torch's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; closure, if given, computes the loss again and is returned from."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                if group["nesterov"]:
                    momentum = parameter.grad.lerp(momentum, group["momentum"])
                update = _orthogonal(
                    momentum, group["ns_coefficients"], group["ns_steps"], group["eps"]
                )
                size = 0.2 * max(parameter.shape) ** 0.5  # match_rms_adamw
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * size)
        return loss


def _orthogonal(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The matrix with its singular values near 1, by a quintic Newton-Schulz iteration."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
