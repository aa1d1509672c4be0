"""Emoji of seven sets whose licences let a model be trained on them and given away.

    python recipes/data/emoji.py data/emoji

leaves `train/`, `validation/`, `test/` and `compositions/`, image folders at 64×64 on white with
`metadata.jsonl` (`file_name`, `text`, `style`, `name`, `tone`, `code`, `held_out`), what each set
gave and what could not be used in `sources.json`, and `LICENCES.txt`. Captions are made of the
set's name, CLDR's short name, the skin tone and CLDR's keywords.

Split by concept across all sets: what `validation` and `test` show was drawn by no set in training,
in no skin tone, by no gender. In `compositions` lie pictures whose parts were seen: a concept in a
style that training shows in other styles (`held_out: style`), and a person of a trade, gender and
skin tone together (`held_out: person`). Left out are sets of Apple, Facebook and JoyPixels, whose
licences forbid it, OpenMoji and EmojiOne 1, whose share-alike terms may reach to weights, and
Fluent's gradients, of which the 3D set is a smoother rendering. Needs node and npm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from drawing import NPM, RESVG, SIDE, Drawer, installed, same_settings, write_pictures
from emoji_names import PACKAGE, UNICODE, Emoji, Names, caption, plain
from PIL import Image

from jpeglm.config import InputError
from jpeglm.files import atomic_write, write_json
from jpeglm.progress import Reporter


@dataclass(frozen=True)
class Set:
    """A set of emoji: vector graphics of Iconify, or files of `folder` that are named by code.
    `family`: sets of one designer, drawn after each other. `misnamed`: files whose names are
    another emoji's, or that show nothing at 64 pixels, found by eye."""

    package: str
    licence: str
    folder: str | None = None
    family: str | None = None
    misnamed: str = ""

    @property
    def home(self) -> str:
        return self.package.rpartition("@")[0]


SETS = {
    "noto": Set(
        UNICODE,
        "Noto Emoji by Google, Apache-2.0 (https://github.com/googlefonts/noto-emoji)",
        folder="img/google/64",
    ),
    "twemoji": Set(
        "@iconify-json/twemoji@1.2.5",
        "Twemoji by Twitter and contributors, CC BY 4.0 (https://github.com/jdecked/twemoji)",
    ),
    "fluent": Set(
        "@lobehub/fluent-emoji-3d@1.1.0",
        "Fluent Emoji 3D by Microsoft, MIT (https://github.com/microsoft/fluentui-emoji)",
        folder="assets",
        family="fluent",
    ),
    "fluent flat": Set(
        "@iconify-json/fluent-emoji-flat@1.2.6",
        "Fluent Emoji Flat by Microsoft, MIT (https://github.com/microsoft/fluentui-emoji)",
        family="fluent",
    ),
    "emojitwo": Set(
        "@iconify-json/emojione@1.2.3",
        "EmojiTwo, of Emoji One 2, CC BY 4.0 (https://github.com/EmojiTwo/emojitwo)",
        misnamed="pistol",
    ),
    "fxemoji": Set(
        "@iconify-json/fxemoji@1.2.2",
        "FxEmojis by Mozilla, Apache-2.0 (https://github.com/mozilla/fxemoji)",
        misnamed="bow construction couple down fog gamedie keyboard kiss pistol pout pouting "
        "sunglasses tramcar wave whitemediumstar",
    ),
    "streamline": Set(
        "@iconify-json/streamline-emojis@1.2.4",
        "Streamline Emojis, CC BY 4.0 (https://github.com/webalys-hq/streamline-vectors)",
        misnamed="factory pistol turkey",
    ),
}
MARKED = 60
"""Pixels that stand out at least; fewer are a white heart on white paper."""
SPLITS = ("train", "validation", "test", "compositions")
SHARES = {"validation": 0.02, "test": 0.05}
"""Of the concepts."""
STYLE_SHARE, PERSON_SHARE = 0.05, 0.1
"""Held out of the pairs of concept and family of sets; of those of trade, gender and skin tone."""


@dataclass(frozen=True)
class Picture:
    style: str
    emoji: Emoji
    pixels: np.ndarray


def iconify(modules: Path, found: Set, names: Names) -> Iterator[tuple[str, Emoji | None, str]]:
    """(the set's own name, what it is, SVG) of an Iconify package."""
    home = modules / found.home
    icons = json.loads((home / "icons.json").read_text())
    codes = {}
    if (home / "chars.json").exists():
        for code, name in json.loads((home / "chars.json").read_text()).items():
            codes.setdefault(name, plain(code))
    for name, icon in icons["icons"].items():
        if name in found.misnamed.split():
            continue
        box = {key: icon.get(key, icons.get(key, 0)) for key in ("left", "top", "width", "height")}
        side = max(box["width"], box["height"])
        left = box["left"] - (side - box["width"]) / 2
        top = box["top"] - (side - box["height"]) / 2
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {side} {side}">{icon["body"]}</svg>'
        )
        yield name, names.by_code.get(codes.get(name, "")) or names.named(name), svg


def flattened(path: Path) -> np.ndarray:
    """A picture file on white, uint8 [SIDE, SIDE, 3]."""
    with Image.open(path) as image:
        whole = image.convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    white.alpha_composite(whole)
    small = white.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small)


def pictures_of(
    style: str, modules: Path, names: Names, drawer: Drawer
) -> tuple[list[Picture], dict[str, Any]]:
    """The pictures of a set, and what became of its files."""
    found = SETS[style]
    made: list[Picture] = []
    unknown: list[str] = []
    failed: dict[str, str] = {}
    if found.folder:
        files = sorted((modules / found.home / found.folder).iterdir())
        known = [(file, names.by_code.get(plain(file.stem))) for file in files]
        unknown = [file.stem for file, emoji in known if emoji is None]
        made = [Picture(style, emoji, flattened(file)) for file, emoji in known if emoji]
        total = len(files)
    else:
        icons = list(iconify(modules, found, names))
        unknown = [name for name, emoji, _ in icons if emoji is None]
        wanted = [(name, emoji, svg) for name, emoji, svg in icons if emoji]
        drawn = drawer.draw({"svg": svg} for _, _, svg in wanted)
        for (name, emoji, _), pixels in zip(wanted, drawn):
            if isinstance(pixels, str):
                failed[name] = pixels
            else:
                made.append(Picture(style, emoji, pixels))
        total = len(icons) + len(found.misnamed.split())
    shown = [picture for picture in made if marked(picture.pixels) >= MARKED]
    kept = distinct(shown)
    told = {
        "package": found.package,
        "licence": found.licence,
        "files": total,
        "pictures": len(kept),
        "the_same_again": len(shown) - len(kept),
        "white_on_white": len(made) - len(shown),
        "not_drawn": failed,
        "no_emoji_of_that_name": unknown,
        "misnamed": found.misnamed.split(),
    }
    return kept, told


def marked(pixels: np.ndarray) -> int:
    """Pixels that stand out from white paper."""
    return int((pixels.min(axis=-1) < 255 - 32).sum())


def distinct(pictures: list[Picture]) -> list[Picture]:
    """One of each picture, that with the shortest name: Norway's flag, which is Bouvet Island's."""
    best: dict[bytes, Picture] = {}
    for picture in pictures:
        key = picture.pixels.tobytes()
        if key not in best or len(picture.emoji.label) < len(best[key].emoji.label):
            best[key] = picture
    return list(best.values())


def place(*words: str) -> float:
    """A number from 0 to 1 that is always the same for the same words."""
    return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:4]) / 2**32


def split_of(style: str, emoji: Emoji) -> tuple[str, str | None]:
    """(split, what is held out of a composition)."""
    where = place("concept", emoji.concept)
    if where < SHARES["validation"]:
        return "validation", None
    if where < SHARES["validation"] + SHARES["test"]:
        return "test", None
    trade = emoji.profession and emoji.tone
    if trade and place("person", emoji.concept, emoji.gender, str(emoji.tone)) < PERSON_SHARE:
        return "compositions", "person"
    if place("style", emoji.concept, SETS[style].family or style) < STYLE_SHARE:
        return "compositions", "style"
    return "train", None


def sorted_out(pictures: list[Picture]) -> dict[str, list[tuple[Picture, str | None]]]:
    """Pictures by split. A style is held out only where training shows the concept in another."""
    split = [(picture, *split_of(picture.style, picture.emoji)) for picture in pictures]
    seen = {picture.emoji.concept for picture, name, _ in split if name == "train"}
    out: dict[str, list[tuple[Picture, str | None]]] = {name: [] for name in SPLITS}
    for picture, name, what in split:
        if what == "style" and picture.emoji.concept not in seen:
            name, what = "train", None
        out[name].append((picture, what))
    return out


def rows(
    split: str, pictures: list[tuple[Picture, str | None]], seed: int
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """(row of metadata.jsonl, pixels)."""
    rng = Random(f"{seed} {split}")
    for number, (picture, what) in enumerate(pictures):
        emoji = picture.emoji
        text = caption(picture.style, emoji, rng, whole=split != "train")
        row = {"file_name": f"{number:06d}.png", "text": text, "style": picture.style}
        row |= {"name": emoji.label, "tone": emoji.tone, "code": emoji.code, "held_out": what}
        yield row, picture.pixels


def main() -> int:
    opening, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the splits")
    parser.add_argument(
        "--set",
        action="append",
        choices=SETS,
        metavar="NAME",
        help=f"only this set, may be repeated; one of: {', '.join(SETS)}",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the wordings")
    parser.add_argument("--packages", type=Path, default=NPM, help="npm packages, kept there")
    arguments = parser.parse_args()
    out, wanted = arguments.out, arguments.set or list(SETS)
    try:
        same_settings(out, {"sets": wanted, "seed": arguments.seed})
        if all((out / name / "metadata.jsonl").exists() for name in SPLITS):
            print(f"all lies in {out} already")
            return 0
        named = dict.fromkeys([UNICODE, *(SETS[style].package for style in wanted)])
        packages = (RESVG, PACKAGE, *named)
        home = installed(packages, arguments.packages / "emoji")
        names = Names(home / "node_modules")
        pictures: list[Picture] = []
        told = {}
        with Drawer(home) as drawer, Reporter("emoji", "sets") as report:
            for number, style in enumerate(wanted, 1):
                made, told[style] = pictures_of(style, home / "node_modules", names, drawer)
                pictures += made
                report(number, len(wanted), style)
        splits = sorted_out(pictures)
        for name, held in splits.items():
            if not (out / name / "metadata.jsonl").exists():
                write_pictures(out / name, rows(name, held, arguments.seed))
            what = Counter(what for _, what in held if what)
            print(f"{name}: {len(held)} emoji {dict(what) or ''}", flush=True)
        write_json(out / "sources.json", told)
        licences = "".join(f"{style}: {SETS[style].licence}\n" for style in wanted)
        atomic_write(out / "LICENCES.txt", licences.encode())
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    for style, about in told.items():
        print(f"{style}: {about['pictures']} of {about['files']} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
