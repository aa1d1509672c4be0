"""Films as people's players show them, against the frames of `ffmpeg`'s own command line."""

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import clips
from jpeglm.codecs.avc import AvcConfig
from jpeglm.codecs.clips import Shot, measure, read_clip, read_shots, whole_clips
from jpeglm.config import InputError

av = pytest.importorskip("av")

WIDTH, HEIGHT = 96, 64
ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg command")


def film(frames=8, aspect=None, cover=None, stills=0):
    """An .mp4 of a picture without any symmetry, moving to the right."""
    rng = np.random.default_rng(0)
    base = np.asarray(
        Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
    )
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        tracks = [file.add_stream("libx264", rate=8) for _ in range(1 + (stills > 0))]
        for track in tracks:
            track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            # Several threads, and a rate that is controlled, need not give the same film again.
            track.options = {"x264-params": "threads=1:qp=20:scenecut=0:bframes=0:weightp=0"}
        if aspect:
            tracks[-1].codec_context.sample_aspect_ratio = aspect
        for track, count in zip(tracks, ([stills] if stills else []) + [frames]):
            for i in range(count):
                picture = np.zeros_like(base) if track is not tracks[-1] else np.roll(base, i, 1)
                file.mux(
                    track.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24"))
                )
            file.mux(track.encode(None))
    return out.getvalue()


def turned(data, matrix):
    """The film with another display matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""
    place = data.index(b"tkhd") + 4 + 40
    values = (matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, 0, 0, 1 << 30)
    return data[:place] + struct.pack(">9i", *values) + data[place + 36 :]


def shown_by_ffmpeg(tmp_path, data, filters="null"):
    """uint8 [frames, h, w, 3] of the command line."""
    (tmp_path / "x.mp4").write_bytes(data)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "x.mp4", "-map", "0:V", "-vf", filters]
    command += ["-frames:v", "1", "-y", tmp_path / "x.png"]
    subprocess.run(list(map(str, command)), check=True)
    return np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))


def seen(data):
    """Our first frame, of its own size."""
    found = measure(data)
    size = (-(-found.width // 16) * 16, -(-found.height // 16) * 16)
    config = AvcConfig(*size, frames=1, fps=8, fit="pad")
    (clip,) = list(whole_clips(data, config, limit=1))
    left, top = (size[0] - found.width) // 2, (size[1] - found.height) // 2
    return clip[0][top : top + found.height, left : left + found.width]


ONE = 1 << 16
MATRICES = [
    *((a * ONE, 0, 0, d * ONE) for a in (1, -1) for d in (1, -1)),
    *((0, b * ONE, c * ONE, 0) for b in (1, -1) for c in (1, -1)),
    (0, 0, 0, 0), (ONE, 0, 0, 0), (0, 0, 0, ONE), (2 * ONE, 0, 0, 2 * ONE), (ONE, 300, -300, ONE),
]  # fmt: skip


@ffmpeg
@pytest.mark.parametrize("matrix", MATRICES)
def test_all_orientations_are_those_of_the_command_line(matrix, tmp_path):
    data = turned(film(frames=2), matrix)
    theirs, ours = shown_by_ffmpeg(tmp_path, data), seen(data)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 8  # two roads from YUV to RGB


@ffmpeg
@pytest.mark.parametrize("aspect", ["2", "1/2", "4/3", "16/15"])
@pytest.mark.parametrize("matrix", [MATRICES[0], MATRICES[5]])
def test_pixels_become_square(aspect, matrix, tmp_path):
    from fractions import Fraction

    data = turned(film(frames=2, aspect=Fraction(aspect)), matrix)
    found = measure(data)
    theirs = shown_by_ffmpeg(tmp_path, data, "scale=round(iw*sar):ih" if not matrix[1] else "null")
    upright = (round(WIDTH * Fraction(aspect)), HEIGHT)
    assert (found.width, found.height) == (upright if not matrix[1] else upright[::-1])
    if not matrix[1]:
        ours = seen(data)
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 6


def test_wide_pixels_count_in_the_size_of_a_frame(monkeypatch):
    monkeypatch.setattr(clips, "MAX_FRAME", WIDTH * HEIGHT * 3 // 2)
    assert measure(film(frames=2)).width == WIDTH
    with pytest.raises(InputError, match="claims frames of 192 × 64"):
        measure(film(frames=2, aspect=2))


@ffmpeg
def test_cover_art_is_no_film(tmp_path):
    own = film()
    (tmp_path / "film.mp4").write_bytes(own)
    Image.new("RGB", (200, 200), (255, 0, 0)).save(tmp_path / "cover.jpg")
    for order in (("cover.jpg", "film.mp4"), ("film.mp4", "cover.jpg")):
        command = ["ffmpeg", "-v", "error", "-y"]
        for name in order:
            command += ["-i", str(tmp_path / name)]
        place = order.index("cover.jpg")
        command += [
            "-map",
            "0",
            "-map",
            "1",
            "-c",
            "copy",
            f"-disposition:v:{place}",
            "attached_pic",
        ]
        subprocess.run([*command, str(tmp_path / "both.mp4")], check=True)
        data = (tmp_path / "both.mp4").read_bytes()
        assert measure(data) == measure(own)
        assert (seen(data) == seen(own)).all()


def test_a_first_stream_of_one_frame_is_passed_over():
    assert (seen(film(stills=1)) == seen(film())).all()
    assert seen(film(stills=3)).max() < 20  # three frames are a film


def test_tags_of_any_encoding_are_ignored(tmp_path):
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        file.metadata["title"] = "caf\u00e9 caf\u00e9"
        track = file.add_stream("libx264", rate=8)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(4):
            file.mux(
                track.encode(
                    av.VideoFrame.from_ndarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb24")
                )
            )
        file.mux(track.encode(None))
    data = out.getvalue().replace("é".encode(), b"\xe9\xe9")
    assert data.count(b"\xe9\xe9") == 2
    (tmp_path / "tagged.mp4").write_bytes(data)
    config = AvcConfig(WIDTH, HEIGHT, 2, 8.0)
    assert read_clip(tmp_path / "tagged.mp4", config).shape == (2, HEIGHT, WIDTH, 3)


def test_a_clock_that_cannot_be_gives_no_clips_without_end():
    data = bytearray(film())
    place = data.index(b"stts") + 4 + 8
    data[place + 4 : place + 8] = b"\x0f\xff\xff\xff"  # between two frames, hours
    with pytest.raises(InputError, match="is its clock right"):
        for _ in whole_clips(bytes(data), AvcConfig(WIDTH, HEIGHT, 2, 8.0)):
            pass
    assert not list(read_shots(film(), [Shot(50.0)], AvcConfig(WIDTH, HEIGHT, 2, 8.0)))
