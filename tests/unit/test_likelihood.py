"""The likelihood table: the model's bits against transformers, the coders against the streams."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.evaluation.coders import (
    COUNTED,
    NOTES,
    coder_bits,
    explained,
    make_coders,
    stacked,
    together_bits,
    without_markers,
)
from jpeglm.evaluation.likelihood import (
    by_folder,
    interval,
    model_bits,
    pictures_of,
    ratio_interval,
)
from jpeglm.generation.model import Model

from .conftest import hugging_face, random_llama

torch = pytest.importorskip("torch")


def test_model_bits_are_transformers_loss(tokenizer, engine, pictures):
    config, weights = random_llama(tokenizer.vocab_size, 600)
    peer = hugging_face(config, weights)
    streams = [tokenizer.codec.encode(picture) for picture in pictures[:4] + pictures[5:]]
    streams = [s for s in streams if len(tokenizer.encode_stream(s)) < 598]
    assert len(streams) >= 2
    opened = Checkpoint(Path(), config, tokenizer, {})
    bits, legal, tokens = model_bits(Model(opened, engine), streams)
    for stream, ours, renormalised, count in zip(streams, bits, legal, tokens, strict=True):
        ids = [tokenizer.bos, *tokenizer.encode_stream(stream), tokenizer.eos]
        row = torch.tensor([ids])
        with torch.no_grad():
            loss = float(peer(row, labels=row).loss)  # mean nats over all tokens after BOS
        assert count == len(ids) - 1
        assert ours == pytest.approx(loss * count / np.log(2), rel=1e-4)
        assert 0 < renormalised <= ours + 1e-6


@pytest.mark.skipif(not shutil.which("jpegtran"), reason="libjpeg-turbo-progs is not installed")
def test_coders_count_the_same_coefficients(pictures):
    plain = JpegCodec(JpegConfig(64, 64))
    marked = JpegCodec(JpegConfig(64, 64, restart_interval=1))
    for picture in pictures:
        file = plain.wrap(plain.encode(picture))
        assert without_markers(plain, plain.encode(picture))[1] == file
        assert without_markers(marked, marked.encode(picture))[1] == file
    bits, unavailable = coder_bits(marked, [marked.encode(picture) for picture in pictures])
    scans = [8 * len(plain.scan(plain.encode(picture))) for picture in pictures]
    assert bits["huffman"].tolist() == scans
    optimized = bits["jpegtran-optimize"] - 8 * 4 * (4 + 17)  # four tables with a symbol or more
    assert (optimized > 0).all() and (optimized < bits["huffman"] + 8 * 200).all()
    coders, _ = make_coders(marked.config)
    assert set(coders) | set(unavailable) == {
        "huffman", "jpegtran-optimize", "jpegtran-arithmetic", "jpeg-xl", "lepton", "brunsli",
    }  # fmt: skip


@pytest.mark.skipif(not shutil.which("jpegtran"), reason="libjpeg-turbo-progs is not installed")
@pytest.mark.parametrize("interval", [0, 1, 4])
def test_pictures_under_each_other_keep_their_coefficients(pictures, interval):
    """libjpeg decodes the tall file to the pictures, and its Huffman scan is as long as theirs."""
    codec = JpegCodec(JpegConfig(64, 48, restart_interval=interval))
    streams = [codec.encode(picture) for picture in pictures * 3]
    file = stacked(codec, streams)
    with Image.open(io.BytesIO(file)) as tall:
        assert tall.size == (64, 48 * len(streams))
        luma = np.asarray(tall.convert("RGB"), np.int16)
    for number, stream in enumerate(streams):
        own = np.asarray(codec.decode(stream), np.int16)
        # Chroma is interpolated over the border between two pictures.
        assert (luma[48 * number + 2 : 48 * number + 46] == own[2:46]).all()
    bits, shared = coder_bits(codec, streams)[0], together_bits(codec, streams)
    assert set(shared) == set(bits)
    assert shared["huffman"] == pytest.approx(bits["huffman"].mean(), rel=0.03)
    assert shared["lepton"] < bits["lepton"].mean()
    assert not together_bits(JpegCodec(JpegConfig(64, 48, restart_interval=5)), [])


def test_interval_covers_the_mean():
    values = np.random.default_rng(0).normal(100, 10, 400)
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 10 / 20, rel=0.15)


def test_interval_counts_pictures_and_not_crops():
    keys = [f"a/{name}.jpg{crop}" for name in range(100) for crop in ("", "#0", "#1", "#2")]
    groups = pictures_of(keys)
    assert groups.max() == 99 and (groups[::4] == groups[3::4]).all()
    values = np.random.default_rng(0).normal(100, 10, 100)
    assert interval(values[groups], groups) == pytest.approx(interval(values))
    low, high = interval(values[groups])
    assert high - low < 0.6 * np.subtract(*interval(values)[::-1])


def test_interval_of_a_ratio_pairs_what_belongs_together():
    """Two coders whose sizes differ by a tenth everywhere: no doubt about the tenth."""
    below = np.random.default_rng(0).normal(100, 30, 100)
    groups = np.arange(100) // 4
    assert ratio_interval(1.1 * below, below, groups) == pytest.approx([1.1, 1.1])
    low, high = ratio_interval(1.1 * below[::-1], below, groups)
    assert low < 1.1 < high and high - low > 0.05


def test_why_tables_of_a_files_own_lose_is_said_where_they_do():
    lost = explained("jpegtran-optimize", 0.27, -0.05)
    assert "cost more than they save" in lost and "in one file they are paid once" in lost
    assert "paid once" not in explained("jpegtran-optimize", 0.27, 0.01)
    for name, change in (("jpegtran-optimize", -0.02), ("lepton", 0.1)):
        assert "cost more" not in explained(name, change, -0.1)
    assert set(NOTES) == set(COUNTED)


@pytest.mark.parametrize(
    ("missing", "words"),
    [("imagecodecs", "the package imagecodecs is not installed; run: pip install"),
     ("lepton_jpeg_python", "the package lepton_jpeg_python is not installed"),
     ("jpegtran", "jpegtran is not installed; install Debian's")],
)  # fmt: skip
def test_why_a_coder_does_not_run_is_said_in_words(missing, words, monkeypatch):
    make_coders.cache_clear()
    if missing == "jpegtran":
        monkeypatch.setenv("PATH", "")
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    _, unavailable = make_coders(JpegConfig(32, 32))
    make_coders.cache_clear()
    assert any(words in why for why in unavailable.values()), unavailable
    assert not any("Error" in why for why in unavailable.values()), unavailable


def test_folders_share_the_bits_as_their_pictures_do():
    keys = [
        *("train/rocks/1.jpg#0", "train/rocks/1.jpg#1", "train/rocks/2.jpg"),
        *("validation/rocks/3.jpg", "validation/00.tar/sea/1.png", "sea/2.png#0", "9.png"),
    ]
    rows = {"model": np.arange(1.0, 8), "huffman": np.full(7, 8.0)}
    found = by_folder(rows, keys, "huffman")
    assert list(found) == ["", "rocks", "sea"]
    rocks = found["rocks"]
    assert (rocks["pictures"], rocks["distinct_pictures"]) == (4, 3)
    assert rocks["bits_per_image"] == {"model": 2.5, "huffman": 8}
    assert rocks["against"] == pytest.approx(2.5 / 8 - 1)
    assert found["sea"]["bits_per_image"]["model"] == 5.5 and found[""]["pictures"] == 1
    total = sum(row["pictures"] * row["bits_per_image"]["model"] for row in found.values())
    assert total == rows["model"].sum()
