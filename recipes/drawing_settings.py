"""What a JPEG quality and subsampling cost drawings in bits and tokens, and how true they stay.

    python recipes/drawing_settings.py data/avatars data/emoji [--sheet sheet.png]

codes PICTURES drawings of each folder's `train` at 64×64 in every setting: Huffman bits of the
scan, tokens of a vocabulary of 1024 learnt on four times as many others, PSNR and SSIM of RGB. Bits
say what the file costs, tokens how many steps a model needs to draw it, the others how well it can
draw at best. `docs/log.md` has the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from jpeglm.codecs.jpeg import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.evaluation.quality import psnr
from jpeglm.tokenizer import Tokenizer

QUALITIES = (25, 35, 50, 60, 75)
SUBSAMPLINGS = ("4:2:0", "4:4:4")
PICTURES, LEARNT = 1000, 4000


def drawings(folder: Path) -> list[Image.Image]:
    """Evenly out of `train`, those to measure first, then those to learn from."""
    files = sorted((folder / "train").glob("*.png"))
    chosen = [files[i * len(files) // (PICTURES + LEARNT)] for i in range(PICTURES + LEARNT)]
    share = 1 + LEARNT // PICTURES
    chosen = chosen[::share] + [file for i, file in enumerate(chosen) if i % share]
    return [Image.open(file).convert("RGB") for file in chosen]


def measure(pictures: Sequence[Image.Image], codec: JpegCodec) -> tuple[dict[str, Any], np.ndarray]:
    """(figures of the first PICTURES, uint8 [PICTURES, 64, 64, 3] as they come back)."""
    streams = [codec.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams[PICTURES:], codec)
    measured = streams[:PICTURES]
    tokens = [len(tokenizer.encode_stream(stream)) for stream in measured]
    true = np.stack([np.asarray(picture) for picture in pictures[:PICTURES]])
    back = np.stack([np.asarray(codec.decode(stream)) for stream in measured])
    as_tensor = [torch.from_numpy(x).permute(0, 3, 1, 2).float() for x in (back, true)]
    similar = ssim(*as_tensor, data_range=255.0)
    figures = {
        "quality": codec.config.quality,
        "subsampling": codec.config.subsampling,
        "bits": round(float(np.mean([8 * len(codec.scan(stream)) for stream in measured]))),
        "tokens": round(float(np.mean(tokens)), 1),
        "tokens_p99": int(np.percentile(tokens, 99)),
        "psnr": round(float(psnr(back, true).mean()), 2),
        "ssim": round(float(similar), 4),
    }
    return figures, back


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="folders with train/*.png")
    parser.add_argument("--sheet", type=Path, help="sixteen of each, one row a setting")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[np.ndarray] = []
    for folder in arguments.data:
        pictures = drawings(folder)
        step = PICTURES // 16
        shown = [np.stack([np.asarray(picture) for picture in pictures[:PICTURES:step][:16]])]
        for quality in QUALITIES:
            for subsampling in SUBSAMPLINGS:
                config = JpegConfig(quality=quality, subsampling=subsampling)
                figures, back = measure(pictures, JpegCodec(config))
                print(json.dumps({"data": folder.name, **figures}), flush=True)
                shown.append(back[::step][:16])
        rows += [np.concatenate(list(row), axis=1) for row in shown]
    if arguments.sheet:
        Image.fromarray(np.concatenate(rows)).save(arguments.sheet)


if __name__ == "__main__":
    main()
