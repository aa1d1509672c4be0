"""H.264 slices: losslessness on x264's streams, random legal streams judged by FFmpeg."""

import hashlib
import io
import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.config import InputError, Sampling
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.matcher import Constraint, Prompt, make_prompt
from jpeglm.syntax import avc
from jpeglm.syntax.avc.neighbours import area_fits, has_above, has_corner, has_left
from jpeglm.syntax.avc.tables import CBP_INTER, CBP_INTRA, LENGTH, LOOKUP, TABLES
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama

av = pytest.importorskip("av", reason="the extra video is not installed")

from jpeglm.codecs.avc import AvcCodec, AvcConfig, complaints  # noqa: E402
from jpeglm.evaluation.coders import avc_bits  # noqa: E402
from jpeglm.evaluation.validity import judge_clips  # noqa: E402
from jpeglm.syntax.avc.nal import Bits, escape, read_header, split_nals, ue, unescape  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden" / "avc.json"
SMALL = AvcConfig(64, 48, 5)


def moving(picture: Image.Image, config: AvcConfig, step: int = 3) -> np.ndarray:
    """A pan over a picture with a square that moves against it."""
    wide = picture.resize((config.width + 100, config.height + 60))
    frames = []
    for i in range(config.frames):
        box = (i * step, i, i * step + config.width, i + config.height)
        frame = np.array(wide.crop(box))
        frame[10:20, 30 - i : 40 - i] = (250, 240, 30)
        frames.append(frame)
    return np.stack(frames)


def draw(spec, rng, emptiness):
    """Uniformly random legal symbols; `emptiness` is the share of blocks without coefficients."""
    state, drawn = avc.start_state(spec), []
    while state[avc.KIND] != avc.END:
        kind = int(state[avc.KIND])
        order = rng.permutation(np.arange(avc.BASE[kind], avc.BASE[kind + 1]))
        if kind in (avc.COEFF, avc.COEFF_DC) and rng.random() < emptiness:
            order[0] = avc.BASE[kind]
        for symbol in order:
            trial = state.copy()
            if avc.step(spec, trial, int(symbol)):
                state = trial
                drawn.append(int(symbol))
                break
        else:
            pytest.fail(f"no symbol of kind {avc.NAMES[kind]} is legal")
    return np.array(drawn, np.int32)


def test_vlc_tables_are_prefix_codes():
    for table in range(TABLES):
        lengths = LENGTH[table][LENGTH[table] > 0]
        total = float((0.5 ** lengths.astype(float)).sum())
        # The standard leaves some codes unused; none may overlap another.
        assert total <= 1 and (LOOKUP[table] >= 0).mean() == pytest.approx(total)
    assert sorted(CBP_INTRA) == sorted(CBP_INTER) == list(range(48))
    assert avc.symbol_count(1) == 385 and avc.symbol_count(3) == 401 and len(avc.TOKEN) == 62


def test_neighbours_are_macroblocks_of_the_same_slice():
    """6.4.8, for slices that begin anywhere in a row: one above may be there, its left one not."""
    columns, rows = 5, 4
    for first in ([0], [0, 5, 10], [0, 7], [0, 6, 8, 13], list(range(20))):
        spec = avc.avc_spec(1, columns, rows, first)
        slices = np.searchsorted(first, np.arange(columns * rows), "right")
        state = avc.start_state(spec)
        for mb, number in enumerate(slices):
            state[avc.MB], state[avc.SLICE] = mb, number - 1
            for ask, x, y in ((has_left, -1, 0), (has_above, 0, -1), (has_corner, -1, -1)):
                column, row = mb % columns + x, mb // columns + y
                there = column >= 0 and row >= 0 and slices[row * columns + column] == number
                assert bool(ask(spec, state)) == there
            around = has_left(spec, state), has_above(spec, state), has_corner(spec, state)
            assert bool(area_fits(spec, state, 0, 1, 3)) == all(around)  # plane reads all three


def test_exp_golomb_is_the_standards():
    """Table 9-2 and 9-3."""
    assert [ue(n) for n in range(6)] == ["1", "010", "011", "00100", "00101", "00110"]
    bits = Bits(int("1" + "010" + "011" + "00100" + "00101" + "0" * 7, 2).to_bytes(3, "big"))
    assert [bits.se() for _ in range(5)] == [0, 1, -1, 2, -2]


def test_emulation_prevention():
    for rbsp in (b"\0\0\0", b"\0\0\1\0\0\2", b"\0\0\3", b"ab\0\0\0\0\1", b"\0\0\4", b"\0\0\0\0\0"):
        nal = escape(rbsp)
        assert unescape(nal) == rbsp
        assert not any(bytes([0, 0, i]) in nal for i in range(3))


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("qp", [20, 37])
def test_streams_of_x264_are_lossless(slices, qp, pictures):
    codec = AvcCodec(AvcConfig(64, 48, 5, qp=qp, slices=slices))
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    flat = np.full((5, 48, 64, 3), 90, np.uint8)
    for clip in [moving(p, codec.config) for p in pictures] + [noise, flat]:
        stream = codec.encode(clip)
        symbols, starts = codec.symbols.inspect(stream)
        assert codec.symbols.join(symbols) == stream
        assert starts[0] == 0 and starts[-1] == len(symbols) and (np.diff(starts) > 0).all()
        assert len(split_nals(stream)) == 5 * slices
        assert codec.check(stream).valid
        assert complaints(codec, stream) == []


def test_golden_hash(pictures):
    """The bytes are the same in every PyAV and on every machine; JPEGLM_REGENERATE=1 rewrites."""
    codec = AvcCodec(SMALL)
    stream = codec.encode(moving(pictures[0], SMALL))
    found = {
        "stream": hashlib.sha256(stream).hexdigest(),
        "fingerprint": codec.fingerprint,
        "symbols": hashlib.sha256(codec.symbols.split(stream).tobytes()).hexdigest(),
    }
    assert codec.encode(moving(pictures[0], SMALL)) == stream
    if os.environ.get("JPEGLM_REGENERATE"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("encoder", ["default", "thrice", "paper"])
def test_random_legal_streams_are_valid(encoder):
    thrice = AvcConfig(64, 48, 3, slices=3)
    configs = {"default": AvcConfig(64, 48, 3), "thrice": thrice, "paper": PAPER}
    codec = AvcCodec(configs[encoder])
    for seed in range(6):
        symbols = draw(codec.spec, np.random.default_rng(seed), (0, 0.5, 0.95)[seed % 3])
        stream = codec.symbols.join(symbols)
        assert (codec.symbols.split(stream) == symbols).all()
        assert complaints(codec, stream) == []


def test_any_symbols_become_a_valid_clip(pictures):
    """`join` never fails: what is missing or illegal becomes flat."""
    codec = AvcCodec(SMALL)
    symbols, starts = codec.symbols.inspect(codec.encode(moving(pictures[1], SMALL)))
    rng = np.random.default_rng(1)
    broken = symbols.copy()
    broken[len(broken) // 2] = (broken[len(broken) // 2] + 1) % avc.SYMBOLS
    for some in (symbols[:0], symbols[:777], symbols[: starts[2]], broken,
                 rng.integers(0, avc.SYMBOLS, 500)):  # fmt: skip
        stream = codec.symbols.join(some)
        assert codec.check(stream).valid
        assert complaints(codec, stream) == []


def tokenizer_and_engine(pictures, config, max_length):
    codec = AvcCodec(config)
    streams = [codec.encode(moving(picture, config)) for picture in pictures]
    tokenizer = Tokenizer.train(streams, codec, "avc-symbols", 500)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, max_length))
    return codec, streams, tokenizer, engine


@pytest.mark.parametrize("slices", [1, 2])
def test_a_model_of_random_weights_writes_valid_clips(slices, pictures, tmp_path):
    """Sampling under the grammar, BPE on top, in budgets from scarce to ample."""
    config = AvcConfig(48, 32, 3, slices=slices)
    codec, streams, tokenizer, engine = tokenizer_and_engine(pictures, config, 3000)
    assert len(tokenizer.merges) > 50
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint
    for stream in streams:
        assert tokenizer.decode_stream(tokenizer.encode_stream(stream)) == stream
    constraint = Constraint(tokenizer)
    start = Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))
    least = constraint.grammar.shortest(constraint.grammar.start()) + 2
    for budget in (least, least + 30, 3000):
        drawn, _ = draw_ids(engine, constraint, start, 4, Sampling(), budget, max_tokens=budget)
        for ids in drawn:
            assert ids[-1] == tokenizer.eos and len(ids) < budget
            stream = tokenizer.decode_stream(ids)
            assert (codec.symbols.split(stream) == tokenizer.decode(ids)).all()
            assert complaints(codec, stream) == []
    with pytest.raises(InputError, match="token budget"):
        draw_ids(engine, constraint, start, 1, Sampling(), max_tokens=least - 1)


def test_continuations_keep_the_frames_given(pictures):
    config = AvcConfig(48, 32, 4)
    codec, streams, tokenizer, engine = tokenizer_and_engine(pictures, config, 4000)
    constraint = Constraint(tokenizer)
    for frames in range(5):
        prefix = tokenizer.alphabet.prefix(streams[0], frames)
        prompt = make_prompt(tokenizer, prefix, tokenizer.bos)
        (ids,), _ = draw_ids(engine, constraint, prompt, 1, Sampling(temperature=0.7), frames)
        stream = tokenizer.decode_stream(np.concatenate([prompt.ids, ids]))
        assert complaints(codec, stream) == []
        kept = codec.decode(streams[0])[:frames]
        assert (codec.decode(stream)[:frames] == kept).all()


def test_shortest_is_a_way_that_works(pictures):
    codec = AvcCodec(AvcConfig(48, 32, 3, slices=2))
    spec = codec.spec
    for seed in range(4):
        symbols = draw(spec, np.random.default_rng(seed), 0.8)
        state = avc.start_state(spec)
        for symbol in symbols[: 40 * (seed + 1)]:
            assert avc.step(spec, state, int(symbol))
        need = int(avc.shortest(spec, state))
        for left in range(need, 0, -1):
            assert avc.shortest(spec, state) == left
            assert avc.step(spec, state, int(avc.flat_symbol(spec, state)))
        assert avc.complete(spec, state) and avc.shortest(spec, state) == 0


def test_cut_keeps_the_first_frames(pictures):
    codec = AvcCodec(SMALL)
    clip = moving(pictures[2], SMALL)
    stream = codec.encode(clip)
    shown = codec.decode(stream)
    for units in range(1, 6):
        cut = codec.decode(codec.cut(stream, units))
        assert (cut[:units] == shown[:units]).all()
        # Nothing moves after the cut but what deblocking and prediction carry on.
        assert all((cut[i] == cut[units - 1]).all() for i in range(units, 5))


def test_damage_is_told(pictures):
    codec = AvcCodec(SMALL)
    stream = codec.encode(moving(pictures[0], SMALL))
    for damaged, words in (
        (stream[: len(stream) // 2], "slice"),
        (stream[:-1], "slice 4"),
        (stream + b"\0\0\1\x41\x9a", "data follows the last frame"),
        (b"", "ends in frame 0"),
        (stream[3:], "slice header is not"),
        (stream.replace(b"\0\0\1\x65", b"\0\0\1\x41", 1), "slice header is not"),
    ):
        with pytest.raises(InputError, match=words):
            codec.symbols.split(damaged)
    found = 0
    rng = np.random.default_rng(0)
    for _ in range(40):
        flipped = bytearray(stream)
        flipped[int(rng.integers(12, len(stream)))] ^= 1 << int(rng.integers(8))
        if not codec.check(bytes(flipped)).valid:
            found += 1
        else:
            # What we call canonical FFmpeg must find nothing wrong with.
            assert complaints(codec, bytes(flipped)) == []
    assert found > 15
    assert complaints(codec, stream[: len(stream) // 2])


PAPER = AvcConfig(64, 48, 6, encoder="paper")


def test_the_papers_setting(pictures):
    """A slice for each macroblock, three references as soon as there are three frames."""
    codec = AvcCodec(PAPER)
    used = np.zeros(avc.SYMBOLS, bool)
    for picture in pictures:
        clip = moving(picture, PAPER)
        clip[2::2] = clip[:-2:2]  # every other frame comes again: older references pay
        stream = codec.encode(clip)
        symbols = codec.symbols.split(stream)
        assert codec.symbols.join(symbols) == stream and complaints(codec, stream) == []
        assert len(split_nals(stream)) == 6 * 12
        used[symbols] = True
    assert used[avc.BASE[avc.REF] + 1] and not used[avc.BASE[avc.REF] + 3 :].any()
    assert codec.fingerprint != AvcCodec(AvcConfig(64, 48, 6)).fingerprint
    assert codec.symbols.size == 401 and codec.symbols.symbol_name(386) == "reference 1"
    with pytest.raises(InputError, match="slices"):
        AvcConfig(64, 48, 6, slices=2, encoder="paper")


@pytest.mark.parametrize(
    "wrong", [{"width": 20}, {"qp": 60}, {"slices": 9}, {"frames": 0}, {"fps": 0}]
)
def test_bad_settings_in_one_sentence(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        AvcConfig(**{"width": 64, "height": 48, **wrong})


def test_bits_without_headers(pictures):
    """Slice data, headers, trailing bits and start codes are all there is; x264's own headers."""
    codec = AvcCodec(AvcConfig(64, 48, 5, slices=3))
    stream = codec.encode(moving(pictures[0], codec.config))
    nals = split_nals(stream)
    headers = sum(8 + read_header(nal, codec.sets).size for nal in nals)
    assert codec.symbols.header_bits == headers
    rbsps = [unescape(nal[1:]) for nal in nals]
    trailing = sum(len(f"{rbsp[-1]:08b}".split("1")[-1]) + 1 for rbsp in rbsps)
    whole = 8 * sum(len(rbsp) + 1 for rbsp in rbsps)
    assert codec.symbols.payload_bits(stream) == whole - headers - trailing
    bits = avc_bits(codec, [stream])
    assert bits["cavlc"][0] == codec.symbols.payload_bits(stream)
    assert 0.7 < bits["cabac"][0] / bits["cavlc"][0] < 1


def test_mp4_plays_what_the_stream_shows(pictures):
    codec = AvcCodec(AvcConfig(64, 48, 5, fps=2.5))
    stream = codec.encode(moving(pictures[0], codec.config))
    with av.open(io.BytesIO(codec.wrap(stream))) as film:
        frames = list(film.decode(video=0))
        assert film.streams.video[0].average_rate == Fraction(5, 2)
    shown = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert (shown == codec.decode(stream)).all()
    assert [float(frame.time) for frame in frames] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6])
    assert codec.wrap(b"no stream").endswith(b"no stream")


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed (Debian: ffmpeg)")
def test_two_judges_agree(pictures):
    codec = AvcCodec(SMALL)
    good = [codec.encode(moving(picture, SMALL)) for picture in pictures[:3]]
    broken = [stream[: len(stream) * 2 // 3] for stream in good] + [b"\0\0\1\x65\xff\xff"]
    assert judge_clips(codec, good)[0] == {"pyav_silent": 3, "ffmpeg_silent": 3}
    assert judge_clips(codec, broken)[0] == {"pyav_silent": 0, "ffmpeg_silent": 0}


def test_a_slice_is_no_longer_than_a_skip_run_can_be():
    """14,400 macroblocks in one slice could neither be read nor left out; in two they are."""
    with pytest.raises(InputError, match=r"1920 × 1920 pixels.*set slices to 2"):
        AvcConfig(1920, 1920, 2)
    AvcConfig(1920, 1088, 2)
    codec = AvcCodec(AvcConfig(1920, 1920, 2, slices=2))
    stream = codec.encode(np.full(codec.shape, 90, np.uint8))
    for name in ("avc-symbols", "avc-placed-symbols"):
        alphabet = codec.alphabet(name)
        symbols = alphabet.split(stream)
        assert alphabet.join(symbols) == stream
        assert codec.check(alphabet.join(symbols[:0])).valid
