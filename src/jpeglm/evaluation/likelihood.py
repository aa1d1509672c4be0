"""How many bits a model needs for held-out pictures, beside the best JPEG coders.

`model` is −log2 p of every token after BOS, EOS included, softmax over the full vocabulary: the
size that an arithmetic coder driven by the model would reach. `model+grammar` renormalises over
the tokens that are legal at each place, which such a coder may do for free. Crops of one picture
are alike, so intervals are taken over pictures, not crops.

    jpeglm evaluate likelihood data/photos64 --checkpoint runs/photos/model
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jpeglm.codecs import AvcCodec, JpegCodec
from jpeglm.data.balance import folder_of, split_in
from jpeglm.evaluation.coders import COUNTED, avc_bits, coder_bits, explained, together_bits
from jpeglm.generation.model import Model
from jpeglm.generation.pictures import Pictures
from jpeglm.generation.sheets import new_units
from jpeglm.text import tidy

Progress = Callable[[int, int, str], None]


def fitted_texts(
    model: Model, streams: Sequence[bytes], texts: Sequence[str | None]
) -> tuple[list[str | None], int]:
    """Captions cut at their ends to the room that the model's context leaves beside their pictures,
    as in training; and how many were cut."""
    found: list[str | None] = []
    words = model.tokenizer.text
    if words is None:
        return [None] * len(texts), 0
    for stream, text in zip(streams, texts):
        if text:
            tokens = len(model.tokenizer.encode_stream(stream)) + 1  # BOS; none follows EOS
            text = words.cut(tidy(text), max(0, model.engine.max_length - tokens))
        found.append(text)
    return found, sum(new != (old and tidy(old)) for new, old in zip(found, texts))


def model_bits(
    model: Model,
    streams: Sequence[bytes],
    labels: Sequence[int] | None = None,
    texts: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bits, bits under the grammar, tokens), float64 [pictures] each. A label of -1 is none."""
    known = [None if not model.classes or label < 0 else label for label in labels or ()] or None

    def report(done: int, total: int, _: int) -> None:
        if progress:
            progress(done, total, "")

    scores = model.score_streams(streams, known, texts, report)
    return (
        np.array([score.bits.sum() for score in scores]),
        np.array([score.legal_bits.sum() for score in scores]),
        np.array([len(score.ids) for score in scores], np.float64),
    )


def original_bits(model: Model, pictures: Pictures) -> float | None:
    """Bits of what was really there in place of what a call has drawn, in the usual order; None
    where all of it was drawn, so that there was nothing, or where the whole is longer than the
    model's context, which what was drawn need not be."""
    original, settings = pictures.original, pictures.settings
    if original is None or not pictures.units_kept:
        return None
    head = model.tokenizer.head(settings["label"], settings["text"])
    if len(head) + len(model.tokenizer.encode_stream(original)) > model.engine.max_length:
        return None
    (score,) = model.score_streams([original], [settings["label"]], [settings["text"]])
    return float(score.of_units[new_units(model.codec, pictures)].sum())


def interval(values: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> list[float]:
    """95 % interval of the mean (percentile bootstrap, 2000 resamples of whole groups).

    values: float64 [streams]; groups: int [streams], the picture of each, default one each.
    """
    return ratio_interval(values, np.ones(len(values)), groups, seed)


def share_interval(share: float, count: int) -> list[float]:
    """95 % interval of a share of `count` (Wilson 1927), which is none of a point at 0 and 1."""
    z = 1.959964
    middle = share + z * z / (2 * count)
    wide = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    ends = ((middle + sign * wide) / (1 + z * z / count) for sign in (-1, 1))
    return [min(1.0, max(0.0, end)) for end in ends]


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


def by_folder(rows: dict[str, np.ndarray], keys: Sequence[str], base: str) -> dict[str, Any]:
    """Of each first-level folder (behind train/ or validation/) its streams, its pictures and what
    the coders `rows` need: bits of a picture, and those of the model against `base`."""
    folders = np.array([folder_of(key, split_in(key)) for key in keys])
    found, pictures = {}, pictures_of(keys)
    for folder in sorted(set(folders)):
        own = folders == folder
        bits = {name: float(values[own].mean()) for name, values in rows.items()}
        found[str(folder)] = {
            "pictures": int(own.sum()),
            "distinct_pictures": len(set(pictures[own].tolist())),
            "bits_per_image": bits,
            "against": bits["model"] / bits[base] - 1,
        }
    return found


def likelihood(
    model: Model,
    streams: Sequence[bytes],
    labels: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
    texts: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The table of `jpeglm evaluate likelihood`: key `coders`, a row for each coder.

    labels and texts are told to a model that knows such, and are not counted.

    keys: names by which crops of one picture are known (`pictures_of`); default all distinct. A row
    of JPEG's coders has a second figure, `together`: all pictures in one file, against Huffman's
    single ones. The model's weights are charged to nobody. Where keys lie in several folders,
    `by_folder` has a row for each.
    """
    groups = pictures_of(keys) if keys is not None else np.arange(len(streams))
    told, cut = fitted_texts(model, streams, texts) if texts else (None, 0)
    bits, legal_bits, tokens = model_bits(model, streams, labels, told, progress)
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
    folders = by_folder(rows, keys, base) if keys is not None else {}
    counted = {name: text for name, text in COUNTED.items() if name in coders}
    notes = {}
    for name, values in rows.items():
        shared = together[name] / float(rows["huffman"].mean()) - 1 if name in together else None
        notes[name] = explained(name, float(values.mean() / rows[base].mean() - 1), shared)
    return {
        "coders": coders,
        "unavailable": unavailable,
        "counted": counted,
        "notes": notes,
        "pictures": len(streams),
        "distinct_pictures": int(groups.max()) + 1,
        "tokens_per_image": float(tokens.mean()),
        "captions": sum(bool(text) for text in told or ()),
        "captions_cut": cut,
        **({"by_folder": folders} if len(folders) > 1 else {}),
    }
