"""Who may come in, and with how much: judged before a route sees the request.

A key is compared in constant time. A body is counted while it comes, whatever its header claims,
and has to come in time. A page of another site, whose script runs in a visitor's browser, reaches
no server on loopback: neither by its own name (`Origin`) nor by one that it lets point here
(`Host`).
"""

from __future__ import annotations

import asyncio
import hmac
import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jpeglm.serving.errors import Problem
from jpeglm.serving.metrics import Metrics
from jpeglm.serving.page import FILES
from jpeglm.serving.service import Service
from jpeglm.serving.settings import LOOPBACK

__all__ = ["Gate"]

SLOWEST = 60.0
"""Seconds in which a body has to be there."""
KNOWN = (
    *("/v1/images/generations", "/v1/images/edits", "/v1/images/scores", "/v1/images/traces"),
    *("/v1/models", "/health", "/metrics", "/"),
)
"""Paths that metrics tell apart."""
OPEN = {"/health", *FILES}
"""Paths that need no key: the studio's files hold nothing of anybody's, and it asks for one."""


class Gate:
    """An ASGI application around another."""

    def __init__(
        self, app: ASGIApp, service: Service, metrics: Metrics, origins: tuple[str, ...] = ()
    ) -> None:
        self.app, self.service, self.metrics, self.origins = app, service, metrics, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, status = Headers(scope=scope), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._judge(scope, headers)
        except Problem as problem:
            answer = JSONResponse(problem.to_dict(), problem.status, problem.headers)
            await answer(scope, receive, noted)
        else:
            drawing = scope["method"] == "POST"
            self.service.running += drawing
            try:
                await self.app(scope, _Body(receive, self.service.config.max_bytes), noted)
            finally:
                self.service.running -= drawing
        finally:
            path = scope["path"] if scope["path"] in KNOWN else "other"
            self.metrics.requests.labels(path, str(status or "gone")).inc()

    def _judge(self, scope: Scope, headers: Headers) -> None:
        config, host = self.service.config, headers.get("host", "")
        if config.host in LOOPBACK and _name(host) not in (*LOOPBACK, config.host):
            raise Problem(403, f"this server is reached as {config.host}, not as {host[:60]!r}")
        origin = headers.get("origin")
        if origin and origin not in self.origins and origin.partition("://")[2] != host:
            raise Problem(
                403, f"pages of {origin[:60]} may not use this server; start it with --cors for it"
            )
        if scope["path"] not in OPEN and config.api_key is not None:
            given = headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, b"Bearer " + config.api_key.encode()):
                raise Problem(
                    401,
                    "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if self.service.stopping and scope["method"] == "POST":
            raise Problem(503, "the server is stopping", headers={"Retry-After": "5"})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > config.max_bytes:
            raise _too_large(config.max_bytes)


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _too_large(most: int) -> Problem:
    return Problem(413, f"the request is larger than the {most / 1e6:g} MB allowed")


class _Body:
    """`receive` that counts: `Problem` 413 for more than `most` bytes, 408 for what comes late."""

    def __init__(self, receive: Receive, most: int) -> None:
        self.receive, self.most = receive, most
        self.bytes, self.whole = 0, False
        self.ends = time.monotonic() + SLOWEST

    async def __call__(self) -> Message:
        if self.whole:  # what comes now tells that the client has gone
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), self.ends - time.monotonic())
        except TimeoutError:
            raise Problem(408, f"the request was not there within {SLOWEST:g} s") from None
        self.bytes += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        if self.bytes > self.most:
            raise _too_large(self.most)
        return message
