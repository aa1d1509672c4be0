# ruff: noqa: E501 (tables as the standard prints them)
"""A second implementation of docs/specification-clips.md: ids of the alphabet `avc-placed-symbols` to an Annex B file.

Written from that page and ITU-T H.264 alone, with Python's standard library alone. It writes what is legal
and checks little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Table 9-5: TrailingOnes, TotalCoeff, codes for 0 <= nC < 2, 2 <= nC < 4, 4 <= nC < 8, 8 <= nC, nC = -1.
COEFF_TOKEN = """
0 0 1 11 1111 000011 01
0 1 000101 001011 001111 000000 000111
1 1 01 10 1110 000001 1
0 2 00000111 000111 001011 000100 000100
1 2 000100 00111 01111 000101 000110
2 2 001 011 1101 000110 001
0 3 000000111 0000111 001000 001000 000011
1 3 00000110 001010 01100 001001 0000011
2 3 0000101 001001 01110 001010 0000010
3 3 00011 0101 1100 001011 000101
0 4 0000000111 00000111 0001111 001100 000010
1 4 000000110 000110 01010 001101 00000011
2 4 00000101 000101 01011 001110 00000010
3 4 000011 0100 1011 001111 0000000
0 5 00000000111 00000100 0001011 010000 -
1 5 0000000110 0000110 01000 010001 -
2 5 000000101 0000101 01001 010010 -
3 5 0000100 00110 1010 010011 -
0 6 0000000001111 000000111 0001001 010100 -
1 6 00000000110 00000110 001110 010101 -
2 6 0000000101 00000101 001101 010110 -
3 6 00000100 001000 1001 010111 -
0 7 0000000001011 00000001111 0001000 011000 -
1 7 0000000001110 000000110 001010 011001 -
2 7 00000000101 000000101 001001 011010 -
3 7 000000100 000100 1000 011011 -
0 8 0000000001000 00000001011 00001111 011100 -
1 8 0000000001010 00000001110 0001110 011101 -
2 8 0000000001101 00000001101 0001101 011110 -
3 8 0000000100 0000100 01101 011111 -
0 9 00000000001111 000000001111 00001011 100000 -
1 9 00000000001110 00000001010 00001110 100001 -
2 9 0000000001001 00000001001 0001010 100010 -
3 9 00000000100 000000100 001100 100011 -
0 10 00000000001011 000000001011 000001111 100100 -
1 10 00000000001010 000000001110 00001010 100101 -
2 10 00000000001101 000000001101 00001101 100110 -
3 10 0000000001100 00000001100 0001100 100111 -
0 11 000000000001111 000000001000 000001011 101000 -
1 11 000000000001110 000000001010 000001110 101001 -
2 11 00000000001001 000000001001 00001001 101010 -
3 11 00000000001100 00000001000 00001100 101011 -
0 12 000000000001011 0000000001111 000001000 101100 -
1 12 000000000001010 0000000001110 000001010 101101 -
2 12 000000000001101 0000000001101 000001101 101110 -
3 12 00000000001000 000000001100 00001000 101111 -
0 13 0000000000001111 0000000001011 0000001101 110000 -
1 13 000000000000001 0000000001010 000000111 110001 -
2 13 000000000001001 0000000001001 000001001 110010 -
3 13 000000000001100 0000000001100 000001100 110011 -
0 14 0000000000001011 0000000000111 0000001001 110100 -
1 14 0000000000001110 00000000001011 0000001100 110101 -
2 14 0000000000001101 0000000000110 0000001011 110110 -
3 14 000000000001000 0000000001000 0000001010 110111 -
0 15 0000000000000111 00000000001001 0000000101 111000 -
1 15 0000000000001010 00000000001000 0000001000 111001 -
2 15 0000000000001001 00000000001010 0000000111 111010 -
3 15 0000000000001100 0000000000001 0000000110 111011 -
0 16 0000000000000100 00000000000111 0000000001 111100 -
1 16 0000000000000110 00000000000110 0000000100 111101 -
2 16 0000000000000101 00000000000101 0000000011 111110 -
3 16 0000000000001000 00000000000100 0000000010 111111 -
"""
# Tables 9-7 and 9-8, a row for each TotalCoeff; table 9-9 (a), chroma DC; table 9-10, a row for each zerosLeft.
TOTAL_ZEROS = """
1 011 010 0011 0010 00011 00010 000011 000010 0000011 0000010 00000011 00000010 000000011 000000010 000000001
111 110 101 100 011 0101 0100 0011 0010 00011 00010 000011 000010 000001 000000
0101 111 110 101 0100 0011 100 011 0010 00011 00010 000001 00001 000000
00011 111 0101 0100 110 101 100 0011 011 0010 00010 00001 00000
0101 0100 0011 111 110 101 100 011 0010 00001 0001 00000
000001 00001 111 110 101 100 011 010 0001 001 000000
000001 00001 101 100 011 11 010 0001 001 000000
000001 0001 00001 011 11 10 010 001 000000
000001 000000 0001 11 10 001 01 00001
00001 00000 001 11 10 01 0001
0000 0001 001 010 1 011
0000 0001 01 1 001
000 001 1 01
00 01 1
0 1
"""
TOTAL_ZEROS_DC = """
1 01 001 000
1 01 00
1 0
"""
RUN_BEFORE = """
1 0
1 01 00
11 10 01 00
11 10 01 001 000
11 10 011 010 001 000
11 000 001 011 010 101 100
111 110 101 100 011 010 001 0001 00001 000001 0000001 00000001 000000001 0000000001 00000000001
"""
# Table 9-4, 4:2:0: coded_block_pattern of each codeNum.
PATTERNS = {
    "pattern": "47 31 15 0 23 27 29 30 7 11 13 14 39 43 45 46 16 3 5 10 12 19 21 26 28 35 37 42 44 1 2 4 8 17 18 20 24 6 9 22 25 32 33 34 36 40 38 41",
    "inter pattern": "0 16 1 2 4 8 32 3 5 10 12 15 47 7 11 13 14 6 9 31 35 37 42 44 33 34 36 40 39 43 45 46 17 18 20 24 19 21 26 28 23 27 29 30 22 25 38 41",
}

KINDS = {  # of the page's table: first symbol
    "skip size": 0, "I type": 13, "P type": 38, "intra mode": 67, "chroma mode": 76, "sub type": 80,
    "mvd x size": 84, "mvd y size": 98, "pattern": 112, "inter pattern": 160, "qp size": 208, "coeff": 214,
    "chroma coeff": 276, "signs": 290, "level prefix": 304, "zeros": 320, "chroma zeros": 336, "run": 340,
    "bits": 355, "reference": 385,
}  # fmt: skip
SKIPS = 13
PAIRS = [(total, ones) for total in range(17) for ones in range(min(total, 3) + 1)]
TOKENS: list[dict[tuple[int, int], str]] = [{} for _ in range(5)]
for _row in COEFF_TOKEN.split("\n")[1:-1]:
    _ones, _total, *_codes = _row.split()
    for _column, _code in enumerate(_codes):
        TOKENS[_column][int(_total), int(_ones)] = _code
ZEROS, ZEROS_DC, RUNS = (
    [row.split() for row in text.split("\n")[1:-1]]
    for text in (TOTAL_ZEROS, TOTAL_ZEROS_DC, RUN_BEFORE)
)
CODES = {
    name: {int(value): code for code, value in enumerate(text.split())}
    for name, text in PATTERNS.items()
}


def ue(number: int) -> str:
    return "0" * ((number + 1).bit_length() - 1) + f"{number + 1:b}"


class Clip:
    """The settings of `codec.json` under `codec`, one reference; sets, heads, tails and frame_bits as the page has them."""

    def __init__(
        self, settings: dict[str, Any], sets: bytes, tails: tuple[str, str], frame_bits: int
    ) -> None:
        assert settings["encoder"] == "default"
        self.rows, self.columns = settings["height"] // 16, settings["width"] // 16
        self.frames, self.sets, self.tails, self.frame_bits = (
            settings["frames"],
            sets,
            tails,
            frame_bits,
        )
        slices = settings["slices"]
        self.first = [
            (self.rows * i + slices // 2) // slices * self.columns for i in range(slices + 1)
        ]

    def file(self, symbols: list[int]) -> bytes:
        """Annex B of placed symbols that are a whole clip."""
        self.symbols = iter(symbols)
        out = self.sets
        for frame in range(self.frames):
            for first, end in zip(self.first, self.first[1:]):
                head = ue(first) + ue(5 if frame else 7) + ue(0)
                head += (
                    f"{frame % 2**self.frame_bits:0{self.frame_bits}b}" + self.tails[min(frame, 1)]
                )
                bits = head + "".join(Slice(self, frame, first, end).data()) + "1"
                bits += "0" * (-len(bits) % 8)
                rbsp, nal, zeros = int(bits, 2).to_bytes(len(bits) // 8, "big"), bytearray(), 0
                for byte in rbsp:
                    if zeros >= 2 and byte <= 3:
                        nal.append(3)
                        zeros = 0
                    nal.append(byte)
                    zeros = zeros + 1 if byte == 0 else 0
                out += b"\0\0\1" + bytes([0x41 if frame else 0x65]) + bytes(nal)
        assert next(self.symbols, None) is None
        return out

    def take(self, kind: str) -> int:
        """The value of the next symbol, which is an element of this kind."""
        return next(self.symbols) + SKIPS - KINDS[kind]

    def address(self) -> int:
        """The next coded macroblock, or -1: there is none."""
        row = next(self.symbols) + SKIPS - KINDS["reference"]
        if row == self.rows:
            return -1
        column = next(self.symbols) + SKIPS - KINDS["reference"] - self.rows - 1
        assert 0 <= row < self.rows and 0 <= column < self.columns
        return row * self.columns + column

    def bits(self, count: int) -> str:
        """So many bits of a number."""
        found = ""
        while len(found) < count:
            size = min(4, count - len(found))
            found += f"{self.take('bits') - 2**size + 2:0{size}b}"
        return found

    def number(self, kind: str) -> str:
        size = self.take(kind)
        return "0" * size + "1" + self.bits(size)


class Slice:
    """One slice: its macroblocks from `first` to before `end`, and what they leave for their neighbours."""

    def __init__(self, clip: Clip, frame: int, first: int, end: int) -> None:
        self.clip, self.inter, self.first, self.end = clip, frame > 0, first, end
        # (plane, column, row) of 4 x 4 blocks: coefficients; (column, row): intra modes.
        self.totals: dict[tuple[int, int, int], int] = {}
        self.modes: dict[tuple[int, int], int] = {}

    def data(self) -> Iterator[str]:
        place = self.first
        while place < self.end:
            coded = self.clip.address()
            run = (self.end if coded < 0 else coded) - place
            if self.inter:
                yield ue(run)
                for skipped in range(place, place + run):
                    self.known(skipped)
            if coded < 0:
                return
            self.known(coded)
            yield from self.macroblock(coded % self.clip.columns, coded // self.clip.columns)
            place = coded + 1

    def known(self, place: int) -> None:
        """A macroblock of the slice: no coefficients and DC modes until it says others."""
        x, y = place % self.clip.columns, place // self.clip.columns
        for j in range(4):
            for i in range(4):
                self.totals[0, 4 * x + i, 4 * y + j] = 0
                self.modes[4 * x + i, 4 * y + j] = 2
        for plane in (1, 2):
            for j in range(2):
                for i in range(2):
                    self.totals[plane, 2 * x + i, 2 * y + j] = 0

    def macroblock(self, x: int, y: int) -> Iterator[str]:
        take, kind = self.clip.take, 0
        if self.inter:
            kind = take("P type")
            if kind < 4:
                yield ue(kind + (kind == 3))
                yield from self.moved(kind)
                pattern = take("inter pattern")
                yield ue(CODES["inter pattern"][pattern])
                if pattern:
                    yield from self.residual(x, y, pattern, False)
                return
            kind -= 4
            yield ue(kind + 5)
        else:
            kind = take("I type")
            yield ue(kind)
        if kind == 0:
            for number in range(16):
                yield self.mode(4 * x + COLUMN[number], 4 * y + ROW[number], take("intra mode"))
        yield ue(take("chroma mode"))
        if kind:
            pattern = (kind - 1) // 4 % 3 * 16 + (15 if kind >= 13 else 0)
            yield from self.residual(x, y, pattern, True)
            return
        pattern = take("pattern")
        yield ue(CODES["pattern"][pattern])
        if pattern:
            yield from self.residual(x, y, pattern, False)

    def moved(self, kind: int) -> Iterator[str]:
        parts = (1, 2, 2)[kind] if kind < 3 else 0
        if kind == 3:
            for _ in range(4):
                sub = self.clip.take("sub type")
                yield ue(sub)
                parts += (1, 2, 2, 4)[sub]
        for _ in range(parts):
            yield self.clip.number("mvd x size")
            yield self.clip.number("mvd y size")

    def mode(self, i: int, j: int, mode: int) -> str:
        left, above = self.modes.get((i - 1, j)), self.modes.get((i, j - 1))
        predicted = 2 if left is None or above is None else min(left, above)
        self.modes[i, j] = mode
        return "1" if mode == predicted else f"0{mode - (mode > predicted):03b}"

    def residual(self, x: int, y: int, pattern: int, sixteen: bool) -> Iterator[str]:
        yield self.clip.number("qp size")
        if sixteen:
            yield from self.block(0, 4 * x, 4 * y, 16, False)
        for number in range(16):
            if pattern >> number // 4 & 1:
                yield from self.block(
                    0, 4 * x + COLUMN[number], 4 * y + ROW[number], 15 if sixteen else 16
                )
        for _ in range(2 if pattern >> 4 else 0):
            yield from self.coefficients(TOKENS[4], "chroma coeff", 4)[1]
        for number in range(8 if pattern >> 4 == 2 else 0):
            column, row = 2 * x + number % 2, 2 * y + number // 2 % 2
            yield from self.block(1 + number // 4, column, row, 15)

    def block(self, plane: int, i: int, j: int, most: int, stored: bool = True) -> list[str]:
        """A block whose table its neighbours choose (9.2.1)."""
        near = [self.totals.get((plane, i - 1, j)), self.totals.get((plane, i, j - 1))]
        known = [number for number in near if number is not None]
        count = (sum(known) + 1) >> 1 if len(known) == 2 else sum(known)
        table = TOKENS[0 if count < 2 else 1 if count < 4 else 2 if count < 8 else 3]
        total, bits = self.coefficients(table, "coeff", most)
        if stored:
            self.totals[plane, i, j] = total
        return bits

    def coefficients(
        self, table: dict[tuple[int, int], str], kind: str, most: int
    ) -> tuple[int, list[str]]:
        """(TotalCoeff, bits) of a block (7.3.5.3.2)."""
        take, bits = self.clip.take, self.clip.bits
        total, ones = PAIRS[take(kind)]
        out = [table[total, ones]]
        if not total:
            return 0, out
        if ones:
            out.append(f"{take('signs') - 2**ones + 2:0{ones}b}")
        length, first = int(total > 10 and ones < 3), ones < 3
        for _ in range(total - ones):
            prefix = take("level prefix")
            suffix = bits(12 if prefix == 15 else 4 if prefix == 14 and not length else length)
            out.append("0" * prefix + "1" + suffix)
            code = (min(prefix, 15) << length) + (int(suffix, 2) if suffix else 0)
            code += 15 if prefix == 15 and not length else 0
            code += 2 if first else 0
            first, magnitude = False, (code >> 1) + 1  # odd codes are negative: -(code + 1) / 2
            length = max(length, 1)
            if magnitude > 3 << (length - 1) and length < 6:
                length += 1
        left = 0
        if total < most:
            left = take("chroma zeros" if most == 4 else "zeros")
            out.append((ZEROS_DC if most == 4 else ZEROS)[total - 1][left])
        for _ in range(total - 1):
            if not left:
                break
            run = take("run")
            out.append(RUNS[min(left, 7) - 1][run])
            left -= run
        return total, out


COLUMN = [number % 2 + number // 4 % 2 * 2 for number in range(16)]
ROW = [number // 2 % 2 + number // 8 * 2 for number in range(16)]
