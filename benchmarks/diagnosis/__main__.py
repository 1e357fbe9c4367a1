"""Run the fault suite, or score what is stored of it.

screen    draws configurations, and keeps those that are what their label says (ten minutes)
run       trains and examines what was kept, and stores the evidence (a quarter of an hour)
score     applies the rules to the tuning half (seconds); says of each wrong verdict what was found
table     applies them to both halves, and writes RESULTS.md and results.json: each look at the
          scoring half is counted there
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded: matrices are small

from . import scoring, suite


def main(argv: list[str] | None = None) -> int:
    """Do one step; `table` gives 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diagnosis", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("step", choices=("screen", "run", "score", "table"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--parts", default="build/diagnosis", metavar="FOLDER",
                        help="run: where classes that are done are kept")  # fmt: skip
    parser.add_argument("--again", nargs="*", default=[], metavar="CLASS",
                        help="run: these once more, though they are done")  # fmt: skip
    parser.add_argument("--only", metavar="CLASS", help="score: one class")
    parser.add_argument("--evidence", type=Path, default=suite.STORED, metavar="FILE",
                        help="score: a file, or a folder of parts")  # fmt: skip
    options = parser.parse_args(argv)
    if options.step == "screen":
        suite.screen_all(options.jobs)
    elif options.step == "run":
        suite.run_all(options.parts, options.jobs, options.again)
    elif options.step == "table":
        mine = scoring.write(suite.load())["scoring"][scoring.OURS]
        print(scoring.TABLE.read_text(encoding="utf-8"))
        return int(mine["overfit"] > 0 or any(mine[k] < bar for k, bar in scoring.BARS.items()))
    else:
        cases = scoring.half(suite.load(options.evidence), "tuning")
        cases = [c for c in cases if options.only in (None, c.kind)]
        print("\n".join(scoring.details(cases)))
        found = scoring.score(cases, scoring.ours)
        for kind, row in found["classes"].items():
            if row[0]:
                print(f"{kind:14} {row}")
        print({k: v for k, v in found.items() if k not in ("classes", "named")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
