"""Codecs: media to canonical bytes and back. `make_codec` builds one from its settings."""

from __future__ import annotations

from typing import Any

from jpeglm.codecs.base import Codec
from jpeglm.codecs.jpeg import JpegCodec
from jpeglm.config import InputError, JpegConfig

__all__ = ["CODECS", "Codec", "JpegCodec", "make_codec"]

CODECS = {"jpeg": (JpegConfig, JpegCodec)}
"""Name → settings and class."""


def make_codec(values: dict[str, Any]) -> JpegCodec:
    """The codec that `Codec.to_dict` described."""
    values = dict(values)
    name = values.pop("codec", None)
    if name not in CODECS:
        raise InputError(f"there is no codec {name!r}; choose one of {', '.join(CODECS)}")
    config, codec = CODECS[name]
    return codec(config.from_dict(values))
