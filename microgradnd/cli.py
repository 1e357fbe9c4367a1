"""The command `microgradnd`: what is installed, and why a recorded network does not train."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import numpy as np

from . import __version__, backend

#: OpenBLAS kernels without AVX-512, which OpenBLAS may take on a processor that has it.
NARROW = frozenset({"haswell", "zen"})


#: Exit codes of `diagnose` by the severity of what was found, and of `diagnose` and `demo` for
#: wrong usage and for files that cannot be read.
SEVERITY = {"ok": 0, "warning": 1, "fault": 2}
UNUSABLE = 3
#: The exit code if nobody reads any more, as the shell has it for SIGPIPE.
UNREAD = 141
#: Hidden layers of a demo, at most.
DEEPEST = 30


class _Parser(argparse.ArgumentParser):
    """A parser whose exit code for wrong usage can be set."""

    code = 2

    def error(self, message: str) -> NoReturn:
        """Print usage and message to stderr, and exit."""
        self.print_usage(sys.stderr)
        self.exit(self.code, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit code.

    Of `info` 0, or 1 if the chosen backend fails. Of `diagnose` 0 for a healthy network, 1 for
    warnings, 2 for faults. Wrong usage is 2; of `diagnose` and `demo` it is 3, and so is a file
    that cannot be read. 141 if what reads the output stops doing so (`| head`).
    """
    parser = argparse.ArgumentParser(
        prog="microgradnd", description="An autograd engine on NumPy or CuPy."
    )
    parser.add_argument("--version", action="version", version=f"microgradnd {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=_Parser
    )
    about = "print versions, backends, and the BLAS library with its threads"
    commands.add_parser("info", help=about, description=about).set_defaults(
        run=lambda options: info()
    )
    _add_diagnose(commands)
    _add_demo(commands)
    options = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return code


def _add_diagnose(commands: Any) -> None:
    about = "say why a network does not train, from a file that Recorder.save wrote"
    parser = commands.add_parser(
        "diagnose", help=about, description=about,
        epilog="exit code: 0 healthy, 1 warnings, 2 faults, 3 wrong usage or an unreadable file",
    )  # fmt: skip
    parser.code = UNUSABLE
    parser.add_argument("record", metavar="RECORD", help="the file")
    parser.add_argument("--html", metavar="FILE", help="also write a page with pictures")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="of the report")
    parser.set_defaults(run=diagnose)


def _add_demo(commands: Any) -> None:
    about = "train a small network with a fault before your eyes, and say what is wrong"
    parser = commands.add_parser("demo", help=about, description=about)
    parser.code = UNUSABLE
    parser.add_argument(
        "name", choices=("vanishing", "dying", "exploding", "overfit", "lr", "maxout")
    )
    parser.add_argument("--depth", type=_depth, metavar=f"1..{DEEPEST}", help="hidden layers")
    parser.add_argument(
        "--activation",
        choices=("relu", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "maxout"),
    )
    parser.add_argument("--backend", choices=("numpy", "cupy"), help="where to compute")
    parser.add_argument("--html", metavar="FILE", help="also write a page with pictures")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="of the report")
    parser.set_defaults(run=demo)


def _depth(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= DEEPEST:
        raise argparse.ArgumentTypeError(
            f"a number of hidden layers from 1 to {DEEPEST} is wanted, got {text!r}"
        )
    return int(text)


def diagnose(options: argparse.Namespace) -> int:
    """Print the report on a record; gives the code of its severity, 3 for an unusable file."""
    from . import diagnosis

    try:
        record = diagnosis.load(options.record)
        evidence = diagnosis.from_record(record)
        report = diagnosis.Report(diagnosis.decide(evidence), evidence, lang=options.lang)
        if options.html:
            report.to_html(options.html)
    except (OSError, ValueError) as error:
        return _unusable("diagnose", error)
    print(report.to_json() if options.json else report)
    return SEVERITY[report.severity]


def demo(options: argparse.Namespace) -> int:
    """Run a demo; 0, whatever it finds, and 3 if the backend cannot be used."""
    from .diagnosis.demo import run

    try:
        report = run(options.name, options.depth, options.activation, options.backend, options.lang)
        if options.html:
            report.to_html(options.html)
    except BrokenPipeError:  # an OSError, too
        raise
    except (OSError, backend.BackendError) as error:
        return _unusable("demo", error)
    return 0


def _unusable(command: str, error: Exception) -> int:
    print(f"microgradnd {command}: error: {error}", file=sys.stderr)
    return UNUSABLE


def info() -> int:
    """Print what a bug report should say; 1 if the backend that was asked for cannot be used."""
    width = 12

    def row(name: str, value: str) -> None:
        print(f"{name:{width}} {value}")

    row("microgradnd", __version__)
    row("Python", f"{platform.python_version()} ({platform.python_implementation()})")
    row("NumPy", np.__version__)
    row("platform", f"{platform.system()} {platform.machine()}")
    print("\nbackends")
    states = backend.available()
    for name, state in states.items():
        module = sys.modules.get(name)  # `available` has tried
        importable = f"yes ({getattr(module, '__version__', 'no version')})" if module else "no"
        usable = "yes" if state == "ok" else f"no\n{'':{width}} {state}"
        row(f"  {name}", f"importable: {importable}, usable: {usable}")
    chosen, code = choice(states)
    row("  chosen", chosen)
    print("\nlinear algebra")
    for name, value in blas().items():
        row(f"  {name}", value)
    return code


def choice(states: dict[str, str]) -> tuple[str, int]:
    """Say which backend new arrays go to and why, and give the exit code that follows."""
    wanted = os.environ.get("MICROGRADND_BACKEND", "")
    how = f"MICROGRADND_BACKEND={wanted}" if wanted.strip() else "MICROGRADND_BACKEND is not set"
    try:
        return f"{backend.get().name} ({how})", 0
    except (ValueError, backend.BackendError) as error:
        why = str(error)
        return f"none ({how}): {'see above' if why in states.values() else why}", 1


def blas() -> dict[str, str]:
    """Give the name of NumPy's BLAS, its kernel, its threads, and advice if there is any."""
    config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    built = config.get("Build Dependencies", {}).get("blas", {})
    report = {"BLAS": f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()}
    loaded = loaded_blas()
    if loaded is None:
        set_by = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
        report["threads"] = ", ".join(set_by) or f"not limited ({os.cpu_count()} processors)"
        report["kernel"] = "unknown; pip install threadpoolctl to see it"
        return report
    report["kernel"] = str(loaded.get("architecture", "unknown"))
    report["threads"] = str(loaded.get("num_threads", "unknown"))
    wide = any("AVX512" in name or name == "X86_V4" for name in
               config.get("SIMD Extensions", {}).get("found", ()))  # fmt: skip
    if advisable(report["kernel"], wide):
        report["advice"] = (
            "this processor has AVX-512 and OpenBLAS does not use it; try "
            "OPENBLAS_CORETYPE=SkylakeX in the environment, before Python starts"
        )
    return report


THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def loaded_blas() -> dict[str, Any] | None:
    """Give what threadpoolctl says of the BLAS that is loaded; None if it is not installed."""
    try:
        pools: list[dict[str, Any]] = import_module("threadpoolctl").threadpool_info()
    except ImportError:
        return None
    found = [pool for pool in pools if pool.get("user_api") == "blas"]
    return found[0] if found else {}


def advisable(kernel: str, wide: bool) -> bool:
    """Say whether `OPENBLAS_CORETYPE` would help: AVX-512 is there and the kernel leaves it out."""
    return wide and kernel.lower() in NARROW and "OPENBLAS_CORETYPE" not in os.environ


if __name__ == "__main__":
    sys.exit(main())
