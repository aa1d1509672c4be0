"""Rotary tables against the C library's functions, and the same at every level of numpy."""

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from jpeglm.generation.rotary import cos_sin, rotary_tables
from jpeglm.kernels import log

CODE = """
import hashlib
from jpeglm.generation.rotary import rotary_tables
tables = [t.tobytes() for base in (1e4, 5e5) for t in rotary_tables(base, 64, 3000)]
print(hashlib.sha256(b"".join(tables)).hexdigest())
"""
LEVELS = ("", "X86_V4 AVX512F AVX512_SKX", "X86_V3 X86_V4 AVX512F AVX512_SKX AVX2 FMA3")
"""What numpy is told not to use, in its new names and its old ones."""


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_tables_are_the_rounded_functions(base):
    cos, sin = rotary_tables(base, 64, 2048)
    assert cos.dtype == sin.dtype == np.float32 and cos.shape == (2048, 32)
    inverse = np.array([base ** (-2 * i / 64) for i in range(32)]).astype(np.float32)
    angles = np.arange(2048, dtype=np.float32)[:, None] * inverse
    assert (cos == np.vectorize(math.cos)(angles).astype(np.float32)).all()
    assert (sin == np.vectorize(math.sin)(angles).astype(np.float32)).all()


def test_large_angles_are_reduced():
    angles = np.random.default_rng(0).uniform(-1.6e6, 1.6e6, 20_000)
    for found, function in zip(cos_sin(angles), (math.cos, math.sin)):
        np.testing.assert_allclose(found, np.vectorize(function)(angles), atol=6e-8)


def test_tables_are_the_same_at_every_level_of_numpy():
    found = set()
    for level in LEVELS:
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": level}
        words = [sys.executable, "-c", CODE]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_the_logarithm():
    values = np.exp(np.random.default_rng(1).uniform(-700, 700, 20_000))
    for value in [1.0, 2.0, 0.5, 1024.0, math.e, *values.tolist()]:
        assert log(value) == pytest.approx(math.log(value), rel=4e-16, abs=4e-16)


def test_the_tables_have_not_moved():
    """They are part of what a seed means."""
    tables = b"".join(table.tobytes() for table in rotary_tables(10_000.0, 64, 4096))
    assert hashlib.sha256(tables).hexdigest()[:16] == GOLDEN


GOLDEN = "1659c515d59df265"
