"""All benchmarks in their short form, then their page; `make bench`. Each runs by itself too."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

for name in (
    "tokens.py", "masks.py", "generation.py", "precisions.py", "start.py", "lengths.py",
    "memory.py", "training.py", "clips.py", "report.py",
):  # fmt: skip
    subprocess.run([sys.executable, HERE / name], check=True)
