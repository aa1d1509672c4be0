"""A grammar walking along one stream: accept, fork, roll back, and how far it is to the end."""

import numpy as np
import pytest

from jpeglm.config import InputError
from jpeglm.generation.matcher import Constraint, Matcher, make_prompt

from .conftest import mask_at, take


@pytest.fixture(scope="module")
def constraint(tokenizer):
    return Constraint(tokenizer)


def test_it_takes_a_stream_and_ends(tokenizer, constraint, pictures):
    stream = tokenizer.codec.encode(pictures[0])
    matcher = Matcher(tokenizer)
    state = constraint.grammar.start()
    seen = 0
    for token in tokenizer.encode_stream(stream).tolist():
        allowed = matcher.allowed()
        assert (allowed == mask_at(constraint, state)).all()
        for wrong in np.flatnonzero(~allowed)[:3].tolist():
            assert not matcher.accept(wrong)
        assert not matcher.complete and matcher.accept(token)
        take(constraint, state, token)
        assert matcher.units >= seen
        seen = matcher.units
    assert matcher.complete and matcher.units == tokenizer.codec.units
    assert matcher.tokens_to_end == 1 and not matcher.ended
    assert matcher.allowed().nonzero()[0].tolist() == [tokenizer.eos]
    assert matcher.accept(tokenizer.eos) and matcher.ended and matcher.complete
    assert not matcher.allowed().any() and matcher.tokens_to_end == 0
    assert not matcher.accept(tokenizer.eos) and not matcher.accept(-1)
    assert tokenizer.decode_stream(np.array(matcher.ids)) == stream


def test_forks_and_rollbacks_leave_each_other_alone(tokenizer, constraint):
    """Random walks with random steps back, against walks that never took them."""
    rng = np.random.default_rng(0)
    walks = [Matcher(constraint)]
    for _ in range(300):
        matcher = walks[rng.integers(len(walks))]
        kind = rng.random()
        if kind < 0.1 and len(walks) < 8:
            walks.append(matcher.fork())
        elif kind < 0.25:
            matcher.rollback(int(rng.integers(0, len(matcher.ids) + 1)) // 3)
        elif not matcher.ended:
            assert matcher.accept(int(rng.choice(np.flatnonzero(matcher.allowed()))))
    assert len(walks) > 3
    for matcher in walks:
        straight = Matcher(constraint)
        assert all(map(straight.accept, matcher.ids))
        assert (straight.allowed() == matcher.allowed()).all()
        assert straight.tokens_to_end == matcher.tokens_to_end
    with pytest.raises(InputError, match="taken back"):
        walks[0].rollback(len(walks[0].ids) + 1)


def test_the_way_to_the_end_is_no_longer_than_told(tokenizer, constraint):
    """Within a budget of exactly so many tokens, every choice still ends."""
    rng = np.random.default_rng(1)
    least = Matcher(constraint).tokens_to_end + 1  # BOS
    for more in (0, 3, 40):
        matcher = Matcher(constraint, max_tokens=least + more)
        left = least + more - 1
        while not matcher.ended:
            assert matcher.tokens_to_end <= left
            assert matcher.accept(int(rng.choice(np.flatnonzero(matcher.allowed()))))
            left -= 1
        stream = tokenizer.decode_stream(np.array(matcher.ids))
        assert tokenizer.codec.check(stream).valid
    with pytest.raises(InputError, match="--max-tokens"):
        Matcher(constraint, max_tokens=least - 1)


def test_a_prompt_comes_first(tokenizer, constraint, pictures):
    if tokenizer.alphabet.name == "jpeg-coarse-symbols":
        pytest.skip("has no prefixes of MCUs")
    stream = tokenizer.codec.encode(pictures[1])
    rng = np.random.default_rng(2)
    units = tokenizer.codec.units // 2
    prompt = make_prompt(tokenizer, tokenizer.alphabet.prefix(stream, units), tokenizer.bos)
    matcher = Matcher(constraint, prompt, max_tokens=600)
    budget = 600 - len(prompt.ids)
    while not matcher.ended:
        assert matcher.tokens_to_end <= budget - len(matcher.ids)
        assert matcher.accept(int(rng.choice(np.flatnonzero(matcher.allowed()))))
    ids = np.concatenate([prompt.ids, matcher.ids])
    made = tokenizer.decode_stream(ids.astype(np.int64))
    plain = tokenizer.codec.alphabet("jpeg-symbols")
    given = plain.prefix(stream, units).symbols
    assert (plain.split(made)[: len(given)] == given).all()
