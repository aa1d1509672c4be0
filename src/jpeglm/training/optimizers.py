"""What turns gradients into steps: AdamW alone, or Muon for the layers' matrices beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from jpeglm.training import TrainConfig
from jpeglm.training.exchange import whole_matrices
from jpeglm.training.run import has_bfloat16
from jpeglm.training.sharding import local


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
        found.append(
            Muon(
                muon,
                lr=config.peak,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return found


class Muon(torch.optim.Muon):
    """torch's Muon, its Newton-Schulz iterations as fits the processor; state and settings are its.

    Torch iterates in bfloat16. A processor without it emulates that: on one Zen 3 core 2.8 s a step
    for the 28 matrices of 2m, whose gradients take 1.0 s; 0.1 s in float32. On a GPU all matrices
    of a shape go together: one by one, each step of 2m would be some 700 launches of tiny products.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; closure, if given, computes the loss again and is returned from."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [parameter.grad for parameter in moved]
            for parameter in moved:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            if not moved:
                continue
            own = [local(parameter) for parameter in moved]
            slopes = [local(gradient) for gradient in gradients]
            momenta = [local(self.state[parameter]["momentum_buffer"]) for parameter in moved]
            torch._foreach_lerp_(momenta, slopes, 1 - group["momentum"])
            updates: Sequence[torch.Tensor] = momenta
            if group["nesterov"]:
                updates = torch._foreach_lerp(slopes, momenta, group["momentum"])
            torch._foreach_mul_(own, 1 - group["lr"] * group["weight_decay"])
            turned = _turned(moved, updates, group)
            for rows in _together(moved):
                size = 0.2 * max(moved[rows[0]].shape) ** 0.5  # match_rms_adamw
                parts = [own[row] for row in rows]
                steps = [turned[row] for row in rows]
                torch._foreach_add_(parts, steps, alpha=-group["lr"] * size)
        return loss


def _turned(
    parameters: list[torch.nn.Parameter], updates: Sequence[torch.Tensor], group: dict[str, Any]
) -> list[torch.Tensor]:
    """Updates, orthogonalised; of parameters that are split over processes, this one's rows."""

    def work(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
        found = list(matrices)
        for rows in _together(matrices):
            stack = torch.stack([matrices[row] for row in rows])
            stack = _orthogonal(stack, group["ns_coefficients"], group["ns_steps"], group["eps"])
            for row, matrix in zip(rows, stack.unbind()):
                found[row] = matrix
        return found

    shards = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    if not shards:
        return work(list(updates))
    kind = _kind(updates[0].device)  # what is iterated in may travel so: half the bytes
    turned = whole_matrices(shards, [update.to(kind) for update in updates], work)
    return [matrix.to(updates[0].dtype) for matrix in turned]


def _together(matrices: Sequence[torch.Tensor]) -> list[list[int]]:
    """Numbers of those that are orthogonalised at once: on a GPU all of a shape; on a processor,
    where a product of stacks is a tenth slower, each by itself."""
    if matrices[0].device.type != "cuda":
        return [[number] for number in range(len(matrices))]
    shapes: dict[torch.Size, list[int]] = {}
    for number, matrix in enumerate(matrices):
        shapes.setdefault(matrix.shape, []).append(number)
    return list(shapes.values())


def _orthogonal(
    stack: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Matrices [N, rows, columns] with singular values near 1, by a quintic Newton-Schulz
    iteration; in bfloat16 where the device has it."""
    a, b, c = coefficients
    kind = _kind(stack.device)
    tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if tall else stack).to(kind)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(stack.dtype)


def _kind(device: torch.device) -> torch.dtype:
    """What matrices are orthogonalised in."""
    return torch.bfloat16 if has_bfloat16(device) else torch.float32
