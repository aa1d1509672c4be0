"""Verbs that draw: generate, complete; and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm.cli.common import (
    BatchOption,
    CheckpointOption,
    DeviceOption,
    EngineOption,
    GrammarOption,
    GuidanceOption,
    JsonOption,
    LabelOption,
    MaxTokensOption,
    PrecisionOption,
    SeedOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    draw,
    is_film,
    note_first_frame,
    open_model,
    record_of,
    show,
)
from jpeglm.config import InputError

verbs = typer.Typer()


@verbs.command()
def generate(
    n: Annotated[int, typer.Option("-n", min=1, help="How many pictures.")] = 16,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("samples"),
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    label: LabelOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    grammar: GrammarOption = True,
    max_tokens: MaxTokensOption = None,
    batch: BatchOption = 16,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Invent pictures or clips: sample-00.jpg (or .mp4) …, sheet.png and run.json."""
    from jpeglm.generation.outputs import write_pictures

    model = open_model(checkpoint, engine, precision, device)
    pictures = draw(
        "generate",
        as_json,
        lambda progress: model.generate(
            n,
            seed=seed,
            label=label,
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            grammar=grammar,
            max_tokens=max_tokens,
            batch=batch,
            progress=progress,
        ),
    )
    record = record_of(checkpoint, model, engine, precision)
    result = write_pictures(pictures, model.codec, out, "sample", record)
    show(result, as_json, _told(result, "sample"))


@verbs.command()
def complete(
    photo: Annotated[
        Path,
        typer.Argument(metavar="PHOTO|CLIP", help="A picture or a film of any size and format."),
    ],
    keep: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share to keep, of a picture from the top. Default: 0.5; of a clip 2/3.",
        ),
    ] = None,
    keep_frames: Annotated[
        int | None, typer.Option(min=0, help="Of a clip: frames to keep, instead of --keep.")
    ] = None,
    start: Annotated[float, typer.Option(min=0.0, help="Where a clip begins, seconds.")] = 0.0,
    n: Annotated[int, typer.Option("-n", min=1, help="How many completions.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures (default: PHOTO's name).")
    ] = None,
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    label: LabelOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    grammar: GrammarOption = True,
    max_tokens: MaxTokensOption = None,
    batch: BatchOption = 16,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the upper part of a photo, or a clip's first frames, and let the model write the rest.

    Writes original.jpg, prompt.jpg, completion-00.jpg …, sheet.png and run.json; of a clip .mp4
    files and sheet.gif.
    """
    from jpeglm.checkpoint import shipped_checkpoint
    from jpeglm.codecs.clips import read_clip
    from jpeglm.codecs.images import open_image
    from jpeglm.generation.outputs import write_pictures

    film = is_film(photo, checkpoint)
    if not film and (keep_frames is not None or start):
        raise InputError(f"{photo} is a picture; --keep-frames and --start are for clips")
    media: Any = None if film else open_image(photo)
    if not film:
        note_first_frame(photo)
    folder = checkpoint or shipped_checkpoint("clips" if film else "photos")
    model = open_model(folder, engine, precision, device)
    if film != (model.codec is not None and model.codec.media == "clip"):
        kinds = ("film", "pictures") if film else ("picture", "clips")
        raise InputError(f"{photo} is a {kinds[0]}, but {folder} writes {kinds[1]}")
    if film:
        media = read_clip(photo, model.codec.config, start)
    pictures = draw(
        "complete",
        as_json,
        lambda progress: model.complete(
            media,
            keep,
            n,
            units=keep_frames,
            seed=seed,
            label=label,
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            grammar=grammar,
            max_tokens=max_tokens,
            batch=batch,
            progress=progress,
        ),
    )
    record = record_of(checkpoint, model, engine, precision) | {"photo": str(photo)}
    out = out or Path(f"{photo.stem}-completions")
    result = write_pictures(pictures, model.codec, out, "completion", record)
    show(result, as_json, _told(result, "completion"))


def _told(result: dict[str, Any], kind: str) -> list[str]:
    pictures = [name for name in result["files"] if name.startswith(kind)]
    unit = "clip" if pictures[0].endswith(".mp4") else "picture"
    return [
        f"{result['out']}/: {pictures[0]} to {pictures[-1]} and sheet.png"
        if len(pictures) > 1
        else f"{result['out']}/: {pictures[0]} and sheet.png",
        f"{result['tokens']} tokens in {result['seconds']:.2f} s "
        f"({result['tokens_per_second']:,.0f} tokens/s), "
        f"{result['bits_per_image']:,.0f} bits a {unit} under the model"
        if "bits_per_image" in result
        else f"drawn in {result['seconds']:.2f} s",
    ]


@verbs.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint folder of ours, or a shipped one's name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[str, typer.Option(help="hf: Hugging Face transformers.")] = "hf",
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint for other tools."""
    from jpeglm.checkpoint import checkpoint_folder, export_hugging_face, load_checkpoint

    if to != "hf":
        raise InputError(f"--to is {to!r}; hf is the form that can be written")
    export_hugging_face(load_checkpoint(checkpoint_folder(checkpoint)), out, dtype)
    show(
        {"out": str(out), "to": to, "dtype": dtype},
        as_json,
        [f"{out}/: loads with transformers.AutoModelForCausalLM and AutoTokenizer"],
    )
