"""How many examples hypothesis draws, what runs last, and a guard against global state."""

from __future__ import annotations

import os

import numpy as np
import pytest

from microgradnd import backend
from microgradnd.modes import MODE
from microgradnd.random import default_generator

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests of the device run without it
    pass
else:
    COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    # Plain `pytest`: the same few examples every time.
    settings.register_profile("dev", max_examples=2, derandomize=True, database=None, **COMMON)
    settings.register_profile("ci", max_examples=8, derandomize=True, print_blob=True, **COMMON)
    settings.register_profile("nightly", max_examples=1000, print_blob=True, **COMMON)
    settings.load_profile(PROFILE)


def profile(config):
    """The name of the profile: the option goes before the variable."""
    return config.getoption("--hypothesis-profile", None) or PROFILE


def binding_last(items):
    """What binds the session's calls to the real CuPy runs when all of them were made."""
    items.sort(key=lambda item: item.path.name == "test_real_cupy.py")


def pytest_collection_modifyitems(config, items):
    """A plain run of the whole suite leaves out what takes seconds."""
    binding_last(items)
    whole = config.args_source is config.ArgsSource.TESTPATHS and not config.option.markexpr
    if whole and profile(config) == "dev":
        slow = {item for item in items if item.get_closest_marker("slow")}
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


def pytest_report_header(config):
    """Say which profile it is, and how to run the rest."""
    rest = "; --hypothesis-profile=ci runs what takes seconds, too" * (profile(config) == "dev")
    return f"profile: {profile(config)}{rest}"


@pytest.fixture(autouse=True)
def no_global_state_leaks():
    """Modes and the current backend are as before after every test; random numbers start anew."""
    mode, current = MODE.get(), backend.get()
    generator = default_generator()
    state = generator.state
    yield
    left = {name: getattr(MODE.get(), name) for name in type(mode).__slots__}
    MODE.set(mode)
    generator.state = state
    assert left == {name: getattr(mode, name) for name in type(mode).__slots__}
    assert default_generator() is generator
    assert backend.get() is current


@pytest.fixture
def only_the_device(monkeypatch):
    """Make every launch on the stand-in with a NumPy array or number among its operands fail.

    Only the words of Philox are NumPy's numbers: Python's have no 64 bits without a sign. Of
    CuPy's own launches nobody is told; it refuses arrays by itself, and takes numbers.
    """
    import standin

    plain = standin.launch

    def launch(name, args=(), kwargs=()):
        for x in standin.leaves((args, tuple(dict(kwargs).values()))):
            wrong = isinstance(x, np.ndarray | np.generic) and type(x) is not np.uint64
            assert not wrong, f"{name}: {x!r} is on the host"
        plain(name, args, kwargs)

    monkeypatch.setattr(standin, "launch", launch)
