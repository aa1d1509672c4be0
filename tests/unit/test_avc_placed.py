"""Addresses in place of skip runs: the same streams, no dead ends, a prompt that is kept."""

from itertools import pairwise

import numpy as np
import pytest

from jpeglm.config import Sampling
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.matcher import Constraint, Prompt, make_prompt
from jpeglm.syntax import avc
from jpeglm.syntax.avc import placed as avc_placed
from jpeglm.syntax.avc.symbols import SKIP, TYPE_I
from jpeglm.syntax.grammar import Grammar
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama
from .test_avc import moving

av = pytest.importorskip("av", reason="the extra video is not installed")

from jpeglm.codecs.avc import AvcCodec, AvcConfig, complaints  # noqa: E402

CONFIGS = {
    "default": AvcConfig(64, 48, 4, qp=30),
    "thrice": AvcConfig(64, 48, 4, qp=30, slices=3),
    "paper": AvcConfig(48, 32, 5, encoder="paper"),
}


@pytest.fixture(params=CONFIGS)
def codec(request):
    return AvcCodec(CONFIGS[request.param])


def test_streams_come_back(codec, pictures):
    alphabet, plain = codec.alphabet("avc-placed-symbols"), codec.alphabet("avc-symbols")
    rows, columns = codec.config.height // 16, codec.config.width // 16
    assert alphabet.size == plain.size - 13 + rows + 1 + columns
    still = np.full(codec.shape, 90, np.uint8)
    for clip in [moving(picture, codec.config) for picture in pictures] + [still]:
        stream = codec.encode(clip)
        symbols = alphabet.split(stream)
        assert alphabet.join(symbols) == stream
        grammar = alphabet.grammar()
        state, starts = grammar.start(), [0]
        for number, symbol in enumerate(symbols):
            # What is said of a macroblock's place is where the machine takes it to be.
            assert grammar.advance(state, int(symbol))
            if state[avc.KIND] == avc.TYPE_P and state[-2] == 2:
                column = int(symbols[number]) - alphabet.spec.rows - rows - 1
                assert state[avc.MB] == state[-1] * columns + column
            if state[avc.FRAME] == len(starts):
                starts.append(number + 1)
        assert grammar.complete(state)
        for units, start in enumerate(starts):
            assert (alphabet.prefix(stream, units).symbols == symbols[:start]).all()


@pytest.mark.parametrize("first", [[0], [0, 4, 8], [0, 6], [0, 5, 7, 10], list(range(12))], ids=str)
def test_an_address_is_of_a_macroblock_that_is_left_in_the_slice(first):
    """Rows, columns and the slice's end, wherever in a row slices begin; in an I frame none is left
    out."""
    columns, rows = 4, 3
    spec = avc_placed.avc_placed_spec(avc.avc_spec(3, columns, rows, first))
    grammar = Grammar(spec, avc_placed.symbol_count(spec))
    end, column = spec.rows + rows, spec.rows + rows + 1
    for number, (start, stop) in enumerate(pairwise([*first, columns * rows])):
        for mb in range(start, stop):
            for frame in (0, 1):
                state = grammar.start()
                state[avc.KIND] = SKIP if frame else TYPE_I
                state[avc.FRAME], state[avc.SLICE], state[avc.MB] = frame, number, mb
                left = range(mb, stop) if frame else [mb]
                found = set(np.flatnonzero(grammar.allowed(state)).tolist())
                addresses = {spec.rows + place // columns for place in left}
                assert found == addresses | ({end} if frame else set())
                for row in addresses:
                    below = state.copy()
                    assert grammar.advance(below, row)
                    found = set(np.flatnonzero(grammar.allowed(below)).tolist())
                    here = [place for place in left if spec.rows + place // columns == row]
                    assert found == {column + place % columns for place in here}


@pytest.mark.slow
def test_random_legal_symbols_are_valid_clips(codec):
    alphabet, rng = codec.alphabet("avc-placed-symbols"), np.random.default_rng(3)
    grammar = alphabet.grammar()
    for number in range(5):
        state, drawn = grammar.start(), []
        while not grammar.complete(state):
            legal = np.flatnonzero(grammar.allowed(state))
            assert len(legal), "a dead end"
            drawn.append(int(rng.choice(legal[: (3, 9, None, None, None)[number]])))
            assert grammar.advance(state, drawn[-1])
        stream = alphabet.join(np.array(drawn))
        assert (alphabet.split(stream) == drawn).all()
        assert complaints(codec, stream) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["avc-placed-symbols", "avc-symbols"])
def test_there_is_always_a_way_out(name):
    codec = AvcCodec(AvcConfig(48, 32, 3, qp=30, slices=2))
    grammar, rng = codec.alphabet(name).grammar(), np.random.default_rng(4)
    growth = {"avc-placed-symbols": avc_placed.GROWTH, "avc-symbols": avc.GROWTH}[name]
    for _ in range(3):
        state = grammar.start()
        while not grammar.complete(state):
            need, found = grammar.shortest(state), {}
            for symbol in np.flatnonzero(grammar.allowed(state)):
                trial = state.copy()
                assert grammar.advance(trial, int(symbol))
                found[int(symbol)] = (grammar.shortest(trial), trial)
            lengths = [length for length, _ in found.values()]
            assert min(lengths) <= need - 1 and max(lengths) <= need + growth
            state = found[int(rng.choice(list(found)))][1]
        assert grammar.shortest(state) == 0


@pytest.mark.parametrize("name", ["avc-placed-symbols", "avc-symbols"])
@pytest.mark.parametrize("size", [(64, 64, 1), (96, 96, 2), (256, 128, 3)], ids=str)
def test_the_flat_way_is_as_long_as_it_says(name, size):
    """Each flat symbol comes one nearer to the end, whatever was said before, in slices whose skip
    runs take one chunk of bits and in those that take two."""
    width, height, slices = size
    codec = AvcCodec(AvcConfig(width, height, 3, slices=slices))
    flat = {"avc-placed-symbols": avc_placed, "avc-symbols": avc}[name].flat_symbol
    alphabet, rng = codec.alphabet(name), np.random.default_rng(6)
    grammar = alphabet.grammar()
    state = grammar.start()
    while not grammar.complete(state):
        need = grammar.shortest(state)
        if rng.random() < 0.1:
            assert any(grammar.advance(state, int(s)) for s in rng.permutation(alphabet.size))
        else:
            assert grammar.advance(state, int(flat(alphabet.spec, state)))
            assert grammar.shortest(state) == need - 1
    assert grammar.shortest(state) == 0


def test_any_symbols_become_a_valid_clip(codec, pictures):
    alphabet, rng = codec.alphabet("avc-placed-symbols"), np.random.default_rng(5)
    symbols = alphabet.split(codec.encode(moving(pictures[0], codec.config)))
    broken = symbols.copy()
    broken[len(broken) // 2] = (broken[len(broken) // 2] + 1) % alphabet.size
    for some in (symbols[:0], symbols[:99], broken, rng.integers(0, alphabet.size, 300)):
        stream = alphabet.join(some)
        assert codec.check(stream).valid
        assert complaints(codec, stream) == []


def test_sampling_under_the_grammar(pictures):
    codec = AvcCodec(AvcConfig(48, 32, 3, qp=34))
    streams = [codec.encode(moving(picture, codec.config)) for picture in pictures[:6]]
    tokenizer = Tokenizer.train(streams, codec, "avc-placed-symbols", 500)
    constraint = Constraint(tokenizer)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 1024))
    empty = Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))
    least = constraint.grammar.shortest(constraint.grammar.start()) + 2
    for budget in (least, least + 30, 900):
        ids, _ = draw_ids(engine, constraint, empty, 2, Sampling(), budget, budget)
        for row in ids:
            assert row[-1] == tokenizer.eos
            assert complaints(codec, tokenizer.decode_stream(row)) == []
    prompt = make_prompt(tokenizer, tokenizer.alphabet.prefix(streams[0], 2), tokenizer.bos)
    for row in draw_ids(engine, constraint, prompt, 2, Sampling(), 0, 1000)[0]:
        made = tokenizer.decode_stream(np.concatenate([prompt.ids, row]))
        assert (codec.decode(made)[:2] == codec.decode(streams[0])[:2]).all()
