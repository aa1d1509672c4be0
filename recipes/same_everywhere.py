"""Does a seed give the same picture on every machine? Asked as far as one machine can.

    python recipes/same_everywhere.py [--quick] [--out docs/results/same-everywhere.json]

A process each for numpy's levels (NPY_DISABLE_CPU_FEATURES) and for the kernels of lesser
processors (LLVM told of fewer features), down to what has AVX but neither AVX2 nor AVX-512. Each
takes the shipped photo model in float32, bfloat16 and int8 through ten sequences: one at a time and
in batches, on one thread and on several, prompts whole and token by token, must give equal rows in
the process, and all processes the same hash of the rows and of pictures drawn. `--quick` leaves out
the kernels, which take a minute each to compile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NUMPY = {
    "numpy as it is": "",
    "numpy without AVX-512": "X86_V4 AVX512F AVX512CD AVX512_SKX",
    "numpy without AVX2": "X86_V3 X86_V4 AVX512F AVX512CD AVX512_SKX AVX2 FMA3",
}
KERNELS = {
    "kernels without VNNI": ("avx512vnni",),
    "kernels without AVX-512": ("avx512", "avxvnni", "amx"),
    "kernels without AVX2": ("avx512", "avxvnni", "amx", "avx2", "vaes", "vpclmulqdq"),
}
"""Beginnings of the features that LLVM is not told of; FMA stays, it is part of the definition."""
LENGTHS = (40, 3, 17, 64, 65, 128, 1, 90, 33, 70)


def lower(features: tuple[str, ...]) -> None:
    """Let llvmlite and numba see a lesser processor; before either is imported elsewhere."""
    from llvmlite import binding

    found = binding.get_host_cpu_features()
    for name in found:
        if name.startswith(features):
            found[name] = False
    binding.get_host_cpu_features = lambda: found
    os.environ["NUMBA_CPU_NAME"] = "generic"
    os.environ["NUMBA_CPU_FEATURES"] = found.flatten()


def rows() -> dict[str, Any]:
    """Hashes of logits and pictures, and whether every way of computing a row gave the same."""
    import numpy as np

    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.generation.engine_cpu import CpuEngine
    from jpeglm.generation.matmul import FUSED, GROUP
    from jpeglm.generation.model import Model
    from jpeglm.places import shipped_checkpoint

    opened = load_checkpoint(shipped_checkpoint())
    rng = np.random.default_rng(0)
    most = opened.tokenizer.vocab_size
    sequences = [rng.integers(0, most, length) for length in LENGTHS]
    told: dict[str, Any] = {"fused": bool(FUSED), "inputs side by side": GROUP, "rows": 0}
    for precision in ("float32", "bfloat16", "int8"):
        engine = CpuEngine(opened.config, opened.weights, precision, threads=1)
        singly = [walk(engine, [ids])[0] for ids in sequences]
        same = True
        for threads in (1, 2, 4):
            other = CpuEngine(opened.config, opened.weights, precision, threads=threads)
            for group in (sequences[:4], sequences):
                for ours, reference in zip(walk(other, group), singly):
                    same &= bool((ours == reference).all())
            for ids, reference in zip(sequences, singly):
                same &= bool((other.add([ids])[0] == reference[-1]).all())
                other.remove(np.array([0]))
        told["rows"] += sum(map(len, singly))
        drawn = Model(opened, engine).generate(4, seed=1)
        told[precision] = {
            "same": same,
            "logits": digest(b"".join(row.tobytes() for row in singly)),
            "pictures": digest(b"".join(drawn.streams)),
            "bits": digest(np.array(drawn.bits).tobytes()),
        }
    return told


def walk(engine: Any, sequences: list[Any]) -> list[Any]:
    """Logits [tokens, V] of each sequence, computed beside each other token by token."""
    import numpy as np

    found: list[list[Any]] = [[] for _ in sequences]
    logits = engine.add([ids[:1] for ids in sequences])
    living = np.arange(len(sequences))
    for place in range(1, max(map(len, sequences)) + 1):
        for row, number in zip(logits, living):
            found[number].append(row.copy())
        on = np.array([len(sequences[number]) > place for number in living])
        engine.remove(np.flatnonzero(~on))
        living = living[on]
        if not len(living):
            break
        logits = engine.step(np.array([sequences[number][place] for number in living]))
    return [np.stack(rows) for rows in found]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def ask(name: str, numpy_without: str, features: tuple[str, ...], cache: Path) -> dict[str, Any]:
    """`rows` in a process of its own."""
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": numpy_without}
    if features:
        environment["NUMBA_CACHE_DIR"] = str(cache / name.replace(" ", "-"))
    words = [sys.executable, "-W", "ignore", __file__, "--one", json.dumps(features)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-1500:]}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "results" / "same-everywhere.json"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        features = tuple(json.loads(arguments.one))
        if features:
            lower(features)
        print(json.dumps(rows()))
        return 0
    from jpeglm.environment import environment
    from jpeglm.files import write_json

    asked: dict[str, tuple[str, tuple[str, ...]]] = {k: (v, ()) for k, v in NUMPY.items()}
    if not arguments.quick:
        asked |= {name: ("", features) for name, features in KERNELS.items()}
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, (without, features) in asked.items():
            found[name] = ask(name, without, features, Path(cache))
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    first = next(iter(found.values()))
    precisions = ("float32", "bfloat16", "int8")
    holds = all(
        told[p]["same"] and told[p] == first[p] for told in found.values() for p in precisions
    )
    result = {"holds": holds, "asked": found, "machine": environment("numpy", "numba", "llvmlite")}
    write_json(arguments.out, result)
    print("equal to the bit" if holds else "NOT equal")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
