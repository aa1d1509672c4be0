"""Any image dataset of the Hugging Face hub as Parquet that `jpeglm prepare` reads.

    python recipes/data/hub.py ILSVRC/imagenet-1k data/imagenet --split train validation
    python recipes/data/hub.py a/local/folder data/mine --limit 70000

NAME is what `datasets.load_dataset` takes: a name on the hub (ImageNet as above, FFHQ the copy
that you may use) or a local folder. Pictures are copied as they are stored, not coded again; labels
and their names come along. Rows are streamed and written in files of 10,000, each whole or not at
all; a file that exists is skipped, so that a second run goes on. Needs: pip install datasets.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jpeglm.files import atomic_write

ROWS = 10_000


def open_split(name: str, split: str) -> tuple[Iterator[dict[str, Any]], str, list[str]]:
    """(rows with undecoded pictures, image column, names of the labels)."""
    from datasets import Image, load_dataset

    try:
        rows = load_dataset(name, split=split, streaming=True)
    except (OSError, ValueError) as error:
        sys.exit(f"{name}, split {split}, cannot be opened: {error}")
    if rows.features is None:
        rows = rows._resolve_features()
    columns = [key for key, feature in rows.features.items() if isinstance(feature, Image)]
    if not columns:
        sys.exit(f"{name} has no image column; its columns are {', '.join(rows.features)}")
    names = getattr(rows.features.get("label"), "names", None) or []
    return iter(rows.cast_column(columns[0], Image(decode=False))), columns[0], list(names)


def write(path: Path, rows: list[dict[str, Any]], column: str, names: list[str]) -> None:
    """One Parquet file in Hugging Face's own column form."""
    labelled = all(isinstance(row.get("label"), int) for row in rows)
    kinds = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    arrays = [pa.array([_stored(row[column]) for row in rows], kinds[0][1])]
    if labelled:
        kinds.append(("label", pa.int64()))
        features["label"] = {"names": names, "_type": "ClassLabel"} if names else {"_type": "Value"}
        arrays.append(pa.array([row["label"] for row in rows]))
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    out = io.BytesIO()
    schema = pa.schema(kinds, metadata=metadata)
    pq.write_table(pa.table(arrays, schema=schema), out, row_group_size=1000)
    atomic_write(path, out.getvalue())


def _stored(image: dict[str, Any]) -> dict[str, Any]:
    """The picture's own file; a dataset of a folder has paths in the place of bytes."""
    data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    return {"bytes": data, "path": Path(image["path"] or "").name}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", nargs="+", default=["train"])
    parser.add_argument("--limit", type=int, help="pictures of each split at most")
    arguments = parser.parse_args()
    for split in arguments.split:
        rows, column, names = open_split(arguments.name, split)
        rows = islice(rows, arguments.limit)
        number = 0
        while group := list(islice(rows, ROWS)):
            path = arguments.out / split / f"{number:05d}.parquet"
            if not path.exists():
                write(path, group, column, names)
            print(f"{path}: {len(group)} pictures", flush=True)
            number += 1


if __name__ == "__main__":
    main()
