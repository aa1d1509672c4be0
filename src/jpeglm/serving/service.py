"""The models by name, and the way of a request: fields ▸ prompt ▸ batcher ▸ tokens ▸ files.

Pictures are opened, coded and written on two threads beside the event loop and the models' own, so
that a large upload keeps nobody waiting. The same fields and seed give the bytes of
`Model.generate` and `complete` or, of a picture that is a file of the codec already, of
`continue_stream`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from jpeglm.checkpoint import load_checkpoint
from jpeglm.checkpoint.shipped import list_models
from jpeglm.config import InputError, shorten
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.generation.requests import Event
from jpeglm.inspection.kinds import read_subject, trace_of
from jpeglm.inspection.tokens import read_choices
from jpeglm.inspection.trace import Subject
from jpeglm.places import checkpoint_folder, shipped_checkpoint
from jpeglm.serving.batcher import Batcher, Closed, Full, Ticket
from jpeglm.serving.drawing import Drawing, said_to, understand
from jpeglm.serving.errors import Problem
from jpeglm.serving.images import picture_of
from jpeglm.serving.schemas import Asked, Scoring
from jpeglm.serving.served import Served
from jpeglm.serving.settings import ServeConfig
from jpeglm.serving.warming import warm_up

__all__ = ["Events", "Service"]

T = TypeVar("T")
Events = asyncio.Queue[Event | Exception]


class Service:
    """checkpoints: folders or shipped names, the first one is used where a request names none;
    default all that ship and draw pictures. options: what `load` takes. InputError for a checkpoint
    that cannot be served."""

    def __init__(
        self, config: ServeConfig, checkpoints: Sequence[str] = (), **options: Any
    ) -> None:
        self.config = config
        self.stopping = False
        self.running = 0
        """Requests that are being answered."""
        self._deadline = 0.0
        self._hands = ThreadPoolExecutor(2, "pictures")
        self.models: dict[str, Served] = {}
        try:
            for given in checkpoints or _shipped():
                served = self._open(given, options)
                if served.name in self.models:
                    raise InputError(
                        f"two checkpoints are called {served.name}; rename one of their folders"
                    )
                self.models[served.name] = served
        except BaseException:
            self.close()
            raise

    def _open(self, given: str, options: dict[str, Any]) -> Served:
        folder = checkpoint_folder(given)
        name = _name(folder.resolve())
        codec = load_checkpoint(folder).codec
        if codec.media != "picture":
            return Served(name, folder, codec)
        model = load(folder, **options)
        assert isinstance(model, Model)
        warm_up(model)
        batcher = Batcher(model, self.config.rows, self.config.queue)
        return Served(name, folder, codec, model, batcher)

    # The way of a request.

    def served(self, name: str | None) -> Served:
        """The model of that name, by default the first; `Problem` 404."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Problem(
                404,
                f"there is no model {shorten(name)}; this server has {', '.join(self.models)}",
                "model",
                "model_not_found",
            )
        return self.models[name]

    async def aside(self, call: Callable[..., T], *arguments: Any) -> T:
        """`call(*arguments)` beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._hands, call, *arguments)

    def prepare(
        self,
        asked: Asked,
        warning: str = "",
        image: bytes | None = None,
        mask: bytes | None = None,
    ) -> Drawing:
        """`drawing.understand` with the request's model and this server's limits."""
        most = self.config.max_pixels
        return understand(self._drawing(asked), asked, warning, most, image, mask)

    def _drawing(self, asked: Asked) -> Served:
        """The model that a request is for; `Problem` 404, InputError."""
        served = self.served(asked.model)
        if served.model is None:
            raise InputError(
                f"{served.name} writes clips, which this API has no place for; draw them with "
                "`jpeglm generate` and `jpeglm complete`"
            )
        if asked.pictures > self.config.max_n:
            raise InputError(f"n is {asked.pictures}; it must be from 1 to {self.config.max_n}")
        return served

    def ask(self, asked: Asked) -> tuple[Ticket, Events]:
        """Room for a request's pictures, and the queue that their events will come through.
        `Problem` 404, 429 or 503, InputError."""
        loop = asyncio.get_running_loop()
        events: Events = asyncio.Queue()

        def tell(event: Event | Exception) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(events.put_nowait, event)

        batcher = self._drawing(asked).batcher
        assert batcher
        try:
            return batcher.ask(asked.pictures, tell), events
        except Full as full:
            raise Problem(429, str(full), headers={"Retry-After": str(full.seconds)}) from full
        except Closed as closed:
            raise Problem(503, str(closed)) from closed

    async def begin(
        self,
        ticket: Ticket,
        asked: Asked,
        warning: str = "",
        image: bytes | None = None,
        mask: bytes | None = None,
    ) -> Drawing:
        """`prepare` a request and hand it in. `Problem`, InputError."""

        def begin() -> Drawing:
            drawing = self.prepare(asked, warning, image, mask)
            ticket.hand_in(drawing.requests)
            return drawing

        try:
            return await self.aside(begin)
        except Closed as closed:
            raise Problem(503, str(closed)) from closed

    async def follow(
        self, ticket: Ticket, events: Events, drawing: Drawing
    ) -> AsyncGenerator[Event, None]:
        """The events of a request until all of it is drawn. `Problem` where it takes too long, or
        the server has to stop; InputError as the session has it."""
        ends, open_ = ticket.begun + self.config.timeout, len(drawing.requests)
        while open_:
            try:
                event = await asyncio.wait_for(events.get(), ends - time.monotonic())
            except TimeoutError:
                raise Problem(
                    504,
                    f"this was not drawn within {self.config.timeout:g} s; ask for fewer pictures, "
                    "or later",
                ) from None
            if isinstance(event, Closed):
                raise Problem(503, str(event))
            if isinstance(event, Exception):
                raise event
            if event.error:
                raise event.error
            open_ -= event.ended
            yield event

    async def trace(self, asked: Scoring, image: bytes | None) -> dict[str, Any]:
        """`inspection.kinds` of an upload; the model reads it between the steps of what is drawn.
        `Problem`, InputError."""
        served = self._drawing(asked)
        model, batcher = served.model, served.batcher
        assert model and batcher
        label, text = said_to(model, asked.prompt)
        if image is None:
            raise InputError("image is missing; send the picture as a form's file")

        def read() -> Subject:
            picture = picture_of(image, "image", self.config.max_pixels)
            return read_subject(model, image, label, text, picture)

        subject = await self.aside(read)
        try:
            pieces = batcher.aside(read_choices(model, subject.stream, label, text))
            choices = await asyncio.wait_for(asyncio.wrap_future(pieces), self.config.timeout)
        except Closed as closed:
            raise Problem(503, str(closed)) from closed
        except TimeoutError:
            raise Problem(504, f"this was not read within {self.config.timeout:g} s") from None
        return await self.aside(trace_of, model, subject, list(chain.from_iterable(choices)))

    # The end.

    def stop(self) -> None:
        """Take no new requests; those that run have `grace` seconds. A signal handler may do it."""
        self._deadline = time.monotonic() + self.config.grace
        self.stopping = True

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop and nothing runs any more, or not in time."""
        late = time.monotonic() >= self._deadline
        return self.stopping and (not self.running or late)

    def give_up(self) -> None:
        """Draw nothing more; whoever still waits is told."""
        self.stopping = True
        for served in self.models.values():
            if served.batcher:
                served.batcher.close()

    def close(self) -> None:
        """Give up what still runs, and end the threads."""
        self.give_up()
        self._hands.shutdown(cancel_futures=True)


def _shipped() -> list[str]:
    """All that ship and draw pictures, the default one first; clips have no place in this API, and
    need a package that may not be here."""
    first = shipped_checkpoint()
    folders = [one.folder for one in list_models() if one.media == "picture"]
    return [str(folder) for folder in sorted(folders, key=lambda folder: folder != first)]


def _name(folder: Path) -> str:
    """A folder's own or, where it is a run's model, the run's."""
    if folder.parent.name == "checkpoints":
        return folder.parents[1].name
    return folder.parent.name if folder.name == "model" else folder.name
