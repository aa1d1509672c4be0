"""Advice and warnings of training follow their stated rules, and the rules their sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jpeglm.models.llama import PRESETS
from jpeglm.training import TrainConfig, advice

ROOT = Path(__file__).resolve().parents[2]
MARKED = {"codec": "jpeg", "restart_interval": 1}


def test_the_law_is_the_measured_one() -> None:
    study = json.loads((ROOT / "docs/results/tokens-scaling.json").read_text())
    assert study["law"] == pytest.approx(
        dict(zip(("floor", "scale", "exponent"), advice.LAW)) | {"rms": study["law"]["rms"]}
    )
    ends = [
        (run["streams"][-1] * run["tokens_per_stream"], run["bits"][-1])
        for form in study["forms"].values()
        for run in form["runs"]
    ]
    for tokens, bits in ends:
        assert advice.law(tokens) == pytest.approx(bits, rel=0.02)
    low, high = advice.LAW_TOKENS
    assert low == pytest.approx(min(tokens for tokens, _ in ends), rel=0.02)
    assert high == pytest.approx(max(tokens for tokens, _ in ends), rel=0.02)
    assert f"Huffman ({advice.HUFFMAN:.0f} bits" in (ROOT / "docs/tokens.md").read_text()
    table = json.loads((ROOT / "docs/results/photos-likelihood.json").read_text())["coders"]
    plain = table["huffman"]
    # With markers a stream has these bits; without, the coder is charged for bits_per_image.
    stream = 8 * plain["bits_per_image"] / plain["bits_per_stream_byte"]
    assert pytest.approx(stream / plain["bits_per_image"], rel=1e-3) == advice.MARKED


def test_what_to_expect() -> None:
    share = advice.expected_share(10e6, MARKED, "jpeg-block-symbols")
    assert share == pytest.approx(advice.law(10e6) / (3505 * advice.MARKED))
    assert advice.expected_share(10e6, MARKED, "jpeg-placed-symbols") == share
    plain = advice.expected_share(10e6, MARKED | {"restart_interval": 0}, "jpeg-symbols")
    assert plain == pytest.approx(0.735, abs=0.005)
    for tokens, codec, alphabet in (
        (1e5, MARKED, "jpeg-symbols"), (1e7, MARKED, "bytes"), (1e7, {"codec": "avc"}, "bytes"),
    ):  # fmt: skip
        assert advice.expected_share(tokens, codec, alphabet) is None


def test_the_smallest_size_that_the_budget_does_not_outgrow() -> None:
    sizes = dict(zip(PRESETS, (1e6, 2e6, 3.5e6, 5e6, 1e7, 3e7, 8.5e7, 3e8, 1e9, 7e9)))

    def choose(budget: float) -> str:
        """Where a size of n parameters sees budget / n tokens."""
        return advice.choose_preset(lambda name: budget / sizes[name], lambda n: int(sizes[n]))

    assert choose(19e12) == "1m"
    assert choose(21e12) == "2m"  # 21 tokens a parameter of 1m
    assert choose(81e12) == "3m"
    assert choose(1e30) == "7b"


def test_warmup_that_outlasts_the_budget_or_most_of_it() -> None:
    config = TrainConfig(preset="2m", steps=50, warmup=100)
    for steps, word in ((50, "outlasts"), (100, "outlasts"), (150, "of its peak")):
        line = advice.rate_warning(config, steps, ended=False)
        assert line is not None and word in line and f"--warmup {steps // 10}" in line
    assert advice.rate_warning(config, 1000, ended=False) is None
    line = advice.rate_warning(config, 50, ended=True)
    assert line is not None and "never peaked" in line
    # A cosine has fallen by 2 % after a tenth of the budget, by 9 % after a fifth.
    fifth = TrainConfig(preset="2m", steps=500, warmup=100)
    assert advice.rate_warning(fifth, 500, ended=True) is None
    assert advice.highest_rate(fifth, 500) == pytest.approx(0.914, abs=0.005)
    assert advice.highest_rate(TrainConfig(preset="2m", steps=5, warmup=0), 5) == 1


def test_held_out_pictures_that_cannot_tell() -> None:
    assert advice.gain(10e6) == pytest.approx((2574 - 2482) / 3505, abs=0.001)
    line = advice.held_out_warning(0.06, 10e6, 9, limited=False)
    assert line is not None
    assert "9 held-out pictures" in line and "± 6.0 %" in line and "--validation" in line
    need = 9 * (0.06 / advice.gain(10e6)) ** 2
    assert f"to {int(need) + 1} pictures" in line
    assert advice.held_out_warning(0.02, 10e6, 256, limited=True) is None
    line = advice.held_out_warning(0.05, 10e6, 64, limited=True)
    assert line is not None and "--eval-images" in line
    assert "1 held-out picture cannot" in (advice.held_out_warning(None, 1e6, 1, True) or "")


def test_crops_for_a_budget() -> None:
    assert advice.crops_advice(4e6, 1_000_000, 0, "data") is None
    line = advice.crops_advice(10e6, 1_000_000, 2, "data")
    assert line is not None and "10 times" in line and "--crops 6" in line
