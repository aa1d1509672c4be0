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
    return _elements(parts, alphabet.spec, isinstance(alphabet, AvcPlaced))


def _bytes(alphabet: AvcBytes, stream: bytes, parts: Sequence[Part]) -> Iterator[_Symbol]:
    """Bytes and start codes: about whatever they hold bits of."""
    width = np.where(alphabet.split(stream) > 255, 24, 8)
    ends = np.cumsum(width)
    first = np.array([part.first for part in parts])
    for begin, end in zip((ends - width).tolist(), ends.tolist()):
        one = max(0, int(np.searchsorted(first, begin, "right")) - 1)
        last = max(one, int(np.searchsorted(first, end, "left")) - 1)
        place, frame = parts[one].macroblock, parts[one].frame
        about = range(place, parts[last].macroblock + 1)
        yield _Symbol(begin, end, frame, about, place)


def _elements(parts: Sequence[Part], spec: Any, placed: bool) -> Iterator[_Symbol]:
    """Syntax elements; placed: an address before each macroblock in place of skip runs."""
    run: list[Part] = []
    ends = (spec.elements if placed else spec).first[1:].tolist()
    for part in parts:
        kind = part.kind
        if kind == SKIP or (run and kind == BITS):
            run.append(part)
            continue
        if run:
            begin = run[0].macroblock
            over = kind < 0
            stop = next(end for end in ends if end > begin) if over else part.macroblock + 1
            about = range(begin, stop)
            if placed:  # row and column of the next one, or END: both say what the run says
                owner = begin if over else part.macroblock
                for _ in range(1 if over else 2):
                    yield _Symbol(run[0].first, run[-1].end, part.frame, about, owner)
            else:
                for one in run:
                    yield _Symbol(one.first, one.end, one.frame, about, one.macroblock)
            run = []
        if kind < 0:
            continue
        about = range(part.macroblock, part.macroblock + 1)
        if placed and kind == TYPE_I:
            for _ in range(2):
                yield _Symbol(part.first, part.first, part.frame, about, part.macroblock)
        yield _Symbol(part.first, part.end, part.frame, about, part.macroblock)
