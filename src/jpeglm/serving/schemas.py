"""What a request may say, and the shape of what it gets: OpenAI's image API, as its client has it.

A request's fields are a `Settings` dataclass, so a wrong one is refused in the words that the
command line uses; fields of that API which mean nothing here are named in `warning`.
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from jpeglm.config import InputError, Sampling, Settings, bounded, shorten
from jpeglm.serving.images import FORMATS, OURS

__all__ = ["Asked", "Edit", "Generation", "Scoring", "event", "response", "score", "usage"]

SILENT = ("user", "safety_identifier")
"""Fields that no answer depends on anywhere."""
IGNORED = ("background", "complexity", "input_fidelity", "moderation", "quality", "style")
"""Fields that a picture of that API may depend on, and none here does."""
LONGEST = 32_000
"""Characters of a prompt."""
WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Asked(Settings):
    """What every request says."""

    prompt: str = ""
    """What is to be seen, or a class; for models that know either."""
    model: str | None = None

    def __post_init__(self) -> None:
        self.check_bounds()
        if len(self.prompt) > LONGEST:
            raise InputError(
                f"prompt has {len(self.prompt)} characters; at most {LONGEST} are read"
            )

    @property
    def pictures(self) -> int:
        """How many the model has to do with."""
        return 1

    @classmethod
    def read(cls, given: Mapping[str, Any], spelt: bool = False) -> tuple[Self, str]:
        """(request, warning) of a body's fields; spelt: all are text, as in a form. What is null is
        not given. InputError for what the request has no field for, or of the wrong type."""
        values = {name: value for name, value in given.items() if value is not None}
        ignored = [name for name in IGNORED if values.pop(name, "auto") != "auto"]
        for name in SILENT:
            values.pop(name, None)
        if spelt:
            kinds = {field.name: str(field.type) for field in dataclasses.fields(cls)}
            values = {
                name: _unspelt(name, value, kinds.get(name, "str"))
                for name, value in values.items()
            }
        unknown = sorted(values.keys() - set(cls.names()))
        if unknown:
            raise InputError(
                f"this request has no setting {shorten(', '.join(unknown))}; it knows "
                f"{', '.join(sorted(cls.names()))}"
            )
        warning = f"ignored: {', '.join(ignored)}, which mean nothing here" if ignored else ""
        return cls.from_dict(values), warning


@dataclass(frozen=True)
class Scoring(Asked):
    """A request for what a picture, which comes beside it, costs the model."""


@dataclass(frozen=True)
class Generation(Asked):
    """A request for new pictures."""

    n: int = bounded(1, least=1)
    size: str = "auto"
    """The model's own, WIDTHxHEIGHT, or auto."""
    response_format: str = "b64_json"
    output_format: str = "jpeg"
    output_compression: int = bounded(OURS, least=0, most=100)
    """Quality of a JPEG or WebP; 100 is the model's own JPEG, and WebP without loss."""
    stream: bool = False
    partial_images: int = bounded(0, least=0)
    """Pictures on the way of each, of a stream."""
    seed: int | None = bounded(None, least=0)
    """The same one, the same pictures; one is chosen where none is given."""
    temperature: float | None = None
    """This and the next four as `Sampling` has them; default the checkpoint's."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.response_format != "b64_json":
            raise InputError(
                f"response_format is {shorten(self.response_format)}; pictures come as b64_json "
                "alone, for the server keeps none"
            )
        if self.output_format not in FORMATS:
            found, known = shorten(self.output_format), ", ".join(FORMATS)
            raise InputError(f"output_format is {found}; choose one of {known}")
        if self.output_format == "png" and self.output_compression != OURS:
            raise InputError("output_compression is for jpeg and webp; a PNG loses nothing")
        if self.partial_images and not self.stream:
            raise InputError("partial_images come in a stream; give stream true as well")

    @property
    def pictures(self) -> int:
        return self.n

    @property
    def sampling(self) -> dict[str, Any]:
        """The fields that `Model.sampling` takes."""
        return {name: getattr(self, name) for name in Sampling.names() if hasattr(self, name)}


@dataclass(frozen=True)
class Edit(Generation):
    """A request for other versions of a picture, which comes beside it."""

    keep: float | None = None
    """Share that stays, from the top; default a half. Without a mask alone."""


def _unspelt(name: str, text: Any, kind: str) -> Any:
    """A form's field as what it stands for."""
    if not isinstance(text, str):
        raise InputError(f"{name} is a file; only image and mask are")
    kind = kind.removesuffix(" | None")
    try:
        if kind == "bool":
            return WORDS[text.lower()]
        return {"int": int, "float": float}.get(kind, str)(text)
    except (ValueError, KeyError):
        raise InputError(f"{name} is {shorten(text)}; it must be {kind}") from None


def usage(text: int, image: int, drawn: int) -> dict[str, Any]:
    """Tokens: of the words (BOS or class included), of the picture that was given, and drawn."""
    return {
        "input_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
        "output_tokens": drawn,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": drawn},
        "total_tokens": text + image + drawn,
    }


def response(
    asked: Generation, files: list[bytes], size: str, used: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """The whole answer; more: what that API lacks."""
    return {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": asked.output_format,
        "size": size,
        "data": [{"b64_json": base64.b64encode(file).decode()} for file in files],
        "usage": used,
        **more,
    }


def event(kind: str, asked: Generation, file: bytes, size: str, **more: Any) -> dict[str, Any]:
    """One of a stream's: `image_generation.partial_image`, `image_edit.completed` …"""
    return {
        "type": kind,
        "b64_json": base64.b64encode(file).decode(),
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": asked.output_format,
        "quality": "auto",
        "size": size,
        **more,
    }


def score(file: bytes, size: str, used: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a picture costs; file: the picture as the model reads it; more: bits."""
    return {
        "created": int(time.time()),
        "output_format": "jpeg",
        "size": size,
        "b64_json": base64.b64encode(file).decode(),
        "usage": used,
        **more,
    }
