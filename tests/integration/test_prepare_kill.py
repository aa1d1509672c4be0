"""prepare is killed, or meets a full disk; finished shards stay, and the same command goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.jobs import Setup
from jpeglm.data.open import Dataset
from jpeglm.data.pool import run
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PoolConfig, PrepareConfig

from ..unit.conftest import until

pytestmark = pytest.mark.slow

CODEC = make_codec({"codec": "jpeg", "width": 32, "height": 32})
SETTINGS = PrepareConfig(crops=150, validation=0.2, unit_size=4)

SCRIPT = """
import resource, sys
from pathlib import Path
from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PoolConfig, PrepareConfig

if __name__ == "__main__":
    limit, workers = int(sys.argv[3]), int(sys.argv[4])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    codec = make_codec({"codec": "jpeg", "width": 32, "height": 32})
    settings = PrepareConfig(crops=150, validation=0.2, unit_size=4)
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]), codec, settings, workers=workers)
    except InputError as error:
        sys.exit(f"InputError: {error}")
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures; the first four shards hold smooth ones, so they are smaller than the rest."""
    home = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(40):
        size = (2, 2) if number < 16 else (100, 120)
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((120, 100), Image.Resampling.BICUBIC).save(
            home / f"{number:02d}.png"
        )
    return home


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare(photos, out, CODEC, SETTINGS, workers=1)
    return contents(out)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "run.py"
    path.write_text(SCRIPT)
    return path


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def shards(out: Path) -> list[Path]:
    return sorted(out.glob("shard-*.parquet"))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
def test_killed_and_run_again(photos: Path, uninterrupted, script: Path, tmp_path: Path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, script, photos, out, "0", "2"])
    until(lambda: len(shards(out)) >= 2)
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = shards(out)
    assert 2 <= len(left) < 10, "the kill must come in the middle"
    assert not (out / "dataset.json").exists()
    until(lambda: not any(alive(pid) for pid in workers), 20)
    for path in shards(out):
        assert path.read_bytes() == uninterrupted[path.name], "a shard is whole or not there"
    kept = {path: path.stat().st_mtime_ns for path in shards(out)}

    again = subprocess.run([sys.executable, script, photos, out, "0", "2"])
    assert again.returncode == 0
    assert contents(out) == uninterrupted
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished work is kept"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
def test_ctrl_c_while_workers_start(photos: Path, tmp_path: Path):
    """A terminal sends it to every process; a worker is then still importing its modules."""
    # So many crops that it cannot be done before the signal comes, on whatever machine.
    words = ["prepare", photos, tmp_path / "out", "--size", "32", "--unit-size", "1"]
    words += ["--crops", "2000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jpeglm", *words, "--workers", "2"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell's background jobs ignore it, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip

    def begun() -> bool:
        maps = [Path(f"/proc/{child}/maps").read_text() for child in children(process.pid)]
        return any("_multiarray_umath" in libraries for libraries in maps)

    until(begun)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in error, error
    assert error.splitlines()[-1].startswith("jpeglm: stopped; the shards in"), error


def late(path: Path, number: int) -> None:
    if number == 0:
        raise InputError("no room")
    time.sleep(1)
    path.touch()


def test_a_failure_drops_what_is_not_begun_and_waits_for_the_rest(tmp_path: Path):
    setup = Setup(CODEC.to_dict(), tmp_path, SETTINGS)
    tasks = [(tmp_path / str(number), number) for number in range(8)]
    with pytest.raises(InputError, match="no room"):
        list(run(late, tasks, PoolConfig(2), setup))
    made = set(os.listdir(tmp_path))
    time.sleep(3)
    assert set(os.listdir(tmp_path)) == made and len(made) <= 3


def check_full(out: Path, error: str, uninterrupted: dict[str, bytes]) -> None:
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("InputError: ") and str(out) in lines[0]
    assert shards(out), "what was finished stays"
    for path in shards(out):
        assert path.read_bytes() == uninterrupted[path.name]
    assert not list(out.glob(".*")), "no half-written file is left"
    assert not (out / "dataset.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_cannot_grow(photos, uninterrupted, script, tmp_path, workers):
    """The limit lies between the shards of smooth pictures and those of noise."""
    sizes = {name: len(data) for name, data in uninterrupted.items() if "shard" in name}
    limit = (max(list(sizes.values())[:1]) + max(sizes.values())) // 2
    assert sum(size < limit for size in sizes.values()) >= 3
    out = tmp_path / "out"
    command = [sys.executable, script, photos, out, str(limit), str(workers)]
    full = subprocess.run(command, capture_output=True, text=True)
    assert full.returncode == 1
    check_full(out, full.stderr, uninterrupted)
    prepare(photos, out, CODEC, SETTINGS, workers=1)
    assert contents(out) == uninterrupted


def mount_command() -> list[str] | None:
    """How a small file system can be mounted here for one shell: a user namespace, or root."""
    if shutil.which("unshare") is None:
        return None
    for command in (["unshare", "--user", "--map-root-user", "--mount"], ["unshare", "--mount"]):
        test = [*command, "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
        if subprocess.run(test, capture_output=True).returncode == 0:
            return command
    return None


def test_a_full_disk(photos: Path, uninterrupted, script: Path, tmp_path: Path):
    command = mount_command()
    if command is None:
        pytest.skip("no small file system can be mounted here")
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    size = sum(len(data) for data in uninterrupted.values())
    shell = (
        f"mount -t tmpfs -o size={size // 2} none {disk} && "
        f"{{ {sys.executable} {script} {photos} {disk}/out 0 2; code=$?; "
        f"cp -r {disk}/out {copy}; exit $code; }}"
    )
    full = subprocess.run(
        [*command, "sh", "-c", shell], capture_output=True, text=True, env=dict(os.environ)
    )
    assert full.returncode == 1
    assert "no space is left on the disk" in full.stderr
    check_full(copy, full.stderr.replace(str(disk / "out"), str(copy)), uninterrupted)
    prepare(photos, copy, CODEC, SETTINGS, workers=1)
    assert Dataset(copy).count() == Dataset(copy).info["streams"]["train"] + Dataset(copy).count(
        "validation"
    )
    assert contents(copy) == uninterrupted
