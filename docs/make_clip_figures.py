"""The figure of docs/how-clips-work.md: what H.264 says of each frame of the film that ships.

    python docs/make_clip_figures.py [--film FILE]

Motion is what FFmpeg's decoder exports of the stream that our codec wrote; symbols are counted by
walking the grammar along it.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import av
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import jpeglm
from jpeglm.codecs import AvcCodec, make_codec
from jpeglm.syntax.avc import step
from jpeglm.syntax.avc.state import FRAME, MB, start_state

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "figures"
LONGER = 4
"""Times as long as it is, so that one sees it, an arrow is drawn."""
ARROW = {
    "arrowstyle": "->",
    "color": "yellow",
    "lw": 1.2,
    "mutation_scale": 7,
    "shrinkA": 0,
    "shrinkB": 0,
}


def symbols_of_macroblocks(codec: AvcCodec, stream: bytes) -> np.ndarray:
    """int64 [frames, macroblocks]: elements of `avc-symbols` that each takes; a skip run counts
    for the macroblock behind it."""
    counts = np.zeros((codec.config.frames, codec.spec.columns * codec.spec.rows), np.int64)
    state = start_state(codec.spec)
    for symbol in codec.symbols.split(stream).tolist():
        frame, before = int(state[FRAME]), int(state[MB])
        assert step(codec.spec, state, symbol)
        counts[frame, before] += 1
    return counts


def motion(codec: AvcCodec, stream: bytes) -> list[list[tuple[float, float, float, float]]]:
    """Of each frame (x, y, dx, dy): the middle of a partition and where its content came from."""
    found = []
    data = io.BytesIO(codec.wrap_annex_b(stream))
    with av.open(data, "r", format="h264") as film:
        film.streams.video[0].codec_context.options = {"flags2": "+export_mvs"}
        for frame in film.decode(video=0):
            vectors = frame.side_data.get("MOTION_VECTORS")
            rows = vectors.to_ndarray() if vectors else []
            found.append([
                (float(v["dst_x"]), float(v["dst_y"]),
                 float(v["motion_x"]) / float(v["motion_scale"]),
                 float(v["motion_y"]) / float(v["motion_scale"]))
                for v in rows
            ])  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ROOT / "src" / "jpeglm" / "assets" / "pan.mp4"
    parser.add_argument("--film", type=Path, default=default)
    arguments = parser.parse_args()
    codec = make_codec(jpeglm.Tokenizer.load("clips").codec.to_dict())
    assert isinstance(codec, AvcCodec)
    stream = codec.encode(arguments.film)
    frames = codec.decode(stream)
    counts, vectors = symbols_of_macroblocks(codec, stream), motion(codec, stream)
    rows, columns = codec.spec.rows, codec.spec.columns
    shown = 5
    figure, axes = plt.subplots(2, shown, figsize=(9.5, 3.4))
    for number in range(shown):
        top, below = axes[:, number]
        top.imshow(frames[number], interpolation="nearest")
        for x, y, dx, dy in vectors[number]:
            if dx or dy:
                top.annotate("", (x, y), (x + LONGER * dx, y + LONGER * dy), arrowprops=ARROW)
        for edge in range(16, 64, 16):
            top.axvline(edge - 0.5, color="white", lw=0.3)
            top.axhline(edge - 0.5, color="white", lw=0.3)
        top.set_ylim(codec.config.height - 0.5, -0.5)
        top.set_xlim(-0.5, codec.config.width - 0.5)
        kind = "I" if number == 0 else "P"
        top.set_title(f"frame {number}, {kind}", fontsize=9)
        grid = counts[number].reshape(rows, columns)
        below.imshow(grid, cmap="YlGnBu", vmin=0, vmax=counts[0].max())
        for (y, x), value in np.ndenumerate(grid):
            colour = "white" if value > 0.6 * counts[0].max() else "black"
            below.text(x, y, value, ha="center", va="center", fontsize=7, color=colour)
        below.set_title(f"{grid.sum()} symbols", fontsize=9)
        top.axis("off")
        below.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(OUT / "macroblocks.png", dpi=110, bbox_inches="tight", facecolor="white")
    print(f"docs/figures/macroblocks.png; symbols of each frame: {counts.sum(1).tolist()}")


if __name__ == "__main__":
    main()
