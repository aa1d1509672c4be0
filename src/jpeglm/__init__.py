"""jpeglm: language models that write image and video files.

import jpeglm
pictures = jpeglm.load().complete(photo, keep=0.5, n=3).images
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jpeglm.codecs import JpegCodec, make_codec
    from jpeglm.config import InputError, JpegConfig
    from jpeglm.generation.loading import load
    from jpeglm.generation.model import Model
    from jpeglm.tokenizer import Tokenizer

__all__ = ["InputError", "JpegCodec", "JpegConfig", "Model", "Tokenizer", "load", "make_codec"]

_HOMES = {
    "InputError": "config",
    "JpegCodec": "codecs",
    "JpegConfig": "config",
    "Model": "generation.model",
    "Tokenizer": "tokenizer",
    "load": "generation.loading",
    "make_codec": "codecs",
}


def __getattr__(name: str) -> Any:
    """Names are loaded when first used, so that `import jpeglm` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jpeglm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"jpeglm.{_HOMES[name]}"), name)
