"""The server, run by uvicorn on a free port, through OpenAI's own client and through httpx."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jpeglm as package
from jpeglm.checkpoint import write_checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.codecs.check import check_file
from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig
from jpeglm.config import InputError, JpegConfig
from jpeglm.generation.given import Given
from jpeglm.generation.requests import Request
from jpeglm.inspection.tokens import read_choices
from jpeglm.inspection.trace import trace_picture
from jpeglm.serving.batcher import Batcher, Closed, Full
from jpeglm.serving.schemas import Edit
from jpeglm.serving.service import Service
from jpeglm.serving.settings import ServeConfig
from jpeglm.syntax.scan import inspect_scan
from jpeglm.text import Text
from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import random_llama, until
from .test_inspect import write_codes_model

httpx, openai = pytest.importorskip("httpx"), pytest.importorskip("openai")
serving = pytest.importorskip("jpeglm.serving.server", exc_type=ImportError)

WORDS = ["a red wall", "a blue wall", "two walls"] * 4
CODEC = JpegCodec(JpegConfig(48, 32, quality=40, restart_interval=1))
KEY = "sk-hush"
SLOW = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6, "head_dim": 64,
        "num_attention_heads": 8}  # fmt: skip


def write_model(folder, pictures, length=1200, classes=(), **changes):
    """A model of random weights: with classes, or with words and holes."""
    streams = [CODEC.encode(picture) for picture in pictures]
    text = None if classes else Text.train(WORDS, 270)
    tokenizer = Tokenizer.train(
        streams, CODEC, vocab_size=400, n_classes=len(classes), class_names=classes, text=text
    )
    if not classes:
        tokenizer = tokenizer.with_holes()
    config, weights = random_llama(tokenizer.vocab_size, length, **changes)
    write_checkpoint(folder, weights, config, tokenizer, "")


@pytest.fixture(scope="module")
def home(tmp_path_factory, pictures):
    """`words` (words and holes), `classes`, and `slow`: words that take seconds."""
    folder = tmp_path_factory.mktemp("serve")
    write_model(folder / "words", pictures)
    write_model(folder / "classes", pictures, classes=("cat", "dog"))
    write_model(folder / "slow", pictures, **SLOW)
    return folder


class Running:
    """A server in a thread."""

    def __init__(self, config, checkpoints, origins=()):
        self.service = Service(config, [str(one) for one in checkpoints], threads=1)
        self.server = serving.Server(self.service, origins)
        self.door = serving.listen(config.host, config.port)
        self.url = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.door]})
        self.thread.start()

    def batcher(self, name):
        return self.service.models[name].batcher

    def sequences(self, name):
        return self.service.models[name].model.engine.sequences

    def client(self, **options):
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=60, **options
        )

    def ask(self, **fields):
        """A request by hand."""
        return httpx.post(f"{self.url}/v1/images/generations", json=fields, timeout=60)

    def edit(self, files, **fields):
        url = f"{self.url}/v1/images/edits"
        return httpx.post(url, files=files, data=fields, timeout=60)

    def figures(self):
        return httpx.get(f"{self.url}/metrics").text

    def stop(self):
        self.service.stop()
        self.thread.join(30)
        self.service.close()
        self.door.close()
        assert not self.thread.is_alive()


@contextmanager
def running(checkpoints, origins=(), **settings):
    one = Running(ServeConfig(port=0, **settings), checkpoints, origins)
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def server(home):
    with running([home / "words", home / "classes", "photos", "clips"], max_megabytes=2) as one:
        yield one


def decoded(one):
    return base64.b64decode(one.b64_json)


def opened(file):
    with Image.open(io.BytesIO(file)) as image:
        image.load()
        return image.format, image.size, np.asarray(image.convert("RGB"), int)


def png(image, form="PNG"):
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def sentence(answer, status, *words, param=None):
    """An error of that status in OpenAI's shape, whose one sentence says all of words."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"] and "Traceback" not in answer.text
    for word in words:
        assert word in error["message"], error
    assert error["param"] == param
    return error


# What is drawn


def test_a_seed_gives_the_models_own_bytes(server, home):
    model = package.load(home / "words")
    client = server.client()
    told = client.images.generate(
        model="words", prompt="a red wall", n=2, size="48x32",
        extra_body={"seed": 5, "temperature": 0.8, "top_p": 0.9, "guidance": 1.5},
    )  # fmt: skip
    own = model.generate(2, text="a red wall", seed=5, temperature=0.8, top_p=0.9, guidance=1.5)
    assert [decoded(one) for one in told.data] == own.files
    assert all(check_file(file, {}).valid for file in own.files)
    assert (told.size, told.output_format, told.background) == ("48x32", "jpeg", "opaque")
    assert told.usage.output_tokens == own.tokens
    assert (
        told.usage.input_tokens == own.prompt_tokens == told.usage.input_tokens_details.text_tokens
    )
    assert told.usage.total_tokens == own.tokens + own.prompt_tokens
    assert told.seed == 5 and not hasattr(told, "warning")


def test_a_seed_is_chosen_and_told(server):
    client = server.client()
    first, other = (client.images.generate(model="words", prompt="two walls") for _ in range(2))
    assert first.seed != other.seed and decoded(first.data[0]) != decoded(other.data[0])
    again = client.images.generate(
        model="words", prompt="two walls", extra_body={"seed": first.seed}
    )
    assert decoded(again.data[0]) == decoded(first.data[0])


def test_a_prompt_is_a_class_where_there_are_some(server, home):
    model = package.load(home / "classes")
    drawn = {}
    for prompt, label in (("dog", "dog"), ("1", 1), (" cat ", "cat"), ("", None)):
        told = server.client().images.generate(
            model="classes", prompt=prompt, extra_body={"seed": 1, "top_k": 20}
        )
        drawn[prompt] = decoded(told.data[0])
        assert drawn[prompt] == model.generate(label=label, seed=1, top_k=20).files[0]
    assert drawn["dog"] == drawn["1"] != drawn[" cat "]
    with pytest.raises(openai.BadRequestError, match=r"label horse is unknown.*cat"):
        server.client().images.generate(model="classes", prompt="horse")


def test_the_first_model_and_one_that_is_deaf(server):
    answer = server.ask(prompt="a heart", model="photos", seed=2, quality="high", user="me")
    told = answer.json()
    assert answer.status_code == 200 and told["size"] == "64x64"
    assert told["warning"] == (
        "ignored: quality, which mean nothing here; photos knows neither words nor classes: the "
        "prompt changes nothing"
    )
    assert server.ask(seed=3).json()["size"] == "48x32"
    assert "warning" not in server.ask(seed=3).json()


@pytest.mark.parametrize(
    ("fields", "form", "exact"),
    [
        ({"output_format": "jpeg"}, "JPEG", True),
        ({"output_format": "png"}, "PNG", True),
        ({"output_format": "webp"}, "WEBP", True),
        ({"output_format": "webp", "output_compression": 20}, "WEBP", False),
        ({"output_format": "jpeg", "output_compression": 5}, "JPEG", False),
    ],
)
def test_formats(server, home, fields, form, exact):
    answer = server.ask(prompt="a blue wall", seed=7, model="words", **fields).json()
    kind, size, pixels = opened(base64.b64decode(answer["data"][0]["b64_json"]))
    own = np.asarray(
        package.load(home / "words").generate(text="a blue wall", seed=7).images[0], int
    )
    assert (kind, size, answer["output_format"]) == (form, (48, 32), fields["output_format"])
    assert (pixels == own).all() == exact
    assert np.abs(pixels - own).mean() < 40


def test_pictures_on_the_way(server, home):
    stream = server.client().images.generate(
        model="words", prompt="a red wall", n=2, stream=True, partial_images=3,
        extra_body={"seed": 9},
    )  # fmt: skip
    own = package.load(home / "words").generate(2, text="a red wall", seed=9)
    events = list(stream)
    for tag in range(2):
        *partial, last = [event for event in events if event.index == tag]
        assert [one.type for one in partial] == ["image_generation.partial_image"] * 3
        assert [one.partial_image_index for one in partial] == [0, 1, 2]
        # A token may end several units at once.
        units = [one.units for one in partial]
        assert all(a >= b for a, b in zip(units, [2, 3, 5])) and sorted({*units}) == units
        assert last.type == "image_generation.completed" and decoded(last) == own.files[tag]
        assert last.usage.output_tokens == len(own.ids[tag])
        assert last.usage.input_tokens_details.text_tokens == own.prompt_tokens
        for event in partial:
            assert (event.size, event.quality, event.background) == ("48x32", "auto", "opaque")
            file = decoded(event)
            assert check_file(file, {}).valid
            assert begun_as(file, own.files[tag], event.units)


def begun_as(file, whole, units):
    """Whether the first MCUs of a picture are those of another."""
    (some, starts, _), (all_, ends, _) = (
        inspect_scan(CODEC.scan(CODEC.unwrap(one)), CODEC.spec) for one in (file, whole)
    )
    return some[: starts[units]].tolist() == all_[: ends[units]].tolist() and units > 0


def test_a_stream_without_pictures_on_the_way(server):
    url = f"{server.url}/v1/images/generations"
    asked = {"prompt": "two walls", "model": "words", "stream": True, "output_format": "png"}
    with httpx.stream("POST", url, json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.read().decode().splitlines()
    assert lines[0] == "event: image_generation.completed" and lines[2:] == [""]
    assert opened(base64.b64decode(json.loads(lines[1][6:])["b64_json"]))[0] == "PNG"


# Edits


@pytest.fixture(scope="module")
def photo(picture_files):
    return picture_files[3].read_bytes()


def mask_of(photo, form="PNG"):
    """A hole in the middle, as that API has it: transparent."""
    size = opened(photo)[1]
    alpha = Image.new("L", size, 255)
    alpha.paste(0, [size[0] * 3 // 8, size[1] * 3 // 8, size[0] * 5 // 8, size[1] * 5 // 8])
    mask = Image.new("RGBA", size, (9, 9, 9, 255))
    mask.putalpha(alpha)
    return png(mask, form), alpha.point(lambda value: 255 - value)


def test_an_edit_keeps_a_share(server, home, photo):
    model = package.load(home / "words")
    for extra, keep in (({}, 0.5), ({"keep": 0.25}, 0.25), ({"keep": 0}, 0)):
        told = server.client().images.edit(
            model="words", image=photo, prompt="a red wall", n=2,
            extra_body={"seed": 4, "min_p": 0.01, **extra},
        )  # fmt: skip
        own = model.complete(photo, keep, 2, text="a red wall", seed=4, min_p=0.01)
        assert [decoded(one) for one in told.data] == own.files
        assert told.usage.input_tokens == own.prompt_tokens
        text = len(model.tokenizer.head(text="a red wall"))
        assert told.usage.input_tokens_details.text_tokens == text


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_edit_draws_what_is_transparent_in_a_mask(server, home, photo, form):
    mask, white = mask_of(photo, form)
    own = package.load(home / "words").fill(photo, white, text="two walls", seed=6)
    told = server.client().images.edit(
        model="words", image=[("photo.jpg", photo)], mask=("mask", mask), prompt="two walls",
        extra_body={"seed": 6},
    )  # fmt: skip
    assert decoded(told.data[0]) == own.files[0] and 0 < own.units_kept < CODEC.units


def test_an_edit_streams(server, home, photo):
    mask, _ = mask_of(photo)
    events = list(
        server.client().images.edit(
            model="words",
            image=photo,
            mask=mask,
            prompt="",
            stream=True,
            partial_images=2,
            extra_body={"seed": 8},
        )
    )
    assert events[-1].type == "image_edit.completed" and events[-1].usage.output_tokens > 0
    assert [one.type for one in events[:-1]] == ["image_edit.partial_image"] * (len(events) - 1)
    assert all(check_file(decoded(one), {}).valid for one in events)


def bits_of(events):
    """The last event's bits of each unit, if all events before it are told as far as they go."""
    before = 0
    for event in events:
        known = [one for one in event.unit_bits if one is not None]
        assert len(event.unit_bits) == CODEC.units and event.tokens > before
        assert sum(known) <= event.bits + 0.1
        before = event.tokens
    assert sum(known) == pytest.approx(event.bits, abs=0.01)
    return np.array(event.unit_bits, float)


def test_a_stream_tells_what_every_unit_cost(server, home):
    """As the same tokens cost when they are given; the engine's sums differ a little."""
    model = package.load(home / "words")
    own = model.generate(text="a red wall", seed=9)
    events = server.client().images.generate(
        model="words", prompt="a red wall", stream=True, partial_images=6, extra_body={"seed": 9}
    )
    events = list(events)
    prompt = model.prompts.bare(None, "a red wall")
    (read,) = model.session.run([Request(prompt, Given(own.ids[0]))])
    unit = np.minimum(read.unit, CODEC.units - 1)
    expected = np.bincount(unit, read.nats / np.log(2), CODEC.units)
    np.testing.assert_allclose(bits_of(events), expected, atol=0.05)
    assert events[-1].tokens == len(own.ids[0])
    assert events[-1].bits == pytest.approx(own.bits[0], abs=0.01)


def test_a_stream_tells_nothing_of_what_was_given(server, photo):
    mask, white = mask_of(photo)
    hole = CODEC.covered(white)
    files = {"image": photo, "mask": ("mask.png", mask)}
    for extra, given in ((files, ~hole), ({"image": photo}, np.arange(CODEC.units) < 3)):
        stream = server.client().images.edit(
            model="words", prompt="", stream=True, partial_images=6, extra_body={"seed": 2}, **extra
        )
        found = bits_of(list(stream))
        assert (np.isnan(found) == given).all() and (found[~given] >= 0).all()


def test_what_a_picture_costs(server, home, photo):
    model = package.load(home / "words")
    stream = CODEC.encode(photo)
    url = f"{server.url}/v1/images/scores"
    told = httpx.post(url, files={"image": photo}, data={"prompt": "two walls"}, timeout=60).json()
    (own,) = model.score_streams([stream], texts=["two walls"])
    assert base64.b64decode(told["b64_json"]) == CODEC.wrap(stream)
    assert told["bits"] == pytest.approx(own.bits.sum(), abs=0.01)
    np.testing.assert_allclose(told["unit_bits"], own.of_units, atol=0.01)
    assert told["tokens"] == len(own.ids) and told["size"] == "48x32" and "warning" not in told
    mask, white = mask_of(photo)
    hole = CODEC.covered(white)
    told = httpx.post(url, files={"image": photo, "mask": mask}, timeout=60).json()
    found = np.array(told["unit_bits"], float)
    assert (np.isnan(found) == ~hole).all() and np.nansum(found) == pytest.approx(told["bits"])
    assert base64.b64decode(told["b64_json"]) == CODEC.wrap(stream)
    deaf = httpx.post(url, files={"image": photo}, data={"model": "photos", "prompt": "x"})
    assert "knows neither words" in deaf.json()["warning"]
    sentence(httpx.post(url, data={"prompt": "a"}, files={"mask": mask}), 400, "image is missing",
             param="image")  # fmt: skip
    sentence(httpx.post(url, files={"image": b"no"}), 400, "no known format", param="image")
    sentence(httpx.post(url, files={"image": photo}, data={"n": "2"}), 400, "no setting 'n'")
    sentence(httpx.post(url, json={}), 415, "multipart/form-data")


def test_one_goes_on_from_what_was_drawn_and_loses_nothing(server, home):
    model = package.load(home / "words")
    drawn = model.generate(text="a red wall", seed=5)
    told = server.client().images.edit(
        model="words", image=drawn.files[0], prompt="", extra_body={"seed": 4, "keep": 0.5}
    )
    own = model.continue_stream(drawn.streams[0], 3, text="", seed=4)
    assert decoded(told.data[0]) == own.files[0]
    assert begun_as(own.files[0], drawn.files[0], 3)
    torn = drawn.files[0][:-9] + drawn.files[0][-2:]
    sentence(server.edit({"image": torn}, model="classes", keep="2"), 400, param="keep")


# What is refused


@pytest.mark.parametrize(
    ("fields", "words", "param"),
    [
        ({"n": 0}, "n is 0; it must be at least 1", "n"),
        ({"n": 11}, "n is 11; it must be from 1 to 10", "n"),
        ({"n": "two"}, "n is 'two'; it must be int", "n"),
        ({"n": True}, "n is True", "n"),
        ({"size": "64x64"}, "words draws 48x32", "size"),
        ({"response_format": "url"}, "b64_json alone", "response_format"),
        ({"output_format": "gif"}, "jpeg, png, webp", "output_format"),
        (
            {"output_format": "png", "output_compression": 50},
            "for jpeg and webp",
            "output_compression",
        ),
        ({"output_compression": 101}, "from 0 to 100", "output_compression"),
        ({"partial_images": 2}, "in a stream", "partial_images"),
        ({"partial_images": 7, "stream": True}, "from 0 to 6", "partial_images"),
        ({"temperature": -1}, "at least 0", "temperature"),
        ({"temperature": "hot"}, "it must be float", "temperature"),
        ({"top_p": 0}, "above 0", "top_p"),
        ({"seed": -1}, "at least 0", "seed"),
        ({"seed": 2**63}, "it must be finite and below", "seed"),
        ({"temprature": 1}, "no setting 'temprature'", None),
        ({"keep": 0.5}, "no setting 'keep'", None),
        ({"grammar": False}, "no setting 'grammar'", None),
        ({"prompt": ["a"]}, "prompt is ['a']", "prompt"),
        ({"prompt": "x" * 32_001}, "32001 characters", "prompt"),
        ({"prompt": "long " * 2000}, "shorten it", None),
        ({"prompt": None, "guidance": 2}, "guidance needs", "guidance"),
        ({"model": "clips"}, "clips writes clips", None),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_fields_that_cannot_be(server, fields, words, param):
    asked = {"prompt": "a", "model": "words"} | fields
    sentence(server.ask(**asked), 400, words, param=param)
    if "partial_images" not in fields:
        sentence(server.ask(**asked, stream=True), 400, words, param=param)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"n":1,"n":2}', b"[" * 100_000, b'{"prompt":"\\ud800"}'],
)
def test_bodies_that_are_no_request(server, body):
    answer = httpx.post(
        f"{server.url}/v1/images/generations",
        content=body,
        headers={"Content-Type": "application/json"},
    )
    sentence(answer, 400, "the request")


def test_other_kinds_of_bodies(server, photo):
    url = f"{server.url}/v1/images"
    sentence(httpx.post(f"{url}/generations", data={"prompt": "a"}), 415, "application/json")
    sentence(httpx.post(f"{url}/edits", json={"prompt": "a"}), 415, "multipart/form-data")
    sentence(server.edit({"picture": photo}, prompt="a"), 400, "picture is a file")
    sentence(
        server.edit({"image": photo}, hue="1"), 400, "this request has no setting 'hue'; it knows"
    )
    traces = f"{server.url}/v1/images/traces"
    answer = httpx.post(traces, files={"image": photo}, data={"zzz": "1"})
    sentence(answer, 400, "this request has no setting 'zzz'; it knows model, prompt")
    sentence(server.edit({"mask": photo}, prompt="a"), 400, "image is missing", param="image")
    sentence(server.edit([("image[]", photo)] * 2), 400, "2 times", param="image")
    sentence(server.edit([("image[]", photo)] * 3), 400, "Too many files")
    form = {"Content-Type": "multipart/form-data"}
    sentence(httpx.post(f"{url}/edits", content=b"--", headers=form), 400)
    sentence(server.edit({"image": photo}, n="many"), 400, "n is 'many'", param="n")
    sentence(server.edit({"image": photo}, stream="maybe"), 400, "stream is", param="stream")
    sentence(server.edit({"image": photo}, keep="nan"), 400, "keep is nan", param="keep")
    sentence(server.edit({"image": photo}, keep="1.5"), 400, "from 0 to 1", param="keep")
    sentence(httpx.get(f"{server.url}/v1/nothing"), 404)
    sentence(httpx.get(f"{url}/edits"), 405)


def test_nothing_of_a_form_is_passed_over(server, photo):
    """Neither a field that comes twice nor a part that does not end; and a kind is the same in
    large letters."""

    def part(name, content, more=b""):
        return b'--X\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
            name, more, content,
        )  # fmt: skip

    def send(*parts, end=b"--X--\r\n", kind="multipart/form-data"):
        headers = {"Content-Type": f"{kind}; boundary=X"}
        content = b"".join(parts) + end
        return httpx.post(f"{server.url}/v1/images/edits", content=content, headers=headers)

    file, seed = b'; filename="a"', part(b"seed", b"1")
    image, mask = part(b"image", photo, file), mask_of(photo)[0]
    assert send(image, seed, kind="Multipart/Form-Data").status_code == 200
    sentence(send(image, seed, seed), 400, "seed' was sent more than once")
    cut = part(b"mask", mask, file)[:-20]
    sentence(send(image, seed, cut, end=b""), 400, "ends before its last boundary")
    masked = [
        send(image, seed, part(name, mask, file)).json()["data"] for name in (b"mask", b"mask[]")
    ]
    assert masked[0] == masked[1] != send(image, seed).json()["data"]
    body, headers = {"seed": 1}, {"Content-Type": "Application/JSON"}
    url = f"{server.url}/v1/images/generations"
    assert httpx.post(url, content=json.dumps(body), headers=headers).status_code == 200


def uploads(photo):
    """name → (a hostile picture, its status, words of the sentence)"""
    wide = png(Image.new("L", (10_000, 3_000)))
    header = bytearray(png(Image.new("RGB", (8, 8))))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    return {
        "empty": (b"", 400, "is empty"),
        "text": (b"no picture", 400, "no known format"),
        "half": (photo[: len(photo) // 2], 400, "is it whole"),
        "svg": (svg, 400, "no known format"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "EPS"),
        "bomb": (bytes(header), 413, "pixels"),
        "wide": (wide, 413, "10000 × 3000 pixels"),
        "large": (photo + bytes(3_000_000), 413, "2 MB"),
    }


@pytest.mark.parametrize(
    "name", ["empty", "text", "half", "svg", "postscript", "bomb", "wide", "large"]
)
def test_hostile_uploads(server, photo, name):
    data, status, words = uploads(photo)[name]
    small = name != "large"
    param = "image" if small else None
    answer = server.edit(
        {"image": ("../../etc/passwd\0.jpg", data, "image/svg+xml")}, model="words"
    )
    sentence(answer, status, words, param=param)
    if small:
        answer = server.edit({"image": photo, "mask": data}, model="words")
        sentence(answer, status, words, param="mask")
    assert server.ask(prompt="a", model="words").status_code == 200


CASES = Path(__file__).parents[3] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not here")
def test_cases_of_the_outside_world(server):
    """Whatever they hold: a picture or a sentence, and a server that goes on."""
    found = {}
    for file in sorted(CASES.iterdir()):
        if file.stat().st_size < 2_000_000 and file.is_file():
            answer = server.edit({"image": (file.name, file.read_bytes())}, model="words")
            found[file.name] = answer.status_code
            if answer.status_code != 200:
                sentence(answer, answer.status_code, param="image")
    assert set(found.values()) == {200, 400, 413}, found
    assert found["float_nan.tif"] == found["icc_a98.png"] == 200


def test_masks_that_cannot_be(server, photo):
    size = opened(photo)[1]
    mask, _ = mask_of(photo)
    clear, small = Image.new("RGBA", size), Image.new("RGBA", (9, 9))
    solid = Image.new("RGBA", size, (0, 0, 0, 255))
    for kind, words, param in (
        (png(Image.new("RGB", size)), "has no transparency", "mask"),
        (png(small), "mask has 9 × 9 pixels", "mask"),
        (png(clear), "nothing would be kept", None),
        (png(solid), "nothing to draw", None),
    ):
        sentence(server.edit({"image": photo, "mask": kind}), 400, words, param=param)
    both = server.edit({"image": photo, "mask": mask}, keep="0.5")
    sentence(both, 400, "give one of them", param="keep")
    deaf = server.edit({"image": photo, "mask": mask}, model="classes")
    sentence(deaf, 400, "has not learnt to fill holes")


def test_models(server):
    listed = server.client().models.list().data
    assert [one.id for one in listed] == ["words", "classes", "photos", "clips"]
    words, classes, photos, clips = (one.model_dump() for one in listed)
    assert (words["words"], words["holes"], words["size"]) == (True, True, "48x32")
    assert (classes["classes"], classes["holes"]) == (["cat", "dog"], False)
    assert (photos["words"], photos["units"], clips["media"]) == (False, 16, "clip")
    assert (words["grid"], photos["grid"], clips["grid"]) == ("3x2", "4x4", None)
    assert set(words["sampling"]) == {"temperature", "top_k", "top_p", "min_p", "guidance"}
    own = {"temperature": 0.9, "top_k": 0, "top_p": 0.95, "min_p": 0.0}
    assert photos["sampling"] == own
    assert photos["sampling_of_edits"] == own | {"temperature": 0.7}
    assert server.client().models.retrieve("classes").id == "classes"
    with pytest.raises(openai.NotFoundError, match=r"there is no model 'dall-e-3'.*words, classes"):
        server.client().images.generate(model="dall-e-3", prompt="a")
    error = sentence(httpx.get(f"{server.url}/v1/models/x"), 404, param="model")
    assert error["code"] == "model_not_found"


def test_health_and_metrics(server):
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    before, tokens = server.figures(), server.batcher("classes").session.tokens
    drawn = server.ask(prompt="cat", model="classes", n=2).json()
    after = server.figures()

    def figure(text, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    for name, more in (
        ('jpeglm_pictures_total{model="classes"}', 2),
        ('jpeglm_tokens_total{model="classes"}', drawn["usage"]["output_tokens"]),
        ('jpeglm_requests_total{path="/v1/images/generations",status="200"}', 1),
        ("jpeglm_request_seconds_count", 1),
    ):
        assert figure(after, name) - figure(before, name) == more, name
    assert figure(after, 'jpeglm_open{model="classes"}') == 0 and tokens > 0
    httpx.post(f"{server.url}/v1/images/traces")
    assert 'path="/v1/images/traces",status="415"' in server.figures()
    httpx.get(f"{server.url}/{'x' * 40}")
    assert "xxx" not in server.figures() and 'path="other",status="404"' in server.figures()


def test_an_answer_waits_for_no_acknowledgement(server):
    with httpx.Client() as client:
        took = []
        for _ in range(9):
            begun = time.monotonic()
            assert client.get(f"{server.url}/health").status_code == 200
            took.append(time.monotonic() - begun)
    assert sorted(took)[4] < 0.03


def test_pages_of_other_sites(home):
    site = "https://studio.example"
    with running([home / "classes"], [site]) as server:
        url = f"{server.url}/v1/models"
        own = httpx.get(url, headers={"Origin": server.url})
        asked = httpx.get(url, headers={"Origin": site})
        assert own.status_code == asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == site
        flight = {"Origin": site, "Access-Control-Request-Method": "POST"}
        assert httpx.options(url, headers=flight).status_code == 200
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"},
                        {"Host": "evil.example"}):  # fmt: skip
            sentence(httpx.get(url, headers=headers), 403)


# Who may ask, and how much


def test_bodies_are_counted_while_they_come(server, photo):
    """Without a length in the header, and to the end, so that the answer is read."""

    def parts():
        for _ in range(40):
            yield bytes(100_000)

    url, kind = f"{server.url}/v1/images", {"Content-Type": "application/json"}
    answer = httpx.post(f"{url}/generations", content=parts(), headers=kind)
    sentence(answer, 413, "2 MB")
    host, port = server.url[7:].split(":")
    with socket.create_connection((host, int(port)), 10) as client:  # which sends, then listens
        client.sendall(
            f"POST /v1/images/edits HTTP/1.1\r\nHost: {host}\r\nContent-Length: 8000000\r\n\r\n"
            .encode() + bytes(8_000_000)
        )  # fmt: skip
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_slow_and_half_closed_clients(server, monkeypatch):
    monkeypatch.setattr("jpeglm.serving.gate.SLOWEST", 0.3)
    host, port = server.url[7:].split(":")
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}\r\nContent-Length: 30\r\n"
        "Content-Type: application/json\r\n\r\n"
    )
    for body, closed, status in (("{", False, b"408"), ("{", True, b""), ("", True, b"")):
        with socket.create_connection((host, int(port)), 10) as client:
            client.sendall((head + body).encode())
            if closed:
                client.shutdown(socket.SHUT_WR)
            assert status in client.recv(100)
    until(lambda: server.service.running == 0)
    assert server.ask(prompt="cat", model="classes").status_code == 200


def test_clients_that_take_nothing_are_left(home, monkeypatch):
    """Of an answer larger than all buffers: the request ends, and so does the connection. Who takes
    it slowly gets all of it."""
    monkeypatch.setattr(serving, "UNREAD", 1.0)
    with running([home / "words"], rows=64, max_n=64) as one:
        fields = {"n": 64, "seed": 1, "stream": True, "partial_images": 6, "output_format": "png"}
        body = json.dumps(fields).encode()
        head = (
            f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            f"{len(body)}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        )
        clients = []
        one.door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # and what it accepts
        for _ in range(2):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(one.door.getsockname())
            client.settimeout(30)
            client.sendall(head.encode() + body)
            clients.append(client)
        taken, (slow, stuck) = bytearray(), clients
        with slow, stuck:
            while part := slow.recv(20_000):
                taken += part
                time.sleep(0.02)
            assert taken.count(b"event: image_generation.completed") == 64
            assert taken.endswith(b"0\r\n\r\n") and len(taken) > 500_000
            until(lambda: one.service.running == 0)
            until(lambda: not one.server.server_state.connections)
            left = bytearray()
            with suppress(ConnectionResetError):
                while part := stuck.recv(65536):
                    left += part
            assert len(left) < len(taken) / 2


def test_connections_that_ask_for_nothing_are_closed(home, monkeypatch):
    """None at all, half a head, and half a head behind a whole request; those at work are not."""
    monkeypatch.setattr(serving, "HEAD", 1.0)
    monkeypatch.setattr(serving, "IDLE", 20)
    with running([home / "slow"]) as one:
        address = one.door.getsockname()

        def connect(data=b""):
            client = socket.create_connection(address)
            client.settimeout(20)
            client.sendall(data)
            return client

        def ended(client):
            with client, suppress(ConnectionResetError):  # what it had sent was not all read
                while client.recv(65536):
                    pass
            return True

        half = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
        many = [connect(half[: 7 * (i % 7)]) for i in range(60)]
        with ThreadPoolExecutor() as others:
            drawing = others.submit(one.ask, prompt="a", model="slow", temperature=0.1)
            until(lambda: one.batcher("slow").open == 1)
            assert httpx.get(f"{one.url}/health").status_code == 200
            until(lambda: len(one.server._idle) <= 20)
            begun = time.monotonic()
            assert ended(connect(half + b"y\r\n\r\n" + half))
            assert all(map(ended, many)) and time.monotonic() - begun < 10
            assert drawing.result().status_code == 200


def test_a_key(home):
    with running([home / "classes"], api_key=KEY) as server:
        url = f"{server.url}/v1/models"
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {KEY}"},
                        {"Authorization": f"Bearer {KEY}x"}):  # fmt: skip
            error = sentence(httpx.get(url, headers=headers), 401, "key")
            assert error["code"] == "invalid_api_key"
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.client().models.list().data[0].id == "classes"
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.images.generate(model="classes", prompt="cat")


def test_a_batcher_is_full_when_it_is(home):
    model = package.load(home / "slow")
    batcher = Batcher(model, rows=1, queue=2)
    try:
        prompt = model.prompts.bare(None, None)
        requests = [Request(prompt, model.sampling(prompt), seed) for seed in range(3)]
        ticket = batcher.ask(3, lambda event: None)
        assert batcher.open == 3, "before they are handed in"
        ticket.hand_in(requests)
        assert batcher.open == 3
        with pytest.raises(Full) as full:
            batcher.ask(1, lambda event: None)
        assert 1 <= full.value.seconds <= 60
        ticket.close()
        ticket.close()
        assert batcher.open == 0
        until(lambda: not model.session.busy)
        late = batcher.ask(3, lambda event: None)
        late.close()
        late.hand_in(requests)
        assert batcher.open == 0 and not model.session.busy
        assert model.engine.sequences == 0
    finally:
        batcher.close()


def test_a_trace_is_that_of_inspect(server, home, photo):
    url = f"{server.url}/v1/images/traces"
    told = httpx.post(url, files={"image": photo}, data={"prompt": "two walls"}, timeout=60).json()
    own = trace_picture(package.load(home / "words"), photo, text="two walls")
    assert told == json.loads(json.dumps(own))
    drawn = package.load(home / "classes").generate(label="cat", seed=3).files[0]
    told = httpx.post(url, files={"image": drawn}, data={"model": "classes", "prompt": "cat"})
    assert told.json()["picture"]["drawn"] and told.json()["model"]["label"] == "cat"
    sentence(httpx.post(url, files={"image": b"no"}), 400, "no known format", param="image")
    mask, _ = mask_of(photo)
    both = {"image": photo, "mask": mask}
    sentence(httpx.post(url, files=both), 400, "mask has no meaning", param="mask")
    answer = httpx.post(url, files={"image": photo}, data={"prompt": "x " * 10_000})
    sentence(answer, 400, "the words take 200", "the model's context of 1200; say less")
    assert server.batcher("words").open == 0


def test_a_trace_of_codes_is_that_of_inspect_too(jpeglm, photo, tmp_path):
    folder = write_codes_model(tmp_path / "codes")
    (tmp_path / "photo.jpg").write_bytes(photo)
    with running([folder, write_pixels_model(tmp_path / "pixels")]) as one:
        traces = {
            row["id"]: row["traces"] for row in httpx.get(f"{one.url}/v1/models").json()["data"]
        }
        assert traces == {"codes": True, "pixels": False}
        url = f"{one.url}/v1/images/traces"
        told = httpx.post(url, files={"image": photo}, timeout=60).json()
        assert told == jpeglm.told("inspect", tmp_path / "photo.jpg", "--checkpoint", folder)
        answer = httpx.post(url, files={"image": photo}, data={"model": "pixels"})
        sentence(answer, 400, "as pixels, which cannot be looked into", "JPEG and the codes")


def write_pixels_model(folder):
    """A model of random weights over raw pixels."""
    codec = PixelsCodec(PixelsConfig(8, 8, 16), np.arange(48, dtype=np.uint8).reshape(16, 3))
    tokenizer = Tokenizer.train([codec.encode(codec.blank())], codec, vocab_size=18)
    config, weights = random_llama(tokenizer.vocab_size, 100)
    write_checkpoint(folder, weights, config, tokenizer, "")
    return folder


def test_what_is_read_aside_stands_between_the_steps(home):
    """Neither changes what is drawn; errors and cancelling are the caller's alone."""
    model = package.load(home / "words")
    alone = model.generate(2, text="a wall", seed=1)
    batcher = Batcher(model, rows=2, queue=2)
    try:
        prompt = model.prompts.bare(None, "a wall")
        requests = [Request(prompt, model.sampling(prompt), seed=1, picture=i) for i in range(2)]
        ended = []
        ticket = batcher.ask(2, lambda event: event.ended and ended.append(event))
        steps = []

        def counted():
            for number in range(5):
                steps.append(model.session.tokens)
                yield number

        def broken():
            yield 1
            raise ValueError("no")

        def endless():
            while True:
                yield time.sleep(0.001)

        ticket.hand_in(requests)
        five, wrong, left = map(batcher.aside, (counted(), broken(), endless()))
        stream = model.codec.encode(Image.new("RGB", (48, 32), (9, 90, 200)))
        read = batcher.aside(read_choices(model, stream, None, "a wall"))
        assert five.result(60) == [0, 1, 2, 3, 4]
        assert len(set(steps)) > 1, "the session stepped between them"
        with pytest.raises(ValueError, match="no"):
            wrong.result(60)
        until(lambda: len(ended) == 2)
        assert sorted(event.bits for event in ended) == pytest.approx(sorted(alone.bits))
        score = model.score_streams([stream], texts=["a wall"]) if left.cancel() else None
        bits = [choice.bits for piece in read.result(60) for choice in piece]
        assert bits == pytest.approx(score[0].bits, abs=1e-3)
        late = batcher.aside(endless())
    finally:
        batcher.close()
    with pytest.raises(Closed):
        late.result(1)
    with pytest.raises(Closed):
        batcher.aside(endless())


def test_what_is_read_aside_ends_when_it_is_cancelled(home):
    batcher = Batcher(package.load(home / "words"), rows=1, queue=1)
    taken = []

    def steps():
        while True:
            taken.append(time.sleep(0.001))
            yield

    try:
        found = batcher.aside(steps())
        until(lambda: taken)
        assert found.cancel()
        time.sleep(0.3)  # the step that runs may end
        after = len(taken)
        time.sleep(0.3)
        assert len(taken) == after, "the rest is left"
    finally:
        batcher.close()


def test_what_is_read_aside_while_the_server_stops_is_told(home):
    """`close` comes while one step of the job runs: its owner hears of it, and does not wait."""
    batcher = Batcher(package.load(home / "words"), rows=1, queue=1)
    begun, go_on = threading.Event(), threading.Event()

    def steps():
        while True:
            begun.set()
            yield go_on.wait(60)

    found = batcher.aside(steps())
    assert begun.wait(60)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    until(lambda: batcher._closing)
    go_on.set()
    closing.join(60)
    with pytest.raises(Closed):
        found.result(5)


def hang(server, count, stream=True):
    """Open requests that will take seconds."""
    clients = []
    for seed in range(count):
        body = json.dumps(
            {"prompt": "a red wall", "model": "slow", "seed": seed, "stream": stream,
             "partial_images": 6 * stream}
        )  # fmt: skip
        host, port = server.url[7:].split(":")
        one = socket.create_connection((host, int(port)))
        one.sendall(
            f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        clients.append(one)
    return clients


@pytest.fixture(scope="module")
def slow(home):
    with running([home / "slow"], rows=2, queue=2, max_n=4) as one:
        yield one


def test_too_many_wait(slow):
    batcher = slow.batcher("slow")
    clients = hang(slow, 4)
    until(lambda: batcher.open == 4)
    answer = slow.ask(prompt="a")
    error = sentence(answer, 429, "ask again in")
    assert error["type"] == "rate_limit_error" and int(answer.headers["retry-after"]) >= 1
    with pytest.raises(openai.RateLimitError):
        slow.client().images.generate(model="slow", prompt="a")
    assert slow.sequences("slow") <= 2
    for client in clients:
        client.close()
    until(lambda: batcher.open == 0 and slow.sequences("slow") == 0)
    assert slow.ask(prompt="a", temperature=0).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_go_away_free_their_rows(slow, stream):
    batcher = slow.batcher("slow")
    begun, drawn = time.monotonic(), batcher.drawn
    for round_ in range(13):
        clients = hang(slow, 4, stream)
        until(lambda: batcher.open == 4)
        if round_ % 2:  # in the midst of drawing
            until(lambda: slow.sequences("slow") == 2)
            if stream:
                assert clients[0].recv(100).startswith(b"HTTP/1.1 200")
        for client in clients:
            client.close()
        until(lambda: batcher.open == 0)
    until(lambda: slow.sequences("slow") == 0)
    assert not batcher.session.busy and "0 rows" in repr(batcher.session)
    assert batcher.drawn - drawn < 5, "somebody drew for nobody"
    assert slow.ask(prompt="a", seed=1).status_code == 200
    until(lambda: slow.service.running == 0)  # its answer is read before it is through
    assert time.monotonic() - begun < 30


def test_a_stream_that_is_closed_by_the_client_library(slow):
    batcher = slow.batcher("slow")
    stream = slow.client().images.generate(
        model="slow", prompt="a red wall", stream=True, partial_images=6, n=2
    )
    assert next(iter(stream)).type == "image_generation.partial_image"
    stream.close()
    until(lambda: batcher.open == 0 and slow.sequences("slow") == 0, 5)


def test_what_takes_too_long_is_given_up(home):
    cold = {"temperature": 0.1}  # which draws long pictures
    with running([home / "slow"], timeout=0.05) as server:
        sentence(server.ask(prompt="a", **cold), 504, "within 0.05 s")
        stream = server.client().images.generate(
            model="slow", prompt="a", stream=True, extra_body=cold
        )
        with pytest.raises(openai.APIError, match=r"within 0\.05 s"):
            list(stream)
        until(lambda: server.sequences("slow") == 0)


def test_others_join_while_one_is_drawn(slow):
    """No waiting for a batch to end: a short one overtakes."""
    batcher = slow.batcher("slow")
    with hang(slow, 1)[0] as first:
        until(lambda: slow.sequences("slow") == 1)
        before = batcher.drawn
        assert slow.ask(prompt="two walls", seed=2).status_code == 200
        assert batcher.drawn > before
        first.recv(10)
    until(lambda: batcher.open == 0)


def test_the_engine_breaks_and_the_server_does_not(home, monkeypatch):
    with running([home / "classes"]) as server:
        session = server.batcher("classes").session
        step = session.step

        def broken():
            monkeypatch.setattr(session, "step", step)
            step()
            session._abandon()
            raise RuntimeError("no such luck")

        monkeypatch.setattr(session, "step", broken)
        answer = server.ask(prompt="cat")
        error = sentence(answer, 500, "something is wrong with the server")
        assert error["type"] == "server_error"
        assert server.ask(prompt="cat").status_code == 200


# The end


def test_a_server_that_stops_lets_running_requests_finish(home):
    server = Running(ServeConfig(port=0), [home / "slow"])
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.ask(prompt="a", seed=1)))
    thread.start()
    try:
        until(lambda: server.sequences("slow") == 1)
        server.service.stop()
        refused = server.ask(prompt="a")
        sentence(refused, 503, "stopping")
        assert httpx.get(f"{server.url}/health").status_code == 503
    finally:
        server.stop()
    thread.join()
    assert answers[0].status_code == 200


def test_or_tells_them_when_there_is_no_time(home):
    server = Running(ServeConfig(port=0, grace=0.1), [home / "slow"])
    answers = []

    def ask(**fields):
        answers.append(server.ask(prompt="a", n=4, **fields))

    threads = [threading.Thread(target=ask, kwargs={"stream": stream}) for stream in (True, False)]
    for thread in threads:
        thread.start()
    until(lambda: server.batcher("slow").open == 8)
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 5
    for thread in threads:
        thread.join()
    whole, stream = sorted(answers, key=lambda answer: answer.text.startswith("event"))
    sentence(whole, 503, "stopped before this was drawn")
    assert stream.status_code == 200 and stream.text.startswith("event: error\n")


@contextmanager
def process(*words, **environment):
    """`jpeglm serve …` as people start it, and what it says first."""
    command = [sys.executable, "-m", "jpeglm", "serve", "--port", "0", "--json", *map(str, words)]
    begun = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        yield begun, json.loads(begun.stdout.readline())
    finally:
        begun.kill()
        begun.communicate()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_under_load(home, number):
    words = ("--checkpoint", home / "slow", "--rows", 2)
    with process(*words, JPEGLM_API_KEY=KEY) as (begun, told):
        assert told["models"] == ["slow"]
        client = openai.OpenAI(base_url=f"{told['url']}/v1", api_key=KEY, max_retries=0)
        drawn = []

        def ask(seed):
            drawn.append(
                client.images.generate(
                    model="slow", prompt="a", extra_body={"seed": seed, "temperature": 0.1}
                )
            )

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        headers = {"Authorization": f"Bearer {KEY}"}
        until(
            lambda: (
                'jpeglm_open{model="slow"} 3.0'
                in httpx.get(f"{told['url']}/metrics", headers=headers).text
            )
        )
        begun.send_signal(number)
        for thread in threads:
            thread.join()
        out, err = begun.communicate(timeout=30)
        assert (begun.returncode, out, err) == (0, "", "stopped\n")
        assert len(drawn) == 3
        assert all(check_file(decoded(one.data[0]), {}).valid for one in drawn)


# The page


PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()


@pytest.fixture(scope="module")
def shipped(jpeglm):
    """All that ship, as `jpeglm serve` has them."""
    with running([]) as one:
        yield one


@pytest.mark.skipif(not shutil.which("jq") or not shutil.which("curl"), reason="no curl or jq")
def test_the_pages_curl_lines_run(shipped, tmp_path, photo):
    (tmp_path / "photo.jpg").write_bytes(photo)
    (code,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    code = code.replace("http://127.0.0.1:8000", shipped.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("photos 64x64 []\n")
    whole, first = json.loads(done.stdout.splitlines()[3])
    assert whole > first > 0
    assert done.stdout.splitlines()[-4:] == [
        *["event: image_generation.partial_image"] * 3, "event: image_generation.completed"
    ]  # fmt: skip
    model = package.load("cifar10")
    ship = (tmp_path / "ship.jpg").read_bytes()
    assert ship == model.generate(label="ship", guidance=1.5, seed=1).files[0]
    rest = sorted(tmp_path.glob("rest-*.jpg"))
    assert len(rest) == 3 and all(check_file(one.read_bytes(), {}).valid for one in rest)


def test_the_pages_python_lines_run(shipped, tmp_path, monkeypatch, photo, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(photo)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code.replace("http://127.0.0.1:8000", shipped.url), names)
    assert names["files"] == package.load("cifar10").generate(
        2, label="ship", guidance=1.5, seed=1
    ).files  # fmt: skip
    assert names["rest"].size == "64x64"
    assert capsys.readouterr().out.count("partial_image") == 3


def test_the_page_names_all_fields_and_limits():
    told = set(re.findall(r"`(?:--)?([a-z_-]+)`", PAGE))
    assert {one for one in Edit.names() if one != "response_format"} <= told
    options = {one.replace("_", "-") for one in ServeConfig.names()}
    assert options - {"port", "api-key"} <= told | set(re.findall(r"--([a-z-]+)", PAGE))


# The command line


def test_ports_models_and_settings_that_cannot_be(jpeglm, home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = jpeglm("serve", "--port", port, "--checkpoint", home / "classes")
        assert code == 1 and f"port {port} of 127.0.0.1" in err and err.count("\n") == 1
    twice = ("--checkpoint", home / "classes") * 2
    code, _, err = jpeglm("serve", "--port", 0, *twice)
    assert code == 1 and "two checkpoints are called classes" in err
    code, _, err = jpeglm("serve", "--port", 0, "--checkpoint", home / "nothing")
    assert code == 1 and "nothing" in err and err.count("\n") == 1
    code, _, err = jpeglm("serve", "--rows", 2, "--queue", 1, "--max-n", 4)
    assert code == 1 and "max_n is 4" in err
    with pytest.raises(InputError, match="ASCII"):
        ServeConfig(api_key="schlüssel")


def test_the_extra_that_is_missing_is_named(jpeglm, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, out, err = jpeglm("serve")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "needs fastapi" in err and "pip install 'jpeglm[serve]'" in err


def test_without_pyav_all_that_draws_pictures_is_served(monkeypatch):
    """The extra `serve` brings none, and clips have no place in the API."""
    monkeypatch.setitem(sys.modules, "av", None)
    service = Service(ServeConfig(), threads=1)
    try:
        assert [*service.models] == ["photos", "avatars", "cifar10"]
        assert all(served.batcher for served in service.models.values())
    finally:
        service.close()


def test_a_run_is_served_by_its_name(home, tmp_path, pictures):
    write_model(tmp_path / "mine" / "model", pictures, classes=("cat",))
    service = Service(ServeConfig(), [str(tmp_path / "mine" / "model")], threads=1)
    try:
        assert [*service.models] == ["mine"]
        with pytest.raises(InputError, match="image is missing"):
            service.prepare(Edit())
    finally:
        service.close()
