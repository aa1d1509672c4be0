"""Cost of a token against its position, and memory of a sequence.

    python benchmarks/lengths.py [--model 10m] [--precision int8]

Steps of one sequence at several lengths, random weights. Beside each rate stands what the model's
arithmetic predicts: the step at the shortest length, and what one core takes longer to read weights
and keys and values of that length once, measured in the same run. Memory of the cache is counted
and compared with 2 x layers x KV heads x head width x 4 (float32) or 2 bytes a position.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from common import finish, memory, read_all, spread
from generation import random_checkpoint

from jpeglm.generation.engine_cpu import CpuEngine

STEPS = 24


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
    width = 4 if arguments.precision == "float32" else 2
    per_position = 2 * shape["num_hidden_layers"] * shape["hidden_size"] * width
    read = {}
    for length in arguments.lengths:
        data = memory(engine.weight_bytes + length * per_position)
        read[length] = seconds(lambda data=data: read_all(data))[2]
    ids = np.random.default_rng(0).integers(0, 1000, max(arguments.lengths))
    rates, cache = {}, {}
    base = 0.0
    for length in arguments.lengths:
        engine.add([ids[:length]])
        times = []
        for _ in range(STEPS):
            start = time.perf_counter()
            engine.step(np.array([7]))
            times.append(time.perf_counter() - start)
        engine.remove(np.array([0]))
        times.sort()
        median = times[len(times) // 2]
        base = base or median
        predicted = base + read[length] - read[arguments.lengths[0]]
        rates[f"position {length}"] = spread([1 / one for one in times])
        rates[f"position {length}, predicted"] = spread([1 / predicted])
        cache[f"position {length}"] = spread([engine.cache_bytes / length])
    cache["counted"] = spread([float(per_position)])
    title = f"{arguments.model}, {arguments.precision}"
    finish(
        "lengths",
        "tokens/s, and bytes a position",
        {f"{title}, tokens/s": rates, f"{title}, cache bytes a position": cache},
    )


if __name__ == "__main__":
    main()
