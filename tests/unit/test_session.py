"""One walk for every use: rows come and go, and each is what it would be alone."""

import threading

import numpy as np
import pytest

from jpeglm.checkpoint import load_checkpoint
from jpeglm.codecs import make_codec
from jpeglm.config import InputError, Sampling
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.given import Given
from jpeglm.generation.loading import load
from jpeglm.generation.matcher import Constraint, Prompt, bare_prompt, make_prompt
from jpeglm.generation.requests import Request
from jpeglm.generation.session import Session
from jpeglm.places import shipped_checkpoint
from jpeglm.tokenizer import Tokenizer

from .conftest import hugging_face, random_llama


@pytest.fixture(scope="module")
def tokenizer(pictures):
    codec = make_codec({"codec": "jpeg", "width": 32, "height": 32, "quality": 25})
    return Tokenizer.train([codec.encode(p) for p in pictures], codec, n_classes=3)


@pytest.fixture(scope="module")
def weights(tokenizer):
    return random_llama(tokenizer.vocab_size, 400)


@pytest.fixture(scope="module")
def constraint(tokenizer):
    return Constraint(tokenizer)


@pytest.fixture(scope="module")
def requests(tokenizer, pictures):
    """Everything that may differ from row to row."""
    streams = [tokenizer.codec.encode(picture) for picture in pictures]
    nothing = bare_prompt(tokenizer.bos)
    prompts = [
        nothing,
        bare_prompt(tokenizer.class_token(1)),
        bare_prompt(tokenizer.class_token(2)),
    ]
    for stream in streams[:3]:
        prefix = tokenizer.alphabet.prefix(stream, 2)
        prompts.append(make_prompt(tokenizer, prefix, tokenizer.bos))
    kinds = [
        Sampling(), Sampling(0.7, 20, 0.9), Sampling(0.0), Sampling(grammar=False),
        Sampling(1.2, guidance=2.0),
    ]  # fmt: skip
    made = []
    for i in range(40):
        prompt, chooser = prompts[i % len(prompts)], kinds[i % len(kinds)]
        if chooser.guidance != 1 and prompt.ids[0] <= tokenizer.eos:
            prompt = prompts[1]
        made.append(Request(prompt, chooser, i // 7, i, 300 if i % 3 else None, tag=i))
    for stream in streams:
        ids = np.concatenate([tokenizer.encode_stream(stream), [tokenizer.eos]])
        if len(ids) < 400:
            made.append(Request(nothing, Given(ids), tag=len(made)))
    assert sum(isinstance(request.chooser, Given) for request in made) >= 3
    return made


@pytest.fixture(scope="module")
def alone(weights, constraint, requests):
    """What each gives in a session of its own."""
    engine, found = CpuEngine(*weights, threads=1), []
    for request in requests:
        (event,) = Session(engine, constraint).run([request])
        found.append((event.ids.tolist(), event.nats.tolist(), event.total))
        assert event.unit.shape == event.ids.shape and (np.diff(event.unit) >= 0).all()
    return found


def test_a_drawn_token_knows_its_unit_as_a_given_one_does(weights, constraint, requests):
    """Of whole streams under the grammar: what is drawn, read again."""
    session = Session(CpuEngine(*weights, threads=1), constraint)
    for seed in range(3):
        drawn = Request(requests[0].prompt, Sampling(1.0, 20), seed, watch="token")
        parts = list(session.run([drawn]))
        ids, unit = (np.concatenate([getattr(e, name) for e in parts]) for name in ("ids", "unit"))
        (read,) = session.run([Request(drawn.prompt, Given(ids))])
        assert unit.tolist() == read.unit.tolist()
        assert unit[0] == len(drawn.prompt.forced) == 0 < unit[-1] == read.units
        np.testing.assert_allclose(np.concatenate([e.nats for e in parts]), read.nats, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_a_full_table_changes_nothing(weights, constraint, requests, alone, batch):
    session = Session(CpuEngine(*weights, threads=2), constraint)
    events = list(session.run(requests, batch))
    assert sorted(event.request.tag for event in events) == list(range(len(requests)))
    for event in events:
        assert (event.ids.tolist(), event.nats.tolist(), event.total) == alone[event.request.tag]
    assert session.tokens == sum(len(ids) for ids, _, _ in alone) and not session.busy


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_join_and_leave_at_any_moment_disturb_nobody(
    weights, constraint, requests, alone, seed
):
    """Some watch tokens, some units; a third is taken back on the way, some of them twice."""
    rng = np.random.default_rng(seed)
    session = Session(CpuEngine(*weights, threads=1), constraint, rows=int(rng.integers(2, 12)))
    waiting = list(rng.permutation(len(requests)))
    told, numbers, left, ended = {}, {}, set(), set()
    while waiting or session.busy:
        while waiting and rng.random() < 0.3:
            tag = int(waiting.pop())
            asked = requests[tag]
            watch = str(rng.choice(["token", "unit", "end"]))
            own = Request(
                asked.prompt, asked.chooser, asked.seed, asked.picture, asked.max_tokens, watch, tag
            )
            numbers[session.add(own)] = tag
        if numbers and rng.random() < 0.05:
            number = int(rng.choice(list(numbers)))
            session.remove(number)
            if numbers[number] not in ended:
                left.add(numbers[number])
        for event in session.step():
            tag = numbers[event.number]
            assert tag == event.request.tag and tag not in left | ended
            ids, nats = told.setdefault(tag, ([], []))
            ids += event.ids.tolist()
            nats += event.nats.tolist()
            if event.ended:
                ended.add(tag)
                assert (ids, nats, event.total) == alone[tag]
            else:
                assert ids == alone[tag][0][: len(ids)] and event.ids.size
    assert left and ended and not left & ended and len(left | ended) == len(requests)


def test_eight_threads_at_once(weights, constraint, requests, alone):
    session = Session(CpuEngine(*weights, threads=2), constraint)
    found, wrong = {}, []

    def work(first):
        try:
            for event in session.run(requests[first::8], batch=3):
                found[event.request.tag] = event.ids.tolist(), event.nats.tolist(), event.total
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [found[tag] for tag in range(len(requests))] == alone


@pytest.mark.parametrize("kind", ["TorchEngine", "GraphEngine"])
def test_engines_of_torch_take_rows_as_they_come(weights, constraint, requests, alone, kind):
    """Their sums follow the batch, so a token may flip; nearly all streams are the same."""
    pytest.importorskip("transformers")
    from jpeglm.generation import engine_cuda, engine_torch

    model = hugging_face(*weights)
    engine = getattr(engine_cuda if kind == "GraphEngine" else engine_torch, kind)(model)
    session = Session(engine, constraint)
    same = 0
    for event in session.run(requests, batch=6):
        ids, nats, _ = alone[event.request.tag]
        same += event.ids.tolist() == ids
        if event.reading:
            np.testing.assert_allclose(event.nats, nats, atol=1e-3)
    assert same >= len(requests) - 2 and engine.sequences == 0


def test_a_device_follows_guidance_and_refills(pictures):
    """Guided and free rows in one burst; forced prompts begin on the host."""
    pytest.importorskip("transformers")
    from jpeglm.generation.engine_cuda import GraphEngine

    codec = make_codec({"codec": "jpeg", "width": 48, "height": 32, "restart_interval": 1})
    streams = [codec.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams, codec, "jpeg-block-symbols", 420, n_classes=3)
    constraint = Constraint(tokenizer)
    config, weights = random_llama(tokenizer.vocab_size, 500)
    bursts = []

    class Watched(GraphEngine):
        def decode_on_device(self, *arguments):
            bursts.append((arguments[6] != 1).sum())
            return super().decode_on_device(*arguments)

    prompts = [bare_prompt(tokenizer.class_token(k)) for k in range(3)]
    prefix = tokenizer.alphabet.prefix(streams[0], 2)
    prompts.append(make_prompt(tokenizer, prefix, tokenizer.class_token(1)))
    made = [
        Request(prompts[i % 4], Sampling(1.0, 30 * (i % 2), 0.9, guidance=1 + i % 3), 3, i, tag=i)
        for i in range(14)
    ]
    host = Session(CpuEngine(config, weights), constraint)
    expected = {e.request.tag: e for e in host.run(made)}
    device = Session(Watched(hugging_face(config, weights)), constraint)
    found = {e.request.tag: e for e in device.run(made, batch=4)}
    same = [found[i].ids.tolist() == expected[i].ids.tolist() for i in range(14)]
    assert sum(same) >= 13 and max(bursts) >= 2
    for i in np.flatnonzero(same):
        np.testing.assert_allclose(found[i].nats, expected[i].nats, atol=1e-3)
        assert found[i].units == expected[i].units == codec.units


def test_prompts_are_computed_once_also_by_rows_that_come_later(weights, constraint, requests):
    engine = CpuEngine(*weights, threads=1)
    computed = []
    compute = engine._compute

    def counted(tokens, *rest, **more):
        computed.append(tokens.shape[1])
        return compute(tokens, *rest, **more)

    engine._compute = counted
    prompt = next(r.prompt for r in requests if len(r.prompt.ids) > 20)
    for batch in (3, 1):
        computed.clear()
        ids, _ = draw_ids(engine, constraint, prompt, 7, Sampling(), batch=batch)
        once = len(prompt.ids) if batch == 3 else 0  # the second call finds it where it was
        assert sum(computed) == once + sum(len(row) - 1 for row in ids)


def test_a_batch_stays_full_while_there_is_work(weights, constraint, tokenizer):
    engine = CpuEngine(*weights, threads=1)
    widths = []
    step = engine.step
    engine.step = lambda ids: (widths.append(len(ids)), step(ids))[1]
    ids, _ = draw_ids(engine, constraint, bare_prompt(tokenizer.bos), 30, Sampling(), 4, batch=6)
    total = sum(len(row) - 1 for row in ids)
    assert sum(widths) == total
    # A row that has ended is missed for one step; only the last six run out.
    assert len(widths) <= (total + len(ids)) / 6 + max(map(len, ids))


def test_a_step_that_fails_ends_it_for_all_and_the_next_call_works(weights, constraint, tokenizer):
    engine = CpuEngine(*weights, threads=1)
    session = Session(engine, constraint)
    step = engine.step
    calls = []

    def stopped(ids):
        calls.append(len(ids))
        if len(calls) == 9:
            raise KeyboardInterrupt
        return step(ids)

    engine.step = stopped
    other = session.add(Request(bare_prompt(tokenizer.bos)))
    with pytest.raises(KeyboardInterrupt):
        list(session.run([Request(bare_prompt(tokenizer.bos), picture=i) for i in range(3)]))
    (event,) = session.step()
    assert event.number == other and event.ended
    with pytest.raises(InputError, match="stopped"):
        raise event.error
    assert not session.busy and engine.sequences == 0
    again = [event.ids for event in session.run([Request(bare_prompt(tokenizer.bos))])]
    expected, _ = draw_ids(engine, constraint, bare_prompt(tokenizer.bos), 1, Sampling())
    assert again[0].tolist() == expected[0].tolist()


@pytest.mark.parametrize("where", ["join", "add", "step", "read"])
def test_a_failure_anywhere_leaves_nobody_waiting(weights, constraint, tokenizer, where):
    """Rows, rows that are joining, and streams that are read are told; who waits goes on."""
    engine = CpuEngine(*weights, threads=1)
    session = Session(engine, constraint, rows=3)
    given = Given(np.array([*np.arange(90) % 50, tokenizer.eos]))
    asked = [Request(bare_prompt(tokenizer.bos), picture=i) for i in range(2)]
    numbers = [session.add(request) for request in asked]
    numbers.append(session.add(Request(bare_prompt(tokenizer.bos), given)))
    read = engine.read

    def broken(*_):
        raise KeyboardInterrupt

    def half(ids):
        yield next(read(ids))
        raise KeyboardInterrupt

    owner = session._rows if where == "join" else engine
    if where in ("join", "add"):
        setattr(owner, where, broken)
    else:
        if where == "read":
            engine.read = half
        assert not session.step()
        if where == "step":
            engine.step = broken
    late = [session.add(Request(bare_prompt(tokenizer.bos), picture=i)) for i in (5, 6, 7)]
    with pytest.raises(KeyboardInterrupt):
        session.step()
    owner.__dict__.pop(where)
    told = {}
    while session.busy:
        for event in session.step():
            assert event.ended and event.number not in told
            told[event.number] = event
    assert set(told) == {*numbers, *late}
    lost = {*numbers, late[0]} - ({numbers[2]} if where == "step" else set())  # was read before
    assert {number for number in told if told[number].error} == lost
    assert told[late[2]].ids[-1] == tokenizer.eos and engine.sequences == 0


def test_an_end_that_comes_with_a_step_that_fails_is_told(weights, constraint, tokenizer):
    engine = CpuEngine(*weights, threads=1)
    session = Session(engine, constraint)
    for i in range(4):
        session.add(Request(bare_prompt(tokenizer.bos), picture=i))
    step, told = engine.step, []

    def stopped(ids):
        if len(ids) < 4:
            raise KeyboardInterrupt
        return step(ids)

    engine.step = stopped
    with pytest.raises(KeyboardInterrupt):
        while session.busy:
            told += session.step()
    told += session.step()
    assert len(told) == 4 and sum(event.error is None for event in told) == 1


def test_who_has_left_is_told_nothing(weights, constraint, tokenizer):
    """Not even the end that comes in the step during which somebody leaves."""
    engine = CpuEngine(*weights, threads=1)
    session = Session(engine, constraint)
    read = engine.read

    def left(ids):
        for piece in read(ids):
            session.remove(number)
            yield piece

    engine.read = left
    number = session.add(Request(bare_prompt(tokenizer.bos), Given(np.arange(20))))
    assert not session.step() and not session.busy


def test_a_stream_may_be_given_behind_a_prompt(weights, constraint, tokenizer, pictures):
    """Its tokens cost what they cost in the whole stream, under the grammar too."""
    session = Session(CpuEngine(*weights, threads=1), constraint)
    ids = np.concatenate(
        [tokenizer.encode_stream(tokenizer.codec.encode(pictures[5])), [tokenizer.eos]]
    )
    half = len(ids) // 2
    (whole,) = session.run([Request(bare_prompt(tokenizer.bos), Given(ids))])
    prompt = Prompt(np.array([tokenizer.bos, *ids[:half]], np.int32), np.zeros(0, np.int32))
    (rest,) = session.run([Request(prompt, Given(ids[half:]))])
    assert rest.ids.tolist() == ids[half:].tolist()
    assert (rest.reading.costs == whole.reading.costs[:, half:]).all()
    assert (rest.reading.units == whole.reading.units[half:]).all()
    assert np.isfinite(rest.reading.costs).all() and rest.units == tokenizer.codec.units


def test_a_loop_that_is_left_frees_its_rows(weights, constraint, tokenizer):
    session = Session(CpuEngine(*weights, threads=1), constraint)
    run = session.run([Request(bare_prompt(tokenizer.bos), watch="token") for _ in range(5)])
    next(run)
    run.close()
    assert not session.step() and not session.busy and session.engine.sequences == 0


def test_what_fits_no_context_is_refused_when_it_is_handed_in(weights, constraint, tokenizer):
    session = Session(CpuEngine(*weights, threads=1), constraint)
    with pytest.raises(InputError, match="--max-tokens"):
        session.add(Request(bare_prompt(tokenizer.bos), max_tokens=4))
    with pytest.raises(InputError, match="context 400"):
        session.add(Request(bare_prompt(tokenizer.bos), Given(np.zeros(401, np.int64))))
    with pytest.raises(InputError, match="guidance needs a class"):
        session.add(Request(bare_prompt(tokenizer.bos), Sampling(guidance=2.0)))
    assert not session.busy


@pytest.fixture(scope="module")
def model():
    return load("photos")


def test_threads_may_share_a_model(model):
    def draw(number):
        return model.generate(2, seed=number).streams

    expected = [draw(number) for number in range(4)]
    found = [None] * 4
    threads = [threading.Thread(target=lambda n=n: found.__setitem__(n, draw(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_iterate_shows_what_generate_draws(model):
    drawn = model.generate(2, seed=3)
    steps = list(model.iterate(n=2, seed=3))
    assert len(steps) >= 2 * model.codec.units
    for number in range(2):
        own = [step for step in steps if step.number == number]
        units = [step.units for step in own if not step.ended]
        assert units == sorted(units) and set(range(1, model.codec.units)) <= {*units}
        assert own[-1].ended and own[-1].ids.tolist() == drawn.ids[number].tolist()
        assert own[-1].bits == drawn.bits[number]
        assert np.array_equal(own[-1].image, drawn.images[number])
        half = next(step for step in own if step.units == model.codec.units // 2)
        whole, part = np.asarray(drawn.images[number], int), np.asarray(half.image, int)
        top = slice(0, model.codec.config.height // 2 - 8)
        assert np.abs(whole[top] - part[top]).max() <= 1


def test_a_score_is_what_drawing_said(model):
    drawn = model.generate(2, seed=8)
    for stream, ids, bits in zip(drawn.streams, drawn.ids, drawn.bits):
        request = Request(bare_prompt(model.tokenizer.bos), Given(ids))
        (event,) = model.session.run([request])
        assert event.bits == pytest.approx(bits, rel=1e-12)
        # The sampler may spell a stream in other tokens than the tokenizer does.
        (score,) = model.score_streams([stream])
        assert score.ids[:-1].tolist() == model.tokenizer.encode_stream(stream).tolist()
        assert (score.legal_bits <= score.bits + 1e-6).all() and score.legal_bits.min() >= 0
        assert len(score.of_units) == model.codec.units and (score.of_units > 0).all()
        assert score.of_units.sum() == pytest.approx(score.bits.sum())
    photo = drawn.images[0].resize((300, 200))
    (again,) = model.score_streams([model.codec.encode(photo)])
    assert (model.score(photo).bits == again.bits).all()


def test_a_sampling_option_that_there_is_not_is_named(model):
    with pytest.raises(InputError, match="'top_q'"):
        model.generate(1, top_q=3)
    opened = load_checkpoint(shipped_checkpoint())
    assert (
        model.sampling(model.prompts.bare(None, None), top_k=None).top_k
        == opened.generation["top_k"]
    )


def test_a_checkpoints_own_guidance_is_for_what_is_said(monkeypatch):
    """A default that a prompt without class or text cannot have does not refuse it."""
    model = load("cifar10")
    plain = model.generate(1, seed=3, label=2, guidance=1).streams
    guided = model.generate(1, seed=3, label=2, guidance=3).streams
    free = model.generate(1, seed=3).streams
    monkeypatch.setitem(model.checkpoint.generation, "guidance", 3.0)
    assert plain != guided
    assert model.generate(1, seed=3, label=2).streams == guided
    assert model.generate(1, seed=3, label=2, guidance=1).streams == plain
    assert model.generate(1, seed=3).streams == free


def test_a_picture_is_watched_in_one_of_two_ways(model):
    with pytest.raises(InputError, match="'unit' or by 'token'"):
        next(model.iterate(every="x"))


def test_a_caller_who_fails_leaves_nothing_running(model):
    def wrong(*_):
        raise RuntimeError

    with pytest.raises(RuntimeError) as kept:  # whose traceback holds the frames
        model.generate(5, batch=2, each=wrong)
    model.session.step()
    assert not model.session.busy and kept.value is not None


@pytest.mark.parametrize("more", [-1, 17])
def test_a_model_of_other_tokens_is_refused(constraint, tokenizer, more):
    """Rows of logits that are narrower or wider than masks would be read past their end."""
    engine = CpuEngine(*random_llama(tokenizer.vocab_size + more, 400))
    with pytest.raises(InputError, match=f"model has {tokenizer.vocab_size + more} tokens"):
        Session(engine, constraint)
