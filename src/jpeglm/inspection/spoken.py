"""What each token of a clip says: which bits of the stream, of which macroblocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jpeglm.generation.model import Model
from jpeglm.inspection.elements import Part
from jpeglm.syntax.avc.stream import AvcBytes, AvcPlaced
from jpeglm.syntax.avc.symbols import BITS, SKIP, TYPE_I

__all__ = ["Spoken", "spoken"]


class _Symbol(NamedTuple):
    """A symbol of an alphabet: its bits [first, end), none where it is implied; its frame; the
    macroblocks it says something of, and the one it belongs to."""

    first: int
    end: int
    frame: int
    about: range
    owner: int


@dataclass
class Spoken:
    """What a token spells."""

    symbols: int
    runs: list[list[int]]
    """[first, end) of the stream's bits, in their order."""
    about: set[tuple[int, int]]
    """(frame, macroblock)."""
    frame: int
    begins: int
    """The macroblock that it begins in, of the frame."""


def spoken(model: Model, stream: bytes, parts: Sequence[Part]) -> list[Spoken]:
    """Of each token of a stream, EOS included, which spells nothing and belongs to the end."""
    tokenizer = model.tokenizer
    symbols = list(_symbols(tokenizer.alphabet, stream, parts))
    found: list[Spoken] = []
    at = 0
    for token in tokenizer.encode_stream(stream).tolist():
        count = len(tokenizer.spelling[token])
        own = symbols[at : at + count]
        at += count
        runs: list[list[int]] = []
        for first, end in sorted({one[:2] for one in own if one.end > one.first}):
            if runs and runs[-1][1] == first:
                runs[-1][1] = end
            else:
                runs.append([first, end])
        about = {(one.frame, place) for one in own for place in one.about}
        found.append(Spoken(count, runs, about, own[0].frame, own[0].owner))
    assert at == len(symbols)
    last = symbols[-1]
    place = parts[-1].macroblock
    return [*found, Spoken(0, [], {(last.frame, place)}, last.frame, place)]


def _symbols(alphabet: Any, stream: bytes, parts: Sequence[Part]) -> Iterator[_Symbol]:
    if isinstance(alphabet, AvcBytes):
        return _bytes(alphabet, stream, parts)
    return _elements(parts, isinstance(alphabet, AvcPlaced))


def _runs(parts: Sequence[Part]) -> list[tuple[int, int, range]]:
    """Skip runs: their first part, the one behind the last, and the macroblocks that they say
    something of: those skipped, and the coded one behind them if there is one."""
    found = []
    at = 0
    while at < len(parts):
        begin = at
        at += 1
        if parts[begin].kind == SKIP:
            while parts[at].kind == BITS:
                at += 1
            found.append((begin, at, range(parts[begin].macroblock, parts[at].macroblock + 1)))
    return found


def _bytes(alphabet: AvcBytes, stream: bytes, parts: Sequence[Part]) -> Iterator[_Symbol]:
    """Bytes and start codes: about whatever they hold bits of."""
    about = [range(part.macroblock, part.macroblock + 1) for part in parts]
    for begin, end, places in _runs(parts):
        about[begin:end] = [places] * (end - begin)
    width = np.where(alphabet.split(stream) > 255, 24, 8)
    ends = np.cumsum(width)
    first = np.array([part.first for part in parts])
    for begin, end in zip((ends - width).tolist(), ends.tolist()):
        one = max(0, int(np.searchsorted(first, begin, "right")) - 1)
        last = max(one, int(np.searchsorted(first, end, "left")) - 1)
        places = range(about[one].start, max(each.stop for each in about[one : last + 1]))
        yield _Symbol(begin, end, parts[one].frame, places, parts[one].macroblock)


def _elements(parts: Sequence[Part], placed: bool) -> Iterator[_Symbol]:
    """Syntax elements; placed: an address before each macroblock in place of skip runs."""
    runs = {begin: (end, about) for begin, end, about in _runs(parts)}
    at = 0
    while at < len(parts):
        part = parts[at]
        own = range(part.macroblock, part.macroblock + 1)
        if at in runs:
            end, about = runs[at]
            over = parts[end].kind < 0
            if placed:  # row and column of the next one, or END: both say what the run says
                owner = part.macroblock if over else parts[end].macroblock
                for _ in range(1 if over else 2):
                    yield _Symbol(part.first, parts[end - 1].end, part.frame, about, owner)
            else:
                for one in parts[at:end]:
                    yield _Symbol(one.first, one.end, one.frame, about, one.macroblock)
            at = end
            continue
        at += 1
        if part.kind < 0:
            continue
        if placed and part.kind == TYPE_I:
            for _ in range(2):
                yield _Symbol(part.first, part.first, part.frame, own, part.macroblock)
        yield _Symbol(part.first, part.end, part.frame, own, part.macroblock)
