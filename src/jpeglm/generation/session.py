"""Every use of a model is one walk: tokenizer, grammar and engine, a token at a time.

A `Session` owns one table of rows, each a sequence with its own prompt, budget and chooser. Rows
join and leave at any step, so a batch stays full while there is work:

    session = Session(engine, constraint)
    number = session.add(Request(bare_prompt(tokenizer.bos), Sampling(), seed=7))
    while session.busy:
        for event in session.step(): ...        # what happened: tokens, whole units, ends
    session.remove(number)                      # somebody went away

    for event in session.run(requests, batch=16): ...       # or all at once, from any thread

Who names a row's next token is its chooser: `sampling.Sampling` draws it, `given.Given` knows it.
One thread steps at a time; others may hand requests over meanwhile, or step in turn (`run`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import count

import numpy as np

from jpeglm.config import InputError, Sampling
from jpeglm.generation.device_tables import DeviceGrammar
from jpeglm.generation.engine import DeviceEngine, Engine, Pieces
from jpeglm.generation.given import Given, Reading
from jpeglm.generation.guidance import guide, without_head
from jpeglm.generation.matcher import (
    ENDLESS,
    Begin,
    Constraint,
    Prompt,
    bare_prompt,
    conditioned,
)  # fmt: skip
from jpeglm.generation.requests import CHOOSERS, Chooser, Event, Request
from jpeglm.generation.rows import Entry, Plan, Rows, end
from jpeglm.generation.sampling import follow

__all__ = ["Session"]

BURST = 32
"""Tokens that a device chooses by itself before the host looks."""


class Session:
    """The engine is the session's from now on: what it held is dropped.

    rows: sequences at a time, at most; others wait. Default as many as are handed in.
    """

    def __init__(self, engine: Engine, constraint: Constraint, rows: int | None = None) -> None:
        self.engine, self.constraint, self.rows = engine, constraint, rows
        tokens = constraint.tokenizer.vocab_size
        if engine.vocab_size != tokens:  # kernels take rows of logits to be as wide as masks
            raise InputError(
                f"the model has {engine.vocab_size} tokens, the tokenizer {tokens}; take the "
                "tokenizer that the model was trained with"
            )
        engine.remove(np.arange(engine.sequences))
        self.tokens = 0
        """Chosen so far, of all rows."""
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._waiting: deque[Entry] = deque()
        self._leaving: deque[int] = deque()
        self._joining: list[Entry] = []
        """Between waiting and their rows."""
        self._readings: deque[tuple[Entry, Reading, Pieces]] = deque()
        self._choosers: dict[type, Chooser] = {}
        self._rows = Rows(constraint, engine.max_length)
        self._places = np.zeros(0, np.int64)
        """Of each of the engine's sequences, the row of the table."""
        self._second = np.zeros(0, bool)
        """Whether it is a guided row's run without what was given."""
        self._logits = np.zeros((0, engine.vocab_size), np.float32)
        self._plan: Plan | None = None
        self._inbox: dict[int, deque[Event]] = {}
        """Of requests that `run` waits for."""
        self._stray: list[Event] = []
        """Events of others, until `step` tells them."""
        self._last_start: tuple[Prompt, int, Begin] | None = None
        self._device: DeviceGrammar | None = None
        if isinstance(engine, DeviceEngine):
            self._device = DeviceGrammar.build(constraint)

    # Requests come and go.

    def add(self, request: Request) -> int:
        """Hand a request in; it joins at the next step, or waits for room. Any thread may. The
        number by which its events are known. InputError where no stream fits into its budget."""
        return self._hand_in(request, next(self._numbers))

    def _hand_in(self, request: Request, number: int) -> int:
        engine, prompt = self.engine, request.prompt
        budget = min(request.max_tokens or engine.max_length, engine.max_length)
        chooser = request.chooser
        if isinstance(chooser, Given):
            self.constraint.check(prompt, chooser.ids)
            tokens = len(prompt.ids) + len(chooser.ids) - 1  # none follows the last
            if tokens > budget:
                raise InputError(f"a stream has {tokens} tokens, the model's context {budget}")
            budget = ENDLESS  # a whole stream may be shorter than a completion of its symbols
        elif chooser.guidance != 1 and not conditioned(prompt, self.constraint.tokenizer):
            raise InputError(
                "guidance needs a class or a text to guide to (of the command line: --label, "
                "--text); give one, with a checkpoint that takes it"
            )
        if isinstance(chooser, Sampling) and not chooser.grammar:
            if len(prompt.spans):
                raise InputError("holes are filled under the grammar only; leave it on")
            # Nothing holds a free sampler to the prompt, so its last tokens are taken as they are.
            tail = self.constraint.tokenizer.encode_symbols(prompt.forced)
            ids = np.concatenate([prompt.ids, tail]).astype(np.int32)
            prompt = Prompt(ids, prompt.forced[:0], head=prompt.head)
            if len(ids) >= budget:
                raise InputError(
                    f"the token budget is {budget}, but the prompt alone has {len(ids)} tokens"
                )
            begin = self.constraint.start(bare_prompt(ids[:1]), ENDLESS)
            begin.walk["left"] = budget - len(ids)
        else:
            last = self._last_start
            if last is None or last[0] is not prompt or last[1] != budget:
                begin = self.constraint.start(prompt, budget, budget == engine.max_length)
                last = self._last_start = (prompt, budget, begin)
            begin = last[2]
        self._waiting.append(Entry(number, request, prompt, begin))
        return number

    def remove(self, number: int) -> None:
        """Forget a request, wherever it is; its row is free at the next step. Any thread may."""
        self._leaving.append(number)

    def __repr__(self) -> str:
        return f"<Session: {len(self._rows.entries)} rows, {len(self._waiting)} requests waiting>"

    @property
    def busy(self) -> bool:
        """Whether there is anything to step for."""
        return bool(self._waiting or self._readings or self._rows.entries)

    def step(self) -> list[Event]:
        """Let waiting requests join, and choose a token for every row (on a device, several). Gives
        the events of requests that `add` took, if there are any."""
        with self._lock:
            self._step()
            told, self._stray = self._stray, []
            return told

    def run(
        self,
        requests: Iterable[Request],
        batch: int = 16,
        tick: Callable[[], None] | None = None,
    ) -> Generator[Event, None, None]:
        """The events of these requests, at most `batch` of them at a time in the session, handed in
        as there is room. Threads that run at the same time step in turn, each for all. tick: called
        after each step."""
        waiting, flying, more = iter(requests), set[int](), True
        try:
            while True:
                while more and len(flying) < batch:
                    request = next(waiting, None)
                    if request is None:
                        more = False
                        break
                    number = next(self._numbers)
                    self._inbox[number] = deque()
                    flying.add(number)
                    self._hand_in(request, number)
                if not flying:
                    return
                for event in self._wait(flying):
                    if event.ended:
                        flying.discard(event.number)
                        del self._inbox[event.number]
                    if event.error:
                        raise event.error
                    yield event
                if tick:
                    tick()
        finally:
            for number in flying:
                self.remove(number)
                del self._inbox[number]

    def _wait(self, numbers: set[int]) -> list[Event]:
        """What has come for these requests, after a step for all if nothing has yet."""
        with self._lock:
            if not any(self._inbox[number] for number in numbers):
                self._step()
        found = []
        for number in sorted(numbers):
            inbox = self._inbox[number]
            while inbox:
                found.append(inbox.popleft())
        return found

    def _deliver(self, events: list[Event]) -> None:
        """Put events where `run` or `step` looks for them, unless nobody does any more."""
        for event in events:
            inbox = self._inbox.get(event.number)
            if inbox is not None:
                inbox.append(event)
            elif event.number not in self._leaving:
                self._stray.append(event)

    # One step.

    def _step(self) -> None:
        try:
            self._let_leave()
            self._admit()
            if self._readings:
                self._read()
            if len(self._places):
                self._advance()
        except BaseException:
            # Engine and table may not agree any more, as after Ctrl-C: everybody starts anew.
            self._abandon()
            raise

    def _abandon(self) -> None:
        """End all but those that still wait."""
        error = InputError("the session was stopped while it drew this; ask again")
        open_ = {entry.number: entry for entry in (*self._rows.entries.values(), *self._joining)}
        for entry, _, pieces in self._readings:
            open_[entry.number] = entry
            pieces.close()
        self._deliver([end(entry, error=error) for entry in open_.values()])
        self._joining.clear()
        self._readings.clear()
        self._rows.leave(set(self._rows.entries))
        self.engine.remove(np.arange(self.engine.sequences))
        self._places, self._second = self._places[:0], self._second[:0]
        self._logits, self._plan = self._logits[:0], None

    def _let_leave(self) -> None:
        leaving = set()
        while self._leaving:
            leaving.add(self._leaving.popleft())
        if not leaving:
            return
        for _ in range(len(self._waiting)):  # in turn, for others may append
            entry = self._waiting.popleft()
            if entry.number not in leaving:
                self._waiting.append(entry)
        for entry, _, pieces in self._readings:
            if entry.number in leaving:
                pieces.close()
        self._readings = deque(item for item in self._readings if item[0].number not in leaving)
        gone = [place for place, entry in self._rows.entries.items() if entry.number in leaving]
        if gone:
            self._drop(np.isin(self._places, gone))

    def _drop(self, rows: np.ndarray) -> None:
        """End the engine's sequences rows (bool [E]), and the table's with them."""
        if rows.any():
            self.engine.remove(np.flatnonzero(rows))
        self._rows.leave(set(self._places[rows].tolist()))
        self._places, self._second = self._places[~rows], self._second[~rows]
        self._logits, self._plan = self._logits[~rows], None

    def _admit(self) -> None:
        """Requests that wait become rows, as far as there is room."""
        joining = self._joining
        while self._waiting:
            if self.rows and len(self._rows.entries) + len(joining) >= self.rows:
                break
            entry = self._waiting.popleft()
            if isinstance(entry.request.chooser, Given):
                given = entry.request.chooser
                reading = Reading(self.constraint, given, entry.begin, len(entry.prompt.ids) - 1)
                ids = np.concatenate([entry.prompt.ids, given.ids[:-1]])
                self._readings.append((entry, reading, self.engine.read(ids)))
            else:
                joining.append(entry)
        if not joining:
            return
        places = self._rows.join(joining)
        guided = [
            i
            for i, entry in enumerate(joining)
            if isinstance(entry.request.chooser, Sampling) and entry.request.chooser.guidance != 1
        ]
        bos = self.constraint.tokenizer.bos
        prompts = [entry.prompt.ids for entry in joining]
        prompts += [without_head(prompts[i], joining[i].prompt.head, bos) for i in guided]
        logits = self.engine.add(prompts)
        self._logits = np.concatenate([self._logits, logits])
        self._places = np.concatenate([self._places, places, places[guided]])
        second = np.arange(len(prompts)) >= len(joining)
        self._second, self._plan = np.concatenate([self._second, second]), None
        joining.clear()

    def _read(self) -> None:
        """One piece of the first stream that is given."""
        entry, reading, pieces = self._readings[0]
        piece = next(pieces)
        reading.take(piece)
        if reading.done == len(reading.ids):
            self._readings.popleft()
            pieces.close()
            self.tokens += len(reading.ids)
            self._deliver([end(entry, reading)])

    def _advance(self) -> None:
        """A token for every row, or several; the engine goes on with those that have not ended."""
        plan = self._plan = self._plan or self._make_plan()
        table, places = self._rows.table, plan.places
        found = self._burst(plan)
        tokens, ending = found or (len(places), self._choose(plan))
        self.tokens += tokens
        if ending or self._rows.watched:
            rows, events = table.rows[places], []
            last = (rows["token"] == self.constraint.vocabulary.eos) | (rows["walk"]["left"] <= 0)
            for place, end in zip(places.tolist(), last.tolist()):
                if end or place in self._rows.watched:
                    events += self._rows.tell(place, end)
            self._deliver(events)  # first: what fails below must not take them along
            if ending:
                self._drop(np.isin(self._places, places[last]))
        if not found and len(self._places):
            self._logits = self.engine.step(table.rows["token"][self._places])

    def _make_plan(self) -> Plan:
        places, seconds = self._places[~self._second], np.flatnonzero(self._second)
        entries = [self._rows.entries[place] for place in places.tolist()]
        choosers: list[tuple[Chooser, np.ndarray | None]] = []
        for kind, make in CHOOSERS.items():
            if kind not in self._choosers:
                self._choosers[kind] = make(self.constraint)
            own = [i for i, entry in enumerate(entries) if type(entry.request.chooser) is kind]
            if own:
                part = np.array(own) if len(own) < len(entries) else None
                choosers.append((self._choosers[kind], part))
        order = np.argsort(places)
        guided = order[np.searchsorted(places[order], self._places[seconds])]
        strength = [entries[i].request.chooser.guidance for i in guided]
        return Plan(places, choosers, guided, seconds, np.array(strength, np.float32))

    def _choose(self, plan: Plan) -> int:
        """A token for every row, by its chooser; how many have ended."""
        table, logits = self._rows.table, self._logits
        if len(plan.guided):
            mixed = logits[~self._second]
            mixed[plan.guided] = guide(mixed[plan.guided], logits[plan.seconds], plan.strength)
            logits = mixed
        ended = 0
        for chooser, part in plan.choosers:
            whole = part is None
            ended += chooser.choose(
                table,
                plan.places if whole else plan.places[part],
                logits if whole else logits[part],
            )
        return ended

    def _burst(self, plan: Plan) -> tuple[int, int] | None:
        """Let the device choose some tokens for every row: how many, and how many rows have ended;
        None where the host has to choose."""
        table, engine = self._rows.table, self.engine
        if self._device is None or not isinstance(engine, DeviceEngine):
            return None
        places, rows = plan.places, table.rows[plan.places]
        walk = rows["walk"]
        free = walk["at"] >= walk["known"] + (walk["bits"] > 0)
        free &= walk["span"] == walk["spans"]
        if not (free & rows["draw"]["grammar"]).all():
            return None
        leader, guidance = np.arange(len(self._places)), np.ones(len(self._places), np.float32)
        firsts = np.flatnonzero(~self._second)
        leader[plan.seconds] = firsts[plan.guided]
        guidance[firsts[plan.guided]] = plan.strength
        steps = int(min(BURST, walk["left"].max()))
        chosen, nats, self._logits = engine.decode_on_device(
            self._device.tables, self._logits, *self._device.places(table.states[self._places]),
            table.rows[self._places], leader, guidance, steps,
        )  # fmt: skip
        own = self.constraint
        tokens, ended = follow(
            own.spec, table, places, chosen[firsts], nats[firsts], own.vocabulary
        )
        return int(tokens), int(ended)
