"""A release in the making: its options, its folder, its training, its place in the package."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps import JPEGLM, ROOT, Steps

from jpeglm.files import atomic_folder, atomic_write, read_json, told, write_json
from jpeglm.folders import CHECKPOINT

ASSETS = ROOT / "src" / "jpeglm" / "assets"
RESULTS = ROOT / "docs" / "results"


@dataclass(frozen=True)
class Release:
    """A checkpoint that ships, while its recipe makes it in runs/NAME."""

    name: str
    """Of the checkpoint and of its recipe."""
    further: bool
    """Whether the run begins with the weights of the checkpoint that ships."""
    minutes: float
    """Of training."""
    threads: int
    elsewhere: Path | None
    """photos.tar of recipes/gpu.py, which takes the place of a training here."""
    steps: Steps = field(default_factory=Steps)
    init: str | None = None
    """The shipped checkpoint whose weights a first run begins with; None: random ones."""

    @property
    def out(self) -> Path:
        """The run's folder."""
        return Path("runs") / self.name

    @property
    def model(self) -> Path:
        """The run's best checkpoint."""
        return self.out / "model"

    @property
    def before(self) -> Path:
        """Where `keep_installed` keeps the checkpoint that shipped before."""
        return self.out / "before"

    @property
    def began_with(self) -> Path | None:
        """The checkpoint whose weights the run began with."""
        if self.further and not self.elsewhere:
            return self.before
        return ASSETS / self.init if self.init else None

    @property
    def recipe(self) -> str:
        """The recipes that made the checkpoint, as its card names them."""
        if self.elsewhere:
            return f"recipes/gpu.py, recipes/{self.name}.py --run"
        return f"recipes/{self.name}.py{' --further' if self.further else ''}"

    def train_words(self) -> list[Any]:
        """What `jpeglm train` is told by every recipe."""
        start = self.name if self.further else self.init
        begin = ["--init", start] if start else ["--preset", "2m"]
        return [
            *begin, "--minutes", self.minutes, "--threads", self.threads, "--compile", "on",
            "--ema", 0.999, "--samples", 0, "--eval-every", 250,
        ]  # fmt: skip

    def keep_installed(self) -> None:
        """Copy the checkpoint that ships, if one does, before anything replaces it."""
        if (ASSETS / self.name).exists() and not self.before.exists():
            shutil.copytree(ASSETS / self.name, self.before)

    def evaluate(self, verb: str, place: str, *words: Any) -> dict[str, Any]:
        """What `jpeglm evaluate VERB WORDS…` says of the run's checkpoint, in OUT/PLACE and kept
        as docs/results/NAME-PLACE.json."""
        folder = self.out / place
        command = ["evaluate", verb, *words, "--checkpoint", self.model, "--out", folder]
        self.steps.do(folder / "result.json", *JPEGLM, *command)
        found: dict[str, Any] = read_json(folder / "result.json")
        write_json(RESULTS / f"{self.name}-{place}.json", found)
        return found

    def install(self, card: str, limit: int) -> None:
        """Put the checkpoint and its card into the package, unless it is larger than `limit`
        bytes."""
        asset, files = ASSETS / self.name, list(self.model.iterdir())
        size = sum(file.stat().st_size for file in files)
        if size > limit:
            sys.exit(f"{self.model} has {size} bytes; a shipped checkpoint may have {limit}")
        with atomic_folder(asset, CHECKPOINT.names) as draft:
            for file in files:
                shutil.copyfile(file, draft / file.name)
            atomic_write(draft / "README.md", card.encode())
        print(f"{asset.relative_to(ROOT)}: {size / 1e6:.1f} MB")


def begin(
    name: str,
    description: str | None,
    minutes: float,
    threads: int,
    elsewhere: bool = False,
    init: str | None = None,
) -> Release:
    """A release as its recipe's options say, with the work folder as current directory: relative
    paths, so that neither commands nor their results name this machine's folders. elsewhere: the
    model may be trained by recipes/gpu.py; init: as `Release.init`."""
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
    run = arguments.run.resolve() if elsewhere and arguments.run else None
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    return Release(name, arguments.further, arguments.minutes, arguments.threads, run, init=init)


def take_run(file: Path, out: Path) -> None:
    """Put a run that was trained elsewhere in place of one trained here."""
    if not file.exists():
        sys.exit(f"there is no file {file}")
    mark = hashlib.sha256(file.read_bytes()).hexdigest()
    taken = out / "taken"
    if taken.exists() and taken.read_text() == mark:
        return
    if out.exists():
        sys.exit(f"{out} already holds a run; move it away to take {file}")
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


def trained(out: Path) -> dict[str, Any]:
    """What a run did, as a card names it."""
    record, codec = read_json(out / "config.json"), read_json(out / "model" / "codec.json")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "loss" in row][-1]
    settings: dict[str, Any] = codec["codec"]
    return settings | {
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
