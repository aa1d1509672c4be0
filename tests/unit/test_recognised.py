"""Whether a drawn emoji is seen to be what its caption says (recipes/release/recognised.py)."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.evaluation.features import RESNET50

ROOT = Path(__file__).resolve().parents[2]
CODEC = JpegCodec(JpegConfig(64, 64, quality=50))


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    from release import recognised

    return recognised


@pytest.fixture
def known(judge, picture_files):
    """Photographs of eight things, each by two sets: as it is, and in fewer colours."""
    true = [ImageOps.fit(Image.open(file).convert("RGB"), (64, 64)) for file in picture_files[:8]]
    other = [ImageOps.posterize(picture, 4) for picture in true]
    first, second = (np.stack([np.asarray(one) for one in ones]) for ones in (true, other))
    return judge.Gallery(first, second, np.arange(8), ["a"] * 4 + ["b"] * 4)


def test_a_true_picture_is_recognised(judge, known):
    found = judge.recognised(known.held_out, known, judge.pixels)
    for name in ("drawn", "drawn_in_other_sets", "true", "true_in_other_sets"):
        assert found[name]["recognised"] == found[name]["reciprocal_place"] == 1, name
    assert found["own_set"] == 1 and found["own_set_by_chance"] == 0.5
    assert found["drawn_for_others"]["recognised"] == 0
    assert found["by_chance"] == {"recognised": 1 / 8, "among": 5 / 8}


def test_pictures_of_other_captions_are_not(judge, known):
    turned = np.roll(known.held_out, 1, axis=0)
    found = judge.recognised(turned, known, judge.pixels)
    assert found["drawn"]["recognised"] == found["drawn_in_other_sets"]["recognised"] == 0
    assert found["true"]["recognised"] == 1  # which no drawing changes
    assert found["drawn_for_others"]["recognised"] > 0  # some were drawn for another of their set


def test_a_picture_of_another_set_is_recognised_and_its_set_seen(judge, known):
    found = judge.recognised(known.others, known, judge.pixels)
    assert found["drawn"]["recognised"] == 1 and found["own_set"] == 0


def test_a_true_picture_does_not_find_itself(judge, known):
    """Its own is left out of the gallery; here its copy is said to show something else."""
    wrong = replace(known, others=np.roll(known.others, -1, axis=0))
    found = judge.recognised(known.held_out, wrong, judge.pixels)
    assert found["true"]["recognised"] == found["true_in_other_sets"]["recognised"] == 0


def test_a_share_of_right_ones_is_told_with_its_interval(judge, known):
    some = known.held_out.copy()
    some[:2] = some[1::-1]  # two that changed places
    found = judge.recognised(some, known, judge.pixels)["drawn"]
    assert found["recognised"] == 0.75
    low, high = found["interval"]
    assert low < 0.75 < high


def test_what_tells_nothing_apart_recognises_nothing(judge, known):
    found = judge.recognised(known.held_out, known, lambda pictures: np.ones((len(pictures), 3)))
    assert found["drawn"]["recognised"] == found["true"]["recognised"] == found["own_set"] - 1 == 0


def test_places_by_hand(judge):
    """Two pictures, three concepts, of which the second has two pictures."""
    apart = np.array([[3.0, 9.0, 1.0, 2.0], [5.0, 5.0, 7.0, 4.0]])
    assert judge.places(apart, np.array([0, 1, 1, 2])).tolist() == [[2, 0, 1], [2, 2, 0]]


@pytest.mark.skipif(not (ROOT / RESNET50).exists(), reason="python recipes/data/resnet50.py")
def test_features_recognise_a_true_picture(judge, known):
    from jpeglm.evaluation.features import ResNet50

    way = judge.directions(ResNet50(ROOT / RESNET50, size=64))
    assert judge.recognised(known.held_out, known, way)["drawn"]["recognised"] == 1
    turned = np.roll(known.held_out, 1, axis=0)
    assert judge.recognised(turned, known, way)["drawn"]["recognised"] == 0


def emoji(name, code, style, held_out=None, tone=None):
    return {"text": f"{style}, {name}", "style": style, "name": name, "tone": tone, "code": code,
            "held_out": held_out}  # fmt: skip


APPLE, PEAR, MAN, WOMAN = "1F34E", "1F350", "1F468-200D-1F373", "1F469-200D-1F373"
TRAIN = [emoji("red apple", APPLE, "noto"), emoji("red apple", APPLE, "fxemoji"),
         emoji("pear", PEAR, "noto"), emoji("man cook", MAN, "noto")]  # fmt: skip
HELD_OUT = [emoji("red apple", APPLE, "twemoji", "style"), emoji("pear", PEAR, "twemoji", "style"),
            emoji("pear", PEAR, "fluent", "style"), emoji("man cook", MAN, "twemoji", "style"),
            emoji("woman cook", WOMAN, "twemoji", "style"),
            emoji("man cook", MAN, "fluent", "person", "dark skin tone")]  # fmt: skip


@pytest.fixture
def source(tmp_path, monkeypatch, picture_files):
    """Two image folders, as recipes/data/emoji.py leaves them."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes" / "data"))
    from drawing import write_pictures

    for split, rows in (("train", TRAIN), ("compositions", HELD_OUT)):
        files = zip(picture_files if split == "train" else picture_files[4:], rows)
        pictures = (
            (row | {"file_name": f"{number}.png"},
             np.asarray(ImageOps.fit(Image.open(file).convert("RGB"), (64, 64))))
            for number, (file, row) in enumerate(files)
        )  # fmt: skip
        write_pictures(tmp_path / split, pictures)
    return tmp_path


def test_captions_are_a_concept_each_and_seen_in_other_sets(judge, source):
    rows = judge.captions(source)
    assert sorted(judge.concept(row) for row in rows) == [APPLE, PEAR, "1F9D1-200D-1F373"]
    assert all(row["held_out"] == "style" and row["code"] != WOMAN for row in rows)
    assert judge.captions(source) == rows


def test_a_gallery_holds_the_same_emoji_of_other_sets(judge, source):
    rows = sorted(judge.captions(source), key=lambda row: row["code"])
    known = judge.gallery(source, rows, CODEC)
    assert known.owners.tolist() == [0, 0, 1, 2]
    assert known.styles == [row["style"] for row in rows]
    for shown, row in zip(known.held_out, rows):
        file = source / "compositions" / row["file_name"]
        assert np.array_equal(shown, np.asarray(CODEC.decode(CODEC.encode(Image.open(file)))))
    for number, row in enumerate(TRAIN[:2]):  # both apples
        told = json.loads((source / "train/metadata.jsonl").read_text().splitlines()[number])
        assert told["name"] == row["name"]
        picture = CODEC.decode(CODEC.encode(source / "train" / told["file_name"]))
        assert np.array_equal(known.others[number], np.asarray(picture))


def test_a_folder_without_captions_is_told(judge, tmp_path):
    from jpeglm.config import InputError

    with pytest.raises(InputError, match=r"there is no .*train/metadata\.jsonl"):
        judge.captions(tmp_path)
