"""The built wheel in an empty environment, outside the checkout: completes a photo."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

import jpeglm

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "-w", folder, ROOT], check=True, cwd=folder
    )
    (wheel,) = folder.glob("jpeglm-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel):
    folder = wheel.parent
    python = folder / "env" / "bin" / "python"
    venv.create(folder / "env", with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, cwd=folder)
    return folder, python


def test_nothing_lies_in_the_wheel_that_should_not(wheel):
    words = [sys.executable, "-m", "check_wheel_contents", wheel]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_source_archive_is_the_repository(tmp_path):
    """All that is tracked but what only the repository's host reads."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no repository")
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    missing = {name for name in listed.stdout.splitlines() if not name.startswith(".")} - held
    assert not missing
    strange = [name for name in held if name.endswith((".pyc", ".nbi", ".nbc"))]
    assert not strange


def test_what_an_index_shows(wheel):
    """The version of the package; a README whose links lead to files of the named repository."""
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
        studio = "jpeglm/serving/studio"
        files = {f"{studio}/{one.name}" for one in (ROOT / "src" / studio).iterdir()}
        assert {"jpeglm/py.typed", *files} <= held and len(files) > 8
        (place,) = (name for name in held if name.endswith("/METADATA"))
        told = BytesParser().parsebytes(file.read(place))
    assert told["Version"] == jpeglm.__version__
    assert told["Description-Content-Type"] == "text/markdown"
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert set(told.get_all("Project-URL")) == {f"{name}, {url}" for name, url in urls.items()}
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", told.get_payload())
    assert sum(bool(picture) for picture, _ in links) >= 2
    for picture, link in links:
        assert "://" in link, link
        kind = "raw" if picture else "blob"
        before = f"{urls['Repository']}/{kind}/v{jpeglm.__version__}/"
        if picture or link.startswith(urls["Repository"]):
            assert (ROOT / link.removeprefix(before).split("#")[0]).exists(), link


def test_installed_wheel_completes_a_photo(environment, picture_files):
    folder, python = environment
    result = subprocess.run(
        [python.parent / "jpeglm", "complete", picture_files[0], "-n", "2", "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    out = folder / json.loads(result.stdout)["out"]
    assert {"original.jpg", "prompt.jpg", "completion-01.jpg", "sheet.png"} <= {
        file.name for file in out.iterdir()
    }
    checked = subprocess.run([python.parent / "jpeglm", "check", *out.glob("*.jpg")])
    assert checked.returncode == 0


def test_base_install_has_no_torch_and_says_what_training_needs(environment, picture_files):
    folder, python = environment
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "numba" in names and not names & {"torch", "transformers", "pyarrow"}
    result = subprocess.run(
        [python.parent / "jpeglm", "prepare", picture_files[0].parent, "data"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert result.returncode == 1 and "pip install 'jpeglm[train]'" in result.stderr
