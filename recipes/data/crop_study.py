"""What random crops of the photo corpus are like: scales, detail, flat ones, by source and scale.

    python recipes/data/crop_study.py data/photos
    python recipes/data/crop_study.py data/photos --checkpoint photos   and a model's bits by scale

Training sees crops whose side is log-uniform from a quarter of the largest crop that fits to the
largest; a user gives whole photographs. The two are set side by side at 64 × 64: how many pixels of
the picture a pixel of the crop shows, the deviation of its grey levels, the mean step between
neighbours (detail), bits of its JPEG, and how many are flat. Of the model, bits against Huffman's
of the validation pictures by scale. All as JSON into docs/results/crops-photos.json.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.codecs import JpegCodec
from jpeglm.codecs.images import open_image
from jpeglm.config import InputError, JpegConfig
from jpeglm.data.crops import random_box, random_crop
from jpeglm.files import write_json

SIDE = 64
FLAT = 8.0
"""Grey levels: a crop that deviates less shows nothing to learn from."""
BINS = (0.25, 0.35, 0.5, 0.71, 1.0)
"""Of the largest crop's side."""
RESULT = Path(__file__).resolve().parents[2] / "docs" / "results" / "crops-photos.json"


class Study:
    """Figures of crops: a row each of scale, reduction, deviation, detail, bits."""

    columns = ("scale", "reduction", "deviation", "detail", "bits")

    def __init__(self) -> None:
        self.codec = JpegCodec(JpegConfig(SIDE, SIDE))

    def row(self, crop: Image.Image, scale: float, reduction: float) -> list[float]:
        grey = np.asarray(crop.convert("L"), np.float32)
        steps = (np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1))
        bits = 8 * len(self.codec.scan(self.codec.encode(crop)))
        return [scale, reduction, float(grey.std()), float(sum(steps) / 2), float(bits)]

    def crop(
        self, image: Image.Image, least: float, seed: tuple[int, ...]
    ) -> tuple[Image.Image, list[float]]:
        """A random crop, and its row."""
        box = random_box(*image.size, SIDE, SIDE, least, np.random.default_rng(seed))
        crop = random_crop(image, SIDE, SIDE, least, np.random.default_rng(seed))
        side = box[2] - box[0]
        return crop, self.row(crop, side / min(image.size), side / SIDE)

    def whole(self, image: Image.Image) -> list[float]:
        """The row of the largest crop, from the middle."""
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        crop = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box, reducing_gap=3.0)
        return self.row(crop, 1.0, side / SIDE)


def told(rows: np.ndarray) -> dict[str, Any]:
    """Means of [crops, 5], quantiles of the reduction, the share of flat ones."""
    means = {name: float(rows[:, i].mean()) for i, name in enumerate(Study.columns) if i > 1}
    low, middle, high = np.percentile(rows[:, 1], [10, 50, 90])
    return {
        "crops": len(rows),
        **means,
        "flat": float((rows[:, 2] < FLAT).mean()),
        "reduction": [float(low), float(middle), float(high)],
    }


def by_scale(rows: np.ndarray) -> dict[str, Any]:
    found = {}
    for low, high in pairwise(BINS):
        inside = rows[(rows[:, 0] >= low) & (rows[:, 0] < high + (high == 1))]
        if len(inside):
            found[f"{low:g} to {high:g}"] = told(inside)
    return found


def of_sources(photos: Path, pictures: int, crops: int) -> dict[str, Any]:
    """Crops of so many pictures of each source beside their largest, at three least scales."""
    study, sources, pooled = Study(), {}, {least: [] for least in (0.25, 0.5, 0.75)}
    folders = sorted(path for path in (photos / "train").glob("*") if path.is_dir())
    for folder in folders:
        files = sorted(folder.glob("[!.]*"))
        files = files[:: max(1, len(files) // pictures)][:pictures]
        found: dict[float, list[list[float]]] = {least: [] for least in pooled}
        largest = []
        for number, file in enumerate(files):
            image = open_image(file)
            largest.append(study.whole(image))
            for least in pooled:
                seeds = [(number, crop) for crop in range(crops)]
                found[least] += [study.crop(image, least, seed)[1] for seed in seeds]
        sources[folder.name] = {
            "pictures": len(files),
            "crops": told(np.array(found[0.25])),
            "largest": told(np.array(largest)),
        }
        for least, rows in found.items():
            pooled[least] += rows
        print(f"{folder.name}: {len(files)} pictures", flush=True)
    scales = {f"{least:g}": told(np.array(rows)) for least, rows in pooled.items()}
    return {
        "sources": sources,
        "by_scale": by_scale(np.array(pooled[0.25])),
        "by_least_scale": scales,
    }


def of_model(photos: Path, checkpoint: str, crops: int) -> dict[str, Any]:
    """Bits of the validation pictures by the model and by Huffman's code, by scale."""
    import jpeglm
    from jpeglm.evaluation.likelihood import model_bits

    model, study = jpeglm.load(checkpoint), Study()
    streams, rows = [], []
    files = sorted((photos / "validation").glob("*/[!.]*"))
    for number, file in enumerate(files):
        image = open_image(file)
        for crop in range(crops):
            picture, row = study.crop(image, 0.25, (number, crop))
            streams.append(model.codec.encode(picture))
            rows.append(row)
    bits = model_bits(model, streams)[0]
    found = {}
    table = np.array(rows)
    for low, high in pairwise(BINS):
        inside = (table[:, 0] >= low) & (table[:, 0] < high + (high == 1))
        if inside.any():
            mine, huffman = float(bits[inside].mean()), float(table[inside, 4].mean())
            found[f"{low:g} to {high:g}"] = {
                "crops": int(inside.sum()), "model": mine, "huffman": huffman,
                "against": mine / huffman - 1,
            }  # fmt: skip
    return {"pictures": len(files), "by_scale": found}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the corpus")
    parser.add_argument("--pictures", type=int, default=40, help="of each source")
    parser.add_argument("--crops", type=int, default=8, help="of each picture")
    parser.add_argument("--checkpoint", help="measure this model's bits as well")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if not (options.photos / "train").is_dir():
        print(f"{options.photos} has no train/; run recipes/data/photos.py first", file=sys.stderr)
        return 1
    try:
        found = of_sources(options.photos, options.pictures, options.crops)
        if options.checkpoint:
            found["model"] = of_model(options.photos, options.checkpoint, options.crops)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(options.out, found)
    print(f"{options.out} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
