"""The class-conditional CIFAR-10 model that ships with the package: src/jpeglm/assets/cifar10.

    python recipes/cifar10.py [--minutes 40] [--threads 1] [--further] [--work .]

Fetches CIFAR-10, prepares it at 32 × 32, learns a vocabulary with ten class tokens, trains with one
class token in ten dropped (so that the model also draws without a class, and guidance has what it
pushes away from), measures on the test set and installs the checkpoint with its card. Each step is
one command, printed as it runs; finished ones are skipped, so it can be run again. With `--further`
the model begins with the weights of the checkpoint that ships, else from nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image
from release import (
    FIGURES,
    coder_table,
    figure,
    install,
    keep_installed,
    options,
    publish,
    side_by_side,
    stages,
    train_words,
    trained,
)
from steps import JPEGLM, ROOT, Steps

from jpeglm.data.open import open_data
from jpeglm.files import read_json
from jpeglm.tokenizer import Tokenizer

LIMIT = 5_000_000
GUIDANCE = 1.5
"""Of the card's samples."""

CARD = """---
license: apache-2.0
library_name: transformers
tags: [jpeg, image-generation, llama, cifar10]
---
# cifar10

A Llama of {parameters:,} parameters that writes {width} × {height} JPEG pictures (quality
{quality}, {subsampling}) as the symbols of JPEG's entropy coder (alphabet `{alphabet}`, byte-pair
vocabulary {vocabulary}, ten of them classes). It was trained on CIFAR-10 on a CPU: colours,
grounds and rough shapes are those of the class; objects are seldom recognisable.

    jpeglm generate --checkpoint cifar10 -n 16
    jpeglm generate --checkpoint cifar10 -n 16 --label ship --guidance {guidance:g}
    jpeglm complete photo.jpg --checkpoint cifar10 --label cat

Classes, in the order of their numbers: {classes}.

## Training

CIFAR-10's training set (Krizhevsky 2009), {streams:,} pictures; {held_out:,} more chose the best
step.

{stages}

Each run begins with the weights of the one before it. Commands of the last one
(`recipes/cifar10.py{further}`):

{commands}

## Bits per test picture

The first {pictures:,} pictures of the standard test set with their classes, mean and 95 %
interval. The other coders get the same coefficients without restart markers and are charged net of
their fixed headers; `-optimize` pays for its Huffman tables, which are each picture's own.

{table}

Told no class, the model needs {unlabelled:.1f} bits.

## Samples

The first six of each class in its own row, seed 0, guidance {guidance:g}:

![samples of ten classes](../../../../docs/figures/cifar10-samples.jpg)

The first eight test pictures, half of each given, the first two draws of seed 0:

![completions](../../../../docs/figures/cifar10-completions.jpg)
"""


def main() -> None:
    arguments = options(__doc__, minutes=40, threads=1)
    source, data = Path("data/cifar10"), Path("data/cifar32")
    tokenizer, out = Path("data/cifar32-tokenizer"), Path("runs/cifar10")
    model = out / "model"
    steps = Steps()
    recipe = ROOT / "recipes" / "data" / "cifar10.py"
    steps.do(source / "test.parquet", sys.executable, recipe, source)
    steps.do(
        data / "dataset.json",
        *JPEGLM, "prepare", source / "train.parquet", data, "--size", 32, "--restart-interval", 1,
    )  # fmt: skip
    steps.do(
        tokenizer / "tokenizer.json",
        *JPEGLM, "train-tokenizer", data, "--out", tokenizer, "--classes", 10,
    )  # fmt: skip
    before = keep_installed("cifar10", out)
    steps.do(
        out / "finished",
        *JPEGLM, "train", data, "--tokenizer", tokenizer, "--out", out,
        *train_words("cifar10", arguments), "--class-dropout", 0.1, "--eval-images", 512,
    )  # fmt: skip
    tables: dict[str, Any] = {}
    for name, words in (("likelihood", []), ("unlabelled", ["--no-labels"])):
        measured = out / name / "result.json"
        steps.do(
            measured,
            *JPEGLM, "evaluate", "likelihood", source / "test.parquet", "--checkpoint", model,
            "--limit", 2000, *words, "--out", out / name,
        )  # fmt: skip
        tables[name] = publish(measured, f"cifar10-{name}")
    tokenizer_of = Tokenizer.load(model)
    names, codec = tokenizer_of.class_names, tokenizer_of.codec
    tiles = []
    for name in names:
        samples = out / "samples" / name
        steps.do(
            samples / "sheet.png",
            *JPEGLM, "generate", "-n", 6, "--label", name, "--guidance", GUIDANCE,
            "--checkpoint", model, "--out", samples,
        )  # fmt: skip
        tiles += [(name, Image.open(path)) for path in sorted(samples.glob("sample-*.jpg"))]
    figure(tiles, 6, 96, FIGURES / "cifar10-samples.jpg")
    first = open_data(source / "test.parquet", codec).streams(None)
    shown = [row for row, _ in zip(first, range(8))]
    pictures = [codec.decode(stream) for _, stream, _ in shown]
    side_by_side(
        {"cifar10": model}, pictures, 0.5, FIGURES / "cifar10-completions.jpg",
        [label for _, _, label in shown],
    )  # fmt: skip
    dataset = read_json(data / "dataset.json")
    run = trained(out)
    card = CARD.format(
        **run,
        stages=stages(run, "pictures", before if arguments.further else None),
        further=" --further" if arguments.further else "",
        guidance=GUIDANCE,
        classes=", ".join(names),
        streams=dataset["streams"]["train"],
        held_out=dataset["streams"]["validation"],
        commands="\n".join(f"    {command}" for command in steps.shown),
        pictures=tables["likelihood"]["pictures"],
        table=coder_table(tables["likelihood"]),
        unlabelled=tables["unlabelled"]["coders"]["model"]["bits_per_image"],
    )
    install(model, "cifar10", card, LIMIT)


if __name__ == "__main__":
    main()
