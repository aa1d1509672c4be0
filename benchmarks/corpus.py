"""What a training process holds of its data, against their size, and how long it waits for a batch.

    python benchmarks/corpus.py --millions 2 20 200 --out docs/results/corpus.json

Corpora of so many million tokens are made by the writers that `jpeglm prepare --tokenizer` has:
2048 crops of photos at 64 px, whose streams come again and again. Two processes then take batches
of each at the same time, without torch, once from token shards and once from Parquet, of which
tokens are made in memory. Read from the system (/proc/PID/smaps_rollup), in MB: `own`, memory that
is the process's alone; `mapped`, pages of files that it has touched, which the system may take
back; `share`, its proportional share of both (PSS); `most`, the largest resident size so far. All
above what a process holds before it opens the data. Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine
from tokens import crops

from jpeglm.data.loader import TrainingLoader, load_tokens
from jpeglm.data.shards import Row, shard_path, write_shard
from jpeglm.data.token_index import index_of, write_index
from jpeglm.data.token_shards import TOKENIZER, token_path, write_token_shard
from jpeglm.files import write_json
from jpeglm.folders import DATA_FORMAT
from jpeglm.places import shipped_checkpoint
from jpeglm.tokenizer import Tokenizer

ROWS = 6144
"""Streams of a shard: 256 pictures of 24 crops."""
PROCESSES = 2
BATCHES = 300
BATCH_TOKENS = 8192


def make(folder: Path, millions: float) -> dict[str, int]:
    """A prepared folder of so many million tokens; its streams, bytes of them, and shards."""
    tokenizer = Tokenizer.load(shipped_checkpoint())
    codec = tokenizer.codec
    size = codec.config.width, codec.config.height
    made = [codec.encode(picture) for picture in crops(2048, *size)]
    mean = np.mean([len(tokenizer.encode_stream(stream)) + 2 for stream in made])
    count, rng = round(millions * 1e6 / mean), np.random.default_rng(0)
    meta = {"codec": codec.to_dict(), "fingerprint": codec.fingerprint}
    parts, total = [range(at, min(at + ROWS, count)) for at in range(0, count, ROWS)], 0
    for number, part in enumerate(parts):
        drawn = [made[place] for place in rng.integers(len(made), size=len(part))]
        rows = [Row(str(key), stream, *size, -1, "train") for key, stream in zip(part, drawn)]
        path = shard_path(folder, number)
        write_shard(path, rows, meta)
        write_token_shard(token_path(folder, number), path, tokenizer, codec.fingerprint)
        total += sum(map(len, drawn))
    paths = [token_path(folder, number) for number in range(len(parts))]
    write_index(folder, index_of(paths, codec.fingerprint))
    tokenizer.save(folder / TOKENIZER)
    counts = {"train": count, "validation": 0}
    record = {"format": DATA_FORMAT, "label_names": [], "shards": len(parts), "streams": counts}
    write_json(folder / "dataset.json", record | meta)
    return {"streams": count, "stream_bytes": total, "shards": len(parts)}


def held(pid: int | str = "self") -> dict[str, float]:
    """MB of a process by the benchmark's words."""
    found: dict[str, float] = {}
    for file in (f"/proc/{pid}/smaps_rollup", f"/proc/{pid}/status"):
        for line in Path(file).read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = float(value[:-3]) * 1024 / 1e6
    return {
        "own": found["Anonymous"],
        "mapped": found["Rss"] - found["Anonymous"],
        "share": found["Pss"],
        "most": found["VmHWM"],
    }


def take(folder: Path, tokens: bool, packing: str) -> None:
    """A process that trains as far as its data are concerned; it waits to be looked at, twice."""
    tokenizer = None if tokens else Tokenizer.load(folder / TOKENIZER)
    if tokenizer is not None:  # kernels are compiled before
        tokenizer.encode_stream(tokenizer.codec.encode(crops(1, 64, 64)[0]))
    print("{}", flush=True)
    input()
    start = time.perf_counter()
    found = load_tokens(folder, tokenizer, "train")
    loader = TrainingLoader(found, packing, BATCH_TOKENS, 1024)
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - start
    for _ in range(BATCHES):
        next(batches)
    later = (time.perf_counter() - start - first) / BATCHES
    told = {"tokens": found.total, "first_batch_s": first, "batch_s": later}
    print(json.dumps(told), flush=True)
    input()


def measure(folder: Path, *words: str) -> dict[str, float]:
    """Of the first of several processes that do the same at the same time."""
    command = [sys.executable, __file__, "--take", str(folder), *words]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    told: list[dict[str, Any]] = []
    looked: list[dict[str, float]] = []
    for _ in range(2):
        told = [json.loads(one.stdout.readline()) for one in running]  # type: ignore[union-attr]
        looked.append(held(running[0].pid))
        for one in running:
            one.stdin.write("\n")  # type: ignore[union-attr]
            one.stdin.flush()  # type: ignore[union-attr]
    for one in running:
        one.communicate()
    before, after = looked
    return told[0] | {name: round(after[name] - before[name], 1) for name in after}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=float, nargs="+", default=[2, 20])
    parser.add_argument("--parquet", type=float, default=1e9, help="millions measured so at most")
    parser.add_argument("--packing", nargs="+", default=["pictures"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--take", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.take:
        take(arguments.take, arguments.how == "token shards", arguments.packing[0])
        return
    found = []
    for millions in arguments.millions:
        with tempfile.TemporaryDirectory() as home:
            about = make(Path(home), millions)
            for how in ("token shards", "Parquet")[: 1 + (millions <= arguments.parquet)]:
                if how == "Parquet":
                    for file in Path(home).glob("*tokens*.safetensors"):
                        file.unlink()
                for packing in arguments.packing:
                    row = about | {"how": how, "packing": packing}
                    row |= measure(Path(home), "--how", how, "--packing", packing)
                    found.append(row)
                    print(
                        f"{row['tokens'] / 1e6:7.1f} M tokens, {how:12}, {packing:8}: own "
                        f"{row['own']:6.1f} MB, mapped {row['mapped']:6.1f}, share "
                        f"{row['share']:6.1f}, most {row['most']:6.1f}; first batch after "
                        f"{row['first_batch_s']:.2f} s, others {1000 * row['batch_s']:.2f} ms",
                        flush=True,
                    )
    if arguments.out:
        write_json(arguments.out, {"rows": found, "machine": machine()})


if __name__ == "__main__":
    main()
