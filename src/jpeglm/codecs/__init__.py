"""Codecs: media to canonical bytes and back. `make_codec` builds one from its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jpeglm.codecs.avc import AvcCodec, AvcConfig
from jpeglm.codecs.base import Codec
from jpeglm.codecs.jpeg import JpegCodec
from jpeglm.codecs.learned import WEIGHTS, LearnedCodec
from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig
from jpeglm.codecs.vq import DIFFUSERS, VqCodec, VqConfig, open_diffusers
from jpeglm.config import InputError, JpegConfig, shorten
from jpeglm.files import atomic_write, read_bytes, read_json, write_json

__all__ = ["CODECS", "AvcCodec", "Codec", "JpegCodec", "make_codec", "open_codec", "save_codec"]

CODECS: dict[str, tuple[Any, Any]] = {
    "jpeg": (JpegConfig, JpegCodec),
    "avc": (AvcConfig, AvcCodec),
    "pixels": (PixelsConfig, PixelsCodec),
    "vq": (VqConfig, VqCodec),
}
"""Of each codec the settings, and what they make."""
RECORDS = ("codec.json", "dataset.json", "prepare.json")
"""Files that name a folder's codec under the key `codec`."""


def make_codec(values: Any, folder: Path | None = None) -> Codec:
    """The codec that `Codec.to_dict` described; a learned one's weights lie in `folder`."""
    if not isinstance(values, dict):
        raise InputError(f"a codec's settings are a JSON object, not {shorten(values)}")
    values = dict(values)
    name = values.pop("codec", None)
    if not isinstance(name, str) or name not in CODECS:
        raise InputError(f"there is no codec {shorten(name)}; choose one of {', '.join(CODECS)}")
    config, codec = CODECS[name]
    if not issubclass(codec, LearnedCodec):
        made: Codec = codec(config.from_dict(values))
        return made
    path = Path(folder or ".") / WEIGHTS
    if not path.exists():
        raise InputError(f"{path}, the weights of the {name} codec, is missing")
    try:
        made = codec(config.from_dict(values), read_bytes(path))
    except InputError as error:
        raise InputError(f"{path.parent}: {error}") from error
    return made


def save_codec(codec: Codec, folder: Path) -> None:
    """A codec folder: `codec.json` and what lies beside it."""
    for name, data in codec.files().items():
        atomic_write(Path(folder) / name, data)
    write_json(
        Path(folder) / "codec.json", {"codec": codec.to_dict(), "fingerprint": codec.fingerprint}
    )


def open_codec(
    folder: Path, width: int | None = None, height: int | None = None, fit: str | None = None
) -> Codec:
    """The codec of a codec folder, a checkpoint, prepared data or a `diffusers` VQModel.

    width, height and fit replace what the folder says; a VQModel, which says nothing, gets 256.
    """
    folder = Path(folder)
    if (folder / DIFFUSERS).exists():
        return open_diffusers(folder, width or 256, height or width or 256, fit or "crop")
    found = [folder / name for name in RECORDS if (folder / name).exists()]
    if not found:
        raise InputError(f"{folder} is not a codec folder: it has no codec.json")
    values = read_json(found[0]).get("codec")
    name = values.get("codec") if isinstance(values, dict) else values
    if not isinstance(values, dict) or name not in CODECS:
        raise InputError(
            f"{found[0]} describes {shorten(name)}, which writes no codes; "
            f"a codec is one of {', '.join(CODECS)}"
        )
    values = dict(values)
    if width is not None:
        values |= {"width": width, "height": height or width}
    if fit is not None:
        values["fit"] = fit
    return make_codec(values, folder)
