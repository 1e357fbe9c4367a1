"""Every primitive runs on arrays without values, first and second order, and can be replayed.

So `compile` has nothing to fear from the registry: a formula that looks at a value fails here.
"""

from __future__ import annotations

import microgradnd as mg
import numpy as np
import pytest
from microgradnd.backend.namespace import NAMES
from microgradnd.registry import REGISTRY
from microgradnd.tape import Tensor
from recorder import NUMPY, RECORDER, Recorded, Unrecordable, registered, replay
from samples import NAMES as OPERATIONS
from samples import differentiate, place_all, samples

DTYPES = ("float16", "float32", "float64")


@pytest.fixture(autouse=True)
def recorder():
    with registered(RECORDER), np.errstate(all="ignore"):
        yield RECORDER


def layout(t):
    """What a recording can know of a tensor."""
    return None if t is None else (t.shape, t.dtype)


def record(sample, order=2):
    """Record a sample; gives its results, the program and the arrays to replay it on."""
    program, handed = RECORDER.start(), []

    def place(array):
        handed.append(array)
        return program.input(array.shape, array.dtype)

    results = differentiate(sample, place_all(sample, place), place, order)
    program.outputs = [t._array for t in results.each() if t is not None]
    return results, program, handed


def same_bits(x, y):
    """Whether two arrays are equal to the last bit; any NaN equals any other."""
    return x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y, equal_nan=True)


def compare(sample):
    """Record a sample and hold it against the eager run: layouts, and the bits of a replay."""
    eager = differentiate(sample, place_all(sample, lambda a: a), lambda a: a)
    results, program, handed = record(sample)
    for mine, theirs in zip(results, eager, strict=True):
        assert list(map(layout, mine)) == list(map(layout, theirs))
    for t in results.each():
        assert t is None or type(t._array) is Recorded
    want = [t._array for t in eager.each() if t is not None]
    return replay(program, handed), want


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_recorded_and_replayed_to_second_order(name):
    done = 0
    for dtype in DTYPES:
        for sample in samples(name, dtype):
            try:
                replayed, want = compare(sample)
            except Unrecordable as error:
                assert REGISTRY[name].data.get("why"), f"{sample}: {error}"
                assert name in str(error)
                continue
            for mine, theirs in zip(replayed, want, strict=True):
                assert same_bits(mine, theirs), f"{sample}: {mine} for {theirs}"
            done += 1
    assert bool(done) is (name not in REGISTRY or REGISTRY[name].data.get("recordable", True))
