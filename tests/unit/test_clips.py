"""Films: resampled, cut and turned as FFmpeg shows them; prepared into clips."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from jpeglm.config import InputError
from jpeglm.data.crops import random_pan
from jpeglm.data.open import Dataset, open_data
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.shards import read_shard, shard_path
from jpeglm.data.splits import split_of

av = pytest.importorskip("av", reason="the extra video is not installed")

from jpeglm.codecs.avc import AvcCodec, AvcConfig  # noqa: E402
from jpeglm.codecs.clips import (  # noqa: E402
    Shot,
    is_picture,
    measure,
    read_clip,
    read_shots,
    whole_clips,
)  # fmt: skip

SMALL = AvcConfig(64, 48, 5)


def write_video(path, frames, rate=10, codec="mpeg4"):
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))


def test_videos_are_resampled_in_time(tmp_path):
    """Frame i of 20 at 10 a second shows the grey 10 i; at 5 a second every other one is taken."""
    grey = np.stack([np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)])
    write_video(tmp_path / "ramp.mp4", grey)
    clip = read_clip(tmp_path / "ramp.mp4", AvcConfig(64, 48, 8, fps=5))
    assert np.abs(clip.mean((1, 2, 3)) - 20 * np.arange(8)).max() < 4
    later = read_clip(tmp_path / "ramp.mp4", AvcConfig(64, 48, 3, fps=5), start=1.0)
    assert np.abs(later.mean((1, 2, 3)) - [100, 120, 140]).max() < 4
    padded = read_clip(tmp_path / "ramp.mp4", AvcConfig(128, 48, 8, fps=5))
    assert padded[4, 24, 64, 0] > 60 and padded[4, 24, 4, 0] == 0
    with pytest.raises(InputError, match=r"ramp\.mp4 gives 10 frames .* 15 are needed"):
        read_clip(tmp_path / "ramp.mp4", AvcConfig(64, 48, 15, fps=5))


def test_bad_videos_in_one_sentence(tmp_path, picture_files):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video at all\n")
    write_video(tmp_path / "whole.mp4", np.zeros((30, 48, 64, 3), np.uint8))
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:400])
    for name in ("gone.mp4", "empty.mp4", "text.mp4", "cut.mp4"):
        with pytest.raises(InputError, match=name):
            read_clip(tmp_path / name, SMALL)
    with pytest.raises(InputError, match="frames"):
        read_clip(picture_files[0], SMALL)


def ramp(count: int = 20) -> np.ndarray:
    """Frames of 64 × 48 whose grey tells their number, with a light upper left corner."""
    frames = np.stack([np.full((48, 64, 3), 10 * i, np.uint8) for i in range(count)])
    frames[:, :16, :16] = 250
    return frames


def test_a_film_in_clips_and_shots(tmp_path):
    config = AvcConfig(64, 48, 4, fps=5)
    path = tmp_path / "ramp.mp4"
    write_video(path, ramp(19))  # 1.9 s: two clips of 0.8 s, and a rest
    film = measure(path)
    assert film == (pytest.approx(1.9), 64, 48)
    clips = list(whole_clips(path, config))
    assert len(clips) == 2 and len(list(whole_clips(path, config, limit=1))) == 1
    assert (clips[1] == read_clip(path, config, start=0.8)).all()
    middle = (0.5, 0.5, 1.0, 1.0)
    shots = [Shot(1.0, middle), Shot(0.0, (0.0, 0.0, 0.25, 0.25), True), Shot(1.5)]
    found = dict(read_shots(path.read_bytes(), shots, config))
    assert set(found) == {0, 1}, "the third shot is longer than the film"
    assert np.abs(found[0].mean((1, 2, 3)) - [100, 120, 140, 160]).max() < 4
    whole = read_clip(path, config)[0]
    corner = Image.fromarray(whole).resize(
        (64, 48), Image.Resampling.LANCZOS, (0, 0, 16, 12), reducing_gap=3.0
    )
    assert (found[1][0] == np.asarray(corner.transpose(Image.Transpose.FLIP_LEFT_RIGHT))).all()


def test_frames_are_turned_upright(tmp_path):
    """The track header's matrix says a quarter turn; FFmpeg's player shows it so."""
    path = tmp_path / "turned.mp4"
    write_video(path, ramp(6))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30]
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    assert measure(path)[1:] == (48, 64)
    frame = read_clip(path, AvcConfig(48, 64, 2, fps=5))[0]
    # A quarter turn clockwise takes the upper left corner to the upper right.
    assert frame[4:12, -12:-4].mean() > 200 and frame[4:12, 4:12].mean() < 50


def test_what_is_a_picture(tmp_path, picture_files):
    assert is_picture(picture_files[0].read_bytes())
    write_video(tmp_path / "film.mpg", ramp(6), rate=25, codec="mpeg1video")
    assert not is_picture((tmp_path / "film.mpg").read_bytes())
    still, moving = io.BytesIO(), io.BytesIO()
    frames = [Image.fromarray(frame) for frame in ramp(4)]
    frames[0].save(still, "GIF")
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert is_picture(still.getvalue()) and not is_picture(moving.getvalue())
    clip = next(whole_clips(moving.getvalue(), AvcConfig(64, 48, 4, fps=10)))
    assert np.abs(clip[:, 24, 40, 0].astype(int) - [0, 10, 20, 30]).max() < 4


def test_a_pan_goes_straight_at_one_speed():
    """The picture tells each pixel's place, so frames tell where the camera was."""
    x, y = np.meshgrid(np.arange(400) / 400 * 255, np.arange(300) / 300 * 255)
    image = Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    speeds, flips = [], 0
    for seed in range(40):
        clip = random_pan(image, 64, 48, 6, 0.25, np.random.default_rng(seed)).astype(float)
        assert clip.shape == (6, 48, 64, 3)
        middles = clip[:, 20:28, 28:36, :2].mean((1, 2)) / 255 * (400, 300)
        steps = np.diff(middles, axis=0)
        assert np.abs(steps - steps.mean(0)).max() < 2, "straight, and as fast all the time"
        speeds.append(np.linalg.norm(steps.mean(0)))
        flips += clip[0, 24, 60, 0] < clip[0, 24, 4, 0]
    assert max(speeds) > 8 and min(speeds) < 4 and 8 < flips < 32


@pytest.fixture
def sources(tmp_path, picture_files):
    """Two films, one of them in a tar, a picture; a film too short, one broken."""
    home = tmp_path / "in"
    home.mkdir()
    write_video(home / "a.mp4", ramp(24))
    write_video(home / "short.mp4", ramp(2))
    (home / "broken.mkv").write_bytes(b"no film at all")
    (home / "photo.jpg").write_bytes(picture_files[0].read_bytes())
    write_video(tmp_path / "b.avi", ramp(16)[::-1])
    with tarfile.open(home / "set.tar", "w") as tar:
        tar.add(tmp_path / "b.avi", "b.avi")
    return home


CLIPS = AvcConfig(64, 48, 4, fps=5)


def test_prepare_takes_films(sources, tmp_path):
    codec = AvcCodec(CLIPS)
    settings = PrepareConfig(split="train")
    info = prepare(sources, tmp_path / "out", codec, settings, workers=1)
    rows = {key: stream for key, stream, *_ in Dataset(tmp_path / "out").streams()}
    keys = {"a.mp4@0", "a.mp4@1", "a.mp4@2", "photo.jpg", "set.tar/b.avi@0", "set.tar/b.avi@1"}
    assert set(rows) == keys and info["rejected"] == 2
    for number, clip in enumerate(whole_clips(sources / "a.mp4", CLIPS)):
        assert rows[f"a.mp4@{number}"] == codec.encode(clip)
    reasons = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert "short.mp4 gives 1 frames" in reasons and "broken.mkv cannot be read" in reasons
    # Without prepare, the same clips are made as they are read.
    assert dict(row[:2] for row in open_data(sources, codec).streams()) == rows
    first = prepare(
        sources, tmp_path / "one", codec, PrepareConfig(split="train", clips=1), workers=1
    )
    assert first["streams"]["train"] == 3


def test_random_clips_of_films(sources, tmp_path):
    codec = AvcCodec(CLIPS)
    made = []
    for name in ("a", "b"):
        settings = PrepareConfig(crops=3, split="train")
        prepare(sources, tmp_path / name, codec, settings, workers=1)
        made.append({key: stream for key, stream, *_ in Dataset(tmp_path / name).streams()})
    assert made[0] == made[1] and len(set(made[0].values())) > 12
    films = [key.split("#")[0] for key in made[0]]
    # Three for each clip's length: 2.4 s and 1.6 s at 0.8 s; three pans over the picture.
    assert {key: films.count(key) for key in films} == {
        "a.mp4": 9, "set.tar/b.avi": 6, "photo.jpg": 3
    }  # fmt: skip
    assert codec.check(next(iter(made[0].values()))).valid


def test_clips_of_a_film_stay_on_one_side(sources, tmp_path):
    codec = AvcCodec(CLIPS)
    settings = PrepareConfig(crops=2, validation=0.5)
    prepare(sources, tmp_path / "out", codec, settings, workers=1)
    side = split_of((sources / "a.mp4").read_bytes(), 0.5)
    table = read_shard(shard_path(tmp_path / "out", 0)).to_pylist()
    mine = [row for row in table if row["key"].startswith("a.mp4")]
    assert {row["split"] for row in mine} == {side}
    # A film that is held out gives its clips whole, too.
    assert len(mine) == (3 + 6 if side == "validation" else 6)


def test_no_film_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no film or picture found in .*empty"):
        prepare(tmp_path / "empty", tmp_path / "out", AvcCodec(CLIPS), workers=1)


def test_films_in_parquet(sources, tmp_path):
    """As Hugging Face datasets stores a column of the feature Video, beside thumbnails."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    film, photo = ((sources / name).read_bytes() for name in ("a.mp4", "photo.jpg"))
    table = pa.table({"thumb": [{"bytes": photo, "path": None}], "clip": [{"bytes": film}]})
    features = {"info": {"features": {"thumb": {"_type": "Image"}, "clip": {"_type": "Video"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "x.parquet")
    codec = AvcCodec(CLIPS)
    rows = list(open_data(tmp_path / "set", codec).streams())
    clips = list(whole_clips(film, CLIPS))
    assert [row.stream for row in rows] == [codec.encode(clip) for clip in clips]
    assert [row.key for row in rows] == [f"x.parquet:0@{number}" for number in range(3)]
