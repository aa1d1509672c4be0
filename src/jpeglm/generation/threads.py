"""Several threads at one matrix, and none that another waits for.

A job (a product, or attention) is cut into chunks. The leader posts it; leader and helpers claim
chunks from one counter; the leader takes over what helpers have written. Threads that meet at
barriers stand still as soon as the system gives one of their cores to somebody else: there is no
barrier here. A helper writes into space of its own and marks the chunk as done; a chunk that stays
away longer than PATIENCE (its helper has lost its core) the leader computes again, and whatever
that helper writes later belongs to a job that nobody looks at any more. Then the helpers leave for
a while, for somebody else wants the core that they spin on. All compute the same sums in
the same order, so it does not matter who did.

    leader   post ▸ claim, compute … ▸ collect: copy, or compute what is late
    helper   ─── spin ─ claim, compute, mark … ─ spin ─ … ▸ leave, after IDLE turns without a job

The ticket is one number, job · 2^32 + next chunk, so that a claim tells whose chunk it is. A helper
may be so late that a job's description has been overwritten: it then computes nonsense in bounds.
Kernels take the board, int64 as `make_board` has it; jobs, chunks and threads are int64 numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jpeglm.kernels import COMPILED, intrinsic, kernel

if COMPILED:
    from llvmlite import binding, ir
    from numba.core import cgutils, types

    _X86 = binding.get_process_triple().startswith(("x86_64", "i686"))
else:
    _X86 = False

PATIENCE = 2000
"""Turns that a leader waits for a chunk: some 30 microseconds, where a chunk takes one or two."""
LEAST, MOST = 64, 4096
"""Jobs that the leader does alone after a chunk was late, one millisecond or sixty: twice as many
each time, one fewer after each chunk that a helper has done."""
IDLE = 20_000
"""Turns of a helper without a job before it leaves: some 0.4 milliseconds, as long as a draw."""
RING = 16
"""Descriptions of jobs that are kept."""
FIELDS = 6
"""Of a description; its last one is the number of chunks, the others are the engine's."""
CHUNK = (1 << 32) - 1


# Where things lie on a board: the ticket; whether helpers shall leave; for how many jobs, and for
# how many the next time (each on a cache line of its own); the last jobs' descriptions; who did
# each chunk: job · 2^32 + thread, 0 the leader.
TICKET, STOP, ALONE, PENALTY, JOBS = 0, 8, 16, 24, 32
DONE = JOBS + RING * FIELDS


def make_board(chunks: int) -> np.ndarray:
    """int64, what leader and helpers share; of jobs that have at most so many chunks."""
    board = np.zeros(DONE + chunks, np.int64)
    board[TICKET], board[PENALTY] = CHUNK, LEAST
    return board


@intrinsic
def _load(context, array, at):
    """array[at], seen no later than whatever was written before it was stored."""

    def build(context, b, signature, arguments):
        place = _element(context, b, signature, arguments)
        return b.load_atomic(place, "acquire", 8)

    return types.int64(array, at), build


@intrinsic
def _store(context, array, at, value):
    """array[at] = value, seen no earlier than whatever was written before it."""

    def build(context, b, signature, arguments):
        place = _element(context, b, signature, arguments)
        b.store_atomic(arguments[2], place, "release", 8)
        return context.get_dummy_value()

    return types.void(array, at, types.int64), build


@intrinsic
def _take(context, array, at):
    """array[at] += 1 for all threads in turn; gives what it was."""

    def build(context, b, signature, arguments):
        place = _element(context, b, signature, arguments)
        return b.atomic_rmw("add", place, ir.IntType(64)(1), "acq_rel")

    return types.int64(array, at), build


def _element(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, b, arguments[0])
    return cgutils.gep_inbounds(b, array.data, arguments[1])


@intrinsic
def _pause(context):
    """Tell the processor that this is a spin."""

    def build(context, b, signature, arguments):
        if _X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), build


@kernel(nogil=True)
def post(board, a, b, c, d, e, chunks):
    """Open a job of so many chunks, described by five numbers; gives its number."""
    job = (_load(board, TICKET) >> 32) + 1
    at = JOBS + job % RING * FIELDS
    board[at], board[at + 1], board[at + 2], board[at + 3], board[at + 4] = a, b, c, d, e
    board[at + 5] = chunks
    _store(board, TICKET, job << 32)
    return job


@kernel(nogil=True)
def describe(board, job):
    """The five numbers of a job."""
    at = JOBS + job % RING * FIELDS
    return board[at], board[at + 1], board[at + 2], board[at + 3], board[at + 4]


@kernel(nogil=True)
def claim(board):
    """The leader's next chunk of the job that is open."""
    return _take(board, TICKET) & CHUNK


@kernel(nogil=True)
def mark(board, job, chunk, who):
    """This chunk is computed."""
    _store(board, DONE + chunk, job << 32 | who)


@kernel(nogil=True)
def alone(board):
    """Whether the leader shall do its next job by itself."""
    left = _load(board, ALONE)
    if left > 0:
        _store(board, ALONE, left - 1)
    return left > 0


@kernel(nogil=True)
def whose(board, job, chunk):
    """Who has computed a chunk, as soon as somebody has; -1: it is late, and helpers leave."""
    for _ in range(PATIENCE):
        found = _load(board, DONE + chunk)
        if found >> 32 == job:
            who = found & CHUNK
            if who > 0 and board[PENALTY] > LEAST:
                board[PENALTY] -= 1
            return who
        _pause()
    _store(board, ALONE, board[PENALTY])
    board[PENALTY] = min(2 * board[PENALTY], MOST)
    return np.int64(-1)


@kernel(nogil=True)
def next_chunk(board):
    """A helper's next (job, chunk), as soon as there is one; (-1, 0): it may leave."""
    for _ in range(IDLE):
        ticket = _load(board, TICKET)
        if ticket & CHUNK < board[JOBS + (ticket >> 32) % RING * FIELDS + FIELDS - 1]:
            ticket = _take(board, TICKET)
            job, chunk = ticket >> 32, ticket & CHUNK
            chunks = board[JOBS + job % RING * FIELDS + FIELDS - 1]
            if chunk < min(chunks, len(board) - DONE):
                return job, chunk
        if _load(board, STOP) or _load(board, ALONE) > 0:
            break
        _pause()
    return np.int64(-1), np.int64(0)
