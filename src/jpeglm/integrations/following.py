"""A walk through the grammar that follows a sequence of ids as another program writes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jpeglm.config import InputError
from jpeglm.generation.matcher import Constraint, Matcher, Prompt
from jpeglm.tokenizer import Tokenizer

__all__ = ["begin", "catch_up", "head_length"]


def head_length(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """How many ids stand before a picture's: text, then BOS or a class; InputError without."""
    begins = (ids == tokenizer.bos) | ((ids > tokenizer.eos) & (ids < tokenizer.first_text))
    if not begins.any():
        raise InputError(
            f"a prompt has neither BOS ({tokenizer.bos}) nor a class, with which a picture begins"
        )
    return int(np.argmax(begins)) + 1


def begin(
    constraint: Constraint,
    ids: np.ndarray,
    max_tokens: int | None = None,
    prompt: Prompt | None = None,
) -> Matcher:
    """A walk that stands behind `ids`, int [T], the whole of what is given.

    max_tokens: of ids and all that follow. prompt: what forces more than its ids say (the leading
    bits of a byte, the spans of a hole); `ids` begin with its own. InputError where they begin no
    stream, or none can end in time. A stream that is whole may have its EOS, and more as padding.
    """
    ids = np.asarray(ids, np.int32)
    if prompt is not None:
        known = len(prompt.ids)
        if ids[:known].tolist() != prompt.ids.tolist():
            raise InputError("the ids that are given do not begin with those of their prompt")
        matcher = Matcher(constraint, prompt, max_tokens)
        if not catch_up(matcher, ids[known:].tolist()):
            raise InputError("the ids behind a prompt cannot follow it")
        return matcher
    tokenizer = constraint.tokenizer
    head = head_length(tokenizer, ids)
    rest = ids[head:]
    whole = head + len(rest) - int(np.argmin(np.append(rest[::-1] == tokenizer.eos, False)))
    inside = ids[head:whole]
    if len(strange := inside[(inside >= tokenizer.bos) & (inside <= tokenizer.hole)]):
        raise InputError(
            f"a prompt has the id {strange[0]} behind its head, which is none of a picture's"
        )
    matcher = Matcher(constraint, Prompt(ids[:whole], np.zeros(0, np.int32), head=head), max_tokens)
    if whole < len(ids) and not matcher.accept(tokenizer.eos):
        raise InputError(f"a prompt has EOS ({tokenizer.eos}) before its picture is whole")
    return matcher


def catch_up(matcher: Matcher, ids: Sequence[int]) -> bool:
    """Take the ids one after the other; False at the first that the grammar does not allow."""
    return all(matcher.accept(token) for token in ids)
