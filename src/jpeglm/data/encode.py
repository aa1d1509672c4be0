"""One unit of a source to one shard: read ▸ decode once ▸ crops ▸ `Codec.encode`.

What cannot be read is named in the shard's metadata with its reason; one strange file ends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jpeglm.codecs.images import holds_more
from jpeglm.config import InputError
from jpeglm.data.balance import folder_of
from jpeglm.data.crops import crops_of
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.shards import Row, write_shard
from jpeglm.data.sources import Item, Unit
from jpeglm.data.splits import SPLITS
from jpeglm.files import told

if TYPE_CHECKING:
    from jpeglm.codecs.base import Codec


def item_rows(
    item: Item, codec: Codec, config: PrepareConfig, train_crops: int | None = None
) -> list[Row]:
    """All rows of one picture or film; InputError if it cannot be read."""
    width, height = codec.config.width, codec.config.height
    split, media = crops_of(item, codec.config, config, train_crops)
    return [
        Row(key, codec.encode(crop), width, height, item.label, split, item.caption)
        for key, crop in media
    ]


def prepare_unit(
    path: Path, unit: Unit, codec: Codec, config: PrepareConfig, crops: Mapping[str, int]
) -> dict[str, Any]:
    """Make one shard; returns the metadata that it carries. `crops` of a training picture, by its
    folder, where they are balanced."""
    rows: list[Row] = []
    rejected: list[dict[str, str]] = []
    pictures = dict.fromkeys(SPLITS, 0)
    animations = captions = 0
    for item in unit.read():
        if not isinstance(item, Item):
            rejected.append(item._asdict())
            continue
        try:
            own = crops.get(folder_of(item.key, config.split))
            made = item_rows(item, codec, config, own)
        except ImportError:
            raise
        except InputError as error:
            rejected.append({"name": item.name, "reason": str(error)})
            continue
        except Exception as error:  # one strange file ends no run of a million
            reason = f"{type(error).__name__}: {told(error)}"
            rejected.append({"name": item.name, "reason": reason})
            continue
        rows += made
        animations += codec.media == "picture" and holds_more(item.data)
        captions += item.caption is not None
        pictures[made[0].split] += 1
    meta = {
        "codec": codec.to_dict(),
        "fingerprint": codec.fingerprint,
        "count": unit.count,
        "pictures": pictures,
        "streams": {name: sum(row.split == name for row in rows) for name in SPLITS},
        "bytes": {
            name: sum(len(row.stream) for row in rows if row.split == name) for name in SPLITS
        },
        "rejected": rejected,
        "animations": animations,
    }
    if captions:
        meta["captions"] = captions
    write_shard(path, rows, meta)
    return meta
