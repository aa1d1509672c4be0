"""Pictures to token ids, and BPE alone, against Hugging Face `tokenizers` and sentencepiece.

    python benchmarks/tokens.py [--pictures 200] [--repeats 5] [--streams 2000]

The peers are given our own merges, so that all do the same work: the ids are compared first.
sentencepiece inside transformers' tokenizer in Python is what the paper's authors encode with;
sentencepiece by itself stands beside it; `pip install -r benchmarks/requirements.txt`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


Encode = Callable[[str], list[int]]


def sentencepieces(tokenizer: Tokenizer, folder: Path) -> dict[str, Encode]:
    """sentencepiece's encoder over the same merges, giving the same ids, by itself and as the
    paper's authors call it; none if it is not installed. Its model is written to `folder`."""
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as pb
    except ImportError:
        return {}
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    model = pb.ModelProto()
    model.trainer_spec.model_type = pb.TrainerSpec.BPE
    model.normalizer_spec.name = "identity"
    for name in ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        setattr(model.normalizer_spec, name, False)
    vocabulary = tokenizer.to_hugging_face()["model"]["vocab"]
    for text, token in sorted(vocabulary.items(), key=lambda item: item[1]):
        model.pieces.add(piece=text, score=-float(max(0, token - tokenizer.n_base + 1)))
    model.pieces.add(piece="<unk>", score=0.0, type=pb.ModelProto.SentencePiece.UNKNOWN)
    file = folder / "tokenizer.model"
    file.write_bytes(model.SerializeToString())
    alone = sentencepiece.SentencePieceProcessor(model_file=str(file))
    inside = SentencePieceBackend(vocab_file=str(file), unk_token="<unk>")
    return {
        "sentencepiece": alone.encode,
        "sentencepiece in transformers": lambda text: inside.encode(text, add_special_tokens=False),
    }


def training(config: JpegConfig, alphabet: str, size: int, n: int) -> dict[str, dict[str, float]]:
    """Rates of learning the merges from n streams, one turn each."""
    codec = JpegCodec(config)
    streams = [codec.encode(picture) for picture in crops(n, config.width, config.height)]
    Tokenizer.train(streams[:5], codec, alphabet, size)  # compiles
    start = time.perf_counter()
    ours = Tokenizer.train(streams, codec, alphabet, size)
    seconds = {"jpeglm, stream to merges": time.perf_counter() - start}
    characters = np.array([ours.character(symbol) for symbol in range(ours.n_base)])
    texts = ["".join(characters[ours.alphabet.split(stream)]) for stream in streams]
    start = time.perf_counter()
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 2,
        min_frequency=2,
        initial_alphabet=list(characters),
        show_progress=False,
    )
    peer.train_from_iterator(texts, trainer)
    seconds = {"Hugging Face tokenizers": time.perf_counter() - start} | seconds
    megabytes = sum(map(len, streams)) / 1e6
    return {
        name: dict.fromkeys(("median", "least", "most"), megabytes / value)
        for name, value in seconds.items()
    }


def measure(
    config: JpegConfig, alphabet: str, size: int, n: int, repeats: int
) -> tuple[dict, dict]:
    """Rates of the whole pipeline and of encoding alone, for one setting."""
    codec = JpegCodec(config)
    pictures = crops(n, config.width, config.height)
    streams = [codec.encode(picture) for picture in pictures]
    ours = Tokenizer.train(streams, codec, alphabet, size)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(ours.to_hugging_face()))
    peers: dict[str, Encode] = {"Hugging Face tokenizers": lambda text: theirs.encode(text).ids}
    with tempfile.TemporaryDirectory() as folder:
        peers |= sentencepieces(ours, Path(folder))
    characters = np.array([ours.character(symbol) for symbol in range(ours.n_base)])

    def text(stream: bytes) -> str:
        return "".join(characters[ours.alphabet.split(stream)])

    symbols = [ours.alphabet.split(stream) for stream in streams]
    texts = [text(stream) for stream in streams]
    for one, other in zip(symbols, texts, strict=True):
        for encode in peers.values():
            assert ours.encode_symbols(one).tolist() == encode(other)

    def whole(encode: Encode) -> Callable[[], object]:
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
    return pipeline, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--streams", type=int, default=2000, help="that merges are learnt from")
    arguments = parser.parse_args()
    tables: tuple[dict, dict, dict] = ({}, {}, {})
    for title, config, alphabet, size in (
        ("paper: 256 px, bytes, 320 tokens", PAPER_JPEG, "paper-bytes", 320),
        ("64 px, symbols, 1024 tokens", JpegConfig(restart_interval=1), DEFAULT, 1024),
        ("64 px, symbols, 2048 tokens", JpegConfig(restart_interval=1), DEFAULT, 2048),
    ):
        parts = (
            *measure(config, alphabet, size, arguments.pictures, arguments.repeats),
            training(config, alphabet, size, arguments.streams),
        )
        for table, part in zip(tables, parts, strict=True):
            table[title] = part
    finish("pictures-to-tokens", "pictures/s, one core", tables[0])
    finish("bpe-encode", "MB of streams/s, one core", tables[1])
    finish("bpe-training", "MB of streams/s, one turn", tables[2])


if __name__ == "__main__":
    main()
