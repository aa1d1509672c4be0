"""Options from settings: a dataclass' fields are a verb's options, so that each is written once.

    @verbs.command()
    @with_options(config=Fields("training.autoencoder:AutoencoderConfig"))
    def train_vae(data: …, config: AutoencoderConfig, as_json: JsonOption = False) -> None: …

A field gives its name (`_` becomes `-`), type and default, the docstring below it the help,
`bounded` the range. Where the verb runs, it receives the dataclass, made of what was given; or,
with `given=True`, a dict of just that, where something else than the dataclass says the rest (a
checkpoint, a preset). Fields `width` and `height` are one option, --size.

The dataclass is read as text, and imported when its verb runs: `jpeglm --help` and `jpeglm
train-vae --help` load neither torch nor numba. Trade-off: a default is an expression of literals
and of constants of the package; a test compares all of them with the dataclasses themselves.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from jpeglm.config import InputError

SOURCE = Path(__file__).parents[1]
KEYWORD = inspect.Parameter.KEYWORD_ONLY
TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "Path": Path}


def finite(value: float | None) -> float | None:
    """An option's value, unless it is NaN or infinite, which pass every range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def parse_size(text: str) -> tuple[int, int]:
    """`64` or `128x96` (width x height) in pixels."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"--size is {text!r}; write it as 64 or 128x96 (width x height)")
    return int(parts[0]), int(parts[-1])


def numbers(
    option: str, text: str, kind: type[int] | type[float], form: str, most: float = math.inf
) -> list[Any]:
    """An option's numbers from 0 to `most`, with commas between; `form`: how they are written."""
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= number <= most and math.isfinite(number) for number in found):
        raise InputError(f"{option} is {text!r}; write {form}")
    return found


def complete_checkpoint(incomplete: str) -> list[str]:
    """Shipped models' names, for the shell; where none fits, shells offer files by themselves."""
    from jpeglm.places import shipped_checkpoints

    return [f.name for f in shipped_checkpoints() if f.name.startswith(incomplete)]


def complete_preset(context: typer.Context, incomplete: str) -> list[str]:
    """Sizes of models, for the shell; of the verbs before `train`, the paper's settings."""
    from jpeglm.models.llama import PRESETS

    known = PRESETS if context.info_name == "train" else ("paper",)
    return [name for name in known if name.startswith(incomplete)]


COMPLETE: dict[str, Callable[..., list[str]]] = {
    "init": complete_checkpoint,
    "like": complete_checkpoint,
    "preset": complete_preset,
}
"""What the shell offers for a setting."""


class Field(NamedTuple):
    """A field as its dataclass' source has it."""

    name: str
    kind: str
    """The annotation."""
    default: Any
    help: str
    """The docstring below it, on one line."""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Fields:
    """The fields that become options: of one dataclass, `module:Class` within jpeglm; or of several
    by a name for each, whose fields of one name are one option (then with `given`)."""

    where: str | Mapping[str, str]
    only: tuple[str, ...] = ()
    """These alone; () is all."""
    skip: tuple[str, ...] = ()
    given: bool = False
    """The verb receives a dict of what was given, in place of the dataclass."""
    default: str = ""
    """Whose default holds, in words, where it is not the dataclass'."""

    def options(self) -> dict[str, tuple[Any, Any]]:
        """Of each option its type, as typer reads it, and its default."""
        several = isinstance(self.where, Mapping)
        owners = self.where if isinstance(self.where, Mapping) else {"": self.where}
        found: dict[str, dict[str, Field]] = {}
        for owner, where in owners.items():
            for field in _sized(read(where)):
                if field.name not in self.skip and field.name in (self.only or (field.name,)):
                    found.setdefault(field.name, {})[owner] = field
        made = {}
        for name, fields in found.items():
            field = next(iter(fields.values()))
            note = field.help
            if several and len(fields) < len(owners):
                note = f"{note.rstrip('.')} ({', '.join(fields)})."
            if self.default:
                note += f" Default: {self.default}."
            elif several:
                note += f" Default: {_defaults(fields)}."
            default = None if several or self.default else field.default
            made[name] = _option(field._replace(help=note, default=default))
        return made

    def receive(self, values: dict[str, Any]) -> Any:
        """What the verb receives: the options that were given, as it wants them."""
        values = {
            name: _pairs(name, value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        if "size" in values:
            values["width"], values["height"] = parse_size(values.pop("size"))
        if self.given:
            return values
        module, name = str(self.where).split(":")
        return getattr(import_module(f"jpeglm.{module}"), name)(**values)


def with_options(**parameters: Fields) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a verb: in the place of each of these parameters typer sees the fields' options."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        shown = [inspect.Parameter("context", KEYWORD, annotation=typer.Context)]
        owned: dict[str, list[str]] = {}
        for name, parameter in inspect.signature(verb).parameters.items():
            if name in parameters:
                options = parameters[name].options()
                owned[name] = list(options)
                shown += [
                    inspect.Parameter(option, KEYWORD, annotation=kind, default=default)
                    for option, (kind, default) in options.items()
                ]
            else:
                kind = eval(parameter.annotation, verb.__globals__)
                shown.append(parameter.replace(annotation=kind, kind=KEYWORD))

        @functools.wraps(verb)
        def run(context: typer.Context, **values: Any) -> None:
            given = {name: values.pop(name) for names in owned.values() for name in names}
            given = {name: value for name, value in given.items() if _was_given(context, name)}
            for parameter, names in owned.items():
                own = {name: given[name] for name in names if name in given}
                values[parameter] = parameters[parameter].receive(own)
            verb(**values)

        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return run

    return decorate


def _was_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _option(field: Field) -> tuple[Any, Any]:
    """(type as typer reads it, default)"""
    kind = field.kind.removesuffix(" | None")
    if kind.startswith("dict"):
        return Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=field.help)], None
    info = typer.Option(
        help=field.help,
        min=field.least,
        max=field.most,
        callback=finite if kind == "float" else None,
        autocompletion=COMPLETE.get(field.name),
    )
    default = None if field.default == "" else field.default
    return Annotated[TYPES[kind] | None, info], default


def _pairs(option: str, words: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` words, values as in JSON."""
    found = {}
    for word in words:
        key, _, value = word.partition("=")
        try:
            found[key] = json.loads(value)
        except ValueError:
            raise InputError(
                f"--{option} {word} is not KEY=VALUE; give for instance num_hidden_layers=8"
            ) from None
    return found


def _sized(fields: tuple[Field, ...]) -> Iterator[Field]:
    """The fields, width and height as one."""
    named = {field.name: field for field in fields}
    for field in fields:
        if "width" not in named or field.name not in ("width", "height"):
            yield field
        elif field.name == "width":
            width, height = field.default, named["height"].default
            size = None if width is None else f"{width}x{height}" if width != height else f"{width}"
            usual = "Pixels, as 64 or 128x96 (width x height)."
            yield Field("size", "str", size, field.help if size is None else usual)


def _defaults(fields: dict[str, Field]) -> str:
    """`crop; avc: pad`: the first owner's default, and those of others where they differ."""
    first, *others = fields.items()
    shown = [str(first[1].default)]
    shown += [f"{o}: {f.default}" for o, f in others if f.default != first[1].default]
    return "; ".join(shown)


# Source


@functools.cache
def read(where: str) -> tuple[Field, ...]:
    """The fields of the dataclass `module:Class`, out of its source: what stands before its first
    method."""
    module, name = where.split(":")
    _, _, text = _text(module).partition(f"\nclass {name}(")
    text = re.split(r"\n\S|\n    (?:def |@)", f"class {name}({text}", maxsplit=1)[0]
    made = ast.parse(text).body[0]
    body = made.body if isinstance(made, ast.ClassDef) else []
    found = []
    for node, after in zip(body, [*body[1:], None]):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        kind = ast.unparse(node.annotation)
        if kind.startswith("ClassVar"):
            continue
        default, limits = _value(node.value, module), {}
        if isinstance(default, _Bounded):
            default, limits = default.default, default.limits
        note = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            note = " ".join(str(after.value.value).replace("`", "").split())
        found.append(
            Field(node.target.id, kind, default, note, limits.get("least"), limits.get("most"))
        )
    return tuple(found)


class _Bounded:
    """What `config.bounded` is told."""

    def __init__(self, default: Any, **limits: float) -> None:
        self.default, self.limits = default, limits


def _value(node: ast.expr | None, module: str) -> Any:
    """What an expression of a module comes to: literals, constants of the package, `bounded`;
    a `field(default_factory=…)` is None."""
    if node is None:
        return None
    known: dict[str, Any] = {"bounded": _Bounded, "field": lambda **_: None, "dict": dict}
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    known |= {name: constant(name, module) for name in names - known.keys()}
    return eval(compile(ast.Expression(node), module, "eval"), known)


@functools.cache
def constant(name: str, module: str) -> Any:
    """A constant of a module, or of the one that it imports it from."""
    text = _text(module)
    if found := re.search(rf"^{name} = (.+)$", text, re.MULTILINE):
        return _value(ast.parse(found[1], mode="eval").body, module)
    for source, names in re.findall(
        r"^from jpeglm\.(\S+) import (.+|\([^)]+\))$", text, re.MULTILINE
    ):
        if re.search(rf"\b{name}\b", names):
            return constant(name, source)
    raise LookupError(f"{module} has no constant {name}")


@functools.cache
def _text(module: str) -> str:
    path = SOURCE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")
