"""Verbs that measure: `jpeglm evaluate …`."""

from __future__ import annotations

from dataclasses import replace
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
    note,
    open_model,
    record_of,
    show,
    table,
)
from jpeglm.cli.options import Fields, with_options
from jpeglm.config import MAX_SEED

if TYPE_CHECKING:
    from jpeglm.evaluation.output import Output

OutOption = Annotated[Path | None, typer.Option(help="Folder for result.json.")]
PlotOption = Annotated[
    Path | None,
    typer.Option(help="Folder for result.json, plot.png, and sheet.png: pictures as they come."),
]
SeedsOption = Annotated[int, typer.Option(min=1, max=MAX_SEED, help="Seeds: 0, 1, …")]
LimitOption = Annotated[int, typer.Option(min=1, max=MAX_SEED, help="Pictures at most.")]
SplitOption = Annotated[
    str | None,
    typer.Option(
        help="train, validation or all; of what is not prepared by content, as prepare. Default: "
        "all, but of prepared shards, and of what the model was trained on, validation."
    ),
]

EXTRACTOR = "evaluation.features:ExtractorConfig"
SAMPLING = Fields("config:Sampling", skip=("grammar", "guidance"), given=True)
DISTANCES = {
    "distances": Fields(
        EXTRACTOR, only=("extractor",), given=True, default="no Fréchet distances are measured"
    ),
    "network": Fields(EXTRACTOR, skip=("extractor",), given=True),
}
"""An extractor that need not be."""

JUDGES = {
    "complete_as_sampled": "complete as sampled, by the automaton",
    "djpeg_silent": "djpeg decodes it and says nothing",
    "jpegtran_identical": "jpegtran writes the same bytes",
    "pyav_silent": "PyAV decodes it and says nothing",
    "ffmpeg_silent": "ffmpeg decodes it and says nothing",
}
"""Who judges streams, and when one passes."""

evaluate = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure a model on held-out pictures."
)


def claim_output(out: Path | None, *inputs: Path | None, pictures: Path | None = None) -> Output:
    """InputError unless the result, and the folder of pictures, can be written; before the work."""
    from jpeglm.evaluation.output import Output
    from jpeglm.folders import check_writable

    output = Output(out, inputs)
    if pictures is not None:
        check_writable(pictures)
    return output


def engine_device(engine: str, device: str | None) -> str | None:
    """The engine's part of --device, which is the extractor's too."""
    return device if engine == "torch" else None


def finish(
    verb: str, result: dict[str, Any], output: Output, as_json: bool, lines: list[str]
) -> None:
    result = {"evaluated": verb, **result}
    try:
        output.write(verb, result, note)
    finally:  # a disk that is full by now must not cost the figures
        show(result, as_json, lines)


def optional_extractor(
    distances: dict[str, Any], network: dict[str, Any], device: str | None
) -> Any:
    """The extractor that `DISTANCES` name, None if they do not."""
    from jpeglm.evaluation.features import ExtractorConfig, make_extractor

    return make_extractor(ExtractorConfig(**distances, **network), device) if distances else None


@evaluate.command()
def likelihood(
    data: Annotated[
        Path, typer.Argument(help="Prepared shards, or a folder of pictures or films.")
    ],
    checkpoint: CheckpointOption = None,
    split: SplitOption = None,
    limit: LimitOption = 1000,
    labels: Annotated[
        bool,
        typer.Option("--labels/--no-labels", help="Give a class-conditional model the classes."),
    ] = True,
    captions: Annotated[
        bool,
        typer.Option(
            "--captions/--no-captions", help="Give a model trained with captions the captions."
        ),
    ] = True,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bits per image or clip under the model, beside the best coders of the same streams.

    JPEG: Huffman, jpegtran, JPEG XL, Lepton, brunsli; H.264: CAVLC, CABAC.

    \b
    Examples:
      jpeglm evaluate likelihood photos/
      jpeglm evaluate likelihood data --checkpoint runs/train --out measured
    """
    from jpeglm.evaluation.inputs import chosen_split, held_out_streams
    from jpeglm.evaluation.likelihood import likelihood as measure
    from jpeglm.progress import Reporter

    output = claim_output(out, data, checkpoint)
    split = chosen_split(data, split, checkpoint)
    model = open_model(checkpoint, engine, precision, device)
    keys, streams, known, texts = zip(*held_out_streams(data, model, split, limit, checkpoint))
    with Reporter("likelihood", "pictures", as_json) as report:
        result = measure(
            model,
            streams,
            known if labels else None,
            keys,
            texts if captions else None,
            report,
        )
    result |= record_of(checkpoint, model, engine, precision) | {
        "data": str(data),
        "split": split,
        "class_conditional": bool(labels and model.classes and max(known) >= 0),
    }
    finish("likelihood", result, output, as_json, _likelihoods(result))


def _likelihoods(result: dict[str, Any]) -> list[str]:
    """The table, a footnote a row, and why some have none."""
    coders = sorted(result["coders"].items(), key=lambda item: item[1]["bits_per_image"])
    base = next(key for key in result["coders"]["model"] if key.startswith("against_"))
    together = any("together" in row for _, row in coders)
    head = ["", "bits an image", "95 % interval", base.replace("_", " "), "in one file", ""]
    rows = [head]
    for number, (name, row) in enumerate(coders, 1):
        low, high = row["interval"]
        shared = row.get("together")
        rows.append(
            [
                name,
                f"{row['bits_per_image']:,.1f}",
                f"{low:,.0f} to {high:,.0f}",
                f"{100 * row[base]:+.1f} %",
                f"{100 * shared['against_huffman']:+.1f} %" if shared else "",
                f"[{number}]",
            ]
        )
    if not together:
        rows = [row[:4] + row[5:] for row in rows]
    lines = [
        f"{result['pictures']:,} images of {result['distinct_pictures']:,} pictures; intervals are "
        "over pictures"
    ]
    if told := result["captions"]:
        lines.append(f"{told} told by caption, {result['captions_cut']} of those cut to fit")
    lines += ["", *table(rows), ""]
    lines += [f"[{n}] {name}: {result['notes'][name]}" for n, (name, _) in enumerate(coders, 1)]
    if together:
        lines.append("in one file: all pictures under each other, which the coders adapt to")
    return lines + [f"{name} was not run: {why}" for name, why in result["unavailable"].items()]


@evaluate.command()
def classify(
    data: Annotated[
        Path, typer.Argument(help="Prepared shards with classes or captions, or pictures.")
    ],
    checkpoint: CheckpointOption = None,
    split: SplitOption = None,
    limit: LimitOption = 200,
    among: Annotated[
        int,
        typer.Option(min=2, max=MAX_SEED, help="Captions to choose from, the right one included."),
    ] = 100,
    captions: Annotated[
        bool | None,
        typer.Option(
            "--captions/--labels",
            help="Choose among captions or among classes. Default: classes, if there are any.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed for choosing the other captions.")
    ] = 0,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for result.json, and plot.png: which classes are confused."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """How often the right class or caption makes a picture most likely.

    For checkpoints with classes or words. Each picture is read once for every answer.

    \b
    Examples:
      jpeglm evaluate classify test.parquet --checkpoint cifar10 --out measured
      jpeglm evaluate classify data --checkpoint runs/words --among 100
    """
    from jpeglm.evaluation.classify import FIRST, by_caption, by_class
    from jpeglm.evaluation.inputs import chosen_split, held_out_streams
    from jpeglm.progress import Reporter

    output = claim_output(out, data, checkpoint)
    split = chosen_split(data, split, checkpoint)
    model = open_model(checkpoint, engine, precision, device)
    keys, streams, labels, texts = zip(*held_out_streams(data, model, split, limit, checkpoint))
    if captions is None:
        captions = not model.classes
    with Reporter("classify", "pictures", as_json) as report:
        if captions:
            result = by_caption(model, streams, texts, keys, among, seed, report)
        else:
            result = by_class(model, streams, labels, keys, report)
    result |= record_of(checkpoint, model, engine, precision) | {"data": str(data), "split": split}
    low, high = result["interval"]
    found, bits = result["among_the_first"], result["bits"]
    lines = [
        f"{100 * result['accuracy']:.1f} % of {result['pictures']} pictures right (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f}) among {result['among']} {result['answers']}; by "
        f"chance {100 * result['by_chance']:.1f} %",
        f"  left out, for nothing says what is right: {result['left_out']}",
        f"  among the first {FIRST}: {100 * found['accuracy']:.1f} %",
        f"  bits a picture: {bits['right']:,.1f} under the right one, {bits['best_other']:,.1f} "
        f"under the best other, {bits['mean_of_all']:,.1f} on average",
    ]
    finish("classify", result, output, as_json, lines)


@evaluate.command()
@with_options(sampling=replace(SAMPLING, default="the checkpoint's"), **DISTANCES)
def continuation(
    *,
    data: Annotated[Path, typer.Argument(help="Held-out clips: prepared shards, or films.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint folder, a run's, or a shipped one's name. Default: the shipped model "
            "of clips."
        ),
    ] = None,
    keep_frames: Annotated[
        int | None, typer.Option(min=1, help="How many frames to keep. Default: two thirds.")
    ] = None,
    seeds: SeedsOption = 1,
    limit: Annotated[int, typer.Option(min=2, max=MAX_SEED, help="Clips at most.")] = 200,
    split: SplitOption = None,
    sampling: dict[str, Any],
    distances: dict[str, Any],
    network: dict[str, Any],
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """PSNR of a clip's next frames, beside «repeat the last frame».

    \b
    Examples:
      jpeglm evaluate continuation films/ --keep-frames 5 --out measured
    """
    from jpeglm.evaluation.continuation import check_clips
    from jpeglm.evaluation.continuation import continuation as measure
    from jpeglm.evaluation.inputs import chosen_split, held_out_streams
    from jpeglm.places import shipped_checkpoint
    from jpeglm.progress import Reporter

    output = claim_output(out, data, checkpoint)
    split = chosen_split(data, split, checkpoint)
    place = engine_device(engine, device) if distances else device
    model = open_model(checkpoint or shipped_checkpoint("clips"), engine, precision, place)
    check_clips(model)
    made = optional_extractor(distances, network, device)
    keys, streams, *_ = zip(*held_out_streams(data, model, split, limit, checkpoint))
    with Reporter("continuation", "clips", as_json) as report:
        result = measure(
            model, streams, keys, keep_frames, range(seeds), made, report, output.show, **sampling
        )
    result |= record_of(checkpoint, model, engine, precision) | {"data": str(data), "split": split}
    lines = [
        f"{result['clips']} clips of {result['films']} films, {result['keep_frames']} frames kept; "
        "intervals are over films"
    ]
    frames = range(result["keep_frames"] + 1, 1 + result["keep_frames"] + len(
        next(iter(result["rows"].values()))["by_frame"]))  # fmt: skip
    rows = [["", "PSNR, dB", "95 % interval", *(f"frame {number}" for number in frames)]]
    for name, row in result["rows"].items():
        low, high = row["interval"]
        each = [f"{value:.2f}" for value in row["by_frame"]]
        rows.append([name, f"{row['psnr']:.2f}", f"{low:.2f} to {high:.2f}", *each])
    lines += table(rows)
    low, high = result["margin_interval"]
    lines.append(
        f"«model» is {result['margin']:+.2f} dB ({low:+.2f} to {high:+.2f}) from «repeat», and "
        f"nearer to the truth in {100 * result['better']:.0f} % of the clips"
    )
    finish("continuation", result, output, as_json, lines)


@evaluate.command()
@with_options(sampling=SAMPLING)
def validity(
    *,
    checkpoint: CheckpointOption = None,
    n: Annotated[
        int,
        typer.Option(
            "-n", min=1, max=MAX_SEED, help="Pictures to draw with, and without, the grammar."
        ),
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

    \b
    Examples:
      jpeglm evaluate validity --checkpoint runs/train -n 100
    """
    from jpeglm.evaluation.validity import validity as measure
    from jpeglm.progress import Reporter

    output = claim_output(out, checkpoint)
    model = open_model(checkpoint, engine, precision, device)
    with Reporter("validity", "done", as_json) as report:
        result = measure(model, n, seed, report, **sampling)
    result |= record_of(checkpoint, model, engine, precision)
    kinds = {key: result[key] for key in ("with_grammar", "without_grammar")}
    rows = [["", *(f"{key.replace('_', ' ')}, of {row['streams']}" for key, row in kinds.items())]]
    rows += [
        [what, *(str(row[name]) for row in kinds.values())]
        for name, what in JUDGES.items()
        if name in result["with_grammar"]
    ]
    lines = table(rows)
    lines += [f"{name} was not run: {why}" for name, why in result["unavailable"].items()]
    finish("validity", result, output, as_json, lines)
