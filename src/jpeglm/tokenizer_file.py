"""A tokenizer's files, read without trust; `tokenizer.json` in Hugging Face's form.

That form is written for other tools; we read merges out of it.

Symbol s of a picture is the character U+4E00 + s (the paper's bytes U+2800 + b). Beside text it is
U+F0000 + s, from a plane that no script uses, and what is no such character is text: Hugging Face's
`byte_fallback` makes bytes of it and merges those. So one string may hold a caption and a picture.
(Its own rule that `<s>` inside a text is the token of that name cannot be switched off in a file.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jpeglm import bpe
from jpeglm.codecs import Codec, make_codec
from jpeglm.config import InputError, fits, shorten
from jpeglm.files import read_json
from jpeglm.text import BYTE_NAMES, N_BYTES, Text

FILES = ("tokenizer.json", "tokenizer_config.json", "codec.json")
"""Of a tokenizer's folder."""
BOS_TEXT, EOS_TEXT, HOLE_TEXT = "<s>", "</s>", "<hole>"
MAX_SPELLING = 1 << 13
"""Symbols of one token that is read from a file; 64 times as many of all tokens together."""


def first_character(alphabet: str, text: bool) -> int:
    """Code point of symbol 0: the authors' for the paper's bytes, Han characters for the rest."""
    if text:
        return 0xF0000
    return 0x2800 if alphabet.startswith("paper-bytes") else 0x4E00


def hugging_face(
    names: Sequence[str], merges: np.ndarray, n_classes: int, text: Text | None, addresses: int
) -> dict[str, Any]:
    """The content of `tokenizer.json`; names: what each picture token spells, in characters."""
    special = [BOS_TEXT, EOS_TEXT] + [f"<class_{k}>" for k in range(n_classes)]
    words = text.names() if text else []
    last = [HOLE_TEXT] + [f"<mcu_{k}>" for k in range(addresses)] if addresses else []
    ids = {name: len(names) + i for i, name in enumerate([*special, *words, *last])}
    added = [
        {
            "id": ids[content],
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for content in [*special, *last]
    ]
    vocabulary = {name: token for token, name in enumerate(names)}
    pairs = [[names[a], names[b]] for a, b in merges.tolist()]
    if text:
        # Special tokens not among them would get ids behind all others.
        vocabulary |= ids
        pairs += [[words[a], words[b]] for a, b in text.merges.tolist()]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": _text_decoder() if text else {"type": "Fuse"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": text is not None,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": pairs,
        },
    }


def _text_decoder() -> dict[str, Any]:
    """Names of bytes to the characters of GPT-2's byte-level BPE, and those to text; what is none
    of them, a picture's characters, passes through."""
    shown = [byte for byte in range(N_BYTES) if byte in range(33, 127) or byte in range(161, 256)]
    shown.remove(173)
    hidden = [byte for byte in range(N_BYTES) if byte not in shown]
    characters = {byte: chr(byte) for byte in shown}
    characters |= {byte: chr(N_BYTES + place) for place, byte in enumerate(hidden)}
    parts: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": name}, "content": characters[byte]}
        for byte, name in enumerate(BYTE_NAMES)
    ]
    last = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"type": "Sequence", "decoders": [*parts, {"type": "ByteLevel", **last}]}


class Record(NamedTuple):
    """What the `codec.json` of a tokenizer's folder says."""

    codec: Codec
    alphabet: str
    n_base: int
    """Symbols of the alphabet."""
    class_names: list[str]
    settings: dict[str, Any]
    """All of it."""


def read_record(folder: Path) -> Record:
    """InputError where the folder lacks a file, or settings do not make what they name."""
    missing = [name for name in ("codec.json", "tokenizer.json") if not (folder / name).exists()]
    if missing:
        raise InputError(
            f"{folder} lacks {' and '.join(missing)}; a tokenizer folder has {', '.join(FILES)}"
        )
    record = folder / "codec.json"
    settings = read_json(record)
    names, alphabet = settings.get("classes", []), settings.get("alphabet")
    if not isinstance(alphabet, str):
        raise InputError(f"{record} names no alphabet, but {shorten(alphabet)}")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"classes in {record} is {shorten(names)}; it must be a list of names")
    try:
        codec = make_codec(settings.get("codec"), folder)
        n_base = codec.alphabet(alphabet).size
    except InputError as error:
        raise InputError(f"{record}: {error}") from error
    if settings.get("fingerprint", codec.fingerprint) != codec.fingerprint:
        raise InputError(
            f"{record} was written for fingerprint {shorten(settings['fingerprint'])}, but its "
            f"settings give {codec.fingerprint} here: another libjpeg or a changed file"
        )
    return Record(codec, alphabet, n_base, names, settings)


class Stored(NamedTuple):
    """What a `tokenizer.json` holds; merges int32 [M, 2], those of text from its own id 0."""

    merges: np.ndarray
    n_classes: int
    text: Text | None
    addresses: int


def read_stored(stored: dict[str, Any], n_base: int, file: Path) -> Stored:
    """InputError where merges cannot be. Whether all else is as we write it, the caller compares.

    A merge joins tokens that are there before it, each pair once, and what all of them spell has
    bounds: a few dozen merges could spell more than any memory holds.
    """

    def refuse(why: str) -> InputError:
        return InputError(f"{file} is not a jpeglm tokenizer: {why}")

    model, added = stored.get("model"), stored.get("added_tokens")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise refuse("it has no vocabulary")
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise refuse("it has no added_tokens")
    if len(added) < 2:
        raise refuse(f"it has {len(added)} added_tokens, without {BOS_TEXT} and {EOS_TEXT}")
    ids, pairs = model["vocab"], model.get("merges")
    if not isinstance(pairs, list):
        raise refuse("it has no merges")
    for number, pair in enumerate(pairs):
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
        ):
            raise refuse(f"merge {number} is {shorten(pair)}, no pair of tokens")
    n_classes = len(added) - 2
    contents = [token.get("content") for token in added]
    addresses = 0
    if HOLE_TEXT in contents:
        addresses = len(added) - contents.index(HOLE_TEXT) - 1
        n_classes -= addresses + 1
    if n_classes < 0:
        raise refuse(f"{HOLE_TEXT} stands before {BOS_TEXT} and {EOS_TEXT}")
    if BYTE_NAMES[0] not in ids:
        return Stored(_merges(pairs, 0, ids, n_base, 1, refuse), n_classes, None, addresses)
    first = ids[BYTE_NAMES[0]]
    if not fits(first, "int"):
        raise refuse(f"the id of {BYTE_NAMES[0]} is {shorten(first)}")
    words = {
        name: token - first
        for name, token in ids.items()
        if name.startswith("<0x") and fits(token, "int")
    }
    # Text's merges are behind the picture's.
    split = next((n for n, pair in enumerate(pairs) if pair[0] in words), len(pairs))
    text = _merges(pairs[split:], split, words, N_BYTES, len(BYTE_NAMES[0]), refuse)
    merges = _merges(pairs[:split], 0, ids, n_base, 1, refuse)
    return Stored(merges, n_classes, Text(text), addresses)


def _merges(
    pairs: list[list[str]],
    first: int,
    ids: dict[str, Any],
    n_base: int,
    width: int,
    refuse: Callable[[str], InputError],
) -> np.ndarray:
    """int32 [M, 2]; first: number of the first pair, for words; width: characters that stand for a
    symbol."""
    lengths, total = [1] * n_base, n_base
    made: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    for number, pair in enumerate(pairs, first):
        found: Any = ids.get(pair[0]), ids.get(pair[1])
        if not all(fits(i, "int") and 0 <= i < len(lengths) for i in found):
            raise refuse(f"merge {number} joins {shorten(pair)}, which is not there before it")
        if found in seen:
            raise refuse(f"merge {number} repeats {shorten(pair)}")
        seen.add(found)
        length = lengths[found[0]] + lengths[found[1]]
        if len(pair[0]) + len(pair[1]) != length * width:
            raise refuse(f"merge {number} joins {shorten(pair)}, which spells {length} symbols")
        if made.setdefault(pair[0] + pair[1], len(lengths)) == len(lengths):
            lengths.append(length)
            total += length
        if length > MAX_SPELLING or total > 64 * MAX_SPELLING:
            raise refuse(f"merge {number} makes tokens that spell more than {MAX_SPELLING} symbols")
    if len(lengths) > bpe.MAX_VOCABULARY and pairs:
        raise refuse(f"it has {len(lengths)} tokens; with merges {bpe.MAX_VOCABULARY} are the most")
    return np.array([(ids[a], ids[b]) for a, b in pairs], np.int32).reshape(-1, 2)
