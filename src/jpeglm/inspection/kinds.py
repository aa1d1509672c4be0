"""Which pictures can be looked into, and by which module: JPEG and the codes of a VQ-VAE.

    subject = read_subject(model, "photo.jpg")
    trace = trace_of(model, subject, choices)

In two steps, so that a server can have the model read in between (`inspection.tokens`). Clips, of
which a frame is chosen, have their own (`inspection.clip`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from jpeglm.codecs import Codec, JpegCodec
from jpeglm.codecs.vq import VqCodec
from jpeglm.config import InputError
from jpeglm.generation.model import Model
from jpeglm.inspection import codes, trace
from jpeglm.inspection.tokens import Choice, choices_of
from jpeglm.inspection.trace import Subject

__all__ = ["read_subject", "trace_any", "trace_of", "traceable"]

Reader = Callable[..., Subject]
Teller = Callable[[Model, Subject, list[Choice]], dict[str, Any]]
KINDS: list[tuple[type, tuple[Reader, Teller]]] = [
    (JpegCodec, (trace.read_subject, trace.trace_of)),
    (VqCodec, (codes.read_codes, codes.trace_of_codes)),
]


def _kind(codec: Codec) -> tuple[Reader, Teller] | None:
    return next((steps for kind, steps in KINDS if isinstance(codec, kind)), None)


def traceable(codec: Codec) -> bool:
    """Whether pictures of this codec can be looked into."""
    return _kind(codec) is not None


def read_subject(
    model: Model,
    media: Any,
    label: int | str | None = None,
    text: str | None = None,
    picture: Image.Image | None = None,
) -> Subject:
    """What is looked into. media: a picture as `Codec.encode` takes it; picture: what it shows,
    where it is open already. InputError for a model of other codecs, and for no picture."""
    steps = _kind(model.codec)
    if steps is None:
        raise InputError(
            f"the model writes {model.codec.media}s as {model.codec.name}, which cannot be looked "
            "into; JPEG and the codes of a VQ-VAE can"
        )
    return steps[0](model, media, label, text, picture)


def trace_of(model: Model, subject: Subject, choices: list[Choice]) -> dict[str, Any]:
    """All of it as a dict that JSON takes; choices: of the subject's tokens (`read_choices`)."""
    steps = _kind(model.codec)
    assert steps
    return steps[1](model, subject, choices)


def trace_any(
    model: Model, media: Any, label: int | str | None = None, text: str | None = None
) -> dict[str, Any]:
    """Both steps, with the model's reading between them."""
    subject = read_subject(model, media, label, text)
    return trace_of(model, subject, choices_of(model, subject.stream, label, text))
