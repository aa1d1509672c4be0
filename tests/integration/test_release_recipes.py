"""The cards of checkpoints that ship, as recipes/photos.py, avatars.py, emoji.py, cifar10.py and
clips.py write them, and what these recipes share."""

import importlib.util
import json
import re
import shutil
import string
from pathlib import Path

import numpy as np
import pytest

import jpeglm
from jpeglm.files import read_json

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(jpeglm.__file__).parent / "assets"
DATASET = {
    "pictures": {"train": 1111, "validation": 222},
    "streams": {"train": 33333, "validation": 4444},
}
BEGINNING = {"emoji": "avatars"}
"""Recipes whose checkpoint begins with another's; their cards are asked for with that one's weights
and figures, which have the same form."""
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
        release = Release(name, further, 90, 2, elsewhere, init=BEGINNING.get(name))
        known = BEGINNING.get(name, name)
        shutil.copytree(ASSETS / known, release.model)
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
        if known != name:
            shutil.copytree(ASSETS / known, release.before)
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
        if name == "emoji":
            return module.make_card(release, *emoji_tables(dataset(), module, table))
        return module.make_card(release, dataset(), ["shapes", "pans", "films"])

    return write


def emoji_tables(data, module, table):
    """(source, prepared, tables) of recipes/emoji.py: real results of the avatars, and pixels of
    eight pictures judged."""
    from release.recognised import Gallery, pixels, recognised

    sets = {"noto": {"licence": "Noto Emoji by Google, Apache-2.0"}}
    (data / "sources.json").write_text(json.dumps(sets))
    names = ("test", "test-silent", "compositions", "compositions-silent", "classify", "copied")
    tables = {name: table(f"avatars-{name}") for name in names}
    for split in module.SPLITS:
        tables[f"{split}-wrong"] = tables[f"{split}-silent"]
    for telling in module.TELLINGS:
        whole = tables["compositions" + telling]
        part = {"pictures": 7, "bits_per_image": module.bits_of(whole)}
        tables["compositions" + telling] = whole | {"by_folder": {"style": part, "person": part}}
    shown = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    found = recognised(shown, Gallery(shown, shown, np.arange(8), ["noto"] * 8), pixels)
    tables["recognised"] = {"features": found, "pixels": found}
    tables |= {"named_by_style": 0.07, "sampling": {"temperature": 0.6, "guidance": 2.0}}
    return data, data, tables


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("photos", "pictures"),
        ("avatars", "pictures"),
        ("emoji", "pictures"),
        ("cifar10", "pictures"),
        ("clips", "clips"),
    ],
)
def test_a_card_tells_of_its_own_training(write, name, media, further):
    card = write(name, further)
    before = (ASSETS / BEGINNING.get(name, name) / "README.md").read_text()
    earlier = re.findall("^- .* steps, .*$", before, re.M)
    assert earlier
    stages = [*(earlier if further or name in BEGINNING else []), STAGE.format(media=media)]
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


@pytest.mark.parametrize("name", ["photos", "avatars", "emoji", "cifar10", "clips"])
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


def test_weights_of_another_checkpoint_are_a_beginning(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    from release.run import Release

    first = Release("emoji", False, 90, 2, None, init="avatars")
    assert first.train_words()[:2] == ["--init", "avatars"]
    assert first.began_with == ASSETS / "avatars"
    further = Release("emoji", True, 90, 2, None, init="avatars")
    assert further.train_words()[:2] == ["--init", "emoji"] and further.began_with == further.before
    gpu = Release("emoji", True, 90, 2, Path("emoji-0.tar"), init="avatars")
    assert gpu.began_with == ASSETS / "avatars"  # recipes/gpu.py knows no --further
    assert Release("avatars", False, 90, 2, None).train_words()[:2] == ["--preset", "2m"]


def test_captions_drawn_together_are_those_drawn_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    from release.drawn import drawings

    model = jpeglm.load("avatars")
    rows = [{"text": text} for text in ("toon, red hair", "persona, glasses, bald", "adventurer")]
    for way in ({}, {"temperature": 1.0, "guidance": 1.0}):
        for number, (row, image) in enumerate(zip(rows, drawings(model, rows, **way))):
            (alone,) = model.generate(1, seed=number, text=row["text"], **way).images
            assert np.array_equal(np.asarray(image), np.asarray(alone))


def test_a_wrong_caption_is_of_another_concept_of_the_set(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    emoji = recipe("emoji")
    names = ["1F34E", "1F350", "1F44B-1F3FB", "1F44B-1F3FC", "1F44B-1F3FD", "1F34B"]
    rows = [
        {"code": code, "name": code, "style": style, "text": f"{style} {code}"}
        for style in ("noto", "twemoji")
        for code in names
    ]
    told = emoji.wrong(rows)
    for row, other in zip(rows, told):
        assert {key: other[key] for key in ("code", "style")} == {
            key: row[key] for key in ("code", "style")
        }
        style, code = other["text"].split()
        assert style == row["style"] and emoji.concept({"code": code, "name": ""}) != emoji.concept(
            row
        )
    assert len({row["text"] for row in told}) > len(rows) / 2


def test_held_out_pictures_are_kept_apart_by_what_is_held_out(tmp_path, monkeypatch, picture_files):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    emoji = recipe("emoji")
    rows = [
        {"file_name": file.name, "text": file.stem, "held_out": what}
        for file, what in zip(picture_files, ("style", "person", "style", None))
    ]
    folder = emoji.judged(picture_files[0].parent, rows, tmp_path / "judged")
    for kind, own in (("style", rows[::2][:2]), ("person", [rows[1]]), ("concept", [rows[3]])):
        lines = (folder / kind / "metadata.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == own
        assert sorted(path.name for path in (folder / kind).iterdir()) == sorted(
            [*(row["file_name"] for row in own), "metadata.jsonl"]
        )
    before = (folder / "style" / "metadata.jsonl").stat().st_mtime_ns
    emoji.judged(picture_files[0].parent, rows, tmp_path / "judged")
    assert (folder / "style" / "metadata.jsonl").stat().st_mtime_ns == before
