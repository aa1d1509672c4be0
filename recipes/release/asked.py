"""What recipes that measure a checkpoint share: how they ask for it and for held-out data, open it,
record what made their figures, and end. They are holes.py, hole_sampling.py and sampling.py.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError
from jpeglm.environment import environment
from jpeglm.evaluation.features import RESNET50, ResNet50
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model


def parser(
    description: str | None, name: str, many: str, usual: int, what: str
) -> argparse.ArgumentParser:
    """CHECKPOINT, DATA, --name with its default, --weights, and the option `many` that says how
    many of `what` are measured, `usual` of them."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("checkpoint", type=Path)
    made.add_argument("data", type=Path, help="prepared data, of which validation is taken")
    made.add_argument(many, type=counted, default=usual, help=what)
    made.add_argument("--name", default=name, help="of what is written")
    made.add_argument("--weights", type=Path, default=RESNET50, help="of ResNet-50")
    return made


def counted(text: str) -> int:
    """An option's whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1")
    return int(text)


def jpeg_model(checkpoint: Path) -> Model:
    """The model, if what it writes is JPEG."""
    model = load(checkpoint)
    if not isinstance(model, Model) or not isinstance(model.codec, JpegCodec):
        raise InputError(f"{checkpoint} writes no JPEG; give a checkpoint of pictures as JPEG")
    return model


def resnet50(weights: Path) -> ResNet50 | None:
    """The network that distances are measured under; without its weights none, which is said, and
    what needs none is measured all the same."""
    if weights.exists():
        return ResNet50(weights)
    print(
        f"there is no file {weights}, so no distances under ResNet-50 are measured; for them run: "
        f"{shlex.join(['python', 'recipes/data/resnet50.py', str(weights)])}",
        file=sys.stderr,
    )
    return None


def made_by(recipe: str) -> dict[str, Any]:
    """The command and the machine behind a result of recipes/RECIPE; the command as a shell takes
    it."""
    return {
        "command": shlex.join(["python", f"recipes/{recipe}", *sys.argv[1:]]),
        "machine": environment("numpy", "Pillow", "torch"),
    }


def run(main: Callable[[], None]) -> None:
    """A recipe from its command line; what the user gave wrong ends it with one sentence."""
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
