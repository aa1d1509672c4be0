"""Grammar to token masks: which tokens may come next so that the stream ends valid and in time.

A token is legal when every symbol it spells is legal in turn and the shortest completion after it
still fits into the token budget. A merged token continues from the state that its left half
reached, so a whole mask costs about one grammar step per token; and where the machine can tell
which states are alike, masks are kept and found again. Where the prompt was cut inside a token (or
inside a byte), the symbols after the last stable token are forced: tokens must spell them before
anything new, so that the model chooses its own tokens and the prompt stays as given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jpeglm.config import InputError
from jpeglm.kernels import kernel
from jpeglm.syntax.alphabet import Prefix
from jpeglm.syntax.machine import (
    complete,
    growth,
    key,
    limits,
    shortest,
    start_state,
    step,
)
from jpeglm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jpeglm.generation.automaton import Automaton


@dataclass(frozen=True)
class Prompt:
    """A prefix as tokens that are certain, and symbols that the next tokens must spell.

    ids: int32, BOS (or class) and stable tokens; forced: int32 symbols; value, bits: the leading
    bits of the byte after them (bits = 0: none).
    """

    ids: np.ndarray
    forced: np.ndarray
    value: int = 0
    bits: int = 0


def make_prompt(tokenizer: Tokenizer, prefix: Prefix, first: int) -> Prompt:
    """Split a prefix at its last stable token; `first` is BOS or a class token."""
    stable = tokenizer.stable(prefix.symbols)
    ids = np.concatenate([[first], tokenizer.encode_symbols(prefix.symbols[:stable])])
    return Prompt(ids.astype(np.int32), prefix.symbols[stable:], prefix.value, prefix.bits)


class Vocabulary(NamedTuple):
    """A tokenizer's tokens, as numba takes them."""

    offsets: np.ndarray
    """int64 [tokens + 1]: token t spells symbols[offsets[t] : offsets[t + 1]]."""
    symbols: np.ndarray
    parent: np.ndarray
    """int64 [tokens]: the left half of a merged token, -1 of the others."""
    rest: np.ndarray
    """int64 [tokens]: where in `symbols` the right half begins."""
    margin: int
    """By how much a token may lengthen the shortest completion, at most."""
    eos: int
    reach: int
    swing: int


class Masks(NamedTuple):
    """Masks that were computed: rows of `legal`, found by the machine's `key` of the state.

    Row 0 is for masks that have no key or no room. A table that is full is not emptied: what came
    first is what comes most.
    """

    keys: np.ndarray
    """int64 [slots], -1 is free; a key lies at the first free slot from its own on. There is one:
    no more keys than rows are entered, of which there are at most half as many."""
    rows: np.ndarray
    """int64 [slots]"""
    legal: np.ndarray
    """bool [rows, vocabulary], as wide as the logits."""
    used: np.ndarray
    """int64 [1]: rows in use."""
    states: np.ndarray
    """int64 [tokens, state], scratch."""


class Ahead(NamedTuple):
    """What a prompt leaves to be spelt: symbols, then leading bits (`bits` of `value`) of the next;
    need: symbols of the shortest completion behind them."""

    forced: np.ndarray
    value: int
    bits: int
    need: int


SLOTS = 1 << 17
PRIME = 131071
ROWS = SLOTS // 2
MEMORY = 32 << 20
"""Bytes that the rows may take."""


def make_masks(spec: Any, tokens: int, vocabulary: int) -> Masks:
    """An empty table for a machine and a vocabulary."""
    rows = max(2, min(ROWS, MEMORY // vocabulary))
    return Masks(
        np.full(SLOTS, -1, np.int64),
        np.zeros(SLOTS, np.int64),
        np.zeros((rows, vocabulary), np.bool_),
        np.ones(1, np.int64),
        np.empty((tokens, len(start_state(spec))), np.int64),
    )


@kernel()
def _fits(symbol, place, ahead):
    """Whether a symbol agrees with the forced ones at `place`."""
    if place < len(ahead.forced):
        return symbol == ahead.forced[place]
    if place == len(ahead.forced) and ahead.bits > 0:
        return symbol < 256 and symbol >> (8 - ahead.bits) == ahead.value >> (8 - ahead.bits)
    return True


@kernel()
def _copy(source, target):
    for i in range(len(source)):
        target[i] = source[i]


@kernel()
def _fill(spec, state, forced_at, ahead, room, loose, vocabulary, states, mask):
    """Compute a mask, bool [vocabulary], token by token; states: a row for each token that spells
    something, of which the vocabulary has more (BOS, EOS, classes)."""
    offsets, symbols, parent, rest, _, _, _, _ = vocabulary
    mask[:] = False
    known = len(ahead.forced) + (1 if ahead.bits else 0)
    for token in range(len(offsets) - 1):
        left = parent[token]
        start = offsets[token]
        trial = states[token]
        if left >= 0 and mask[left]:
            _copy(states[left], trial)
            start = rest[token]
        elif left >= 0 and loose:
            continue
        else:
            # The left half may be barred by the budget alone: the whole decides itself.
            _copy(state, trial)
        place = forced_at + start - offsets[token]
        good = True
        for i in range(start, offsets[token + 1]):
            symbol = symbols[i]
            if place < known and not _fits(symbol, place, ahead):
                good = False
            else:
                good = step(spec, trial, symbol)
            if not good:
                break
            place += 1
        if good and not loose:
            if place < len(ahead.forced):
                good = len(ahead.forced) - place + ahead.need <= room
            else:
                good = shortest(spec, trial) <= room
        mask[token] = good


@kernel()
def token_mask(spec, state, forced_at, ahead, tokens_left, vocabulary, masks):
    """Row of `masks.legal` with the tokens that may come next."""
    known = len(ahead.forced) + (1 if ahead.bits else 0)
    if forced_at >= known and complete(spec, state):
        masks.legal[0] = False
        masks.legal[0, vocabulary.eos] = True
        return np.int64(0)
    room = tokens_left - 2  # after this token, and with EOS kept in reserve
    loose = room > shortest(spec, state) + ahead.need + vocabulary.margin
    number, slot, row = np.int64(-1), np.int64(0), np.int64(0)
    if loose and forced_at >= known:
        number = key(spec, state, vocabulary.reach, vocabulary.swing)
    if number >= 0:
        slot = number % PRIME
        while masks.keys[slot] >= 0:
            if masks.keys[slot] == number:
                return masks.rows[slot]
            slot = (slot + 1) & (SLOTS - 1)
        if masks.used[0] < len(masks.legal):
            row = masks.used[0]
            masks.used[0] += 1
            masks.keys[slot], masks.rows[slot] = number, row
    mask = masks.legal[row]
    _fill(spec, state, forced_at, ahead, room, loose, vocabulary, masks.states, mask)
    return row


@kernel()
def advance(spec, state, token, vocabulary):
    """Take a legal token; give how many symbols it spells."""
    first, end = vocabulary.offsets[token], vocabulary.offsets[token + 1]
    for i in range(first, end):
        step(spec, state, vocabulary.symbols[i])
    return end - first


class Constraint:
    """The grammar of a tokenizer's streams, made ready for its tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.grammar = tokenizer.alphabet.grammar()
        self.spec = self.grammar.spec  # type: ignore[attr-defined]
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

    @cached_property
    def automaton(self) -> Automaton | None:
        """The grammar as tables for a device, where there can be such."""
        from jpeglm.generation.automaton import build

        return build(self)

    def start(self, prompt: Prompt, budget: int) -> tuple[np.ndarray, Ahead]:
        """(state, ahead): where the prompt's stable tokens lead, and what it forces from there;
        refuses a budget in which no stream can end."""
        state = start_state(self.spec)
        stable = self.tokenizer.decode(prompt.ids)
        for symbol in stable:
            if not step(self.spec, state, symbol):
                raise InputError("the prompt is no beginning of a stream of this codec")
        trial = state.copy()
        for symbol in prompt.forced:
            if not step(self.spec, trial, symbol):
                raise InputError("the prompt is no beginning of a stream of this codec")
        need = int(shortest(self.spec, trial))
        total = len(prompt.ids) + len(prompt.forced) + need + (prompt.bits > 0) + 1
        if total > budget:
            raise InputError(
                f"the token budget is {budget}, but the prompt and the shortest completion take "
                f"{total} tokens; raise --max-tokens or keep less"
            )
        return state, Ahead(prompt.forced, prompt.value, prompt.bits, need + (prompt.bits > 0))

    def mask(self, state: np.ndarray, tokens_left: int = 1 << 30) -> np.ndarray:
        """bool [vocabulary]: the tokens that may come next, without forced symbols."""
        ahead = Ahead(np.zeros(0, np.int32), 0, 0, 0)
        row = token_mask(self.spec, state, 0, ahead, tokens_left, self.vocabulary, self.masks)
        return self.masks.legal[row].copy()

    def advance(self, state: np.ndarray, token: int) -> None:
        """Take a legal token."""
        advance(self.spec, state, token, self.vocabulary)
