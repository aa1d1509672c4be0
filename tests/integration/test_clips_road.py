"""The road of clips through the command line: shapes, prepare, train, draw, measure."""

import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
av = pytest.importorskip("av", reason="the extra video is not installed")

from jpeglm.codecs.avc import AvcCodec, AvcConfig, complaints  # noqa: E402
from jpeglm.codecs.clips import read_clip  # noqa: E402
from jpeglm.data.open import Dataset  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CODEC = AvcCodec(AvcConfig(32, 32, 4, fps=8, fit="crop"))


@pytest.fixture(scope="module")
def road(jpeglm, tmp_path_factory):
    """24 films of moving shapes through prepare, train-tokenizer and train."""
    folder = tmp_path_factory.mktemp("clips")
    shapes = [sys.executable, ROOT / "recipes" / "data" / "shapes.py", "shapes", "--films", "24"]
    subprocess.run(shapes, check=True, cwd=folder, capture_output=True)
    options = ("--size", 32, "--frames", 4, "--fps", 8, "--fit", "crop", "--validation", 0.2)
    results = {
        "prepare": jpeglm.told("prepare", "shapes", "data", "--codec", "avc", *options, cwd=folder),
        "tokenizer": jpeglm.told("train-tokenizer", "data", "--vocab-size", 420, cwd=folder),
        "train": jpeglm.told(
            *("train", "data", "--tokenizer", "tokenizer", "--out", "run", "--steps", 20),
            *("--batch-tokens", 2048, "--eval-every", 10, "--samples", 1, "--eval-images", 4),
            *("--threads", 1, "--warmup", 5),
            cwd=folder,
        ),
    }
    (folder / "film.mp4").write_bytes(film())
    return folder, results


def film(step: int = 2) -> bytes:
    """Two seconds of a square that crosses a grey ground, so many pixels a frame."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(16):
            frame = np.full((48, 64, 3), 90, np.uint8)
            frame[16:28, step * i : step * i + 12] = (220, 60, 20)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()


def frames_of(path):
    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])


def test_films_become_streams_that_a_model_learns(road):
    folder, results = road
    # A film of two seconds at 8 frames a second is four clips of four frames.
    assert sum(results["prepare"]["streams"].values()) == 24 * 4
    assert results["tokenizer"]["alphabet"] == "avc-placed-symbols"
    rows = [json.loads(row) for row in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    bits = [row["bits_per_image"] for row in rows if "bits_per_image" in row]
    assert bits[-1] < bits[0]
    with Image.open(next((folder / "run" / "samples").glob("*.png"))) as sheet:
        assert sheet.width == 8 + 4 * (128 + 8), "a clip's frames stand side by side"


def test_a_clip_goes_on(jpeglm, road):
    folder, _ = road
    result = jpeglm.told(
        *("complete", "film.mp4", "--checkpoint", "run/model", "--keep-frames", 2, "-n", 2),
        *("--start", 0.5, "--out", "out"),
        cwd=folder,
    )
    names = {"original.mp4", "prompt.mp4", "completion-00.mp4", "completion-01.mp4", "sheet.png",
             "sheet.gif", "run.json"}  # fmt: skip
    assert set(result["files"]) == names == {p.name for p in (folder / "out").iterdir()}
    original = frames_of(folder / "out" / "original.mp4")
    truth = CODEC.encode(read_clip(folder / "film.mp4", CODEC.config, 0.5))
    assert (original == CODEC.decode(truth)).all()
    for name in ("prompt", "completion-00", "completion-01"):
        shown = frames_of(folder / "out" / f"{name}.mp4")
        assert shown.shape == original.shape and (shown[:2] == original[:2]).all()
    with Image.open(folder / "out" / "sheet.gif") as animation:
        assert animation.n_frames == 4 and animation.info["duration"] in (120, 125, 130)
    kept = jpeglm.told("complete", "film.mp4", "--checkpoint", "run/model", "-n", 1, cwd=folder)
    assert kept["settings"]["keep"] == pytest.approx(2 / 3)


def test_new_clips_are_valid(jpeglm, road):
    folder, _ = road
    result = jpeglm.told("generate", "-n", 3, "--checkpoint", "run/model", cwd=folder)
    assert result["pictures"] == 3
    for number in range(3):
        assert len(frames_of(folder / "samples" / f"sample-{number:02d}.mp4")) == 4
    measured = jpeglm.told(
        "evaluate", "validity", "--checkpoint", "run/model", "-n", 4, "--seed", 3, cwd=folder
    )
    row = measured["with_grammar"]
    assert row["complete_as_sampled"] == row["pyav_silent"] == 4
    if shutil.which("ffmpeg"):
        assert row["ffmpeg_silent"] == 4
    else:
        assert "ffmpeg" in measured["unavailable"]


def test_clips_are_checked(jpeglm, road):
    folder, _ = road
    jpeglm.told("generate", "-n", 1, "--checkpoint", "run/model", "--out", "one", cwd=folder)
    whole = (folder / "one" / "sample-00.mp4").read_bytes()
    assert CODEC.wrap(CODEC.unwrap(whole)) == whole
    stream = CODEC.unwrap(whole)
    assert CODEC.unwrap(CODEC.wrap_annex_b(stream)) == stream
    valid = jpeglm.told("check", "one/sample-00.mp4", "--checkpoint", "run/model", cwd=folder)
    assert valid["failed"] == 0 and valid["files"][0]["codec"]["codec"] == "avc"
    (folder / "cut.h264").write_bytes(CODEC.wrap_annex_b(stream)[:-1])
    for words, said in (
        (("check", "cut.h264", "--checkpoint", "run/model"), "(slice 3), at byte"),
        (("check", "film.mp4", "--checkpoint", "run/model"), "it cannot be read as H.264"),
        (("check", "one/sample-00.mp4"), "give --checkpoint"),
        (("check", "one/sample-00.mp4", "--checkpoint", "clips"), "another size, rate or qp"),
    ):
        result = jpeglm(*words, cwd=folder)
        assert result.code == 1 and said in result.out, result.out + result.err


def test_clips_are_measured(jpeglm, road):
    folder, _ = road
    table = jpeglm.told("evaluate", "likelihood", "data", "--checkpoint", "run/model", cwd=folder)
    streams = [stream for _, stream, *_ in Dataset(folder / "data").streams("validation")]
    assert table["pictures"] == len(streams) > table["distinct_pictures"] > 1
    coders = table["coders"]
    exact = np.mean([CODEC.symbols.payload_bits(stream) for stream in streams])
    assert coders["cavlc"]["bits_per_image"] == pytest.approx(exact)
    assert coders["model+grammar"]["bits_per_image"] < coders["model"]["bits_per_image"]
    # On clips of some 50 bytes CABAC has hardly begun to learn.
    assert 0.8 < coders["cabac"]["bits_per_image"] / coders["cavlc"]["bits_per_image"] < 1.2

    result = jpeglm.told(
        *("evaluate", "continuation", "data", "--checkpoint", "run/model", "--keep-frames", 2),
        *("--limit", 6, "--out", "continued"),
        cwd=folder,
    )
    assert json.loads((folder / "continued" / "result.json").read_text()) == result
    # Four clips, all frames of the true one above the model's.
    assert result["files"] == ["plot.png", "sheet.png"]
    with Image.open(folder / "continued" / "sheet.png") as sheet:
        width, height = CODEC.config.frames * CODEC.config.width, 8 * CODEC.config.height
        assert sheet.width * height == sheet.height * width
    shown = np.stack([CODEC.decode(stream) for stream in streams[:6]]).astype(float)
    errors = np.square(shown[:, 2:] - shown[:, 1:2]).mean((2, 3, 4))
    repeat = result["rows"]["repeat"]
    assert repeat["psnr"] == pytest.approx(10 * math.log10(255**2 / errors.mean()), abs=1e-3)
    exact = [10 * math.log10(255**2 / max(e, 1e-10)) for e in errors.mean(0)]
    assert repeat["by_frame"] == pytest.approx(exact, abs=1e-3)
    model = result["rows"]["model"]
    assert len(model["by_frame"]) == 2 and 0 <= result["better"] <= 1
    assert result["margin"] == pytest.approx(model["psnr"] - repeat["psnr"])
    low, high = result["margin_interval"]
    assert low <= result["margin"] <= high


def test_nothing_beats_repeating_a_film_that_stands_still(jpeglm, road):
    folder, _ = road
    (folder / "still").mkdir()
    (folder / "still" / "film.mp4").write_bytes(film(step=0))
    words = ("still", "--checkpoint", "run/model", "--keep-frames", 2, "--limit", 4)
    result = jpeglm.told("evaluate", "continuation", *words, cwd=folder)
    assert result["still"] == 1 and result["better"] == 0
    # To be exact is a finite number of decibels.
    assert result["rows"]["repeat"]["psnr"] == pytest.approx(10 * math.log10(255**2 / 1e-10))
    low, high = result["margin_interval"]
    assert math.isfinite(low) and high < 0
    assert low - 1e-6 <= result["margin"] <= high + 1e-6


def test_wrong_use_in_one_sentence(jpeglm, road, picture_files):
    folder, _ = road
    photo, model = picture_files[0], ("--checkpoint", "run/model")
    (folder / "cut.mp4").write_bytes((folder / "film.mp4").read_bytes()[:300])
    for words, said in (
        (("complete", photo, *model), "is a picture, but run/model writes clips"),
        (("complete", photo, "--keep-frames", 2), "--keep-frames and --start are for clips"),
        (("complete", "cut.mp4", *model), "cut.mp4 cannot be read as a video"),
        (("complete", "gone.mp4", *model), "there is no file gone.mp4"),
        (("complete", "film.mp4", *model, "--keep-frames", 9), "9 frames are to be kept"),
        (("complete", "film.mp4", *model, "--start", 1.9), "film.mp4 gives 1 frames"),
        (("evaluate", "completion", "data", *model), "clips"),
        (("evaluate", "unconditional", "data", *model), "clips"),
        (
            ("prepare", "shapes", "x", "--codec", "jpeg", "--fps", 3),
            "--fps belongs to the codec avc",
        ),
        (("prepare", "shapes", "x", "--codec", "avc", "--quality", 3), "belongs to the codec jpeg"),
        (("prepare", "shapes", "x", "--codec", "avc", "--size", 50), "multiple of 16"),
    ):
        result = jpeglm(*words, cwd=folder)
        assert result.code in (1, 2) and said in result.err, words


def test_every_sampled_stream_is_what_it_says(road):
    """A model as good as untrained still writes clips that FFmpeg finds nothing wrong with."""
    from jpeglm.generation.loading import load

    folder, _ = road
    model = load(folder / "run" / "model")
    pictures = model.generate(4, seed=7, temperature=1.0, top_k=0, top_p=1.0)
    assert [complaints(model.codec, stream) for stream in pictures.streams] == [[]] * 4
    assert all(
        (media == model.codec.decode(s)).all()
        for media, s in zip(pictures.images, pictures.streams)
    )
