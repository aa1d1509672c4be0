"""Training data as small as a machine without network can be given them: pictures or token ids.

    python recipes/data/pack.py data/photos data/gpu [--megabytes 40]
    python recipes/data/pack.py data/photos data/gpu --tokens 200000 --balance 0.2
    python recipes/data/pack.py data/avatars64 data/gpu-words --name avatars \\
        --tokenizer data/avatars64-tokenizer

The first writes OUT/photos/train/*.tar and OUT/photos/validation/*.tar, pictures shrunk to what
crops of 64 and 128 pixels need, for a machine that can cut and code them itself (numba). The
second writes OUT/tokens.tar.xz, so many crops as token shards, for one that cannot. The third
writes a prepared folder as token shards, with its captions, to OUT/NAME.tar.xz. OUT/pack.json tells
of all, and of the commit, since a checkout may travel without its history.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from jpeglm.checkpoint import load_checkpoint
from jpeglm.codecs.images import open_image
from jpeglm.config import InputError
from jpeglm.data.balance import balanced
from jpeglm.data.open import Dataset
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.token_shards import TOKENIZER, token_path, write_token_shard
from jpeglm.environment import commit
from jpeglm.files import atomic_write, read_json, write_json
from jpeglm.places import shipped_checkpoint
from jpeglm.progress import Reporter
from jpeglm.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SIDE = 256
"""Pixels of the shorter side that a photograph keeps: crops of 128 px from half of it on."""
WALLPAPER, WALLPAPER_SIDE = 1600, 640
"""A picture whose shorter side has at least so many pixels keeps more of them."""
QUALITIES = (92, 88, 84, 80, 75, 70, 60, 50)
"""Of WebP; the best that fits is taken. What is trained on is JPEG at quality 25."""
TAR = 256
"""Pictures a tar."""


def shrunk(data: bytes, quality: int, name: str) -> bytes:
    """A picture as a small WebP."""
    image = open_image(data, name=name)
    short = min(image.size)
    factor = min(1.0, (WALLPAPER_SIDE if short >= WALLPAPER else SIDE) / short)
    size = tuple(max(1, round(side * factor)) for side in image.size)
    out = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0).save(
        out, "WEBP", quality=quality, method=4
    )
    return out.getvalue()


def pack_pictures(photos: Path, out: Path, limit: int) -> dict[str, int]:
    """Tars of both splits, at the best quality that stays below `limit` bytes in all."""
    sides = {name: sorted((photos / name).glob("*/[!.]*")) for name in ("train", "validation")}
    if not all(sides.values()):
        raise InputError(f"{photos} lacks train/ or validation/; run recipes/data/photos.py first")
    files = [path for side in sides.values() for path in side]

    def coded(paths: list[Path], quality: int) -> dict[Path, bytes]:
        return {path: shrunk(path.read_bytes(), quality, str(path)) for path in paths}

    for quality in QUALITIES:
        if 20 * sum(map(len, coded(files[::20], quality).values())) > limit:
            continue  # a twentieth tells soon
        made = coded(files, quality)
        if sum(map(len, made.values())) <= limit:
            break
    pictures = {}
    for name, files in sides.items():
        for start in range(0, len(files), TAR):
            held = io.BytesIO()
            with tarfile.open(fileobj=held, mode="w") as tar:
                for number, path in enumerate(files[start : start + TAR], start):
                    data = made[path]
                    member = tarfile.TarInfo(f"{path.parent.name}/{number:05d}.webp")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
            atomic_write(out / "photos" / name / f"{start // TAR:05d}.tar", held.getvalue())
        pictures[name] = len(files)
    return {"quality": quality, **pictures}


def pack_tokens(
    photos: Path, out: Path, crops: int, balance: float, workers: int | None
) -> dict[str, int]:
    """tokens.tar.xz: crops of all pictures in the shipped photo model's tokens, no picture."""
    tokenizer = load_checkpoint(shipped_checkpoint()).tokenizer
    found = Counter(path.parent.name for path in (photos / "train").glob("*/[!.]*"))
    each = max(1, crops // found.total())
    while balance < 1 and streams(found, balanced(found, each + 1, balance)) <= crops:
        each += 1
    config = PrepareConfig(crops=each, balance=balance, split="folder", unit_size=64)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "tokens")
        info = prepare(photos, made, tokenizer.codec, config, tokenizer=tokenizer, workers=workers)
        for parquet in made.glob("*.parquet"):
            parquet.unlink()
        pack_shards(made, info, out / "tokens.tar.xz")
    return {"streams": info["streams"]["train"]}


def streams(pictures: Mapping[str, int], crops: Mapping[str, int]) -> int:
    """Of all pictures of all folders."""
    return sum(pictures[name] * count for name, count in crops.items())


def pack_prepared(data: Path, tokenizer: Tokenizer, out: Path) -> dict[str, int]:
    """out: a prepared folder in a tokenizer's tokens, no picture."""
    dataset = Dataset(data)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        tokenizer.save(made / TOKENIZER)
        with Reporter("packing", "shards") as report:
            for index, shard in enumerate(dataset.shards):
                write_token_shard(token_path(made, index), shard, tokenizer, dataset.fingerprint)
                report(index + 1, len(dataset.shards), "")
        pack_shards(made, dataset.info, out)
    return {"streams": dataset.info["streams"]["train"]}


def pack_shards(made: Path, info: dict[str, Any], out: Path) -> None:
    """Token shards, their tokenizer and the record of the data as one file."""
    source = {name: value for name, value in info["source"].items() if name != "path"}
    write_json(made / "dataset.json", info | {"source": source})  # the path is of this machine
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:xz", preset=6) as tar:
        tar.add(made, "tokens")
    atomic_write(out, held.getvalue())


def checkout_bytes() -> int:
    """Bytes of the files that git tracks."""
    words = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(words, capture_output=True, check=True).stdout.split(b"\0")
    return sum((ROOT / name.decode()).stat().st_size for name in listed if name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA",
        help="the corpus of photos.py, or with --tokenizer a prepared folder",
    )  # fmt: skip
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pack")
    parser.add_argument("--megabytes", type=float, default=40, help="of the pictures, at most")
    parser.add_argument("--tokens", type=int, default=0, help="crops as token ids instead")
    parser.add_argument(
        "--balance", type=float, default=1, help="of --tokens: a source's share of them, at most"
    )
    parser.add_argument("--tokenizer", type=Path, help="whose tokens a prepared folder becomes")
    parser.add_argument("--name", help="of its file; default: the folder's")
    parser.add_argument("--workers", type=int, help="processes; default: all cores")
    options = parser.parse_args()
    record = options.out / "pack.json"
    told = read_json(record) if record.exists() else {}
    try:
        if options.tokenizer:
            name = options.name or options.data.name
            tokenizer = Tokenizer.load(options.tokenizer)
            file = options.out / f"{name}.tar.xz"
            told[name] = pack_prepared(options.data, tokenizer, file)
        elif options.tokens:
            told["tokens"] = pack_tokens(
                options.data, options.out, options.tokens, options.balance, options.workers
            )
        else:
            told["photos"] = pack_pictures(options.data, options.out, int(options.megabytes * 1e6))
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(record, told | {"commit": commit()})
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    checkout = checkout_bytes()
    print(
        f"{options.out}: {size / 1e6:.1f} MB; with the checkout's {checkout / 1e6:.1f} MB "
        f"{(size + checkout) / 2**20:.1f} MiB travel"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
