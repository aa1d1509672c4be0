"""What every entry of the race is given, and what it is judged by: fixed for all of them.

The task is the photo corpus as canonical JPEG streams of 64 × 64 pixels, its training split to
learn from and its pictures held out by scene to be measured on. An entry turns a stream into ids
of its tokenizer, ids into numbers that its model reads (`Entry.inputs`), and those into logits; the
score is the sum of −log2 p over the ids of a picture behind BOS, EOS included, so that everything a
decoder needs is paid for. It is measured with the weights as the artefact holds them, in bfloat16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from jpeglm.codecs.base import Codec
from jpeglm.config import InputError
from jpeglm.data.open import Dataset, open_data
from jpeglm.data.packing import IGNORE
from jpeglm.tokenizer import Tokenizer

DATA = Path("data/golf64")
ARTEFACT = 4_000_000
"""Bytes that weights and tokenizer may take."""
BATCH = 16
"""Pictures measured at once."""
WINDOW = 512
"""Pictures of training sorted together by length."""


class Task:
    """The streams of a prepared folder. train, held_out: canonical streams."""

    def __init__(self, folder: Path = DATA) -> None:
        self.folder = folder
        if not folder.exists():
            raise InputError(f"there is no {folder}; run: python recipes/golf/data.py")
        data = open_data(folder)
        assert isinstance(data, Dataset)
        self.codec: Codec = data.codec
        self.train = [row.stream for row in data.streams("train")]
        self.held_out = [row.stream for row in data.streams("validation")]
        if not self.train or not self.held_out:
            raise InputError(f"{folder} needs pictures to learn from and held-out ones")

    @cached_property
    def fingerprint(self) -> str:
        """Of all streams, so that only results of the same task are compared."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            for stream in part:
                digest.update(hashlib.sha256(stream).digest())
        return digest.hexdigest()[:16]

    def tokenizer(self, alphabet: str, vocabulary: int) -> Tokenizer:
        """One learnt on the training streams; it lies beside them once it was."""
        folder = self.folder.with_name(f"{self.folder.name}-golf-{alphabet}-{vocabulary}")
        if not (folder / "tokenizer.json").exists():
            Tokenizer.train(self.train, self.codec, alphabet, vocab_size=vocabulary).save(folder)
        return Tokenizer.load(folder)


class Entry(Protocol):
    """What a record's `entry.py` makes of the task; `records/00-llama/entry.py` is the pattern."""

    tokenizer: Tokenizer
    tokens_a_step: int
    """Ids of a step, padding included."""
    clip: float
    """Largest norm of the whole gradient."""

    def __init__(self, task: Task, seed: int) -> None: ...

    @classmethod
    def check_fields(cls) -> None:
        """InputError where the class' own values do not fit one another; their types are checked
        before."""

    def inputs(self, ids: np.ndarray) -> np.ndarray:
        """Integers [n, columns] that the model reads in place of the ids [n] of one picture, BOS
        first; row i may depend on ids[: i + 1] alone."""

    def model(self) -> torch.nn.Module:
        """Fresh weights of the seed; int64 [B, T, columns] → logits [B, T, vocabulary]."""

    def optimizers(self, model: torch.nn.Module) -> list[torch.optim.Optimizer]: ...

    def rate(self, step: int, share: float) -> float:
        """What learning rates are multiplied by at `step`, when `share` (0 to 1) of the budget is
        used up."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What is minimised: a mean over targets [B, T], -100 left out."""


class Rows:
    """The pictures of a split as the model reads them. ids: int64 [n], flat; picture i is at
    offsets[i] : offsets[i + 1], BOS and EOS included."""

    def __init__(self, entry: Entry, streams: list[bytes]) -> None:
        pictures = [sequence(entry.tokenizer, stream) for stream in streams]
        self.entry, self.ids = entry, np.concatenate(pictures)
        self.offsets = np.cumsum([0, *map(len, pictures)])
        self.columns = entry.inputs(pictures[0]).shape[1]

    def batch(self, pictures: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs [B, T, columns], targets [B, T]) of pictures padded to the longest."""
        found = [self.ids[self.offsets[one] : self.offsets[one + 1]] for one in pictures]
        length = max(map(len, found)) - 1
        inputs = np.zeros((len(found), length, self.columns), np.int64)
        targets = np.full((len(found), length), IGNORE, np.int64)
        for row, ids in enumerate(found):
            inputs[row, : len(ids) - 1] = self.entry.inputs(ids[:-1])
            targets[row, : len(ids) - 1] = ids[1:]
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def plans(self, tokens: int, seed: int) -> Iterator[np.ndarray]:
        """Endless batches, as numbers of pictures: at most `tokens` ids each with padding, of
        pictures of like length, in a random order of each epoch that the seed alone decides.

        Not the package's plan: records of different years must see the same batches.
        """
        epoch, lengths = 0, np.diff(self.offsets)
        while True:
            rng = np.random.default_rng([seed, epoch])
            batches: list[np.ndarray] = []
            for part in np.array_split(rng.permutation(len(lengths)), 1 + len(lengths) // WINDOW):
                part = part[np.argsort(lengths[part], kind="stable")]
                while len(part):
                    # Rows times the longest, which is the last: it grows with the rows.
                    cost = lengths[part] * np.arange(1, len(part) + 1)
                    rows = max(1, int(np.searchsorted(cost, tokens, side="right")))
                    batches.append(part[:rows])
                    part = part[rows:]
            yield from (batches[number] for number in rng.permutation(len(batches)))
            epoch += 1


def sequence(tokenizer: Tokenizer, stream: bytes) -> np.ndarray:
    """int64 ids of a picture from BOS to EOS."""
    return np.array([tokenizer.bos, *tokenizer.encode_stream(stream), tokenizer.eos], np.int64)


def score(entry: Entry, model: torch.nn.Module, streams: list[bytes]) -> np.ndarray:
    """float64 bits of each stream, in float32 arithmetic."""
    rows, bits = Rows(entry, streams), np.zeros(len(streams))
    order = np.argsort(np.diff(rows.offsets), kind="stable")
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            pictures = order[start : start + BATCH]
            inputs, targets = rows.batch(pictures)
            nats = F.cross_entropy(model(inputs).float().mT, targets, reduction="none")
            bits[pictures] = nats.double().sum(1).numpy() / np.log(2)
    return bits


def check(entry: Entry, model: torch.nn.Module, streams: list[bytes]) -> None:
    """Refuse (InputError) an entry whose tokens lose something of these streams, or whose model
    looks ahead: what it says of a beginning must not change with what follows."""
    for stream in streams:
        ids = sequence(entry.tokenizer, stream)
        if entry.tokenizer.decode_stream(ids[1:-1]) != stream:
            raise InputError("the tokenizer does not give a stream back as it was")
        with torch.no_grad():
            whole = model(torch.from_numpy(entry.inputs(ids))[None])
            for length in (1, len(ids) // 3, len(ids) - 1):
                part = model(torch.from_numpy(entry.inputs(ids[:length]))[None])
                if not torch.allclose(whole[:, :length], part, atol=1e-3):
                    raise InputError(f"the model looks ahead: its first {length} logits change")


def flops(model: torch.nn.Module, length: int, columns: int) -> int:
    """Operations of matrix products, attention's included, in the forward and the backward pass of
    one row of `length` ids, as torch counts them; embeddings, norms and optimizers are free."""
    inputs = torch.zeros(1, length, columns, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(inputs).sum().backward()
    return int(counter.get_total_flops())


def weights(model: torch.nn.Module) -> dict[str, Any]:
    """What the artefact holds: parameters and buffers by name, shared ones once, in bfloat16."""
    kept, seen = {}, set()
    for name, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            kept[name] = value.to(torch.bfloat16) if value.is_floating_point() else value
        seen.add(value.data_ptr())
    return kept
