"""`jpeglm inspect`: what it says, what it writes, and what it refuses."""

import json
import re
import subprocess
import sys

import pytest

from jpeglm.inspection.page import SCRIPTS, asset, page

PHOTO = "src/jpeglm/assets/astronaut.jpg"


@pytest.fixture
def photo(tmp_path):
    from pathlib import Path

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
        (("--mcu", ""), "2 whole numbers: 2,1"),
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
    (photo.parent / "film.mp4").write_bytes(b"x")
    code, _, err = jpeglm("inspect", photo.parent / "film.mp4")
    assert code == 1 and "film.mp4 is a film; what can be looked into is a picture" in err
    pytest.importorskip("av")
    code, _, err = jpeglm("inspect", photo, "--checkpoint", "clips")
    assert code == 1 and "what can be looked into is JPEG" in err


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
