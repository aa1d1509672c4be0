"""What the symbols of a block say is what FFmpeg shows: levels, and their frequencies.

A code taken for another of the same table goes unnoticed in a stream that comes back, and by a
decoder too where nothing after it depends on the value; the picture is then another one. So here
the standard's arithmetic (9.2.2.1 levels, 8.5.6 zigzag, 8.5.12 scaling and transform) is told once
more, in plain Python, and its pixels compared with a decoder's.
"""

import io
import itertools

import numpy as np
import pytest

from jpeglm.syntax import avc
from jpeglm.syntax.avc.nal import Bits, split_nals, unescape
from jpeglm.syntax.avc.symbols import (
    BITS,
    CHROMA,
    COEFF,
    COEFF_DC,
    INTRA4,
    PATTERN_INTRA,
    PREFIX,
    QP_DELTA,
    RUN,
    SIGNS,
    TYPE_I,
    ZEROS,
    ZEROS_DC,
)

av = pytest.importorskip("av", reason="the extra video is not installed")

from jpeglm.codecs.avc import AvcCodec, AvcConfig, complaints  # noqa: E402

CODEC = AvcCodec(AvcConfig(16, 16, 1, qp=15))
"""One macroblock, finer than where deblocking begins."""
ZIGZAG = ((0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0), (3, 0), (2, 1),
          (1, 2), (0, 3), (1, 3), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3))  # fmt: skip
"""(x, y) of each coefficient (Table 8-2)."""
SCALE = ((10, 16, 13), (11, 18, 14), (13, 20, 16), (14, 23, 18), (16, 25, 20), (18, 29, 23))
"""normAdjust4x4 (8.5.9): both indices even, both odd, others."""
PAIRS = [(total, ones) for total in range(17) for ones in range(min(total, 3) + 1)]


def quantisers():
    """(QP of luma, QP of chroma) of the first slice, read from parameter set and header."""
    sets = {nal[0] & 31: unescape(nal[1:]) for nal in split_nals(CODEC.sets_bytes)}
    picture = Bits(sets[8])
    for size in (0, 0, 1, 1, 0, 0, 0, 1, 2):  # 7.3.2.2; 0 is ue(v)
        picture.u(size) if size else picture.ue()
    qp, _, offset = 26 + picture.se(), picture.se(), picture.se()
    header = Bits(unescape(split_nals(CODEC.symbols.join(np.zeros(0)))[0][1:]))
    for _ in range(3):
        header.ue()
    header.u(CODEC.sets.frame_bits)
    header.ue()
    header.u(2)
    qp += header.se()
    assert qp + max(offset, 0) < 16, "deblocking is off, and chroma's QP is luma's and the offset"
    return qp, qp + offset


def block(rng, kind, most, total, zeros, escape):
    """(symbols, coefficients in their order) of a block with so many of either; escape: the level
    prefix of the first level that is no trailing one."""
    ones = int(rng.integers(0, min(total, 3) + 1))
    symbols = [avc.BASE[kind] + PAIRS.index((total, ones))]
    signs = rng.integers(0, 2, ones)
    levels = [1 - 2 * int(sign) for sign in signs]
    if ones:
        symbols.append(avc.BASE[SIGNS] + (1 << ones) - 2 + int("".join(map(str, signs)), 2))
    suffix = 1 if total > 10 and ones < 3 else 0
    for number in range(total - ones):
        prefix = escape if number == 0 else int(rng.integers(0, 4))
        size = 12 if prefix == 15 else 4 if prefix == 14 and suffix == 0 else suffix
        value = int(rng.integers(0, min(1 << size, 16)))
        symbols.append(avc.BASE[PREFIX] + prefix)
        for left in range(size, 0, -4):
            chunk, rest = min(4, left), max(left - 4, 0)
            part = value >> rest & ((1 << chunk) - 1)
            symbols.append(avc.BASE[BITS] + (1 << chunk) - 2 + part)
        code = (prefix << suffix) + value + (15 if prefix == 15 and suffix == 0 else 0)
        code += 2 if number == 0 and ones < 3 else 0
        levels.append((code + 2) // 2 if code % 2 == 0 else -(code + 1) // 2)
        suffix = max(suffix, 1)
        suffix += 1 if abs(levels[-1]) > 3 << (suffix - 1) and suffix < 6 else 0
    coefficients = np.zeros(most, int)
    if total < most:
        symbols.append(avc.BASE[ZEROS_DC if most == 4 else ZEROS] + zeros)
    place, left = total + zeros - 1, zeros
    for number, level in enumerate(levels):
        coefficients[place] = level
        run = 0
        if left and number < total - 1:
            run = int(rng.integers(0, left + 1))
            symbols.append(avc.BASE[RUN] + run)
        left -= run
        place -= 1 + run
    return symbols, coefficients


def shown(pattern, residual):
    """(luma [16, 16], Cb [8, 8]) of a macroblock of Intra_4x4, DC, which nothing lies beside."""
    modes = [avc.BASE[TYPE_I], *[avc.BASE[INTRA4] + 2] * 16, avc.BASE[CHROMA]]
    symbols = [*modes, avc.BASE[PATTERN_INTRA] + pattern, avc.BASE[QP_DELTA], *residual]
    stream = CODEC.symbols.join(np.array(symbols))
    assert (CODEC.symbols.split(stream)[: len(symbols)] == symbols).all()
    assert complaints(CODEC, stream) == []
    with av.open(io.BytesIO(CODEC.wrap_annex_b(stream)), "r", format="h264") as film:
        (frame,) = (frame.to_ndarray() for frame in film.decode(video=0))
    return frame[:16].astype(int), frame[16:20].reshape(8, 8).astype(int)


def quantiser_change(code_number):
    """The symbols that say a codeNum of mb_qp_delta, in its range or not."""
    size = (code_number + 1).bit_length() - 1
    bits = code_number + 1 - (1 << size)
    chunks = [(4, bits >> 1), (1, bits & 1)] if size == 5 else [(size, bits)] if size else []
    says = [avc.BASE[BITS] + (1 << length) - 2 + chunk for length, chunk in chunks]
    return [avc.BASE[QP_DELTA] + size, *says]


def test_changes_of_the_quantiser_keep_to_their_range():
    """mb_qp_delta is -26 to 25 (7.4.5), whose codeNum is 0 to 50, and 52 (9.1.1)."""
    modes = [avc.BASE[TYPE_I] + 3, avc.BASE[CHROMA]]  # Intra_16x16
    for number in range(63):
        symbols = [*modes, *quantiser_change(number), avc.BASE[COEFF]]
        kept = CODEC.symbols.split(CODEC.symbols.join(np.array(symbols)))[: len(symbols)]
        assert (kept.tolist() == symbols) == (number <= 50 or number == 52), number
        # What is begun can be finished: cut off before each symbol it still becomes a whole stream.
        for cut in range(len(symbols)):
            assert complaints(CODEC, CODEC.symbols.join(np.array(symbols[:cut]))) == []


def one_way(d):
    """The transform along the last axis (8.5.12.2)."""
    d0, d1, d2, d3 = np.moveaxis(d, -1, 0)
    e0, e1, e2, e3 = d0 + d2, d0 - d2, (d1 >> 1) - d3, d1 + (d3 >> 1)
    return np.stack([e0 + e3, e1 + e2, e1 - e2, e0 - e3], -1)


ESCAPES = itertools.cycle((0, 1, 4, 5, 14, 15, 3, 15, 14))


@pytest.mark.parametrize("total", range(1, 17))
def test_luma_levels_stand_where_they_say(total):
    qp, rng = quantisers()[0], np.random.default_rng(total)
    for zeros in list(range(17 - total)) * 2:
        symbols, coefficients = block(rng, COEFF, 16, total, zeros, next(ESCAPES))
        scaled = np.zeros((4, 4), int)
        for level, (x, y) in zip(coefficients, ZIGZAG):
            kind = 0 if x % 2 == y % 2 == 0 else 1 if x % 2 == y % 2 == 1 else 2
            scaled[y, x] = level * SCALE[qp % 6][kind] << qp // 6
        residual = (one_way(one_way(scaled).T).T + 32) >> 6
        assert (shown(1, symbols)[0][:4, :4] == np.clip(128 + residual, 0, 255)).all()


@pytest.mark.parametrize("total", range(1, 5))
def test_chroma_dc_levels_stand_where_they_say(total):
    qp, rng = quantisers()[1], np.random.default_rng(total)
    hadamard = np.array([[1, 1], [1, -1]])
    for zeros in list(range(5 - total)) * 4:
        symbols, coefficients = block(rng, COEFF_DC, 4, total, zeros, next(ESCAPES))
        sums = hadamard @ coefficients.reshape(2, 2) @ hadamard
        dc = (sums * 16 * SCALE[qp % 6][0] << qp // 6) >> 5  # 8.5.11.2
        residual = np.kron((dc + 32) >> 6, np.ones((4, 4), int))
        assert (shown(16, symbols)[1] == np.clip(128 + residual, 0, 255)).all()
