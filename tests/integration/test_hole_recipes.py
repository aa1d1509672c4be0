"""Recipes that measure a checkpoint, holes.py, hole_sampling.py and sampling.py, on small ones:
what they share, what they tell with and without a network, and a part of a grid."""

import importlib
import json
import shlex
import shutil
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from jpeglm.checkpoint import write_checkpoint
from jpeglm.config import InputError
from jpeglm.data.open import open_data
from jpeglm.generation.loading import load
from jpeglm.progress import Reporter
from jpeglm.text import Text
from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import random_llama

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
OURS = ("release", "steps", "holes", "hole_sampling", "sampling")
MCUS, SIDE = 6, 16


@pytest.fixture(scope="module")
def recipe():
    """The recipes' modules, by name; what else is imported stays as it was."""
    before = sys.path[:]
    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] in OURS}
    sys.path.insert(0, str(RECIPES))
    yield importlib.import_module
    sys.path[:] = before
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture(scope="module")
def data(tmp_path_factory, picture_files, jpeglm):
    """60 crops with captions, 48 × 32 at 4:2:0, 2 rows of 3 MCUs; 12 of them held out."""
    home = tmp_path_factory.mktemp("hole-recipes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("validation", 12)):
        (home / "in" / split).mkdir(parents=True)
        rows = []
        for number in range(count):
            with Image.open(picture_files[number % len(picture_files)]) as picture:
                x, y = (int(rng.integers(0, side - 96)) for side in picture.size)
                crop = picture.convert("RGB").crop((x, y, x + 96, y + 64))
            crop.save(home / "in" / split / f"{number}.png")
            rows.append({"file_name": f"{number}.png", "text": f"{split} {number}"})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (home / "in" / split / "metadata.jsonl").write_text(lines)
    ended = jpeglm(
        "prepare", home / "in", home / "data", "--split", "folder", "--size", "48x32",
        "--restart-interval", 1,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return home / "data"


@pytest.fixture(scope="module")
def checkpoints(data):
    """Folder of two that fill holes, `plain` and, of a model that reads captions, `words`."""
    found = open_data(data)
    streams = [row.stream for row in found.streams("train")]
    for name, text in (("plain", None), ("words", Text(np.zeros((0, 2), np.int32)))):
        tokenizer = Tokenizer.train(streams, found.codec, vocab_size=360, text=text).with_holes()
        config, weights = random_llama(tokenizer.vocab_size, 1600)
        # Near to even, so that what is drawn differs from way to way, and ends.
        weights["lm_head.weight"] *= 0.2
        write_checkpoint(data.parent / name, weights, config, tokenizer, "")
    return data.parent


@pytest.fixture(scope="module", params=["plain", "words"])
def model(request, checkpoints):
    return load(checkpoints / request.param)


@pytest.fixture(scope="module")
def words(checkpoints):
    return load(checkpoints / "words")


@pytest.fixture
def run(recipe, checkpoints, data, monkeypatch, tmp_path, capsys):
    """run(RECIPE, CHECKPOINT, words…) → what lies in its results, by name; `run.err`, what it said
    beside; `run.figures`, the folder."""

    def run(name, checkpoint, *words):
        module = recipe(name)
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
        monkeypatch.setattr(module, "FIGURES", tmp_path / "figures", raising=False)
        asked = [f"{name}.py", str(checkpoints / checkpoint), str(data), *map(str, words)]
        monkeypatch.setattr(sys, "argv", asked)
        capsys.readouterr()
        try:
            recipe("release.asked").run(module.main)
        finally:
            run.err = capsys.readouterr().err
        return {
            path.stem: json.loads(path.read_text())
            for path in sorted((tmp_path / "results").glob("*.json"))
        }

    run.figures = tmp_path / "figures"
    return run


class Colours:
    """4 × 4 means of each channel, in ResNet-50's place."""

    name, metric, resizer, width = "colours", "frechet-colours", "4 x 4 means", 48

    def __init__(self, weights):
        assert weights.exists()

    def __call__(self, pictures):
        cells = pictures.reshape(len(pictures), 4, 8, 4, 12, 3).mean((2, 4))
        return cells.reshape(len(pictures), 48).astype(np.float32)


@pytest.fixture
def network(recipe, monkeypatch, tmp_path):
    """--weights of a network that is there."""
    monkeypatch.setattr(recipe("release.asked"), "ResNet50", Colours)
    (tmp_path / "weights").touch()
    return "--weights", tmp_path / "weights"


NONE = ("--weights", "nowhere/r 50")


def without_network(run):
    """Whether a recipe said once, in one sentence, that there is no network, and what makes it."""
    said = [line for line in run.err.splitlines() if "resnet50" in line]
    return said == [
        "there is no file nowhere/r 50, so no distances under ResNet-50 are measured; for them "
        "run: python recipes/data/resnet50.py 'nowhere/r 50'"
    ]


def keys(value):
    """All keys anywhere in JSON."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


# What they share


def test_a_count_is_a_whole_number_from_1(recipe):
    counted = recipe("release.asked").counted
    assert [counted(str(number)) for number in (1, 7, 10**6)] == [1, 7, 10**6]
    for text in ("0", "-1", "1.5", "", "many", "1e3", "nan"):
        with pytest.raises(ArgumentTypeError, match="no whole number from 1"):
            counted(text)


@pytest.mark.parametrize("name", ["holes", "hole_sampling", "sampling"])
def test_what_cannot_be_measured_is_one_sentence(
    recipe, run, checkpoints, data, monkeypatch, capsys, name
):
    from jpeglm.codecs import PixelsCodec
    from jpeglm.codecs.pixels import PixelsConfig, learn_palette

    pictures = [Image.new("RGB", (8, 8), (40 * number, 9, 9)) for number in range(4)]
    codec = PixelsCodec(PixelsConfig(8, 8, 32), learn_palette(pictures, 8, 8, 32))
    streams = [codec.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams, codec, vocab_size=codec.size + 2)
    write_checkpoint(
        checkpoints / "pixels", *random_llama(tokenizer.vocab_size, 80)[::-1], tokenizer, ""
    )
    for checkpoint, told in (
        ("pixels", f"{checkpoints / 'pixels'} writes no JPEG"),
        ("gone", f"{checkpoints / 'gone'}"),
    ):
        with pytest.raises(SystemExit) as ended:
            run(name, checkpoint)
        assert isinstance(ended.value.code, str)  # which Python prints; it ends with 1
        assert ended.value.code.startswith(told) or told in ended.value.code
        assert "\n" not in ended.value.code
    many = "--limit" if name == "sampling" else "--count"
    with pytest.raises(SystemExit) as ended:
        run(name, "plain", many, 0)
    assert ended.value.code == 2 and f"argument {many}: 0 is no whole number from 1" in run.err


def test_only_what_the_user_gave_wrong_is_a_sentence(recipe):
    def wrong(error):
        raise error

    asked = recipe("release.asked")
    with pytest.raises(SystemExit) as ended:
        asked.run(lambda: wrong(InputError("a sentence")))
    assert ended.value.code == "a sentence"
    with pytest.raises(KeyError):
        asked.run(lambda: wrong(KeyError("a fault of ours")))
    assert asked.run(lambda: None) is None


def test_a_command_is_recorded_as_a_shell_takes_it(recipe, monkeypatch):
    words = ["a folder", "data", "--nuclei", "top-k 40, top-p 0.9", "--name", "it's"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/sampling.py", *words])
    told = recipe("release.asked").made_by("sampling.py")
    assert shlex.split(told["command"]) == ["python", "recipes/sampling.py", *words]
    assert {"numpy", "Pillow", "torch"} <= set(told["machine"]["versions"])


# Holes


@pytest.mark.parametrize("grid", [(1, 2), (2, 1), (2, 3), (4, 4), (1, 7)])
def test_a_hole_leaves_something_and_takes_something(recipe, grid):
    holes, rng = recipe("holes"), np.random.default_rng(0)
    for kind in holes.KINDS:
        if kind in ("side", "stripes") and grid[0] == 1:
            continue  # of rows
        made = [holes.hole_of(kind, rng, *grid) for _ in range(60)]
        assert all(one.shape == (grid[0] * grid[1],) and one.dtype == bool for one in made)
        assert all(one.any() and not one.all() for one in made)
        assert len({one.tobytes() for one in made}) > 1


def test_parts_of_two_streams_make_one(recipe, model, data):
    holes = recipe("holes")
    one, other = [row.stream for row in open_data(data).streams("validation")][:2]
    parts = holes.Parts(model)
    assert len(parts.split(one)) == MCUS
    for bits in range(2**MCUS):
        hole = np.array([bits >> place & 1 for place in range(MCUS)], bool)
        mixed = parts.patched(one, other, hole)
        assert model.codec.check(mixed).valid
        assert parts.same_outside(one, mixed, hole) and parts.same_outside(other, mixed, ~hole)
        assert parts.same_outside(one, mixed, ~hole) == (not hole.any())


def test_pictures_are_chosen_in_order_and_come_again(recipe, model, data):
    holes = recipe("holes")
    rows = list(open_data(data).streams("validation"))
    for count, skip in ((3, 0), (12, 0), (30, 0), (5, 4), (20, 9)):
        made = holes.chosen(model, data, count, skip)
        there = rows[skip : skip + count]
        assert made.found == len(there) == min(count, 12 - skip)
        assert made.streams == [there[number % len(there)].stream for number in range(count)]
        texts = [there[number % len(there)].text for number in range(count)]
        assert made.texts == (texts if model.tokenizer.text else [None] * count)
        assert len(made.holes) == count
    # More holes are these and others, so that results of few tell of the beginning of many.
    assert all(map(np.array_equal, holes.chosen(model, data, 4).holes, made.holes))
    with pytest.raises(InputError, match="no more than 12 pictures out"):
        holes.chosen(model, data, 3, 12)


@pytest.fixture(scope="module")
def holed(recipe, model, data):
    return recipe("holes").chosen(model, data, 9)


def test_what_is_filled_keeps_the_rest_to_the_bit(recipe, model, data, holed):
    holes = recipe("holes")
    parts = holes.Parts(model)
    with Reporter("holes", "pictures") as report:
        ways = {
            "around": holes.fill(model, holed, report),
            "from top": holes.from_top(model, holed, report),
            **holes.by_classic(model, holed, report),
        }
        fewer = holes.chosen(model, data, 4)
        assert holes.fill(model, fewer, report) == ways["around"][:4]
        assert holes.from_top(model, fewer, report) == ways["from top"][:4]
        greedy = [holes.fill(model, fewer, report, temperature=0.0) for _ in range(2)]
    assert greedy[0] == greedy[1] != ways["around"][:4]
    assert {"around", "from top", "mean colour"} <= set(ways)
    for name, made in ways.items():
        assert len(made) == len(holed.streams), name
        for stream, drawn, hole in zip(holed.streams, made, holed.holes):
            assert model.codec.check(drawn).valid
            assert parts.same_outside(stream, drawn, hole), name
    drawn = [stream for made in ways.values() for stream in made]
    assert len(set(drawn)) > 0.8 * len(drawn)


def test_each_way_sees_the_texts_of_its_pictures(recipe, words, data):
    holes = recipe("holes")
    holed = holes.chosen(words, data, 6)
    assert len(set(holed.texts)) == 6
    others = holed._replace(texts=holed.texts[1:] + holed.texts[:1])
    with Reporter("holes", "pictures") as report:
        for way in (holes.fill, holes.from_top):
            same = [
                one == other
                for one, other in zip(way(words, holed, report), way(words, others, report))
            ]
            assert not all(same)
    for bits in (holes.hole_bits, holes.usual_bits):
        assert (bits(words, holed) != bits(words, others)).all()


def test_pixels_of_a_hole_are_those_of_its_mcus(recipe, model, holed):
    true, inside = recipe("holes").true_and_inside(model.codec, holed)
    assert true.shape == (9, 32, 48, 3) and inside.shape == (9, 32, 48)
    for number, (stream, hole) in enumerate(zip(holed.streams, holed.holes)):
        assert np.array_equal(true[number], np.asarray(model.codec.decode(stream)))
        cells = inside[number].reshape(2, SIDE, 3, SIDE)
        assert (cells.all((1, 3)) == hole.reshape(2, 3)).all()
        assert (cells.any((1, 3)) == hole.reshape(2, 3)).all()


def test_bits_of_a_hole_are_those_of_the_logits(recipe, model, holed):
    holes, tokenizer = recipe("holes"), model.tokenizer
    found = holes.hole_bits(model, holed)
    for number, (stream, hole) in enumerate(zip(holed.streams, holed.holes)):
        prompt = model.prompts.around(stream, hole, None, holed.texts[number]).ids
        _, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
        # The first address is given with the prompt: it says where the hole begins.
        assert prompt[-1] == inside[0]
        ids = np.concatenate([prompt, inside[1:]])
        logits = np.concatenate(list(model.engine.read(ids[:-1]))).astype(np.float64)
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        rows = np.arange(len(prompt) - 1, len(ids) - 1)
        nats = -logits[rows, ids[rows + 1]]
        content = ids[rows + 1] < tokenizer.hole
        assert found[number] == pytest.approx(nats[content].sum() / np.log(2), rel=0.02)


def test_usual_bits_of_a_hole_and_of_the_rest_are_all(recipe, model, holed):
    holes = recipe("holes")
    rest = holed._replace(holes=[~hole for hole in holed.holes])
    scores = model.score_streams(holed.streams, None, holed.texts)
    both = holes.usual_bits(model, holed) + holes.usual_bits(model, rest)
    np.testing.assert_allclose(both, [score.of_units.sum() for score in scores])


def test_psnr_is_of_the_hole_alone(recipe):
    psnr = recipe("holes").psnr
    true = np.full((2, 4, 4, 3), 100, np.uint8)
    inside = np.zeros((2, 4, 4), bool)
    inside[0, :2], inside[1, 3, 3] = True, True
    drawn = np.where(inside[..., None], true, 7)
    assert psnr(drawn + (inside[..., None] * np.array([5, 5, 5])), true, inside) == pytest.approx(
        10 * np.log10(255**2 / 25)
    )
    drawn[0, 0, 0] = 101  # 1 / 8 of one picture, 1 / 16 of both, however large their holes are
    assert psnr(drawn, true, inside) == pytest.approx(10 * np.log10(255**2 * 16))


def test_a_distance_is_told_where_it_can_be(recipe, network, capsys):
    frechet = recipe("holes").frechet
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    told = frechet(pictures, network[1])
    assert told(pictures)["frechet_resnet50"] == pytest.approx(0, abs=1e-6)
    apart = [told(np.clip(pictures + more, 0, 255).astype(np.uint8)) for more in (9, 90)]
    assert 0 < apart[0]["frechet_resnet50"] < apart[1]["frechet_resnet50"]
    assert frechet(pictures[:1], network[1])(pictures[:1]) == {}
    assert capsys.readouterr().err == ""
    assert frechet(pictures, Path(NONE[1]))(pictures) == {}
    assert "no distances under ResNet-50" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 3, 6, 18])
def test_a_few_holes_are_measured_and_shown(recipe, run, count):
    holes = recipe("holes")
    (result,) = run("holes", "plain", "--count", count, "--name", "few", *NONE).values()
    assert result["masks"] == count == result["outside_kept_to_the_bit"]
    assert result["pictures"] == min(count, 12)
    assert "not_finite" not in result and "frechet_resnet50" not in keys(result)
    assert {"model", "model, from the top", "mean colour"} <= set(result["ways"])
    for way in result["ways"].values():
        assert list(way["by_kind"]) == list(holes.KINDS[:count])
        if count < 5:  # of a kind there is one picture: the mean of errors is the whole's
            errors = [10 ** (-value / 10) for value in way["by_kind"].values()]
            assert np.mean(errors) == pytest.approx(10 ** (-way["psnr"] / 10))
    bits = result["bits_per_mcu"]
    assert set(bits) == {
        "drawn", "true, seeing all that stays", "true, in the usual order"
    } and min(bits.values()) > 0  # fmt: skip
    told = result["judged"]
    if shutil.which("djpeg") and shutil.which("jpegtran"):
        assert told["streams"] == told["canonical"] == told["djpeg_silent"] == count
    else:
        assert "libjpeg-turbo-progs" in told["unavailable"]
    assert shlex.split(result["command"])[1] == "recipes/holes.py"
    assert without_network(run)
    with Image.open(run.figures / "holes-few.jpg") as sheet:
        width, height = sheet.size
    columns, rows = 2 + len(result["ways"]), min(count, holes.SHOWN * len(holes.KINDS))
    assert columns * 128 < width < columns * 160 and rows * 80 < height < rows * 180


def test_bits_are_told_of_what_was_drawn_and_of_what_was_there(recipe, run, checkpoints, data):
    holes = recipe("holes")
    model = load(checkpoints / "plain")
    holed = holes.chosen(model, data, 5)
    with Reporter("holes", "pictures") as report:
        made = holes.fill(model, holed, report)
    mcus = sum(hole.sum() for hole in holed.holes)
    want = {
        "drawn": holes.hole_bits(model, holed._replace(streams=made)).sum() / mcus,
        "true, seeing all that stays": holes.hole_bits(model, holed).sum() / mcus,
        "true, in the usual order": holes.usual_bits(model, holed).sum() / mcus,
    }
    (result,) = run("holes", "plain", "--count", 5, *NONE).values()
    assert result["bits_per_mcu"] == pytest.approx(want)
    assert len({round(value, 3) for value in want.values()}) == 3


def test_the_sheet_shows_each_picture_in_all_ways(recipe, words, data):
    holes = recipe("holes")
    holed = holes.chosen(words, data, 20)
    true, inside = holes.true_and_inside(words.codec, holed)
    shown = {"a": 255 - true, "b": true // 2}
    tiles = holes.sheet(words, holed, true, shown)
    assert [name for name, _ in tiles] == ["true", "given", "a", "b"] * 16
    for number in range(16):
        row = [np.asarray(image).astype(int) for _, image in tiles[4 * number : 4 * number + 4]]
        for picture, want in zip((row[0], row[2], row[3]), (true, shown["a"], shown["b"])):
            assert np.array_equal(picture, want[number])
        assert np.abs(row[1][inside[number]] - 128).mean() < 20  # grey, where it is not given
        assert not np.array_equal(row[1], row[0])


def test_distances_are_added_where_there_is_a_network(run, network):
    (result,) = run("holes", "plain", "--count", 6, *network).values()
    for way in result["ways"].values():
        assert way["frechet_resnet50"] > 0
    assert "ResNet" not in run.err
    (alone,) = run("holes", "plain", "--count", 1, *network).values()
    assert "frechet_resnet50" not in keys(alone)


# How holes are filled best


@pytest.mark.parametrize("checkpoint", ["plain", "words"])
def test_ways_of_filling_are_compared_with_and_without_a_network(
    recipe, run, network, monkeypatch, checkpoints, data, checkpoint
):
    module = recipe("hole_sampling")
    monkeypatch.setattr(module, "TEMPERATURES", (0.3, 1.0))
    guided = module.GUIDANCES if checkpoint == "words" else (1.0,)
    asked = ("--count", 5, "--skip", 3)
    (told,) = run("hole_sampling", checkpoint, *asked, *NONE).values()
    assert without_network(run)
    grid = [(way["temperature"], way["guidance"]) for way in told["ways"]]
    assert grid == [(t, g) for t in (0.3, 1.0) for g in guided] and told["masks"] == 5
    for way in told["ways"]:
        assert set(way["filled"]) == set(way["from_top"]) == {"psnr"}
    values = [way[name]["psnr"] for way in told["ways"] for name in ("filled", "from_top")]
    assert len(set(values)) == len(values)
    (both,) = run("hole_sampling", checkpoint, *asked, *network).values()
    assert "ResNet" not in run.err
    for way, other in zip(told["ways"], both["ways"]):
        for name in ("filled", "from_top"):
            assert other[name].pop("frechet_resnet50") > 0
        assert way == other
    assert shlex.split(both["command"])[:2] == ["python", "recipes/hole_sampling.py"]
    # The first way by hand, behind the pictures that are left to holes.py.
    holes, model = recipe("holes"), load(checkpoints / checkpoint)
    holed = holes.chosen(model, data, 5, 3)
    way = {"temperature": 0.3, "guidance": guided[0], "top_k": 0, "top_p": 1.0}
    for name, draw in (("filled", holes.fill), ("from_top", holes.from_top)):
        with Reporter("holes", "pictures") as report:
            made = draw(model, holed, report, **way)
        pictures = np.stack([np.asarray(model.codec.show(stream)) for stream in made])
        found = holes.psnr(pictures, *holes.true_and_inside(model.codec, holed))
        assert told["ways"][0][name]["psnr"] == found


# How pictures are drawn best


def test_a_part_of_the_grid_is_the_same_part(recipe):
    module = recipe("sampling")
    whole = module.asked_ways(None, None)
    assert len(whole) == len(module.NUCLEI) * len(module.TEMPERATURES)
    for nucleus in module.NUCLEI:
        part = module.asked_ways([nucleus], [0.8, 0.6])
        assert part == {name: whole[name] for name in part} and len(part) == 2
    assert module.asked_ways(list(module.NUCLEI), list(module.TEMPERATURES)) == whole
    (other,) = module.asked_ways(["top-p 0.95"], [0.85]).items()
    assert other == (
        "top-p 0.95, temperature 0.85", {"top_k": 0, "top_p": 0.95, "temperature": 0.85}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nuclei", "top-p 0.95", "top-q", "all"], "--nuclei has no top-q all; give some of "),
        (["--temperatures", "0.5", "-1"], "temperature is -1.0; it must be at least 0.0"),
        (["--temperatures", "nan"], "temperature is nan; it must be"),
        (["--temperatures", "0.5", "--best-of", "2"], "leave out --nuclei and --temperatures"),
        (["--nuclei", "all tokens", "--best-of", "2"], "leave out --nuclei and --temperatures"),
    ],
)
def test_what_is_no_way_is_told_before_the_model_is_loaded(recipe, run, words, told):
    with pytest.raises(SystemExit) as ended:
        run("sampling", "not even there", *words)
    assert told in ended.value.code and "\n" not in ended.value.code
    if "top-q" in words:
        for name in recipe("sampling").NUCLEI:
            assert repr(name) in ended.value.code


PART = ("--nuclei", "all tokens", "min-p 0.05", "--temperatures", 0.6, 1.0, "--limit", 10)
SAID = {"way", "seam", "texture", "bits"}
MORE = {"distance", "interval", "kid", "kid_error", "n", "warning"}


@pytest.mark.parametrize("use", ["complete", "generate"])
def test_a_part_of_the_grid_is_measured(run, network, use):
    asked = ("--use", use, "--seeds", 2, "--limit", 10, "--name", "part")
    (whole,) = run("sampling", "plain", *PART, *asked, *network).values()
    assert (whole["pictures"], whole["use"], len(whole["ways"])) == (10, use, 4)
    assert "ResNet" not in run.err
    best = sorted(whole["ways"], key=lambda name: whole["ways"][name]["kid"])
    for name, row in whole["ways"].items():
        # Today's own way, all tokens at temperature 1, is a finalist whatever it came to.
        ends = name in best[:3] or name == "all tokens, temperature 1"
        assert set(row) - {"kid_seeds"} == SAID | MORE
        assert ("kid_seeds" in row) == ends
        if ends:
            first, second = row["kid_seeds"]
            assert first == row["kid"] != second
    # One way alone, and without a network: the same pictures.
    name = "min-p 0.05, temperature 0.6"
    alone = (*asked, "--nuclei", "min-p 0.05", "--temperatures", 0.6, *NONE)
    (one,) = run("sampling", "plain", *alone).values()
    assert without_network(run)
    assert one["ways"] == {name: {key: whole["ways"][name][key] for key in SAID}}
    assert {key: one[key] for key in ("true", "now")} == {
        key: whole[key] for key in ("true", "now")
    }
    assert shlex.split(one["command"])[-6:] == [
        "--nuclei", "min-p 0.05", "--temperatures", "0.6", "--weights", "nowhere/r 50"
    ]  # fmt: skip
    with Image.open(run.figures / f"sampling-part-{use}.jpg") as sheet:
        assert sheet.width > 8 * 96 and 2 * 80 < sheet.height < 3 * 130  # true, and the way


def test_finalists_are_the_best_and_todays(recipe):
    finalists = recipe("sampling").finalists
    now = {"top_k": 0, "top_p": 1.0, "temperature": 0.4, "grammar": True}
    table = {
        str(kid): {"way": {"top_k": 0, "temperature": kid / 10}, "kid": float(kid)}
        for kid in (5, 1, 4, 2, 3)
    }
    assert finalists(table, now) == ["1", "2", "3", "4"]
    assert finalists(table, now | {"temperature": 0.2}) == ["1", "2", "3"]
    assert finalists(table, now | {"temperature": 9}) == ["1", "2", "3"]
    for row in table.values():
        del row["kid"]
    assert finalists(table, now) == ["5", "1", "4", "2", "3"]


def test_the_best_of_some_candidates_without_a_network(run):
    asked = ("--best-of", 3, "--limit", 4, "--name", "of", *NONE)
    (name, told), *others = run("sampling", "plain", *asked).items()
    assert name == "best-of-of-complete" and not others and without_network(run)
    assert told["candidates"] == 3 == len(told["sets"])
    bits = [
        told["ways"][way]["bits"] for way in ("the likeliest", "the middle one", "the unlikeliest")
    ]
    assert bits == sorted(bits) and len(set(bits)) == 3
    assert np.mean(bits) == pytest.approx(np.mean([one["bits"] for one in told["sets"]]))


def test_a_sheet_of_few_pictures_has_a_row_a_way(run):
    asked = ("--limit", 3, "--nuclei", "all tokens", "--temperatures", 0.6, 1.0, "--name", "few")
    run("sampling", "plain", *asked, *NONE)
    with Image.open(run.figures / "sampling-few-complete.jpg") as sheet:
        assert 3 * 96 < sheet.width < 4 * 96 and 3 * 64 < sheet.height < 3 * 130
