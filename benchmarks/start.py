"""Time to the first picture, as a user waits for it: `jpeglm complete`, one completion at 64 px.

    python benchmarks/start.py [--repeats 5]

Seconds of whole processes: with numba's cache warm, and (once) with an empty one, when everything
is compiled for this machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, finish, spread


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    photo = ROOT / "src" / "jpeglm" / "assets" / "astronaut.jpg"
    with tempfile.TemporaryDirectory() as home:
        words = [sys.executable, "-m", "jpeglm", "complete", str(photo), "-n", "1"]
        words += ["--out", str(Path(home, "out"))]

        def turn(cache: str) -> float:
            start = time.perf_counter()
            subprocess.run(
                words, check=True, capture_output=True, env=os.environ | {"NUMBA_CACHE_DIR": cache}
            )
            return time.perf_counter() - start

        cache = str(Path(home, "cache"))
        first = turn(cache)
        later = [turn(cache) for _ in range(arguments.repeats)]
    rows = {
        "cache warm": spread(later),
        "first run ever": spread([first]),
    }
    finish("start", "seconds", {"jpeglm complete, 64 px": rows})


if __name__ == "__main__":
    main()
