"""The studio: static files that call this server's API, beside it in the same process.

They are read once, when the server starts, and found by their exact names: what a path may spell
beyond them is nowhere. Their policy lets a browser load and ask this server alone, and run no
script or style that is written into a page.
"""

from __future__ import annotations

from hashlib import sha256
from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request, Response

from jpeglm.places import asset

__all__ = ["FILES", "POLICY", "add_page"]

FOLDER = Path(__file__).parent / "studio"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INSIDE = Path(str(resources.files("jpeglm.inspection"))) / "page"
"""What shows a picture's inside, here and in `jpeglm inspect --html`, with colours and type."""
FILES = {
    "/": FOLDER / "index.html",
    "/studio/astronaut.jpg": asset("astronaut.jpg"),
    **{f"/studio/{file.name}": file for file in FOLDER.iterdir() if file.suffix != ".html"},
    **{f"/studio/inside/{file.name}": file for file in INSIDE.iterdir()},
}
"""Path → file."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again, and answered by 304
}


def add_page(app: FastAPI) -> None:
    """Routes of `FILES`."""
    for path, file in FILES.items():
        _add(app, path, file.read_bytes(), TYPES[file.suffix])


def _add(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    headers = {**HEADERS, "ETag": f'"{sha256(content).hexdigest()[:16]}"'}

    @app.api_route(path, methods=["GET", "HEAD"])
    async def static(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)
