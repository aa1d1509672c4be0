"""What a call gives: saved, shown, counted; and the names that make it one line."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

import jpeglm
from jpeglm.codecs.check import check_file
from jpeglm.config import InputError
from jpeglm.generation.sheets import MARGIN, contact_sheet
from jpeglm.places import shipped_checkpoint

PHOTO = np.random.default_rng(0).integers(0, 256, (80, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def drawn():
    return jpeglm.generate(3, seed=7)


@pytest.fixture(scope="module")
def completed():
    return jpeglm.complete(PHOTO, 0.75, 2, seed=7)


def test_files_are_whole_and_show_what_was_drawn(drawn):
    assert len(drawn) == len(drawn.files) == 3
    for file, image in zip(drawn.files, drawn.images):
        assert check_file(file, {}).valid
        with Image.open(io.BytesIO(file)) as opened:
            assert (np.asarray(opened.convert("RGB")) == np.asarray(image)).all()


def test_a_sheet_is_what_notebooks_show(drawn, completed):
    for pictures, count in ((drawn, 3), (completed, 4)):
        sheet = pictures.sheet()
        assert sheet.width > count * 64
        with Image.open(io.BytesIO(pictures._repr_png_())) as shown:
            assert (np.asarray(shown) == np.asarray(sheet)).all()
    assert repr(drawn).startswith("<3 pictures (64, 64), ")
    assert (drawn.kind, completed.kind) == ("sample", "completion")
    assert repr(type(drawn)()) == "<0 pictures None, 0 tokens in 0.00 s>"


def test_of_many_a_page_shows_64_with_what_was_given(completed):
    many = jpeglm.complete(np.zeros((64, 64, 3), np.uint8), 0.98, 130)
    first, last = (np.asarray(many.sheet(page)) for page in (1, 3))
    assert first.shape[0] > 8 * 192 and last.shape[0] < 2 * 192  # 67 tiles; five
    assert (first[26:218, 8:608] == last[26:218, 8:608]).all()  # the photo, its coding, given
    with pytest.raises(InputError, match="no page 4; these are 130 on 3"):
        many.sheet(4)


@pytest.mark.parametrize(("fit", "taken"), [(None, 1), ("crop", 1), ("top", 0), ("pad", None)])
def test_what_is_taken_of_a_tall_photo_is_asked_for_and_shown(fit, taken):
    thirds = [(200, 40, 40), (40, 160, 40), (40, 40, 200)]
    photo = np.repeat(np.array(thirds, np.uint8)[:, None], 100, 1).repeat(100, 0)
    pictures = jpeglm.complete(photo, 1.0, 1, fit=fit)
    shown = np.asarray(pictures.images[0], int)
    if taken is None:
        assert (shown[:, :16] < 16).all() and abs(shown[32, 32] - thirds[1]).max() < 20
    else:
        assert abs(shown - thirds[taken]).max() < 20
    assert pictures.settings.get("fit") == fit
    sheet = np.asarray(pictures.sheet())
    tile = sheet[26 : 26 + 192, 8 : 8 + 192]
    black = np.flatnonzero((tile == 0).all(2).sum(1) > 40)  # rows with a long line
    ends = {0: (0, 63), 1: (64, 127)}.get(taken)
    assert black.tolist() == ([] if ends is None else list(ends))


def test_a_photo_too_busy_for_the_context_is_completed_all_the_same(jpeglm, tmp_path):
    """What is drawn is plainer and fits; what was there cannot be weighed then, and is not."""
    busy = np.random.default_rng(0).integers(0, 2, (64, 64, 3), dtype=np.uint8) * 255
    Image.fromarray(busy).save(tmp_path / "busy.png")
    words = ("complete", "busy.png", "--keep", 0.1, "-n", 1)
    told = jpeglm.told(*words, "--out", "a", cwd=tmp_path)
    assert told["pictures"] == 1 and "bits_of_the_original" not in told
    Image.new("RGB", (64, 64), (90, 80, 70)).save(tmp_path / "busy.png")
    assert jpeglm.told(*words, "--out", "b", cwd=tmp_path)["bits_of_the_original"] > 0


def test_a_fit_that_is_none_is_refused():
    with pytest.raises(InputError, match="crop, top, pad"):
        jpeglm.complete(np.zeros((9, 9), np.uint8), fit="squeeze")


def test_saving_is_what_the_command_line_does(completed, drawn, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    paths = completed.save(tmp_path)
    assert [path.name for path in paths] == [
        "original.jpg", "prompt.jpg", "completion-00.jpg", "completion-01.jpg", "sheet.png",
        "run.json",
    ]  # fmt: skip
    assert [path.read_bytes() for path in paths[2:4]] == completed.files
    told = json.loads(paths[-1].read_text())
    assert told["finished"] and told["settings"] == completed.settings
    assert told["bits"] == [round(bits, 1) for bits in completed.bits]
    assert told["tokenizer"] and told["codec"]["width"] == 64
    drawn.save(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [
        "mine.txt", "run.json", "sample-00.jpg", "sample-01.jpg", "sample-02.jpg", "sheet.png"
    ]  # fmt: skip
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "sample-01.jpg").write_text("mine")
    with pytest.raises(InputError, match="sample-01"):
        drawn.save(taken)
    assert (taken / "sample-01.jpg").read_text() == "mine"


def test_a_model_is_opened_once_until_it_changes(tmp_path, drawn):
    import shutil

    from jpeglm.generation import loading

    folder = tmp_path / "copy"
    shutil.copytree(shipped_checkpoint("photos"), folder)
    first = jpeglm.generate(1, checkpoint=folder, seed=7)
    assert first.streams == drawn.streams[:1]
    opened = loading._model(folder)
    assert loading._model(str(folder)) is opened
    (folder / "generation_config.json").write_text('{"temperature": 0.0}')
    other = jpeglm.generate(1, checkpoint=folder, seed=7)
    assert other.settings["temperature"] == 0 and loading._model(folder) is not opened
    assert [key[0] for key in loading._kept].count(folder.resolve()) == 1
    with pytest.raises(InputError, match="fim"):
        picture = np.zeros((8, 8), np.uint8)
        jpeglm.fill(picture, np.eye(8, dtype=np.uint8) * 255, checkpoint="cifar10")


def test_all_that_ships_is_listed():
    models = {one.name: one for one in jpeglm.list_models()}
    assert set(models) == {"photos", "avatars", "cifar10", "clips"}
    assert models["cifar10"].classes[8] == "ship" and models["cifar10"].takes == "a label of 10"
    assert models["clips"].writes.startswith("clips of 64")
    for one in models.values():
        assert 1.5e6 < one.parameters < 2.5e6
        assert one.words == (one.name == "avatars")
        assert one.holes == (one.name in ("avatars", "photos"))
        assert (one.folder / "README.md").exists()
        assert one.bytes == sum(file.stat().st_size for file in one.folder.iterdir())


def test_names_are_told():
    assert set(jpeglm.__all__) == set(jpeglm._HOMES) <= set(dir(jpeglm))
    assert "TYPE_CHECKING" not in dir(jpeglm)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"text": 3}, "the text is 3; give words"),
        ({"text": 0}, "the text is 0; give words"),
        ({"text": ["a", "heart"]}, "give words"),
        ({"text": b"a heart"}, "give words"),
        ({"keep": "0.5"}, "keep is '0.5'"),
        ({"units": "3"}, "units is '3'"),
    ],
)
def test_values_of_another_type_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        jpeglm.complete(PHOTO, **options)


def test_a_share_is_any_number(completed):
    again = jpeglm.complete(PHOTO, keep=np.float32(0.75))
    assert again.units_kept == completed.units_kept


def test_a_film_is_not_fitted_in_silence():
    model = jpeglm.load("clips")
    with pytest.raises(InputError, match="fit is for pictures"):
        model.complete(model.codec.blank(), fit="pad")


@pytest.mark.parametrize("checkpoint", ["", "a\0b", 3, b"photos"])
def test_a_checkpoint_is_a_path_or_a_name(checkpoint):
    for ask in (jpeglm.load, lambda name: jpeglm.generate(checkpoint=name)):
        with pytest.raises(InputError, match=r"the checkpoint is .*give a folder"):
            ask(checkpoint)


@pytest.mark.parametrize("size", [(64, 64), (32, 48)])
def test_captions_stay_above_their_own_pictures(size):
    """Whatever they say: a tile looks the same beside others as alone in a sheet as tall."""
    words = (
        "portrait of an adventurer character: extraordinarily-long-word, glasses, blue background"
    )
    tiles = [
        (f"{n} {words[: 20 * n]}", Image.new("RGB", size, (20 * n, 0, 0))) for n in range(1, 5)
    ]
    sheet = np.asarray(contact_sheet(tiles, 2, 96))
    wide = (sheet.shape[1] - MARGIN) // 2
    for left in (0, wide):
        assert (sheet[:, left : left + MARGIN] == 255).all(), "letters between the tiles"
    tall = (sheet.shape[0] - MARGIN) // 2
    alone = np.asarray(contact_sheet([tiles[0], tiles[3]], 2, 96))
    assert (alone[:tall, :wide] == sheet[:tall, :wide]).all()
    one = np.asarray(contact_sheet([("a", tiles[0][1])], 1, 96))
    assert one.shape[0] < tall + MARGIN
