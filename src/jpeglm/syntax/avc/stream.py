"""The alphabets of clips: H.264 streams as the syntax elements of their slices, or as bytes.

`avc-symbols`: what the elements imply is left out and put back: start codes, NAL unit headers,
slice headers, emulation prevention, trailing bits. `symbols` has the elements themselves.
`bytes` are the paper's; `nal_bytes` is their machine.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from jpeglm.config import StreamError
from jpeglm.syntax.alphabet import Prefix
from jpeglm.syntax.avc import nal_bytes, placed
from jpeglm.syntax.avc.bits import PADDING, read_slice, write_slice
from jpeglm.syntax.avc.nal import START, Header, escape, split_nals, unescape
from jpeglm.syntax.avc.state import FRAME, KIND, SLICE, AvcSpec, start_state
from jpeglm.syntax.avc.symbols import END, symbol_count, symbol_name
from jpeglm.syntax.grammar import Grammar


class AvcSymbols:
    """Streams of one geometry. A unit is a frame.

    headers: (first byte of its NAL unit, its header) of a slice of the first frame, the second, …;
    later frames have the last one's. frame_bits: length of frame_num.
    """

    name = "avc-symbols"
    atomic: tuple[int, ...] = ()

    def __init__(self, spec: AvcSpec, headers: list[tuple[int, Header]], frame_bits: int) -> None:
        self.spec, self.headers, self.frame_bits = spec, headers, frame_bits
        self.size = symbol_count(spec.references)

    def head(self, state: np.ndarray) -> tuple[int, str]:
        """(first byte of the NAL unit, header bits) of the slice that begins at a state."""
        frame = int(state[FRAME])
        head, header = self.headers[min(frame, len(self.headers) - 1)]
        first = int(self.spec.first[state[SLICE]])
        return head, header.write(first, frame, self.frame_bits)

    @cached_property
    def header_bits(self) -> int:
        """NAL unit headers and slice headers of a whole stream."""
        state = start_state(self.spec)
        total = 0
        for frame in range(self.spec.frames):
            for number in range(len(self.spec.first) - 1):
                state[FRAME], state[SLICE] = frame, number
                total += 8 + len(self.head(state)[1])
        return total

    def payload_bits(self, stream: bytes) -> int:
        """Bits of the slices' data alone: no start codes, headers, trailing bits or emulation
        prevention."""
        rbsps = [unescape(nal[1:]) for nal in split_nals(stream)]
        trailing = sum((rbsp[-1] & -rbsp[-1]).bit_length() for rbsp in rbsps)
        return 8 * sum(len(rbsp) + 1 for rbsp in rbsps) - trailing - self.header_bits

    def inspect(self, stream: bytes) -> tuple[np.ndarray, np.ndarray]:
        """(symbols int32, starts int64 [frames + 1]: symbols before each frame).

        StreamError says at which slice and byte a stream is not canonical and complete.
        """
        spec, state = self.spec, start_state(self.spec)
        # An element has at least one bit, and unescaping adds none.
        symbols = np.empty(8 * len(stream) + 16, np.int32)
        starts = np.zeros(spec.frames + 1, np.int64)
        used, place = 0, 0
        for number, nal in enumerate(split_nals(stream)):
            place += len(START)
            where = f"slice {number}"
            if state[KIND] == END:
                raise StreamError(f"data follows the last frame ({where})", place)
            frame = int(state[FRAME])
            head, header = self.head(state)
            rbsp = unescape(nal[1:])
            bits = "".join(f"{byte:08b}" for byte in rbsp[: len(header) // 8 + 1])
            if not nal or nal[0] != head or not bits.startswith(header):
                raise StreamError(f"the slice header is not this codec's ({where})", place)
            data = np.frombuffer(rbsp + bytes(PADDING), np.uint8)
            used, at, good = read_slice(spec, state, data, len(header), symbols, used)
            if not good:
                raise StreamError(
                    f"no legal syntax element begins at bit {at} of the slice data ({where})", place
                )
            if not _ends_well(rbsp, at):
                raise StreamError(f"the slice does not end as it must ({where})", place)
            if state[FRAME] > frame:
                starts[frame + 1 :] = used
            place += len(nal)
        if state[KIND] != END:
            raise StreamError(f"the stream ends in frame {int(state[FRAME])}", len(stream))
        return symbols[:used].copy(), starts

    def split(self, stream: bytes) -> np.ndarray:
        return self.inspect(stream)[0]

    def join(self, symbols: np.ndarray) -> bytes:
        """The stream that the symbols spell; what is missing or illegal becomes flat."""
        spec, state = self.spec, start_state(self.spec)
        symbols = np.ascontiguousarray(symbols, np.int32)
        out = bytearray()
        used, flat = 0, False
        # Bytes of a slice, as `write_slice` has it, its header and its trailing bits.
        most = 8 * len(symbols) + 64 * spec.columns * spec.rows + 64
        while state[KIND] != END:
            head, header = self.head(state)
            data = np.zeros(most, np.uint8)
            opening = int(header, 2) << (-len(header) % 8)
            start = opening.to_bytes((len(header) + 7) // 8, "big")
            data[: len(start)] = np.frombuffer(start, np.uint8)
            used, bits, flat = write_slice(spec, state, symbols, used, flat, data, len(header))
            data[bits >> 3] |= 0x80 >> (bits & 7)
            rbsp = data[: bits // 8 + 1].tobytes()
            out += START + bytes([head]) + escape(rbsp)
        return bytes(out)

    def prefix(self, stream: bytes, units: int) -> Prefix:
        symbols, starts = self.inspect(stream)
        return Prefix(symbols[: starts[units]])

    def grammar(self) -> Grammar:
        return Grammar(self.spec, self.size)

    def symbol_name(self, symbol: int) -> str:
        return symbol_name(symbol)


class AvcPlaced:
    """`avc-placed-symbols`: the elements, with the address of each macroblock for skip runs."""

    name = "avc-placed-symbols"
    atomic: tuple[int, ...] = ()

    def __init__(self, symbols: AvcSymbols) -> None:
        self.elements = symbols
        self.spec = placed.avc_placed_spec(symbols.spec)
        self.size = placed.symbol_count(self.spec)

    def _placed(self, symbols: np.ndarray) -> np.ndarray:
        # An address (two symbols) and the element itself; a skip run is an address alone.
        out = np.empty(3 * len(symbols) + 2, np.int32)
        return out[: placed.place(self.spec, symbols, out)].copy()

    def split(self, stream: bytes) -> np.ndarray:
        return self._placed(self.elements.split(stream))

    def join(self, symbols: np.ndarray) -> bytes:
        symbols = np.ascontiguousarray(symbols, np.int32)
        # An element each; an address a skip run: its size, at most 12, in up to 3 chunks of bits.
        out = np.empty(6 * len(symbols) + 8, np.int32)
        return self.elements.join(out[: placed.unplace(self.spec, symbols, out)])

    def prefix(self, stream: bytes, units: int) -> Prefix:
        return Prefix(self._placed(self.elements.prefix(stream, units).symbols))

    def grammar(self) -> Grammar:
        return Grammar(self.spec, self.size)

    def symbol_name(self, symbol: int) -> str:
        place, rows = symbol - self.spec.rows, self.spec.elements.rows
        if place < 0:
            return self.elements.symbol_name(symbol + placed.SKIPS)
        if place < rows:
            return f"row {place}"
        return f"column {place - rows - 1}" if place > rows else "end of slice"


class AvcBytes:
    """The bytes of a stream's NAL units, a start code being one symbol. A unit is a frame."""

    name = "bytes"
    size = nal_bytes.SYMBOLS
    atomic: tuple[int, ...] = (nal_bytes.START,)

    def __init__(self, symbols: AvcSymbols) -> None:
        self.slices = len(symbols.spec.first) - 1
        flat = [nal[:1] + unescape(nal[1:]) for nal in split_nals(symbols.join(np.zeros(0)))]
        heads = []
        state = start_state(symbols.spec)
        for frame in range(symbols.spec.frames):
            for number in range(self.slices):
                state[FRAME], state[SLICE] = frame, number
                head, header = symbols.head(state)
                heads.append(f"{head:08b}{header}")
        self.spec = nal_bytes.avc_byte_spec(symbols.spec, heads, flat)

    def split(self, stream: bytes) -> np.ndarray:
        parts = [np.frombuffer(nal, np.uint8).astype(np.int32) for nal in split_nals(stream)]
        mark = np.array([nal_bytes.START], np.int32)
        return np.concatenate([piece for part in parts for piece in (mark, part)] or [mark[:0]])

    def join(self, symbols: np.ndarray) -> bytes:
        symbols = np.asarray(symbols, np.int32)
        marks = np.flatnonzero(symbols == nal_bytes.START)
        pieces = np.split(symbols, marks)
        out = [piece[piece < nal_bytes.START].astype(np.uint8).tobytes() for piece in pieces]
        return out[0] + b"".join(START + piece for piece in out[1:])

    def prefix(self, stream: bytes, units: int) -> Prefix:
        nals = split_nals(stream)[: units * self.slices]
        return Prefix(self.split(b"".join(START + nal for nal in nals)))

    def grammar(self) -> Grammar:
        return Grammar(self.spec, self.size)

    def symbol_name(self, symbol: int) -> str:
        return f"{symbol:02X}" if symbol < nal_bytes.START else "start code"


def _ends_well(rbsp: bytes, at: int) -> bool:
    """Whether a one and zeros up to the byte's end follow bit `at`, and nothing more (7.3.2.11)."""
    return len(rbsp) == at // 8 + 1 and rbsp[-1] << (at % 8) & 0xFF == 0x80
