"""Data recipes on local folders of the form that they fetch."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
pq = pytest.importorskip("pyarrow.parquet")


def recipe(name, *arguments):
    command = [sys.executable, ROOT / "recipes" / "data" / name, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path, picture_files):
    for i, file in enumerate(picture_files[:6]):
        home = tmp_path / "in" / "train" / ("ab"[i % 2])
        home.mkdir(parents=True, exist_ok=True)
        (home / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_hub_dataset_becomes_parquet(folder):
    pytest.importorskip("datasets")
    result = recipe("hub.py", folder / "in", folder / "out", "--limit", 5)
    assert result.returncode == 0, result.stderr
    table = pq.read_table(folder / "out" / "train" / "00000.parquet")
    stored = {row["path"]: row["bytes"] for row in table.column("image").to_pylist()}
    assert len(stored) == 5
    for name, data in stored.items():
        assert data in [file.read_bytes() for file in (folder / "in").rglob(name)]
    from jpeglm.data.arrays import load_images

    found = load_images(folder / "out", 16, 16, split=None)
    assert found.labels.tolist() == sorted(found.labels.tolist()) and set(found.labels) == {0, 1}
    result = recipe("hub.py", folder / "nowhere", folder / "out")
    assert result.returncode == 1 and "cannot be opened" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_long_tail_and_the_parquet_of_cifar10(tmp_path):
    sys.path.insert(0, str(ROOT / "recipes" / "data"))
    try:
        import cifar10
    finally:
        sys.path.pop(0)
    labels = np.tile(np.arange(10), 5000).tolist()
    chosen = cifar10.long_tail(labels, 100)
    counts = np.bincount([labels[i] for i in chosen])
    # The counts that Cui et al. 2019 and all who follow them use.
    assert counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    cifar10.write(tmp_path / "x.parquet", pixels, labels[:20])
    from jpeglm.data.arrays import load_images
    from jpeglm.data.sources import open_source

    found = load_images(tmp_path / "x.parquet", 32, 32, split=None)
    assert (found.pixels == pixels).all() and found.labels.tolist() == labels[:20]
    assert open_source(tmp_path / "x.parquet").label_names[3] == "cat"
    picture = pq.read_table(tmp_path / "x.parquet").column("image")[0].as_py()["bytes"]
    assert (np.asarray(Image.open(io.BytesIO(picture))) == pixels[0]).all()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("jpegtran"), reason="needs libjpeg-turbo-progs")
def test_the_acceptance_of_a_tenth(tmp_path, picture_files):
    """The long check's own code, on crops of the test pictures."""
    for i in range(40):
        with Image.open(picture_files[i % len(picture_files)]) as picture:
            picture.crop((2 * i, i, 2 * i + 160, i + 160)).save(tmp_path / f"{i}.png")
    out = tmp_path / "acceptance.json"
    script = ROOT / "recipes" / "acceptance.py"
    command = [sys.executable, script, "--quick", "--photos", tmp_path, "--out", out]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:] + result.stdout[-2000:]
    found = json.loads(out.read_text())
    assert found["photographs"][0]["paper-bytes"]["automaton"] == 30
    assert found["model"]["with_grammar"]["djpeg_silent"] == 20


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_few_kills_of_prepare_and_train(tmp_path):
    """The long check's own code: each is killed twice by an operation, twice by the clock."""
    pytest.importorskip("accelerate")
    out = tmp_path / "kills.json"
    command = [sys.executable, ROOT / "recipes" / "kills.py", "--kills", "4", "--out", out]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:] + result.stdout[-2000:]
    found = json.loads(out.read_text())
    assert found["holds"] and found["kills"] == 8 and len(found["asked"]) == 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")
def test_a_server_under_a_little_load(tmp_path):
    """The long check's own code. What the clock says is not asked of a machine that others use."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        pytest.importorskip(package)
    out = tmp_path / "load.json"
    command = [sys.executable, ROOT / "recipes" / "load.py", "--quick", "--out", out]
    result = subprocess.run(command, capture_output=True, text=True)
    assert out.exists(), result.stderr[-2000:] + result.stdout[-2000:]
    found = json.loads(out.read_text())
    clocks = {"throughput is under 85% of the session's", "first partial pictures take over 0.3 s"}
    assert set(found["missed"]) <= clocks, found["missed"]
    assert result.returncode == bool(found["missed"])
    assert found["load"]["pictures"] > 16 and found["load"]["told_to_come_again"]
    assert found["cancelled"]["requests"] == 300


def test_a_token_study_reads_its_runs(tmp_path, monkeypatch):
    """Two seeds of a form that learns and one of a form that does not, as `train` records them."""
    from jpeglm.models.llama import flops_per_token, preset

    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    import studies
    import token_study

    monkeypatch.chdir(tmp_path)
    study = studies.STUDIES["clips"]
    shape = preset("2m", 320, 512)

    def finished(form, seed, bits):
        run = tmp_path / form.home / f"{form.name}-{seed}"
        run.mkdir(parents=True)
        (run / "finished").touch()
        (run / "config.json").write_text(json.dumps({"model": shape, "parameters": 7}))
        rows = [{"step": 10 * i, "images": 40 * i, "tokens": 4000 * i} for i in (1, 2, 3)]
        rows += [{"step": 10 * (i + 1), "bits_per_image": b} for i, b in enumerate(bits)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    finished(study.forms[0], 0, [300, 200, 100])
    finished(study.forms[0], 1, [300, 200, 120])
    finished(study.forms[2], 0, [260, 255, 250])
    found = token_study.collect("clips")["forms"]
    good, bad = found[study.forms[0].name], found[study.forms[2].name]
    assert (good["bits"], good["least"], good["most"], good["seeds"]) == (110, 100, 120, 2)
    assert good["tokens_per_stream"] == 100 and bad["seeds"] == 1
    each = flops_per_token(shape, 100) * 400
    assert good["runs"][0]["flops"] == [10 * each, 20 * each, 30 * each]
    # The mean curve falls from 300 to 200 in the middle third; it passes 250 halfway.
    assert bad["best_form_needs_flops"] == pytest.approx(0.5, abs=0.01)
    assert bad["best_form_needs_streams"] == pytest.approx(0.5, abs=0.01)
    assert (
        token_study.table(token_study.collect("clips"))
        .splitlines()[2]
        .endswith("| 0.0 M | 100 | 120 | 110 (100 to 120, 2) | 100 % | 100 % | – | – |")
    )
    token_study.plot(token_study.collect("clips"), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 5000


def test_a_law_is_found_again(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    import token_study

    seen = [5e5, 1e6, 2e6, 5e6, 1e7]
    runs = [
        {"streams": [tokens / 200, tokens / 100], "tokens_per_stream": 100,
         "bits": [9999, 2000 + 900 * (tokens / 1e6) ** -0.4]}
        for tokens in seen
    ]  # fmt: skip
    found = token_study.law({"forms": {"form": {"runs": runs}}})
    assert found["rms"] < 1e-6
    assert [found[key] for key in ("floor", "scale", "exponent")] == pytest.approx([2000, 900, 0.4])


def test_documents_quote_the_token_studies(monkeypatch):
    """Every table of docs/results/tokens-*.json stands in a page, as the recipe writes it."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    import token_study

    pages = "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("tokens", "clips"))
    results = sorted((ROOT / "docs" / "results").glob("tokens-*.json"))
    assert results
    for path in results:
        assert token_study.table(json.loads(path.read_text())) in pages, path.name


@pytest.mark.parametrize(
    ("page", "sentence"),
    [("README.md", "{valid} valid to `djpeg`; without it {whole} |"),
     ("docs/results.md", "`djpeg` takes {valid} without a warning; without it the same\n"
      "model completes {whole} (["),
     ("docs/tokens.md", "({whole} of 200 of the shipped one")],
)  # fmt: skip
def test_documents_quote_the_last_acceptance(page, sentence):
    found = json.loads((ROOT / "docs/results/acceptance.json").read_text())["model"]
    valid = found["with_grammar"]["djpeg_silent"]
    whole = found["without_grammar"]["complete_as_sampled"]
    assert sentence.format(valid=valid, whole=whole) in (ROOT / page).read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], r"this needs vllm, which is not installed; run: pip install 'jpeglm\[vllm\]'"),
        (["--checkpoint", "nowhere"], "nowhere is no checkpoint of jpeglm"),
        (["--engine", "{"], "--engine is '{', no JSON"),
        (["--engine", '["a"]'], "give a JSON object of vLLM's arguments"),
        (["--engine", '{"model": "x"}'], "without model and skip_tokenizer_init"),
        (["--port", "99999999"], "cannot listen at 127.0.0.1:99999999"),
        (["--host", "nobody.invalid"], "cannot listen at nobody.invalid:8001"),
        (["--port", "taken"], "cannot listen at .*in use"),
    ],
)
def test_the_recipe_judges_before_an_engine_starts(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM itself is not needed for that, but for the first sentence's absence."""
    import argparse
    import importlib.util
    import socket

    from jpeglm.config import InputError

    spec = importlib.util.spec_from_file_location("recipe", ROOT / "recipes/vllm_server.py")
    assert spec and spec.loader
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    if words or importlib.util.find_spec("vllm"):
        gone = None if words else "vllm"
        monkeypatch.setattr(recipe, "find_spec", lambda name: None if name == gone else True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        usual = {"checkpoint": "photos", "host": "127.0.0.1", "port": "8001", "engine": "{}"}
        usual |= {name[2:]: value for name, value in zip(words[::2], words[1::2])}
        port = usual.pop("port")
        given = taken.getsockname()[1] if port == "taken" else int(port)
        with pytest.raises(InputError, match=told):
            recipe.judged(argparse.Namespace(**usual, port=given))
