"""Pictures to Parquet shards of canonical streams, on all cores, killable at any moment.

    source ──units──▶ worker: read ▸ decode once ▸ views ▸ Codec.encode ──▶ shard-00012.parquet

One unit makes one shard, written whole or not at all; a shard that exists is finished. Nothing in
a shard depends on the number of workers, on time or on what ran before, so a run that was killed
and started again leaves the same bytes as one that was not. With a tokenizer, token shards are
made from the Parquet shards afterwards: they can be added or replaced later.

Trade-off: a unit is the work that a kill loses and the memory that a worker holds; 256 pictures
are a few seconds and some megabytes.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from jpeglm.checkpoint import checkpoint_name
from jpeglm.codecs import make_codec
from jpeglm.codecs.images import MAX_PIXELS, holds_more
from jpeglm.config import InputError, Settings, check_seed, install
from jpeglm.data.shards import (
    FORMAT,
    SPLITS,
    TOKENIZER,
    Row,
    other_codec,
    read_meta,
    shard_path,
    token_meta,
    token_path,
    write_shard,
    write_token_shard,
)
from jpeglm.data.sources import LABELS, PREPARED, Item, Source, Unit, open_source
from jpeglm.data.views import views
from jpeglm.environment import cores
from jpeglm.files import (
    atomic_write,
    explain,
    printable,
    read_json,
    remove_halves,
    to_json,
    told,
    write_json,
)
from jpeglm.folders import DATA, claim, kind_of, quoted, same
from jpeglm.folders import TOKENIZER as TOKENIZER_FOLDER

if TYPE_CHECKING:
    from jpeglm.codecs.base import Codec
    from jpeglm.tokenizer import Tokenizer

EXTRA = re.compile(r"jpeglm\[(\w+)\]")
"""How the reason of a rejected file names the extra that would read it."""
Progress = Callable[[int, int, int], None]
"""Called with pictures done, pictures in all, streams written."""


@dataclass(frozen=True)
class PrepareConfig(Settings):
    """What decides the content of the shards, together with the codec and the source.

    crops: 0 codes each picture whole, N takes N random crops of it instead; of a film, N for each
        length of a clip.
    clips: of a film, only so many from its beginning; 0: all.
    min_scale: side of the smallest crop, as a share of the largest that fits in the picture; a
        crop is never smaller than the codec's own size unless the picture is.
    validation: share of the pictures held out, chosen by content.
    split: `hash` as above (a saved DatasetDict keeps its own splits); `folder`: the first-level
        folders `train` and `validation` say it, and pictures elsewhere are set aside; or all
        pictures to `train` or `validation`.
    unit_size: pictures a shard. labels, column: see `open_source`. max_pixels: larger ones are set
        aside.
    """

    crops: int = 0
    clips: int = 0
    min_scale: float = 0.25
    validation: float = 0.05
    split: str = "hash"
    seed: int = 0
    unit_size: int = 256
    labels: str = "source"
    max_pixels: int = MAX_PIXELS
    column: str | None = None

    def __post_init__(self) -> None:
        if self.crops < 0:
            raise InputError(f"crops is {self.crops}; 0 means whole pictures, N means N crops")
        if self.clips < 0:
            raise InputError(f"clips is {self.clips}; 0 means all of a film, N the first N clips")
        if not 0 <= self.min_scale <= 1:
            raise InputError(f"min_scale is {self.min_scale}; it goes from 0 to 1")
        if not 0 <= self.validation < 1:
            raise InputError(f"validation is {self.validation}; it goes from 0 to below 1")
        if self.split not in ("hash", "folder", *SPLITS):
            choices = f"hash, folder, {' or '.join(SPLITS)}"
            raise InputError(f"split is {self.split!r}; choose {choices}")
        if self.unit_size < 1:
            raise InputError(f"unit_size is {self.unit_size}; it must be at least 1")
        if self.labels not in LABELS:
            raise InputError(f"labels is {self.labels!r}; choose one of {', '.join(LABELS)}")
        check_seed(self.seed)
        if self.max_pixels < 1:
            raise InputError(f"max_pixels is {self.max_pixels}; it must be at least 1")


def item_rows(item: Item, codec: Codec, config: PrepareConfig) -> list[Row]:
    """All rows of one picture or film; InputError if it cannot be read."""
    width, height = codec.config.width, codec.config.height
    split, media = views(item, codec.media, codec.config, config)
    return [Row(key, codec.encode(view), width, height, item.label, split) for key, view in media]


def prepare_unit(path: Path, unit: Unit, codec: Codec, config: PrepareConfig) -> dict[str, Any]:
    """Make one shard; returns the metadata that it carries."""
    rows: list[Row] = []
    rejected: list[dict[str, str]] = []
    pictures = dict.fromkeys(SPLITS, 0)
    animations = 0
    for item in unit.read():
        if not isinstance(item, Item):
            rejected.append(item._asdict())
            continue
        try:
            made = item_rows(item, codec, config)
        except ImportError:
            raise
        except InputError as error:
            rejected.append({"name": item.name, "reason": str(error)})
            continue
        except Exception as error:  # one strange file ends no run of a million
            reason = f"{type(error).__name__}: {told(error)}"
            rejected.append({"name": item.name, "reason": reason})
            continue
        rows += made
        animations += codec.media == "picture" and holds_more(item.data)
        pictures[made[0].split] += 1
    meta = {
        "codec": codec.to_dict(),
        "fingerprint": codec.fingerprint,
        "count": unit.count,
        "pictures": pictures,
        "streams": {name: sum(row.split == name for row in rows) for name in SPLITS},
        "bytes": {
            name: sum(len(row.stream) for row in rows if row.split == name) for name in SPLITS
        },
        "rejected": rejected,
        "animations": animations,
    }
    write_shard(path, rows, meta)
    return meta


_worker: dict[str, Any] = {}
"""Of a worker process: what `_start_worker` built once for all its units."""


def _start_worker(
    codec: dict[str, Any], out: Path, config: PrepareConfig, tokenizer: Path | None
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and finishes the shard
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        if codec["codec"] == "vq":
            import torch

            torch.set_num_threads(1)  # one core a worker
    _fill_worker(codec, out, config, tokenizer)


def _fill_worker(
    codec: dict[str, Any], out: Path, config: PrepareConfig, tokenizer: Path | None
) -> None:
    _worker.update(codec=make_codec(codec, out), config=config)
    if tokenizer is not None:
        from jpeglm.tokenizer import Tokenizer

        _worker["tokenizer"] = Tokenizer.load(tokenizer)


def _end_with(parent: Any) -> None:
    """A pool's workers outlive a killed parent: they wait on a pipe that they hold open."""
    parent.join()
    os._exit(1)


def _prepare_job(path: Path, unit: Unit) -> dict[str, Any]:
    return prepare_unit(path, unit, _worker["codec"], _worker["config"])


def _token_job(path: Path, shard: Path) -> None:
    write_token_shard(path, shard, _worker["tokenizer"], _worker["codec"].fingerprint)


def _run(
    job: Callable[..., Any], tasks: list[tuple[Any, ...]], workers: int, initial: tuple[Any, ...]
) -> Iterator[Any]:
    """Results of job(*task) as they come; a failure lets running tasks end and drops the rest."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        if tasks:
            _fill_worker(*initial)
        yield from (job(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of torch, numba
    with ProcessPoolExecutor(workers, context, _start_worker, initial) as pool:
        waiting: set[Future[Any]] = set()
        queue = iter(tasks)
        try:
            while True:
                for task in queue:
                    waiting.add(pool.submit(job, *task))
                    if len(waiting) >= 2 * workers:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed (by the system, if memory ran out); run the same "
                "command again, with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Hold the folder against a second run at the same time; a kill lets it go."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs write the same shards, each of them whole
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another jpeglm prepare is writing to {out}; wait for it") from error
        except OSError:
            pass  # a network file system without locks; as on Windows
        yield
    finally:
        os.close(handle)


def prepare(
    source: Path,
    out: Path,
    codec: Codec,
    config: PrepareConfig | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write shards of `source` into the folder `out`; returns what dataset.json holds.

    Run again after a kill, it goes on. `workers`: processes, all cores by default. Raises
    InputError if nothing can be read, if `out` was begun with other settings, or if the disk is
    full; finished shards stay.
    """
    import pyarrow  # noqa: F401 (what is missing is told before the work, not after it)

    config = config or PrepareConfig()
    source, out = Path(source), Path(out)
    if tokenizer is not None and tokenizer.codec.fingerprint != codec.fingerprint:
        changed = other_codec(tokenizer.codec.to_dict(), codec)
        like = quoted(checkpoint_name(tokenizer.folder)) if tokenizer.folder else "its folder"
        raise InputError(
            f"the tokenizer was trained for codec settings of its own ({changed}); "
            f"give its settings with --like {like}, or train another tokenizer"
        )
    if out.exists() and source.exists() and same(out, source) and kind_of(out) is None:
        raise InputError(f"{out} holds the pictures; give another folder for the shards")
    claim(out, DATA, inputs=[source])
    films = codec.media == "clip"
    listed = open_source(
        source,
        unit_size=config.unit_size,
        labels=config.labels,
        films=films,
        column=config.column,
    )
    workers = workers or cores()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, out) from error
    with _only_one(out):
        _begin(out, listed, codec, config)
        remove_halves(out, DATA.names)
        metas = _write_shards(out, listed, codec, config, workers, progress)
        info = _finish(out, source, listed, codec, config, metas)
        if tokenizer is not None:
            _write_tokens(out, len(metas), codec, config, tokenizer, workers)
    return info


def _begin(out: Path, source: Source, codec: Codec, config: PrepareConfig) -> None:
    """Write prepare.json, or refuse a folder that was begun otherwise."""
    now: dict[str, Any] = {
        "source": source.digest,
        "codec": codec.to_dict(),
        "settings": config.to_dict(),
    }
    path = out / PREPARED
    if not path.exists():
        if any(out.glob("shard-*")):
            raise InputError(f"{out} holds shards but no {PREPARED}; give another folder")
        for name, data in codec.files().items():
            atomic_write(out / name, data)
        write_json(path, {"format": FORMAT, **now})
        return
    before = read_json(path)
    changes = [
        f"{name} {before.get(part, {}).get(name)} is now {value}"
        for part in ("codec", "settings")
        for name, value in now[part].items()
        if before.get(part, {}).get(name) != value
    ]
    if before.get("source") != now["source"]:
        changes.append("the pictures of the source are not the same")
    if changes:
        raise InputError(
            f"{out} was begun with other settings: {'; '.join(changes)}; run it as before or give "
            "another folder"
        )


def _write_shards(
    out: Path,
    source: Source,
    codec: Codec,
    config: PrepareConfig,
    workers: int,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Make the shards that are missing; the metadata of all, in their order."""
    paths = [shard_path(out, index) for index in range(len(source.units))]
    missing = [(path, unit) for path, unit in zip(paths, source.units) if not path.exists()]
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
    for meta in _run(_prepare_job, missing, workers, (codec.to_dict(), out, config, None)):
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
    codec: Codec,
    config: PrepareConfig,
    metas: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write rejected.jsonl and dataset.json; InputError if no picture at all could be read."""
    from jpeglm import __version__

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
            f"none of the {source.count} {what} in {printable(source.root)} could be read "
            f"({rejected[0]['reason']}); all reasons are in {out / 'rejected.jsonl'}"
        )
    warnings = []
    for name in SPLITS:
        wanted = config.split in (name, "folder") or (
            config.split == "hash" and config.validation > 0
        )
        if wanted and not totals["pictures"][name]:
            warnings.append(f"no picture fell into {name}; prepare more pictures")
    extras = Counter(found for entry in rejected for found in EXTRA.findall(entry["reason"]))
    for extra, count in extras.items():
        warnings.append(
            f"{count} files were set aside for want of the extra {extra}, prepare into another "
            f"folder once it is there; {install(extra)}"
        )
    info = {
        "format": FORMAT,
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
        "warnings": warnings,
        "versions": {"jpeglm": __version__, "pillow": Image.__version__},
    }
    write_json(out / "dataset.json", info)
    return info


def _write_tokens(
    out: Path,
    shards: int,
    codec: Codec,
    config: PrepareConfig,
    tokenizer: Tokenizer,
    workers: int,
) -> None:
    """Token shards beside the Parquet shards; those of another tokenizer are replaced."""
    home = out / TOKENIZER
    remove_halves(home, TOKENIZER_FOLDER.names)
    tokenizer.save(home)
    tasks = []
    for index in range(shards):
        path = token_path(out, index)
        if path.exists() and token_meta(path).get("tokenizer") == tokenizer.fingerprint:
            continue
        tasks.append((path, shard_path(out, index)))
    # Few shards are done before a second process has started.
    workers = max(1, min(workers, math.ceil(len(tasks) / 8)))
    for _ in _run(_token_job, tasks, workers, (codec.to_dict(), out, config, home)):
        pass
