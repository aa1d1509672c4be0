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
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from jpeglm.files import atomic_folder, atomic_write, read_json

ROOT = Path(__file__).resolve().parents[1]
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

{sources}

## Training

{steps} steps, {images:,} pictures seen, {tokens:,} tokens, {minutes:.0f} minutes on {machine}.
Commands (`recipes/photos.py`):

{commands}

## Bits per held-out picture

{held_out_streams} held-out crops, mean and 95 % interval over pictures; other coders get the same
coefficients without restart markers, net of what they write for a flat picture.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40, help="of training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT, help="where data/ and runs/ lie")
    arguments = parser.parse_args()
    work = arguments.work
    photos, data = work / "data" / "photos", work / "data" / "photos64"
    tokenizer, out = work / "data" / "photos64-tokenizer", work / "runs" / "photos"
    measured = ROOT / "docs" / "results" / "photos-likelihood.json"
    jpeglm = [sys.executable, "-m", "jpeglm.cli"]
    model = out / "model"
    options: list[Any] = ["--tokenizer", tokenizer, "--out", out, "--preset", "2m"]
    options += ["--minutes", arguments.minutes, "--threads", arguments.threads]
    options += ["--compile", "on", "--samples", 0, "--eval-every", 250, "--eval-images", 128]
    steps: list[tuple[Path, list[Any]]] = [
        (photos / "corpus.json", [sys.executable, ROOT / "recipes" / "data" / "photos.py", photos]),
        (
            data / "dataset.json",
            [*jpeglm, "prepare", photos / "train", data, "--crops", 24, "--restart-interval", 1],
        ),
        (tokenizer / "tokenizer.json", [*jpeglm, "train-tokenizer", data, "--out", tokenizer]),
        (out / "finished", [*jpeglm, "train", data, *options]),
        (
            out / "measured",
            [*jpeglm, "evaluate", "likelihood", data, "--checkpoint", model, "--out", measured],
        ),
    ]
    commands = []
    for result, command in steps:
        words = [str(word) for word in command]
        shown = shlex.join(words).replace(shlex.join(jpeglm), "jpeglm")
        commands.append(shown.replace(f"{sys.executable} ", "python ").replace(f"{ROOT}/", ""))
        if result.exists():
            print(f"done: {commands[-1]}", flush=True)
            continue
        print(commands[-1], flush=True)
        subprocess.run(words, check=True)
        if not result.exists():
            atomic_write(result, b"")
    install(out, data, photos, measured, commands)


def install(out: Path, data: Path, photos: Path, measured: Path, commands: list[str]) -> None:
    """Write the card and put the checkpoint into the package."""
    model, table = out / "model", read_json(measured)
    config, codec = read_json(model / "config.json"), read_json(model / "codec.json")
    dataset, corpus = read_json(data / "dataset.json"), read_json(photos / "corpus.json")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "loss" in row][-1]
    layers = config["num_hidden_layers"]
    width, inner = config["hidden_size"], config["intermediate_size"]
    parameters = config["vocab_size"] * width + layers * (
        4 * width * width + 3 * width * inner + 2 * width
    ) + width  # fmt: skip
    lines = ["| coder | bits a picture | 95 % interval | against Huffman |", "|---|---|---|---|"]
    for name, row in sorted(table["coders"].items(), key=lambda item: item[1]["bits_per_image"]):
        low, high = row["interval"]
        lines.append(
            f"| {name} | {row['bits_per_image']:.0f} | {low:.0f} to {high:.0f} | "
            f"{100 * row['against_huffman']:+.1f} % |"
        )
    sources = ["| source | pictures | package | stated licence |", "|---|---|---|---|"]
    for name, entry in corpus["sources"].items():
        if entry["split"] == "train":
            package = f"{entry['package']} {entry['version']} ({entry['client']})"
            licence = " ".join(str(entry["licence"]).split()).replace("|", "/")[:160]
            sources.append(f"| {name} | {entry['pictures']} | {package} | {licence} |")
    card = CARD.format(
        parameters=parameters,
        width=codec["codec"]["width"],
        height=codec["codec"]["height"],
        quality=codec["codec"]["quality"],
        subsampling=codec["codec"]["subsampling"],
        alphabet=codec["alphabet"],
        vocabulary=config["vocab_size"],
        pictures=dataset["pictures"]["train"],
        streams=dataset["streams"]["train"],
        held_out=dataset["pictures"]["validation"],
        held_out_streams=table["pictures"],
        sources="\n".join(sources),
        steps=last["step"],
        images=last["images"],
        tokens=last["tokens"],
        minutes=last["seconds"] / 60,
        machine="two cores of a shared AMD EPYC",
        commands="\n".join(f"    {command}" for command in commands),
        table="\n".join(lines),
    )
    size = (model / "model.safetensors").stat().st_size
    if size > LIMIT:
        sys.exit(f"{model} has {size} bytes of weights; a shipped checkpoint may have {LIMIT}")
    with atomic_folder(ASSET) as draft:
        for file in model.iterdir():
            shutil.copyfile(file, draft / file.name)
        atomic_write(draft / "README.md", card.encode())
    print(f"{ASSET.relative_to(ROOT)}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
