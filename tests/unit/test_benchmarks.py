"""The page of benchmarks says what its JSON files say, and each peer is a file of one form."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
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


def test_every_kind_of_processor_is_on_the_page():
    """Under the name that `environment.vectors` gives it."""
    import common

    source = (ROOT / "src" / "jpeglm" / "environment.py").read_text()
    named = set(re.findall(r'"(AVX[^"]*|NEON)"', source))
    assert {"AVX2", "AVX-512", "AVX-512 VNNI", "NEON"} <= named
    assert {common.kind_of(name) for name in named} <= {*common.KINDS} - {"other"}
    assert common.kind_of("") == "other"


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


def film(path):
    """Seven seconds of pictures of noise, as H.264 at 3 frames a second."""
    av = pytest.importorskip("av", reason="the extra video is not installed")
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=3)
        stream.width, stream.height, stream.pix_fmt = 256, 144, "yuv420p"
        for _ in range(21):
            pixels = rng.integers(0, 256, (144, 256, 3), dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))


SMALLEST = {
    "generation.py": ["--tokens", "8", "--repeats", "1", "--batches", "2"],
    "lengths.py": ["--model", "2m", "--lengths", "16", "64"],
    "masks.py": ["--pictures", "8"],
    "memory.py": ["--pictures", "10"],
    "precisions.py": ["--pictures", "2"],
    "preparing.py": ["--pictures", "64", "--repeats", "1", "--workers", "1"],
    "start.py": ["--repeats", "1"],
    "tokens.py": ["--pictures", "20", "--streams", "20", "--repeats", "1"],
    "clips.py": ["--repeats", "1", "--every", "1"],
}
"""Options with which each takes seconds. training.py takes minutes (torch compiles); device.py runs
in the tests of recipes/gpu.py."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_every_benchmark_measures(name, tmp_path):
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    for folder in ("tests", "src"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    words = [sys.executable, str(tmp_path / "benchmarks" / name), *SMALLEST[name]]
    if name == "clips.py":
        film(tmp_path / "films" / "film.mp4")
        words.append(str(tmp_path / "films"))
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    files = list((tmp_path / "docs" / "results").iterdir())
    assert files and all(file.name.startswith("bench-") for file in files)
    for file in files:
        tables = json.loads(file.read_text())["tables"]
        assert all(row["median"] is not None for rows in tables.values() for row in rows.values())


def test_what_a_process_holds_of_its_data_is_on_the_page():
    """docs/scaling.md has the figures of its JSON; of several packings the largest."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    rows = json.loads((ROOT / "docs" / "results" / "corpus.json").read_text())["rows"]
    cases = {(round(row["tokens"] / 1e6), row["how"]) for row in rows}
    for millions, how in cases:
        own = [r for r in rows if (round(r["tokens"] / 1e6), r["how"]) == (millions, how)]
        line = next(one for one in page.split("\n") if one.startswith(f"| {millions} M | {how}"))
        cells = [cell.strip() for cell in line.split("|")[3:6]]
        places = 1 if how == "token shards" else 0
        assert cells[0] == " / ".join(f"{row['own']:.{places}f}" for row in own) + " MB"
        assert cells[1] == f"{max(row['mapped'] for row in own):.0f} MB"
        wait = float(cells[2].removesuffix(" s"))
        assert wait == pytest.approx(max(row["first_batch_s"] for row in own), rel=0.1)


def test_what_a_process_holds_is_measured(tmp_path):
    out = tmp_path / "corpus.json"
    words = [sys.executable, str(ROOT / "benchmarks" / "corpus.py"), "--millions", "0.3"]
    ran = subprocess.run([*words, "--out", str(out)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    shards, parquet = json.loads(out.read_text())["rows"]
    assert shards["tokens"] == parquet["tokens"] > 250_000
    assert shards["own"] < 2 and parquet["own"] > 10 and shards["streams"] > 500
