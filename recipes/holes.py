"""How well a model fills holes: random masks over pictures that it never saw.

    python recipes/holes.py runs/holes/model data/photos64 [--count 1000] [--name photos]

Each picture of the split gets a hole: a rectangle anywhere, a side, scattered MCUs, or stripes. All
that stays must come back to the bit, and libjpeg's own tools take every file without a word. Beside
the model: what it draws from the top, seeing only what is above and left of the hole; Telea's
inpainting (OpenCV: pip install opencv-python-headless); and the mean colour of what is around. PSNR
of the pixels in the hole, Fréchet distance of the whole pictures to the true ones (ResNet-50,
recipes/data/resnet50.py; without its weights none), bits of what was drawn, and of the true content
under the model: seeing all that stays, and in the usual order. Leaves docs/results/holes-NAME.json
and docs/figures/holes-NAME.jpg.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from release.asked import jpeg_model, made_by, parser, resnet50, run
from release.figures import FIGURES, figure
from release.run import RESULTS

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError
from jpeglm.evaluation.features import extract
from jpeglm.evaluation.frechet import frechet_distance
from jpeglm.evaluation.inputs import held_out_streams
from jpeglm.evaluation.validity import judge
from jpeglm.files import to_json, write_json
from jpeglm.generation.given import Given
from jpeglm.generation.model import Model
from jpeglm.generation.requests import Request
from jpeglm.holes import spans
from jpeglm.progress import Reporter
from jpeglm.syntax.machine import starts_of

KINDS = ("rectangle", "side", "scattered", "stripes")
SHOWN = 4
"""Pictures of each kind in the figure, at most."""
Tiles = list[tuple[str, Image.Image]]


def hole_of(kind: str, rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """bool [rows * columns], neither empty nor all."""
    while True:
        hole = np.zeros((rows, columns), bool)
        if kind == "rectangle":
            height, width = rng.integers(1, rows + 1), rng.integers(1, columns + 1)
            top, left = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
            hole[top : top + height, left : left + width] = True
        elif kind == "side":
            half = np.arange(rows) < rng.integers(1, rows)
            hole[half if rng.random() < 0.5 else ~half] = True
            hole = hole.T if rows == columns and rng.random() < 0.5 else hole
        elif kind == "scattered":
            hole = rng.random((rows, columns)) < rng.uniform(0.2, 0.7)
        else:
            hole[rng.integers(2) :: 2] = True
            hole = hole.T if rows == columns and rng.random() < 0.5 else hole
        if hole.any() and not hole.all():
            return hole.reshape(-1)


class Parts:
    """Streams of a codec whose MCUs stand apart, MCU by MCU."""

    def __init__(self, model: Model) -> None:
        self.alphabet, self.units = model.tokenizer.alphabet, model.codec.units
        self.spec = self.alphabet.grammar().spec

    def split(self, stream: bytes) -> list[np.ndarray]:
        """The symbols of each MCU."""
        symbols = self.alphabet.split(stream)
        return np.split(symbols, starts_of(self.spec, symbols, self.units)[1:-1])

    def patched(self, stream: bytes, other: bytes, hole: np.ndarray) -> bytes:
        """A stream whose MCUs in the hole are another's."""
        parts = zip(self.split(stream), self.split(other), hole.tolist())
        return self.alphabet.join(np.concatenate([b if inside else a for a, b, inside in parts]))

    def same_outside(self, stream: bytes, other: bytes, hole: np.ndarray) -> bool:
        pairs = zip(self.split(stream), self.split(other), hole.tolist())
        return all(inside or np.array_equal(a, b) for a, b, inside in pairs)


def pixels_of(codec: JpegCodec, hole: np.ndarray) -> np.ndarray:
    """bool [H, W] of a hole."""
    (rows, columns), config = codec.config.grid, codec.config
    block = np.ones((config.height // rows, config.width // columns), bool)
    return np.kron(hole.reshape(rows, columns), block)


def classic(codec: JpegCodec, shown: np.ndarray, hole: np.ndarray) -> dict[str, np.ndarray]:
    """Name → what ways without a model make of a picture, coded by the same codec."""
    inside = pixels_of(codec, hole)
    flat = shown.copy()
    flat[inside] = shown[~inside].mean(0).round()
    ways = {"mean colour": flat}
    try:
        import cv2
    except ImportError:
        return ways
    mask = inside.astype(np.uint8) * 255
    return ways | {"Telea": cv2.inpaint(np.ascontiguousarray(shown), mask, 3, cv2.INPAINT_TELEA)}


class Holed(NamedTuple):
    """Held-out pictures with a hole in each; one place in every list is one picture."""

    streams: list[bytes]
    """As they are, without a hole."""
    texts: list[Any]
    """Captions; None of a model without words."""
    holes: list[np.ndarray]
    """bool [MCUs], of `KINDS` in turn."""
    found: int
    """Different pictures among them."""


def chosen(model: Model, data: Path, count: int, skip: int = 0) -> Holed:
    """`count` holes in the held-out pictures of `data` behind the first `skip`; too few pictures
    come again."""
    found = held_out_streams(data, model, "validation", skip + count)[skip:]
    if not found:
        raise InputError(f"{data} holds no more than {skip} pictures out")
    rows = [found[number % len(found)] for number in range(count)]
    rng = np.random.default_rng(0)
    holes = [
        hole_of(KINDS[number % len(KINDS)], rng, *model.codec.config.grid)
        for number in range(count)
    ]
    texts = [row.text if model.tokenizer.text else None for row in rows]
    return Holed([row.stream for row in rows], texts, holes, len(found))


def fill(model: Model, holed: Holed, report: Reporter, **sampling: Any) -> list[bytes]:
    """The streams with their holes filled, seeing all that stays."""
    streams, texts, holes, _ = holed
    made = [b""] * len(streams)
    drawn = model.fill_each(streams, holes, range(len(streams)), texts, **sampling)
    for done, one in enumerate(drawn):
        assert one.stream is not None
        made[one.number] = one.stream
        report(done + 1, len(streams), "filled")
    return made


def from_top(model: Model, holed: Holed, report: Reporter, **sampling: Any) -> list[bytes]:
    """The same, seeing only what is above and left of a hole."""
    parts, made = Parts(model), []
    for number, (stream, text, hole) in enumerate(zip(*holed[:3])):
        options = {"seed": number, "text": text, **sampling}
        (other,) = model.continue_stream(stream, int(spans(hole)[0, 0]), 1, **options).streams
        made.append(parts.patched(stream, other, hole))
        report(number + 1, len(holed.streams), "from the top")
    return made


def by_classic(model: Model, holed: Holed, report: Reporter) -> dict[str, list[bytes]]:
    """Name → the same by each of the `classic` ways."""
    parts, made = Parts(model), defaultdict(list)
    for number, (stream, hole) in enumerate(zip(holed.streams, holed.holes)):
        shown = np.asarray(model.codec.decode(stream))
        for name, picture in classic(model.codec, shown, hole).items():
            coded = model.codec.encode(Image.fromarray(picture))
            made[name].append(parts.patched(stream, coded, hole))
        report(number + 1, len(holed.streams), "classic ways")
    return dict(made)


def true_and_inside(codec: JpegCodec, holed: Holed) -> tuple[np.ndarray, np.ndarray]:
    """(true pictures, uint8 [N, H, W(, 3)]; the pixels of their holes, bool [N, H, W])"""
    true = np.stack([np.asarray(codec.decode(stream)) for stream in holed.streams])
    return true, np.stack([pixels_of(codec, hole) for hole in holed.holes])


def frechet(true: np.ndarray, weights: Path) -> Callable[[np.ndarray], dict[str, float]]:
    """What is told of how far pictures are from the true ones under ResNet-50: nothing without its
    weights, nor of one picture alone."""
    network = resnet50(weights)
    if network is None or len(true) < 2:
        return lambda pictures: {}
    features = extract(network, true)
    return lambda pictures: {
        "frechet_resnet50": frechet_distance(extract(network, pictures), features)
    }


def psnr(pictures: np.ndarray, true: np.ndarray, inside: np.ndarray) -> float:
    """dB of the pixels in the holes, each picture counting alike; uint8 and bool [N, H, W(, 3)]."""
    error = (pictures.astype(float) - true) ** 2
    each = [part[place].mean() for part, place in zip(error, inside)]
    return float(10 * np.log10(255**2 / np.mean(each)))


def judged(codec: JpegCodec, streams: list[bytes]) -> dict[str, Any]:
    """What libjpeg's tools say of the streams, where they are installed."""
    if shutil.which("djpeg") and shutil.which("jpegtran"):
        return judge(codec, streams)
    return {"unavailable": "djpeg and jpegtran are not installed (Debian: libjpeg-turbo-progs)"}


def hole_bits(model: Model, holed: Holed) -> np.ndarray:
    """float64 [N]: bits of the content of a hole, addresses left out, seeing all that stays."""
    tokenizer, bits = model.tokenizer, np.zeros(len(holed.streams))

    def requests() -> Iterator[Request]:
        for number, (stream, text, hole) in enumerate(zip(*holed[:3])):
            prompt = model.prompts.around(stream, hole, None, text)
            _, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
            yield Request(prompt, Given(inside[1:]), tag=number)

    for event in model.session.run(requests()):
        content = event.ids < tokenizer.hole
        bits[event.request.tag] = event.nats[content].sum() / np.log(2)
    return bits


def usual_bits(model: Model, holed: Holed) -> np.ndarray:
    """float64 [N]: bits of the same MCUs in the usual order (a token may reach into its
    neighbour)."""
    scores = model.score_streams(holed.streams, None, holed.texts)
    return np.array([score.of_units[hole].sum() for score, hole in zip(scores, holed.holes)])


def sheet(model: Model, holed: Holed, true: np.ndarray, shown: dict[str, np.ndarray]) -> Tiles:
    """A row for each of the first pictures: true, given, and as each way drew it."""
    tiles: Tiles = []
    for number, (stream, text, hole) in enumerate(list(zip(*holed[:3]))[: SHOWN * len(KINDS)]):
        ids = model.prompts.around(stream, hole, None, text).ids
        given = model.codec.show(model.tokenizer.decode_stream(ids))
        tiles += [("true", Image.fromarray(true[number])), ("given", given)]
        tiles += [(name, Image.fromarray(pictures[number])) for name, pictures in shown.items()]
    return tiles


def main() -> None:
    asked = parser(__doc__, "photos", "--count", 1000, "masks").parse_args()
    model = jpeg_model(asked.checkpoint)
    codec, parts = model.codec, Parts(model)
    holed = chosen(model, asked.data, asked.count)
    with Reporter("holes", "pictures") as report:
        drawn = {
            "model": fill(model, holed, report),
            "model, from the top": from_top(model, holed, report),
            **by_classic(model, holed, report),
        }
        report.say("bits of what was drawn, and of the true content")
        bits = hole_bits(model, holed._replace(streams=drawn["model"]))
        seen, usual = hole_bits(model, holed), usual_bits(model, holed)
    kept = sum(map(parts.same_outside, holed.streams, drawn["model"], holed.holes))
    true, inside = true_and_inside(codec, holed)
    distance = frechet(true, asked.weights)
    shown = {
        name: np.stack([np.asarray(codec.show(stream)) for stream in made])
        for name, made in drawn.items()
    }
    table: dict[str, Any] = {}
    for name, pictures in shown.items():
        table[name] = {
            "psnr": psnr(pictures, true, inside),
            "by_kind": {
                kind: psnr(*(values[number :: len(KINDS)] for values in (pictures, true, inside)))
                for number, kind in enumerate(KINDS[: len(true)])
            },
            **distance(pictures),
        }
    mcus = sum(int(hole.sum()) for hole in holed.holes)
    result = {
        "masks": len(holed.holes),
        "pictures": holed.found,
        "outside_kept_to_the_bit": kept,
        "judged": judged(codec, drawn["model"]),
        "ways": table,
        "bits_per_mcu": {
            "drawn": float(bits.sum() / mcus),
            "true, seeing all that stays": float(seen.sum() / mcus),
            "true, in the usual order": float(usual.sum() / mcus),
        },
        **made_by("holes.py"),
    }
    write_json(RESULTS / f"holes-{asked.name}.json", result)
    print(to_json(result, indent=1))
    tiles = sheet(model, holed, true, shown)
    figure(tiles, 2 + len(shown), 128, FIGURES / f"holes-{asked.name}.jpg")


if __name__ == "__main__":
    run(main)
