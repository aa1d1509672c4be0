"""Choosing the likeliest answer, on bits made to order and on a real small model."""

from pathlib import Path

import numpy as np
import pytest

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.evaluation.classify import _judged, by_caption, by_class
from jpeglm.evaluation.likelihood import share_interval
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.model import Model
from jpeglm.text import Text
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama


def test_the_fewest_bits_win():
    bits = np.array([[5.0, 3, 4], [1, 2, 3], [2, 2, 9], [7, 6, 6]])
    table = _judged(bits, np.array([1, 2, 0, 1]), ["a", "b", "c", "d#1"])
    assert table["accuracy"] == (1 + 0 + 0.5 + 0.5) / 4  # of equals one is guessed
    assert table["among_the_first"] == {"answers": 5, "accuracy": 1.0}
    assert table["by_chance"] == 1 / 3 and table["among"] == 3
    assert table["bits"]["right"] == np.mean([3, 3, 2, 6])
    assert table["bits"]["best_other"] == np.mean([4, 1, 2, 6])
    many = np.arange(12.0)[None]
    for place, first in ((4, 1.0), (5, 0.0)):
        assert _judged(many, np.array([place]), ["a"])["among_the_first"]["accuracy"] == first


@pytest.fixture(scope="module")
def model(pictures):
    codec = make_codec({"codec": "jpeg", "width": 32, "height": 32, "restart_interval": 1})
    streams = [codec.encode(picture) for picture in pictures]
    text = Text(np.zeros((0, 2), np.int32))
    tokenizer = Tokenizer.train(streams, codec, None, 300, 3, ("cat", "dog", "ship"), text)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 900), threads=1)
    return Model(Checkpoint(Path(), {}, tokenizer, {}), engine)


def test_every_class_is_asked(model, pictures):
    streams = [model.codec.encode(picture) for picture in pictures]
    labels = [number % 3 for number in range(len(streams))]
    table = by_class(model, streams + streams[:1], [*labels, -1], ["x"] * (len(streams) + 1))
    chosen = []
    for stream in streams:
        bits = [model.score_streams([stream], [k])[0].bits.sum() for k in range(3)]
        chosen.append(int(np.argmin(bits)))
    assert table["accuracy"] == np.mean(np.array(chosen) == labels) and table["left_out"] == 1
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels, chosen), 1)
    assert table["confusion"] == confusion.tolist() and table["classes"] == ["cat", "dog", "ship"]
    with pytest.raises(InputError, match="label 3"):
        by_class(model, streams[:1], [3], ["x"])
    with pytest.raises(InputError, match="no picture has a class"):
        by_class(model, streams[:1], [-1], ["x"])


def test_captions_are_offered_once_each(model, pictures):
    streams = [model.codec.encode(picture) for picture in pictures]
    texts = [f"picture  {number // 2}" for number in range(len(streams))]
    table = by_caption(model, streams, [*texts[:-1], None], ["x"] * len(streams), among=99)
    known = sorted({" ".join(text.split()) for text in texts[:-1]})
    assert table["among"] == len(known) and table["left_out"] == 1
    right = []
    for stream, text in zip(streams[:-1], texts):
        bits = [model.score_streams([stream], None, [one])[0].bits.sum() for one in known]
        right.append(known[int(np.argmin(bits))] == " ".join(text.split()))
    assert table["accuracy"] == np.mean(right)
    few = by_caption(model, streams[:4], texts[:4], ["x"] * 4, among=2, seed=1)
    assert few["among"] == 2
    with pytest.raises(InputError, match="nothing to choose"):
        by_caption(model, streams, ["same"] * len(streams), ["x"] * len(streams))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("words", [False, True])
def test_what_cannot_be_asked_says_what_can(pictures, tmp_path, classes, words):
    codec = make_codec({"codec": "jpeg", "width": 32, "height": 32})
    text = Text(np.zeros((0, 2), np.int32)) if words else None
    stream = codec.encode(pictures[0])
    tokenizer = Tokenizer.train([stream], codec, None, 300, classes, (), text)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 900), threads=1)
    model = Model(Checkpoint(Path(), {}, tokenizer, {}), engine)
    neither = "neither classes nor text"
    if not classes:
        with pytest.raises(InputError, match="among captions only" if words else neither):
            by_class(model, [stream], [0], ["x"])
    if not words:
        with pytest.raises(InputError, match="among classes only" if classes else neither):
            by_caption(model, [stream], ["a cat"], ["x"])


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (100, 100), (503, 1000), (1, 7)])
def test_the_interval_of_a_share_is_wilsons(right, count):
    """Beside scipy's, and never a point."""
    stats = pytest.importorskip("scipy.stats")
    low, high = share_interval(right / count, count)
    known = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((known.low, known.high), abs=1e-6)
    assert high - low > 0.03 and low - 1e-9 <= right / count <= high + 1e-9
