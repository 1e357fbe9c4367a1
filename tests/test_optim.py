"""Optimizers: flat buffers under all that users do to parameters, state, errors; and schedules.

Steps and rates are held to PyTorch's in `test_optim_reference`.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from samples import registered

import microgradnd as mg
from microgradnd import nn, optim
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.optim import lr_scheduler
from microgradnd.optim.optimizer import Flat

DEVICE = CupyBackend(standin.cupy, standin.special, name="standin")
KINDS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1),
    "nesterov": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.1, weight_decay=0.1),
    "centered": lambda ps: optim.RMSprop(ps, lr=0.1, momentum=0.9, centered=True),
    "adam": lambda ps: optim.Adam(ps, lr=0.1, weight_decay=0.1),
    "amsgrad": lambda ps: optim.Adam(ps, lr=0.1, amsgrad=True),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.1),
}
SHAPES = [(3,), (), (2, 5), (16,), (0, 3), (4, 2), (1,)]


@pytest.fixture(autouse=True)
def device():
    with registered(DEVICE):
        yield DEVICE
        DEVICE.synchronize()


def host(t):
    return t._array.get() if isinstance(t._array, standin.ndarray) else t._array


def parameters(shapes=SHAPES, dtype="float32", home="numpy", seed=0):
    rng = np.random.default_rng(seed)
    return [nn.Parameter(mg.tensor(rng.normal(size=s).astype(dtype)).to(home)) for s in shapes]


def give(ps, step, missing=()):
    """Gradients that depend on the step and on the parameter's number only."""
    for i, p in enumerate(ps):
        g = np.random.default_rng([step, i]).normal(size=p.shape).astype(p.dtype)
        p.grad = None if i in missing else mg.tensor(g).to(p.backend)


def values(ps):
    return [host(p).copy() for p in ps]


def equal(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True)
    )


def trained(kind, steps=3, **options):
    """Parameters and their optimizer after some steps."""
    ps = parameters(**options)
    optimizer = KINDS[kind](ps)
    for step in range(steps):
        give(ps, step)
        optimizer.step()
    return ps, optimizer


def owner(array):
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def buffers(ps):
    """The memory that the parameters lie in, each once."""
    return list({id(owner(p._array)): owner(p._array) for p in ps}.values())


# ------------------------------------------------------------------------------------ flat buffers


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_parameters_become_aligned_views_of_one_buffer(dtype):
    ps = parameters(dtype=dtype)
    before = values(ps)
    optim.SGD(ps)
    assert equal(values(ps), before)
    assert len(buffers(ps)) == 1
    places = [p._array.ctypes.data for p in ps]
    assert all(place % 64 == 0 for place in places)
    filled = [(place, p.nbytes) for place, p in zip(places, ps, strict=True) if p.size]
    assert all(a + n <= b for (a, n), (b, _) in pairwise(filled))
    assert [p.shape for p in ps] == SHAPES
    assert all(p._array.flags.c_contiguous and p._array.flags.writeable for p in ps)


def test_there_is_a_buffer_per_dtype_backend_and_group():
    ps = [
        *parameters([(2,), (3,)]), *parameters([(2,), (3,)], "float64"),
        *parameters([(2,), (3,)], home="standin"), *parameters([(2,), (3,)]),
    ]  # fmt: skip
    optimizer = optim.Adam([{"params": ps[:6]}, {"params": ps[6:], "lr": 0.1}])
    assert [len(buffers(part)) for part in (ps[:2], ps[2:4], ps[4:6], ps[6:])] == [1, 1, 1, 1]
    assert len(buffers(ps)) == 4
    for step in range(3):
        give(ps, step)
        optimizer.step()
    assert [p.backend.name for p in ps] == ["numpy"] * 4 + ["standin"] * 2 + ["numpy"] * 2
    state = optimizer.state_dict()["state"]
    assert [state[i]["exp_avg"].dtype for i in range(4)] == ["float32"] * 2 + ["float64"] * 2
    assert state[4]["exp_avg"].backend is DEVICE


def test_a_transposed_parameter_keeps_its_values():
    p = nn.Parameter([0.0])
    p._array = np.arange(6.0, dtype="float32").reshape(2, 3).T
    optim.SGD([p])
    assert p.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtypes_stay_also_with_numpy_s_numbers_as_options(kind, dtype):
    ps, optimizer = trained(kind, dtype=dtype)
    for group in optimizer.param_groups:
        for name, value in group.items():
            if type(value) is float:
                group[name] = np.float64(value)
        if "betas" in group:
            group["betas"] = tuple(map(np.float64, group["betas"]))
    give(ps, 3)
    optimizer.step()
    assert {p.dtype.name for p in ps} == {dtype}
    held = [t for s in optimizer.state_dict()["state"].values() for t in s.values()]
    assert {t.dtype.name for t in held if not isinstance(t, int)} <= {dtype}
    for name, array in optimizer._flats[0][0].slots.items():
        assert array.dtype == dtype, name
    assert equal(values(ps), values(trained(kind, steps=4, dtype=dtype)[0]))


REPLACED = {
    "assign_": lambda p: p.assign_(p.detach() * 2.0 + 1.0),
    "setitem": lambda p: p.__setitem__(..., 0.5),
    "minus": lambda p: p.__isub__(1.0),
    "float64": lambda p: nn.module._move(p, "float64"),
    "standin": lambda p: nn.module._move(p, "standin"),
    "replaced": lambda p: setattr(
        p, "_array", np.multiply(host(p), 3.0, out=np.empty_like(host(p)))
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", REPLACED)
def test_the_next_step_is_right_whatever_the_user_did_to_parameters(kind, how):
    ps, optimizer = trained(kind)
    alone = parameters()
    separate = [KINDS[kind]([p]) for p in alone]
    for step in range(3):
        give(alone, step)
        for each in separate:
            each.step()
    with mg.no_grad():
        for i in (1, 3, 5):
            REPLACED[how](ps[i])
            REPLACED[how](alone[i])
    kept = [p._array for p in ps]
    for step in range(3, 6):
        for these in (ps, alone):
            give(these, step)
        optimizer.step()
        for each in separate:
            each.step()
        assert equal(values(ps), values(alone))
    if how in ("assign_", "setitem", "minus"):
        assert all(p._array is a for p, a in zip(ps, kept, strict=True))
    else:  # laid anew
        assert ps[0]._array is not kept[0]
        assert len(buffers(ps)) == (1 if how == "replaced" else 2)
    for i, each in enumerate(separate):
        mine, theirs = (o.state_dict()["state"].get(k) for o, k in ((optimizer, i), (each, 0)))
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"step"}:
            assert mine[name].backend is ps[i].backend
            assert equal([host(mine[name])], [host(theirs[name])])


@pytest.mark.parametrize("kind", ["momentum", "adam"])
@pytest.mark.parametrize("target", ["float64", "standin", "float16"])
def test_a_module_that_moves_takes_its_optimizer_along(kind, target):
    net = nn.Sequential(nn.Linear(3, 4), mg.tanh, nn.Linear(4, 1))
    optimizer = KINDS[kind](net.parameters())
    x, rounding = mg.tensor(np.ones((2, 3), "float32")), {"float16": 2e-2}.get(target, 1e-5)
    twin, other = copy.deepcopy((net, optimizer))
    for _ in range(3):
        for model, opt in ((net, optimizer), (twin, other)):
            opt.zero_grad()
            model(x).sum().backward()
            opt.step()
    net.to(target)
    x2 = x.to(target)
    for _ in range(2):
        for model, opt, inputs in ((net, optimizer, x2), (twin, other, x)):
            opt.zero_grad()
            model(inputs).sum().backward()
            opt.step()
    assert optimizer.state_dict()["state"][0]["step"] == 5
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(host(a), host(b), rounding, rounding)


def test_loading_weights_keeps_the_buffers():
    net = nn.Linear(2, 1)
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    arrays = [p._array for p in net.parameters()]
    net.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3.0])})
    assert all(p._array is a for p, a in zip(net.parameters(), arrays, strict=True))
    net.weight.grad = mg.tensor([[1.0, 1.0]])
    optimizer.step()
    assert net.weight.tolist() == [[0.0, 1.0]]
    assert net.bias.tolist() == [3.0]


def test_the_list_of_a_group_may_be_edited():
    ps, optimizer = trained("momentum", shapes=[(2,), (3,)])
    new = nn.Parameter([1.0, 1.0, 1.0])
    optimizer.param_groups[0]["params"][1] = new
    give([ps[0], new], 3)
    optimizer.step()
    assert new.tolist() != [1.0, 1.0, 1.0]
    state = optimizer.state_dict()["state"]
    assert (state[0]["step"], state[1]["step"]) == (4, 1)
    frozen = values([ps[0]])
    del optimizer.param_groups[0]["params"][0]
    give([ps[0], new], 4)
    optimizer.step()
    assert equal(values([ps[0]]), frozen)
    assert optimizer.state_dict()["state"][0]["step"] == 2


# -------------------------------------------------------------------------------- absent gradients


@pytest.mark.parametrize("kind", KINDS)
@given(missing=st.lists(st.sets(st.integers(0, len(SHAPES) - 1)), min_size=1, max_size=6))
def test_absent_gradients_are_bit_equal_to_an_optimizer_for_each_parameter(kind, missing):
    ps, alone = parameters(), parameters()
    together, separate = KINDS[kind](ps), [KINDS[kind]([p]) for p in alone]
    for step, gone in enumerate(missing):
        give(ps, step, gone)
        give(alone, step, gone)
        before = values(ps)
        together.step()
        for each in separate:
            each.step()
        assert equal(values(ps), values(alone))
        assert all(equal([before[i]], [host(ps[i])]) for i in gone)
    state = together.state_dict()["state"]
    for i, each in enumerate(separate):
        theirs = each.state_dict()["state"].get(0, {})
        assert state.get(i, {}).keys() == theirs.keys()
        assert theirs.get("step", 0) == sum(i not in gone for gone in missing)
        for name, t in theirs.items():
            mine = state[i][name]
            assert mine == t if name == "step" else equal([host(mine)], [host(t)])


def test_freezing_and_unfreezing():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)

    def train():
        optimizer.zero_grad()
        (net(mg.ones((3, 2))) ** 2).sum().backward()
        before = values(net.parameters())
        optimizer.step()
        after = values(net.parameters())
        return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]

    assert train() == [True] * 4
    net[0].requires_grad_(False)
    assert train() == [False, False, True, True]
    net[0].requires_grad_()
    assert train() == [True] * 4
    steps = [s["step"] for s in optimizer.state_dict()["state"].values()]
    assert steps == [2, 2, 3, 3]


def test_without_any_gradient_nothing_happens():
    ps = parameters()
    optimizer = optim.AdamW(ps)
    before = values(ps)
    assert optimizer.step() is None
    assert equal(values(ps), before)
    assert optimizer.state_dict()["state"] == {}


def test_gradients_are_forgotten_or_set_to_zero():
    ps = parameters([(2,), (3,)])
    optimizer = optim.SGD(ps)
    ps[0].grad = mg.tensor([math.nan, math.inf])
    optimizer.zero_grad(set_to_none=False)
    assert ps[0].grad.tolist() == [0.0, 0.0]
    assert ps[1].grad is None
    optimizer.zero_grad()
    assert ps[0].grad is None


# ----------------------------------------------------------------------------- sharing and copying


def test_a_tied_weight_is_updated_once():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    before = host(net[0].weight).copy()
    net[0].weight.grad = mg.ones((2, 2))
    optimizer.step()
    assert np.array_equal(host(net[1].weight), before - 1.0)
    assert net[1].weight is net[0].weight


def test_two_optimizers_may_share_a_parameter():
    a, b, c = parameters([(2,), (2,), (2,)])
    first = optim.SGD([a, b], lr=1.0, momentum=0.5)
    second = optim.SGD([b, c], lr=1.0, momentum=0.5)
    start = values([a, b, c])
    for _ in range(2):
        for p in (a, b, c):
            p.grad = mg.ones(2)
        first.step()
        second.step()
    moved = [x - y for x, y in zip(start, values([a, b, c]), strict=True)]
    np.testing.assert_allclose(moved, [[2.5, 2.5], [5.0, 5.0], [2.5, 2.5]], 1e-5)
    assert first.state_dict()["state"][1]["momentum_buffer"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("home", ["numpy", "standin"])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
                         ids=["deepcopy", "pickle"])  # fmt: skip
def test_a_copy_of_model_and_optimizer_goes_on_by_itself(kind, home, how):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)).to(home)
    net[2].weight = net[1].weight
    optimizer = KINDS[kind](net.parameters())
    ps = list(net.parameters())
    for step in range(3):
        give(ps, step, {step})
        optimizer.step()
    twin, other = how((net, optimizer))
    copies = list(twin.parameters())
    assert twin[2].weight is twin[1].weight
    assert all(p is q for p, q in zip(other.param_groups[0]["params"], copies, strict=True))
    assert equal(values(ps), values(copies))
    before = values(ps)
    for step in range(3, 6):
        give(copies, step, {step % 4})
        other.step()
    assert equal(values(ps), before)  # of its own
    for step in range(3, 6):
        give(ps, step, {step % 4})
        optimizer.step()
    assert equal(values(ps), values(copies))
    assert len(buffers(copies)) == 1
    optimizer.param_groups[0]["lr"] = 7.0
    assert other.param_groups[0]["lr"] == 0.1


# ------------------------------------------------------------------------------------------ groups


def test_groups_have_options_of_their_own_and_may_come_later():
    a, b, c = (nn.Parameter([0.0]) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.1, "name": "b"}], lr=1.0)
    for p in (a, b, c):
        p.grad = mg.tensor([1.0])
    optimizer.step()
    optimizer.add_param_group({"params": [c], "momentum": 0.5, "lr": 10.0})
    optimizer.step()
    np.testing.assert_allclose([p.item() for p in (a, b, c)], [-2.0, -0.2, -10.0], 1e-6)
    optimizer.param_groups[0]["lr"] = 3.0
    optimizer.param_groups[2]["momentum"] = 0.0
    optimizer.step()
    np.testing.assert_allclose([p.item() for p in (a, b, c)], [-5.0, -0.3, -20.0], 1e-6)
    assert "group 1: 1 parameters (1 numbers), lr=0.1" in repr(optimizer)
    assert repr(optimizer).startswith("SGD(\n  group 0")


def test_a_state_follows_the_options_of_the_moment():
    for before, after in ((0.9, 0.0), (0.0, 0.9)):
        (p,) = ps = parameters([(3,)])
        optimizer = optim.SGD(ps, lr=0.1, momentum=before)
        give(ps, 0)
        optimizer.step()
        optimizer.param_groups[0]["momentum"] = after
        state = optimizer.state_dict()
        assert ("momentum_buffer" in state["state"][0]) == (after > 0)
        (q,) = parameters([(3,)])
        other = optim.SGD([q], lr=0.1, momentum=before)
        other.load_state_dict(state)
        with mg.no_grad():
            q.assign_(p)
        for o, t in ((optimizer, p), (other, q)):
            give([t], 1)
            o.step()
        assert equal(values([p]), values([q]))


def test_names_may_come_with_parameters():
    net = nn.Linear(2, 1)
    optimizer = optim.SGD(net.named_parameters(), lr=1.0)
    assert [p is q for p, q in zip(optimizer.param_groups[0]["params"], net.parameters(),
                                   strict=True)] == [True, True]  # fmt: skip


# -------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_a_handful_of_calls_however_many_layers_there_are(kind):
    counts = []
    for layers in (2, 20):
        ps = parameters([(4, 4), (4,)] * layers, home="standin")
        optimizer = KINDS[kind](ps)
        for step in range(2):
            give(ps, step)
            with standin.counting() as counted:
                optimizer.step()
        assert (counted.syncs, counted.host_copies, counted.uploads) == (0, 0, 0)
        assert counted.views <= 2 * layers + 20  # of each gradient, as a vector
        counts.append(counted.launches - counted.views)
    assert counts[0] == counts[1] <= 30


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_updated_together_where_a_gradient_is_absent(kind):
    counts = []
    for missing in ((), (7,)):
        ps = parameters([(4, 4), (4,)] * 10, home="standin")
        optimizer = KINDS[kind](ps)
        for step in range(2):
            give(ps, step, missing)
            with standin.counting() as counted:
                optimizer.step()
        counts.append(counted.launches - counted.views)
    assert counts[1] <= 2 * counts[0] + 6  # two runs, whose slots are written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_stand_in_makes_the_same_steps(kind, dtype):
    runs = []
    for home in ("numpy", "standin"):
        ps = parameters(dtype=dtype, home=home)
        optimizer = KINDS[kind](ps)
        for step in range(4):
            give(ps, step, {step})
            optimizer.step()
        runs.append(values(ps))
    assert equal(*runs)


def test_the_tape_notices_a_step_between_forward_and_backward():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    for p in net.parameters():
        p.grad = mg.ones(p.shape)
    loss = net(mg.ones((1, 2))).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"backward of linear: .*overwritten in place"):
        loss.backward()
    net(mg.ones((1, 2))).sum().backward()
    # A parameter that had no gradient was not written.
    net.zero_grad()
    loss = net(mg.ones((1, 2))).sum()
    net[0].bias.grad = mg.ones(2)
    optimizer.step()
    loss.backward()


def test_an_optimizer_made_between_forward_and_backward_changes_nothing():
    net = nn.Linear(2, 1, bias=False)
    x = mg.tensor([[1.0, 2.0]], requires_grad=True)
    weight = host(net.weight).copy()
    loss = net(x).sum()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    loss.backward()
    assert np.array_equal(host(x.grad), weight)
    optimizer.step()
    np.testing.assert_allclose(host(net.weight), weight - [[0.1, 0.2]], 1e-5, 1e-6)


def test_all_is_computed_before_anything_is_written(monkeypatch):
    _, optimizer = trained("adam", shapes=[(2,), (3,)])
    optimizer.add_param_group({"params": parameters([(4,)], seed=3), "weight_decay": 0.5})
    every = [p for group in optimizer.param_groups for p in group["params"]]
    give(every, 9)
    before = copy.deepcopy(optimizer.state_dict())
    weights = values(every)
    update = optim.Adam.update

    def fails(xp, p, *rest, decays, decoupled):
        if decays and p.size < 20:  # the group that came later
            raise MemoryError("no room")
        return update(xp, p, *rest, decays=decays, decoupled=decoupled)

    monkeypatch.setattr(optim.Adam, "update", staticmethod(fails))
    with pytest.raises(MemoryError):
        optimizer.step()
    assert equal(values(every), weights)
    after = optimizer.state_dict()
    assert after["state"].keys() == before["state"].keys()
    for i, slots in before["state"].items():
        assert after["state"][i]["step"] == slots["step"] == 3
        assert equal([host(after["state"][i]["exp_avg"])], [host(slots["exp_avg"])])


def test_gradients_that_are_not_finite_flow_in_silence():
    ps, optimizer = trained("adam", shapes=[(2,), (3,)])
    ps[0].grad = mg.tensor([math.inf, math.nan])
    optimizer.step()
    assert np.isnan(host(ps[0])).all()
    assert np.isfinite(host(ps[1])).all()


def test_a_gradient_is_left_as_it_is():
    for kind in KINDS:
        ps = parameters([(3,)])
        optimizer = KINDS[kind](ps)
        give(ps, 0)
        array, before = ps[0].grad._array, host(ps[0].grad).copy()
        for _ in range(2):
            optimizer.step()
        assert ps[0].grad._array is array
        assert np.array_equal(array, before)


def test_a_closure_runs_with_recording_on():
    w = nn.Parameter([2.0])
    optimizer = optim.SGD([w], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with mg.no_grad():
        loss = optimizer.step(closure)
    assert (loss.item(), w.tolist()) == (4.0, [1.0])


def test_an_algorithm_of_the_user():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def scalars(self, group, t):
            return (group["lr"] / t,)

        @staticmethod
        def update(xp, p, g, rate):
            return (p - rate * xp.sign(g),)

    ps = parameters([(2,), (2, 2)])
    before = values(ps)
    optimizer = Sign(ps, lr=1.0)
    for _ in range(2):
        give(ps, 0)
        optimizer.step()
    for p, old in zip(ps, before, strict=True):
        np.testing.assert_allclose(host(p), old - 1.5 * np.sign(host(p.grad)), 1e-5)


def test_step_hooks_come_before_and_after_and_are_removed():
    w = mg.tensor([1.0], requires_grad=True)
    sgd, seen = optim.SGD([w], lr=0.5), []
    before = sgd.register_step_pre_hook(lambda o, a, k: seen.append((o is sgd, a, k, w.item())))
    after = sgd.register_step_post_hook(lambda o, a, k: seen.append((o is sgd, a, k, w.item())))
    (w * w).sum().backward()
    assert sgd.step() is None
    assert seen == [(True, (), {}, 1.0), (True, (), {}, 0.0)]
    before.remove()
    sgd.step()
    after.remove()
    sgd.step()
    assert len(seen) == 3


def test_a_step_hook_may_change_the_arguments():
    w = mg.tensor([1.0], requires_grad=True)
    sgd, seen = optim.SGD([w], lr=0.5), []
    other = copy.deepcopy(sgd)
    sgd.register_step_pre_hook(lambda o, args, kwargs: ((lambda: 7.0,), {}))
    sgd.register_step_post_hook(lambda o, args, kwargs: seen.append(args[0]()))
    assert sgd.step(lambda: 8.0) == 7.0 and seen == [7.0]
    assert other.step(lambda: 8.0) == 8.0  # the hooks are the one's only


# ------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_a_copy_and_loading_it_forgets_the_rest(kind):
    ps, optimizer = trained(kind)
    state = optimizer.state_dict()
    first = copy.deepcopy(state)
    give(ps, 3)
    optimizer.step()
    assert state["param_groups"][0]["params"] == list(range(len(SHAPES)))
    for i, slots in first["state"].items():
        assert slots["step"] == state["state"][i]["step"] == 3
        for name in slots.keys() - {"step"}:
            assert slots[name].shape == ps[i].shape
            assert equal([host(slots[name])], [host(state["state"][i][name])])
    # A state without steps: everything as in the beginning.
    fresh = parameters()
    optimizer.load_state_dict(KINDS[kind](fresh).state_dict())
    with mg.no_grad():
        for p, q in zip(ps, fresh, strict=True):
            p.assign_(q)
    for step in range(2):
        give(ps, step)
        optimizer.step()
    assert equal(values(ps), values(trained(kind, steps=2)[0]))


def test_a_state_is_not_written_by_the_steps_of_some_parameters():
    ps, optimizer = trained("adam")
    state = optimizer.state_dict()["state"][3]["exp_avg"]
    before = host(state).copy()
    give(ps, 3, {0, 1})  # then slots are written in place
    optimizer.step()
    assert not np.array_equal(host(optimizer.state_dict()["state"][3]["exp_avg"]), before)
    assert np.array_equal(host(state), before)


def test_a_state_of_another_backend_dtype_and_kind_of_array_loads():
    ps, optimizer = trained("adam", shapes=[(2,), (3,)])
    state = optimizer.state_dict()
    for slots in state["state"].values():
        slots["exp_avg"] = slots["exp_avg"].to("standin")
        slots["exp_avg_sq"] = host(slots["exp_avg_sq"]).astype("float64")
        slots["step"] = np.float32(slots["step"])  # as PyTorch has it
    state["state"] = {str(i): s for i, s in state["state"].items()}  # as JSON has it
    state["param_groups"][0]["betas"] = [0.9, 0.999]
    twins = [nn.Parameter(p.detach()) for p in ps]
    other = KINDS["adam"](twins)
    other.load_state_dict(state)
    for these, o in ((ps, optimizer), (twins, other)):
        give(these, 3)
        o.step()
    assert equal(values(ps), values(twins))
    assert other.param_groups[0]["betas"] == (0.9, 0.999)
    assert type(other.state_dict()["state"][0]["step"]) is int


BROKEN = {
    "groups": (lambda s: s["param_groups"].append({"params": [9]}), r"groups of \[2, 1\].*\[2\]"),
    "size": (lambda s: s["param_groups"][0]["params"].pop(), r"groups of \[1\]"),
    "shape": (lambda s: s["state"][1].update(exp_avg=mg.ones(4)), r"exp_avg of parameter 1 has "
              r"shape \(4,\), \(3,\) is wanted"),
    "list": (lambda s: s["state"][1].update(exp_avg=[1.0]), "exp_avg of parameter 1"),
    "complex": (lambda s: s["state"][1].update(exp_avg=np.ones(3, "complex64")),
                "exp_avg of parameter 1 is complex64, float32 is wanted"),
    "step": (lambda s: s["state"][1].update(step=-3), "step of parameter 1 is -3, a number"),
    "text": (lambda s: s["state"][1].update(step="3"), "step of parameter 1 is '3', a number"),
    "slot": (lambda s: s["state"][0].pop("exp_avg"), "parameter 0 has .*exp_avg_sq"),
    "other slot": (lambda s: s["state"][0].update(sum=mg.ones(2)), "parameter 0 has .*sum"),
    "no step": (lambda s: s["state"][0].pop("step"), "parameter 0 has"),
    "unknown": (lambda s: s["state"].update({7: {"step": 1}}), r"unknown parameters \[7\]"),
    "option": (lambda s: s["param_groups"][0].update(lr=-1.0), r"Adam: lr.*-1\.0"),
    "other algorithm": (lambda s: s["param_groups"][0].update(momentum=0.1),
                        r"group 0 has the unknown options \['momentum'\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_state_that_does_not_fit_changes_nothing(case):
    _, optimizer = trained("adam", shapes=[(2,), (3,)])
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["eps"] = 0.5
    spoil, said = BROKEN[case]
    spoil(state)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=said):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i in before["state"]:
        assert equal([host(t) for n, t in after["state"][i].items() if n != "step"],
                     [host(t) for n, t in before["state"][i].items() if n != "step"])  # fmt: skip


def test_something_else_is_no_state():
    _, optimizer = trained("adam", shapes=[(2,), (3,)])
    for wrong in ({}, [1], optimizer, {"state": {}}):
        with pytest.raises(ValueError, match="of Adam: a dict with 'state' and 'param_groups'"):
            optimizer.load_state_dict(wrong)


def test_several_faults_are_told_together():
    _, optimizer = trained("adam", shapes=[(2,), (3,)])
    state = copy.deepcopy(optimizer.state_dict())
    for case in ("shape", "slot", "unknown"):
        BROKEN[case][0](state)
    with pytest.raises(ValueError, match=r"load_state_dict of Adam: .*parameter 0.*parameter 1.*7"):
        optimizer.load_state_dict(state)


# ------------------------------------------------------------------------------------------ errors


def test_a_group_that_is_refused_leaves_the_optimizer_as_it_was():
    ps, optimizer = trained("adam", shapes=[(2,), (3,)])
    new = nn.Parameter([1.0])
    array = new._array
    for group, error in (
        ({"params": [new, ps[0]]}, ValueError), ({"params": [new, new]}, ValueError),
        ({"params": [new], "lr": -1.0}, ValueError), ({"params": [new], "what": 1}, TypeError),
        ({"params": []}, ValueError), ({}, ValueError),
    ):  # fmt: skip
        with pytest.raises(error):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    assert new._array is array
    give(ps, 3)
    optimizer.step()
    assert equal(values(ps), values(trained("adam", 4, shapes=[(2,), (3,)])[0]))


def test_a_flat_buffer_is_exported_for_its_layout_only():
    flat = Flat(parameters([(3,), (2,)]))
    assert (flat.starts, flat.stops, flat.size) == ([0, 16], [3, 18], 32)
    assert flat.backend is mg.backend.named("numpy")


# --------------------------------------------------------------------------------------- schedules


def groups(*rates, kind=optim.SGD):
    return kind([{"params": [nn.Parameter([0.0])], "lr": lr} for lr in rates])


MADE = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "multi": lambda o: lr_scheduler.MultiStepLR(o, [3, 1]),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 4, 0.01),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=3),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1.0 / (1 + t)),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.5, total_iters=2), lr_scheduler.StepLR(o, 1, 0.5)], [2]
    ),
}


@pytest.mark.parametrize("kind", MADE)
def test_schedules_treat_groups_alike_and_save_as_json(kind):
    optimizer = groups(1.0, 0.5)
    scheduler = MADE[kind](optimizer)
    for _ in range(3):
        scheduler.step()
    rates = scheduler.get_last_lr()
    assert rates == [g["lr"] for g in optimizer.param_groups]
    assert all(type(rate) is float for rate in rates)
    if kind != "cosine":  # whose lowest rate is a number of its own
        assert rates[1] == pytest.approx(rates[0] / 2)
    other = MADE[kind](groups(1.0, 0.5))
    other.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    assert other.get_last_lr() == rates
    assert other.last_epoch == 3
    for s in (scheduler, other):
        s.step()
    assert other.get_last_lr() == scheduler.get_last_lr()
    with pytest.raises(ValueError, match="2 groups, 1 are wanted"):
        MADE[kind](groups(1.0)).load_state_dict(scheduler.state_dict())


@pytest.mark.parametrize("kind", MADE)
def test_a_group_that_is_added_later_is_scheduled_too(kind):
    optimizer, whole = groups(1.0), groups(1.0, 0.5)
    scheduler, wanted = MADE[kind](optimizer), MADE[kind](whole)
    for s in (scheduler, wanted):
        s.step()
    optimizer.add_param_group({"params": [nn.Parameter([0.0])], "lr": 0.5})
    for s in (scheduler, wanted):
        s.step()
    assert scheduler.get_last_lr() == wanted.get_last_lr()


def test_a_schedule_made_twice_begins_at_the_first_rate():
    optimizer = groups(1.0)
    first = lr_scheduler.ExponentialLR(optimizer, 0.5)
    first.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    second = lr_scheduler.ExponentialLR(optimizer, 0.1)
    assert second.base_lrs == [1.0]
    assert optimizer.param_groups[0]["initial_lr"] == 1.0


def test_rates_take_effect_at_the_next_step():
    optimizer = groups(1.0)
    (p,) = optimizer.param_groups[0]["params"]
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        p.grad = mg.tensor([1.0])
        optimizer.step()
        scheduler.step()
    assert p.item() == -1.75


def test_schedules_one_after_another():
    optimizer = groups(1.0)
    warm = lr_scheduler.LinearLR(optimizer, 0.25, total_iters=3)
    tail = lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.StepLR(optimizer, 1, 0.5), lr_scheduler.ExponentialLR(optimizer, 0.1)], [2],
    )  # fmt: skip
    scheduler = lr_scheduler.SequentialLR(optimizer, [warm, tail], [3])
    seen = [optimizer.param_groups[0]["lr"]]
    for _ in range(6):
        scheduler.step()
        seen += scheduler.get_last_lr()
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.5, 1.0, 0.1])


def plateau(optimizer, **options):
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, **options)


def test_a_measure_that_is_nan_is_no_improvement():
    for mode in ("min", "max"):
        optimizer = groups(1.0)
        scheduler = plateau(optimizer, mode=mode)
        scheduler.step(math.nan)  # the first one neither
        scheduler.step(mg.tensor(math.nan))
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert math.isinf(scheduler.best)
        scheduler.step(1.0)
        assert scheduler.best == 1.0
        scheduler.step(math.nan)
        assert scheduler.best == 1.0


def test_a_plateau_lowers_each_group_to_its_lowest():
    optimizer = groups(1.0, 0.8)
    scheduler = plateau(optimizer, min_lr=[0.3, 0.6])
    for _ in range(10):
        scheduler.step(mg.tensor(1.0))
    assert scheduler.get_last_lr() == [0.3, 0.6]
    optimizer.add_param_group({"params": [nn.Parameter([0.0])], "lr": 4.0})
    for _ in range(10):
        scheduler.step(1.0)
    assert scheduler.get_last_lr()[:2] == [0.3, 0.6]
    assert scheduler.get_last_lr()[2] < 4.0


def test_a_plateau_goes_on_from_its_state():
    optimizer = groups(1.0)
    scheduler = plateau(optimizer, cooldown=2, threshold=0.1, threshold_mode="abs")
    metrics = [1.0, 0.95, 0.94, 0.9, 0.9, 0.8, 0.75, 0.74, 0.73]
    for i, metric in enumerate(metrics):
        if i == 4:
            state = json.loads(json.dumps(scheduler.state_dict()))
            other_optimizer = groups(1.0)
            other_optimizer.load_state_dict(optimizer.state_dict())
            other = plateau(other_optimizer, cooldown=2, threshold=0.1, threshold_mode="abs")
            other.load_state_dict(state)
        if i >= 4:
            other.step(metric)
        scheduler.step(metric)
        assert i < 4 or other.state_dict() == scheduler.state_dict()
    assert other.get_last_lr() == scheduler.get_last_lr() != [1.0]


def test_what_no_schedule_can_be_made_of():
    o, other = groups(1.0), groups(1.0)
    exp = lr_scheduler.ExponentialLR(o, 0.5)
    for make, error, said in (
        (lambda: lr_scheduler.StepLR(o, 0), ValueError, "step_size .* got 0"),
        (lambda: lr_scheduler.CosineAnnealingLR(o, 0), ValueError, "T_max"),
        (lambda: lr_scheduler.LinearLR(o, 0.0), ValueError, "start_factor"),
        (lambda: lr_scheduler.LinearLR(o, total_iters=0), ValueError, "total_iters"),
        (lambda: lr_scheduler.LambdaLR(o, [abs, abs]), ValueError, "2 functions for 1 groups"),
        (lambda: lr_scheduler.SequentialLR(o, [exp], [1]), ValueError, "0 growing milestones"),
        (lambda: lr_scheduler.SequentialLR(o, [exp] * 3, [3, 1]), ValueError, "growing"),
        (lambda: lr_scheduler.SequentialLR(other, [exp], []), ValueError, "another optimizer"),
        (lambda: lr_scheduler.SequentialLR(o, [plateau(o)], []), TypeError, "ReduceLROnPlateau"),
        (lambda: plateau(o, mode="low"), ValueError, "'low'"),
        (lambda: plateau(o, threshold_mode="x"), ValueError, "'x'"),
        (lambda: plateau(o, min_lr=[0.1, 0.2]), ValueError, "2 min_lr for 1 groups"),
        (lambda: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), ValueError, "factor"),
        (lambda: exp.__class__(nn.Linear(1, 1), 0.5), TypeError, "ExponentialLR: an Optimizer"),
        (lambda: lr_scheduler.LambdaLR(None, abs), TypeError, "LambdaLR: an Optimizer"),
        (lambda: plateau([]), TypeError, "ReduceLROnPlateau: an Optimizer .* list"),
    ):
        with pytest.raises(error, match=said):
            make()
    assert o.param_groups[0]["lr"] == other.param_groups[0]["lr"] == 1.0
    with pytest.raises(ValueError, match="could not convert"):
        plateau(o).step("high")


def rates(optimizer, schedules, steps, between=None):
    seen = [optimizer.param_groups[0]["lr"]]
    for i in range(steps):
        for schedule in schedules:
            schedule.step(*([i] if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else []))
        if between == i:
            optimizer.param_groups[0]["lr"] *= 10
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_schedules_chain_as_pytorch_s_do():
    def made(*makers):
        sgd = optim.SGD([mg.tensor([0.0], requires_grad=True)], lr=1.0)
        return sgd, [make(sgd) for make in makers]

    # The numbers are PyTorch 2.13's.
    warm_plateau = made(
        lambda o: lr_scheduler.LinearLR(o, total_iters=2),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    )
    assert rates(*warm_plateau, 5)[1:] == pytest.approx([2 / 3, 0.1, 0.01, 0.001, 0.0001])
    two = made(
        lambda o: lr_scheduler.LinearLR(o, total_iters=3),
        lambda o: lr_scheduler.ExponentialLR(o, 0.5),
    )
    assert rates(*two, 5) == pytest.approx([1 / 3, 5 / 18, 7 / 36, 0.125, 0.0625, 0.03125])
    by_hand = made(
        lambda o: lr_scheduler.ExponentialLR(o, 0.5), lambda o: lr_scheduler.StepLR(o, 2, 0.1)
    )
    assert rates(*by_hand, 5, between=2) == pytest.approx(
        [1.0, 0.5, 0.025, 0.125, 0.00625, 0.003125]
    )


def test_chained_schedules_go_on_from_their_states():
    def made():
        sgd = optim.SGD([mg.tensor([0.0], requires_grad=True)], lr=1.0)
        return sgd, [lr_scheduler.LinearLR(sgd, total_iters=5), lr_scheduler.StepLR(sgd, 2, 0.1)]

    whole = rates(*made(), 8)
    sgd, schedules = made()
    rates(sgd, schedules, 3)
    other, again = made()
    for schedule, saved in zip(again, schedules, strict=True):
        schedule.load_state_dict(json.loads(json.dumps(saved.state_dict())))
    assert rates(other, again, 5) == whole[3:]


def test_a_group_that_is_only_appended_is_refused():
    sgd = optim.SGD([mg.tensor([0.0], requires_grad=True)], lr=1.0)
    sgd.param_groups.append({"params": [mg.tensor([0.0], requires_grad=True)], "lr": 1.0})
    with pytest.raises(RuntimeError, match="use add_param_group"):
        sgd.step()


@pytest.mark.parametrize(("kind", "calls"), [("sgd", 1), ("adam", 6)])
def test_layers_unfrozen_one_by_one_are_updated_together_where_the_numbers_are_the_same(
    kind, calls, monkeypatch
):
    ps = [mg.tensor([1.0], requires_grad=True) for _ in range(6)]
    optimizer = KINDS[kind](ps)
    for n in range(1, 7):
        for p in ps[:n]:
            p.grad = mg.ones(1)
        optimizer.step()
    seen = []
    update = type(optimizer).update
    monkeypatch.setattr(
        type(optimizer), "update",
        staticmethod(lambda *args, **flags: seen.append(1) or update(*args, **flags)),
    )  # fmt: skip
    optimizer.step()
    assert len(seen) == calls


@pytest.mark.parametrize("options", [{"lr": "0.1"}, {"lr": None}, {"lr": True}, {"eps": "x"}])
def test_an_option_that_is_no_number(options):
    with pytest.raises(TypeError, match=r"Adam: .* must be a number, got"):
        optim.Adam([mg.tensor([1.0], requires_grad=True)], **options)
    with pytest.raises(ValueError, match=r"betas must be two numbers in \[0, 1\), got 0.9"):
        optim.Adam([mg.tensor([1.0], requires_grad=True)], betas=0.9)
    sgd = optim.SGD([mg.tensor([1.0], requires_grad=True)])
    with pytest.raises(TypeError, match=r"LambdaLR: a function .* got 0.9"):
        lr_scheduler.LambdaLR(sgd, 0.9)
