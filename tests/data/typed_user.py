"""A user's script for `mypy --strict`: it is checked, not run."""

import numpy as np

import microgradnd as mg


def energy(x: mg.Tensor) -> mg.Tensor:
    y = mg.tanh(x) + 1
    z: mg.Tensor = 2 * y.sum(axis=0) - y.mean(axis=(0,), keepdims=False)
    z += 1.0
    w = x @ x.T
    return (z * w[0]).sum()


t = mg.tensor([[1.0, 2.0]], requires_grad=True)
slope = mg.grad(energy)
print(slope(t))
t.sum(axis=0).backward(np.ones(2))
gradient: mg.Tensor | None = t.grad
with mg.no_grad():
    t[0] = 1.0
positive: mg.Tensor = (t > 0).any()
noise: mg.Tensor = mg.random.normal(shape=(2, 3)).relu()
largest: mg.Tensor = mg.maxout(noise, 3).to("numpy")
joined = mg.concatenate([t, t], axis=1)
parts: list[mg.Tensor] = mg.split(joined, 2, axis=1)
values: np.ndarray = t.detach().numpy()
total = mg.add(np.ones(3), [1.0, 2.0, 3.0])
shape: tuple[int, ...] = total.reshape(3, 1).shape
number: float = float(total.sum())
