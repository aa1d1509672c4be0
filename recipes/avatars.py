"""The model that draws people to words, which ships with the package: src/jpeglm/assets/avatars.

    python recipes/avatars.py [--minutes 240] [--threads 1] [--further] [--run avatars-0.tar]

Makes the avatars (`recipes/data/avatars.py`), prepares them with full chroma and a restart at every
MCU, so that colours cannot drift, learns a vocabulary whose tokens name each MCU and one of text,
trains with one caption in ten dropped and every second picture with a hole, and measures: bits of
the test pictures and of combinations never seen in training, with captions and without; for 500
captions of such combinations whether the drawn picture lies nearer to the true one than to each
that differs in one attribute (`obedience`), beside other true pictures of the same captions; which
of 100 captions a picture is likeliest under; 1,000 holes; whether what it draws is copied; a sheet
of the first 64 captions of the test set, none left out. Then installs the checkpoint with its card.

With `--further` the model begins with the weights and the tokenizer of the one that ships. `--run`
takes what recipes/gpu.py trained in the place of a training here. Each step is one command, printed
as it runs; finished ones are skipped, so it can be run again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release.card import card, coder_table, copying
from release.drawn import as_coded, drawings, learnt, not_copied, rows_of
from release.figures import FIGURES, figure
from release.run import RESULTS, Release, begin, take_run
from steps import JPEGLM, ROOT

from jpeglm.checkpoint import COMPLETE
from jpeglm.environment import environment
from jpeglm.files import read_json, write_json
from jpeglm.generation.loading import load
from jpeglm.progress import Reporter

sys.path.insert(0, str(ROOT / "recipes" / "data"))  # before this folder, whose avatars.py is this
from avatars import alternatives, drawer, request
from drawing import NPM

ASKED = ("hair_color", "skin", "background", "glasses", "hair", "mouth")
"""Attributes that obedience is measured on."""
CAPTIONS, SHOWN, HOLES, NAMED = 500, 64, 1000, 100
SAMPLING = {"temperature": 0.6, "top_k": 0, "top_p": 1.0, "guidance": 2.0}
"""Chosen on validation captions (docs/log.md)."""
BEGUN = {"temperature": 0.3, "guidance": 1.5}
"""The same where a part of a picture is given, by recipes/hole_sampling.py."""
FEATURES = 2000
"""Training pictures whose features are looked at."""
OTHER = 1 << 20
"""Added to an avatar's variant where another picture of the same words is wanted."""
LIMIT = 5_000_000


def obedience(model: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """attribute → {asked, right, share, true, by_chance} of one picture for each caption.

    Right: of the avatar as it is described and all that differ from it in this attribute alone, the
    former is nearest in squared differences of pixels. true: the share of other true avatars of the
    same words that are right by this measure. by_chance: what guessing would reach.
    """
    right: dict[str, list[bool]] = {name: [] for name in ASKED}
    true: dict[str, list[bool]] = {name: [] for name in ASKED}
    chance: dict[str, list[float]] = {name: [] for name in ASKED}
    with drawer(NPM) as node, Reporter("obedience", "captions") as report:
        for number, row in enumerate(rows):
            own = {name: row[name] for name in row if row[name] is not None}
            variant = own.pop("variant")
            del own["file_name"], own["text"]
            drawn = model.generate(1, seed=number, text=row["text"]).images[0]
            (other,) = node.draw([request(own, variant + OTHER)])
            other = model.codec.decode(model.codec.encode(Image.fromarray(other)))
            made = [np.asarray(one.convert("RGB"), np.float64) for one in (drawn, other)]
            for name in ASKED:
                others = alternatives(own, name) if name in own else []
                if not others:
                    continue
                shown = list(node.draw([request(one, variant) for one in (own, *others)]))
                for picture, found in zip(made, (right, true)):
                    apart = [float(((picture - one) ** 2).mean()) for one in shown]
                    found[name].append(int(np.argmin(apart)) == 0)
                chance[name].append(1 / len(shown))
            report(number + 1, len(rows), "")
    return {
        name: {
            "asked": len(right[name]),
            "right": sum(right[name]),
            "share": sum(right[name]) / max(1, len(right[name])),
            "true": sum(true[name]) / max(1, len(true[name])),
            "by_chance": sum(chance[name]) / max(1, len(chance[name])),
        }
        for name in ASKED
    }


def main() -> None:
    release = begin("avatars", __doc__, minutes=240, threads=1, elsewhere=True)
    source, data = Path("data/avatars"), Path("data/avatars64")
    out, model, steps = release.out, release.model, release.steps
    if release.elsewhere:
        take_run(release.elsewhere, out)
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
            *JPEGLM, "train-tokenizer", data, "--out", tokenizer,
            "--alphabet", "jpeg-placed-symbols", "--vocab-size", 1780,
        )  # fmt: skip
        words += ["--tokenizer", tokenizer]
    release.keep_installed()
    if release.elsewhere:
        steps.shown += [(out / "finished").read_text().strip()]
    else:
        steps.do(out / "finished", *JPEGLM, *words)
    settings = read_json(model / "generation_config.json")
    write_json(model / "generation_config.json", settings | SAMPLING | {COMPLETE: BEGUN})
    tables: dict[str, Any] = {}
    for split in ("test", "compositions"):
        for name, words in ((split, []), (f"{split}-silent", ["--no-captions"])):
            tables[name] = release.evaluate(
                "likelihood", name, source / split, "--limit", 1000, *words
            )
    named = (source / "test", "--limit", NAMED)
    tables["classify"] = release.evaluate("classify", "classify", *named)
    opened = load(model)
    rows = rows_of(source / "compositions", CAPTIONS)
    tables["obedience"] = obedience(opened, rows)
    told = {"sampling": SAMPLING, "obedience": tables["obedience"], "environment": environment()}
    write_json(RESULTS / "avatars-obedience.json", told)
    shown = rows_of(source / "test", SHOWN)
    tiles = list(zip([row["text"] for row in shown], drawings(opened, shown)))
    figure(tiles, 8, 128, FIGURES / "avatars-samples.jpg")
    figure([("", image) for _, image in tiles[:16]], 8, 128, FIGURES / "avatars-first.jpg")
    drawn = np.stack([np.asarray(image) for image in drawings(opened, rows)])
    held_out = as_coded(opened.codec, [source / "compositions" / row["file_name"] for row in rows])
    seen = learnt(opened.codec, data)
    tables["copied"] = told = not_copied("avatars", drawn, held_out, seen, FEATURES)
    write_json(RESULTS / "avatars-copied.json", told | {"environment": environment()})
    release.install(make_card(release, data, tables), LIMIT)
    steps.do(
        RESULTS / "holes-avatars.json",
        sys.executable, ROOT / "recipes" / "holes.py", model, data, "--count", HOLES,
        "--name", "avatars",
    )  # fmt: skip


def make_card(release: Release, data: Path, tables: dict[str, Any]) -> str:
    """The model card."""
    dataset = read_json(data / "dataset.json")
    lines = ["| | right | other true pictures | by chance |", "|---|---|---|---|"]
    for name, row in tables["obedience"].items():
        shares = " | ".join(f"{100 * row[key]:.0f} %" for key in ("share", "true", "by_chance"))
        lines.append(f"| {name.replace('_', ' ')} | {shares} |")
    bits = {
        name.replace("-", "_"): f"{tables[name]['coders']['model']['bits_per_image']:.0f}"
        for name in ("test", "test-silent", "compositions", "compositions-silent")
    }
    named = tables["classify"]
    return card(
        release,
        "pictures",
        streams=dataset["streams"]["train"],
        held_out=dataset["streams"]["validation"],
        pictures=tables["test"]["pictures"],
        table=coder_table(tables["test"]),
        obedience="\n".join(lines),
        captions=CAPTIONS,
        named=f"{100 * named['accuracy']:.1f} %",
        **copying(tables["copied"]),
        **SAMPLING,
        **bits,
    )


if __name__ == "__main__":
    main()
