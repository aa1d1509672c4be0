"""A model that draws people to words: training, bits, and whether its pictures obey.

    python recipes/avatar_model.py [--minutes 240] [--threads 1] [--further] [--work .]

Makes the avatars (`recipes/data/avatars.py`), prepares them with full chroma and a restart at every
MCU, so that colours cannot drift, learns a vocabulary and one of text, trains with one caption in
ten dropped and every second picture with a hole, and measures: bits of the test pictures and of
combinations never seen in training, with captions and without; for 500 captions of such
combinations whether the drawn picture lies nearer to the true one than to each that differs in one
attribute (`obedience`); a sheet of the first 64 captions of the test set, none left out. With
`--further` the model begins with the weights and the tokenizer of the one that ships. Each step is
one command, printed as it runs; finished ones are skipped, so it can be run again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release.figures import FIGURES, figure
from release.run import begin, publish
from steps import JPEGLM, ROOT

from jpeglm.environment import environment
from jpeglm.files import to_json, write_json
from jpeglm.generation.loading import load
from jpeglm.progress import Reporter

sys.path.insert(0, str(ROOT / "recipes" / "data"))
from avatars import alternatives, drawer, request
from drawing import NPM

ASKED = ("hair_color", "skin", "background", "glasses", "hair", "mouth")
"""Attributes that obedience is measured on."""
CAPTIONS, SHOWN, GUIDANCE = 500, 64, 1.5


def rows_of(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first rows of an image folder's metadata."""
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def obedience(model: Any, rows: list[dict[str, Any]], guidance: float) -> dict[str, Any]:
    """attribute → {asked, right, share, by_chance} of one picture for each caption.

    Right: of the avatar as it is described and all that differ from it in this attribute alone, the
    former is nearest in squared differences of pixels. by_chance: what guessing would reach.
    """
    right: dict[str, list[bool]] = {name: [] for name in ASKED}
    chance: dict[str, list[float]] = {name: [] for name in ASKED}
    with drawer(NPM) as node, Reporter("obedience", "captions") as report:
        for number, row in enumerate(rows):
            own = {name: row[name] for name in row if row[name] is not None}
            variant = own.pop("variant")
            del own["file_name"], own["text"]
            drawn = model.generate(1, seed=number, text=row["text"], guidance=guidance).images[0]
            drawn = np.asarray(drawn.convert("RGB"), np.float64)
            for name in ASKED:
                others = alternatives(own, name) if name in own else []
                if not others:
                    continue
                shown = node.draw([request(one, variant) for one in (own, *others)])
                apart = [float(((drawn - picture) ** 2).mean()) for picture in shown]
                right[name].append(int(np.argmin(apart)) == 0)
                chance[name].append(1 / len(apart))
            report(number + 1, len(rows), "")
    return {
        name: {
            "asked": len(right[name]),
            "right": sum(right[name]),
            "share": sum(right[name]) / max(1, len(right[name])),
            "by_chance": sum(chance[name]) / max(1, len(chance[name])),
        }
        for name in ASKED
    }


def main() -> None:
    release = begin("avatars", __doc__, minutes=240, threads=1)
    source, data = Path("data/avatars"), Path("data/avatars64")
    out, model, steps = release.out, release.model, release.steps
    steps.do(
        source / "compositions" / "metadata.jsonl",
        sys.executable, ROOT / "recipes" / "data" / "avatars.py", source,
    )  # fmt: skip
    steps.do(
        data / "dataset.json",
        *JPEGLM, "prepare", source, data, "--split", "folder", "--labels", "none",
        "--quality", 25, "--subsampling", "4:4:4", "--restart-interval", 1,
    )  # fmt: skip
    words = ["train", data, "--out", out, *release.train_words()]
    words += ["--caption-dropout", 0.1, "--fim", 0.5]
    if not release.further:
        tokenizer = Path("data/avatars64-tokenizer")
        steps.do(
            tokenizer / "tokenizer.json",
            *JPEGLM, "train-tokenizer", data, "--out", tokenizer, "--vocab-size", 1024,
        )  # fmt: skip
        words += ["--tokenizer", tokenizer]
    steps.do(out / "finished", *JPEGLM, *words)
    for split in ("test", "compositions"):
        for name, words in ((split, []), (f"{split}-silent", ["--no-captions"])):
            measured = out / name / "result.json"
            steps.do(
                measured,
                *JPEGLM, "evaluate", "likelihood", source / split, "--checkpoint", model,
                "--limit", 1000, *words, "--out", out / name,
            )  # fmt: skip
            publish(measured, f"avatars-{name}")
    opened = load(model)
    table = obedience(opened, rows_of(source / "compositions", CAPTIONS), GUIDANCE)
    result = {"guidance": GUIDANCE, "obedience": table, "environment": environment()}
    write_json(ROOT / "docs" / "results" / "avatars-obedience.json", result)
    print(to_json(table))
    tiles: list[tuple[str, Image.Image]] = []
    for number, row in enumerate(rows_of(source / "test", SHOWN)):
        drawn = opened.generate(1, seed=number, text=row["text"], guidance=GUIDANCE)
        tiles.append((row["text"], drawn.images[0]))
    figure(tiles, 8, 128, FIGURES / "avatars-samples.jpg")


if __name__ == "__main__":
    main()
