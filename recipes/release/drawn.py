"""What models that draw to words share: rows of image folders, one picture for each caption, and
whether what was drawn is copied."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs.base import Codec
from jpeglm.config import InputError
from jpeglm.data.open import open_data
from jpeglm.generation.model import Model
from jpeglm.generation.requests import Request
from jpeglm.progress import Reporter
from release.copied import copied, pairs
from release.figures import FIGURES, figure

BATCH = 16
"""Pictures drawn at a time; they are the same whatever it is."""


def rows_of(folder: Path, count: int | None = None) -> list[dict[str, Any]]:
    """The first rows of an image folder's metadata, or all."""
    file = folder / "metadata.jsonl"
    if not file.is_file():
        raise InputError(f"there is no {file}; a recipe of recipes/data makes such folders")
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def drawings(model: Model, rows: Sequence[dict[str, Any]], **sampling: Any) -> list[Image.Image]:
    """One picture for each caption, of its own seed: what `model.generate(1, seed=N, text=…)` draws
    for row N, several at a time."""

    def requests() -> Iterator[Request]:
        for number, row in enumerate(rows):
            prompt = model.prompts.bare(None, row["text"])
            yield Request(prompt, model.sampling(prompt, **sampling), number, tag=number)

    made: dict[int, Image.Image] = {}
    events = model.session.run(requests(), BATCH)
    with Reporter("drawing", "captions") as report, closing(events):
        for event in events:
            ids = np.concatenate([event.request.prompt.ids, event.ids])
            made[event.request.tag] = model.codec.show(model.tokenizer.decode_stream(ids))
            report(len(made), len(rows), "")
    return [made[number] for number in range(len(rows))]


def as_coded(codec: Codec, files: Sequence[Path]) -> np.ndarray:
    """Picture files as the codec gives them back, uint8 [N, H, W, 3]."""
    return np.stack([np.asarray(codec.decode(codec.encode(file))) for file in files])


def learnt(codec: Codec, data: Path) -> np.ndarray:
    """The training pictures of prepared shards, uint8 [N, H, W, 3]."""
    streams = open_data(data, codec).streams("train")
    return np.stack([np.asarray(codec.decode(row.stream)) for row in streams])


def not_copied(
    name: str, drawn: np.ndarray, held_out: np.ndarray, seen: np.ndarray, features: int
) -> dict[str, Any]:
    """What `copied` says of drawn pictures, whose closest pairs are shown in NAME-copied.jpg."""
    told, order = copied(drawn, held_out, seen, features)
    figure(pairs(order, drawn, seen, 24), 12, 96, FIGURES / f"{name}-copied.jpg")
    return told
