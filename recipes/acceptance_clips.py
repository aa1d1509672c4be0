"""Check at length what the tests check briefly, on real films: python recipes/acceptance_clips.py

Clips of 256 × 144 and 15 frames out of the films of data/clips (recipes/data/clips.py), one every
0.75 seconds, in each slice setting: bytes → symbols → bytes with both alphabets of symbols, the
byte machine, and that our stream shows what FFmpeg shows of x264's own. Then 40 clips in each
alphabet drawn blindly from all that is legal, and 50 of the shipped model, judged by PyAV and by
the program `ffmpeg` under FFmpeg's strictest error detection; and, without the grammar, what the
model manages by itself. Writes docs/results/acceptance-clips.json and exits with 1 if any
requirement fails.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from steps import ROOT

import jpeglm
from jpeglm.codecs.avc import AvcCodec, AvcConfig
from jpeglm.codecs.clips import Shot, measure, pyav, read_shots
from jpeglm.data.arrays import film_clips
from jpeglm.environment import environment
from jpeglm.evaluation.validity import judge_clips, validity
from jpeglm.files import to_json, write_json
from jpeglm.generation.matcher import Constraint, Matcher
from jpeglm.places import shipped_checkpoint
from jpeglm.progress import Reporter
from jpeglm.syntax.machine import accepts
from jpeglm.tokenizer import Tokenizer


def real(folder: Path, config: AvcConfig) -> Iterator[np.ndarray]:
    """A clip from every 0.75 seconds of each film that is long enough."""
    for film in sorted(folder.rglob("*")):
        if film.suffix in (".mp4", ".avi"):
            starts = np.arange(0.0, measure(film, film.name).seconds, 0.75)
            shots = [Shot(float(start)) for start in starts]
            yield from (clip for _, clip in read_shots(film, shots, config, film.name))


def shown(annex_b: bytes) -> np.ndarray:
    """What FFmpeg decodes of a stream as x264 wrote it."""
    with pyav().open(io.BytesIO(annex_b), "r", format="h264") as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def real_clips(clips: list[np.ndarray], report: Reporter) -> dict[str, Any]:
    """Losslessness in each slice setting, and sizes."""
    rows = {}
    settings = {str(slices): AvcConfig(slices=slices) for slices in (1, 3, 9)}
    settings["paper"] = AvcConfig(encoder="paper")
    for name, config in settings.items():
        codec = AvcCodec(config)
        chosen = clips[::10] if name == "paper" else clips  # ten times the bytes
        letters, placed = codec.alphabet("bytes"), codec.alphabet("avc-placed-symbols")
        tests = ("symbols_identical", "placed_identical", "bytes_accepted", "decode_equal")
        row = {"clips": len(chosen)} | dict.fromkeys(tests, 0)
        sizes, lengths = [], []
        for number, clip in enumerate(chosen):
            stream = codec.encode(clip)
            symbols = codec.symbols.split(stream)
            row["symbols_identical"] += codec.symbols.join(symbols) == stream
            row["placed_identical"] += placed.join(placed.split(stream)) == stream
            start = letters.grammar().start()
            row["bytes_accepted"] += bool(accepts(letters.spec, start, letters.split(stream)))
            row["decode_equal"] += bool((codec.decode(stream) == shown(codec.x264(clip))).all())
            sizes.append(len(stream))
            lengths.append(len(symbols))
            report(number + 1, len(chosen), f"slices {name}")
        rows[name] = row | {
            "bytes": float(np.mean(sizes)),
            "symbols": float(np.mean(lengths)),
        }
    return rows


def blind(tokenizer: Tokenizer, n: int, budget: int, report: Reporter) -> dict[str, Any]:
    """n clips whose every token is drawn uniformly from the legal ones."""
    constraint, rng = Constraint(tokenizer), np.random.default_rng(0)
    streams = []
    for number in range(n):
        matcher = Matcher(constraint, max_tokens=budget + 1)
        while not matcher.ended:
            matcher.accept(int(rng.choice(np.flatnonzero(matcher.allowed()))))
        streams.append(tokenizer.decode_stream(np.array(matcher.ids)))
        report(number + 1, n, f"blind, {tokenizer.alphabet.name}")
    assert isinstance(tokenizer.codec, AvcCodec)
    judged, unavailable = judge_clips(tokenizer.codec, streams)
    canonical = sum(tokenizer.codec.check(stream).valid for stream in streams)
    return {"streams": n, "canonical": canonical, **judged, "unavailable": unavailable}


def failures(result: dict[str, Any]) -> list[str]:
    found = []
    for slices, row in result["real"].items():
        for what in ("symbols_identical", "placed_identical", "bytes_accepted", "decode_equal"):
            if row[what] != row["clips"]:
                found.append(f"slices {slices}: {what} {row[what]} of {row['clips']}")
    drawn = {f"blind {name}": row for name, row in result["blind"].items()}
    drawn["model"] = result["model"]["with_grammar"]
    for name, row in drawn.items():
        for what in ("canonical", "complete_as_sampled", "pyav_silent", "ffmpeg_silent"):
            if what in row and row[what] != row["streams"]:
                found.append(f"{name}: {what} {row[what]} of {row['streams']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=Path, default=ROOT / "data" / "clips")
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    out = ROOT / "docs" / "results" / "acceptance-clips.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    if not shutil.which("ffmpeg"):
        sys.exit("ffmpeg is missing; install Debian's ffmpeg")
    if not (arguments.films / "corpus.json").exists():
        recipe = ROOT / "recipes" / "data" / "clips.py"
        subprocess.run([sys.executable, recipe, arguments.films], check=False)
    share, start = 10 if arguments.quick else 1, time.perf_counter()
    clips = list(islice(real(arguments.films, AvcConfig()), 0, None, share))
    model = jpeglm.load(arguments.checkpoint or shipped_checkpoint("clips"))
    codec = model.codec
    sample = [codec.encode(clip) for clip in islice(film_clips(arguments.films, codec.config), 60)]
    tokenizers = {
        name: Tokenizer.train(sample, codec, name, size)
        for name, size in (("avc-placed-symbols", 512), ("avc-symbols", 512), ("bytes", 320))
    }
    with Reporter("acceptance", "clips") as report:
        result: dict[str, Any] = {
            "real": real_clips(clips, report),
            "blind": {
                name: blind(tokenizer, 40 // share, 1500, report)
                for name, tokenizer in tokenizers.items()
            },
            "model": validity(model, 50 // share),
        }
    tool = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout
    found = failures(result)
    result |= {
        "failures": found,
        "seconds": round(time.perf_counter() - start),
        "command": " ".join(["python", "recipes/acceptance_clips.py", *sys.argv[1:]]),
        "machine": environment("av", "numpy", "numba") | {"ffmpeg": tool.split("\n")[0]},
    }
    write_json(arguments.out, result)
    print(to_json({name: result[name] for name in ("real", "blind", "model")}, indent=1))
    print("\n".join(found) or f"all requirements hold on {len(clips)} real clips")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
