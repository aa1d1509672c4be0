"""A request that is understood: a prompt, and who names the tokens behind it.

What is drawn and what is only read, for its cost, come down the same road; they differ in the
chooser. While tokens arrive, a `Tally` keeps what one picture has cost so far, MCU by MCU.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, shorten
from jpeglm.generation.given import Given
from jpeglm.generation.matcher import Prompt
from jpeglm.generation.model import Model
from jpeglm.generation.requests import LN2, Event, Request
from jpeglm.serving.images import hole_of, picture_of, stream_of, written
from jpeglm.serving.schemas import Asked, Edit, Generation
from jpeglm.serving.served import Served

__all__ = ["Drawing", "Tally", "said_to", "understand"]

SEEDS = 1 << 31
"""Of requests without a seed."""


@dataclass(frozen=True)
class Drawing:
    """A request that is understood, before it is drawn or read."""

    served: Served
    prompt: Prompt
    requests: list[Request]
    order: np.ndarray
    """int64 [units]: the units by their places in the picture, in the order they are coded."""
    kept: int
    """How many of them are there already, the first ones."""
    seed: int
    warning: str

    @property
    def input_tokens(self) -> tuple[int, int]:
        """Of the words (BOS or class included), of the picture that was given."""
        return self.prompt.head, len(self.prompt.ids) - self.prompt.head

    def file(self, ids: np.ndarray, form: str = "jpeg", compression: int = 100) -> bytes:
        """A file of the prompt and the tokens behind it, as far as they go."""
        assert self.served.model
        tokens = np.concatenate([self.prompt.ids, ids])
        stream = self.served.model.tokenizer.decode_stream(tokens)
        return written(self.served.codec, stream, form, compression)


class Tally:
    """One picture of a drawing, as far as it is."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.ids = np.zeros(0, np.int32)
        self.units = drawing.kept
        """Whole by now, what was given included."""
        self.bits = 0.0
        self._bits = np.zeros(len(drawing.order))
        """Of each unit, in coding order."""

    def add(self, event: Event) -> None:
        """What has come since the last event."""
        units = len(self.drawing.order)
        self.ids = np.concatenate([self.ids, event.ids])
        self.units, self.bits = event.units, event.bits
        # A token that still spells a bit of what was given belongs to what it begins, EOS to the
        # last unit.
        unit = np.clip(event.unit, self.drawing.kept, units - 1)
        self._bits += np.bincount(unit, event.nats / LN2, units)

    def to_dict(self) -> dict[str, Any]:
        """tokens and bits so far, and the bits of every unit that is whole, in raster order, null
        for the others and for those that were given."""
        found: list[float | None] = [None] * len(self._bits)
        for number in range(self.drawing.kept, self.units):
            found[self.drawing.order[number]] = round(float(self._bits[number]), 3)
        return {"tokens": len(self.ids), "bits": round(self.bits, 3), "unit_bits": found}


def understand(
    served: Served,
    asked: Asked,
    warning: str,
    max_pixels: int,
    image: bytes | None = None,
    mask: bytes | None = None,
) -> Drawing:
    """What is to be drawn or read, of a request's fields and files; InputError or `Problem` for
    what this model cannot. max_pixels: of an upload."""
    model, codec = served.model, served.codec
    assert model
    if isinstance(asked, Generation):
        _check(served, asked)
    label, text = said_to(model, asked.prompt)
    if asked.prompt.strip() and label is text is None:
        unheard = f"{served.name} knows neither words nor classes: the prompt changes nothing"
        warning = "; ".join(filter(None, (warning, unheard)))
    kept, order = 0, np.arange(codec.units)
    prompt, stream = model.prompts.bare(label, text), b""
    if isinstance(asked, Edit) or not isinstance(asked, Generation):
        if image is None:
            raise InputError("image is missing; send the picture as a form's file")
        picture = picture_of(image, "image", max_pixels)
        stream = stream_of(codec, image, picture)
        hole = _hole(served, asked, mask, picture.size, max_pixels)
        if hole is not None:
            prompt = model.prompts.around(stream, hole, label, text)
            kept, order = int((~hole).sum()), np.argsort(hole, kind="stable")
        elif isinstance(asked, Edit):
            kept, _ = model.units_kept(asked.keep)
            prompt = model.prompts.beginning(stream, kept, label, text)
    if not isinstance(asked, Generation):
        request = Request(prompt, Given(_ids(model, stream, order[kept:] if kept else None)))
        return Drawing(served, prompt, [request], order, kept, 0, warning)
    chooser = model.sampling(prompt, **asked.sampling)
    seed = secrets.randbelow(SEEDS) if asked.seed is None else asked.seed
    watch = "unit" if asked.partial_images else "end"
    requests = [
        Request(prompt, chooser, seed, i, watch=watch, tag=i)  # type: ignore[arg-type]
        for i in range(asked.n)
    ]
    return Drawing(served, prompt, requests, order, kept, seed, warning)


def said_to(model: Model, prompt: str) -> tuple[str | None, str | None]:
    """(label, text) that a prompt means to a model."""
    if model.tokenizer.text:
        return None, prompt
    return (prompt.strip() or None) if model.classes else None, None


def _check(served: Served, asked: Generation) -> None:
    """InputError for a size or a number of pictures that this model has not."""
    if asked.size not in ("auto", served.size):
        raise InputError(
            f"size is {shorten(asked.size)}; {served.name} draws {served.size}, so give that "
            "or auto"
        )
    if asked.partial_images > served.codec.units:
        raise InputError(
            f"partial_images is {asked.partial_images}; it must be from 0 to "
            f"{served.codec.units}, the units of a picture"
        )


def _hole(
    served: Served, asked: Asked, mask: bytes | None, size: tuple[int, int], max_pixels: int
) -> np.ndarray | None:
    """bool [units]: what a mask wants drawn anew; None without one."""
    if mask is None:
        return None
    if isinstance(asked, Edit) and asked.keep is not None:
        raise InputError("keep and mask each say what stays; give one of them")
    if not isinstance(served.codec, JpegCodec):
        raise InputError("holes are filled in JPEG pictures alone, not with this codec")
    return served.codec.covered(hole_of(mask, size, max_pixels))


def _ids(model: Model, stream: bytes, inside: np.ndarray | None) -> np.ndarray:
    """The tokens of a whole stream or, behind `Prompts.around`, of its units `inside`."""
    tokenizer = model.tokenizer
    ids = tokenizer.encode_stream(stream)
    if inside is not None:
        hole = np.isin(np.arange(tokenizer.codec.units), inside)
        ids = tokenizer.around(tokenizer.alphabet.split(stream), hole)[1][1:]
    return np.concatenate([ids, [tokenizer.eos]])
