"""recipes/gpu.py without a GPU: every part, tiny, with numba and without, from what travels."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import jpeglm
from jpeglm.places import shipped_checkpoint

pytestmark = pytest.mark.slow

pytest.importorskip("pyarrow")
pytest.importorskip("accelerate")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Both packs of a small corpus."""
    sys.path.insert(0, str(ROOT / "recipes"))
    try:
        import gpu
    finally:
        sys.path.pop(0)
    home = tmp_path_factory.mktemp("gpu")
    gpu.synthetic(home)
    for side in ("train", "validation"):
        (home / "corpus" / side).mkdir(parents=True)
        (home / "photos" / side).rename(home / "corpus" / side / "source")
    for words in ([], ["--tokens", "80", "--workers", "1"]):
        script = ROOT / "recipes" / "data" / "pack.py"
        command = [sys.executable, script, home / "corpus", home / "pack", *words]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert "MiB travel" in result.stdout
    told = json.loads((home / "pack" / "pack.json").read_text())
    assert told["photos"]["train"] == 40 and told["photos"]["validation"] == 8
    assert told["tokens"]["streams"] == 80
    with tarfile.open(home / "pack" / "tokens.tar.xz") as tar:
        assert not [name for name in tar.getnames() if name.endswith(".parquet")]
    return home / "pack"


def dry(pack, work, *words, path=""):
    command = [sys.executable, ROOT / "recipes" / "gpu.py", "--dry", "--minutes", 6]
    command += ["--pack", pack, "--work", work, *words]
    environment = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, cwd=work.parent
    )


def run_of(out, into):
    with tarfile.open(out / "photos.tar") as tar:
        tar.extractall(into, filter="data")
    return into


def test_a_dry_run_is_whole(pack, tmp_path):
    result = dry(pack, tmp_path / "work")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "pictures are cut and coded here" in result.stdout.splitlines()[0]
    out = tmp_path / "work" / "out"
    told = json.loads((out / "gpu.json").read_text())["parts"]
    assert {name: part["ended"] for name, part in told.items()} == dict.fromkeys(
        ("data", "a", "b", "c"), "whole"
    )
    checks = json.loads((out / "right.json").read_text())
    assert all(check["holds"] for check in checks.values())
    assert checks["device: pictures equal to the CPU's"]["measured"] == 2
    tables = json.loads((out / "bench-device-cpu.json").read_text())["tables"]
    assert tables["sampling, 1m, batch 1"].keys() == {
        "transformers.generate, static cache", "jpeglm", "jpeglm, no grammar", "floor",
    }  # fmt: skip
    assert "tokens/s, FSDP2 on one device" in tables["training, 1m, context 64"]
    assert (out / "photos.png").stat().st_size > 1000
    run = run_of(out, tmp_path / "run")
    assert jpeglm.load(run / "model").complete(Image.new("RGB", (64, 64)), keep=0.9).images


def test_without_numba_the_tokens_travel_and_a_second_call_goes_on(pack, tmp_path):
    home = tmp_path / "blocked" / "numba"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text('raise ImportError("Numba needs NumPy 2.4 or less")')
    result = dry(pack, tmp_path / "work", "--only", "a", "b", path=home.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "without numba the pack's tokens" in result.stdout.splitlines()[0]
    run = run_of(tmp_path / "work" / "out", tmp_path / "run")
    assert (run / "model" / "model.safetensors").exists()
    assert json.loads((run / "dataset.json").read_text())["streams"]["train"] == 80
    result = dry(pack, tmp_path / "work", "--only", "b", path=home.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = (run / "metrics.jsonl").read_text().splitlines()
    again = run_of(tmp_path / "work" / "out", tmp_path / "again")
    assert rows == (again / "metrics.jsonl").read_text().splitlines()[: len(rows)]


def test_models_of_words_are_trained_at_once(pack, tmp_path):
    photos = sorted((pack.parent / "corpus" / "train" / "source").iterdir())
    source = tmp_path / "drawings"
    source.mkdir()
    with open(source / "metadata.jsonl", "w") as rows:
        for number, photo in enumerate(photos):
            (source / photo.name).write_bytes(photo.read_bytes())
            row = {"file_name": photo.name, "text": f"a disc, number {number}"}
            rows.write(json.dumps(row) + "\n")
    run = [sys.executable, "-m", "jpeglm"]
    data, tokenizer, packed = tmp_path / "data", tmp_path / "tokenizer", tmp_path / "words"
    for words in (
        [*run, "prepare", source, data, "--size", "32", "--restart-interval", "1",
         "--validation", "0.3"],
        [*run, "train-tokenizer", data, "--out", tokenizer, "--vocab-size", "1000",
         "--alphabet", "jpeg-placed-symbols"],
        [sys.executable, ROOT / "recipes" / "data" / "pack.py", data, packed,
         "--tokenizer", tokenizer, "--name", "discs"],
        [*run, "prepare", source, tmp_path / "emoji", "--subsampling", "4:4:4",
         "--restart-interval", "1", "--validation", "0.3"],
        [sys.executable, ROOT / "recipes" / "data" / "pack.py", tmp_path / "emoji", packed,
         "--tokenizer", shipped_checkpoint("avatars"), "--name", "emoji"],
    ):  # fmt: skip
        result = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    with tarfile.open(packed / "discs.tar.xz") as tar:
        assert not [name for name in tar.getnames() if name.endswith(".parquet")]
    result = dry(packed, tmp_path / "work", "--only", "d", "--words", "discs", "discs:1", "emoji")
    assert result.returncode == 0, result.stdout + result.stderr
    weights = []
    for name in ("discs-0", "discs-1"):
        with tarfile.open(tmp_path / "work" / "out" / f"{name}.tar") as tar:
            tar.extractall(tmp_path / name, filter="data")
        told = json.loads((tmp_path / name / "config.json").read_text())
        assert told["settings"]["packing"] == "rows" and told["data"]["captions"] > 0
        weights.append((tmp_path / name / "model" / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]
    with tarfile.open(tmp_path / "work" / "out" / "emoji-0.tar") as tar:
        tar.extractall(tmp_path / "emoji-0", filter="data")
    began = json.loads((tmp_path / "emoji-0" / "config.json").read_text())
    assert began["settings"]["init"] == "avatars"
    drawn = jpeglm.load(tmp_path / "discs-0" / "model").generate(1, text="a disc, number 3")
    assert drawn.images
    result = dry(packed, tmp_path / "work", "--only", "d", "--words", "nothing")
    assert result.returncode == 1 and "no " in result.stderr and "pack.py" in result.stderr
