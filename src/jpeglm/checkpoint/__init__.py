"""Checkpoints: folders that explain themselves, in Hugging Face's Llama form.

`config.json`, `model.safetensors`, `tokenizer.json`, `codec.json`, `generation_config.json` and a
model card. bfloat16 weights load in stock `transformers` as they are; of other tools' folders those
that `save_pretrained` cut into shards are read too. Reading needs no torch. Whatever a folder
holds, `load_checkpoint` judges all of it before a weight is read: the configuration, the sampling
defaults, the tokenizer with its codec, and the weights' headers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.checkpoint.weights import (
    INDEX,
    WEIGHTS,
    check_weights,
    read_weights,
    weight_files,
)
from jpeglm.codecs import Codec
from jpeglm.config import InputError, Sampling, shorten
from jpeglm.files import atomic_folder, atomic_write, printable, read_json, write_json
from jpeglm.folders import CHECKPOINT
from jpeglm.models.llama import check as check_llama
from jpeglm.tensors import (
    from_bfloat16,
    read_safetensors,
    to_bfloat16,
    write_arrays,
    write_safetensors,
)
from jpeglm.tokenizer import Tokenizer

__all__ = [
    "FILES",
    "Checkpoint",
    "from_bfloat16",
    "is_vae",
    "load_checkpoint",
    "read_safetensors",
    "read_weights",
    "to_bfloat16",
    "write_around",
    "write_arrays",
    "write_checkpoint",
    "write_safetensors",
]

FILES = ("config.json", WEIGHTS, "tokenizer.json", "codec.json")
COMPLETE = "complete"
"""Key of generation_config.json: what of it is other where a part of a picture is given."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded folder; weights are mapped from the disk when first asked for."""

    folder: Path
    config: dict[str, Any]
    """Hugging Face's Llama configuration."""
    tokenizer: Tokenizer
    generation: dict[str, Any]
    """Defaults of `Sampling`, among others of transformers'."""

    @property
    def codec(self) -> Codec:
        return self.tokenizer.codec

    def sampling(self, begun: bool) -> dict[str, Any]:
        """Defaults of `Sampling`; begun: of a picture of which a part is given."""
        own = self.generation | (self.generation.get(COMPLETE, {}) if begun else {})
        return {name: own[name] for name in Sampling.names() if name in own}

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Hugging Face names → float arrays, bfloat16 as uint16 bits; InputError for NaN."""
        return read_weights(self.folder, self.config)

    @property
    def weight_files(self) -> list[Path]:
        """One, or the shards in their order."""
        return sorted(set(weight_files(self.folder).values()))

    @cached_property
    def weights_mark(self) -> str:
        """16 hex digits of the weights' files."""
        digest = hashlib.sha256()
        for file in self.weight_files:
            digest.update(np.memmap(file, np.uint8, "r").data)
        return digest.hexdigest()[:16]


def write_checkpoint(
    folder: Path,
    weights: Mapping[str, Any],
    config: dict[str, Any],
    tokenizer: Tokenizer,
    card: str,
    generation: dict[str, Any] | None = None,
    dtype: str = "bfloat16",
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a whole checkpoint folder, or nothing; the files of an older one there are replaced.

    weights: name → float numpy array, bfloat16 as its uint16 bits, or torch tensor; they are
    converted one by one, and gathered so where they lie on many processes (all of which gather in
    this order). dtype: `bfloat16` or `float32`; beside: what the card shows, by the file's
    name.
    """
    if dtype not in ("bfloat16", "float32"):
        raise InputError(f"dtype is {dtype!r}; a checkpoint is stored as bfloat16 or float32")
    code = "BF16" if dtype == "bfloat16" else "F32"
    kinds = {name: (code, tuple(value.shape)) for name, value in weights.items()}
    arrays = (_stored(value, code) for value in weights.values())
    with atomic_folder(folder, CHECKPOINT.names) as draft:
        write_arrays(draft / WEIGHTS, kinds, arrays)
        write_around(draft, config, tokenizer, card, generation, dtype, beside)


def _stored(value: Any, code: str) -> np.ndarray:
    """An array or tensor as values of a type of safetensors, BF16 or F32; one that lies on many
    processes is gathered."""
    if not isinstance(value, np.ndarray):
        value = value.detach()
        value = value.full_tensor() if hasattr(value, "full_tensor") else value  # a DTensor
        value = value.float().cpu().numpy()
    if value.dtype == np.uint16:
        return value if code == "BF16" else from_bfloat16(value)
    return to_bfloat16(value) if code == "BF16" else np.asarray(value, np.float32)


def write_around(
    draft: Path,
    config: dict[str, Any],
    tokenizer: Tokenizer,
    card: str,
    generation: dict[str, Any] | None,
    dtype: str,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write what a checkpoint's folder has beside its weights, of `write_checkpoint`'s meaning."""
    begin_and_end = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    config = {
        **config,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.vocab_size,
        **begin_and_end,
        "dtype": dtype,
    }
    write_json(draft / "config.json", config)
    defaults = {"do_sample": True, **begin_and_end, **(generation or {})}
    write_json(draft / "generation_config.json", defaults)
    tokenizer.save(draft)
    for name, data in {"README.md": card.encode(), **(beside or {})}.items():
        atomic_write(draft / name, data)


def is_vae(folder: Path) -> bool:
    """Whether a folder holds a VAE with its prior, which is no language model."""
    record = folder / "codec.json"
    codec = read_json(record).get("codec") if record.exists() else None
    return isinstance(codec, dict) and codec.get("codec") == "vae"


def load_checkpoint(folder: Path | str) -> Checkpoint:
    """Open a checkpoint folder; the error names the file that is missing or wrong."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no checkpoint folder {folder}; `jpeglm train` makes one")
    missing = [name for name in FILES if not (folder / name).exists()]
    if WEIGHTS in missing and (folder / INDEX).exists():
        missing.remove(WEIGHTS)
    if missing:
        if is_vae(folder):
            raise InputError(
                f"{printable(folder)} is a VAE, which writes no tokens; `jpeglm generate` and "
                "`evaluate` take it, this takes the checkpoint of a language model"
            )
        pickled = WEIGHTS in missing and any(folder.glob("pytorch_model*.bin"))
        hint = "; pickled weights are never read here, `jpeglm import` converts them" * pickled
        raise InputError(
            f"checkpoint {folder} lacks {' and '.join(missing)}; it must have {', '.join(FILES)}"
            f"{hint}"
        )
    config = read_config(folder / "config.json")
    tokenizer = Tokenizer.load(folder)
    if config["vocab_size"] != tokenizer.vocab_size:
        raise InputError(
            f"{folder / 'config.json'} has a vocabulary of {config['vocab_size']}, "
            f"its tokenizer.json one of {tokenizer.vocab_size}; the files do not belong together"
        )
    generation_file = folder / "generation_config.json"
    generation = _read_generation(generation_file) if generation_file.exists() else {}
    check_weights(folder, config)
    return Checkpoint(folder, config, tokenizer, generation)


def read_config(path: Path) -> dict[str, Any]:
    """A `config.json` that describes a Llama; InputError names the key that does not."""
    config = read_json(path)
    if config.get("model_type") != "llama":
        raise InputError(
            f"{path} describes a {shorten(config.get('model_type'))} model; only llama can be run"
        )
    try:
        check_llama(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config


def _read_generation(path: Path) -> dict[str, Any]:
    """What is null, as transformers writes it, is not set."""
    values = {name: value for name, value in read_json(path).items() if value is not None}
    begun = values.get(COMPLETE, {})
    try:
        if not isinstance(begun, dict):
            raise InputError(f"{COMPLETE} is {shorten(begun)}; it must be an object of settings")
        for known in (values, values | begun):
            Sampling.from_dict({name: known[name] for name in Sampling.names() if name in known})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return values
