"""One picture from its pixels to the model's tokens, as a dict that JSON takes.

    trace = trace_picture(load("photos"), "photo.jpg")

What links the steps is the scan's bits: every symbol, block, MCU, byte and token has its run of
them, so that whatever one points at can be found in all the others. `jpeglm inspect` shows it, in
the terminal or as a page. The keys are described in docs/inspect.md.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs.images import MAX_BYTES, as_picture, fit_image
from jpeglm.codecs.jpeg import JpegCodec, segments
from jpeglm.config import InputError
from jpeglm.files import printable, read_bytes
from jpeglm.generation.model import Model
from jpeglm.inspection.pixels import (
    SAMPLING,
    backward,
    block_of,
    forward,
    planes,
    png_uri,
    rows_of,
)
from jpeglm.inspection.scan import Block, Part, byte_kinds, take_apart
from jpeglm.inspection.tokens import Choice, choices_of, names_of
from jpeglm.syntax.alphabet import JpegBytes, JpegSymbols

FORMAT = 1
COMPONENTS = ("Y", "Cb", "Cr")


def trace_picture(
    model: Model, media: Any, label: int | str | None = None, text: str | None = None
) -> dict[str, Any]:
    """The trace of a picture, as `Codec.encode` takes it, or of a canonical file of the model's
    codec, whose bytes are then what is looked at; behind a label and words where they are given."""
    subject = read_subject(model, media, label, text)
    return trace_of(model, subject, choices_of(model, subject.stream, label, text))


@dataclass(frozen=True)
class Subject:
    """What is looked into, and what the model is told of it."""

    stream: bytes
    picture: Image.Image | None
    """The fitted picture that it was made of; None where the stream itself was given."""
    label: int | str | None
    text: str | None


def read_subject(
    model: Model,
    media: Any,
    label: int | str | None = None,
    text: str | None = None,
    picture: Image.Image | None = None,
) -> Subject:
    """`trace_picture`'s first step; picture: what media shows, where it is open already. InputError
    for a model of other media, and for no picture."""
    codec = model.codec
    if not isinstance(codec, JpegCodec):
        raise InputError(
            f"the model writes {codec.media}s as {codec.name}; what can be looked into here is JPEG"
        )
    return Subject(*_read(codec, media, picture), label, text)


def trace_of(model: Model, subject: Subject, choices: list[Choice]) -> dict[str, Any]:
    """`trace_picture`'s last step; choices: of the subject's tokens (`read_choices`)."""
    codec, stream, picture = model.codec, subject.stream, subject.picture
    assert isinstance(codec, JpegCodec)
    scan = codec.scan(stream)
    parts, blocks = take_apart(scan, codec.spec)
    steps = _steps(codec)
    shown = codec.decode(stream)
    told = [asdict(one) for one in choices]
    for one, place in zip(told, _places(model, stream, parts)):
        one |= place
    config, (rows, columns) = codec.config, codec.config.grid
    return {
        "format": FORMAT,
        "kind": "jpeg",
        "picture": {
            "width": config.width,
            "height": config.height,
            "quality": config.quality,
            "subsampling": config.subsampling,
            "restart_interval": config.restart_interval,
            "rows": rows,
            "columns": columns,
            "drawn": picture is None,
            "given": png_uri(picture or shown),
            "decoded": png_uri(shown),
            "file_bytes": len(codec.wrap(stream)),
        },
        "model": {
            "alphabet": model.tokenizer.alphabet.name,
            "vocabulary": model.tokenizer.vocab_size,
            "label": subject.label,
            "text": subject.text,
        },
        "components": [
            {"name": name, "steps": steps[min(number, len(steps) - 1)].astype(int).tolist()}
            for number, name in enumerate(COMPONENTS[: max(codec.components) + 1])
        ],
        "mcus": _mcus(codec.units, blocks, parts, told),
        "blocks": _blocks(codec, blocks, steps, picture or shown),
        "parts": [[*one] for one in parts],
        "scan": {"hex": scan.hex(), "kinds": byte_kinds(scan).tolist()},
        "tokens": told,
        "names": names_of(model, told),
    }


def _read(
    codec: JpegCodec, media: Any, picture: Image.Image | None
) -> tuple[bytes, Image.Image | None]:
    """A stream, and the fitted picture it was made of; None where the stream itself was given."""
    name = "the picture"
    if isinstance(media, str | os.PathLike):
        media, name = read_bytes(Path(media), MAX_BYTES), printable(Path(media))
    if isinstance(media, bytes):
        stream = codec.own_stream(media)
        if stream is not None:
            return stream, None
    config = codec.config
    picture = as_picture(media, name) if picture is None else picture
    picture = fit_image(picture, config.width, config.height, config.fit)
    return codec.encode(picture), picture


def _steps(codec: JpegCodec) -> list[np.ndarray]:
    """int64 [8, 8] of each quantisation table, that of luma first (T.81 B.2.4.1)."""
    found = []
    for marker, _, payload in segments(codec.file_header):
        while marker == 0xDB and payload:
            found.append(rows_of(np.frombuffer(payload[1:65], np.uint8).astype(np.int64)))
            payload = payload[65:]
    return found


def _blocks(
    codec: JpegCodec, blocks: list[Block], steps: list[np.ndarray], picture: Image.Image
) -> list[dict[str, Any]]:
    """Of each block where it lies, in blocks of its plane, and its 64 values at every step."""
    config = codec.config
    across, down = SAMPLING[config.subsampling]
    columns, whole = config.grid[1], planes(picture, config.subsampling)
    told = []
    for block in blocks:
        row, column = divmod(block.mcu, columns)
        if block.component == 0:
            column = column * across + block.place % across
            row = row * down + block.place // across
        samples = block_of(whole[block.component], column, row)
        table = steps[min(block.component, len(steps) - 1)]
        told.append(
            {
                "mcu": block.mcu,
                "component": block.component,
                "column": column,
                "row": row,
                "prediction": block.prediction,
                "samples": samples.reshape(-1).tolist(),
                "dct": forward(samples).reshape(-1).round(1).tolist(),
                "levels": rows_of(block.levels).reshape(-1).tolist(),
                "decoded": backward(block.levels, table)
                .clip(0, 255).round().astype(int).reshape(-1).tolist(),
            }
        )  # fmt: skip
    return told


def _places(model: Model, stream: bytes, parts: list[Part]) -> list[dict[str, Any]]:
    """Of each token how many symbols it spells, and the runs of bits [first, end); of EOS none."""
    tokenizer, alphabet = model.tokenizer, model.tokenizer.alphabet
    ids = tokenizer.encode_stream(stream)
    counts = [len(tokenizer.spelling[token]) for token in ids.tolist()]
    edges = np.concatenate([[0], np.cumsum(counts)])
    first, end = _bits_of_symbols(alphabet, stream, parts)
    told: list[dict[str, Any]] = []
    for begin, stop in zip(edges[:-1].tolist(), edges[1:].tolist()):
        runs: list[list[int]] = []
        for one, behind in sorted(zip(first[begin:stop].tolist(), end[begin:stop].tolist())):
            if runs and runs[-1][1] == one:
                runs[-1][1] = behind
            else:
                runs.append([one, behind])
        told.append({"symbols": stop - begin, "runs": runs})
    return [*told, {"symbols": 0, "runs": []}]


def _bits_of_symbols(
    alphabet: Any, stream: bytes, parts: list[Part]
) -> tuple[np.ndarray, np.ndarray]:
    """int64 [symbols] each: the first bit in the scan of each of the alphabet's symbols, and the
    one behind its last."""
    if isinstance(alphabet, JpegBytes):
        symbols = alphabet.split(stream)
        # Restart markers are one symbol; what is put before a whole stream has no bits.
        width = np.where(symbols > 255, 0 if alphabet.whole else 16, 8)
        end = np.cumsum(width) - (8 * len(alphabet.header) if alphabet.whole else 0)
        return end - width, end
    assert isinstance(alphabet, JpegSymbols)
    own = [one for one in parts if one.symbol >= 0]
    if alphabet.coarse:
        own.sort(key=lambda one: one.k > 0)
    edges = np.array([(one.first, one.end) for one in own])
    return edges[:, 0], edges[:, 1]


def _mcus(
    units: int, blocks: list[Block], parts: list[Part], told: list[dict[str, Any]]
) -> list[dict[str, float]]:
    """Bits of each MCU: in the scan, fill and markers behind it among them, and under the model,
    of the tokens that begin in it; the header's belong to the first, EOS to the last."""
    scan, under = np.zeros(units), np.zeros(units)
    for part in parts:
        scan[blocks[part.block].mcu] += len(part.bits)
    begins = np.array([part.first for part in parts])
    for one in told:
        place = units - 1
        if one["runs"]:
            at = int(np.searchsorted(begins, one["runs"][0][0], "right")) - 1
            place = blocks[parts[max(at, 0)].block].mcu
        under[place] += one["bits"]
    return [{"scan": int(a), "model": float(b)} for a, b in zip(scan, under)]
