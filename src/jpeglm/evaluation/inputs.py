"""What is measured: held-out pictures at a model's size, held-out streams, JPEG beside codecs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jpeglm.codecs import JpegCodec
from jpeglm.config import MAX_SEED, InputError, JpegConfig, Settings, bounded
from jpeglm.data.arrays import Images, load_images, load_set, to_images
from jpeglm.data.open import Pictures, Stream, open_data
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.splits import SPLITS, check_split
from jpeglm.files import printable, read_json
from jpeglm.folders import RUN, record_of
from jpeglm.generation.loading import open_coder
from jpeglm.generation.model import Model
from jpeglm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jpeglm.generation.vae import VaePrior

JPEG_PICTURES = 300
"""From which the tokenizers of other JPEG qualities are learnt."""


@dataclass(frozen=True)
class ReferenceConfig(Settings):
    """Which real pictures, at which size."""

    limit: int = bounded(1000, least=2, most=MAX_SEED)
    """Pictures at most."""
    width: int | None = None
    """Pixels, as 64 or 128x96 (width x height). Default: the checkpoint's."""
    height: int | None = None
    """Pixels."""
    split: str | None = None
    """train, validation or all; of what is not prepared by content, as prepare. Default: all, but
    of prepared shards, and of what the model was trained on, validation."""
    crops: int = bounded(0, least=0)
    """Random crops of each picture, as prepare; 0: whole."""

    def __post_init__(self) -> None:
        self.check_bounds()


def chosen_split(data: Path, split: str | None, *checkpoints: Path | None) -> str:
    """`ReferenceConfig.split` of `data`: one of `SPLITS`, or all. None: what was held out, where
    `data` are prepared or one of the checkpoints was trained on them."""
    if split is None:
        prepared = (data / "dataset.json").exists()
        known = prepared or held_out_share(data, *checkpoints) is not None
        return "validation" if known else "all"
    check_split(split, (*SPLITS, "all"))
    return split


def held_out_share(data: Path, *checkpoints: Path | None) -> float | None:
    """The share of pictures, by content, that no run of these checkpoints was trained on; None
    where none of them is of a run over just these data, as they are or prepared."""
    shares = []
    for checkpoint in checkpoints:
        if checkpoint is None or not checkpoint.is_dir():  # or the name of a shipped one
            continue
        place = Path(os.path.realpath(checkpoint))
        for folder in (place, *place.parents[:2]):
            if record := record_of(folder, RUN):
                shares += [share for path, share in _sources(record) if _is(path, data)]
                break
    return min(shares, default=None)


def _sources(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The folders that a run's config.json tells of, each with the share held out of it: what it
    was trained on, and what that was prepared from."""
    data, views = record.get("data"), record.get("views")
    if not isinstance(data, dict) or "path" not in data:
        return
    usual = PrepareConfig().validation
    place = str(data.get("absolute", data["path"]))
    yield place, views.get("validation", usual) if isinstance(views, dict) else usual
    with suppress(InputError, KeyError, TypeError):
        made = read_json(Path(place) / "dataset.json")
        if made["settings"]["split"] == "hash":
            yield made["source"]["path"], made["settings"]["validation"]


def _is(recorded: str, data: Path) -> bool:
    """Whether a path as it was recorded leads to `data`."""
    return printable(os.path.realpath(recorded)) == printable(os.path.realpath(data))


def references(
    data: Path, size: tuple[int, int], config: ReferenceConfig, *checkpoints: Path | None
) -> Images:
    """Pictures to measure against, at `size` (width, height) unless another is given."""
    width, height = config.width or size[0], config.height or size[1]
    split = chosen_split(data, config.split, *checkpoints)
    views = PrepareConfig(crops=config.crops)
    if (share := held_out_share(data, *checkpoints)) is not None:
        views = replace(views, validation=share)
    return load_images(
        data, width, height, views, None if split == "all" else split, limit=config.limit
    )


def size_of(model: Model | Tokenizer | VaePrior) -> tuple[int, int]:
    """Width and height of what a `Model`, a `Tokenizer` or a `VaePrior` makes."""
    config = model.codec.config if isinstance(model, Model | Tokenizer) else model.config
    return config.width, config.height


def pairs(
    pictures: Path, real: Path, size: tuple[int, int] | None, limit: int
) -> tuple[Images, Images]:
    """Two sets of pictures of one size, two or more in each."""
    paths = (pictures, real)
    first, second = (load_set(path, size, limit) for path in paths)
    for path, found in zip(paths, (first, second)):
        if len(found.pixels) < 2:
            raise InputError(f"{path} has one picture; a distance needs at least two a side")
    if first.pixels.shape[1:] != second.pixels.shape[1:]:
        (h, w), (height, width) = (found.pixels.shape[1:3] for found in (first, second))
        raise InputError(
            f"{pictures} has pictures of {w} × {h}, {real} of {width} × {height}; give --size to "
            "bring both to one size"
        )
    return first, second


def held_out_streams(
    data: Path,
    model: Model | VaePrior,
    split: str,
    limit: int,
    checkpoint: Path | None = None,
) -> list[Stream]:
    """The first streams of a split (`chosen_split`, of the same checkpoint) of prepared shards,
    films or pictures."""
    if not isinstance(model, Model):
        raise InputError("a VAE writes no streams; give the checkpoint of a language model")
    found = open_data(data, model.codec, model.tokenizer.folder)
    share = held_out_share(data, checkpoint)
    if isinstance(found, Pictures) and share is not None:
        found.validation = share
    rows = list(islice(found.streams(None if split == "all" else split), limit))
    if not rows and found.rejected:
        raise InputError(found.rejected[0]["reason"])
    if not rows:
        raise InputError(f"{data} has no {split} streams; choose another --split")
    return rows


def check_pictures(model: Model | VaePrior, name: Path | None) -> None:
    """InputError where a model writes clips, which are measured by continuation."""
    if isinstance(model, Model) and model.codec.media == "clip":
        raise InputError(f"{name} writes clips; use evaluate continuation")


def class_counts(data: Path) -> dict[int, int]:
    """Class → streams of it that training saw."""
    counts = np.bincount([row.label for row in open_data(data).streams("train")])
    return {label: int(count) for label, count in enumerate(counts) if count}


def coders_of(
    folders: Sequence[Path], qualities: Sequence[int], data: Path, config: ReferenceConfig
) -> tuple[dict[str, Tokenizer | VaePrior], Images]:
    """What `reconstruction` measures, by name, and the pictures: the codecs of checkpoints, and
    JPEG at other qualities beside them."""
    coders = {str(folder): open_coder(folder) for folder in folders}
    for name, coder in coders.items():
        if isinstance(coder, Tokenizer) and coder.codec.media == "clip":
            raise InputError(f"{name} codes clips; reconstruction is measured on pictures")
    usual = JpegConfig()
    size = (usual.width, usual.height)
    if coders:
        size = size_of(next(iter(coders.values())))
    found = references(data, size, config, *folders)
    if not coders and not qualities:
        raise InputError("there is nothing to measure; give --checkpoint or --qualities")
    return coders | _jpegs(qualities, found), found


def _jpegs(qualities: Sequence[int], found: Images) -> dict[str, Tokenizer]:
    """A tokenizer for each JPEG quality, learnt from pictures that are measured: the number of
    tokens is what is wanted, not what a model makes of them."""
    height, width = found.pixels.shape[1:3]
    images = to_images(found.pixels[:JPEG_PICTURES])
    made = {}
    for quality in qualities:
        codec = JpegCodec(JpegConfig(width, height, quality=quality))
        streams = [codec.encode(image) for image in images]
        made[f"jpeg quality {quality}"] = Tokenizer.train(streams, codec)
    return made
