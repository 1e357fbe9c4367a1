"""Where the user's code stands: frames of the interpreter outside this package."""

from __future__ import annotations

import linecache
from os.path import basename
from types import FrameType

PACKAGE = __name__.partition(".")[0]


def user_frame(frame: FrameType | None) -> FrameType | None:
    """Give the first frame that is neither ours nor an array library's, going outwards."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__")).partition(".")[0]
        if name not in (PACKAGE, "numpy", "cupy"):
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
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals).strip()
