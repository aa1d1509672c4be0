"""The grammar of JPEG symbols as tables, so that a device can follow it without the host.

A state of `syntax.jpeg` is split in two: its place in the block and the MCU, of which only some
thousand can stand between two tokens, and how many blocks of the picture remain. For every place
and token the tables say where the token leads and how many blocks it ends; what is legal, and
whether a completion fits into a budget, is then a look-up and two comparisons, exactly as
`masks.token_mask` has it. Running DC values are left out: where a restart interval is so short
that they cannot leave int16, they decide nothing. Symbols that name their MCU have no tables: each
MCU would need places of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from jpeglm.generation.engine import DeviceTables
from jpeglm.generation.matcher import Constraint
from jpeglm.kernels import njit
from jpeglm.syntax.jpeg import (
    BLOCK,
    DC_LIMIT,
    LARGEST_DC,
    MCU,
    MCU_NAMES,
    PENDING,
    PREDICTION,
    SIZE,
    SYMBOL_KIND,
    ZEROS,
    JpegSpec,
    K,
    shortest,
    symbol_step,
)
from jpeglm.syntax.machine import Spec

ENDLESS = 1 << 40
"""MCUs of a picture that no token reaches the end of."""
MOST_PLACES = 20_000


@dataclass(frozen=True)
class DeviceGrammar:
    """The grammar of a constraint as `DeviceTables`; place 0 is before a block."""

    tables: DeviceTables
    blocks: int
    """Of the picture; per_mcu: of an MCU."""
    per_mcu: int
    numbers: dict[tuple[int, ...], int]

    @classmethod
    def build(cls, constraint: Constraint) -> DeviceGrammar | None:
        """None where there can be no tables."""
        return _build(constraint)

    def places(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place, blocks that remain), int64 [B] each, of grammar states [B, state]."""
        done = states[:, MCU] * self.per_mcu + states[:, BLOCK]
        return np.array([self.numbers[_place(state)] for state in states]), self.blocks - done


def _place(state: np.ndarray) -> tuple[int, ...]:
    fields = (state[BLOCK], state[K], state[PENDING], state[ZEROS], state[SIZE] > 0)
    return tuple(int(field) for field in fields)


def possible(spec: Spec) -> TypeGuard[JpegSpec]:
    """Whether tables can stand for the machine of a spec."""
    if not isinstance(spec, JpegSpec) or spec.kind != SYMBOL_KIND or spec.coarse:
        return False
    if spec.names == MCU_NAMES:
        return False
    mcus = spec.interval or spec.mcus
    of_one = int(np.bincount(spec.component).max()) * mcus
    return of_one * LARGEST_DC <= DC_LIMIT


@njit()
def _expand(spec, state, offsets, symbols, states, ended, before):
    """All tokens from one state: the states they lead to, int64 [tokens, state], and the blocks
    that they end, int64 [tokens]; ended -1: illegal. offsets, symbols: `Vocabulary`'s."""
    blocks = len(spec.component)
    for token in range(len(offsets) - 1):
        trial = states[token]
        trial[:] = state
        begun = trial[MCU] * blocks + trial[BLOCK]
        last = begun
        for i in range(offsets[token], offsets[token + 1]):
            last = trial[MCU] * blocks + trial[BLOCK]
            if not symbol_step(spec, trial, symbols[i]):
                last = -1
                break
        ended[token] = -1 if last < 0 else trial[MCU] * blocks + trial[BLOCK] - begun
        before[token] = last - begun


def _build(constraint: Constraint) -> DeviceGrammar | None:
    real = constraint.spec
    if not possible(real):
        return None
    spec = real._replace(mcus=ENDLESS, interval=0)
    vocabulary, size = constraint.vocabulary, constraint.tokenizer.vocab_size
    tokens = len(vocabulary.offsets) - 1
    states = np.empty((tokens, len(constraint.grammar.start())), np.int64)
    ended, before = np.empty(tokens, np.int64), np.empty(tokens, np.int64)
    numbers: dict[tuple[int, ...], int] = {}
    waiting = [np.zeros(states.shape[1], np.int64)]
    numbers[_place(waiting[0])] = 0
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
    while waiting:
        state = waiting.pop(0)
        state[MCU] = 0
        state[PREDICTION : PREDICTION + 3] = 0
        _expand(spec, state, vocabulary.offsets, vocabulary.symbols, states, ended, before)
        after = np.full(size, -1, np.int32)
        for token in np.flatnonzero(ended >= 0).tolist():
            place = _place(states[token])
            if place not in numbers:
                numbers[place] = len(numbers)
                waiting.append(states[token].copy())
            after[token] = numbers[place]
        if len(numbers) > MOST_PLACES:
            return None
        counts = np.zeros((2, size), np.int16)
        counts[0, :tokens], counts[1, :tokens] = np.maximum(ended, 0), before
        one = spec._replace(mcus=1)
        rest = 2 * (len(real.component) - state[BLOCK] - 1)
        rows.append((after, counts[0], counts[1], int(shortest(one, state)) - int(rest)))
    after, ended_rows, before_rows, need = zip(*rows)
    tables = DeviceTables(
        np.stack(after),
        np.stack(ended_rows),
        np.stack(before_rows),
        np.array(need, np.int64),
        constraint.tokenizer.eos,
    )
    per_mcu = len(real.component)
    return DeviceGrammar(tables, real.mcus * per_mcu, per_mcu, numbers)
