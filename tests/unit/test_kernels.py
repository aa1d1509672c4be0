"""Kernels are compiled without reference counts, so none may hand an array to its caller; and they
are compiled again when one that they call has changed."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jpeglm


def kernels(source: str) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "kernel":
                    yield node


def arrays_given(function: ast.FunctionDef) -> list[str]:
    """What a function returns bare though it is a field, or is indexed somewhere in it."""
    indexed = {
        node.value.id
        for node in ast.walk(function)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
    }
    given = []
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            for part in parts:
                if isinstance(part, ast.Attribute) or getattr(part, "id", "") in indexed:
                    given.append(f"{function.name}: {ast.unparse(part)}")
    return given


def test_no_kernel_returns_an_array():
    files = Path(jpeglm.__file__).parent.rglob("*.py")
    found = [kernel for file in files for kernel in kernels(file.read_text())]
    assert len(found) > 60
    assert not [given for kernel in found for given in arrays_given(kernel)]


def test_the_rule_sees_arrays():
    source = "@kernel()\ndef f(spec, s):\n    s[0] = 1\n    return 1, spec.first, s"
    (function,) = kernels(source)
    assert arrays_given(function) == ["f: spec.first", "f: s"]


QUANTISE = """
import numpy as np
from jpeglm.generation import matmul
steps = np.zeros(1, np.float32)
levels, starts = np.zeros((1, 4), matmul.LEVEL), np.zeros(1, np.int32)
matmul._quantise(np.full((1, 4), 127, np.float32), levels, steps, starts)
print(steps[0])
"""
END_OF_MACROBLOCK = """
from jpeglm.syntax import avc
from jpeglm.syntax.avc.blocks import end_macroblock
spec = avc.avc_spec(1, 4, 1, [0])
state = avc.start_state(spec)
end_macroblock(spec, state)
print(state[avc.MB])
"""
CALLS = {
    "kernels.py": (QUANTISE, "matmul._quantise", "return float_of(np.int32(top))", " * 2"),
    "syntax/avc/neighbours.py": (END_OF_MACROBLOCK, "blocks.end_macroblock", "s[MB] += 1", " + 1"),
}  # fmt: skip
"""File of a kernel → code that calls it from another file, the caller, a line of the kernel and
what makes its result 2, not 1."""


@pytest.mark.parametrize("file", CALLS)
def test_a_changed_kernel_is_compiled_into_its_callers(file, tmp_path):
    """The caller's own file stays as it is."""
    code, caller, line, more = CALLS[file]
    copy = tmp_path / "jpeglm"
    leave_out = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(Path(jpeglm.__file__).parent, copy, ignore=leave_out)

    def run():
        command = [sys.executable, "-c", code]
        path = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=path)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    assert run() == 1
    assert list(copy.rglob(f"{caller}-*.nbc"))
    source = (copy / file).read_text()
    assert source.count(line) == 1
    (copy / file).write_text(source.replace(line, line + more))
    assert run() == 2


LOGARITHM = "from jpeglm.kernels import highest, log; print(log(1.0), log.stats.cache_hits)"


def in_a_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("size", [0, 40, None])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_file_is_written_anew(tmp_path, suffix, size):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    in_a_process(LOGARITHM, **cache)
    files = list(tmp_path.rglob(f"kernels.log-*.{suffix}"))
    assert files
    for file in files:
        if size is None:  # a bit that a disk has lost
            data = bytearray(file.read_bytes())
            data[-9] ^= 4
            file.write_bytes(data)
        else:
            os.truncate(file, size)
    assert in_a_process(LOGARITHM, **cache).stdout.startswith("0.0 Counter()")
    assert "1" in in_a_process(LOGARITHM, **cache).stdout.split("Counter")[1]


def test_where_nothing_can_be_written_kernels_are_compiled_in_memory(tmp_path):
    """Folders that a privileged user cannot make either: files are in their way."""
    leave_out = shutil.ignore_patterns("__pycache__", "assets")
    copy = tmp_path / "jpeglm"
    shutil.copytree(Path(jpeglm.__file__).parent, copy, ignore=leave_out)
    for folder in {file.parent for file in copy.rglob("*.py")}:
        (folder / "__pycache__").touch()
    home = tmp_path / "home"
    home.touch()
    code = "from jpeglm.kernels import exp, highest, log; print(log(1.0))"
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(tmp_path)}
    done = in_a_process(code, **places)
    assert done.stdout == "0.0\n"
    assert done.stderr.count("compiled code cannot be kept") == 1


FULL_DISK = """
from numba.core.caching import IndexDataCacheFile
def full(*_):
    raise OSError(28, "No space left on device")
IndexDataCacheFile._open_for_write = full
"""


def test_a_full_disk_keeps_nothing_and_stops_nobody(tmp_path):
    code = FULL_DISK + "from jpeglm.kernels import highest, log; print(log(1.0))"
    done = in_a_process(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout == "0.0\n" and done.stderr.count("compiled code cannot be kept") == 1
    assert not list(tmp_path.rglob("*.nb*"))


@pytest.mark.parametrize("kind", ["kernel()", "kernel(nogil=True)", "njit()"])
def test_make_test_bounds_would_see_an_index_that_is_too_large(tmp_path, kind):
    """numba checks indices without reference counts, and where it lets others run, as elsewhere."""
    (tmp_path / "module.py").write_text(
        f"from jpeglm.kernels import kernel, njit\n@{kind}\ndef f(a, i):\n    a[i] = 1\n"
    )
    code = "import numpy as np, module; module.f(np.zeros(3), 3)"
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "IndexError" in done.stderr


def test_no_compiler_chooses_what_is_rounded_once_or_in_which_order():
    """ARM's and x86's would choose differently; `kernels.multiply_add` says it instead."""
    pytest.importorskip("numba")
    from numba.core.cpu_options import FastMathOptions
    from numba.core.dispatcher import Dispatcher

    home = Path(jpeglm.__file__).parent
    seen = set()
    for file in [home / "kernels.py", *(home / "generation").glob("*.py")]:
        name = ".".join(file.relative_to(home.parent).with_suffix("").parts)
        if "@kernel" not in file.read_text() and "@njit" not in file.read_text():
            continue
        for found in vars(importlib.import_module(name)).values():
            if isinstance(found, Dispatcher):
                flags = FastMathOptions(found.targetoptions.get("fastmath", False)).flags
                assert set(flags) <= {"nsz"}, f"{found.__name__} of {name}"
                seen.add(found)
    assert len(seen) > 20
