"""A scan taken apart: which bits say which symbol, of which coefficient of which block.

For looking, not for speed: plain Python, symbol by symbol (T.81 F.1.2), over what `syntax.scan`
has found to be a canonical, complete scan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.syntax.jpeg import (
    AC_FIRST,
    CHUNK,
    RST0,
    JpegSpec,
    symbol_name,
)
from jpeglm.syntax.jpeg_tables import AC_RUN_SIZES, AC_TABLES, DC_TABLES, EOB, ZRL
from jpeglm.syntax.scan import inspect_scan

DATA, STUFFED, MARKER = 0, 1, 2
"""What a byte of a scan is: data; the 00 behind a data byte FF; half of a restart marker."""


class Part(NamedTuple):
    """A run of bits: one symbol, or what a scan has beside symbols."""

    name: str
    """As the alphabets call symbols (`DC 3`, `AC 0/1`, `EOB`, `amp 0110`), or `fill`, `RST 0`."""
    bits: str
    """Its binary digits."""
    first: int
    """Its first bit in the scan, from the scan's first on; bytes of all kinds count."""
    end: int
    """Behind its last bit; bits of a stuffed byte may lie between."""
    block: int
    """Of the scan's blocks, in their order; what fills an interval: the last one before it."""
    k: int
    """Coefficient in zigzag order: the one it is about, of EOB the first that is 0; else -1."""
    symbol: int
    """Its place among the scan's symbols; -1 beside them."""


class Block(NamedTuple):
    """The 64 coefficients of a block."""

    mcu: int
    place: int
    """In the MCU."""
    component: int
    """0 Y, 1 Cb, 2 Cr."""
    prediction: int
    """The DC level that its difference is taken from."""
    levels: np.ndarray
    """int [64] in zigzag order."""


def byte_kinds(scan: bytes) -> np.ndarray:
    """uint8 [bytes]: DATA, STUFFED or MARKER."""
    data = np.frombuffer(scan, np.uint8)
    kinds = np.full(len(data), DATA, np.uint8)
    behind = np.flatnonzero(data[:-1] == 0xFF) + 1
    kinds[behind[data[behind] == 0]] = STUFFED
    marks = behind[(data[behind] >= RST0) & (data[behind] < RST0 + 8)]
    kinds[marks] = kinds[marks - 1] = MARKER
    return kinds


def take_apart(scan: bytes, spec: JpegSpec) -> tuple[list[Part], list[Block]]:
    """Parts and blocks of a scan, each in its order; StreamError where it is not canonical.

    spec: without names and not coarse, of the codec. The parts' bits are the scan's data and marker
    bits, each once.
    """
    symbols = inspect_scan(scan, spec)[0]
    data, kinds = np.frombuffer(scan, np.uint8), byte_kinds(scan)
    payload = np.unpackbits(data[kinds == DATA])
    place = (8 * np.flatnonzero(kinds == DATA)[:, None] + np.arange(8)).reshape(-1)
    markers = iter(np.flatnonzero(kinds == MARKER)[::2].tolist())
    parts: list[Part] = []
    blocks: list[Block] = []
    at, number = 0, 0
    predictions = [0, 0, 0]

    def take(name: str, count: int, k: int, symbol: int, block: int) -> int:
        nonlocal at
        bits = "".join(map(str, payload[at : at + count].tolist()))
        first, end = int(place[at]), int(place[at + count - 1]) + 1
        parts.append(Part(name, bits, first, end, block, k, symbol))
        at += count
        return int(bits, 2)

    def amplitude(size: int, k: int) -> int:
        """The value of a category `size` (T.81 F.1.2.1.1), read in chunks."""
        nonlocal number
        value, left = 0, size
        while left:
            count = min(CHUNK, left)
            value = value << count | take(_named(symbols[number]), count, k, number, len(blocks))
            number, left = number + 1, left - count
        return value if value >= 1 << (size - 1) else value - (1 << size) + 1

    for mcu in range(spec.mcus):
        for order, component in enumerate(spec.component.tolist()):
            levels, chroma = np.zeros(64, np.int64), min(component, 1)
            size = int(symbols[number])
            length = int(DC_TABLES[chroma].length[size])
            take(_named(size), length, 0, number, len(blocks))
            number += 1
            difference = amplitude(size, 0) if size else 0
            levels[0] = predictions[component] + difference
            k = 1
            while k < 64:
                value = int(AC_RUN_SIZES[symbols[number] - AC_FIRST])
                run, size = value >> 4, value & 15
                about = k if value == EOB else k + run
                length = int(AC_TABLES[chroma].length[value])
                take(_named(symbols[number]), length, about, number, len(blocks))
                number += 1
                if value == EOB:
                    break
                if value != ZRL:
                    levels[about] = amplitude(size, about)
                k = about + 1
            blocks.append(Block(mcu, order, component, predictions[component], levels))
            predictions[component] = int(levels[0])
        over = mcu + 1 == spec.mcus
        if over or (spec.interval and (mcu + 1) % spec.interval == 0):
            if at % 8:
                take("fill", -at % 8, -1, -1, len(blocks) - 1)
            if not over:
                mark = next(markers)
                bits = f"{0xFF00 | scan[mark + 1]:016b}"
                name = f"RST {scan[mark + 1] - RST0}"
                parts.append(Part(name, bits, 8 * mark, 8 * mark + 16, len(blocks) - 1, -1, -1))
            predictions = [0, 0, 0]
    return parts, blocks


def _named(symbol: int) -> str:
    return symbol_name(int(symbol), 1)
