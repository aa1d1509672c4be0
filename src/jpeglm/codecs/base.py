"""What a codec is: media to canonical bytes and back, and nothing about tokens.

A codec is deterministic: the same picture and settings give the same bytes everywhere, so that a
model's data can be made again. Its fingerprint names everything that a stream's meaning rests on;
of a learned codec that includes its weights, which travel as `files` beside every `codec.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

from jpeglm.config import InputError, StreamError
from jpeglm.syntax.alphabet import Alphabet


@dataclass(frozen=True)
class Verdict:
    """Whether a stream or a file is the canonical, complete one of its codec."""

    valid: bool
    why: str = ""
    """What is wrong; of a valid one nothing."""
    where: int | None = None
    """The byte at which, counted in what was given; None where no single one is to blame."""
    dc_fits: bool = True
    """Of a JPEG, whether the running DC values stay within int16; where they do not, decoders may
    show other pixels than were meant, though the syntax is right."""
    codec: dict[str, Any] | None = None
    """The settings by which it was judged (`Codec.to_dict`), where they are known."""

    @classmethod
    def against(
        cls, error: InputError, codec: dict[str, Any] | None = None, ahead: int = 0
    ) -> Self:
        """Of what is wrong for this reason; ahead: bytes before the stream that it speaks of."""
        if isinstance(error, StreamError):
            return cls(False, error.reason, error.place + ahead, codec=codec)
        return cls(False, str(error), codec=codec)

    def __str__(self) -> str:
        if not self.valid:
            return self.why if self.where is None else f"{self.why}, at byte {self.where}"
        leaving = " (running DC values leave int16: decoders may disagree)"
        return "valid" if self.dc_fits else "valid" + leaving


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
        """How media of another shape are brought to this one, of `jpeglm.config.FITS`."""

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


class FileCodec(Codec, Protocol):
    """A codec whose streams are those of a file format, JPEG or H.264, which others can judge."""

    def unwrap(self, file: bytes) -> bytes:
        """The stream of a file that `wrap` could have written, or of a stream itself; InputError
        where the settings in it are others."""

    def check(self, data: bytes) -> Verdict:
        """Judge a stream, or a file as `wrap` makes it, to its last byte; never raises."""
