"""Verbs that train: train, train-vqvae, train-vae."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jpeglm.cli.common import JsonOption, note, show
from jpeglm.cli.options import Fields, with_options
from jpeglm.config import InputError

if TYPE_CHECKING:
    from jpeglm.data.settings import PrepareConfig
    from jpeglm.models.vae import VaeConfig
    from jpeglm.models.vqvae import VqVaeConfig
    from jpeglm.training.autoencoder import AutoencoderConfig

verbs = typer.Typer()


@verbs.command()
@with_options(settings=Fields("training:TrainConfig", given=True))
def train(
    *,
    data: Annotated[Path, typer.Argument(help="Prepared shards, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/train"),
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer folder. Default: the one that the token shards were made by."),
    ] = None,
    settings: dict[str, Any],
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
    from jpeglm.files import read_json
    from jpeglm.folders import RUN, claim, quoted
    from jpeglm.models.llama import nearest_preset
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer
    from jpeglm.training import TrainConfig

    init = settings.get("init")
    if init:
        begun = checkpoint_folder(Path(init))
        if "preset" in settings:
            raise InputError(
                f"--preset {settings['preset']} and --init {init} both say a size; leave one out"
            )
        settings["preset"] = nearest_preset(load_checkpoint(begun).config)
        tokenizer = tokenizer or begun
    config = TrainConfig(**settings)
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
    record = data / "dataset.json"
    if loaded.text is None and record.exists() and read_json(record).get("captions"):
        note(f"{data} has captions, but the tokenizer {tokenizer} no text: they are left out")
    if os.environ.get("RANK", "0") == "0":
        claim(out, RUN, inputs=[data, tokenizer, *([Path(init)] if init else [])])
    from jpeglm.generation.preview import draw
    from jpeglm.training.lm import train as run  # torch, once all that was given is checked

    def sampler(model: Any, _: Any, count: int, seed: int) -> Any:
        found = open_data(data, loaded.codec).streams("validation")
        held_out = list(islice(found, max(2, count if loaded.text else 0)))
        return draw(model, loaded, count, seed, held_out)

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


AutoencoderData = Annotated[
    Path, typer.Argument(help="Pictures in any form that prepare takes, or prepared shards.")
]


VIEWS = Fields("data.settings:PrepareConfig", only=("crops", "validation"))


@verbs.command("train-vqvae")
@with_options(
    size=Fields("codecs.vq:VqConfig", only=("size",), given=True),
    model=Fields("models.vqvae:VqVaeConfig"),
    views=VIEWS,
    config=Fields("training.autoencoder:AutoencoderConfig"),
)
def train_vqvae(
    *,
    data: AutoencoderData,
    out: Annotated[Path, typer.Option(help="Run folder; OUT/model is the codec folder.")] = Path(
        "runs/vqvae"
    ),
    size: dict[str, int],
    model: VqVaeConfig,
    views: PrepareConfig,
    config: AutoencoderConfig,
    as_json: JsonOption = False,
) -> None:
    """Train a VQ-VAE, the codec of `prepare --codec vq`; run it again to go on after a stop."""
    from jpeglm.codecs.vq import VqConfig

    shape = (size.get("width", VqConfig.width), size.get("height", VqConfig.height))
    _autoencoder("train-vqvae", data, out, shape, views, model, config, as_json)


@verbs.command("train-vae")
@with_options(
    model=Fields("models.vae:VaeConfig"),
    views=VIEWS,
    config=Fields("training.autoencoder:AutoencoderConfig"),
)
def train_vae(
    *,
    data: AutoencoderData,
    out: Annotated[Path, typer.Option(help="Run folder; OUT/model is what generate takes.")] = Path(
        "runs/vae"
    ),
    model: VaeConfig,
    views: PrepareConfig,
    config: AutoencoderConfig,
    as_json: JsonOption = False,
) -> None:
    """Train a VAE, whose prior `generate` samples; run it again to go on after a stop."""
    size = (model.width, model.height)
    _autoencoder("train-vae", data, out, size, views, model, config, as_json)


def _autoencoder(
    title: str,
    data: Path,
    out: Path,
    size: tuple[int, int],
    views: PrepareConfig,
    model: VqVaeConfig | VaeConfig,
    config: AutoencoderConfig,
    as_json: bool,
) -> None:
    from jpeglm.data.arrays import load_images
    from jpeglm.folders import RUN, claim
    from jpeglm.progress import Reporter
    from jpeglm.training.autoencoder import train_autoencoder

    claim(out, RUN, inputs=[data])
    with Reporter("read", "pictures") as reading:
        found = load_images(data, *size, views, "train", progress=reading)
        held_out = load_images(data, *size, views, "validation", limit=config.eval_images)
    with Reporter(title, "steps") as report:
        result = train_autoencoder(
            found.pixels, held_out.pixels, out, model, config, progress=report, say=report.say
        )
    show(result, as_json, _lines(result))
