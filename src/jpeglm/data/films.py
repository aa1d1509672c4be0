"""Whether a file is read as a film or as a picture."""

from __future__ import annotations

import math
from pathlib import Path

from jpeglm.codecs import open_codec
from jpeglm.codecs.clips import ClipShape, measure
from jpeglm.codecs.images import MOVING, holds_more
from jpeglm.config import InputError
from jpeglm.data.sources import FILMS
from jpeglm.places import checkpoint_folder


def is_film(file: Path, checkpoint: Path | None = None) -> bool:
    """By its name; a GIF if it is long enough for a clip of the checkpoint (by default of the
    shipped model of clips)."""
    if file.suffix.lower() != ".gif" or not holds_more(file, MOVING):
        return file.suffix.lower() in FILMS
    try:
        shape = open_codec(checkpoint_folder(checkpoint or Path("clips"))).config
        length = (shape.frames - 1) / shape.fps if isinstance(shape, ClipShape) else math.inf
        return measure(file, str(file)).seconds > length
    except InputError:  # FFmpeg is not there, or cannot read what Pillow reads
        return False
