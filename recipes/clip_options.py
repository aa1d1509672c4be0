"""What x264's options do to clips as symbols: python recipes/clip_options.py [SOURCE …]

Each source (by default data/shapes and data/photos/train, from the recipes) gives 25 films or
pictures, two clips of 64 × 48 each; every setting codes the same clips at one quantiser. Shown are
symbols and bytes a clip and PSNR.
"""

from __future__ import annotations

import argparse
import io
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from steps import ROOT

from jpeglm.codecs.avc import AvcCodec, AvcConfig
from jpeglm.codecs.clips import pyav
from jpeglm.data.crops import crops_of
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import Item, open_source
from jpeglm.evaluation.quality import psnr

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "no partitions": {"partitions": "none"},
    "full pixels": {"subme": 0},
    "the paper's search": {"partitions": "none", "subme": 0, "me": "dia", "trellis": 0, "psy": 0},
}


def clips_of(source: Path, config: AvcConfig) -> list[np.ndarray]:
    items = (item for unit in open_source(source, films=True).units for item in unit.read())
    chosen = islice((item for item in items if isinstance(item, Item)), 25)
    crops = PrepareConfig(crops=2, split="train")
    return [clip for item in chosen for _, clip in islice(crops_of(item, config, crops)[1], 2)]


def decoded(annex_b: bytes) -> np.ndarray:
    """With the stream's own parameter sets, which hold more than the quantiser."""
    with pyav().open(io.BytesIO(annex_b), "r", format="h264") as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [ROOT / "data" / "shapes", ROOT / "data" / "photos" / "train"]
    parser.add_argument("sources", type=Path, nargs="*", default=default)
    parser.add_argument("--qp", type=int, default=37)
    arguments = parser.parse_args()
    codec = AvcCodec(AvcConfig(64, 48, 8, fps=8, qp=arguments.qp, fit="crop"))
    for source in arguments.sources:
        clips = clips_of(source, codec.config)
        print(f"{source.name}: {len(clips)} clips")
        for name, options in SETTINGS.items():
            files = [codec.x264(clip, **options) for clip in clips]
            streams = [codec.slices(file) for file in files]
            symbols = np.mean([len(codec.symbols.split(stream)) for stream in streams])
            size = np.mean([len(stream) for stream in streams])
            shown = np.mean([psnr(decoded(file), clip).mean() for file, clip in zip(files, clips)])
            print(f"  {name:20s} {symbols:7.0f} symbols {size:6.0f} bytes {shown:6.2f} dB")


if __name__ == "__main__":
    main()
