"""Run a script on the stand-in as on a GPU machine, and count what its training steps cost.

    PYTHONPATH=tests/pretend MICROGRADND_BACKEND=cupy \\
        python tests/pretend/count_steps.py FILE.json SCRIPT [ARGUMENT ...]

A step begins with an optimizer's `zero_grad` and ends with its `step`; the rest of the time until
the next one is *between* steps. The script does not know that it is watched.
"""

import functools
import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import cupy  # noqa: F401 - the stand-in, or PYTHONPATH is wrong
import standin

import microgradnd as mg
from microgradnd.frames import place, user_frame

KINDS = ("syncs", "host_copies", "uploads")


class Watch:
    """Counts by step, and the lines of the script that made the host wait or copy in one."""

    def __init__(self):
        self.open = None
        self.launches, self.inside, self.waits = [], Counter(), 0
        self.between, self.places = Counter(), Counter()
        self.gap = self.counters()

    @staticmethod
    def counters():
        standin._active.append(counters := standin.Counters())
        return counters

    @staticmethod
    def close(counters):
        standin._active.remove(counters)
        return {kind: getattr(counters, kind) for kind in KINDS}

    def begin(self):
        """A step begins, or one without an update begins anew."""
        if self.open is None:
            if self.launches:  # what was before the first step belongs to no step
                found = self.close(self.gap)
                self.between.update(found)
                self.waits += found["syncs"] > 0
            else:
                self.close(self.gap)
        else:
            self.close(self.open)
        self.open = self.counters()

    def end(self):
        """A step ends."""
        if self.open is not None:
            self.launches.append(self.open.launches - self.open.views)
            self.inside.update(self.close(self.open))
            self.open, self.gap = None, self.counters()

    def note(self):
        """Remember the line of the script that did something a step should not do."""
        self.places[place(user_frame(sys._getframe(2)))] += 1

    def report(self):
        """Give everything, ready for JSON."""
        launches = sorted(self.launches)
        return {
            "steps": len(launches), "launches": launches[len(launches) // 2] if launches else 0,
            "inside": {kind: self.inside[kind] for kind in KINDS}, "waits between": self.waits,
            "between": {kind: self.between[kind] for kind in KINDS},
            "lines": dict(self.places.most_common()), "calls": standin.counters.launches,
        }  # fmt: skip


def around(function, before=None, after=None):
    """Call something before a function, or after it."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        if before is not None:
            before()
        result = function(*args, **kwargs)
        if after is not None:
            after()
        return result

    return wrapped


def main():
    """Run the script under watch."""
    out, script, *arguments = sys.argv[1:]
    watch = Watch()
    optimizer = mg.optim.Optimizer
    optimizer.zero_grad = around(optimizer.zero_grad, before=watch.begin)
    optimizer.step = around(optimizer.step, after=watch.end)
    plain = standin.count

    def count(*fields):
        plain(*fields)
        if watch.open is not None and not traffic.isdisjoint(fields):
            watch.note()

    def launch(name, args=(), kwargs=()):
        """Count a call. That such calls exist in CuPy is shown by the tests; here time matters."""
        plain("launches")

    traffic = set(KINDS)
    standin.count, standin.launch = count, launch
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        Path(out).write_text(json.dumps(watch.report(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
