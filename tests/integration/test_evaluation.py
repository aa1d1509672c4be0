"""The paper's protocols end to end on small models; features are coarse colours, not a network."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import write_checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig, learn_palette
from jpeglm.config import InputError, JpegConfig
from jpeglm.data.arrays import Images, load_images
from jpeglm.data.encode import item_rows
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import Item
from jpeglm.evaluation import protocols
from jpeglm.evaluation.output import Output
from jpeglm.evaluation.report import verdicts, write_report
from jpeglm.evaluation.sets import samples
from jpeglm.evaluation.validity import validity
from jpeglm.generation.loading import load, open_coder
from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import random_llama

pytest.importorskip("torch")
pytest.importorskip("torchmetrics")


class Colours:
    """4 × 4 means of each channel."""

    name, metric, resizer, width = "colours", "frechet-colours", "4 x 4 means", 48

    def __call__(self, pictures):
        small = [
            np.asarray(Image.fromarray(p).resize((4, 4), Image.Resampling.BOX)) for p in pictures
        ]
        return np.stack(small).reshape(len(small), -1).astype(np.float32)


@pytest.fixture(scope="module")
def references(pictures):
    rng = np.random.default_rng(0)
    found = []
    for i in range(24):
        picture = pictures[i % 4]
        x, y = (int(rng.integers(0, side - 64)) for side in picture.size)
        found.append(np.asarray(picture.crop((x, y, x + 64, y + 64)).resize((16, 16))))
    return Images(np.stack(found), np.arange(24, dtype=np.int32) % 3, [str(i) for i in range(24)])


@pytest.fixture(scope="module")
def models(references, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    images = [Image.fromarray(p) for p in references.pixels]
    jpeg = JpegCodec(JpegConfig(16, 16, 50, "4:4:4"))
    pixels = PixelsCodec(PixelsConfig(16, 16, 32), learn_palette(images, 16, 16, 32))
    for name, codec in (("jpeg", jpeg), ("pixels", pixels)):
        streams = [codec.encode(image) for image in images]
        size = 300 if name == "jpeg" else codec.size + 2
        tokenizer = Tokenizer.train(streams, codec, vocab_size=size)
        longest = max(len(tokenizer.encode_stream(s)) for s in streams)
        config, weights = random_llama(tokenizer.vocab_size, 2 * longest + 64)
        write_checkpoint(folder / name, weights, config, tokenizer, "")
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory, references):
    from jpeglm.models.vae import VaeConfig
    from jpeglm.training.autoencoder import AutoencoderConfig, train_autoencoder

    out = tmp_path_factory.mktemp("vae")
    model = VaeConfig(16, 16, latent=4, channels=8, blocks=1)
    config = AutoencoderConfig(steps=20, batch=8, threads=1, eval_every=10)
    train_autoencoder(references.pixels[:16], references.pixels[16:], out, model, config)
    return out / "model"


@pytest.mark.parametrize("name", ["jpeg", "pixels"])
def test_completion_gets_harder_with_less_kept(models, name, references, tmp_path):
    model = load(models / name)
    said: list[str] = []
    tables = [
        protocols.completion(
            model, references, Colours(), (0.25, 0.75, 1), (0, 1), folder=tmp_path,
            progress=lambda done, total, what: said.append(what),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert tables[0] == tables[1]  # the second one reads what the first one drew
    rows = tables[0]["ratios"]
    assert tables[0]["metric"] == "frechet-colours" and rows["0.25"]["n"] == [24, 24]
    assert rows["0.25"]["distance"] > rows["0.75"]["distance"] > rows["1"]["distance"]
    assert rows["1"]["distance"] == pytest.approx(rows["codec"]["distance"])
    assert rows["0.25"]["bits"] > rows["0.75"]["bits"] and len(rows["0.25"]["seeds"]) == 2
    assert "keep 0.25, seed 1" in said and "fewer than the 48 dimensions" in rows["1"]["warning"]
    assert len(list(tmp_path.glob("completion-*.npz"))) == 6


def test_a_completion_leaves_a_plot_and_a_sheet(models, references, tmp_path, monkeypatch):
    out, said = tmp_path / "out", []
    for files in (["plot.png", "sheet.png"], ["sheet.png"]):
        output = Output(out, [])
        result = {"evaluated": "completion"} | protocols.completion(
            load(models / "jpeg"), references, Colours(), (0.5, 1), (0, 1), show=output.show
        )
        output.write("completion", result, said.append)
        assert result["files"] == files and sorted([*files, "result.json"]) == sorted(
            path.name for path in out.iterdir()
        )
        for name in files:
            Image.open(out / name).verify()
        with Image.open(out / "sheet.png") as sheet:
            assert sheet.width * 3 == sheet.height * 16  # originals, and a row for each share
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert len(said) == 1 and "matplotlib" in said[0] and "[eval]" in said[0]


def test_half_size_is_measured_on_its_part(models, references):
    model = load(models / "jpeg")
    table = protocols.completion(model, references, Colours(), (0.25,), (0,), half=True)
    # Above the first quarter there is only black, so all of the picture had to be drawn.
    assert table["half"] and table["ratios"]["0.25"]["distance"] > 0


def test_unconditional_and_the_vae(models, references, vae):
    for folder in (models / "jpeg", vae):
        model = load(folder)
        row = protocols.unconditional(model, references, Colours(), 20, (0, 1))
        assert row["n"] == [20, 24] and not row["class_conditional"] and row["distance"] > 0
    drawn = samples(load(vae), 5, seed=3)["pictures"]
    assert (drawn == samples(load(vae), 5, seed=3)["pictures"]).all()
    with pytest.raises(InputError, match="is a VAE, which has no order to continue in"):
        protocols.completion(load(vae), references, Colours(), (0.5,), (0,))
    with pytest.raises(InputError, match="has no temperature"):
        load(vae).generate(2, temperature=0.5)


def test_validity_with_and_without_the_grammar(models):
    for name in ("jpeg", "pixels"):
        rows = validity(load(models / name), 12)
        assert rows["with_grammar"]["complete_as_sampled"] == 12
        assert rows["without_grammar"]["complete_as_sampled"] < 12
    assert "writes no JPEG" in rows["unavailable"]["djpeg, jpegtran"]


def test_reconstruction_orders_the_qualities(models, references, vae):
    images = [Image.fromarray(p) for p in references.pixels]
    coders = {"pixels": open_coder(models / "pixels"), "vae": open_coder(vae)}
    for quality in (5, 50, 95):
        codec = JpegCodec(JpegConfig(16, 16, quality=quality))
        coders[str(quality)] = Tokenizer.train([codec.encode(i) for i in images], codec)
    rows = protocols.reconstruction(coders, references, Colours())["coders"]
    assert rows["5"]["psnr"] < rows["50"]["psnr"] < rows["95"]["psnr"]
    assert rows["5"]["ssim"] < rows["50"]["ssim"] < rows["95"]["ssim"] <= 1
    assert rows["5"]["bits"] < rows["50"]["bits"] < rows["95"]["bits"]
    assert rows["pixels"]["tokens"] == 256 and rows["vae"]["latents"] == 4
    codec = coders["50"].codec
    errors = [np.asarray(codec.decode(codec.encode(i))) - np.array(i, float) for i in images]
    exact = np.mean([10 * np.log10(255**2 / np.square(error).mean()) for error in errors])
    assert rows["50"]["psnr"] == pytest.approx(exact)


def test_longtail_on_distances_made_to_order():
    """Class c of rival a is displaced by its frequency's logarithm, b by nothing."""
    rng = np.random.default_rng(0)
    frequency = {0: 1000, 1: 100, 2: 10}
    labels = np.repeat([0, 1, 2], 50)
    truth = rng.normal(size=(150, 3))
    shift = np.log10([frequency[c] for c in labels])[:, None]
    result = protocols.class_differences(truth + shift, truth, labels, truth, frequency)
    for row in result["classes"]:
        expected = 3 * np.log10(row["frequency"]) ** 2
        assert row["difference"] == pytest.approx(expected, rel=1e-6)
    assert result["spearman"]["r"] == 1 and result["pearson_log_frequency"]["r"] > 0.95
    with pytest.raises(InputError, match="class 7 has 0 pictures"):
        protocols.class_differences(truth, truth, labels, truth, {7: 5})


def test_arrays_are_the_pictures_that_prepare_codes(picture_files, tmp_path):
    (tmp_path / "in").mkdir()
    for file in picture_files[:4]:
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
    config = PrepareConfig(crops=3, validation=0.0)
    found = load_images(tmp_path / "in", 16, 16, config, "train")
    codec = JpegCodec(JpegConfig(16, 16))
    rows = [
        row
        for file in picture_files[:4]
        for row in item_rows(Item(file.name, file.read_bytes(), -1, file.name), codec, config)
    ]
    assert [row.key for row in rows] == found.keys
    for row, pixels in zip(rows, found.pixels):
        assert codec.encode(Image.fromarray(pixels)) == row.stream


def test_the_report_says_what_its_numbers_say(tmp_path):
    def row(value, spread=1.0):
        return {"distance": value, "interval": [value - spread, value + spread], "kid": 0.1,
                "kid_error": 0.01, "n": [10, 10]}  # fmt: skip

    def table(*values):
        return {"ratios": dict(zip(("codec", "0.25", "0.5"), map(row, values)))}

    drawn = {**row(50), "metric": "frechet-x", "extractor": "x", "resizer": "none"}
    training = {"parameters": 1, "images": 2, "flops": 3.0, "tokens_per_image": 4.0}
    rivals = {
        "jpeg-symbols": {"completion": table(1, 60, 20), "unconditional": drawn,
                         "training": training},
        "vq": {"completion": table(2, 100, 20.5), "unconditional": {**drawn, "distance": 40},
               "training": training},
    }  # fmt: skip
    results = {"data": "<test>", "flops": 1e14, "rivals": rivals, "commands": ["jpeglm train <x>"]}
    words = verdicts(results)
    assert "21 % lower" in words[0] and "apart at 1 of 2" in words[0]
    assert "jpeg-symbols 40.0, vq 60.2" in words[1] and "vq 40.0, jpeg-symbols 50.0" in words[2]
    write_report(results, {}, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<test>" not in page and "&lt;test&gt;" in page and "jpeglm train &lt;x&gt;" in page
    assert page.count("<table>") == 3 and "data:image/png;base64" in page


def test_verbs_refuse_in_one_line(jpeglm, tmp_path, references, models):
    for name, count in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            side = 16 if i == 0 else 24
            Image.fromarray(references.pixels[i]).resize((side, side)).save(
                tmp_path / name / f"{i}.png"
            )
    cases = {
        ("frechet", "one", "two"): "give --size to bring all to one size",
        ("frechet", "one", "one"): "one has one picture",
        ("frechet", "two", "two", "--size", 16): "recipes/data/resnet50.py",
        ("frechet", "two", "two", "--size", 16, "--extractor", "vgg"): "vgg",
        ("completion", "two", "--ratios", "0.5,2"): "--ratios",
        ("completion", "two", "--checkpoint", models / "jpeg"): "resnet50",
        ("reconstruction", "two", "--qualities", "high"): "--qualities",
        ("longtail", "two"): "--rival",
    }
    for arguments, words in cases.items():
        result = jpeglm("evaluate", *arguments, cwd=tmp_path)
        assert result.code == 1, result.err
        assert words in result.err.splitlines()[-1], result.err
    words = ("reconstruction", "two", "--checkpoint", models / "jpeg", "--qualities", "10,50")
    told = jpeglm.told("evaluate", *words, "--out", "lost", cwd=tmp_path)
    assert list(told["coders"]) == [
        str(models / "jpeg"),
        "jpeg quality 10",
        "jpeg quality 50",
    ]
    assert json.loads((tmp_path / "lost" / "result.json").read_text()) == told
    with Image.open(tmp_path / "lost" / "sheet.png") as sheet:
        assert sheet.height == 2 * sheet.width  # two pictures, and their three codings below
    words = ("validity", "--checkpoint", models / "pixels", "-n", 4)
    told = jpeglm.told("evaluate", *words, cwd=tmp_path)
    assert told["with_grammar"]["complete_as_sampled"] == 4


def test_every_row_of_the_likelihoods_has_its_footnote(jpeglm):
    words = ("evaluate", "likelihood", Path(__file__).parents[1] / "pictures", "--limit", 3)
    ended = jpeglm(*words)
    assert ended.code == 0, ended.err
    told = jpeglm.told(*words)
    lines = ended.out.splitlines()
    for name in told["coders"]:
        (row,) = (
            line for line in lines if line.split()[:1] == [name] and "was not run" not in line
        )
        number = row.split()[-1]
        assert f"{number} {name}: {told['notes'][name]}" in lines
    for name, why in told["unavailable"].items():
        assert f"{name} was not run: {why}" in lines and "Error" not in why
    if "jpegtran-optimize" in told["coders"]:
        assert "cost more than they save" in told["notes"]["jpegtran-optimize"]
