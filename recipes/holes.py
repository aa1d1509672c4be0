"""How well a model fills holes: random masks over pictures that it never saw.

    python recipes/holes.py runs/holes/model data/photos64 [--count 1000] [--name photos]

Each picture of the split gets a hole: a rectangle anywhere, a side, scattered MCUs, or stripes. All
that stays must come back to the bit, and libjpeg's own tools take every file without a word. Beside
the model: what it draws from the top, seeing only what is above and left of the hole; Telea's
inpainting (OpenCV: pip install opencv-python-headless); and the mean colour of what is around. PSNR
of the pixels in the hole, Fréchet distance of the whole pictures to the true ones (ResNet-50,
recipes/data/resnet50.py), bits of what was drawn, and of the true content under the model: seeing
all that stays, and in the usual order. Leaves docs/results/holes-NAME.json and
docs/figures/holes-NAME.jpg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release.figures import FIGURES, figure
from release.run import RESULTS

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError
from jpeglm.environment import environment
from jpeglm.evaluation.features import RESNET50, ResNet50, extract
from jpeglm.evaluation.frechet import frechet_distance
from jpeglm.evaluation.inputs import held_out_streams
from jpeglm.evaluation.validity import judge
from jpeglm.files import to_json, write_json
from jpeglm.generation.given import Given
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.generation.requests import Request
from jpeglm.holes import spans
from jpeglm.progress import Reporter
from jpeglm.syntax.machine import starts_of

KINDS = ("rectangle", "side", "scattered", "stripes")
SHOWN = 4
"""Pictures of each kind in the figure."""


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


def chosen(
    model: Model, pictures: Path, count: int, skip: int = 0
) -> tuple[list[bytes], list[Any], list[np.ndarray], int]:
    """(streams, texts, holes, how many pictures there are) of `count` holes in held-out pictures
    behind the first `skip`, of the kinds in turn; too few pictures come again."""
    found = held_out_streams(pictures, model, "validation", skip + count)[skip:]
    if not found:
        raise InputError(f"{pictures} holds no more than {skip} pictures out")
    rows = [found[number % len(found)] for number in range(count)]
    rng = np.random.default_rng(0)
    holes = [
        hole_of(KINDS[number % len(KINDS)], rng, *model.codec.config.grid)
        for number in range(count)
    ]
    texts = [row.text if model.tokenizer.text else None for row in rows]
    return [row.stream for row in rows], texts, holes, len(found)


def fill(
    model: Model,
    streams: Sequence[bytes],
    holes: Sequence[np.ndarray],
    texts: Sequence[Any],
    report: Reporter,
    **sampling: Any,
) -> list[bytes]:
    """The streams with their holes filled, seeing all that stays."""
    made = [b""] * len(streams)
    drawn = model.fill_each(streams, holes, range(len(streams)), texts, **sampling)
    for done, one in enumerate(drawn):
        assert one.stream is not None
        made[one.number] = one.stream
        report(done + 1, len(streams), "filled")
    return made


def from_top(
    model: Model,
    streams: Sequence[bytes],
    holes: Sequence[np.ndarray],
    texts: Sequence[Any],
    report: Reporter,
    **sampling: Any,
) -> list[bytes]:
    """The same, seeing only what is above and left of a hole."""
    parts, made = Parts(model), []
    for number, (stream, hole) in enumerate(zip(streams, holes)):
        options = {"seed": number, "text": texts[number], **sampling}
        (other,) = model.continue_stream(stream, int(spans(hole)[0, 0]), 1, **options).streams
        made.append(parts.patched(stream, other, hole))
        report(number + 1, len(streams), "from the top")
    return made


def psnr(pictures: np.ndarray, true: np.ndarray, inside: np.ndarray) -> float:
    """dB of the pixels in the holes, each picture counting alike; uint8 and bool [N, H, W(, 3)]."""
    error = (pictures.astype(float) - true) ** 2
    each = [part[place].mean() for part, place in zip(error, inside)]
    return float(10 * np.log10(255**2 / np.mean(each)))


def hole_bits(
    model: Model, streams: Sequence[bytes], holes: Sequence[np.ndarray], texts: Sequence[Any]
) -> np.ndarray:
    """float64 [N]: bits of the content of a hole, addresses left out, seeing all that stays."""
    tokenizer, bits = model.tokenizer, np.zeros(len(streams))

    def requests() -> Iterator[Request]:
        for number, (stream, hole, text) in enumerate(zip(streams, holes, texts)):
            prompt = model.prompts.around(stream, hole, None, text)
            _, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
            yield Request(prompt, Given(inside[1:]), tag=number)

    for event in model.session.run(requests()):
        content = event.ids < tokenizer.hole
        bits[event.request.tag] = event.nats[content].sum() / np.log(2)
    return bits


def usual_bits(
    model: Model, streams: Sequence[bytes], holes: Sequence[np.ndarray], texts: Sequence[Any]
) -> np.ndarray:
    """float64 [N]: bits of the same MCUs in the usual order (a token may reach into its
    neighbour)."""
    scores = model.score_streams(streams, None, texts)
    return np.array([score.of_units[hole].sum() for score, hole in zip(scores, holes)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=Path, help="prepared data, of which validation is taken")
    parser.add_argument("--count", type=int, default=1000, help="masks")
    parser.add_argument("--name", default="photos", help="of what is written")
    parser.add_argument("--weights", type=Path, default=RESNET50, help="of ResNet-50")
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    if not isinstance(model, Model) or not isinstance(model.codec, JpegCodec):
        sys.exit(f"{arguments.checkpoint} writes no JPEG")
    codec, parts = model.codec, Parts(model)
    streams, texts, holes, found = chosen(model, arguments.pictures, arguments.count)
    drawn: dict[str, list[bytes]] = {}
    with Reporter("holes", "pictures") as report:
        given = (streams, holes, texts, report)
        drawn["model"] = fill(model, *given)
        drawn["model, from the top"] = from_top(model, *given)
        for number, (stream, hole) in enumerate(zip(streams, holes)):
            shown = np.asarray(codec.decode(stream))
            for name, picture in classic(codec, shown, hole).items():
                coded = codec.encode(Image.fromarray(picture))
                drawn.setdefault(name, []).append(parts.patched(stream, coded, hole))
            report(number + 1, len(streams), "classic ways")
        report.say("bits of what was drawn, and of the true content")
        bits, seen = (hole_bits(model, made, holes, texts) for made in (drawn["model"], streams))
        usual = usual_bits(model, streams, holes, texts)
    kept = sum(map(parts.same_outside, streams, drawn["model"], holes))
    true = np.stack([np.asarray(codec.decode(stream)) for stream in streams])
    inside = np.stack([pixels_of(codec, hole) for hole in holes])
    shown = {
        name: np.stack([np.asarray(codec.show(stream)) for stream in made])
        for name, made in drawn.items()
    }
    network = ResNet50(arguments.weights) if arguments.weights.exists() else None
    features = extract(network, true) if network else None
    table: dict[str, Any] = {}
    for name, pictures in shown.items():
        table[name] = {
            "psnr": psnr(pictures, true, inside),
            "by_kind": {
                kind: psnr(*(values[number :: len(KINDS)] for values in (pictures, true, inside)))
                for number, kind in enumerate(KINDS)
            },
        }
        if network and features is not None:
            of_these = extract(network, pictures)
            table[name]["frechet_resnet50"] = frechet_distance(of_these, features)
    mcus = sum(int(hole.sum()) for hole in holes)
    result = {
        "masks": len(holes),
        "pictures": found,
        "outside_kept_to_the_bit": kept,
        "judged": judge(codec, drawn["model"]),
        "ways": table,
        "bits_per_mcu": {
            "drawn": float(bits.sum() / mcus),
            "true, seeing all that stays": float(seen.sum() / mcus),
            "true, in the usual order": float(usual.sum() / mcus),
        },
        "command": " ".join(["python", "recipes/holes.py", *sys.argv[1:]]),
        "machine": environment("numpy", "Pillow", "torch"),
    }
    write_json(RESULTS / f"holes-{arguments.name}.json", result)
    print(to_json(result, indent=1))
    tiles: list[tuple[str, Image.Image]] = []
    for number in range(SHOWN * len(KINDS)):
        around = model.tokenizer.decode_stream(
            model.prompts.around(streams[number], holes[number], None, texts[number]).ids
        )
        tiles += [("true", Image.fromarray(true[number])), ("given", codec.show(around))]
        tiles += [(name, Image.fromarray(pictures[number])) for name, pictures in shown.items()]
    figure(tiles, 2 + len(shown), 128, FIGURES / f"holes-{arguments.name}.jpg")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
