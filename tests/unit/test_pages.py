"""The pages of a run folder: whatever lies there and however it is called, they hold."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("torch")

from jpeglm.config import InputError
from jpeglm.files import read_json, write_json
from jpeglm.folders import quoted
from jpeglm.training.autoencoder import Job
from jpeglm.training.autoencoder_summary import readme
from jpeglm.training.curves import read_rows
from jpeglm.training.pages import (
    LINE,
    MARK,
    SHEETS,
    WIDTH,
    code,
    command_line,
    html,
    over_time,
    plain,
    write_pages,
)

NAMES = (
    "a`b``c|d", "<img src=x onerror=alert(1)>", "b![x](http:evil)", "`](javascript:x)", "[a](b)",
    "__init__ *b* # #", "&amp; \\` it's", "my_run-2.0", "``", "~~~",
)  # fmt: skip
GIVEN = "photos --out runs/a --size 48x32 --crops 3 --steps 30 --seed 7"
BYTES = ("new\nline", "caf\udce9 'q' \\x", "tab\t \x1b[31m")


def sheet(samples: Path, step: int, height: int = 8) -> Path:
    samples.mkdir(exist_ok=True)
    file = samples / f"step-{step:06d}.png"
    Image.new("RGB", (16, height)).save(file)
    return file


def written(out: Path) -> list[str]:
    """What is warned of by pages that say "text"."""
    said: list[str] = []
    write_pages(out, lambda: b"png", lambda: f"{MARK}\n\ntext", lambda _, line: said.append(line))
    return said


def rendered(text: str) -> str:
    """The text of a page, in which nothing was markup."""
    import xml.etree.ElementTree as tree

    body = html(Path("none"), f"{MARK}\n{text}").split("</style>")[1].removesuffix("</html>\n")
    root = tree.fromstring(f"<body>{body}</body>")
    assert {part.tag for part in root.iter()} <= set(
        ["body", "p", "code", "table", "thead", "tbody", "tr", "th", "td"]
    )
    return "".join(root.itertext()).strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text(name: str) -> None:
    assert rendered(plain(name)) == name
    assert rendered(code(name)) == name
    assert rendered(f"| a | {plain(name)} |\n|---|---|\n| b | c |").split() == [
        "a", *name.split(), "b", "c",
    ]  # fmt: skip


@pytest.mark.parametrize("name", (*NAMES, *BYTES))
def test_a_command_can_be_pasted(name: str) -> None:
    """Bash reads the very bytes back, from one line."""
    line = command_line(["echo", name], {"rate": 0.00123456789, "n": 5e-4}, {"rate": 1.0, "n": 1.0})
    assert "\n" not in line and line.encode().isascii() and line.isprintable()
    given = f'f() {{ printf "%s\\0" "$@"; }}; f {line}'
    words = subprocess.run(["bash", "-c", given], capture_output=True, check=True).stdout
    wanted = ["echo", name, "--rate", "0.00123456789", "--n", "0.0005"]
    assert words.split(b"\0")[:-1] == [os.fsencode(word) for word in wanted]


def test_a_path_is_no_option() -> None:
    assert (quoted("-photos"), quoted(Path("a b"))) == ("./-photos", "'a b'")


def test_names_that_are_no_text_are_read_back(tmp_path: Path) -> None:
    """A record with the name of a folder that is no UTF-8 is JSON that we take."""
    write_json(tmp_path / "a.json", {"path": 'caf\udce9 "q"', "é": "é"})
    assert read_json(tmp_path / "a.json") == {"path": 'caf\\xe9 "q"', "é": "é"}


def test_no_sheet_ends_a_training(tmp_path: Path) -> None:
    """Broken, cut, too large, of other names; the others are shown, by their numbers."""
    samples = tmp_path / "samples"
    for step in (0, 500, 999_500, 1_000_000):
        sheet(samples, step)
    whole = (samples / "step-000500.png").read_bytes()
    (samples / "step-mine.png").write_bytes(whole)
    (samples / "step-000002.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (samples / "step-000003.png").write_bytes(whole[: len(whole) // 2])
    assert len(list(samples.iterdir())) == SHEETS + 1
    said: list[str] = []
    jpeg = over_time(samples, lambda about, line: said.append(about))
    assert said == ["step-000002.png", "step-000003.png"]
    (tmp_path / "a.jpg").write_bytes(jpeg or b"")
    with Image.open(tmp_path / "a.jpg") as shown:
        assert shown.size == (WIDTH, 4 * (LINE + WIDTH // 2))
    assert over_time(tmp_path / "nothing", lambda *_: None) is None


def test_sheets_are_spread_over_the_run(tmp_path: Path) -> None:
    """The first, the last, and those between at equal distances; each is told by its height."""
    heights = {step: 8 + step // 10 for step in range(0, 310, 10)}
    for step, height in heights.items():
        sheet(tmp_path / "samples", step, height)
    (tmp_path / "a.jpg").write_bytes(over_time(tmp_path / "samples", lambda *_: None) or b"")
    shown = (0, 60, 120, 180, 240, 300)
    with Image.open(tmp_path / "a.jpg") as whole:
        assert whole.height == sum(LINE + heights[step] * WIDTH // 16 for step in shown)


def test_a_command_has_every_setting_that_is_not_usual() -> None:
    values = {"same": 1, "a_b": 2, "on": True, "off": False, "model": {"x": 1, "y": 2}, "f": 0.25}
    usual = {"same": 1, "a_b": 1, "on": False, "off": True, "model": {}, "f": 0.5}
    assert command_line(["v"], values, usual) == (
        "v --a-b 2 --on --no-off --model x=1 --model y=2 --f 0.25"
    )
    assert command_line(["v"], {"unknown": 3}, {}) == "v"


def test_a_title_is_text(tmp_path: Path) -> None:
    page = html(tmp_path / "<b>&amp;", f"{MARK}\n<i>no</i>")
    assert "<title>&lt;b&gt;&amp;amp;</title>" in page and "<i>" not in page


def test_sheets_follow_their_numbers(tmp_path: Path) -> None:
    """Not their names: a million comes behind 999,500."""
    sheet(tmp_path / "samples", 1_000_000, height=16)
    sheet(tmp_path / "samples", 999_500, height=8)
    (tmp_path / "a.jpg").write_bytes(over_time(tmp_path / "samples", lambda *_: None) or b"")
    with Image.open(tmp_path / "a.jpg") as shown:
        # The second line of text lies below the lower sheet, which is the first.
        row = shown.convert("L").crop((0, LINE + WIDTH // 2, WIDTH, 2 * LINE + WIDTH // 2))
        assert row.getextrema()[1] > 250


@pytest.mark.parametrize("name", ["README.md", "report.html", "curves.png", "samples.jpg"])
def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path, name: str) -> None:
    sheet(tmp_path / "samples", 0)
    (tmp_path / name).mkdir()
    said = written(tmp_path)
    assert len(said) == 1 and name in said[0]
    assert (tmp_path / name).is_dir()
    others = {"README.md", "report.html", "curves.png", "samples.jpg"} - {name}
    assert all((tmp_path / other).is_file() for other in others)


@pytest.mark.parametrize("name", ["README.md", "report.html"])
def test_pages_of_the_users_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert ["is not ours" in line for line in written(tmp_path)] == [True]
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    assert written(tmp_path) == written(tmp_path) == []


@pytest.mark.parametrize("line", ["", '{"ste', "\x00", "[1]", "{}", '{"step": "1"}', "\ud800"])
def test_a_log_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    rows = [json.dumps({"step": 1}), line, json.dumps({"step": 2})]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(rows).encode(errors="surrogatepass"))
    with pytest.raises(InputError, match=r"line 2 of .*metrics.jsonl is no row"):
        read_rows(tmp_path)


def told_of(kind: str, stopped: bool | None, rows: int = 3) -> str:
    """README.md of a run whose second evaluation was its best."""
    model = {"codes": 512, "downsampling": 4} if kind == "vqvae" else {"width": 48, "height": 32}
    record: dict[str, Any] = {
        "kind": kind, "size": [48, 32], "parameters": 1_234_567, "device": "cpu", "commit": None,
        "model": model, "views": {"crops": 3, "validation": 0.05}, "versions": {},
        "settings": {"steps": 30, "minutes": 0.0, "eval_images": 9, "seed": 7},
        "data": {"path": "photos"}, "pictures": {"train": 90, "validation": 10},
    }  # fmt: skip
    measured = [
        {"step": 10 * i, "psnr": 20.0 + i, "objective": value, "usage": 0.25, "perplexity": 9.75,
         "elbo_bits_per_value": value, "kl_nats": 3.0, "seconds": 90.0, "images": 100 * i}
        for i, value in enumerate([3.0, 1.0, 2.0][:rows], 1)
    ]  # fmt: skip
    usual = {
        "crops": 0,
        "validation": 0.05,
        "steps": 0,
        "minutes": 0.0,
        "seed": 0,
        "codes": 512,
    } | dict(width=32, height=8)
    return readme(Path("runs/a"), record, usual, measured, stopped)


def test_the_page_of_a_vqvae() -> None:
    text = told_of("vqvae", None)
    assert "# a: a VQ-VAE of 1.2 M parameters for pictures of 48 × 32" in text
    assert "Step 30 of 30, 1.5 minutes, 300 pictures seen. It was training when" in text
    cells = ["22.00 | 25.0% | 9.8 | 1.0000 | 3.0 |", "23.00 | 25.0% | 9.8 | 2.0000 | 3.0 |"]
    assert f"| step 20 (best, in model/) | {cells[0]}\n| step 30 (last) | {cells[1]}\n" in text
    # 12 × 8 codes of 9 bits each.
    assert "A picture is 96 codes of 512, at most 864 bits;" in text
    assert f"    jpeglm train-vqvae {GIVEN}\n" in text
    assert "    jpeglm prepare photos runs/a-data --codec vq --codec-dir runs/a/model\n" in text
    assert "Held out are 10 pictures, of which at most 9 are measured." in text


def test_the_page_of_a_vae() -> None:
    text = told_of("vae", True, rows=2)
    assert "(last)" not in text and text.count("| step ") == 1
    assert "It was stopped; its command resumes" in text and "ELBO bounds the bits" in text
    assert f"    jpeglm train-vae {GIVEN}\n" in text
    assert "    jpeglm evaluate reconstruction photos --checkpoint runs/a/model\n" in text
    assert "It is finished" in told_of("vae", False)


def test_a_warning_is_said_once(tmp_path: Path) -> None:
    """Of what is left out at every evaluation."""
    said: list[str] = []
    job = Job(*[None] * 9, say=said.append)  # type: ignore[arg-type, call-arg]
    for about in ("a", "b", "a"):
        job.warn(about, about)
    assert said == ["warning: a", "warning: b"]
