"""Pictures to Parquet shards of canonical streams, on all cores, killable at any moment.

    source ──units──▶ worker: read ▸ decode once ▸ crops ▸ Codec.encode ──▶ shard-00012.parquet

One unit makes one shard, written whole or not at all; a shard that exists is finished. Nothing in
a shard depends on the number of workers, on time or on what ran before, so a run that was killed
and started again leaves the same bytes as one that was not. With a tokenizer, token shards are
made from the Parquet shards afterwards: they can be added or replaced later.

Trade-off: a unit is the work that a kill loses and the memory that a worker holds; 256 pictures
are a few seconds and some megabytes.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from jpeglm.config import InputError, install
from jpeglm.data.balance import crops_by_folder
from jpeglm.data.jobs import Setup, shard_job, token_job
from jpeglm.data.open import other_codec
from jpeglm.data.pool import run
from jpeglm.data.settings import PoolConfig, PrepareConfig
from jpeglm.data.shards import read_meta, shard_path
from jpeglm.data.sources import PREPARED, Source, open_source
from jpeglm.data.splits import ANEW, SPLITS
from jpeglm.data.token_index import INDEX, index_of, knows, write_index
from jpeglm.data.token_shards import TOKENIZER, token_meta, token_path
from jpeglm.environment import cores
from jpeglm.files import (
    atomic_write,
    explain,
    printable,
    read_json,
    remove_halves,
    to_json,
    write_json,
)
from jpeglm.folders import DATA, DATA_FORMAT, claim, kind_of, only_one, quoted, same
from jpeglm.folders import TOKENIZER as TOKENIZER_FOLDER
from jpeglm.places import checkpoint_name
from jpeglm.remote import is_remote, names_in, place, reaching, there

if TYPE_CHECKING:
    from jpeglm.codecs.base import Codec
    from jpeglm.tokenizer import Tokenizer

EXTRA = re.compile(r"jpeglm\[(\w+)\]")
"""How the reason of a rejected file names the extra that would read it."""
Progress = Callable[[int, int, int], None]
"""Called with pictures done, pictures in all, streams written."""


def prepare(
    source: Path,
    out: Path,
    codec: Codec,
    config: PrepareConfig | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    workers: int | None = None,
    engine: str = PoolConfig.engine,
    address: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write shards of `source` into the folder `out`; returns what dataset.json holds.

    Run again after a kill, it goes on. workers, engine, address: as in `PoolConfig`. Raises
    InputError if nothing can be read, if `out` was started with other settings, or if the disk is
    full; finished shards stay.
    """
    import pyarrow  # noqa: F401 (what is missing is told before the work, not after it)

    config, pool = config or PrepareConfig(), PoolConfig(workers, engine, address)
    source, out = place(source), place(out)
    near = [] if is_remote(source) else [source]
    if is_remote(out) and codec.files():
        raise InputError(
            f"{out} lies elsewhere, and the codec {codec.name} needs its own files beside the "
            "shards; give a folder of this machine"
        )
    if tokenizer is not None and tokenizer.codec.fingerprint != codec.fingerprint:
        changed = other_codec(tokenizer.codec.to_dict(), codec)
        like = quoted(checkpoint_name(tokenizer.folder)) if tokenizer.folder else "its folder"
        raise InputError(
            f"the tokenizer was trained for codec settings of its own ({changed}); "
            f"give its settings with --like {like}, or train another tokenizer"
        )
    where = there if is_remote(out) else Path.exists
    alike = same(out, source) if near and not is_remote(out) else str(out) == str(source)
    if alike and where(out) and kind_of(out) is None:
        raise InputError(f"{out} holds the pictures; give another folder for the shards")
    claim(out, DATA, inputs=near)
    films = codec.media == "clip"
    listed = open_source(
        # Processes of other machines begin in other folders.
        source if pool.engine == "local" else source.absolute(),
        unit_size=config.unit_size,
        labels=config.labels,
        films=films,
        column=config.column,
        caption=config.caption,
        caption_column=config.caption_column,
    )
    if not is_remote(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, out) from error
    with only_one(out, "jpeglm prepare"):
        crops = crops_by_folder(listed, config)
        _begin(out, listed, codec, config)
        remove_halves(out, DATA.names)
        setup = Setup(codec.to_dict(), out, config, crops=crops)
        metas = _write_shards(out, listed, setup, pool, progress)
        info = _finish(out, source, listed, setup, codec, metas)
        if tokenizer is not None:
            _write_tokens(out, len(metas), codec, config, tokenizer, pool)
    return info


def _begin(out: Path, source: Source, codec: Codec, config: PrepareConfig) -> None:
    """Write prepare.json, or refuse a folder that was begun otherwise."""
    now: dict[str, Any] = {
        "source": source.digest,
        "codec": codec.to_dict(),
        "settings": config.to_dict(),
    }
    path, names = out / PREPARED, names_in(out)
    if PREPARED not in names:
        if any(name.startswith("shard-") for name in names):
            raise InputError(f"{out} holds shards but no {PREPARED}; give another folder")
        for name, data in codec.files().items():
            atomic_write(out / name, data)
        write_json(path, {"format": DATA_FORMAT, **now})
        return
    before = read_json(path)
    changes = []
    for part, usual in (("codec", {}), ("settings", vars(PrepareConfig()))):
        was, wanted = usual | before.get(part, {}), usual | now[part]
        changes += [
            f"{name} {was.get(name)} is now {wanted.get(name)}"
            for name in {**wanted, **was}
            if was.get(name) != wanted.get(name)
        ]
    if before.get("source") != now["source"]:
        changes.append("the pictures of the source are not the same")
    if changes:
        raise InputError(
            f"{out} was started with other settings: {'; '.join(changes)}; run it as before "
            "or give another folder"
        )


def _write_shards(
    out: Path,
    source: Source,
    setup: Setup,
    pool: PoolConfig,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Make the shards that are missing; the metadata of all, in their order."""
    paths, names = [shard_path(out, index) for index in range(len(source.units))], names_in(out)
    missing = [(path, unit) for path, unit in zip(paths, source.units) if path.name not in names]
    done = streams = 0

    def report(meta: dict[str, Any]) -> None:
        nonlocal done, streams
        done += meta["count"]
        streams += sum(meta["streams"].values())
        if progress:
            progress(done, source.count, streams)

    there = set(paths) - {path for path, _ in missing}
    for path in sorted(there):
        report(_made_before(path))
    for meta in run(shard_job, missing, pool, setup):
        report(meta)
    return [read_meta(path) for path in paths]


def _made_before(path: Path) -> dict[str, Any]:
    """The metadata of a shard that is there already."""
    meta = read_meta(path)
    sums = [meta.get(part) for part in ("pictures", "streams", "bytes")]
    whole = isinstance(meta.get("count"), int) and isinstance(meta.get("rejected"), list)
    if not whole or not all(isinstance(part, dict) and {*part} == {*SPLITS} for part in sums):
        raise InputError(f"{path} is damaged; delete it and run the same command again")
    return meta


def _finish(
    out: Path,
    given: Path,
    source: Source,
    setup: Setup,
    codec: Codec,
    metas: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write rejected.jsonl and dataset.json; InputError if no picture at all can be used."""
    from jpeglm import __version__

    config = setup.config
    rejected = [found._asdict() for found in source.rejected]
    rejected += [entry for meta in metas for entry in meta["rejected"]]
    lines = "".join(to_json(entry) + "\n" for entry in rejected)
    atomic_write(out / "rejected.jsonl", lines.encode())
    totals = {
        part: {name: sum(meta[part][name] for meta in metas) for name in SPLITS}
        for part in ("pictures", "streams", "bytes")
    }
    if not sum(totals["pictures"].values()):
        what = "films" if codec.media == "clip" else "pictures"
        raise InputError(
            f"none of the {source.count} {what} in {printable(given)} can be used "
            f"({rejected[0]['reason']}); all reasons are in {out / 'rejected.jsonl'}"
        )
    warnings = []
    for name in SPLITS:
        wanted = config.split in (name, "folder") or (
            config.split == "hash" and config.validation > 0
        )
        if wanted and not totals["pictures"][name]:
            warnings.append(f"no picture fell into {name}; {ANEW}")
    extras = Counter(found for entry in rejected for found in EXTRA.findall(entry["reason"]))
    for extra, count in extras.items():
        warnings.append(
            f"{count} files were set aside for want of the extra {extra}, prepare into another "
            f"folder once it is there; {install(extra)}"
        )
    captions = sum(meta.get("captions", 0) for meta in metas)
    asked = config.caption == "names" or config.caption_column is not None
    if asked and not captions:
        warnings.append("no picture has a caption; see --caption and --caption-column")
    info = {
        "format": DATA_FORMAT,
        "version": 1,
        "codec": codec.to_dict(),
        "fingerprint": codec.fingerprint,
        "settings": config.to_dict(),
        "source": {
            "path": printable(given),
            "pictures": source.count,
            "digest": source.digest,
            "splits": source.splits if config.split == "hash" else {},
        },
        "shards": len(metas),
        **totals,
        "rejected": len(rejected),
        "passed_over": dict(source.passed.most_common()),
        "animations": sum(meta.get("animations", 0) for meta in metas),
        "label_names": source.label_names,
        **(_captions(captions, totals["pictures"], source) if captions else {}),
        **({"crops_by_folder": dict(setup.crops)} if setup.crops else {}),
        "warnings": warnings,
        "versions": {"jpeglm": __version__, "pillow": PIL.__version__},
    }
    write_json(out / "dataset.json", info)
    return info


def _captions(count: int, pictures: dict[str, int], source: Source) -> dict[str, Any]:
    """How many pictures have captions, and where those are from."""
    return {
        "captions": {
            "pictures": count,
            "without": sum(pictures.values()) - count,
            "from": sorted(source.caption_from),
        }
    }


def _write_tokens(
    out: Path,
    shards: int,
    codec: Codec,
    config: PrepareConfig,
    tokenizer: Tokenizer,
    pool: PoolConfig,
) -> None:
    """Token shards beside the Parquet shards, and their index; those of another tokenizer are
    replaced."""
    home, names = out / TOKENIZER, names_in(out)
    remove_halves(home, TOKENIZER_FOLDER.names)
    tokenizer.save(home)
    tasks = []
    for index in range(shards):
        path = token_path(out, index)
        if path.name in names and token_meta(path)["tokenizer"] == tokenizer.fingerprint:
            continue
        tasks.append((path, shard_path(out, index)))
    if not tasks and knows(out, tokenizer.fingerprint, codec.fingerprint, shards):
        return
    if INDEX in names:  # it knows shards that are no more
        with reaching(out):
            (out / INDEX).unlink()
    # Few shards are done before a second process has started.
    if pool.engine == "local":
        pool = PoolConfig(max(1, min(pool.workers or cores(), math.ceil(len(tasks) / 8))))
    with ExitStack() as held:
        if is_remote(home):  # workers read it where they are
            home = Path(held.enter_context(tempfile.TemporaryDirectory()))
            tokenizer.save(home)
        for _ in run(token_job, tasks, pool, Setup(codec.to_dict(), out, config, home)):
            pass
    paths = (token_path(out, index) for index in range(shards))
    write_index(out, index_of(paths, codec.fingerprint))
