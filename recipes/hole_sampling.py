"""How holes are filled best: temperature and guidance, on held-out pictures that recipes/holes.py
does not measure.

    python recipes/hole_sampling.py avatars data/avatars64 [--count 160] [--name avatars]

For each way the pictures behind the first 1,000 held-out ones, a hole each, the same seeds: filled
with a view of all that stays, and drawn from the top, which is what `complete` does with a part
that is kept. PSNR of the hole and Fréchet distance of the pictures under ResNet-50
(recipes/data/resnet50.py); of so few pictures distances compare ways and nothing else. A model
without words has no guidance to choose. Leaves docs/results/holes-sampling-NAME.json.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from holes import chosen, fill, from_top, pixels_of, psnr
from release.run import RESULTS

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError
from jpeglm.environment import environment
from jpeglm.evaluation.features import RESNET50, ResNet50, extract
from jpeglm.evaluation.frechet import frechet_distance
from jpeglm.files import write_json
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.progress import Reporter

TEMPERATURES, GUIDANCES = (0.15, 0.3, 0.6, 1.0), (1.0, 1.5, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=Path, help="prepared data, of which validation is taken")
    parser.add_argument("--skip", type=int, default=1000, help="pictures left to holes.py")
    parser.add_argument("--count", type=int, default=160, help="holes")
    parser.add_argument("--name", default="avatars", help="of what is written")
    parser.add_argument("--weights", type=Path, default=RESNET50, help="of ResNet-50")
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    if not isinstance(model, Model) or not isinstance(model.codec, JpegCodec):
        sys.exit(f"{arguments.checkpoint} writes no JPEG")
    codec = model.codec
    streams, texts, holes, _ = chosen(model, arguments.pictures, arguments.count, arguments.skip)
    true = np.stack([np.asarray(codec.decode(stream)) for stream in streams])
    inside = np.stack([pixels_of(codec, hole) for hole in holes])
    network = ResNet50(arguments.weights)
    features = extract(network, true)
    rows: list[dict[str, Any]] = []
    with Reporter("sampling", "pictures") as report:
        for temperature, guidance in product(TEMPERATURES, GUIDANCES if any(texts) else (1.0,)):
            row: dict[str, Any] = {"temperature": temperature, "guidance": guidance}
            way = {"top_k": 0, "top_p": 1.0, **row}
            for name, draw in (("filled", fill), ("from_top", from_top)):
                made = draw(model, streams, holes, texts, report, **way)
                pictures = np.stack([np.asarray(codec.show(stream)) for stream in made])
                row[name] = {
                    "psnr": psnr(pictures, true, inside),
                    "frechet_resnet50": frechet_distance(extract(network, pictures), features),
                }
            rows.append(row)
            report.say(str(row))
    told = {
        "masks": len(holes),
        "ways": rows,
        "command": " ".join(["python", "recipes/hole_sampling.py", *sys.argv[1:]]),
        "machine": environment("numpy", "Pillow"),
    }
    write_json(RESULTS / f"holes-sampling-{arguments.name}.json", told)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
