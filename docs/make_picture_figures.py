"""Figures of whole pictures in docs/how-it-works.md and docs/rivals.md, from files that are here.

    python docs/make_picture_figures.py [--photo FILE]

Every picture shown is decoded from a real JPEG that this script makes of the photo (its bytes are
what the captions count), but those of vector quantisation, whose codebooks are learnt on the spot.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.cluster.vq import kmeans2, vq

import jpeglm
from jpeglm.codecs.images import fit_image, open_image
from jpeglm.inspection.pixels import planes
from jpeglm.syntax.jpeg import AC_FIRST, AMPLITUDE_FIRST
from jpeglm.syntax.jpeg_tables import AC_RUN_SIZES, DC_SIZES

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "figures"
INK = "#3a3a3a"


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(OUT / name, dpi=100, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    print(f"docs/figures/{name}: {(OUT / name).stat().st_size // 1024} KB")


def row(pictures: Sequence[tuple[np.ndarray | Image.Image, str]], width: float = 9.5) -> plt.Figure:
    """Pictures side by side, captions above."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(width, width / len(pictures) + 0.35))
    for axis, (picture, title) in zip(axes, pictures):
        grey = isinstance(picture, np.ndarray) and picture.ndim == 2
        axis.imshow(picture, interpolation="nearest", **({"cmap": "gray", "vmin": 0, "vmax": 255}
                                                         if grey else {}))  # fmt: skip
        axis.set_title(title, fontsize=9, color=INK)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    return figure


def cut_blocks(symbols: np.ndarray, most: int) -> np.ndarray:
    """The symbols of a stream of `jpeg-symbols`, of each block the first `most` coefficients."""
    out: list[int] = []
    k, keep = 0, True
    for symbol in symbols.tolist():
        if symbol < DC_SIZES:
            k, keep = 1, True
        elif symbol < AMPLITUDE_FIRST:
            value = int(AC_RUN_SIZES[symbol - AC_FIRST])
            k += 16 if value == 0xF0 else (value >> 4) + 1 if value else 0
            if keep and value and k > most:
                keep = False
                while out[-1] == AC_FIRST + 1:  # no end of block behind a run of sixteen
                    out.pop()
                out.append(AC_FIRST)
        if keep:
            out.append(symbol)
    return np.array(out, np.int32)


def coefficients(codec: jpeglm.JpegCodec, stream: bytes) -> None:
    alphabet = codec.alphabet("jpeg-symbols")
    symbols = alphabet.split(stream)
    shown = []
    for most in (1, 3, 6, 15, 64):
        found = alphabet.join(cut_blocks(symbols, most))
        assert codec.check(found).valid and (most < 64 or found == stream)
        words = f"{most} of 64" if most < 64 else "all"
        shown.append((codec.decode(found), f"{words}: {len(codec.scan(found))} bytes"))
    save(row(shown), "cut.png")


def damage(image: Image.Image, mcu: int = 5) -> None:
    """One bit turned over, without restart markers and with them: of the first twelve bytes of an
    MCU the one that does most harm."""
    shown: list[tuple[Image.Image, str]] = []
    for interval, words in ((0, "without restart markers"), (1, "a marker behind each MCU")):
        codec = jpeglm.JpegCodec(jpeglm.JpegConfig(restart_interval=interval))
        stream = codec.encode(image)
        whole = codec.decode(stream)
        if not interval:
            shown.append((whole, "whole"))
        before = len(codec.alphabet("bytes").prefix(stream, mcu).symbols)
        place = len(codec.header) + before + mcu * interval  # a marker has two bytes
        worst, found = 0.0, whole
        for bit in range(8, 96):
            turned = bytearray(stream)
            at = place + bit // 8
            turned[at] ^= 0x80 >> bit % 8
            if 0xFF in (stream[at - 1], stream[at], turned[at]):
                continue  # half a marker, of which decoders make what they like
            picture = codec.show(bytes(turned))
            harm = float(abs(np.asarray(picture, float) - np.asarray(whole, float)).mean())
            if harm > worst:
                worst, found = harm, picture
        shown.append((found, words))
    save(row(shown, 7.2), "damage.png")


def merges(model: jpeglm.Model, stream: bytes) -> None:
    """Tokens of the photo by the number of merges, and what some merges spell."""
    known = model.tokenizer
    counts = [0, 1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 170, 300, 500, len(known.merges)]
    alphabet = known.alphabet.name
    lengths = [
        len(jpeglm.Tokenizer(known.codec, alphabet, known.merges[:n]).encode_stream(stream))
        for n in counts
    ]
    assert lengths[-1] == len(known.encode_stream(stream))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), width_ratios=(1, 1.25))
    left.plot(counts, lengths, color="#20584f", marker="o", ms=3)
    left.set_xscale("symlog", linthresh=1)
    left.set_xticks([0, 1, 10, 100, 758], ["0", "1", "10", "100", str(counts[-1])])
    left.set_ylim(0)
    left.set_xlabel("merges", fontsize=9)
    left.set_title("tokens of the photo", fontsize=9, color=INK)
    left.spines[["top", "right"]].set_visible(False)
    right.axis("off")
    right.set_title("what a merge spells", fontsize=9, color=INK, loc="left")
    for y, n in enumerate((1, 2, 3, 10, 30, 100, 300, 700)):
        spelt = known.spelling[known.n_base + n - 1]
        text = " · ".join(map(known.alphabet.symbol_name, spelt))
        right.text(0, 1 - (y + 0.7) / 8, f"{n}", fontsize=8, family="monospace", color=INK)
        right.text(0.08, 1 - (y + 0.7) / 8, text, fontsize=8, family="monospace")
    figure.tight_layout()
    save(figure, "merges.png")


def drawing(model: jpeglm.Model) -> None:
    """A picture while it is drawn."""
    steps = {one.units: one.image for one in model.iterate(seed=6, every="unit")}
    shown = [(steps[units], f"{units} of 16 MCUs") for units in (1, 4, 8, 12, 16)]
    save(row(shown), "drawing.png")


def surprise(model: jpeglm.Model, stream: bytes) -> None:
    """Bits of each MCU of the photo, beside those of its own Huffman codes."""
    (score,) = model.score_streams([stream])
    rows, columns = model.codec.grid  # type: ignore[attr-defined]
    bits = score.of_units.reshape(rows, columns)
    figure, axes = plt.subplots(1, 2, figsize=(6, 3.1))
    axes[0].imshow(model.codec.decode(stream), interpolation="nearest")
    axes[0].set_title("the photo, as the file shows it", fontsize=9, color=INK)
    axes[1].imshow(bits, cmap="YlOrBr", vmin=0)
    for (y, x), value in np.ndenumerate(bits):
        axes[1].text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=9,
                     color="white" if value > 0.75 * bits.max() else "black")  # fmt: skip
    axes[1].set_title(f"bits of each MCU, {score.bits.sum():.0f} in all", fontsize=9, color=INK)
    for axis in axes:
        axis.axis("off")
    figure.tight_layout()
    save(figure, "surprise.png")


def quantised_vectors(image: Image.Image) -> None:
    """The photo in 4 × 4 patches, each the nearest of a codebook that k-means learnt elsewhere."""
    files = sorted((ROOT / "tests" / "pictures").glob("*.jpg"))
    train = np.concatenate([patches(fit_image(open_image(f), 128, 128, "crop")) for f in files])
    given = patches(image)
    shown: list[tuple[Image.Image | np.ndarray, str]] = [(image, "the photo")]
    for codes in (16, 64, 512):
        book, _ = kmeans2(train, codes, iter=20, minit="++", rng=0)
        index, _ = vq(given, book)
        picture = together(book[index])
        shown.append((picture, f"{codes} codes: {256 * int(np.log2(codes)) // 8} bytes"))
        if codes == 64:
            grid = (index.reshape(16, 16) * (255 / codes)).astype(np.uint8)
            ordered = book[np.argsort(book.mean(1))]
            sheet = ordered.reshape(8, 8, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(32, 32, 3)
            shown.insert(1, (sheet.round().clip(0, 255).astype(np.uint8), "a codebook of 64"))
            shown.insert(2, (grid, "16 × 16 codes of it"))
    save(row(shown), "codebook.png")


def patches(image: Image.Image) -> np.ndarray:
    """float64 [patches, 48] of 4 × 4 pixels."""
    pixels = np.asarray(image, float)
    high, wide = (side // 4 for side in pixels.shape[:2])
    return pixels.reshape(high, 4, wide, 4, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 48)


def together(found: np.ndarray) -> np.ndarray:
    """The inverse, of 64 × 64 pixels."""
    pixels = found.reshape(16, 16, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(64, 64, 3)
    return np.asarray(pixels.round().clip(0, 255), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ROOT / "src" / "jpeglm" / "assets" / "astronaut.jpg"
    parser.add_argument("--photo", type=Path, default=default)
    arguments = parser.parse_args()
    model = jpeglm.load("photos")
    codec = model.codec
    assert isinstance(codec, jpeglm.JpegCodec)
    image = fit_image(open_image(arguments.photo), 64, 64, codec.config.fit)
    stream = codec.encode(image)
    y, cb, cr = planes(image, "4:2:0")
    save(
        row([(image, "the photo, 64 × 64"), (y, "Y, brightness: 64 × 64"),
             (cb, "Cb, blue: 32 × 32"), (cr, "Cr, red: 32 × 32")], 8),
        "planes.png",
    )  # fmt: skip
    coefficients(codec, stream)
    damage(image)
    merges(model, stream)
    drawing(model)
    surprise(model, stream)
    quantised_vectors(image)


if __name__ == "__main__":
    main()
