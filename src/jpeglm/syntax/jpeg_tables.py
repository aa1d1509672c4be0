"""The constants of baseline JPEG that a stream's meaning rests on (ITU-T T.81).

Huffman tables are the typical ones of Annex K.3; every encoder that does not optimise its tables
writes with them. `HuffmanTable` holds a table in the three forms that the rest needs: codes for
writing, a 16-bit look-up for reading, and a binary tree for walking bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DC_SIZES = 12
"""Size categories of a DC difference, 0 to 11 (T.81 table F.1)."""

# T.81 tables K.3 and K.4: number of codes of each length 1..16; the values are 0..11 in order.
DC_LUMINANCE_BITS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
DC_CHROMINANCE_BITS = (0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0)
DC_VALUES = bytes(range(DC_SIZES))

# T.81 tables K.5 and K.6: run/size bytes in order of code length.
AC_LUMINANCE_BITS = (0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D)
AC_LUMINANCE_VALUES = bytes.fromhex(
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a"
    "25262728292a3435363738393a434445464748494a535455565758595a636465666768696a73747576777879"
    "7a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9"
    "cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
)
AC_CHROMINANCE_BITS = (0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77)
AC_CHROMINANCE_VALUES = bytes.fromhex(
    "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f117"
    "18191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778"
    "797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7"
    "c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"
)

EOB, ZRL = 0x00, 0xF0
"""Run/size bytes without amplitude: end of block, and a run of 16 zeros (T.81 F.1.2.2.1)."""

AC_RUN_SIZES = np.array(
    [EOB, ZRL] + [(run << 4) | size for run in range(16) for size in range(1, 11)], np.int32
)
"""The 162 run/size bytes of baseline JPEG; a symbol's number is its place here."""

AC_INDEX = np.full(256, -1, np.int32)
AC_INDEX[AC_RUN_SIZES] = np.arange(len(AC_RUN_SIZES), dtype=np.int32)

# Zigzag order: ZIGZAG[k] is the row-major place of coefficient k (T.81 figure A.6).
ZIGZAG = np.array(
    sorted(
        range(64),
        key=lambda i: (i // 8 + i % 8, (i % 8 if (i // 8 + i % 8) % 2 == 0 else i // 8)),
    ),
    np.int32,
)


@dataclass(frozen=True)
class HuffmanTable:
    """One Huffman table; arrays are indexed by the coded value (a byte).

    length, code: int32 [256]; length 0 where a value has no code.
    lookup: int32 [65536], (value << 8 | code length) for the next 16 bits, -1 where none fits.
    child: int32 [nodes, 2], the tree; ≥ 0 a node, -1 no code this way, ≤ -2 the leaf -2 - value.
    """

    length: np.ndarray
    code: np.ndarray
    lookup: np.ndarray
    child: np.ndarray


def huffman_table(bits: tuple[int, ...], values: bytes) -> HuffmanTable:
    """Build the codes as T.81 Annex C does: consecutive within a length, doubled between."""
    assert sum(bits) == len(values)
    length, code = np.zeros(256, np.int32), np.zeros(256, np.int32)
    lookup = np.full(65536, -1, np.int32)
    child = [[-1, -1]]
    next_code, at = 0, 0
    for size, count in enumerate(bits, start=1):
        for value in values[at : at + count]:
            length[value], code[value] = size, next_code
            first = next_code << (16 - size)
            lookup[first : first + (1 << (16 - size))] = (value << 8) | size
            node = 0
            for bit in range(size - 1, 0, -1):
                step = (next_code >> bit) & 1
                if child[node][step] < 0:
                    child.append([-1, -1])
                    child[node][step] = len(child) - 1
                node = child[node][step]
            child[node][next_code & 1] = -2 - value
            next_code += 1
        at += count
        next_code <<= 1
    return HuffmanTable(length, code, lookup, np.array(child, np.int32))


DC_TABLES = (
    huffman_table(DC_LUMINANCE_BITS, DC_VALUES),
    huffman_table(DC_CHROMINANCE_BITS, DC_VALUES),
)
AC_TABLES = (
    huffman_table(AC_LUMINANCE_BITS, AC_LUMINANCE_VALUES),
    huffman_table(AC_CHROMINANCE_BITS, AC_CHROMINANCE_VALUES),
)
"""Index 0 for luminance, 1 for chrominance."""
