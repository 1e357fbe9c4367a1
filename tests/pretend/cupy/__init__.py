"""The strict stand-in of the tests under the name `cupy`; see `../README.md`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # at the end: it hides nobody's modules

import standin

if not standin.cupy.__version__.endswith("+standin"):
    standin.cupy.__version__ += "+standin"
print("cupy: this is the tests' stand-in for CuPy, on the CPU; there is no GPU", file=sys.stderr)
sys.modules[__name__] = standin.cupy
