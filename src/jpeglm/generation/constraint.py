"""Grammar to token masks: which tokens may come next so that the stream ends valid and in time.

A token is legal when every symbol it spells is legal in turn and the shortest completion after it
still fits into the token budget. A merged token continues from the state that its left half
reached, so a whole mask costs about one grammar step per token. Where the prompt was cut inside a
token (or inside a byte), the symbols after the last stable token are forced: tokens must spell
them before anything new, so that the model chooses its own tokens and the prompt stays as given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jpeglm.config import InputError
from jpeglm.kernels import kernel, njit
from jpeglm.syntax.alphabet import Prefix
from jpeglm.syntax.machine import complete, growth, shortest, start_state, step
from jpeglm.tokenizer import Tokenizer


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


@kernel()
def _fits(symbol, place, forced, value, bits):
    """Whether a symbol agrees with the forced ones at `place`."""
    if place < len(forced):
        return symbol == forced[place]
    if place == len(forced) and bits > 0:
        return symbol < 256 and symbol >> (8 - bits) == value >> (8 - bits)
    return True


@kernel()
def token_mask(
    spec, state, forced_at, forced, value, bits, tokens_left, need_after, table, states, mask
):
    """Fill mask, bool [vocabulary]; give how many tokens are legal.

    table: (offsets, symbols, parent, rest, margin, eos) of `Constraint`; states: int64 [tokens,
    state] scratch; need_after: shortest completion behind the forced symbols.
    """
    offsets, symbols, parent, rest, margin, eos = table
    mask[:] = False
    legal = 0
    done = forced_at >= len(forced) + (1 if bits else 0)
    if done and complete(spec, state):
        mask[eos] = True
        return 1
    room = tokens_left - 2  # after this token, and with EOS kept in reserve
    loose = room > shortest(spec, state) + need_after + margin
    known = len(forced) + (1 if bits else 0)
    for token in range(len(offsets) - 1):
        left = parent[token]
        start = offsets[token]
        source = state
        if left >= 0:
            if mask[left]:
                source = states[left]
                start = rest[token]
            elif loose:
                continue
            # Else the left half may be barred by the budget alone: the whole decides itself.
        trial = states[token]
        for i in range(len(state)):
            trial[i] = source[i]
        place = forced_at + start - offsets[token]
        good = True
        for i in range(start, offsets[token + 1]):
            symbol = symbols[i]
            if place < known and not _fits(symbol, place, forced, value, bits):
                good = False
            else:
                good = step(spec, trial, symbol)
            if not good:
                break
            place += 1
        if good and not loose:
            if place < len(forced):
                good = len(forced) - place + need_after <= room
            else:
                good = shortest(spec, trial) <= room
        if good:
            mask[token] = True
            legal += 1
    return legal


@kernel()
def advance(spec, state, token, offsets, symbols):
    """Take a legal token; give how many symbols it spells."""
    for i in range(offsets[token], offsets[token + 1]):
        step(spec, state, symbols[i])
    return offsets[token + 1] - offsets[token]


@njit()
def _after_forced(spec, state, forced):
    trial = state.copy()
    for symbol in forced:
        if not step(spec, trial, symbol):
            return -1
    return shortest(spec, trial)


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
        margin = growth(self.spec) * (longest + 1)
        self.table = (
            tokenizer.offsets,
            tokenizer.symbols,
            parent,
            rest,
            np.int64(margin),
            np.int64(tokenizer.eos),
        )
        self.scratch = np.empty((tokens, len(start_state(self.spec))), np.int64)

    def start(self, prompt: Prompt, budget: int) -> tuple[np.ndarray, int]:
        """(state, need): the state after the prompt's stable tokens, and the shortest completion
        behind its forced symbols; refuses a budget in which no stream can end."""
        state = start_state(self.spec)
        stable = self.tokenizer.decode(prompt.ids)
        for symbol in stable:
            if not step(self.spec, state, symbol):
                raise InputError("the prompt is no beginning of a stream of this codec")
        need = int(_after_forced(self.spec, state, prompt.forced))
        if need < 0:
            raise InputError("the prompt is no beginning of a stream of this codec")
        total = len(prompt.ids) + len(prompt.forced) + need + (prompt.bits > 0) + 1
        if total > budget:
            raise InputError(
                f"the token budget is {budget}, but the prompt and the shortest completion take "
                f"{total} tokens; raise --max-tokens or keep less"
            )
        return state, need + (prompt.bits > 0)

    def mask(self, state: np.ndarray, tokens_left: int = 1 << 30) -> np.ndarray:
        """bool [vocabulary]: the tokens that may come next, without forced symbols."""
        mask = np.zeros(self.tokenizer.vocab_size, np.bool_)
        none = np.zeros(0, np.int32)
        token_mask(self.spec, state, 0, none, 0, 0, tokens_left, 0, self.table, self.scratch, mask)
        return mask

    def advance(self, state: np.ndarray, token: int) -> None:
        """Take a legal token."""
        advance(self.spec, state, token, self.table[0], self.table[1])
