"""The page of benchmarks says what its JSON files say, and each peer is a file of one form."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_the_page_is_what_the_results_give():
    import report

    assert (ROOT / "docs" / "benchmarks.md").read_text() == report.page()
    for file in (ROOT / "docs" / "results").glob("bench-*.json"):
        assert any(file in report.results(name) for name in report.TABLES)


def test_every_peer_has_the_stated_form():
    from peers import peers

    found, missing = peers()
    assert len(found) + len(missing) == len(list((ROOT / "benchmarks" / "peers").glob("with_*.py")))
    assert any(peer.NAME == "transformers.generate" for peer in found)
    for peer in found:
        assert peer.PRECISIONS and callable(peer.open)


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda f: f.name)
def test_every_benchmark_tells_what_it_measures(file):
    if file.name in ("common.py", "run.py", "report.py"):
        return
    words = [sys.executable, str(file), "--help"]
    shown = subprocess.run(words, capture_output=True, text=True)
    assert shown.returncode == 0 and len(shown.stdout) > 300, shown.stderr
