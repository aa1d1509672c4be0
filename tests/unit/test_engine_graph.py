"""Sampling on the device against sampling on the host, on a processor and where there is a GPU."""

import numpy as np
import pytest

from jpeglm.codecs import make_codec
from jpeglm.generation.automaton import build
from jpeglm.generation.constraint import Constraint, Prompt, make_prompt
from jpeglm.generation.generate import run
from jpeglm.generation.sampling import Sampling, _uniform
from jpeglm.generation.sampling import choose as choose_on_host
from jpeglm.tokenizer import Tokenizer

from .conftest import hugging_face, random_llama

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ],
    ),
]


def make_tokenizer(pictures, alphabet="jpeg-block-symbols", size=420, **settings):
    codec = make_codec({"codec": "jpeg", "width": 48, "height": 32, "quality": 25} | settings)
    return Tokenizer.train(map(codec.encode, pictures), codec, alphabet, size)


@pytest.fixture(scope="module")
def tokenizer(pictures):
    return make_tokenizer(pictures, restart_interval=1)


def random_walks(constraint, turns):
    """(state, token that was taken) of blind walks."""
    rng, grammar = np.random.default_rng(0), constraint.grammar
    for _ in range(turns):
        state = grammar.start()
        while not grammar.complete(state):
            token = int(rng.choice(np.flatnonzero(constraint.mask(state))))
            yield state.copy(), token
            constraint.advance(state, token)


@pytest.mark.parametrize("alphabet", ["jpeg-block-symbols", "jpeg-symbols"])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "gray"])
def test_tables_say_what_the_machine_says(pictures, alphabet, subsampling):
    from jpeglm.generation.engine_graph import Turn

    tokenizer = make_tokenizer(pictures, alphabet, restart_interval=1, subsampling=subsampling)
    constraint = Constraint(tokenizer)
    tables = build(constraint)
    turn = Turn.__new__(Turn)
    for name in ("after", "ended", "before", "need"):
        setattr(turn, name, torch.from_numpy(getattr(tables, name)))
    turn.eos = tables.eos
    for state, token in random_walks(constraint, 4):
        place, remaining = tables.places(state[None])
        turn.place, turn.remaining = torch.from_numpy(place), torch.from_numpy(remaining)
        least = constraint.grammar.shortest(state) + 2
        for left in (1 << 20, least, least + 3, least + 20):
            turn.left = torch.tensor([left])
            assert (turn.legal()[0].numpy() == constraint.mask(state, left)).all()
        constraint.advance(state, token)
        there, rest = tables.places(state[None])
        assert tables.after[place[0], token] == there[0] or not rest[0]
        assert rest[0] == remaining[0] - tables.ended[place[0], token]


def test_where_dc_values_may_leave_int16_there_are_no_tables(pictures):
    for settings in ({"restart_interval": 0}, {"restart_interval": 5}):
        codec = {"width": 128, "height": 128, **settings}
        assert build(Constraint(make_tokenizer(pictures, **codec))) is None
    for alphabet in ("bytes", "jpeg-coarse-symbols"):
        tokenizer = make_tokenizer(pictures, alphabet, restart_interval=1)
        assert build(Constraint(tokenizer)) is None


@pytest.mark.parametrize("top_k", [0, 1, 7, 60])
@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_device_chooses_what_the_host_chooses(top_k, top_p, temperature):
    from jpeglm.generation.engine_graph import choose

    rng = np.random.default_rng(1)
    logits = np.round(rng.normal(0, 3, (40, 60)), 1).astype(np.float32)  # with equal ones
    mask = rng.random((40, 60)) < 0.3
    mask[:, 5] = True
    uniform = rng.random(40)
    draw = Sampling(temperature, top_k, top_p).draw(0)
    weight, order = np.empty(60, np.float32), np.empty(60, np.int64)
    expected = [
        choose_on_host(row, legal, draw, u, weight, order)
        for row, legal, u in zip(logits, mask, uniform)
    ]
    token, nats = choose(
        torch.from_numpy(logits), torch.from_numpy(mask), draw, torch.from_numpy(uniform)
    )
    assert token.tolist() == [one for one, _ in expected]
    np.testing.assert_allclose(nats, [one for _, one in expected], rtol=1e-4, atol=1e-5)


def test_random_numbers_are_the_hosts():
    from jpeglm.generation.engine_graph import Turn

    turn = Turn.__new__(Turn)
    for seed, count in ((0, 0), (12345, 7), (2**40, 3000)):
        turn.seed = torch.tensor([seed])
        turn.pictures, turn.count = torch.arange(50), torch.tensor([count])
        expected = [_uniform(seed, picture, count, np.zeros(1, np.uint64)) for picture in range(50)]
        assert turn._uniform().tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_seed_gives_the_same_pictures_on_the_device(tokenizer, pictures, device, groups):
    """New pictures, and completions whose prompt ends inside a token, longer than one graph."""
    from jpeglm.generation.engine_graph import GraphEngine
    from jpeglm.generation.engine_torch import TorchEngine

    config, weights = random_llama(tokenizer.vocab_size, 700, num_key_value_heads=4 // groups)
    model = hugging_face(config, weights).to(device)
    constraint = Constraint(tokenizer)
    prefix = tokenizer.alphabet.prefix(tokenizer.codec.encode(pictures[0]), 2)
    prompts = [
        Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32)),
        make_prompt(tokenizer, prefix, tokenizer.bos),
    ]
    assert len(prompts[1].forced)
    longest = 0
    for prompt in prompts:
        for sampling in (Sampling(1.0, 40, 0.9), Sampling(1.5), Sampling(0.0)):
            arguments = (constraint, prompt, 5, sampling, 3, 600)
            expected, bits = run(TorchEngine(model), *arguments)
            engine = GraphEngine(model)
            run(engine, *arguments[:4], 4, 600)  # whose room and graphs are used again
            drawn, same_bits = run(engine, *arguments)
            assert [row.tolist() for row in drawn] == [row.tolist() for row in expected]
            np.testing.assert_allclose(same_bits, bits, rtol=1e-4)
            longest = max(longest, *map(len, drawn))
    assert longest > 256
