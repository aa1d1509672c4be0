"""A checkpoint's weights: one safetensors file, or the shards of `save_pretrained` with an index.

Everything is judged by headers before an array is touched: the files that the index names, then
names, types and shapes of all arrays against `config.json`. When the arrays are read, every value
must be finite: weights with NaN would draw grey pictures without a word. Pickles are never read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.config import InputError, shorten
from jpeglm.files import read_json
from jpeglm.models.llama import tensors
from jpeglm.tensors import Entry, read_header, read_safetensors

WEIGHTS = "model.safetensors"
INDEX = WEIGHTS + ".index.json"
FLOATS = ("BF16", "F16", "F32", "F64")
SLICE = 1 << 22
"""Values that are looked at together, so that looking takes no memory to speak of."""
_UNUSED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""What old releases of transformers stored though it follows from the configuration."""


def weight_files(folder: Path) -> dict[str, Path]:
    """The file of each array, by the index of a sharded checkpoint; or all in the one file."""
    single, index = folder / WEIGHTS, folder / INDEX
    if single.exists() or not index.exists():
        return dict.fromkeys(read_header(single), single)
    return read_index(index)


def read_index(index: Path) -> dict[str, Path]:
    """The file of each array as an index of shards has it; all lie beside it."""
    folder = index.parent
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index} has no weight_map, which says where each array lies")
    for name, file in places.items():
        if not isinstance(file, str) or Path(file).name != file or "\0" in file:
            raise InputError(
                f"{index} places {shorten(name)} in {shorten(file)}, which does not lie beside it"
            )
    return {name: folder / file for name, file in places.items()}


def check_weights(folder: Path, config: dict[str, Any]) -> dict[str, Path]:
    """The file of each array that is needed; refuses (InputError) what is not `config`'s model."""
    files = weight_files(folder)
    headers = {path: read_header(path) for path in sorted(set(files.values()))}
    return check_headers(files, headers, config, _shown(folder))


def check_headers(
    files: Mapping[str, Path],
    headers: Mapping[Path, Mapping[str, Entry]],
    config: dict[str, Any],
    shown: Path,
) -> dict[str, Path]:
    """The same of what the files' headers say; shown: what lacks an array that none of them has."""
    wanted = tensors(config)
    for name, shape in wanted.items():
        if name not in files:
            raise InputError(f"{shown} lacks {name}, which its config.json asks for")
        path = files[name]
        if name not in headers[path]:
            raise InputError(f"{path} lacks {name}, which {shown.name} says it has")
        entry = headers[path][name]
        if entry.dtype not in FLOATS:
            raise InputError(
                f"{name} in {path} is of the type {entry.dtype}; weights are one of "
                f"{', '.join(FLOATS)} (int8 is made of these when they are loaded)"
            )
        if entry.shape != shape:
            raise InputError(
                f"{name} in {path} is {entry.shape}; by its config.json it must be {shape}"
            )
    # Of tied tables some writers store both.
    unknown = [n for n in files if n not in wanted and n != "lm_head.weight"]
    unknown = [name for name in unknown if not _UNUSED.fullmatch(name)]
    if unknown:
        raise InputError(
            f"{files[unknown[0]]} holds {shorten(unknown[0])}, which is not part of the model "
            "that its config.json describes"
        )
    return {name: files[name] for name in wanted}


def read_weights(folder: Path, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Hugging Face names → float arrays, mapped from the disk; bfloat16 as its uint16 bits."""
    files = check_weights(folder, config)
    opened = {path: read_safetensors(path) for path in set(files.values())}
    weights, wanted = {}, tensors(config)
    for name, path in files.items():
        arrays, dtypes = opened[path]
        if name not in arrays or arrays[name].shape != wanted[name] or dtypes[name] not in FLOATS:
            raise InputError(f"{path} became another file while it was read; load it again")
        if not finite(arrays[name].reshape(-1), dtypes[name]):
            raise InputError(f"{name} in {path} holds values that are not finite")
        weights[name] = arrays[name]
    return weights


def finite(flat: np.ndarray, dtype: str) -> bool:
    """Whether all values of a flat array are finite in float32; bfloat16 as its uint16 bits."""
    for begin in range(0, len(flat), SLICE):
        part = flat[begin : begin + SLICE]
        if dtype == "BF16":
            good = (part & np.uint16(0x7F80)) != 0x7F80  # not all bits of the exponent
        else:
            good = np.abs(part) <= np.finfo(np.float32).max  # what float32 can hold; no NaN either
        if not good.all():
            return False
    return True


def _shown(folder: Path) -> Path:
    return folder / (WEIGHTS if (folder / WEIGHTS).exists() else INDEX)
