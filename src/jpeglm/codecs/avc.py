"""H.264 as a canonical codec for short clips: x264's baseline profile, parameter sets taken off.

A stream is the slices of a clip, each behind 00 00 01. Sequence and picture parameter sets are the
same for every clip of a setting and come back in `wrap`; SEI units are dropped. With one thread
inside x264 the bytes are the same in every version of PyAV. PyAV's wheels bundle libx264, which is
GPL: it stays an optional extra (`video`).

    AvcCodec().encode(read_clip(Path("film.mp4"), AvcConfig()))
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.codecs.base import Verdict
from jpeglm.codecs.clips import pyav, read_clip
from jpeglm.codecs.mp4 import refuse_other_film
from jpeglm.config import InputError, Settings, StreamError, check_fit, fingerprint, shorten
from jpeglm.syntax.avc import LONGEST_SKIP, AvcSpec, avc_spec
from jpeglm.syntax.avc.nal import (
    IDR,
    PARAMETERS_PICTURE,
    PARAMETERS_SEQUENCE,
    PLAIN,
    START,
    Header,
    Sets,
    read_header,
    read_sets,
    split_nals,
    unescape,
)
from jpeglm.syntax.avc.stream import AvcBytes, AvcPlaced, AvcSymbols

PAPER_REFERENCES = 3
PAPER = {
    "slices": 0, "slice-max-mbs": 1, "ref": PAPER_REFERENCES, "trellis": 0, "me": "dia",
    "subme": 0, "psy": 0, "mixed-refs": 0, "fast-pskip": 0, "partitions": "none",
}  # fmt: skip
"""x264's options in the paper's appendix D. What it leaves open stays as in `default`: no scene
cuts, one IDR picture a clip."""


@dataclass(frozen=True)
class AvcConfig(Settings):
    """The H.264 encoder's settings."""

    width: int = 256
    """Pixels, a multiple of 16."""
    height: int = 144
    """Pixels, a multiple of 16."""
    frames: int = 15
    """Frames of a clip."""
    fps: float = 3.0
    """Frames a second."""
    qp: int = 37
    """Quantiser of H.264, 1 (best) to 51."""
    slices: int = 1
    """Slices of each frame."""
    fit: str = "pad"
    """As for pictures: `crop`, `top`, or `pad` with black."""
    encoder: str = "default"
    """`default` or `paper`, the paper's x264 settings with a slice for each macroblock."""

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if not 16 <= value <= 1920 or value % 16:
                raise InputError(f"{name} is {value}; it must be a multiple of 16 from 16 to 1920")
        if not 1 <= self.frames <= 1000:
            raise InputError(f"frames is {self.frames}; it must be from 1 to 1000")
        if not 0.001 <= self.fps <= 120:
            raise InputError(f"fps is {self.fps}; it must be from 0.001 to 120")
        if self.width * self.height * self.frames > 200_000_000:
            raise InputError(
                f"{self.frames} frames of {self.width} × {self.height} are more than 200 megapixels"
            )
        if not 1 <= self.qp <= 51:
            raise InputError(f"qp is {self.qp}; it must be from 1 to 51")
        if not 1 <= self.slices <= self.height // 16:
            raise InputError(
                f"slices is {self.slices}; a frame has 1 to {self.height // 16}, one a row at most"
            )
        rows = -(-self.height // 16 // self.slices)
        if self.encoder == "default" and rows * (self.width // 16) > LONGEST_SKIP:
            raise InputError(
                f"a slice of {self.width} × {16 * rows} pixels has more than the {LONGEST_SKIP} "
                "macroblocks that a skip run can span; set slices to 2 or more"
            )
        if self.encoder not in ("default", "paper"):
            raise InputError(f"encoder is {self.encoder!r}; choose default or paper")
        if self.encoder == "paper" and self.slices != 1:
            raise InputError("slices is for the default encoder; paper has one a macroblock")
        check_fit(self.fit)


def is_annex_b(file: bytes) -> bool:
    """Whether a file begins with a start code; it is a container otherwise."""
    return file.startswith((START, b"\0" + START))


class AvcCodec:
    """Clips uint8 [frames, height, width, 3] ⇄ canonical H.264 streams of one setting."""

    name = "avc"
    media = "clip"
    extension = ".mp4"
    alphabets: tuple[str, ...] = ("avc-placed-symbols", "avc-symbols", "bytes")

    def __init__(self, config: AvcConfig | None = None) -> None:
        self.config = config or AvcConfig()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config})"

    @property
    def units(self) -> int:
        """Frames: what a prompt is cut at."""
        return self.config.frames

    @property
    def pixels(self) -> int:
        return self.config.width * self.config.height * self.config.frames

    def to_dict(self) -> dict[str, Any]:
        return {"codec": self.name, **self.config.to_dict()}

    @cached_property
    def fingerprint(self) -> str:
        values = self.to_dict()
        del values["fit"]
        if values["encoder"] == "default":
            del values["encoder"]
        values["sets"] = self.sets_bytes.hex()
        return fingerprint(values)

    def x264(
        self, frames: Sequence[np.ndarray] | np.ndarray, cabac: bool = False, **options: Any
    ) -> bytes:
        """The Annex B stream that libx264 writes; with `cabac` what it would be in main profile,
        with options of x264's what it would be with them."""
        av = pyav()

        config, out = self.config, io.BytesIO()
        settings = {
            "qp": config.qp, "keyint": "infinite", "scenecut": 0, "bframes": 0, "ref": 1,
            "weightp": 0, "cabac": int(cabac), "threads": 1, "slices": config.slices, "8x8dct": 0,
        }  # fmt: skip
        if config.encoder == "paper":
            settings |= PAPER
        settings |= options
        with av.open(out, "w", format="h264") as file:
            rate = Fraction(config.fps).limit_denominator(1000)
            stream = file.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = config.width, config.height, "yuv420p"
            stream.options = {
                "profile": "main" if cabac else "baseline",
                "preset": "medium",
                "x264-params": ":".join(f"{name}={value}" for name, value in settings.items()),
            }
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                file.mux(stream.encode(picture))
            file.mux(stream.encode(None))
        return out.getvalue()

    @cached_property
    def _grey(self) -> list[bytes]:
        """NAL units of a clip that shows nothing."""
        frames = self.references + 1  # what follows repeats them, however long the clip is
        return split_nals(self.x264([np.full(self.shape[1:], 128, np.uint8)] * frames))

    @cached_property
    def sets_bytes(self) -> bytes:
        """Parameter sets with start codes, the same for every clip."""
        chosen = (PARAMETERS_SEQUENCE, PARAMETERS_PICTURE)
        return b"".join(START + nal for nal in self._grey if nal[0] & 31 in chosen)

    @cached_property
    def sets(self) -> Sets:
        found = {nal[0] & 31: nal[1:] for nal in self._grey}
        return read_sets(unescape(found[PARAMETERS_SEQUENCE]), unescape(found[PARAMETERS_PICTURE]))

    @cached_property
    def _headers(self) -> list[tuple[int, Header]]:
        """(first byte of the NAL unit, header) of the first slice of each frame, until they repeat:
        the first P frames have fewer frames to refer to."""
        slices = [nal for nal in self._grey if nal[0] & 31 in (IDR, PLAIN)]
        found = [(nal[0], read_header(nal, self.sets)) for nal in slices]
        return [entry for entry in found if entry[1].first == 0][: self.references + 1]

    @property
    def references(self) -> int:
        return PAPER_REFERENCES if self.config.encoder == "paper" else 1

    @cached_property
    def spec(self) -> AvcSpec:
        """The slices' state machine."""
        slices = [nal for nal in self._grey if nal[0] & 31 == IDR]
        first = [read_header(nal, self.sets).first for nal in slices]
        columns, rows = self.config.width // 16, self.config.height // 16
        return avc_spec(self.config.frames, columns, rows, first, self.references)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a clip: frames, height, width, 3."""
        return (self.config.frames, self.config.height, self.config.width, 3)

    def blank(self) -> np.ndarray:
        return np.full(self.shape, 128, np.uint8)

    def encode(self, media: Any) -> bytes:
        """A film's path or bytes are read from their beginning on."""
        if isinstance(media, str | os.PathLike):
            media = read_clip(Path(media), self.config)
        elif isinstance(media, bytes | bytearray | memoryview):
            media = read_clip(bytes(media), self.config)
        if not isinstance(media, np.ndarray):
            raise InputError(
                f"the clip is of type {type(media).__name__}; give a path, a film's bytes or an "
                "array"
            )
        if media.shape != self.shape or media.dtype != np.uint8:
            raise InputError(
                f"the clip is {media.dtype} {media.shape}; the codec takes uint8 {self.shape}"
            )
        return self.slices(self.x264(list(media)))

    @staticmethod
    def slices(annex_b: bytes) -> bytes:
        """A stream without its parameter sets and SEI units."""
        nals = split_nals(annex_b)
        return b"".join(START + nal for nal in nals if nal and nal[0] & 31 in (IDR, PLAIN))

    def wrap_annex_b(self, stream: bytes) -> bytes:
        """The stream with its parameter sets, as decoders take it."""
        return self.sets_bytes + stream

    def wrap(self, stream: bytes) -> bytes:
        """An .mp4 file; what FFmpeg cannot even cut into frames comes as it is, Annex B."""
        av = pyav()
        out = io.BytesIO()
        step = Fraction(1) / Fraction(self.config.fps).limit_denominator(1000)
        try:
            with (
                av.open(io.BytesIO(self.wrap_annex_b(stream)), "r", format="h264") as file,
                av.open(out, "w", format="mp4") as film,
            ):
                track = film.add_stream_from_template(file.streams.video[0])
                track.time_base = step
                number = 0
                for packet in file.demux(video=0):
                    if not packet.size:
                        continue
                    packet.stream, packet.time_base = track, step
                    packet.pts = packet.dts = number
                    packet.duration = 1
                    number += 1
                    film.mux(packet)
        except (av.FFmpegError, ValueError, IndexError):
            return self.wrap_annex_b(stream)
        return out.getvalue()

    def unwrap(self, file: bytes) -> bytes:
        """The stream of an .mp4 or Annex B file that `wrap` could have written."""
        av = pyav()
        annex_b = file
        if not is_annex_b(file):
            try:
                with av.open(io.BytesIO(file), metadata_errors="ignore") as film:
                    if not film.streams.video:
                        raise InputError("it has no video stream")
                    track = film.streams.video[0]
                    convert = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", track)
                    packets = [p for p in film.demux(track) if p.size]
                    annex_b = b"".join(bytes(q) for p in packets for q in convert.filter(p))
            except (av.FFmpegError, ValueError, IndexError) as error:
                reason = getattr(error, "strerror", None) or error
                raise InputError(f"it cannot be read as H.264: {reason}") from error
        nals = split_nals(annex_b)
        kinds = (PARAMETERS_SEQUENCE, PARAMETERS_PICTURE)
        sets = {nal for nal in nals if nal and nal[0] & 31 in kinds}
        if not sets <= set(split_nals(self.sets_bytes)):
            raise InputError("its parameter sets are not this codec's: another size, rate or qp")
        return self.slices(annex_b)

    def decode(self, stream: bytes) -> np.ndarray:
        self._demand(stream)
        return self.show(stream)

    def show(self, stream: bytes) -> np.ndarray:
        """The clip, as far as the stream tells it; what is missing repeats the frame before."""
        av = pyav()

        shape = self.shape[1:]
        frames: list[np.ndarray] = []
        try:
            annex_b = io.BytesIO(self.wrap_annex_b(stream))
            with av.open(annex_b, "r", format="h264") as file:
                for frame in file.decode(video=0):
                    frames.append(frame.to_ndarray(format="rgb24"))
        except (av.FFmpegError, ValueError):  # a model's output may be anything
            pass
        frames = [frame for frame in frames if frame.shape == shape][: self.config.frames]
        while len(frames) < self.config.frames:
            frames.append(frames[-1] if frames else np.full(shape, 128, np.uint8))
        return np.stack(frames)

    @cached_property
    def symbols(self) -> AvcSymbols:
        return AvcSymbols(self.spec, self._headers, self.sets.frame_bits)

    def alphabet(self, name: str) -> AvcSymbols | AvcPlaced | AvcBytes:
        if name not in self.alphabets:
            known = ", ".join(self.alphabets)
            raise InputError(f"there is no alphabet {shorten(name)} for avc; choose one of {known}")
        kinds: dict[str, Any] = {"bytes": AvcBytes, "avc-placed-symbols": AvcPlaced}
        return kinds[name](self.symbols) if name in kinds else self.symbols

    def files(self) -> dict[str, bytes]:
        return {}

    def check(self, data: bytes) -> Verdict:
        ahead = 0
        try:
            stream = self.unwrap(data)
            if is_annex_b(data):
                ahead = len(data) - len(stream) if data.endswith(stream) else 0
                self._demand(stream)
                if data not in (stream, self.wrap_annex_b(stream)):
                    raise InputError("its slices are canonical, but there is more in it than them")
            else:
                try:
                    self._demand(stream)
                except StreamError as error:
                    raise InputError(f"{error} of its H.264 stream") from error
                refuse_other_film(data, self.wrap(stream))
        except InputError as error:
            return Verdict.against(error, self.to_dict(), ahead)
        return Verdict(True, codec=self.to_dict())

    def _demand(self, stream: bytes) -> None:
        """StreamError if it is no canonical, complete stream."""
        canonical = self.symbols.join(self.symbols.split(stream))
        if canonical != stream:
            differing = (i for i, (a, b) in enumerate(zip(canonical, stream)) if a != b)
            place = next(differing, min(len(canonical), len(stream)))
            raise StreamError("the stream is legal, but not in its canonical bytes", place)

    def cut(self, stream: bytes, units: int) -> bytes:
        """The first `units` frames of a stream, the rest without change of picture."""
        return self.symbols.join(self.symbols.prefix(stream, units).symbols)


STRICT = "crccheck+bitstream+buffer+careful+compliant+aggressive"
"""FFmpeg's err_detect with everything on."""


def complaints(codec: AvcCodec, stream: bytes) -> list[str]:
    """What FFmpeg says against a stream under its strictest detection; empty for a valid one.

    Any damaged stream still decodes to something, so a stream is valid only if all its frames come
    out, none is marked corrupt, nothing is logged and nothing raised.
    """
    av = pyav()

    said: list[str] = []
    frames = 0
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as logs:
            decoder: Any = av.CodecContext.create("h264", "r")
            decoder.options = {"err_detect": STRICT}
            decoder.thread_count = 1
            try:
                for packet in [*decoder.parse(codec.wrap_annex_b(stream)), *decoder.parse(b"")]:
                    for frame in decoder.decode(packet):
                        frames += 1
                        if frame.is_corrupt:
                            said.append(f"frame {frames - 1} is marked corrupt")
                frames += len(decoder.decode(None))
            except av.FFmpegError as error:
                said.append(str(error))
        said += [text.strip() for severity, _, text in logs if severity <= av.logging.WARNING]
    finally:
        av.logging.set_level(level)
    if frames != codec.config.frames:
        said.append(f"{frames} frames come out, {codec.config.frames} are coded")
    return said
