"""uvicorn with an end: SIGTERM or Ctrl-C lets running requests finish, for so long as is allowed.

Until then the door stays open, so that whoever still comes is told so (503) instead of finding
nobody. A second Ctrl-C ends at once.

uvicorn waits for ever for the head of a request that was begun. Here a connection that asks for
nothing is closed after a while, and the oldest of those at once where there are too many: they
would use up the process's file descriptors, and keep others out. So is one that takes nothing of
what it asked for, whose request would never end.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import uvicorn

from jpeglm.config import InputError
from jpeglm.serving.app import make_app
from jpeglm.serving.service import Service

__all__ = ["Server", "listen"]

FLUSH = 5
"""Seconds for answers that are written already to reach their readers."""
HEAD = 20.0
"""Seconds in which a connection has to send the head of a request, the first one or the next."""
IDLE = 256
"""Connections that may wait without a request; systems often allow a process 1,024 files."""
UNREAD = 60.0
"""Seconds in which a connection has to take something of what is written for it."""


class Server(uvicorn.Server):
    """Serves a service until it is stopped; `run` gives back control then."""

    def __init__(self, service: Service, origins: Sequence[str] = ()) -> None:
        config = service.config
        super().__init__(
            uvicorn.Config(
                make_app(service, origins),
                config.host,
                config.port,
                log_level="warning",
                lifespan="off",
                http="h11",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=FLUSH,
            )
        )
        self.service = service
        self._idle: dict[Any, float] = {}
        """Connections without a request, the oldest first, and since when."""
        self._unread: dict[Any, tuple[int, float]] = {}
        """Of connections, bytes that they have not taken, and since when it is so many."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service.stopping:
            super().handle_exit(sig, frame)
        else:
            self.service.stop()

    async def on_tick(self, counter: int) -> bool:
        if self.service.stopped and not self.should_exit:
            self.should_exit = True
            self.service.give_up()
        self._close_idle()
        self._end_unread()
        return await super().on_tick(counter)

    def _close_idle(self) -> None:
        now, idle = time.monotonic(), {}
        one: Any  # h11's, which has a cycle for its request
        for one in self.server_state.connections:
            if one.cycle is None or one.cycle.response_complete:
                idle[one] = self._idle.get(one, now)
        self._idle = dict(sorted(idle.items(), key=lambda item: item[1]))
        for number, (one, since) in enumerate(self._idle.items()):
            if now - since > HEAD or number < len(self._idle) - IDLE:
                one.transport.close()

    def _end_unread(self) -> None:
        """Also those that `close` waits for, until they have taken the rest."""
        now, unread = time.monotonic(), {}
        one: Any
        for one in self.server_state.connections:
            if left := one.transport.get_write_buffer_size():
                before, since = self._unread.get(one, (left, now))
                unread[one] = left, since if left == before else now
        self._unread = unread
        for one, (_, since) in unread.items():
            if now - since > UNREAD:
                one.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """A socket that others can connect to from now on; InputError where that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        door = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"port {port} of {host} cannot be listened on ({error.strerror or error}); give "
            "another --port or --host"
        ) from error
    # asyncio sees to it only for sockets that name their protocol: an answer's body would wait
    # 40 ms for the acknowledgement of its head.
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return door
