"""README's troubleshooting: its commands are run, and what they say is what stands there.

A case that this machine cannot show is skipped by name: a missing CuPy where it is installed, a
missing driver where it is not. What takes a GPU is shown by a package that plays CUDA's part.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WHEEL = importlib.util.find_spec("cupy") is not None
#: CUDA's part: what a first array, and the version of the driver, give in cases 3, 4 and 5.
PLAYED = {
    3: ("CudaError(35, 'cudaErrorInsufficientDriver: CUDA driver version is insufficient')", 12040),
    4: ("RuntimeError('Failure finding \"libnvrtc.so.13\": No such file: libnvrtc.so.13')", 13020),
    5: ("CudaError(100, 'cudaErrorNoDevice: no CUDA-capable device is detected')", 13020),
}
PLAY = '''
from types import SimpleNamespace

class CudaError(RuntimeError):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status

def ones(*shape_and_dtype):
    raise {error}

__version__ = "14.2.0"
runtime = SimpleNamespace(driverGetVersion=lambda: {driver}, runtimeGetVersion=lambda: 13020)
cuda = SimpleNamespace(runtime=runtime)
'''

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def section():
    """The page's part on backends."""
    return README[README.index("\n## Backends\n") : README.index("\n## Benchmarks\n")]


def commands():
    """The commands by the number of the case that they show, with what stands before them."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", section(), re.MULTILINE | re.DOTALL)
    first, *rest = block.splitlines()
    return {int(n): f"{first}\n{command}" for line in rest
            for command, _, numbers in [line.rpartition("#")] for n in numbers.split()}  # fmt: skip


def messages():
    """The messages by the number of the case."""
    rows = [row.split(" | ") for row in section().splitlines() if re.match(r"\| \d+ \| ", row)]
    return {int(number.strip("| ")): message.strip("` ") for number, _, message, _ in rows}


def show(number, *path):
    """Run a case's command as it stands, with further packages; give its last line."""
    settings = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["bash", "-c", commands()[number]], env=os.environ | settings, capture_output=True,
        text=True, timeout=120, cwd=path[0] if path else None,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


def check(number, *path, kind):
    """Compare what a case says with the page, whose `...` stands for anything."""
    said, wanted = show(number, *path), messages()[number]
    pattern = ".+".join(map(re.escape, wanted.split("...")))
    if "tensor.to(...)" in wanted:  # there the dots are the message's own
        pattern = re.escape(wanted)
    assert re.fullmatch(rf"(?:\S+\.)?{kind}: {pattern}", said), said


def test_every_case_has_a_command_and_a_message():
    assert commands().keys() == messages().keys() == set(range(1, 9))


@pytest.mark.skipif(WHEEL, reason="case 1, CuPy is not installed: here it is")
def test_not_installed():
    check(1, kind="MissingBackendError")


@pytest.mark.skipif(not WHEEL, reason="case 2, CuPy without a driver: CuPy is not installed here")
def test_no_driver():
    import cupy

    if cupy.cuda.runtime.driverGetVersion():
        pytest.skip("case 2, CuPy without a driver: here is one")
    version = f"CuPy {cupy.__version__} is installed"
    said = show(2).replace(version, "CuPy 14.2.0 is installed")
    assert said.endswith(f".BackendError: {messages()[2]}")


@pytest.mark.parametrize("number", PLAYED)
def test_what_takes_a_gpu_is_played(tmp_path, number):
    error, driver = PLAYED[number]
    (tmp_path / "cupy.py").write_text(PLAY.format(error=error, driver=driver), encoding="utf-8")
    (tmp_path / "cupyx" / "scipy").mkdir(parents=True)
    for file in ("__init__.py", "scipy/__init__.py", "scipy/special.py"):
        (tmp_path / "cupyx" / file).touch()
    check(number, tmp_path, kind="BackendError")


def test_a_misspelt_name():
    check(6, kind="ValueError")


@pytest.mark.parametrize("number", [7, 8])
def test_mixing_on_the_stand_in(number):
    check(number, ROOT / "tests" / "pretend", kind="TypeError")
