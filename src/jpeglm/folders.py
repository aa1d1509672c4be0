"""Whose files lie in a folder: ours by the folder's own record, or the user's, which stay.

    claim(out, CHECKPOINT, inputs=[source])     # before the work: may it be written at all?

A folder of ours holds a record (`run.json`, `prepare.json`, `config.json`, …) that says what it is.
Of a folder that is replaced as a whole, everything must be ours; of one that we share with the
user, only the names that are about to be written. Inputs are never written over, whatever path,
link or spelling leads to them. Trade-off: what is ours is known by name, not by content: a
`sample-00.jpg` that the user painted over is still ours.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jpeglm.config import InputError
from jpeglm.files import explain, half_of, printable
from jpeglm.remote import Unreachable, is_remote, names_in, near, place, read, there


@dataclass(frozen=True)
class Kind:
    """A kind of folder of ours."""

    what: str
    """With its article."""
    record: str
    """The file whose content proves the kind."""
    proof: Callable[[dict[str, Any]], bool]
    names: tuple[str, ...]
    """Patterns (fnmatch) of what we write into it."""
    whole: bool
    """Whether it is one thing, replaced as a whole, in which nothing else has a place."""
    listed: bool = False
    """Whether of these names only those are ours that the record lists under `files`."""
    also: Kind | None = None
    """The kind whose record must lie beside, where the own one could be another program's."""


CHECKPOINT_FILES = (
    "config.json", "model.safetensors", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "codec.json", "codec.safetensors", "training_state.pt", "README.md",
    "samples.jpg", "shard-*.safetensors",
)  # fmt: skip
PICTURES = Kind(
    "pictures of an earlier run",
    "run.json",
    lambda record: (
        {"settings", "out", "tokens"} <= record.keys() and isinstance(record.get("files"), list)
    ),
    ("original.*", "prompt.*", "completion-*.*", "sample-*.*", "sheet.png", "sheet-*.png",
     "sheet.gif", "sheet-*.gif", "run.json"),
    whole=False,
    listed=True,
)  # fmt: skip
DATA_FORMAT = "jpeglm-dataset"
DATA = Kind(
    "prepared data",
    "prepare.json",
    lambda record: record.get("format") == DATA_FORMAT,
    ("prepare.json", "dataset.json", "rejected.jsonl", "shard-*.parquet",
     "shard-*.tokens.safetensors", "tokens-index.safetensors", "codec.safetensors", "tokenizer"),
    whole=False,
)  # fmt: skip
TOKENIZER = Kind(
    "a tokenizer",
    "codec.json",
    lambda record: "alphabet" in record and "fingerprint" in record,
    ("tokenizer.json", "tokenizer_config.json", "codec.json", "codec.safetensors"),
    whole=True,
)
CHECKPOINT = Kind(
    "a checkpoint",
    "config.json",
    lambda record: record.get("model_type") == "llama",
    CHECKPOINT_FILES,
    whole=True,
    also=TOKENIZER,
)
RUN = Kind(
    "a training run",
    "config.json",
    lambda record: "settings" in record and "parameters" in record,
    ("config.json", "metrics.jsonl", "checkpoints", "model", "samples", "tensorboard", "state.pt",
     "README.md", "curves.png", "samples.jpg", "report.html"),
    whole=False,
)  # fmt: skip
CODEC = Kind(
    "a codec",
    "codec.json",
    lambda record: "codec" in record and "fingerprint" in record,
    ("codec.json", "codec.safetensors"),
    whole=True,
)
EVALUATION = Kind(
    "a result of evaluate",
    "result.json",
    lambda record: "evaluated" in record and isinstance(record.get("files"), list),
    ("result.json", "plot.png", "sheet.png"),
    whole=False,
    listed=True,
)
GGUF = Kind(
    "an export to GGUF",
    "export.json",
    lambda record: record.get("format") == "jpeglm-export" and record.get("to") == "gguf",
    ("export.json", "model.gguf", "README.md", *TOKENIZER.names),
    whole=True,
)
STEP = re.compile(r"step-[0-9]{6,}")
"""The name of a run's checkpoint."""
KINDS = (DATA, GGUF, CHECKPOINT, RUN, TOKENIZER, CODEC, PICTURES, EVALUATION)
"""In this order: checkpoints and exports have a tokenizer's record too, and that is a codec's."""


def quoted(path: Path | str) -> str:
    """A path as it is pasted into a shell, where it is no option."""
    return shell(argument(path))


def argument(path: Path | str) -> str:
    """A path as a word of a command, where it is no option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def shell(word: str) -> str:
    """A word as it is pasted into a shell, in one line; bytes that cannot be printed as bash, zsh
    and POSIX 2024 escape them."""
    if printable(word) == word:
        return shlex.quote(word)
    parts = (
        "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))
        if printable(letter) != letter
        else letter.replace("\\", r"\\").replace("'", r"\'")
        for letter in word
    )
    return f"$'{''.join(parts)}'"


def record_of(folder: Path, kind: Kind) -> dict[str, Any] | None:
    """The folder's record, None if it has none of that kind or it cannot be read."""
    file = place(folder) / kind.record
    try:
        if is_remote(file):
            record = json.loads(read(file))
        elif file.is_symlink() or not file.is_file():
            return None
        else:
            record = json.loads(file.read_bytes())
    except Unreachable:
        raise
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not kind.proof(record):
        return None
    return None if kind.also and record_of(folder, kind.also) is None else record


def kind_of(folder: Path) -> Kind | None:
    """What a folder of ours is, None for one that is the user's."""
    return next((kind for kind in KINDS if record_of(folder, kind) is not None), None)


def steps_in(folder: Path) -> list[Path]:
    """The folders step-000500 … in `folder`, the latest last. A copy of one under another name is
    the user's."""
    found = [path for path in Path(folder).glob("step-*") if STEP.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name[5:]))


def ours(folder: Path, kind: Kind) -> list[str]:
    """The names in `folder` that an earlier run wrote. Pictures and what is replaced as a whole
    are plain files of ours; a run's parts may be links to another disk."""
    record = record_of(folder, kind)
    if record is None:
        return []
    listed = {kind.record, *map(str, record["files"])} if kind.listed else None
    return sorted(
        entry.name
        for entry in Path(folder).iterdir()
        if any(fnmatchcase(entry.name, name) for name in kind.names)
        and (listed is None or entry.name in listed)
        and ((entry.is_file() and not entry.is_symlink()) or not (kind.listed or kind.whole))
    )


def claim(
    out: Path, kind: Kind, *, inputs: Iterable[Path] = (), names: Iterable[str] | None = None
) -> None:
    """InputError unless a `kind` of folder can be written at `out` without harm to the user's.

    inputs: files and folders that are read. names: what is about to be written there, by default
    every name of the kind. Nothing is changed.
    """
    out, wanted = place(out), kind.names if names is None else list(names)
    if is_remote(out):
        _claim_elsewhere(out, kind, wanted)
        return
    near(out)
    if os.path.lexists(out) and not out.is_dir():
        what = "a file" if out.exists() else "a link that leads nowhere"
        raise InputError(f"{out} is {what}, but a folder is to be written; give another name")
    found = kind_of(out)
    if found not in (None, kind) and (found.whole or kind.whole or DATA in (found, kind)):
        raise InputError(f"{out} holds {found.what}; give another folder")
    entries = set(os.listdir(out)) if out.is_dir() else set()
    known = set(ours(out, kind)) if entries else set()
    _keep_inputs(out, list(map(Path, inputs)), known, wanted)
    foreign = {entry for entry in entries - known if not _remains(entry, kind)}
    if kind.whole and foreign:
        raise InputError(
            f"{out / min(foreign)} was not written by jpeglm, and {quoted(out)} would be replaced "
            "as a whole; give another folder"
        )
    for name in wanted:
        taken = [name] if name in foreign else []
        if "*" in name:
            taken = sorted(entry for entry in foreign if fnmatchcase(entry, name))
        # A file system that ignores case has the name though it is not listed.
        if taken or (name not in entries and os.path.lexists(out / name)):
            where = out / (taken[0] if taken else name)
            raise InputError(
                f"{where} was not written by jpeglm here and would be overwritten; "
                "give another folder"
            )
    check_writable(out)


def _claim_elsewhere(out: Path, kind: Kind, wanted: Collection[str]) -> None:
    """The same in a store, which knows neither links nor what may be written before it is."""
    if there(out) == "file":
        raise InputError(f"{out} is a file, but a folder is to be written; give another name")
    entries = names_in(out)
    found = kind_of(out) if entries else None
    if found not in (None, kind):
        raise InputError(f"{out} holds {found.what}; give another folder")
    for entry in sorted(entries) if found is None else ():
        if any(fnmatchcase(entry, name) for name in wanted):
            raise InputError(
                f"{out / entry} was not written by jpeglm here and would be overwritten; "
                "give another folder"
            )


def check_writable(folder: Path) -> None:
    """InputError unless files can be made in `folder`, which need not exist yet; no trace is
    left."""
    made: list[Path] = []
    place = Path(folder)
    try:
        while not os.path.lexists(place):
            made.append(place)
            place = place.parent
        for new in reversed(made):
            new.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise explain(error, Path(folder)) from error
    finally:
        for new in made:
            with suppress(OSError):
                new.rmdir()


@contextmanager
def only_one(out: Path, what: str) -> Iterator[None]:
    """InputError if another `what` is writing to the folder `out`; while the body runs, no other
    one may. A store has no such lock: there it is for the user to start one alone."""
    if is_remote(out):
        yield
        return
    try:
        import fcntl
    except ImportError:  # Windows knows no lock of a folder
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another {what} is writing to {out}; wait for it, or give another folder"
            ) from error
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(handle)


def same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, through links and spellings too."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _remains(name: str, kind: Kind) -> bool:
    """Whether a name is what a killed process left half-written: hidden, with ours in it."""
    half = half_of(name)
    return half is not None and any(fnmatchcase(half, known) for known in kind.names)


def _keep_inputs(out: Path, inputs: list[Path], known: set[str], wanted: Collection[str]) -> None:
    """InputError if an input is `out`, holds it as a part of one thing, or would be replaced."""
    for source in inputs:
        if same(out, source):
            raise InputError(f"{out} is an input and cannot be overwritten; give another folder")
        # Path.resolve raises RuntimeError at links that lead to themselves.
        place, real = Path(os.path.realpath(source)), Path(os.path.realpath(out))
        inside = kind_of(source) if source.is_dir() else None
        if inside is not None and inside.whole and place in real.parents:
            raise InputError(f"{out} lies inside {inside.what} that is read; give another folder")
        if real in place.parents:
            entry = place.relative_to(real).parts[0]
            if entry in known or any(fnmatchcase(entry, name) for name in wanted):
                raise InputError(
                    f"{out / entry} is an input and cannot be overwritten; give another folder"
                )
        for entry in known:
            if source.is_file() and same(out / entry, source):
                raise InputError(
                    f"{out / entry} is an input and cannot be overwritten; give another folder"
                )
