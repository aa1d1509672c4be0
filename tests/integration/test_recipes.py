"""Data recipes on local folders of the form that they fetch."""

import io
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
