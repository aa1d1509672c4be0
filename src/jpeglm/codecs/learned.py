"""What learned codecs have in common: a picture is a grid of codes, raster order, one unit each.

Their weights are part of what a stream means, so they travel as `codec.safetensors` beside every
`codec.json`, and the fingerprint contains their hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from jpeglm.codecs.base import CodecConfig
from jpeglm.codecs.images import as_picture, fit_image
from jpeglm.config import InputError, fingerprint
from jpeglm.syntax.alphabet import Codes

WEIGHTS = "codec.safetensors"


def weights_hash(data: bytes) -> str:
    """16 hex digits that name a weights file."""
    return hashlib.sha256(data).hexdigest()[:16]


class LearnedConfig(CodecConfig, Protocol):
    """Settings that name weights: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def weights(self) -> str:
        """Their hash; empty: of whatever weights come."""


C = TypeVar("C", bound=LearnedConfig)


class LearnedCodec(Generic[C]):
    """Pictures ⇄ codes; a subclass gives `size`, `grid`, `encode_batch` and `decode_batch`."""

    name: str
    media = "picture"
    extension = ".png"
    alphabets: tuple[str, ...] = ("codes",)
    config: C

    def __init__(self, config: C, weights: bytes | None) -> None:
        if weights is None:
            raise InputError(f"{WEIGHTS}, the weights of the {self.name} codec, is missing")
        found = weights_hash(weights)
        if config.weights not in ("", found):
            raise InputError(
                f"{WEIGHTS} is not the one that codec.json names ({config.weights}); the files do "
                "not belong together"
            )
        self.weights = weights
        self.config = dataclasses.replace(config, weights=found)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config})"

    @property
    def size(self) -> int:
        """How many different codes there are."""
        raise NotImplementedError

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        raise NotImplementedError

    def encode_batch(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 [B, H, W, 3] of the codec's size → codes int64 [B, units]."""
        raise NotImplementedError

    def decode_batch(self, codes: np.ndarray) -> np.ndarray:
        """Codes int64 [B, units] → uint8 [B, H, W, 3]."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        values = self.to_dict()
        del values["fit"]
        return fingerprint(values)

    @property
    def units(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def pixels(self) -> int:
        return self.config.width * self.config.height

    @cached_property
    def _codes(self) -> Codes:
        return Codes(self.size, self.units)

    def blank(self) -> Image.Image:
        return Image.new("RGB", (self.config.width, self.config.height), (128, 128, 128))

    def encode(self, media: Any) -> bytes:
        image = fit_image(as_picture(media), self.config.width, self.config.height, self.config.fit)
        return self._codes.join(self.encode_batch(np.array(image)[None])[0])

    def decode(self, stream: bytes) -> Image.Image:
        self._codes.split(stream)
        return self.show(stream)

    def show(self, stream: bytes) -> Image.Image:
        return Image.fromarray(self.decode_batch(self._codes.read(stream)[None])[0])

    @cached_property
    def _grey(self) -> np.ndarray:
        return self._codes.split(self.encode(self.blank()))

    def cut(self, stream: bytes, units: int) -> bytes:
        codes = self._codes.split(stream)
        return self._codes.join(np.concatenate([codes[:units], self._grey[units:]]))

    def alphabet(self, name: str) -> Codes:
        if name not in self.alphabets:
            raise InputError(f"there is no alphabet {name!r} for {self.name}; choose codes")
        return self._codes

    def wrap(self, stream: bytes) -> bytes:
        out = io.BytesIO()
        self.show(stream).save(out, "PNG")
        return out.getvalue()

    def files(self) -> dict[str, bytes]:
        return {WEIGHTS: self.weights}

    def to_dict(self) -> dict[str, Any]:
        return {"codec": self.name, **self.config.to_dict()}
