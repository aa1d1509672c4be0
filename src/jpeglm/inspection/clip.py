"""A clip from its frames to the model's tokens, one frame of it macroblock by macroblock.

    trace = trace_clip(load("clips"), "film.mp4", frame=3)

As `inspection.trace` for pictures: a dict that JSON takes, whose steps are linked by the bits of
the stream. The keys are described in docs/inspect.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs.avc import AvcCodec
from jpeglm.codecs.clips import pyav, read_clip
from jpeglm.config import InputError
from jpeglm.files import file_size, read_bytes
from jpeglm.generation.model import Model
from jpeglm.inspection.elements import Part, byte_kinds, take_clip_apart
from jpeglm.inspection.macroblocks import Macroblock, read_macroblocks
from jpeglm.inspection.pixels import png_uri
from jpeglm.inspection.prediction import PLANES, Rebuilt, rebuild
from jpeglm.inspection.spoken import Spoken, spoken
from jpeglm.inspection.tokens import choices_of, names_of
from jpeglm.inspection.trace import FORMAT
from jpeglm.syntax.avc.nal import read_header, split_nals

__all__ = ["trace_clip"]

LARGEST = 64 << 20
"""Bytes of a file that may be a clip that a model drew; larger ones are films."""
MOST = 4096
"""Macroblocks of a clip whose frames are all taken apart; each takes some kilobytes of JSON."""


def trace_clip(
    model: Model,
    media: Any,
    frame: int | None = None,
    label: int | str | None = None,
    text: str | None = None,
    all_frames: bool = False,
) -> dict[str, Any]:
    """The trace of a clip, as `Codec.encode` takes it, or of a file of the model's codec, whose
    bytes are then what is looked at. frame: the one that is taken apart, by default the second,
    whose macroblocks come from the first. all_frames: under `others`, by their numbers, what the
    trace says of each of the other frames alone; left out of clips of more than `MOST` macroblocks.
    InputError for a model of other media, a frame that is not there, and no clip."""
    codec = model.codec
    if not isinstance(codec, AvcCodec):
        raise InputError(
            f"the model writes {codec.media}s as {codec.name}; give the checkpoint of a model of "
            "clips"
        )
    count = codec.units
    frame = min(1, count - 1) if frame is None else frame
    if not 0 <= frame < count:
        raise InputError(f"frame is {frame}; the model's clips have 0 to {count - 1}")
    read = _Reading(model, media, label, text)
    trace = read.whole() | read.frame(frame)
    trace["clip"] |= {"frame": frame}
    if all_frames and read.costs.size <= MOST:
        trace["others"] = {other: read.frame(other) for other in range(count) if other != frame}
    return trace


class _Reading:
    """A clip that is coded, read by the model and shown; what is said of all and of a frame."""

    def __init__(self, model: Model, media: Any, label: int | str | None, text: str | None) -> None:
        codec = model.codec
        assert isinstance(codec, AvcCodec)
        self.model, self.codec, self.said_to = model, codec, {"label": label, "text": text}
        self.stream, self.drawn = _read(codec, media)
        self.tokens = [asdict(one) for one in choices_of(model, self.stream, label, text)]
        self.parts = take_clip_apart(self.stream, codec.symbols)
        self.said = spoken(model, self.stream, self.parts)
        self.costs = _model_bits(codec, self.tokens, self.said)
        self.spent = np.zeros(self.costs.shape, np.int64)
        for part in self.parts:
            self.spent[part.frame, part.macroblock] += len(part.bits)
        self.planes = _planes(codec, self.stream)

    def whole(self) -> dict[str, Any]:
        codec, config, tokenizer = self.codec, self.codec.config, self.model.tokenizer
        return {
            "format": FORMAT,
            "kind": "clip",
            "clip": {
                "width": config.width,
                "height": config.height,
                "fps": config.fps,
                "qp": config.qp,
                "rows": codec.spec.rows,
                "columns": codec.spec.columns,
                "drawn": self.drawn,
                "file_bytes": len(codec.wrap(self.stream)),
            },
            "model": {"alphabet": tokenizer.alphabet.name, "vocabulary": tokenizer.vocab_size}
            | self.said_to,
            "frames": [
                {
                    "slice": "P" if number else "I",
                    "file": int(self.spent[number].sum()),
                    "model": float(self.costs[number].sum()),
                    "shown": png_uri(Image.fromarray(picture)),
                }
                for number, picture in enumerate(codec.decode(self.stream))
            ],
            "all_tokens": len(self.tokens),
        }

    def frame(self, frame: int) -> dict[str, Any]:
        """What is said of one frame alone."""
        stream, own = self.stream, [part for part in self.parts if part.frame == frame]
        macroblocks, made = _take_frame_apart(self.codec, stream, own, frame, self.planes)
        begin, end = own[0].first // 8, -(-own[-1].end // 8)
        told = _told(self.tokens, self.said, frame, 8 * begin, 8 * end)
        return {
            "macroblocks": [
                _macroblock(one, made, number)
                | {
                    "file": int(self.spent[frame, number]),
                    "model": float(self.costs[frame, number]),
                }
                for number, one in enumerate(macroblocks)
            ],
            "parts": [
                [one.name, one.bits, one.first - 8 * begin, one.end - 8 * begin, one.macroblock,
                 one.symbol]
                for one in own
            ],
            "stream": {
                "hex": stream[begin:end].hex(),
                "kinds": byte_kinds(stream)[begin:end].tolist(),
            },
            "tokens": told,
            "names": names_of(self.model, told),
        }  # fmt: skip


def _read(codec: AvcCodec, media: Any) -> tuple[bytes, bool]:
    """A stream, and whether it was given as it is."""
    name = media
    if isinstance(media, str | os.PathLike):
        media = name = Path(media)
        if file_size(media) <= LARGEST:
            media = read_bytes(media)
    if isinstance(media, bytes):
        try:
            stream = codec.unwrap(media)
            codec.decode(stream)
            return stream, True
        except InputError:  # of another codec: its pictures are coded anew
            pass
    return codec.encode(read_clip(name, codec.config) if isinstance(name, Path) else name), False


def _planes(codec: AvcCodec, stream: bytes) -> list[dict[str, np.ndarray]]:
    """int64 Y, Cb and Cr of each frame as it is shown."""
    av = pyav()
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = [*decoder.parse(codec.wrap_annex_b(stream)), *decoder.parse(b"")]
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    frames += decoder.decode(None)
    height, width = codec.config.height, codec.config.width
    found = []
    for frame in frames:
        whole = frame.to_ndarray(format="yuv420p").astype(np.int64)
        luma, *chroma = np.split(whole, [height, height * 5 // 4])
        halves = [plane.reshape(height // 2, width // 2) for plane in chroma]
        found.append(dict(zip(PLANES, (luma, *halves))))
    return found


def _take_frame_apart(
    codec: AvcCodec,
    stream: bytes,
    own: Sequence[Part],
    frame: int,
    shown: list[dict[str, np.ndarray]],
) -> tuple[list[Macroblock], Rebuilt]:
    spec, sets = codec.spec, codec.sets
    slices = len(spec.first) - 1
    nals = split_nals(stream)[frame * slices : (frame + 1) * slices]
    qps = [sets.qp + read_header(nal, sets).qp_delta for nal in nals]
    macroblocks = read_macroblocks(own, spec, frame, qps)
    references = shown[max(0, frame - codec.references) : frame][::-1]
    first = spec.first[:-1].tolist()
    made = rebuild(macroblocks, first, spec.columns, references, sets.chroma_qp_offset)
    return macroblocks, made


def _macroblock(one: Macroblock, made: Rebuilt, number: int) -> dict[str, Any]:
    prediction, added = made.predictions[number], made.residuals[number]
    return {
        "type": one.type,
        "qp": one.qp,
        "motion": [motion._asdict() for motion in one.motion],
        "modes": one.modes,
        "chroma_mode": one.chroma_mode,
        "blocks": [asdict(block) for block in one.blocks],
        "parts": list(one.parts),
        "prediction": {name: prediction[name].reshape(-1).tolist() for name in PLANES},
        "residual": {name: added[name].reshape(-1).tolist() for name in PLANES},
    }


def _model_bits(
    codec: AvcCodec, tokens: Sequence[dict[str, Any]], said: Sequence[Spoken]
) -> np.ndarray:
    """float64 [frames, macroblocks]: bits of the tokens that begin in each; EOS belongs to the
    last."""
    costs = np.zeros((codec.units, codec.spec.rows * codec.spec.columns))
    for one, spoken_ in zip(tokens, said):
        costs[spoken_.frame, spoken_.begins] += one["bits"]
    return costs


def _told(
    tokens: Sequence[dict[str, Any]], said: Sequence[Spoken], frame: int, begin: int, end: int
) -> list[dict[str, Any]]:
    """The tokens that say something of a frame, and its bits [begin, end) that they say."""
    return [
        one
        | {
            "number": number,
            "symbols": spoken_.symbols,
            "runs": [
                [max(a, begin) - begin, min(b, end) - begin]
                for a, b in spoken_.runs
                if a < end and begin < b
            ],
            "macroblocks": sorted(place for at, place in spoken_.about if at == frame),
        }
        for number, (one, spoken_) in enumerate(zip(tokens, said))
        if any(at == frame for at, _ in spoken_.about)
    ]
