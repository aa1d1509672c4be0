"""An entry whose fields are what records and trials change; their values are record 00's."""

from __future__ import annotations

import math

import numpy as np
import torch
from task import Task
from torch import nn
from torch.nn import functional as F

from jpeglm.config import InputError, fits, shorten, whole
from jpeglm.data.packing import IGNORE
from jpeglm.training.optimizers import Muon
from kit.edges import EDGES, foretold, steps_of
from kit.lawful import Lawful
from kit.model import Model
from kit.parse import COLUMNS, Layout, decode

JOINT = [
    ("coefficient", name)
    for name in ("edge_above", "edge_left", "left", "above", "left_rest", "above_rest")
]
"""What `Entry.joint` takes together."""
READABLE = ("jpeg-block-symbols", "jpeg-placed-symbols", "jpeg-symbols")
"""Alphabets in which `Entry.context` can follow a picture block by block."""
ACTIVATIONS = ("silu", "relu2")
RANGES: dict[str, tuple[float, float]] = {
    "width": (2, 4096),
    "layers": (1, 256),
    "heads": (1, 2048),
    "inner": (1, 65536),
    "tokens_a_step": (1, 2**24),
    "peak": (1e-6, 1),
    "warmup": (1, 10**9),
    "last": (0, 1),
    "decay": (0, 1000),
    "clip": (1e-6, 1e6),
    "table_rate": (0, 1000),
    "table_decay": (0, 1000),
    "steps": (1, 1024),
    "shift": (0, 1024),
}
"""Least and most of each number."""


class Entry:
    alphabet: str = "jpeg-block-symbols"
    vocabulary: int = 1024
    """Tokens, BOS and EOS among them."""
    tokens_a_step: int = 4096
    """Ids of a step, padding included."""
    width: int = 128
    """Channels, which the heads share evenly and turn in pairs."""
    layers: int = 4
    attending: tuple[int, ...] | None = None
    """Layers that have attention, from 0; none: all."""
    heads: int = 2
    inner: int = 384
    """Channels inside of each feed-forward, with `silu`."""
    peak: float = 6e-3
    """Learning rate at its peak."""
    warmup: int = 100
    """Steps to it."""
    last: float = 0.1
    """Where the cosine ends, as a share of it."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    decay: float = 0.1
    """Weight decay of matrices."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""
    table_rate: float = 1.0
    """Learning rate of embeddings for that of matrices."""
    table_decay: float = 1.0
    """Weight decay of embeddings for that of matrices."""
    untied: bool = False
    """What logits are products with is a matrix of its own, trained as matrices are by AdamW."""

    context: bool = False
    """The model reads what a decoder knows: thirteen numbers a token (`parse.py`), each with a
    learned vector that is added to the token's own. No matrix is multiplied for it."""
    edges: bool = False
    """Six numbers more: what the pixels along the block's edges foretell (`edges.py`)."""
    legal: bool = False
    """Probability goes to legal tokens alone that a tokenizer would write (`lawful.py`)."""
    steps: int = 1
    """Attention is computed in so many stripes of queries, each against the keys up to its end:
    with more than one, most of what lies ahead is not computed."""
    value_embeddings: bool = False
    """Each layer's values get a learned share of a second vector of the token."""
    activation: str = "silu"
    """`silu`: SwiGLU; `relu2`: two matrices and squares of what is positive (Primer, arXiv
    2109.08668), 1.5 times as wide for the same FLOPs."""
    query_norm: bool = False
    """Queries and keys are normed a head (arXiv 2302.05442), with a learned gain."""
    shift: int = 0
    """Attention and feed-forward read of each place also what so many places before it hold, with
    a learned gain a channel (a causal convolution; arXiv 2512.17351)."""
    near: bool = False
    """Both read also what the places hold at which, in the blocks left, above and of the other
    chroma, the coefficient was written that comes next; with a gain a channel."""
    joint: bool = False
    """Pairs of the numbers of `context` and `edges`, the coefficient that comes next and what is
    around it, have, as a pair, a vector too."""
    skip: bool = False
    """Each layer reads a learned mix of its input and of the embedding."""

    @classmethod
    def check_fields(cls) -> None:
        """InputError for a number out of its range, and for fields that do not fit one another."""
        for name, (least, most) in RANGES.items():
            if not least <= getattr(cls, name) <= most:
                raise InputError(
                    f"{name} is {getattr(cls, name)}; it must be from {least:g} to {most:g}"
                )
        if not (len(cls.betas) == 2 and all(fits(b, "float") and 0 <= b < 1 for b in cls.betas)):
            raise InputError(f"betas is {cls.betas}; it must be two numbers from 0 to below 1")
        if cls.activation not in ACTIVATIONS:
            raise InputError(
                f"activation is {shorten(cls.activation)}; choose one of {', '.join(ACTIVATIONS)}"
            )
        if cls.width % (2 * cls.heads):
            raise InputError(
                f"width is {cls.width} and heads is {cls.heads}; channels are turned in pairs, so "
                f"width must be a multiple of {2 * cls.heads}"
            )
        if cls.attending is not None:
            for number in cls.attending:
                whole("a layer in attending", number, 0, cls.layers - 1)
            if len(set(cls.attending)) < len(cls.attending):
                raise InputError(f"attending is {cls.attending}; name each layer once")
        cls.check_needs()

    @classmethod
    def check_needs(cls) -> None:
        """InputError for a field without what it builds on."""
        for name, needed in (("edges", "context"), ("near", "context"), ("joint", "edges")):
            if getattr(cls, name) and not getattr(cls, needed):
                raise InputError(f"{name} is True, which needs {needed}=True")
        if cls.context and cls.alphabet not in READABLE:
            raise InputError(
                f"alphabet is {shorten(cls.alphabet)}; context=True needs one of "
                f"{', '.join(READABLE)}"
            )
        of_attention = {"steps": 1, "value_embeddings": False, "query_norm": False}
        for name, without in of_attention.items():
            if cls.attending == () and getattr(cls, name) != without:
                raise InputError(
                    f"{name} is {getattr(cls, name)}, but attending is (): no layer has attention"
                )

    def __init__(self, task: Task, seed: int) -> None:
        self.check_fields()
        self.task, self.seed = task, seed
        self.tokenizer = task.tokenizer(self.alphabet, self.vocabulary)
        self.layout = Layout(self.tokenizer) if self.context else None
        self.steps_of = steps_of(task.codec) if self.edges else None
        single = COLUMNS | (EDGES if self.edges else {})
        self.pairs = [[list(single).index(name) for name in pair] for pair in JOINT if self.joint]
        sizes = list(single.values())
        sizes += [sizes[a] * sizes[b] for a, b in self.pairs]
        self.known = len(sizes)
        """How many numbers a token has beside its own."""
        self.starts = np.cumsum([0, *sizes])
        """Row of the table of contexts where each begins; the last: how many there are."""
        self.lawful = Lawful(self.tokenizer) if self.legal else None

    def inputs(self, ids: np.ndarray) -> np.ndarray:
        """The ids, the rows of legal tokens, and the contexts as rows of one table."""
        columns = [ids[:, None]]
        if self.lawful:
            columns += [self.lawful.rows(ids)[:, None]]
        if self.layout:
            known, planes, near = decode(self.layout, ids)
            if self.edges:
                known = np.concatenate(
                    [known, foretold(self.layout, self.steps_of, known, planes)], 1
                )
            if self.near:
                columns += [near]
            sizes = np.diff(self.starts)
            for a, b in self.pairs:
                known = np.c_[known, known[:, a] * sizes[b] + known[:, b]]
            columns += [known + self.starts[:-1]]
        return np.concatenate(columns, 1)

    def model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = Model(self)
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    last = name.endswith(("o_proj.weight", "down_proj.weight"))
                    nn.init.normal_(parameter, 0, 0.02 / math.sqrt(2 * self.layers if last else 1))
        return model

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        matrices, tables, gains = [], [], []
        for name, parameter in model.named_parameters():
            kind = gains if parameter.dim() < 2 else matrices if "layers." in name else tables
            if name != "head.weight":
                kind.append(parameter)
        decay = self.decay * self.table_decay
        groups = [
            {"params": tables, "weight_decay": decay, "lr": self.peak * self.table_rate},
            {"params": gains, "weight_decay": 0.0},
        ]
        if self.untied:
            groups += [{"params": [model.head.weight], "weight_decay": self.decay}]
        return [
            torch.optim.AdamW(groups, lr=self.peak, betas=self.betas, fused=True),
            Muon(matrices, lr=self.peak, weight_decay=self.decay, adjust_lr_fn="match_rms_adamw"),
        ]

    def rate(self, step: int, share: float) -> float:
        wave = 0.5 * (1 + math.cos(math.pi * min(share, 1)))
        return min(1, (step + 1) / self.warmup) * (self.last + (1 - self.last) * wave)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
