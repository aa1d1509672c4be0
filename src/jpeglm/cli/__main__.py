"""`python -m jpeglm.cli`."""

from jpeglm.cli import main

main()
