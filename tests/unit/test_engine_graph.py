"""Sampling on the device against sampling on the host, on a processor and where there is a GPU."""

import numpy as np
import pytest

from jpeglm.codecs import make_codec
from jpeglm.config import Sampling
from jpeglm.generation.device_tables import DeviceGrammar
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.matcher import Constraint, Prompt, make_prompt
from jpeglm.generation.sampling import _uniform, make_draw
from jpeglm.generation.sampling import choose as choose_on_host
from jpeglm.tokenizer import Tokenizer

from .conftest import hugging_face, mask_at, random_llama, take

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
            token = int(rng.choice(np.flatnonzero(mask_at(constraint, state))))
            yield state.copy(), token
            take(constraint, state, token)


def bare_state(tables=None):
    """A maker of states of slots, without a model."""
    from jpeglm.generation.engine_cuda import FLOATS, INTEGERS, State

    def make(**values):
        slots = len(next(iter(values.values())))
        state = State.__new__(State)
        state.device, state.slots = torch.device("cpu"), slots
        state.integers = torch.zeros((len(INTEGERS), slots), dtype=torch.int64)
        state.floats = torch.zeros((len(FLOATS), slots), dtype=torch.float64)
        state.put(**values)
        if tables:
            for name in ("after", "ended", "before", "need"):
                setattr(state, name, torch.from_numpy(getattr(tables, name)))
            state.eos = tables.eos
        return state

    return make


@pytest.mark.parametrize("alphabet", ["jpeg-block-symbols", "jpeg-symbols"])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "gray"])
def test_tables_say_what_the_machine_says(pictures, alphabet, subsampling):
    tokenizer = make_tokenizer(pictures, alphabet, restart_interval=1, subsampling=subsampling)
    constraint = Constraint(tokenizer)
    grammar = DeviceGrammar.build(constraint)
    state_of = bare_state(grammar.tables)
    for state, token in random_walks(constraint, 4):
        place, remaining = grammar.places(state[None])
        least = constraint.grammar.shortest(state) + 2
        for left in (1 << 20, least, least + 3, least + 20):
            device = state_of(place=place, remaining=remaining, left=np.array([left]))
            assert (device.legal()[0].numpy() == mask_at(constraint, state, left)).all()
        take(constraint, state, token)
        there, rest = grammar.places(state[None])
        assert grammar.tables.after[place[0], token] == there[0] or not rest[0]
        assert rest[0] == remaining[0] - grammar.tables.ended[place[0], token]


def test_where_dc_values_may_leave_int16_there_are_no_tables(pictures):
    for settings in ({"restart_interval": 0}, {"restart_interval": 5}):
        codec = {"width": 128, "height": 128, **settings}
        assert DeviceGrammar.build(Constraint(make_tokenizer(pictures, **codec))) is None
    for alphabet in ("bytes", "jpeg-coarse-symbols", "jpeg-placed-symbols"):
        tokenizer = make_tokenizer(pictures, alphabet, restart_interval=1)
        assert DeviceGrammar.build(Constraint(tokenizer)) is None


@pytest.mark.parametrize("top_k", [0, 1, 7, 60])
@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_device_chooses_what_the_host_chooses(top_k, top_p, min_p, temperature):
    from jpeglm.generation.engine_cuda import choose

    rng = np.random.default_rng(1)
    logits = np.round(rng.normal(0, 3, (40, 60)), 1).astype(np.float32)  # with equal ones
    mask = rng.random((40, 60)) < 0.3
    mask[:, 5] = True
    uniform = rng.random(40)
    draw = make_draw(Sampling(temperature, top_k, top_p, min_p))
    weight, order = np.empty(60, np.float32), np.empty(60, np.int64)
    expected = [
        choose_on_host(row, legal, draw, u, weight, order)
        for row, legal, u in zip(logits, mask, uniform)
    ]
    settings = {name: torch.full((40,), draw[name].item()) for name in draw.dtype.names}
    token, nats = choose(
        torch.from_numpy(logits), torch.from_numpy(mask), settings.get, torch.from_numpy(uniform)
    )
    assert token.tolist() == [one for one, _ in expected]
    np.testing.assert_allclose(nats, [one for _, one in expected], rtol=1e-4, atol=1e-5)


def test_random_numbers_are_the_hosts():
    for seed, count in ((0, 0), (12345, 7), (2**40, 3000)):
        pictures = np.arange(50)
        state = bare_state()(seed=np.full(50, seed), picture=pictures, count=np.full(50, count))
        expected = [_uniform(seed, picture, count, np.zeros(1, np.uint64)) for picture in pictures]
        assert state.uniform().tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_seed_gives_the_same_pictures_on_the_device(tokenizer, pictures, device, groups):
    """New pictures, and completions whose prompt ends inside a token, longer than one graph."""
    from jpeglm.generation.engine_cuda import GraphEngine
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
            expected, bits = draw_ids(TorchEngine(model), *arguments)
            engine = GraphEngine(model)
            draw_ids(engine, *arguments[:4], 4, 600)  # whose slots are used again
            drawn, same_bits = draw_ids(engine, *arguments)
            assert [row.tolist() for row in drawn] == [row.tolist() for row in expected]
            np.testing.assert_allclose(same_bits, bits, rtol=1e-4)
            longest = max(longest, *map(len, drawn))
    assert longest > 256


def test_without_tables_the_host_chooses(pictures):
    """Symbols that name their MCU, which tables of places would take for those of another one."""
    from jpeglm.generation.engine_cuda import GraphEngine
    from jpeglm.generation.engine_torch import TorchEngine

    tokenizer = make_tokenizer(pictures, "jpeg-placed-symbols", 440, restart_interval=1)
    model = hugging_face(*random_llama(tokenizer.vocab_size, 200))
    prompt = Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))
    arguments = (Constraint(tokenizer), prompt, 3, Sampling(1.0, 40), 3, 100)
    expected, _ = draw_ids(TorchEngine(model), *arguments)
    drawn, _ = draw_ids(GraphEngine(model), *arguments)
    assert [row.tolist() for row in drawn] == [row.tolist() for row in expected]
    for row in drawn:
        assert tokenizer.codec.check(tokenizer.decode_stream(row)).valid
