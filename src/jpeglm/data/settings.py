"""The settings of prepared data: what decides the content of its shards."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from jpeglm.codecs.images import MAX_PIXELS
from jpeglm.config import MAX_SEED, InputError, Settings, bounded
from jpeglm.data.sources import CAPTIONS, LABELS
from jpeglm.data.splits import SPLITS

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class PoolConfig(Settings):
    """Who makes the shards; nothing in them depends on it."""

    workers: int | None = bounded(None, least=1)
    """Processes. Default: all cores, of the whole cluster with ray."""
    engine: str = "local"
    """local (this machine) or ray (the nodes of a Ray cluster, which have this package too and see
    source and shards under the same paths)."""
    address: str | None = None
    """Of the Ray cluster: auto (the one that this machine belongs to) or ray://HEAD:10001. Default:
    RAY_ADDRESS, or a cluster of this machine alone."""

    def __post_init__(self) -> None:
        self.check_bounds()
        if self.engine not in ENGINES:
            raise InputError(f"engine is {self.engine!r}; choose {' or '.join(ENGINES)}")
        if self.address is not None and self.engine != "ray":
            raise InputError(
                f"address is {self.address}, but engine is {self.engine}; add --engine ray"
            )


@dataclass(frozen=True)
class PrepareConfig(Settings):
    """What decides the content of the shards, together with the codec and the source."""

    crops: int = bounded(0, least=0)
    """Random crops at many scales, some flipped, from each picture, or from each clip's length of a
    film; 0: the whole picture."""
    balance: float = bounded(1, above=0, most=1)
    """Share of the training crops that the pictures of one first-level folder (behind train/, with
    --split folder) may give; those of larger ones give fewer crops each. 1: no limit."""
    clips: int = bounded(0, least=0)
    """At most this many clips from the start of each film (avc); 0: all."""
    min_scale: float = bounded(0.25, least=0, most=1)
    """Side of the smallest crop, as a share of the largest that fits; never below the codec's own
    size unless the picture is smaller."""
    validation: float = bounded(0.05, least=0, below=1)
    """Share of the pictures held out, chosen by their content."""
    split: str = "hash"
    """hash (by content; a saved DatasetDict keeps its own); folder (SOURCE/train,
    SOURCE/validation: keeps a scene of several pictures on one side; pictures elsewhere are set
    aside); or all to train, or all to validation."""
    seed: int = bounded(0, least=0, most=MAX_SEED)
    """Seed of the crops."""
    unit_size: int = bounded(256, least=1)
    """Pictures a shard."""
    labels: str = "source"
    """source (where it has some), folder (names of folders) or none."""
    max_pixels: int = bounded(MAX_PIXELS, least=1)
    """Larger pictures are rejected."""
    column: str | None = None
    """Which column of a table, or which image of a sample in a tar (png, seg.png), is the picture.
    Default: the only one, or image; of 7.jpg and 7.png the JPEG."""
    caption: str = "source"
    """source (7.txt beside 7.jpg in a tar, a column of text, a folder's metadata.jsonl), names (of
    files: red_heart.png) or none."""
    caption_column: str | None = None
    """Which column of a table, or which key of metadata.jsonl, is the caption. Default: caption, or
    text."""

    def __post_init__(self) -> None:
        self.check_bounds()
        if self.split not in ("hash", "folder", *SPLITS):
            choices = f"hash, folder, {' or '.join(SPLITS)}"
            raise InputError(f"split is {self.split!r}; choose {choices}")
        if self.labels not in LABELS:
            raise InputError(f"labels is {self.labels!r}; choose one of {', '.join(LABELS)}")
        if self.caption not in CAPTIONS:
            raise InputError(f"caption is {self.caption!r}; choose one of {', '.join(CAPTIONS)}")
        if self.caption_column is not None and self.caption != "source":
            raise InputError(
                f"caption_column is {self.caption_column}, but caption is {self.caption}, which "
                "reads no column; leave one out"
            )

    def to_dict(self) -> dict[str, Any]:
        """Without what is as usual of captions and the balance, so that data without any are what
        they were."""
        usual = {field.name: field.default for field in fields(self)}
        return {
            name: value
            for name, value in super().to_dict().items()
            if not name.startswith(("balance", "caption")) or value != usual[name]
        }
