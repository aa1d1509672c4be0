"""What a frame's syntax elements say of its macroblocks: types, modes, motion, levels.

In the order of ITU-T H.264, 7.3.5; motion vectors are predicted from the neighbours (8.4.1),
levels put together from their prefixes and runs (9.2). For looking: plain Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jpeglm.inspection.elements import Part
from jpeglm.inspection.motion import SKIPPED, Motion, MotionField
from jpeglm.syntax.avc import (
    COEFF,
    COEFF_DC,
    FRAME,
    REF,
    TOKEN,
    AvcSpec,
    start_state,
)
from jpeglm.syntax.avc.machine import active_references
from jpeglm.syntax.avc.symbols import (
    BITS,
    CHROMA,
    CHUNK,
    INTRA4,
    MVD_X,
    MVD_Y,
    PATTERN_INTER,
    PATTERN_INTRA,
    PREFIX,
    QP_DELTA,
    RUN,
    SIGNS,
    SKIP,
    SUB,
    TYPE_I,
    TYPE_P,
    ZEROS,
    ZEROS_DC,
)

__all__ = ["CODED", "Block", "Macroblock", "read_macroblocks"]

SHAPES = ([(0, 0, 16, 16)], [(0, 0, 16, 8), (0, 8, 16, 8)], [(0, 0, 8, 16), (8, 0, 8, 16)])
"""Partitions (x, y, width, height) of P types 0 to 2 (Table 7-13)."""
SUBS = (
    [(0, 0, 8, 8)],
    [(0, 0, 8, 4), (0, 4, 8, 4)],
    [(0, 0, 4, 8), (4, 0, 4, 8)],
    [(0, 0, 4, 4), (4, 0, 4, 4), (0, 4, 4, 4), (4, 4, 4, 4)],
)
"""Of a quarter's types (Table 7-17)."""
P_TYPES = ("P 16×16", "P 16×8", "P 8×16", "P 8×8")
CODED = [(i % 2 + i // 4 % 2 * 2, i // 2 % 2 + i // 8 * 2) for i in range(16)]
"""Column and row of the 4 × 4 blocks in the order they are coded (Figure 6-10)."""


@dataclass
class Block:
    """The levels of a block, 4 × 4 samples or what takes a first level from each of several."""

    name: str
    """`Y`, `Cb`, `Cr`; `Y DC`, `Cb DC`, `Cr DC` of the first levels."""
    column: int
    row: int
    """Of its plane in the macroblock, in blocks; of DC 0."""
    levels: list[int]
    """In zigzag order: 16, of AC alone 15, of chroma DC 4."""
    parts: tuple[int, int]
    """Its first part of those given, and the one behind its last."""


@dataclass
class Macroblock:
    """All that is said of one."""

    type: str
    """`skipped`, `P 16×16` …, `I 4×4`, `I 16×16`."""
    qp: int
    motion: list[Motion] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    """Intra4x4PredMode of 16 blocks in coding order, or Intra16x16PredMode alone."""
    chroma_mode: int = -1
    pattern: int = 0
    blocks: list[Block] = field(default_factory=list)
    parts: tuple[int, int] = (0, 0)
    """Its first part of those given, and the one behind its last; the run that skips it."""

    @property
    def intra(self) -> bool:
        return self.type.startswith("I")

    def block(self, name: str, column: int = 0, row: int = 0) -> Block | None:
        """The block of that name and place; None where nothing is coded."""
        return next(
            (one for one in self.blocks if (one.name, one.column, one.row) == (name, column, row)),
            None,
        )


def read_macroblocks(
    parts: Sequence[Part], spec: AvcSpec, frame: int, qps: Sequence[int]
) -> list[Macroblock]:
    """Those of a frame, in their order. parts: all of the frame; qps: of each slice's beginning."""
    state = start_state(spec)
    state[FRAME] = frame
    motion = MotionField(spec.columns, spec.rows)
    found: list[Macroblock] = []
    at = 0
    for first, end, qp in zip(spec.first.tolist(), spec.first[1:].tolist(), qps):
        while parts[at].kind < 0:
            at += 1
        motion.begin_slice(first)
        reader = _Reader(parts, at, qp, int(active_references(spec, state)), motion)
        while len(found) < end:
            found += reader.macroblocks(len(found), end)
        at = reader.at
    return found


class _Reader:
    """Walks along the elements of a slice."""

    def __init__(
        self, parts: Sequence[Part], at: int, qp: int, references: int, motion: MotionField
    ) -> None:
        self.parts, self.at, self.qp = parts, at, qp
        self.references, self.motion = references, motion

    def value(self, *kinds: int) -> int:
        """Of the next element, which is one of these kinds."""
        part = self.parts[self.at]
        assert part.kind in kinds, (part, kinds)
        self.at += 1
        return part.value

    def bits(self, count: int) -> int:
        """A number of so many bits, in chunks."""
        found = 0
        while count:
            size = min(CHUNK, count)
            found = found << size | self.value(BITS) + 2 - (1 << size)
            count -= size
        return found

    def number(self, kind: int) -> int:
        """codeNum of an Exp-Golomb code."""
        size = self.value(kind)
        return (1 << size) - 1 + self.bits(size)

    def signed(self, kind: int) -> int:
        """se(v) (Table 9-3)."""
        code = self.number(kind)
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def macroblocks(self, place: int, end: int) -> Iterator[Macroblock]:
        """The next coded one and those that are skipped before it."""
        begin = self.at
        if self.parts[begin].kind == SKIP:
            run = self.number(SKIP)
            for skipped in range(place, place + run):
                vector = self.motion.skip(skipped)
                one = Macroblock(SKIPPED, self.qp, [vector])
                one.parts = (begin, self.at)
                yield one
            place += run
            if place == end:
                return
            if run:  # the run says where this one is as well, but it is counted once
                begin = self.at
        one = self._coded(place)
        one.parts = (begin, self.at)
        yield one

    def _coded(self, place: int) -> Macroblock:
        kind = self.value(TYPE_I, TYPE_P)
        if self.parts[self.at - 1].kind == TYPE_P:
            if kind < 4:
                return self._inter(place, kind)
            kind -= 4
        return self._intra(place, kind)

    def _inter(self, place: int, kind: int) -> Macroblock:
        one = Macroblock(P_TYPES[kind], self.qp)
        shapes = [[shape] for shape in SHAPES[kind]] if kind < 3 else []
        if kind == 3:
            for quarter in range(4):
                x, y = 8 * (quarter % 2), 8 * (quarter // 2)
                own = SUBS[self.value(SUB)]
                shapes.append([(x + left, y + top, w, h) for left, top, w, h in own])
        choice = self.references > 1 and kind < 3
        references = [self.value(REF) if choice else 0 for _ in shapes]
        for reference, own in zip(references, shapes):
            for shape in own:
                change = self.signed(MVD_X), self.signed(MVD_Y)
                one.motion.append(self.motion.move(place, shape, reference, change))
        one.pattern = self.value(PATTERN_INTER)
        if one.pattern:
            self._residual(one, False)
        return one

    def _intra(self, place: int, kind: int) -> Macroblock:
        self.motion.intra(place)
        one = Macroblock("I 16×16" if kind else "I 4×4", self.qp)
        if kind:
            one.modes = [(kind - 1) % 4]
            one.pattern = (kind - 1) // 4 % 3 * 16 + (15 if kind >= 13 else 0)
        else:
            one.modes = [self.value(INTRA4) for _ in range(16)]
        one.chroma_mode = self.value(CHROMA)
        if not kind:
            one.pattern = self.value(PATTERN_INTRA)
        if kind or one.pattern:
            self._residual(one, bool(kind))
        return one

    def _residual(self, one: Macroblock, sixteen: bool) -> None:
        """7.3.5.3."""
        change = self.signed(QP_DELTA)
        one.qp = self.qp = (self.qp + change + 52) % 52
        if sixteen:
            self._block(one, "Y DC", 0, 0, 16)
        for number, (column, row) in enumerate(CODED):
            if one.pattern >> number // 4 & 1:
                self._block(one, "Y", column, row, 15 if sixteen else 16)
        for plane in ("Cb", "Cr") if one.pattern >> 4 else ():
            self._block(one, f"{plane} DC", 0, 0, 4)
        for plane in ("Cb", "Cr") if one.pattern >> 4 == 2 else ():
            for number in range(4):
                self._block(one, plane, number % 2, number // 2, 15)

    def _block(self, one: Macroblock, name: str, column: int, row: int, most: int) -> None:
        begin, levels = self.at, self._levels(most)
        one.blocks.append(Block(name, column, row, levels, (begin, self.at)))

    def _levels(self, most: int) -> list[int]:
        """9.2.2 to 9.2.4."""
        token = int(TOKEN[self.value(COEFF, COEFF_DC)])
        total, ones = token >> 2, token & 3
        found: list[int] = []  # from the last coefficient to the first
        if ones:
            signs = self.value(SIGNS) + 2 - (1 << ones)
            found = [-1 if signs >> (ones - 1 - i) & 1 else 1 for i in range(ones)]
        length = int(total > 10 and ones < 3)
        for number in range(total - ones):
            prefix = self.value(PREFIX)
            size = 12 if prefix == 15 else 4 if prefix == 14 and not length else length
            code = (prefix << length) + self.bits(size) + (15 if prefix == 15 and not length else 0)
            code += 2 if number == 0 and ones < 3 else 0
            level = (code + 2) // 2 if code % 2 == 0 else -(code + 1) // 2
            found.append(level)
            length = max(length, 1)
            if abs(level) > 3 << (length - 1) and length < 6:
                length += 1
        levels = [0] * most
        if not total:
            return levels
        left = self.value(ZEROS, ZEROS_DC) if total < most else 0
        at = total + left
        for number, level in enumerate(found):
            at -= 1
            levels[at] = level
            if left and number < total - 1:
                run = self.value(RUN)
                left -= run
                at -= run
        return levels
