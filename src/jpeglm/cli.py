"""The command line: the project's road, verb by verb, in pipeline order.

Each verb imports what it needs when it is called, so that `jpeglm --help` is quick. Results go to
stdout (`--json`: one object and nothing else), everything else to stderr. An error is one line;
exit code 1 for bad input, 2 for a wrong command line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm import __version__
from jpeglm.config import InputError, JpegConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Language models that write image files: prepare pictures, train a tokenizer and a Llama "
    "model on their JPEG bytes or symbols, and let it complete or invent pictures. Every file it "
    "writes is valid.",
)

EXTRAS = {"scipy": "eval", "matplotlib": "eval", "imagecodecs": "eval", "lepton_jpeg": "eval"}
"""The extra that brings a module; those not named here come with `train`."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(help="Checkpoint folder; without it the shipped photo model is used."),
]
EngineOption = Annotated[
    str, typer.Option(help="cpu (numba, needs no torch) or torch (any device).")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="Weights in float32, bfloat16 or int8 (cpu engine only). Default: float32."),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Device of the torch engine: cpu, cuda, cuda:1, mps.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(min=0.0, help="1 is the model's own, 0 is greedy.")
]
TopKOption = Annotated[
    int | None, typer.Option(min=0, help="Draw among the k most probable tokens; 0 is off.")
]
TopPOption = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Draw among the most probable tokens of this total."),
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
SeedOption = Annotated[int, typer.Option(min=0, help="Same seed, same pictures.")]
LabelOption = Annotated[
    int | None, typer.Option(min=0, help="Class, for a class-conditional checkpoint.")
]


def show(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a command's result, for a program or for a person."""
    print(json.dumps(result, ensure_ascii=False) if as_json else "\n".join(lines))


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

    if preset not in (None, "paper"):
        raise InputError(f"--preset is {preset!r}; there is one preset, paper")
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
    from jpeglm.codecs import CODECS, open_codec
    from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig, learn_palette

    if name not in CODECS:
        raise InputError(f"--codec is {name!r}; choose one of {', '.join(CODECS)}")
    shape = parse_size(size) if size else (None, None)
    if folder is None and (out / "codec.safetensors").exists():
        folder = out  # a run that goes on
    if folder is not None:
        path = folder / "dataset.json" if folder is not out else folder / "prepare.json"
        if path.exists() and not (folder / "codec.json").exists():
            from jpeglm.codecs import make_codec
            from jpeglm.files import read_json

            return make_codec(read_json(path)["codec"], folder)
        codec = open_codec(folder, *shape)
        if codec.name != name:
            raise InputError(f"{folder} holds a codec {codec.name}, not {name}; give its --codec")
        return codec
    if name == "vq":
        raise InputError("--codec vq needs --codec-dir, the model folder of jpeglm train-vqvae")
    from jpeglm.data.arrays import load_images, to_images

    width, height = shape[0] or 32, shape[1] or 32
    print("learning the palette", file=sys.stderr)
    found = load_images(source, width, height, config, "train", limit=2000)
    palette = learn_palette(to_images(found.pixels), width, height)
    return PixelsCodec(PixelsConfig(width, height, len(palette), fit or "crop"), palette)


def parse_size(text: str) -> tuple[int, int]:
    """`64` or `128x96` (width x height) in pixels."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise InputError(f"--size is {text!r}; write it as 64 or 128x96 (width x height)")
    return int(parts[0]), int(parts[-1])


def sampling_note(sampled: int, seconds: float) -> str:
    return f"{sampled / max(seconds, 1e-9):,.0f} tokens/s"


def _draw(title: str, quiet: bool, call: Any) -> Any:
    """Run `call(progress)` under a progress display of pictures."""
    import time

    from jpeglm.progress import Reporter

    with Reporter(title, "pictures", quiet) as report:
        start = time.perf_counter()

        def progress(done: int, total: int, sampled: int) -> None:
            report(done, total, sampling_note(sampled, time.perf_counter() - start))

        return call(progress)


def _model(checkpoint: Path | None, engine: str, precision: str | None, device: str | None) -> Any:
    from jpeglm.generation.generate import load

    if engine == "cpu":
        from jpeglm.generation.engine_cpu import compiled

        if not compiled():
            print("compiling the engine for this machine, once, about 20 s", file=sys.stderr)
    return load(checkpoint, engine=engine, precision=precision or "float32", device=device)


def _record(checkpoint: Path | None, model: Any, engine: str, precision: str | None) -> dict:
    return {
        "checkpoint": str(checkpoint) if checkpoint else "photos (shipped)",
        "tokenizer": model.tokenizer.fingerprint,
        "codec": model.codec.to_dict(),
        "engine": engine,
        "precision": precision or "float32",
        "version": __version__,
    }


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="JPEG files.")],
    size: Annotated[str | None, typer.Option(help="Demand this size: 64 or 128x96.")] = None,
    quality: Annotated[int | None, typer.Option(help="Demand this quality.")] = None,
    subsampling: Annotated[
        str | None, typer.Option(help="Demand 4:2:0, 4:2:2, 4:4:4 or gray.")
    ] = None,
    restart_interval: Annotated[
        int | None, typer.Option(help="Demand a restart marker after so many MCUs; 0: none.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Demand the settings of this checkpoint's codec.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell of each file whether it is a canonical, complete stream, or at which byte it is not.

    What is not demanded is read from the file itself. Exit code 1 if any file fails.
    """
    from jpeglm.codecs.check import check_file
    from jpeglm.files import read_bytes

    wanted: dict[str, Any] = {
        "quality": quality,
        "subsampling": subsampling,
        "restart_interval": restart_interval,
    }
    if checkpoint is not None:
        from jpeglm.tokenizer import Tokenizer

        settings = Tokenizer.load(checkpoint).codec.to_dict()
        wanted |= {name: settings[name] for name in settings if name not in ("codec", "fit")}
    if size is not None:
        wanted["width"], wanted["height"] = parse_size(size)
    results: list[dict[str, Any]] = []
    lines: list[str] = []
    for file in files:
        try:
            verdict = check_file(read_bytes(file), wanted)
            valid, reason, fits, codec = (
                verdict.valid,
                verdict.reason,
                verdict.dc_fits,
                verdict.codec,
            )
        except InputError as error:
            valid, reason, fits, codec = False, str(error), True, None
        results.append(
            {"file": str(file), "valid": valid, "reason": reason, "dc_fits": fits, "codec": codec}
        )
        note = "" if fits else " (running DC values leave int16: decoders may disagree)"
        lines.append(f"{file}: {'valid' + note if valid else reason}")
    failed = sum(not result["valid"] for result in results)
    leaving = sum(bool(result["valid"] and not result["dc_fits"]) for result in results)
    summary = {"files": results, "failed": failed, "dc_leaves_int16": leaving}
    if len(files) > 1:
        lines.append(f"{len(files) - failed} of {len(files)} files are valid")
    show(summary, as_json, lines)
    if failed:
        raise typer.Exit(1)


SizeOption = Annotated[
    str | None, typer.Option(help="Pixels, as 64 or 128x96 (width x height). Default: 64.")
]


@app.command()
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder tree of pictures, WebDataset tars, Parquet with an image column, or a "
            "dataset saved by Hugging Face datasets."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    codec: Annotated[
        str,
        typer.Option(
            help="jpeg; vq, the codes of a VQ-VAE (needs --codec-dir); pixels, a learnt palette."
        ),
    ] = "jpeg",
    codec_dir: Annotated[
        Path | None,
        typer.Option(
            help="Codec folder: of train-vqvae, a diffusers VQModel, or data prepared with pixels."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="paper: 256 px, quality 25, 4:2:0, a marker every MCU.")
    ] = None,
    size: SizeOption = None,
    quality: Annotated[
        int | None, typer.Option(help="JPEG quality, 1 to 100. Default: 25.")
    ] = None,
    subsampling: Annotated[
        str | None, typer.Option(help="4:2:0, 4:2:2, 4:4:4 or gray. Default: 4:2:0.")
    ] = None,
    restart_interval: Annotated[
        int | None, typer.Option(help="MCUs between restart markers; 0 (default) is none.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="crop (default) the middle out, or pad with black.")
    ] = None,
    crops: Annotated[
        int, typer.Option(help="Random crops of many scales, and flips, of each picture; 0: whole.")
    ] = 0,
    validation: Annotated[
        float, typer.Option(help="Share of the pictures held out, chosen by their content.")
    ] = 0.05,
    split: Annotated[
        str, typer.Option(help="hash (by content), or all to train, or all to validation.")
    ] = "hash",
    labels: Annotated[
        str, typer.Option(help="source (where it has some), folder (names of folders) or none.")
    ] = "source",
    seed: SeedOption = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Write token shards beside, for hosts without numba.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: all cores.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Encode pictures into Parquet shards of canonical streams.

    Unreadable pictures are listed in rejected.jsonl and do not stop the run. Killed at any moment,
    the same command goes on.
    """
    from jpeglm.codecs import make_codec
    from jpeglm.data.prepare import PrepareConfig
    from jpeglm.data.prepare import prepare as prepare_data
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer

    config = PrepareConfig(
        crops=crops, validation=validation, split=split, labels=labels, seed=seed
    )
    made: Any
    if codec == "jpeg" and codec_dir is None:
        settings = codec_settings(preset, size, quality, subsampling, restart_interval, fit)
        made = make_codec({"codec": "jpeg", **settings})
    else:
        only = {"--preset": preset, "--quality": quality, "--subsampling": subsampling,
                "--restart-interval": restart_interval}  # fmt: skip
        given = [name for name, value in only.items() if value is not None]
        if given:
            raise InputError(f"{given[0]} belongs to the codec jpeg, not to {codec}")
        made = learned_codec(codec, codec_dir, source, out, size, fit, config)
    with Reporter("prepare", "pictures") as report:
        result = prepare_data(
            source,
            out,
            made,
            config,
            tokenizer=Tokenizer.load(tokenizer) if tokenizer else None,
            workers=workers,
            progress=lambda done, total, streams: report(done, total, f"{streams} streams"),
        )
        for warning in result["warnings"]:
            report.say(f"warning: {warning}")
    show({"out": str(out), **result}, as_json, _prepared(out, result))


def _prepared(out: Path, result: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{count} {split}" for split, count in result["streams"].items())
    lines = [f"{out}/: {counts} streams of {result['pictures']} pictures"]
    if result["rejected"]:
        lines.append(f"{result['rejected']} pictures set aside, see {out / 'rejected.jsonl'}")
    return lines


@app.command("train-tokenizer")
def train_tokenizer(
    data: Annotated[Path, typer.Argument(help="Prepared shards, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for the tokenizer's files.")] = Path(
        "tokenizer"
    ),
    alphabet: Annotated[
        str | None,
        typer.Option(
            help="Of JPEG: jpeg-block-symbols (default), jpeg-symbols, bytes, or paper-bytes (the "
            "preset's). Of vq and pixels: codes."
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            help="Tokens in all, BOS and EOS included. Default: 1024; of codes, no merges."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="paper: plain BPE 320 over whole streams of 256 px, quality 25."),
    ] = None,
    classes: Annotated[
        int, typer.Option(min=0, help="Class tokens, one for each label of the data.")
    ] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Streams to learn from.")] = 10_000,
    size: SizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a BPE vocabulary from training streams and write tokenizer.json."""
    from itertools import islice

    from jpeglm.codecs import make_codec
    from jpeglm.data.shards import open_data
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer

    wanted = None
    if preset or size or not (data / "dataset.json").exists():
        settings = codec_settings(preset, size, None, None, None)
        wanted = make_codec({"codec": "jpeg", **settings})
    dataset = open_data(data, wanted)
    codec = dataset.codec
    alphabet = alphabet or ("paper-bytes" if preset else codec.alphabets[0])
    if vocab_size is None:
        # Codes are the units that a learned codec chose; merging them is left to who asks for it.
        codes = codec.alphabet("codes").size + 2 if "codes" in codec.alphabets else 0
        vocab_size = codes or (320 if preset else 1024)
    with Reporter("train-tokenizer", "merges") as report:
        streams = (stream for _, stream, _ in islice(dataset.streams("train"), limit))
        tokenizer = Tokenizer.train(streams, codec, alphabet, vocab_size, classes, report)
    tokenizer.save(out)
    result = {
        "out": str(out),
        "alphabet": alphabet,
        "symbols": tokenizer.n_base,
        "merges": len(tokenizer.merges),
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
    }
    show(
        result,
        as_json,
        [
            f"{out / 'tokenizer.json'}: {alphabet}, {tokenizer.n_base} symbols, "
            f"{len(tokenizer.merges)} merges, {tokenizer.vocab_size} tokens"
        ],
    )


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Prepared shards, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/train"),
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer folder. Default: the one that the token shards were made by."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Model size: 2m, 3m, 5m, 10m, 30m, 85m, 300m, 1b, 7b.")
    ] = "2m",
    steps: Annotated[int, typer.Option(min=0, help="Budget in steps.")] = 0,
    epochs: Annotated[float, typer.Option(min=0.0, help="Budget in passes over the data.")] = 0.0,
    minutes: Annotated[float, typer.Option(min=0.0, help="Budget in minutes.")] = 0.0,
    learning_rate: Annotated[
        float, typer.Option(min=0.0, help="Peak; 0 takes the preset's.")
    ] = 0.0,
    batch_tokens: Annotated[
        int, typer.Option(min=2, help="Tokens of a forward pass, over all processes.")
    ] = 4096,
    accumulation: Annotated[int, typer.Option(min=1, help="Forward passes a step.")] = 1,
    packing: Annotated[
        str, typer.Option(help="pictures: one a row; chunks: concatenated and cut, as the paper.")
    ] = "pictures",
    max_length: Annotated[
        int, typer.Option(min=0, help="Tokens of a row and of the context; 0: from the data.")
    ] = 0,
    class_dropout: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of class tokens replaced by BOS.")
    ] = 0.0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    compile: Annotated[str, typer.Option(help="auto, on or off.")] = "auto",
    activation_checkpointing: Annotated[
        bool, typer.Option(help="Save memory, compute activations twice.")
    ] = False,
    ema: Annotated[float, typer.Option(min=0.0, help="Decay of averaged weights; 0 is off.")] = 0.0,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of warm-up.")] = 100,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 500,
    eval_images: Annotated[int, typer.Option(min=0, help="Held-out pictures measured.")] = 256,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    samples: Annotated[int, typer.Option(min=0, help="Pictures drawn at each evaluation.")] = 8,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch decides.")] = 0,
    seed: SeedOption = 0,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with the run in OUT.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a Llama model from scratch; run it again to go on after a stop.

    OUT/model is the best checkpoint. Under torchrun or `accelerate launch` it trains data-parallel.
    """
    from itertools import islice

    from jpeglm.data.shards import open_data
    from jpeglm.generation.preview import draw
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer
    from jpeglm.training import TrainConfig
    from jpeglm.training.lm import train as run

    config = TrainConfig(
        preset=preset,
        steps=steps,
        epochs=epochs,
        minutes=minutes,
        learning_rate=learning_rate,
        warmup=warmup,
        batch_tokens=batch_tokens,
        gradient_accumulation=accumulation,
        packing=packing,
        max_length=max_length,
        class_dropout=class_dropout,
        precision=precision,
        compile=compile,
        activation_checkpointing=activation_checkpointing,
        ema=ema,
        eval_every=eval_every,
        eval_images=eval_images,
        save_every=save_every,
        samples=samples,
        threads=threads,
        seed=seed,
    )
    if tokenizer is None and (data / "tokenizer").is_dir():
        tokenizer = data / "tokenizer"
    if tokenizer is None:
        raise InputError(
            f"--tokenizer is missing and {data} has no token shards; "
            f"run: jpeglm train-tokenizer {data}"
        )
    loaded = Tokenizer.load(tokenizer)

    def sampler(model: Any, _: Any, count: int, seed: int) -> Any:
        held_out = islice(open_data(data, loaded.codec).streams("validation"), 2)
        return draw(model, loaded, count, seed, [stream for _, stream, _ in held_out])

    with Reporter("train", "steps") as report:
        result = run(
            data,
            loaded,
            out,
            config,
            resume=resume,
            progress=report,
            say=report.say,
            sampler=sampler,
        )
    show(result, as_json, [f"{name}: {value}" for name, value in result.items()])


AutoencoderData = Annotated[
    Path, typer.Argument(help="Pictures in any form that prepare takes, or prepared shards.")
]
CropsOption = Annotated[int, typer.Option(min=0, help="Random crops of each picture, as prepare.")]
StepsOption = Annotated[int, typer.Option(min=0, help="Budget in steps.")]
MinutesOption = Annotated[float, typer.Option(min=0.0, help="Budget in minutes.")]
RateOption = Annotated[float, typer.Option(min=1e-7, help="Peak learning rate.")]
PicturesOption = Annotated[int, typer.Option("--batch", min=1, help="Pictures a step.")]
ChannelsOption = Annotated[int, typer.Option(help="Width of the convolutions.")]
DownsamplingOption = Annotated[int, typer.Option(help="Pixels a side of one code: 2, 4, 8, 16.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch decides.")]


def _autoencoder(
    title: str,
    data: Path,
    out: Path,
    shape: tuple[int, int],
    crops: int,
    validation: float,
    model_config: Any,
    config: Any,
    as_json: bool,
) -> None:
    from jpeglm.data.arrays import load_images
    from jpeglm.data.prepare import PrepareConfig
    from jpeglm.progress import Reporter
    from jpeglm.training.autoencoder import train_autoencoder

    views = PrepareConfig(crops=crops, validation=validation)
    with Reporter("read", "pictures") as reading:
        found = load_images(data, *shape, views, "train", progress=reading)
        held_out = load_images(data, *shape, views, "validation", limit=config.eval_images)
    with Reporter(title, "steps") as report:
        result = train_autoencoder(
            found.pixels,
            held_out.pixels,
            out,
            model_config,
            config,
            progress=report,
            say=report.say,
        )
    show(result, as_json, [f"{name}: {value}" for name, value in result.items()])


@app.command("train-vqvae")
def train_vqvae(
    data: AutoencoderData,
    out: Annotated[Path, typer.Option(help="Run folder; OUT/model is the codec folder.")] = Path(
        "runs/vqvae"
    ),
    size: SizeOption = "32",
    crops: CropsOption = 0,
    validation: Annotated[float, typer.Option(help="Share of pictures held out.")] = 0.05,
    codes: Annotated[int, typer.Option(help="Size of the codebook.")] = 512,
    code_dim: Annotated[int, typer.Option(min=1, help="Width of its vectors.")] = 32,
    channels: ChannelsOption = 64,
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks a stage.")] = 2,
    downsampling: DownsamplingOption = 4,
    beta: Annotated[float, typer.Option(min=0.0, help="Weight of the commitment loss.")] = 0.25,
    ema: Annotated[
        float, typer.Option(min=0.0, help="Decay of the codebook's averages; 0: codebook loss.")
    ] = 0.99,
    restart_below: Annotated[
        float, typer.Option(min=0.0, help="Share of even use below which a code restarts; 0: off.")
    ] = 0.03,
    steps: StepsOption = 0,
    minutes: MinutesOption = 0.0,
    batch: PicturesOption = 128,
    learning_rate: RateOption = 1e-3,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 500,
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a VQ-VAE, the codec of `prepare --codec vq`; run it again to go on after a stop."""
    from jpeglm.models.vqvae import VqVaeConfig
    from jpeglm.training.autoencoder import AutoencoderConfig

    model = VqVaeConfig(codes, code_dim, channels, blocks, downsampling, beta, ema, restart_below)
    config = AutoencoderConfig(
        steps=steps,
        minutes=minutes,
        batch=batch,
        learning_rate=learning_rate,
        eval_every=eval_every,
        threads=threads,
        seed=seed,
    )
    shape = parse_size(size or "32")
    _autoencoder("train-vqvae", data, out, shape, crops, validation, model, config, as_json)


@app.command("train-vae")
def train_vae(
    data: AutoencoderData,
    out: Annotated[Path, typer.Option(help="Run folder; OUT/model is what generate takes.")] = Path(
        "runs/vae"
    ),
    size: SizeOption = "32",
    crops: CropsOption = 0,
    validation: Annotated[float, typer.Option(help="Share of pictures held out.")] = 0.05,
    latent: Annotated[int, typer.Option(min=1, help="Numbers in the latent vector.")] = 128,
    channels: ChannelsOption = 64,
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks a stage.")] = 2,
    downsampling: DownsamplingOption = 4,
    beta: Annotated[float, typer.Option(min=0.0, help="Weight of the KL term.")] = 1.0,
    steps: StepsOption = 0,
    minutes: MinutesOption = 0.0,
    batch: PicturesOption = 128,
    learning_rate: RateOption = 1e-3,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 500,
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a VAE, whose prior `generate` samples; run it again to go on after a stop."""
    from jpeglm.models.vae import VaeConfig
    from jpeglm.training.autoencoder import AutoencoderConfig

    width, height = parse_size(size or "32")
    model = VaeConfig(width, height, latent, channels, blocks, downsampling, beta)
    config = AutoencoderConfig(
        steps=steps,
        minutes=minutes,
        batch=batch,
        learning_rate=learning_rate,
        eval_every=eval_every,
        threads=threads,
        seed=seed,
    )
    _autoencoder("train-vae", data, out, (width, height), crops, validation, model, config, as_json)


@app.command()
def generate(
    n: Annotated[int, typer.Option("-n", min=1, help="How many pictures.")] = 16,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("samples"),
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    label: LabelOption = None,
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
    """Invent pictures: sample-00.jpg …, sheet.png and run.json."""
    from jpeglm.generation.outputs import write_pictures

    model = _model(checkpoint, engine, precision, device)
    pictures = _draw(
        "generate",
        as_json,
        lambda progress: model.generate(
            n,
            seed=seed,
            label=label,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            grammar=grammar,
            max_tokens=max_tokens,
            batch=batch,
            progress=progress,
        ),
    )
    record = _record(checkpoint, model, engine, precision)
    result = write_pictures(pictures, model.codec, out, "sample", record)
    show(result, as_json, _told(result, "sample"))


@app.command()
def complete(
    photo: Annotated[Path, typer.Argument(help="A picture of any size and format.")],
    keep: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the picture to keep, from the top.")
    ] = 0.5,
    n: Annotated[int, typer.Option("-n", min=1, help="How many completions.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures (default: PHOTO's name).")
    ] = None,
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    label: LabelOption = None,
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
    """Keep the upper part of a photo and let the model write the rest of the file.

    Writes original.jpg, prompt.jpg, completion-00.jpg …, sheet.png and run.json.
    """
    from jpeglm.codecs.images import open_image
    from jpeglm.generation.outputs import write_pictures

    image = open_image(photo)
    model = _model(checkpoint, engine, precision, device)
    pictures = _draw(
        "complete",
        as_json,
        lambda progress: model.complete(
            image,
            keep,
            n,
            seed=seed,
            label=label,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            grammar=grammar,
            max_tokens=max_tokens,
            batch=batch,
            progress=progress,
        ),
    )
    record = _record(checkpoint, model, engine, precision) | {"photo": str(photo)}
    out = out or Path(f"{photo.stem}-completions")
    result = write_pictures(pictures, model.codec, out, "completion", record)
    show(result, as_json, _told(result, "completion"))


def _told(result: dict[str, Any], kind: str) -> list[str]:
    pictures = [name for name in result["files"] if name.startswith(kind)]
    return [
        f"{result['out']}/: {pictures[0]} to {pictures[-1]} and sheet.png"
        if len(pictures) > 1
        else f"{result['out']}/: {pictures[0]} and sheet.png",
        f"{result['tokens']} tokens in {result['seconds']:.2f} s "
        f"({result['tokens_per_second']:,.0f} tokens/s), "
        f"{result['bits_per_image']:,.0f} bits a picture under the model",
    ]


evaluate = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure a model on held-out pictures."
)
app.add_typer(evaluate, name="evaluate")


@evaluate.command()
def likelihood(
    data: Annotated[Path, typer.Argument(help="Prepared shards, or a folder of pictures.")],
    checkpoint: CheckpointOption = None,
    split: Annotated[str, typer.Option(help="validation or train.")] = "validation",
    limit: Annotated[int, typer.Option(min=1, help="Pictures at most.")] = 1000,
    engine: EngineOption = "cpu",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bits per image under the model, beside Huffman, jpegtran, JPEG XL, Lepton and brunsli."""
    from itertools import islice

    from jpeglm.data.shards import open_data
    from jpeglm.evaluation.likelihood import likelihood as measure
    from jpeglm.files import write_json
    from jpeglm.progress import Reporter

    model = _model(checkpoint, engine, precision, device)
    prepared = (data / "dataset.json").exists()
    # A folder of pictures has no split: all of it is measured.
    rows = open_data(data, model.codec).streams(split if prepared else None)
    chosen = list(islice(rows, limit))
    keys = [key for key, _, _ in chosen]
    streams = [stream for _, stream, _ in chosen]
    labels = [label for _, _, label in chosen]
    if not streams:
        raise InputError(f"{data} has no {split} pictures; choose another --split")
    with Reporter("likelihood", "pictures", as_json) as report:
        result = measure(model, streams, labels, keys, report)
    result |= _record(checkpoint, model, engine, precision) | {"data": str(data), "split": split}
    if out:
        write_json(out, result)
    lines = [
        f"{result['pictures']} images of {result['distinct_pictures']} pictures, bits an image "
        "(95 % interval over pictures), against Huffman"
    ]
    for name, row in sorted(result["coders"].items(), key=lambda item: item[1]["bits_per_image"]):
        low, high = row["interval"]
        lines.append(
            f"  {name:20s} {row['bits_per_image']:9,.1f}  ({low:,.0f} to {high:,.0f})  "
            f"{100 * row['against_huffman']:+6.1f} %"
        )
    lines += [f"  {name}: not run, {why}" for name, why in result["unavailable"].items()]
    show(result, as_json, lines)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder of ours.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[str, typer.Option(help="hf: Hugging Face transformers.")] = "hf",
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint for other tools."""
    from jpeglm.checkpoint import export_hugging_face, load_checkpoint

    if to != "hf":
        raise InputError(f"--to is {to!r}; hf is the form that can be written")
    export_hugging_face(load_checkpoint(checkpoint), out, dtype)
    show(
        {"out": str(out), "to": to, "dtype": dtype},
        as_json,
        [f"{out}/: loads with transformers.AutoModelForCausalLM and AutoTokenizer"],
    )


def main() -> None:
    """Entry point: run the command; errors become one line and an exit code."""
    try:
        command = typer.main.get_command(app)
        code = command.main(prog_name="jpeglm", standalone_mode=False)
    except InputError as error:
        fail(str(error), 1)
    except ModuleNotFoundError as error:
        name = (error.name or "jpeglm").split(".")[0]
        if name == "jpeglm":
            raise
        extra = EXTRAS.get(name, "train")
        fail(f"this needs {name}, which is not installed; run: pip install 'jpeglm[{extra}]'", 1)
    except KeyboardInterrupt:
        fail("stopped", 130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        fail(f"{name}{error.strerror or error}", 1)
    except Exception as error:
        # Usage errors of the option parser, whose class differs between versions of typer.
        if type(error).__name__ == "Abort":
            fail("stopped", 130)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            sys.exit(2)
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "jpeglm"
        fail(f"{message()} (see {path} --help)", 2)
    sys.exit(code if isinstance(code, int) else 0)


def fail(message: str, code: int) -> None:
    print("jpeglm: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
