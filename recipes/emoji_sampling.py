"""How emoji are drawn best: temperature and guidance, chosen by how many are recognised.

    python recipes/emoji_sampling.py CHECKPOINT SOURCE [--count 200] [--out FILE]

SOURCE is what recipes/data/emoji.py made. Of the captions of emoji in a set that never showed them
(`release/recognised.py`) the first 100 are left to recipes/emoji.py, which measures; the next are
drawn here, one picture each and with the same seeds in each way. The best way has the highest mean
of 1 over the place that a picture's own concept has among all, by ResNet-50's features at 112
pixels (recipes/data/resnet50.py): every picture counts in it, not only those at the first place.
The captions of the validation split do not serve: no set in training drew their concepts.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from release.asked import run
from release.drawn import drawings
from release.recognised import MEASURED, captions, directions, gallery, recognised

from jpeglm.environment import environment
from jpeglm.evaluation.features import RESNET50, ResNet50
from jpeglm.files import to_json, write_json
from jpeglm.generation.loading import load
from jpeglm.progress import Reporter

TEMPERATURES, GUIDANCES = (0.4, 0.6, 0.8, 1.0), (1.0, 2.0, 3.0)
SIDE = 112


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--count", type=int, default=200, help="captions at most")
    parser.add_argument("--weights", type=Path, default=RESNET50, help="of ResNet-50")
    parser.add_argument("--out", type=Path, default=Path("data/emoji-sampling.json"))
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    rows = captions(arguments.source)[MEASURED : MEASURED + arguments.count]
    known = gallery(arguments.source, rows, model.codec)
    network = directions(ResNet50(arguments.weights, size=SIDE))
    true = {id(one): network(one) for one in (known.held_out, known.others)}  # once for all ways

    def describe(pictures: np.ndarray) -> np.ndarray:
        return true[id(pictures)] if id(pictures) in true else network(pictures)

    ways: list[dict[str, Any]] = []
    with Reporter("sampling", "ways") as report:
        for temperature, guidance in product(TEMPERATURES, GUIDANCES):
            way = {"temperature": temperature, "top_k": 0, "top_p": 1.0, "guidance": guidance}
            drawn = np.stack([np.asarray(image) for image in drawings(model, rows, **way)])
            found = recognised(drawn, known, describe)
            ways.append({"way": way, **found})
            report.say(f"{way}: {found['drawn']}")
            report(len(ways), len(TEMPERATURES) * len(GUIDANCES), "")
    best = max(ways, key=lambda one: one["drawn"]["reciprocal_place"])["way"]
    told = {
        "checkpoint": str(arguments.checkpoint),
        "captions": len(rows),
        "best": best,
        "ways": ways,
        "environment": environment(),
    }
    write_json(arguments.out, told)
    print(to_json(best))


if __name__ == "__main__":
    run(main)
