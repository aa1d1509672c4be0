"""Which photographs of the corpus are held out, so that no scene has pictures on both sides.

A split by the files' content alone puts two shots of one plate, one sitting or one shop shelf on
different sides, and what is then measured as held out is half known. Here pictures whose ResNet-50
features are alike form a scene, and a scene is held out if the content hash of each of its pictures
falls on that side (5 % a picture): whatever was trained with the old split has not seen these. The
price is that big scenes are never held out; the transfer sources stand for them.

What is held out stays so, whatever is added: a new source holds out scenes of its own, and its
pictures that are alike to one held out before, or to one of the transfer sources, are twins, which
the corpus leaves out.

    python recipes/data/photos.py data/photos
    python recipes/data/resnet50.py data/resnet50.safetensors
    python recipes/data/scenes.py data/photos      → recipes/data/held-out.txt, twins.txt

`photos.py` puts the pictures of the first list into `validation/` and leaves out those of the
second; let it fetch into a new folder then. Ten minutes of one core (4,705 pictures).
"""

from __future__ import annotations

import argparse
import io
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
TWINS = "twins.txt"
"""Lies beside the list."""
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


def remembered(files: dict[str, Path], weights: Path, memory: Path) -> np.ndarray:
    """The same of pictures by `source/file`, kept in a file of each source: a source that is added
    costs no more than its own pictures."""
    rows: dict[str, np.ndarray] = {}
    for source in sorted({name.split("/")[0] for name in files}):
        own = [name for name in files if name.split("/")[0] == source]
        place = memory / f"{source}.npz"
        if place.exists():
            kept = np.load(place)
            rows |= zip(kept["names"].tolist(), kept["vectors"])
        lacking = [name for name in own if name not in rows]
        if lacking:
            print(f"{source}: {len(lacking)} pictures", flush=True)
            rows |= zip(lacking, features([files[name] for name in lacking], weights))
            held = io.BytesIO()
            np.savez(held, names=own, vectors=np.stack([rows[name] for name in own]))
            atomic_write(place, held.getvalue())
    return np.stack([rows[name] for name in files])


def pairs(names: list[str], vectors: np.ndarray) -> np.ndarray:
    """bool [N, N]: which pictures `source/file` show one scene."""
    sources = np.array([name.split("/")[0] for name in names])
    alike = vectors @ vectors.T >= ALIKE
    for source in OBJECTS:
        alike[sources == source] = alike[:, sources == source] = False
    for source in ONE_PLACE:
        alike |= np.outer(sources == source, sources == source)
    return alike


def twins_of(fixed: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """bool [N]: the pictures that show what one of the `fixed` (bool [N]) shows, which are not."""
    return alike[:, fixed].any(axis=1) & ~fixed


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
    parser.add_argument(
        "--memory", type=Path, default=Path("data/scenes"), help="folder that keeps features"
    )
    arguments = parser.parse_args()
    files = {
        "/".join(path.parts[-2:]): path
        for side in ("train", "validation", "transfer")
        for path in sorted((arguments.photos / side).glob("*/[!.]*"))
    }
    if not files:
        raise InputError(f"{arguments.photos} has no train/; run recipes/data/photos.py first")
    names, paths = np.array(list(files)), list(files.values())
    transfer = np.array([path.parts[-3] == "transfer" for path in paths])
    before, lacking = (set(file.read_text().splitlines()) for file in (LIST, LIST.with_name(TWINS)))
    kept = np.isin(names, sorted(before))
    sides = np.array([split_of(path.read_bytes(), SHARE) == "validation" for path in paths])
    alike = pairs(list(names), remembered(files, arguments.weights, arguments.memory))
    twins = twins_of(kept | transfer, alike)
    rest = ~(twins | transfer)
    numbers = connected_components(alike[np.ix_(rest, rest)], directed=False)[1]
    chosen = sorted({*held_out(list(names[rest]), numbers, sides[rest]), *before})
    left_out = sorted({*names[twins], *lacking})
    lists = {arguments.out: chosen, arguments.out.with_name(TWINS): left_out}
    for file, lines in lists.items():
        atomic_write(file, "".join(f"{name}\n" for name in lines).encode())
    print(
        f"{len(chosen)} of {rest.sum()} pictures are held out, {len(chosen) - len(before)} of them "
        f"anew; {len(left_out)} are left out as twins; {numbers.max() + 1} scenes"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
