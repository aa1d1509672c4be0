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
    columns = picture["columns"]
    for row in range(picture["rows"]):
        cells = mcus[row * columns : (row + 1) * columns]
        left = " ".join(f"{one['scan']:4d}" for one in cells)
        right = " ".join(f"{one['model']:4.0f}" for one in cells)
        lines.append(f"  {left}    {right}")
    return lines


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
    lines += ["", f"bits {first:,} to {end:,} of the scan, in the bytes"]
    lines += _wrapped(scan[first // 8 : -(-end // 8)].hex(" ").upper().split())
    lines += ["", "tokens: bits, likelier ones of those that are legal, what the token says"]
    for token in trace["tokens"]:
        if any(run[0] < end and first < run[1] for run in token["runs"]):
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
