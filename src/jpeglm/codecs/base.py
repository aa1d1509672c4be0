"""What a codec is: media to canonical bytes and back, and nothing about tokens.

A codec is deterministic: the same picture and settings give the same bytes everywhere, so that a
model's data can be made again. Its fingerprint names everything that a stream's meaning rests on.
"""

from __future__ import annotations

from typing import Any, Protocol

from PIL import Image

from jpeglm.config import Settings
from jpeglm.syntax.alphabet import Alphabet


class Codec(Protocol):
    """`units` are what a prompt is cut at, in coding order: MCUs, frames or codes."""

    name: str
    extension: str

    @property
    def config(self) -> Settings: ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits; streams of equal fingerprints mean the same."""

    @property
    def units(self) -> int: ...

    @property
    def pixels(self) -> int:
        """Width × height of a picture."""

    def encode(self, image: Image.Image) -> bytes:
        """The canonical stream of a picture of any size and mode."""

    def decode(self, stream: bytes) -> Image.Image:
        """The picture, as far as the stream tells it; never raises."""

    def cut(self, stream: bytes, units: int) -> bytes:
        """A complete stream: the first `units` units of `stream`, the rest coded flat."""

    def alphabet(self, name: str) -> Alphabet:
        """One of the alphabets that spell this codec's streams."""

    def wrap(self, stream: bytes) -> bytes:
        """A file that any viewer opens."""

    def unwrap(self, file: bytes) -> bytes:
        """The stream in a file of these very settings; InputError with the reason otherwise."""

    def to_dict(self) -> dict[str, Any]:
        """Settings with the codec's name; `make_codec` inverts it."""
