"""NAL units, parameter sets and slice headers, as far as x264's baseline profile writes them.

Only what a codec needs to take the constant parts of a stream off and put them back: ITU-T H.264
7.3.1 (NAL units), 7.3.2 (parameter sets), 7.3.3 (slice headers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jpeglm.config import InputError

START = b"\x00\x00\x01"
PARAMETERS_SEQUENCE, PARAMETERS_PICTURE, SEI, IDR, PLAIN = 7, 8, 6, 5, 1


def split_nals(data: bytes) -> list[bytes]:
    """NAL units of an Annex B stream, without start codes."""
    return [part.rstrip(b"\0") for part in re.split(b"\0\0\1", data)[1:]]


def unescape(nal: bytes) -> bytes:
    """RBSP bytes of a NAL unit's payload: emulation prevention taken out (7.4.1)."""
    return nal.replace(b"\0\0\3", b"\0\0")


def escape(rbsp: bytes) -> bytes:
    """The inverse of `unescape`."""
    return re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", rbsp)


class Bits:
    """Reads u(n), ue(v) and se(v) from an RBSP; `at` is the bit that comes next."""

    def __init__(self, data: bytes) -> None:
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def u(self, count: int) -> int:
        if self.at + count > len(self.text):
            raise InputError("a parameter set or slice header ends early")
        value = int(self.text[self.at : self.at + count] or "0", 2)
        self.at += count
        return value

    def ue(self) -> int:
        zeros = 0
        while self.u(1) == 0:
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def ue(value: int) -> str:
    """Exp-Golomb bits of a number."""
    return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"


@dataclass(frozen=True)
class Sets:
    """What slice headers depend on."""

    frame_bits: int
    order_type: int
    columns: int
    rows: int
    deblocking: bool
    qp: int
    """Of a slice that changes nothing."""
    chroma_qp_offset: int


def read_sets(sequence: bytes, picture: bytes) -> Sets:
    """Both parameter sets (RBSP without the NAL header); InputError if x264 writes no such."""
    bits = Bits(sequence)
    profile = bits.u(8)
    if profile != 66:
        raise InputError(f"the stream has profile {profile}; baseline (66) is needed")
    bits.u(16)
    bits.ue()
    frame_bits = bits.ue() + 4
    order_type = bits.ue()
    if order_type != 2:
        raise InputError(f"the stream has pic_order_cnt_type {order_type}, not 2")
    bits.ue()
    bits.u(1)
    columns, rows = bits.ue() + 1, bits.ue() + 1
    if not bits.u(1):
        raise InputError("the stream is interlaced")
    bits = Bits(picture)
    bits.ue()
    bits.ue()
    if bits.u(1):
        raise InputError("the stream is CABAC coded; CAVLC is needed")
    bits.u(1)
    if bits.ue():
        raise InputError("the stream has slice groups")
    bits.ue()
    bits.ue()
    if bits.u(3):
        raise InputError("the stream has weighted prediction")
    qp = 26 + bits.se()
    bits.se()
    offset = bits.se()
    return Sets(frame_bits, order_type, columns, rows, bool(bits.u(1)), qp, offset)


@dataclass(frozen=True)
class Header:
    """A slice header: the first macroblock, whether it opens an IDR picture, its frame number; and
    as bits what follows the frame number, the same in all slices of a kind."""

    first: int
    idr: bool
    frame: int
    tail: str
    size: int
    """Bits in all."""
    qp_delta: int
    """On top of the picture parameter set's."""

    def write(self, first: int, frame: int, frame_bits: int) -> str:
        """The header of another slice of this kind."""
        kind = ue(7 if self.idr else 5)
        number = f"{frame % (1 << frame_bits):0{frame_bits}b}"
        return ue(first) + kind + ue(0) + number + self.tail


def read_header(nal: bytes, sets: Sets) -> Header:
    """The slice header of a NAL unit, its first byte included."""
    idr = nal[0] & 31 == IDR
    bits = Bits(unescape(nal[1:33]))
    first, kind = bits.ue(), bits.ue()
    if kind != (7 if idr else 5):
        raise InputError(
            f"a slice has type {kind}; I slices in IDR pictures, then P slices are read"
        )
    bits.ue()
    frame = bits.u(sets.frame_bits)
    start = bits.at
    if idr:
        bits.ue()
    else:
        if bits.u(1):
            bits.ue()
        if bits.u(1):
            raise InputError("a slice reorders its references")
    if nal[0] >> 5 & 3:
        bits.u(2 if idr else 1)
    delta = bits.se()
    if sets.deblocking and bits.ue() != 1:
        bits.se()
        bits.se()
    return Header(first, idr, frame, bits.text[start : bits.at], bits.at, delta)
