"""Words as tokens: the bytes of UTF-8 and byte-pair merges of their own.

    "a red heart" ──UTF-8──▶ bytes ──BPE──▶ ids from 0; `Tokenizer` puts them behind the picture's

Any text has tokens, whatever its script, and none is lost. Merges are learnt between borders: one
stands before each ASCII byte that is neither letter nor digit. So a word has the same tokens at the
end of a sentence and before a comma, and a space belongs to the word behind it. Encoding needs no
rule for that, since no merge has such a byte but at its beginning; nor does another tool.

Trade-off: a word at the very beginning has no space and other tokens than inside the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np

from jpeglm import bpe
from jpeglm.config import InputError, shorten

N_BYTES = 256
DEFAULT_SIZE = 1024
"""Text tokens that are learnt, bytes included, where no other number is asked for."""
BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(N_BYTES))
"""Bytes in `tokenizer.json`, by the names that Hugging Face's `byte_fallback` looks for."""
_BORDER = np.array([byte < 128 and not chr(byte).isalnum() for byte in range(N_BYTES)])


def utf8(text: str) -> bytes:
    """InputError where it has none: a command line's bytes that are no UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text {ascii(text)[:60]} is not UTF-8") from error


def tidy(text: str) -> str:
    """A caption as models see it, in training and after: spaces, tabs and line ends are one space,
    and there are none around it. InputError for what is no text."""
    if not isinstance(text, str):
        raise InputError(f"the text is {shorten(text)}; give words, as a string")
    return " ".join(text.split())


class Text:
    """merges: int32 [M, 2], pairs of ids in the order they were learnt."""

    def __init__(self, merges: np.ndarray) -> None:
        self.merges = np.asarray(merges, np.int32).reshape(-1, 2)
        self.spelling, self._result = bpe.spell(N_BYTES, self.merges)
        self.size = len(self.spelling)

    @cached_property
    def _matcher(self) -> bpe.Matcher:
        return bpe.make_matcher(N_BYTES, self.merges, self.spelling, self._result)

    def encode(self, text: str) -> np.ndarray:
        """Ids from 0, int32."""
        data = np.frombuffer(utf8(text), np.uint8).astype(np.int32)
        out = np.empty(len(data), np.int32)
        n = bpe.encode(data, self._matcher, out, np.zeros(len(data) + 1, np.bool_))
        return out[:n].copy()

    def decode(self, ids: np.ndarray) -> str:
        """What ids spell; bytes that are no UTF-8, where a text was cut, are shown as �."""
        spelt = (bytes(self.spelling[token]) for token in np.asarray(ids).tolist())
        return b"".join(spelt).decode(errors="replace")

    def cut(self, text: str, most: int) -> str:
        """As much of a text's beginning as has at most so many tokens."""
        ids, n = self.encode(text), most
        while len(self.encode(text)) > most:
            spelt = b"".join(bytes(self.spelling[token]) for token in ids[:n].tolist())
            text, n = spelt.decode(errors="ignore"), n - 1  # a character that is cut is left out
        return text

    def names(self) -> list[str]:
        """Each token in `tokenizer.json`."""
        return ["".join(BYTE_NAMES[byte] for byte in bytes_) for bytes_ in self.spelling]

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        size: int = DEFAULT_SIZE,
        progress: Callable[[int, int], None] | None = None,
    ) -> Text:
        """Learn merges until there are `size` tokens, or no pair occurs twice."""
        if not N_BYTES <= size <= bpe.MAX_VOCABULARY:
            raise InputError(
                f"text_vocab_size is {size}; it must be from {N_BYTES}, the bytes alone, to "
                f"{bpe.MAX_VOCABULARY}"
            )
        data = np.frombuffer(b"\n".join(utf8(caption) for caption in captions), np.uint8)
        # A caption's end is a border as well: the line feed, which no merge takes up.
        places = np.flatnonzero(_BORDER[data])
        pieces = np.insert(data.astype(np.int32), places, bpe.SEPARATOR)
        return cls(np.array(bpe.train_merges(pieces, N_BYTES, size, (10,), progress), np.int32))
