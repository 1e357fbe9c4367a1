"""Where the user's code stands: frames of the interpreter outside this package."""

from __future__ import annotations

import sys
from os.path import basename
from types import FrameType

PACKAGE = __name__.partition(".")[0]


LIBRARIES = (sys.stdlib_module_names | {PACKAGE, "numpy", "cupy"}) - {"__main__"}


def user_frame(frame: FrameType | None) -> FrameType | None:
    """Give the first frame outside of us, of array libraries and Python's own, going outwards."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in LIBRARIES:
            return frame
        frame = frame.f_back
    return None


def place(frame: FrameType | None) -> str:
    """Write where a frame stands: `file.py:12`."""
    return f"{basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else ""


def line(frame: FrameType | None) -> str:
    """Give the text of the line at which a frame stands, or `""` where its source is not known."""
    if frame is None:
        return ""
    import linecache  # only for an error: `import microgradnd` stays light

    return linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals).strip()
