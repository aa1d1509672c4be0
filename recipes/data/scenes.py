"""Which photographs of the corpus are held out, so that no scene has pictures on both sides.

A split by the files' content alone puts two shots of one plate, one sitting or one shop shelf on
different sides, and what is then measured as held out is half known. Here pictures whose ResNet-50
features are alike form a scene, and a scene is held out if the content hash of each of its pictures
falls on that side (5 % a picture): whatever was trained with the old split has not seen these. The
price is that big scenes are never held out; the transfer sources stand for them.

    python recipes/data/photos.py data/photos
    python recipes/data/resnet50.py data/resnet50.safetensors
    python recipes/data/scenes.py data/photos      → recipes/data/held-out.txt

`photos.py` puts the pictures of that list into `validation/`. Twelve minutes of one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

from jpeglm.codecs.images import open_image
from jpeglm.config import InputError
from jpeglm.data.splits import split_of
from jpeglm.evaluation.features import RESNET50, ResNet50
from jpeglm.files import atomic_write

LIST = Path(__file__).with_name("held-out.txt")
ALIKE = 0.75
"""Cosine of two pictures' features from which they count as one scene: by eye, pairs above it are
mostly one sitting, dish or place, pairs below mostly are not."""
ONE_PLACE = ("groceries",)
"""Sources that are one scene as a whole: a few shops, whose shelves come back in picture after
picture at any cosine."""
OBJECTS = ("stellarium-data",)
"""Sources of which each picture is another object, however alike black skies are to a network."""
SHARE = 0.05
"""Of the pictures, as `jpeglm prepare` holds out by default."""


def features(files: list[Path], weights: Path) -> np.ndarray:
    """float32 [N, 2048] of unit length, of the middle square of each picture."""
    network, found = ResNet50(weights), []
    for start in range(0, len(files), 32):
        batch = []
        for path in files[start : start + 32]:
            image = open_image(path.read_bytes(), name=str(path))
            left, top = [(side - min(image.size)) / 2 for side in image.size]
            box = (left, top, image.width - left, image.height - top)
            square = image.resize((224, 224), Image.Resampling.BICUBIC, box, reducing_gap=3.0)
            batch.append(np.asarray(square))
        found.append(network(np.stack(batch)))
        print(f"{start + len(batch)} of {len(files)} pictures", flush=True)
    joined = np.concatenate(found)
    return joined / np.linalg.norm(joined, axis=1, keepdims=True)


def scenes(names: list[str], vectors: np.ndarray) -> np.ndarray:
    """int [N]: the scene of each picture `source/file`."""
    sources = np.array([name.split("/")[0] for name in names])
    alike = vectors @ vectors.T >= ALIKE
    for source in OBJECTS:
        alike[sources == source] = alike[:, sources == source] = False
    for source in ONE_PLACE:
        alike |= np.outer(sources == source, sources == source)
    return connected_components(alike, directed=False)[1]


def held_out(names: list[str], numbers: np.ndarray, sides: np.ndarray) -> list[str]:
    """The pictures of scenes of which every picture lies on the held-out side (bool [N])."""
    seen = set(numbers[~sides].tolist())
    return sorted(name for name, number in zip(names, numbers) if number not in seen)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the corpus")
    parser.add_argument("--weights", type=Path, default=RESNET50)
    parser.add_argument("--out", type=Path, default=LIST)
    arguments = parser.parse_args()
    files = {
        "/".join(path.parts[-2:]): path
        for side in ("train", "validation")
        for path in sorted((arguments.photos / side).glob("*/[!.]*"))
    }
    if not files:
        raise InputError(f"{arguments.photos} has no train/; run recipes/data/photos.py first")
    names, paths = list(files), list(files.values())
    sides = np.array([split_of(path.read_bytes(), SHARE) == "validation" for path in paths])
    numbers = scenes(names, features(paths, arguments.weights))
    chosen = held_out(names, numbers, sides)
    atomic_write(arguments.out, "".join(f"{name}\n" for name in chosen).encode())
    print(
        f"{len(chosen)} of {len(names)} pictures are held out, "
        f"{int(sides.sum()) - len(chosen)} more by content alone; {numbers.max() + 1} scenes"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
