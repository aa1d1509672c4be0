"""What is meant where a model is named: a folder, a run's, or one that ships with the package.

checkpoint_folder("photos"), checkpoint_folder("runs/mine"), checkpoint_folder(None)
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from jpeglm.config import InputError, shorten
from jpeglm.folders import RUN, record_of, steps_in
from jpeglm.remote import near


def shipped_checkpoint(name: str = "photos") -> Path:
    """The folder of a checkpoint that is part of the package."""
    folder = asset(name)
    if not folder.is_dir():
        raise InputError(f"this installation ships no checkpoint {name!r}; give --checkpoint DIR")
    return folder


def shipped_checkpoints() -> list[Path]:
    """The folders of all language models that are part of the package."""
    return sorted(path.parent for path in asset("").glob("*/model.safetensors"))


def checkpoint_folder(given: Path | str | None) -> Path:
    """The folder that is meant: itself, the model inside it if it is a run's, the shipped one of
    that name, or the default.

    A folder of pictures may be called `photos` as well: what is no checkpoint does not hide one.
    """
    if given is None:
        return shipped_checkpoint()
    if not isinstance(given, str | os.PathLike) or not str(given) or "\0" in str(given):
        raise InputError(
            f"the checkpoint is {shorten(given)}; give a folder, or the name of one that ships"
        )
    folder, named = near(given), asset(str(given))
    if record_of(folder, RUN) is not None:
        model = folder / "model"
        if model.is_dir():
            return model
        saved = steps_in(folder / "checkpoints")
        if saved:
            return saved[-1]
        raise InputError(
            f"the run in {folder} was stopped before it wrote a model; repeat its command to resume"
        )
    ours = folder.name == str(given) and named.is_dir()
    known = any((folder / name).exists() for name in ("config.json", "codec.json"))
    return named if ours and not known else folder


def checkpoint_name(folder: Path) -> str:
    """How a checkpoint is given to the command line: a shipped one by its name."""
    return folder.name if folder == asset(folder.name) else str(folder)


def asset(name: str) -> Path:
    """A file or folder that is part of the package."""
    return Path(str(resources.files("jpeglm"))) / "assets" / name
