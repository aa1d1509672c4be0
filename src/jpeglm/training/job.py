"""One run of training as its parts see it: what is learnt, with what, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from PIL import Image
from torch.nn import functional as F

from jpeglm.data.loader import TrainingLoader
from jpeglm.data.token_set import TokenSet
from jpeglm.training import TrainConfig
from jpeglm.training.background import Background
from jpeglm.training.run import Checkpoints, Metrics, Stop

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

Progress = Callable[[int, int | None, str], None]
"""Called with (steps done, steps in all as far as known, a note)."""
Sampler = Callable[[Any, "Tokenizer", int, int], Image.Image | None]
"""(LlamaForCausalLM in eval mode, tokenizer, n, seed) -> a sheet; called on the first process."""


@dataclass
class State:
    """Where a run stands; with weights, optimizer and data position all that resuming needs."""

    step: int = 0
    tokens: int = 0
    images: int = 0
    seconds: float = 0.0
    window_nats: float = 0.0
    window_tokens: int = 0
    window_seconds: float = 0.0
    evaluated: int = -1
    """Step of the last evaluation."""
    best: float = math.inf
    """Bits an image of the best evaluation, whose weights are in OUT/model."""
    best_worth: float = math.inf
    """Its `curves.worth`, the lowest."""
    best_step: int = -1


class Objective(torch.nn.Module):
    """Llama with its loss, -ln p of ids after the first, padding left out: summed over all rows in
    training, over each row by itself in eval mode."""

    def __init__(self, model: transformers.LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """ids, targets: int64 [B, T], targets[b, t] follows ids[b, t], -100 is left out."""
        logits = self.model(input_ids=ids, use_cache=False).logits.float()
        if self.training:
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        return F.cross_entropy(logits.mT, targets, reduction="none").sum(1)


@dataclass
class Job:
    """What one process knows of a run; `training.start` makes it."""

    tokenizer: Tokenizer
    out: Path
    config: TrainConfig
    accelerator: Accelerator
    shape: dict[str, Any]
    """Hugging Face's configuration of the model."""
    loader: TrainingLoader
    held_out: TokenSet | None
    held_out_holes: TokenSet | None
    """The same with holes, of a run that learns to fill them."""
    sources: int
    """Pictures that the held-out streams are of; crops of one are alike."""
    code: str
    """What the streams themselves are coded in: `huffman`, `cavlc` or `fixed-length`."""
    code_bits: np.ndarray
    """float64 [held-out streams]: what each takes in it."""
    data: Path
    steps: int | None
    """The budget, where it is one of steps or epochs."""
    checkpoints: Checkpoints
    sharded: bool
    """Whether a process holds only its share of the weights."""
    objective: Any
    """`Objective`, compiled and wrapped; `nats` calls it. model: the Llama inside."""
    model: Any
    optimizers: list[torch.optim.Optimizer]
    window: torch.Tensor
    """Summed nats since the last row of the log."""
    ema: dict[str, torch.Tensor]
    """Averaged weights by name; empty without."""
    background: Background
    """What writes checkpoints."""
    identity: dict[str, Any]
    """What no other run has in common with it (`run.identity_of`)."""
    captions: dict[str, int] = field(default_factory=dict)
    """How many pictures have captions, and how many of those were cut; empty without any."""
    advice: list[str] = field(default_factory=list)
    """What was chosen and what to expect."""
    progress: Progress = lambda done, total, note: None
    say: Callable[[str], None] = lambda line: None
    sampler: Sampler | None = None
    state: State = field(default_factory=State)
    stop: Stop = field(default_factory=Stop)
    rate: float = 0.0
    """The last step's learning rate; norm: that of its gradient."""
    norm: Any = 0.0
    metrics: Metrics | None = None
    """The log, on the first process."""
    told: dict[str, str] = field(default_factory=dict)
    """What has been warned of, by what it is about."""

    @property
    def main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def record(self, row: dict[str, Any]) -> None:
        """A row of the log."""
        if self.metrics:
            self.metrics.write(row)

    def warn(self, about: str, line: str | None) -> None:
        """A sentence of what goes wrong and what to do, said once; None takes it back."""
        if line is None:
            self.told.pop(about, None)
            return
        if about not in self.told:
            self.say(f"warning: {line}")
        self.told[about] = line

    def nats(self, part: dict[str, np.ndarray]) -> torch.Tensor:
        """What `Objective` says of a batch, in the run's precision."""
        # accelerate has put the precision round what it wrapped itself.
        with self.accelerator.autocast() if self.sharded else nullcontext():
            return cast(torch.Tensor, self.objective(*self.inputs(part)))

    def inputs(self, part: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids, targets), int64 [B, T], as `Objective` takes them."""
        ids, targets = part["input_ids"][:, :-1], part["labels"][:, 1:]
        device = self.accelerator.device
        return (
            torch.from_numpy(np.ascontiguousarray(ids)).to(device, non_blocking=True),
            torch.from_numpy(np.ascontiguousarray(targets)).to(device, non_blocking=True),
        )
