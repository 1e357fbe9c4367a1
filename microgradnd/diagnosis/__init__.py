"""Why does this network not train? `mg.diagnose` says it; here are the parts that it is made of.

    record = mg.diagnosis.Recorder(model, optimizer)       # before training
    ...                                                    # train as ever
    print(mg.diagnose(model, loss_fn, train=(x, y), test=(tx, ty), record=record))

The training set comes first: only a network that fits what it was trained on can be overfitted.
"""

from importlib import import_module
from typing import Any

_WHERE = {  # no module has the name of what it holds: it would hide it
    "arrays": ["diagnose_arrays"],
    "chain": ["explain"],
    "evidence": ["Evidence", "Finding", "Layer", "LayerState", "Record", "Remedy", "Sample"],
    "examination": ["diagnose", "examine", "from_record"],
    "flow": ["activation_stats", "dead_units", "gradient_flow", "learned_shapes", "piece_usage"],
    "perturb": ["sensitivity"],
    "recorder": ["Recorder", "load"],
    "regions": ["active_subnetwork", "linear_regions"],
    "report": ["Report"],
    "rules": ["Thresholds", "decide"],
    "variants": ["compare_depths"],
}  # fmt: skip
_PLACES = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import what is asked for: one part needs few of the others."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    """Name the parts."""
    return __all__
