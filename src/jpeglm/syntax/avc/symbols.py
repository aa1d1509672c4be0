"""The syntax elements of a baseline slice as symbols: their kinds, numbers and names.

Each element is a symbol of its own; numbers without a bound (skip runs, motion vector differences,
level suffixes) are a size and then their bits in chunks of at most four, as JPEG's amplitudes.

    skip size ▸ I type ▸ P type ▸ … ▸ run ▸ bits ▸ reference        (COUNTS says how many of each)
"""

from __future__ import annotations

import numpy as np

from jpeglm.syntax.avc.tables import CBP_INTER, CBP_INTRA

# Kinds of elements, in the order of their symbols.
SKIP, TYPE_I, TYPE_P, INTRA4, CHROMA, SUB, MVD_X, MVD_Y, PATTERN_INTRA, PATTERN_INTER = range(10)
QP_DELTA, COEFF, COEFF_DC, SIGNS, PREFIX, ZEROS, ZEROS_DC, RUN, BITS, REF, END = range(10, 21)
COUNTS = (13, 25, 29, 9, 4, 4, 14, 14, 48, 48, 6, 62, 14, 14, 16, 16, 4, 15, 30, 16)
"""Symbols of each kind. SKIP, MVD and QP_DELTA: Exp-Golomb sizes; INTRA4: the mode itself; BITS:
chunks of 1 to 4 bits, most significant first, the leading chunk of a long number has 4. REF, the
picture that a partition refers to, stands last: with one reference there is none."""
LONGEST_SKIP = (2 << (COUNTS[SKIP] - 1)) - 2
"""Macroblocks that a skip run of the largest size spans; a slice of more could not be left out."""
HIGHEST_QP, LOWEST_QP = 50, 52
"""codeNum of mb_qp_delta 25 and −26, its range (7.4.5); 51 would say 26, larger ones more."""
BASE = np.concatenate([[0], np.cumsum(COUNTS)])
SYMBOLS = int(BASE[-1])
NAMES = (
    "skip size", "I type", "P type", "intra mode", "chroma mode", "sub type", "mvd x size",
    "mvd y size", "pattern", "inter pattern", "qp size", "coeff", "chroma coeff", "signs",
    "level prefix", "zeros", "chroma zeros", "run", "bits", "reference",
)  # fmt: skip
CHUNK = 4

_PAIRS = [(total, ones) for total in range(17) for ones in range(min(total, 3) + 1)]
TOKEN = np.array([4 * total + ones for total, ones in _PAIRS])
"""Value of coeff_token (4 TotalCoeff + TrailingOnes) of each COEFF symbol; the first 14 are
those of COEFF_DC too."""
TOKEN_SYMBOL = np.full(68, -1, np.int64)
TOKEN_SYMBOL[TOKEN] = np.arange(len(TOKEN))
PATTERN_CODE = np.stack([np.argsort(CBP_INTRA), np.argsort(CBP_INTER)])
PATTERN_VALUE = np.stack([CBP_INTRA, CBP_INTER])


def symbol_count(references: int) -> int:
    """Symbols of an alphabet: those of REF only where there is a choice."""
    return SYMBOLS if references > 1 else int(BASE[REF])


def symbol_name(symbol: int) -> str:
    """A symbol in words."""
    kind = int(np.searchsorted(BASE, symbol, "right")) - 1
    value = symbol - int(BASE[kind])
    if kind in (COEFF, COEFF_DC):
        total, ones = _PAIRS[value]
        return f"{NAMES[kind]} {total}, {ones} ones"
    if kind in (BITS, SIGNS):
        size = (value + 2).bit_length() - 1
        return f"{NAMES[kind]} {value + 2 - (1 << size):0{size}b}"
    return f"{NAMES[kind]} {value}"
