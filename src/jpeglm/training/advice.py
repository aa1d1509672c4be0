"""What to expect of a run, which model suits its budget, and what to warn of: rules without torch.

Every rule has its source. The law of bits over tokens is ours (docs/tokens.md, model size); how
many tokens a model is worth, and how often data may be repeated, are from the literature.
Trade-off: the law was measured on one corpus of photographs at 64 x 64, quality 25; elsewhere it is
carried over as a share of what Huffman codes take, which drawings, say, will not keep to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jpeglm.models.llama import PRESETS
from jpeglm.training import TrainConfig

LAW = (2149.108562134902, 956.7167921283507, 0.3524185461669571)
"""Bits a picture = floor + scale (tokens / 1e6)^-exponent (docs/results/tokens-scaling.json)."""
LAW_ALPHABETS = ("jpeg-symbols", "jpeg-block-symbols", "jpeg-placed-symbols")
"""The law was measured with jpeg-block-symbols; the other two say the same under other names,
and are taken to learn alike."""
LAW_TOKENS = (0.58e6, 10e6)
"""Tokens that the runs had seen whose ends the law fits."""
HUFFMAN = 3505.0
"""Bits that Huffman took for a picture there, without restart markers (docs/tokens.md)."""
MARKED = 3235.1 / 2896.2
"""What a restart marker at every MCU adds to that: both ways on the 510 held-out crops of
data/photos64 (docs/results/photos-likelihood.json, bits_per_stream_byte)."""
TOKENS_A_PARAMETER = 20
"""Beyond it a larger model is better for the same compute (Hoffmann et al. 2022, arXiv 2203.15556,
table 3). Ours agree: 1m and 2m lie on the law to 10 and 6 tokens a parameter, the shipped 2m is
still ahead of it at 24."""
PASSES = 4
"""As often repeated, data are about as good as new ones (Muennighoff et al. 2023, arXiv
2305.16264)."""
WARMUP_SHARE = 10
"""Warm-up by advice is at most one step in so many: the cosine has then fallen by 2 %."""
PEAKED = 0.9
"""A rate that gets to this share of its peak counts as having peaked: warm-up of up to a fifth of
the budget."""


def law(tokens: float) -> float:
    """Bits a picture of the law's corpus after so many training tokens."""
    floor, scale, exponent = LAW
    return floor + scale * math.pow(tokens / 1e6, -exponent)


def huffman(codec: dict[str, Any]) -> float:
    """What Huffman took there for a picture in streams of this codec's kind of restart markers."""
    return HUFFMAN * (MARKED if codec["restart_interval"] == 1 else 1)


def expected_share(tokens: float, codec: dict[str, Any], alphabet: str) -> float | None:
    """Of what Huffman takes for held-out pictures, the share that a run over so many tokens ends
    at; None where no law was measured."""
    known = codec["codec"] == "jpeg" and alphabet in LAW_ALPHABETS
    return law(tokens) / huffman(codec) if known and tokens >= LAW_TOKENS[0] else None


def gain(tokens: float) -> float:
    """The share of Huffman's bits by which twice as many tokens would end lower."""
    return (law(tokens) - law(2 * tokens)) / HUFFMAN


def choose_preset(tokens_in: Callable[[str], float], size_of: Callable[[str], int]) -> str:
    """The smallest preset that the budget does not make see more tokens than it is worth.

    tokens_in: tokens that the budget lets a preset see, and that are worth seeing; size_of: its
    parameters. Up to that many tokens small models are as good a token and faster.
    """
    for name in PRESETS:
        if tokens_in(name) <= TOKENS_A_PARAMETER * size_of(name):
            return name
    return PRESETS[-1]


def highest_rate(config: TrainConfig, steps: int) -> float:
    """Of the peak learning rate, the share that `steps` steps get to."""
    reached = max(
        config.rate(step, step / steps) for step in range(min(steps, config.warmup_steps + 1))
    )
    return reached / config.peak


def rate_warning(config: TrainConfig, steps: int, ended: bool) -> str | None:
    """Why the learning rate does not get to its peak in so many steps, and what to do."""
    if steps < 1 or highest_rate(config, steps) >= PEAKED:
        return None
    better = max(1, steps // WARMUP_SHARE)
    if ended:
        return (
            f"the learning rate never peaked: {config.warmup_steps} steps of warm-up, and the run "
            f"ended after {steps}; go on with a larger budget, or begin anew with --warmup {better}"
        )
    if config.warmup_steps >= steps:
        return (
            f"warm-up ({config.warmup_steps} steps) outlasts the budget (about {steps}); begin "
            f"anew with --warmup {better}, or give a larger budget"
        )
    return (
        f"warm-up takes {config.warmup_steps} of about {steps} steps, so that the learning rate "
        f"gets to {highest_rate(config, steps):.0%} of its peak; begin anew with --warmup {better}"
    )


def held_out_warning(
    error: float | None, tokens: float, pictures: int, limited: bool
) -> str | None:
    """That the held-out pictures are too few to tell: their bits, as a share of what their own code
    takes, are uncertain (half a 95 % interval) by more than training twice as long would gain.

    limited: whether --eval-images leaves some out.
    """
    what = "1 held-out picture" if pictures == 1 else f"{pictures} held-out pictures"
    more = "raise --eval-images" if limited else "hold out more (prepare --validation)"
    if error is None:
        return f"{what} cannot tell how certain its bits are; {more}"
    wanted = gain(max(tokens, LAW_TOKENS[0]))
    if error <= wanted:
        return None
    need = math.ceil(pictures * (error / wanted) ** 2)
    return (
        f"{what} tell the bits to ± {100 * error:.1f} % only, and training twice as long gains "
        f"about {100 * wanted:.1f} %; {more}, to {need:,} pictures or so"
    )


def crops_advice(tokens: float, known: int, crops: int, name: str) -> str | None:
    """That data of `known` tokens are repeated too often, and how many crops would do."""
    passes = tokens / known
    if passes <= PASSES:
        return None
    better = max(1, crops) * math.ceil(passes / PASSES)
    return (
        f"the budget passes {passes:.0f} times over {name}, and beyond {PASSES} times hardly "
        f"anything is learnt; prepare the pictures with --crops {better}, or add more of them"
    )
