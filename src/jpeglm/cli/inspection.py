"""The verb that looks into a picture: inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jpeglm.cli.common import (
    CheckpointOption,
    JsonOption,
    LabelOption,
    TextOption,
    numbers,
    open_model,
    show,
)
from jpeglm.config import InputError

verbs = typer.Typer()


@verbs.command()
def inspect(
    photo: Annotated[
        Path, typer.Argument(help="A picture of any kind, or a file that the model drew.")
    ],
    checkpoint: CheckpointOption = None,
    mcu: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="Show this MCU, counted from the upper left, from 0,0."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to look around in; it needs no network.")
    ] = None,
    label: LabelOption = None,
    text: TextOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look inside a JPEG as the model reads it: pixels, blocks, waves, symbols, bits, tokens.

    Each step of the way is linked to all the others by the bits of the file. --json prints
    everything; docs/inspect.md describes its keys.

    \b
    Examples:
      jpeglm inspect photo.jpg
      jpeglm inspect photo.jpg --mcu 2,1
      jpeglm inspect samples/sample-00.jpg --html inside.html
    """
    from jpeglm.data.sources.base import FILMS
    from jpeglm.files import atomic_write, printable
    from jpeglm.generation.model import Model
    from jpeglm.inspection import page, table
    from jpeglm.inspection.trace import trace_picture

    if photo.suffix.lower() in FILMS:
        raise InputError(f"{printable(photo)} is a film; what can be looked into is a picture")
    if html:
        page.check_place(html)
    model = open_model(checkpoint, "cpu", None, None)
    if not isinstance(model, Model):
        raise InputError("a VAE writes no JPEG; give the checkpoint of a language model")
    trace = trace_picture(model, photo, label, text)
    name = printable(photo)
    lines = table.summary(trace, name)
    if mcu is not None:
        column, row = numbers(mcu, "--mcu", "2,1")
        columns, rows = (trace["picture"][key] for key in ("columns", "rows"))
        if not (0 <= column < columns and 0 <= row < rows):
            raise InputError(
                f"--mcu is {mcu}; this picture has {columns} × {rows}, so from 0,0 to "
                f"{columns - 1},{rows - 1}"
            )
        lines = table.mcu(trace, column, row)
    if html:
        atomic_write(html, page.page(trace, photo.name).encode())
        lines += ["", f"{printable(html)}: all of it, to look around in with a browser"]
    elif mcu is None:
        lines += ["", "--mcu X,Y shows one of them, --html FILE everything as a page"]
    show(trace, as_json, lines)
