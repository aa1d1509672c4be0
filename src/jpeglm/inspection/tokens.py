"""A stream's tokens as the model sees them: what it expected at each, and what was legal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.generation.matcher import Matcher
from jpeglm.generation.model import Model

SHOWN = 6
"""Of the likeliest next tokens."""


@dataclass(frozen=True)
class Choice:
    """A token in its place: what the model expected there."""

    token: int
    bits: float
    """−log2 of its probability."""
    legal_bits: float
    """The same where only legal tokens share the probability."""
    rank: int
    """Legal tokens that were likelier."""
    legal: int
    """Tokens that the grammar allowed."""
    illegal_mass: float
    """Probability that the model gave to the others."""
    likeliest: list[tuple[int, float, bool]]
    """(token, probability, whether it is legal) of the first SHOWN."""


def read_choices(
    model: Model, stream: bytes, label: int | str | None = None, text: str | None = None
) -> Iterator[list[Choice]]:
    """One for each token of a canonical stream, EOS included, behind its label and text; in the
    pieces that the engine reads. InputError where the model's context is too short."""
    tokenizer = model.tokenizer
    head = tokenizer.head(label, text)
    ids = np.concatenate([tokenizer.encode_stream(stream), [tokenizer.eos]])
    most, media = model.engine.max_length, model.codec.media
    if len(ids) + 1 > most:
        raise InputError(
            f"the {media} takes {len(ids) + 1} tokens, more than the model's context of {most}"
        )
    if len(head) + len(ids) > most:
        raise InputError(
            f"the words take {len(head)} tokens and the {media} {len(ids)}, together more than the "
            f"model's context of {most}; say less"
        )
    matcher = Matcher(model.constraint)
    at = 0
    before = len(head) - 1  # the last of the head's logits is for the first token
    for piece in model.engine.read(np.concatenate([head, ids[:-1]])):
        found = []
        for logits in piece[min(before, len(piece)) :]:
            found.append(_choice(logits, matcher.allowed(), int(ids[at])))
            legal = matcher.accept(found[-1].token)  # not inside the assert, which -O leaves out
            assert legal
            at += 1
        before = max(0, before - len(piece))
        yield found


def choices_of(
    model: Model, stream: bytes, label: int | str | None = None, text: str | None = None
) -> list[Choice]:
    """`read_choices`, all at once."""
    return list(chain.from_iterable(read_choices(model, stream, label, text)))


def _choice(logits: np.ndarray, legal: np.ndarray, token: int) -> Choice:
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    chances = weights / weights.sum()
    allowed = float(chances[legal].sum())
    first = np.argsort(-chances, kind="stable")[:SHOWN]
    return Choice(
        token=token,
        bits=float(-np.log2(chances[token])),
        legal_bits=float(-np.log2(chances[token] / allowed)),
        rank=int((chances[legal] > chances[token]).sum()),
        legal=int(legal.sum()),
        illegal_mass=1 - allowed,
        likeliest=[(int(one), float(chances[one]), bool(legal[one])) for one in first],
    )


def names_of(model: Model, told: list[dict[str, Any]]) -> dict[int, str]:
    """What the tokens that a trace speaks of say, symbol by symbol."""
    tokenizer = model.tokenizer
    spoken = {one["token"] for one in told}
    spoken |= {token for one in told for token, *_ in one["likeliest"]}
    return {token: token_name(tokenizer, token) for token in sorted(spoken)}


def token_name(tokenizer: Any, token: int) -> str:
    """`DC 3 · amp 011`: the names of a token's symbols."""
    if token < len(tokenizer.spelling):
        names = map(tokenizer.alphabet.symbol_name, tokenizer.spelling[token])
        return " · ".join(names)
    if token == tokenizer.eos:
        return "end"
    return "begin" if token == tokenizer.bos else f"token {token}"
