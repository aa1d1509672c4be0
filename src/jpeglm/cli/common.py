"""What the verbs share: options that mean the same everywhere, codecs from options, results."""

from __future__ import annotations

import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm import __version__
from jpeglm.config import MAX_SEED, InputError, JpegConfig


def finite(value: float | None) -> float | None:
    """An option's value, unless it is NaN or infinite, which pass every range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number.")
    return value


JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint folder, a run's, or a shipped one's name: photos (the default), cifar10, "
        "clips."
    ),
]
EngineOption = Annotated[
    str, typer.Option(help="cpu (numba, needs no torch) or torch (any device).")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="Weights in int8 (the cpu engine's default), bfloat16 or float32 (torch's)."),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Device of --engine torch: cpu, cuda, cuda:1, mps.")
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(min=0.0, callback=finite, help="1 is the model's own, 0 is greedy."),
]
TopKOption = Annotated[
    int | None, typer.Option(min=0, help="Draw among the k most probable tokens; 0 is off.")
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        callback=finite,
        help="Draw among the most probable tokens of this total.",
    ),
]
GrammarOption = Annotated[
    bool,
    typer.Option(
        "--grammar/--no-grammar",
        help="Allow only what keeps the file valid; without it the output is measured, not saved "
        "from itself.",
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(min=2, help="Token budget, prompt included. Default: the model's context."),
]
BatchOption = Annotated[int, typer.Option(min=1, help="Pictures drawn together.")]
SeedOption = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same pictures.")]
LabelOption = Annotated[
    str | None,
    typer.Option(help="Class, by number or name, for a class-conditional checkpoint."),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        callback=finite,
        help="With --label: 1 is the model as it is, more exaggerates the class.",
    ),
]
SizeOption = Annotated[
    str | None, typer.Option(help="Pixels, as 64 or 128x96 (width x height). Default: 64.")
]
CropsOption = Annotated[int, typer.Option(min=0, help="Random crops of each picture, as prepare.")]
StepsOption = Annotated[int, typer.Option(min=0, help="Budget in steps.")]
MinutesOption = Annotated[float, typer.Option(min=0.0, callback=finite, help="Budget in minutes.")]
RateOption = Annotated[float, typer.Option(min=1e-7, callback=finite, help="Peak learning rate.")]
BatchPicturesOption = Annotated[int, typer.Option("--batch", min=1, help="Pictures a step.")]
ChannelsOption = Annotated[int, typer.Option(help="Width of the convolutions.")]
DownsamplingOption = Annotated[int, typer.Option(help="Pixels a side of one code: 2, 4, 8, 16.")]
ThreadsOption = Annotated[int, typer.Option(min=0, max=4096, help="CPU threads; 0: torch decides.")]


def show(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a command's result, for a program or for a person."""
    from jpeglm.files import to_json

    print(to_json(result) if as_json else "\n".join(lines))


def note(line: str) -> None:
    """A line beside the result; a reader that has gone away (`2>&1 | head -1`) stops no work."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def codec_settings(
    preset: str | None,
    size: str | None,
    quality: int | None,
    subsampling: str | None,
    restart_interval: int | None,
    fit: str | None = None,
) -> dict[str, Any]:
    """A JPEG codec's settings from the options given, None meaning the preset's."""
    from jpeglm.config import PAPER_JPEG

    check_preset(preset)
    base = PAPER_JPEG if preset else JpegConfig()
    changes: dict[str, Any] = {
        "quality": quality,
        "subsampling": subsampling,
        "restart_interval": restart_interval,
        "fit": fit,
    }
    if size is not None:
        changes["width"], changes["height"] = parse_size(size)
    return base.to_dict() | {name: value for name, value in changes.items() if value is not None}


def check_preset(preset: str | None) -> None:
    if preset not in (None, "paper"):
        raise InputError(f"--preset is {preset!r}; there is one preset, paper")


def clip_codec(
    preset: str | None,
    size: str | None,
    frames: int | None,
    fps: float | None,
    qp: int | None,
    slices: int | None,
    fit: str | None,
) -> Any:
    """The codec `avc` from the options given, None meaning its default."""
    from jpeglm.codecs.avc import AvcCodec, AvcConfig

    check_preset(preset)
    given = {"frames": frames, "fps": fps, "qp": qp, "slices": slices, "fit": fit}
    given["encoder"] = preset
    if size is not None:
        given["width"], given["height"] = parse_size(size)
    return AvcCodec(AvcConfig(**{k: v for k, v in given.items() if v is not None}))  # type: ignore[arg-type]


def codec_like(
    like: Path,
    name: str | None,
    codec_dir: Path | None,
    preset: str | None,
    size: str | None,
    fit: str | None,
) -> Any:
    """The codec of a checkpoint, a tokenizer or prepared data, whose settings are all taken; how
    pictures are fitted into them may differ."""
    from jpeglm.checkpoint import checkpoint_folder
    from jpeglm.codecs import open_codec
    from jpeglm.folders import DATA, record_of

    given = {"--codec-dir": codec_dir, "--preset": preset, "--size": size}
    for option in (option for option, value in given.items() if value is not None):
        raise InputError(f"{option} cannot be given with --like, which says it")
    folder = like if record_of(like, DATA) is not None else checkpoint_folder(like)
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {like} and no shipped checkpoint of that name; --like takes "
            "a checkpoint, a tokenizer or prepared data"
        )
    codec = open_codec(folder, fit=fit)
    if name not in (None, codec.name):
        raise InputError(f"--codec is {name}, but {like} has the codec {codec.name}; leave one out")
    return codec


def learned_codec(
    name: str,
    folder: Path | None,
    source: Path,
    out: Path,
    size: str | None,
    fit: str | None,
    config: Any,
) -> Any:
    """The codec `vq` or `pixels`: out of its folder, or a palette learnt from the source."""
    from jpeglm.checkpoint import checkpoint_folder
    from jpeglm.codecs import CODECS, open_codec
    from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig, learn_palette

    if name not in CODECS:
        raise InputError(f"--codec is {name!r}; choose one of {', '.join(CODECS)}")
    shape = parse_size(size) if size else (None, None)
    if folder is None and (out / "codec.safetensors").exists():
        folder = out  # a run that goes on
    if folder is not None:
        folder = checkpoint_folder(folder)
        codec = open_codec(folder, shape[0], shape[1], fit)
        if codec.name != name:
            raise InputError(f"{folder} holds a codec {codec.name}, not {name}; give its --codec")
        return codec
    if name == "vq":
        raise InputError("--codec vq needs --codec-dir, the model folder of jpeglm train-vqvae")
    from jpeglm.data.arrays import load_images, to_images

    width, height = shape[0] or 32, shape[1] or 32
    note("learning the palette")
    found = load_images(source, width, height, config, "train", limit=2000)
    palette = learn_palette(to_images(found.pixels), width, height)
    return PixelsCodec(PixelsConfig(width, height, len(palette), fit or "crop"), palette)


def parse_size(text: str) -> tuple[int, int]:
    """`64` or `128x96` (width x height) in pixels."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"--size is {text!r}; write it as 64 or 128x96 (width x height)")
    return int(parts[0]), int(parts[-1])


def sampling_note(sampled: int, seconds: float) -> str:
    return f"{sampled / max(seconds, 1e-9):,.0f} tokens/s"


def draw(title: str, quiet: bool, call: Any) -> Any:
    """Run `call(progress)` under a progress display of pictures."""
    from jpeglm.progress import Reporter

    with Reporter(title, "pictures", quiet) as report:
        start = time.perf_counter()

        def progress(done: int, total: int, sampled: int) -> None:
            report(done, total, sampling_note(sampled, time.perf_counter() - start))

        return call(progress)


def is_film(file: Path, checkpoint: Path | None = None) -> bool:
    """Whether a file is to be read as a film, by its name; a GIF if it is long enough for a clip
    of the checkpoint (by default of the shipped model of clips)."""
    from jpeglm.checkpoint import checkpoint_folder
    from jpeglm.codecs import open_codec
    from jpeglm.codecs.clips import measure
    from jpeglm.codecs.images import MOVING, holds_more
    from jpeglm.data.sources import FILMS

    if file.suffix.lower() != ".gif" or not holds_more(file, MOVING):
        return file.suffix.lower() in FILMS
    try:
        codec: Any = open_codec(checkpoint_folder(checkpoint or Path("clips")))
        length = (codec.config.frames - 1) / codec.config.fps if codec.media == "clip" else math.inf
        return measure(file, str(file)).seconds > length
    except InputError:  # FFmpeg is not there, or cannot read what Pillow reads
        return False


def note_first_frame(photo: Path) -> None:
    """Say that of an animation, or a document of several pages, the first picture is taken."""
    from jpeglm.codecs.images import holds_more
    from jpeglm.files import printable

    if holds_more(photo):
        note(f"{printable(photo)} holds several pictures; its first is taken")


def open_model(
    checkpoint: Path | None, engine: str, precision: str | None, device: str | None
) -> Any:
    from jpeglm.generation.loading import load

    if engine == "cpu":
        from jpeglm.generation.engine_cpu import compiled

        if not compiled():
            note("compiling the engine for this machine, once, about 20 s")
    return load(checkpoint, engine=engine, precision=precision, device=device)


def record_of(checkpoint: Path | None, model: Any, engine: str, precision: str | None) -> dict:
    from jpeglm.generation.loading import PRECISION

    return {
        "checkpoint": str(checkpoint)
        if checkpoint
        else f"{model.checkpoint.folder.name} (shipped)",
        **model.record(),
        "engine": engine,
        "precision": precision or PRECISION[engine],
        "version": __version__,
    }
