"""What bfloat16 and int8 cost in bits: the shipped models on pictures that they never saw.

    python benchmarks/precisions.py [--pictures 128]

Bits of every token after BOS, EOS included, as `jpeglm evaluate likelihood` counts them, of crops
of the test pictures (tests/pictures, in no training data) at each model's size, on the engine that
draws. The cache of bfloat16 and int8 holds keys and values in bfloat16; int8 rounds what its
weights are multiplied with too. In brackets 95 % intervals over pictures.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import finish
from tokens import crops

from jpeglm.evaluation.likelihood import interval, model_bits, ratio_interval
from jpeglm.generation.loading import load
from jpeglm.generation.weights_cpu import PRECISIONS
from jpeglm.places import shipped_checkpoint


def measure(name: str, pictures: int) -> dict[str, dict[str, float]]:
    """Bits a picture, and by how many per cent they exceed float32's."""
    rows: dict[str, Any] = {}
    base = None
    for precision in PRECISIONS:
        model = load(shipped_checkpoint(name), precision=precision)
        config = model.codec.config
        streams = [model.codec.encode(p) for p in crops(pictures, config.width, config.height)]
        bits = model_bits(model, streams)[0]
        low, high = interval(bits)
        rows[f"{precision}, bits a picture"] = {
            "median": float(bits.mean()), "least": low, "most": high
        }  # fmt: skip
        if base is None:
            base = bits
            continue
        low, high = (100 * (ratio - 1) for ratio in ratio_interval(bits, base))
        more = 100 * (bits.sum() / base.sum() - 1)
        rows[f"{precision}, % more than float32"] = {"median": more, "least": low, "most": high}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=128)
    arguments = parser.parse_args()
    tables = {name: measure(name, arguments.pictures) for name in ("photos", "cifar10")}
    finish("precisions", "mean", tables, compare=False)


if __name__ == "__main__":
    main()
