"""A picture of a VQ-VAE patch by patch: the encoder's vector, the codes next to it, the decoder's.

    trace = trace_codes(load("runs/vq"), "photo.jpg")

As `inspection.trace` for JPEG, in the same steps: a dict that JSON takes; its keys are described in
docs/inspect.md. What links its steps is the patch: a code each, in raster order.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs.images import as_picture, fit_image
from jpeglm.codecs.vq import VqCodec
from jpeglm.config import InputError
from jpeglm.files import printable
from jpeglm.generation.model import Model
from jpeglm.inspection.pixels import png_uri
from jpeglm.inspection.tokens import Choice, choices_of, names_of
from jpeglm.inspection.trace import FORMAT, Subject

__all__ = ["NEAREST", "read_codes", "trace_codes", "trace_of_codes"]

NEAREST = 6
"""Codes that are told of each patch."""


def trace_codes(
    model: Model, media: Any, label: int | str | None = None, text: str | None = None
) -> dict[str, Any]:
    """The trace of a picture, as `Codec.encode` takes it. InputError for a model of other codecs,
    and for no picture."""
    subject = read_codes(model, media, label, text)
    return trace_of_codes(model, subject, choices_of(model, subject.stream, label, text))


def read_codes(
    model: Model,
    media: Any,
    label: int | str | None = None,
    text: str | None = None,
    picture: Image.Image | None = None,
) -> Subject:
    """`trace_codes`' first step, as `inspection.trace.read_subject`."""
    codec = model.codec
    if not isinstance(codec, VqCodec):
        raise InputError(
            f"the model writes {codec.media}s as {codec.name}; give the checkpoint of one over the "
            "codes of a VQ-VAE"
        )
    config = codec.config
    name = printable(Path(media)) if isinstance(media, str | os.PathLike) else "the picture"
    picture = as_picture(media, name) if picture is None else picture
    picture = fit_image(picture, config.width, config.height, config.fit)
    return Subject(codec.encode(picture), picture, label, text)


def trace_of_codes(model: Model, subject: Subject, choices: list[Choice]) -> dict[str, Any]:
    """`trace_codes`' last step; choices: of the subject's tokens (`read_choices`)."""
    codec, stream, picture = model.codec, subject.stream, subject.picture
    assert isinstance(codec, VqCodec) and picture
    config, (rows, columns) = codec.config, codec.grid
    codes = codec.alphabet("codes").split(stream)
    vectors = codec.vectors(np.array(picture)[None])[0]
    near, distances = _nearest(vectors, codec.codebook, codes)
    told = [asdict(one) for one in choices]
    costs, at = np.zeros(codec.units), 0
    for one in told:
        spelling = model.tokenizer.spelling
        count = len(spelling[one["token"]]) if one["token"] < len(spelling) else 0
        one |= {"symbols": count, "patches": list(range(at, at + count))}
        costs[min(at, codec.units - 1)] += one["bits"]
        at += count
    spoken = np.unique(near)
    return {
        "format": FORMAT,
        "kind": "codes",
        "picture": {
            "width": config.width,
            "height": config.height,
            "patch": config.downsampling,
            "rows": rows,
            "columns": columns,
            "given": png_uri(picture),
            "decoded": png_uri(codec.decode(stream)),
        },
        "codebook": {
            "codes": codec.size,
            "dimensions": codec.codebook.shape[1],
            "bits": math.log2(codec.size),
        },
        "model": {
            "alphabet": model.tokenizer.alphabet.name,
            "vocabulary": model.tokenizer.vocab_size,
            "label": subject.label,
            "text": subject.text,
        },
        "patches": [
            {
                "code": int(codes[number]),
                "vector": _rounded(vectors[number]),
                "nearest": [
                    [int(code), float(length)]
                    for code, length in zip(near[number], distances[number])
                ],
                "model": float(costs[number]),
            }
            for number in range(codec.units)
        ],
        "codes": {
            int(code): {
                "vector": _rounded(codec.codebook[code]),
                "alone": png_uri(Image.fromarray(drawn)),
            }
            for code, drawn in zip(spoken, codec.alone(spoken))
        },
        "tokens": told,
        "names": names_of(model, told),
    }


def _rounded(vector: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in vector]


def _nearest(
    vectors: np.ndarray, codebook: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(int64, float64) [units, NEAREST]: the nearest codes of each vector, and how far they are.
    codes: the ones that were taken, which stand first even where another is as near, but for the
    encoder's rounding."""
    book = codebook.astype(np.float64)
    near, lengths = [], []
    for vector, code in zip(vectors.astype(np.float64), codes):
        distances = np.sqrt(np.square(book - vector).sum(1))
        order = np.lexsort((np.arange(len(book)) != code, distances.round(6)))[:NEAREST]
        near.append(order)
        lengths.append(distances[order])
    return np.array(near), np.array(lengths)
