"""The photo model that ships with the package: from nothing to src/jpeglm/assets/photos.

    python recipes/photos.py [--minutes 90] [--threads 2] [--further] [--run photos.tar] [--work .]

Fetches the photo corpus (recipes/data/photos.py), cuts 24 crops of many scales out of each
picture, learns a vocabulary, trains on 64 crops of each, fewer of sources that would give more than
a fifth, every second crop with a hole, measures on held-out pictures (bits, 1,000 holes) and
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
from release.card import best_rival, card, coder_table, folder_table
from release.figures import FIGURES, figure, side_by_side
from release.run import ASSETS, RESULTS, Release, begin, take_run
from steps import JPEGLM, ROOT

from jpeglm.codecs.images import open_image
from jpeglm.data.crops import random_crop
from jpeglm.files import read_json, write_json

LIMIT, HOLES = 12_000_000, 1000
SAMPLING = {
    "temperature": 0.9, "top_k": 0, "top_p": 0.95, "complete": {"temperature": 0.7},
}  # fmt: skip
"""Measured on validation pictures (recipes/sampling.py, docs/log.md)."""


def main() -> None:
    release = begin("photos", __doc__, minutes=90, threads=2, elsewhere=True)
    photos, data, wide = Path("data/photos"), Path("data/photos64"), Path("data/photos64-wide")
    tokenizer = Path("data/photos64-tokenizer")
    out, model, steps = release.out, release.model, release.steps
    if release.elsewhere:
        take_run(release.elsewhere, out)  # first, so that a wrong file is told at once
    steps.do(
        photos / "corpus.json", sys.executable, ROOT / "recipes" / "data" / "photos.py", photos
    )
    steps.do(
        data / "dataset.json",
        *JPEGLM, "prepare", photos, data, "--split", "folder", "--crops", 24,
        "--restart-interval", 1,
    )  # fmt: skip
    if release.elsewhere:
        steps.shown += [(out / "finished").read_text().strip()]
        trained_on = out
    else:
        trained_on = wide
        words = ["train", wide, "--out", out, *release.train_words(), "--fim", 0.5]
        if not release.further:
            made = tokenizer / "tokenizer.json"
            steps.do(made, *JPEGLM, "train-tokenizer", data, "--out", tokenizer)
            words += ["--tokenizer", tokenizer]
        # Enough crops that hardly a stream repeats; the held-out ones are the same for both.
        steps.do(
            wide / "dataset.json",
            *JPEGLM, "prepare", photos, wide, "--split", "folder", "--crops", 64,
            "--balance", 0.2, "--restart-interval", 1,
        )  # fmt: skip
        steps.do(out / "finished", *JPEGLM, *words, "--eval-images", 1000)  # all of them
    release.keep_installed()
    settings = read_json(model / "generation_config.json")
    write_json(model / "generation_config.json", settings | SAMPLING)
    tables = {}
    for name, source in (("likelihood", data), ("transfer-likelihood", photos / "transfer")):
        tables[name] = release.evaluate("likelihood", name, source)
    samples = out / "samples"
    steps.do(
        samples / "sheet.png",
        *JPEGLM, "generate", "-n", 64, "--checkpoint", model, "--out", samples,
    )  # fmt: skip
    steps.do(
        RESULTS / "holes-photos.json",
        sys.executable, ROOT / "recipes" / "holes.py", model, data, "--count", HOLES,
    )  # fmt: skip
    tiles = [("", Image.open(path)) for path in sorted(samples.glob("sample-*.jpg"))]
    figure(tiles, 16, 64, FIGURES / "photos-samples.jpg")
    compare(release)
    release.install(make_card(release, trained_on, photos, *tables.values()), LIMIT)


def compare(release: Release) -> None:
    """Completions beside those of the checkpoint before: the astronaut and seven random crops of
    her photograph (public domain; the corpus may not be shown)."""
    photo = open_image(ASSETS / "astronaut.jpg")
    rng = np.random.default_rng(0)
    pictures = [photo, *(random_crop(photo, 64, 64, 0.25, rng) for _ in range(7))]
    models = {"before": release.before, "now": release.model}
    side_by_side(models, pictures, 0.5, FIGURES / "photos-before.jpg")


def make_card(
    release: Release, data: Path, photos: Path, table: dict[str, Any], transfer: dict[str, Any]
) -> str:
    """The model card; `data` holds the dataset.json of what was trained on."""
    dataset, corpus = read_json(data / "dataset.json"), read_json(photos / "corpus.json")
    best, best_against = best_rival(transfer)
    crops = dataset.get("crops_by_folder", {})
    sources = [
        "| source | pictures | crops of each | package | stated licence |",
        "|---|---|---|---|---|",
    ]
    for name, entry in corpus["sources"].items():
        if entry["split"] == "train":
            package = f"{entry['package']} {entry['version']} ({entry['client']})"
            licence = " ".join(str(entry["licence"]).split()).replace("|", "/")[:160]
            each = crops.get(name, dataset["settings"]["crops"])
            sources.append(f"| {name} | {entry['pictures']} | {each} | {package} | {licence} |")
    return card(
        release,
        "pictures",
        pictures=dataset["pictures"]["train"],
        streams=dataset["streams"]["train"],
        held_out=dataset["pictures"]["validation"],
        held_out_streams=table["pictures"],
        sources="\n".join(sources),
        table=coder_table(table),
        by_source=folder_table(table),
        transfer_pictures=transfer["pictures"],
        transfer=transfer["coders"]["model"]["bits_per_image"],
        transfer_against=100 * transfer["coders"]["model"]["against_huffman"],
        best=best,
        best_against=100 * best_against,
    )


if __name__ == "__main__":
    main()
