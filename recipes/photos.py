"""The photo model that ships with the package: from nothing to src/jpeglm/assets/photos.

python recipes/photos.py [--minutes 40] [--threads 2] [--work .]

Fetches the photo corpus (recipes/data/photos.py), cuts 24 crops of many scales out of each
picture, learns a vocabulary, trains, measures on held-out pictures and installs the checkpoint
with its card.
Each step is one command, printed as it runs; finished ones are skipped, so it can be run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from steps import JPEGLM, ROOT, Steps

from jpeglm.environment import processor
from jpeglm.files import atomic_folder, atomic_write, read_json

ASSET = ROOT / "src" / "jpeglm" / "assets" / "photos"
LIMIT = 12_000_000

CARD = """---
license: apache-2.0
library_name: transformers
tags: [jpeg, image-generation, llama]
---
# photos

A Llama of {parameters:,} parameters that writes {width} × {height} JPEG pictures (quality
{quality}, {subsampling}) as the symbols of JPEG's entropy coder (alphabet `{alphabet}`, byte-pair
vocabulary {vocabulary}). It is small and was trained on a CPU: it continues colours, textures and
simple shapes of a photo; it does not draw recognisable objects.

    jpeglm complete photo.jpg          # this checkpoint is the default
    jpeglm generate -n 16

## Data

{pictures:,} distinct pictures, {streams:,} random crops of many scales; {held_out} more pictures
held out, split by content. Licences as the packages state them; no picture is redistributed here.
Those of jojo-recipe-images are from Wikimedia Commons, each under its own version of CC BY-SA.

{sources}

## Training

{steps} steps, {images:,} pictures seen, {tokens:,} tokens, {minutes:.0f} minutes on {machine}.
Commands (`recipes/photos.py`):

{commands}

## Bits per held-out picture

{held_out_streams} crops of {held_out} held-out pictures, mean and 95 % interval over pictures. The
other coders get the same coefficients without restart markers and are charged net of their fixed
headers; `-optimize` pays for its Huffman tables, which are each picture's own.

{table}

On {transfer_pictures} photographs of sources that training never saw (rooms, a photographer's
portfolio, OpenCV's samples; whole pictures) it needs {transfer:.0f} bits a picture,
{transfer_against:+.1f} % against Huffman ({best}, the best of the others: {best_against:+.1f} %).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40, help="of training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT, help="where data/ and runs/ lie")
    arguments = parser.parse_args()
    # Relative paths, so that neither the commands nor their results name this machine's folders.
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    photos, data = Path("data/photos"), Path("data/photos64")
    tokenizer, out = Path("data/photos64-tokenizer"), Path("runs/photos")
    measured = ROOT / "docs" / "results" / "photos-likelihood.json"
    transfer = ROOT / "docs" / "results" / "photos-transfer-likelihood.json"
    model = out / "model"
    options: list[Any] = ["--tokenizer", tokenizer, "--out", out, "--preset", "2m"]
    options += ["--minutes", arguments.minutes, "--threads", arguments.threads]
    options += ["--compile", "on", "--samples", 0, "--eval-every", 250, "--eval-images", 128]
    steps = Steps()
    steps.do(
        photos / "corpus.json", sys.executable, ROOT / "recipes" / "data" / "photos.py", photos
    )
    steps.do(
        data / "dataset.json",
        *JPEGLM, "prepare", photos / "train", data, "--crops", 24, "--restart-interval", 1,
    )  # fmt: skip
    steps.do(tokenizer / "tokenizer.json", *JPEGLM, "train-tokenizer", data, "--out", tokenizer)
    steps.do(out / "finished", *JPEGLM, "train", data, *options)
    for name, source, table in (
        ("measured", data, measured),
        ("measured-transfer", photos / "transfer", transfer),
    ):
        words = ["evaluate", "likelihood", source, "--checkpoint", model, "--out", table]
        steps.do(out / name, *JPEGLM, *words)
    install(out, data, photos, read_json(measured), read_json(transfer), steps.shown)


def install(
    out: Path,
    data: Path,
    photos: Path,
    table: dict[str, Any],
    transfer: dict[str, Any],
    commands: list[str],
) -> None:
    """Write the card and put the checkpoint into the package."""
    model = out / "model"
    record, codec = read_json(out / "config.json"), read_json(model / "codec.json")
    dataset, corpus = read_json(data / "dataset.json"), read_json(photos / "corpus.json")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "loss" in row][-1]
    lines = ["| coder | bits a picture | 95 % interval | against Huffman |", "|---|---|---|---|"]
    for name, row in sorted(table["coders"].items(), key=lambda item: item[1]["bits_per_image"]):
        low, high = row["interval"]
        lines.append(
            f"| {name} | {row['bits_per_image']:.0f} | {low:.0f} to {high:.0f} | "
            f"{100 * row['against_huffman']:+.1f} % |"
        )
    others = {
        name: row["against_huffman"]
        for name, row in transfer["coders"].items()
        if not name.startswith("model")
    }
    best = min(others, key=others.__getitem__)
    sources = ["| source | pictures | package | stated licence |", "|---|---|---|---|"]
    for name, entry in corpus["sources"].items():
        if entry["split"] == "train":
            package = f"{entry['package']} {entry['version']} ({entry['client']})"
            licence = " ".join(str(entry["licence"]).split()).replace("|", "/")[:160]
            sources.append(f"| {name} | {entry['pictures']} | {package} | {licence} |")
    card = CARD.format(
        parameters=record["parameters"],
        width=codec["codec"]["width"],
        height=codec["codec"]["height"],
        quality=codec["codec"]["quality"],
        subsampling=codec["codec"]["subsampling"],
        alphabet=codec["alphabet"],
        vocabulary=record["model"]["vocab_size"],
        pictures=dataset["pictures"]["train"],
        streams=dataset["streams"]["train"],
        held_out=dataset["pictures"]["validation"],
        held_out_streams=table["pictures"],
        sources="\n".join(sources),
        steps=last["step"],
        images=last["images"],
        tokens=last["tokens"],
        minutes=last["seconds"] / 60,
        machine=f"{record['settings']['threads'] or os.cpu_count()} threads of {processor()}",
        commands="\n".join(f"    {command}" for command in commands),
        table="\n".join(lines),
        transfer_pictures=transfer["pictures"],
        transfer=transfer["coders"]["model"]["bits_per_image"],
        transfer_against=100 * transfer["coders"]["model"]["against_huffman"],
        best=best,
        best_against=100 * others[best],
    )
    size = sum(file.stat().st_size for file in model.iterdir())
    if size > LIMIT:
        sys.exit(f"{model} has {size} bytes; a shipped checkpoint may have {LIMIT}")
    with atomic_folder(ASSET) as draft:
        for file in model.iterdir():
            shutil.copyfile(file, draft / file.name)
        atomic_write(draft / "README.md", card.encode())
    print(f"{ASSET.relative_to(ROOT)}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
