"""Training: one loop (`lm.py`) for every tokenizer, model size and number of processes.

This file holds what the loop is told, without torch, so that the command line can build and check
it before anything heavy is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from jpeglm.config import MAX_SEED, InputError, Settings, bounded
from jpeglm.models.llama import DEPTH, PRESETS, learning_rate

PACKINGS = ("auto", "pictures", "rows", "chunks")
PRECISIONS = ("auto", "float32", "bfloat16")
COMPILE = ("auto", "on", "off")
OPTIMIZERS = ("auto", "muon", "adamw")
STRATEGIES = ("auto", "ddp", "fsdp")
AUTO = "auto"
PRESET = "2m"
"""Where nothing says which: what has been measured most (docs/log.md)."""
WARMUP = 100
"""Steps of warm-up, unless the budget is too short for them."""
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

    preset: str = "auto"
    """Model size: 1m, 2m, 3m, 5m, 10m, 30m, 85m, 300m, 1b, 7b, or `auto`: with --minutes alone the
    one that fits the budget on this machine, with --init the checkpoint's, else 2m."""
    model: dict[str, Any] = field(default_factory=dict)
    """Overrides a key of the Hugging Face Llama configuration, as num_hidden_layers=8; may be
    repeated. With --init only that one: layers are added, which change nothing at first."""
    init: str = ""
    """Checkpoint to start from, weights and size: a folder, or one that ships (photos, avatars,
    cifar10, clips). Its tokenizer is the default then."""
    steps: int = bounded(0, least=0)
    """Budget in steps; 0 is none. --steps, --epochs or --minutes is needed."""
    epochs: float = bounded(0.0, least=0)
    """Budget in passes over the data."""
    minutes: float = bounded(0.0, least=0)
    """Budget in minutes, including evaluation, saving and compilation, but not loading the data or
    measuring before the first step."""
    optimizer: str = "auto"
    """`muon` (layers' matrices, the rest AdamW), `adamw`, or `auto`: muon."""
    learning_rate: float = bounded(0.0, least=0, most=1000)
    """Peak learning rate; 0: the size's default, doubled for muon, halved with --init."""
    warmup: int | None = bounded(None, least=0)
    """Steps of linear warm-up. Default: 100, but with --minutes alone at most a tenth of the steps
    that fit into the budget."""
    min_lr_ratio: float = bounded(0.1, least=0, most=1)
    """Learning rate at the end of the cosine, as a share of the peak."""
    weight_decay: float = bounded(0.1, least=0, most=1000)
    """Weight decay of matrices and embeddings; norms have none."""
    beta1: float = bounded(0.9, least=0, below=1)
    """AdamW's decay of the mean gradient."""
    beta2: float = bounded(0.95, least=0, below=1)
    """AdamW's decay of the mean squared gradient."""
    clip: float = bounded(1.0, least=0, most=1e6)
    """Largest norm of the whole gradient; 0 is off."""
    batch_tokens: int = bounded(4096, least=2)
    """Tokens of a forward pass, over all processes, padding included."""
    gradient_accumulation: int = bounded(1, least=1)
    """Forward passes a step, of --batch-tokens each."""
    packing: str = "auto"
    """`pictures`: one a row; `rows`: several, whole, in rows of --max-length; `chunks`:
    concatenated and cut into such rows, as the paper; `auto`: rows on CUDA, whose compiler needs
    one shape, else pictures."""
    max_length: int = bounded(0, least=0)
    """Tokens of a row and of the model's context; 0: the longest training picture with its caption,
    up to 64s, and in rows at least four pictures. A caption that leaves its picture no room is cut
    at its end."""
    class_dropout: float = bounded(0.0, least=0, most=1)
    """Share of class tokens replaced by BOS, which guidance needs."""
    caption_dropout: float = bounded(0.1, least=0, most=1)
    """Share of captions left out, of data that have some, which guidance needs."""
    fim: float = bounded(0.0, least=0, most=1)
    """Share of pictures trained with a hole to fill (fill in the middle), which `complete --mask`
    needs; a tokenizer without tokens for holes gets them."""
    precision: str = "auto"
    """`float32`, `bfloat16`, or `auto`: bfloat16 on CUDA and on a CPU with avx512_bf16 or AMX, else
    float32."""
    compile: str = "auto"
    """`on`, `off`, or `auto`: on for CUDA; on a CPU it needs g++ and about a minute, then gains 6
    to 33 %."""
    strategy: str = "auto"
    """How processes launched together share a run: `ddp`, each with a whole model; `fsdp`, with
    weights, gradients and optimizer split among them; `auto`: ddp."""
    replicas: int = bounded(1, least=1)
    """Groups of processes that under fsdp hold all weights each (HSDP), as 4 of 32 processes on 4
    machines; 1: they are split over all processes."""
    activation_checkpointing: bool = False
    """Save memory by computing activations twice."""
    ema: float = bounded(0.0, least=0, below=1)
    """Decay of the moving average of the weights, which is then evaluated and saved; 0 is off."""
    seed: int = bounded(0, least=0, most=MAX_SEED)
    """Seed of the first weights and of the order of the data."""
    log_every: int = bounded(10, least=1)
    """Steps between rows of metrics.jsonl."""
    eval_every: int = bounded(500, least=1)
    """Steps between evaluations."""
    eval_images: int = bounded(256, least=0)
    """Held-out pictures measured; 0 trains without any."""
    save_every: int = bounded(500, least=1)
    """Steps between checkpoints."""
    samples: int = bounded(8, least=0)
    """Pictures drawn at each evaluation."""
    keep: int = bounded(2, least=1)
    """Number of newest checkpoints to keep."""
    threads: int = bounded(0, least=0, most=4096)
    """CPU threads of torch; 0: torch decides."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("preset", (AUTO, *PRESETS)),
            ("packing", PACKINGS),
            ("precision", PRECISIONS),
            ("compile", COMPILE),
            ("optimizer", OPTIMIZERS),
            ("strategy", STRATEGIES),
        ):
            if getattr(self, name) not in choices:
                value = getattr(self, name)
                raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
        self.check_bounds()
        if not (self.steps or self.epochs or self.minutes):
            raise InputError("training has no end; give --steps, --epochs or --minutes")
        if self.strategy == "fsdp" and self.timed:
            raise InputError(
                "minutes alone are measured with whole models, which fsdp is there to avoid; give "
                "--steps or --epochs"
            )
        if self.replicas > 1 and self.strategy != "fsdp":
            raise InputError("replicas are groups under the strategy fsdp; choose it or leave them")
        if self.fim and self.packing == "chunks":
            raise InputError("fim needs whole pictures in a row; use packing pictures or rows")
        if self.init and (others := sorted(set(self.model) - {DEPTH})):
            raise InputError(
                f"init takes its checkpoint's shape, so that model cannot set {', '.join(others)}; "
                f"only {DEPTH} may be larger"
            )
        if self.steps and self.epochs:
            raise InputError("steps and epochs are both given; choose one of them")

    def check_processes(self, count: int) -> None:
        """InputError where the strategy cannot be had of so many processes."""
        if self.strategy != AUTO and count == 1:
            raise InputError(
                f"strategy {self.strategy} is for several processes, and this is one; launch them "
                "with torchrun --nproc-per-node N -m jpeglm train …"
            )
        if count % self.replicas or (self.replicas > 1 and self.replicas == count):
            raise InputError(
                f"replicas is {self.replicas}, which does not part {count} processes into groups "
                "of two or more; choose a smaller number that divides them"
            )

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up."""
        return WARMUP if self.warmup is None else self.warmup

    @property
    def timed(self) -> bool:
        """Whether minutes are all of the budget."""
        return bool(self.minutes) and not (self.steps or self.epochs)

    @property
    def peak(self) -> float:
        """The peak learning rate."""
        scale = 1.0 if self.optimizer == "adamw" else MUON_RATE
        scale *= INIT_RATE if self.init else 1.0
        return self.learning_rate or scale * learning_rate(self.preset)

    def rate(self, step: int, share: float) -> float:
        """Learning rate of `step` (from 0) when `share` of the budget, from 0 to 1, is used up."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        wave = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        return self.peak * warm * (self.min_lr_ratio + (1 - self.min_lr_ratio) * wave)
