"""What stands in for `cupyx`; see `../README.md`."""

import cupy  # noqa: F401 - which says what it is, and makes the stand-in importable
import standin

# What the stand-in has of cupyx besides the functions of `scipy.special`.
globals().update(vars(getattr(standin, "cupyx", object())) if hasattr(standin, "cupyx") else {})
