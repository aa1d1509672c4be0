"""What turns gradients into steps: AdamW alone, or Muon for the layers' matrices beside it."""

from __future__ import annotations

import torch

from jpeglm.training import TrainConfig


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
    device = next(model.parameters()).device.type
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": gains, "weight_decay": 0.0},
            ],
            lr=config.peak,
            betas=(config.beta1, config.beta2),
            fused=device in ("cpu", "cuda"),
        )
    ]
    if muon:
        found.append(
            torch.optim.Muon(
                muon,
                lr=config.peak,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return found
