"""A trace in words and numbers, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WIDTH = 100
"""Columns of a line of symbols."""


def summary(trace: dict[str, Any], name: str) -> list[str]:
    """The picture as a whole: bits at each step, and those of each MCU."""
    picture, mcus = trace["picture"], trace["mcus"]
    raw = 24 * picture["width"] * picture["height"]
    scan, under = (sum(one[key] for one in mcus) for key in ("scan", "model"))
    of = "the file as it is" if picture["drawn"] else "its JPEG"
    lines = [
        f"{name}: {picture['width']} × {picture['height']} pixels, {of}: quality "
        f"{picture['quality']}, {picture['subsampling']}, {len(mcus)} MCUs",
        f"  {raw:9,} bits of pixels, 24 each",
        f"  {scan:9,} bits in the file's scan, {len(trace['parts']):,} symbols",
        f"  {under:9,.0f} bits under the model, {len(trace['tokens']):,} tokens",
        "bits of each MCU in the file, and under the model:",
    ]
    return lines + _grids(mcus, picture["columns"], {"scan": "4d", "model": "4.0f"})


def _grids(cells: list[dict[str, Any]], columns: int, forms: dict[str, str]) -> list[str]:
    """Figures of cells as they lie in the picture, a grid for each key, side by side; forms: how
    each is written."""
    rows = (cells[at : at + columns] for at in range(0, len(cells), columns))
    return [
        "  "
        + "    ".join(" ".join(f"{one[key]:{form}}" for one in row) for key, form in forms.items())
        for row in rows
    ]


def clip_summary(trace: dict[str, Any], name: str) -> list[str]:
    """A clip as a whole: bits of each frame, and of each macroblock of the one taken apart."""
    clip, frames = trace["clip"], trace["frames"]
    of = "the file as it is" if clip["drawn"] else "its H.264"
    scan, under = (sum(one[key] for one in frames) for key in ("file", "model"))
    lines = [
        f"{name}: {len(frames)} frames of {clip['width']} × {clip['height']}, {of}: quantiser "
        f"{clip['qp']}, {clip['fps']:g} frames a second",
        f"  {24 * clip['width'] * clip['height'] * len(frames):9,} bits of pixels, 24 each",
        f"  {scan:9,} bits in the file's slices",
        f"  {under:9,.0f} bits under the model, {trace['all_tokens']:,} tokens",
        "bits of each frame in the file:",
        "  " + " ".join(f"{one['slice']} {one['file']:,}" for one in frames),
        "and under the model:",
        "  " + " ".join(f"{one['slice']} {one['model']:,.0f}" for one in frames),
        f"frame {clip['frame']}: bits of each macroblock in the file, and under the model:",
    ]
    return lines + _grids(trace["macroblocks"], clip["columns"], {"file": "4d", "model": "4.0f"})


def macroblock(trace: dict[str, Any], column: int, row: int) -> list[str]:
    """One macroblock: where it comes from, prediction, residual, levels, elements, tokens."""
    number = row * trace["clip"]["columns"] + column
    one = trace["macroblocks"][number]
    coded = f", quantiser {one['qp']}" if one["blocks"] else ", no residual"
    lines = [f"frame {trace['clip']['frame']}, macroblock {column},{row}: {one['type']}{coded}"]
    for part in one["motion"]:
        x, y = part["vector"]
        lines.append(
            f"  {part['width']} × {part['height']} at {part['x']},{part['y']}: "
            f"{_way(x / 4, 'right', 'left')}, {_way(y / 4, 'down', 'up')} in the frame before"
            + f", {part['reference'] + 1} back"
            * (part["reference"] > 0)
        )
    if one["modes"]:
        lines.append(f"  modes {' '.join(map(str, one['modes']))}, chroma {one['chroma_mode']}")
    if one["blocks"]:
        lines += ["", "brightness: prediction, and what the levels add"]
        for at in range(0, 256, 16):
            told = " ".join(f"{value:3d}" for value in one["prediction"]["Y"][at : at + 16])
            added = " ".join(f"{value:4d}" for value in one["residual"]["Y"][at : at + 16])
            lines.append(f"  {told}    {added}")
        lines += ["", "levels in zigzag order"]
        for block in one["blocks"]:
            if any(block["levels"]):
                where = "" if "DC" in block["name"] else f" {block['column']},{block['row']}"
                lines.append(f"  {block['name'] + where:8}  {' '.join(map(str, block['levels']))}")
    begin, stop = one["parts"]
    parts = trace["parts"][begin:stop]
    lines += ["", "syntax elements"]
    lines += _wrapped(_said(*part[:2]) for part in parts)
    first, end = parts[0][2], parts[-1][3]
    lines += ["", f"bits {first:,} to {end - 1:,} of the frame, in the bytes"]
    data = bytes.fromhex(trace["stream"]["hex"])
    lines += _wrapped(data[first // 8 : -(-end // 8)].hex(" ").upper().split())
    own = [token for token in trace["tokens"] if number in token["macroblocks"]]
    return lines + _tokens(trace, own)


def codes_summary(trace: dict[str, Any], name: str) -> list[str]:
    """A picture of codes as a whole: bits at each step, the codes, and what each costs."""
    picture, patches, book = trace["picture"], trace["patches"], trace["codebook"]
    side = picture["patch"]
    lines = [
        f"{name}: {picture['width']} × {picture['height']} pixels, {len(patches)} patches of "
        f"{side} × {side}, each one of {book['codes']} codes",
        f"  {24 * picture['width'] * picture['height']:9,} bits of pixels, 24 each",
        f"  {len(patches) * book['bits']:9,.0f} bits as codes",
        f"  {sum(one['model'] for one in patches):9,.0f} bits under the model, "
        f"{len(trace['tokens']):,} tokens",
        "code of each patch, and its bits under the model:",
    ]
    return lines + _grids(patches, picture["columns"], {"code": "5d", "model": "4.1f"})


def patch(trace: dict[str, Any], column: int, row: int) -> list[str]:
    """One patch: the encoder's vector, the codes nearest to it, and the tokens."""
    number = row * trace["picture"]["columns"] + column
    one, codes = trace["patches"][number], trace["codes"]
    lines = [f"patch {column},{row}: code {one['code']}", "", "the encoder's vector"]
    lines += _wrapped(f"{value:.3f}" for value in one["vector"])
    lines += ["", "nearest codes: distance, vector"]
    for code, length in one["nearest"]:
        lines.append(f"  code {code}: {length:.3f}")
        lines += _wrapped(f"{value:.3f}" for value in codes[code]["vector"])
    last = number + 1 == len(trace["patches"])
    own = [
        token
        for token in trace["tokens"]
        if number in token["patches"] or (last and not token["patches"])
    ]
    return lines + _tokens(trace, own)


def _way(length: float, forth: str, back: str) -> str:
    return f"{abs(length):g} {forth if length >= 0 else back}"


def mcu(trace: dict[str, Any], column: int, row: int) -> list[str]:
    """One MCU: its blocks' samples and levels, their symbols and bits, and the tokens."""
    number = row * trace["picture"]["columns"] + column
    lines = [f"MCU {column},{row}"]
    own = [(i, one) for i, one in enumerate(trace["blocks"]) if one["mcu"] == number]
    for index, block in own:
        component = trace["components"][block["component"]]["name"]
        lines += ["", f"{component} block {block['column']},{block['row']}: samples, levels"]
        for at in range(0, 64, 8):
            samples = " ".join(f"{value:3d}" for value in block["samples"][at : at + 8])
            levels = " ".join(f"{value:4d}" for value in block["levels"][at : at + 8])
            lines.append(f"  {samples}    {levels}")
        parts = [part for part in trace["parts"] if part[4] == index]
        lines += _wrapped(_said(*part[:2]) for part in parts)
    blocks = {index for index, _ in own}
    parts = [part for part in trace["parts"] if part[4] in blocks]
    first, end = parts[0][2], parts[-1][3]
    scan = bytes.fromhex(trace["scan"]["hex"])
    lines += ["", f"bits {first:,} to {end - 1:,} of the scan, in the bytes"]
    lines += _wrapped(scan[first // 8 : -(-end // 8)].hex(" ").upper().split())
    return lines + _tokens(
        trace,
        [
            token
            for token in trace["tokens"]
            if any(run[0] < end and first < run[1] for run in token["runs"])
        ],
    )


def _tokens(trace: dict[str, Any], own: list[dict[str, Any]]) -> list[str]:
    lines = ["", "tokens: bits, likelier ones of those that are legal, what the token says"]
    for token in own:
        known = f"{token['bits']:5.1f}  {token['rank']:3d} of {token['legal']:4d}"
        lines.append(f"  {known}  {trace['names'][token['token']]}")
    return lines


def _said(name: str, bits: str) -> str:
    """A symbol and its code; an amplitude is its own."""
    return name if name.endswith(f" {bits}") else f"{name}={bits}"


def _wrapped(words: Any) -> Iterator[str]:
    line = " "
    for word in words:
        if len(line) + len(word) + 2 > WIDTH:
            yield line
            line = " "
        line += f" {word}"
    if line.strip():
        yield line
