"""Options come from the dataclasses of settings: all of their fields, with their defaults.

tests/golden/options.json freezes what the command line takes: verb → option → [type, default,
first line of the help]. After a change that is meant, rewrite it:

    JPEGLM_REGENERATE=1 python -m pytest tests/unit/test_options.py
"""

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import typer
from typer.models import ArgumentInfo

from jpeglm import cli
from jpeglm.cli.data import CODECS, FOUND
from jpeglm.cli.options import Fields, read, with_options
from jpeglm.config import InputError, Settings, bounded

GOLDEN = Path(__file__).parents[1] / "golden" / "options.json"
VERBS = {
    "prepare": ["data.choose:CodecChoice", "data.settings:PrepareConfig", *CODECS.values()],
    "train-tokenizer": ["data.vocabulary:TokenizerConfig"],
    "train": ["training:TrainConfig"],
    "train-vae": ["models.vae:VaeConfig", "training.autoencoder:AutoencoderConfig"],
    "train-vqvae": ["models.vqvae:VqVaeConfig", "training.autoencoder:AutoencoderConfig"],
    "generate": ["config:Sampling"],
    "complete": ["config:Sampling"],
    "serve": ["serving.settings:ServeConfig"],
    "studio": ["serving.settings:ServeConfig"],
    "evaluate frechet": ["evaluation.features:ExtractorConfig"],
    **{
        f"evaluate {name}": [
            "evaluation.inputs:ReferenceConfig", "evaluation.features:ExtractorConfig"
        ]
        for name in ("completion", "unconditional", "reconstruction", "longtail")
    },
    "evaluate continuation": ["evaluation.features:ExtractorConfig"],
}  # fmt: skip
"""The dataclasses whose every field each verb takes."""
CLASSES = sorted({where for wheres in VERBS.values() for where in wheres})


class Taken(NamedTuple):
    """An option or argument as a verb declares it to typer."""

    shown: str
    kind: str
    default: Any
    help: str


def taken():
    """verb → parameter → what is declared of it"""
    groups = {"": cli.app.registered_commands}
    for group in cli.app.registered_groups:
        assert group.typer_instance is not None
        groups[f"{group.name} "] = group.typer_instance.registered_commands
    found = {}
    for prefix, registered in groups.items():
        for command in registered:
            verb = prefix + (command.name or command.callback.__name__)
            found[verb] = {}
            for one in inspect.signature(command.callback, eval_str=True).parameters.values():
                if one.annotation is typer.Context:
                    continue
                kind, info = get_args(one.annotation)
                kind = kind.__name__ if isinstance(kind, type) else str(kind)
                kind = kind.replace("pathlib.Path", "Path").replace("pathlib._local.", "")
                shown = f"--{one.name.replace('_', '-')}"
                if isinstance(info, ArgumentInfo):
                    shown = one.name
                elif name := [info.default, *(info.param_decls or ())]:
                    shown = name[0] if isinstance(name[0], str) else shown
                default = None if one.default is inspect.Parameter.empty else one.default
                default = str(default) if isinstance(default, Path) else default
                found[verb][one.name] = Taken(shown, kind, default, info.help)
    return found


def pretty(found):
    """JSON, an option a line."""
    verbs = []
    for verb, own in found.items():
        rows = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in own.items()]
        verbs.append(f" {json.dumps(verb)}: {{\n" + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(verbs) + "\n}\n"


def imported(where):
    module, name = where.split(":")
    return getattr(import_module(f"jpeglm.{module}"), name)


def test_the_command_line_is_the_frozen_one():
    found = {
        verb: {one.shown: [one.kind, one.default, one.help.split(". ")[0]] for one in own.values()}
        for verb, own in taken().items()
    }
    if os.environ.get("JPEGLM_REGENERATE"):
        GOLDEN.write_text(pretty(found))
    frozen = json.loads(GOLDEN.read_text())
    assert found.keys() == frozen.keys()
    for verb, known in frozen.items():
        assert found[verb] == known, verb


def test_options_whose_empty_value_says_something_are_let_through():
    said = {one.shown for own in taken().values() for one in own.values() if "empty:" in one.help}
    assert said <= set(cli.MAY_BE_EMPTY)


@pytest.mark.parametrize("where", CLASSES)
def test_the_source_says_what_the_dataclass_is(where):
    kind = imported(where)
    true = {one.name: one for one in fields(kind)}
    known = {one.name: one for one in read(where)}
    assert list(known) == list(true)
    for name, one in true.items():
        default = one.default
        if default is MISSING:
            default = None  # made by a factory: an empty dict
            assert one.default_factory() == {}
        assert (known[name].default, known[name].kind) == (default, one.type)
        limits = one.metadata or {"least": None, "most": None}
        assert (known[name].least, known[name].most) == (limits["least"], limits["most"])
        assert known[name].help, f"{where} {name} has no docstring"


@pytest.mark.parametrize("verb", VERBS)
def test_every_field_is_an_option_with_its_default(verb):
    """And with its help: no option of that name is declared beside the dataclass."""
    declared = taken()[verb]
    for where in VERBS[verb]:
        coded = where in CODECS.values()
        for one in read(where):
            if one.name in ("width", "height"):
                assert "size" in declared
            elif not (coded and one.name in FOUND):
                assert one.name in declared, f"{verb} has no --{one.name}"
                found = declared[one.name]
                assert found.default in (None, one.default), f"{verb} --{one.name}"
                assert coded or one.help.rstrip(".") in found.help, f"{verb} --{one.name}"


@dataclass(frozen=True)
class Painting(Settings):
    """A painting, for the tests below."""

    width: int = 8
    """Pixels."""
    height: int = 4
    """Pixels."""
    coats: int = bounded(2, least=1, most=9)
    """Coats of paint;
    one is `thin`."""
    shine: float = bounded(0.5, least=0, below=1)
    """Of the varnish."""
    framed: bool = True
    """In wood."""
    notes: dict[str, int] = field(default_factory=dict)
    """KEY=VALUE."""

    def __post_init__(self) -> None:
        self.check_bounds()


@pytest.fixture
def paint(monkeypatch):
    """A command line of one verb that takes a `Painting`, or what was given of it."""
    source = Path(__file__).read_text()
    monkeypatch.setattr("jpeglm.cli.options._text", lambda module: source)
    read.cache_clear()

    def run(*words, given=False):
        app, seen = typer.Typer(add_completion=False, rich_markup_mode=None), []

        @app.command()
        @with_options(painting=Fields("easel:Painting", given=given))
        def verb(*, painting: Painting) -> None:
            seen.append(painting)

        command = typer.main.get_command(app)
        monkeypatch.setattr("jpeglm.cli.options.import_module", lambda name: sys.modules[__name__])
        command.main([*map(str, words)], standalone_mode=False)
        return seen[0] if seen else None

    yield run
    read.cache_clear()


def test_a_verb_receives_the_dataclass_of_what_was_given(paint):
    assert paint() == Painting()
    found = paint(
        "--size", "16x32", "--coats", 9, "--no-framed", "--notes", "a=1", "--notes", "b=2"
    )
    assert found == Painting(16, 32, 9, framed=False, notes={"a": 1, "b": 2})


def test_or_a_dict_of_that_alone(paint):
    assert paint(given=True) == {}
    # A default that is given stands against a checkpoint's or a preset's.
    assert paint("--coats", 2, "--size", 8, given=True) == {"coats": 2, "width": 8, "height": 8}


def test_help_and_bounds(paint, capsys):
    paint("--help")
    text = " ".join(capsys.readouterr().out.split())
    for words in ("Coats of paint; one is thin. [default: 2; 1<=x<=9]", "--framed / --no-framed",
                  "[default: 8x4]", "--notes KEY=VALUE", "--shine"):  # fmt: skip
        assert words in text, text
    for words in (("--coats", 10), ("--coats", 0), ("--shine", "nan"), ("--shine", -1)):
        with pytest.raises(typer.BadParameter) as refused:
            paint(*words)
        assert words[0] in refused.value.format_message()
    with pytest.raises(InputError, match=re.escape("shine is 1.0; it must be from 0 to below 1")):
        paint("--shine", 1)
    with pytest.raises(InputError, match="KEY=VALUE"):
        paint("--notes", "a")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("generate --checkpoint ", ["avatars", "cifar10", "clips", "photos"]),
        ("evaluate likelihood data --checkpoint p", ["photos"]),
        ("train data --init ci", ["cifar10"]),
        ("prepare photos data --like cl", ["clips"]),
        ("train data --preset 1", ["1m", "10m", "1b"]),
        ("prepare photos data --preset ", ["paper"]),
        ("expo", ["export"]),
        ("generate --checkpoint runs/", []),  # shells then offer files
    ],
)
def test_the_shell_completes_names_and_loads_nothing_heavy(words, offered):
    code = (
        "import os, sys\nfrom jpeglm.cli import main\nerr = os.fdopen(os.dup(2), 'w')\ntry:\n"
        "    main()\nfinally:\n"
        "    print(*{'torch', 'numba', 'numpy', 'PIL'} & sys.modules.keys(), file=err)"
    )
    asked = {"_JPEGLM_COMPLETE": "complete_bash", "COMP_WORDS": f"jpeglm {words}"}
    asked["COMP_CWORD"] = str(words.count(" ") + 1)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered, "\n")


def test_help_loads_nothing_heavy():
    """Of a verb whose settings stand in modules that import torch or numba."""
    program = (
        "import sys\nfrom jpeglm import cli\nsys.argv = ['jpeglm', *sys.argv[1:], '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n"
        "    print(*{'torch', 'numba', 'numpy', 'PIL', 'pyarrow'} & sys.modules.keys())"
    )
    for verb in ("train-vae", "generate", "prepare"):
        done = subprocess.run([sys.executable, "-c", program, verb], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "", verb


def verbs_of_the_line():
    """(words of a verb, its click command)"""
    for name, command in typer.main.get_command(cli.app).commands.items():
        below = getattr(command, "commands", None)
        yield from (((name, n), c) for n, c in below.items()) if below else [((name,), command)]


@pytest.mark.parametrize("words, command", [*verbs_of_the_line()], ids=lambda one: " ".join(one)
                         if isinstance(one, tuple) else "")  # fmt: skip
def test_the_help_has_examples_that_parse(words, command, capsys):
    """As they stand in it, unbroken; with options that the verb takes, and values in range."""
    with pytest.raises(SystemExit):
        command.main(["--help"], prog_name=" ".join(("jpeglm", *words)))
    text = capsys.readouterr().out
    lines = [line.split() for line in text.split("Examples:")[1].splitlines() if "jpeglm " in line]
    assert lines
    for name, *rest in lines:
        assert (name, *rest[: len(words)]) == ("jpeglm", *words)
        command.make_context(" ".join(words), rest[len(words) :])


def test_a_default_is_said_once():
    """By the help's own words where typer knows none, else by typer alone."""
    for verb, own in taken().items():
        for one in own.values():
            told = "Default:" in one.help or "(the default)" in one.help
            assert one.default is None or not told, f"{verb} {one.shown}: {one.help}"


def test_train_vqvae_has_one_size():
    size = taken()["train-vqvae"]["size"]
    assert (size.default, "Default" in size.help) == ("32", False)
