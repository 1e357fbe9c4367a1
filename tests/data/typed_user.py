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


class Block(mg.nn.Module):
    def __init__(self, size: int):
        self.layer = mg.nn.Maxout(size, size, pieces=2)
        self.act = mg.nn.LeakyReLU(negative_slope=0.1)
        self.scale = mg.nn.Parameter(1.0)

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        out: mg.Tensor = self.act(self.layer(x)) * self.scale
        return mg.nn.functional.softmax(out, dim=1)


model = mg.nn.Sequential(Block(2), mg.relu, mg.nn.Linear(2, 2)).train()
optimizer = mg.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
schedule = mg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
loader = mg.data.DataLoader(mg.data.TensorDataset(np.ones((4, 2)), np.zeros(4)), batch_size=2)
loss_fn = mg.nn.CrossEntropyLoss(label_smoothing=0.1)
for x, y in loader:
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    total_norm: mg.Tensor = mg.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
schedule.step()
history: mg.train.History = mg.train.fit(model, loss_fn, optimizer, loader, epochs=1)
mg.save("run.safetensors", model=model, optimizer=optimizer)
weights: dict[str, mg.Tensor] = model.state_dict()
