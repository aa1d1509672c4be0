"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from jpeglm.config import InputError, Settings, bounded

__all__ = ["ServeConfig"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeConfig(Settings):
    """Where a server listens, and its limits."""

    host: str = "127.0.0.1"
    """Address to listen on; the usual one is this machine's alone, 0.0.0.0 is everybody's."""
    port: int = bounded(8000, least=0, most=65535)
    """0 takes a free one."""
    rows: int = bounded(16, least=1, most=4096)
    """Pictures of a model that are drawn at a time."""
    queue: int = bounded(64, least=0, most=1_000_000)
    """Pictures of a model that may wait beside them; a request for more gets 429."""
    max_n: int = bounded(10, least=1, most=4096)
    """Pictures of a request."""
    max_megabytes: float = bounded(20.0, above=0.0, most=512.0)
    """Of a request, its uploads included."""
    max_megapixels: float = bounded(24.0, above=0.0, most=200.0)
    """Of an uploaded picture."""
    timeout: float = bounded(300.0, above=0.0, most=86400.0)
    """Seconds that a request may take, its waiting included."""
    grace: float = bounded(30.0, least=0.0, most=86400.0)
    """Seconds that running requests have to finish when the server is told to stop."""
    api_key: str | None = None
    """What clients must send. Others on this machine can read a command line: better set
    JPEGLM_API_KEY in the environment."""

    def __post_init__(self) -> None:
        self.check_bounds()
        if self.max_n > self.rows + self.queue:
            raise InputError(
                f"max_n is {self.max_n}, but there is room for {self.rows + self.queue} pictures; "
                "raise rows or queue"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise InputError("api_key must be visible ASCII characters, for it goes into a header")

    @property
    def max_bytes(self) -> int:
        """Of a request's body."""
        return int(self.max_megabytes * 1e6)

    @property
    def max_pixels(self) -> int:
        """Of an uploaded picture."""
        return int(self.max_megapixels * 1e6)
