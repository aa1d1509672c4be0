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

Every way is drawn with the same seeds. Of a finalist's further `--seeds` the spread is told; the
finalists are the best by KID, so without ResNet-50's weights there are none. The result lies in
docs/results/sampling-NAME-USE.json, and a sheet of the ways beside the true pictures in
docs/figures. A part of the grid:

    python recipes/sampling.py … --nuclei 'top-p 0.95' 'all tokens' --temperatures 0.85 0.9

    python recipes/sampling.py CHECKPOINT DATA --best-of 4 …

asks another question of the checkpoint's own way: whether the model's bits tell which of so many
candidates is best. Judged are the likeliest, the middle and the unlikeliest one of each, and those
that are taken as they come, once for each candidate; docs/results/best-of-NAME-USE.json.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release.asked import jpeg_model, made_by, parser, resnet50, run
from release.figures import FIGURES, figure
from release.run import RESULTS

from jpeglm.config import InputError, Sampling
from jpeglm.evaluation.features import extract
from jpeglm.evaluation.frechet import compare
from jpeglm.evaluation.inputs import held_out_streams
from jpeglm.files import to_json, write_json
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
        self.network = resnet50(weights)
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


def asked_ways(
    nuclei: Sequence[str] | None, temperatures: Sequence[float] | None
) -> dict[str, dict[str, float]]:
    """Name → way of sampling: the grid of `NUCLEI` and `TEMPERATURES`, or the part of it whose
    names and temperatures (also others) are asked for; InputError for what is no way."""
    unknown = [name for name in nuclei or () if name not in NUCLEI]
    if unknown:
        raise InputError(
            f"--nuclei has no {shlex.join(unknown)}; give some of {', '.join(map(repr, NUCLEI))}"
        )
    ways = {
        f"{name}, temperature {temperature:g}": {**NUCLEI[name], "temperature": temperature}
        for name in nuclei or NUCLEI
        for temperature in temperatures or TEMPERATURES
    }
    for way in ways.values():
        Sampling(**way)
    return ways


def finalists(table: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The three ways with the least KID, and today's; all, where no network told of KID."""
    if not all("kid" in row for row in table.values()):
        return list(table)
    order = sorted(table, key=lambda name: table[name]["kid"])
    return list(dict.fromkeys([*order[:3], *(one for one in table if _is(table[one]["way"], now))]))


def main() -> None:
    asking = parser(__doc__, "photos", "--limit", 300, "pictures at most")
    asking.add_argument("--use", choices=("complete", "generate"), default="complete")
    asking.add_argument("--seeds", type=int, default=3, help="of the best ways and today's")
    asking.add_argument("--best-of", type=int, default=0, help="candidates to choose among")
    asking.add_argument("--nuclei", nargs="+", metavar="NAME", help=f"of {', '.join(NUCLEI)}")
    asking.add_argument("--temperatures", nargs="+", type=float, metavar="T", help="also others")
    asked = asking.parse_args()
    ways = asked_ways(asked.nuclei, asked.temperatures)
    if asked.best_of > 1 and (asked.nuclei or asked.temperatures):
        raise InputError(
            "--best-of draws in the checkpoint's own way; leave out --nuclei and --temperatures"
        )
    model = jpeg_model(asked.checkpoint)
    codec = model.codec
    rows = held_out_streams(asked.data, model, "validation", asked.limit)
    streams = [row.stream for row in rows]
    true = np.stack([np.asarray(codec.decode(stream)) for stream in streams])
    units = codec.units // 2 if asked.use == "complete" else 0
    grid, mcu = codec.config.grid, codec.config.MCU[codec.config.subsampling]
    judge = Judge(true, mcu, units // grid[1] * mcu[1], asked.weights)
    now = Sampling(**model.checkpoint.sampling(begun=units > 0)).to_dict()
    about = {
        "checkpoint": model.record(),
        "pictures": len(streams),
        "use": asked.use,
        "true": {"seam": float(judge.seam), "texture": float(judge.texture)},
        "now": now,
        **made_by("sampling.py"),
    }
    if asked.best_of > 1:
        found = best_of(model, streams, units, asked.best_of, judge)
        write_json(RESULTS / f"best-of-{asked.name}-{asked.use}.json", about | found)
        print(to_json(found, indent=1))
        return
    table: dict[str, Any] = {}
    shown: dict[str, np.ndarray] = {}
    with Reporter("sampling", "ways") as report:
        for number, (name, way) in enumerate(ways.items()):
            pictures, bits = drawn(model, streams, units, 0, way)
            table[name] = {"way": way, **judge(pictures, bits)}
            shown[name] = pictures[:SHOWN]
            keys = [key for key in ("seam", "texture", "kid") if key in table[name]]
            told = {key: round(table[name][key], 4) for key in keys}
            report.say(f"{name}: {told}")
            report(number + 1, len(ways), "")
        best = finalists(table, now)
        for name in best if judge.network else ():
            more = [
                judge(*drawn(model, streams, units, seed, table[name]["way"]))["kid"]
                for seed in range(1, asked.seeds)
            ]
            table[name]["kid_seeds"] = [table[name]["kid"], *more]
            report.say(f"{name}: {table[name]['kid_seeds']}")
    write_json(RESULTS / f"sampling-{asked.name}-{asked.use}.json", about | {"ways": table})
    print(to_json({name: table[name] for name in best}, indent=1))
    kept = [name for name in ways if name in best or name.startswith("all tokens")]
    tiles = [("true", Image.fromarray(one)) for one in true[:SHOWN]]
    for name in kept:
        tiles += [(name, Image.fromarray(one)) for one in shown[name]]
    figure(tiles, len(true[:SHOWN]), 96, FIGURES / f"sampling-{asked.name}-{asked.use}.jpg")


def _is(way: dict[str, Any], now: dict[str, Any]) -> bool:
    return all(now[key] == value for key, value in way.items())


if __name__ == "__main__":
    run(main)
