"""A clip's stream taken apart: which bits say which syntax element of which macroblock.

For looking, not for speed: element by element, over what `syntax.avc` has found to be a canonical,
complete stream. Start codes, headers and trailing bits are parts as well, and bytes of emulation
prevention (ITU-T H.264, 7.4.1) lie between the bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.syntax.avc import BASE, FRAME, KIND, MB, SLICE, start_state, step, symbol_name
from jpeglm.syntax.avc.bits import element_bits
from jpeglm.syntax.avc.nal import START, Bits, split_nals
from jpeglm.syntax.avc.state import SLICES_DONE, STAGE
from jpeglm.syntax.avc.stream import AvcSymbols

__all__ = ["DATA", "PREVENTION", "START_CODE", "Part", "byte_kinds", "take_clip_apart"]

DATA, PREVENTION, START_CODE = 0, 1, 2
"""What a byte of a stream is: data; the 03 behind two zeros; a third of a start code."""
HEADER = ("first macroblock", "slice type", "parameter set", "frame number", "rest of the header")


class Part(NamedTuple):
    """A run of bits: one syntax element, or what a stream has beside them."""

    name: str
    """As the alphabet calls it (`P type 0`, `bits 01`), or `start code`, `slice type` …"""
    bits: str
    """Its binary digits."""
    first: int
    """Its first bit in the stream; bytes of all kinds count."""
    end: int
    """Behind its last bit; a byte of emulation prevention may lie between."""
    frame: int
    macroblock: int
    """That it belongs to, of a frame's; a skip run to the first that it may skip. Headers to the
    slice's first one, trailing bits to its last."""
    kind: int
    """As `syntax.avc.symbols` has them; -1 beside the elements."""
    value: int
    """Of its kind."""
    stage: int
    """Of residual data, the block: 0 Intra16x16 DC, 1-16 luma, 17-18 chroma DC, 19-26 chroma AC."""
    symbol: int
    """Its place among the stream's elements; -1 beside them."""


def byte_kinds(stream: bytes) -> np.ndarray:
    """uint8 [bytes]: DATA, PREVENTION or START_CODE."""
    kinds = np.full(len(stream), DATA, np.uint8)
    at = stream.find(b"\0\0")
    while at >= 0:
        if stream[at + 2] == 1:
            kinds[at : at + 3] = START_CODE
        elif stream[at + 2] == 3:
            kinds[at + 2] = PREVENTION
        at = stream.find(b"\0\0", at + 3)
    return kinds


def take_clip_apart(stream: bytes, alphabet: AvcSymbols) -> list[Part]:
    """The parts of a stream in their order; StreamError where it is not canonical. Their bits are
    those of its data and start codes, each once."""
    symbols = alphabet.inspect(stream)[0]
    spec, state = alphabet.spec, start_state(alphabet.spec)
    kinds = byte_kinds(stream)
    parts: list[Part] = []
    number = byte = 0
    for nal in split_nals(stream):
        begin = byte + len(START)
        byte = begin + len(nal)
        own = begin + np.flatnonzero(kinds[begin:byte] == DATA)
        bits = _SliceBits(np.frombuffer(stream, np.uint8)[own], own)
        slice_number = int(state[SLICE])
        frame, macroblock, done = int(state[FRAME]), int(state[MB]), int(state[SLICES_DONE])
        beside = (frame, macroblock, -1, -1, -1, -1)
        first, code = 8 * (begin - len(START)), f"{int.from_bytes(START, 'big'):024b}"
        parts.append(Part("start code", code, first, first + 24, *beside))
        parts.append(Part("NAL unit header", *bits.take(8), *beside))
        header = alphabet.head(state)[1]
        for name, count in _header_fields(header, alphabet.frame_bits):
            parts.append(Part(name, *bits.take(count), *beside))
        while state[SLICES_DONE] == done:
            symbol = np.int64(symbols[number])
            macroblock, kind, stage = int(state[MB]), int(state[KIND]), int(state[STAGE])
            run = bits.take(int(element_bits(spec, state, symbol)[1]))
            legal = step(spec, state, symbol)
            assert legal
            value = int(symbol - BASE[kind])
            name = symbol_name(int(symbol))
            parts.append(Part(name, *run, frame, macroblock, kind, value, stage, number))
            number += 1
        run = bits.take(len(bits.digits) - bits.at)
        macroblock = int(spec.first[slice_number + 1]) - 1
        parts.append(Part("end of the slice", *run, frame, macroblock, -1, -1, -1, -1))
    return parts


class _SliceBits:
    """The bits of a slice's data bytes, which lie at these places of the stream."""

    def __init__(self, data: np.ndarray, places: np.ndarray) -> None:
        self.digits = "".join(map(str, np.unpackbits(data).tolist()))
        self.places = (8 * places[:, None] + np.arange(8)).reshape(-1)
        self.at = 0

    def take(self, count: int) -> tuple[str, int, int]:
        """(digits, first bit, bit behind the last) of the next so many."""
        begin, self.at = self.at, self.at + count
        end = int(self.places[self.at - 1]) + 1
        return self.digits[begin : self.at], int(self.places[begin]), end


def _header_fields(header: str, frame_bits: int) -> list[tuple[str, int]]:
    """Names and lengths of a slice header's fields (7.3.3), what all slices share as one."""
    padded = header + "0" * (-len(header) % 8)
    bits, fields = Bits(int(padded, 2).to_bytes(len(padded) // 8)), []
    for name in HEADER[:3]:
        before = bits.at
        bits.ue()
        fields.append((name, bits.at - before))
    fields.append((HEADER[3], frame_bits))
    return [*fields, (HEADER[4], len(header) - bits.at - frame_bits)]
