"""`jpeglm inspect`: what it says, what it writes, and what it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jpeglm.inspection.page import SCRIPTS, asset, page

PHOTO = "src/jpeglm/assets/astronaut.jpg"
FILM = Path(__file__).parents[2] / "src" / "jpeglm" / "assets" / "ball.mp4"


@pytest.fixture
def photo(tmp_path):
    source = Path(__file__).parents[2] / PHOTO
    (tmp_path / "photo.jpg").write_bytes(source.read_bytes())
    return tmp_path / "photo.jpg"


def test_the_picture_and_one_mcu(jpeglm, photo):
    told = jpeglm.told("inspect", photo)
    sums = [sum(one[key] for one in told["mcus"]) for key in ("scan", "model")]
    _, out, _ = jpeglm("inspect", photo)
    assert f"{sums[0]:,} bits in the file" in out and f"{sums[1]:,.0f} bits under the model" in out
    _, out, _ = jpeglm("inspect", photo, "--mcu", "2,1")
    own = [block for block in told["blocks"] if block["mcu"] == 4 + 2]
    numbers = [
        int(n) for n in re.findall(r"-?\d+", "".join(re.findall(r"^   ?[ \d-]+$", out, re.M)))
    ]
    assert numbers[:8] == own[0]["samples"][:8]
    assert own[0]["levels"][:8] == numbers[8:16]
    assert out.count("block") >= 6 and "EOB" in out


def test_it_says_the_same_without_asserts(jpeglm, photo):
    """`python -O` leaves asserts out, and with them whatever they would have done."""
    words = [sys.executable, "-O", "-m", "jpeglm", "inspect", photo, "--json"]
    told = subprocess.run(words, capture_output=True, check=True).stdout
    assert json.loads(told) == jpeglm.told("inspect", photo)


def test_a_file_that_the_model_drew_is_taken_as_it_is(jpeglm, tmp_path):
    drawn = tmp_path / "drawn"
    assert jpeglm("generate", "-n", 1, "--out", drawn)[0] == 0
    told = jpeglm.told("inspect", drawn / "sample-00.jpg")
    assert told["picture"]["drawn"]
    body = bytes.fromhex(told["scan"]["hex"])
    assert (drawn / "sample-00.jpg").read_bytes()[:-2].endswith(body)


def test_the_page_holds_all_and_replaces_pages_alone(jpeglm, photo):
    out = photo.parent / "inside.html"
    for _ in range(2):  # its own page may be written again
        code, said, _ = jpeglm("inspect", photo, "--html", out)
        assert code == 0 and "inside.html" in said
    text = out.read_text()
    inside = re.search(r'<script type="application/json" id="trace">(.*?)</script>', text)
    assert json.loads(inside[1]) == jpeglm.told("inspect", photo)
    assert not re.search(r'(src|href)="|https?://|@import|url\(', text)
    out.write_text("mine")
    code, _, said = jpeglm("inspect", photo, "--html", out)
    assert code == 1 and "choose another name" in said and out.read_text() == "mine"
    code, _, said = jpeglm("inspect", photo, "--html", photo.parent)
    assert code == 1 and "is a folder" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mcu", "4,0"), "from 0,0 to 3,3"),
        (("--mcu", "-1,0"), "from 0,0 to 3,3"),
        (("--mcu", "one"), "2 whole numbers: 2,1"),
        (("--text", "a cat"), "text"),
        (("--label", "cat"), "class"),
    ],
)
def test_bad_words_end_in_a_sentence(jpeglm, photo, words, said):
    code, out, err = jpeglm("inspect", photo, *words)
    assert code == 1 and said in err and not out


def test_other_media_end_in_a_sentence(jpeglm, photo):
    (photo.parent / "notes.jpg").write_text("no picture")
    code, _, err = jpeglm("inspect", photo.parent / "notes.jpg")
    assert code == 1 and "notes.jpg" in err
    code, _, err = jpeglm("inspect", photo, "--frame", 1)
    assert code == 1 and "photo.jpg is a picture; --frame is for clips" in err
    pytest.importorskip("av")
    (photo.parent / "film.mp4").write_bytes(b"x")
    code, _, err = jpeglm("inspect", photo.parent / "film.mp4")
    assert code == 1 and "film.mp4" in err
    code, _, err = jpeglm("inspect", photo, "--checkpoint", "clips")
    assert code == 1 and "photo.jpg is a picture, but the model writes clips" in err
    code, _, err = jpeglm("inspect", FILM, "--checkpoint", "photos")
    assert code == 1 and "ball.mp4 is a film, but the model writes pictures" in err
    code, _, err = jpeglm("inspect", FILM, "--frame", 8)
    assert code == 1 and "frame is 8; the model's clips have 0 to 7" in err
    code, _, err = jpeglm("inspect", FILM, "--mcu", "4,0")
    assert code == 1 and "from 0,0 to 3,2" in err


def test_a_clip_and_one_macroblock_of_it(jpeglm, tmp_path):
    pytest.importorskip("av")
    told = jpeglm.told("inspect", FILM, "--frame", 6)
    _, out, _ = jpeglm("inspect", FILM, "--frame", 6)
    total = sum(one["file"] for one in told["frames"])
    assert f"{total:,} bits in the file's slices" in out and "frame 6: bits of each" in out
    places = range(len(told["macroblocks"]))
    place = max(places, key=lambda i: len(told["macroblocks"][i]["blocks"]))
    one = told["macroblocks"][place]
    assert one["motion"] and one["blocks"]
    _, out, _ = jpeglm("inspect", FILM, "--frame", 6, "--mcu", f"{place % 4},{place // 4}")
    assert f"macroblock {place % 4},{place // 4}: {one['type']}, quantiser {one['qp']}" in out
    x, y = one["motion"][0]["vector"]
    assert f"{abs(x) / 4:g} {'right' if x >= 0 else 'left'}, {abs(y) / 4:g} " in out
    first = next(block for block in one["blocks"] if any(block["levels"]))
    assert " ".join(map(str, first["levels"])) in out
    for name, bits, *_ in told["parts"][slice(*one["parts"])]:
        assert name in out and bits in out
    tokens = [token for token in told["tokens"] if place in token["macroblocks"]]
    assert tokens and all(told["names"][str(token["token"])] in out for token in tokens)
    page_ = tmp_path / "clip.html"
    assert jpeglm("inspect", FILM, "--frame", 6, "--html", page_)[0] == 0
    inside = re.search(r'id="trace">(.*?)</script>', page_.read_text())
    shown = json.loads(inside[1])
    others = shown.pop("others")
    assert shown == told and "lookClip(document" in page_.read_text()
    assert [*others] == [str(frame) for frame in range(8) if frame != 6]
    for frame in ("0", "3"):  # what each opens is what --frame tells
        alone = jpeglm.told("inspect", FILM, "--frame", frame)
        assert alone["clip"].pop("frame") == int(frame)
        del told["clip"]["frame"]
        assert told | others[frame] == alone
        told["clip"]["frame"] = 6


def test_a_picture_of_codes_and_one_patch_of_it(jpeglm, photo, tmp_path):
    folder = write_codes_model(tmp_path / "vq")
    words = ("inspect", photo, "--checkpoint", folder)
    told = jpeglm.told(*words)
    _, out, _ = jpeglm(*words)
    assert "32 patches of 4 × 4, each one of 30 codes" in out
    assert " ".join(f"{one['code']:5d}" for one in told["patches"][:8]) in out
    _, out, _ = jpeglm(*words, "--mcu", "2,1")
    patch = told["patches"][8 + 2]
    assert f"patch 2,1: code {patch['code']}" in out
    for code, length in patch["nearest"]:
        assert f"code {code}: {length:.3f}" in out
    assert jpeglm(*words, "--html", tmp_path / "codes.html")[0] == 0
    text = (tmp_path / "codes.html").read_text()
    assert json.loads(re.search(r'id="trace">(.*?)</script>', text)[1]) == told
    assert "lookCodes(document" in text
    code, _, err = jpeglm(*words, "--mcu", "8,0")
    assert code == 1 and "from 0,0 to 7,3" in err


def write_codes_model(folder):
    """A model of random weights over the codes of a VQ-VAE of random weights."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    from jpeglm.checkpoint import write_checkpoint
    from jpeglm.codecs.vq import VqCodec, VqConfig
    from jpeglm.models.vqvae import VqVae, VqVaeConfig
    from jpeglm.tokenizer import Tokenizer

    from ..unit.conftest import random_llama

    torch.manual_seed(0)
    network = VqVae(VqVaeConfig(codes=30, code_dim=4, channels=8, blocks=1, downsampling=4))
    codec = VqCodec(VqConfig(32, 16, model=network.config.to_dict()), save(network.state_dict()))
    tokenizer = Tokenizer.train([codec.encode(codec.blank())], codec, "codes", 40)
    config, weights = random_llama(tokenizer.vocab_size, 100)
    write_checkpoint(folder, weights, config, tokenizer, "")
    return folder


def test_a_title_cannot_leave_its_place():
    text = page(
        {"kind": "jpeg", "name": "</script><script>alert(1)"}, '"><script>alert(2)</script>'
    )
    assert "alert(1)" in text and "</script><script>alert" not in text
    assert "<script>alert(2)" not in text


def test_modules_import_what_stands_before_them():
    seen = set()
    for name in SCRIPTS:
        text = asset(name)
        assert set(re.findall(r'from "\./([\w.]+)"', text)) <= seen
        assert len(re.findall(r"^import ", text, re.M)) == len(
            re.findall(r"^import .*;$", text, re.M)
        )
        seen.add(name)
