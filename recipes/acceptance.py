"""The long checks: real photographs, random legal streams and the model, judged by libjpeg's tools.

python recipes/acceptance.py [--photos data/photos/train] [--checkpoint DIR] [--quick]

Fetches the photo corpus if it is not there (recipes/data/photos.py). Leaves
docs/results/acceptance.json and exits with 1 if any requirement fails. Needs `djpeg` and `jpegtran`
(Debian's libjpeg-turbo-progs). About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import jpeglm
from jpeglm.codecs import JpegCodec
from jpeglm.codecs.images import open_image
from jpeglm.config import PAPER_JPEG, InputError, JpegConfig
from jpeglm.data.sources import EXTENSIONS
from jpeglm.files import write_json
from jpeglm.generation.constraint import Constraint, Prompt
from jpeglm.generation.generate import Model, run
from jpeglm.generation.sampling import Sampling
from jpeglm.progress import Reporter
from jpeglm.syntax.alphabet import ALPHABETS
from jpeglm.syntax.jpeg import complete, start_state, step
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
RANDOM = [("jpeg-symbols", 0), ("bytes", 4), ("paper-bytes", 1)]


class UniformEngine:
    """No model: every token equally likely. `generation.engine.Engine` in full."""

    def __init__(self, vocab_size: int, max_length: int) -> None:
        self.vocab_size, self.max_length = vocab_size, max_length
        self._rows = 0

    def start(self, prompts: Sequence[np.ndarray]) -> np.ndarray:
        self._rows = len(prompts)
        return self.step(np.zeros(0))

    def step(self, ids: np.ndarray) -> np.ndarray:
        return np.zeros((self._rows, self.vocab_size), np.float32)

    def keep(self, rows: np.ndarray) -> None:
        self._rows = len(rows)


def judge(codec: JpegCodec, streams: Sequence[bytes]) -> dict[str, int]:
    """How many streams libjpeg-turbo takes without a word, and gives back unchanged."""
    counts = {"streams": len(streams), "djpeg_silent": 0, "jpegtran_identical": 0,
              "canonical": 0, "dc_leaves_int16": 0}  # fmt: skip
    interval = codec.config.restart_interval
    option = ["-restart", f"{interval}B"] if interval else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.jpg"
        for stream in streams:
            file.write_bytes(codec.wrap(stream))
            shown = subprocess.run(["djpeg", str(file)], capture_output=True)
            counts["djpeg_silent"] += shown.returncode == 0 and not shown.stderr
            again = subprocess.run(
                ["jpegtran", "-copy", "none", *option, str(file)],
                capture_output=True,
            )
            counts["jpegtran_identical"] += again.stdout == file.read_bytes()
            try:
                counts["dc_leaves_int16"] += not codec.check(stream)
                counts["canonical"] += 1
            except InputError:
                pass
    return counts


def accepted(codec: JpegCodec, name: str, symbols: np.ndarray) -> bool:
    """Whether the alphabet's automaton takes all symbols and is complete at the end only."""
    spec = codec.alphabet(name).grammar().spec
    state = start_state(spec)
    for symbol in symbols.tolist():
        if complete(spec, state) or not step(spec, state, symbol):
            return False
    return bool(complete(spec, state))


def photographs(files: list[Path], report: Any) -> list[dict[str, Any]]:
    """Every setting and alphabet on all photographs."""
    images = []
    for i, file in enumerate(files):
        image = open_image(file)
        image.thumbnail((800, 800))
        images.append(image)
        report(i + 1, len(files), "read")
    rows = []
    for number, config in enumerate(SETTINGS):
        codec = JpegCodec(config)
        streams = [codec.encode(image) for image in images]
        row: dict[str, Any] = {"codec": codec.to_dict(), "photographs": len(streams)}
        for name in ALPHABETS:
            alphabet = codec.alphabet(name)
            size = alphabet.size + 2 + (62 if "paper" in name else 200)
            tokenizer = Tokenizer.train(streams[-50:], codec, name, size)
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
    """n streams of uniformly drawn legal symbols in each of three settings."""
    rows = []
    for number, (name, interval) in enumerate(RANDOM):
        codec = JpegCodec(JpegConfig(64, 64, 25, "4:2:0", interval))
        tokenizer = Tokenizer(codec, name, np.zeros((0, 2), np.int32))
        constraint = Constraint(tokenizer)
        shortest = constraint.grammar.shortest(constraint.grammar.start())
        prompt = Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))
        streams = []
        for part, budget in enumerate((shortest + 2, shortest + 100, 2000, 20_000)):
            engine = UniformEngine(tokenizer.vocab_size, max(budget, shortest + 2))
            ids, _ = run(engine, constraint, prompt, n // 4, Sampling(), part, batch=64)
            assert all(len(row) < max(budget, shortest + 2) for row in ids)
            streams += [tokenizer.decode_stream(row) for row in ids]
        rows.append({"alphabet": name, "codec": codec.to_dict(), **judge(codec, streams)})
        report(number + 1, len(RANDOM), "random streams")
    return rows


def from_model(model: Model, n: int, report: Any) -> dict[str, Any]:
    """n pictures of the checkpoint with the grammar and n without."""
    rows = {}
    assert isinstance(model.codec, JpegCodec)
    for key, grammar in (("with_grammar", True), ("without_grammar", False)):
        pictures = model.generate(
            n,
            grammar=grammar,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            batch=32,
            progress=lambda done, total, _: report(done, total, "pictures of the model"),
        )
        rows[key] = judge(model.codec, pictures.streams)
        if not grammar:
            rows[key] |= complete_symbols(model, pictures.ids)
    return rows


def complete_symbols(model: Model, drawn: list[np.ndarray]) -> dict[str, int]:
    """How many free samples spell a complete stream as they are, before `join` repairs them."""
    good = 0
    for ids in drawn:
        symbols = model.tokenizer.decode(ids)
        good += ids[-1] == model.tokenizer.eos and accepted(
            model.codec,  # type: ignore[arg-type]
            model.tokenizer.alphabet.name,
            symbols,
        )
    return {"complete_as_sampled": int(good)}


def completions(model: Model, files: list[Path]) -> dict[str, int]:
    """Whether the first k MCUs are the original's, for k at every eighth."""
    assert isinstance(model.codec, JpegCodec)
    plain = model.codec.alphabet("jpeg-symbols")
    counts = {"completions": 0, "prompt_kept": 0, "canonical": 0}
    for file in files:
        for eighth in range(9):
            drawn = model.complete(open_image(file), eighth / 8, 2, seed=eighth)
            assert drawn.original is not None
            kept = plain.prefix(drawn.original, drawn.units_kept).symbols
            for stream in drawn.streams:
                counts["completions"] += 1
                counts["canonical"] += model.codec.check(stream)
                counts["prompt_kept"] += bool((plain.split(stream)[: len(kept)] == kept).all())
    return counts


def failures(result: dict[str, Any]) -> list[str]:
    """What was required and is not so."""
    found = []
    for row in result["photographs"]:
        for name in ALPHABETS:
            for what, count in row[name].items():
                if count != row["photographs"]:
                    found.append(f"{row['codec']}: {name}: {what} {count}/{row['photographs']}")
    judged = [(row["alphabet"], row) for row in result["random"]]
    judged.append(("model", result["model"]["with_grammar"]))
    for name, row in judged:
        for what in ("djpeg_silent", "jpegtran_identical", "canonical"):
            missing = row["streams"] - row[what]
            if missing > (row["dc_leaves_int16"] if what == "jpegtran_identical" else 0):
                found.append(f"{name}: {what} {row[what]}/{row['streams']}")
    kept = result["completions"]
    for what in ("prompt_kept", "canonical"):
        if kept[what] != kept["completions"]:
            found.append(f"completions: {what} {kept[what]}/{kept['completions']}")
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
    chosen = random.Random(0).sample(files, min(len(files), 300 // share))
    start = time.perf_counter()
    model = jpeglm.load(arguments.checkpoint)
    with Reporter("acceptance", "done") as report:
        result: dict[str, Any] = {
            "photographs": photographs(chosen, report),
            "random": random_streams(500 // share, report),
            "model": from_model(model, 200 // share, report),
            "completions": completions(model, chosen[:8]),
        }
    found = failures(result)
    result |= {
        "failures": found,
        "checkpoint": model.tokenizer.fingerprint,
        "seconds": round(time.perf_counter() - start),
        "command": " ".join(["python", "recipes/acceptance.py", *sys.argv[1:]]),
        "versions": {name: version(name) for name in ("jpeglm", "Pillow", "numpy", "numba")},
        "machine": platform.processor() or platform.machine(),
    }
    write_json(arguments.out, result)
    print(json.dumps({k: result[k] for k in ("random", "model", "completions")}, indent=1))
    print("\n".join(found) or f"all requirements hold on {len(chosen)} photographs")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
