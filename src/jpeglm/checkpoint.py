"""Checkpoints: folders that explain themselves, in Hugging Face's Llama form.

`config.json`, `model.safetensors`, `tokenizer.json`, `codec.json`, `generation_config.json` and a
model card. bfloat16 weights load in stock `transformers` as they are. Reading needs no torch: the
safetensors container is a JSON header and raw arrays (its numpy side has no bfloat16), which is
little enough to read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.codecs import Codec
from jpeglm.config import InputError
from jpeglm.files import atomic_folder, atomic_write, read_json, write_json
from jpeglm.folders import CHECKPOINT, RUN, record_of
from jpeglm.tokenizer import Tokenizer

FILES = ("config.json", "model.safetensors", "tokenizer.json", "codec.json")
_NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "U16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, dtypes) of a safetensors file, memory-mapped; BF16 comes as its uint16 bits."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    size = int.from_bytes(data[:8].tobytes(), "little")
    try:
        if not 2 <= size <= len(data) - 8:
            raise ValueError("the header does not fit into the file")
        header = json.loads(data[8 : 8 + size].tobytes())
        header.pop("__metadata__", None)
        arrays, dtypes = {}, {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            if 8 + size + end > len(data):
                raise ValueError("the data ends early")
            raw = data[8 + size + start : 8 + size + end]
            dtypes[name] = entry["dtype"]
            arrays[name] = raw.view(_NUMPY[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no whole safetensors file: {error}") from error
    return arrays, dtypes


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str]
) -> None:
    """Write arrays; a uint16 array may be named BF16 in `dtypes`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": dtypes[name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    atomic_write(path, len(text).to_bytes(8, "little") + text + body)


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """float32 → the uint16 bits of bfloat16, rounded to nearest even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 bits of bfloat16 → float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded folder; weights are mapped from the disk when first asked for."""

    folder: Path
    config: dict[str, Any]
    """Hugging Face's Llama configuration."""
    tokenizer: Tokenizer
    generation: dict[str, Any]
    """Sampling defaults: temperature, top_p, top_k."""

    @property
    def codec(self) -> Codec:
        return self.tokenizer.codec

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Hugging Face names → float32 arrays, or bfloat16 as uint16 bits."""
        return read_safetensors(self.folder / "model.safetensors")[0]


def write_checkpoint(
    folder: Path,
    weights: Mapping[str, Any],
    config: dict[str, Any],
    tokenizer: Tokenizer,
    card: str,
    generation: dict[str, Any] | None = None,
    dtype: str = "bfloat16",
) -> None:
    """Write a whole checkpoint folder, or nothing; the files of an older one there are replaced.

    weights: name → float32 numpy array or torch tensor; dtype: `bfloat16` or `float32`.
    """
    if dtype not in ("bfloat16", "float32"):
        raise InputError(f"dtype is {dtype!r}; a checkpoint is stored as bfloat16 or float32")
    arrays = {
        name: np.asarray(value if isinstance(value, np.ndarray) else value.detach().float().cpu())
        for name, value in weights.items()
    }
    if dtype == "bfloat16":
        arrays = {name: to_bfloat16(array) for name, array in arrays.items()}
    code = "BF16" if dtype == "bfloat16" else "F32"
    config = {
        **config,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "dtype": dtype,
    }
    with atomic_folder(folder, CHECKPOINT.names) as draft:
        write_safetensors(draft / "model.safetensors", arrays, dict.fromkeys(arrays, code))
        write_json(draft / "config.json", config)
        write_json(
            draft / "generation_config.json",
            {
                "do_sample": True,
                "bos_token_id": tokenizer.bos,
                "eos_token_id": tokenizer.eos,
                **(generation or {}),
            },
        )
        tokenizer.save(draft)
        atomic_write(draft / "README.md", card.encode())


def load_checkpoint(folder: Path | str) -> Checkpoint:
    """Open a checkpoint folder; the error names the file that is missing or wrong."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no checkpoint folder {folder}; `jpeglm train` makes one")
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise InputError(
            f"checkpoint {folder} lacks {' and '.join(missing)}; it must have {', '.join(FILES)}"
        )
    config = read_json(folder / "config.json")
    if config.get("model_type") != "llama":
        raise InputError(
            f"{folder / 'config.json'} describes a {config.get('model_type')!r} model; "
            "only llama can be run"
        )
    tokenizer = Tokenizer.load(folder)
    if config.get("vocab_size") != tokenizer.vocab_size:
        raise InputError(
            f"{folder / 'config.json'} has a vocabulary of {config.get('vocab_size')}, "
            f"its tokenizer.json one of {tokenizer.vocab_size}; the files do not belong together"
        )
    generation_file = folder / "generation_config.json"
    generation = read_json(generation_file) if generation_file.exists() else {}
    return Checkpoint(folder, config, tokenizer, generation)


def export_hugging_face(checkpoint: Checkpoint, folder: Path, dtype: str = "bfloat16") -> None:
    """Write a checkpoint that stock `transformers` loads, weights in `dtype`."""
    weights = {
        name: from_bfloat16(array) if array.dtype == np.uint16 else np.asarray(array, np.float32)
        for name, array in checkpoint.weights.items()
    }
    card = checkpoint.folder / "README.md"
    text = card.read_text() if card.exists() else ""
    write_checkpoint(
        folder, weights, checkpoint.config, checkpoint.tokenizer, text, checkpoint.generation, dtype
    )


def shipped_checkpoint(name: str = "photos") -> Path:
    """The folder of a checkpoint that is part of the package."""
    folder = _asset(name)
    if not folder.is_dir():
        raise InputError(f"this installation ships no checkpoint {name!r}; give --checkpoint DIR")
    return folder


def checkpoint_folder(given: Path | str | None) -> Path:
    """The folder that is meant: itself, the model inside it if it is a run's, the shipped one of
    that name, or the default.

    A folder of pictures may be called `photos` as well: what is no checkpoint does not hide one.
    """
    if given is None:
        return shipped_checkpoint()
    folder, named = Path(given), _asset(str(given))
    if record_of(folder, RUN) is not None:
        model = folder / "model"
        if model.is_dir():
            return model
        saved = sorted(folder.glob("checkpoints/step-*"), key=lambda path: int(path.name[5:]))
        if saved:
            return saved[-1]
        raise InputError(
            f"the run in {folder} was stopped before it wrote a model; give its command again to "
            "go on"
        )
    ours = folder.name == str(given) and named.is_dir()
    known = any((folder / name).exists() for name in ("config.json", "codec.json"))
    return named if ours and not known else folder


def checkpoint_name(folder: Path) -> str:
    """How a checkpoint is given to the command line: a shipped one by its name."""
    return folder.name if folder == _asset(folder.name) else str(folder)


def _asset(name: str) -> Path:
    return Path(str(resources.files("jpeglm"))) / "assets" / name
