"""How many bits a model needs for held-out pictures, beside the best JPEG coders.

`model` is −log2 p of every token after BOS, EOS included, softmax over the full vocabulary: the
size that an arithmetic coder driven by the model would reach. `model+grammar` renormalises over
the tokens that are legal at each place, which such a coder may do for free. Crops of one picture
are alike, so intervals are taken over pictures, not crops.

    jpeglm evaluate likelihood data/photos64 --checkpoint runs/photos/model
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jpeglm.codecs import AvcCodec, JpegCodec
from jpeglm.evaluation.coders import COUNTED, avc_bits, coder_bits, together_bits
from jpeglm.generation.generate import Model

Progress = Callable[[int, int, str], None]


def model_bits(
    model: Model,
    streams: Sequence[bytes],
    labels: Sequence[int] | None = None,
    batch: int = 32,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bits, bits under the grammar, tokens), float64 [pictures] each; teacher forcing."""
    tokenizer = model.tokenizer
    ids = [np.concatenate([tokenizer.encode_stream(stream), [tokenizer.eos]]) for stream in streams]
    first = [
        tokenizer.class_token(label) if tokenizer.n_classes and label >= 0 else tokenizer.bos
        for label in (labels if labels is not None else [-1] * len(streams))
    ]
    bits, legal_bits = np.zeros(len(ids)), np.zeros(len(ids))
    order = np.argsort([-len(row) for row in ids], kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        logits = model.engine.start([np.array([first[r]]) for r in rows])
        states = [model.constraint.grammar.start() for _ in rows]
        place = 0
        while len(rows):
            token = np.array([ids[r][place] for r in rows])
            values = logits.astype(np.float64)
            values -= values.max(axis=1, keepdims=True)
            chosen = values[np.arange(len(rows)), token]
            bits[rows] += (np.log(np.exp(values).sum(axis=1)) - chosen) / np.log(2)
            for i, r in enumerate(rows):
                mask = model.constraint.mask(states[i])
                legal_bits[r] += (np.log(np.exp(values[i][mask]).sum()) - chosen[i]) / np.log(2)
                if token[i] != tokenizer.eos:
                    model.constraint.advance(states[i], int(token[i]))
            place += 1
            on = np.array([len(ids[r]) > place for r in rows])
            if not on.all():
                kept = np.flatnonzero(on)
                rows, token = rows[kept], token[kept]
                states = [states[i] for i in kept]
                if len(rows):
                    model.engine.keep(kept)
            if len(rows):
                logits = model.engine.step(token)
        if progress:
            progress(min(start + batch, len(order)), len(order), "")
    return bits, legal_bits, np.array([len(row) for row in ids], np.float64)


def interval(values: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> list[float]:
    """95 % interval of the mean (percentile bootstrap, 2000 resamples of whole groups).

    values: float64 [streams]; groups: int [streams], the picture of each, default one each.
    """
    return ratio_interval(values, np.ones(len(values)), groups, seed)


def ratio_interval(
    above: np.ndarray, below: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> list[float]:
    """The same of Σ above / Σ below, of which both belong to the same streams."""
    if groups is None:
        groups = np.arange(len(above))
    tops, bottoms = np.bincount(groups, above), np.bincount(groups, below)
    drawn = np.random.default_rng(seed).integers(0, len(tops), (2000, len(tops)))
    ratios = tops[drawn].sum(axis=1) / bottoms[drawn].sum(axis=1)
    return [float(x) for x in np.percentile(ratios, [2.5, 97.5])]


def pictures_of(keys: Sequence[str]) -> np.ndarray:
    """int64 [streams]: which picture or film each stream is of, by `prepare`'s keys (NAME#CROP,
    NAME@CLIP)."""
    return np.unique([re.sub(r"[#@]\d+$", "", key) for key in keys], return_inverse=True)[1]


def likelihood(
    model: Model,
    streams: Sequence[bytes],
    labels: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The table of `jpeglm evaluate likelihood`: key `coders`, a row for each coder.

    keys: names by which crops of one picture are known (`pictures_of`); default all distinct. A row
    of JPEG's coders has a second figure, `together`: all pictures in one file, against Huffman's
    single ones. The model's weights are charged to nobody.
    """
    groups = pictures_of(keys) if keys is not None else np.arange(len(streams))
    bits, legal_bits, tokens = model_bits(model, streams, labels, progress=progress)
    rows = {"model": bits, "model+grammar": legal_bits}
    unavailable: dict[str, str] = {}
    together: dict[str, float] = {}
    if isinstance(model.codec, JpegCodec):
        others, unavailable = coder_bits(model.codec, streams)
        together = together_bits(model.codec, streams)
        stream_bytes = sum(len(model.codec.scan(stream)) for stream in streams)
        base = "huffman"
    elif isinstance(model.codec, AvcCodec):
        others = avc_bits(model.codec, streams)
        stream_bytes = sum(map(len, streams))
        base = "cavlc"
    else:
        each = model.codec.units * np.log2(model.tokenizer.alphabet.size)
        others = {"fixed-length": np.full(len(streams), each)}
        stream_bytes = sum(map(len, streams))
        base = "fixed-length"
    rows |= others
    coders = {
        name: {
            "bits_per_image": float(values.mean()),
            "interval": interval(values, groups),
            "bits_per_pixel": float(values.mean() / model.codec.pixels),
            "bits_per_stream_byte": float(values.sum() / stream_bytes),
            f"against_{base}".replace("-", "_"): float(values.mean() / rows[base].mean() - 1),
        }
        for name, values in rows.items()
    }
    for name, each in together.items():
        coders[name]["together"] = {
            "bits_per_image": each,
            "against_huffman": each / float(rows["huffman"].mean()) - 1,
        }
    coders["model"]["nats_per_token"] = float(bits.sum() * np.log(2) / tokens.sum())
    counted = {name: text for name, text in COUNTED.items() if name in coders}
    counted |= dict.fromkeys(("model", "model+grammar"), "every token after BOS, EOS included")
    return {
        "coders": coders,
        "unavailable": unavailable,
        "counted": counted,
        "pictures": len(streams),
        "distinct_pictures": int(groups.max()) + 1,
        "tokens_per_image": float(tokens.mean()),
    }
