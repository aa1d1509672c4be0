"""What a call gives: pictures or clips, their streams and tokens, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from jpeglm.codecs import Codec
from jpeglm.config import InputError
from jpeglm.generation.outputs import Drawn, Gallery, file_of
from jpeglm.generation.sheets import pages_of, sheet_of

Progress = Callable[[int, int, int], None]
"""Called with (pictures done, pictures in all, tokens sampled so far)."""


@dataclass(repr=False)
class Pictures:
    """What a call drew; all lists have one entry a picture. Notebooks show a sheet of it."""

    images: list[Any] = field(default_factory=list)
    """PIL pictures, or clips uint8 [frames, height, width, 3]."""
    streams: list[bytes] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    """Sampled tokens, EOS included where it was reached; the prompt's are not among them."""
    bits: list[float] = field(default_factory=list)
    """−log2 p of the sampled tokens under the model."""
    seconds: float = 0.0
    """Prefill and sampling, without start and load."""
    prompt_tokens: int = 0
    original: bytes | None = None
    prompt: bytes | None = None
    source: Image.Image | None = None
    """The whole picture that was given, before it was fitted to the codec's size."""
    units_kept: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    codec: Codec | None = None
    """None of a VAE's."""
    record: dict[str, Any] = field(default_factory=dict)
    """What names the model in results."""

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = self.images[0].shape if self.images and self._clips else None
        if self.images and size is None:
            size = self.images[0].size
        what = "clips" if self._clips else "pictures"
        return f"<{len(self)} {what} {size}, {self.tokens} tokens in {self.seconds:.2f} s>"

    @property
    def _clips(self) -> bool:
        return self.codec is not None and self.codec.media == "clip"

    @property
    def _streams(self) -> Sequence[bytes | None]:
        return self.streams or [None] * len(self)

    @property
    def kind(self) -> str:
        """What one is called: a completion of something, or a sample."""
        return "sample" if self.original is None else "completion"

    @property
    def files(self) -> list[bytes]:
        """Whole files: .jpg or .mp4 that any viewer opens, .png of a VAE's."""
        return [file_of(self.codec, *pair) for pair in zip(self._streams, self.images)]

    def sheet(self, page: int = 1) -> Image.Image:
        """What was given and what was drawn, side by side with captions; clips frame by frame. A
        page shows 64 pictures or 16 clips."""
        pages = pages_of(self.codec, len(self))
        if not 1 <= page <= len(pages):
            raise InputError(f"there is no page {page}; these are {len(self)} on {len(pages)}")
        images = [(f"{self.kind} {number}", self.images[number]) for number in pages[page - 1]]
        return sheet_of(self.codec, self, images)

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        out = BytesIO()
        self.sheet().save(out, "PNG")
        return out.getvalue()

    def save(self, out: str | Path) -> list[Path]:
        """Write the files, sheet.png and run.json into a folder, as `jpeglm generate` does: of what
        lies there only pictures of ours are replaced. The files' paths."""
        with Gallery(Path(out), self.codec, self.kind, len(self), self.record) as gallery:
            tokens = [len(ids) for ids in self.ids] or [0] * len(self)
            bits = self.bits or [0.0] * len(self)
            for number, row in enumerate(zip(self.images, self._streams, tokens, bits)):
                gallery.add(self, Drawn(number, *row))
            return [Path(out) / name for name in gallery.finish(self)["files"]]

    @property
    def tokens(self) -> int:
        return sum(len(ids) for ids in self.ids)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)


Each = Callable[[Pictures, Drawn], None]
"""Called with each picture as soon as it is drawn, in any order; of the call's `Pictures` only
`original`, `prompt` and `settings` are there yet."""


class Drawer(Protocol):
    """What draws new pictures: a `Model`, or a `VaePrior`."""

    @property
    def classes(self) -> int:
        """How many labels `generate` takes; 0 for none."""

    @property
    def weights_mark(self) -> str:
        """16 hex digits by which what was drawn is known again."""

    def record(self) -> dict[str, Any]:
        """What names it in results."""

    def generate(self, n: int = 1, **options: Any) -> Pictures:
        """n new pictures."""


@dataclass(frozen=True)
class Drawing:
    """A picture of a call, as far as it is."""

    number: int
    ids: np.ndarray
    """int32: tokens drawn so far."""
    units: int
    """Whole MCUs, frames or codes, the prompt's among them."""
    bits: float
    """−log2 p of the tokens drawn so far."""
    ended: bool
    show: Callable[[], Any]

    @property
    def image(self) -> Any:
        """The picture or clip now; what is not drawn yet is flat."""
        return self.show()


@dataclass(frozen=True)
class Score:
    """What a stream of N tokens costs under a model, EOS included."""

    ids: np.ndarray
    """int32 [N]"""
    bits: np.ndarray
    """float64 [N]: −log2 p of each."""
    legal_bits: np.ndarray
    """float64 [N]: among the tokens that the grammar allows there."""
    unit: np.ndarray
    """int64 [N]: whole units (MCUs, frames, codes) before each."""
    units: int
    """Of a whole stream."""

    def __repr__(self) -> str:
        return f"<Score: {len(self.ids)} tokens, {self.bits.sum():.1f} bits, {self.units} units>"

    @property
    def of_units(self) -> np.ndarray:
        """float64 [units]: bits of the tokens that begin in each unit; EOS belongs to the last. A
        token may reach into the next unit."""
        place = np.minimum(self.unit, self.units - 1)
        return np.bincount(place, self.bits, self.units)
