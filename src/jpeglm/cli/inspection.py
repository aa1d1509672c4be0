"""The verb that looks into a picture or a clip: inspect."""

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
        Path,
        typer.Argument(help="A picture or film of any kind, or a file that the model drew."),
    ],
    checkpoint: CheckpointOption = None,
    mcu: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y",
            help="Show this MCU, macroblock or patch, counted from the upper left, from 0,0.",
        ),
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Of a clip: the frame to take apart, from 0; default the second."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to look around in; it needs no network.")
    ] = None,
    label: LabelOption = None,
    text: TextOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look inside a picture or clip as the model reads it, from pixels to bits and tokens.

    A JPEG: blocks, waves, symbols. A clip: motion, prediction, residual. A picture of a VQ-VAE:
    patches, vectors, codes. Each step of the way is linked to all the others. --json prints
    everything; docs/inspect.md describes its keys.

    \b
    Examples:
      jpeglm inspect photo.jpg
      jpeglm inspect photo.jpg --mcu 2,1
      jpeglm inspect samples/sample-00.jpg --html inside.html
      jpeglm inspect film.mp4 --frame 3 --mcu 1,2
      jpeglm inspect photo.jpg --checkpoint runs/vq --mcu 2,1
    """
    from jpeglm.data.films import is_film
    from jpeglm.files import atomic_write, printable
    from jpeglm.generation.model import Model
    from jpeglm.inspection import page, table
    from jpeglm.places import shipped_checkpoint

    name = printable(photo)
    film = is_film(photo, checkpoint)
    if frame is not None and not film:
        raise InputError(f"{name} is a picture; --frame is for clips")
    if html:
        page.check_place(html)
    model = open_model(
        checkpoint or (shipped_checkpoint("clips") if film else None), "cpu", None, None
    )
    if not isinstance(model, Model):
        raise InputError("a VAE writes no tokens; give the checkpoint of a language model")
    if film != (model.codec.media == "clip"):
        kinds = ("film", "pictures") if film else ("picture", "clips")
        raise InputError(f"{name} is a {kinds[0]}, but the model writes {kinds[1]}")
    if film:
        from jpeglm.inspection.clip import trace_clip

        trace = trace_clip(model, photo, frame, label, text, all_frames=bool(html))
        size = trace["clip"]
        lines, told = table.clip_summary(trace, name), table.macroblock
    else:
        from jpeglm.inspection.kinds import trace_any

        trace = trace_any(model, photo, label, text)
        size = trace["picture"]
        summary, told = {
            "jpeg": (table.summary, table.mcu),
            "codes": (table.codes_summary, table.patch),
        }[trace["kind"]]
        lines = summary(trace, name)
    if mcu is not None:
        column, row = numbers(mcu, "--mcu", "2,1")
        columns, rows = size["columns"], size["rows"]
        if not (0 <= column < columns and 0 <= row < rows):
            raise InputError(
                f"--mcu is {mcu}; here are {columns} × {rows}, so from 0,0 to "
                f"{columns - 1},{rows - 1}"
            )
        lines = told(trace, column, row)
    if html:
        atomic_write(html, page.page(trace, photo.name).encode())
        lines += ["", f"{printable(html)}: all of it, to look around in with a browser"]
    elif mcu is None:
        lines += ["", "--mcu X,Y shows one of them, --html FILE everything as a page"]
    show({key: one for key, one in trace.items() if key != "others"}, as_json, lines)
