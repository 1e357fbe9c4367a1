"""A device's clock, and what is known of the device: for figures that others can judge."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from .timing import Clock

UNKNOWN = "unknown"
#: What stands in the place of the device's name where the tests' stand-in computes.
STAND_IN = "STAND-IN, NO GPU"
NO_GPU = "the tests' stand-in for CuPy is no GPU"
FIELDS = (
    "name", "driver_version", "pstate", "clocks.sm", "clocks.max.sm", "clocks.mem",
    "clocks.max.mem", "power.draw", "power.limit", "temperature.gpu", "mig.mode.current",
)  # fmt: skip
#: Newer drivers have the first name for it, older ones the second.
THROTTLE = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
REASONS = {
    0x1: "idle", 0x2: "application clocks", 0x4: "power cap", 0x8: "hardware slowdown",
    0x10: "sync boost", 0x20: "heat (software)", 0x40: "heat (hardware)", 0x80: "power brake",
    0x100: "display clocks",
}  # fmt: skip


class CupyClock(Clock):
    """Events in CuPy's current stream."""

    def __init__(self, module: Any) -> None:
        self.cuda = module.cuda

    def mark(self) -> Any:
        """Put an event into the stream."""
        event = self.cuda.Event()
        event.record()
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        """Give the time between two events, both of which are over."""
        return float(self.cuda.get_elapsed_time(start, stop)) * 1e-3

    def wait(self) -> None:
        """Wait for the device."""
        self.cuda.Device().synchronize()


class TorchClock(Clock):
    """Events in PyTorch's current stream."""

    def __init__(self, torch: Any) -> None:
        self.cuda = torch.cuda

    def mark(self) -> Any:
        """Put an event into the stream."""
        event = self.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        """Give the time between two events, both of which are over."""
        return float(start.elapsed_time(stop)) * 1e-3

    def wait(self) -> None:
        """Wait for the device."""
        self.cuda.synchronize()


def clock_of(backend: Any) -> Clock:
    """Give the clock that times a backend: events where it has a device, else the host's."""
    module = getattr(backend, "module", None)
    return Clock() if module is None else CupyClock(module)


def stands_in(version: Any) -> bool:
    """Whether a version of CuPy is that of the tests' stand-in."""
    return str(version).endswith("+standin")


def name_of(device: dict[str, Any]) -> str:
    """Give the name of a device that `describe` has described."""
    return STAND_IN if stands_in(device.get("cupy")) else str(device["name"])


def describe(module: Any) -> dict[str, Any]:
    """Describe the device that CuPy computes on; what cannot be found out is "unknown"."""
    runtime, device = module.cuda.runtime, module.cuda.Device()

    def ask(question: Callable[[], Any]) -> Any:
        """Ask CuPy; a property that this version has no word for is not worth a run."""
        try:
            return question()
        except (AttributeError, KeyError, RuntimeError, TypeError):
            return UNKNOWN

    properties = ask(lambda: runtime.getDeviceProperties(device.id))
    properties = properties if isinstance(properties, dict) else {}
    name = properties.get("name", UNKNOWN)
    found = {
        "name": name.decode() if isinstance(name, bytes) else name,
        "compute capability": ask(lambda: str(device.compute_capability)),
        "multiprocessors": properties.get("multiProcessorCount", UNKNOWN),
        "memory": ask(lambda: int(device.mem_info[1])),
        "cupy": module.__version__,
        "CUDA runtime": version(ask(runtime.runtimeGetVersion)),
        "CUDA of the driver": version(ask(runtime.driverGetVersion)),
        "TF32": tf32(os.environ.get("CUPY_TF32")),
        "CUPY_ACCELERATORS": os.environ.get("CUPY_ACCELERATORS", "not set"),
        "at the start": nvidia_smi(),
    }
    return found | {"name": name_of(found)}


def version(number: Any) -> str:
    """Give CUDA's version of its number, `13020` being 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}" if isinstance(number, int) else str(number)


def tf32(setting: str | None) -> str:
    """Say whether CuPy's float32 products are rounded to TF32, by CUPY_TF32."""
    if setting is None:
        return "off (CUPY_TF32 is not set)"
    return f"{'on' if setting == '1' else 'off'} (CUPY_TF32={setting})"


def nvidia_smi(process: subprocess.Popen[str] | None = None) -> dict[str, str]:
    """Give clocks, power and what holds the clocks back, as nvidia-smi tells.

    Args:
        process: One that `start_smi` has started earlier.
    """
    for throttle in THROTTLE:
        process = process or start_smi(throttle)
        if process is None:
            return {"nvidia-smi": "not found"}
        try:
            out, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            break
        if not process.returncode and out.strip():
            values = [value.strip() for value in out.splitlines()[0].split(",")]
            answer = dict(zip((*FIELDS, "held back by"), values, strict=True))
            answer["held back by"] = reasons(answer["held back by"])
            return answer
        process = None
    return {"nvidia-smi": "does not answer"}


def start_smi(throttle: str = THROTTLE[0]) -> subprocess.Popen[str] | None:
    """Start nvidia-smi on the first visible device, or give None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    which = visible if visible and not visible.startswith("-") else "0"
    return subprocess.Popen(
        [program, f"--query-gpu={','.join((*FIELDS, throttle))}", "--format=csv,noheader",
         f"--id={which}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def reasons(bits: str) -> str:
    """Say in words what a bit mask of nvidia-smi's means."""
    try:
        mask = int(bits, 16)
    except ValueError:
        return bits
    named = [word for bit, word in REASONS.items() if mask & bit]
    return ", ".join(named) if mask and named else ("nothing" if not mask else bits)


def under_load(make: Callable[[], Callable[[], Any]], wait: Callable[[], None]) -> dict[str, str]:
    """Ask nvidia-smi while the device computes, again and again, the call that `make` gives."""
    if shutil.which("nvidia-smi") is None:
        return nvidia_smi()
    work = make()
    work()
    wait()
    process = start_smi()
    while process is not None and process.poll() is None:
        for _ in range(10):
            work()
        wait()
    return nvidia_smi(process)


def slug(name: str) -> str:
    """Give a device's name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
