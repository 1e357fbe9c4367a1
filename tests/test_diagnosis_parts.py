"""The parts of the diagnosis on their own, each against a computation that does not use it."""

import itertools
import re
from math import comb, log10

import numpy as np
import pytest
from device import DEVICE, SLACK, dev
from samples import registered

import microgradnd as mg
from microgradnd import nn
from microgradnd.diagnosis import (
    activation_stats,
    active_subnetwork,
    dead_units,
    explain,
    gradient_flow,
    learned_shapes,
    linear_regions,
    piece_usage,
    sensitivity,
)
from microgradnd.diagnosis.evidence import plain
from microgradnd.diagnosis.flow import envelope
from microgradnd.diagnosis.observe import clone
from microgradnd.diagnosis.tables import bar, table


@pytest.fixture(autouse=True)
def seeded():
    mg.manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def bent(*parts):
    """A Sequential whose biases are drawn from N(0, 1), so that kinks are everywhere."""
    net = nn.Sequential(*parts)
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p)
    return net


class Residual(nn.Module):
    """Two ways, which come together again."""

    def __init__(self, inputs=2):
        self.first, self.second = nn.Linear(inputs, 10), nn.Linear(10, 10)
        self.last = nn.Linear(10, 1)

    def forward(self, x):
        h = mg.relu(self.first(x))
        return self.last(h + mg.relu(self.second(h)))


def in_double(net):
    """What a network computes in float64 and eval mode, as a function of NumPy rows."""
    copy = clone(net).to("float64").eval()
    return lambda rows: copy(mg.tensor(np.asarray(rows, np.float64))).detach().numpy()


def choices(net):
    """A function of rows that gives the choice of every unit of a Sequential, by NumPy alone."""
    passed = {
        "ReLU": [0], "LeakyReLU": [0], "PReLU": [0], "ReLU6": [0, 6], "Hardtanh": [-1, 1],
        "Hardsigmoid": [-3, 3], "Softshrink": [-0.5, 0.5],
    }  # fmt: skip
    parts = list(clone(net).to("float64").eval())

    def of(rows):
        h, found = mg.tensor(np.asarray(rows, np.float64)), []
        with mg.no_grad():
            for part in parts:
                z, kind = h.numpy(), type(part).__name__
                if kind == "Maxout":
                    w, b = part.weight.detach().numpy(), part.bias.detach().numpy()
                    groups = (z @ w.T + b).reshape(len(z), -1, part.pieces)
                    found.append(groups.argmax(axis=-1))
                elif kind in passed:
                    found.append(sum((z > kink).astype(int) for kink in passed[kind]))
                elif kind == "Lambda":  # abs
                    found.append(z > 0)
                h = part(h)
        return np.concatenate(found, axis=1)

    return of


# ------------------------------------------------------------------------------------ regions


@pytest.mark.parametrize(("n", "d"), [(1, 1), (20, 1), (5, 2), (10, 2)])
def test_one_hidden_layer_has_as_many_regions_as_the_formula_says(n, d, rng):
    net = bent(nn.Linear(3, n), nn.ReLU(), nn.Linear(n, 2))
    ways = rng.standard_normal((d, 3)) * 3e3  # wide enough for all that crosses
    given = {"line": (-ways[0], ways[0])} if d == 1 else {"plane": (np.zeros(3), *ways)}
    assert linear_regions(net, **given).count == sum(comb(n, j) for j in range(d + 1))


NETS = {
    "relu": lambda: [nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2)],
    "leaky": lambda: [nn.Linear(2, 12), nn.LeakyReLU(0.3), nn.Linear(12, 8), nn.LeakyReLU()],
    "prelu": lambda: [nn.Linear(2, 12), nn.PReLU(12), nn.Linear(12, 8), nn.PReLU()],
    "relu6": lambda: [nn.Linear(2, 12), nn.ReLU6(), nn.Linear(12, 8), nn.ReLU6()],
    "hard": lambda: [nn.Linear(2, 12), nn.Hardtanh(), nn.Linear(12, 8), nn.Hardsigmoid()],
    "shrink": lambda: [nn.Linear(2, 12), nn.Softshrink(), nn.Linear(12, 8), nn.ReLU()],
    "abs": lambda: [nn.Linear(2, 12), lambda z: mg.abs(z), nn.Linear(12, 8), lambda z: mg.abs(z)],
    "maxout": lambda: [nn.Maxout(2, 8, 2), nn.Maxout(8, 8, 4), nn.Maxout(8, 3, 3)],
    "normed": lambda: [nn.Linear(2, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5),
                       nn.Maxout(12, 6, 3)],
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_along_a_line_choices_change_at_the_breaks_and_nowhere_else(name):
    net = bent(*NETS[name]())
    net(mg.random.normal(0, 3, (50, 2)))  # running statistics
    a, b = np.array([-4.0, -3.0]), np.array([5.0, 4.0])
    found = linear_regions(net, line=(a, b))
    assert found.count == len(found.breaks) + 1 == len(found.t) - 1 > 10
    assert len(found.places) == len(found.breaks)

    def at(t):
        return a + np.asarray(t)[:, None] * (b - a)

    ends = np.array(found.t)
    near = 1e-6 * np.diff(ends)
    left, right = choices(net)(at(ends[:-1] + near)), choices(net)(at(ends[1:] - near))
    # Regions are convex: what is chosen at both ends is chosen in between.
    np.testing.assert_array_equal(left, right)
    assert (left[1:] != right[:-1]).any(axis=1).all()
    middle = in_double(net)(at((ends[1:] + ends[:-1]) / 2))
    np.testing.assert_allclose(middle, (found.outputs[1:] + found.outputs[:-1]) / 2, atol=1e-12)
    np.testing.assert_allclose(in_double(net)(at(ends)), found.outputs, atol=1e-12)


def test_ways_that_join_again_are_followed():
    net = Residual()
    for p in (net.first.bias, net.second.bias):
        nn.init.normal_(p)
    a, b = np.array([-9.0, -9.0]), np.array([9.0, 9.0])
    found = linear_regions(net, line=(a, b))
    places = a + np.array(found.t)[:, None] * (b - a)
    middle = in_double(net)((places[1:] + places[:-1]) / 2)
    np.testing.assert_allclose(middle, (found.outputs[1:] + found.outputs[:-1]) / 2, atol=1e-12)
    steep = np.diff(found.outputs[:, 0]) / np.diff(found.t)
    assert (np.abs(np.diff(steep)) > 1e-9).all()  # a bend at every break
    assert set(found.places) == {"first relu", "second relu"}


def test_the_larger_and_the_smaller_of_two_are_choices():
    fold = bent(nn.Linear(2, 6), lambda z: mg.minimum(mg.maximum(z[:, :3], z[:, 3:]), 0.5))
    same = nn.Sequential(
        nn.Linear(2, 6), lambda z: mg.stack([z[:, :3], z[:, 3:]], axis=-1).reshape(-1, 6),
        lambda z: mg.maxout(z, 2), lambda z: 0.5 - mg.relu(0.5 - z),
    )  # fmt: skip
    same.load_state_dict(fold.state_dict())
    ends = np.array([[-9.0, -6.0], [9.0, 5.0]])
    one, other = (linear_regions(net, line=ends) for net in (fold, same))
    assert one.breaks == pytest.approx(other.breaks) and one.count > 3
    np.testing.assert_allclose(one.outputs, other.outputs, atol=1e-12)


def areas(cells):
    return [abs(c[:, 0] @ np.roll(c[:, 1], -1) - c[:, 1] @ np.roll(c[:, 0], -1)) / 2
            for c in map(np.asarray, cells)]  # fmt: skip


@pytest.mark.parametrize("name", ["relu", "maxout", "hard", "normed"])
def test_a_plane_is_cut_into_cells_that_fill_it_and_choose_differently(name):
    net = bent(*NETS[name]())
    plane = (np.array([0.5, 0.0]), np.array([3.0, 1.0]), np.array([0.0, 3.0]))
    found = linear_regions(net, plane=plane)
    assert found.exact and found.count == len(found.cells) > 10
    assert sum(areas(found.cells)) == pytest.approx(4.0, rel=1e-9)

    def at(places):
        return plane[0] + np.asarray(places) @ np.stack(plane[1:])

    middles = np.array([cell.mean(axis=0) for cell in found.cells])
    kinds = choices(net)(at(middles))
    assert len(np.unique(kinds, axis=0)) == found.count
    for cell, middle, kind in zip(found.cells, middles, kinds, strict=True):
        corners = choices(net)(at(middle + 0.999 * (cell - middle)))
        assert (corners == kind).all()
    sampled = linear_regions(net, plane=plane, resolution=60)
    assert not sampled.exact and 0.5 * found.count < sampled.count <= found.count
    grid = np.stack(np.meshgrid(*[(np.arange(60) + 0.5) / 30 - 1] * 2), axis=-1).reshape(-1, 2)
    _, labels = np.unique(choices(net)(at(grid)), axis=0, return_inverse=True)
    pairs = np.unique(np.stack([labels.ravel(), sampled.labels.ravel()]), axis=1)
    assert pairs.shape[1] == sampled.count == labels.max() + 1  # one label for one choice


def test_where_all_units_are_off_or_without_biases_nothing_is_cut_twice():
    pairs = [(nn.Linear(2, 2, bias=False), nn.ReLU()) for _ in range(3)]
    net = nn.Sequential(*itertools.chain.from_iterable(pairs))
    wheel = nn.Sequential(nn.Linear(2, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False),
                          nn.ReLU(), nn.Linear(6, 6, bias=False), nn.ReLU())  # fmt: skip
    plane = (np.zeros(2), [3.0, 0.0], [0.0, 3.0])
    for model in (net, wheel):
        found = linear_regions(model, plane=plane)
        assert sum(areas(found.cells)) == pytest.approx(4.0, rel=1e-9)
        kinds = choices(model)(np.array([3 * cell.mean(axis=0) for cell in found.cells]))
        assert len(np.unique(kinds, axis=0)) == found.count
    twins = bent(nn.Linear(2, 4), nn.ReLU())
    with mg.no_grad():
        twins[0].weight[2:] = twins[0].weight[:2].clone()
        twins[0].bias[2:] = twins[0].bias[:2].clone()
    assert linear_regions(twins, plane=(np.zeros(2), [99.0, 0.0], [0.0, 99.0])).count == 4


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.Tanh()), r"tanh \(after 0\)"),
        (nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1)), "softmax"),
        (nn.Sequential(nn.LayerNorm(2)), "standardize"),
        (nn.Sequential(lambda x: x * x), "multiply of two"),
        (nn.Sequential(lambda x: 1.0 / (x + 3.0)), "divide of two"),
    ],
)
def test_what_is_not_linear_in_pieces_is_refused_by_name(model, word):
    with pytest.raises(ValueError, match=word):
        linear_regions(model, line=([0.0, 0.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match=word):
        active_subnetwork(model, [1.0, 2.0])


def test_a_wrong_line_or_plane_is_refused():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with pytest.raises(ValueError, match="either"):
        linear_regions(net)
    with pytest.raises(ValueError, match="2 arrays of one shape"):
        linear_regions(net, line=([0.0], [1.0, 2.0]))
    with pytest.raises(ValueError, match="3 arrays"):
        linear_regions(net, plane=([0.0, 0.0], [1.0, 2.0]))
    with pytest.raises(ValueError, match="one tensor with a row per example"):
        linear_regions(lambda x: mg.relu(x).sum(), line=([0.0], [1.0]))


# ------------------------------------------------------------------------------------ subnetwork

CHAINS = {
    "relu": lambda: [nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3)],
    "mixed": lambda: [nn.BatchNorm1d(5), nn.Linear(5, 8), nn.BatchNorm1d(8), nn.LeakyReLU(),
                      nn.Dropout(0.5), nn.Maxout(8, 6, 3), nn.PReLU(), nn.Linear(6, 4),
                      lambda z: mg.maxout(z, 2)],
    "held": lambda: [nn.Linear(5, 8), nn.ReLU6(), nn.Linear(8, 8), nn.Hardtanh(), nn.Linear(8, 3),
                     nn.ReLU()],
    "flat": lambda: [nn.Identity(), nn.Flatten(), nn.Linear(5, 4), lambda z: mg.abs(z) * 2.0 - 1.0],
    "by hand": lambda: [lambda x: x @ mg.ones((5, 4), "float64") + 0.5, nn.ReLU()],
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_the_thin_network_gives_the_output_and_the_jacobian(name, rng):
    net = bent(*CHAINS[name]())
    for _ in range(3):
        net(mg.tensor(rng.normal(1.0, 2.0, (64, 5))))
    copy = clone(net).to("float64").eval()
    for x in rng.normal(0.0, 4.0, (5, 5)):
        thin = active_subnetwork(net, x)
        output = copy(mg.tensor(x[None])).detach().numpy()[0]
        np.testing.assert_allclose(thin.forward(x), output, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(thin.matrix @ x + thin.bias, output, rtol=1e-12, atol=1e-12)
        jacobian = mg.jacobian(lambda v: copy(v[None])[0])(mg.tensor(x)).detach().numpy()
        np.testing.assert_allclose(thin.matrix, jacobian, rtol=1e-12, atol=1e-13)


def test_only_units_at_work_stay(rng):
    net = bent(nn.Linear(5, 9), nn.ReLU(), nn.Maxout(9, 4, 3), nn.Linear(4, 2))
    x = rng.standard_normal(5)
    z = in_double(nn.Sequential(net[0]))(x[None])[0]
    w, b = (t.detach().numpy().astype(float) for t in (net[2].weight, net[2].bias))
    pieces = (np.maximum(z, 0) @ w.T + b).reshape(4, 3)
    first, second, last = active_subnetwork(net, x).layers
    assert first.kept.tolist() == np.flatnonzero(z > 0).tolist()
    assert (first.name, first.activation, first.units) == ("0", "relu", 9)
    assert 0 < len(first.kept) < 9
    rows = np.arange(4) * 3 + pieces.argmax(axis=1)
    np.testing.assert_array_equal(second.weight, w[rows][:, first.kept])
    np.testing.assert_array_equal(second.bias, b[rows])
    assert (second.name, second.activation, second.units) == ("2", "maxout", 4)
    assert (last.name, last.activation, last.weight.shape) == ("3", "none", (2, 4))


def test_units_that_are_constant_go_into_the_next_bias():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU6(), nn.Linear(2, 1))
    with mg.no_grad():
        net[0].weight.assign_([[1.0], [1.0]]), net[0].bias.assign_([0.0, 9.0])
        net[2].weight.assign_([[2.0, 3.0]]), net[2].bias.assign_([0.5])
    first, last = active_subnetwork(net, [1.0]).layers
    assert first.kept.tolist() == [0] and first.units == 2
    assert last.weight.tolist() == [[2.0]] and last.bias.tolist() == [0.5 + 3 * 6]


def test_of_a_batch_one_example_is_wanted(rng):
    net = deep(mg.relu, 1)
    x = rng.standard_normal((2, 5))
    assert active_subnetwork(net, x[0]).layers
    for several in (x, x[:1]):
        shape = re.escape(str(several.shape))
        with pytest.raises(ValueError, match=rf"one example is wanted, .* of shape {shape}; .* x"):
            active_subnetwork(net, several)
    flat = nn.Sequential(nn.Flatten(), *net)
    assert active_subnetwork(flat, x[0].reshape(1, 5)).layers  # an image is one example
    with pytest.raises(ValueError) as caught:
        active_subnetwork(flat, x)
    assert "x was taken as one example of shape (2, 5)" in caught.value.__notes__[-1]


def test_a_branch_is_refused():
    with pytest.raises(ValueError, match=r"add joins or leaves a branch \(after second\)"):
        active_subnetwork(Residual(), [1.0, 2.0])
    with pytest.raises(ValueError, match="sum is none of them"):
        active_subnetwork(nn.Sequential(lambda x: x.sum(axis=1, keepdims=True)), [1.0, 2.0])


# ------------------------------------------------------------------------------------ explain


def deep(function, depth=4, width=8, outputs=3):
    parts = []
    for i in range(depth):
        parts += [nn.Linear(5 if i == 0 else width, width), function]
    return nn.Sequential(*parts, nn.Linear(width, outputs))


@pytest.fixture
def batch(rng):
    return mg.tensor(rng.standard_normal((40, 5)), "float32"), mg.tensor(rng.integers(0, 3, 40))


def test_gains_are_the_links_of_the_chain_rule(batch):
    x, y = batch
    net = deep(mg.sigmoid)
    hs = [x]
    for part in net:
        hs.append(part(hs[-1]))
        hs[-1].retain_grad()
    loss = mg.cross_entropy(hs[-1], y)
    chain = explain(loss, "0.weight", net)
    assert all(h.grad is None for h in hs[1:]) and net[0].weight.grad is None
    loss.backward()
    sizes = [np.sqrt((t.grad.numpy() ** 2).mean()) for t in [*hs[:0:-1], net[0].weight]]
    assert [x.arriving for x in chain.links] == pytest.approx([1.0, *sizes[:-1]], rel=1e-5)
    assert [x.leaving for x in chain.links] == pytest.approx(sizes, rel=1e-5)
    assert np.prod([x.gain for x in chain.links]) == pytest.approx(chain.gradient, rel=1e-9)
    assert [(x.operation, x.layer) for x in chain.links] == [
        ("cross_entropy", ""), ("linear", "8"), *itertools.chain.from_iterable(
            (("sigmoid", str(i)), ("linear", str(i))) for i in (6, 4, 2, 0))]  # fmt: skip
    assert [x.joins for x in chain.links] == [True] + [False] * 9
    assert next(iter(chain.lost)) == "sigmoid" and 2.0 < chain.lost["sigmoid"] < 2.8
    text = repr(chain)
    assert text.count("<-") == 1 and "sigmoid 2." in text.splitlines()[-1]
    assert not chain.cut


def test_a_look_frees_nothing_and_calls_no_hook(batch):
    x, y = batch
    net, called = deep(mg.tanh), []
    h = net[0](x)
    h.register_hook(called.append)
    loss = mg.cross_entropy(net[2:](mg.tanh(h)), y)
    with mg.trace() as outer:
        explain(loss, net[0].bias)
    assert not called and not len(outer)
    loss.backward()
    assert len(called) == 1 and net[0].weight.grad is not None
    with pytest.raises(RuntimeError, match="freed by backward"):
        explain(loss, net[0].bias)


def test_it_says_where_a_gradient_is_cut(batch):
    x, y = batch
    net = deep(mg.relu, 3)
    with mg.no_grad():
        net[2].bias.assign_(net[2].bias - 100.0)
    chain = explain(mg.cross_entropy(net(x), y), "0.weight", net)
    assert chain.cut == "exactly 0 from relu of layer 2 on" and chain.gradient == 0
    assert chain.cut in repr(chain)
    loss = mg.cross_entropy(net[2:](net[:2](x).detach()), y)
    chain = explain(loss, "0.weight", net)
    assert not chain.links and "detached" in chain.cut and "2.weight" in chain.reached
    assert "0.weight" not in chain.reached
    net[0].requires_grad_(False)
    assert "frozen" in explain(mg.cross_entropy(net(x), y), "0.weight", net).cut


def test_of_several_ways_the_strongest_is_followed():
    w = mg.tensor([0.1, 0.2], requires_grad=True)
    chain = explain((mg.sigmoid(w) + w * 100.0).sum() * 2.0, w)
    assert [x.operation for x in chain.links] == ["multiply", "sum", "add", "multiply"]
    assert [x.ways for x in chain.links] == [1, 1, 1, 2]
    assert chain.gradient == pytest.approx(200.4, rel=1e-2)
    first, second = mg.split(w * 2.0, 2)
    split = explain((first * second).sum(), w)
    assert [x.operation for x in split.links] == ["sum", "multiply", "split", "multiply"]
    assert split.gradient == pytest.approx(4 * np.sqrt((0.1**2 + 0.2**2) / 2))
    assert "no derivative" in explain(mg.rrelu.bare(mg.ones(2), w).sum(), w).cut
    row = mg.ones((3, 2)) * w  # broadcast: its gradient is summed
    assert explain(row.sum(), w).links[-1].leaving == 3.0


def test_explain_says_what_it_wants(batch):
    net = deep(mg.relu)
    with pytest.raises(ValueError, match="one number on the tape"):
        explain(net(batch[0]), "0.weight", net)
    with pytest.raises(KeyError, match=r"no parameter '9\.weight'"):
        explain(net(batch[0]).sum(), "9.weight", net)
    with pytest.raises(RuntimeError, match="requires a gradient"):
        explain(mg.tensor(1.0), "0.weight", net)
    with pytest.raises(TypeError, match=r"'0\.weight' is a name, and model= is wanted"):
        explain(net(batch[0]).sum(), "0.weight")
    with pytest.raises(TypeError, match=r"a parameter .* is wanted, got a Linear"):
        explain(net(batch[0]).sum(), net[0])


# ------------------------------------------------------------------------------------ sensitivity


def state(net):
    parts = [p._array.copy() for p in (*net.parameters(), *net.buffers())]
    return parts, [m.training for m in net.modules()], dict(mg.random.default_generator().state)


def unchanged(before, net):
    now = state(net)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before[0], now[0], strict=True))
    assert before[1:] == now[1:] and all(p.grad is None for p in net.parameters())


def test_sensitivity_is_the_gradient_by_hand(batch):
    x, y = batch
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5),
                        nn.Linear(6, 3))  # fmt: skip
    before = state(net)
    found = sensitivity(net, mg.cross_entropy, x, y, eps=1e-4, count=12)
    unchanged(before, net)
    assert len(found.weights) == 12 == len({w.name for w in found.weights})
    changes = [abs(w.change) for w in found.weights]
    assert changes == sorted(changes, reverse=True)
    own = clone(net).to("float64").train()
    own[3].eval()
    x64 = mg.tensor(x.numpy().astype("float64"))
    mg.cross_entropy(own(x64), y).backward()
    gradients = dict(own.named_parameters())
    for w in found.weights:
        g = gradients[w.parameter].grad[tuple(w.index)].item()
        assert w.gradient == pytest.approx(g, rel=1e-9, abs=1e-15)
        assert w.difference == pytest.approx(g, rel=1e-5, abs=1e-10)
        assert w.value == dict(net.named_parameters())[w.parameter][tuple(w.index)].item()
    assert found == sensitivity(net, mg.cross_entropy, x, y, eps=1e-4, count=12)
    assert plain(found)["weights"][0]["parameter"] == found.weights[0].parameter


def test_the_change_is_followed_through_the_layers(batch):
    x, y = batch
    net = deep(mg.sigmoid)
    found = sensitivity(net, mg.cross_entropy, x, y, "2.weight", (1, 2), eps=0.1)
    h, moved = x.numpy().astype(float), None
    wanted = []
    for i in range(0, 10, 2):
        w, b = (t.detach().numpy().astype(float) for t in (net[i].weight, net[i].bias))
        squash = (lambda z: 1 / (1 + np.exp(-z))) if i < 8 else (lambda z: z)
        other = w.copy()
        other[1, 2] += 0.1 * (i == 2)
        moved = squash((h if moved is None else moved) @ other.T + b)
        h = squash(h @ w.T + b)
        wanted.append(np.sqrt(((moved - h) ** 2).mean()))
    assert [s.change for s in found.travel] == pytest.approx(wanted, rel=1e-9, abs=1e-18)
    assert [(s.layer, s.activation) for s in found.travel][-2:] == [("6", "sigmoid"), ("8", "none")]
    assert found.travel[0].change == 0 < found.travel[1].change  # the layer before it stays
    assert "\n0 " not in repr(found) and "\n2      sigmoid" in repr(found)
    assert found.followed == "2.weight[1, 2]" and found.weights[0].name == found.followed


def test_a_change_below_rounding_is_said_to_be_one(batch):
    x, y = batch
    net = deep(mg.relu, 2)
    with mg.no_grad():
        net[0].bias.assign_([-99.0] + [0.0] * 7)
    found = sensitivity(net, mg.cross_entropy, x, y, net[0].bias, 0)
    assert not found.weights[0].resolved and "1 of 1 changes are rounding" in found.warnings[0]
    small = sensitivity(net, mg.cross_entropy, x, y, "4.bias", 1, eps=1e-9)
    assert small.weights[0].resolved and "rounding of a float32 loss" in small.warnings[0]
    assert not sensitivity(net, mg.cross_entropy, x, y, "4.bias", 1).warnings


def test_sensitivity_takes_weights_in_several_ways(batch):
    x, y = batch
    net = deep(mg.tanh, 1)
    all_of_it = sensitivity(net, mg.cross_entropy, x, y, "2.bias")
    assert {tuple(w.index) for w in all_of_it.weights} == {(0,), (1,), (2,)}
    assert sensitivity(net, mg.cross_entropy, x, y, "2.bias", -1).weights[0].index == [2]
    with pytest.raises(KeyError, match=r"no parameter '5\.weight'"):
        sensitivity(net, mg.cross_entropy, x, y, "5.weight")
    with pytest.raises(IndexError, match=r"shape \(8, 5\)"):
        sensitivity(net, mg.cross_entropy, x, y, "0.weight", 1)
    with pytest.raises(ValueError, match="say which"):
        sensitivity(net, mg.cross_entropy, x, y, index=1)
    for index in ((8, 0), (0, 5), (-9, 0), (0, -6), (100, 2)):
        with pytest.raises(IndexError, match=r"0\.weight has the shape \(8, 5\), .* index \("):
            sensitivity(net, mg.cross_entropy, x, y, "0.weight", index)
    assert sensitivity(net, mg.cross_entropy, x, y, "0.weight", (-8, -1)).weights[0].index == [0, 4]
    again = sensitivity(net, mg.cross_entropy, x, y, "0.weight", all_of_it.weights[0].index * 2)
    assert again.weights[0].index == all_of_it.weights[0].index * 2  # a list, as a Weight has it
    for eps in (0, 0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"eps={eps} changes no weight; a small number"):
            sensitivity(net, mg.cross_entropy, x, y, eps=eps)
    with pytest.raises(TypeError, match="Module"):
        sensitivity(mg.tanh, mg.cross_entropy, x, y)


# ------------------------------------------------------------------------------------ flow


def test_gradient_flow_equals_the_gradients_of_backward(batch):
    x, y = batch
    net = deep(mg.sigmoid, 5)
    before = state(net)
    flow = gradient_flow(net, mg.cross_entropy, x, y)
    unchanged(before, net)
    h, zs = x, []
    for part in net:
        h = part(h)
        if isinstance(part, nn.Linear):
            h.retain_grad()
            zs.append(h)
    mg.cross_entropy(h, y).backward()
    deltas = [np.sqrt((z.grad.numpy() ** 2).mean()) * len(x) for z in zs]
    assert [s.delta for s in flow.states] == pytest.approx(deltas, rel=1e-4)
    assert flow.decades == pytest.approx(log10(deltas[-2] / deltas[0]), rel=1e-4)
    assert flow.per_layer == pytest.approx(flow.decades / 4)
    assert flow.ratio == pytest.approx(deltas[0] / deltas[-2], rel=1e-4)
    assert 0.4 < flow.per_layer < 0.9 and "decades are lost" in repr(flow)


def test_a_gradient_that_does_not_arrive_is_said_not_to(batch):
    x, y = batch
    net = deep(mg.relu, 3)
    with mg.no_grad():
        net[2].bias.assign_(net[2].bias - 100.0)
    flow = gradient_flow(net, mg.cross_entropy, x, y)
    assert flow.decades == np.inf and flow.ratio == 0.0 and "arrives" in repr(flow)
    with mg.no_grad():
        net[6].weight.assign_(net[6].weight * 0.0)
    assert "no gradient comes" in repr(gradient_flow(net, mg.cross_entropy, x, y))
    single = gradient_flow(deep(mg.relu, 1), mg.cross_entropy, x, y)
    assert np.isnan(single.decades) and repr(single).count("\n") == 2


def test_dead_means_asleep_for_every_row_and_unit(rng):
    x = np.abs(rng.standard_normal((600, 4))).astype("float32")
    x[450] = 40.0  # it alone wakes unit 2
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.LeakyReLU(),
                        nn.Linear(3, 2))  # fmt: skip
    with mg.no_grad():
        net[0].weight.assign_(rng.uniform(1, 2, (5, 4)))
        net[0].bias.assign_([0.0, -1e6, -100.0, -1e6, -1.0])
    found = dead_units(net, x)
    z = x @ net[0].weight.detach().numpy().T + net[0].bias.detach().numpy()
    assert found.dead["0"] == np.flatnonzero((z <= 0).all(axis=0)).tolist() == [1, 3]
    assert (z[:, 2] > 0).sum() == 1
    assert found.names == ["0[1]", "0[3]"] and found.share == {"0": 0.4, "2": 0.0}
    assert found.units == {"0": 5, "2": 3}  # the output layer has no activation to die of
    state = activation_stats(net, x).states[0]
    assert state.dead == pytest.approx(0.4) and state.zeros == pytest.approx((z <= 0).mean())
    assert "0  " in repr(found) and "1, 3" in repr(found)


def test_pieces_are_counted_over_all_rows(rng):
    x = rng.standard_normal((600, 3)).astype("float32")
    net = nn.Sequential(nn.Maxout(3, 4, 3), nn.Linear(4, 6), lambda z: mg.maxout(z, 2),
                        nn.Linear(3, 1))  # fmt: skip
    with mg.no_grad():
        net[0].bias[0] = 100.0  # the first unit is linear
        net[0].weight[4] = net[0].weight[3].clone()  # the second has a piece twice
    found = piece_usage(net, x)
    w, b = net[0].weight.detach().numpy(), net[0].bias.detach().numpy()
    z = (x @ w.T + b).reshape(600, 4, 3)
    wins = np.array([[(z[:, j].argmax(1) == p).sum() for p in range(3)] for j in range(4)])
    np.testing.assert_array_equal(found.counts["0"], wins)
    assert list(found.counts) == ["0", "1"] and found.counts["1"].shape == (3, 2)
    assert found.counts["1"].sum() == 1800
    s = found.states["0"]
    assert s.single == (np.count_nonzero(wins, axis=1) == 1).mean() == 0.25
    assert s.unused == (wins == 0).mean() == pytest.approx(3 / 12)
    share = wins / 600
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=1).mean() / np.log(3)
    assert s.entropy == pytest.approx(entropy)
    best = z.max(axis=2, keepdims=True)
    assert s.ties == pytest.approx(((z == best).sum(axis=2) > 1).mean()) and s.ties > 0
    assert "maxout" not in repr(found) and "0.25" in repr(found)
    assert repr(piece_usage(deep(mg.relu), np.zeros((4, 5), "float32"))) == "no Maxout"


def test_an_envelope_is_the_largest_line_everywhere(rng):
    t = np.linspace(-2.0, 2.0, 4001)
    for _ in range(20):
        slopes, heights = rng.standard_normal((2, 6))
        used, breaks = envelope(slopes, heights, -2.0, 2.0)
        best = (t[:, None] * slopes + heights).argmax(axis=1)
        assert used == list(dict.fromkeys(best.tolist()))
        at = np.searchsorted(t, breaks)
        assert (best[at - 1] != best[at]).all()
    assert envelope(np.array([1.0, 1.0]), np.array([0.0, 0.0]), -1.0, 1.0) == ([0], [])


def test_a_learned_shape_is_the_unit_along_its_direction(rng):
    x = (3 * rng.standard_normal((200, 4)) + 1).astype("float32")
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Maxout(5, 6, 3), nn.Linear(6, 8),
                        lambda z: mg.maxout(z, 2), nn.Linear(4, 2))  # fmt: skip
    shapes = learned_shapes(net, x).shapes
    assert [(s.layer, s.unit) for s in shapes] == [("2", i) for i in range(6)] + [
        ("3", i) for i in range(4)]  # fmt: skip
    h = in_double(net[:2])(x)
    for shape in shapes[:6]:
        way = np.array(shape.direction)
        assert np.linalg.norm(way) == pytest.approx(1.0)
        points = h.mean(axis=0) + np.array(shape.x)[:, None] * way
        np.testing.assert_allclose(shape.y, in_double(net[2:3])(points)[:, shape.unit], atol=1e-6)
        along = (h - h.mean(axis=0)) @ way
        assert (shape.x[0], shape.x[-1]) == pytest.approx((along.min(), along.max()), abs=1e-6)
        assert shape.slopes == sorted(shape.slopes) and len(shape.breaks) == len(shape.slopes) - 1
    assert "6" in repr(learned_shapes(net, x)).splitlines()[1]
    assert plain(learned_shapes(net, x))["shapes"][0]["layer"] == "2"


def test_what_stands_between_product_and_maxout_counts(rng):
    x = rng.standard_normal((256, 4)).astype("float32")
    normed = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), lambda z: mg.maxout(z, 3))
    other = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), lambda z: mg.maxout(z, 3))
    shapes = learned_shapes(normed, x).shapes
    own = clone(normed).to("float64").train()
    way = np.array(shapes[0].direction)
    z = own[0](mg.tensor(x.astype("float64"))).detach().numpy()
    point = x.mean(axis=0) + 0.5 * way
    w, b = own[0].weight.detach().numpy(), own[0].bias.detach().numpy()
    there = (w @ point + b - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
    assert np.interp(0.5, shapes[0].x, shapes[0].y) == pytest.approx(there[:3].max(), abs=0.03)
    assert not learned_shapes(other, x).shapes


def test_shapes_have_names():
    unit = nn.Maxout(1, 5, 2)
    with mg.no_grad():
        unit.weight.assign_(np.array([1, 0, -1, 1, 0.3, 1, 1, 1, -0.4, 1.0]).reshape(10, 1))
        unit.bias.assign_([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0])
    net = nn.Sequential(nn.Linear(3, 1), unit, nn.PReLU(2, init=0.0))
    with mg.no_grad():
        net[2].weight.assign_([0.25, -1.0])
    found = learned_shapes(net)
    assert [s.kind for s in found.shapes] == ["relu", "abs", "leaky", "linear", "v", "leaky", "abs"]
    assert found.shapes[0].slopes == [0.0, 1.0] and found.shapes[0].breaks == [0.0]
    assert found.shapes[5].slopes == [0.25, 1.0] and found.shapes[5].y[0] == -0.75
    assert "2 abs" not in repr(found) and repr(learned_shapes(deep(mg.relu))).startswith("no ")
    with pytest.raises(TypeError, match="Module"):
        learned_shapes(mg.relu)


# ------------------------------------------------------------------------------------ all of them


def test_numbers_are_the_same_on_the_device(batch, rng):
    x, y = batch
    net = bent(nn.Linear(5, 8), nn.ReLU(), nn.Maxout(8, 4, 3), nn.Linear(4, 3))
    ends, point = rng.standard_normal((2, 5)) * 5, rng.standard_normal(5)

    def numbers(net, x, y):
        yield from linear_regions(net, line=ends).breaks
        yield linear_regions(net, plane=[*ends, point], resolution=20).count
        yield from active_subnetwork(net, point).matrix.ravel()
        yield from (s.delta for s in gradient_flow(net, mg.cross_entropy, x, y).states)
        yield from (w.change for w in sensitivity(net, mg.cross_entropy, x, y).weights)
        yield explain(mg.cross_entropy(net(x), y), "0.weight", net).gradient
        yield from piece_usage(net, x).counts["2"].ravel()
        yield from (v for s in learned_shapes(net, x).shapes for v in s.y)
        yield activation_stats(net, x).states[0].zeros
        yield dead_units(net, x).share["0"]

    here = list(numbers(net, x, y))
    with registered(DEVICE):
        there = list(numbers(clone(net).to(DEVICE), dev(x.numpy()), dev(y.numpy())))
    assert there == pytest.approx(here, rel=1e-4 * SLACK, abs=1e-7)


def test_nothing_of_the_model_is_touched(batch):
    x, y = batch
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5),
                        nn.Maxout(6, 4, 2), nn.PReLU(), nn.Linear(4, 3))  # fmt: skip
    called = []
    net[0].register_forward_hook(lambda *_: called.append(1))
    net[2].eval()
    before = state(net)
    for made in (
        gradient_flow(net, mg.cross_entropy, x, y), activation_stats(net, x), dead_units(net, x),
        piece_usage(net, x), learned_shapes(net, x), sensitivity(net, mg.cross_entropy, x, y),
        linear_regions(net, line=(x.numpy()[0], x.numpy()[1])), active_subnetwork(net, x[0]),
        linear_regions(net, plane=x.numpy()[:3], resolution=9),
    ):  # fmt: skip
        assert max(map(len, repr(made).splitlines())) <= 130
    unchanged(before, net)
    assert not called


@pytest.mark.slow
def test_pictures_are_written(batch, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    x, y = batch
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Maxout(6, 2, 2), nn.Linear(2, 3))
    dead = clone(net)
    with mg.no_grad():
        dead[0].bias.assign_(dead[0].bias - 1e3)
    plane = x.numpy()[:3]
    for i, found in enumerate((
        gradient_flow(net, mg.cross_entropy, x, y), activation_stats(net, x), piece_usage(net, x),
        learned_shapes(net, x), sensitivity(net, mg.cross_entropy, x, y),
        sensitivity(dead, mg.cross_entropy, x, y, "0.weight", (0, 0)),
        gradient_flow(dead, mg.cross_entropy, x, y), linear_regions(net, line=plane[:2]),
        linear_regions(net, plane=plane), linear_regions(net, plane=plane, resolution=20),
    )):  # fmt: skip
        found.plot(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").stat().st_size > 2000


def test_bars_and_tables_are_aligned():
    assert [bar(v, 2) for v in (0.0, 1e-12, 0.25, 0.5, 1.0, 7.0, float("nan"), -1.0)] == [
        "", "▏", "▌", "█", "██", "██", "", ""]  # fmt: skip
    assert table(("name", "x"), [("a", 1.0), ("long", 12.5)]).splitlines() == [
        "name     x", "a        1", "long  12.5"]  # fmt: skip
    assert table(("name", "x"), []) == "name  x"
