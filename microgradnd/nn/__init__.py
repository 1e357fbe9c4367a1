"""Modules, layers, losses and initial values, with PyTorch's names.

Example:
    >>> import microgradnd as mg
    >>> net = mg.nn.Sequential(mg.nn.Maxout(2, 8, pieces=3), mg.nn.Linear(8, 1))
    >>> sum(p.size for p in net.parameters())
    81
"""

from . import functional, init, utils
from .generated import MODULES, as_module
from .layers import (
    BatchNorm1d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    Maxout,
    MaxoutConv2d,
    PReLU,
)
from .module import Module, ModuleDict, ModuleList, Parameter, Sequential
from .summary import summary

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "Identity",
    "LayerNorm",
    "Linear",
    "Maxout",
    "MaxoutConv2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "PReLU",
    "Parameter",
    "Sequential",
    "as_module",
    "functional",
    "init",
    "summary",
    "utils",
]
__all__ += sorted(MODULES)
globals().update(MODULES)
