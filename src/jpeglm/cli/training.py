"""Verbs that train: train, train-vqvae, train-vae."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm.cli.common import (
    BatchPicturesOption,
    ChannelsOption,
    CropsOption,
    DownsamplingOption,
    JsonOption,
    MinutesOption,
    RateOption,
    SeedOption,
    SizeOption,
    StepsOption,
    ThreadsOption,
    finite,
    parse_size,
    show,
)
from jpeglm.config import InputError

verbs = typer.Typer()


@verbs.command()
def train(
    data: Annotated[Path, typer.Argument(help="Prepared shards, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/train"),
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer folder. Default: the one that the token shards were made by."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Model size: 1m, 2m, 3m, 5m, 10m, 30m, 85m, 300m, 1b, 7b.", show_default="2m"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A key of Hugging Face's Llama configuration in place of the size's, as "
            "num_hidden_layers=8; may be repeated.",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint whose weights and size to begin with: a folder, or one that ships "
            "(photos, cifar10, clips). Its tokenizer is the default then."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Budget in steps.")] = 0,
    epochs: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Budget in passes over the data.")
    ] = 0.0,
    minutes: MinutesOption = 0.0,
    optimizer: Annotated[
        str, typer.Option(help="muon (layers' matrices, the rest AdamW), adamw, or auto.")
    ] = "auto",
    learning_rate: Annotated[
        float,
        typer.Option(
            min=0.0,
            callback=finite,
            help="Peak; 0 takes the size's, twice it with muon, half of that with --init.",
        ),
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
        float,
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="Share of class tokens replaced by BOS."
        ),
    ] = 0.0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    compile: Annotated[str, typer.Option(help="auto, on or off.")] = "auto",
    activation_checkpointing: Annotated[
        bool, typer.Option(help="Save memory, compute activations twice.")
    ] = False,
    ema: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Decay of averaged weights; 0 is off.")
    ] = 0.0,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of warm-up.")] = 100,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 500,
    eval_images: Annotated[int, typer.Option(min=0, help="Held-out pictures measured.")] = 256,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    samples: Annotated[int, typer.Option(min=0, help="Pictures drawn at each evaluation.")] = 8,
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with the run in OUT.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a Llama model from scratch or, with --init, further; run it again after a stop.

    OUT/model is the best checkpoint. Under torchrun or `accelerate launch` it trains data-parallel.
    """
    from itertools import islice

    from jpeglm.checkpoint import checkpoint_folder, load_checkpoint
    from jpeglm.data.open import open_data
    from jpeglm.folders import RUN, claim, quoted
    from jpeglm.models.llama import nearest_preset
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer
    from jpeglm.training import TrainConfig

    if init:
        begun = checkpoint_folder(init)
        if preset:
            raise InputError(f"--preset {preset} and --init {init} both say a size; leave one out")
        preset = nearest_preset(load_checkpoint(begun).config)
        tokenizer = tokenizer or begun
    config = TrainConfig(
        preset=preset or "2m",
        model=_overrides(model or []),
        init=str(init or ""),
        steps=steps,
        epochs=epochs,
        minutes=minutes,
        optimizer=optimizer,
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
        if not data.exists():
            raise InputError(f"there is no file or folder {data}")
        made = quoted(out.with_name(f"{out.name}-tokenizer"))
        raise InputError(
            f"--tokenizer is missing and {data} has no token shards; run: jpeglm train-tokenizer "
            f"{quoted(data)} --out {made}, and then this command with --tokenizer {made}"
        )
    loaded = Tokenizer.load(checkpoint_folder(tokenizer))
    if os.environ.get("RANK", "0") == "0":
        claim(out, RUN, inputs=[data, tokenizer, *filter(None, [init])])
    from jpeglm.generation.preview import draw
    from jpeglm.training.lm import train as run  # torch, once all that was given is checked

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
    show(result, as_json, _lines(result))


def _lines(result: dict[str, Any]) -> list[str]:
    """What a run came to, without what it has not made."""
    return [f"{name}: {value}" for name, value in result.items() if value is not None]


def _overrides(words: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` words, values as in JSON."""
    found = {}
    for word in words:
        key, _, value = word.partition("=")
        try:
            found[key] = json.loads(value)
        except ValueError:
            raise InputError(
                f"--model {word} is no KEY=VALUE; give for instance num_hidden_layers=8"
            ) from None
    return found


AutoencoderData = Annotated[
    Path, typer.Argument(help="Pictures in any form that prepare takes, or prepared shards.")
]


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
    from jpeglm.data.settings import PrepareConfig
    from jpeglm.folders import RUN, claim
    from jpeglm.progress import Reporter
    from jpeglm.training.autoencoder import train_autoencoder

    claim(out, RUN, inputs=[data])
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
    show(result, as_json, _lines(result))


@verbs.command("train-vqvae")
def train_vqvae(
    data: AutoencoderData,
    out: Annotated[Path, typer.Option(help="Run folder; OUT/model is the codec folder.")] = Path(
        "runs/vqvae"
    ),
    size: SizeOption = "32",
    crops: CropsOption = 0,
    validation: Annotated[
        float, typer.Option(callback=finite, help="Share of pictures held out.")
    ] = 0.05,
    codes: Annotated[int, typer.Option(help="Size of the codebook.")] = 512,
    code_dim: Annotated[int, typer.Option(min=1, help="Width of its vectors.")] = 32,
    channels: ChannelsOption = 64,
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks a stage.")] = 2,
    downsampling: DownsamplingOption = 4,
    beta: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Weight of the commitment loss.")
    ] = 0.25,
    ema: Annotated[
        float,
        typer.Option(
            min=0.0, callback=finite, help="Decay of the codebook's averages; 0: codebook loss."
        ),
    ] = 0.99,
    restart_below: Annotated[
        float,
        typer.Option(
            min=0.0,
            callback=finite,
            help="Share of even use below which a code restarts; 0: off.",
        ),
    ] = 0.03,
    steps: StepsOption = 0,
    minutes: MinutesOption = 0.0,
    batch: BatchPicturesOption = 128,
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


@verbs.command("train-vae")
def train_vae(
    data: AutoencoderData,
    out: Annotated[Path, typer.Option(help="Run folder; OUT/model is what generate takes.")] = Path(
        "runs/vae"
    ),
    size: SizeOption = "32",
    crops: CropsOption = 0,
    validation: Annotated[
        float, typer.Option(callback=finite, help="Share of pictures held out.")
    ] = 0.05,
    latent: Annotated[int, typer.Option(min=1, help="Numbers in the latent vector.")] = 128,
    channels: ChannelsOption = 64,
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks a stage.")] = 2,
    downsampling: DownsamplingOption = 4,
    beta: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Weight of the KL term.")
    ] = 1.0,
    steps: StepsOption = 0,
    minutes: MinutesOption = 0.0,
    batch: BatchPicturesOption = 128,
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
