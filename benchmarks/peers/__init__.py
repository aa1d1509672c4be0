"""Other engines that generate from the same weights. One file is one peer; it has

NAME        as tables show it
PRECISIONS  what it can be asked for
open(folder, work, precision) -> call(batch, tokens)

`folder` is a checkpoint (Hugging Face Llama form, float32), `work` an empty folder for conversions.
The call draws `tokens` tokens for each of `batch` sequences that begin with BOS (id `bos` of the
folder's generation_config.json), top-k 40, top-p 0.9, and goes on past any end of sequence. What a
peer needs stands in benchmarks/requirements.txt; one that does not import is listed as unavailable.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def peers() -> tuple[list[ModuleType], dict[str, str]]:
    """(modules that import, {name: why not} of the others)."""
    found, missing = [], {}
    for entry in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        try:
            found.append(importlib.import_module(f"peers.{entry.name}"))
        except ImportError as error:
            missing[entry.name] = str(error)
    return found, missing
