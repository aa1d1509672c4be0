"""The one thread that steps a model's session, for all requests at once.

    ask ▸ hand_in ▸ session.add ─▶ │ step │ step │ step │ ──▶ tell(event), on the thread
            close ▸ session.remove │  rows join and leave between any two steps

A request's pictures join the batch that is running, and its row is free as soon as it is drawn or
nobody wants it any more. How many may be there, drawn or waiting, is bounded: `Full` tells when
to come again, before any work is done for them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

from jpeglm.generation.model import Model
from jpeglm.generation.requests import Event, Request

__all__ = ["Batcher", "Closed", "Full", "Ticket"]

T = TypeVar("T")
LONGEST_WAIT = 60
"""Seconds that a client is asked to wait, at most."""
GIVEN_UP = "the server was stopped before this was drawn"


class Full(Exception):
    """There is no room for so many pictures; seconds: when there may be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many pictures are waiting; ask again in {seconds} s")
        self.seconds = seconds


class Closed(Exception):
    """The batcher takes nothing more, or had to give up what it drew."""


Tell = Callable[[Event | Exception], None]
"""What is called on the batcher's thread with whatever becomes of a request; it must not wait."""


class Ticket:
    """Pictures that somebody waits for; closing it gives up those that are not drawn."""

    def __init__(self, batcher: Batcher, pictures: int, tell: Tell) -> None:
        self.tell = tell
        self.reserved = pictures
        """Those that are to be handed in."""
        self.numbers: set[int] = set()
        """The session's, of those that are not drawn yet."""
        self.begun = time.monotonic()
        self._batcher = batcher

    def hand_in(self, requests: Sequence[Request]) -> None:
        """The pictures that room was asked for; any thread may. `Closed` behind `Batcher.close`,
        InputError where the session takes one of them not; nothing where the ticket is closed."""
        self._batcher.add(self, requests)

    def close(self) -> None:
        """Give up what is not drawn yet; its rows are free at the next step."""
        self._batcher.forget(self)


class Batcher:
    """rows: pictures drawn at a time; queue: those that may wait beside them."""

    def __init__(self, model: Model, rows: int, queue: int) -> None:
        self.session = model.session
        self.session.rows = rows
        self.rows, self.room = rows, rows + queue
        self.drawn = 0
        """Pictures, since the start."""
        self._open: dict[int, Ticket] = {}
        """Whose a number of the session's is."""
        self._reserved = 0
        self._seconds = 1.0
        """That a picture takes, of late."""
        self._closing = False
        self._jobs: deque[tuple[Iterator[Any], list[Any], Future[list[Any]]]] = deque()
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Pictures that are drawn now, wait, or are about to be handed in."""
        return len(self._open) + self._reserved

    def ask(self, pictures: int, tell: Tell) -> Ticket:
        """Room for so many pictures. `Full` where there is none, `Closed` behind `close`."""
        with self._wake:
            if self._closing:
                raise Closed("the server is stopping")
            if self.open + pictures > self.room:
                raise Full(self._wait_for(pictures))
            self._reserved += pictures
            return Ticket(self, pictures, tell)

    def add(self, ticket: Ticket, requests: Sequence[Request]) -> None:
        """What `Ticket.hand_in` does."""
        with self._wake:
            if self._closing:
                raise Closed("the server is stopping")
            if not ticket.reserved:
                return
            assert len(requests) == ticket.reserved
            self._reserved -= ticket.reserved
            ticket.reserved = 0
            try:
                for request in requests:
                    number = self.session.add(request)
                    ticket.numbers.add(number)
                    self._open[number] = ticket
            except BaseException:
                self.forget(ticket)
                raise
            self._wake.notify_all()

    def _wait_for(self, pictures: int) -> int:
        """Seconds until so many have room, roughly."""
        ahead = self.open + pictures - self.room
        seconds = math.ceil(ahead / self.rows) * self._seconds
        return min(max(math.ceil(seconds), 1), LONGEST_WAIT)

    def forget(self, ticket: Ticket) -> None:
        """Give up what of a ticket is not drawn yet."""
        with self._wake:
            for number in ticket.numbers:
                del self._open[number]
                self.session.remove(number)
            ticket.numbers.clear()
            self._reserved -= ticket.reserved
            ticket.reserved = 0
            self._wake.notify_all()

    def aside(self, steps: Iterator[T]) -> Future[list[T]]:
        """What `steps` gives, taken on this thread, one at a time between two steps of the session;
        for what else has to do with its model. Cancelled, the rest is left."""
        found: Future[list[T]] = Future()
        with self._wake:
            if self._closing:
                raise Closed("the server is stopping")
            self._jobs.append((steps, [], found))
            self._wake.notify_all()
        return found

    def close(self) -> None:
        """Take nothing more, give up what is not drawn, and end the thread."""
        with self._wake:
            self._closing = True
            self._fail(Closed(GIVEN_UP))
            self._give_up_jobs()
            self._wake.notify_all()
        self._thread.join()

    def _give_up_jobs(self) -> None:
        for _, _, found in self._jobs:
            with suppress(InvalidStateError):  # cancelled
                found.set_exception(Closed(GIVEN_UP))
        self._jobs.clear()

    def _fail(self, error: Exception) -> None:
        """Tell everybody, and forget them."""
        for ticket in dict.fromkeys(self._open.values()):
            self.forget(ticket)
            ticket.tell(error)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self.session.busy or self._jobs or self._closing)
                if self._closing and not self.session.busy:
                    return
                job = self._jobs.popleft() if self._jobs else None
            if job and self._goes_on(*job):
                with self._wake:
                    self._jobs.append(job)
                    if self._closing:  # `close` came while the job was out of its reach
                        self._give_up_jobs()
            if not self.session.busy:
                continue
            try:
                events = self.session.step()
            except Exception as error:  # of the engine: whoever comes next finds it working
                logging.getLogger("uvicorn.error").exception("drawing failed")
                with self._wake:
                    self._fail(error)
                continue
            self._tell(events)

    def _goes_on(self, steps: Iterator[Any], found: list[Any], told: Future[list[Any]]) -> bool:
        """Take one step of a job; False when nothing is left of it."""
        if told.done():  # cancelled, or given up
            return False
        try:
            found.append(next(steps))
            return True
        except StopIteration:
            result, error = found, None
        except Exception as raised:
            result, error = [], raised
        with suppress(InvalidStateError):  # cancelled meanwhile
            if error:
                told.set_exception(error)
            else:
                told.set_result(result)
        return False

    def _tell(self, events: list[Event]) -> None:
        with self._wake:
            for event in events:
                ticket = self._open.get(event.number)
                if ticket is None:  # closed while the step ran
                    continue
                if event.ended:
                    del self._open[event.number]
                    ticket.numbers.discard(event.number)
                    self.drawn += 1
                    took = time.monotonic() - ticket.begun
                    self._seconds += 0.2 * (took - self._seconds)
                ticket.tell(event)
