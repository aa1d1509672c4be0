"""Verbs that measure: `jpeglm evaluate …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm.cli.common import (
    CheckpointOption,
    CropsOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    PrecisionOption,
    SeedOption,
    SizeOption,
    open_model,
    record_of,
    show,
)
from jpeglm.cli.options import Fields, parse_size, with_options
from jpeglm.config import MAX_SEED, InputError

ExtractorOption = Annotated[
    str, typer.Option(help="resnet50 (local weights) or inception (FID; the extra fid).")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="The extractor's weights file (default data/resnet50.safetensors)."),
]
ResizeOption = Annotated[
    int | None, typer.Option(help="Pixels a side that resnet50 sees (default 224).")
]
OutOption = Annotated[Path | None, typer.Option(help="Also write the JSON here.")]
LimitOption = Annotated[int, typer.Option(min=2, max=MAX_SEED, help="Pictures at most.")]
SplitOption = Annotated[
    str | None,
    typer.Option(
        help="train or validation, by content as prepare; default: all, or validation "
        "of prepared shards."
    ),
]
KeepOption = Annotated[
    Path | None,
    typer.Option("--pictures", help="Folder that keeps what was drawn; a second run goes on."),
]
SeedsOption = Annotated[int, typer.Option(min=1, max=MAX_SEED, help="Seeds: 0, 1, …")]

ClipCheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Checkpoint folder; without it the shipped model of clips."),
]

SAMPLING = "generation.sampling:Sampling"
NUCLEUS = ("temperature", "top_k", "top_p")

evaluate = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure a model on held-out pictures."
)


@evaluate.command()
def likelihood(
    data: Annotated[
        Path, typer.Argument(help="Prepared shards, or a folder of pictures or films.")
    ],
    checkpoint: CheckpointOption = None,
    split: Annotated[str, typer.Option(help="validation or train.")] = "validation",
    limit: Annotated[int, typer.Option(min=1, max=MAX_SEED, help="Pictures at most.")] = 1000,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Tell a conditional model the classes.")
    ] = True,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bits per image or clip under the model, beside the best coders of the same streams.

    JPEG: Huffman, jpegtran, JPEG XL, Lepton, brunsli; H.264: CAVLC, CABAC.
    """
    from jpeglm.evaluation.likelihood import likelihood as measure
    from jpeglm.progress import Reporter

    _claim(out, data, checkpoint)
    model = open_model(checkpoint, engine, precision, device)
    rows = _streams(data, model, split, limit)
    keys = [key for key, _, _ in rows]
    streams = [stream for _, stream, _ in rows]
    known = [label for _, _, label in rows] if labels else None
    with Reporter("likelihood", "pictures", as_json) as report:
        result = measure(model, streams, known, keys, report)
    result |= record_of(checkpoint, model, engine, precision) | {
        "data": str(data),
        "split": split,
        "class_conditional": bool(known and model.classes and max(known) >= 0),
    }
    base = next(key for key in result["coders"]["model"] if key.startswith("against_"))
    lines = [
        f"{result['pictures']} images of {result['distinct_pictures']} pictures, bits an image "
        f"(95 % interval over pictures), {base.replace('_', ' ')}, in brackets all in one file"
    ]
    for name, row in sorted(result["coders"].items(), key=lambda item: item[1]["bits_per_image"]):
        low, high = row["interval"]
        shared = row.get("together")
        lines.append(
            f"  {name:20s} {row['bits_per_image']:9,.1f}  ({low:,.0f} to {high:,.0f})  "
            f"{100 * row[base]:+6.1f} %"
            + (f"  ({100 * shared['against_huffman']:+.1f} %)" if shared else "")
        )
    lines += [f"  {name}: not run, {why}" for name, why in result["unavailable"].items()]
    _finish("likelihood", result, out, as_json, lines)


def _references(
    model: Any, data: Path, size: str | None, split: str | None, crops: int, limit: int
) -> Any:
    """Pictures to measure against, at the model's size unless another is given."""
    from jpeglm.data.arrays import load_images
    from jpeglm.data.settings import PrepareConfig

    config = model.codec.config if model.codec else model.config
    width, height = parse_size(size) if size else (config.width, config.height)
    if split is None and (data / "dataset.json").exists():
        split = "validation"
    if split == "all":
        split = None
    return load_images(data, width, height, PrepareConfig(crops=crops), split, limit=limit)


def _picture_model(
    checkpoint: Path | None, engine: str, precision: str | None, device: str | None
) -> Any:
    model = open_model(checkpoint, engine, precision, device)
    if model.codec and model.codec.media == "clip":
        raise InputError(f"{checkpoint} writes clips; use evaluate continuation")
    return model


def _claim(out: Path | None, *inputs: Path | None, pictures: Path | None = None) -> None:
    """InputError unless the result can be written; before the work."""
    from jpeglm.folders import check_writable, claim_file

    claim_file(out, inputs=[path for path in inputs if path is not None])
    if pictures is not None:
        check_writable(pictures)


def _own(engine: str, device: str | None) -> str | None:
    """The engine's part of --device, which is the extractor's too."""
    return device if engine == "torch" else None


def _finish(
    verb: str, result: dict[str, Any], out: Path | None, as_json: bool, lines: list[str]
) -> None:
    from jpeglm.files import write_json

    result = {"evaluated": verb, **result}
    try:
        if out:
            write_json(out, result)
    finally:  # a disk that is full by now must not cost the figures
        show(result, as_json, lines)


def _seeds(count: int) -> str:
    return f"{count} seed" + "s" * (count > 1)


def _distance(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return (
        f"{row['distance']:8.2f}  ({low:.2f} to {high:.2f})   KID {row['kid']:.5f} "
        f"± {row['kid_error']:.5f}   N {row['n'][0]} and {row['n'][1]}"
    )


def _warned(result: dict[str, Any]) -> list[str]:
    return [f"warning: {result['warning']}"] if "warning" in result else []


@evaluate.command()
def frechet(
    pictures: Annotated[Path, typer.Argument(help="Pictures: a folder, tars, Parquet.")],
    references: Annotated[Path, typer.Argument(help="Real pictures, in any of these forms.")],
    size: SizeOption = None,
    limit: LimitOption = 50_000,
    extractor: ExtractorOption = "resnet50",
    weights: WeightsOption = None,
    resize: ResizeOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fréchet distance and KID between two sets of pictures.

    Without --size every picture must have one size. Called FID only with the extractor inception.
    """
    from jpeglm.data.arrays import load_set
    from jpeglm.evaluation.features import extract, make_extractor
    from jpeglm.evaluation.frechet import compare
    from jpeglm.progress import Reporter

    _claim(out, pictures, references)
    shape = parse_size(size) if size else None
    sets = [load_set(path, shape, limit) for path in (pictures, references)]
    for path, found in zip((pictures, references), sets):
        if len(found.pixels) < 2:
            raise InputError(f"{path} has one picture; a distance needs at least two a side")
    if sets[0].pixels.shape[1:] != sets[1].pixels.shape[1:]:
        (h, w), (height, width) = (found.pixels.shape[1:3] for found in sets)
        raise InputError(
            f"{pictures} has pictures of {w} × {h}, {references} of {width} × {height}; give "
            "--size to bring both to one size"
        )
    made = make_extractor(extractor, weights, device, resize)
    with Reporter("frechet", "pictures", as_json) as report:
        features = [extract(made, found.pixels, progress=report) for found in sets]
    result = {
        "metric": made.metric,
        "extractor": made.name,
        "resizer": made.resizer,
        **compare(features[0], features[1]),
        "pictures": str(pictures),
        "references": str(references),
    }
    lines = [f"{made.metric}: {_distance(result)}", *_warned(result)]
    _finish("frechet", result, out, as_json, lines)


@evaluate.command()
def completion(
    data: Annotated[Path, typer.Argument(help="Real pictures that training never saw.")],
    checkpoint: CheckpointOption = None,
    ratios: Annotated[
        str, typer.Option(help="Shares of the picture that are kept, with commas between.")
    ] = "0.25,0.5,0.75",
    seeds: SeedsOption = 3,
    half: Annotated[
        bool, typer.Option("--half", help="Pictures at half size on black (the paper's table 4).")
    ] = False,
    limit: LimitOption = 1000,
    size: SizeOption = None,
    split: SplitOption = None,
    crops: CropsOption = 0,
    pictures: KeepOption = None,
    extractor: ExtractorOption = "resnet50",
    weights: WeightsOption = None,
    resize: ResizeOption = None,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fréchet distance of completions, by share kept (the paper's tables 1, 2 and 4)."""
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.progress import Reporter

    _claim(out, data, checkpoint, pictures=pictures)
    shares = _shares(ratios)
    model = _picture_model(checkpoint, engine, precision, _own(engine, device))
    made = make_extractor(extractor, weights, device, resize)
    references = _references(model, data, size, split, crops, limit)
    with Reporter("completion", "pictures", as_json) as report:
        result = protocols.completion(
            model,
            references,
            made,
            shares,
            range(seeds),
            half=half,
            folder=pictures,
            progress=report,
        )
    result |= record_of(checkpoint, model, engine, precision) | {"data": str(data)}
    lines = [f"{result['metric']} of completions, by share kept ({_seeds(seeds)})"]
    lines += [f"  {name:>6s}  {_distance(row)}" for name, row in result["ratios"].items()]
    _finish("completion", result, out, as_json, lines + _warned(result["ratios"]["codec"]))


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise InputError(f"--ratios is {text!r}; write shares from 0 to 1 as 0.25,0.5,0.75")
    return shares


@evaluate.command()
def unconditional(
    data: Annotated[Path, typer.Argument(help="Real pictures that training never saw.")],
    checkpoint: CheckpointOption = None,
    n: Annotated[int, typer.Option("-n", min=2, max=MAX_SEED, help="New pictures a seed.")] = 1000,
    seeds: SeedsOption = 1,
    limit: LimitOption = 1000,
    size: SizeOption = None,
    split: SplitOption = None,
    crops: CropsOption = 0,
    pictures: KeepOption = None,
    extractor: ExtractorOption = "resnet50",
    weights: WeightsOption = None,
    resize: ResizeOption = None,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fréchet distance of new pictures (the paper's table 3); takes a VAE too."""
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.progress import Reporter

    _claim(out, data, checkpoint, pictures=pictures)
    model = _picture_model(checkpoint, engine, precision, _own(engine, device))
    made = make_extractor(extractor, weights, device, resize)
    references = _references(model, data, size, split, crops, limit)
    with Reporter("unconditional", "pictures", as_json) as report:
        result = protocols.unconditional(
            model, references, made, n, range(seeds), folder=pictures, progress=report
        )
    result |= record_of(checkpoint, model, engine, precision) | {"data": str(data)}
    lines = [f"{result['metric']} of new pictures ({_seeds(seeds)}): {_distance(result)}"]
    _finish("unconditional", result, out, as_json, lines + _warned(result))


@evaluate.command()
@with_options(sampling=Fields(SAMPLING, only=NUCLEUS, given=True, default="the checkpoint's"))
def continuation(
    *,
    data: Annotated[Path, typer.Argument(help="Held-out clips: prepared shards, or films.")],
    checkpoint: ClipCheckpointOption = None,
    keep_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames that are kept. Default: two thirds.")
    ] = None,
    seeds: SeedsOption = 1,
    limit: LimitOption = 200,
    split: Annotated[str, typer.Option(help="Of prepared shards: validation or train.")] = (
        "validation"
    ),
    sampling: dict[str, Any],
    extractor: Annotated[
        str | None, typer.Option(help="Also Fréchet distances by frame: resnet50 or inception.")
    ] = None,
    weights: WeightsOption = None,
    resize: ResizeOption = None,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """PSNR of a clip's next frames, beside «repeat the last frame»."""
    from jpeglm.checkpoint import shipped_checkpoint
    from jpeglm.evaluation.continuation import check_clips
    from jpeglm.evaluation.continuation import continuation as measure
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.progress import Reporter

    _claim(out, data, checkpoint)
    place = _own(engine, device) if extractor else device
    model = open_model(checkpoint or shipped_checkpoint("clips"), engine, precision, place)
    check_clips(model)
    made = make_extractor(extractor, weights, device, resize) if extractor else None
    rows = _streams(data, model, split, limit)
    with Reporter("continuation", "clips", as_json) as report:
        result = measure(
            model,
            [stream for _, stream, _ in rows],
            [key for key, _, _ in rows],
            keep_frames,
            range(seeds),
            made,
            report,
            **sampling,
        )
    result |= record_of(checkpoint, model, engine, precision) | {"data": str(data), "split": split}
    lines = [
        f"{result['clips']} clips of {result['films']} films, {result['keep_frames']} frames kept; "
        f"PSNR of the rest, dB (95 % interval over films), frame by frame"
    ]
    for name, row in result["rows"].items():
        low, high = row["interval"]
        frames = " ".join(f"{value:6.2f}" for value in row["by_frame"])
        lines.append(f"  {name:8s} {row['psnr']:6.2f}  ({low:.2f} to {high:.2f})   {frames}")
    low, high = result["margin_interval"]
    lines.append(
        f"  «model» is {result['margin']:+.2f} dB ({low:+.2f} to {high:+.2f}) from «repeat», and "
        f"nearer to the truth in {100 * result['better']:.0f} % of the clips"
    )
    _finish("continuation", result, out, as_json, lines)


def _streams(data: Path, model: Any, split: str, limit: int) -> list[tuple[str, bytes, int]]:
    """Streams of a split of prepared shards, or all that films or pictures give."""
    from itertools import islice

    from jpeglm.data.open import open_data

    prepared = (data / "dataset.json").exists()
    found = open_data(data, model.codec, model.tokenizer.folder)
    rows = list(islice(found.streams(split if prepared else None), limit))
    if not rows and found.rejected:
        raise InputError(found.rejected[0]["reason"])
    if not rows:
        raise InputError(f"{data} has no {split} streams; choose another --split")
    return rows


@evaluate.command()
@with_options(sampling=Fields(SAMPLING, only=NUCLEUS, given=True))
def validity(
    *,
    checkpoint: CheckpointOption = None,
    n: Annotated[
        int, typer.Option("-n", min=1, max=MAX_SEED, help="Pictures with and without grammar.")
    ] = 200,
    seed: SeedOption = 0,
    sampling: dict[str, Any],
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Share of sampled streams that are complete and valid, with and without the grammar.

    Judged by the automaton, djpeg and jpegtran, of clips by PyAV and ffmpeg. By default the whole
    distribution is sampled.
    """
    from jpeglm.evaluation.validity import validity as measure
    from jpeglm.progress import Reporter

    _claim(out, checkpoint)
    model = open_model(checkpoint, engine, precision, device)
    with Reporter("validity", "done", as_json) as report:
        result = measure(model, n, seed, report, **sampling)
    result |= record_of(checkpoint, model, engine, precision)
    lines = []
    for key in ("with_grammar", "without_grammar"):
        row = result[key]
        judged = ", ".join(
            f"{name.replace('_', ' ')} {row[name]}"
            for name in (
                "complete_as_sampled",
                "djpeg_silent",
                "jpegtran_identical",
                "pyav_silent",
                "ffmpeg_silent",
            )
            if name in row
        )
        lines.append(f"{key.replace('_', ' ')}, of {row['streams']}: {judged}")
    lines += [f"  {name}: not run, {why}" for name, why in result["unavailable"].items()]
    _finish("validity", result, out, as_json, lines)


@evaluate.command()
def reconstruction(
    data: Annotated[Path, typer.Argument(help="Real pictures.")],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint, tokenizer or VAE folder; give it several times."),
    ] = None,
    qualities: Annotated[
        str, typer.Option(help="JPEG qualities beside them, with commas between; empty: none.")
    ] = "5,10,25,50,75",
    size: SizeOption = None,
    split: SplitOption = None,
    crops: CropsOption = 0,
    limit: LimitOption = 1000,
    extractor: Annotated[
        str | None, typer.Option(help="Also measure Fréchet distances: resnet50 or inception.")
    ] = None,
    weights: WeightsOption = None,
    resize: ResizeOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the codecs alone lose: PSNR, SSIM, at their tokens and bits a picture."""
    from jpeglm.data.arrays import load_images, to_images
    from jpeglm.data.settings import PrepareConfig
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.generation.loading import open_coder
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer

    _claim(out, data, *(checkpoint or []))
    coders = {str(folder): open_coder(folder) for folder in checkpoint or []}
    for name, coder in coders.items():
        if getattr(coder.codec, "media", "picture") == "clip":
            raise InputError(f"{name} codes clips; reconstruction is measured on pictures")
    shape = parse_size(size) if size else (64, 64)
    if not size and coders:
        first = next(iter(coders.values()))
        config = first.codec.config if isinstance(first, Tokenizer) else first.config
        shape = (config.width, config.height)
    split = None if split == "all" else split
    found = load_images(data, *shape, PrepareConfig(crops=crops), split, limit=limit)
    coders |= _jpegs(qualities, shape, to_images(found.pixels[:300]))
    if not coders:
        raise InputError("there is nothing to measure; give --checkpoint or --qualities")
    made = make_extractor(extractor, weights, device, resize) if extractor else None
    with Reporter("reconstruction", "codecs", as_json) as report:
        result = protocols.reconstruction(coders, found, made, report)
    result["data"] = str(data)
    lines = [f"{result['n']} pictures"]
    for name, row in result["coders"].items():
        length = f"{row['tokens']:.0f} tokens" if "tokens" in row else f"{row['latents']} numbers"
        lines.append(f"  {name:32s} {row['psnr']:6.2f} dB   SSIM {row['ssim']:.4f}   {length}")
    _finish("reconstruction", result, out, as_json, lines)


def _jpegs(qualities: str, shape: tuple[int, int], images: list[Any]) -> dict[str, Any]:
    """A tokenizer for each JPEG quality, learnt from pictures that are measured: the number of
    tokens is what is wanted, not what a model makes of them."""
    from jpeglm.codecs import JpegCodec
    from jpeglm.config import JpegConfig
    from jpeglm.tokenizer import Tokenizer

    made = {}
    for part in filter(None, qualities.split(",")):
        if not part.strip().isdigit():
            raise InputError(f"--qualities is {qualities!r}; write it as 10,25,50")
        codec = JpegCodec(JpegConfig(*shape, quality=int(part)))
        streams = [codec.encode(image) for image in images]
        made[f"jpeg quality {int(part)}"] = Tokenizer.train(streams, codec, vocab_size=1024)
    return made


@evaluate.command()
def longtail(
    data: Annotated[Path, typer.Argument(help="Real pictures with labels.")],
    checkpoint: CheckpointOption = None,
    rival: Annotated[Path | None, typer.Option(help="The other checkpoint.")] = None,
    trained_on: Annotated[
        Path | None, typer.Option(help="Prepared shards of training, whose labels are counted.")
    ] = None,
    keep: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share that is kept.")] = 0.25,
    seed: SeedOption = 0,
    limit: LimitOption = 1000,
    pictures: KeepOption = None,
    extractor: ExtractorOption = "resnet50",
    weights: WeightsOption = None,
    resize: ResizeOption = None,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Per class: how much better the checkpoint completes than its rival, against frequency."""
    import numpy as np

    from jpeglm.data.open import open_data
    from jpeglm.evaluation import protocols
    from jpeglm.evaluation.features import make_extractor
    from jpeglm.progress import Reporter

    _claim(out, data, checkpoint, rival, trained_on, pictures=pictures)
    if rival is None or trained_on is None:
        raise InputError("longtail compares two checkpoints; give --rival and --trained-on")
    place = _own(engine, device)
    models = [_picture_model(folder, engine, precision, place) for folder in (checkpoint, rival)]
    made = make_extractor(extractor, weights, device, resize)
    references = _references(models[0], data, None, None, 0, limit)
    counts = np.bincount([label for _, _, label in open_data(trained_on).streams("train")])
    frequency = {label: int(count) for label, count in enumerate(counts) if count}
    with Reporter("longtail", "pictures", as_json) as report:
        result = protocols.longtail(
            models[0],
            models[1],
            references,
            made,
            frequency,
            keep,
            seed,
            folder=pictures,
            progress=report,
        )
    result |= {
        "checkpoint": str(checkpoint),
        "rival": str(rival),
        "data": str(data),
    }
    lines = ["class  training pictures  checkpoint   rival   difference"]
    lines += [
        f"{r['label']:5d}  {r['frequency']:17d}  {r['a']:10.2f}  {r['b']:6.2f}  "
        f"{r['difference']:+9.2f}"
        for r in result["classes"]
    ]
    correlation = result["pearson_log_frequency"]
    lines.append(f"Pearson with log frequency: r {correlation['r']:+.3f}, p {correlation['p']:.4f}")
    _finish("longtail", result, out, as_json, lines)
