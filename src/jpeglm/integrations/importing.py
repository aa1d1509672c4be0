"""A checkpoint of ours from somebody else's Llama: `jpeglm import SOURCE --out DIR`.

    SOURCE ──hub──▶ folder ──┬─ tokenizer.model ──▶ bytes and merges, rows in another order
                             └─ a tokenizer of ours ──▶ ids as they are
           weights, tensor by tensor ──▶ model.safetensors, in the type that they have

The first form is the authors' release (sentencepiece over bytes, 256 × 256 pictures of the paper);
the second any Llama in Hugging Face's form that was trained on our ids. Logits are those of the
source to the last bit: of its tensors only the rows of the embedding and of the output move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.checkpoint import load_checkpoint, read_config, write_around, write_arrays
from jpeglm.checkpoint.card import LICENCE, about, check_licence, front_matter
from jpeglm.checkpoint.weights import WEIGHTS
from jpeglm.codecs import JpegCodec
from jpeglm.config import PAPER_JPEG, PAPER_SAMPLING, InputError, JpegConfig, Sampling, shorten
from jpeglm.files import atomic_folder, printable, read_json, remove_halves
from jpeglm.folders import CHECKPOINT, claim
from jpeglm.integrations.hub import source_folder
from jpeglm.integrations.sentencepiece import read_vocabulary
from jpeglm.integrations.weights import ForeignWeights
from jpeglm.tokenizer import Tokenizer

__all__ = ["Imported", "import_model"]

PIECES = "tokenizer.model"
ROWS = ("model.embed_tokens.weight", "lm_head.weight")
"""The tensors with a row a token."""
THEIRS = ("_name_or_path", "torch_dtype", "dtype", "pad_token_id", "transformers_version",
          "auto_map", "quantization_config")  # fmt: skip
"""Keys of a config that say nothing of the model that is written."""


@dataclass(frozen=True)
class Imported:
    """What an import came to."""

    out: Path
    form: str
    """`sentencepiece` or `ids`: whose tokenizer the source has."""
    parameters: int
    vocabulary: int
    dtype: str
    dropped: list[str]
    """Pieces without an id, which no stream can hold, and how many further rows there were."""


def import_model(
    source: str,
    out: Path,
    settings: dict[str, Any] | None = None,
    tokenizer: Path | None = None,
    licence: str = LICENCE,
) -> Imported:
    """Write the folder `out`, whole or not at all.

    source: a folder, or `hf:ORG/NAME` on the Hugging Face hub. settings: those of `JpegConfig` in
    which the pictures behind a sentencepiece vocabulary are not the paper's; tokenizer: a folder of
    ours, for a model that was trained on its ids (default the source's own, if it has one).
    licence: the card's.
    """
    check_licence(licence)
    inputs = [] if source.startswith("hf:") else [Path(source)]
    claim(out, CHECKPOINT, inputs=[*inputs, *([tokenizer] if tokenizer else [])])
    remove_halves(out.parent, (out.name,))
    folder = source_folder(source)
    config = _config(folder)
    ours, rows, dropped, form = _spoken(folder, settings or {}, tokenizer, config["vocab_size"])
    weights = ForeignWeights(folder, config)
    if rows is None:
        rows = np.arange(ours.vocab_size)
    more = config["vocab_size"] - len(rows) - len(dropped)
    dropped += [f"{more} rows behind them"] * (more > 0)
    kept = {key: value for key, value in config.items() if key not in THEIRS}
    kept["vocab_size"] = ours.vocab_size
    kinds = {
        name: (dtype, (len(rows), *shape[1:]) if name in ROWS else shape)
        for name, (dtype, shape) in weights.kinds.items()
    }

    def arrays() -> Iterator[np.ndarray]:
        for name, array in weights:
            yield array[rows] if name in ROWS else array

    size = sum(prod(shape) for _, shape in kinds.values())
    card = _card(source, ours, size, dropped, licence)
    with atomic_folder(out, CHECKPOINT.names) as draft:
        write_arrays(draft / WEIGHTS, kinds, arrays())
        write_around(draft, kept, ours, card, _sampling(folder, form), weights.dtype)
        load_checkpoint(draft)  # what nobody could open takes no name
    return Imported(out, form, size, ours.vocab_size, weights.dtype, dropped)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise InputError(f"{folder} has no config.json; it is no model in Hugging Face's form")
    if read_json(file).get("_class_name") == "VQModel":
        raise InputError(
            f"{folder} is a VQ model, no Llama; it is used as it lies: jpeglm prepare PICTURES OUT "
            f"--codec vq --codec-dir {folder}"
        )
    return read_config(file)


def _spoken(
    folder: Path, settings: dict[str, Any], tokenizer: Path | None, size: int
) -> tuple[Tokenizer, np.ndarray | None, list[str], str]:
    """(tokenizer, row of each of its ids or None where they are the same, pieces dropped, form)"""
    if tokenizer is None and not (folder / "codec.json").exists():
        if not (folder / PIECES).exists():
            raise InputError(
                f"{folder} has neither {PIECES} nor a tokenizer of jpeglm; give the one that the "
                "model was trained with by --tokenizer"
            )
        codec = JpegCodec(JpegConfig(**{**PAPER_JPEG.to_dict(), **settings}))
        found = read_vocabulary(folder / PIECES, codec)
        most = int(found.rows.max())
        if most >= size:
            raise InputError(
                f"{folder / PIECES} has the piece {most}, config.json a vocabulary of {size}; the "
                "files do not belong together"
            )
        return found.tokenizer, found.rows, found.dropped, "sentencepiece"
    if settings:
        raise InputError(
            f"{', '.join(settings)} cannot be set: the tokenizer of jpeglm in "
            f"{tokenizer or folder} says what its pictures are"
        )
    ours = Tokenizer.load(tokenizer or folder)
    if ours.vocab_size > size:
        raise InputError(
            f"{folder / 'config.json'} has a vocabulary of {size}, the tokenizer one of "
            f"{ours.vocab_size}; the model was trained with another one"
        )
    return ours, None, [], "ids"


def _sampling(folder: Path, form: str) -> dict[str, Any]:
    """What the source states of `Sampling`'s settings, or the paper's."""
    file = folder / "generation_config.json"
    stated = read_json(file) if file.exists() else {}
    found = {name: stated[name] for name in Sampling.names() if stated.get(name) is not None}
    try:
        Sampling.from_dict(found)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return found or (PAPER_SAMPLING if form == "sentencepiece" else {})


def _card(source: str, tokenizer: Tokenizer, size: int, dropped: list[str], licence: str) -> str:
    name = printable(source.removeprefix("hf:").rstrip("/").rsplit("/", 1)[-1])
    lines = [
        front_matter(tokenizer, {"license": licence}),
        f"# {name}\n",
        f"A Llama of {size:,} parameters that writes {tokenizer.codec.name} streams, imported by "
        f"`jpeglm import` from {shorten(source, 200)}: its tensors as they were, tokens in "
        "jpeglm's order.\n",
        *about(tokenizer),
        *([f"- without an id here: {', '.join(map(repr, dropped))}"] if dropped else []),
        "\n`jpeglm complete PHOTO --checkpoint DIR` runs it; stock `transformers` loads it.",
    ]
    return "\n".join(lines) + "\n"
