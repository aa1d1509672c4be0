"""Kernels are compiled without reference counts, so none may hand an array to its caller."""

import ast
from collections.abc import Iterator
from pathlib import Path

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
