"""Write checkpoints that PyTorch and this package read from each other, and what comes out.

- `torch_model.safetensors`: a model of PyTorch's after some steps, by `safetensors.torch`;
- `torch_bfloat16.safetensors`: some of its weights as bfloat16;
- `our_model.safetensors`: ours of the same shape, by `mg.save`, with its optimizer;
- `torch_checkpoint.json`: the input, PyTorch's outputs for the weights of the first and of the
  third file, and the weights of the second as float32.

The script itself checks the reverse way: PyTorch takes the third file with `strict=True`, and its
outputs are ours to 1e-6.

Run `python tests/data/make_torch_checkpoint.py`; it needs torch and safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import microgradnd as mg  # noqa: E402


def build(nn):
    """The same model of `torch.nn` or `mg.nn`."""
    return nn.Sequential(
        nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Linear(8, 8, bias=False), nn.PReLU(8), nn.LayerNorm(8), nn.Linear(8, 3),
    )  # fmt: skip


def main():
    torch.manual_seed(0)
    mg.manual_seed(0)
    x = np.random.default_rng(0).integers(0, 10, (5, 3))

    theirs = build(torch.nn)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        theirs(torch.from_numpy(x)).square().sum().backward()
        optimizer.step()
    save_file(theirs.state_dict(), HERE / "torch_model.safetensors", metadata={"format": "pt"})
    half = {name: v.bfloat16() for name, v in theirs.state_dict().items() if "8." in name}
    save_file(half, HERE / "torch_bfloat16.safetensors")
    outputs = {"torch_model": theirs.eval()(torch.from_numpy(x))}

    ours = build(mg.nn)
    optimizer = mg.optim.Adam(ours.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        mg.square(ours(mg.asarray(x))).sum().backward()
        optimizer.step()
    path = HERE / "our_model.safetensors"
    mg.save(path, model=ours, optimizer=optimizer)
    state = {k: v for k, v in load_file(path).items() if not k.startswith("optimizer/")}
    theirs.load_state_dict(state, strict=True)
    outputs["our_model"] = theirs(torch.from_numpy(x))
    got = ours.eval()(mg.asarray(x)).detach().numpy()
    np.testing.assert_allclose(outputs["our_model"].detach().numpy(), got, rtol=1e-6, atol=1e-6)
    mg.save(path.with_suffix(".tmp"), model=ours)  # alone, the file is the state dict
    theirs.load_state_dict(load_file(path.with_suffix(".tmp")), strict=True)
    path.with_suffix(".tmp").unlink()

    values = {
        "x": x.tolist(),
        "outputs": {name: out.tolist() for name, out in outputs.items()},
        "bfloat16": {name: v.float().tolist() for name, v in half.items()},
        "torch": torch.__version__,
    }
    (HERE / "torch_checkpoint.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
