"""A picture's trace: its steps are those of libjpeg, its bits and tokens those of the stream."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.model import Model
from jpeglm.inspection.pixels import backward, forward, planes, quantised
from jpeglm.inspection.scan import DATA, STUFFED, byte_kinds, take_apart
from jpeglm.inspection.trace import _steps, trace_picture
from jpeglm.syntax.alphabet import ALPHABETS
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama

PHOTO = Path(__file__).parents[2] / "src" / "jpeglm" / "assets" / "astronaut.jpg"
SETTINGS = [
    {"subsampling": subsampling, "quality": quality, "restart_interval": interval}
    for subsampling in ("4:2:0", "4:2:2", "4:4:4", "gray")
    for quality, interval in ((25, 0), (90, 1), (100, 3))
]


def codec_of(**settings):
    return JpegCodec(JpegConfig(64, 48, **settings))


def picture(size=(64, 48)):
    """A photograph's piece: no size of a codec, so that it is fitted."""
    return Image.open(PHOTO).crop((150, 20, 350, 170)).resize(size)


def model_of(codec, alphabet, streams, length=20_000):
    tokenizer = Tokenizer.train(streams, codec, alphabet, 700)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, length), threads=1)
    return Model(Checkpoint(Path(), {}, tokenizer, {}), engine)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_parts_are_the_scan_bit_by_bit(settings):
    codec = codec_of(**settings)
    scan = codec.scan(codec.encode(picture()))
    parts, blocks = take_apart(scan, codec.spec)
    digits = np.unpackbits(np.frombuffer(scan, np.uint8))
    free = np.repeat(byte_kinds(scan) == STUFFED, 8)
    seen = np.zeros(len(digits), int)
    for part in parts:
        own = np.arange(part.first, part.end)
        own = own[~free[own]]
        assert part.bits == "".join(map(str, digits[own]))
        seen[own] += 1
    assert (seen == ~free).all() and (byte_kinds(scan)[[0, -1]] == DATA).all()
    assert len(blocks) == codec.units * len(codec.components)
    if settings["quality"] == 100:
        assert free.any()


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_blocks_hold_what_libjpeg_decodes_and_encodes(settings):
    """Decoded: our levels, back through the DCT, are Pillow's luma to a level or two. Encoded: the
    steps from the pixels give the stream's levels, but for libjpeg's integer arithmetic."""
    codec = codec_of(**settings)
    image = picture()
    stream = codec.encode(image)
    blocks = take_apart(codec.scan(stream), codec.spec)[1]
    steps, whole = _steps(codec), planes(image, settings["subsampling"])
    with Image.open(io.BytesIO(codec.wrap(stream))) as shown:
        shown.draft("L", None)  # libjpeg gives its luma as it is
        luma = np.asarray(shown.convert("L"), int)
    trace = trace_blocks(codec, image)
    levels = apart = 0
    interval, before = settings["restart_interval"], {}
    for block, told in zip(blocks, trace):
        since = block.mcu // interval if interval else 0, block.component
        assert told["prediction"] == before.get(since, 0)
        before[since] = told["levels"][0]
        table = steps[min(block.component, len(steps) - 1)]
        row, column = 8 * told["row"], 8 * told["column"]
        own = np.array(told["samples"]).reshape(8, 8)
        assert (own == whole[block.component][row : row + 8, column : column + 8]).all()
        made = quantised(forward(own), table)
        levels += 64
        apart += int((made != block.levels).sum())
        assert abs(made - block.levels).max() <= 1
        assert np.allclose(forward(np.clip(backward(block.levels, table), -1e9, 1e9)),
                           np.array(told["levels"]).reshape(8, 8) * table)  # fmt: skip
        if block.component == 0:
            decoded = np.array(told["decoded"]).reshape(8, 8)
            assert abs(decoded - luma[row : row + 8, column : column + 8]).max() <= 2
    assert apart / levels < (0.1 if settings["quality"] == 100 else 0.01)


def trace_blocks(codec, image):
    stream = codec.encode(image)
    model = model_of(codec, "jpeg-symbols", [stream])
    return trace_picture(model, image)["blocks"]


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_tokens_cover_the_scan_in_every_alphabet(alphabet):
    codec = codec_of(subsampling="4:2:0", quality=75, restart_interval=2)
    stream = codec.encode(picture())
    model = model_of(codec, alphabet, [stream])
    trace = json.loads(json.dumps(trace_picture(model, picture()), allow_nan=False))
    score = model.score_streams([stream])[0]
    assert [one["token"] for one in trace["tokens"]] == score.ids.tolist()
    assert [one["bits"] for one in trace["tokens"]] == pytest.approx(score.bits, abs=1e-3)
    assert [one["legal_bits"] for one in trace["tokens"]] == pytest.approx(
        score.legal_bits, abs=1e-3
    )
    scan = bytes.fromhex(trace["scan"]["hex"])
    assert scan == codec.scan(stream)
    runs = [run for one in trace["tokens"] for run in one["runs"]]
    if alphabet.startswith("paper-bytes"):  # whose header lies before the scan, and EOI behind it
        first = -8 * len(codec.header)
        assert runs[0][0] == first and runs[-1][1] == 8 * len(scan) + 16
        runs = [[max(0, a), min(b, 8 * len(scan))] for a, b in runs if b > 0]
    seen = np.zeros(8 * len(scan), int)
    for begin, end in runs:
        seen[begin:end] += 1
    parts = [part for part in trace["parts"] if part[6] >= 0]
    if "coarse" not in alphabet and "bytes" not in alphabet:
        own = [one["model"] for one in trace["mcus"]]
        assert own == pytest.approx(score.of_units, abs=1e-2)
    assert sum(one["model"] for one in trace["mcus"]) == pytest.approx(score.bits.sum())
    assert sum(one["scan"] for one in trace["mcus"]) == sum(len(p[1]) for p in trace["parts"])
    if "bytes" in alphabet:
        assert (seen == 1).all()
    else:
        for _, bits, first, end, *_ in parts:
            assert (seen[first:end] == 1).all() and len(bits) <= end - first
    for one in trace["tokens"]:
        likeliest = one["likeliest"]
        chances = [chance for _, chance, _ in likeliest]
        assert chances == sorted(chances, reverse=True) and sum(chances) <= 1 + 1e-9
        assert 0 <= one["illegal_mass"] <= 1 and one["legal"] > one["rank"] >= 0
        if one["rank"] == 0 and one["illegal_mass"] < 1e-6:
            assert likeliest[0][0] == one["token"]
        assert all(str(token) in trace["names"] for token, *_ in likeliest)


def test_a_file_of_the_codec_is_looked_at_as_it_is(tmp_path):
    codec = codec_of(quality=75)
    model = model_of(codec, "jpeg-symbols", [codec.encode(picture())])
    drawn = model.generate(1, seed=3, max_tokens=6000)
    file = codec.wrap(drawn.streams[0])
    trace = trace_picture(model, file)
    assert trace["picture"]["drawn"] and trace["scan"]["hex"] == codec.scan(drawn.streams[0]).hex()
    given = Image.open(io.BytesIO(base64.b64decode(trace["picture"]["given"].split(",")[1])))
    assert (np.asarray(given) == np.asarray(drawn.images[0])).all()
    other = trace_picture(model, PHOTO.read_bytes())
    assert not other["picture"]["drawn"] and other["picture"]["width"] == 64


def test_what_cannot_be_looked_into_says_so(picture_files):
    codec = codec_of(quality=75)
    stream = codec.encode(picture())
    model = model_of(codec, "jpeg-symbols", [stream], length=100)
    with pytest.raises(InputError, match="more than the model's context of 100"):
        trace_picture(model, picture())
    with pytest.raises(InputError, match="the picture"):
        trace_picture(model, b"hello")
