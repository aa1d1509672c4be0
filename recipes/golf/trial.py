"""A trial: a record with other values of its entry's fields, as `race.py run … --set` takes them.

Which fields there are, and of which type, is what the entry's class and those that it changes
annotate; a value is judged as `jpeglm.config` judges settings. Whether fields fit one another the
entry itself says (`check_fields`).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from functools import cached_property
from typing import Any

from task import Entry

from jpeglm.config import InputError, Settings

NO_FIELD = (property, cached_property, classmethod, staticmethod)
NAME = 255
"""Bytes that a folder's name may have."""


def fields_of(kind: type[Entry]) -> dict[str, str]:
    """Name → type of each value that an entry's class has; what no class annotates is of the type
    of its value."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        told = inspect.get_annotations(one)
        for name, value in vars(one).items():
            if name.startswith("_") or callable(value) or isinstance(value, NO_FIELD):
                continue
            known = told.get(name, found.get(name, type(value)))
            found[name] = known.__name__ if isinstance(known, type) else str(known)
    return found


def changed(kind: type[Entry], changes: dict[str, Any]) -> type[Entry]:
    """The entry's class with changes of its fields; InputError for a field that it has not, a value
    of another type, and fields that do not fit one another."""
    fields = [(name, told, field(default=None)) for name, told in fields_of(kind).items()]
    known = make_dataclass("Entry", fields, bases=(Settings,), frozen=True)
    known.from_dict({name: getattr(kind, name) for name, _, _ in fields} | changes)
    made = type("Entry", (kind,), changes)
    made.check_fields()
    return made


def name_of(record: str, changes: dict[str, Any]) -> str:
    """The folder of a trial's runs, which tells all that it changes."""
    name = record + "".join(f",{field}={value}" for field, value in changes.items())
    if len(name.encode()) > NAME or "/" in name:
        raise InputError(
            "what --set says is no name of a folder; make a folder of recipes/golf/records of it"
        )
    return name


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """FIELD=VALUE words: the value a number, True, False, None or a tuple as Python writes it, else
    the word itself."""
    changes: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"--set {word} is not FIELD=VALUE; give for instance width=192")
        try:
            changes[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            changes[name] = value
    return changes
