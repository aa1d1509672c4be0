"""Verbs that measure drawn pictures: distances to real ones, and what codecs alone lose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jpeglm.cli.common import (
    CheckpointOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    PrecisionOption,
    SeedOption,
    open_model,
    record_of,
    table,
)
from jpeglm.cli.evaluation import (
    DISTANCES,
    EXTRACTOR,
    LimitOption,
    OutOption,
    PlotOption,
    SeedsOption,
    claim_output,
    engine_device,
    finish,
    optional_extractor,
)
from jpeglm.cli.options import Fields, numbers, parse_size, with_options
from jpeglm.config import MAX_SEED, InputError

if TYPE_CHECKING:
    from jpeglm.evaluation.features import ExtractorConfig
    from jpeglm.evaluation.inputs import ReferenceConfig

KeepOption = Annotated[
    Path | None,
    typer.Option("--pictures", help="Folder for the drawn pictures; a second run resumes from it."),
]
SheetOption = Annotated[
    Path | None,
    typer.Option(help="Folder for result.json, and sheet.png: pictures as they come."),
]
CONFIG = "evaluation.inputs:ReferenceConfig"
verbs = typer.Typer()
"""Of `jpeglm evaluate`, beside those of `cli.evaluation`."""


@verbs.command()
@with_options(extracting=Fields(EXTRACTOR))
def frechet(
    *,
    pictures: Annotated[Path, typer.Argument(help="Pictures: a folder, tars, Parquet.")],
    references: Annotated[Path, typer.Argument(help="Real pictures, in any of these forms.")],
    size: Annotated[
        str | None,
        typer.Option(help="Pixels, as 64 or 128x96 (width x height). Default: the pictures' own."),
    ] = None,
    limit: LimitOption = 50_000,
    extracting: ExtractorConfig,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fréchet distance and KID between two sets of pictures.

    Without --size every picture must have one size. Called FID only with the extractor inception.

    \b
    Examples:
      jpeglm evaluate frechet samples/ photos/ --size 64
    """
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.evaluation.inputs import pairs
    from jpeglm.evaluation.protocols import frechet as measure
    from jpeglm.progress import Reporter

    output = claim_output(out, pictures, references)
    sets = pairs(pictures, references, parse_size(size) if size else None, limit)
    made = make_extractor(extracting, device)
    with Reporter("frechet", "pictures", as_json) as report:
        result = measure(*sets, made, report)
    result |= {"pictures": str(pictures), "references": str(references)}
    lines = [*_distances(made.metric, {"": result}), *_warned(result)]
    finish("frechet", result, output, as_json, lines)


@verbs.command()
@with_options(config=Fields(CONFIG), extracting=Fields(EXTRACTOR))
def completion(
    *,
    data: Annotated[Path, typer.Argument(help="Real pictures that training never saw.")],
    checkpoint: CheckpointOption = None,
    ratios: Annotated[
        str, typer.Option(help="Shares of the picture to keep, separated by commas.")
    ] = "0.25,0.5,0.75",
    seeds: SeedsOption = 3,
    half: Annotated[
        bool, typer.Option("--half", help="Pictures at half size on black (the paper's table 4).")
    ] = False,
    config: ReferenceConfig,
    pictures: KeepOption = None,
    extracting: ExtractorConfig,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fréchet distance of completions, by share kept (the paper's tables 1, 2 and 4).

    \b
    Examples:
      jpeglm evaluate completion photos/ --ratios 0.25,0.5 --limit 200 --out measured
    """
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.evaluation.inputs import references, size_of
    from jpeglm.progress import Reporter

    output = claim_output(out, data, checkpoint, pictures=pictures)
    shares = numbers("--ratios", ratios, float, "shares from 0 to 1 as 0.25,0.5,0.75", most=1)
    model = _picture_model(checkpoint, engine, precision, engine_device(engine, device))
    made = make_extractor(extracting, device)
    found = references(data, size_of(model), config, checkpoint)
    with Reporter("completion", "pictures", as_json) as report:
        result = protocols.completion(
            model,
            found,
            made,
            shares,
            range(seeds),
            half=half,
            folder=pictures,
            progress=report,
            show=output.show,
        )
    result |= record_of(checkpoint, model, engine, precision) | {"data": str(data)}
    lines = [f"Completions by the share kept ({_seeds(seeds)}); `codec`: nothing is completed", ""]
    lines += _distances(result["metric"], result["ratios"])
    finish("completion", result, output, as_json, lines + _warned(result["ratios"]["codec"]))


@verbs.command()
@with_options(config=Fields(CONFIG), extracting=Fields(EXTRACTOR))
def unconditional(
    *,
    data: Annotated[Path, typer.Argument(help="Real pictures that training never saw.")],
    checkpoint: CheckpointOption = None,
    n: Annotated[
        int, typer.Option("-n", min=2, max=MAX_SEED, help="New pictures for each seed.")
    ] = 1000,
    seeds: SeedsOption = 1,
    config: ReferenceConfig,
    pictures: KeepOption = None,
    extracting: ExtractorConfig,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fréchet distance of new pictures (the paper's table 3); takes a VAE too.

    \b
    Examples:
      jpeglm evaluate unconditional photos/ -n 200 --checkpoint runs/train
    """
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.evaluation.inputs import references, size_of
    from jpeglm.progress import Reporter

    output = claim_output(out, data, checkpoint, pictures=pictures)
    model = _picture_model(checkpoint, engine, precision, engine_device(engine, device))
    made = make_extractor(extracting, device)
    found = references(data, size_of(model), config, checkpoint)
    with Reporter("unconditional", "pictures", as_json) as report:
        result = protocols.unconditional(
            model,
            found,
            made,
            n,
            range(seeds),
            folder=pictures,
            progress=report,
            show=output.show,
        )
    result |= record_of(checkpoint, model, engine, precision) | {"data": str(data)}
    lines = _distances(result["metric"], {f"new pictures, {_seeds(seeds)}": result})
    finish("unconditional", result, output, as_json, lines + _warned(result))


@verbs.command()
@with_options(config=Fields(CONFIG), **DISTANCES)
def reconstruction(
    *,
    data: Annotated[Path, typer.Argument(help="Real pictures.")],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint, tokenizer or VAE folder; may be repeated."),
    ] = None,
    qualities: Annotated[
        str, typer.Option(help="JPEG qualities to compare with, separated by commas; empty: none.")
    ] = "5,10,25,50,75",
    config: ReferenceConfig,
    distances: dict[str, Any],
    network: dict[str, Any],
    device: DeviceOption = None,
    out: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the codecs alone lose: PSNR, SSIM, at their tokens and bits a picture.

    \b
    Examples:
      jpeglm evaluate reconstruction photos/ --checkpoint photos --qualities 10,25,50
    """
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.inputs import coders_of
    from jpeglm.progress import Reporter

    output = claim_output(out, data, *(checkpoint or []))
    known = numbers("--qualities", qualities, int, "it as 10,25,50") if qualities else []
    coders, found = coders_of(checkpoint or [], known, data, config)
    made = optional_extractor(distances, network, device)
    with Reporter("reconstruction", "codecs", as_json) as report:
        result = protocols.reconstruction(coders, found, made, report, output.show)
    result["data"] = str(data)
    rows = [[f"{result['n']} pictures", "PSNR, dB", "SSIM", "tokens (of a VAE: numbers)"]]
    for name, row in result["coders"].items():
        length = f"{row['tokens']:.0f}" if "tokens" in row else f"{row['latents']}"
        rows.append([name, f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", length])
    finish("reconstruction", result, output, as_json, table(rows))


@verbs.command()
@with_options(config=Fields(CONFIG), extracting=Fields(EXTRACTOR))
def longtail(
    *,
    data: Annotated[Path, typer.Argument(help="Real pictures with labels.")],
    checkpoint: CheckpointOption = None,
    rival: Annotated[Path | None, typer.Option(help="The other checkpoint.")] = None,
    trained_on: Annotated[
        Path | None,
        typer.Option(help="Prepared shards of the training set, whose labels are counted."),
    ] = None,
    keep: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the picture to keep.")
    ] = 0.25,
    seed: SeedOption = 0,
    config: ReferenceConfig,
    pictures: KeepOption = None,
    extracting: ExtractorConfig,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Per class: how much better the checkpoint completes than its rival, against frequency.

    \b
    Examples:
      jpeglm evaluate longtail photos/ --checkpoint runs/a --rival runs/b --trained-on data
    """
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.evaluation.inputs import class_counts, references, size_of
    from jpeglm.progress import Reporter

    output = claim_output(out, data, checkpoint, rival, trained_on, pictures=pictures)
    if rival is None or trained_on is None:
        raise InputError("longtail compares two checkpoints; give --rival and --trained-on")
    place = engine_device(engine, device)
    models = [_picture_model(folder, engine, precision, place) for folder in (checkpoint, rival)]
    made = make_extractor(extracting, device)
    found = references(data, size_of(models[0]), config, checkpoint, rival)
    with Reporter("longtail", "pictures", as_json) as report:
        result = protocols.longtail(
            models[0],
            models[1],
            found,
            made,
            class_counts(trained_on),
            keep,
            seed,
            folder=pictures,
            progress=report,
            show=output.show,
        )
    result |= {"checkpoint": str(checkpoint), "rival": str(rival), "data": str(data)}
    rows = [["class", "training pictures", "checkpoint", "rival", "difference"]]
    rows += [
        [str(r["label"]), str(r["frequency"]), f"{r['a']:.2f}", f"{r['b']:.2f}",
         f"{r['difference']:+.2f}"]
        for r in result["classes"]
    ]  # fmt: skip
    lines = table(rows)
    correlation = result["pearson_log_frequency"]
    lines.append(f"Pearson with log frequency: r {correlation['r']:+.3f}, p {correlation['p']:.4f}")
    finish("longtail", result, output, as_json, lines)


def _picture_model(
    checkpoint: Path | None, engine: str, precision: str | None, device: str | None
) -> Any:
    from jpeglm.evaluation.inputs import check_pictures

    model = open_model(checkpoint, engine, precision, device)
    check_pictures(model, checkpoint)
    return model


def _seeds(count: int) -> str:
    return f"{count} seed" + "s" * (count > 1)


def _distances(metric: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """A table of distances by name."""
    rows = [["", metric, "95 % interval", "KID", "pictures, drawn and real"]]
    for name, row in found.items():
        low, high = row["interval"]
        kid = f"{row['kid']:.5f} ± {row['kid_error']:.5f}"
        counts = f"{row['n'][0]} and {row['n'][1]}"
        rows.append([name, f"{row['distance']:.2f}", f"{low:.2f} to {high:.2f}", kid, counts])
    return table(rows)


def _warned(result: dict[str, Any]) -> list[str]:
    return [f"warning: {result['warning']}"] if "warning" in result else []
