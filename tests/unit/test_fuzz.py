"""A few mutants of each kind of file, always the same; `make fuzz` tries new ones for minutes."""

import random

import pytest

from tests import fuzzing

MUTANTS = {
    "check": 60, "check-mp4": 40, "film": 60, "picture": 60, "tar": 12, "parquet": 12,
    "safetensors": 150, "checkpoint": 40, "import": 60,
}  # fmt: skip
NEEDS = {"check-mp4": "av", "film": "av", "tar": "pyarrow", "parquet": "pyarrow",
         "import": "sentencepiece"}  # fmt: skip


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_mutants_end_in_an_answer_or_a_sentence(target, tmp_path):
    if target in NEEDS:
        pytest.importorskip(NEEDS[target])
    case = fuzzing.Case(tmp_path)
    for number in range(MUTANTS[target]):
        fuzzing.run_case(target, number, case)


def test_the_fuzzer_sees_what_it_is_for(tmp_path, monkeypatch):
    """Any other exception is a failure."""

    def broken(case: fuzzing.Case, rng: random.Random) -> None:
        raise KeyError("x")

    monkeypatch.setitem(fuzzing.TARGETS, "broken", broken)
    with pytest.raises(KeyError):
        fuzzing.run_case("broken", 0, fuzzing.Case(tmp_path))
