"""Sampling under the grammar: always valid, in budget, faithful to prompt and seed."""

import shutil

import numpy as np
import pytest

from jpeglm.checkpoint import write_checkpoint
from jpeglm.codecs import make_codec
from jpeglm.config import InputError, Sampling
from jpeglm.evaluation.validity import judge
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.loading import load
from jpeglm.generation.matcher import Constraint, Prompt, make_prompt
from jpeglm.generation.nucleus import nucleus
from jpeglm.generation.sampling import choose, make_draw
from jpeglm.syntax.alphabet import ALPHABETS, Prefix
from jpeglm.tokenizer import Tokenizer

from .conftest import begin, mask_at, random_llama, take


def start(tokenizer):
    return Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))


def brute_force_mask(tokenizer, state, left):
    """The definition: every symbol legal in turn, and the shortest ending in time."""
    grammar = tokenizer.alphabet.grammar()
    mask = np.zeros(tokenizer.vocab_size, bool)
    if grammar.complete(state):
        mask[tokenizer.eos] = True
        return mask
    for token, symbols in enumerate(tokenizer.spelling):
        trial = state.copy()
        mask[token] = all(grammar.advance(trial, s) for s in symbols) and (
            grammar.shortest(trial) <= left - 2
        )
    return mask


def test_mask_is_the_definition(tokenizer, pictures):
    constraint = Constraint(tokenizer)
    grammar = tokenizer.alphabet.grammar()
    stream = tokenizer.codec.encode(pictures[0])
    state = grammar.start()
    for token in tokenizer.encode_stream(stream):
        shortest = grammar.shortest(state)
        for left in (1 << 30, shortest + 1, shortest + 4, shortest + 30):
            expected = brute_force_mask(tokenizer, state, left)
            assert (mask_at(constraint, state, left) == expected).all()
            assert expected.any()
        assert mask_at(constraint, state)[token]
        take(constraint, state, int(token))
    assert mask_at(constraint, state).nonzero()[0].tolist() == [tokenizer.eos]


GEOMETRIES = [
    ("4:2:0", 64, 48, 0),
    ("4:2:0", 64, 48, 1),
    ("4:2:0", 64, 48, 3),
    ("4:2:0", 64, 48, 5),  # the last interval has two MCUs
    ("4:2:0", 32, 32, 30),  # longer than the picture
    ("4:4:4", 40, 24, 4),
    ("4:2:2", 48, 24, 2),
    ("gray", 40, 40, 7),
]


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: "-".join(map(str, g)))
def test_masks_that_are_found_again_are_those_computed_anew(alphabet, geometry, pictures):
    """Blind walks through several streams, the running DC values pushed to their limits. Where each
    ends, jpegtran finds nothing to change."""
    subsampling, width, height, interval = geometry
    settings = {"subsampling": subsampling, "width": width, "height": height}
    codec = make_codec({"codec": "jpeg", **settings, "restart_interval": interval})
    size = max(420, codec.alphabet(alphabet).size + 160)
    tokenizer = Tokenizer.train(map(codec.encode, pictures), codec, alphabet, size)
    constraint, anew = Constraint(tokenizer), Constraint(tokenizer)
    rng = np.random.default_rng(interval)
    grammar, seen = constraint.grammar, 0
    streams = []
    for turn in range(6):
        ids = []
        state = grammar.start()
        while not grammar.complete(state):
            anew.masks.used[0] = len(anew.masks.legal)  # no room: row 0, computed each time
            mask = mask_at(constraint, state)
            assert (mask == mask_at(anew, state)).all()
            legal = np.flatnonzero(mask)
            # Every other walk favours late tokens, which are the merged and the large ones.
            token = rng.choice(legal[-20:] if turn % 2 else legal)
            take(constraint, state, int(token))
            ids.append(int(token))
            seen += 1
        streams.append(tokenizer.decode_stream(np.array(ids)))
    assert 1 < constraint.masks.used[0] < seen
    for stream in streams:
        assert codec.check(stream).valid
    if shutil.which("djpeg") and shutil.which("jpegtran"):
        told = judge(codec, streams)
        assert told["djpeg_silent"] == len(streams) and not told["differs_though_dc_fits"]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 3.0])
def test_every_sample_is_a_canonical_stream_within_budget(tokenizer, engine, temperature):
    constraint = Constraint(tokenizer)
    shortest = tokenizer.alphabet.grammar().shortest(tokenizer.alphabet.grammar().start())
    for budget in (shortest + 2, shortest + 9, 500):
        sampling = Sampling(temperature, top_k=0 if temperature > 1 else 20)
        ids, bits = draw_ids(engine, constraint, start(tokenizer), 3, sampling, 1, budget)
        for row, cost in zip(ids, bits):
            assert len(row) + 1 <= budget and row[-1] == tokenizer.eos and cost > 0
            assert tokenizer.codec.check(tokenizer.decode_stream(row)).valid


def test_completions_keep_every_mcu_as_given(tokenizer, engine, pictures):
    """At every cut, also inside a token or a byte: the stream begins with the prompt's bits."""
    constraint = Constraint(tokenizer)
    codec = tokenizer.codec
    plain = codec.alphabet("jpeg-symbols")
    stream = codec.encode(pictures[0])
    whole = tokenizer.alphabet.name == "jpeg-coarse-symbols"  # have no prefixes of MCUs
    for units in (0, codec.units) if whole else range(codec.units + 1):
        prefix = tokenizer.alphabet.prefix(stream, units)
        prompt = make_prompt(tokenizer, prefix, tokenizer.bos)
        ids, _ = draw_ids(engine, constraint, prompt, 2, Sampling(), seed=units)
        given = plain.prefix(stream, units).symbols
        for row in ids:
            completion = tokenizer.decode_stream(np.concatenate([prompt.ids, row]))
            assert codec.check(completion).valid
            assert (plain.split(completion)[: len(given)] == given).all()
            if units == codec.units:
                assert completion == stream


def test_a_prompt_may_end_at_any_symbol(tokenizer, engine, pictures):
    constraint = Constraint(tokenizer)
    symbols = tokenizer.alphabet.split(tokenizer.codec.encode(pictures[1]))
    for cut in range(0, len(symbols), 7):
        prompt = make_prompt(tokenizer, Prefix(symbols[:cut]), tokenizer.bos)
        ids, _ = draw_ids(engine, constraint, prompt, 1, Sampling(), seed=cut)
        whole = tokenizer.decode(np.concatenate([prompt.ids, ids[0]]))
        assert (whole[:cut] == symbols[:cut]).all()


def test_same_seed_same_picture_in_any_batch(tokenizer, engine):
    constraint = Constraint(tokenizer)
    whole, _ = draw_ids(engine, constraint, start(tokenizer), 7, Sampling(), 5, batch=7)
    for batch in (1, 2, 3):
        again, _ = draw_ids(engine, constraint, start(tokenizer), 7, Sampling(), 5, batch=batch)
        assert all((a == b).all() for a, b in zip(whole, again, strict=True))
    other, _ = draw_ids(engine, constraint, start(tokenizer), 1, Sampling(), 6)
    assert len(other[0]) != len(whole[0]) or (other[0] != whole[0]).any()
    assert len({row.tobytes() for row in whole}) == 7


def test_bits_are_the_models_own(tokenizer, engine):
    """Σ −log2 softmax(logits)[token], from a second, teacher-forced pass."""
    ids, bits = draw_ids(engine, Constraint(tokenizer), start(tokenizer), 1, Sampling(0.8, 30, 0.9))
    logits = begin(engine, [np.array([tokenizer.bos])])
    total = 0.0
    for token in ids[0]:
        row = logits[0].astype(np.float64)
        total -= (row[token] - np.log(np.exp(row - row.max()).sum()) - row.max()) / np.log(2)
        logits = engine.step(np.array([token]))
    assert bits[0] == pytest.approx(total, rel=1e-6)


def test_a_budget_that_cannot_hold_a_picture_is_refused(tokenizer, engine):
    with pytest.raises(InputError, match="--max-tokens"):
        draw_ids(engine, Constraint(tokenizer), start(tokenizer), 1, Sampling(), 0, max_tokens=4)


def test_without_grammar_the_budget_ends_it(tokenizer, engine):
    sampling = Sampling(grammar=False)
    ids, _ = draw_ids(engine, Constraint(tokenizer), start(tokenizer), 4, sampling, 0, 50)
    for row in ids:
        assert len(row) <= 49
        assert tokenizer.codec.show(tokenizer.decode_stream(row)).size == (48, 32)


def test_choose_follows_the_stated_order():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    everything = np.ones(4, bool)
    scratch = np.empty(4, np.float32), np.empty(4, np.int64)

    def share(mask, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
        draw = make_draw(Sampling(temperature, top_k, top_p, min_p))
        drawn = [choose(logits, mask, draw, (i + 0.5) / 1000, *scratch)[0] for i in range(1000)]
        return np.bincount(drawn, minlength=4) / 1000

    assert share(everything) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=2e-3)
    assert share(everything, top_k=2) == pytest.approx([5 / 8, 3 / 8, 0, 0], abs=2e-3)
    # The token that crosses top_p stays in (Holtzman et al. 2020).
    assert share(everything, top_p=0.6) == pytest.approx([5 / 8, 3 / 8, 0, 0], abs=2e-3)
    # The nucleus is the model's; of it the legal remain, not a nucleus of the legal.
    assert share(np.array([0, 1, 1, 1], bool), top_p=0.6) == pytest.approx([0, 1, 0, 0])
    # A share of the most probable token's chance, legal or not (Nguyen et al. 2024).
    assert share(everything, min_p=0.3) == pytest.approx([10 / 19, 6 / 19, 3 / 19, 0], abs=2e-3)
    assert share(np.array([0, 1, 1, 1], bool), min_p=0.31) == pytest.approx([0, 1, 0, 0])
    assert share(everything, top_k=2, min_p=0.7) == pytest.approx([1, 0, 0, 0])
    # Nothing in the nucleus is legal: the most probable legal token.
    assert share(np.array([0, 0, 1, 1], bool), top_k=2) == pytest.approx([0, 0, 1, 0])
    assert share(everything, temperature=0.0) == pytest.approx([1, 0, 0, 0])
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    assert share(everything, temperature=0.5) == pytest.approx(squared / squared.sum(), abs=2e-3)


@pytest.mark.parametrize("top_k", [0, 1, 5, 40, 300])
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999])
def test_the_nucleus_is_that_of_a_sorted_list(top_k, top_p):
    """Equal weights, of which there are many here, count in the order of their tokens."""
    rng = np.random.default_rng(top_k)
    place = np.empty(500, np.int64)
    for _ in range(20):
        weight = np.exp(np.round(rng.normal(0, 2, 500))).astype(np.float32)
        order = np.argsort(-weight, kind="stable")[: top_k or None]
        mass = np.cumsum(weight[order].astype(np.float64))
        expected = order[: 1 + int(np.argmax(mass >= top_p * mass[-1]))]
        total = float(weight.astype(np.float64).sum())
        count = nucleus(weight, total, top_k, top_p, place)
        assert place[::-1][:count].tolist() == expected.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": float("nan")},
    ],
)
def test_sampling_settings_are_checked(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Sampling(**settings)


def test_guidance_is_its_formula(pictures):
    """Teacher forcing by hand: the logits that tokens were chosen from, of both runs."""
    codec = make_codec({"codec": "jpeg", "width": 32, "height": 32, "quality": 25})
    tokenizer = Tokenizer.train([codec.encode(p) for p in pictures], codec, n_classes=3)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 64))
    prompt = Prompt(np.array([tokenizer.class_token(2)], np.int32), np.zeros(0, np.int32))
    greedy = Sampling(temperature=0.0, grammar=False, guidance=2.5)
    (ids,), (bits,) = draw_ids(engine, Constraint(tokenizer), prompt, 1, greedy, max_tokens=20)
    runs = [begin(engine, [np.array([first])])[0] for first in (prompt.ids[0], tokenizer.bos)]
    both = begin(engine, [prompt.ids, np.array([tokenizer.bos])])
    assert (both == runs).all()
    total = 0.0
    for token in ids:
        mixed = both[1] + np.float32(2.5) * (both[0] - both[1])
        assert mixed[token] == mixed[: tokenizer.eos + 1].max()
        mixed = mixed.astype(np.float64) - mixed.max()
        total += (np.log(np.exp(mixed).sum()) - mixed[token]) / np.log(2)
        both = engine.step(np.array([token, token]))
    assert bits == pytest.approx(total, rel=1e-5)


def test_guided_pictures(pictures, tmp_path):
    codec = make_codec({"codec": "jpeg", "width": 32, "height": 32, "quality": 25})
    tokenizer = Tokenizer.train([codec.encode(p) for p in pictures], codec, n_classes=3)
    config, weights = random_llama(tokenizer.vocab_size, 512)
    write_checkpoint(tmp_path, weights, config, tokenizer, "")
    model = load(tmp_path)
    plain = model.generate(3, label=1, seed=5).streams
    assert model.generate(3, label=1, seed=5, guidance=1.0).streams == plain
    guided = model.generate(3, label=1, seed=5, guidance=3.0)
    assert guided.streams != plain and guided.settings["guidance"] == 3.0
    assert model.generate(3, label=1, seed=5, guidance=3.0, batch=2).streams == guided.streams
    for stream in guided.streams:
        assert codec.check(stream).valid
    # With no weight on the class, every class draws what none draws.
    free = model.generate(2, seed=5).streams
    assert model.generate(2, label=2, seed=5, guidance=0.0).streams == free
    with pytest.raises(InputError, match="guidance needs a class"):
        model.generate(1, guidance=2.0)
