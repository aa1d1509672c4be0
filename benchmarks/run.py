"""All benchmarks in their short form; `make bench`. Each is also a command of its own."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

for name in ("tokens.py", "generation.py", "clips.py"):
    subprocess.run([sys.executable, HERE / name], check=True)
