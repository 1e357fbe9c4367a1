"""What stands in for `cupyx`: `scipy.special` and nothing else; see `../README.md`."""

import cupy  # noqa: F401 - which says what it is, and makes the stand-in importable
