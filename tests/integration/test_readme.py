"""The README runs: its links, make targets, Python lines and, with small budgets, its commands."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.generation.sheets import CAPTION, MARGIN, TILE

from .test_inspect import write_codes_model

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text()
SMALLER = {"--crops 24": "--crops 2", "--vocab-size 1024": "--vocab-size 300",
           "--minutes 40": "--steps 2 --eval-every 2 --eval-images 4 --samples 0",
           "--minutes 60": "--steps 2 --eval-every 2 --eval-images 4 --samples 0",
           "--minutes 240": "--steps 2 --eval-every 2 --eval-images 4 --samples 0"}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`?make ([a-z-]+)", page.read_text())}
    assert {"demo", "test"} <= named <= targets | {"it"}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Where a reader stands who pastes: what is written stays out of the repository."""
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_lines_run(clone):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert [picture.size for picture in names["pictures"].images] == [(64, 64)] * 3
    assert (clone / "out" / "completion-02.jpg").read_bytes() == names["pictures"].files[2]


def tiles_of(picture, size, columns):
    """The first so many pictures of a sheet; captions are in Pillow's font and stay out."""
    with Image.open(picture) as sheet:
        pixels = np.asarray(sheet.convert("RGB"), int)
    for top in range(MARGIN + CAPTION, len(pixels), MARGIN + CAPTION + size):
        for column in range(columns):
            left = MARGIN + column * (size + MARGIN)
            yield pixels[top : top + size, left : left + size]


def test_the_demo_is_what_make_demo_draws(jpeglm, clone):
    """The same seed, the same picture, on every machine. Stale? Put the sheet that `jpeglm
    complete` now draws in its place."""
    makefile = (ROOT / "Makefile").read_text()
    (words,) = re.findall(r"jpeglm (complete src/jpeglm/assets/astronaut.jpg .*?) --out", makefile)
    assert jpeglm(*shlex.split(words), "--out", "drawn").code == 0
    now = [*tiles_of(clone / "drawn" / "sheet.png", TILE, 6)]
    then = [*tiles_of(ROOT / "docs" / "figures" / "demo.png", TILE, 6)]
    assert len(now) == len(then) == 6
    assert [(one == other).all() for one, other in zip(now, then)] == [True] * 6


def test_the_samples_are_what_the_command_below_them_draws(jpeglm, clone):
    """All 64 of them; the figure, a JPEG, differs by its own loss."""
    (words,) = re.findall(r"`jpeglm (generate -n 64)`", README)
    assert jpeglm(*shlex.split(words), "--out", "drawn").code == 0
    then = [*tiles_of(ROOT / "docs" / "figures" / "photos-samples.jpg", 64, 16)]
    files = sorted((clone / "drawn").glob("sample-*.jpg"))
    assert len(files) == len(then) == 64
    for file, tile in zip(files, then):
        with Image.open(file) as picture:
            assert abs(np.asarray(picture, int) - tile).mean() < 6, file.name


def test_the_first_person_is_what_the_command_below_draws(jpeglm, clone):
    """And none of the others."""
    (words,) = re.findall(r"`jpeglm (generate --checkpoint avatars [^`]*)`", README)
    assert jpeglm(*shlex.split(words), "-n", 1, "--out", "drawn").code == 0
    then = [*tiles_of(ROOT / "docs" / "figures" / "avatars-first.jpg", 128, 8)]
    with Image.open(clone / "drawn" / "sample-00.jpg") as picture:
        now = np.asarray(picture.resize((128, 128), Image.Resampling.BICUBIC), int)
    apart = [abs(now - tile).mean() for tile in then]
    assert len(apart) == 16 and apart[0] < 6 < min(apart[1:])


def run(page):
    """The names after all Python lines of a page, from the top, as a reader would paste them."""
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
        exec(code, names)
    return names


def test_how_it_works_says_what_the_photo_costs():
    import jpeglm

    page = (ROOT / "docs" / "how-it-works.md").read_text()
    model, photo = jpeglm.load(), ROOT / "src" / "jpeglm" / "assets" / "astronaut.jpg"
    own = 8 * len(model.codec.scan(model.codec.encode(photo)))
    bits = model.score(photo).bits.sum()
    assert f"codes take {own:,} bits" in page and f"would be {bits:,.0f}." in page


def test_the_page_of_comparisons_runs(clone):
    names = run("comparison.md")
    four, rest, many = names["four"], names["rest"], names["many"]
    assert [len(found) for found in (four, rest, many, names["ships"])] == [4, 2, 6, 2]
    alone = names["model"].generate(1, seed=0, temperature=0.9)
    assert alone.streams == four.streams[:1], "the same alone and in a batch"
    assert names["tokenizer"].fingerprint == names["model"].tokenizer.fingerprint
    assert [file.read_bytes() for file in sorted(clone.glob("out/completion-*"))] == rest.files
    assert rest.files[0].startswith(b"\xff\xd8") and names["drawing"].units == 16
    assert len(names["score"].of_units) == 16
    assert names["tokenizer"].decode_stream(names["ids"]) == names["stream"]


def test_the_page_of_the_api_runs(clone):
    names = run("api.md")
    model, rest = names["model"], names["rest"]
    assert len(names["new"].images) == 4 and len(rest.images) == 3
    assert names["drawing"].units == model.codec.units and names["drawing"].image.size == (64, 64)
    assert len(names["ship"]) == 4 and (clone / "out" / "run.json").exists()
    assert names["score"].of_units.sum() == pytest.approx(names["score"].bits.sum())
    assert names["verdict"].valid and model.codec.check(rest.files[0]).valid
    assert model.codec.decode(names["noise"]).size == (64, 64) and not names["session"].busy
    assert names["tokenizer"].decode_stream(names["ids"]) == model.codec.encode(rest.images[0])
    assert names["event"].ended and names["key"]
    ours = [value for value in names.values() if type(value).__module__.startswith("jpeglm.")]
    assert len(ours) >= 12 and not [value for value in ours if " object at 0x" in repr(value)]


@pytest.fixture
def photo(clone, picture_files):
    """What the pages to start with suppose: a photo, a drawing, and a mask of it."""
    shutil.copy(picture_files[0], clone / "photo.jpg")
    with Image.open(picture_files[0]) as picture:
        picture.resize((64, 64)).save(clone / "drawing.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 24, 48, 40))
    mask.save(clone / "mask.png")
    return clone


def commands(page):
    """The lines of a page that a reader would paste, `pip` and what stays open left out."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"^    (jpeglm (?!studio).*)$", text, re.MULTILINE)


def test_the_first_five_minutes_run(jpeglm, photo, picture_files):
    pytest.importorskip("torch")
    (photo / "photos").mkdir()
    for file in picture_files:
        with Image.open(file) as picture:
            for i in range(4):
                place = (8 * i, 8 * i, picture.width // 2, picture.height // 2)
                picture.crop(place).save(photo / "photos" / f"{file.stem}-{i}.png")
    lines = commands("start.md")
    assert len(lines) == 9
    for line in lines:
        for given, small in SMALLER.items():
            line = line.replace(given, small)
        result = jpeglm(*shlex.split(line)[1:], cwd=photo)
        assert result.code == 0, f"{line}\n{result.err}"
    assert len([*photo.glob("drawn/sample-*.jpg")]) == 16 and (photo / "inside.html").exists()
    assert len([*photo.glob("people/sample-*.jpg")]) == len([*photo.glob("ships/sample-*")]) == 8
    names = run("start.md")
    assert len(names["pictures"].images) == 4 and len([*photo.glob("out/completion-*")]) == 2


def test_the_page_of_conditioning_runs(jpeglm, photo):
    lines = commands("conditioning.md")
    assert len(lines) == 5
    for line in lines:
        result = jpeglm(*shlex.split(line)[1:], cwd=photo)
        assert result.code == 0, f"{line}\n{result.err}"
    for folder, count in (("ships", 16), ("people", 8), ("rest", 4), ("glasses", 3)):
        assert len([*photo.glob(f"{folder}/*-[0-9][0-9].jpg")]) == count, folder
    with Image.open(photo / "filled" / "original.jpg") as before:
        kept = np.asarray(before, int)
    with Image.open(photo / "filled" / "completion-00.jpg") as after:
        changed = (np.asarray(after, int) != kept).any(-1)
    assert changed.any() and not changed[:24].any() and not changed[40:].any()
    assert not changed[:, :16].any() and not changed[:, 48:].any()
    names = run("conditioning.md")
    assert len(names["ships"]) == 2 and len(names["again"]) == 2


def test_the_page_of_scaling_out_runs(jpeglm, tmp_path, picture_files):
    """But for the lines of a GPU, of a cluster, of several processes and of stores, which other
    tests have."""
    (tmp_path / "photos").mkdir()
    for file in picture_files:
        shutil.copy(file, tmp_path / "photos")
    elsewhere = ("--device cuda", "--engine ray", "s3://")
    lines = [one for one in commands("scale-out.md") if not any(word in one for word in elsewhere)]
    assert len(lines) == 3
    for line in lines:
        for given, small in SMALLER.items():
            line = line.replace(given, small)
        result = jpeglm(*shlex.split(line.replace("--workers 8", "--workers 2"))[1:], cwd=tmp_path)
        assert result.code == 0, f"{line}\n{result.err}"
    assert [*tmp_path.glob("data/shard-*.tokens.safetensors")]
    (line,) = commands("scaling.md")
    assert jpeglm(*shlex.split(line.replace("--crops 24", "--crops 2"))[1:], cwd=tmp_path).code == 0
    assert (tmp_path / "many" / "tokens-index.safetensors").exists()


def test_the_road_runs(jpeglm, tmp_path, picture_files):
    """Verb by verb as docs/road.md and the README print it, on few pictures, with small budgets."""
    pytest.importorskip("torch")
    (tmp_path / "photos").mkdir()
    for file in picture_files:
        with Image.open(file) as picture:
            for i in range(8):
                place = (8 * i, 8 * i, picture.width // 2 + 8 * i, picture.height // 2 + 8 * i)
                picture.crop(place).save(tmp_path / "photos" / f"{file.stem}-{i}.png")
    shutil.copy(picture_files[0], tmp_path / "photo.jpg")
    shutil.copytree(tmp_path / "photos", tmp_path / "drawings")
    rows = [{"file_name": file.name, "text": file.stem} for file in tmp_path.glob("drawings/*")]
    captions = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "drawings" / "metadata.jsonl").write_text(captions)
    with Image.open(picture_files[0]) as picture:
        picture.save(tmp_path / "drawing.png")
        mask = Image.new("L", picture.size)
    mask.paste(255, (0, 0, 40, mask.height))
    mask.save(tmp_path / "mask.png")
    road = (ROOT / "docs" / "road.md").read_text() + README.split("## Try it")[1]
    lines = re.findall(r"^    (jpeglm .*)$", road, re.MULTILINE)
    assert len(lines) >= 18
    for line in lines:
        for given, small in SMALLER.items():
            line = line.replace(given, small)
        result = jpeglm(*shlex.split(line)[1:], cwd=tmp_path)
        assert result.code == 0, f"{line}\n{result.err}"
    assert (tmp_path / "hf" / "tokenizer_config.json").exists()


def test_the_page_of_inspection_runs(clone, jpeglm):
    names = run("inspect.md")
    assert names["surprise"]["bits"] == max(one["bits"] for one in names["trace"]["tokens"])
    page = (ROOT / "docs" / "inspect.md").read_text()
    shutil.copy(ROOT / "src" / "jpeglm" / "assets" / "astronaut.jpg", clone / "photo.jpg")
    shutil.copy(ROOT / "src" / "jpeglm" / "assets" / "ball.mp4", clone / "film.mp4")
    pytest.importorskip("av")
    lines = re.findall(r"^    (jpeglm inspect .*?)(?: +#.*)?$", page, re.MULTILINE)
    for line in lines:
        assert jpeglm(*shlex.split(line)[1:], cwd=clone)[0] == 0
    assert len(lines) == 5 and (clone / "inside.html").exists()
    picture, clip, codes = (
        re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
        for part in re.split("^### ", page, flags=re.MULTILINE)
    )
    shared = {"format", "kind", "model", "names"}
    assert set(picture) == set(names["trace"]) - {"format"}
    assert set(clip) == set(jpeglm.told("inspect", clone / "film.mp4")) - shared
    checkpoint = write_codes_model(clone / "vq")
    told = jpeglm.told("inspect", clone / "photo.jpg", "--checkpoint", checkpoint)
    assert set(codes) == set(told) - shared


def test_the_tour_says_what_it_did(clone, capsys):
    """Cell by cell; what was printed when the notebook was made is printed again."""
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text())["cells"]
    names: dict = {}
    printed = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        exec("".join(cell["source"]), names)
        streams = [one for one in cell["outputs"] if one["output_type"] == "stream"]
        assert capsys.readouterr().out == "".join("".join(one["text"]) for one in streams)
        printed += len(streams)
    assert printed >= 5 and len(names["pictures"]) == 8 and len(names["rest"]) == 4


def test_the_page_of_other_tools_runs(jpeglm, clone, picture_files):
    """Its Python lines, then its commands; a folder of the authors' form stands for the one on the
    hub."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sentencepiece")
    from jpeglm.codecs import JpegCodec
    from jpeglm.config import PAPER_JPEG
    from tests.unit.test_import import learn, write_llama

    names = run("integrations.md")
    codec = names["tokenizer"].codec
    files = [file.read_bytes() for file in sorted(clone.glob("drawn-*.jpg"))]
    assert len(files) == 4 and all(codec.check(file).valid for file in files)
    assert len(names["completions"]) == 3
    kept = codec.alphabet("jpeg-symbols").prefix(codec.encode(names["photo"]), codec.units // 2)
    for file in names["completions"]:
        symbols = codec.alphabet("jpeg-symbols").split(codec.unwrap(file))
        assert symbols[: len(kept.symbols)].tolist() == kept.symbols.tolist()
    same = [codec.wrap(names["tokenizer"].decode_stream(row.numpy())) for row in names["same"]]
    assert len(same) == 4 and all(codec.check(file).valid for file in same)

    shutil.copytree(ROOT / "src" / "jpeglm" / "assets" / "photos", clone / "runs/photos/model")
    names["model"].save_pretrained(clone / "fine-tuned")
    (clone / "released-7b").mkdir()
    (clone / "photos").mkdir()
    streams = []
    for file in picture_files:
        with Image.open(file) as picture:
            streams.append(JpegCodec(PAPER_JPEG).encode(picture))
            picture.save(clone / "photos" / f"{file.stem}.png")
    learn(clone / "released-7b", streams)
    write_llama(clone / "released-7b", 320, torch.bfloat16)
    words = ("prepare", "photos", "data/photos64", "--size", 64, "--validation", 0.3)
    assert jpeglm(*words, cwd=clone).code == 0
    page = (ROOT / "docs" / "integrations.md").read_text()
    lines = re.findall(r"^    (jpeglm .*)$", page, re.MULTILINE)
    assert len(lines) == 7
    (clone / "photos").rename(clone / "pictures-of-ours")  # `photos` is the model that ships
    for line in lines:
        result = jpeglm(*shlex.split(line.replace("hf:ORG/NAME", "released-7b"))[1:], cwd=clone)
        assert result.code == 0, f"{line}\n{result.err}"
    assert len(list(clone.glob("pictures/*/*.jpg"))) == len(picture_files)
    loads = re.findall(r'load_dataset\("parquet".*\)', page)
    datasets = pytest.importorskip("datasets")
    (line,) = loads
    table = eval(line, {"load_dataset": datasets.load_dataset})["train"]
    columns = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| (?:string|binary|int32) \|", page, re.MULTILINE
    )
    told = re.findall(r"`(\w+)`", " ".join(columns))
    assert [name for name in told if name != "text"] == table.column_names
