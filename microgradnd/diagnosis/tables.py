"""Short tables with bars, as the parts of the diagnosis print them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

#: Cells of a bar at full length.
WIDTH = 20


def bar(share: float, width: int = WIDTH) -> str:
    """Draw a share of 0 to 1; anything above 0 is at least a thin line.

    Example:
        >>> bar(0.5, width=4), bar(1e-9, width=4), bar(0.0)
        ('██', '▏', '')
    """
    share = min(max(share, 0.0), 1.0) if isfinite(share) else 0.0
    eighths = round(share * width * 8) or (share > 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def number(value: Any) -> str:
    """Write a float with three digits, anything else as it is.

    Example:
        >>> number(0.12345), number(1.5e-7), number(12), number(1234.5)
        ('0.123', '1.50e-07', '12', '1.23e+03')
    """
    if not isinstance(value, float):
        return str(value)
    if not isfinite(value) or value == 0:
        return "-" if value != value else f"{value:g}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Align rows under a header: numbers on the right, text on the left."""
    cells = [list(header), *([number(value) for value in row] for row in rows)]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows)
             for i in range(len(header))]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        aligned = [c.rjust(w) if r else c.ljust(w)
                   for c, w, r in zip(row, widths, right, strict=True)]  # fmt: skip
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)
