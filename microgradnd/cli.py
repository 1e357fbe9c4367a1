"""The command `microgradnd`: what is installed, which backend would run, and on which BLAS."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from . import __version__, backend

#: OpenBLAS kernels without AVX-512, which OpenBLAS may take on a processor that has it.
NARROW = frozenset({"haswell", "zen"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code: 0, 1 if the chosen backend fails, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="microgradnd", description="An autograd engine on NumPy or CuPy."
    )
    parser.add_argument("--version", action="version", version=f"microgradnd {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    about = "print versions, backends, and the BLAS library with its threads"
    commands.add_parser("info", help=about, description=about).set_defaults(run=info)
    options = parser.parse_args(argv)
    run: Callable[[], int] = options.run
    return run()


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
