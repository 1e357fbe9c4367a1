"""The device under test: the strict stand-in for CuPy or, on a machine with a GPU, CuPy itself.

`MICROGRADND_TEST_DEVICE=cupy` takes CuPy. Nobody can count there what crosses between host and
device, so it is forbidden instead; and CuPy's rounding is not NumPy's, so tolerances are wider, by
one factor that stands here.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext

import numpy as np
import standin

import microgradnd as mg
from microgradnd.backend.cupy_backend import CupyBackend

WANTED = os.environ.get("MICROGRADND_TEST_DEVICE", "").strip() or "standin"
if WANTED not in ("standin", "cupy"):
    raise ValueError(f"MICROGRADND_TEST_DEVICE={WANTED!r}: choose 'standin' or 'cupy'")
REAL = WANTED == "cupy"
#: The backend that is tested, and the type of its arrays.
DEVICE = (
    mg.backend.named("cupy") if REAL else CupyBackend(standin.cupy, standin.special, name="standin")
)
HOME, ARRAY = DEVICE.name, DEVICE.array_type
#: What tolerances are multiplied by. The stand-in rounds as NumPy does. CUDA's functions are some
#: ulp off and its sums go in another order; `rough.py` does that to the stand-in, and with it these
#: tests hold from a factor of 4 on.
SLACK = 16 if REAL else 1


def host(t):
    """What a tensor holds, as a NumPy array, without the tape."""
    return DEVICE.module.asnumpy(t._array) if type(t._array) is ARRAY else t._array


def dev(data, dtype=None, requires_grad=False):
    """A Tensor on the device."""
    return mg.asarray(DEVICE.asarray(np.asarray(data, dtype))).requires_grad_(requires_grad)


@contextmanager
def staying(what="", uploads=0, waiting=False):
    """Let nothing cross between host and device inside the block but so many uploads.

    Nobody waits for the device either, unless `waiting`. On the stand-in all of it is counted, and
    its counters are given. CuPy refuses what is forbidden; it counts nothing, and gives None.
    """
    if REAL:
        with nullcontext() if waiting else mg.backend.forbid_transfers(uploads=uploads > 0):
            yield None
        return
    with standin.counting() as counted:
        yield counted
    got = {"uploads": counted.uploads, "waits": counted.syncs + counted.host_copies}
    allowed = {"uploads": uploads, "waits": got["waits"] if waiting else 0}
    assert got == allowed, f"{what}: {got}, allowed are {allowed}"
