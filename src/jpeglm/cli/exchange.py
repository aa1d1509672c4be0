"""Verbs between our checkpoints and data and other people's tools: import, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm.cli.common import CheckpointOption, JsonOption, draw, open_model, show
from jpeglm.cli.options import Fields, constant, with_options
from jpeglm.config import InputError

verbs = typer.Typer()

LICENCE = constant("LICENCE", "checkpoint.card")


@verbs.command(name="import")
@with_options(settings=Fields("config:JpegConfig", given=True, default="the paper's"))
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with a Llama in Hugging Face's form, or hf:ORG/NAME on its hub."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    settings: dict[str, Any],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="The tokenizer on whose ids it was trained (a folder, or a checkpoint's), of a "
            "model without tokenizer.model. Default: the source's codec.json and tokenizer.json."
        ),
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", help="The card's, as Hugging Face names it.")
    ] = LICENCE,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint of somebody else's Llama: JPEG-LM's authors', or one trained on our tokens.

    Of the authors' form, a sentencepiece vocabulary over bytes becomes a tokenizer of ours; the
    settings are those of the pictures that it was trained on. Weights may be safetensors or pickles
    (tensors alone are read), whole or in shards, and keep their type. They are converted one by
    one, so a model of 13 GB needs little memory.

    \b
    Examples:
      jpeglm import released-7b/ --out jpeg-lm
      jpeglm import hf:ORG/NAME --out jpeg-lm --license llama2
      jpeglm import fine-tuned/ --out mine --tokenizer runs/train
    """
    from jpeglm.files import printable
    from jpeglm.integrations.importing import import_model
    from jpeglm.places import checkpoint_folder

    words = checkpoint_folder(tokenizer) if tokenizer else None
    made = import_model(source, out, settings, words, licence)
    lines = [
        f"{printable(out)}/: {made.parameters:,} parameters in {made.dtype}, {made.vocabulary} "
        "tokens",
        *([f"without an id: {', '.join(made.dropped)}"] if made.dropped else []),
    ]
    show({**asdict(made), "out": str(out)}, as_json, lines)


FORMS = ("hf", "gguf", "images", "webdataset")
"""What `export` writes: models, then pictures."""


@verbs.command()
def export(
    data: Annotated[
        Path | None,
        typer.Argument(help="A prepared folder, for images and webdataset.", show_default=False),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    checkpoint: CheckpointOption = None,
    to: Annotated[
        str,
        typer.Option(
            help="Of a checkpoint: hf (transformers, vLLM, a model hub) or gguf (llama.cpp). Of "
            "prepared data: images (whole files in folders) or webdataset (in tars)."
        ),
    ] = "hf",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of weights: bfloat16 (the default) or float32; of gguf also float16 or q8_0."
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=16,
            help="Drawn for the sheet of hf's card; 0: it has none. Default: 16, or 0 beyond 200 M "
            "parameters, which take long for them.",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="Of hf's card, as Hugging Face names it: apache-2.0, cc-by-4.0 …. Default: what "
            "the checkpoint's card states, or unknown.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint, or prepared pictures, for other people's tools.

    A run's model/ loads in transformers as it is. hf writes it in the dtype you want, with a card,
    README.md: front matter for a hub, a sheet drawn by the model, and code that turns its ids into
    a file under the grammar. The rows of prepared data hold streams without tables; images and
    webdataset write whole files that any viewer opens, with labels and captions.

    \b
    Examples:
      jpeglm export --checkpoint runs/train --out to-share --license cc-by-4.0
      jpeglm export --checkpoint runs/train --out for-llama-cpp --to gguf --dtype q8_0
      jpeglm export data/photos64 --out pictures --to images
    """
    if to not in FORMS:
        raise InputError(f"--to is {to!r}; choose one of {', '.join(FORMS)}")
    of_data = to in FORMS[2:]
    if of_data and data is None:
        raise InputError(f"--to {to} writes prepared pictures; give their folder before --out")
    if not of_data and data is not None:
        raise InputError(f"--to {to} writes a checkpoint; give it by --checkpoint, not {data}")
    given = {"checkpoint": checkpoint, "dtype": dtype, "samples": samples, "license": licence}
    useless = {"hf": (), "gguf": ("samples", "license")}.get(to, tuple(given))
    for name in useless:
        if given[name] is not None:
            raise InputError(f"--{name} says nothing with --to {to}; leave it out")
    dtype = dtype or "bfloat16"
    if data is not None:
        _export_pictures(data, out, to, as_json)
    elif to == "gguf":
        _export_gguf(checkpoint, out, dtype, as_json)
    else:
        _export_model(checkpoint, out, dtype, samples, licence, as_json)


def _export_model(
    checkpoint: Path | None,
    out: Path,
    dtype: str,
    samples: int | None,
    licence: str | None,
    as_json: bool,
) -> None:
    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.checkpoint.card import check_licence
    from jpeglm.files import printable
    from jpeglm.folders import CHECKPOINT, claim
    from jpeglm.generation import export as exporting
    from jpeglm.places import checkpoint_folder

    if licence is not None:
        check_licence(licence)
    folder = checkpoint_folder(checkpoint)
    claim(out, CHECKPOINT, inputs=[folder])
    opened, drawn = load_checkpoint(folder), None
    samples = exporting.usual_samples(opened.config) if samples is None else samples
    if samples:
        model = open_model(folder, "cpu", None, None)
        drawn = draw("draw", as_json, lambda told: model.generate(samples, progress=told))
    exporting.export(opened, out, drawn, dtype, licence)
    show(
        {"out": str(out), "to": "hf", "dtype": dtype, "samples": samples},
        as_json,
        [
            f"{printable(out)}/: loads with transformers.AutoModelForCausalLM and AutoTokenizer",
            f"{printable(out / 'README.md')}: its card, with code that draws",
        ],
    )


def _export_gguf(checkpoint: Path | None, out: Path, dtype: str, as_json: bool) -> None:
    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.files import printable
    from jpeglm.integrations.gguf import export_gguf
    from jpeglm.places import checkpoint_folder

    made = export_gguf(load_checkpoint(checkpoint_folder(checkpoint)), out, dtype)
    lines = [
        f"{printable(made.file)}: {made.bytes / 1e6:,.1f} MB, for llama.cpp; give it ids, not text",
        *([f"in float16, not q8_0: {', '.join(made.float16)}"] if made.float16 else []),
    ]
    result = {"out": str(out), "to": "gguf", "dtype": dtype, **asdict(made)}
    show(result | {"file": str(made.file)}, as_json, lines)


def _export_pictures(data: Path, out: Path, to: str, as_json: bool) -> None:
    from jpeglm.files import printable
    from jpeglm.integrations.pictures import export_pictures
    from jpeglm.progress import Reporter

    with Reporter("export", "pictures", as_json) as report:
        made = export_pictures(data, out, to, lambda done, total: report(done, total, ""))
    counts = ", ".join(f"{count} {split}" for split, count in made.pictures.items())
    loader = {"images": "imagefolder", "webdataset": "webdataset"}[to]
    show(
        {"out": str(out), "to": to, **asdict(made)},
        as_json,
        [
            f"{printable(out)}/: {counts}, {made.bytes / 1e6:,.1f} MB of pictures; "
            f'datasets.load_dataset("{loader}") reads it'
        ],
    )
