"""How a model's pictures are drawn best: temperature, top-k, top-p, min-p, chosen by measurement.

    python recipes/sampling.py CHECKPOINT DATA [--use complete] [--name photos] [--limit 300]

On the validation pictures of prepared DATA, which the model never saw: each is completed from its
upper half (`--use complete`), or as many are drawn from nothing (`--use generate`), once for each
way of sampling. A way is judged beside the true pictures, as the codec codes them, by

    kid, frechet  ResNet-50's features (recipes/data/resnet50.py), with errors and intervals
    seam          mean step of luma across the borders of MCUs inside what is drawn, over that of
                  the true pictures: above 1 pieces do not fit each other, below 1 all is flat
    texture       mean deviation of luma inside an MCU, over that of the true pictures
    bits          of what was drawn under the model, a picture

Every way is drawn with the same seeds. Of a finalist's further `--seeds` the spread is told. The
result lies in docs/results/sampling-NAME-USE.json, and a sheet of the ways beside the true pictures
in docs/figures.

    python recipes/sampling.py CHECKPOINT DATA --best-of 4 …

asks another question of the checkpoint's own way: whether the model's bits tell which of so many
candidates is best. Judged are the likeliest, the middle and the unlikeliest one of each, and those
that are taken as they come, once for each candidate; docs/results/best-of-NAME-USE.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from holes import RESNET50
from PIL import Image
from release.figures import FIGURES, figure
from release.run import RESULTS

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, Sampling
from jpeglm.environment import environment
from jpeglm.evaluation.features import ResNet50, extract
from jpeglm.evaluation.frechet import compare
from jpeglm.evaluation.inputs import held_out_streams
from jpeglm.files import to_json, write_json
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.progress import Reporter

NUCLEI: dict[str, dict[str, float]] = {
    "all tokens": {"top_k": 0, "top_p": 1.0},
    "top-k 40, top-p 0.9": {"top_k": 40, "top_p": 0.9},
    "top-p 0.95": {"top_k": 0, "top_p": 0.95},
    "min-p 0.05": {"top_k": 0, "top_p": 1.0, "min_p": 0.05},
}
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0)
SHOWN = 8
"""Pictures of a sheet."""


def luma(pictures: np.ndarray) -> np.ndarray:
    """float64 [N, H, W] of uint8 [N, H, W, 3]."""
    return np.asarray(pictures @ np.array([0.299, 0.587, 0.114]))


def seam(pictures: np.ndarray, mcu: tuple[int, int], top: int) -> np.ndarray:
    """float64 [N]: mean step of luma across the borders of MCUs (width, height) below row `top`,
    that to what was kept among them."""
    values = luma(pictures)
    width, height = mcu
    across = np.abs(values[:, top:, width::width] - values[:, top:, width - 1 : -1 : width])
    rows = np.arange(max(top, height), values.shape[1], height)
    down = np.abs(values[:, rows] - values[:, rows - 1])
    both = [one.reshape(len(values), -1) for one in (across, down)]
    return np.asarray(np.concatenate(both, 1).mean(1))


def texture(pictures: np.ndarray, mcu: tuple[int, int], top: int) -> np.ndarray:
    """float64 [N]: mean deviation of luma inside an MCU, below row `top`."""
    values = luma(pictures)[:, top:]
    width, height = mcu
    count, rows, columns = values.shape
    cells = values.reshape(count, rows // height, height, columns // width, width)
    return np.asarray(cells.std((2, 4)).mean((1, 2)))


class Judge:
    """What is measured of one way's pictures, beside the true ones."""

    def __init__(self, true: np.ndarray, mcu: tuple[int, int], top: int, weights: Path) -> None:
        self.true, self.mcu, self.top = true, mcu, top
        self.network = ResNet50(weights) if weights.exists() else None
        self.features = extract(self.network, true) if self.network else None
        self.seam, self.texture = seam(true, mcu, top).mean(), texture(true, mcu, top).mean()

    def __call__(self, pictures: np.ndarray, bits: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {
            "seam": float(seam(pictures, self.mcu, self.top).mean() / self.seam),
            "texture": float(texture(pictures, self.mcu, self.top).mean() / self.texture),
            "bits": float(bits.mean()),
        }
        if self.network and self.features is not None:
            found |= compare(extract(self.network, pictures), self.features)
        return found


def drawn(
    model: Model, streams: list[bytes], units: int, seed: int, way: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """(pictures uint8 [N, H, W, 3], bits [N]): one for each stream, whose first `units` MCUs it
    keeps."""
    seeds = (seed * 1_000_003 + number for number in range(len(streams)))
    rows = sorted(
        model.continue_each(streams, units, seeds, [None] * len(streams), **way),
        key=lambda one: one.number,
    )
    return np.stack([np.asarray(one.image) for one in rows]), np.array([one.bits for one in rows])


def best_of(
    model: Model, streams: list[bytes], units: int, count: int, judge: Judge
) -> dict[str, Any]:
    """What is measured of the candidates that the model's bits choose, and of each set of them."""
    sets = []
    with Reporter("sampling", "sets") as report:
        for seed in range(count):
            sets.append(drawn(model, streams, units, seed, {}))
            report(seed + 1, count, "")
    pictures, bits = (np.stack(part) for part in zip(*sets))
    order, every = bits.argsort(0), np.arange(len(streams))
    chosen = {
        "the likeliest": order[0],
        "the middle one": order[(count - 1) // 2],
        "the unlikeliest": order[-1],
    }
    ways = {name: judge(pictures[at, every], bits[at, every]) for name, at in chosen.items()}
    return {"candidates": count, "ways": ways, "sets": [judge(*one) for one in sets]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--use", choices=("complete", "generate"), default="complete")
    parser.add_argument("--name", default="photos", help="of what is written")
    parser.add_argument("--limit", type=int, default=300, help="pictures at most")
    parser.add_argument("--seeds", type=int, default=3, help="of the best ways and today's")
    parser.add_argument("--best-of", type=int, default=0, help="candidates to choose among")
    parser.add_argument("--weights", type=Path, default=RESNET50, help="of ResNet-50")
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    if not isinstance(model, Model) or not isinstance(model.codec, JpegCodec):
        sys.exit(f"{arguments.checkpoint} writes no JPEG")
    codec = model.codec
    rows = held_out_streams(arguments.data, model, "validation", arguments.limit)
    streams = [row.stream for row in rows]
    true = np.stack([np.asarray(codec.decode(stream)) for stream in streams])
    units = codec.units // 2 if arguments.use == "complete" else 0
    grid, mcu = codec.config.grid, codec.config.MCU[codec.config.subsampling]
    judge = Judge(true, mcu, units // grid[1] * mcu[1], arguments.weights)
    now = Sampling(**model.checkpoint.sampling(begun=units > 0)).to_dict()
    about = {
        "checkpoint": model.record(),
        "pictures": len(streams),
        "use": arguments.use,
        "true": {"seam": float(judge.seam), "texture": float(judge.texture)},
        "now": now,
        "command": " ".join(["python", "recipes/sampling.py", *sys.argv[1:]]),
        "machine": environment("numpy", "Pillow", "torch"),
    }
    if arguments.best_of > 1:
        found = best_of(model, streams, units, arguments.best_of, judge)
        write_json(RESULTS / f"best-of-{arguments.name}-{arguments.use}.json", about | found)
        print(to_json(found, indent=1))
        return
    ways = {
        f"{name}, temperature {temperature:g}": {**nucleus, "temperature": temperature}
        for name, nucleus in NUCLEI.items()
        for temperature in TEMPERATURES
    }
    table: dict[str, Any] = {}
    shown: dict[str, np.ndarray] = {}
    with Reporter("sampling", "ways") as report:
        for number, (name, way) in enumerate(ways.items()):
            pictures, bits = drawn(model, streams, units, 0, way)
            table[name] = {"way": way, **judge(pictures, bits)}
            shown[name] = pictures[:SHOWN]
            told = {key: round(table[name][key], 4) for key in ("seam", "texture", "kid")}
            report.say(f"{name}: {told}")
            report(number + 1, len(ways), "")
        order = sorted(table, key=lambda name: table[name]["kid"])
        finalists = [*order[:3], *(name for name in table if _is(table[name]["way"], now))]
        for name in dict.fromkeys(finalists):
            more = [
                judge(*drawn(model, streams, units, seed, table[name]["way"]))["kid"]
                for seed in range(1, arguments.seeds)
            ]
            table[name]["kid_seeds"] = [table[name]["kid"], *more]
            report.say(f"{name}: {table[name]['kid_seeds']}")
    write_json(RESULTS / f"sampling-{arguments.name}-{arguments.use}.json", about | {"ways": table})
    print(to_json({name: table[name] for name in finalists}, indent=1))
    kept = [name for name in ways if name in finalists or name.startswith("all tokens")]
    tiles = [("true", Image.fromarray(one)) for one in true[:SHOWN]]
    for name in kept:
        tiles += [(name, Image.fromarray(one)) for one in shown[name]]
    figure(tiles, SHOWN, 96, FIGURES / f"sampling-{arguments.name}-{arguments.use}.jpg")


def _is(way: dict[str, Any], now: dict[str, Any]) -> bool:
    return all(now[key] == value for key, value in way.items())


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
