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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release.card import card, coder_table
from release.figures import FIGURES, figure, side_by_side
from release.run import Release, begin
from steps import JPEGLM, ROOT

from jpeglm.data.open import open_data
from jpeglm.files import read_json
from jpeglm.tokenizer import Tokenizer

LIMIT = 5_000_000
GUIDANCE = 1.5
"""Of the card's samples."""


def main() -> None:
    release = begin("cifar10", __doc__, minutes=40, threads=1)
    out, model, steps = release.out, release.model, release.steps
    source, data = Path("data/cifar10"), Path("data/cifar32")
    tokenizer = Path("data/cifar32-tokenizer")
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
    release.keep_installed()
    steps.do(
        out / "finished",
        *JPEGLM, "train", data, "--tokenizer", tokenizer, "--out", out,
        *release.train_words(), "--class-dropout", 0.1, "--eval-images", 512,
    )  # fmt: skip
    tables: dict[str, Any] = {}
    test = (source / "test.parquet", "--limit", 2000)
    for name, words in (("likelihood", []), ("unlabelled", ["--no-labels"])):
        tables[name] = release.evaluate("likelihood", name, *test, *words)
    tables["classify"] = release.evaluate("classify", "classify", *test)
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
    pictures = [codec.decode(row.stream) for row in shown]
    side_by_side(
        {"cifar10": model}, pictures, 0.5, FIGURES / "cifar10-completions.jpg",
        [row.label for row in shown],
    )  # fmt: skip
    release.install(make_card(release, data, names, tables), LIMIT)


def classification(found: dict[str, Any]) -> dict[str, str]:
    """What the card says of the classes that the model names, in percent."""
    low, high = found["interval"]
    confused = np.array(found["confusion"], float)
    own = confused.diagonal() / confused.sum(1)
    best, worst = (found["classes"][at] for at in (own.argmax(), own.argmin()))
    return {
        "named": f"{100 * found['accuracy']:.1f} %",
        "named_interval": f"{100 * low:.1f} to {100 * high:.1f} %",
        "named_best": f"{best}, {100 * own.max():.0f} %",
        "named_worst": f"{worst}, {100 * own.min():.0f} %",
    }


def make_card(release: Release, data: Path, names: Sequence[str], tables: dict[str, Any]) -> str:
    """The model card; names: of the classes, in the order of their numbers."""
    dataset = read_json(data / "dataset.json")
    return card(
        release,
        "pictures",
        guidance=GUIDANCE,
        classes=", ".join(names),
        streams=dataset["streams"]["train"],
        held_out=dataset["streams"]["validation"],
        pictures=tables["likelihood"]["pictures"],
        table=coder_table(tables["likelihood"]),
        unlabelled=tables["unlabelled"]["coders"]["model"]["bits_per_image"],
        **classification(tables["classify"]),
    )


if __name__ == "__main__":
    main()
