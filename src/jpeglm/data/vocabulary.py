"""A tokenizer for data: which alphabet and how many tokens suit their codec, learnt from streams.

tokenizer = learn_tokenizer(Path("data/photos64"), TokenizerConfig())
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jpeglm.bpe import MAX_VOCABULARY
from jpeglm.codecs import Codec
from jpeglm.config import MAX_SEED, InputError, Settings, bounded
from jpeglm.data.choose import check_preset, preset_codec
from jpeglm.data.open import Dataset, Pictures, open_data
from jpeglm.data.sources import open_source
from jpeglm.folders import kind_of, quoted
from jpeglm.text import DEFAULT_SIZE, Text
from jpeglm.tokenizer import Tokenizer

PAPER_VOCABULARY = 320
"""Of the preset `paper`, for pictures."""


@dataclass(frozen=True)
class TokenizerConfig(Settings):
    """What is learnt, and from how much."""

    alphabet: str | None = None
    """Of JPEG: jpeg-block-symbols (default), jpeg-placed-symbols (DC names the MCU), jpeg-symbols,
    jpeg-coarse-symbols (DC first), bytes, or paper-bytes (the preset's; paper-bytes-prefixed has a
    symbol before the stream, as some imported models do). Of avc: avc-placed-symbols
    (default), avc-symbols or bytes. Of vq and pixels: codes."""
    vocab_size: int | None = None
    """Size of the picture vocabulary, BOS and EOS included. Default: 1024; of codes, no merges."""
    text_vocab_size: int = bounded(DEFAULT_SIZE, least=0, most=MAX_VOCABULARY)
    """Size of the text vocabulary, used if the data have captions; 256 is single bytes; 0: no
    text."""
    preset: str | None = None
    """paper: plain BPE 320 over whole streams of 256 px, quality 25; of clips, 1024 over bytes."""
    classes: int = bounded(0, least=0, most=65_000)
    """Class tokens, one for each label of the data."""
    limit: int = bounded(10_000, least=1, most=MAX_SEED)
    """Number of streams, with their captions, to learn from."""

    def __post_init__(self) -> None:
        self.check_bounds()
        check_preset(self.preset)


def learn_tokenizer(
    data: Path,
    config: TokenizerConfig,
    settings: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tokenizer:
    """BPE over the training streams of prepared shards, or of pictures, coded first, and over their
    captions; settings: those of JPEG's that were given for coding. InputError where data and
    settings do not fit."""
    prepared = (data / "dataset.json").exists()
    clips = prepared and open_data(data).codec.media == "clip"
    wanted = None
    if not clips and (config.preset or settings or not prepared):
        wanted = preset_codec("jpeg", config.preset, settings or {})
    dataset = _training_data(data, wanted)
    codec = dataset.codec
    alphabet = config.alphabet
    if config.preset:
        alphabet = alphabet or ("bytes" if clips else "paper-bytes")
    names = dataset.label_names if len(dataset.label_names) == config.classes else []
    rows = list(islice(dataset.streams("train"), config.limit))
    captions = [row.text for row in rows if row.text]
    text = None
    if captions and config.text_vocab_size:
        text = Text.train(captions, config.text_vocab_size)
    return Tokenizer.train(
        (row.stream for row in rows),
        codec,
        alphabet,
        n_classes=config.classes,
        class_names=names,
        text=text,
        progress=progress,
        **_size(config, codec, clips),
    )


def _size(config: TokenizerConfig, codec: Codec, clips: bool) -> dict[str, Any]:
    """`vocab_size`, where it is not the usual one."""
    if config.vocab_size is not None:
        return {"vocab_size": config.vocab_size}
    if "codes" in codec.alphabets:
        # Codes are the units that a learned codec chose; merging them is left to who asks for it.
        return {"vocab_size": codec.alphabet("codes").size + 2}
    return {"vocab_size": PAPER_VOCABULARY} if config.preset and not clips else {}


def _training_data(data: Path, codec: Codec | None) -> Dataset | Pictures:
    """`open_data`; where there are only films, the sentence says what to do with them."""
    try:
        return open_data(data, codec)
    except InputError:
        if codec is None or codec.media == "clip" or not data.is_dir() or kind_of(data):
            raise
        open_source(
            data, films=True, caption="none"
        )  # raises as well where there is nothing at all
        made = f"{data.name}-shards"
        raise InputError(
            f"{data} holds films, which are prepared first; run: jpeglm prepare {quoted(data)} "
            f"{quoted(made)} --codec avc, and then this command with {quoted(made)}"
        ) from None
