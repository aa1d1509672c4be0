"""Pictures to token ids, and BPE alone, against Hugging Face `tokenizers` and sentencepiece.

    python benchmarks/tokens.py [--pictures 200] [--repeats 5]

The peers are given our own merges, so that all do the same work: the ids are compared first.
sentencepiece is what the paper's authors encode with (there inside transformers' slow tokenizer,
which adds Python's time to what is measured here); `pip install -r benchmarks/requirements.txt`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import tokenizers
from common import ROOT, finish, rates
from PIL import Image

from jpeglm.codecs import JpegCodec
from jpeglm.config import PAPER_JPEG, JpegConfig
from jpeglm.tokenizer import Tokenizer

DEFAULT = JpegCodec.alphabets[0]


def crops(n: int, width: int, height: int) -> list[Image.Image]:
    """n pictures of the codec's size from the shipped test pictures."""
    rng = np.random.default_rng(0)
    files = sorted((ROOT / "tests" / "pictures").glob("*.jpg"))
    photos = [Image.open(file).convert("RGB") for file in files]
    out = []
    for i in range(n):
        photo = photos[i % len(photos)]
        side = int(rng.integers(64, min(photo.size) + 1))
        x, y = rng.integers(0, photo.width - side + 1), rng.integers(0, photo.height - side + 1)
        out.append(
            photo.resize((width, height), Image.Resampling.LANCZOS, (x, y, x + side, y + side))
        )
    return out


def sentencepiece_of(tokenizer: Tokenizer) -> Callable[[str], list[int]] | None:
    """sentencepiece's encoder over the same merges, giving the same ids; None if not installed."""
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as pb
    except ImportError:
        return None
    model = pb.ModelProto()
    model.trainer_spec.model_type = pb.TrainerSpec.BPE
    model.normalizer_spec.name = "identity"
    for name in ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        setattr(model.normalizer_spec, name, False)
    vocabulary = tokenizer.to_hugging_face()["model"]["vocab"]
    for text, token in sorted(vocabulary.items(), key=lambda item: item[1]):
        model.pieces.add(piece=text, score=-float(max(0, token - tokenizer.n_base + 1)))
    model.pieces.add(piece="<unk>", score=0.0, type=pb.ModelProto.SentencePiece.UNKNOWN)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    return lambda text: processor.encode(text)


def measure(
    config: JpegConfig, alphabet: str, size: int, n: int, repeats: int
) -> tuple[dict, dict, dict]:
    """Rates of the whole pipeline, of encoding alone and of training, for one setting."""
    codec = JpegCodec(config)
    pictures = crops(n, config.width, config.height)
    streams = [codec.encode(picture) for picture in pictures]
    Tokenizer.train(streams[:5], codec, alphabet, size)  # compiles
    start = time.perf_counter()
    ours = Tokenizer.train(streams, codec, alphabet, size)
    ours_seconds = time.perf_counter() - start
    theirs = tokenizers.Tokenizer.from_str(json.dumps(ours.to_hugging_face()))
    peers = {"Hugging Face tokenizers": lambda text: theirs.encode(text).ids}
    piece = sentencepiece_of(ours)
    if piece:
        peers["sentencepiece"] = piece
    characters = np.array([ours.character(symbol) for symbol in range(ours.n_base)])

    def text(stream: bytes) -> str:
        return "".join(characters[ours.alphabet.split(stream)])

    symbols = [ours.alphabet.split(stream) for stream in streams]
    texts = [text(stream) for stream in streams]
    for one, other in zip(symbols, texts, strict=True):
        for encode in peers.values():
            assert ours.encode_symbols(one).tolist() == encode(other)

    def whole(encode: Callable[[str], list[int]]) -> Callable[[], object]:
        return lambda: [encode(text(codec.encode(picture))) for picture in pictures]

    pipeline = rates(
        {f"Pillow + {name}": whole(encode) for name, encode in peers.items()}
        | {
            "Pillow alone": lambda: [codec.encode(picture) for picture in pictures],
            "jpeglm": lambda: [ours.encode_stream(codec.encode(p)) for p in pictures],
        },
        len(pictures),
        repeats,
    )
    megabytes = sum(map(len, streams)) / 1e6
    alone = rates(
        {name: (lambda e=encode: [e(t) for t in texts]) for name, encode in peers.items()}
        | {
            "jpeglm": lambda: [ours.encode_symbols(s) for s in symbols],
        },
        megabytes,
        repeats,
    )
    start = time.perf_counter()
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 2,
        min_frequency=2,
        initial_alphabet=list(characters),
        show_progress=False,
    )
    peer.train_from_iterator(texts, trainer)
    seconds = {
        "Hugging Face tokenizers": time.perf_counter() - start,
        "jpeglm, stream to merges": ours_seconds,
    }
    training = {
        name: dict.fromkeys(("median", "least", "most"), megabytes / value)
        for name, value in seconds.items()
    }
    return pipeline, alone, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    tables: tuple[dict, dict, dict] = ({}, {}, {})
    for title, config, alphabet, size in (
        ("paper: 256 px, bytes, 320 tokens", PAPER_JPEG, "paper-bytes", 320),
        ("64 px, symbols, 1024 tokens", JpegConfig(restart_interval=1), DEFAULT, 1024),
        ("64 px, symbols, 2048 tokens", JpegConfig(restart_interval=1), DEFAULT, 2048),
    ):
        parts = measure(config, alphabet, size, arguments.pictures, arguments.repeats)
        for table, part in zip(tables, parts, strict=True):
            table[title] = part
    finish("pictures-to-tokens", "pictures/s, one core", tables[0])
    finish("bpe-encode", "MB of streams/s, one core", tables[1])
    finish("bpe-training", "MB of streams/s, one turn", tables[2])


if __name__ == "__main__":
    main()
