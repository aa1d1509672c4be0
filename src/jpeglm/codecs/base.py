"""What a codec is: media to canonical bytes and back, and nothing about tokens.

A codec is deterministic: the same picture and settings give the same bytes everywhere, so that a
model's data can be made again. Its fingerprint names everything that a stream's meaning rests on;
of a learned codec that includes its weights, which travel as `files` beside every `codec.json`.
"""

from __future__ import annotations

from typing import Any, Protocol

from jpeglm.syntax.alphabet import Alphabet


class PictureShape(Protocol):
    """What a picture is to be."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def height(self) -> int:
        """Pixels."""


class CodecConfig(PictureShape, Protocol):
    """What the settings of every codec have."""

    @property
    def fit(self) -> str:
        """`crop` the middle out, or `pad` with black, of media of another shape."""

    def to_dict(self) -> dict[str, Any]:
        """Name → value; the class' `from_dict` inverts it."""


class Codec(Protocol):
    """`units` are what a prompt is cut at, in coding order: MCUs, frames or codes."""

    name: str
    media: str
    """`picture`: what is coded is a PIL image; `clip`: uint8 [frames, height, width, 3]."""
    extension: str
    """Of the files that `wrap` gives."""

    @property
    def alphabets(self) -> tuple[str, ...]:
        """Names that `alphabet` takes, the default one first."""

    @property
    def config(self) -> CodecConfig:
        """Settings."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits; streams of equal fingerprints mean the same."""

    @property
    def units(self) -> int: ...

    @property
    def pixels(self) -> int:
        """Width × height of a picture, times its frames of a clip."""

    def encode(self, media: Any) -> bytes:
        """The canonical stream of a picture of any size and mode, or of a clip: a path, a file's
        bytes, an array, or a PIL picture. InputError for what is none."""

    def decode(self, stream: bytes) -> Any:
        """The picture or clip; InputError for what is no canonical, complete stream."""

    def show(self, stream: bytes) -> Any:
        """`decode` for a model's output, which may be anything: what the stream tells as far as
        it goes; never raises."""

    def blank(self) -> Any:
        """A picture or clip that shows nothing."""

    def cut(self, stream: bytes, units: int) -> bytes:
        """A complete stream: the first `units` units of `stream`, the rest coded flat."""

    def alphabet(self, name: str) -> Alphabet:
        """One of the alphabets that spell this codec's streams."""

    def wrap(self, stream: bytes) -> bytes:
        """A file that any viewer opens."""

    def files(self) -> dict[str, bytes]:
        """Name → content of what `make_codec` needs beside the settings; empty if nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Settings with the codec's name; `make_codec` inverts it."""
