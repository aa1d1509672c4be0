"""The tokenizer: canonical streams as token ids, through an alphabet and byte-pair encoding.

    stream ──alphabet──▶ symbols ──BPE──▶ ids        [text ids] [BOS or class] ids [EOS]
    (with a hole in the picture: `holes`)

Everything is integers. `tokenizer.json` holds the vocabulary in Hugging Face's form
(`tokenizer_file`), so that stock `transformers` can show and use it; we read merges out of that
file but never encode through it. Ids: base symbols, merged tokens, BOS, EOS, class tokens, text
tokens (`text`), those of holes (`holes`): what a picture is made of comes first, and no merge joins
it with others.

    jpeglm train-tokenizer data/photos-64 --out tokenizer --vocab-size 1024
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm import bpe
from jpeglm.codecs import Codec
from jpeglm.config import InputError, fingerprint, shorten
from jpeglm.files import atomic_write, read_json, write_json
from jpeglm.holes import spans
from jpeglm.places import checkpoint_folder
from jpeglm.remote import place
from jpeglm.syntax.alphabet import Alphabet
from jpeglm.syntax.machine import (
    apart,
    before_last,
    finish,
    shortest,
    starts_of,
    unit_starts,
)
from jpeglm.text import Text, tidy
from jpeglm.tokenizer_file import (
    BOS_TEXT,
    EOS_TEXT,
    first_character,
    hugging_face,
    read_record,
    read_stored,
)

__all__ = ["Tokenizer"]


class Tokenizer:
    """BPE over the symbols of one codec's streams.

    merges: int32 [M, 2], pairs of token ids in the order they were learnt. class_names: one for
    each class, or none, which are then numbers. text: the words' tokens, of a tokenizer with any.
    holes: whether there are tokens for pictures with holes.
    """

    def __init__(
        self,
        codec: Codec,
        alphabet: str,
        merges: np.ndarray,
        n_classes: int = 0,
        class_names: Sequence[str] = (),
        text: Text | None = None,
        holes: bool = False,
    ) -> None:
        assert len(class_names) in (0, n_classes), "as many names as classes"
        self.codec = codec
        self.folder: Path | None = None
        """Where it was loaded from."""
        self.alphabet: Alphabet = codec.alphabet(alphabet)
        self.n_base = self.alphabet.size
        self.merges = np.asarray(merges, np.int32).reshape(-1, 2)
        self.spelling, self._result = bpe.spell(self.n_base, self.merges)
        self.n_classes = n_classes
        self.class_names = tuple(class_names)
        self.bos = len(self.spelling)
        self.eos = self.bos + 1
        self.text = text
        self.first_text = self.eos + 1 + n_classes
        """Id of the text's token 0."""
        self.hole = self.first_text + (text.size if text else 0)
        """Id of what stands between the surroundings of a hole and its content; those behind it
        are addresses."""
        self.addresses = codec.units if holes else 0
        """How many units have one: all or none."""
        self.vocab_size = self.hole + (1 + codec.units if holes else 0)
        if holes and not apart(self.alphabet.grammar().spec):
            raise InputError(
                "a picture can have holes where each MCU stands for itself: with the alphabet jpeg-"
                "block-symbols, jpeg-placed-symbols or jpeg-symbols and a marker after every MCU "
                f"(prepare --restart-interval 1); here are {alphabet} of {codec.to_dict()}"
            )
        lengths = [len(symbols) for symbols in self.spelling]
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        """int64 [tokens + 1]: token t spells `symbols[offsets[t]:offsets[t + 1]]`."""
        self.symbols = np.array([s for symbols in self.spelling for s in symbols], np.int32)

    def __repr__(self) -> str:
        return f"<Tokenizer {self.alphabet.name}, {self.vocab_size} tokens, {self.codec}>"

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(
            {
                "codec": self.codec.fingerprint,
                "alphabet": self.alphabet.name,
                "merges": self.merges.tolist(),
                "classes": self.n_classes,
                **({"text": self.text.merges.tolist()} if self.text else {}),
                **({"holes": True} if self.addresses else {}),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """What names it in words: of its merges their number alone."""
        return {
            **self.codec.to_dict(),
            "alphabet": self.alphabet.name,
            "vocabulary": self.vocab_size,
            "classes": self.n_classes,
            **({"text": self.text.size} if self.text else {}),
            **({"holes": True} if self.addresses else {}),
        }

    def with_holes(self) -> Tokenizer:
        """The same with tokens for holes behind its own; InputError where there can be none."""
        if self.addresses:
            return self
        words = self.n_classes, self.class_names, self.text
        found = Tokenizer(self.codec, self.alphabet.name, self.merges, *words, holes=True)
        found.folder = self.folder
        return found

    @cached_property
    def _matcher(self) -> bpe.Matcher:
        return bpe.make_matcher(self.n_base, self.merges, self.spelling, self._result)

    def class_token(self, label: int | str) -> int:
        """The token of a class, by its number or name."""
        if isinstance(label, str) and label in self.class_names:
            label = self.class_names.index(label)
        given = str(label)
        if not self.n_classes:
            raise InputError(f"label {given[:60]} was given, but this checkpoint has no classes")
        number = int(given) if given.isdecimal() and len(given) < 10 else -1
        if not 0 <= number < self.n_classes:
            names = f": {', '.join(self.class_names)}" if self.class_names else ""
            raise InputError(
                f"label {given[:60]} is unknown; this checkpoint has {self.n_classes} "
                f"classes{names}"
            )
        return self.eos + 1 + number

    def head(self, label: int | str | None = None, text: str | None = None) -> np.ndarray:
        """Ids before a picture's, int32: of the text if it says anything (as `text.tidy` has it),
        then BOS or the class."""
        first = self.bos if label is None else self.class_token(label)
        words = tidy("" if text is None else text)
        ids = self.encode_text(words) if words else np.zeros(0, np.int32)
        return np.append(ids, np.int32(first))

    def encode_text(self, text: str) -> np.ndarray:
        """Token ids, int32, of words as they are given."""
        if not self.text:
            raise InputError(f"the text {shorten(text)} was given, but this checkpoint has no text")
        return self.text.encode(text) + np.int32(self.first_text)

    def decode_text(self, ids: np.ndarray) -> str:
        """What the text tokens among the ids spell."""
        given = np.asarray(ids)
        words = given[(given >= self.first_text) & (given < self.hole)] - self.first_text
        return self.text.decode(words) if self.text else ""

    def encode_symbols(self, symbols: np.ndarray) -> np.ndarray:
        """Token ids, int32, without BOS and EOS."""
        given = np.asarray(symbols)
        unknown = (given < 0) | (given >= self.n_base)
        if unknown.any():  # tables would be read outside
            raise InputError(
                f"symbol {given[unknown][0]} is unknown; the alphabet {self.alphabet.name} has "
                f"symbols 0 to {self.n_base - 1}"
            )
        symbols = np.ascontiguousarray(given, np.int32)
        if not len(self.merges):
            return symbols.copy()
        # A token spells at least one symbol.
        out = np.empty(len(symbols), np.int32)
        n = bpe.encode(symbols, self._matcher, out, np.zeros(len(symbols) + 1, np.bool_))
        return out[:n].copy()

    def encode_stream(self, stream: bytes) -> np.ndarray:
        return self.encode_symbols(self.alphabet.split(stream))

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Symbols, int32, of token ids in their order; others than a picture's spell none."""
        ids = self._known(ids)
        longest = int(np.diff(self.offsets).max())
        out = np.empty(len(ids) * longest, np.int32)
        n = bpe.decode(ids, self.offsets, self.symbols, out)
        return out[:n].copy()

    def _known(self, ids: np.ndarray) -> np.ndarray:
        """int32; InputError for what is no id."""
        given = np.asarray(ids)
        unknown = (given < 0) | (given >= self.vocab_size)
        if unknown.any():
            raise InputError(
                f"id {given[unknown][0]} is unknown; the tokenizer has ids 0 to "
                f"{self.vocab_size - 1}"
            )
        return np.ascontiguousarray(given, np.int32)

    def decode_stream(self, ids: np.ndarray) -> bytes:
        """The stream that the ids spell, whatever they are; spans lie at their addresses, and what
        nobody has drawn is flat."""
        return self.alphabet.join(self._in_order(self._known(ids)))

    def around(self, symbols: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(surroundings, content) of a whole picture's symbols: int32 ids of the spans outside
        `hole`, bool [units], and the hole's token; and ids of the spans inside, without EOS."""
        assert self.addresses, "a tokenizer without holes"
        starts = starts_of(self.alphabet.grammar().spec, symbols, self.addresses)

        def written(chosen: np.ndarray) -> list[np.ndarray]:
            parts = []
            for first, count in spans(chosen).tolist():
                ids = self.encode_symbols(symbols[starts[first] : starts[first + count]])
                parts += [np.array([self.hole + 1 + first], np.int32), ids]
            return parts

        middle = np.array([self.hole], np.int32)
        return np.concatenate([*written(~hole), middle]), np.concatenate(written(hole))

    def _in_order(self, ids: np.ndarray) -> np.ndarray:
        """Symbols of ids whose spans are put where their addresses say."""
        places = np.flatnonzero(ids > self.hole)
        if not len(places):
            return self.decode(ids)
        pieces = dict(zip((ids[places] - self.hole - 1).tolist(), np.split(ids, places)[1:]))
        ends = [*sorted(pieces), self.addresses]
        first = self._whole(np.zeros(0, np.int32), 0, ends[0])
        rest = (self._whole(self.decode(pieces[a]), a, b - a) for a, b in pairwise(ends))
        return np.concatenate([first, *rest])

    def _whole(self, symbols: np.ndarray, unit: int, count: int) -> np.ndarray:
        """As many of the symbols as are `count` units in order, from `unit` on; the rest flat."""
        spec = self.alphabet.grammar().spec
        state = before_last(spec, unit, count)
        taken = unit_starts(spec, state, symbols, np.zeros(1, np.int64))
        rest = np.empty(shortest(spec, state), np.int32)
        finish(spec, state, self.n_base, state.copy(), rest)
        return np.concatenate([symbols[:taken], rest])

    def stable(self, symbols: np.ndarray) -> int:
        """How many leading symbols keep their tokens whatever follows `symbols`.

        The last place where two neighbours stand together inside no token (or the start).
        """
        end = len(symbols) - 1
        if not len(self.merges):  # no table of the pairs of a large alphabet
            return max(end, 0)
        while end > 0 and self._matcher.inner[symbols[end - 1], symbols[end]]:
            end -= 1
        return max(end, 0)

    @classmethod
    def train(
        cls,
        streams: Iterable[bytes],
        codec: Codec,
        alphabet: str | None = None,
        vocab_size: int = 1024,
        n_classes: int = 0,
        class_names: Sequence[str] = (),
        text: Text | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tokenizer:
        """Learn merges from streams; `vocab_size` counts BOS and EOS but neither classes nor text.

        alphabet: default the codec's first.
        """
        alphabet = alphabet or codec.alphabets[0]
        symbols = codec.alphabet(alphabet)
        n_tokens = vocab_size - 2
        if n_tokens < symbols.size:
            raise InputError(
                f"vocab_size is {vocab_size}; the alphabet {alphabet} alone has {symbols.size} "
                f"symbols, so it must be at least {symbols.size + 2}"
            )
        if n_tokens > bpe.MAX_VOCABULARY and n_tokens > symbols.size:
            raise InputError(f"vocab_size is {vocab_size}; it may be {bpe.MAX_VOCABULARY} at most")
        pieces: list[np.ndarray] = []
        gap = np.array([bpe.SEPARATOR], np.int32)
        for stream in streams:
            pieces += [symbols.split(stream), gap]
        if not pieces:
            raise InputError("there is no stream to train a tokenizer on")
        merges = bpe.train_merges(
            np.concatenate(pieces), symbols.size, n_tokens, symbols.atomic, progress
        )
        return cls(codec, alphabet, np.array(merges, np.int32), n_classes, class_names, text)

    # Files

    def character(self, symbol: int) -> str:
        """What stands for a symbol in `tokenizer.json`."""
        return chr(first_character(self.alphabet.name, self.text is not None) + symbol)

    def to_hugging_face(self) -> dict[str, Any]:
        """The content of `tokenizer.json`."""
        names = ["".join(map(self.character, symbols)) for symbols in self.spelling]
        return hugging_face(names, self.merges, self.n_classes, self.text, self.addresses)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json`, `codec.json` (and its weights)."""
        folder = place(folder)
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": BOS_TEXT,
                "eos_token": EOS_TEXT,
                "clean_up_tokenization_spaces": False,
            },
        )
        for name, data in self.codec.files().items():
            atomic_write(folder / name, data)
        write_json(
            folder / "codec.json",
            {
                "codec": self.codec.to_dict(),
                "fingerprint": self.codec.fingerprint,
                "alphabet": self.alphabet.name,
                "tokenizer": self.fingerprint,
                **({"classes": list(self.class_names)} if self.class_names else {}),
            },
        )
        write_json(folder / "tokenizer.json", self.to_hugging_face())

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a tokenizer's folder or its `tokenizer.json`, or that of a model, given as
        `jpeglm.load` takes it: a shipped one's name, a run, a checkpoint."""
        folder = checkpoint_folder(path)
        if folder.suffix == ".json":
            folder = folder.parent
        if not folder.is_dir():
            raise InputError(
                f"there is no tokenizer folder {folder}; `jpeglm train-tokenizer` makes one"
            )
        codec, alphabet, n_base, names, settings = read_record(folder)
        record, file = folder / "codec.json", folder / "tokenizer.json"
        stored = read_json(file)
        merges, n_classes, text, addresses = read_stored(stored, n_base, file)
        if addresses not in (0, codec.units):
            raise InputError(
                f"{file}: its added_tokens address {addresses} units; there are {codec.units}"
            )
        if len(names) not in (0, n_classes):
            raise InputError(
                f"{record}: {len(names)} names of classes for {n_classes} class tokens"
            )
        try:
            tokenizer = cls(codec, alphabet, merges, n_classes, names, text, addresses > 0)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        ours = tokenizer.to_hugging_face()
        if stored["model"]["vocab"] != ours["model"]["vocab"]:
            raise InputError(
                f"{file} does not fit the alphabet {alphabet}, or its vocabulary is not the one "
                "that its merges make"
            )
        told = [(token["id"], token["content"]) for token in ours["added_tokens"]]
        if [(t.get("id"), t.get("content")) for t in stored["added_tokens"]] != told:
            raise InputError(
                f"{file}: its added_tokens are not {BOS_TEXT}, {EOS_TEXT}, classes and holes"
            )
        mark = settings.get("tokenizer", tokenizer.fingerprint)  # older folders have none
        if mark != tokenizer.fingerprint:
            raise InputError(
                f"{record} was written for the tokenizer {shorten(mark)}, but its alphabet and "
                f"{file.name} make {tokenizer.fingerprint}; the files do not belong together"
            )
        tokenizer.folder = folder
        return tokenizer
