"""Clips: python benchmarks/clips.py [FILMS]

H.264 streams of 256 × 144 and 15 frames from the films of data/clips (recipes/data/clips.py).
Reading and writing symbols and the byte machine, in MB/s of stream; encoding and decoding, in clips
a second, beside plain FFmpeg (PyAV) without our codec around it.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from common import ROOT, finish, rates

from jpeglm.codecs.avc import AvcCodec, AvcConfig
from jpeglm.codecs.clips import pyav
from jpeglm.data.arrays import film_clips
from jpeglm.syntax.machine import accepts


def plain_encode(clip: np.ndarray) -> bytes:
    """The clip through libx264 as anyone would call it, at the codec's settings."""
    av, out = pyav(), io.BytesIO()
    with av.open(out, "w", format="h264") as file:
        stream = file.add_stream("libx264", rate=3)
        stream.width, stream.height, stream.pix_fmt = clip.shape[2], clip.shape[1], "yuv420p"
        stream.options = {"profile": "baseline", "qp": "37", "bf": "0", "threads": "1"}
        for frame in clip:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()


def plain_decode(annex_b: bytes) -> list[np.ndarray]:
    with pyav().open(io.BytesIO(annex_b), "r", format="h264") as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path, nargs="?", default=ROOT / "data" / "clips")
    parser.add_argument("--every", type=int, default=8, help="take every so many-th clip")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.films.is_dir():
        recipe = ROOT / "recipes" / "data" / "clips.py"
        subprocess.run([sys.executable, recipe, arguments.films], check=False)
    codec = AvcCodec(AvcConfig())
    clips = list(islice(film_clips(arguments.films, codec.config), 0, None, arguments.every))
    if not clips:
        seconds = codec.config.frames / codec.config.fps
        sys.exit(f"{arguments.films} holds no film of {seconds:g} seconds or more")
    streams = [codec.encode(clip) for clip in clips]
    symbols = [codec.symbols.split(stream) for stream in streams]
    letters = codec.alphabet("bytes")
    spelled = [letters.split(stream) for stream in streams]
    start = letters.grammar().start()
    wrapped = [codec.wrap_annex_b(stream) for stream in streams]
    size = sum(map(len, streams)) / 1e6
    tables = {
        "parsing, MB/s": rates(
            {
                "FFmpeg decodes": lambda: [plain_decode(stream) for stream in wrapped],
                "bytes to symbols": lambda: [codec.symbols.split(stream) for stream in streams],
                "symbols to bytes": lambda: [codec.symbols.join(row) for row in symbols],
                "byte machine": lambda: [accepts(letters.spec, start.copy(), r) for r in spelled],
            },
            size,
            arguments.repeats,
        ),
        "encoding, clips/s": rates(
            {
                "FFmpeg alone": lambda: [plain_encode(clip) for clip in clips],
                "jpeglm": lambda: [codec.encode(clip) for clip in clips],
            },
            len(clips),
            arguments.repeats,
        ),
        "decoding, clips/s": rates(
            {
                "FFmpeg alone": lambda: [plain_decode(stream) for stream in wrapped],
                "jpeglm": lambda: [codec.show(stream) for stream in streams],
            },
            len(clips),
            arguments.repeats,
        ),
    }
    finish("clips", "as titled", tables)


if __name__ == "__main__":
    main()
