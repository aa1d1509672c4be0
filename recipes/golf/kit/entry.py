"""An entry whose fields are what records and trials change; their values are record 00's."""

from __future__ import annotations

import math

import numpy as np
import torch
from task import Task
from torch import nn
from torch.nn import functional as F

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


class Entry:
    alphabet, vocabulary = "jpeg-block-symbols", 1024
    width, layers, heads, inner = 128, 4, 2, 384
    tokens_a_step = 4096
    peak, warmup, last = 6e-3, 100, 0.1
    """Learning rate: its peak, steps of warm-up, and where the cosine ends as a share of it."""
    decay, betas, clip = 0.1, (0.9, 0.95), 1.0
    table_rate, table_decay = 1.0, 1.0
    """Learning rate and weight decay of embeddings for those of matrices."""
    untied = False
    """What logits are products with is a matrix of its own, trained as matrices are by AdamW."""

    context = False
    """The model reads what a decoder knows: thirteen numbers a token (`parse.py`), each with a
    learned vector that is added to the token's own. No matrix is multiplied for it."""
    edges = False
    """Six numbers more: what the pixels along the block's edges foretell (`edges.py`)."""
    legal = False
    """Probability goes to legal tokens alone that a tokenizer would write (`lawful.py`)."""
    steps = 1
    """Attention is computed in so many stripes of queries, each against the keys up to its end:
    with more than one, most of what lies ahead is not computed."""
    attending: tuple[int, ...] | None = None
    """Layers that have attention, from 0; none: all."""
    value_embeddings = False
    """Each layer's values get a learned share of a second vector of the token."""
    activation = "silu"
    """`silu`: SwiGLU; `relu2`: two matrices and squares of what is positive (Primer, arXiv
    2109.08668), 1.5 times as wide for the same FLOPs."""
    query_norm = False
    """Queries and keys are normed a head (arXiv 2302.05442), with a learned gain."""
    shift = 0
    """Attention and feed-forward read of each place also what so many places before it hold, with
    a learned gain a channel (a causal convolution; arXiv 2512.17351)."""
    near = False
    """Both read also what the places hold at which, in the blocks left, above and of the other
    chroma, the coefficient was written that comes next; with a gain a channel."""
    joint = False
    """Pairs of the numbers of `context` and `edges`, the coefficient that comes next and what is
    around it, have, as a pair, a vector too."""
    skip = False
    """Each layer reads a learned mix of its input and of the embedding."""

    def __init__(self, task: Task, seed: int) -> None:
        assert self.context or not (self.edges or self.near), "both are known with the context"
        assert self.edges or not self.joint
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
