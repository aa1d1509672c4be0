"""What a client is told when it gets no picture: OpenAI's shape, one sentence inside."""

from __future__ import annotations

from typing import Any

__all__ = ["Problem"]

KINDS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    408: ("invalid_request_error", "too_slow"),
    413: ("invalid_request_error", "too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("rate_limit_error", "queue_full"),
    500: ("server_error", "server_error"),
    503: ("server_error", "stopping"),
    504: ("server_error", "timeout"),
}
"""Of a status, the error's type and code."""


class Problem(Exception):
    """An answer that is none.

    status: HTTP's; message: one sentence; param: the request's field that is to blame.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.kind, usual = KINDS.get(status, ("invalid_request_error", None))
        self.code, self.headers = code or usual, headers or {}

    def to_dict(self) -> dict[str, Any]:
        """The body."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }
