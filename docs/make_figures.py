"""Figures of docs/how-it-works.md, made from the demo photo with the library's own parts.

python docs/make_figures.py [--photo FILE] [--checkpoint DIR]

The block's coefficients are computed here by T.81's formula and compared with those that Pillow
wrote into the stream; the script stops if they differ by more than the encoder's rounding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import jpeglm
from jpeglm.codecs import JpegCodec
from jpeglm.codecs.images import fit_image, open_image
from jpeglm.generation.matcher import Matcher
from jpeglm.syntax.jpeg import AC_FIRST, AMPLITUDE_FIRST, SYMBOLS
from jpeglm.syntax.jpeg_tables import AC_RUN_SIZES, AC_TABLES, DC_SIZES, DC_TABLES, ZIGZAG

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "figures"


def dct(block: np.ndarray) -> np.ndarray:
    """Two-dimensional DCT of an 8×8 block of samples less 128 (T.81 A.3.3)."""
    x = np.arange(8)
    basis = np.cos((2 * x[None, :] + 1) * x[:, None] * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    return basis @ block @ basis.T


def quantisation_table(codec: JpegCodec) -> np.ndarray:
    """The luminance table, 8×8 row-major, out of the codec's DQT segment (T.81 B.2.4.1)."""
    start = codec.tables.index(b"\xff\xdb") + 5
    table = np.zeros(64, int)
    table[ZIGZAG] = np.frombuffer(codec.tables[start : start + 64], np.uint8)
    return table.reshape(8, 8)


def blocks_of(symbols: np.ndarray) -> list[list[int]]:
    """A stream's symbols, cut at each DC size."""
    starts = [i for i, s in enumerate(symbols) if s < DC_SIZES or s >= SYMBOLS]
    return [list(symbols[a:b]) for a, b in zip(starts, [*starts[1:], len(symbols)])]


def read_block(symbols: list[int], table: int) -> tuple[np.ndarray, list[tuple[str, str, str]]]:
    """(64 zigzag coefficients, DC as a difference; rows of (place, value, Huffman code + bits))."""
    zigzag, rows, i, k = np.zeros(64, int), [], 0, 0
    while i < len(symbols):
        symbol, run = int(symbols[i]), 0
        i += 1
        if k == 0:
            size = symbol % DC_SIZES if symbol < SYMBOLS else (symbol - SYMBOLS) % DC_SIZES
            code, length = DC_TABLES[table].code[size], DC_TABLES[table].length[size]
            name = f"DC size {size}"
        else:
            value = int(AC_RUN_SIZES[symbol - AC_FIRST])
            run, size = value >> 4, value & 15
            code, length = AC_TABLES[table].code[value], AC_TABLES[table].length[value]
            name = {0: "EOB", 0xF0: "ZRL"}.get(value, f"run {run}, size {size}")
        left, amplitude = size, 0
        while left:
            bits = min(4, left)
            amplitude = amplitude << bits | int(symbols[i]) - AMPLITUDE_FIRST - (1 << bits) + 2
            left -= bits
            i += 1
        number = amplitude if not size or amplitude >> (size - 1) else amplitude - (1 << size) + 1
        text = f"{code:0{length}b}" + (f" {amplitude:0{size}b}" if size else "")
        rows.append((name, str(number) if size or k == 0 else "", text))
        k += run
        if size or k == 0:
            zigzag[k] = number
            k += 1
        elif name == "ZRL":
            k += 1
    return zigzag, rows


def grid(axes: Axes, values: np.ndarray, title: str, colours: str = "RdBu_r") -> None:
    """An 8×8 table with its numbers."""
    limit = max(1, np.abs(values).max())
    low = 0 if values.min() >= 0 and colours == "gray" else -limit
    axes.imshow(values, cmap=colours, vmin=low, vmax=limit if low else 255)
    for y in range(8):
        for x in range(8):
            dark = colours == "gray" and values[y, x] < 120
            strong = colours != "gray" and abs(values[y, x]) > 0.6 * limit
            colour = "white" if dark or strong else "black"
            text = f"{values[y, x]:.0f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(OUT / name, dpi=110, bbox_inches="tight")
    plt.close(figure)
    print(OUT.relative_to(ROOT) / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--photo", type=Path, default=ROOT / "src" / "jpeglm" / "assets" / "astronaut.jpg"
    )
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    model = jpeglm.load(arguments.checkpoint)
    codec, tokenizer = model.codec, model.tokenizer
    assert isinstance(codec, JpegCodec)
    width, height = codec.config.width, codec.config.height
    image = fit_image(open_image(arguments.photo), width, height, codec.config.fit)
    stream = codec.encode(image)

    # One block: the first of an MCU on the boundary of face and background.
    columns = width // 16
    mcu = columns + 1
    left, top = mcu % columns * 16, mcu // columns * 16
    luma = np.asarray(image.convert("YCbCr"))[:, :, 0].astype(float)
    samples = luma[top : top + 8, left : left + 8]
    table = quantisation_table(codec)
    coefficients = dct(samples - 128)
    quantised = np.rint(coefficients / table).astype(int)
    symbols = codec.alphabet("jpeg-symbols").split(stream)
    block = blocks_of(symbols)[6 * mcu]
    zigzag, rows = read_block(block, 0)
    expected = quantised.reshape(64)[ZIGZAG]
    if codec.config.restart_interval == 1:  # the difference is then the value itself
        assert abs(int(zigzag[0]) - int(expected[0])) <= 1
    assert np.abs(zigzag[1:] - expected[1:]).max() <= 1, "the stream holds other coefficients"

    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.3))
    axes[0].imshow(image)
    for x in range(0, width, 16):
        axes[0].axvline(x - 0.5, color="white", lw=0.4)
        axes[0].axhline(x - 0.5, color="white", lw=0.4)
    axes[0].add_patch(Rectangle((left - 0.5, top - 0.5), 8, 8, fill=False, ec="yellow", lw=1.8))
    axes[0].set_title(f"{width} × {height} pixels, MCUs of 16 × 16", fontsize=9)
    axes[0].axis("off")
    grid(axes[1], samples, "luma samples of the yellow block", "gray")
    grid(axes[2], coefficients, "their DCT")
    save(figure, "block.png")

    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.3))
    grid(axes[0], table, f"quantisation table, quality {codec.config.quality}", "Greys")
    grid(axes[1], quantised, "DCT divided and rounded")
    order = np.empty((8, 8), int)
    order.reshape(64)[ZIGZAG] = np.arange(64)
    axes[2].plot(ZIGZAG % 8, ZIGZAG // 8, color="tab:orange", lw=1)
    for y in range(8):
        for x in range(8):
            axes[2].text(x, y, order[y, x], ha="center", va="center", fontsize=6.5)
    axes[2].set_xlim(-0.5, 7.5)
    axes[2].set_ylim(7.5, -0.5)
    axes[2].set_aspect("equal")
    axes[2].set_xticks([])
    axes[2].set_yticks([])
    axes[2].set_title("zigzag order", fontsize=9)
    save(figure, "quantised.png")

    named = tokenizer.alphabet.split(stream)
    ids = tokenizer.encode_stream(stream)
    spelt = np.cumsum([len(tokenizer.spelling[i]) for i in ids])
    place = sum(len(b) for b in blocks_of(symbols)[: 6 * mcu])
    first = int(np.searchsorted(spelt, place, side="right"))
    shown = rows[:14]
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 0.26 * (len(shown) + 3)))
    for panel, header, lines in (
        (axes[0], ("run/size", "amplitude", "Huffman code and bits"), shown),
        (
            axes[1],
            ("token", "", "symbols it spells"),
            [
                (str(i), "", " · ".join(tokenizer.alphabet.symbol_name(s) for s in
                                        tokenizer.spelling[i]))
                for i in ids[first : first + len(shown)]
            ],
        ),
    ):  # fmt: skip
        panel.axis("off")
        panel.set_ylim(len(shown) + 1.5, -0.5)
        panel.set_xlim(0, 1)
        for y, row in enumerate([header, *lines]):
            weight = "bold" if y == 0 else "normal"
            for x, text in zip((0.0, 0.31 if panel is axes[0] else 0.2, 0.5 if panel is axes[0]
                                else 0.2), row):  # fmt: skip
                panel.text(x, y, text, fontsize=8, family="monospace", weight=weight, va="center")
    save(figure, "symbols.png")

    prefix = tokenizer.alphabet.prefix(stream, mcu)
    prompt = np.concatenate([[tokenizer.bos], tokenizer.encode_symbols(prefix.symbols)])
    logits = model.engine.add([prompt])[0].astype(float)
    share = np.exp(logits - logits.max())
    share /= share.sum()
    matcher = Matcher(model.constraint)
    assert all(map(matcher.accept, prompt[1:].tolist()))
    legal = matcher.allowed()
    best = np.argsort(-share)[:14]
    names = [
        " · ".join(tokenizer.alphabet.symbol_name(s) for s in tokenizer.spelling[i])
        if i < tokenizer.bos
        else "EOS"
        for i in best
    ]
    figure, axis = plt.subplots(figsize=(7.5, 3.6))
    axis.barh(range(len(best)), share[best], color=["tab:blue" if legal[i] else "tab:red"
                                                    for i in best])  # fmt: skip
    axis.set_yticks(range(len(best)), names, fontsize=7, family="monospace")
    axis.invert_yaxis()
    axis.set_xlabel("probability of the next token", fontsize=8)
    axis.set_title(
        f"after {mcu} MCUs: {int(legal.sum())} of {len(legal)} tokens are legal, "
        f"{100 * share[legal].sum():.2f} % of the probability",
        fontsize=9,
    )
    save(figure, "next-token.png")
    codes = sum(length for _, _, text in rows for length in [len(text.replace(" ", ""))])
    print(
        f"block: {len(rows)} run/sizes, {codes} bits; picture: {len(stream)} bytes, "
        f"{len(named)} symbols, {len(ids)} tokens"
    )


if __name__ == "__main__":
    main()
