"""Modules, their state, hooks and layers, initial values and what handles gradients and weights.

Outputs and gradients are held to PyTorch's in `test_nn_reference`.
"""

from __future__ import annotations

import copy
import inspect
import math
import pickle

import numpy as np
import pytest
import standin
from samples import registered

import microgradnd as mg
from microgradnd import nn
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.nn import functional as F
from microgradnd.nn import generated, init, utils
from microgradnd.registry import COMPOSITES, REGISTRY

DEVICE = CupyBackend(standin.cupy, standin.special, name="standin")


@pytest.fixture(autouse=True)
def device():
    with registered(DEVICE):
        yield DEVICE
        DEVICE.synchronize()


def host(t):
    return t._array.get() if isinstance(t._array, standin.ndarray) else t._array


def rand(*shape, seed=0, dtype="float32"):
    return mg.tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype))


class Block(nn.Module):
    """Parameters after a child and a buffer, to see the order."""

    def __init__(self):
        self.inner = nn.Linear(2, 2)
        self.register_buffer("mask", mg.ones(2))
        self.scale = nn.Parameter([1.0, 2.0])
        self.register_buffer("scratch", mg.zeros(2), persistent=False)
        self.register_buffer("nothing", None)
        self.missing = None
        self.plain = mg.ones(3)  # neither trained nor saved nor moved

    def forward(self, x):
        return self.inner(x) * self.scale * self.mask


class Net(nn.Module):
    def __init__(self):
        self.body = nn.Sequential(Block(), mg.tanh, nn.Dropout(0.5))
        self.head = nn.Linear(2, 1, bias=False)

    def forward(self, x):
        return self.head(self.body(x))


def tied():
    """Two layers over one weight, and one module under two names."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    net.again = net[0]
    return net


# ---------------------------------------------------------------------------------- what is inside


def test_parameters_and_buffers_come_in_order_with_dotted_names():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "body.0.scale", "body.0.inner.weight", "body.0.inner.bias", "head.weight",
    ]  # fmt: skip
    assert [n for n, _ in net.named_parameters("net", recurse=False)] == []
    assert [n for n, _ in net.body[0].named_parameters("b", recurse=False)] == ["b.scale"]
    assert [n for n, _ in net.named_buffers()] == ["body.0.mask", "body.0.scratch"]
    assert set(net.state_dict()) == {
        "body.0.inner.weight", "body.0.inner.bias", "body.0.mask", "body.0.scale", "head.weight",
    }  # fmt: skip
    assert [n for n, _ in net.named_modules()] == [
        "", "body", "body.0", "body.0.inner", "body.1", "body.2", "head",
    ]  # fmt: skip
    assert [n for n, _ in net.named_children()] == ["body", "head"]
    assert list(net.children()) == [net.body, net.head]
    assert next(iter(net.modules())) is net
    assert all(p is q for p, q in zip(net.parameters(), dict(net.named_parameters()).values(),
                                      strict=True))  # fmt: skip


def test_what_is_shared_is_counted_once_and_saved_under_every_name():
    net = tied()
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(net.state_dict()) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "again.weight", "again.bias",
    ]  # fmt: skip
    assert [n for n, _ in net.named_modules()] == ["", "0", "1"]
    assert [n for n, _ in net.named_children()] == ["0", "1"]
    assert len(nn.ModuleList([net[0], net[0]])) == 2
    net(rand(3, 2)).sum().backward()
    one = nn.Linear(2, 2)
    with mg.no_grad():
        one.weight.assign_(net[0].weight)
    x = rand(3, 2)
    net.zero_grad()
    (mg.linear(mg.linear(x, one.weight), one.weight)).sum().backward()
    mg.linear(mg.linear(x, net[0].weight), net[1].weight).sum().backward()
    assert np.array_equal(net[1].weight.grad.numpy(), one.weight.grad.numpy())


def test_replacing_an_attribute_replaces_what_is_found():
    block = Block()
    block.inner = nn.Identity()
    assert [n for n, _ in block.named_parameters()] == ["scale"]
    block.scale = None
    assert not list(block.parameters())
    block.scale = nn.Parameter([5.0])
    assert [n for n, _ in block.named_parameters()] == ["scale"]
    del block.scale
    assert not list(block.parameters())
    block.mask = mg.zeros(2)
    assert dict(block.named_buffers())["mask"].tolist() == [0.0, 0.0]
    block.mask = None
    assert "mask" not in block.state_dict()
    del block.mask
    assert [n for n, _ in block.named_buffers()] == ["scratch"]
    block.mask = 3.0  # an attribute like any other now
    assert "mask" not in block.state_dict()
    block.scratch = nn.Parameter([1.0])
    assert not list(block.buffers())
    assert [n for n, _ in block.named_parameters()] == ["scratch"]
    assert list(block.state_dict()) == ["scratch"]


def test_buffers_are_registered_and_stay_tensors():
    block = Block()
    for name, value, error, said in (
        ("a.b", mg.ones(1), ValueError, "dot"),
        ("a", 1.0, TypeError, "float"),
        ("a", nn.Parameter([1.0]), TypeError, "Parameter"),
        ("inner", mg.ones(1), KeyError, "'inner'"),
        ("forward", mg.ones(1), KeyError, "'forward'"),
    ):
        with pytest.raises(error, match=said):
            block.register_buffer(name, value)
    with pytest.raises(TypeError, match=r"Block\.mask is a buffer and cannot become a float"):
        block.mask = 1.0
    assert block.mask.tolist() == [1.0, 1.0]
    block.register_buffer("mask", mg.zeros(1), persistent=False)  # again, and otherwise
    assert "mask" not in block.state_dict()


def test_a_parameter_is_a_tensor_that_copies():
    data = np.ones(2, "float32")
    p = nn.Parameter(data)
    data[0] = 7.0
    assert p.tolist() == [1.0, 1.0]
    assert p.requires_grad
    assert isinstance(p, mg.Tensor)
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad
    assert nn.Parameter([1.0], dtype="float64").dtype == np.float64
    assert type(p * 2) is mg.Tensor
    with pytest.raises(TypeError, match="int64"):
        nn.Parameter(np.array([1]))


# ------------------------------------------------------------------------------- changes to it all


def test_modes_reach_every_module():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.body.train()
    assert [m.training for m in net.modules()] == [False, True, True, True, True, True, False]
    assert net.train().head.training
    for mode in (1, "eval", None):
        with pytest.raises(TypeError, match="True or False"):
            net.train(mode)
    assert net.head.training
    assert nn.Module.training  # of the class, untouched


def test_apply_goes_from_the_leaves_up():
    net, seen = Net(), []
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "Block", "Lambda", "Dropout", "Sequential", "Linear", "Net"]


def test_freezing_and_forgetting_gradients():
    net = tied()
    assert net.requires_grad_(False) is net
    assert not net(rand(3, 2)).requires_grad
    net[1].requires_grad_()
    net(rand(3, 2)).sum().backward()
    assert [p.grad is None for p in net.parameters()] == [False, True, False]
    net[1].bias.grad = mg.tensor([np.nan, np.inf])
    net.zero_grad(set_to_none=False)
    assert net[1].bias.grad.tolist() == [0.0, 0.0]
    assert net[0].bias.grad is None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("target", ["float64", np.float16, np.dtype("float64"), "standin"])
def test_moving_keeps_identity_gradient_and_hooks(target):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Embedding(2, 2))
    net[2].requires_grad_(False)
    before = list(net.parameters())
    values = [p.tolist() for p in before]
    seen = []
    before[0].register_hook(seen.append)
    before[0].grad = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert net.to(target) is net
    assert all(p is q for p, q in zip(net.parameters(), before, strict=True))
    dtype = np.dtype("float32" if target == "standin" else target)
    home = "standin" if target == "standin" else "numpy"
    count = net[1].num_batches_tracked
    assert (count.dtype, count.backend.name) == (np.int64, home)
    for p in [*before, net[1].running_mean, before[0].grad]:
        assert (p.dtype, p.backend.name) == (dtype, home)
    for p, value in zip(before, values, strict=True):
        np.testing.assert_allclose(host(p), value, 1e-3)
    assert host(before[0].grad).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert [p.requires_grad for p in before] == [True] * 4 + [False]
    x = rand(4, 2).to(home).astype(dtype)
    net.zero_grad()
    net[1](net[0](x))[0].sum().backward()
    assert len(seen) == 1
    assert before[0].grad.dtype == dtype
    assert before[0].grad.backend.name == home


def test_moving_where_it_cannot_go_changes_nothing():
    net = nn.BatchNorm1d(2)
    for target, error in (("int64", TypeError), (bool, TypeError), ("nowhere", ValueError)):
        with pytest.raises(error):
            net.to(target)
    assert {t.dtype.name for t in net.state_dict().values()} == {"float32", "int64"}
    weight = net.weight._array
    assert net.to("float32").to("numpy").weight._array is weight


def test_a_model_on_both_backends_is_used_with_a_message_only():
    with pytest.raises(TypeError, match="'standin'"):
        nn.Linear(2, 2).to("standin")(rand(1, 2))


# ------------------------------------------------------------------------------------------ copies


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
                         ids=["deepcopy", "pickle"])  # fmt: skip
@pytest.mark.parametrize("home", ["numpy", "standin"])
def test_copies_keep_ties_and_share_no_memory(how, home):
    net = nn.Sequential(tied(), nn.BatchNorm1d(2), mg.tanh, nn.LeakyReLU(0.3)).to(home).eval()
    net[0][0].bias.requires_grad_(False)
    other = how(net)
    assert other[0][0].weight is other[0][1].weight
    assert other[0].again is other[0][0]
    assert list(other.state_dict()) == list(net.state_dict())
    assert [p.requires_grad for p in other.parameters()] == [True, False, True, True, True]
    assert not any(m.training for m in other.modules())
    assert type(other[0][0].weight) is nn.Parameter
    x = rand(3, 2).to(home)
    assert np.array_equal(host(net(x)), host(other(x)))
    before = [host(t).copy() for t in net.state_dict().values()]
    with mg.no_grad():
        for t in [*other.parameters(), *other.buffers()]:
            t += 1
    assert all(np.array_equal(host(a), b) for a, b in zip(net.state_dict().values(), before,
                                                          strict=True))  # fmt: skip
    assert other[0][0].weight.backend.name == home


def test_every_generated_class_is_pickled():
    needed = {"Threshold": (0.1, 2.0)}
    for name, kind in generated.MODULES.items():
        module = kind(*needed.get(name, (2,) if "Pool" in name else ())).eval()
        other = pickle.loads(pickle.dumps(module))
        assert type(other) is kind is getattr(nn, name)
        assert repr(other) == repr(module)
        assert not other.training


def test_hooks_of_a_copy_are_its_own():
    layer, seen = nn.Identity(), []
    layer.register_forward_hook(lambda m, a, out: seen.append(m))
    other = copy.deepcopy(layer)
    other(1)
    assert seen == [other]
    layer(1)
    assert seen == [other, layer]


# ------------------------------------------------------------------------------------------- state


def test_state_is_the_same_memory_off_the_tape():
    net = Net()
    state = net.state_dict()
    assert not any(t.requires_grad for t in state.values())
    with mg.no_grad():
        state["head.weight"][0, 0] = 7.0
    assert net.head.weight[0, 0].item() == 7.0


def test_loading_takes_arrays_other_dtypes_and_other_backends():
    net = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    arrays = [p._array for p in net.parameters()]
    state = {
        "0.weight": np.array([[1.0, 2.0]]),
        "0.bias": DEVICE.asarray(np.array([3.0], "float32")),
        "1.weight": mg.tensor([4.0]).to("standin"),
        "1.bias": mg.tensor([5.0], dtype="float16"),
        "1.running_mean": np.array([6.0], ">f4"),
        "1.running_var": np.ones((2, 1), "float32")[::2, 0],
        "1.num_batches_tracked": np.int32(9),
    }
    assert net.load_state_dict(state) == ([], [])
    assert [t.tolist() for t in net.state_dict().values()] == [
        [[1.0, 2.0]], [3.0], [4.0], [5.0], [6.0], [1.0], 9,
    ]  # fmt: skip
    assert all(p._array is a for p, a in zip(net.parameters(), arrays, strict=True))
    assert {t.dtype.name for t in net.state_dict().values()} == {"float32", "int64"}
    assert all(p.requires_grad for p in net.parameters())
    net.to("standin").load_state_dict(state)
    assert host(net[0].weight).tolist() == [[1.0, 2.0]]


def test_loading_takes_tensors_of_another_library():
    class Foreign:
        """Like PyTorch's: its dtype is none of NumPy's."""

        dtype = "theirs.float32"

        def __init__(self, values):
            self.array = np.array(values, "float32")
            self.shape = self.array.shape

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    net = nn.Linear(2, 1)
    net.load_state_dict({"weight": Foreign([[1.0, 2.0]]), "bias": Foreign([3.0])})
    assert (net.weight.tolist(), net.bias.tolist()) == ([[1.0, 2.0]], [3.0])
    with pytest.raises(ValueError, match=r"'bias' has shape \(2,\)"):
        net.load_state_dict({"weight": Foreign([[1.0, 2.0]]), "bias": Foreign([3.0, 4.0])})


def test_one_name_of_a_shared_tensor_is_enough():
    """As `safetensors.torch.save_model` writes it."""
    net = tied()
    state = {n: t.clone() for n, t in net.state_dict().items()}
    for name in ("1.weight", "again.weight", "again.bias"):
        del state[name]
    state["0.weight"] = state["0.weight"] + 1
    assert net.load_state_dict(state) == ([], [])
    assert np.array_equal(net[1].weight.detach().numpy(), state["0.weight"].numpy())
    del state["0.weight"]
    with pytest.raises(ValueError, match=r"missing '0.weight'.*missing '1.weight'"):
        net.load_state_dict(state)


def test_not_strict_loading_says_what_it_left():
    net = nn.Linear(2, 1)
    bias = net.bias.tolist()
    keys = net.load_state_dict({"weight": np.ones((1, 2)), "other": 3}, strict=False)
    assert keys.missing_keys == ["bias"]
    assert keys.unexpected_keys == ["other"]
    assert net.weight.tolist() == [[1.0, 1.0]]
    assert net.bias.tolist() == bias


def test_loading_a_model_s_own_state_and_a_copied_one():
    net = Net()
    saved = {n: t.clone() for n, t in net.state_dict().items()}
    with mg.no_grad():
        for p in net.parameters():
            p += 1.0
    net.load_state_dict(net.state_dict())
    assert net.head.weight.tolist() == (saved["head.weight"] + 1.0).tolist()
    net.load_state_dict(saved)
    assert net.head.weight.tolist() == saved["head.weight"].tolist()


def test_loading_between_forward_and_backward_is_noticed():
    layer = nn.Linear(2, 1)
    out = (layer(rand(3, 2).requires_grad_()) ** 2).sum()
    layer.load_state_dict({n: t.clone() for n, t in layer.state_dict().items()})
    with pytest.raises(RuntimeError, match="overwritten in place"):
        out.backward()


# ------------------------------------------------------------------------------------------- hooks


def test_hooks_see_and_replace_in_order():
    layer, seen = nn.Identity(), []
    layer.register_forward_pre_hook(lambda m, args: seen.append(("pre", args)))
    layer.register_forward_pre_hook(lambda m, args: args[0] + 1)  # one value is wrapped
    layer.register_forward_pre_hook(lambda m, args: (args[0] * 10,))
    layer.register_forward_hook(lambda m, args, out: seen.append(("post", args, out)))
    layer.register_forward_hook(lambda m, args, out: out + 0.5)
    layer.register_forward_hook(lambda m, args, out: out * 2)
    assert layer(1) == 41.0
    assert seen == [("pre", (1,)), ("post", (20,), 20)]


def test_a_hook_that_was_removed_twice_takes_no_other_away():
    layer, seen = nn.Identity(), []
    first = layer.register_forward_hook(lambda *_: seen.append(1))
    first.remove()
    layer.register_forward_hook(lambda *_: seen.append(2))
    first.remove()
    layer(0)
    assert seen == [2]


def test_hooks_may_remove_themselves_and_belong_to_one_module():
    layer, other, seen = nn.Identity(), nn.Identity(), []

    def once(module, args, out):
        seen.append(out)
        handle.remove()

    handle = layer.register_forward_hook(once)
    layer.register_forward_hook(lambda m, a, out: seen.append(-out))
    for module, x in ((other, 0), (layer, 1), (layer, 2)):
        module(x)
    assert seen == [1, -1, -2]


def test_a_hook_that_is_always_called_also_hears_of_errors():
    layer, seen = nn.Linear(2, 2), []
    layer.register_forward_hook(lambda m, args, out: seen.append("ordinary"))
    layer.register_forward_hook(lambda m, args, out: seen.append((args, out)), always_call=True)
    wrong = mg.ones((1, 3))
    with pytest.raises(ValueError):
        layer(wrong)
    assert seen == [((wrong,), None)]
    layer(mg.ones((1, 2)))
    assert seen[1] == "ordinary" and seen[2][1].shape == (1, 2)


def test_a_hook_that_is_always_called_hears_of_the_errors_of_others_and_hides_none():
    layer, seen = nn.Identity(), []

    def broken(module, args, out):
        raise RuntimeError("this one" if out == 1 else "not this one")

    layer.register_forward_hook(lambda *_: seen.append("before"), always_call=True)
    layer.register_forward_hook(broken)
    layer.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)
    layer.register_forward_hook(lambda m, a, out: 1 / 0, always_call=True)
    with pytest.raises(RuntimeError, match=r"^this one") as caught:
        layer(1)
    assert seen == ["before", 1]  # each once
    assert "ZeroDivisionError" in caught.value.__notes__[0]


# -------------------------------------------------------------------------------------- containers


def test_sequential_runs_modules_and_functions():
    net = nn.Sequential(nn.Linear(2, 3), mg.tanh, lambda x: x * 2, nn.Identity())
    x = rand(4, 2)
    assert np.array_equal(net(x).numpy() if not net(x).requires_grad else net(x).detach().numpy(),
                          (mg.tanh(net[0](x)) * 2).detach().numpy())  # fmt: skip
    assert len(net) == 4
    assert [type(m).__name__ for m in net] == ["Linear", "Lambda", "Lambda", "Identity"]
    assert nn.Sequential()(3) == 3
    for wrong in (nn.ReLU, 3, None):
        with pytest.raises(TypeError, match="a module or a function is wanted"):
            nn.Sequential(nn.Linear(1, 1), wrong)
    with pytest.raises(TypeError, match="make one first"):
        nn.Sequential(nn.ReLU)


def test_sequential_is_a_list():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)
    net = nn.Sequential(a, b, c)
    assert net[0] is a
    assert net[-1] is c
    assert list(net[1:]) == [b, c]
    assert type(net[1:]) is nn.Sequential
    assert list(net[1:].state_dict()) == ["2.weight", "2.bias"]  # names stay, as in PyTorch
    assert list(net[::2]) == [a, c]
    with pytest.raises(IndexError):
        net[3]
    with pytest.raises(IndexError):
        net[3] = a
    net[1] = mg.tanh
    assert repr(net[1]) == "Lambda(tanh)"
    net[-1] = b
    assert list(net)[2] is b
    assert net.append(c) is net
    assert net.extend([a]) is net
    assert list(net)[2:] == [b, c, a]
    assert list(net[2:].append(mg.relu))[:3] == [b, c, a]  # nothing is overwritten
    assert len(net[2:].append(mg.relu)) == 4


def test_sequential_of_a_dict():
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    net = nn.Sequential({"one": a, "act": mg.relu, "two": b})
    assert [n for n, _ in net.named_parameters()] == [
        "one.weight", "one.bias", "two.weight", "two.bias",
    ]  # fmt: skip
    assert net.two is b
    net[0] = b
    assert net.one is b
    assert len(net) == 3
    assert list(net[1:].named_children())[1] == ("two", b)
    for name in ("a.b", "", "forward", "training"):
        with pytest.raises(KeyError):
            nn.Sequential({name: a})


def test_module_list_and_dict():
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    layers = nn.ModuleList([a]).append(mg.relu).extend([b])
    assert (len(layers), layers[0], layers[-1]) == (3, a, b)
    assert list(layers[::2]) == [a, b]
    assert type(layers[1:]) is nn.ModuleList
    layers[0] = b
    assert next(iter(layers)) is b
    assert [n for n, _ in layers.named_parameters()] == ["0.weight", "0.bias"]
    with pytest.raises(NotImplementedError):
        layers(1)
    named = nn.ModuleDict({"a": a, "f": mg.tanh})
    named["b"] = b
    assert list(named) == list(named.keys()) == ["a", "f", "b"]
    assert named["a"] is a
    assert named["f"](mg.tensor(0.0)).item() == 0.0
    assert len(named) == 3
    assert "b" in named
    assert "forward" not in named
    assert list(named.values())[2] is b
    assert named.items()[0] == ("a", a)
    named["a"] = b
    assert [n for n, _ in named.named_parameters()] == ["a.weight", "a.bias"]
    del named["b"]
    assert "b" not in named
    for name in ("keys", "a.b", "", "training", "_before"):
        with pytest.raises(KeyError):
            named[name] = a
    for wrong in (lambda: named["z"], lambda: named.__delitem__("z")):
        with pytest.raises(KeyError, match="z"):
            wrong()
    with pytest.raises(TypeError, match="'x' is a int"):
        nn.Module().add_module("x", 3)


def test_looks():
    assert repr(Net()) == "\n".join([
        "Net(",
        "  (body): Sequential(",
        "    (0): Block(",
        "      (inner): Linear(in_features=2, out_features=2, bias=True)",
        "    )",
        "    (1): Lambda(tanh)",
        "    (2): Dropout(p=0.5)",
        "  )",
        "  (head): Linear(in_features=2, out_features=1, bias=False)",
        ")",
    ])  # fmt: skip
    for module, wanted in (
        (nn.Maxout(2, 3, 4), "Maxout(in_features=2, out_features=3, pieces=4, bias=True)"),
        (nn.PReLU(3), "PReLU(num_parameters=3)"),
        (nn.LayerNorm((2, 3)), "LayerNorm((2, 3), eps=1e-05, elementwise_affine=True)"),
        (nn.Embedding(3, 2, -1), "Embedding(3, 2, padding_idx=2)"),
        (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
        (nn.Softmax(1), "Softmax(dim=1)"),
        (nn.CrossEntropyLoss(mg.ones(3), reduction="sum"),
         "CrossEntropyLoss(ignore_index=-100, reduction='sum', label_smoothing=0.0)"),
        (nn.ModuleList(), "ModuleList()"),
    ):  # fmt: skip
        assert repr(module) == wanted


# ----------------------------------------------------------------------------------------- summary


def test_summary_prints_shapes_and_counts(capsys):
    net = tied()
    del net.again
    net.add_module("drop", nn.Dropout())
    net.add_module("spare", nn.Linear(2, 2).requires_grad_(False))
    net.spare.forward = lambda x: (x, [x, 1])
    net[1].eval()
    nn.summary(net, (7, 2))
    assert capsys.readouterr().out.splitlines() == [
        "module   class       output               parameters",
        "         Sequential  (7, 2), (7, 2), int          14",
        "  0      Linear      (7, 2)                        6",
        "  1      Linear      (7, 2)                        2",
        "  drop   Dropout     (7, 2)                        0",
        "  spare  Linear      (7, 2), (7, 2), int           6",
        "parameters: 14, trained: 8",
    ]
    assert [m.training for m in net.modules()] == [True, True, False, True, True]
    assert not any(m._after for m in net.modules())


def test_summary_leaves_the_model_as_it_was(capsys):
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1), nn.Linear(3, 1))
    seen = []
    net[1].register_forward_hook(lambda m, a, out: seen.append((out.requires_grad, m.training)))
    net[0].eval()
    with pytest.raises(ValueError, match="last axis must be 3"):
        nn.summary(net, (4, 2))
    assert seen == [(False, False)]
    assert [m.training for m in net.modules()] == [True, False, True, True]
    assert [len(m._after) for m in net.modules()] == [0, 0, 1, 0]
    assert net[0].num_batches_tracked.item() == 0
    assert capsys.readouterr().out == ""
    nn.summary(nn.Embedding(5, 3).to("standin"), (2, 4), "int64")  # where the model lives
    assert "(2, 4, 3)" in capsys.readouterr().out
    nn.summary(nn.Embedding(5, 3), mg.tensor([1, 2]))
    assert "(2, 3)" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ layers

MAKE = {
    "Linear(0, 1)": (ValueError, "in_features .* got 0"),
    "Linear(1, -1)": (ValueError, "out_features .* got -1"),
    "Linear(2.0, 1)": (ValueError, r"in_features .* got 2\.0"),
    "Linear(True, 1)": (ValueError, "in_features .* got True"),
    "Maxout(1, 1, 0)": (ValueError, "pieces .* got 0"),
    "Maxout(1, 0, 2)": (ValueError, "out_features"),
    "PReLU(0)": (ValueError, "num_parameters"),
    "BatchNorm1d(0)": (ValueError, "num_features"),
    "LayerNorm(0)": (ValueError, "normalized_shape .* got 0"),
    "LayerNorm(())": (ValueError, "normalized_shape"),
    "LayerNorm(2.5)": (ValueError, r"normalized_shape .* got 2\.5"),
    "LayerNorm((2, 0))": (ValueError, "normalized_shape"),
    "Embedding(0, 1)": (ValueError, "num_embeddings"),
    "Embedding(3, 2, 3)": (IndexError, "padding_idx 3 for 3 rows"),
    "Embedding(3, 2, -4)": (IndexError, "padding_idx -4 for 3 rows"),
    "Dropout(1.5)": (ValueError, r"p must be in \[0, 1\], got 1\.5"),
    "Dropout(float('nan'))": (ValueError, "nan"),
    "LeakyReLU(slope=1)": (TypeError, "LeakyReLU: .*slope.*negative_slope=0.01"),
    "ReLU(1)": (TypeError, "ReLU: .*it takes nothing"),
    "Threshold()": (TypeError, "Threshold: .*threshold"),
}


@pytest.mark.parametrize("made", MAKE)
def test_wrong_options_are_told_when_a_layer_is_made(made):
    error, said = MAKE[made]
    with pytest.raises(error, match=said):
        eval(f"nn.{made}", {"nn": nn})


CALLS = {
    "linear": (lambda: nn.Linear(4, 2)(rand(3, 5)), ValueError,
               r"Linear\(in_features=4, out_features=2\).*\(3, 5\).*must be 4"),
    "number": (lambda: nn.Linear(4, 2)(mg.tensor(1.0)), ValueError, r"shape \(\)"),
    "maxout": (lambda: nn.Maxout(4, 2, 3)(rand(3, 5)), ValueError,
               r"Maxout\(in_features=4, out_features=2, pieces=3\).*\(3, 5\)"),
    "prelu": (lambda: nn.PReLU(3)(rand(2, 4)), ValueError, r"must be 3.*\(2, 4\)"),
    "prelu of one axis": (lambda: nn.PReLU(3)(rand(3)), ValueError, r"\(3,\)"),
    "batch norm": (lambda: nn.BatchNorm1d(3)(rand(4, 2)), ValueError, r"\(N, 3\).*\(4, 2\)"),
    "batch norm of 1": (lambda: nn.BatchNorm1d(2)(rand(1, 2)), ValueError, r"one value.*\(1, 2\)"),
    "batch norm of 0": (lambda: nn.BatchNorm1d(2)(rand(0, 2)), ValueError, r"one value.*\(0, 2\)"),
    "batch norm, 4 axes": (lambda: nn.BatchNorm1d(2)(rand(1, 2, 3, 4)), ValueError, "is wanted"),
    "layer norm": (lambda: nn.LayerNorm((3, 2))(rand(2, 3)), ValueError, r"\(2, 3\).*\(3, 2\)"),
    "id too large": (lambda: nn.Embedding(3, 2)(mg.tensor([0, 3])), IndexError, "3 is out of"),
    "id too small": (lambda: nn.Embedding(3, 2)(mg.tensor([-4])), IndexError, "-4 is out of"),
    "float ids": (lambda: nn.Embedding(3, 2)(rand(2)), TypeError, "integers, got float32"),
    "boolean ids": (lambda: nn.Embedding(3, 2)(np.array([True])), TypeError, "got bool"),
    "no target": (lambda: nn.MSELoss()(rand(2)), TypeError, "a target .* wanted, got 1"),
    "data for options": (
        lambda: nn.CrossEntropyLoss(rand(2, 2), mg.tensor([0, 1])), TypeError, "index cannot be"
    ),
    "a list in Sequential": (
        lambda: nn.Sequential([nn.Flatten(), nn.Flatten()]), TypeError, "Sequential..modules"
    ),
    "no list in ModuleList": (lambda: nn.ModuleList(nn.Flatten()), TypeError, "a list of modules"),
    "state within a file": (
        lambda: nn.Linear(1, 1).load_state_dict({"model": {}}), ValueError, r"pass \[.model.\]"
    ),
    "flatten": (lambda: nn.Flatten(2)(rand(2, 3)), IndexError, r"Flatten\(2, -1\).*\(2, 3\)"),
    "flatten a row": (lambda: nn.Flatten()(rand(3)), IndexError, r"\(3,\)"),
    "flatten backwards": (lambda: nn.Flatten(2, 1)(rand(2, 3, 4)), ValueError, "no axes"),
    "functional dropout": (lambda: F.dropout(rand(3), 2.0), ValueError, "got 2.0"),
    "axis and dim": (lambda: F.softmax(rand(2, 2), axis=0, dim=1), TypeError, "softmax"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_wrong_inputs_are_told_with_sizes(case):
    call, error, said = CALLS[case]
    with pytest.raises(error, match=said):
        call()


def test_an_empty_batch_gives_an_empty_batch():
    for module, x in (
        (nn.Linear(2, 3), rand(0, 2)), (nn.Maxout(2, 3, 2), rand(0, 2)), (nn.PReLU(2), rand(0, 2)),
        (nn.BatchNorm1d(2).eval(), rand(0, 2)), (nn.LayerNorm(2), rand(0, 2)),
        (nn.Dropout(), rand(0, 2)), (nn.Embedding(3, 2, 0), mg.tensor(np.zeros((0, 4), "int64"))),
        (nn.Flatten(), rand(0, 2, 3)), (nn.ReLU(), rand(0, 2)), (nn.Softmax(), rand(0, 2)),
    ):  # fmt: skip
        out = module(x)
        assert out.shape[0] == 0
        if out.requires_grad:
            out.sum().backward()
            assert all(np.all(p.grad.numpy() == 0.0) for p in module.parameters())


@pytest.mark.parametrize("data", [[[1.0, 2.0], [-3.0, 4.0]], np.eye(2, dtype="float32")],
                         ids=["list", "array"])  # fmt: skip
def test_every_layer_takes_lists_and_arrays(data):
    for make in (
        lambda: nn.Linear(2, 3), lambda: nn.Maxout(2, 3, 2), nn.PReLU, lambda: nn.PReLU(2),
        lambda: nn.BatchNorm1d(2), lambda: nn.BatchNorm1d(2).eval(), lambda: nn.LayerNorm(2),
        nn.Dropout, lambda: nn.Dropout().eval(), nn.ReLU, nn.Softmax,
    ):  # fmt: skip
        module, twin = (copy.deepcopy(make()) for _ in range(2))
        twin.load_state_dict(module.state_dict())
        mg.manual_seed(0)
        got = module(data)
        mg.manual_seed(0)
        assert isinstance(got, mg.Tensor)
        assert np.array_equal(host(got), host(twin(mg.tensor(data))))


def test_linear_takes_any_leading_axes():
    layer = nn.Linear(3, 2)
    for shape in ((3,), (4, 3), (2, 4, 3), (1, 2, 2, 3)):
        x = rand(*shape)
        out = layer(x)
        assert out.shape == (*shape[:-1], 2)
        want = x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        np.testing.assert_allclose(out.detach().numpy(), want, 1e-5, 1e-6)
    assert nn.Linear(3, 2, bias=False).bias is None
    assert nn.Linear(3, 2, dtype="float64")(rand(1, 3, dtype="float64")).dtype == np.float64
    layer.reset_parameters()
    assert np.abs(layer.weight.detach().numpy()).max() <= 3**-0.5


def test_maxout_is_the_linear_map_and_the_maximum():
    layer, x = nn.Maxout(4, 3, pieces=2), rand(6, 4).requires_grad_()
    assert layer.weight.shape == (6, 4)
    assert layer.bias.tolist() == [0.0] * 6
    out = layer(x)
    assert np.array_equal(
        out.detach().numpy(),
        mg.maxout(mg.linear(x, layer.weight, layer.bias), 2).detach().numpy(),
    )
    with mg.no_grad():
        pieces = mg.linear(x, layer.weight, layer.bias).numpy().reshape(6, 3, 2)
    g = rand(6, 3, seed=1).numpy()
    out.backward(mg.tensor(g))
    routed = np.where(np.arange(2) == pieces.argmax(-1)[..., None], g[..., None], 0.0).reshape(6, 6)
    np.testing.assert_allclose(layer.bias.grad.numpy(), routed.sum(0), 1e-5, 1e-6)
    np.testing.assert_allclose(layer.weight.grad.numpy(), routed.T @ x.detach().numpy(), 1e-5, 1e-6)
    np.testing.assert_allclose(
        x.grad.numpy(), routed @ layer.weight.detach().numpy(), 1e-5, 1e-6
    )  # fmt: skip
    # A piece that never wins learns nothing at all.
    layer.zero_grad()
    with mg.no_grad():
        layer.bias[::2] = -1e3
    layer(x).sum().backward()
    assert not layer.weight.grad.numpy()[::2].any()
    assert layer.weight.grad.numpy()[1::2].all()


def test_maxout_of_two_pieces_of_which_one_is_zero_is_relu():
    layer, linear, x = nn.Maxout(3, 2, pieces=2), nn.Linear(3, 2), rand(5, 3)
    with mg.no_grad():
        layer.weight[::2] = linear.weight
        layer.bias[::2] = linear.bias
        layer.weight[1::2] = 0.0
        assert np.array_equal(layer(x).numpy(), mg.relu(linear(x)).numpy())


@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_maxout_keeps_the_mean_square_over_ten_layers(pieces):
    mg.manual_seed(3)
    layers = nn.Sequential(*[nn.Maxout(200, 200, pieces) for _ in range(10)])
    with mg.no_grad():
        x = rand(50, 200)
        ratio = (layers(x) ** 2).mean().item() / (x**2).mean().item()
    assert 0.4 < ratio < 2.5  # with ReLU's constant, two pieces would give about 1,000


def test_prelu_of_one_slope_and_of_channels():
    x = mg.tensor([[-1.0, 2.0], [-3.0, -4.0]])
    assert nn.PReLU()(x).tolist() == [[-0.25, 2.0], [-0.75, -1.0]]
    layer = nn.PReLU(2, init=0.5)
    with mg.no_grad():
        layer.weight[1] = 0.0
    assert layer(x).tolist() == [[-0.5, 2.0], [-1.5, 0.0]]
    deep = layer(x.reshape(2, 2, 1))
    assert deep.tolist() == [[[-0.5], [2.0]], [[-1.5], [0.0]]]
    deep.sum().backward()
    assert layer.weight.grad.tolist() == [-4.0, -4.0]


def test_dropout_at_its_ends():
    x = mg.tensor([1.0, -2.0, 3.0])
    drop = nn.Dropout(0.0)
    assert drop(x) is x
    assert nn.Dropout(0.9).eval()(x) is x
    y = nn.Dropout(1.0)(x.requires_grad_())
    assert y.tolist() == [0.0, 0.0, 0.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    mg.manual_seed(0)
    kept = nn.Dropout(0.25)(mg.ones((100, 100))).numpy()
    values, counts = np.unique(kept, return_counts=True)
    np.testing.assert_allclose(values, [0.0, 4 / 3], 1e-6)
    assert 2200 < counts[0] < 2800  # 2500 give or take 43
    mg.manual_seed(0)
    assert np.array_equal(host(nn.Dropout(0.25)(mg.ones((100, 100)).to("standin"))), kept)
    for dtype in ("float16", "float64"):
        assert nn.Dropout()(mg.ones(3, dtype=dtype)).dtype == dtype
    assert nn.Dropout(np.float64(0.5))(mg.ones(3)).dtype == "float32"


def test_batch_norm_uses_the_batch_or_what_it_tracked():
    x = rand(8, 2)
    plain = nn.BatchNorm1d(2, track_running_stats=False, affine=False)
    assert not list(plain.state_dict())
    assert np.array_equal(plain(x).numpy(), plain.eval()(x).numpy())
    norm = nn.BatchNorm1d(2, momentum=None)  # the mean of all batches
    batches = [rand(8, 2, seed=i) for i in range(3)]
    for batch in batches:
        norm(batch)
    mean = np.mean([b.numpy().mean(0) for b in batches], axis=0)
    var = np.mean([b.numpy().var(0, ddof=1) for b in batches], axis=0)
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, 1e-5, 1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), var, 1e-5, 1e-6)
    assert norm.num_batches_tracked.item() == 3
    out = norm.eval()(x)
    np.testing.assert_allclose(
        out.detach().numpy(), (x.numpy() - mean) / np.sqrt(var + 1e-5), 1e-4, 1e-5
    )
    before = norm.running_mean.tolist()
    norm(x)
    assert norm.running_mean.tolist() == before
    assert not norm.running_mean.requires_grad


def test_layer_norm_over_several_axes_and_without_a_shift():
    norm = nn.LayerNorm((2, 3), bias=False)
    assert list(norm.state_dict()) == ["weight"]
    out = norm(rand(4, 2, 3)).detach().numpy().reshape(4, 6)
    np.testing.assert_allclose(out.mean(1), 0.0, atol=1e-6)
    np.testing.assert_allclose(out.var(1), 1.0, 1e-3)
    assert not list(nn.LayerNorm(3, elementwise_affine=False).parameters())
    assert nn.LayerNorm(np.int64(3)).normalized_shape == (3,)


@pytest.mark.parametrize("ids", [
    [0, 2, 1, 2], np.array([[0, 2], [1, 2]]), mg.tensor([0, -1, 1, -1]), [-3, -1, -2, 2],
], ids=["list", "array", "tensor", "negative"])  # fmt: skip
def test_the_padding_row_gets_no_gradient_at_all(ids):
    table = nn.Embedding(3, 2, padding_idx=2)
    assert table.weight[2].tolist() == [0.0, 0.0]
    out = table(ids)
    assert out.shape == (*np.shape(ids), 2)
    out.sum().backward()
    assert table.weight.grad.tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    with mg.no_grad():
        table.weight[2] = 5.0
        assert table([2]).tolist() == [[5.0, 5.0]]
    plain = nn.Embedding(3, 2)
    plain(ids).sum().backward()
    assert plain.weight.grad.tolist() == [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]
    table.reset_parameters()
    assert table.weight[2].tolist() == [0.0, 0.0]
    assert nn.Embedding(3, 2, padding_idx=0)(1).shape == (2,)


def test_ids_are_lists_anywhere_but_arrays_where_the_table_is():
    table = nn.Embedding(3, 2, padding_idx=0).to("standin")
    assert table([0, 1]).backend is DEVICE
    assert table(mg.tensor([[0, 1]]).to("standin")).shape == (1, 2, 2)
    with pytest.raises(TypeError, match="'standin'"):
        table(np.array([0, 1]))
    with pytest.raises(TypeError, match="'standin'"):
        table(mg.tensor([0, 1]))


def test_flatten():
    x = rand(2, 3, 4)
    for options, shape in (
        ((), (2, 12)), ((0,), (24,)), ((0, 1), (6, 4)), ((-2, -1), (2, 12)), ((1, 1), (2, 3, 4)),
    ):  # fmt: skip
        assert nn.Flatten(*options)(x).shape == shape
        assert x.flatten(*(options or (1,))).shape == shape
    assert nn.Flatten(0)(mg.tensor(3.0)).shape == (1,)
    assert nn.Flatten()(rand(0, 3, 2)).shape == (0, 6)


# --------------------------------------------------------------------------------------- generated


def test_every_activation_and_loss_has_one_class_whose_options_are_its_attributes():
    known = REGISTRY | COMPOSITES
    ops = [op for op in known.values() if op.__module__ in generated.FAMILIES]
    with_class = {k._op.__name__: k for k in generated.MODULES.values()}
    assert len(with_class) == len(generated.MODULES)
    without = {op.__name__ for op in ops} - with_class.keys()
    layers = {"maxout", "prelu", "conv1d", "conv2d"}  # written as such, with parameters
    assert without == layers | {"conv", "conv_input", "conv_weight", "unfold", "fold", "max_pool"}
    for name, kind in with_class.items():
        own = list(inspect.signature(known[name]).parameters.values())
        own = own[generated.inputs_of(known[name]) :]
        given = inspect.signature(kind).parameters
        modal = ("training", "generator")
        assert {n: p.default for n, p in given.items()} == {
            "dim" if p.name == "axis" else p.name: p.default for p in own if p.name not in modal
        }
        assert getattr(nn, kind.__name__) is kind
        assert kind.__name__ in nn.__all__
        assert kind.__doc__.strip()


def test_options_are_used_and_may_be_changed():
    x = mg.tensor([[-2.0, 1.0]])
    layer = nn.LeakyReLU(0.5)
    assert layer(x).tolist() == [[-1.0, 1.0]]
    layer.negative_slope = 0.25
    assert layer(x).tolist() == [[-0.5, 1.0]]
    assert nn.Softmax(dim=0)(x).tolist() == [[1.0, 1.0]]
    weight = mg.tensor([1.0, 3.0])
    loss = nn.CrossEntropyLoss(weight)
    assert list(loss.state_dict()) == ["weight"]
    assert not list(loss.parameters())
    with mg.no_grad():
        loss.weight *= 2.0
    ids = mg.tensor([1])
    got = nn.CrossEntropyLoss(weight, reduction="sum").to("standin")(x.to("standin"),
                                                                     ids.to("standin"))  # fmt: skip
    want = mg.cross_entropy(x, ids, weight, reduction="sum")
    assert host(got) == pytest.approx(want.item(), rel=1e-6)
    noisy = nn.RReLU(0.1, 0.2)
    assert noisy.eval()(x).tolist() == noisy(x).tolist()
    assert noisy(x)[0, 0].item() == pytest.approx(-0.3)
    mg.manual_seed(1)
    first = noisy.train()(x)[0, 0].item()
    assert first != noisy(x)[0, 0].item()


def test_a_primitive_of_the_user_becomes_a_module():
    cases = ((((3,),), {}),)

    @mg.primitive(elementwise=True, cases=cases)
    def bent_(xp, x, /, slope=2.0, axis=-1):
        """A line, bent."""
        return xp.where(x > 0, x, x * slope)

    try:
        bent_.vjp(x=lambda xp, g, x, slope: xp.where(x > 0, g, g * slope))
        kind = nn.as_module(bent_)
        assert (kind.__name__, repr(kind(3.0))) == ("Bent", "Bent(slope=3.0, dim=-1)")
        assert kind(3.0)(mg.tensor([-1.0, 1.0])).tolist() == [-3.0, 1.0]
        assert nn.as_module(bent_, "Other").__name__ == "Other"
        assert kind.__doc__.startswith("A line, bent.")
    finally:
        REGISTRY.pop("bent_", None)


def test_functional_has_pytorch_s_spellings():
    x = rand(2, 4)
    for ours, theirs in F.TORCH.items():
        assert getattr(F, theirs) is getattr(F, ours)
    for name, op in (REGISTRY | COMPOSITES).items():
        if op.__module__ in generated.FAMILIES:
            options = inspect.signature(op).parameters
            if "how" in options:  # `unfold` is not PyTorch's
                assert not hasattr(F, name)
                continue
            found = getattr(F, name)
            assert found.__name__ == op.__name__
            if "axis" in options:
                pieces = {"pieces": 2} if "pieces" in options else {}
                xs = [x] * generated.inputs_of(op)
                got, want = found(*xs, dim=0, **pieces), op(*xs, axis=0, **pieces)
                assert np.array_equal(got.numpy(), want.numpy())
                assert found(*xs, **pieces).shape == op(*xs, **pieces).shape
            else:
                assert found is op or name == "binary_cross_entropy_with_logits"
    assert F.linear is REGISTRY["linear"]
    assert F.one_hot([0, 2], 3).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert F.smooth_l1_loss(x, x).item() == 0.0


# ---------------------------------------------------------------------------------- initial values

DRAWS = {
    "uniform_": {"a": -1.0}, "normal_": {}, "trunc_normal_": {}, "xavier_uniform_": {},
    "xavier_normal_": {}, "kaiming_uniform_": {}, "kaiming_normal_": {"mode": "fan_out"},
    "lecun_normal_": {}, "maxout_he_": {"pieces": 4}, "orthogonal_": {}, "sparse_":
    {"sparsity": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_seed_gives_the_same_values_on_both_backends(name, dtype):
    fill = getattr(init, name)
    drawn = []
    for home in ("numpy", "standin"):
        for generator in (None, mg.random.Generator(5)):
            mg.manual_seed(5)
            t = param(np.zeros((6, 4)), home, dtype)
            array = t._array
            assert fill(t, generator=generator, **DRAWS[name]) is t
            assert t._array is array  # in place
            assert (t.requires_grad, t.is_leaf) == (True, True)
            drawn.append(host(t).copy())
            fill(t, generator=generator, **DRAWS[name])
            assert not np.array_equal(host(t), drawn[-1])  # the generator went on
    assert all(np.array_equal(d, drawn[0]) and d.dtype == dtype for d in drawn)


def test_values_have_the_shape_that_they_should():
    mg.manual_seed(0)
    big = mg.zeros((60, 50))
    x = init.uniform_(big, 2.0, 3.0).numpy()
    assert (x.min() >= 2.0) & (x.max() <= 3.0)
    assert 2.48 < x.mean() < 2.52
    x = init.trunc_normal_(big, 1.0, 2.0, a=0.0, b=4.0).numpy()
    assert (x.min() >= 0.0) & (x.max() <= 4.0)
    assert 1.4 < x.mean() < 1.8
    for shape in ((4, 9), (9, 4), (5, 5), (3, 2, 4)):
        q = init.orthogonal_(mg.zeros(shape, dtype="float64"), gain=2.0).numpy()
        q = q.reshape(shape[0], -1)
        small = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
        np.testing.assert_allclose(small, 4.0 * np.eye(len(small)), atol=1e-12)
    corners = [init.orthogonal_(mg.zeros((3, 3)))[0, 0].item() for _ in range(30)]
    assert min(corners) < 0 < max(corners)  # QR alone gives one sign
    x = init.sparse_(big, 0.25, std=0.1).numpy()
    assert ((x == 0.0).sum(0) == 15).all()
    assert 0.08 < x[x != 0.0].std() < 0.12
    x = init.maxout_he_(big, 3).numpy()
    assert x.std() == pytest.approx(math.sqrt(init.maxout_constant(3) / 50), rel=0.06)
    assert init.zeros_(mg.ones((0, 3))).shape == (0, 3)
    assert init.kaiming_normal_(mg.ones((2, 0))).shape == (2, 0)


WRONG = {
    "a row": (lambda t: init.xavier_uniform_(mg.zeros(3)), r"two axes.*\(3,\)"),
    "orthogonal": (lambda t: init.orthogonal_(mg.zeros(3)), r"\(3,\)"),
    "eye": (lambda t: init.eye_(mg.zeros(3)), r"\(3,\)"),
    "dirac": (lambda t: init.dirac_(t), r"\(2, 3\)"),
    "sparse": (lambda t: init.sparse_(mg.zeros(3), 0.1), r"\(3,\)"),
    "mode": (lambda t: init.kaiming_normal_(t, mode="fan"), "'fan'"),
    "name": (lambda t: init.kaiming_normal_(t, nonlinearity="nothing"), "'nothing'.*leaky_relu"),
    "pieces": (lambda t: init.maxout_he_(t, 0), "got 0"),
    "interval": (lambda t: init.trunc_normal_(t, a=2.0, b=1.0), r"\[2\.0, 1\.0\]"),
    "a narrow interval": (lambda t: init.trunc_normal_(t, a=0.0, b=1e-6), "hardly"),
    "no spread": (lambda t: init.trunc_normal_(t, std=math.nan), "hardly"),
    "bounds": (lambda t: init.uniform_(t, 1.0, 0.0), r"1\.0 is above the upper one 0\.0"),
    "deviation": (lambda t: init.normal_(t, std=-1.0), r"-1\.0"),
    "gain": (lambda t: init.xavier_normal_(t, gain=-1.0), "negative"),
    "sparsity": (lambda t: init.sparse_(t, -0.5), r"-0\.5"),
    "far out": (lambda t: init.trunc_normal_(t, a=5.0, b=6.0), "hardly"),
}


@pytest.mark.parametrize("case", WRONG)
def test_initializers_refuse_what_does_not_fit(case):
    call, said = WRONG[case]
    t = mg.ones((2, 3))
    with pytest.raises(ValueError, match=said):
        call(t)
    assert (t == 1.0).all()
    with pytest.raises(TypeError, match="ndarray"):
        init.normal_(np.ones(3))
    with pytest.raises(TypeError, match="int64"):
        init.normal_(mg.tensor([1]))


# ------------------------------------------------------------------------------------------- utils


def param(values, home="numpy", dtype="float32"):
    return nn.Parameter(mg.tensor(np.asarray(values, dtype)).to(home))


def with_gradients(home="numpy", dtype="float32"):
    ps = [param(np.zeros(s), home, dtype) for s in ((2,), (1, 2), (), (3,))]
    for p, g in zip(ps, ([3.0, -4.0], [[0.0, 12.0]], 0.0), strict=False):
        p.grad = mg.asarray(p.backend.asarray(np.asarray(g, dtype)))
    return ps  # the last one has none


@pytest.mark.parametrize("home", ["numpy", "standin"])
@pytest.mark.parametrize(("order", "norm"), [(2, 13.0), (1, 19.0), (math.inf, 12.0),
                                             (3, (27 + 64 + 1728) ** (1 / 3))])  # fmt: skip
def test_the_norm_of_all_gradients_is_clipped_and_nothing_waits(home, order, norm):
    ps = with_gradients(home)
    with standin.counting() as counted:
        total = utils.clip_grad_norm_(iter(ps), 0.5, order)
        before = utils.clip_grad_norm_(ps, 100.0, order)
    assert (counted.syncs, counted.host_copies, counted.uploads) == (0, 0, 0)
    assert (total.shape, total.requires_grad) == ((), False)
    assert total.backend.name == home
    assert host(total) == pytest.approx(norm, rel=1e-6)
    assert host(before) == pytest.approx(0.5, rel=1e-5)  # small gradients stay
    np.testing.assert_allclose(host(ps[0].grad), [1.5 / norm, -2.0 / norm], 1e-5)
    assert ps[3].grad is None
    assert host(ps[2].grad) == 0.0


def test_clipping_of_one_of_none_and_of_several_dtypes():
    assert utils.clip_grad_norm_([], 1.0).item() == 0.0
    assert utils.clip_grad_norm_([nn.Parameter([1.0])], 1.0).item() == 0.0
    empty = param(np.zeros((0, 3)))
    empty.grad = mg.zeros((0, 3))
    for order in (1, 2, math.inf):
        assert utils.clip_grad_norm_(empty, 1.0, order).item() == 0.0
    ps = with_gradients()
    assert utils.clip_grad_norm_(ps[0], 1.0).item() == 5.0
    for dtype in ("float16", "float64"):
        ps = [*with_gradients(dtype=dtype)[:1], *with_gradients()[:1]]
        utils.clip_grad_norm_(ps, 1.0)
        assert [p.grad.dtype for p in ps] == [np.dtype(dtype), np.float32]
        np.testing.assert_allclose(ps[0].grad.numpy(), np.array([3, -4]) / 50**0.5, 1e-3)


@pytest.mark.parametrize("home", ["numpy", "standin"])
@pytest.mark.parametrize("size", [3000.0, 1e-5])
def test_the_norm_of_float16_neither_overflows_nor_vanishes(home, size):
    p = param(np.zeros(4), home, "float16")
    p.grad = mg.full((4,), size, "float16").to(home)
    bound = size / 8
    total = utils.clip_grad_norm_(p, bound, 2)
    assert host(total) == pytest.approx(2 * size, rel=0.01)
    np.testing.assert_allclose(host(p.grad), size / 16, rtol=0.1)
    assert p.grad.dtype == "float16"


@pytest.mark.parametrize("clip", [utils.clip_grad_norm_, utils.clip_grad_value_])
def test_the_tape_notices_that_a_gradient_was_clipped(clip):
    w = nn.Parameter([3.0])
    (w**3).sum().backward(create_graph=True)
    penalty = (w.grad * w.grad).sum()
    clip([w], 1.0)
    with pytest.raises(RuntimeError, match="overwritten"):
        penalty.backward()
    w.grad = None  # else the graph and the gradient hold each other


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_a_norm_that_is_not_finite(bad, order):
    ps = with_gradients()
    with mg.no_grad():
        ps[0].grad[0] = bad
    with pytest.raises(FloatingPointError, match=str(bad)):
        utils.clip_grad_norm_(ps, 1.0, order, error_if_nonfinite=True)
    assert ps[0].grad.tolist()[1] == -4.0
    assert not math.isfinite(utils.clip_grad_norm_(ps, 1.0, order).item())  # in silence
    assert math.isnan(ps[0].grad.tolist()[0])


def test_a_norm_that_overflows_is_silent():
    p = with_gradients()[0]
    p.grad = mg.tensor([1e30, 1e30])
    assert utils.clip_grad_norm_(p, 1.0).item() == math.inf
    assert p.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("home", ["numpy", "standin"])
def test_values_are_clipped(home):
    ps = with_gradients(home)
    with standin.counting() as counted:
        utils.clip_grad_value_(ps, 3.5)
    assert (counted.syncs, counted.host_copies, counted.uploads) == (0, 0, 0)
    assert [host(p.grad).tolist() for p in ps[:3]] == [[3.0, -3.5], [[0.0, 3.5]], 0.0]
    utils.clip_grad_value_(ps[0], 1.0)
    assert host(ps[0].grad).tolist() == [1.0, -1.0]


@pytest.mark.parametrize("home", ["numpy", "standin"])
def test_the_norm_of_each_row_is_held(home):
    w = param([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], home)
    array = w._array
    with standin.counting() as counted:
        assert utils.max_norm_(w, 1.0) is w
    assert (counted.syncs, counted.host_copies, counted.uploads) == (0, 0, 0)
    assert w._array is array
    np.testing.assert_allclose(host(w), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], 1e-6)
    assert w.requires_grad
    utils.max_norm_(w, 0.5, axis=0)
    np.testing.assert_allclose((host(w) ** 2).sum(0), [0.25, 0.25], 1e-5)


@pytest.mark.parametrize("home", ["numpy", "standin"])
def test_parameters_as_a_vector_and_back(home):
    net = nn.Sequential(nn.Linear(2, 3), nn.PReLU()).to(home)
    flat = utils.parameters_to_vector(net.parameters())
    assert flat.shape == (10,)
    (flat * flat).sum().backward()
    np.testing.assert_allclose(host(net[0].bias.grad), 2 * host(net[0].bias), 1e-6)
    arrays = [p._array for p in net.parameters()]
    with standin.counting() as counted:
        utils.vector_to_parameters(flat.detach() * 2.0, net.parameters())
    assert (counted.syncs, counted.host_copies, counted.uploads) == (0, 0, 0)
    assert all(p._array is a for p, a in zip(net.parameters(), arrays, strict=True))
    np.testing.assert_array_equal(
        host(utils.parameters_to_vector(net.parameters())), 2 * host(flat)
    )


def test_what_the_utilities_refuse():
    ps = with_gradients()
    for call, said in (
        (lambda: utils.clip_grad_norm_(ps, -1.0), "-1.0"),
        (lambda: utils.clip_grad_norm_(ps, math.nan), "nan"),
        (lambda: utils.clip_grad_norm_(ps, 1.0, 0), "norm_type must be positive, got 0"),
        (lambda: utils.clip_grad_value_(ps, -1.0), "-1.0"),
        (lambda: utils.clip_grad_value_(ps, math.nan), "nan"),
        (lambda: utils.max_norm_(mg.ones((2, 2)), 0.0), "0.0"),
        (lambda: utils.parameters_to_vector([]), "no parameters"),
        (lambda: utils.vector_to_parameters(mg.ones(3), ps), r"\(8,\) is wanted, got \(3,\)"),
        (lambda: utils.vector_to_parameters(mg.ones((1, 8)), ps), r"got \(1, 8\)"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    assert ps[0].grad.tolist() == [3.0, -4.0]
    assert ps[0].tolist() == [0.0, 0.0]
    with pytest.raises(TypeError, match="standin"):
        utils.vector_to_parameters(mg.ones(8).to("standin"), ps)
    assert ps[0].tolist() == [0.0, 0.0]


def test_the_third_argument_of_binary_cross_entropy_is_not_mistaken():
    x, t, w = mg.tensor([1.0]), mg.tensor([1.0]), mg.tensor([3.0])
    loss = F.binary_cross_entropy_with_logits
    assert np.allclose(loss(x, t, pos_weight=w).item(), 3.0 * loss(x, t).item())
    with pytest.raises(TypeError, match="positional"):
        loss(x, t, w)
    with pytest.raises(TypeError, match="BCEWithLogitsLoss: reduction cannot be an array"):
        nn.BCEWithLogitsLoss(w)
    with pytest.raises(ValueError, match="BCEWithLogitsLoss: reduction must be 'mean'"):
        nn.BCEWithLogitsLoss("most")


def test_normalization_of_float16_neither_overflows_nor_vanishes():
    x = np.array([[300.0, -300.0], [1e-2, -1e-2]], np.float16)
    out = nn.LayerNorm(2, dtype="float16")(mg.tensor(x))
    assert out.dtype == "float16"
    assert np.allclose(out.detach().numpy(), [[1, -1], [0.953, -0.953]], atol=2e-3)
    x = mg.tensor(x.T.copy(), requires_grad=True)
    norm = nn.BatchNorm1d(2, track_running_stats=False, dtype="float16")
    (norm(x) ** 2).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int16"])
def test_normalization_of_integers_is_that_of_floats(dtype):
    x = np.arange(20).reshape(5, 4)
    for layer in (nn.LayerNorm(4), nn.BatchNorm1d(4)):
        want = layer(mg.tensor(x.astype("float64"))).detach().numpy()
        assert np.allclose(layer(mg.tensor(x.astype(dtype))).detach().numpy(), want, atol=1e-6)


def test_rrelu_takes_arrays_in_training():
    x = rand(3, 4).numpy()
    assert nn.RReLU()(x).shape == nn.RReLU().eval()(x).shape == (3, 4)


def test_options_may_be_numbers_of_numpy():
    x = rand(3)
    got = nn.LeakyReLU(np.float64(0.25))(x)
    assert got.dtype == "float32"
    assert np.array_equal(got.numpy(), nn.LeakyReLU(0.25)(x).numpy())
