"""Whether drawing leaves memory behind: the largest resident size of a process that draws on.

    python benchmarks/memory.py [--pictures 1000] [--precision int8]

One process draws pictures with the shipped checkpoint, sixteen together; rows are the largest size
so far (getrusage's ru_maxrss) after each tenth of them.
"""

from __future__ import annotations

import argparse
import resource
import sys

from common import finish, spread

from jpeglm.generation.loading import load

UNIT = 1e6 if sys.platform == "darwin" else 1e3
"""What ru_maxrss counts, bytes or kilobytes, in megabytes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--precision", default="int8")
    arguments = parser.parse_args()
    model = load(precision=arguments.precision)
    each = max(1, arguments.pictures // 10)
    rows = {}
    for part in range(10):
        model.generate(each, seed=part)
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT
        rows[f"after {each * (part + 1)} pictures"] = spread([largest])
    finish("memory", "MB resident at most", {"jpeglm generate, 64 px, batches of 16": rows})


if __name__ == "__main__":
    main()
