"""Draw films of moving shapes, whose next frames are known.

    python recipes/data/shapes.py data/shapes --films 3000

leaves OUT/shapes-00000.tar … with small lossless films (WebDataset form): one or two plain shapes
on a plain ground, each going straight on at its own constant speed and thrown back by the edges. A
model that has understood motion continues them exactly; «repeat the last frame» cannot.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jpeglm.codecs.clips import pyav
from jpeglm.files import atomic_write
from jpeglm.progress import Reporter

A_TAR = 250
FINE = 4
"""Shapes are drawn so many times larger and scaled down, for smooth edges and parts of a pixel."""


def bounced(place: float, low: float, high: float) -> float:
    """A place on a straight line as the edges low and high fold it back."""
    width = high - low
    folded = (place - low) % (2 * width)
    return low + min(folded, 2 * width - folded)


def film(
    rng: np.random.Generator, width: int = 128, height: int = 96, frames: int = 16
) -> np.ndarray:
    """uint8 [frames, height, width, 3]."""
    ground = tuple(int(x) for x in rng.integers(0, 256, 3))
    shapes = []
    for _ in range(int(rng.integers(1, 3))):
        radius = rng.uniform(0.07, 0.2) * height
        middle = rng.uniform((radius, radius), (width - radius, height - radius))
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.08) * height
        step = speed * np.array([np.cos(angle), np.sin(angle)])
        colour = tuple(int(x) for x in rng.integers(0, 256, 3))
        shapes.append((rng.choice(["ball", "square", "triangle"]), radius, middle, step, colour))
    shown = []
    for number in range(frames):
        image = Image.new("RGB", (width * FINE, height * FINE), ground)
        draw = ImageDraw.Draw(image)
        for kind, radius, middle, step, colour in shapes:
            x, y = middle + number * step
            x, y = bounced(x, radius, width - radius), bounced(y, radius, height - radius)
            x, y, r = x * FINE, y * FINE, radius * FINE
            if kind == "ball":
                draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
            elif kind == "square":
                draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
            else:
                draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
        shown.append(np.asarray(image.resize((width, height), Image.Resampling.BOX)))
    return np.stack(shown)


def encoded(frames: np.ndarray, fps: int, qp: int = 0) -> bytes:
    """An .mp4 of frames; lossless at quantiser 0."""
    av = pyav()
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("libx264rgb", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "rgb24"
        stream.options = {"qp": str(qp), "x264-params": "threads=1"}
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()


def main() -> None:
    opening, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the tars")
    parser.add_argument("--films", type=int, default=3000)
    parser.add_argument("--fps", type=int, default=8, help="frames a second; a film has 16 frames")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with Reporter("shapes", "films") as report:
        for first in range(0, arguments.films, A_TAR):
            count = min(A_TAR, arguments.films - first)
            path = arguments.out / f"shapes-{first // A_TAR:05d}.tar"
            if not path.exists():
                atomic_write(path, tar(range(first, first + count), arguments.seed, arguments.fps))
            report(first + count, arguments.films, "")


def tar(numbers: range, seed: int, fps: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for number in numbers:
            data = encoded(film(np.random.default_rng([seed, number])), fps)
            entry = tarfile.TarInfo(f"{number:06d}.mp4")
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return out.getvalue()


if __name__ == "__main__":
    main()
