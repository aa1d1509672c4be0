"""What the recipes of shipped checkpoints share: their cards' tables, figures, the installation."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from steps import ROOT

from jpeglm.files import atomic_folder, atomic_write, read_json, told, write_json
from jpeglm.folders import CHECKPOINT
from jpeglm.generation.loading import load
from jpeglm.generation.outputs import contact_sheet

ASSETS = ROOT / "src" / "jpeglm" / "assets"
RESULTS = ROOT / "docs" / "results"
FIGURES = ROOT / "docs" / "figures"


def options(
    description: str, minutes: float, threads: int, elsewhere: bool = False
) -> argparse.Namespace:
    """A recipe's options, with the work folder as current directory: relative paths, so that
    neither commands nor their results name this machine's folders. elsewhere: its model may be
    trained by recipes/gpu.py."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=minutes, help="of training")
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument(
        "--further", action="store_true", help="begin with the weights of the one that ships"
    )
    parser.add_argument("--work", type=Path, default=ROOT, help="where data/ and runs/ lie")
    if elsewhere:
        parser.add_argument(
            "--run", type=Path, help="photos.tar of recipes/gpu.py: no training here"
        )
    arguments = parser.parse_args()
    if elsewhere and arguments.run:
        arguments.run = arguments.run.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    return arguments


def train_words(name: str, arguments: argparse.Namespace) -> list[Any]:
    """What `jpeglm train` is told by every recipe."""
    begin = ["--init", name] if arguments.further else ["--preset", "2m"]
    return [
        *begin, "--minutes", arguments.minutes, "--threads", arguments.threads, "--compile", "on",
        "--ema", 0.999, "--samples", 0, "--eval-every", 250,
    ]  # fmt: skip


def take_run(file: Path, out: Path) -> None:
    """Put a run that was trained elsewhere in place of one trained here."""
    if not file.exists():
        sys.exit(f"there is no file {file}")
    mark = hashlib.sha256(file.read_bytes()).hexdigest()
    taken = out / "taken"
    if taken.exists() and taken.read_text() == mark:
        return
    if out.exists():
        sys.exit(f"{out} holds a run already; move it away to take {file}")
    with atomic_folder(out) as draft:
        try:
            with tarfile.open(file) as tar:
                tar.extractall(draft, filter="data")
        except (OSError, EOFError, tarfile.TarError) as error:
            sys.exit(f"{file} is no whole tar of recipes/gpu.py: {told(error)}")
        if not (draft / "model" / "model.safetensors").exists():
            sys.exit(f"{file} holds no model; its run was never evaluated")
        atomic_write(draft / "taken", mark.encode())
        settings = read_json(draft / "config.json")["settings"]
        words = f"python recipes/gpu.py  # {json.dumps(settings)}\n"
        atomic_write(draft / "finished", words.encode())


def publish(result: Path, name: str) -> dict[str, Any]:
    """An evaluation's result.json, kept as docs/results/NAME.json too."""
    found: dict[str, Any] = read_json(result)
    write_json(RESULTS / f"{name}.json", found)
    return found


def keep_installed(name: str, out: Path) -> Path:
    """A copy, made before anything replaces it, of the checkpoint that ships."""
    old = out / "before"
    if not old.exists():
        shutil.copytree(ASSETS / name, old)
    return old


def trained(out: Path) -> dict[str, Any]:
    """What a run did, as a card names it."""
    record, codec = read_json(out / "config.json"), read_json(out / "model" / "codec.json")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "loss" in row][-1]
    return codec["codec"] | {
        "parameters": record["parameters"],
        "alphabet": codec["alphabet"],
        "vocabulary": record["model"]["vocab_size"],
        "steps": last["step"],
        "images": last["images"],
        "tokens": last["tokens"],
        "minutes": last["seconds"] / 60,
        "machine": where(record),
    }


def where(record: dict[str, Any]) -> str:
    """What a run's config.json says of its machine."""
    if record["device"].startswith("cuda"):
        return f"one {record['hardware']}"
    return f"{record['settings']['threads'] or os.cpu_count()} thread(s) of {record['hardware']}"


STAGE = (
    "- {steps:,} steps, {images:,} {media} seen, {tokens:,} tokens, {minutes:.0f} minutes on "
    "{machine}."
)


def stages(run: dict[str, Any], media: str, before: Path | None) -> str:
    """The runs behind a checkpoint, a line each: `run`, as `trained` tells of it, began with the
    weights of the checkpoint `before`, whose card names those before it, or with none."""
    earlier: list[str] = []
    if before:
        told = (before / "README.md").read_text().partition("## Training")[2].partition("##")[0]
        earlier = [line for line in told.splitlines() if line.startswith("- ")]
    return "\n".join([*earlier, STAGE.format(**run, media=media)])


def coder_table(table: dict[str, Any]) -> str:
    """The likelihood table of pictures, best coder first."""
    lines = [
        "| coder | bits a picture | 95 % interval | against Huffman | in one file |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(table["coders"].items(), key=lambda item: item[1]["bits_per_image"]):
        low, high = row["interval"]
        shared = row.get("together")
        lines.append(
            f"| {name} | {row['bits_per_image']:.0f} | {low:.0f} to {high:.0f} | "
            f"{100 * row['against_huffman']:+.1f} % | "
            + (f"{100 * shared['against_huffman']:+.1f} % |" if shared else "|")
        )
    return "\n".join(lines)


def best_rival(table: dict[str, Any]) -> tuple[str, float]:
    """(name, bits against Huffman) of the best coder that is not the model."""
    rivals = {
        name: row["against_huffman"]
        for name, row in table["coders"].items()
        if not name.startswith("model")
    }
    best = min(rivals, key=rivals.__getitem__)
    return best, rivals[best]


def figure(tiles: Sequence[tuple[str, Image.Image]], columns: int, tile: int, out: Path) -> None:
    """Captioned pictures as one JPEG, to be shown in documents."""
    data = BytesIO()
    contact_sheet(list(tiles), columns, tile).save(data, "JPEG", quality=88)
    atomic_write(out, data.getvalue())


def side_by_side(
    models: dict[str, Path],
    pictures: Sequence[Image.Image],
    keep: float,
    out: Path,
    labels: Sequence[int] | None = None,
) -> None:
    """Completions of the same pictures by several checkpoints, a row a picture, two of each."""
    rows: list[list[tuple[str, Image.Image]]] = [[] for _ in pictures]
    for name, folder in models.items():
        model = load(folder)
        for number, picture in enumerate(pictures):
            label = labels[number] if labels is not None and model.classes else None
            drawn = model.complete(picture, keep, 2, label=label)
            if not rows[number]:
                rows[number] = [
                    ("original", model.codec.decode(drawn.original)),
                    ("prompt", model.codec.decode(drawn.prompt)),
                ]
            rows[number] += [(name, image) for image in drawn.images]
    figure([tile for row in rows for tile in row], 2 + 2 * len(models), 128, out)


def install(model: Path, name: str, card: str, limit: int) -> None:
    """Put a checkpoint and its card into the package, unless it is larger than `limit` bytes."""
    asset = ASSETS / name
    size = sum(file.stat().st_size for file in model.iterdir())
    if size > limit:
        sys.exit(f"{model} has {size} bytes; a shipped checkpoint may have {limit}")
    with atomic_folder(asset, CHECKPOINT.names) as draft:
        for file in model.iterdir():
            shutil.copyfile(file, draft / file.name)
        atomic_write(draft / "README.md", card.encode())
    print(f"{asset.relative_to(ROOT)}: {size / 1e6:.1f} MB")
