"""`jpeglm prepare`, pictures a second against worker processes.

    python benchmarks/preparing.py [--pictures 2048] [--workers 1 2] [--repeats 3]

Photographs of 500 × 375 in JPEG, as ImageNet's are on average, in folders: to one 256 × 256 stream
each, which is what the paper trains on, and to 24 crops of 64 × 64. What a run costs before its
first shard (processes, kernels, listing) is taken off: a small folder's time from a large one's.
`Pillow alone` does the least that such work can be in Python, in a pool of as many processes: open,
crop, resize, save as JPEG of the same quality, nothing judged, counted, split or kept. Ray
(extra cluster) runs on this machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, spread
from PIL import Image
from tokens import crops

from jpeglm.codecs import make_codec
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig

SIZE = 500, 375
KINDS = {"256 x 256, one crop": (256, 1), "64 x 64, 24 crops": (64, 24)}
"""Side of the streams, and how many a picture gives."""
UNIT = 64
"""Pictures a shard, so that small runs have some for each worker."""


def make(folder: Path, count: int) -> Path:
    """A folder of so many photographs, no two of them equal."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, photo in enumerate(crops(min(count, 256), *SIZE)):
        for again in range(number, count, 256):
            x, y = rng.integers(0, 40, 2)
            box = (int(x), int(y), SIZE[0] - int(rng.integers(40)), SIZE[1] - int(rng.integers(40)))
            photo.resize(SIZE, Image.Resampling.BILINEAR, box).save(
                folder / f"{again:06d}.jpg", quality=90
            )
    return folder


def by_pillow(task: tuple[Path, int, int]) -> int:
    """Bytes of the crops of one file."""
    file, side, count = task
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    rng, size = np.random.default_rng(0), 0
    for _ in range(count):
        edge = int(rng.integers(min(image.size) // 4, min(image.size) + 1)) if count > 1 else 375
        x = int(rng.integers(0, image.width - edge + 1))
        y = int(rng.integers(0, image.height - edge + 1))
        out = io.BytesIO()
        image.resize((side, side), Image.Resampling.LANCZOS, (x, y, x + edge, y + edge)).save(
            out, "JPEG", quality=25
        )
        size += out.tell()
    return size


def pillow_alone(folder: Path, side: int, count: int, workers: int) -> None:
    tasks = [(file, side, count) for file in sorted(folder.iterdir())]
    if workers == 1:
        for task in tasks:
            by_pillow(task)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(by_pillow, tasks, UNIT)


def ours(folder: Path, side: int, count: int, workers: int, engine: str = "local") -> None:
    codec = make_codec({"codec": "jpeg", "width": side, "height": side})
    config = PrepareConfig(crops=count if count > 1 else 0, unit_size=UNIT)
    with tempfile.TemporaryDirectory(dir=folder.parent) as home:
        out = Path(home) / "out"
        told = prepare(folder, out, codec, config, workers=workers, engine=engine)
        assert told["streams"]["train"] > 0


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """Why Ray cannot be asked, or nothing."""
    if importlib.util.find_spec("ray") is None:
        yield "not installed"
        return
    import ray

    ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False)
    try:
        yield ""
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=2048, help="more in the large folder")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    tables: dict[str, dict[str, dict[str, float]]] = {}
    with ExitStack() as held:
        home = Path(held.enter_context(tempfile.TemporaryDirectory()))
        why = held.enter_context(cluster(max(arguments.workers)))
        small = make(home / "small", 2 * UNIT)
        large = make(home / "large", 2 * UNIT + arguments.pictures)
        for title, (side, count) in KINDS.items():
            calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
            for workers in arguments.workers:
                some = f"{workers} worker{'s' if workers > 1 else ''}"
                calls[f"jpeglm, {some}"] = ours, (side, count, workers)
                calls[f"Pillow alone, {some}"] = pillow_alone, (side, count, workers)
            if not why:
                most = max(arguments.workers)
                calls[f"jpeglm --engine ray, {most} workers"] = ours, (side, count, most, "ray")
            found: dict[str, list[float]] = {name: [] for name in calls}
            for turn in range(1 + arguments.repeats):
                for name, (call, words) in calls.items():
                    seconds = []
                    for folder in (small, large):
                        began = time.perf_counter()
                        call(folder, *words)
                        seconds.append(time.perf_counter() - began)
                    if turn:  # the first compiles, and fills the disk's cache
                        found[name].append(arguments.pictures / (seconds[1] - seconds[0]))
            tables[title] = {name: spread(values) for name, values in found.items()}
    finish("preparing", "pictures/s", tables, {"Ray": why} if why else None)


if __name__ == "__main__":
    main()
