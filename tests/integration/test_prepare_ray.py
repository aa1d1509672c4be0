"""prepare on a Ray cluster of several nodes leaves the bytes that one machine leaves."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.cluster import run_on_ray
from jpeglm.data.jobs import Setup, shard_job
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PoolConfig, PrepareConfig
from jpeglm.tokenizer import Tokenizer

ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
pytestmark = pytest.mark.slow

CODEC = make_codec({"codec": "jpeg", "width": 32, "height": 32})
CONFIG = PrepareConfig(crops=300, validation=0.2, unit_size=4)
TOKENIZER = Tokenizer(CODEC, "jpeg-symbols", np.zeros((0, 2), np.int32))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """40 pictures, two files that are none, and one that is cut."""
    folder = tmp_path_factory.mktemp("ray") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 80)).save(folder / f"{number:02d}.png")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def here(photos: Path) -> Path:
    prepare(photos, photos.parent / "here", CODEC, CONFIG, tokenizer=TOKENIZER, workers=1)
    return photos.parent / "here"


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work, and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def on_ray(photos: Path, out: Path) -> None:
    prepare(photos, out, CODEC, CONFIG, tokenizer=TOKENIZER, engine="ray")


def test_a_node_lost_in_the_middle_changes_nothing(cluster, photos, here, tmp_path, monkeypatch):
    """By a relative path, too: the nodes begin in other folders."""
    made, nodes = cluster
    monkeypatch.chdir(tmp_path)
    work = threading.Thread(target=on_ray, args=(photos, Path("out")))
    work.start()
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("out/shard-*"))) < 2:
        assert time.monotonic() < end and work.is_alive()
        time.sleep(0.01)
    made.remove_node(nodes[1], allow_graceful=False)
    assert len(list(tmp_path.glob("out/shard-*"))) < 10, "the loss must come in the middle"
    work.join()
    assert contents(tmp_path / "out") == contents(here)
    # What is there is not made again, and the rest is.
    (tmp_path / "out" / "dataset.json").unlink()
    (tmp_path / "out" / "shard-00003.parquet").unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/shard-*")}
    on_ray(photos, Path("out"))
    assert contents(tmp_path / "out") == contents(here)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_what_goes_wrong_on_a_node_is_one_sentence(cluster, photos, tmp_path, monkeypatch):
    from jpeglm.data import cluster as module

    monkeypatch.setattr(module, "_absolute", lambda task: (Path("/dev/null/x.parquet"), *task[1:]))
    with pytest.raises(InputError, match="/dev/null"):
        on_ray(photos, tmp_path / "out")


def test_nobody_at_an_address(tmp_path):
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(InputError, match=r"no Ray cluster at ray://localhost:1; start one"):
        run = PoolConfig(engine="ray", address="ray://localhost:1")
        list(run_on_ray(shard_job, [(tmp_path,)], run, Setup(CODEC.to_dict(), tmp_path, CONFIG)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "abacus"}, "choose local or ray"),
        ({"address": "auto"}, "add --engine ray"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(InputError, match=words):
        PoolConfig(**settings)
