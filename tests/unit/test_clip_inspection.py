"""A clip's macroblocks taken apart: bits are the stream's, motion and samples are FFmpeg's."""

import base64
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs import make_codec
from jpeglm.codecs.clips import read_clip
from jpeglm.config import InputError
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.inspection.clip import trace_clip
from jpeglm.inspection.elements import PREVENTION, byte_kinds, take_clip_apart
from jpeglm.inspection.macroblocks import read_macroblocks
from jpeglm.inspection.motion import SKIPPED
from jpeglm.inspection.prediction import PLANES, rebuild
from jpeglm.syntax.avc.nal import read_header, split_nals
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama

av = pytest.importorskip("av")

FILMS = Path(__file__).parents[2] / "src" / "jpeglm" / "assets"
SETTINGS = {
    "fine": {"qp": 12},
    "finest": {"qp": 4, "slices": 2},
    "coarse": {"qp": 37},
    "sliced": {"qp": 26, "slices": 3},
    "split": {"qp": 14},
    "paper": {"qp": 12, "encoder": "paper"},
}
"""Below a quantiser of 16 the loop filter does nothing (Table 8-16): what is shown is prediction
and residual."""


@cache
def clip(name, film):
    settings = {"codec": "avc", "width": 64, "height": 48, "frames": 6, "fps": 8.0, "fit": "crop"}
    codec = make_codec(settings | SETTINGS[name])
    if film == "noise":  # of small dark squares that move, so that all kinds of prediction occur
        rng = np.random.default_rng(5)
        frames = rng.integers(0, 256, (6, 3, 4, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        frames[:, 8:40, 8:56] = frames[:1, 8:40, 8:56]
        for i in range(6):
            frames[i, 10 + i : 30 + i, 20 - 2 * i : 44 - 2 * i] = rng.integers(
                0, 90, (20, 24, 3), np.uint8
            )
    else:
        frames = read_clip(FILMS / f"{film}.mp4", codec.config)
    # The codec asks for no parts below 8 × 8, but a model may write them.
    options = {"partitions": "all", "subme": 9} if name == "split" else {}
    stream = codec.slices(codec.x264(list(frames), **options))
    return codec, stream, take_clip_apart(stream, codec.symbols)


def decoded(codec, stream, **options):
    """(planes of each frame, FFmpeg's motion vectors of each)."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.options = {"flags2": "+export_mvs", **options}
    packets = [*decoder.parse(codec.wrap_annex_b(stream)), *decoder.parse(b"")]
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    frames += decoder.decode(None)
    high, wide = codec.config.height, codec.config.width
    shown, vectors = [], []
    for frame in frames:
        luma, *chroma = np.split(frame.to_ndarray(format="yuv420p"), [high, high * 5 // 4])
        halves = [plane.reshape(high // 2, wide // 2) for plane in chroma]
        planes = [plane.astype(np.int64) for plane in (luma, *halves)]
        shown.append(dict(zip(PLANES, planes)))
        side = frame.side_data.get("MOTION_VECTORS")
        vectors.append(None if side is None else side.to_ndarray())
    return shown, vectors


def taken_apart(name, film):
    """(macroblocks of each frame, frames rebuilt, frames shown, FFmpeg's vectors)."""
    codec, stream, parts = clip(name, film)
    shown, vectors = decoded(codec, stream)
    heads = [read_header(nal, codec.sets) for nal in split_nals(stream)]
    count, spec = len(codec.spec.first) - 1, codec.spec
    told, made = [], []
    for frame in range(codec.units):
        own = [part for part in parts if part.frame == frame]
        qps = [codec.sets.qp + h.qp_delta for h in heads[frame * count : (frame + 1) * count]]
        told.append(read_macroblocks(own, spec, frame, qps))
        before = shown[max(0, frame - codec.references) : frame][::-1]
        first = spec.first[:-1].tolist()
        offset = codec.sets.chroma_qp_offset
        made.append(rebuild(told[-1], first, spec.columns, before, offset))
    return told, made, shown, vectors


CLIPS = [(name, film) for name in SETTINGS for film in ("pan", "ball", "noise")]


@pytest.mark.parametrize(("name", "film"), CLIPS)
def test_the_parts_are_the_stream_bit_by_bit(name, film):
    codec, stream, parts = clip(name, film)
    digits = np.unpackbits(np.frombuffer(stream, np.uint8))
    kinds = byte_kinds(stream)
    free = np.repeat(kinds == PREVENTION, 8)
    seen = np.zeros(len(digits), int)
    for part in parts:
        own = np.arange(part.first, part.end)
        own = own[~free[own]]
        assert part.bits == "".join(map(str, digits[own]))
        seen[own] += 1
    assert (seen == ~free).all()
    # A second way to the same count: what unescaping leaves is shorter by what prevents.
    from jpeglm.syntax.avc.nal import unescape

    nals = split_nals(stream)
    assert sum(len(nal) - len(unescape(nal)) for nal in nals) == (kinds == PREVENTION).sum()
    assert sum(part.name == "start code" for part in parts) == len(nals)
    elements = [part for part in parts if part.symbol >= 0]
    assert [part.symbol for part in elements] == list(range(len(codec.symbols.split(stream))))
    assert sum(len(part.bits) for part in elements) == codec.symbols.payload_bits(stream)


def test_bytes_of_emulation_prevention_occur():
    assert any((byte_kinds(clip(*one)[1]) == PREVENTION).any() for one in CLIPS)


@pytest.mark.parametrize(("name", "film"), CLIPS)
def test_prediction_and_residual_are_what_ffmpeg_shows(name, film):
    """Where nothing is filtered, everywhere; elsewhere within what the filter may change, and in
    the first frame against FFmpeg without its filter."""
    codec, stream, _ = clip(name, film)
    told, made, shown, _ = taken_apart(name, film)
    columns = codec.spec.columns
    for number, (frame, picture) in enumerate(zip(made, shown)):
        for plane in PLANES:
            apart = abs(frame.samples[plane] - picture[plane])
            if SETTINGS[name]["qp"] < 16:
                assert not apart.any(), (number, plane)
        # Without levels and with one vector, only the outer edge is filtered: three samples of
        # luma, one of chroma (8.7.2.3).
        for place, one in enumerate(told[number]):
            if one.pattern == 0 and len(one.motion) == 1 and not one.blocks:
                for plane, size, edge in (("Y", 16, 3), ("Cb", 8, 1), ("Cr", 8, 1)):
                    y, x = size * (place // columns), size * (place % columns)
                    rows, own = slice(y + edge, y + size - edge), slice(x + edge, x + size - edge)
                    inside = frame.samples[plane][rows, own], picture[plane][rows, own]
                    assert (inside[0] == inside[1]).all(), (number, place, plane)
    bare, _ = decoded(codec, stream, skip_loop_filter="all")
    for plane in PLANES:
        assert (made[0].samples[plane] == bare[0][plane]).all()


@pytest.mark.parametrize(("name", "film"), CLIPS)
def test_motion_is_what_ffmpeg_exports(name, film):
    told, _, _, vectors = taken_apart(name, film)
    columns = clip(name, film)[0].spec.columns
    moved = 0
    for macroblocks, exported in zip(told, vectors):
        found = {}
        for place, one in enumerate(macroblocks):
            y, x = 16 * (place // columns), 16 * (place % columns)
            for part in one.motion:
                if part.x % 8 or part.y % 8:  # of a quarter, FFmpeg exports its first part
                    continue
                wide, high = max(8, part.width), max(8, part.height)
                middle = x + part.x + wide // 2, y + part.y + high // 2
                found[middle] = (-1 - part.reference if name != "paper" else 0, part.vector)
        theirs = {}
        for row in [] if exported is None else exported:
            source = int(row["source"]) if name != "paper" else 0
            vector = int(row["motion_x"]), int(row["motion_y"])
            theirs[int(row["dst_x"]), int(row["dst_y"])] = source, vector
        assert found == theirs
        moved += sum(vector != (0, 0) for _, vector in found.values())
    assert moved or film != "ball"


def test_every_kind_of_macroblock_occurs():
    told = [one for each in CLIPS for frame in taken_apart(*each)[0] for one in frame]
    kinds = {one.type for one in told}
    assert kinds == {SKIPPED, "P 16×16", "P 16×8", "P 8×16", "P 8×8", "I 4×4", "I 16×16"}
    fours = {mode for one in told if one.type == "I 4×4" for mode in one.modes}
    assert fours == set(range(9))
    assert {one.modes[0] for one in told if one.type == "I 16×16"} >= {0, 1, 2}
    assert {one.chroma_mode for one in told if one.intra} == {0, 1, 2, 3}
    sub = {(m.width, m.height) for one in told if one.type == "P 8×8" for m in one.motion}
    assert sub == {(8, 8), (8, 4), (4, 8), (4, 4)}
    quarters = {(m.vector[0] & 3, m.vector[1] & 3) for one in told for m in one.motion}
    assert len(quarters) >= 12
    assert any(m.reference for one in told for m in one.motion)


# A whole trace


@cache
def model():
    return load("clips")


@cache
def trace(frame):
    return json.loads(json.dumps(trace_clip(model(), FILMS / "pan.mp4", frame), allow_nan=False))


def model_of(alphabet, streams, codec):
    tokenizer = Tokenizer.train(streams, codec, alphabet, 700)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 9000), threads=1)
    return Model(Checkpoint(Path(), {}, tokenizer, {}), engine)


@pytest.mark.parametrize("frame", [0, 3])
def test_a_trace_links_bits_levels_and_samples(frame):
    told = trace(frame)
    codec = model().codec
    stream = codec.encode(FILMS / "pan.mp4")
    own = bytes.fromhex(told["stream"]["hex"])
    nal = split_nals(stream)[frame]
    assert own == b"\0\0\1" + nal and len(told["stream"]["kinds"]) == len(own)
    digits = "".join(f"{byte:08b}" for byte in own)
    for _, bits, first, end, *_ in told["parts"]:
        assert bits == digits[first:end] or 1 in told["stream"]["kinds"]
    assert sum(one["file"] for one in told["macroblocks"]) == told["frames"][frame]["file"]
    assert sum(one["model"] for one in told["macroblocks"]) == pytest.approx(
        told["frames"][frame]["model"]
    )
    for one in told["macroblocks"]:
        names = [part[0] for part in told["parts"][slice(*one["parts"])]]
        assert names and all(not name.startswith("NAL") for name in names)
        for block in one["blocks"]:
            says = [part[0] for part in told["parts"][slice(*block["parts"])]]
            count = int(says[0].replace("chroma ", "").split()[1].rstrip(","))
            assert count == sum(level != 0 for level in block["levels"])
    given = Image.open(io.BytesIO(base64.b64decode(told["frames"][0]["shown"].split(",")[1])))
    assert (np.asarray(given) == codec.decode(stream)[0]).all()


def test_the_models_bits_are_those_of_score():
    told = [trace(frame) for frame in (0, 3)]
    score = model().score_streams([model().codec.encode(FILMS / "pan.mp4")])[0]
    assert [one["model"] for one in told[0]["frames"]] == pytest.approx(score.of_units, abs=0.1)
    assert told[0]["all_tokens"] == len(score.ids)
    for each in told:
        for one in each["tokens"]:
            assert one["token"] == score.ids[one["number"]]
            assert one["bits"] == pytest.approx(score.bits[one["number"]], abs=1e-3)


@pytest.mark.parametrize("alphabet", ["avc-placed-symbols", "avc-symbols", "bytes"])
@pytest.mark.parametrize("encoder", ["default", "paper"])
def test_tokens_cover_a_frame_in_every_alphabet(alphabet, encoder):
    settings = {"codec": "avc", "width": 64, "height": 48, "frames": 3, "fps": 8.0, "fit": "crop"}
    codec = make_codec(settings | {"qp": 22, "encoder": encoder})
    stream = codec.encode(FILMS / "ball.mp4")
    one = model_of(alphabet, [stream], codec)
    for frame in range(3):
        told = trace_clip(one, codec.wrap(stream), frame)
        assert told["clip"]["drawn"]
        seen = np.zeros(8 * len(told["stream"]["kinds"]), int)
        for token in told["tokens"]:
            for begin, end in token["runs"]:
                seen[max(begin, 0) : end] += 1
        parts = told["parts"]
        if alphabet == "bytes":
            assert (seen >= 1).all()
        else:
            elements = np.zeros(len(seen), bool)
            for _, _, first, end, _, symbol in parts:
                if symbol >= 0:
                    elements[first:end] = True
            assert (seen[elements] >= 1).all()
            free = np.repeat(np.array(told["stream"]["kinds"]) == PREVENTION, 8)
            assert not seen[~elements & ~free].any()
        for place, block in enumerate(told["macroblocks"]):
            begin, end = (told["parts"][i] for i in (block["parts"][0], block["parts"][1] - 1))
            near = [token for token in told["tokens"] if place in token["macroblocks"]]
            inside = {run for token in near for run in map(tuple, token["runs"])}
            if block["type"] != SKIPPED:
                assert any(a < end[3] and begin[2] < b for a, b in inside), (frame, place)
            assert near


def test_a_clip_that_was_drawn_is_taken_as_it_is_and_others_are_coded(tmp_path):
    drawn = model().generate(1, seed=4)
    told = trace_clip(model(), model().codec.wrap(drawn.streams[0]), 2)
    assert told["clip"]["drawn"]
    assert bytes.fromhex(told["stream"]["hex"]) == b"\0\0\1" + split_nals(drawn.streams[0])[2]
    assert not trace(0)["clip"]["drawn"]
    with pytest.raises(InputError, match="frame is 8; the model's clips have 0 to 7"):
        trace_clip(model(), FILMS / "pan.mp4", 8)
    with pytest.raises(InputError, match="give the checkpoint of a model of clips"):
        trace_clip(load("photos"), FILMS / "pan.mp4")
