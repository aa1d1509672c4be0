"""Verbs that train: train, train-vqvae, train-vae."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jpeglm.cli.common import JsonOption, note, show, table
from jpeglm.cli.options import Fields, with_options
from jpeglm.config import InputError, Stopped
from jpeglm.launch import launched, rank

if TYPE_CHECKING:
    from jpeglm.data.settings import PrepareConfig
    from jpeglm.models.vae import VaeConfig
    from jpeglm.models.vqvae import VqVaeConfig
    from jpeglm.training.autoencoder import AutoencoderConfig

verbs = typer.Typer()
MANY_BYTES = 100_000_000
"""Of streams, whose tokens are a hundred million or so: half a minute of one core."""


@verbs.command()
@with_options(settings=Fields("training:TrainConfig", given=True))
def train(
    *,
    source: Annotated[
        str, typer.Argument(metavar="DATA", help="Prepared shards, or a folder of pictures.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/train"),
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Tokenizer folder. Default: the run's, or the one that DATA's token shards were "
            "made by, or one that is learnt into OUT-tokenizer."
        ),
    ] = None,
    settings: dict[str, Any],
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Resume the run in OUT.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a Llama model from scratch or, with --init, from a checkpoint.

    The same command resumes a stopped run. With --minutes alone it chooses size and warm-up for
    this machine and says what to expect. OUT holds README.md, which explains the run; curves.png;
    model, the best checkpoint; samples, sheets drawn at each evaluation; metrics.jsonl, a row for
    every --log-every steps and each evaluation, from step 0 on; tensorboard. Processes that
    torchrun, accelerate launch or srun start together train one run (torchrun
    --nproc-per-node 8 -m jpeglm train …); --strategy fsdp splits a model over them
    (docs/scaling.md).

    \b
    Examples:
      jpeglm train data --minutes 30
      jpeglm train data --minutes 240 --preset 5m --out runs/large
      jpeglm train data --init photos --minutes 30 --out runs/further
    """
    from itertools import islice

    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.data.loader import made_in_memory
    from jpeglm.data.open import open_data
    from jpeglm.files import read_json
    from jpeglm.folders import RUN, claim, quoted
    from jpeglm.places import checkpoint_folder
    from jpeglm.progress import Reporter
    from jpeglm.remote import near
    from jpeglm.tokenizer import Tokenizer
    from jpeglm.training import TrainConfig

    data = near(source)
    init = settings.get("init")
    if init:
        begun = checkpoint_folder(Path(init))
        if "preset" in settings:
            raise InputError(
                f"--preset {settings['preset']} and --init {init} both set a size; leave one out"
            )
        load_checkpoint(begun)  # InputError where it is none, before the data are read
        tokenizer = tokenizer or begun
    config = TrainConfig(**settings)
    if launched() == 1:  # of several, the first tells it once they have met
        config.check_processes(1)
    if not data.exists():
        raise InputError(f"there is no file or folder {data}")
    tokenizer = tokenizer or _tokenizer(data, out)
    loaded = Tokenizer.load(tokenizer)
    record = data / "dataset.json"
    if (
        rank() == 0
        and loaded.text is None
        and record.exists()
        and read_json(record).get("captions")
    ):
        note(f"{data} has captions, but the tokenizer {tokenizer} no text: they are left out")
    if rank() == 0 and record.exists() and (size := made_in_memory(data, loaded)) > MANY_BYTES:
        note(f"{data} has no token shards of this tokenizer: each start makes tokens of "
             f"{size / 1e6:,.0f} MB of streams, and each process holds them all; its jpeglm "
             f"prepare with --tokenizer {quoted(tokenizer)} makes them once")  # fmt: skip
    if rank() == 0:
        read = [data, *([Path(init)] if init else [])]
        claim(out, RUN, inputs=read if tokenizer == out / "model" else [*read, tokenizer])
    from jpeglm.generation.preview import draw
    from jpeglm.training.lm import train as run  # torch, once all that was given is checked

    def sampler(model: Any, own: Tokenizer, count: int, seed: int) -> Any:
        found = open_data(data, own.codec).streams("validation")
        held_out = list(islice(found, max(2, count if own.text else 0)))
        return draw(model, own, count, seed, held_out)

    with Reporter("train", "steps", quiet=rank() > 0) as report:
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
    if rank() == 0:
        show(result, as_json, _trained(out, result))
    _end(result)


def _end(result: dict[str, Any]) -> None:
    """Stopped where the run was, so that what a script has behind it does not begin."""
    if result["stopped"]:
        raise Stopped(f"stopped after step {result['steps']}; the same command resumes from there")


def _tokenizer(data: Path, out: Path) -> Path:
    """The tokenizer of a run that is told none: that of the run in OUT, the one that DATA's token
    shards were made by, or one that is learnt now, beside OUT."""
    from jpeglm.data.vocabulary import TokenizerConfig, learn_tokenizer
    from jpeglm.files import atomic_folder
    from jpeglm.folders import RUN, TOKENIZER, claim, quoted, record_of
    from jpeglm.progress import Reporter

    made = out.with_name(f"{out.name}-tokenizer")
    for found in (out / "model", data / "tokenizer", made):
        if record_of(found, TOKENIZER) is not None:
            return found
    if launched() > 1:
        raise InputError(
            f"--tokenizer is missing and {data} has no token shards; run: jpeglm train-tokenizer "
            f"{quoted(data)} --out {quoted(made)}, and then this command"
        )
    claim(out, RUN, inputs=[data])
    claim(made, TOKENIZER, inputs=[data])
    with Reporter("train-tokenizer", "merges") as report:
        tokenizer = learn_tokenizer(data, TokenizerConfig(), {}, report)
        with atomic_folder(made, TOKENIZER.names) as draft:
            tokenizer.save(draft)
        report.say(f"a tokenizer of {tokenizer.vocab_size} tokens was learnt into {made}")
    return made


PAGES = {
    "curves.png": "the curves",
    "samples.jpg": "some of the sheets, over time",
    "README.md": "all of this, and how to go on",
    "report.html": "the same as one file for a browser",
}
"""What every run says of itself."""


def _trained(out: Path, result: dict[str, Any]) -> list[str]:
    """What a run came to: its curve, its bits beside those of others, where what lies."""
    from jpeglm.files import read_json
    from jpeglm.progress import clock
    from jpeglm.training.curves import Curves
    from jpeglm.training.summary import standing

    curves = Curves.read(out)
    lines = [*curves.text(), ""] if curves.text() else []
    if rows := standing(read_json(out / "config.json"), curves):
        own = next(iter(curves.others), "")
        lines += [*table([["", "bits a picture", f"against {own}" if own else ""], *rows]), ""]
    ended = "stopped after" if result["stopped"] else "finished:"
    lines.append(
        f"{ended} {result['steps']:,} steps, {clock(result['seconds'])}, "
        f"{result['images']:,} pictures, {result['tokens'] / 1e6:.1f} M tokens, "
        f"{result['parameters'] / 1e6:.1f} M parameters"
    )
    places = {
        "model": result["model"] and "the best weights, for every other command",
        "samples": "sheets drawn at each evaluation",
        "metrics.jsonl": "the figures, a row each",
        "tensorboard": f"the same; tensorboard --logdir {out / 'tensorboard'}",
        **PAGES,
    }
    lines += [*table([[str(out / name), what] for name, what in places.items()
                      if what and (out / name).exists()], "<<")]  # fmt: skip
    return [*lines, *(f"warning: {line}" for line in result["warnings"])]


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
    """Train a VQ-VAE, the codec of `prepare --codec vq`; the same command resumes a stopped run.

    \b
    Examples:
      jpeglm train-vqvae photos/ --size 64 --minutes 15
    """
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
    """Train a VAE, whose prior `generate` samples; the same command resumes a stopped run.

    \b
    Examples:
      jpeglm train-vae photos/ --size 32 --minutes 15
    """
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
    if launched() > 1:
        raise InputError(f"{title} runs in one process, and {launched()} were launched; start it "
                         "without a launcher")  # fmt: skip
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
            found.pixels, held_out.pixels, out, model, config,
            data=data, views=views, progress=report, say=report.say,
        )  # fmt: skip
    rows = [[name.replace("_", " "), f"{value}"] for name, value in result.items()]
    more = {
        "metrics.jsonl": "a row each --log-every steps and each evaluation",
        "samples": "held-out pictures above, what the model makes of them below",
        "tensorboard": f"the same figures; tensorboard --logdir {out / 'tensorboard'}",
        **PAGES,
    }
    rows += [[str(out / name), what] for name, what in more.items() if (out / name).exists()]
    show(result, as_json, table(rows, "<<"))
    _end(result)
