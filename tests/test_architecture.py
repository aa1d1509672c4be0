"""The shape of the package: who may import whom, and what the light entry points leave alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jpeglm

SOURCE = Path(jpeglm.__file__).parent
ORDER = [
    "config", "environment", "files", "folders", "kernels", "progress", "syntax", "codecs", "bpe",
    "tokenizer", "models", "checkpoint", "data", "generation", "evaluation", "training",
    "serving", "cli", "__main__",
]  # fmt: skip
LAZY = ("vq.py", "models")
"""The one import to the right: a learned codec loads its network when the first picture comes."""
MODULES = sorted(SOURCE.rglob("*.py"))


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


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(SOURCE)))
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
    assert "torch" not in loaded_by("from jpeglm.generation import generate, outputs")
    assert "torch" not in loaded_by("from jpeglm.training import TrainConfig")


def test_lazy_names_exist():
    for name in jpeglm.__all__:
        assert getattr(jpeglm, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = jpeglm.nothing
