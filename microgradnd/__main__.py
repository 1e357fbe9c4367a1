"""`python -m microgradnd` is the command `microgradnd`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
