"""jpeglm: language models that write image and video files.

import jpeglm
jpeglm.complete("photo.jpg", keep=0.5, n=3).save("out")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jpeglm.checkpoint.shipped import list_models
    from jpeglm.codecs import JpegCodec, make_codec
    from jpeglm.config import InputError, JpegConfig, Sampling
    from jpeglm.data.open import open_data
    from jpeglm.generation.loading import complete, fill, generate, load
    from jpeglm.generation.matcher import Matcher
    from jpeglm.generation.model import Model
    from jpeglm.tokenizer import Tokenizer

_HOMES = {
    "InputError": "config",
    "JpegCodec": "codecs",
    "JpegConfig": "config",
    "Matcher": "generation.matcher",
    "Model": "generation.model",
    "Sampling": "config",
    "Tokenizer": "tokenizer",
    "complete": "generation.loading",
    "fill": "generation.loading",
    "generate": "generation.loading",
    "list_models": "checkpoint.shipped",
    "load": "generation.loading",
    "make_codec": "codecs",
    "open_data": "data.open",
}
__all__ = [
    "InputError", "JpegCodec", "JpegConfig", "Matcher", "Model", "Sampling", "Tokenizer",
    "complete", "fill", "generate", "list_models", "load", "make_codec", "open_data",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Names are loaded when first used, so that `import jpeglm` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jpeglm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"jpeglm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | {*__all__})
