"""Somebody else's Llama weights, read tensor by tensor: safetensors or pickles, whole or in shards.

`ForeignWeights` judges names, types and shapes by `config.json` as for a checkpoint of ours, before
a value is read. Pickles go through torch alone, mapped from the disk and with `weights_only`: what
holds anything but tensors is refused, never run. A tensor is mapped, looked at for values that are
not finite, handed on and let go, so that a model takes no memory of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.checkpoint.weights import (
    INDEX,
    WEIGHTS,
    check_headers,
    finite,
    read_index,
    weight_files,
)
from jpeglm.config import InputError, shorten
from jpeglm.files import file_size, printable
from jpeglm.tensors import Entry, read_header, read_safetensors

__all__ = ["ForeignWeights"]

PICKLE = "pytorch_model.bin"
CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
"""Names of types in safetensors, by torch's."""


class ForeignWeights:
    """The weights in a folder, as its config asks for them; InputError says what is not there."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        files, shown = _files(folder)
        missing = sorted({path.name for path in files.values() if not os.path.exists(path)})
        if missing:
            raise InputError(
                f"{folder} lacks {' and '.join(map(shorten, missing))}, which {shown.name} names; "
                "fetch what is missing and import again"
            )
        self._opened: dict[Path, Mapping[str, Any]] = {}
        headers = {path: self._header(path) for path in sorted(set(files.values()))}
        if not files:  # of one pickle, whose names nothing else tells
            files = {name: shown for name in self._header(shown)}
            headers = {shown: self._header(shown)}
        self.files = check_headers(files, headers, config, shown)
        self.kinds = {name: headers[path][name][:2] for name, path in self.files.items()}
        """(type, shape) by name, types as safetensors names them."""

    @property
    def dtype(self) -> str:
        """torch's name of the type that most values have."""
        sizes: dict[str, int] = {}
        for dtype, shape in self.kinds.values():
            sizes[dtype] = sizes.get(dtype, 0) + int(np.prod(shape))
        code = max(sizes, key=lambda dtype: sizes[dtype])
        return next(name for name, known in CODES.items() if known == code)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, array), bfloat16 as its uint16 bits; InputError for values that are not finite."""
        for name, path in self.files.items():
            array = self._array(path, name)
            if not finite(array.reshape(-1), self.kinds[name][0]):
                raise InputError(f"{name} in {path} holds values that are not finite")
            yield name, array

    def _header(self, path: Path) -> dict[str, Entry]:
        if path.suffix == ".safetensors":
            return read_header(path)
        found = self._pickled(path)
        return {
            name: Entry(_code(tensor.dtype), tuple(tensor.shape), 0, 0)
            for name, tensor in found.items()
        }

    def _array(self, path: Path, name: str) -> np.ndarray:
        if path.suffix == ".safetensors":
            if path not in self._opened:
                self._opened = {path: read_safetensors(path)[0]}
            array: np.ndarray = self._opened[path][name]
            return array
        import torch

        tensor = self._pickled(path)[name].contiguous()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.uint16)
        return np.asarray(tensor.numpy())

    def _pickled(self, path: Path) -> Mapping[str, Any]:
        """Tensors by name; one file is open at a time."""
        if path not in self._opened:
            self._opened = {path: _unpickle(path)}
        return self._opened[path]


def _code(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return CODES.get(name, name)


def _files(folder: Path) -> tuple[dict[str, Path], Path]:
    """(file of each array, what says so); no files where only the one pickle knows its names."""
    if (folder / WEIGHTS).exists():
        return weight_files(folder), folder / WEIGHTS
    if (folder / INDEX).exists():
        return weight_files(folder), folder / INDEX
    single, index = folder / PICKLE, folder / f"{PICKLE}.index.json"
    if single.exists():
        return {}, single
    if index.exists():
        return read_index(index), index
    raise InputError(
        f"{folder} has no weights: neither {WEIGHTS} nor {PICKLE}, nor an index of shards"
    )


def _unpickle(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    file_size(path)
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        try:
            found = torch.load(path, mmap=True, **options)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            found = torch.load(path, **options)  # as torch wrote them before 1.6
    except pickle.UnpicklingError as error:
        if "eights" in str(error) or "nsupported" in str(error):
            raise InputError(
                f"{path} holds more than tensors, which is never run; save its state_dict as "
                "safetensors where you trust it"
            ) from error
        raise InputError(f"{path} is not a file of weights that torch saved") from error
    except UnicodeEncodeError as error:
        raise InputError(
            f"{printable(path)} cannot be opened by torch, for its name is no UTF-8; rename it"
        ) from error
    except Exception as error:  # unpickling damaged bytes raises anything
        raise InputError(f"{path} is not a complete file of weights that torch saved") from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise InputError(f"{path} holds no weights by name")
    return found
