"""Alphabets: a stream's bytes as symbols, and back.

`jpeg-symbols` are the entropy coder's own symbols (204): the model never sees Huffman codes,
stuffing, fill bits or restart markers, which the stream's geometry implies. In
`jpeg-block-symbols`, the default, a DC size also names its block in the MCU, so that the model need
not count blocks to know luma from chroma (docs/log.md has the figures); `jpeg-coarse-symbols` are
these with all DC coefficients of the picture first. In `jpeg-placed-symbols` the DC size of an
MCU's first block also names the MCU, so that the model need not count MCUs to know where it is; the
vocabulary grows by 12 for each. `bytes` is the scan as it stands, a restart marker being one
symbol. `paper-bytes` is the whole stream, header and EOI included, as the paper has it;
`paper-bytes-prefixed` has a symbol before it that spells no byte, as sentencepiece's
`add_dummy_prefix` puts one before every text. `codes` are those of a learned codec. All are
lossless on canonical streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jpeglm.config import InputError, shorten
from jpeglm.syntax.grammar import Grammar
from jpeglm.syntax.jpeg import (
    BLOCK_NAMES,
    MCU_NAMES,
    NO_NAMES,
    RST0,
    SYMBOLS,
    JpegSpec,
    codes_spec,
    jpeg_spec,
    symbol_count,
    symbol_name,
)
from jpeglm.syntax.jpeg_bytes import FIRST_RST_SYMBOL, JpegByteSpec, jpeg_byte_spec
from jpeglm.syntax.jpeg_tables import DC_SIZES
from jpeglm.syntax.scan import coarse_first, in_sequence, inspect_scan, write_scan

__all__ = ["ALPHABETS", "Alphabet", "Codes", "JpegBytes", "JpegSymbols", "Prefix", "jpeg_alphabet"]

EOI = b"\xff\xd9"


@dataclass(frozen=True)
class Prefix:
    """The beginning of a stream: whole symbols, then `bits` leading bits of the next one.

    `bits` is 0 unless the cut lies inside a byte; the known bits are the leading ones of `value`.
    """

    symbols: np.ndarray
    value: int = 0
    bits: int = 0


class Alphabet(Protocol):
    """The symbols that a codec's streams are written in: `size` of them, numbered from 0.

    Lossless: `join(split(stream))` is the stream. Merges of the tokenizer work on these symbols.
    """

    name: str
    size: int
    atomic: tuple[int, ...]
    """Symbols that no merge may contain."""

    def split(self, stream: bytes) -> np.ndarray:
        """Symbols, int32, of a canonical stream; InputError says where it is not."""

    def join(self, symbols: np.ndarray) -> bytes:
        """The stream that the symbols spell; never raises, whatever they are."""

    def prefix(self, stream: bytes, units: int) -> Prefix:
        """What the first `units` units of a stream determine."""

    def grammar(self) -> Grammar:
        """Which symbol may come next, and when a stream is complete."""

    def symbol_name(self, symbol: int) -> str:
        """A symbol in words, for people."""


SYMBOL_ALPHABETS = {
    "jpeg-block-symbols": (BLOCK_NAMES, False),
    "jpeg-placed-symbols": (MCU_NAMES, False),
    "jpeg-symbols": (NO_NAMES, False),
    "jpeg-coarse-symbols": (BLOCK_NAMES, True),
}
"""(names, coarse) of each kind of `JpegSymbols`."""


class JpegSymbols:
    """The entropy coder's symbols; numbers in `syntax.jpeg`.

    names: whether a DC size also says which block of the MCU it opens (12 symbols more for each
    block after the first), and of a first block which MCU (12 more for each after the first). It
    carries no information, the grammar implies it, but the model need not learn to count. coarse:
    the DC coefficients of the whole picture come first, as in the first scan of a progressive JPEG;
    such a stream has no prefix of MCUs.
    """

    atomic: tuple[int, ...] = ()

    def __init__(
        self, name: str, component: tuple[int, ...], mcus: int, interval: int, header: bytes
    ) -> None:
        self.name, self.header = name, header
        names, self.coarse = SYMBOL_ALPHABETS[name]
        self._plain = jpeg_spec(component, mcus, interval)
        self._read = jpeg_spec(component, mcus, interval, names)
        self.spec: JpegSpec = jpeg_spec(component, mcus, interval, names, self.coarse)
        self.size = symbol_count(self.spec)

    def _inspect(self, stream: bytes) -> tuple[np.ndarray, np.ndarray]:
        symbols, starts, _ = inspect_scan(_body(stream, self.header), self._read)
        return symbols, starts

    def split(self, stream: bytes) -> np.ndarray:
        symbols = self._inspect(stream)[0]
        return coarse_first(symbols) if self.coarse else symbols

    def join(self, symbols: np.ndarray) -> bytes:
        symbols = np.asarray(symbols, np.int32)
        if self.coarse:
            symbols = in_sequence(symbols, self.spec)
        symbols = np.where(symbols >= SYMBOLS, (symbols - SYMBOLS) % DC_SIZES, symbols)
        return self.header + write_scan(symbols, self._plain)[0] + EOI

    def prefix(self, stream: bytes, units: int) -> Prefix:
        symbols, starts = self._inspect(stream)
        if not self.coarse:
            return Prefix(symbols[: starts[units]])
        if 0 < units < len(starts) - 1:
            raise InputError(
                f"{self.name} begin with the whole picture, so that no part of it can be kept; "
                "complete pictures with a checkpoint of another alphabet"
            )
        return Prefix(coarse_first(symbols) if units else symbols[:0])

    def grammar(self) -> Grammar:
        return Grammar(self.spec, self.size)

    def symbol_name(self, symbol: int) -> str:
        return symbol_name(symbol, len(self.spec.component))


PREFIX_SYMBOL = 256
"""Of `paper-bytes-prefixed`: what stands before a stream's first byte."""
BYTE_ALPHABETS = ("bytes", "paper-bytes", "paper-bytes-prefixed")
"""The kinds of `JpegBytes`."""


class JpegBytes:
    """The scan's bytes (`bytes`, restart markers atomic) or the whole stream's (the others); `lead`
    is what stands before the scan, int32 symbols."""

    def __init__(
        self, name: str, component: tuple[int, ...], mcus: int, interval: int, header: bytes
    ) -> None:
        whole = name != "bytes"
        self.name, self.header, self.whole = name, header, whole
        prefixed = name == "paper-bytes-prefixed"
        markers = 0 if whole or not interval else 8
        self.size = 256 + markers + prefixed
        before = [PREFIX_SYMBOL] if prefixed else []
        self.lead = np.array([*before, *header] if whole else [], np.int32)
        self.atomic = tuple(range(FIRST_RST_SYMBOL, FIRST_RST_SYMBOL + markers))
        self._symbol_spec = jpeg_spec(component, mcus, interval)
        self.spec: JpegByteSpec = jpeg_byte_spec(
            component,
            mcus,
            interval,
            atomic=not whole,
            header=self.lead,
            trailer=EOI if whole else b"",
        )

    def split(self, stream: bytes) -> np.ndarray:
        if self.whole:
            symbols = np.frombuffer(stream, np.uint8).astype(np.int32)
            return np.concatenate([self.lead[: self.size - 256], symbols])
        return self._mark(_body(stream, self.header))

    def _mark(self, scan: bytes) -> np.ndarray:
        symbols = np.frombuffer(scan, np.uint8).astype(np.int32)
        if not self.atomic:
            return symbols
        follows = symbols[1:]
        at = np.flatnonzero((symbols[:-1] == 0xFF) & (follows >= RST0) & (follows < RST0 + 8))
        symbols[at] = FIRST_RST_SYMBOL + symbols[at + 1] - RST0
        return np.delete(symbols, at + 1)

    def join(self, symbols: np.ndarray) -> bytes:
        symbols = np.asarray(symbols, np.int32)
        if self.whole:
            stream: bytes = symbols[symbols != PREFIX_SYMBOL].astype(np.uint8).tobytes()
            return stream
        marker = symbols >= FIRST_RST_SYMBOL
        place = np.arange(len(symbols)) + np.cumsum(marker) - marker
        out = np.empty(len(symbols) + int(marker.sum()), np.uint8)
        out[place] = np.where(marker, 0xFF, symbols & 0xFF)
        out[place[marker] + 1] = symbols[marker] - FIRST_RST_SYMBOL + RST0
        return self.header + out.tobytes() + EOI

    def prefix(self, stream: bytes, units: int) -> Prefix:
        symbols, starts, _ = inspect_scan(_body(stream, self.header), self._symbol_spec)
        scan, bits, _ = write_scan(symbols[: starts[units]], self._symbol_spec, units)
        value = scan[-1] if bits else 0
        known = self._mark(scan[: len(scan) - (bits > 0)])
        if self.whole:
            known = np.concatenate([self.lead, known])
        return Prefix(known.astype(np.int32), value, bits)

    def grammar(self) -> Grammar:
        return Grammar(self.spec, self.size)

    def symbol_name(self, symbol: int) -> str:
        if symbol < 256:
            return f"{symbol:02X}"
        return "prefix" if self.whole else f"RST{symbol - FIRST_RST_SYMBOL}"


class Codes:
    """The codes of a learned codec: `count` numbers below `size`, 1 or 2 bytes each (little end
    first) in a stream, raster order. A unit is one code."""

    name = "codes"
    atomic: tuple[int, ...] = ()

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count
        self.dtype = np.dtype("u1" if size <= 256 else "<u2")
        self.spec: JpegSpec = codes_spec(size, count)

    def split(self, stream: bytes) -> np.ndarray:
        if len(stream) != self.count * self.dtype.itemsize:
            raise InputError(
                f"a stream of {self.count} codes has {self.count * self.dtype.itemsize} bytes, "
                f"this one {len(stream)}"
            )
        symbols = np.frombuffer(stream, self.dtype).astype(np.int32)
        if len(symbols) and symbols.max() >= self.size:
            place = int(np.argmax(symbols >= self.size))
            raise InputError(f"code {symbols[place]} is none of the {self.size}, at code {place}")
        return symbols

    def read(self, stream: bytes) -> np.ndarray:
        """int64 [count] of any bytes; what is missing is code 0, what is no code the last one."""
        whole = len(stream) - len(stream) % self.dtype.itemsize
        given = np.frombuffer(stream[:whole], self.dtype)[: self.count]
        codes = np.zeros(self.count, np.int64)
        codes[: len(given)] = np.minimum(given, self.size - 1)
        return codes

    def join(self, symbols: np.ndarray) -> bytes:
        codes = np.zeros(self.count, self.dtype)
        given = np.clip(np.asarray(symbols)[: self.count], 0, self.size - 1)
        codes[: len(given)] = given
        return codes.tobytes()

    def prefix(self, stream: bytes, units: int) -> Prefix:
        return Prefix(self.split(stream)[:units])

    def grammar(self) -> Grammar:
        return Grammar(self.spec, self.size)

    def symbol_name(self, symbol: int) -> str:
        return f"code {symbol}"


def _body(stream: bytes, header: bytes) -> bytes:
    if not stream.startswith(header):
        raise InputError(
            "the stream's header is not this codec's: another size, subsampling or restart interval"
        )
    if not stream.endswith(EOI):
        raise InputError(f"the stream does not end with EOI (FF D9) at byte {len(stream)}")
    return stream[len(header) : -len(EOI)]


ALPHABETS = (*SYMBOL_ALPHABETS, *BYTE_ALPHABETS)
"""Of JPEG, the default one first."""


def jpeg_alphabet(
    name: str, component: tuple[int, ...], mcus: int, interval: int, header: bytes
) -> JpegSymbols | JpegBytes:
    """The alphabet `name` for streams of this geometry and header."""
    if name in SYMBOL_ALPHABETS:
        return JpegSymbols(name, component, mcus, interval, header)
    if name in BYTE_ALPHABETS:
        return JpegBytes(name, component, mcus, interval, header)
    raise InputError(
        f"there is no alphabet {shorten(name)} for JPEG; choose one of {', '.join(ALPHABETS)}"
    )
