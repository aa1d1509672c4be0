"""`python -m jpeglm`."""

from jpeglm.cli import main

if __name__ == "__main__":
    main()
