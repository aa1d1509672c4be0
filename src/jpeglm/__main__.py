"""`jpeglm` and `python -m jpeglm`. Ctrl-C ends quietly while the command line is imported, too."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from jpeglm.cli import main as run
    except KeyboardInterrupt:
        print("jpeglm: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
