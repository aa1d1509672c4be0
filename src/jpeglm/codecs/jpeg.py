"""JPEG as a canonical codec: Pillow's baseline encoder with its tables taken off.

A stream is what Pillow writes with `streamtype=2` (an abbreviated stream without tables): a header
that is the same for every picture of a setting, the scan, EOI. Tables (574 bytes, `streamtype=1`)
come back in `wrap`. With the paper's setting the bytes are the paper's (PAPER_JPEG). libjpeg-turbo
gives the same bytes in every Pillow since 10.2, which a golden hash in the tests guards.
"""

from __future__ import annotations

import io
import threading
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from jpeglm.codecs.base import Verdict
from jpeglm.codecs.images import as_picture, fit_image
from jpeglm.config import InputError, JpegConfig, StreamError, fingerprint
from jpeglm.syntax.alphabet import ALPHABETS, EOI, Alphabet, jpeg_alphabet
from jpeglm.syntax.jpeg import JpegSpec, jpeg_spec
from jpeglm.syntax.scan import inspect_scan, write_scan

SOI, SOF0 = b"\xff\xd8", 0xC0
_tolerance = threading.Lock()
PILLOW_SUBSAMPLING = {"4:4:4": "4:4:4", "4:2:2": "4:2:2", "4:2:0": "4:2:0", "gray": None}
BLOCK_COMPONENTS = {
    "4:2:0": (0, 0, 0, 0, 1, 2),
    "4:2:2": (0, 0, 1, 2),
    "4:4:4": (0, 1, 2),
    "gray": (0,),
}
"""Component of each block of an MCU, in coding order (T.81 A.2.3)."""


class JpegCodec:
    """Pictures ⇄ canonical JPEG streams of one setting."""

    name = "jpeg"
    media = "picture"
    extension = ".jpg"
    alphabets: tuple[str, ...] = ALPHABETS

    def __init__(self, config: JpegConfig | None = None) -> None:
        self.config = config or JpegConfig()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config})"

    @property
    def units(self) -> int:
        return self.config.mcus

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of MCUs."""
        return self.config.grid

    @property
    def pixels(self) -> int:
        return self.config.width * self.config.height

    @property
    def components(self) -> tuple[int, ...]:
        return BLOCK_COMPONENTS[self.config.subsampling]

    @cached_property
    def fingerprint(self) -> str:
        values = self.to_dict()
        del values["fit"]
        values["header"], values["tables"] = self.header.hex(), self.tables.hex()
        return fingerprint(values)

    def to_dict(self) -> dict[str, Any]:
        return {"codec": self.name, **self.config.to_dict()}

    def _save(self, image: Image.Image, streamtype: int) -> bytes:
        config = self.config
        options: dict[str, Any] = {"quality": config.quality, "streamtype": streamtype}
        if PILLOW_SUBSAMPLING[config.subsampling]:
            options["subsampling"] = PILLOW_SUBSAMPLING[config.subsampling]
        if config.restart_interval:
            options["restart_marker_blocks"] = config.restart_interval
        out = io.BytesIO()
        image.save(out, "JPEG", **options)
        return out.getvalue()

    @property
    def _blank_mode(self) -> str:
        return "L" if self.config.subsampling == "gray" else "RGB"

    @cached_property
    def _blank(self) -> Image.Image:
        return Image.new(self._blank_mode, (self.config.width, self.config.height))

    def _unsized(self, streamtype: int) -> bytes:
        """What Pillow writes for a blank picture, but with the codec's size in the frame header.

        Only one MCU is coded: the size changes four bytes, and a header may claim gigapixels.
        """
        mcu = Image.new(self._blank_mode, self.config.MCU[self.config.subsampling])
        file = self._save(mcu, streamtype)
        frame = next((place for marker, place, _ in segments(file) if marker == SOF0), None)
        assert frame is not None
        size = self.config.height.to_bytes(2, "big") + self.config.width.to_bytes(2, "big")
        return file[: frame + 5] + size + file[frame + 9 :]

    @cached_property
    def header(self) -> bytes:
        """SOI to the end of SOS, the same in every stream."""
        return _to_scan(self._unsized(2))

    @cached_property
    def file_header(self) -> bytes:
        """The same with the tables in, as a standalone file of libjpeg begins."""
        return _to_scan(self._unsized(0))

    @cached_property
    def tables(self) -> bytes:
        """DQT and DHT segments, without SOI and EOI."""
        mcu = Image.new(self._blank_mode, self.config.MCU[self.config.subsampling])
        return self._save(mcu, 1)[2:-2]

    @cached_property
    def spec(self) -> JpegSpec:
        """The scan's state machine over symbols."""
        return jpeg_spec(self.components, self.config.mcus, self.config.restart_interval)

    def blank(self) -> Image.Image:
        return self._blank

    def encode(self, media: Any) -> bytes:
        config = self.config
        image = fit_image(as_picture(media), config.width, config.height, config.fit)
        if config.subsampling == "gray":
            image = image.convert("L")
        if image.info:  # Pillow would copy comments into the stream
            image = image.copy()
            image.info.clear()
        return self._save(image, 2)

    def covered(self, mask: Image.Image, fit: str | None = None) -> np.ndarray:
        """bool [units]: the MCUs that anything but black in `mask` lies in, which is fitted as the
        picture is that it belongs to: by `fit`, default the codec's."""
        config, (rows, columns) = self.config, self.grid
        # Averages of floats: no pixel is rounded to nothing, and none rings.
        fitted = fit_image(
            mask.convert("F"), config.width, config.height, fit or config.fit, Image.Resampling.BOX
        )
        parts = (np.asarray(fitted) > 0).reshape(rows, -1, columns, config.width // columns)
        return np.asarray(parts.any((1, 3))).reshape(-1)

    def decode(self, stream: bytes) -> Image.Image:
        self._dc_fits(stream)
        return self.show(stream)

    def show(self, stream: bytes) -> Image.Image:
        file = self.wrap(stream)
        try:
            return _pixels(file)
        except Exception:  # a model's free output may be anything
            pass
        # Pillow has one switch for all threads: only for as long as it must be on.
        with _tolerance:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                return _pixels(file)
            except Exception:  # the picture is then grey
                return Image.new("RGB", (self.config.width, self.config.height), (128, 128, 128))
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = False

    def scan(self, stream: bytes) -> bytes:
        """The entropy-coded bytes of a stream, which must begin and end as this codec writes."""
        if not stream.startswith(self.header):
            place = next(
                (i for i, (a, b) in enumerate(zip(stream, self.header)) if a != b),
                min(len(stream), len(self.header)),
            )
            raise StreamError(
                "the header is not this codec's (another size, subsampling or restart interval, "
                "or no stream of this codec)",
                place,
            )
        if not stream.endswith(EOI) or len(stream) < len(self.header) + 2:
            raise StreamError("the stream does not end with EOI (FF D9)", len(stream))
        return stream[len(self.header) : -2]

    def check(self, data: bytes) -> Verdict:
        stream = self.unwrap(data) if data.startswith(self.file_header) else data
        try:
            return Verdict(True, dc_fits=self._dc_fits(stream), codec=self.to_dict())
        except StreamError as error:
            return Verdict.against(error, self.to_dict(), len(data) - len(stream))

    def _dc_fits(self, stream: bytes) -> bool:
        """`Verdict.dc_fits`; StreamError if it is no canonical, complete stream."""
        scan = self.scan(stream)
        # In the standard tables a flat luma block takes 6 bits, a chroma block 4 (T.81 K.3).
        config, bits = self.config, sum(4 if c else 6 for c in self.components)
        markers = (config.mcus - 1) // config.restart_interval if config.restart_interval else 0
        least = -(-config.mcus * bits // 8) + 2 * markers
        if len(scan) < least:
            raise StreamError(
                f"{config.width} × {config.height} pixels are claimed, which take {least} bytes at "
                f"least, and {len(scan)} follow",
                len(self.header),
            )
        try:
            return inspect_scan(scan, self.spec)[2]
        except StreamError as error:
            raise StreamError(error.reason, error.place + len(self.header)) from error

    def alphabet(self, name: str) -> Alphabet:
        """One of `syntax.alphabet.ALPHABETS`, for this codec's streams."""
        config = self.config
        return jpeg_alphabet(
            name, self.components, config.mcus, config.restart_interval, self.header
        )

    def cut(self, stream: bytes, units: int) -> bytes:
        symbols, starts, _ = inspect_scan(self.scan(stream), self.spec)
        scan, _, _ = write_scan(symbols[: starts[units]], self.spec)
        return self.header + scan + EOI

    def files(self) -> dict[str, bytes]:
        return {}

    def wrap(self, stream: bytes) -> bytes:
        if stream.startswith(self.header):
            return self.file_header + stream[len(self.header) :]
        return SOI + self.tables + stream[2:]  # a model's free output may begin with anything

    def unwrap(self, file: bytes) -> bytes:
        if file.startswith(self.header):
            return file
        if not file.startswith(self.file_header):
            raise InputError(
                "its header or tables are not those of this codec "
                f"({self.config.width}x{self.config.height}, quality {self.config.quality}, "
                f"{self.config.subsampling}, restart interval {self.config.restart_interval}, "
                "standard Huffman tables, no further segments)"
            )
        return self.header + file[len(self.file_header) :]

    def own_stream(self, file: bytes) -> bytes | None:
        """The canonical, complete stream of a file of this codec, or of a stream itself; None of
        any other file."""
        try:
            stream = self.unwrap(file)
            self._dc_fits(stream)
        except InputError:
            return None
        return stream


def _pixels(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file)) as image:
        image.load()
        return image.convert("RGB")


def segments(data: bytes) -> list[tuple[int, int, bytes]]:
    """(marker, place, payload) of each segment up to SOS (T.81 B.1.1.4)."""
    if not data.startswith(SOI):
        raise StreamError("no JPEG: it does not begin with SOI (FF D8)", 0)
    found, at = [], 2
    while True:
        if at + 4 > len(data):
            raise StreamError("the file ends inside its header", len(data))
        if data[at] != 0xFF:
            raise StreamError("a segment's marker is missing", at)
        if data[at + 1] == 0xFF:
            raise StreamError("not canonical: fill bytes", at)
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise StreamError(f"a segment of {length} bytes does not fit", at)
        found.append((data[at + 1], at, data[at + 4 : at + 2 + length]))
        if data[at + 1] == 0xDA:
            return found
        at += 2 + length


def _to_scan(file: bytes) -> bytes:
    """The bytes up to the end of SOS."""
    scan = file.index(b"\xff\xda")
    return file[: scan + 2 + int.from_bytes(file[scan + 2 : scan + 4], "big")]
