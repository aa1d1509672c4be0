"""How holes are filled best: temperature and guidance, on held-out pictures that recipes/holes.py
does not measure.

    python recipes/hole_sampling.py avatars data/avatars64 [--count 160] [--name avatars]

For each way the pictures behind the first 1,000 held-out ones, a hole each, the same seeds: filled
with a view of all that stays, and drawn from the top, which is what `complete` does with a part
that is kept. PSNR of the hole and Fréchet distance of the pictures under ResNet-50
(recipes/data/resnet50.py; without its weights PSNR alone); of so few pictures distances compare
ways and nothing else. A model without words has no guidance to choose. Leaves
docs/results/holes-sampling-NAME.json.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from holes import chosen, fill, frechet, from_top, psnr, true_and_inside
from release.asked import jpeg_model, made_by, parser, run
from release.run import RESULTS

from jpeglm.files import write_json
from jpeglm.progress import Reporter

TEMPERATURES, GUIDANCES = (0.15, 0.3, 0.6, 1.0), (1.0, 1.5, 2.0)


def main() -> None:
    asking = parser(__doc__, "avatars", "--count", 160, "holes")
    asking.add_argument("--skip", type=int, default=1000, help="pictures left to holes.py")
    asked = asking.parse_args()
    model = jpeg_model(asked.checkpoint)
    holed = chosen(model, asked.data, asked.count, asked.skip)
    true, inside = true_and_inside(model.codec, holed)
    distance = frechet(true, asked.weights)
    rows: list[dict[str, Any]] = []
    with Reporter("sampling", "pictures") as report:
        guidances = GUIDANCES if any(holed.texts) else (1.0,)
        for temperature, guidance in product(TEMPERATURES, guidances):
            row: dict[str, Any] = {"temperature": temperature, "guidance": guidance}
            way = {"top_k": 0, "top_p": 1.0, **row}
            for name, draw in (("filled", fill), ("from_top", from_top)):
                made = draw(model, holed, report, **way)
                pictures = np.stack([np.asarray(model.codec.show(stream)) for stream in made])
                row[name] = {"psnr": psnr(pictures, true, inside), **distance(pictures)}
            rows.append(row)
            report.say(str(row))
    told = {"masks": len(holed.holes), "ways": rows, **made_by("hole_sampling.py")}
    write_json(RESULTS / f"holes-sampling-{asked.name}.json", told)


if __name__ == "__main__":
    run(main)
