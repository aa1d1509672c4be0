"""A grammar walking along streams, token by token: for our sessions, and for decoders of others.

    matcher = Matcher(tokenizer)            # or Matcher(tokenizer, prompt, max_tokens=500)
    matcher.allowed()                       # bool [vocabulary]
    matcher.accept(token)
    matcher.fork(), matcher.rollback(2), matcher.complete, matcher.tokens_to_end

`Constraint` is what all walks of one tokenizer share: its tokens and the masks found so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from jpeglm.config import InputError, shorten
from jpeglm.generation.masks import (
    ADDRESS,
    AHEAD,
    LATER,
    NEXT,
    WALK,
    Vocabulary,
    advance,
    make_masks,
    token_mask,
)
from jpeglm.holes import spans as spans_of
from jpeglm.syntax.alphabet import Prefix
from jpeglm.syntax.machine import (
    before_last,
    complete,
    growth,
    limits,
    shortest,
    start_state,
    step,
    units,
)
from jpeglm.tokenizer import Tokenizer

__all__ = ["Constraint", "Matcher", "Prompt", "bare_prompt", "hole_prompt", "make_prompt"]

ENDLESS = 1 << 40
"""Tokens of a budget that bars nothing."""


@dataclass(frozen=True)
class Prompt:
    """A prefix as tokens that are certain, and symbols that the next tokens must spell.

    ids: int32, text, BOS (or class) and stable tokens; forced: int32 symbols; value, bits: the
    leading bits of the byte after them (bits = 0: none); head: how many ids are before the
    picture's; spans: int64 [S, 2] first unit and number of units of each span that a hole has, of
    which the first one's address is the last of ids.
    """

    ids: np.ndarray
    forced: np.ndarray
    value: int = 0
    bits: int = 0
    head: int = 1
    spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))


def begun(prompt: Prompt) -> bool:
    """Whether a part of the picture is given."""
    return len(prompt.ids) > prompt.head or len(prompt.forced) > 0 or prompt.bits > 0


def conditioned(prompt: Prompt, tokenizer: Tokenizer) -> bool:
    """Whether a class or a text says what is to be drawn."""
    return bool(prompt.ids[0] > tokenizer.eos)


def make_prompt(tokenizer: Tokenizer, prefix: Prefix, head: int | np.ndarray) -> Prompt:
    """Split a prefix at its last stable token; `head` is BOS or a class token, behind those of a
    text if there is one."""
    bare = bare_prompt(head)
    stable = tokenizer.stable(prefix.symbols)
    ids = np.concatenate([bare.ids, tokenizer.encode_symbols(prefix.symbols[:stable])])
    return Prompt(ids, prefix.symbols[stable:], prefix.value, prefix.bits, bare.head)


def bare_prompt(head: int | np.ndarray) -> Prompt:
    """A head as above, and nothing given."""
    ids = np.atleast_1d(head).astype(np.int32)
    return Prompt(ids, np.zeros(0, np.int32), head=len(ids))


def hole_prompt(
    tokenizer: Tokenizer, stream: bytes, hole: np.ndarray, head: int | np.ndarray
) -> Prompt:
    """What a canonical stream has outside `hole`, bool [units], which has at least one."""
    bare = bare_prompt(head)
    outside, _ = tokenizer.around(tokenizer.alphabet.split(stream), hole)
    spans = spans_of(hole)
    first = np.int32(tokenizer.hole + 1 + spans[0, 0])
    return Prompt(
        np.concatenate([bare.ids, outside, [first]]).astype(np.int32),
        bare.forced,
        head=bare.head,
        spans=spans,
    )


class Begin(NamedTuple):
    """Where a walk begins."""

    state: np.ndarray
    """The grammar's, where the prompt's stable tokens lead."""
    walk: np.ndarray
    """`WALK` [1]: what the prompt forces from there, and the budget."""
    spans: np.ndarray
    """int64 [S, NEXT + state]: those of a hole; the walk stands in the first one."""


class Constraint:
    """The grammar of a tokenizer's streams, made ready for its tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.grammar = tokenizer.alphabet.grammar()
        self.spec = self.grammar.spec
        tokens = len(tokenizer.spelling)
        parent = np.full(tokens, -1, np.int64)
        rest = tokenizer.offsets[:-1].copy()
        seen = set(range(tokenizer.n_base))
        place = {symbols: token for token, symbols in enumerate(tokenizer.spelling)}
        for left, right in tokenizer.merges.tolist():
            whole = place[tokenizer.spelling[left] + tokenizer.spelling[right]]
            if whole not in seen:
                seen.add(whole)
                parent[whole] = left
                rest[whole] += len(tokenizer.spelling[left])
        longest = int(np.diff(tokenizer.offsets).max())
        self.vocabulary = Vocabulary(
            tokenizer.offsets,
            tokenizer.symbols,
            parent,
            rest,
            growth(self.spec) * (longest + 1),
            tokenizer.eos,
            *limits(self.spec, tokenizer.spelling),
        )
        self.masks = make_masks(self.spec, tokens, tokenizer.vocab_size)

    def start(self, prompt: Prompt, budget: int, context: bool = False) -> Begin:
        """budget: tokens of prompt and continuation; one in which no stream can end is refused.
        context: whether it is all that the model has."""
        state = start_state(self.spec)
        for piece in np.split(prompt.ids, np.flatnonzero(prompt.ids > self.tokenizer.hole)):
            symbols = self.tokenizer.decode(piece)
            if len(piece) and piece[0] > self.tokenizer.hole:
                unit = int(piece[0]) - self.tokenizer.hole - 1
                state = before_last(self.spec, unit, self.tokenizer.addresses - unit)
            self._walk(state, symbols)
        trial = state.copy()
        self._walk(trial, prompt.forced)
        walk, spans = np.zeros(1, WALK), self._spans(prompt)
        if len(spans):
            state = trial = spans[0, NEXT:].copy()
            walk["span"], walk["spans"] = 1, len(spans)
            walk["later"], walk["ahead"] = spans[0, LATER], spans[0, AHEAD]
        need = int(shortest(self.spec, trial)) + (prompt.bits > 0)
        total = len(prompt.ids) + len(prompt.forced) + need + int(walk["later"][0]) + 1
        if total > budget:
            what, more = ("token budget", "raise --max-tokens")
            if context:
                what, more = ("model's context", "train one with a longer --max-length")
            raise InputError(
                f"the {what} is {budget}, but the prompt and the shortest completion take {total} "
                f"tokens; keep less, or {more}"
            )
        walk["known"], walk["value"], walk["bits"] = len(prompt.forced), prompt.value, prompt.bits
        walk["need"], walk["left"] = need, budget - len(prompt.ids)
        return Begin(state, walk, spans)

    def _walk(self, state: np.ndarray, symbols: np.ndarray) -> None:
        """Move a state on by what is given; InputError where that cannot be."""
        for symbol in symbols:
            if not step(self.spec, state, symbol):
                raise InputError("the prompt does not begin a stream of this codec")

    def check(self, prompt: Prompt, ids: np.ndarray) -> None:
        """InputError unless these tokens can stand behind a prompt, whatever their order says: a
        picture's, EOS, and the addresses of the spans that come, one after the other."""
        given, known = np.asarray(ids), len(self.tokenizer.spelling)
        others = given[((given < 0) | (given >= known)) & (given != self.tokenizer.eos)]
        due = self.tokenizer.hole + 1 + prompt.spans[1 : 1 + len(others), 0]
        if others.tolist() != due.tolist():
            raise InputError(
                f"a stream that is given has the ids {shorten(others.tolist())}, which are none of "
                "a picture's here"
            )

    def _spans(self, prompt: Prompt) -> np.ndarray:
        """`Begin.spans` of a prompt."""
        table = np.zeros((len(prompt.spans), NEXT + len(self.grammar.start())), np.int64)
        later = ahead = 0
        for row, (first, count) in zip(table[::-1], prompt.spans[::-1].tolist()):
            row[NEXT:] = before_last(self.spec, first, count)
            row[ADDRESS] = self.tokenizer.hole + 1 + first
            row[LATER], row[AHEAD] = later, ahead
            later, ahead = later + 1 + shortest(self.spec, row[NEXT:]), ahead + count
        return table


class Matcher:
    """One walk: what may come next, what has come, how long it takes to the end.

    prompt: what is given (`make_prompt`; default nothing, behind BOS); max_tokens: of prompt and
    stream together, within which the stream is held to end (default no limit).
    """

    def __init__(
        self,
        tokenizer: Tokenizer | Constraint,
        prompt: Prompt | None = None,
        max_tokens: int | None = None,
    ) -> None:
        own = tokenizer if isinstance(tokenizer, Constraint) else Constraint(tokenizer)
        self.constraint = own
        prompt = prompt or bare_prompt(own.tokenizer.bos)
        self._forced = np.ascontiguousarray(prompt.forced, np.int32)
        begin = own.start(prompt, ENDLESS if max_tokens is None else max_tokens)
        self._state, self._walk, self._spans = begin
        self._before: list[tuple[np.ndarray, np.ndarray]] = []
        self.ids: list[int] = []
        """Tokens accepted."""

    def __repr__(self) -> str:
        to_end = f"{self.tokens_to_end} to the end at least"
        return f"<Matcher: {len(self.ids)} tokens accepted, {self.units} units whole, {to_end}>"

    def allowed(self) -> np.ndarray:
        """bool [vocabulary]: the tokens that may come next; none when the stream has ended."""
        if self.ended:
            return np.zeros(self.constraint.tokenizer.vocab_size, bool)
        return self._legal().copy()

    def _legal(self) -> np.ndarray:
        shared = self.constraint
        row = token_mask(
            shared.spec, self._state, self._walk[0], self._forced, self._spans, shared.vocabulary,
            shared.masks,
        )  # fmt: skip
        legal: np.ndarray = shared.masks.legal[row]
        return legal

    def accept(self, token: int) -> bool:
        """Take a token; False, and nothing changed, when it is not allowed here."""
        shared = self.constraint
        if not 0 <= token < shared.tokenizer.vocab_size or self.ended or not self._legal()[token]:
            return False
        self._before.append((self._state.copy(), self._walk.copy()))
        if token != shared.vocabulary.eos:
            advance(shared.spec, self._state, self._walk[0], token, self._spans, shared.vocabulary)
        self._walk["left"] -= 1
        self.ids.append(int(token))
        return True

    def rollback(self, tokens: int = 1) -> None:
        """Take the last accepted tokens back."""
        if not 0 <= tokens <= len(self.ids):
            raise InputError(f"{tokens} tokens are to be taken back; {len(self.ids)} were accepted")
        if tokens:
            state, walk = self._before[-tokens]  # which a fork may hold as well
            self._state, self._walk = state.copy(), walk.copy()
            del self._before[-tokens:], self.ids[-tokens:]

    def fork(self) -> Self:
        """Another walk that begins where this one stands; it shares the masks found so far."""
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__
        other._state, other._walk = self._state.copy(), self._walk.copy()
        other._before, other.ids = list(self._before), list(self.ids)
        return other

    @property
    def ended(self) -> bool:
        """Whether EOS has been accepted."""
        return bool(self.ids) and self.ids[-1] == self.constraint.vocabulary.eos

    @property
    def complete(self) -> bool:
        """Whether the stream is whole: only EOS may follow."""
        walk = self._walk[0]
        whole = complete(self.constraint.spec, self._state) and walk["span"] == walk["spans"]
        return not self.tokens_to_end or bool(whole)

    @property
    def units(self) -> int:
        """Whole units (MCUs, frames, codes) so far."""
        return int(units(self.constraint.spec, self._state) - self._walk["ahead"][0])

    @property
    def tokens_to_end(self) -> int:
        """Tokens within which the stream can always end, EOS among them; 0 when it has."""
        if self.ended:
            return 0
        walk = self._walk[0]
        open_ = walk["known"] + (walk["bits"] > 0) - walk["at"]
        if open_ > 0:
            return int(walk["known"] - walk["at"] + walk["need"]) + 1
        return int(shortest(self.constraint.spec, self._state) + walk["later"]) + 1
