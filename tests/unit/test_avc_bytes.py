"""H.264 byte by byte: x264's streams are taken, random legal bytes are streams, no dead ends."""

from itertools import product

import numpy as np
import pytest

from jpeglm.config import Sampling
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.matcher import Constraint, Prompt, make_prompt
from jpeglm.syntax.avc import nal_bytes as avc_bytes
from jpeglm.syntax.avc.nal import escape
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama
from .test_avc import moving

av = pytest.importorskip("av", reason="the extra video is not installed")

from jpeglm.codecs.avc import AvcCodec, AvcConfig, complaints  # noqa: E402

CODECS = [AvcCodec(AvcConfig(64, 48, 3, slices=slices, qp=30)) for slices in (1, 3)]
CODECS.append(AvcCodec(AvcConfig(48, 32, 4, encoder="paper")))


def accepted(spec, symbols):
    """How many symbols the machine takes, and whether the stream is then complete."""
    state = avc_bytes.start_state(spec)
    for number, symbol in enumerate(symbols):
        if avc_bytes.complete(spec, state) or not avc_bytes.step(spec, state, int(symbol)):
            return number, False
    return len(symbols), bool(avc_bytes.complete(spec, state))


@pytest.mark.parametrize("codec", CODECS)
def test_streams_are_taken_and_come_back(codec, pictures):
    alphabet = codec.alphabet("bytes")
    for picture in pictures[:6]:
        stream = codec.encode(moving(picture, codec.config))
        symbols = alphabet.split(stream)
        assert len(symbols) == len(stream) - 2 * stream.count(b"\0\0\1")
        assert alphabet.join(symbols) == stream
        assert accepted(alphabet.spec, symbols) == (len(symbols), True)
        assert not accepted(alphabet.spec, symbols[:-1])[1]
        assert not accepted(alphabet.spec, np.append(symbols, 256))[1]
        slices = stream.count(b"\0\0\1") // codec.config.frames
        for units in range(4):
            prefix = alphabet.prefix(stream, units)
            assert prefix.bits == 0 and (symbols[: len(prefix.symbols)] == prefix.symbols).all()
            assert (prefix.symbols == 256).sum() == units * slices


def test_it_takes_what_the_reader_takes(pictures):
    """One flipped bit: both machines accept the stream, or neither does."""
    codec = CODECS[0]
    alphabet, rng = codec.alphabet("bytes"), np.random.default_rng(0)
    stream = codec.encode(moving(pictures[0], codec.config))
    verdicts = []
    for _ in range(300):
        flipped = bytearray(stream)
        flipped[int(rng.integers(len(stream)))] ^= 1 << int(rng.integers(8))
        verdicts.append(codec.check(bytes(flipped)).valid)
        if bytes(flipped).endswith(b"\0") or flipped.count(b"\0\0\1") != stream.count(b"\0\0\1"):
            continue  # no longer the same NAL units
        taken = accepted(alphabet.spec, alphabet.split(bytes(flipped)))[1]
        assert taken == verdicts[-1]
    assert 5 < sum(verdicts) < 295


def prevention(spec, state):
    """Behind 00 00 come no 0 to 2; behind 00 00 03 come 0 to 3 and nothing else, as far as they are
    legal without it (H.264 7.4.1)."""
    extra = len(state) - avc_bytes.FIELDS
    plain = state.copy()
    plain[extra + avc_bytes.ESCAPED] = plain[extra + avc_bytes.ZERO_BYTES] = 0
    for byte in range(5):
        taken = avc_bytes.step(spec, state.copy(), byte)
        if state[extra + avc_bytes.ESCAPED]:
            assert taken == (byte < 4 and avc_bytes.step(spec, plain.copy(), byte))
        elif state[extra + avc_bytes.ZERO_BYTES] >= 2:
            assert not taken or byte > 2


def walk(spec, rng, zeros, check=False):
    """Random legal symbols; `zeros` is the share of steps on which 0 and 3 are tried first."""
    state, drawn = avc_bytes.start_state(spec), []
    while not avc_bytes.complete(spec, state):
        need = int(avc_bytes.shortest(spec, state))
        prevention(spec, state)
        order = rng.permutation(avc_bytes.SYMBOLS)
        if rng.random() < zeros:
            order = np.concatenate([[0, 3, 1], order])
        chosen, least = None, []
        for symbol in order:
            trial = state.copy()
            if avc_bytes.step(spec, trial, int(symbol)):
                if chosen is None:
                    chosen = (int(symbol), trial)
                    if not check:
                        break
                least.append(int(avc_bytes.shortest(spec, trial)))
        assert chosen is not None, f"a dead end after {len(drawn)} symbols"
        if check:
            assert min(least) <= need - 1, "the way out is there"
            assert max(least) <= need + avc_bytes.GROWTH
        drawn.append(chosen[0])
        state = chosen[1]
        if len(drawn) > 4000:
            pytest.fail("the walk does not end")
    assert not avc_bytes.shortest(spec, state)
    return np.array(drawn, np.int32)


@pytest.mark.parametrize("codec", CODECS)
def test_random_legal_bytes_are_valid_clips(codec):
    alphabet, rng = codec.alphabet("bytes"), np.random.default_rng(1)
    escapes = 0
    for number in range(12):
        stream = alphabet.join(walk(alphabet.spec, rng, zeros=0.4 * (number % 2)))
        assert codec.check(stream).valid
        assert complaints(codec, stream) == []
        escapes += stream.count(b"\0\0\3")
    assert escapes > 3, "emulation prevention was put to the test"


@pytest.mark.parametrize("zeros", [0, 1, 2])
@pytest.mark.parametrize("count", range(9))
def test_most_escapes_is_what_the_worst_bytes_need(zeros, count):
    """Behind so many zero bytes, by the writer of NAL units."""
    tails = (bytes(tail) for tail in product((0, 4), repeat=count))
    needed = max(len(escape(bytes(zeros) + tail)) - zeros - count for tail in tails)
    assert avc_bytes._most_escapes(count, zeros) == needed


def test_there_is_always_a_way_out():
    codec = AvcCodec(AvcConfig(32, 32, 2, qp=30, slices=2))
    spec, rng = codec.alphabet("bytes").spec, np.random.default_rng(2)
    for number in range(4):
        walk(spec, rng, zeros=0.5 * (number % 2), check=True)


def test_sampling_bytes_under_the_grammar(pictures):
    """A model of random weights, whatever its budget: every clip is whole and FFmpeg is silent."""
    codec = AvcCodec(AvcConfig(32, 32, 3, qp=34))
    streams = [codec.encode(moving(picture, codec.config)) for picture in pictures[:6]]
    tokenizer = Tokenizer.train(streams, codec, "bytes", 300)
    assert tokenizer.n_base == 257 and len(tokenizer.merges) == 41
    for stream in streams:
        assert tokenizer.decode_stream(tokenizer.encode_stream(stream)) == stream
    config, weights = random_llama(tokenizer.vocab_size, 1024)
    engine, constraint = CpuEngine(config, weights), Constraint(tokenizer)
    empty = Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))
    least = int(avc_bytes.shortest(constraint.spec, avc_bytes.start_state(constraint.spec))) + 2
    for budget in (least, least + 20, 200):
        ids, _ = draw_ids(engine, constraint, empty, 3, Sampling(), budget, budget)
        for row in ids:
            assert row[-1] == tokenizer.eos
            assert complaints(codec, tokenizer.decode_stream(row)) == []
    prompt = make_prompt(tokenizer, tokenizer.alphabet.prefix(streams[0], 2), tokenizer.bos)
    ids, _ = draw_ids(engine, constraint, prompt, 2, Sampling(), 0, 600)
    for row in ids:
        made = tokenizer.decode_stream(np.concatenate([prompt.ids, row]))
        assert (codec.decode(made)[:2] == codec.decode(streams[0])[:2]).all()
        assert codec.check(made).valid
