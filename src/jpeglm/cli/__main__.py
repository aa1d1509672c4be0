"""`python -m jpeglm.cli`, an older name of `python -m jpeglm`."""

from jpeglm.cli import main

main()
