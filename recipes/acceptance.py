"""The long checks: real photographs, random legal streams and the model, judged by libjpeg's tools.

python recipes/acceptance.py [--photos data/photos/train] [--checkpoint DIR] [--quick]

Fetches the photo corpus if it is not there (recipes/data/photos.py). Leaves
docs/results/acceptance.json and exits with 1 if any requirement fails. Needs `djpeg` and `jpegtran`
(Debian's libjpeg-turbo-progs). Two to six minutes on two cores.

What is judged: the automata against what libjpeg wrote, the tokenizers on photographs they were not
trained on, and what the grammar lets through against libjpeg's own tools. Random streams are drawn
with four token budgets, from the least possible to far more than a photograph takes, so that
streams which have to hurry are among them.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import jpeglm
from jpeglm.codecs import JpegCodec
from jpeglm.codecs.images import open_image
from jpeglm.config import PAPER_JPEG, JpegConfig, Sampling
from jpeglm.data.sources import EXTENSIONS
from jpeglm.environment import environment
from jpeglm.evaluation.validity import judge, validity
from jpeglm.files import to_json, write_json
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine import Pieces
from jpeglm.generation.matcher import Constraint, Prompt, make_prompt
from jpeglm.generation.model import Model
from jpeglm.progress import Reporter
from jpeglm.syntax.alphabet import ALPHABETS
from jpeglm.syntax.machine import accepts
from jpeglm.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [
    PAPER_JPEG,
    JpegConfig(256, 256, 25, "4:2:0", 0),
    JpegConfig(64, 64, 25, "4:2:0", 0),
    JpegConfig(64, 64, 25, "4:2:0", 1),
    JpegConfig(80, 48, 75, "4:2:0", 4),
    JpegConfig(384, 256, 25, "4:2:0", 16),
    JpegConfig(128, 64, 50, "4:2:2", 1),
    JpegConfig(96, 72, 90, "4:2:2", 0),
    JpegConfig(72, 40, 95, "4:4:4", 3),
    JpegConfig(64, 64, 10, "4:4:4", 0),
    JpegConfig(64, 40, 25, "gray", 0),
    JpegConfig(104, 88, 75, "gray", 8),
]
RANDOM = [
    ("jpeg-symbols", JpegConfig(64, 64)),
    ("bytes", JpegConfig(64, 64, restart_interval=4)),
    ("paper-bytes", JpegConfig(64, 64, restart_interval=1)),
    # Intervals that do not divide the picture's MCUs, or are longer than it.
    ("jpeg-symbols", JpegConfig(48, 48, restart_interval=4)),
    ("jpeg-block-symbols", JpegConfig(64, 64, restart_interval=5)),
    ("jpeg-placed-symbols", JpegConfig(64, 64)),
    ("jpeg-placed-symbols", JpegConfig(64, 64, restart_interval=1)),
    ("jpeg-coarse-symbols", JpegConfig(40, 24, 50, "4:4:4", 4)),
    ("bytes", JpegConfig(64, 64, restart_interval=3)),
    ("bytes", JpegConfig(48, 48, restart_interval=20)),
    ("bytes", JpegConfig(40, 40, 50, "gray", 7)),
    ("paper-bytes", JpegConfig(64, 64, restart_interval=5)),
    ("paper-bytes", JpegConfig(48, 24, 50, "4:2:2", 4)),
]


class UniformEngine:
    """No model: every token equally likely. `generation.engine.Engine` in full."""

    def __init__(self, vocab_size: int, max_length: int) -> None:
        self.vocab_size, self.max_length = vocab_size, max_length
        self.sequences = 0

    def add(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        self.sequences += len(prompts)
        return np.zeros((len(prompts), self.vocab_size), np.float32)

    def step(self, ids: np.ndarray) -> np.ndarray:
        return np.zeros((self.sequences, self.vocab_size), np.float32)

    def remove(self, rows: np.ndarray) -> None:
        self.sequences -= len(rows)

    def read(self, ids: np.ndarray) -> Pieces:
        yield np.zeros((len(ids), self.vocab_size), np.float32)


def accepted(codec: JpegCodec, name: str, symbols: np.ndarray) -> bool:
    """Whether the alphabet's automaton takes all symbols and is complete at the end only."""
    grammar: Any = codec.alphabet(name).grammar()
    return bool(accepts(grammar.spec, grammar.start(), symbols))


def read(files: list[Path], report: Any) -> list[Image.Image]:
    """The photographs, shrunk to what the largest setting needs."""
    images = []
    for i, file in enumerate(files):
        image = open_image(file)
        image.thumbnail((640, 640))
        images.append(image)
        report(i + 1, len(files), "photographs read")
    return images


def photographs(
    images: list[Image.Image], others: list[Image.Image], report: Any
) -> list[dict[str, Any]]:
    """Every setting and alphabet on all photographs; tokenizers learn from `others` alone."""
    rows = []
    for number, config in enumerate(SETTINGS):
        codec = JpegCodec(config)
        streams = [codec.encode(image) for image in images]
        learnt_from = [codec.encode(image) for image in others]
        row: dict[str, Any] = {"codec": codec.to_dict(), "photographs": len(streams)}
        for name in ALPHABETS:
            alphabet = codec.alphabet(name)
            size = alphabet.size + 2 + (62 if "paper" in name else 200)
            tokenizer = Tokenizer.train(learnt_from, codec, name, size)
            good = {"automaton": 0, "symbols_identical": 0, "tokens_identical": 0}
            for stream in streams:
                symbols = alphabet.split(stream)
                good["automaton"] += accepted(codec, name, symbols)
                good["symbols_identical"] += alphabet.join(symbols) == stream
                ids = tokenizer.encode_stream(stream)
                good["tokens_identical"] += tokenizer.decode_stream(ids) == stream
            row[name] = good
        rows.append(row)
        report(number + 1, len(SETTINGS), "settings")
    return rows


def random_streams(n: int, report: Any) -> list[dict[str, Any]]:
    """n streams of uniformly drawn legal symbols in each of those settings."""
    rows = []
    for number, (name, config) in enumerate(RANDOM):
        codec = JpegCodec(config)
        tokenizer = Tokenizer(codec, name, np.zeros((0, 2), np.int32))
        constraint = Constraint(tokenizer)
        shortest = constraint.grammar.shortest(constraint.grammar.start())
        prompt = Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))
        streams = []
        for part, budget in enumerate((shortest + 2, shortest + 100, 2000, 20_000)):
            engine = UniformEngine(tokenizer.vocab_size, max(budget, shortest + 2))
            ids, _ = draw_ids(engine, constraint, prompt, n // 4, Sampling(), part, batch=64)
            assert all(len(row) < max(budget, shortest + 2) for row in ids)
            streams += [tokenizer.decode_stream(row) for row in ids]
        rows.append({"alphabet": name, "codec": codec.to_dict(), **judge(codec, streams)})
        report(number + 1, len(RANDOM), "random streams")
    return rows


def from_model(model: Model, n: int, report: Any) -> dict[str, Any]:
    """n pictures of the checkpoint with the grammar and n without."""
    found = validity(model, n, progress=lambda done, total, what: report(done, total, what))
    return {key: found[key] for key in ("with_grammar", "without_grammar")}


def completions(
    model: Model, images: list[Image.Image], others: list[Image.Image], report: Any
) -> dict[str, dict[str, int]]:
    """Whether the first k MCUs are the original's, for k at every eighth.

    Symbols are drawn by the checkpoint; bytes, without restart markers so that prompts end inside a
    byte, by no model at all: the promise is the grammar's, so the drawing must not matter.
    """
    assert isinstance(model.codec, JpegCodec)
    codec = JpegCodec(JpegConfig(**model.codec.config.to_dict() | {"restart_interval": 0}))
    tokenizer = Tokenizer.train([codec.encode(image) for image in others], codec, "bytes", 512)
    constraint = Constraint(tokenizer)
    engine = UniformEngine(tokenizer.vocab_size, 20_000)

    def by_model(image: Image.Image, eighth: int) -> list[bytes]:
        return model.complete(image, eighth / 8, 2, seed=eighth).streams

    def of_bytes(image: Image.Image, eighth: int) -> list[bytes]:
        prefix = tokenizer.alphabet.prefix(codec.encode(image), codec.units * eighth // 8)
        prompt = make_prompt(tokenizer, prefix, tokenizer.bos)
        drawn, _ = draw_ids(engine, constraint, prompt, 2, Sampling(), eighth)
        return [tokenizer.decode_stream(np.concatenate([prompt.ids, ids])) for ids in drawn]

    ways: dict[str, tuple[JpegCodec, Callable[[Image.Image, int], list[bytes]]]] = {
        f"{model.tokenizer.alphabet.name}, checkpoint": (model.codec, by_model),
        "bytes, uniform": (codec, of_bytes),
    }
    result = {}
    for name, (used, draw) in ways.items():
        plain = used.alphabet("jpeg-symbols")
        counts = {"completions": 0, "prompt_kept": 0, "canonical": 0}
        for number, image in enumerate(images):
            original = used.encode(image)
            for eighth in range(9):
                kept = plain.prefix(original, used.units * eighth // 8).symbols
                for stream in draw(image, eighth):
                    counts["completions"] += 1
                    if used.check(stream).valid:
                        counts["canonical"] += 1
                        same = np.array_equal(plain.split(stream)[: len(kept)], kept)
                        counts["prompt_kept"] += same
            report(number + 1, len(images), f"photographs completed, {name}")
        result[name] = counts
    return result


def failures(result: dict[str, Any]) -> list[str]:
    """What was required and is not so."""
    found = []
    for row in result["photographs"]:
        for name in ALPHABETS:
            for what, count in row[name].items():
                if count != row["photographs"]:
                    found.append(f"{row['codec']}: {name}: {what} {count}/{row['photographs']}")
    judged = [
        (f"{row['alphabet']}, interval {row['codec']['restart_interval']}", row)
        for row in result["random"]
    ]
    judged.append(("model", result["model"]["with_grammar"]))
    for name, row in judged:
        for what in ("djpeg_silent", "canonical"):
            if row[what] != row["streams"]:
                found.append(f"{name}: {what} {row[what]}/{row['streams']}")
        if row["differs_though_dc_fits"]:
            found.append(f"{name}: jpegtran changes {row['differs_though_dc_fits']} streams")
    for name, kept in result["completions"].items():
        for what in ("prompt_kept", "canonical"):
            if kept[what] != kept["completions"]:
                found.append(f"completions, {name}: {what} {kept[what]}/{kept['completions']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=ROOT / "data" / "photos" / "train")
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "acceptance.json")
    arguments = parser.parse_args()
    for tool in ("djpeg", "jpegtran"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing; install Debian's libjpeg-turbo-progs")
    if not arguments.photos.is_dir():
        recipe = ROOT / "recipes" / "data" / "photos.py"
        subprocess.run([sys.executable, recipe, arguments.photos.parent], check=False)
    files = sorted(
        file
        for file in arguments.photos.rglob("*")
        if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")
    )
    share = 10 if arguments.quick else 1
    count, more = 300 // share, 100 // share
    if len(files) < count + more:
        sys.exit(f"{arguments.photos} has {len(files)} pictures; {count + more} are needed")
    chosen = random.Random(0).sample(files, count + more)
    start = time.perf_counter()
    model = jpeglm.load(arguments.checkpoint)
    with Reporter("acceptance", "done") as report:
        seconds: dict[str, int] = {}

        def timed(name: str, work: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            value = work()
            seconds[name] = round(time.perf_counter() - began)
            report.say(f"{name}: {seconds[name]} s")
            return value

        images = timed("read", lambda: read(chosen, report))
        images, others = images[:count], images[count:]
        result: dict[str, Any] = {
            "photographs": timed("photographs", lambda: photographs(images, others, report)),
            "random": timed("random", lambda: random_streams(1000 // share, report)),
            "model": timed("model", lambda: from_model(model, 200 // share, report)),
            "completions": timed(
                "completions", lambda: completions(model, images[:8], others, report)
            ),
        }
    found = failures(result)
    told = subprocess.run(["djpeg", "-version"], capture_output=True, text=True)
    result |= {
        "failures": found,
        "checkpoint": {
            "folder": str(arguments.checkpoint or "photos (shipped)"),
            "tokenizer": model.tokenizer.fingerprint,
        },
        "seconds": seconds | {"all": round(time.perf_counter() - start)},
        "command": " ".join(["python", "recipes/acceptance.py", *sys.argv[1:]]),
        "machine": environment("Pillow", "numpy", "numba")
        | {"djpeg": (told.stderr + told.stdout).split("\n")[0]},
    }
    write_json(arguments.out, result)
    print(to_json({k: result[k] for k in ("random", "model", "completions")}, indent=1))
    print("\n".join(found) or f"all requirements hold on {count} photographs")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
