"""Cost of a token against its position, and memory of a sequence.

    python benchmarks/lengths.py [--model 10m] [--precision int8]

Steps of one sequence at several lengths, random weights. Beside each rate stands what the model's
arithmetic predicts: the step at the shortest length, and the bytes of keys and values that are read
more, at the rate at which one core reads memory in the same run. Memory of the cache is counted and
compared with 2 layers x KV heads x head width x 4 bytes a position.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from common import finish, spread
from generation import random_checkpoint

from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.kernels import njit

STEPS = 24


@njit(fastmath=True)
def _read(data):
    total = np.float32(0)
    for i in range(len(data)):
        total += data[i]
    return total


def seconds(call, repeats: int = 5) -> list[float]:
    call()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="10m")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 500, 2000, 4000, 12000])
    arguments = parser.parse_args()
    longest = max(arguments.lengths) + STEPS + 1
    with tempfile.TemporaryDirectory() as home:
        checkpoint = random_checkpoint(arguments.model, Path(home, "model"))
        engine = CpuEngine(
            checkpoint.config, checkpoint.weights, arguments.precision, longest, threads=1
        )
    shape = checkpoint.config
    per_position = 2 * shape["num_hidden_layers"] * shape["hidden_size"] * 4
    data = np.zeros(64 << 20, np.float32)
    bandwidth = data.nbytes / seconds(lambda: _read(data))[2]
    ids = np.random.default_rng(0).integers(0, 1000, max(arguments.lengths))
    rates, memory = {}, {}
    base = 0.0
    for length in arguments.lengths:
        engine.start([ids[:length]])
        times = []
        for _ in range(STEPS):
            start = time.perf_counter()
            engine.step(np.array([7]))
            times.append(time.perf_counter() - start)
        times.sort()
        median = times[len(times) // 2]
        base = base or median
        predicted = base + (length - arguments.lengths[0]) * per_position / bandwidth
        rates[f"position {length}"] = spread([1 / one for one in times])
        rates[f"position {length}, predicted"] = spread([1 / predicted])
        memory[f"position {length}"] = spread([engine.cache_bytes / length])
    memory["counted"] = spread([float(per_position)])
    title = f"{arguments.model}, {arguments.precision}"
    finish(
        "lengths",
        "tokens/s, and bytes a position",
        {f"{title}, tokens/s": rates, f"{title}, cache bytes a position": memory},
    )


if __name__ == "__main__":
    main()
