"""The routes. What a client is told is in `schemas`, what is done for it in `service`."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from jpeglm import __version__
from jpeglm.config import InputError, shorten
from jpeglm.files import parse_json
from jpeglm.serving.batcher import Ticket
from jpeglm.serving.drawing import Drawing, Tally
from jpeglm.serving.errors import Problem
from jpeglm.serving.gate import Gate
from jpeglm.serving.metrics import Metrics
from jpeglm.serving.page import add_page
from jpeglm.serving.schemas import (
    Edit,
    Generation,
    Scoring,
    event,
    response,
    score,
    usage,
)
from jpeglm.serving.service import Events, Service

__all__ = ["add_errors", "make_app"]

FIELDS = 64
"""Parts of a form, at most."""
FILES = 2
"""Of them files: image and mask."""
T = TypeVar("T")


def make_app(service: Service, origins: Sequence[str] = ()) -> FastAPI:
    """The ASGI application of a service. origins: sites whose pages may use it (CORS)."""
    metrics = Metrics(service)
    # From outside in: CORS answers what browsers ask beforehand, which carries no key.
    cors = [
        Middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"]
        )
    ]
    gate = Middleware(Gate, service=service, metrics=metrics, origins=tuple(origins))
    app = FastAPI(
        title="jpeglm",
        version=__version__,
        docs_url=None,  # their scripts come from another site
        redoc_url=None,
        openapi_url=None,
        middleware=[*(cors if origins else []), gate],
    )
    add_errors(app)
    add_page(app)

    @app.get("/health")
    async def health() -> Response:
        stopping = service.stopping
        return JSONResponse({"status": "stopping" if stopping else "ok"}, 503 if stopping else 200)

    @app.get("/metrics")
    async def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> Response:
        rows = [served.to_dict() for served in service.models.values()]
        return JSONResponse({"object": "list", "data": rows})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return JSONResponse(service.served(name).to_dict())

    @app.post("/v1/images/generations")
    async def generations(request: Request) -> Response:
        if _kind(request) != "application/json":
            raise Problem(415, "send the request as JSON, with Content-Type: application/json")
        asked, warning = Generation.read(parse_json(await request.body(), "the request"))
        return await _answer(service, metrics, request, asked, warning)

    @app.post("/v1/images/edits")
    async def edits(request: Request) -> Response:
        fields, files = await _form(request)
        asked, warning = Edit.read(fields, spelt=True)
        return await _answer(service, metrics, request, asked, warning, **files)

    @app.post("/v1/images/scores")
    async def scores(request: Request) -> Response:
        fields, files = await _form(request)
        asked, warning = Scoring.read(fields, spelt=True)
        ticket, events = service.ask(asked)
        with closing(ticket):
            begin = service.begin(ticket, asked, warning, **files)
            drawing = await _unless_gone(request, begin)
            body = await _unless_gone(request, _score(service, drawing, ticket, events))
        return JSONResponse(body, headers=NO_STORE)

    @app.post("/v1/images/traces")
    async def traces(request: Request) -> Response:
        fields, files = await _form(request)
        asked, warning = Scoring.read(fields, spelt=True)
        if files["mask"]:
            raise InputError("mask has no meaning here; leave it out")
        ticket, _ = service.ask(asked)  # its room among those that wait
        with closing(ticket):
            found = await _unless_gone(request, service.trace(asked, files["image"]))
        told = {"warning": warning} if warning else {}
        return JSONResponse(found | told, headers=NO_STORE)

    return app


def add_errors(app: FastAPI) -> None:
    """Whatever goes wrong in a route is an answer in OpenAI's shape, with one sentence."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return JSONResponse(error.to_dict(), error.status, error.headers)

    @app.exception_handler(InputError)
    async def wrong(request: Request, error: InputError) -> Response:
        return JSONResponse(_refused(error).to_dict(), 400)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path[:60]}"
        found = Problem(error.status_code, f"{where}: {error.detail}")
        return JSONResponse(found.to_dict(), error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # which nobody reads

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse(_told(error).to_dict(), 500)


def _refused(error: InputError) -> Problem:
    """What a user is meant to see; a sentence about a field begins with its name."""
    word = str(error).partition(" ")[0]
    return Problem(400, str(error), word if word in {*Edit.names(), "image", "mask"} else None)


def _told(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, InputError):
        return _refused(error)
    return Problem(500, "something is wrong with the server, which has written down what")


async def _form(request: Request) -> tuple[dict[str, Any], dict[str, bytes | None]]:
    """A form's fields, and its files `image` and `mask`."""
    if _kind(request) != "multipart/form-data":
        raise Problem(415, "send the request as a form, with Content-Type: multipart/form-data")
    _, options = parse_options_header(request.headers["content-type"])
    last = b"--%b--" % options.get(b"boundary", b"")
    whole = last in await request.body()
    async with request.form(max_files=FILES, max_fields=FIELDS) as form:
        if not whole:  # the parser passes over a part that does not end
            raise InputError("the form ends before its last boundary; send all of it")
        files = {name: await _file(form, name) for name in ("image", "mask")}
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise InputError(f"{shorten(name)} was sent more than once; one is taken")
            if name not in ("image", "image[]", "mask", "mask[]"):
                fields[name] = value
    return fields, files


def _kind(request: Request) -> str:
    """What a body is said to be, in small letters, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _file(form: FormData, name: str) -> bytes | None:
    """A form's file of that name; None where there is none."""
    found = form.getlist(name) + form.getlist(f"{name}[]")
    if len(found) > 1:
        raise InputError(f"{name} was sent {len(found)} times; one is taken")
    if not found:
        return None
    if not isinstance(found[0], UploadFile):
        raise InputError(f"{name} must be a file, it is a text")
    return await found[0].read()


async def _answer(
    service: Service,
    metrics: Metrics,
    request: Request,
    asked: Generation,
    warning: str,
    **files: bytes | None,
) -> Response:
    begun = time.monotonic()
    ticket, events = service.ask(asked)
    begin = service.begin(ticket, asked, warning, **files)
    if asked.stream:
        try:
            drawing = await _unless_gone(request, begin)
        except BaseException:
            ticket.close()
            raise
        parts = _events(service, metrics, drawing, asked, ticket, events, begun)
        return _Stream(ticket, parts)
    with closing(ticket):
        drawing = await _unless_gone(request, begin)
        body = await _unless_gone(request, _draw(service, drawing, asked, ticket, events))
    metrics.seconds.observe(time.monotonic() - begun)
    return JSONResponse(body, headers=NO_STORE)


NO_STORE = {"Cache-Control": "no-store"}


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is given up, and ClientDisconnect raised, if the client hangs up."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def _more(drawing: Drawing) -> dict[str, Any]:
    """What that API's answers lack."""
    return {"seed": drawing.seed} | _warned(drawing)


def _warned(drawing: Drawing) -> dict[str, Any]:
    return {"warning": drawing.warning} if drawing.warning else {}


async def _score(
    service: Service, drawing: Drawing, ticket: Ticket, events: Events
) -> dict[str, Any]:
    """What a picture costs, and the picture as the model reads it."""
    tally = Tally(drawing)
    async with aclosing(service.follow(ticket, events, drawing)) as told:
        async for one in told:
            tally.add(one)
    if not math.isfinite(tally.bits):
        raise InputError(f"{drawing.served.name} gives this picture no finite number of bits")
    file = await service.aside(drawing.file, tally.ids)
    used = usage(*drawing.input_tokens, 0)
    return score(file, drawing.served.size, used, **tally.to_dict(), **_warned(drawing))


async def _draw(
    service: Service, drawing: Drawing, asked: Generation, ticket: Ticket, events: Events
) -> dict[str, Any]:
    """The whole answer."""
    form = asked.output_format, asked.output_compression
    files, drawn = [b""] * len(drawing.requests), 0
    async with aclosing(service.follow(ticket, events, drawing)) as told:
        async for one in told:
            files[one.request.tag] = await service.aside(drawing.file, one.ids, *form)
            drawn += len(one.ids)
    used = usage(*drawing.input_tokens, drawn)
    return response(asked, files, drawing.served.size, used, **_more(drawing))


class _Stream(StreamingResponse):
    """Server-sent events; the ticket is closed however it ends, even before it begins."""

    def __init__(self, ticket: Ticket, parts: AsyncGenerator[str, None]) -> None:
        super().__init__(parts, media_type="text/event-stream", headers=NO_STORE)
        self.ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with closing(self.ticket):
            await super().__call__(scope, receive, send)


async def _events(
    service: Service,
    metrics: Metrics,
    drawing: Drawing,
    asked: Generation,
    ticket: Ticket,
    events: Events,
    begun: float,
) -> AsyncGenerator[str, None]:
    """Pictures on the way, spread evenly over what is to be drawn, and at last each whole one; or,
    where it comes to nothing, `error`."""
    size, form = drawing.served.size, (asked.output_format, asked.output_compression)
    kind = "image_edit" if isinstance(asked, Edit) else "image_generation"
    tallies = [Tally(drawing) for _ in drawing.requests]
    shown = dict.fromkeys(range(asked.n), 0)
    span = drawing.served.codec.units - drawing.kept
    try:
        async with aclosing(service.follow(ticket, events, drawing)) as told:
            async for one in told:
                tag = one.request.tag
                tally = tallies[tag]
                tally.add(one)
                due = (one.units - drawing.kept) * (asked.partial_images + 1) // max(span, 1)
                if not one.ended and min(due, asked.partial_images) <= shown[tag]:
                    continue
                file = await service.aside(drawing.file, tally.ids, *form)
                more = {**_more(drawing), "index": tag, **tally.to_dict()}
                if one.ended:
                    name = f"{kind}.completed"
                    more["usage"] = usage(*drawing.input_tokens, len(tally.ids))
                else:
                    name = f"{kind}.partial_image"
                    more |= {"partial_image_index": shown[tag], "units": one.units}
                    if not any(shown.values()):
                        metrics.first.observe(time.monotonic() - begun)
                    shown[tag] += 1
                yield _sent(name, event(name, asked, file, size, **more))
        metrics.seconds.observe(time.monotonic() - begun)
    except Exception as error:
        yield _sent("error", _told(error).to_dict())
        if not isinstance(error, InputError | Problem):
            raise


def _sent(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
