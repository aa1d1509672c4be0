"""Byte-pair encoding over integers: training and encoding kernels.

The merges are those of Hugging Face's trainer (highest count first, ties to the smaller pair, two
merges that spell the same symbols share a token), and so are the ids. Encoding never merges: a
sequence of tokens is what merging gives exactly if it is so for every two that stand side by side
(Neubeck and Perez 2024, https://github.blog/ai-and-ml/llms/so-many-tokens-so-little-time/), so the
tokens are found left to right with a table of such pairs, in time linear in the symbols. Where two
merges share a token, which happens in small data, that is not so, and the merges are applied.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jpeglm.kernels import kernel

SEPARATOR = -1
MAX_VOCABULARY = 16384
"""Above it the dense pair table (2 bytes a pair) would outgrow 0.5 GiB."""


@kernel()
def _count_pairs(data, mergeable, counts):
    """Fill int32 [V, V]; all of `data` but separators, which are negative, is below V."""
    for i in range(len(data) - 1):
        a, b = data[i], data[i + 1]
        if a >= 0 and b >= 0 and mergeable[a] and mergeable[b]:
            counts[a, b] += 1


@kernel()
def _best_pair(counts, size, most, sure):
    """(count, left, right) of the pair that is next: the most frequent, of equals the smallest.

    most: int64 [V], at least the largest count of each row; where `sure`, bool [V], exactly it.
    """
    while True:
        left = 0
        for a in range(1, size):
            if most[a] > most[left]:
                left = a
        if sure[left]:
            break
        most[left] = 0
        for b in range(size):
            most[left] = max(most[left], counts[left, b])
        sure[left] = True
    right = 0
    while right < size - 1 and counts[left, right] != most[left]:
        right += 1
    return most[left], left, right


@kernel()
def _change(counts, a, b, by, most, sure):
    """counts[a, b] += by, and what is known of the row's largest count kept right."""
    counts[a, b] += by
    if counts[a, b] > most[a]:
        most[a] = counts[a, b]
    elif by < 0 and counts[a, b] + 1 == most[a]:
        sure[a] = False


BLOCK = 64
"""Symbols that are looked through for a pair together, in vector instructions."""


@kernel()
def _copy_without(symbols, following, left, right, out):
    """Copy `symbols`, int16 [BLOCK] as all of these, to `out`; whether none begins the pair."""
    found = np.int16(0)
    for j in range(BLOCK):
        found |= np.int16(symbols[j] == left) & np.int16(following[j] == right)
        out[j] = symbols[j]
    return found == 0


@kernel()
def _merge_pair(data, n, left, right, new, mergeable, counts, most, sure, out):
    """Copy data[:n] to `out` with the pair replaced, keep `counts` right; give the new length.

    What is written never overtakes what is read (m <= i), so `out` is as long as `data`.
    """
    m, i = 0, 0
    first, second = np.int16(left), np.int16(right)
    while i < n:
        if i + BLOCK < n and _copy_without(
            data[i : i + BLOCK], data[i + 1 : i + 1 + BLOCK], first, second, out[m : m + BLOCK]
        ):
            i += BLOCK
            m += BLOCK
            continue
        end = min(i + BLOCK, n)
        while i < end:
            if data[i] == left and i + 1 < n and data[i + 1] == right:
                if m > 0:
                    before = out[m - 1]
                    if before >= 0 and mergeable[before]:
                        _change(counts, before, left, -1, most, sure)
                        _change(counts, before, new, 1, most, sure)
                if i + 2 < n:
                    after = data[i + 2]
                    if after >= 0 and mergeable[after]:
                        _change(counts, right, after, -1, most, sure)
                        _change(counts, new, after, 1, most, sure)
                out[m] = new
                i += 2
            else:
                out[m] = data[i]
                i += 1
            m += 1
    counts[left, right] = 0
    sure[left] = False
    return m


def train_merges(
    data: np.ndarray,
    n_base: int,
    n_tokens: int,
    atomic: tuple[int, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, int]]:
    """Merges, in order, until there are `n_tokens` tokens (base symbols included).

    data: int32, all sequences one after another with SEPARATOR between them. Stops early when no
    pair occurs twice.
    """
    if n_tokens <= n_base:  # of an alphabet that may be larger than MAX_VOCABULARY
        return []
    data = data.astype(np.int16)
    out, n = np.empty_like(data), len(data)
    mergeable = np.ones(n_tokens, np.bool_)
    mergeable[list(atomic)] = False
    counts = np.zeros((n_tokens, n_tokens), np.int32)
    _count_pairs(data, mergeable, counts)
    most, sure = counts.max(axis=1).astype(np.int64), np.ones(n_tokens, np.bool_)
    spelling: list[tuple[int, ...]] = [(s,) for s in range(n_base)]
    ids = {symbols: i for i, symbols in enumerate(spelling)}
    merges: list[tuple[int, int]] = []
    while len(ids) < n_tokens:
        count, left, right = _best_pair(counts, len(ids), most, sure)
        if count < 2:
            break
        symbols = spelling[left] + spelling[right]
        new = ids.setdefault(symbols, len(ids))
        if new == len(spelling):
            spelling.append(symbols)
        merges.append((left, right))
        n = _merge_pair(data, n, left, right, new, mergeable, counts, most, sure, out)
        data, out = out, data
        if progress:
            progress(len(ids) - n_base, n_tokens - n_base)
    return merges


def spell(n_base: int, merges: np.ndarray) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """(spelling of each token, int32 [M] token that each merge makes)."""
    spelling: list[tuple[int, ...]] = [(s,) for s in range(n_base)]
    ids = {symbols: i for i, symbols in enumerate(spelling)}
    result = np.empty(len(merges), np.int32)
    for m, (left, right) in enumerate(np.asarray(merges).tolist()):
        symbols = spelling[left] + spelling[right]
        new = ids.setdefault(symbols, len(ids))
        if new == len(spelling):
            spelling.append(symbols)
        result[m] = new
    return spelling, result


class Matcher(NamedTuple):
    """What encoding looks up; V tokens, B base symbols, P distinct prefixes of spellings."""

    step: np.ndarray
    """int16 or int32 [P, B]: the prefix that is this one and a symbol more, -1 if none is."""
    token: np.ndarray
    """int32 [P]: the token that a prefix spells, -1 if none does."""
    shorter: np.ndarray
    """int32 [V]: the longest token that spells a beginning of this one, -1 if none does."""
    length: np.ndarray
    """int32 [V]"""
    neighbours: np.ndarray
    """uint8 [V, V / 8]: bit b & 7 of [a, b >> 3] tells whether merging what the tokens a and b
    spell gives them back; [0, 0] where tokens are shared."""
    rank: np.ndarray
    """uint16 [V, V]: 1 + the merge of a pair, or 0; only with shared tokens, else [0, 0]."""
    result: np.ndarray
    """int32 [M]: the token that each merge makes."""
    inner: np.ndarray
    """bool [B, B]: `inner_pairs`."""


def inner_pairs(n_base: int, spelling: list[tuple[int, ...]]) -> np.ndarray:
    """bool [B, B]: whether two symbols stand side by side inside some token."""
    inner = np.zeros((n_base, n_base), np.bool_)
    for symbols in spelling[n_base:]:
        for a, b in pairwise(symbols):
            inner[a, b] = True
    return inner


def make_matcher(
    n_base: int, merges: np.ndarray, spelling: list[tuple[int, ...]], result: np.ndarray
) -> Matcher:
    """The look-up tables of a vocabulary."""
    size = len(spelling)
    rank = np.zeros((size, size), np.uint16)
    for m, (left, right) in enumerate(np.asarray(merges).tolist()):
        rank[left, right] = m + 1
    # A trie, so that long tokens cost their length, not its square.
    after: dict[tuple[int, int], int] = {}
    ends: dict[int, int] = {}
    steps: list[tuple[int, int, int]] = []
    for t, symbols in enumerate(spelling):
        node = 0
        for symbol in symbols:
            if (node, symbol) not in after:
                after[node, symbol] = len(after) + 1
                steps.append((node, symbol, len(after)))
            node = after[node, symbol]
        ends[node] = t
    numbers = len(after) + 1
    # Small tables, since they must stay in the cache.
    step = np.full((numbers, n_base), -1, np.int16 if numbers < 32768 else np.int32)
    for prefix, symbol, longer in steps:
        step[prefix, symbol] = longer
    token = np.full(numbers, -1, np.int32)
    shorter = np.full(size, -1, np.int32)
    for t, symbols in enumerate(spelling):
        node = 0
        for symbol in symbols:
            shorter[t] = ends.get(node, shorter[t])
            node = after[node, symbol]
        token[node] = t
    length = np.array([len(symbols) for symbols in spelling], np.int32)
    inner, none = inner_pairs(n_base, spelling), np.zeros((0, 0), np.uint8)
    if len(set(np.asarray(result).tolist())) < len(result):
        return Matcher(step, token, shorter, length, none, rank, result, inner)
    halves = np.full((size, 2), -1, np.int32)
    halves[result] = np.asarray(merges, np.int32).reshape(-1, 2)
    neighbours = np.zeros((size, (size + 7) // 8), np.uint8)
    _find_neighbours(rank, halves, n_base, neighbours)
    return Matcher(step, token, shorter, length, neighbours, rank[:0, :0], result, inner)


@kernel()
def _find_neighbours(rank, halves, n_base, neighbours):
    """Fill `neighbours`: pull two tokens apart in the reverse order of their merges, and see
    whether a merge across the border would have come first. Every token beyond `n_base` has halves,
    and the larger of two, one of which is such a token, is one."""
    for a in range(len(halves)):
        for b in range(len(halves)):
            left, right = np.int64(a), np.int64(b)
            # Merges that come before this token's were open to the symbols at the border.
            limit = np.int64(1) << 40
            good = True
            while True:
                found = np.int64(rank[left, right])
                if found and n_base + found - 1 < limit:
                    good = False
                    break
                if left < n_base and right < n_base:
                    break
                # Of equal merges the left one comes first.
                if left > right:
                    limit = left
                    left = np.int64(halves[left, 1])
                else:
                    limit = right + 1
                    right = np.int64(halves[right, 0])
            if good:
                neighbours[a, b >> 3] |= 1 << (b & 7)


@kernel()
def _merge_all(ids, start, end, rank, result):
    """Apply the merges to ids[start:end] in place, lowest rank first; give where they end now. What
    is written never overtakes what is read (out <= i)."""
    while end - start > 1:
        best = 65536
        for i in range(start, end - 1):
            found = int(rank[ids[i], ids[i + 1]])
            if 0 < found < best:
                best = found
        if best == 65536:
            break
        new = result[best - 1]
        out, i = start, start
        while i < end:
            if i + 1 < end and rank[ids[i], ids[i + 1]] == best:
                ids[out] = new
                i += 2
                # Two merges may share a token, so an earlier merge can become possible here.
                earlier = False
                if out > start:
                    r = rank[ids[out - 1], new]
                    earlier = 0 < r < best
                if i < end:
                    r = rank[new, ids[i]]
                    earlier = earlier or 0 < r < best
                out += 1
                if earlier:
                    while i < end:
                        ids[out] = ids[i]
                        out += 1
                        i += 1
            else:
                ids[out] = ids[i]
                out += 1
                i += 1
        end = out
    return end


@kernel()
def encode(symbols, matcher, out, barred):
    """Token ids of `symbols` into `out` (as long as symbols); give how many.

    Token by token, the longest that may stand beside the one before; where none may, the last one
    is taken back and a shorter one tried. barred: bool [symbols + 1], False, scratch: places from
    which no tokens lead on. A token spells at least one symbol, so n <= at < size where one is
    written; symbols are below B, or tables would be read outside; n does not fall below 0, since
    what merging gives is one way that leads to the end.
    """
    size = len(symbols)
    n, at = 0, 0
    if len(matcher.rank):
        # No token crosses two symbols that stand side by side inside none.
        while at < size:
            start = n
            while n == start or (at < size and matcher.inner[symbols[at - 1], symbols[at]]):
                out[n] = symbols[at]
                n += 1
                at += 1
            n = _merge_all(out, start, n, matcher.rank, matcher.result)
        return n
    token = np.int64(-2)  # -2: the longest that fits here
    inner = matcher.inner
    while at < size or token != -2:
        if token == -2:
            # Two symbols that stand side by side inside no token are two tokens' border.
            symbol = symbols[at]
            if not (at + 1 < size and inner[symbol, symbols[at + 1]]) and not (
                at > 0 and inner[symbols[at - 1], symbol]
            ):
                out[n] = symbol
                n += 1
                at += 1
                continue
            node = np.int64(0)
            token = np.int64(-1)
            for i in range(at, size):
                node = np.int64(matcher.step[node, symbols[i]])
                if node < 0:
                    break
                if matcher.token[node] >= 0:
                    token = np.int64(matcher.token[node])
        while token >= 0 and (
            barred[at + matcher.length[token]]
            or (n > 0 and not matcher.neighbours[out[n - 1], token >> 3] >> (token & 7) & 1)
        ):
            token = np.int64(matcher.shorter[token])
        if token >= 0:
            out[n] = token
            n += 1
            at += matcher.length[token]
            token = np.int64(-2)
        else:
            barred[at] = True
            n -= 1
            at -= matcher.length[out[n]]
            token = np.int64(matcher.shorter[out[n]])
    return n


@kernel()
def decode(ids, offsets, flat, out):
    """Symbols of token ids into `out`, of so many times the longest spelling; give how many. Ids
    beyond the spelling are skipped."""
    n = 0
    for i in range(len(ids)):
        token = ids[i]
        if token < 0 or token >= len(offsets) - 1:
            continue
        for j in range(offsets[token], offsets[token + 1]):
            out[n] = flat[j]
            n += 1
    return n
