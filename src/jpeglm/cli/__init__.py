"""The command line: the project's road, verb by verb, in pipeline order.

Each verb imports what it needs when it is called, so that `jpeglm --help` is quick. Results go to
stdout (`--json`: one object and nothing else), everything else to stderr. An error is one line;
exit code 1 for bad input, 2 for a wrong command line.
"""

from __future__ import annotations

import io
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any, NoReturn

import typer

from jpeglm import __version__
from jpeglm.cli import (
    data,
    distances,
    evaluation,
    exchange,
    generation,
    inspection,
    serving,
    training,
)
from jpeglm.cli.common import near_paths, note
from jpeglm.config import InputError, LeftOut, Stopped, install
from jpeglm.launch import join_slurm, launched, rank

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Language models that write image files: prepare pictures, train a tokenizer and a Llama "
    "model on their JPEG bytes or symbols, and let it complete or invent pictures. Every file it "
    "writes is valid.",
)

EXTRAS = {
    **dict.fromkeys(("matplotlib", "imagecodecs", "lepton_jpeg", "torchmetrics"), "eval"),
    **dict.fromkeys(("torch_fidelity", "torchvision"), "fid"),
    "diffusers": "vq",
    **dict.fromkeys(("sentencepiece", "google", "huggingface_hub"), "import"),
    "gguf": "gguf",
    "av": "video",
    "ray": "cluster",
    **dict.fromkeys(
        ("fastapi", "uvicorn", "starlette", "multipart", "python_multipart", "prometheus_client"),
        "serve",
    ),
}
"""The extra that brings a module; those not named here come with `train`."""

GRACE = 5.0
"""Seconds in which the first of several processes may say what went wrong, before another does."""

for room in (data, training, generation, exchange, inspection, serving):
    app.registered_commands += room.verbs.registered_commands
evaluation.evaluate.registered_commands += distances.verbs.registered_commands
for command in (*app.registered_commands, *evaluation.evaluate.registered_commands):
    if command.callback:
        command.callback = near_paths(command.callback)
app.add_typer(evaluation.evaluate, name="evaluate")


def _version(asked: bool) -> None:
    if asked:
        print(f"jpeglm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: run the command; errors become one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be no text
            stream.reconfigure(errors="backslashreplace")
    _refuse_empty(sys.argv[1:])
    others = warnings.showwarning
    warnings.simplefilter("always", LeftOut)

    def show(message: Warning | str, category: type[Warning], *more: Any, **most: Any) -> None:
        if issubclass(category, LeftOut):
            note(f"warning: {message}")
        else:
            others(message, category, *more, **most)

    warnings.showwarning = show
    try:
        join_slurm()
        command = typer.main.get_command(app)
        code = command.main(prog_name="jpeglm", standalone_mode=False)
        if sys.stdout is not None:  # closed by `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        _hang_up()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # which typer turns into it
            _hang_up()
        raise
    except InputError as error:
        fail(str(error), 1)
    except Stopped as error:
        fail(str(error), 130)
    except ModuleNotFoundError as error:
        name = (error.name or "jpeglm").split(".")[0]
        if name == "jpeglm":
            raise
        extra = EXTRAS.get(name, "train")
        fail(f"this needs {name}, which is not installed; {install(extra)}", 1)
    except KeyboardInterrupt:
        fail("stopped", 130)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            _drop(sys.stdout)
        fail(f"{name}{error.strerror or error}", 1)
    except Exception as error:
        # Usage errors of the option parser, whose class differs between versions of typer.
        if type(error).__name__ == "Abort":
            fail("stopped", 130)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            sys.exit(2)
        if _no_memory(error):
            why = " ".join(str(error).split()) or "all of it is taken"
            fail(f"the memory does not suffice ({why}); give smaller numbers", 1)
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "jpeglm"
        fail(f"{message()} (see {path} --help)", 2)
    if code == 130:  # typer's answer to Ctrl-C since 0.29
        fail("stopped", 130)
    sys.exit(code if isinstance(code, int) else 0)


MAY_BE_EMPTY = ("--text", "--qualities")
"""Options of which an empty value says something."""


def _refuse_empty(words: Sequence[str]) -> None:
    """An argument that is empty, as "$OUT" is where nobody set it, would be the present folder."""
    for before, word in pairwise(["", *words]):
        option = word[:-1] if word.startswith("--") and word.endswith("=") else before
        if (not word or option is not before) and option not in MAY_BE_EMPTY:
            # After --option=value comes an argument.
            what = option if option.startswith("-") and "=" not in option else "an argument"
            fail(f"{what} is empty; write its value, or leave it out", 2)


def _no_memory(error: Exception) -> bool:
    """Of a processor or of a GPU; torch has no class of its own for the former."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "t allocate memory" in str(error)


def _hang_up() -> NoReturn:
    """End well though whoever read the output has gone, as in `jpeglm … | head -1`."""
    _drop(sys.stdout, sys.stderr)
    sys.exit(0)


def _drop(*streams: Any) -> None:
    """What is left in the streams' buffers has no reader, or no room: Python would try it again at
    the end, and complain."""
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _other() -> str:
    """Which of several processes this is; "" of the first, which speaks for all."""
    try:
        return f"process {rank()} of {launched()}: " if rank() and launched() > 1 else ""
    except InputError:  # this is what is being told
        return ""


def fail(message: str, code: int) -> NoReturn:
    from jpeglm.files import printable

    # One line; blanks inside a path stay as they are.
    line = " ".join(map(str.strip, message.splitlines()))
    if who := _other():
        time.sleep(GRACE)  # what all meet the first one says, and the launcher ends the others
    print(f"jpeglm: {who}{printable(line)}", file=sys.stderr)
    sys.exit(code)
