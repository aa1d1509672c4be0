"""What a worker of `prepare` builds once, and what it does, in whatever process it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jpeglm.codecs import make_codec
from jpeglm.data.encode import prepare_unit
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import Unit
from jpeglm.data.token_shards import write_token_shard


class Setup(NamedTuple):
    """What a worker builds once: the codec of these settings, whose weights lie in `folder`, and
    the tokenizer of a folder, if any; `crops` as `prepare_unit` takes them."""

    codec: dict[str, Any]
    folder: Path
    config: PrepareConfig
    tokenizer: Path | None = None
    crops: Mapping[str, int] = {}


_worker: dict[str, Any] = {}
"""Of a worker process: what `fill_worker` built once for all its units."""


def shard_job(path: Path, unit: Unit) -> dict[str, Any]:
    """Make a shard; returns its metadata."""
    return prepare_unit(path, unit, _worker["codec"], _worker["config"], _worker["crops"])


def token_job(path: Path, shard: Path) -> None:
    """Make a token shard of a shard."""
    write_token_shard(path, shard, _worker["tokenizer"], _worker["codec"].fingerprint)


def fill_worker(setup: Setup) -> None:
    """Build in this process what jobs need."""
    codec = make_codec(setup.codec, setup.folder)
    _worker.update(codec=codec, config=setup.config, crops=setup.crops)
    if setup.tokenizer is not None:
        from jpeglm.tokenizer import Tokenizer

        _worker["tokenizer"] = Tokenizer.load(setup.tokenizer)
