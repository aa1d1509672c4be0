"""The shape of the package: who may import whom, and what the light entry points leave alone."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import jpeglm

SOURCE = Path(jpeglm.__file__).parent
ORDER = [
    "config", "launch", "environment", "remote", "files", "tensors", "folders", "places", "kernels",
    "progress", "compiling", "syntax", "codecs", "bpe", "text", "holes", "tokenizer_file",
    "tokenizer", "models", "checkpoint", "data", "generation", "evaluation", "training",
    "integrations", "inspection", "serving", "cli", "__main__",
]  # fmt: skip
LAZY = ("vq.py", "models")
"""The one import to the right: a learned codec loads its network when the first picture comes."""
MODULES = sorted(SOURCE.rglob("*.py"))
FROM = re.compile(r"^from (jpeglm[\w.]*) import", re.MULTILINE)
LONGEST = 400
"""Lines of a source file."""


def room(parts):
    return parts[0].removesuffix(".py")


def imported(file):
    """Rooms of this package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jpeglm":
            names = node.module.split(".")[1:]
            yield from ([names[0]] if names else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("jpeglm."):
                    yield alias.name.split(".")[1]


def path_of(file):
    return file.relative_to(SOURCE).as_posix()


FILES = {
    ".".join(("jpeglm", *file.relative_to(SOURCE).with_suffix("").parts)): path_of(file)
    for file in MODULES
}
"""Module → its file; of a folder `jpeglm.room.__init__`."""


def files_imported(file):
    """Files of this package that a file imports anywhere in it: the modules named or, for a
    folder's own names, its `__init__`. The package's own, lazy names and the version, is left out.
    """
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path_of(file)} imports by a relative name"
            modules = [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [(alias.name,) for alias in node.names]
        else:
            continue
        for names in modules:
            known = [m for module in names for m in (module, f"{module}.__init__") if m in FILES]
            if known and known[0] != "jpeglm.__init__":
                yield FILES[known[0]]


def circles(graph):
    """The sets of files, each a sorted tuple, that reach each other by imports."""
    reached = {}
    for file in graph:
        reached[file], waiting = set(), [file]
        while waiting:
            new = graph[waiting.pop()] - reached[file]
            reached[file] |= new
            waiting += new
    return {
        tuple(sorted(other for other in reached[file] if file in reached[other]))
        for file in graph
        if file in reached[file]
    }


@pytest.mark.parametrize("file", MODULES, ids=path_of)
def test_a_module_imports_only_from_its_left(file):
    here = room(file.relative_to(SOURCE).parts)
    if here == "__init__":
        return  # lazy names only, checked below
    for name in imported(file):
        if name == "__version__" or (file.name, name) == LAZY:
            continue
        assert name in ORDER, f"{file} imports {name}, which has no place in the order"
        assert ORDER.index(name) <= ORDER.index(here), f"{here} may not import {name}"


def test_every_room_has_its_place():
    rooms = {room(file.relative_to(SOURCE).parts) for file in MODULES} - {"__init__"}
    assert rooms <= set(ORDER)


def test_no_source_file_is_longer_than_a_reader_holds():
    lengths = {path_of(file): len(file.read_text().splitlines()) for file in MODULES}
    assert not {file for file, lines in lengths.items() if lines > LONGEST}


def test_no_circle_between_files():
    """Counted are all imports, those inside functions and those for types included."""
    assert circles({path_of(file): set(files_imported(file)) for file in MODULES}) == set()


def test_a_circle_is_found():
    graph = {
        "a": {"b", "e"},
        "b": {"c"},
        "c": {"a"},
        "d": {"a"},
        "e": {"f"},
        "f": {"e"},
        "g": {"d"},
    }
    assert circles(graph) == {("a", "b", "c"), ("e", "f")}


KERNELS = {"kernel", "njit", "intrinsic", "overload"}
ROOT = Path(__file__).parents[1]


def decorators(function):
    """Names of a function's decorators that compile it."""
    called = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return {d.id for d in called if isinstance(d, ast.Name)} & KERNELS


def functions(node, inside=()):
    """(function, the functions around it) of all functions in a tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child, inside
            yield from functions(child, (*inside, child))
        else:
            yield from functions(child, inside)


def untyped(function):
    arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return function.returns is None or any(
        a.annotation is None for a in arguments if a.arg not in ("self", "cls")
    )


def lax_functions(tree):
    """Names of functions without types that are no kernels, nor in one, nor a kernel's stand-in,
    nor what `overload` puts in a function's place."""
    found = list(functions(tree))
    exempt = {f.name for f, _ in found if decorators(f)}
    for function, _ in found:
        if "overload" in decorators(function):
            exempt |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
    return [
        function.name
        for function, around in found
        if untyped(function) and function.name not in exempt and not any(map(decorators, around))
    ]


def silent_kernels(tree):
    """Names of kernels that no docstring describes; that of a factory counts."""
    return [
        function.name
        for function, around in functions(tree)
        if decorators(function) - {"overload"}
        and not any(ast.get_docstring(f) for f in (function, *around))
    ]


TREES = {path_of(file): ast.parse(file.read_text()) for file in MODULES}


def test_files_without_types_are_those_with_kernels():
    """mypy lets functions without types pass in these files; nowhere else."""
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    (lax,) = (part["module"] for part in overrides if "disallow_untyped_defs" in part)
    held = [
        file
        for file, tree in TREES.items()
        if any(decorators(function) for function, _ in functions(tree))
    ]
    assert lax == ["jpeglm." + file.removesuffix(".py").replace("/", ".") for file in held]


@pytest.mark.parametrize("file", TREES)
def test_what_has_no_types_is_a_kernel_and_says_them_in_words(file):
    assert not lax_functions(TREES[file])
    assert not silent_kernels(TREES[file])


@pytest.mark.parametrize("engine", sorted((SOURCE / "generation").glob("engine*.py")))
def test_engines_know_neither_codec_nor_tokenizer(engine):
    assert not {"syntax", "codecs", "bpe", "tokenizer", "checkpoint"} & set(imported(engine))


def loaded_by(code):
    """Top-level modules in memory after running `code` in a new interpreter."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split("\n")[-2].split())


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "numba", "numpy", "PIL", "transformers", "typer"}
    assert not loaded_by("import jpeglm") & heavy
    assert not loaded_by("import jpeglm.cli") & (heavy - {"typer"})


def test_the_cpu_road_loads_no_torch():
    assert "torch" not in loaded_by("from jpeglm.generation import loading, outputs")
    assert "torch" not in loaded_by("from jpeglm.training import TrainConfig")


def public_modules():
    """The package, where its names are at home, and what docs/api.md imports from."""
    page = (SOURCE.parents[1] / "docs" / "api.md").read_text()
    homes = {f"jpeglm.{home}" for home in jpeglm._HOMES.values()}
    return sorted({"jpeglm", "jpeglm.syntax.alphabet", *homes, *FROM.findall(page)})


@pytest.mark.parametrize("name", public_modules())
def test_a_public_module_says_what_is_public(name):
    """Its `__all__` are names that it defines, each with a docstring, or those of its own room."""
    module = import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        home = getattr(value, "__module__", name)
        assert home == name or name == "jpeglm" or home.startswith(f"{name}."), (public, home)
        assert not isinstance(value, type) or vars(value).get("__doc__"), public
        assert not inspect.isfunction(value) or value.__doc__, public
    page = (SOURCE.parents[1] / "docs" / "api.md").read_text()
    for used in re.findall(rf"^from {re.escape(name)} import (.+)$", page, re.MULTILINE):
        assert set(used.split(", ")) <= set(module.__all__)


def test_lazy_names_exist():
    for name in jpeglm.__all__:
        assert getattr(jpeglm, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = jpeglm.nothing
