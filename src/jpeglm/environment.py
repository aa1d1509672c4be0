"""Where a figure was made: processor, cores, versions, commit. Recorded with every measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


VECTORS = (
    ("avx512_vnni", "AVX-512 VNNI"),
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("asimd", "NEON"),
)


def vectors() -> str:
    """The widest vector instructions, by which engines differ most; "" if the system tells none."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return next((name for flag, name in VECTORS if flag in flags), "")


def cores() -> int:
    """Cores that this process may use: those it may run on, less what a container is given."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        most, period = quota.read_text().split()[:2]
        if most != "max":
            return max(1, min(count or 1, round(int(most) / int(period))))
    return count or 1


def commit() -> str | None:
    """The commit of the checkout that the package lies in, if it lies in one; where a checkout
    travels without its history, JPEGLM_COMMIT."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return os.environ.get("JPEGLM_COMMIT")
    return done.stdout.strip() if done.returncode == 0 else os.environ.get("JPEGLM_COMMIT")


def versions(*packages: str) -> dict[str, str]:
    """Of Python, jpeglm and of those `packages` that are installed."""
    found = {"python": platform.python_version()}
    for name in ("jpeglm", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment(*packages: str) -> dict[str, Any]:
    """What a benchmark's or a check's figures rest on; `packages` as for `versions`."""
    return {
        "processor": processor(),
        "vectors": vectors(),
        "cores": cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions(*packages),
        "commit": commit(),
    }
