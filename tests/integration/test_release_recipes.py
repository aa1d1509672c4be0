"""The cards of checkpoints that ship, as recipes/photos.py, avatars.py, cifar10.py and clips.py
write them."""

import importlib.util
import json
import re
import shutil
import string
from pathlib import Path

import pytest

import jpeglm
from jpeglm.files import read_json

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(jpeglm.__file__).parent / "assets"
DATASET = {
    "pictures": {"train": 1111, "validation": 222},
    "streams": {"train": 33333, "validation": 4444},
}
STAGE = "- 10 steps, 400 {media} seen, 12,345 tokens, 2 minutes on 2 thread(s) of a processor."


def recipe(name):
    """recipes/NAME.py under a name of its own: recipes/data has files of the same names."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / f"recipes/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the card of an invented run: write(name, further, elsewhere) -> text."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    monkeypatch.chdir(tmp_path)
    from release.run import RESULTS, Release

    def table(name):
        return read_json(RESULTS / f"{name}.json")

    def dataset():
        Path("data").mkdir()
        Path("data/dataset.json").write_text(json.dumps(DATASET))
        return Path("data")

    def write(name, further=False, elsewhere=None):
        release = Release(name, further, 90, 2, elsewhere)
        shutil.copytree(ASSETS / name, release.model)
        record = {
            "parameters": 1234567,
            "model": {"vocab_size": 1024},
            "device": "cpu",
            "hardware": "a processor",
            "settings": {"threads": 2},
        }
        (release.out / "config.json").write_text(json.dumps(record))
        row = {"step": 10, "loss": 1.0, "images": 400, "tokens": 12345, "seconds": 120.0}
        (release.out / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        release.keep_installed()
        release.steps.shown += ["jpeglm prepare this", "jpeglm train that"]
        module = recipe(name)
        if name == "photos":
            Path("corpus.json").write_text(json.dumps({"sources": {}}))
            tables = [table("photos-likelihood"), table("photos-transfer-likelihood")]
            return module.make_card(release, dataset(), Path("."), *tables)
        if name == "cifar10":
            tables = {
                key: table(f"cifar10-{key}") for key in ("likelihood", "unlabelled", "classify")
            }
            return module.make_card(release, dataset(), ["plane", "cat"], tables)
        if name == "avatars":
            names = ("test", "test-silent", "compositions", "compositions-silent")
            tables = {key: table(f"avatars-{key}") for key in (*names, "classify", "copied")}
            tables["obedience"] = table("avatars-obedience")["obedience"]
            return module.make_card(release, dataset(), tables)
        return module.make_card(release, dataset(), ["shapes", "pans", "films"])

    return write


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize(
    ("name", "media"),
    [("photos", "pictures"), ("avatars", "pictures"), ("cifar10", "pictures"), ("clips", "clips")],
)
def test_a_card_tells_of_its_own_training(write, name, media, further):
    card = write(name, further)
    earlier = re.findall("^- .* steps, .*$", (ASSETS / name / "README.md").read_text(), re.M)
    assert earlier
    stages = [*(earlier if further else []), STAGE.format(media=media)]
    training = card.partition("## Training")[2].partition("\n## ")[0]
    expected = f"""{chr(10).join(stages)}

Each run begins with the weights of the one before it. Commands of the last one
(`recipes/{name}.py{" --further" if further else ""}`):

    jpeglm prepare this
    jpeglm train that
"""
    assert training.endswith("\n\n" + expected)
    assert f"# {name}\n\nA Llama of 1,234,567 parameters" in card
    assert "33,333" in card


def test_a_model_of_a_gpu_began_with_nothing_of_ours(write):
    """photos.py --run: what ships was not its beginning, whatever --further says."""
    card = write("photos", True, Path("photos.tar"))
    assert "(`recipes/gpu.py, recipes/photos.py --run`)" in card
    assert len(re.findall("^- .* steps, ", card, re.M)) == 1


@pytest.mark.parametrize("name", ["photos", "avatars", "cifar10", "clips"])
def test_a_card_has_all_words_of_its_template(write, name):
    card = write(name)
    text = (ROOT / "recipes" / "release" / "cards" / f"{name}.md").read_text()
    parts = list(string.Formatter().parse(text))
    assert {"parameters", "training"} <= {field for _, field, _, _ in parts}
    pattern = "".join(re.escape(words) + (".*?" if field else "") for words, field, _, _ in parts)
    assert re.fullmatch(pattern, card, re.S)


def test_an_evaluation_is_run_once_and_kept_under_the_releases_name(
    tmp_path, monkeypatch, picture_files
):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    monkeypatch.chdir(tmp_path)
    from release import run

    monkeypatch.setattr(run, "RESULTS", tmp_path / "kept")
    release = run.Release("cifar10", False, 90, 2, None)
    shutil.copytree(ASSETS / "cifar10", release.model)
    found = release.evaluate("likelihood", "some", picture_files[0].parent, "--limit", 2)
    assert found["coders"]["model"]["bits_per_image"] > 0
    assert read_json(tmp_path / "kept" / "cifar10-some.json") == found
    (shown,) = release.steps.shown
    assert (
        shown.startswith("jpeglm evaluate likelihood ")
        and "--checkpoint runs/cifar10/model" in shown
    )
    monkeypatch.setattr("subprocess.run", None)  # what is there is not measured again
    assert release.evaluate("likelihood", "some", picture_files[0].parent, "--limit", 2) == found
