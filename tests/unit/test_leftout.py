"""What cannot be read of plain pictures is told of, once, by whoever reads them."""

from __future__ import annotations

import shutil
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig, LeftOut
from jpeglm.data import leftout
from jpeglm.data.arrays import film_clips, load_images, load_set
from jpeglm.data.open import Pictures


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight pictures, one that is none, one that is cut, and a tar that is."""
    monkeypatch.setattr(leftout, "_told", set())
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{number}.png")
    with tarfile.open(folder / "z.tar", "w") as tar:
        for number in range(3):
            tar.add(folder / f"{number}.png", f"in{number}.png")
    whole = (folder / "z.tar").read_bytes()
    (folder / "z.tar").write_bytes(whole[:2600])
    (folder / "bad.png").write_bytes(b"broken")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:200])
    return folder


@pytest.mark.parametrize("split", ["train", None])
def test_each_that_is_left_out_is_told_of_once(photos: Path, split: str | None) -> None:
    codec = JpegCodec(JpegConfig(16, 16))
    with pytest.warns(LeftOut, match=r"left out of .*photos: .*z.tar.*, and 2 more; "):
        kept = len(load_images(photos, 16, 16, None, split).pixels)
    assert kept >= 8
    shutil.copy(photos / "bad.png", photos / "new.png")
    with pytest.warns(LeftOut) as said:
        rows = list(Pictures(photos, codec).streams(None))
    assert [str(one.message).count("new.png") > 0 for one in said] == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(Pictures(photos, codec).streams(None))) == len(rows)


def test_reading_that_ends_early_tells_of_what_it_met(photos: Path) -> None:
    rows = Pictures(photos, JpegCodec(JpegConfig(16, 16))).streams(None)
    with pytest.warns(LeftOut, match="z.tar"):
        next(rows)
        rows.close()
    (photos / "bad.png").unlink()
    (photos / "cut.png").unlink()
    leftout._told.clear()
    with pytest.warns(LeftOut, match=r"z.tar: the tar .*[^;]$"):
        load_set(photos)


def test_the_command_line_shows_it_as_a_line(jpeglm: Any, photos: Path, tmp_path: Path) -> None:
    ended = jpeglm("train-tokenizer", photos, "--out", tmp_path / "out", "--vocab-size", 300)
    told = [line for line in ended.err.splitlines() if "left out" in line]
    assert ended.code == 0 and len(told) == 1, ended.err
    assert told[0].startswith(f"warning: left out of {photos}: ")


def test_films_that_give_no_clip_are_told_of(tmp_path: Path) -> None:
    """Damaged, too short, or no film at all; the others are read."""
    pytest.importorskip("av")
    from jpeglm.codecs import AvcConfig
    from jpeglm.places import asset

    shutil.copy(asset("pan.mp4"), tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(asset("ball.mp4").read_bytes()[:2000])
    Image.new("RGB", (32, 32)).save(tmp_path / "c.png")
    with pytest.warns(LeftOut, match="b.mp4.*and 1 more"):
        clips = list(film_clips(tmp_path, AvcConfig(64, 48, frames=4)))
    assert clips


def test_what_an_archive_lost_is_not_called_a_picture(jpeglm: Any, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name in ("a.png", "b.png", "c.png"):
            Image.new("RGB", (64, 64), (len(name), 9, ord(name[0]))).save(tmp_path / name)
            tar.add(tmp_path / name, name)
    whole = (tmp_path / "photos.tar").read_bytes()
    (tmp_path / "photos.tar").write_bytes(whole[:1024] + b"x" * 300 + whole[1324:])
    _, out, _ = jpeglm("prepare", tmp_path / "photos.tar", tmp_path / "out", "--split", "train")
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert lines and f"{len(lines)} entr" in out and "of what was set aside" in out
