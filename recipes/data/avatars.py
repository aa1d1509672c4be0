"""People drawn to words, as many as wanted, each attribute exactly known.

DiceBear composes them (npm; styles by several artists, licences in `OUT/LICENCES.txt`), resvg draws
them at 64×64. Usually such avatars are drawn from a seed and described by guessing; here the
attributes are chosen first and given to DiceBear, so that a caption cannot be wrong, and
`alternatives` are the same avatar with one attribute changed, by which a model is judged:

    next(drawer.draw([request(attributes, variant)])) is a picture.

    python recipes/data/avatars.py data/avatars
    python recipes/data/avatars.py data/avatars --count 200000

leaves `train/`, `validation/`, `test/` and `compositions/`, image folders with `metadata.jsonl`
(`file_name`, `text`, the attributes, and `variant`, which of the parts that fit a word was taken).
No avatar lies in two of them; the `HELD_OUT` combinations of hair colour, skin and glasses lie in
`compositions/` alone. A split appears when it is complete; a second run makes what is missing.
Needs node and npm; 50,000 take about four minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from avatar_styles import CORE, HAIR, LICENCES, PACKAGES, SKIN, STYLES, Options
from avatar_words import Attributes, caption
from drawing import NPM, RESVG, Drawer, installed, same_settings, write_pictures

from jpeglm.config import InputError
from jpeglm.files import atomic_write
from jpeglm.progress import Reporter

ORDER = ("hat", "hair", "glasses", "facial_hair", "extra", "eyes", "mouth", "clothes")
"""What is chosen first takes DiceBear's slot: glasses over a moustache where one face bears one."""
ATTRIBUTES = ("style", *ORDER, "hair_color", "skin", "hat_color", "clothes_color", "background")
SHARES = {"hat": 0.2, "glasses": 0.5, "facial_hair": 0.3, "extra": 0.5, "eyes": 0.35}
"""How often anything but the first word, which goes without saying, is chosen."""
GLASSES = ("none", "glasses", "sunglasses")

HELD_OUT = frozenset(
    (hair, list(SKIN)[(number + 2 * shift) % 4], GLASSES[(number + shift) % 3])
    for number, hair in enumerate(HAIR)
    for shift in (0, 1)
)
"""Two of each hair colour's twelve combinations of skin and glasses: every two of the three
attributes are seen together in training, these three never."""

SPLITS = {"train": 1.0, "validation": 0.02, "test": 0.02, "compositions": 0.04}
"""Pictures of each for one of training."""


def options(attributes: Attributes, variant: int) -> Options:
    """What DiceBear is told. Parts that fit a word equally are chosen by `variant`, each attribute
    by itself, so that changing one word changes nothing else."""
    style = STYLES[attributes["style"]]
    told = dict(style.base)

    def part(name: str, parts: tuple[Options, ...]) -> Options:
        return Random(f"{variant} {name}").choice(parts)

    for number, parts in enumerate(style.free):
        told |= part(str(number), parts)
    for name in reversed(ORDER):  # glasses last where they share a slot with the eyes
        if name in attributes:
            told |= part(name, style.words[name][attributes[name]])
    for name, (keys, hexes) in style.colours.items():
        if name in attributes:
            told |= {key: [hexes[attributes[name]]] for key in keys}
    return told


def request(attributes: Attributes, variant: int) -> dict[str, Any]:
    """The avatar, for `Drawer.draw`."""
    package = PACKAGES[attributes["style"]].removeprefix("@dicebear/").split("@")[0]
    return {"style": package, "options": options(attributes, variant)}


def drawer(packages: Path) -> Drawer:
    """What draws avatars, with its npm packages in the folder `packages`."""
    return Drawer(installed((RESVG, CORE, *PACKAGES.values()), packages / "avatars"))


def choose(rng: Random) -> Attributes:
    """The attributes of a random avatar, those that are visible only."""
    name = rng.choice(list(STYLES))
    style = STYLES[name]
    chosen = {"style": name}
    for attribute in ORDER:
        if attribute not in style.words:
            continue
        first, *others = style.words[attribute]
        if attribute not in SHARES:
            chosen[attribute] = rng.choice([first, *others])
        elif others and rng.random() < SHARES[attribute]:
            chosen[attribute] = rng.choice(others)
        else:
            chosen[attribute] = first
    for attribute, (_, hexes) in style.colours.items():
        chosen[attribute] = rng.choice(list(hexes))
    return visible(chosen)


def visible(chosen: Attributes) -> Attributes:
    """Without what cannot be seen: what has no room beside something before it in `ORDER`, eyes
    behind sunglasses, the colour of hair under a hat."""
    style = STYLES[chosen["style"]]
    gone = {behind for name, word, behind in style.hides if chosen.get(name) == word}
    taken: set[str] = set()
    for name in ORDER:
        if name in chosen and name not in gone:
            parts = style.words[name][chosen[name]]
            if any(taken & part.keys() for part in parts):
                gone.add(name)
            taken |= {key for part in parts for key in part}
    kept = {name: word for name, word in chosen.items() if name not in gone}
    beard = style.coloured_beard and kept.get("facial_hair", "none") != "none"
    if kept.get("hair", "bald") == "bald" and not beard:
        kept.pop("hair_color", None)
    if kept.get("hat") == "none":
        del kept["hat"]
    if "hat" not in kept:
        kept.pop("hat_color", None)
    return kept


def alternatives(attributes: Attributes, name: str) -> list[Attributes]:
    """The avatar with each other word for one attribute that its style has and that can be seen."""
    style = STYLES[attributes["style"]]
    words = style.words[name] if name in style.words else style.colours[name][1]
    others = [visible(attributes | {name: word}) for word in words if word != attributes[name]]
    return [other for other in others if name in other]


def split_of(attributes: Attributes, variant: int) -> str:
    """By the combination, then by the hash of what is drawn, whatever the seed and the count."""
    if tuple(attributes.get(name) for name in ("hair_color", "skin", "glasses")) in HELD_OUT:
        return "compositions"
    told = json.dumps(request(attributes, variant), sort_keys=True).encode()
    place = int.from_bytes(hashlib.sha256(told).digest()[:4]) / 2**32
    if place < SPLITS["validation"]:
        return "validation"
    return "test" if place < SPLITS["validation"] + SPLITS["test"] else "train"


def plan(split: str, count: int, seed: int) -> Iterator[tuple[Attributes, int, str]]:
    """(attributes, variant, caption); the first are the same whatever the count."""
    rng = Random(f"{seed} {split}")
    while count:
        attributes, variant = choose(rng), rng.randrange(2**20)
        if split_of(attributes, variant) == split:
            yield attributes, variant, caption(attributes, rng, whole=split != "train")
            count -= 1


def pictures(
    drawer: Drawer, split: str, count: int, seed: int
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """(row of metadata.jsonl, pixels)."""
    avatars = list(plan(split, count, seed))
    drawn = drawer.draw([request(attributes, variant) for attributes, variant, _ in avatars])
    with Reporter(split, "avatars") as report:
        for number, ((attributes, variant, text), pixels) in enumerate(zip(avatars, drawn)):
            if isinstance(pixels, str):
                raise InputError(f"resvg cannot draw an avatar: {pixels}")
            row = {"file_name": f"{number:06d}.png", "text": text}
            row |= {name: attributes.get(name) for name in ATTRIBUTES} | {"variant": variant}
            yield row, pixels
            report(number + 1, count, "")


def main() -> int:
    opening, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the splits")
    parser.add_argument("--count", type=int, default=50_000, help="avatars to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", type=Path, default=NPM, help="npm packages, kept there")
    arguments = parser.parse_args()
    try:
        same_settings(arguments.out, {"count": arguments.count, "seed": arguments.seed})
        licences = "".join(f"{style}: {text}\n" for style, text in LICENCES.items())
        atomic_write(arguments.out / "LICENCES.txt", licences.encode())
        with drawer(arguments.packages) as node:
            for split, share in SPLITS.items():
                if (arguments.out / split / "metadata.jsonl").exists():
                    print(f"{split}: lies there already")
                    continue
                count = max(1, round(share * arguments.count))
                made = pictures(node, split, count, arguments.seed)
                print(f"{split}: {write_pictures(arguments.out / split, made)} avatars", flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
