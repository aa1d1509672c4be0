"""OpenAI's /v1/images/generations in front of a vLLM engine, whose tokens our plug-in keeps legal.

    pip install 'jpeglm[vllm,serve]'
    python recipes/vllm_server.py runs/photos/model [--port 8001] [--engine '{"dtype": "float32"}']

A client gets what `jpeglm serve` gives: whole JPEG files, in requests and errors of the same shape.
Only new pictures are drawn here; edits, streams, scores and guidance (which runs a model twice a
token) are the own server's. vLLM brings what that lacks: tensor parallelism, paged caches, float8.
Temperature, top-k and top-p act on what the grammar has left (docs/integrations.md).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# Nothing here may bring numba: processes that vLLM starts import this file, and on a CPU without
# Triton its engine fails where numba came first (0.32).
from jpeglm.config import InputError, Sampling, install, shorten
from jpeglm.places import checkpoint_folder

if TYPE_CHECKING:
    from fastapi import FastAPI

    from jpeglm.checkpoint import Checkpoint
    from jpeglm.serving.schemas import Generation

MOST = 64
"""Pictures of a request."""
PATIENCE = 10
"""Seconds in which the engine's processes may end by themselves."""


class Pictures:
    """A checkpoint whose tokens a vLLM engine names."""

    def __init__(self, engine: Any, checkpoint: Checkpoint, name: str) -> None:
        self.engine, self.checkpoint, self.name = engine, checkpoint, name
        self.tokenizer, config = checkpoint.tokenizer, checkpoint.codec.config
        self.size = f"{config.width}x{config.height}"  # type: ignore[attr-defined]

    def check(self, asked: Generation) -> None:
        """InputError for what the own server alone can do."""
        if asked.model not in (None, self.name):
            raise InputError(f"model is {asked.model}; this server has {self.name} alone")
        if asked.size not in ("auto", self.size):
            raise InputError(f"size is {asked.size}; {self.name} draws {self.size}, or give auto")
        if asked.n > MOST:
            raise InputError(f"n is {asked.n}; it must be from 1 to {MOST}")
        if asked.stream or asked.guidance not in (None, 1):
            what = "stream" if asked.stream else "guidance"
            raise InputError(f"{what} has no meaning behind vLLM; `jpeglm serve` has it")

    async def draw(self, asked: Generation, warning: str) -> dict[str, Any]:
        """The answer to a request."""
        from vllm import SamplingParams

        from jpeglm.serving.images import written
        from jpeglm.serving.schemas import response, usage

        self.check(asked)
        tokenizer, prompt = self.tokenizer, asked.prompt.strip() or None
        text = prompt if tokenizer.text else None
        label = prompt if tokenizer.n_classes and not text else None
        if prompt and label is text is None:
            unheard = f"{self.name} knows neither words nor classes: the prompt changes nothing"
            warning = "; ".join(filter(None, (warning, unheard)))
        head = tokenizer.head(label, text).tolist()
        room = self.checkpoint.config["max_position_embeddings"] - len(head)
        given = {name: value for name, value in asked.sampling.items() if value is not None}
        how = Sampling(**self.checkpoint.sampling(begun=False) | given)
        seed = secrets.randbelow(1 << 31) if asked.seed is None else asked.seed

        async def one(number: int) -> list[int]:
            settings = SamplingParams(
                temperature=how.temperature, top_k=how.top_k, top_p=how.top_p, min_p=how.min_p,
                max_tokens=room, seed=seed + number, detokenize=False,
            )  # fmt: skip
            request = {"prompt_token_ids": head}
            async for found in self.engine.generate(request, settings, uuid.uuid4().hex):
                last = found
            return list(last.outputs[0].token_ids)

        drawn = await asyncio.gather(*map(one, range(asked.n)))
        files = []
        for ids in drawn:
            if ids[-1] != tokenizer.eos or len(ids) == 1:  # as the plug-in ends a request at once
                raise InputError("the prompt leaves no room for a picture; shorten it")
            stream = tokenizer.decode_stream(np.array([*head, *ids[:-1]]))
            form = asked.output_format, asked.output_compression
            files.append(written(self.checkpoint.codec, stream, *form))
        used = usage(len(head), 0, sum(map(len, drawn)))
        more = {"seed": seed} | ({"warning": warning} if warning else {})
        return response(asked, files, self.size, used, **more)


def make_app(pictures: Pictures) -> FastAPI:
    """The routes: the model's name, and new pictures."""
    from fastapi import FastAPI, Request

    from jpeglm.files import parse_json
    from jpeglm.serving.app import add_errors
    from jpeglm.serving.schemas import Generation

    @asynccontextmanager
    async def engine(app: FastAPI) -> AsyncIterator[None]:
        yield  # uvicorn ends this process by the signal that it was sent once the block is left
        end(pictures.engine)

    app = FastAPI(
        title="jpeglm behind vLLM", docs_url=None, redoc_url=None, openapi_url=None, lifespan=engine
    )
    add_errors(app)

    async def models() -> dict[str, Any]:
        row = {"id": pictures.name, "object": "model", "owned_by": "jpeglm", "size": pictures.size}
        return {"object": "list", "data": [row]}

    async def generations(request: Any) -> dict[str, Any]:
        asked, warning = Generation.read(parse_json(await request.body(), "the request"))
        return await pictures.draw(asked, warning)

    generations.__annotations__["request"] = Request
    app.get("/v1/models")(models)
    app.post("/v1/images/generations")(generations)
    return app


def end(engine: Any) -> None:
    """Stop the engine and the processes that it has begun: its own way leaves them running where
    it is stopped while they are at work (0.32)."""
    import psutil

    begun = psutil.Process().children(recursive=True)
    engine.shutdown()
    for process in psutil.wait_procs(begun, timeout=PATIENCE)[1]:
        process.kill()


def judged(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """(checkpoint's folder, the engine's arguments); InputError for all that can be told before an
    engine takes its minutes to start."""
    for module, extra in (("vllm", "vllm"), ("fastapi", "serve"), ("uvicorn", "serve")):
        if find_spec(module) is None:
            raise InputError(f"this needs {module}, which is not installed; {install(extra)}")
    folder = checkpoint_folder(arguments.checkpoint)
    if not (folder / "codec.json").is_file() or not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no checkpoint of jpeglm; it needs config.json, codec.json")
    try:
        options = json.loads(arguments.engine)
    except ValueError as error:
        raise InputError(f"--engine is {shorten(arguments.engine)}, no JSON: {error}") from error
    if not isinstance(options, dict) or {"model", "skip_tokenizer_init"} & options.keys():
        raise InputError(
            f"--engine is {shorten(arguments.engine)}; give a JSON object of vLLM's arguments, "
            "without model and skip_tokenizer_init"
        )
    try:
        with socket.create_server((arguments.host, arguments.port)):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen at {arguments.host}:{arguments.port}: {error}") from error
    return folder, options


async def serve(folder: Path, options: dict[str, Any], host: str, port: int) -> None:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        chosen = AsyncEngineArgs(model=str(folder), skip_tokenizer_init=True, **options)
    except TypeError as error:
        raise InputError(f"--engine has what this vLLM does not know: {error}") from error
    engine = AsyncLLM.from_engine_args(chosen)
    import uvicorn

    from jpeglm.checkpoint import load_checkpoint

    name = Path(folder).resolve().name
    app = make_app(Pictures(engine, load_checkpoint(folder), name))
    config = uvicorn.Config(app, host, port, log_level="warning")
    print(f"{name} at http://{host}:{port}/v1", flush=True)
    await uvicorn.Server(config).serve()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="a folder, or the name of one that ships")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--engine", default="{}", help="vLLM's engine arguments, as JSON")
    arguments = parser.parse_args()
    try:
        folder, options = judged(arguments)
        asyncio.run(serve(folder, options, arguments.host, arguments.port))
    except InputError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
