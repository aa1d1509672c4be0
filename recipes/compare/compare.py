"""JPEG-LM and its rivals on the same road: same pictures, same Llama, same training FLOPs.

    python recipes/compare/compare.py cifar10
    python recipes/compare/compare.py photos
    python recipes/compare/compare.py cifar10-lt --flops 4e13     the long tail, for cifar10's page
    python recipes/compare/compare.py own --train imagenet/train --test imagenet/val --size 64

Rivals: `jpeg-bytes` (the paper's bytes and BPE 320), `jpeg-symbols` (the entropy coder's symbols,
BPE 1024), `vq` (VQ-VAE, then a Llama on its codes; both stages are counted), `pixels` (a palette of
512 as ImageGPT), `vae` (no language model; it can be sampled but completes nothing). Each spends
--flops on training, counted as 6 a weight and token (PaLM, appendix B) and, for convolutions, three
times the forward pass. Everything is kept under runs/compare/<data>/<rival>; a second run goes on.

Trade-off: equal compute, not equal tokens or pictures: a rival with short sequences sees more
pictures. The pictures seen are in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.data.arrays import load_images
from jpeglm.data.settings import PrepareConfig
from jpeglm.evaluation.figures import sheet
from jpeglm.evaluation.report import verdicts, write_report
from jpeglm.files import atomic_write, read_json, write_json
from jpeglm.models.llama import flops_per_token

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from steps import BATCH_TOKENS, JPEGLM, ROOT, Steps, steps_for

RIVALS = ("jpeg-symbols", "jpeg-bytes", "vq", "pixels", "vae")
RESIZE = 112
"""Pixels a side that ResNet-50 sees: the pictures have 32 or 64."""


@dataclass(frozen=True)
class Data:
    """Where pictures come from; size in pixels; crops as `jpeglm prepare --crops`."""

    train: Path
    test: Path
    size: int
    crops: int = 0
    pixels_size: int = 32
    """ImageGPT's pictures are 32 × 32 whatever the others' size: one token a pixel."""
    fetch: str = ""
    shown: bool = True
    """Whether the page may show pictures; what a corpus only lends is not published."""


SETS = {
    "cifar10": Data(
        Path("data/cifar10/train.parquet"),
        Path("data/cifar10/test.parquet"),
        32,
        fetch="recipes/data/cifar10.py data/cifar10",
    ),
    "cifar10-lt": Data(
        Path("data/cifar10/train-lt.parquet"),
        Path("data/cifar10/test.parquet"),
        32,
        fetch="recipes/data/cifar10.py data/cifar10",
    ),
    "photos": Data(
        Path("data/photos/train"),
        Path("data/photos/train"),
        64,
        crops=8,
        fetch="recipes/data/photos.py data/photos",
        shown=False,
    ),
}


class Road:
    """The steps of one comparison, each done once."""

    def __init__(self, name: str, data: Data, arguments: argparse.Namespace) -> None:
        self.name, self.data = name, data
        self.flops, self.threads = arguments.flops, arguments.threads
        self.stage_one = arguments.stage_one * arguments.flops
        self.count, self.seeds = arguments.count, arguments.seeds
        self.home = Path("runs/compare") / name
        self.steps = Steps()

    def do(self, result: Path, *words: Any) -> None:
        """One step; its command is added to commands.txt, which outlives this run."""
        log = self.home / "commands.txt"
        self.steps.shown = log.read_text().splitlines() if log.exists() else []
        self.steps.do(result, *words)
        atomic_write(log, "".join(f"{line}\n" for line in self.steps.shown).encode())

    def fetch(self) -> None:
        """The pictures, and the weights of the network that measures."""
        if self.data.fetch:
            script, *rest = self.data.fetch.split()
            self.do(self.data.train, sys.executable, ROOT / script, *rest)
        weights = Path("data/resnet50.safetensors")
        self.do(weights, sys.executable, ROOT / "recipes" / "data" / "resnet50.py", weights)

    def train(self, rival: str) -> None:
        """Everything up to runs/compare/<data>/<rival>/run/model."""
        home, data = self.home / rival, self.data
        if rival == "vae":
            self._autoencoder("vae", home / "run", self.flops)
            return
        prepare = [*JPEGLM, "prepare", data.train]
        size = data.pixels_size if rival == "pixels" else data.size
        shards = home / "data" if rival in ("vq", "pixels") else self.home / "jpeg"
        options: list[Any] = ["--size", size, "--crops", data.crops]
        spent = 0.0
        if rival == "vq":
            spent = self._autoencoder("vqvae", self.home / "vqvae", self.stage_one)
            options += ["--codec", "vq", "--codec-dir", self.home / "vqvae" / "model"]
        elif rival == "pixels":
            options += ["--codec", "pixels"]
        else:
            options += ["--restart-interval", 1]
        self.do(shards / "dataset.json", *prepare, shards, *options)
        words: list[Any] = [*JPEGLM, "train-tokenizer", shards, "--out", home / "tokenizer"]
        if rival == "jpeg-bytes":
            words += ["--alphabet", "bytes", "--vocab-size", 320]
        self.do(home / "tokenizer" / "tokenizer.json", *words)
        self.do(
            home / "finished",
            *JPEGLM, "train", shards, "--tokenizer", home / "tokenizer", "--out", home / "run",
            "--preset", "2m", "--steps", steps_for(self.flops - spent, shards, home / "tokenizer"),
            "--batch-tokens", BATCH_TOKENS, "--threads", self.threads, "--compile", "on",
            "--samples", 0, "--eval-every", 250, "--eval-images", 256,
        )  # fmt: skip

    def _autoencoder(self, kind: str, out: Path, flops: float) -> float:
        """Train to the budget; the FLOPs that it took."""
        from jpeglm.models.autoencoder import flops_per_picture
        from jpeglm.models.vae import Vae, VaeConfig
        from jpeglm.models.vqvae import VqVae, VqVaeConfig

        size = self.data.size
        model = Vae(VaeConfig(size, size)) if kind == "vae" else VqVae(VqVaeConfig())
        each = flops_per_picture(model, size, size)
        steps = max(1, round(flops / each / 128))
        words = [
            *JPEGLM, f"train-{kind}", self.data.train, "--out", out, "--size", size,
            "--crops", self.data.crops, "--steps", steps, "--batch", 128,
            "--eval-every", max(1, min(500, steps // 4)), "--threads", self.threads,
        ]  # fmt: skip
        self.do(out / "finished", *words)
        return steps * 128.0 * each

    def evaluate(self, rival: str) -> None:
        """Everything about one rival but the training: a folder for each measure in its own."""
        home, test = self.home / rival, self.data.test
        views = [*self._views(), "--resize", RESIZE, "--pictures", home / "pictures"]
        model = ["--checkpoint", home / "run" / "model"]
        verbs: list[tuple[str, list[Any]]] = [
            ("unconditional", ["unconditional", test, *model, *views, "-n", self.count]),
            ("validity", ["validity", *model]),
            ("completion", ["completion", test, *model, *views, "--seeds", self.seeds]),
            (
                "half",
                ["completion", test, *model, *views, "--half", "--ratios", "0.375,0.5",
                 "--seeds", 1],
            ),
        ]  # fmt: skip
        for name, words in verbs[:1] if rival == "vae" else verbs:
            self.measure(home / name, *words)

    def measure(self, out: Path, *words: Any) -> None:
        """One evaluation into the folder `out`."""
        self.do(out / "result.json", *JPEGLM, "evaluate", *words, "--out", out)

    def _views(self) -> list[Any]:
        """Options that choose the pictures measured on, the same for every rival."""
        options: list[Any] = ["--size", self.data.size, "--limit", self.count]
        if self.data.train == self.data.test:
            options += ["--split", "validation", "--crops", self.data.crops]
        return options

    def reconstruct(self, rivals: list[str]) -> None:
        """PSNR and SSIM of every codec, beside JPEG at other qualities."""
        coders: list[Any] = []
        for rival in rivals:
            if rival != "jpeg-bytes":  # the same codec as jpeg-symbols
                folder = "run/model" if rival == "vae" else "tokenizer"
                coders += ["--checkpoint", self.home / rival / folder]
        words = ["reconstruction", self.data.test, *coders, *self._views()]
        self.measure(self.home / "reconstruction", *words)

    def long_tail(self) -> None:
        """JPEG-LM and VQ on CIFAR-10 with class frequencies from 5000 down to 50."""
        for rival in ("jpeg-symbols", "vq"):
            self.train(rival)
        self.measure(
            self.home / "longtail",
            "longtail", self.data.test,
            "--checkpoint", self.home / "jpeg-symbols" / "run" / "model",
            "--rival", self.home / "vq" / "run" / "model", "--trained-on", self.home / "jpeg",
            "--limit", 2 * self.count, "--resize", RESIZE, "--pictures", self.home / "pictures",
        )  # fmt: skip

    def collect(self, rivals: list[str], out: Path) -> None:
        """docs/results/comparison-<data>.json and the page beside it."""
        found: dict[str, Any] = {}
        for rival in rivals:
            row: dict[str, Any] = {"training": self._training(rival)}
            for name in ("completion", "half", "unconditional", "validity"):
                file = self.home / rival / name / "result.json"
                if file.exists():
                    row[name] = read_json(file)
            found[rival] = row
        results: dict[str, Any] = {
            "data": self.name,
            "flops": self.flops,
            "rivals": found,
            "reconstruction": self._named(read_json(self.home / "reconstruction" / "result.json")),
            "commands": (self.home / "commands.txt").read_text().splitlines(),
        }
        tail = self.home.with_name(f"{self.name}-lt")
        measured = tail / "longtail" / "result.json"
        if measured.exists():
            results["longtail"] = read_json(measured)
            results["commands"] += (tail / "commands.txt").read_text().splitlines()
        write_json(out, results)
        sheets = self._sheets(rivals)
        for title, (picture, _) in sheets.items():
            atomic_write(self.home / f"{title.split(',')[0].replace(' ', '-')}.png", picture)
        write_report(results, sheets if self.data.shown else {}, out.with_suffix(".html"))
        print("\n".join(verdicts(results)))

    def _named(self, table: dict[str, Any]) -> dict[str, Any]:
        """Rows of rivals by their names instead of their folders."""
        coders = {}
        for name, row in table["coders"].items():
            parts = Path(name).relative_to(self.home).parts if "/" in name else (name,)
            coders[parts[0]] = row
        return table | {"coders": coders}

    def _training(self, rival: str) -> dict[str, Any]:
        """What a rival's training came to: parameters, pictures, FLOPs of both stages."""
        run = self.home / rival / "run"
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        record, last = read_json(run / "config.json"), [row for row in rows if "images" in row][-1]
        found = {"parameters": record["parameters"], "images": last["images"]}
        if rival == "vae":
            return found | {"flops": last["flops"]}
        spent = 0.0
        if rival == "vq":
            stage = self.home / "vqvae" / "metrics.jsonl"
            measured = [json.loads(line) for line in stage.read_text().splitlines()]
            spent = [row for row in measured if "flops" in row][-1]["flops"]
        length = last["tokens"] / last["images"]
        each = flops_per_token(record["model"], round(length))
        return found | {
            "tokens": last["tokens"],
            "tokens_per_image": length,
            "flops": each * last["step"] * BATCH_TOKENS + spent,
            "stage_one": spent,
        }

    def _sheets(self, rivals: list[str]) -> dict[str, tuple[bytes, str]]:
        """The first pictures of each rival, unpicked."""
        size = self.data.size
        scale = max(1, 128 // size)
        completed, new = [], []
        for rival in rivals:
            folder = self.home / rival / "pictures"
            if rival != "vae":
                with np.load(folder / "completion-0.5-0.npz") as stored:
                    completed.append(_sized(stored["pictures"][:12], size))
            with np.load(folder / "samples-0.npz") as stored:
                new.append(_sized(stored["pictures"][:12], size))
        split = "validation" if self.data.train == self.data.test else None
        views = PrepareConfig(crops=self.data.crops)
        truth = load_images(self.data.test, size, size, views, split, limit=12).pixels
        names = ", ".join(rival for rival in rivals if rival != "vae")
        return {
            "Completions, the first twelve": (
                sheet([truth, *completed], scale),
                f"Rows: the originals, then completions of their upper halves by {names}.",
            ),
            "New pictures": (
                sheet(new, scale),
                f"Rows: {', '.join(rivals)}; the first twelve of seed 0.",
            ),
        }


def _sized(pictures: np.ndarray, size: int) -> np.ndarray:
    if pictures.shape[1] == size:
        return pictures
    images = [Image.fromarray(p).resize((size, size), Image.Resampling.NEAREST) for p in pictures]
    return np.stack([np.asarray(image) for image in images])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=[*SETS, "own"])
    parser.add_argument("--train", type=Path, help="pictures to train on, with `own`")
    parser.add_argument("--test", type=Path, help="pictures to measure on, with `own`")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--crops", type=int, default=0)
    parser.add_argument("--flops", type=float, default=1e14, help="training budget of each rival")
    parser.add_argument("--stage-one", type=float, default=0.5, help="share of it for the VQ-VAE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000, help="pictures measured")
    parser.add_argument("--seeds", type=int, default=2, help="completions of each picture")
    parser.add_argument("--only", nargs="+", choices=RIVALS, help="train and measure these alone")
    parser.add_argument("--work", type=Path, default=ROOT, help="where data/ and runs/ lie")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    if arguments.data == "own":
        if not (arguments.train and arguments.test):
            parser.error("own needs --train and --test")
        data = Data(arguments.train, arguments.test, arguments.size, arguments.crops)
    else:
        data = SETS[arguments.data]
    road = Road(arguments.data, data, arguments)
    road.fetch()
    if arguments.data == "cifar10-lt":
        road.long_tail()
        return
    for rival in arguments.only or RIVALS:
        road.train(rival)
        road.evaluate(rival)
    if not arguments.only:
        road.reconstruct(list(RIVALS))
        road.collect(list(RIVALS), ROOT / "docs" / "results" / f"comparison-{arguments.data}.json")


if __name__ == "__main__":
    main()
