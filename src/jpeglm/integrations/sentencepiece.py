"""A sentencepiece vocabulary over bytes as a tokenizer of ours, as the authors released one.

Byte b of a stream is the character U+2800 + b, and sentencepiece merges the two neighbours whose
piece has the highest score. So each piece becomes the pairs of earlier pieces that spell it, in
the order of the scores, and its id another one: our bytes come first, then what merges make, then
BOS and EOS. Where `add_dummy_prefix` is set in the model file, the character U+2581 stands before
every stream, and a symbol for it (`paper-bytes-prefixed`) before ours. What no stream can hold
(unk, pads, pieces with other characters) has no id here; `Vocabulary.dropped` names it.

Trade-off: of pairs that make one piece, sentencepiece takes the leftmost and we the first in the
list, which may differ where a byte repeats. So the two are compared on `PROBES` pictures, and a
vocabulary that spells one of them otherwise is refused rather than read almost rightly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs import Codec
from jpeglm.config import InputError, shorten
from jpeglm.files import read_bytes
from jpeglm.tokenizer import Tokenizer

__all__ = ["Vocabulary", "read_vocabulary"]

FIRST_BYTE, PREFIX = 0x2800, "▁"
"""The character of byte 0; what sentencepiece writes for a blank."""
PROBES = 16
MAX_BYTES = 64 << 20
"""Of a model file; one of 32,000 pieces has half a megabyte."""
NORMAL, UNKNOWN, CONTROL, UNUSED = 1, 2, 3, 5
"""Types of a piece (sentencepiece_model.proto); user-defined ones and bytes are the others."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and what has become of the model file's pieces."""

    tokenizer: Tokenizer
    rows: np.ndarray
    """int64 [vocabulary]: the piece of each of the tokenizer's ids, so the row of an embedding."""
    dropped: list[str]
    """Pieces that have no id."""


def read_vocabulary(file: Path, codec: Codec) -> Vocabulary:
    """The vocabulary of a `tokenizer.model` for a codec's streams; InputError where it is none of
    bytes, or spells them otherwise than merges can."""
    import sentencepiece
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2 as proto

    data = read_bytes(file, MAX_BYTES)
    model = proto.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(data)
        theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    except (DecodeError, RuntimeError) as error:
        raise InputError(f"{file} is not a sentencepiece model") from error
    if model.trainer_spec.model_type != model.trainer_spec.BPE:
        raise InputError(f"{file} is not a BPE model; only pieces that pairs make can be imported")
    if theirs.bos_id() < 0 or theirs.eos_id() < 0:
        raise InputError(f"{file} has no BOS or no EOS, between which a stream stands")
    prefixed = bool(model.normalizer_spec.add_dummy_prefix)
    tokenizer, rows, dropped = _merged(file, model, codec, prefixed)
    rows[tokenizer.bos], rows[tokenizer.eos] = theirs.bos_id(), theirs.eos_id()
    dropped = [name for name in dropped if name not in _names(theirs)]
    _compare(file, theirs, tokenizer, rows)
    return Vocabulary(tokenizer, rows, dropped)


def _names(theirs: Any) -> tuple[str, str]:
    return theirs.id_to_piece(theirs.bos_id()), theirs.id_to_piece(theirs.eos_id())


def _merged(
    file: Path, model: Any, codec: Codec, prefixed: bool
) -> tuple[Tokenizer, np.ndarray, list[str]]:
    """(tokenizer, piece of each id, control and unusable pieces); BOS and EOS are left open."""
    known = {chr(FIRST_BYTE + byte): byte for byte in range(256)}
    known |= {PREFIX: len(known)} if prefixed else {}
    pieces: dict[str, tuple[int, float]] = {}
    dropped = []
    for number, piece in enumerate(model.pieces):
        if piece.type in (UNKNOWN, CONTROL, UNUSED) or set(piece.piece) - known.keys():
            if piece.type not in (NORMAL, UNKNOWN, CONTROL, UNUSED):
                _refuse_kind(file, piece)
            dropped.append(piece.piece)
        elif piece.type != NORMAL:
            _refuse_kind(file, piece)
        else:
            pieces[piece.piece] = number, piece.score
    missing = [character for character in known if character not in pieces]
    if missing == [PREFIX]:
        raise InputError(f"{file} puts {PREFIX} before every text, for which it has no piece")
    if missing:
        raise InputError(
            f"{file} has no piece for {len(missing)} of the 256 bytes, the first being "
            f"{known[missing[0]]:02X}; it is no vocabulary of byte streams (U+2800 + byte)"
        )
    ids = dict(known)
    merges: list[tuple[int, int]] = []
    longer = [name for name in pieces if len(name) > 1]
    for name in sorted(longer, key=lambda name: -pieces[name][1]):
        halves = [(name[:cut], name[cut:]) for cut in range(len(name) - 1, 0, -1)]
        pairs = [(ids[left], ids[right]) for left, right in halves if left in ids and right in ids]
        if not pairs:
            raise InputError(
                f"{file} has the piece {shorten(name)}, which no two pieces of higher score make"
            )
        merges += pairs
        ids[name] = len(ids)
    alphabet = "paper-bytes-prefixed" if prefixed else "paper-bytes"
    tokenizer = Tokenizer(codec, alphabet, np.array(merges, np.int32))
    rows = np.zeros(tokenizer.vocab_size, np.int64)
    for name, token in ids.items():
        rows[token] = pieces[name][0]
    return tokenizer, rows, dropped


def _refuse_kind(file: Path, piece: Any) -> None:
    raise InputError(
        f"{file} has the piece {shorten(piece.piece)} of type {piece.type}, user-defined or a byte "
        "to fall back on; only normal and control pieces can be imported"
    )


def probes(codec: Codec) -> list[bytes]:
    """Streams of pictures that are flat, smooth, noisy and in between."""
    rng, found = np.random.default_rng(0), []
    blank = codec.blank()
    for number in range(PROBES):
        noise = rng.normal(0, 4 * number, (blank.height, blank.width, 3))
        ramp = np.linspace(0, 16 * number, blank.width)[None, :, None]
        values = np.clip(noise + ramp + rng.integers(0, 256, 3), 0, 255)
        found.append(codec.encode(Image.fromarray(values.astype(np.uint8))))
    return found


def _compare(file: Path, theirs: Any, tokenizer: Tokenizer, rows: np.ndarray) -> None:
    for stream in probes(tokenizer.codec):
        text = "".join(chr(FIRST_BYTE + byte) for byte in stream)
        if rows[tokenizer.encode_stream(stream)].tolist() != theirs.encode(text):
            raise InputError(
                f"{file} spells a stream in other pieces than its scores make; a normalizer or "
                "pieces of equal score may be why, and it cannot be imported"
            )
