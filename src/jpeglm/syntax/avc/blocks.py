"""From block to block: residual data in its order (7.3.5.3), and how macroblock and slice end.

luma DC ▸ 16 luma ▸ chroma DC, two ▸ chroma AC, eight ▸ the next macroblock ▸ the next slice
in a block: COEFF ▸ levels ▸ zeros ▸ the next block

Kernels take an `AvcSpec` and the state `s`, int64 [`start_state`], which they change in place.
"""

from __future__ import annotations

from jpeglm.kernels import kernel
from jpeglm.syntax.avc.neighbours import next_macroblock, place_of
from jpeglm.syntax.avc.state import (
    CURRENT,
    FIRST,
    FRAME,
    KIND,
    LEVELS,
    MB,
    MOST,
    ONES,
    PATTERN,
    SIXTEEN,
    SLICE,
    SLICES_DONE,
    STAGE,
    SUFFIX,
    TOTAL,
)
from jpeglm.syntax.avc.symbols import (
    COEFF,
    COEFF_DC,
    END,
    PREFIX,
    SIGNS,
    SKIP,
    TYPE_I,
    ZEROS,
    ZEROS_DC,
)


@kernel()
def end_slice(spec, s):
    """On to the next slice, of the next frame after the last one; END after the last frame."""
    s[SLICES_DONE] += 1
    s[SLICE] += 1
    if s[MB] == spec.columns * spec.rows:
        s[MB] = 0
        s[SLICE] = 0
        s[FRAME] += 1
    if s[FRAME] == spec.frames:
        s[KIND] = END
    else:
        s[KIND] = SKIP if s[FRAME] else TYPE_I


@kernel()
def end_macroblock(spec, s):
    """Store what neighbours need, and go on to the next macroblock or slice."""
    next_macroblock(spec, s)
    if s[MB] == spec.first[s[SLICE] + 1]:
        end_slice(spec, s)
    else:
        s[KIND] = SKIP if s[FRAME] else TYPE_I


@kernel()
def next_block(spec, s):
    """To the next coded block of the macroblock: 0 Intra16x16 DC, 1-16 luma, 17-18 chroma DC,
    19-26 chroma AC."""
    pattern = s[PATTERN]
    while True:
        s[STAGE] += 1
        stage = s[STAGE]
        if stage == 0:
            if s[SIXTEEN]:
                s[MOST] = 16
                break
        elif stage <= 16:
            if (pattern >> ((stage - 1) // 4)) & 1:
                s[MOST] = 15 if s[SIXTEEN] else 16
                break
        elif stage <= 18:
            if pattern >> 4:
                s[MOST] = 4
                break
        elif stage <= 26:
            if pattern >> 4 == 2:
                s[MOST] = 15
                break
        else:
            end_macroblock(spec, s)
            return
    s[KIND] = COEFF_DC if 17 <= s[STAGE] <= 18 else COEFF


@kernel()
def next_level(spec, s):
    """After a level or the signs: the next level, or the zeros, or the next block."""
    if s[LEVELS] > 0:
        s[KIND] = PREFIX
    elif s[TOTAL] < s[MOST]:
        s[KIND] = ZEROS_DC if s[MOST] == 4 else ZEROS
    else:
        next_block(spec, s)


@kernel()
def take_token(spec, s, token):
    """Take a coeff_token: 4 TotalCoeff + TrailingOnes; False where it has too many coefficients."""
    total, ones = token >> 2, token & 3
    if total > s[MOST]:
        return False
    if s[STAGE] > 0 and s[MOST] != 4:
        s[CURRENT + place_of(s[STAGE])[0]] = total
    if total == 0:
        next_block(spec, s)
        return True
    s[TOTAL], s[ONES], s[LEVELS] = total, ones, total - ones
    s[SUFFIX] = 1 if total > 10 and ones < 3 else 0
    s[FIRST] = 1 if ones < 3 else 0
    if ones:
        s[KIND] = SIGNS
    else:
        next_level(spec, s)
    return True
