"""A GIF is a film where it is long enough for the model's clips, and a picture otherwise."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.cli.common import note_first_frame
from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.films import is_film
from jpeglm.data.open import Dataset, open_data
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig

av = pytest.importorskip("av")

CLIPS = make_codec({"codec": "avc", "width": 32, "height": 32, "frames": 6, "fps": 10})
RAMP = np.indices((40, 40)).sum(0).astype(np.uint8)
FRAMES = [Image.fromarray(np.roll(RAMP, 4 * n, 1)).convert("RGB") for n in range(30)]


def animation(path: Path, frames: int) -> Path:
    more = {"save_all": True, "append_images": FRAMES[1:frames], "duration": 100}
    FRAMES[0].save(path, **(more if frames > 1 else {}))
    return path


def test_long_enough_for_the_model(tmp_path, capsys):
    short, long = animation(tmp_path / "short.gif", 3), animation(tmp_path / "long.GIF", 30)
    still = animation(tmp_path / "still.gif", 1)
    assert is_film(long) and not is_film(short) and not is_film(still)
    assert not is_film(long, Path("photos")), "a model of pictures takes its first frame"
    assert not is_film(tmp_path / "gone.gif") and is_film(tmp_path / "gone.mp4")
    note_first_frame(still)
    assert not capsys.readouterr().err
    for path in (short, animation(tmp_path / "a.webp", 3), animation(tmp_path / "a.png", 3)):
        note_first_frame(path)
        assert f"{path} holds several pictures; the first is used" in capsys.readouterr().err


def test_short_animations_among_films(tmp_path):
    """They give what a picture gives, a pan; whatever FFmpeg makes of their format."""
    home = tmp_path / "in"
    home.mkdir()
    animation(home / "long.gif", 30)
    for name in ("short.gif", "short.webp", "short.png"):
        animation(home / name, 3)
    animation(home / "pages.tif", 3)
    FRAMES[0].save(home / "phone.mpo", save_all=True, append_images=FRAMES[1:2])
    (home / "phone.mpo").rename(home / "phone.jpg")
    info = prepare(home, tmp_path / "out", CLIPS, PrepareConfig(split="train"), workers=1)
    assert info["rejected"] == 0
    keys = [key for key, *_ in Dataset(tmp_path / "out").streams()]
    assert [key for key in keys if "@" in key] == [f"long.gif@{n}" for n in range(5)]
    assert {key for key in keys if "@" not in key} == {
        "short.gif", "short.webp", "short.png", "pages.tif", "phone.jpg",
    }  # fmt: skip
    assert sorted(key for key, *_ in open_data(home, CLIPS).streams()) == sorted(keys)


def test_what_is_neither(tmp_path):
    home = tmp_path / "in"
    home.mkdir()
    (home / "text.gif").write_text("no GIF")
    (home / "a.mp4").write_text("no film")
    with pytest.raises(InputError, match="none of the 2 films"):
        prepare(home, tmp_path / "out", CLIPS, PrepareConfig(split="train"), workers=1)
