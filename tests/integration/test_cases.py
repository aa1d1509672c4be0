"""Files of the outside world, each through the commands that once fell over its kind.

The rules themselves are tested where they live (tests/unit); here it is the exit code, the sentence
and what lies on the disk afterwards that count.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jpeglm.checkpoint import write_checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.data.open import Dataset
from jpeglm.places import shipped_checkpoint
from jpeglm.syntax.jpeg import AC_FIRST, AC_INDEX, AMPLITUDE_FIRST
from jpeglm.syntax.scan import write_scan
from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import random_llama
from ..unit.test_images import POSTSCRIPT, RAMP, chunk, png, profile, saved
from ..unit.test_sources_tables import structs, write
from ..unit.test_sources_tars import picture, tar

CODEC = JpegCodec(JpegConfig(32, 32, quality=90, subsampling="4:4:4"))
MODEL = ("--checkpoint", "model")


@pytest.fixture(scope="module")
def model(tmp_path_factory, pictures) -> Path:
    folder = tmp_path_factory.mktemp("cases") / "model"
    tokenizer = Tokenizer.train([CODEC.encode(p) for p in pictures], CODEC, vocab_size=300)
    config, weights = random_llama(tokenizer.vocab_size, 4000)
    write_checkpoint(folder, weights, config, tokenizer, "")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, model) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "model")
    return tmp_path


def sentence(result, *words) -> None:
    """Exit code 1 and one line on stderr that says all of `words`."""
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("jpeglm: ")]
    assert code == 1 and not out and len(lines) == 1, (code, out, err)
    for word in words:
        assert word in lines[0], lines[0]


# check


def test_check_takes_the_densest_scan(here, jpeglm):
    """Every AC coefficient in three bits: more than four symbols a byte."""
    codec = JpegCodec(JpegConfig(64, 64))
    block = [0] + [AC_FIRST + int(AC_INDEX[0x01]), AMPLITUDE_FIRST] * 63
    symbols = np.array(block * (codec.config.mcus * 6), np.int32)
    scan = write_scan(symbols, codec.spec)[0]
    Path("dense.jpg").write_bytes(codec.file_header + scan + b"\xff\xd9")
    code, out, _ = jpeglm("check", "dense.jpg")
    assert (code, out) == (0, "dense.jpg: valid\n")


def test_check_judges_every_file_at_once(here, jpeglm):
    """Short, empty and lying frame headers, claims of gigapixels, fill bytes, a pipe, a device."""
    grey = b"\xff\xda\0\x08\1\1\0\0\x3f\0\0\xff\xd9"
    ones = b"\xff\xdb\0\x43\0" + b"\1" * 64
    whole = CODEC.wrap(CODEC.encode(Image.new("RGB", (32, 32), (9, 99, 9))))
    frame = whole.index(b"\xff\xc0")
    files = {
        "len0.jpg": (b"\xff\xd8\xff\xc0\0\0" + grey, "", 2),
        "empty.jpg": (b"\xff\xd8\xff\xc0\0\2" + grey, "", 2),
        "short.jpg": (b"\xff\xd8\xff\xc0\0\7\x08\0\x10\0\x10" + grey, "", 2),
        "65535.jpg": (b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xf8\xff\xf8\1\1\x11\0" + grey, "", None),
        "gray.jpg": (
            b"\xff\xd8" + ones + b"\xff\xc0\0\x0b\x08\xff\xd0\xff\xd0\1\1\x11\0" + grey,
            "", None,
        ),
        "fill.jpg": (
            whole[:frame] + b"\xff" + whole[frame:], "not canonical: fill bytes", frame,
        ),
    }  # fmt: skip
    for name, (data, _, _) in files.items():
        Path(name).write_bytes(data)
    os.mkfifo("pipe.jpg")
    Path("whole.jpg").write_bytes(whole)
    names = [*files, "pipe.jpg", "/dev/zero", "whole.jpg"]
    began = time.monotonic()
    tracemalloc.start()
    code, out, _ = jpeglm("check", *names, "--json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code == 1 and time.monotonic() - began < 10 and peak < 50_000_000
    told = {one["file"]: one for one in json.loads(out)["files"]}
    assert list(told) == names
    assert [name for name in names if told[name]["valid"]] == ["whole.jpg"]
    for name, (_, said, where) in files.items():
        why = told[name]["why"]
        assert why and said in why and "cannot be judged" not in why, why
        assert where is None or told[name]["where"] == where, name
    for name in ("pipe.jpg", "/dev/zero"):
        assert "pipe or a device" in told[name]["why"]


# prepare


META = [b"{x", b"null", b'{"info": {"features": null}}']
PARTS = [(f"{n}.{end}", data) for n in range(4) for end, data in
         (("jpg", picture(n)), ("cls", b"%d" % n))]  # fmt: skip


def broken_gzip() -> bytes:
    data = bytearray(gzip.compress(tar(*((f"{n}.jpg", picture(n)) for n in range(8)))))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


TARS = {
    "a name that is not UTF-8": (
        tar((os.fsdecode(b"caf\xe9.jpg"), picture(0))), {"a.tar/caf\\xe9.jpg": -1}, 0, {}),
    "dots in keys": (
        tar(*((f"v1.0_{n}.{end}", picture(n) if end == "jpg" else b"%d" % n)
              for end in ("jpg", "cls") for n in range(3))),
        {f"a.tar/v1.0_{n}.jpg": n for n in range(3)}, 0, {}),
    "numbered": (
        tar(*((f"photo{n}.jpg", picture(i)) for i, n in enumerate(("", ".1", ".2")))),
        {f"a.tar/photo{n}.jpg": -1 for n in ("", ".1", ".2")}, 0, {}),
    "a photo and its mask": (
        tar(("7.png", picture(1, "PNG")), ("7.jpg", picture(0)), ("7.cls", b"3")),
        {"a.tar/7.jpg": 3}, 0, {".png": 1}),
    "a lone block of zeros": (
        tar(*PARTS[:4], end=False) + bytes(512) + tar(*PARTS[4:]),
        {f"a.tar/{n}.jpg": n for n in range(4)}, 0, {}),
    "a hard link": (
        tar(("0.jpg", picture(0)), ("0.cls", b"5"), ("1.jpg", "hard", "0.jpg")),
        {"a.tar/0.jpg": 5, "a.tar/1.jpg": -1}, 0, {}),
    "a label beyond 32 bits": (
        tar(*PARTS[:2], ("9.jpg", picture(9)), ("9.cls", b"99999999999")), {"a.tar/0.jpg": 0}, 1,
        {}),
}  # fmt: skip


def prepared(jpeglm, source, *more) -> tuple[dict[str, int], dict]:
    """(key → label of what was written, what was said) of `prepare`."""
    words = ("prepare", source, "data", "--size", 32, "--split", "train", "--workers", 1, *more)
    code, out, err = jpeglm(*words, "--json")
    assert code == 0, err
    return {key: label for key, _, label, _ in Dataset(Path("data")).streams()}, json.loads(out)


@pytest.mark.parametrize("kind", TARS)
def test_prepare_takes_tars_as_they_are(here, jpeglm, kind):
    data, streams, rejected, passed = TARS[kind]
    Path("a.tar").write_bytes(data)
    found, told = prepared(jpeglm, "a.tar")
    assert found == streams and told["rejected"] == rejected and told["passed_over"] == passed
    lines = Path("data/rejected.jsonl").read_text().splitlines()
    assert len(lines) == rejected and all(json.loads(line)["reason"] for line in lines)


def test_prepare_lists_what_a_damaged_archive_lost(here, jpeglm):
    Path("in").mkdir()
    Path("in/a.tar.gz").write_bytes(broken_gzip())
    Path("in/z.jpg").write_bytes(picture(99))
    found, told = prepared(jpeglm, "in")
    assert "z.jpg" in found and told["rejected"]
    assert "a.tar.gz" in Path("data/rejected.jsonl").read_text()


def test_a_choice_among_pictures_is_said_by_the_command(here, jpeglm):
    Path("a.tar").write_bytes(TARS["a photo and its mask"][0])
    code, out, err = jpeglm("prepare", "a.tar", "data", "--size", 32, "--split", "train")
    assert code == 0 and ".png" in out + err


@pytest.mark.parametrize("metadata", META)
def test_prepare_ignores_metadata_that_say_nothing(here, jpeglm, metadata):
    write(here / "a.parquet", metadata, image=structs([0, 1]), label=pa.array([4, 5]))
    assert sorted(prepared(jpeglm, "a.parquet")[0].values()) == [4, 5]


def test_prepare_asks_which_column(here, jpeglm):
    write(here / "a.parquet", jpg=structs([0]), png=structs([1]))
    words = ("prepare", "a.parquet", "data", "--size", 32, "--split", "train")
    sentence(jpeglm(*words), "a.parquet", "jpg, png", "--column")
    assert prepared(jpeglm, "a.parquet", "--column", "png")[0] == {"a.parquet:0": -1}


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 here")
def test_prepare_takes_names_of_any_bytes(here, jpeglm):
    os.mkdir("in")
    with open(b"in/caf\xe9.jpg", "wb") as file:
        file.write(picture(0))
    assert prepared(jpeglm, "in")[0] == {"caf\\xe9.jpg": -1}


def test_a_gigantic_member_costs_time_but_no_memory(here, jpeglm):
    """600 MB of zeros in 0.6 MB: passed by, and the picture behind it is found."""
    out = io.BytesIO()
    head = tar(("bomb.jpg", b""), end=False)
    size = 600_000_000
    head = head[:124] + b"%011o\0" % size + head[136:148] + b" " * 8 + head[156:]
    head = head[:148] + b"%06o\0 " % sum(head) + head[156:]
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(size // 1_000_000):
            file.write(bytes(1_000_000))
        file.write(bytes(-size % 512) + tar(("0.jpg", picture(0))))
    Path("a.tar.gz").write_bytes(out.getvalue())
    Path("b.tar").write_bytes(tar(("0.jpg", picture(0))))
    prepared(jpeglm, "b.tar")  # what is loaded once is no part of the measure
    shutil.rmtree("data")
    tracemalloc.start()
    found, told = prepared(jpeglm, "a.tar.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"a.tar.gz/0.jpg": -1} and told["rejected"] == 1 and peak < 50_000_000
    assert "600 MB" in Path("data/rejected.jsonl").read_text()


# complete


def original(jpeglm, photo) -> np.ndarray:
    """original.jpg of `complete`, int [32, 32, 3]."""
    code, _, err = jpeglm("complete", photo, "-n", 1, "--max-tokens", 3900, *MODEL)
    assert code == 0, err
    folder = Path(photo).stem + "-completions"
    return np.asarray(Image.open(Path(folder, "original.jpg"))).astype(int)


def test_complete_shows_the_right_pixels(here, jpeglm):
    """Floats with NaN, a dark picture of 16 bits, a colour profile with other primaries."""
    square = RAMP[:, :32]
    expected = np.repeat(np.rint(square * 255)[..., None], 3, 2)
    values = (square * 255).astype(np.float32)
    values[0, 0] = np.nan
    Image.fromarray(values).save("float.tif")
    assert np.abs(original(jpeglm, "float.tif") - expected).mean() < 4
    dark = np.rint(square * 1000).astype(">u2")
    Path("dark.pgm").write_bytes(b"P5 32 32 65535\n" + dark.tobytes())
    assert original(jpeglm, "dark.pgm").max() < 12
    colour = Image.new("RGB", (32, 32), (160, 60, 60))
    Path("swap.png").write_bytes(saved(colour, "PNG", icc_profile=profile(swap=True)))
    assert np.abs(original(jpeglm, "swap.png") - (60, 160, 60)).mean() < 6


def test_complete_tells_the_true_reason(here, jpeglm):
    data = png([b"\x80" * 32] * 32, 8, 0, chunk(b"tEXt", b"Comment\0hello"))
    Path("text.png").write_bytes(data.replace(b"hello", b"jello"))
    Path("photo.jpg").write_bytes(POSTSCRIPT)
    os.mkfifo("pipe.jpg")
    for name, word in (("text.png", "tEXt"), ("photo.jpg", "EPS"), ("pipe.jpg", "pipe"),
                       ("/dev/zero", "device")):  # fmt: skip
        sentence(jpeglm("complete", name, "-n", 1, *MODEL), name, word)


@pytest.mark.parametrize("verb", ["prepare", "train-tokenizer", "train"])
def test_pipes_and_devices_as_data(here, jpeglm, verb):
    os.mkfifo("pipe.png")
    for name in ("pipe.png", "/dev/zero"):
        words = {"prepare": ["x"], "train": ["--tokenizer", "model", "--steps", 1]}.get(verb, [])
        sentence(jpeglm(verb, name, *words), name)


@pytest.mark.parametrize("header", [b'"abcdef"', b"null    "])
def test_generate_names_a_header_that_is_none(here, jpeglm, header):
    data = len(header).to_bytes(8, "little") + header + bytes(16)
    Path("model/model.safetensors").write_bytes(data)
    said = ("model/model.safetensors", "not a complete safetensors file")
    sentence(jpeglm("generate", "-n", 1, *MODEL), *said)


def test_generate_draws_nothing_with_weights_that_are_no_numbers(here, jpeglm):
    file = Path("model/model.safetensors")
    file.write_bytes(file.read_bytes()[:-2] + b"\xc0\x7f")
    sentence(jpeglm("generate", "-n", 1, *MODEL, "--out", "out"), "not finite")
    assert not Path("out").exists()


# Films


@pytest.fixture(scope="module")
def films():
    """The builders of films, where PyAV is installed."""
    pytest.importorskip("av")
    from ..unit import test_clips_shown

    return test_clips_shown


def frames(path: Path) -> np.ndarray:
    """int [frames, h, w, 3] of a clip that we wrote."""
    import av

    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)]).astype(int)


def shown(jpeglm, name: str, data: bytes) -> np.ndarray:
    """The first frame of what `complete` takes the film for."""
    Path(f"{name}.mp4").write_bytes(data)
    code, _, err = jpeglm("complete", f"{name}.mp4", "-n", 1, "--out", name)
    assert code == 0, err
    return frames(Path(name, "original.mp4"))[0]


def test_complete_shows_films_as_players_do(here, jpeglm, films):
    plain = shown(jpeglm, "plain", films.film())
    mirror = films.turned(films.film(), (-films.ONE, 0, 0, films.ONE))
    mirrored = shown(jpeglm, "mirrored", mirror)
    assert np.abs(mirrored - plain[:, ::-1]).mean() < 8 < np.abs(mirrored - plain).mean()
    # Twice as wide: of the 96 × 64 pixels the middle, 42 2/3 of them, fills 64 × 48.
    wide = shown(jpeglm, "wide", films.film(aspect=2))
    whole = Image.fromarray(plain.astype(np.uint8))
    middle = whole.resize((64, 48), Image.Resampling.BICUBIC, (16, 0, 48, 48))
    assert np.abs(wide - np.asarray(middle)).mean() < 10 < np.abs(wide - plain).mean()
    one_frame_first = shown(jpeglm, "stills", films.film(stills=1))
    assert np.abs(one_frame_first - plain).mean() < 4


def test_films_with_tags_of_any_bytes(here, jpeglm, films):
    av = films.av
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        file.metadata["title"] = "caf\u00e9 caf\u00e9"
        track = file.add_stream("libx264", rate=8)
        track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        for level in range(9):
            picture = np.full((64, 96, 3), 20 * level, np.uint8)
            file.mux(track.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(track.encode(None))
    data = out.getvalue().replace("é".encode(), b"\xe9\xe9")
    os.mkdir("in")
    Path("in/tagged.mp4").write_bytes(data)
    Path("in/plain.mp4").write_bytes(films.film(9))
    words = ("prepare", "in", "data", "--like", "clips", "--split", "train", "--workers", 1)
    code, out, err = jpeglm(*words, "--json")
    told = json.loads(out)
    assert code == 0 and told["rejected"] == 0 and told["pictures"]["train"] == 2, err
    shown(jpeglm, "tagged", data)
    code, out, _ = jpeglm("check", "tagged.mp4", "--checkpoint", "clips")
    assert code == 1 and out.startswith("tagged.mp4: ") and "cannot be judged" not in out
    own = Path("tagged/original.mp4").read_bytes()
    assert jpeglm("check", "tagged/original.mp4", "--checkpoint", "clips")[0] == 0
    assert shipped_checkpoint("clips").is_dir() and b"Lavf" in own
