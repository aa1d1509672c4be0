"""JPEG-LM and its rivals on the same road: same pictures, same Llama, same training FLOPs.

    python recipes/compare/compare.py cifar10
    python recipes/compare/compare.py photos
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
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jpeglm.models.llama import flops_per_token, preset

ROOT = Path(__file__).resolve().parents[2]
RIVALS = ("jpeg-symbols", "jpeg-bytes", "vq", "pixels", "vae")
JPEGLM = [sys.executable, "-m", "jpeglm.cli"]
BATCH_TOKENS = 4096


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


SETS = {
    "cifar10": Data(
        Path("data/cifar10/train.parquet"),
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
    ),
}


class Road:
    """The steps of one comparison, each done once."""

    def __init__(self, name: str, data: Data, flops: float, stage_one: float, threads: int) -> None:
        self.name, self.data, self.flops, self.threads = name, data, flops, threads
        self.stage_one = stage_one
        self.home = Path("runs/compare") / name

    def do(self, result: Path, *words: Any, log: bool = True) -> None:
        """Run a command whose end `result` proves; remembered in commands.txt."""
        command = [str(word) for word in words]
        shown = shlex.join(command).replace(shlex.join(JPEGLM), "jpeglm")
        shown = shown.replace(f"{sys.executable} ", "python ").replace(f"{ROOT}/", "")
        if result.exists():
            print(f"done: {shown}", flush=True)
            return
        print(shown, flush=True)
        subprocess.run(command, check=True)
        if not result.exists():
            result.parent.mkdir(parents=True, exist_ok=True)
            result.write_text(shown + "\n")

    def fetch(self) -> None:
        if self.data.fetch and not self.data.train.exists():
            script, *rest = self.data.fetch.split()
            subprocess.run([sys.executable, str(ROOT / script), *rest], check=True)

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
            "--preset", "2m", "--steps", self._steps(shards, home / "tokenizer", spent),
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

    def _steps(self, shards: Path, tokenizer: Path, spent: float) -> int:
        """Steps of the language model that use up what is left of the budget."""
        from jpeglm.data.shards import Dataset
        from jpeglm.tokenizer import Tokenizer

        loaded = Tokenizer.load(tokenizer)
        lengths = []
        for _, stream, _ in Dataset(shards).streams("validation"):
            lengths.append(len(loaded.encode_stream(stream)) + 2)
            if len(lengths) == 500:
                break
        length = round(sum(lengths) / len(lengths))
        config = preset("2m", loaded.vocab_size, max_length=length)
        each = flops_per_token(config, length) * BATCH_TOKENS
        return max(1, round((self.flops - spent) / each))


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
    parser.add_argument("--only", nargs="+", choices=RIVALS, default=list(RIVALS))
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
    share = arguments.stage_one * arguments.flops
    road = Road(arguments.data, data, arguments.flops, share, arguments.threads)
    road.fetch()
    for rival in arguments.only:
        road.train(rival)


if __name__ == "__main__":
    main()
