"""The verb that answers others: serve."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from jpeglm.cli.common import DeviceOption, EngineOption, JsonOption, PrecisionOption, note, show
from jpeglm.cli.options import Fields, complete_checkpoint, with_options
from jpeglm.serving.settings import ServeConfig

verbs = typer.Typer()

KEY = "JPEGLM_API_KEY"


@verbs.command()
@with_options(config=Fields("serving.settings:ServeConfig", given=True))
def serve(
    *,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint folder, a run's, or a shipped one's name; again for more models, of "
            "which the first is used where a request names none. Default: all that ship and draw "
            "pictures.",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    config: dict[str, object],
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A site whose pages may use the server, as https://example.org; again for more.",
        ),
    ] = None,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve models over HTTP, in the shape of OpenAI's image API, until Ctrl-C or SIGTERM.

    /v1/images/generations and /v1/images/edits draw, /v1/models lists; /health, /metrics. Requests
    join the batch that is running. docs/serve.md shows clients.

    \b
    Examples:
      jpeglm serve
      jpeglm serve --checkpoint photos --checkpoint runs/train --port 8080
      jpeglm serve --host 0.0.0.0 --queue 200 --cors https://example.org
    """
    import fastapi  # noqa: F401  # each of the extra's: what is missing is said before anything
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401

    from jpeglm.serving.server import Server, listen
    from jpeglm.serving.service import Service

    settings = ServeConfig.from_dict({"api_key": os.environ.get(KEY) or None, **config})
    door = listen(settings.host, settings.port)
    with door:
        service = Service(
            settings, checkpoint or (), engine=engine, precision=precision, device=device
        )
        try:
            host, port = door.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            models = list(service.models)
            show({"url": url, "models": models}, as_json, [f"{', '.join(models)} at {url}/v1"])
            sys.stdout.flush()
            Server(service, cors or ()).run(sockets=[door])
        finally:
            service.close()
    note("stopped")
