"""The photo model that ships with the package: from nothing to src/jpeglm/assets/photos.

    python recipes/photos.py [--minutes 90] [--threads 2] [--further] [--run photos.tar] [--work .]

Fetches the photo corpus (recipes/data/photos.py), cuts 24 crops of many scales out of each
picture, learns a vocabulary, trains on 64 crops of each, measures on held-out pictures and
installs the checkpoint with its card. With `--further` the model begins with the weights and the
tokenizer of the checkpoint that ships, as the present one did, else from nothing. `--run` takes
what recipes/gpu.py trained in the place of a training here.
Each step is one command, printed as it runs; finished ones are skipped, so it can be run again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release import (
    ASSETS,
    FIGURES,
    best_rival,
    coder_table,
    figure,
    install,
    keep_installed,
    options,
    publish,
    side_by_side,
    stages,
    take_run,
    train_words,
    trained,
)
from steps import JPEGLM, ROOT, Steps

from jpeglm.codecs.images import open_image
from jpeglm.data.crops import random_crop
from jpeglm.files import read_json

LIMIT = 12_000_000

CARD = """---
license: apache-2.0
library_name: transformers
tags: [jpeg, image-generation, llama]
---
# photos

A Llama of {parameters:,} parameters that writes {width} × {height} JPEG pictures (quality
{quality}, {subsampling}) as the symbols of JPEG's entropy coder (alphabet `{alphabet}`, byte-pair
vocabulary {vocabulary}). It is small: it continues colours, textures and simple shapes of a photo;
it does not draw recognisable objects.

    jpeglm complete photo.jpg          # this checkpoint is the default
    jpeglm generate -n 16

## Data

{pictures:,} distinct pictures, {streams:,} random crops of many scales; {held_out} more pictures
held out, of scenes that have none among the others (recipes/data/scenes.py). Licences as the
packages state them; no picture is redistributed here. Those of jojo-recipe-images are from
Wikimedia Commons, each under its own version of CC BY-SA.

{sources}

## Training

{stages}

Each run begins with the weights of the one before it. Commands of the last one
(`{recipe}`):

{commands}

## Bits per held-out picture

{held_out_streams} crops of {held_out} held-out pictures, mean and 95 % interval over pictures. The
other coders get the same coefficients without restart markers and are charged net of their fixed
headers; `-optimize` pays for its Huffman tables, which are each picture's own. In the last column
all pictures lie in one file, where adaptive coders have something to adapt to. The model's weights
are charged nowhere.

{table}

On {transfer_pictures} photographs of sources that training never saw (rooms, a photographer's
portfolio, OpenCV's samples; whole pictures) it needs {transfer:.0f} bits a picture,
{transfer_against:+.1f} % against Huffman ({best}, the best of the others: {best_against:+.1f} %).

## Samples

`jpeglm generate -n 64` (seed 0), all of them:

![64 samples](../../../../docs/figures/photos-samples.jpg)

Lower halves of a photograph and of seven random crops of it (the first two draws of seed 0),
by the checkpoint that shipped before and by this one:

![completions](../../../../docs/figures/photos-before.jpg)
"""


def main() -> None:
    arguments = options(__doc__, minutes=90, threads=2, elsewhere=True)
    photos, data, wide = Path("data/photos"), Path("data/photos64"), Path("data/photos64-wide")
    tokenizer, out = Path("data/photos64-tokenizer"), Path("runs/photos")
    model = out / "model"
    if arguments.run:
        take_run(arguments.run, out)  # first, so that a wrong file is told at once
    steps = Steps()
    steps.do(
        photos / "corpus.json", sys.executable, ROOT / "recipes" / "data" / "photos.py", photos
    )
    steps.do(
        data / "dataset.json",
        *JPEGLM, "prepare", photos, data, "--split", "folder", "--crops", 24,
        "--restart-interval", 1,
    )  # fmt: skip
    if arguments.run:
        steps.shown += [(out / "finished").read_text().strip()]
        trained_on = out
    else:
        trained_on = wide
        words = ["train", wide, "--out", out, *train_words("photos", arguments)]
        if not arguments.further:
            made = tokenizer / "tokenizer.json"
            steps.do(made, *JPEGLM, "train-tokenizer", data, "--out", tokenizer)
            words += ["--tokenizer", tokenizer]
        # Enough crops that hardly a stream repeats; the held-out ones are the same for both.
        steps.do(
            wide / "dataset.json",
            *JPEGLM, "prepare", photos, wide, "--split", "folder", "--crops", 64,
            "--restart-interval", 1,
        )  # fmt: skip
        steps.do(out / "finished", *JPEGLM, *words, "--eval-images", 305)
    before = keep_installed("photos", out)
    tables = {}
    for place, source, name in (
        (out / "measured", data, "photos-likelihood"),
        (out / "measured-transfer", photos / "transfer", "photos-transfer-likelihood"),
    ):
        words = ["evaluate", "likelihood", source, "--checkpoint", model, "--out", place]
        steps.do(place / "result.json", *JPEGLM, *words)
        tables[name] = publish(place / "result.json", name)
    samples = out / "samples"
    steps.do(
        samples / "sheet.png",
        *JPEGLM, "generate", "-n", 64, "--checkpoint", model, "--out", samples,
    )  # fmt: skip
    tiles = [("", Image.open(path)) for path in sorted(samples.glob("sample-*.jpg"))]
    figure(tiles, 16, 64, FIGURES / "photos-samples.jpg")
    compare(before, model)
    card = make_card(
        out,
        trained_on,
        photos,
        *tables.values(),
        steps.shown,
        before if arguments.further and not arguments.run else None,
        "recipes/gpu.py, recipes/photos.py --run"
        if arguments.run
        else f"recipes/photos.py{' --further' if arguments.further else ''}",
    )
    install(model, "photos", card, LIMIT)


def compare(old: Path, model: Path) -> None:
    """Completions beside those of the checkpoint before: the astronaut and seven random crops of
    her photograph (public domain; the corpus may not be shown)."""
    photo = open_image(ASSETS / "astronaut.jpg")
    rng = np.random.default_rng(0)
    pictures = [photo, *(random_crop(photo, 64, 64, 0.25, rng) for _ in range(7))]
    side_by_side({"before": old, "now": model}, pictures, 0.5, FIGURES / "photos-before.jpg")


def make_card(
    out: Path,
    data: Path,
    photos: Path,
    table: dict[str, Any],
    transfer: dict[str, Any],
    commands: list[str],
    before: Path | None,
    recipe: str,
) -> str:
    """The model card; `data` holds the dataset.json of what was trained on, `before` is the
    checkpoint that the run began with."""
    dataset, corpus = read_json(data / "dataset.json"), read_json(photos / "corpus.json")
    best, best_against = best_rival(transfer)
    run = trained(out)
    sources = ["| source | pictures | package | stated licence |", "|---|---|---|---|"]
    for name, entry in corpus["sources"].items():
        if entry["split"] == "train":
            package = f"{entry['package']} {entry['version']} ({entry['client']})"
            licence = " ".join(str(entry["licence"]).split()).replace("|", "/")[:160]
            sources.append(f"| {name} | {entry['pictures']} | {package} | {licence} |")
    return CARD.format(
        **run,
        stages=stages(run, "pictures", before),
        recipe=recipe,
        pictures=dataset["pictures"]["train"],
        streams=dataset["streams"]["train"],
        held_out=dataset["pictures"]["validation"],
        held_out_streams=table["pictures"],
        sources="\n".join(sources),
        commands="\n".join(f"    {command}" for command in commands),
        table=coder_table(table),
        transfer_pictures=transfer["pictures"],
        transfer=transfer["coders"]["model"]["bits_per_image"],
        transfer_against=100 * transfer["coders"]["model"]["against_huffman"],
        best=best,
        best_against=100 * best_against,
    )


if __name__ == "__main__":
    main()
