"""The table of a session: who sits in which row, and what has been told of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jpeglm.config import InputError, Sampling
from jpeglm.generation.given import Reading
from jpeglm.generation.masks import NEXT
from jpeglm.generation.matcher import Begin, Constraint, Prompt
from jpeglm.generation.requests import Chooser, Event, Request
from jpeglm.generation.sampling import ROW, Table, make_draw
from jpeglm.syntax.machine import units as whole_units


class Entry(NamedTuple):
    number: int
    request: Request
    prompt: Prompt
    """Without a grammar its last tokens are taken as they are."""
    begin: Begin


class Plan(NamedTuple):
    """What a step asks of the rows that are there; made anew when rows join or leave."""

    places: np.ndarray
    """int64 [B]: the table's row of each sequence that is chosen for."""
    choosers: list[tuple[Chooser, np.ndarray | None]]
    """Each with its numbers among `places`; None: all of them."""
    guided: np.ndarray
    """Numbers of guided ones among `places`."""
    seconds: np.ndarray
    """The engine's numbers of their runs without class and text."""
    strength: np.ndarray
    """float32: their guidance."""


class Rows:
    """length: tokens of a row, at most."""

    def __init__(self, constraint: Constraint, length: int) -> None:
        self.constraint, self.length = constraint, length
        self.table = self._make(0, 0, 0)
        self.entries: dict[int, Entry] = {}
        """By row of the table."""
        self.watched: dict[int, int] = {}
        """Row → whole units that its last event told; those that are told of before their end."""
        self._sent: dict[int, int] = {}
        """Row → tokens that events have told."""

    def _make(self, rows: int, forced: int, spans: int) -> Table:
        state = len(self.constraint.grammar.start())
        return Table(
            np.zeros(rows, ROW),
            np.zeros((rows, state), np.int64),
            np.zeros((rows, forced), np.int32),
            np.zeros((rows, spans, NEXT + state), np.int64),
            np.zeros((rows, self.length), np.int32),
            np.zeros((rows, self.length)),
            np.zeros((rows, self.length), np.int64),
        )

    def join(self, joining: list[Entry]) -> np.ndarray:
        """A row of the table for each request, filled in; int64 [joining]."""
        known = max(len(entry.prompt.forced) for entry in joining)
        most = max(len(entry.begin.spans) for entry in joining)
        seats, width = self.table.forced.shape
        spans = self.table.spans.shape[1]
        missing = len(self.entries) + len(joining) - seats
        if missing > 0 or known > width or most > spans:
            bigger = self._make(seats + max(missing, 0), max(known, width), max(most, spans))
            for new, old in zip(bigger, self.table):
                new[tuple(slice(n) for n in old.shape)] = old
            self.table = bigger
        free = (place for place in range(len(self.table.rows)) if place not in self.entries)
        places = []
        for entry in joining:
            place = next(free)
            chooser, request = entry.request.chooser, entry.request
            row = self.table.rows[place]
            begin = entry.begin
            row["walk"], row["count"], row["nats"] = begin.walk[0], 0, 0.0
            if isinstance(chooser, Sampling):
                row["draw"] = make_draw(chooser, request.seed, request.picture)
            self.table.states[place] = begin.state
            self.table.spans[place, : len(begin.spans)] = begin.spans
            self.table.forced[place, : len(entry.prompt.forced)] = entry.prompt.forced
            places.append(place)
            self._sent[place] = 0
            if request.watch != "end":
                self.watched[place] = -1
        for place, entry in zip(places, joining):
            self.entries[place] = entry
        return np.array(places, np.int64)

    def leave(self, places: set[int]) -> None:
        """Nobody sits in these rows any more."""
        for place in places:
            del self.entries[place], self._sent[place]
            self.watched.pop(place, None)

    def tell(self, place: int, ended: bool) -> list[Event]:
        """The event of a row, if there is one."""
        table, entry = self.table, self.entries[place]
        units = int(whole_units(self.constraint.spec, table.states[place]))
        units -= int(table.rows[place]["walk"]["ahead"])
        if not ended and entry.request.watch == "unit" and units == self.watched[place]:
            return []
        row, sent = table.rows[place], self._sent[place]
        total, count = float(row["nats"]), int(row["count"])
        if len(entry.begin.spans):
            address = table.drawn[place, :count] > self.constraint.tokenizer.hole
            table.nats[place, :count][address] = 0.0
            total = float(table.nats[place, :count].sum())
        self._sent[place] = count
        self.watched[place] = units
        error = None
        if ended and not np.isfinite(total):
            error = InputError(
                "the model's weights are finite, but what they compute is not; train it anew or "
                "use another checkpoint"
            )
        ids, nats, unit = (
            told[place, sent:count].copy() for told in (table.drawn, table.nats, table.unit)
        )
        return [
            Event(entry.number, entry.request, ids, nats, unit, units, ended, total, error=error)
        ]


def end(entry: Entry, reading: Reading | None = None, error: InputError | None = None) -> Event:
    """The last event of a stream that was read, or of one that came to nothing."""
    ids, nats, unit = np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.int64)
    units, total = 0, 0.0
    if reading:
        ids, nats, unit = reading.ids.astype(np.int32), reading.costs[0], reading.units
        units, total = reading.units_done, float(nats.sum())
    return Event(entry.number, entry.request, ids, nats, unit, units, True, total, reading, error)
