"""Baseline H.264 slices as a state machine over syntax elements (ITU-T H.264, 7.3.4 and 7.3.5).

What `avc-symbols` are: macroblock types, prediction modes, coded block patterns, coeff_tokens,
signs, level prefixes, total_zeros, run_before, each its own symbol. Start codes, NAL and slice
headers, stuffing and the choice of VLC table are implied by the geometry and the symbols before, so
the model never sees them. In reading order:

    tables ▸ symbols ▸ state ▸ neighbours ▸ blocks ▸ machine ▸ completion      the machine
    bits          a slice's bits into symbols and back, by asking the machine what is next
    placed        addresses in place of skip runs        nal_bytes     the paper's bytes
    nal           NAL units and headers                  stream        the alphabets of clips

Covered is what x264's baseline profile writes: I and P slices, CAVLC, no I_PCM, frames only;
several references as long as macroblocks are not split into 8 × 8, which then is P_8x8ref0 at most.
This face is what `syntax.machine` and the files around the machine take of it.
"""

from jpeglm.syntax.avc.bits import PADDING, read_slice, write_slice
from jpeglm.syntax.avc.completion import GROWTH, flat_symbol, shortest, units
from jpeglm.syntax.avc.machine import complete, key, limits, step
from jpeglm.syntax.avc.state import FRAME, KIND, MB, SLICE, AvcSpec, avc_spec, start_state
from jpeglm.syntax.avc.symbols import (
    BASE,
    COEFF,
    COEFF_DC,
    END,
    LONGEST_SKIP,
    NAMES,
    REF,
    SYMBOLS,
    TOKEN,
    TYPE_P,
    symbol_count,
    symbol_name,
)

__all__ = [
    "BASE",
    "COEFF",
    "COEFF_DC",
    "END",
    "FRAME",
    "GROWTH",
    "KIND",
    "LONGEST_SKIP",
    "MB",
    "NAMES",
    "PADDING",
    "REF",
    "SLICE",
    "SYMBOLS",
    "TOKEN",
    "TYPE_P",
    "AvcSpec",
    "avc_spec",
    "complete",
    "flat_symbol",
    "key",
    "limits",
    "read_slice",
    "shortest",
    "start_state",
    "step",
    "symbol_count",
    "symbol_name",
    "units",
    "write_slice",
]
