"""The settings of prepared data: what decides the content of its shards."""

from __future__ import annotations

from dataclasses import dataclass

from jpeglm.codecs.images import MAX_PIXELS
from jpeglm.config import InputError, Settings, check_seed
from jpeglm.data.sources import LABELS
from jpeglm.data.splits import SPLITS


@dataclass(frozen=True)
class PrepareConfig(Settings):
    """What decides the content of the shards, together with the codec and the source.

    crops: 0 codes each picture whole, N takes N random crops of it instead; of a film, N for each
        length of a clip.
    clips: of a film, only so many from its beginning; 0: all.
    min_scale: side of the smallest crop, as a share of the largest that fits in the picture; a
        crop is never smaller than the codec's own size unless the picture is.
    validation: share of the pictures held out, chosen by content.
    split: `hash` as above (a saved DatasetDict keeps its own splits); `folder`: the first-level
        folders `train` and `validation` say it, and pictures elsewhere are set aside; or all
        pictures to `train` or `validation`.
    unit_size: pictures a shard. labels, column: see `open_source`. max_pixels: larger ones are set
        aside.
    """

    crops: int = 0
    clips: int = 0
    min_scale: float = 0.25
    validation: float = 0.05
    split: str = "hash"
    seed: int = 0
    unit_size: int = 256
    labels: str = "source"
    max_pixels: int = MAX_PIXELS
    column: str | None = None

    def __post_init__(self) -> None:
        if self.crops < 0:
            raise InputError(f"crops is {self.crops}; 0 means whole pictures, N means N crops")
        if self.clips < 0:
            raise InputError(f"clips is {self.clips}; 0 means all of a film, N the first N clips")
        if not 0 <= self.min_scale <= 1:
            raise InputError(f"min_scale is {self.min_scale}; it goes from 0 to 1")
        if not 0 <= self.validation < 1:
            raise InputError(f"validation is {self.validation}; it goes from 0 to below 1")
        if self.split not in ("hash", "folder", *SPLITS):
            choices = f"hash, folder, {' or '.join(SPLITS)}"
            raise InputError(f"split is {self.split!r}; choose {choices}")
        if self.unit_size < 1:
            raise InputError(f"unit_size is {self.unit_size}; it must be at least 1")
        if self.labels not in LABELS:
            raise InputError(f"labels is {self.labels!r}; choose one of {', '.join(LABELS)}")
        check_seed(self.seed)
        if self.max_pixels < 1:
            raise InputError(f"max_pixels is {self.max_pixels}; it must be at least 1")
