"""Verbs that draw: generate, complete; and what they draw with: models."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm.cli.common import (
    BATCH,
    BatchOption,
    CheckpointOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    LabelOption,
    MaxTokensOption,
    PrecisionOption,
    SeedOption,
    TextOption,
    draw,
    note,
    note_first_frame,
    numbers,
    open_model,
    record_of,
    show,
)
from jpeglm.cli.options import Fields, finite, with_options
from jpeglm.config import InputError, check_fit

verbs = typer.Typer()

VerboseOption = Annotated[bool, typer.Option("--verbose", help="Also report tokens and bits.")]
MOST = 1_000_000
"""Pictures of a call, which keeps them all in memory."""
SAMPLING = Fields("config:Sampling", given=True, default="the checkpoint's")
SURPRISE = ((0.5, "much plainer than"), (0.8, "plainer than"), (1.25, "about as surprising as"),
            (2.0, "more surprising than"), (math.inf, "much more surprising than"))  # fmt: skip
"""By bits drawn for each bit of what was really there, at most."""
BOTH = ("run.json", "sheet.png")
"""What every run writes, whatever its model codes."""


@verbs.command()
@with_options(sampling=SAMPLING)
def generate(
    *,
    n: Annotated[int, typer.Option("-n", min=1, max=MOST, help="How many pictures.")] = 16,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("samples"),
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    label: LabelOption = None,
    text: TextOption = None,
    sampling: dict[str, Any],
    max_tokens: MaxTokensOption = None,
    batch: BatchOption = BATCH,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Invent pictures or clips: sample-00.jpg (or .mp4) …, sheet.png and run.json.

    Of more than 64 pictures (16 clips) the sheet has pages, sheet-1.png ….

    \b
    Examples:
      jpeglm generate -n 16 --seed 1
      jpeglm generate --checkpoint runs/train --top-p 0.9 --out drawn
      jpeglm generate --checkpoint cifar10 --label frog --guidance 2
    """
    from jpeglm.folders import PICTURES, claim
    from jpeglm.generation.outputs import Gallery
    from jpeglm.places import checkpoint_folder

    inputs = [checkpoint_folder(checkpoint)]
    claim(out, PICTURES, inputs=inputs, names=BOTH)
    model = open_model(checkpoint, engine, precision, device)
    record = record_of(checkpoint, model, engine, precision)
    with Gallery(out, model.codec, "sample", n, record, inputs) as gallery:
        pictures = draw(
            "generate",
            as_json,
            lambda progress: model.generate(
                n,
                seed=seed,
                label=label,
                text=text,
                max_tokens=max_tokens,
                batch=batch,
                progress=progress,
                each=gallery.add,
                **sampling,
            ),
        )
        result = gallery.finish(pictures)
    _show(result, as_json, "sample", verbose)


@verbs.command()
@with_options(sampling=SAMPLING)
def complete(
    *,
    photo: Annotated[
        Path,
        typer.Argument(metavar="PHOTO|CLIP", help="A picture or a film of any size and format."),
    ],
    keep: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            callback=finite,
            help="Share of the picture to keep, from the top. Default: 0.5; of a clip 2/3.",
        ),
    ] = None,
    keep_frames: Annotated[
        int | None,
        typer.Option(min=0, help="Of a clip, how many frames to keep, instead of --keep."),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            help="For a photo of another shape than the model's: crop (keep the middle), top "
            "(keep the top, as the head of a portrait) or pad (with black). Default: as the"
            " model was trained."
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="An image of the photo's size: white is redrawn, the rest is kept. Needs a "
            "checkpoint trained with --fim."
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Redraw this rectangle: left, top, width, height in the photo's pixels.",
        ),
    ] = None,
    start: Annotated[
        float,
        typer.Option(
            min=0.0, callback=finite, help="Where the clip begins in the film, in seconds."
        ),
    ] = 0.0,
    n: Annotated[int, typer.Option("-n", min=1, max=MOST, help="How many completions.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures. Default: PHOTO-completions, with a number where another "
            "photo's lie there."
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    label: LabelOption = None,
    text: TextOption = None,
    sampling: dict[str, Any],
    max_tokens: MaxTokensOption = None,
    batch: BatchOption = BATCH,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep the upper part of a photo, all but a hole in it, or a clip's first frames, and let the
    model write the rest.

    Writes original.jpg, prompt.jpg, completion-00.jpg …, sheet.png and run.json; of a clip .mp4
    files and sheet.gif.

    \b
    Examples:
      jpeglm complete photo.jpg
      jpeglm complete photo.jpg --keep 0.25 -n 8 --checkpoint runs/train
      jpeglm complete photo.jpg --mask mask.png --checkpoint runs/holes
      jpeglm complete film.mp4 --keep-frames 5
    """
    from jpeglm.codecs.clips import read_clip
    from jpeglm.codecs.images import as_mask, open_image, region_mask
    from jpeglm.data.films import is_film
    from jpeglm.evaluation.likelihood import original_bits
    from jpeglm.folders import PICTURES, claim
    from jpeglm.generation.outputs import Gallery
    from jpeglm.places import checkpoint_folder, shipped_checkpoint

    film = is_film(photo, checkpoint)
    if not film and (keep_frames is not None or start):
        raise InputError(f"{photo} is a picture; --keep-frames and --start are for clips")
    if film and (mask or region is not None or fit is not None):
        raise InputError(f"{photo} is a film; --mask, --region and --fit are for pictures")
    if fit is not None:
        check_fit(fit)
    if sum(given is not None for given in (keep, mask, region)) > 1:
        raise InputError("--keep, --mask and --region each say what stays; give one of them")
    media: Any = None if film else open_image(photo)
    if not film:
        note_first_frame(photo)
    hole: Any = None
    if mask:
        hole = as_mask(mask, media.size, str(mask))
    elif region is not None:
        hole = region_mask(numbers(region, "--region", "16,0,32,48"), media.size)
    folder = checkpoint or shipped_checkpoint("clips" if film else "photos")
    out = out or _free_folder(photo)
    inputs = [photo, *([mask] if mask else []), checkpoint_folder(folder)]
    claim(out, PICTURES, inputs=inputs, names=BOTH)
    model = open_model(folder, engine, precision, device)
    if film != (model.codec is not None and model.codec.media == "clip"):
        kinds = ("film", "pictures") if film else ("picture", "clips")
        raise InputError(f"{photo} is a {kinds[0]}, but {folder} writes {kinds[1]}")
    if film:
        media = read_clip(photo, model.codec.config, start)
    if hole:
        ask = partial(model.fill, media, hole, fit=fit)
    else:
        ask = partial(model.complete, media, keep, units=keep_frames, fit=fit)
    record = record_of(checkpoint, model, engine, precision) | {"photo": str(photo)}
    with Gallery(out, model.codec, "completion", n, record, inputs) as gallery:
        pictures = draw(
            "complete",
            as_json,
            lambda progress: ask(
                n=n,
                seed=seed,
                label=label,
                text=text,
                max_tokens=max_tokens,
                batch=batch,
                progress=progress,
                each=gallery.add,
                **sampling,
            ),
        )
        there = original_bits(model, pictures)
        gallery.record |= {} if there is None else {"bits_of_the_original": round(there, 1)}
        result = gallery.finish(pictures)
    _show(result, as_json, "completion", verbose)


def _free_folder(photo: Path) -> Path:
    """PHOTO-completions, or with a number where that is taken: by the completions of another photo
    of that name, or by something that is not ours."""
    from jpeglm.folders import PICTURES, record_of, same

    name = f"{photo.stem}-completions"

    def free(out: Path) -> bool:
        before = record_of(out, PICTURES)
        if before is not None:
            return same(Path(str(before.get("photo"))), photo)
        return not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir()))

    names = (Path(f"{name}-{number}" if number > 1 else name) for number in count(1))
    out = next(filter(free, names))
    if out.name != name:
        note(f"{name} belongs to another photo than {photo}; writing to {out}")
    return out


def _show(result: dict[str, Any], as_json: bool, kind: str, verbose: bool) -> None:
    """Say what was drawn and, where the terminal can, show the sheet."""
    from jpeglm.cli.terminal import show_sheet

    show(result, as_json, _told(result, kind, verbose))
    if not as_json:
        show_sheet(Path(result["out"]), result["files"])


def _told(result: dict[str, Any], kind: str, verbose: bool) -> list[str]:
    """What was drawn, for a person."""
    from jpeglm.files import printable

    out = printable(result["out"])
    count = result["pictures"]

    def written(begin: str, end: str = "") -> str:
        names = [name for name in result["files"] if name.startswith(begin) and name.endswith(end)]
        return f"{names[0]} to {names[-1]}" if len(names) > 1 else "".join(names)

    playing = written("sheet", ".gif")
    lines = [
        f"{count} {kind}{'s' * (count > 1)} in {result['seconds']:.1f} s: {out}/{written(kind)}",
        f"side by side: {out}/{written('sheet', '.png')}"
        + f" (playing: {playing})" * bool(playing),
    ]
    if "bits_of_the_original" in result:
        share = result["bits_per_image"] / max(result["bits_of_the_original"], 1e-9)
        words = next(words for most, words in SURPRISE if share <= most)
        lines.append(f"to the model {'they are' if count > 1 else 'it is'} {words} the true rest")
    if verbose:
        lines.append(
            f"{result['tokens']} tokens ({result['tokens_per_second']:,.0f} a second), "
            f"{result.get('bits_per_image', 0):,.0f} bits each under the model"
            + (
                f", {result['bits_of_the_original']:,.0f} what was really there"
                if "bits_of_the_original" in result
                else ""
            )
        )
    return lines


@verbs.command()
def models(as_json: JsonOption = False) -> None:
    """List the models that ship with jpeglm, by the name that --checkpoint takes.

    Each has a card, README.md in its folder: data, training, figures, licence.

    \b
    Examples:
      jpeglm models
      jpeglm models --json
    """
    from jpeglm.checkpoint.shipped import list_models

    found = list_models()
    lines = [
        f"{one.name:10s} {one.writes}, {one.parameters / 1e6:.1f} M parameters, "
        f"{one.bytes / 1e6:.1f} MB{', takes ' * bool(one.takes)}{one.takes}; {one.folder}"
        for one in found
    ]
    rows = [{**asdict(one), "folder": str(one.folder)} for one in found]
    show({"models": rows}, as_json, lines)
