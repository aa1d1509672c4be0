"""What the verbs share: options that mean the same everywhere, models, results."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm import __version__
from jpeglm.cli.options import complete_checkpoint, constant
from jpeglm.config import MAX_SEED, InputError, shorten

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint folder, a run's, or a shipped one's name: photos (the default), avatars, "
        "cifar10, clips.",
        autocompletion=complete_checkpoint,
    ),
]
EngineOption = Annotated[
    str, typer.Option(help="cpu (numba, needs no torch) or torch (any device).")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="Weights in int8 (the cpu engine's default), bfloat16 or float32 (torch's)."),
]
DeviceOption = Annotated[str | None, typer.Option(help="Device for torch: cpu, cuda, cuda:1, mps.")]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        min=2, help="Most tokens of a sequence, prompt included. Default: the model's context."
    ),
]
BATCH = constant("BATCH", "generation.model")
BatchOption = Annotated[int, typer.Option(min=1, help="Pictures drawn together.")]
SeedOption = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same pictures.")]
LabelOption = Annotated[
    str | None,
    typer.Option(help="Class, by number or name, for a class-conditional checkpoint."),
]
TextOption = Annotated[
    str | None,
    typer.Option(
        help="Caption: what the picture should show, for a checkpoint trained with captions."
    ),
]


def near_paths(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, which is not called with addresses in the place of paths of this machine; what it
    reads from elsewhere it takes as text."""

    @functools.wraps(verb)
    def run(**values: Any) -> None:
        from jpeglm.remote import near

        for value in values.values():
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path):
                    near(path)
        verb(**values)

    return run


def show(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a command's result, for a program or for a person."""
    from jpeglm.files import printable, to_json

    print(to_json(result) if as_json else "\n".join(map(printable, lines)))


def table(rows: Sequence[Sequence[str]], aligned: str = "") -> list[str]:
    """Lines of columns two blanks apart; aligned: `<` or `>` a column, by default the first to the
    left and the others to the right."""
    columns = len(rows[0])
    aligned = aligned or "<" + ">" * (columns - 1)
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths)
        ).rstrip()
        for row in rows
    ]


def numbers(given: str, option: str, example: str) -> list[int]:
    """Whole numbers with commas between them, as many as `example` has."""
    parts, count = given.split(","), example.count(",") + 1
    try:
        found = [int(part) for part in parts]
    except ValueError:
        found = []
    if len(found) != count:
        raise InputError(f"{option} is {shorten(given)}; give {count} whole numbers: {example}")
    return found


def note(line: str) -> None:
    """A line beside the result; a reader that has gone away (`2>&1 | head -1`) stops no work."""
    from jpeglm.files import printable

    with suppress(BrokenPipeError):
        print(printable(line), file=sys.stderr, flush=True)


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


def note_first_frame(photo: Path) -> None:
    """Say that of an animation, or a document of several pages, the first picture is taken."""
    from jpeglm.codecs.images import holds_more
    from jpeglm.files import printable

    if holds_more(photo):
        note(f"{printable(photo)} holds several pictures; the first is used")


def open_model(
    checkpoint: Path | None, engine: str, precision: str | None, device: str | None
) -> Any:
    from jpeglm.generation.loading import load

    return load(checkpoint, engine=engine, precision=precision, device=device)


def record_of(
    checkpoint: Path | None, model: Any, engine: str, precision: str | None
) -> dict[str, Any]:
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
