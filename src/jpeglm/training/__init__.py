"""Training: one loop (`lm.py`) for every tokenizer, model size and number of processes.

This file holds what the loop is told, without torch, so that the command line can build and check
it before anything heavy is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from jpeglm.config import InputError, Settings, check_seed
from jpeglm.models.llama import PRESETS, learning_rate

PACKINGS = ("pictures", "chunks")
PRECISIONS = ("auto", "float32", "bfloat16")
COMPILE = ("auto", "on", "off")
OPTIMIZERS = ("auto", "muon", "adamw")
MUON_RATE = 2.0
"""Muon's peak learning rate for AdamW's, which is what presets name (docs/log.md)."""
INIT_RATE = 0.5
"""The peak of a run that begins with trained weights, for that of one that begins with none."""


@dataclass(frozen=True)
class TrainConfig(Settings):
    """What a run does. Of `steps`, `epochs` and `minutes` at least one is given; 0 means not given.

    The learning rate follows the larger of the shares of steps and of minutes that are used up. A
    budget in steps or epochs gives the same losses again on the same machine; one in minutes does
    not, since it depends on how fast the machine was.
    """

    preset: str = "2m"
    model: dict[str, Any] = field(default_factory=dict)
    """Keys of the Llama configuration that replace the preset's."""
    init: str = ""
    """The checkpoint whose weights and shape a new run begins with, a folder or a shipped one's
    name; the preset then says the learning rate alone."""
    steps: int = 0
    epochs: float = 0.0
    """Passes over the training pictures, turned into steps when the data are known."""
    minutes: float = 0.0
    """Evaluation, saving and compilation included, loading of the data not."""
    optimizer: str = "auto"
    """`muon` for the layers' matrices, with AdamW for the rest; or `adamw` for everything. `auto`
    is muon, but adamw under FSDP, which splits matrices."""
    learning_rate: float = 0.0
    """Peak; 0 takes the preset's, twice it with Muon, half of that with `init`."""
    warmup: int = 100
    """Steps of linear warm-up."""
    min_lr_ratio: float = 0.1
    """Where the cosine ends, as a share of the peak."""
    weight_decay: float = 0.1
    """On matrices and embeddings; norms have none."""
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 is off."""
    batch_tokens: int = 4096
    """Tokens of one forward pass over all processes, padding included."""
    gradient_accumulation: int = 1
    """Forward passes of one step, so a step has batch_tokens times this many tokens."""
    packing: str = "pictures"
    """`pictures`: one a row; `chunks`: end to end in rows of max_length, as the paper."""
    max_length: int = 0
    """Tokens of a row and of the model's context; 0: the longest training picture, up to 64s."""
    class_dropout: float = 0.0
    """Share of class tokens that become BOS, which guidance needs."""
    precision: str = "auto"
    """`auto` is bfloat16 autocast on CUDA and on a CPU with avx512_bf16 or AMX, else float32."""
    compile: str = "auto"
    """`auto` is on for CUDA; on a CPU it needs g++ and about a minute, then gains 6 to 33 %."""
    activation_checkpointing: bool = False
    ema: float = 0.0
    """Decay of averaged weights, which are then what is evaluated and kept; 0 is off."""
    seed: int = 0
    log_every: int = 10
    eval_every: int = 500
    eval_images: int = 256
    """Held-out pictures of an evaluation; 0 trains without any."""
    save_every: int = 500
    samples: int = 0
    """Pictures drawn at each evaluation."""
    keep: int = 2
    """Newest checkpoints kept."""
    threads: int = 0
    """CPU threads of torch; 0 leaves its choice."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("preset", PRESETS),
            ("packing", PACKINGS),
            ("precision", PRECISIONS),
            ("compile", COMPILE),
            ("optimizer", OPTIMIZERS),
        ):
            if getattr(self, name) not in choices:
                value = getattr(self, name)
                raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
        for name in ("gradient_accumulation", "log_every", "eval_every", "save_every", "keep"):
            self._at_least(name, 1)
        self._at_least("batch_tokens", 2)
        for name in (
            "steps", "epochs", "minutes", "learning_rate", "warmup", "weight_decay", "clip",
            "max_length", "eval_images", "samples", "threads",
        ):  # fmt: skip
            self._at_least(name, 0)
        check_seed(self.seed)
        for name in ("min_lr_ratio", "class_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it goes from 0 to 1")
        for name in ("beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it goes from 0 to below 1")
        if not (self.steps or self.epochs or self.minutes):
            raise InputError("training has no end; give --steps, --epochs or --minutes")
        if self.init and self.model:
            raise InputError("the checkpoint of init has its shape; model cannot change it")
        if self.steps and self.epochs:
            raise InputError("steps and epochs are both given; choose one of them")

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not (value >= least and math.isfinite(value)):
            raise InputError(f"{name} is {value}; it must be at least {least} and finite")

    @property
    def peak(self) -> float:
        """The peak learning rate."""
        scale = 1.0 if self.optimizer == "adamw" else MUON_RATE
        scale *= INIT_RATE if self.init else 1.0
        return self.learning_rate or scale * learning_rate(self.preset)

    def rate(self, step: int, share: float) -> float:
        """Learning rate of `step` (from 0) when `share` of the budget, from 0 to 1, is used up."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        wave = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        return self.peak * warm * (self.min_lr_ratio + (1 - self.min_lr_ratio) * wave)
