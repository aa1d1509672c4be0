"""What every recipe of several commands shares: run each once, show it, remember its words."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from jpeglm.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
JPEGLM = [sys.executable, "-m", "jpeglm.cli"]


class Steps:
    """Commands as a reader would type them, in `shown`; those that are done are not run again."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def do(self, result: Path, *words: Any) -> None:
        """Run a command whose end the file `result` proves; one that writes none gets a mark."""
        command = [str(word) for word in words]
        shown = shlex.join(command).replace(shlex.join(JPEGLM), "jpeglm")
        shown = shown.replace(f"{sys.executable} ", "python ").replace(f"{ROOT}/", "")
        if shown not in self.shown:
            self.shown.append(shown)
        if result.exists():
            print(f"done: {shown}", flush=True)
            return
        print(shown, flush=True)
        subprocess.run(command, check=True)
        if not result.exists():
            atomic_write(result, f"{shown}\n".encode())
