"""The model that draws emoji to words, which ships with the package: src/jpeglm/assets/emoji.

    python recipes/emoji.py [--minutes 120] [--threads 1] [--further] [--run emoji-0.tar]

Makes the emoji (`recipes/data/emoji.py`), prepares them as recipes/avatars.py does its people, and
trains with one caption in ten dropped, from the weights and with the tokenizer of the avatars that
ship. Measures, on concepts that no set in training drew (`test`) and on parts that were never seen
together (`compositions`): bits with the right caption, with none, and with that of another picture
of the same set; which of 100 captions a picture is likeliest under; of how many of 100 emoji, in a
set that never showed them, one recognises what is drawn (`release/recognised.py`); whether what it
draws is copied; a sheet of the first 64 captions, none left out. How it draws is chosen on other
captions (`recipes/emoji_sampling.py`). Then installs the checkpoint with its card.

With `--further` the model begins with the weights of the emoji's that ships. `--run` takes what
recipes/gpu.py trained in the place of a training here. Each step is one command, printed as it
runs; finished ones are skipped, so it can be run again. Needs data/resnet50.safetensors
(recipes/data/resnet50.py), which it makes.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release.card import card, coder_table, copying
from release.drawn import as_coded, drawings, learnt, not_copied, rows_of
from release.figures import FIGURES, figure
from release.recognised import (
    AMONG,
    MEASURED,
    captions,
    concept,
    directions,
    gallery,
    pixels,
    recognised,
)
from release.run import RESULTS, Release, begin, take_run
from steps import JPEGLM, ROOT

from jpeglm.environment import environment
from jpeglm.evaluation.features import RESNET50, ResNet50
from jpeglm.files import read_json, write_json
from jpeglm.generation.loading import load

sys.path.append(str(ROOT / "recipes" / "data"))  # behind this folder, whose emoji.py is this
from drawing import write_pictures

SHOWN, FEATURES = 64, 2000
"""Captions of the sheet; training pictures whose features are looked at."""
ALL = 10_000
"""More than any split has."""
SPLITS = ("test", "compositions")
TELLINGS = {"": [], "-silent": ["--no-captions"], "-wrong": []}
"""What the model is told of a held-out picture."""
KINDS = {
    "concept": ("test", "concepts that no set drew"),
    "style": ("compositions", "known ones in a set that never drew them"),
    "person": ("compositions", "trade, gender and skin tone never seen together"),
}
"""What is held out → (its split, in words)."""
ROWS = {
    "drawn": "drawn, among all true pictures",
    "drawn_in_other_sets": "drawn, among those that training saw",
    "true": "the held-out pictures themselves, among all the others",
    "true_in_other_sets": "the held-out pictures, among those that training saw",
    "drawn_for_others": "drawn for another caption of the same set",
    "by_chance": "by chance",
}
"""What `recognised` tells, in words."""
LIMIT = 5_000_000


def wrong(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the captions of others of their set that show another concept: each has that of
    the row half the set further, or of the next one that will do; of a set that shows nothing
    else, that of any row that will do."""
    sets = defaultdict(list)
    for row in rows:
        sets[row["style"]].append(row)
    told = []
    for row in rows:
        own = sets[row["style"]]
        start = own.index(row) + len(own) // 2
        turned = [own[(start + step) % len(own)] for step in range(len(own))]
        other = next(one for one in [*turned, *rows] if concept(one) != concept(row))
        told.append(row | {"text": other["text"]})
    return told


def judged(source: Path, rows: Iterable[dict[str, Any]], folder: Path) -> Path:
    """An image folder of these rows of the split `source`, in a folder each for what is held out of
    them, by which bits are told apart."""
    kinds = defaultdict(list)
    for row in rows:
        kinds[row["held_out"] or "concept"].append(row)
    for kind, own in kinds.items():
        if not (folder / kind / "metadata.jsonl").exists():
            (folder / kind).parent.mkdir(parents=True, exist_ok=True)
            pictures = ((row, np.asarray(Image.open(source / row["file_name"]))) for row in own)
            write_pictures(folder / kind, pictures)
    return folder


def measure(release: Release, source: Path, asked: list[dict[str, Any]]) -> dict[str, Any]:
    """What `jpeglm evaluate` says of the held-out pictures."""
    tables, home = {}, Path("data/emoji-judged")
    for split in SPLITS:
        rows = rows_of(source / split)
        folder = judged(source / split, rows, home / split)
        others = judged(source / split, wrong(rows), home / f"{split}-wrong")
        for telling, words in TELLINGS.items():
            data = others if telling == "-wrong" else folder
            tables[split + telling] = release.evaluate(
                "likelihood", split + telling, data, "--limit", ALL, *words
            )
    named = judged(source / "compositions", asked, home / "asked")
    tables["classify"] = release.evaluate("classify", "classify", named, "--limit", ALL)
    sets = Counter(row["style"] for row in asked)
    tables["named_by_style"] = len(sets) / len(asked)  # one of each set is guessed right
    return tables


def main() -> None:
    release = begin("emoji", __doc__, minutes=120, threads=1, elsewhere=True, init="avatars")
    source, data = Path("data/emoji"), Path("data/emoji64")
    out, model, steps = release.out, release.model, release.steps
    if release.elsewhere:
        take_run(release.elsewhere, out)
    steps.do(
        source / "LICENCES.txt", sys.executable, ROOT / "recipes" / "data" / "emoji.py", source
    )
    steps.do(
        data / "dataset.json",
        *JPEGLM, "prepare", source, data, "--split", "folder", "--labels", "none",
        "--quality", 25, "--subsampling", "4:4:4", "--restart-interval", 1,
    )  # fmt: skip
    release.keep_installed()
    if release.elsewhere:
        steps.shown += [(out / "finished").read_text().strip()]
    else:
        steps.do(
            out / "finished",
            *JPEGLM, "train", data, "--out", out, *release.train_words(),
            "--learning-rate", 0.008, "--eval-images", 128, "--caption-dropout", 0.1,
        )  # fmt: skip
    steps.do(RESNET50, sys.executable, ROOT / "recipes" / "data" / "resnet50.py", RESNET50)
    sampling = out / "sampling.json"
    steps.do(
        sampling,
        sys.executable, ROOT / "recipes" / "emoji_sampling.py", model, source, "--out", sampling,
    )  # fmt: skip
    chosen = read_json(sampling)
    write_json(RESULTS / "emoji-sampling.json", chosen)
    settings = read_json(model / "generation_config.json")
    write_json(model / "generation_config.json", settings | chosen["best"])
    rows = captions(source)
    asked = rows[:MEASURED]
    tables = measure(release, source, asked)
    opened = load(model)
    images = drawings(opened, rows)
    drawn = np.stack([np.asarray(image) for image in images])
    known = gallery(source, asked, opened.codec)
    ways = {"features": directions(ResNet50(RESNET50)), "pixels": pixels}
    told = {name: recognised(drawn[:MEASURED], known, way) for name, way in ways.items()}
    tables["recognised"] = told | {"captions": [row["text"] for row in asked]}
    sampled = {"sampling": chosen["best"], "environment": environment()}
    write_json(RESULTS / "emoji-recognised.json", tables["recognised"] | sampled)
    tiles = list(zip([row["text"] for row in rows[:SHOWN]], images))
    figure(tiles, 8, 128, FIGURES / "emoji-samples.jpg")
    figure([("", image) for _, image in tiles[:16]], 8, 128, FIGURES / "emoji-first.jpg")
    held_out = as_coded(opened.codec, [source / "compositions" / row["file_name"] for row in rows])
    beside = [(Image.fromarray(one), image) for one, image in zip(held_out, images[:24])]
    tiles = [tile for one, image in beside for tile in (("true", one), ("drawn", image))]
    figure(tiles, 12, 96, FIGURES / "emoji-beside.jpg")
    seen = learnt(opened.codec, data)
    seen = seen[np.random.default_rng(0).permutation(len(seen))]  # of all sets from the first on
    tables["copied"] = not_copied("emoji", drawn, held_out, seen, FEATURES)
    write_json(RESULTS / "emoji-copied.json", tables["copied"] | {"environment": environment()})
    release.install(make_card(release, source, data, tables | sampled), LIMIT)


def make_card(release: Release, source: Path, data: Path, tables: dict[str, Any]) -> str:
    """The model card."""
    dataset, sets = read_json(data / "dataset.json"), read_json(source / "sources.json")
    found = tables["recognised"]
    if release.began_with is None:
        beginning = "Trained from random weights."
    else:
        beginning = "The weights of `avatars` were its beginning, whose training stands first."
    return card(
        release,
        "pictures",
        beginning=beginning,
        sets="\n".join(f"- {name}: {about['licence']}" for name, about in sets.items()),
        streams=dataset["streams"]["train"],
        held_out=dataset["streams"]["validation"],
        pictures=tables["test"]["pictures"],
        combined=tables["compositions"]["pictures"],
        table=coder_table(tables["compositions"]),
        told=told_table(tables),
        named=f"{100 * tables['classify']['accuracy']:.1f} %",
        captions=tables["classify"]["among"],
        by_style=f"{100 * tables['named_by_style']:.1f} %",
        recognised=recognised_table(found),
        own_set=f"{100 * found['features']['own_set']:.0f} %",
        own_set_by_chance=f"{100 * found['features']['own_set_by_chance']:.0f} %",
        drawn=tables["copied"]["drawn"],
        **copying(tables["copied"]),
        **tables["sampling"],
    )


def told_table(tables: dict[str, Any]) -> str:
    """Bits of a held-out picture by what is held out of it, and by what the model is told."""
    lines = [
        "| | pictures | its caption | none | another's | Huffman | Lepton | JPEG XL |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, (split, words) in KINDS.items():
        bits, count = {}, 0
        for telling in TELLINGS:
            table = tables[split + telling]
            own = table["by_folder"][kind] if "by_folder" in table else table
            bits[telling], count = bits_of(own), own["pictures"]
        others = [bits[""].get(name) for name in ("huffman", "lepton", "jpeg-xl")]
        values = [*(bits[telling]["model"] for telling in TELLINGS), *others]
        shown = " | ".join("" if value is None else f"{value:.0f}" for value in values)
        lines.append(f"| {words} | {count} | {shown} |")
    return "\n".join(lines)


def bits_of(table: dict[str, Any]) -> dict[str, float]:
    """Bits of a picture by coder, of `evaluate likelihood` or of a folder of its own."""
    if "coders" in table:
        return {name: row["bits_per_image"] for name, row in table["coders"].items()}
    return dict(table["bits_per_image"])


def recognised_table(found: dict[str, Any]) -> str:
    """The share of pictures that are recognised, by what stands for a picture."""
    lines = [
        f"| | by features | among {AMONG} | by pixels | among {AMONG} |",
        "|---|---|---|---|---|",
    ]
    ways = [found["features"], found["pixels"]]
    for name, words in ROWS.items():
        shares = [share for way in ways for share in (way[name]["recognised"], way[name]["among"])]
        lines.append(f"| {words} | {' | '.join(f'{100 * share:.0f} %' for share in shares)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
