"""The verbs that answer others: serve, and studio, which is serve with a page opened."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from typing import Annotated, Any

import typer

from jpeglm.cli.common import DeviceOption, EngineOption, JsonOption, PrecisionOption, note, show
from jpeglm.cli.options import Fields, complete_checkpoint, with_options
from jpeglm.serving.settings import ServeConfig

verbs = typer.Typer()

KEY = "JPEGLM_API_KEY"
CheckpointsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Checkpoint folder, a run's, or a shipped one's name; again for more models, of "
        "which the first is used where a request names none. Default: all that ship and draw "
        "pictures.",
        autocompletion=complete_checkpoint,
    ),
]
CorsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="A site whose pages may use the server, as https://example.org; again for more.",
    ),
]
SETTINGS = Fields("serving.settings:ServeConfig", given=True)


@verbs.command()
@with_options(config=SETTINGS)
def serve(
    *,
    checkpoint: CheckpointsOption = None,
    config: dict[str, object],
    cors: CorsOption = None,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve models over HTTP, in the shape of OpenAI's image API, until Ctrl-C or SIGTERM.

    /v1/images/generations and /v1/images/edits draw, /v1/images/scores reads, /v1/models lists;
    /health, /metrics; / is the studio, a page for people. Requests join the batch that is running.
    docs/serve.md shows clients.

    \b
    Examples:
      jpeglm serve
      jpeglm serve --checkpoint photos --checkpoint runs/train --port 8080
      jpeglm serve --host 0.0.0.0 --queue 200 --cors https://example.org
    """
    _serve(checkpoint, config, cors, as_json, engine=engine, precision=precision, device=device)


@verbs.command()
@with_options(config=SETTINGS)
def studio(
    *,
    checkpoint: CheckpointsOption = None,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    config: dict[str, object],
    cors: CorsOption = None,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch models draw: serve them, and open the page that shows it, until Ctrl-C.

    The page completes photos, fills holes, draws from words or nothing, MCU by MCU; it is `serve`
    with a browser opened, and asks no other computer.

    \b
    Examples:
      jpeglm studio
      jpeglm studio --checkpoint runs/train --port 8080
      jpeglm studio --no-open
    """
    _serve(
        checkpoint, config, cors, as_json, open_, engine=engine, precision=precision, device=device
    )


def _serve(
    checkpoints: list[str] | None,
    config: dict[str, object],
    origins: list[str] | None,
    as_json: bool,
    opened: bool = False,
    **options: Any,
) -> None:
    """opened: in a browser; options: what `load` takes."""
    import fastapi  # noqa: F401  # each of the extra's: what is missing is said before anything
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401

    from jpeglm.serving.server import Server, listen
    from jpeglm.serving.service import Service

    settings = ServeConfig.from_dict({"api_key": os.environ.get(KEY) or None, **config})
    door = listen(settings.host, settings.port)
    with door:
        service = Service(settings, checkpoints or (), **options)
        try:
            host, port = door.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            models = list(service.models)
            lines = [f"{', '.join(models)} at {url}/v1", f"the studio at {url}"]
            show({"url": url, "models": models}, as_json, lines)
            sys.stdout.flush()
            if opened:  # aside, for a browser of the terminal takes this one until it is left
                threading.Thread(target=_open, args=(url,), daemon=True).start()
            Server(service, origins or ()).run(sockets=[door])
        finally:
            service.close()
    note("stopped")


def _open(url: str) -> None:
    if not webbrowser.open(url):
        note(f"no browser is found here; open {url} in one")
