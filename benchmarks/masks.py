"""Token mask and advance: what the grammar costs a token.

    python benchmarks/masks.py [--pictures 64]

Real streams (crops of the test pictures, 256 px at quality 25 and 64 px) are walked token by token
as sampling walks them: mask, then advance by the token that came. Microseconds of each call by the
processor's own counter, so that a median and a 99th percentile can be given: of the first pictures,
for which masks are computed, and of later ones, which mostly find them. No other JPEG grammar
exists to compare with; XGrammar states a median of 8 microseconds for JSON.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from common import finish
from llvmlite import ir
from numba import extending, types
from tokens import crops

from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.generation.masks import advance, token_mask
from jpeglm.generation.matcher import ENDLESS, Constraint, bare_prompt
from jpeglm.kernels import njit
from jpeglm.tokenizer import Tokenizer


@extending.intrinsic
def _cycles(context):  # type: ignore[no-untyped-def]
    """The processor's time stamp counter."""

    def build(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.IntType(64), [])
        name = "llvm.readcyclecounter"
        counter = b.module.globals.get(name) or ir.Function(b.module, kind, name)
        return b.call(counter, [])

    return types.int64(), build


@njit()
def _walk(spec, state, ids, walk, forced, spans, vocabulary, masks, cycles):
    for i in range(len(ids)):
        start = _cycles()
        token_mask(spec, state, walk, forced, spans, vocabulary, masks)
        advance(spec, state, walk, ids[i], spans, vocabulary)
        cycles[i] = _cycles() - start


@njit()
def _now():
    return _cycles()


def frequency() -> float:
    """Counts a second."""
    _now()
    began, start = time.perf_counter(), _now()
    time.sleep(0.2)
    return (_now() - start) / (time.perf_counter() - began)


def measure(config: JpegConfig, alphabet: str, size: int, n: int, per: float) -> dict[str, Any]:
    codec = JpegCodec(config)
    streams = [codec.encode(picture) for picture in crops(3 * n, config.width, config.height)]
    tokenizer = Tokenizer.train(streams[:n], codec, alphabet, size)
    constraint = Constraint(tokenizer)
    prompt = bare_prompt(tokenizer.bos)
    micro = []
    for stream in streams:
        ids = tokenizer.encode_stream(stream)
        cycles = np.zeros(len(ids), np.int64)
        state, walk, spans = constraint.start(prompt, ENDLESS)
        given = (walk[0], prompt.forced, spans, constraint.vocabulary, constraint.masks)
        _walk(constraint.spec, state, ids, *given, cycles)
        micro.append(cycles / per * 1e6)
    rows = {}
    for title, part in (("first", micro[1 : n // 4]), ("later", micro[n:])):
        values = np.concatenate(part)
        rows[title] = {
            "median": float(np.median(values)),
            "least": float(values.mean()),
            "most": float(np.percentile(values, 99)),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=64)
    arguments = parser.parse_args()
    per = frequency()
    tables: dict[str, Any] = {}
    for side in (64, 256):
        rows = {}
        for alphabet, sizes in (("jpeg-block-symbols", (320, 1024, 2048)), ("bytes", (320, 1024))):
            for size in sizes:
                config = JpegConfig(side, side, restart_interval=1)
                found = measure(config, alphabet, size, arguments.pictures, per)
                for title, figures in found.items():
                    rows[f"{alphabet}, {size} tokens, {title}"] = figures
        tables[f"{side} px"] = rows
    finish("masks", "microseconds a token: median, then mean and 99th percentile", tables)


if __name__ == "__main__":
    main()
