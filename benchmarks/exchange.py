"""How fast models and pictures go in and out, and how much memory that takes.

    python benchmarks/exchange.py [--preset 300m] [--pictures 2000]

A Llama of random weights in the authors' form (bfloat16, pickled, three shards, 320 pieces) is
imported, and exported to GGUF; pictures of noise are prepared and exported. Each is a process of
its own: seconds from its first line to its end, and the largest memory of it: all that is resident,
with the pages of the file that it maps, and what of that is its own. The result is
docs/results/exchange.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, machine
from PIL import Image

from jpeglm.files import write_json
from jpeglm.models.llama import preset, tensors

WATCHED = """
import sys, threading, time
peaks = {"RssAnon": 0, "VmRSS": 0}

def look():
    while True:
        for line in open("/proc/self/status"):
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]))
        time.sleep(0.003)

threading.Thread(target=look, daemon=True).start()
start = time.perf_counter()
sys.argv = ["jpeglm", *sys.argv[1:]]
from jpeglm.cli import main
try:
    main()
finally:
    print("WATCHED", time.perf_counter() - start, peaks["RssAnon"], peaks["VmRSS"])
"""


def command(*words: object) -> dict[str, float]:
    """Seconds and MB of a command in a process of its own."""
    asked = [sys.executable, "-c", WATCHED, *map(str, words)]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    if "WATCHED" not in ended.stdout or "jpeglm: " in ended.stderr:
        raise RuntimeError(ended.stderr)
    seconds, own, resident = map(float, ended.stdout.rpartition("WATCHED")[2].split())
    return {"seconds": round(seconds, 2), "own_mb": own / 1e3, "resident_mb": resident / 1e3}


def release(folder: Path, name: str) -> int:
    """Write a model in the authors' form; give the bytes of its weights."""
    import sentencepiece
    import torch

    from jpeglm.codecs import JpegCodec
    from jpeglm.config import PAPER_JPEG

    folder.mkdir()
    codec, rng = JpegCodec(PAPER_JPEG), np.random.default_rng(0)
    streams = [codec.encode(noise(rng, 256)) for _ in range(12)]
    texts = ["".join(map(chr, range(0x2800, 0x2900)))]
    texts += ["".join(chr(0x2800 + byte) for byte in stream) for stream in streams]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(folder / "tokenizer"), model_type="bpe",
        vocab_size=320, character_coverage=1.0, add_dummy_prefix=False, minloglevel=2,
        normalization_rule_name="identity", max_sentence_length=1 << 22,
    )  # fmt: skip
    config = preset(name, 320, 12288)
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    wanted = list(tensors(config).items())
    places, size = {}, 0
    for number in range(3):
        file = f"pytorch_model-{number + 1:05d}-of-00003.bin"
        part = {
            key: torch.randn(shape, dtype=torch.bfloat16) * 0.02 for key, shape in wanted[number::3]
        }
        torch.save(part, folder / file)
        size += (folder / file).stat().st_size
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return size


def noise(rng: np.random.Generator, side: int) -> Image.Image:
    """A coarse pattern under fine noise: streams of a photograph's length."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
    values = np.asarray(coarse, float) + rng.normal(0, 12, (side, side, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="300m")
    parser.add_argument("--pictures", type=int, default=2000)
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        size = release(work / "released", arguments.preset)
        command("models")  # what is compiled and cached, everything after it finds
        found["import"] = command("import", work / "released", "--out", work / "model")
        for dtype in ("bfloat16", "q8_0"):
            words = ("--to", "gguf", "--dtype", dtype, "--out", work / dtype)
            found[f"export to gguf, {dtype}"] = command(
                "export", "--checkpoint", work / "model", *words
            )
        words = ("--samples", 0, "--out", work / "hf")
        found["export to hf"] = command("export", "--checkpoint", work / "model", *words)
        rng = np.random.default_rng(1)
        (work / "photos").mkdir()
        for number in range(arguments.pictures):
            noise(rng, 64).save(work / "photos" / f"{number}.png")
        command("prepare", work / "photos", work / "data", "--size", 64)
        for form in ("images", "webdataset"):
            words = ("--to", form, "--out", work / form)
            row = command("export", work / "data", *words)
            found[f"export to {form}"] = row | {"pictures": arguments.pictures}
    for name in ("import", "export to gguf, bfloat16", "export to gguf, q8_0", "export to hf"):
        found[name] |= {"weights_mb": size / 1e6}
    for name, row in found.items():
        print(f"{name:28s} " + ", ".join(f"{key} {value:,.1f}" for key, value in row.items()))
    out = ROOT / "docs" / "results" / "exchange.json"
    write_json(out, {"preset": arguments.preset, "found": found, "machine": machine()})
    print(out.relative_to(ROOT))


if __name__ == "__main__":
    main()
