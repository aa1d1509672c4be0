"""One face for all state machines: the type of a spec says which one steps.

    JpegSpec ──▶ syntax.jpeg (symbols, codes of one length)            AvcSpec ──▶ syntax.avc
    JpegByteSpec ──▶ jpeg_bytes        AvcPlacedSpec, AvcByteSpec ──▶ avc.placed, avc.nal_bytes

Compiled code decides when it is compiled, plain Python when it is called, so that the sampler is
written once and a call costs nothing more. A new kind of stream is one more entry of `MACHINES`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from jpeglm.kernels import COMPILED, kernel
from jpeglm.syntax import avc, jpeg, jpeg_bytes
from jpeglm.syntax.avc import nal_bytes, placed

Spec = (
    jpeg.JpegSpec
    | jpeg_bytes.JpegByteSpec
    | avc.AvcSpec
    | nal_bytes.AvcByteSpec
    | placed.AvcPlacedSpec
)
"""What a stream's machine knows of it: sizes and tables. States are int64 vectors."""


class Machine(Protocol):
    """What a module has that steps one kind of spec; its functions' meaning is that of ours."""

    GROWTH: int

    def start_state(self, spec: Any, /) -> np.ndarray: ...
    def step(self, spec: Any, state: np.ndarray, symbol: int, /) -> bool: ...
    def complete(self, spec: Any, state: np.ndarray, /) -> bool: ...
    def shortest(self, spec: Any, state: np.ndarray, /) -> int: ...
    def units(self, spec: Any, state: np.ndarray, /) -> int: ...
    def limits(self, spec: Any, spelling: list[tuple[int, ...]], /) -> tuple[int, int]: ...
    def key(self, spec: Any, state: np.ndarray, reach: int, swing: int, /) -> np.int64: ...


MACHINES: dict[type, Machine] = {
    jpeg.JpegSpec: jpeg,
    jpeg_bytes.JpegByteSpec: jpeg_bytes,
    avc.AvcSpec: avc,
    nal_bytes.AvcByteSpec: nal_bytes,
    placed.AvcPlacedSpec: placed,
}


def start_state(spec: Spec) -> np.ndarray:
    """int64 vector before the first symbol."""
    return MACHINES[type(spec)].start_state(spec)


def apart(spec: Spec) -> bool:
    """Whether no unit needs another one, so that they may change places."""
    return isinstance(spec, jpeg.JpegSpec) and jpeg.apart(spec)


def before_last(spec: Spec, first: int, count: int) -> np.ndarray:
    """The state before `count` units, from `first` on, that have moved to the end of a stream whose
    units stand apart."""
    assert isinstance(spec, jpeg.JpegSpec) and jpeg.apart(spec)
    return jpeg.before_last(spec, first, count)


def growth(spec: Spec) -> int:
    """By how many symbols one symbol may lengthen the shortest completion, at most."""
    return MACHINES[type(spec)].GROWTH


def limits(spec: Spec, spelling: list[tuple[int, ...]]) -> tuple[int, int]:
    """How far ahead tokens of these symbols look, for `key`."""
    return MACHINES[type(spec)].limits(spec, spelling)


def step(spec: Spec, state: np.ndarray, symbol: int) -> bool:
    """Take a symbol; False, and the state undefined, when it is illegal here."""
    return MACHINES[type(spec)].step(spec, state, symbol)


def complete(spec: Spec, state: np.ndarray) -> bool:
    """Whether the stream is complete; it can then do nothing else."""
    return MACHINES[type(spec)].complete(spec, state)


def shortest(spec: Spec, state: np.ndarray) -> int:
    """Symbols of a completion that is always possible, 0 when the stream is complete."""
    return MACHINES[type(spec)].shortest(spec, state)


def units(spec: Spec, state: np.ndarray) -> int:
    """Whole units so far: MCUs, frames, codes."""
    return MACHINES[type(spec)].units(spec, state)


def key(spec: Spec, state: np.ndarray, reach: int, swing: int) -> np.int64:
    """A number that only states share in which the same tokens are legal; -1 where none is known.

    reach, swing: `limits` of the tokens. Budgets are left out: a completion must fit anyway.
    """
    return MACHINES[type(spec)].key(spec, state, reach, swing)


if COMPILED:
    from numba.extending import overload

    BARE: Any = {"_nrt": False}  # as `kernels.kernel`

    def _machine(spec: Any) -> Any:
        return MACHINES[spec.instance_class]

    @overload(step, jit_options=BARE)
    def _step(spec, state, symbol):
        take = _machine(spec).step
        return lambda spec, state, symbol: take(spec, state, symbol)

    @overload(complete, jit_options=BARE)
    def _complete(spec, state):
        ask = _machine(spec).complete
        return lambda spec, state: ask(spec, state)

    @overload(shortest, jit_options=BARE)
    def _shortest(spec, state):
        ask = _machine(spec).shortest
        return lambda spec, state: ask(spec, state)

    @overload(units, jit_options=BARE)
    def _units(spec, state):
        ask = _machine(spec).units
        return lambda spec, state: ask(spec, state)

    @overload(key, jit_options=BARE)
    def _key(spec, state, reach, swing):
        ask = _machine(spec).key
        return lambda spec, state, reach, swing: ask(spec, state, reach, swing)


@kernel()
def accepts(spec, state, symbols):
    """Whether the machine takes all of `symbols`, int [n], from `state` on (which moves) and is
    complete at the end only."""
    for symbol in symbols:
        if complete(spec, state) or not step(spec, state, symbol):
            return False
    return complete(spec, state)


@kernel()
def unit_starts(spec, state, symbols, starts):
    """Fill starts, int64 [units + 1]: symbols before each unit, and of units that are not reached
    all that there are. Gives how many of `symbols`, int [n], the machine takes from `state` on,
    which moves."""
    whole, taken = units(spec, state), 0
    starts[:] = 0
    for symbol in symbols:
        if complete(spec, state) or not step(spec, state, symbol):
            break
        taken += 1
        while whole < units(spec, state) and whole + 1 < len(starts):
            whole += 1
            starts[whole] = taken
    for i in range(whole + 1, len(starts)):
        starts[i] = taken
    return taken


def starts_of(spec: Spec, symbols: np.ndarray, count: int) -> np.ndarray:
    """int64 [count + 1]: symbols of a whole stream before each of its units."""
    starts = np.zeros(count + 1, np.int64)
    unit_starts(spec, start_state(spec), symbols, starts)
    return starts


@kernel()
def finish(spec, state, alphabet, trial, out):
    """Write a shortest completion from `state` on, which moves, to out, int32 [shortest]; how many
    symbols it has. alphabet: symbols that there are; trial: int64 [state], scratch."""
    n = 0
    while not complete(spec, state):
        need = shortest(spec, state)
        for symbol in range(alphabet):
            for i in range(len(state)):
                trial[i] = state[i]
            if step(spec, trial, symbol) and shortest(spec, trial) == need - 1:
                out[n] = symbol
                break
        for i in range(len(state)):
            state[i] = trial[i]
        n += 1
    return n
