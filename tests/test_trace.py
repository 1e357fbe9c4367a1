"""The tape can be read: its table and picture, what it holds, and where a NaN begins."""

import gc
import re
import subprocess
import sys
import threading
import weakref
from contextvars import copy_context
from textwrap import dedent

import numpy as np
import pytest
import standin

import microgradnd as mg
from microgradnd import backend
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.modes import MODE

NET = """
import microgradnd as mg

x = mg.tensor([[1.0, 2.0]])
w = mg.tensor([[1.0, 0.0, -1.0, 0.5], [2.0, 3.0, 0.0, 0.25]], requires_grad=True)
b = mg.tensor([0.0, 1.0, 0.0, 0.0], requires_grad=True)
with mg.trace(show=8) as t:
    z = x @ w + b
    h = mg.maxout(z, 2)
    y = h.sum()
    before = t.saved_bytes()
    y.backward()
"""
TABLE = """
#    operation        operands  shape  value                        gradient               line
1 x  constant                   (1,2)  [[1 2]]                                             net.py:8
2 w  leaf                       (2,4)  [[1 0 -1 0.5] [2 3 0 0.25]]  [[0 1 0 1] [0 2 0 2]]  net.py:8
3    matmul           x, w      (1,4)  [[5 6 -1 1]]                 [[0 1 0 1]]            net.py:8
4 b  leaf                       (4,)   [0 1 0 0]                    [0 1 0 1]              net.py:8
5 z  add              %3, b     (1,4)  [[5 7 -1 1]]                 [[0 1 0 1]]            net.py:8
6 h  maxout pieces=2  z         (1,2)  [[5 (7)] [-1 (1)]]           [[1 1]]                net.py:9
7 y  sum              h         ()     8                            1                      net.py:10
"""


def leaf(values, dtype=None):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


def run(source, name="net.py"):
    """Run a user's module, of which the file name and the lines are known."""
    space = {"__name__": "net", "mg": mg, "np": np}
    exec(compile(dedent(source), name, "exec"), space)
    return space


def steps(t):
    return [row.operation for row in t]


@pytest.fixture
def other():
    """The stand-in for CuPy as a second backend in this process."""
    try:
        return backend.named("standin")
    except ValueError:
        return backend.register(CupyBackend(standin.cupy, standin.special, name="standin"))


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ----------------------------------------------------------------------------- the table


def test_the_table_of_the_worked_example():
    t = run(NET)["t"]
    assert str(t) == TABLE.strip("\n")
    assert max(map(len, str(t).splitlines())) <= 100


def test_the_table_can_be_recomputed_by_hand():
    rows = {row.name or row.number: row for row in run(NET)["t"]}
    np.testing.assert_array_equal(rows["x"].value @ rows["w"].value, rows[3].value)
    np.testing.assert_array_equal(rows[3].value + rows["b"].value, rows["z"].value)
    np.testing.assert_array_equal(rows["z"].value.reshape(1, 2, 2).max(-1), rows["h"].value)
    np.testing.assert_array_equal(rows["x"].value.T @ rows[3].gradient, rows["w"].gradient)
    assert [operand.name for operand in rows["z"].operands] == ["", "b"]


@pytest.mark.parametrize(
    ("x", "attributes", "groups"),
    [
        ([5.0, 7.0, -1.0, 1.0], {}, "[5 (7)] [-1 (1)]"),
        ([1.0, 2.0, 4.0, 3.0], {}, "[1 (2)] [(4) 3]"),
        ([1.0, 1.0, np.nan, 2.0], {}, "[(1) 1] [(nan) 2]"),
        ([[1.0, 2.0], [4.0, 3.0]], {}, "[[1 (2)]] [[(4) 3]]"),
        ([[1.0, 2.0], [4.0, 1.0]], {"axis": 0}, "[[1 (4)]] [[(2) 1]]"),
        ([[0.0, 1.0]] * 30 + [[2.0, 1.0]] * 10, {}, "wins 25% 75%"),
        ([[0.0, 0.0, 0.0, 0.0, 0.0, 9.0]] * 2, {"pieces": 6}, "wins 0% 0% 0% 0% ..."),
    ],
)
def test_the_winners_of_a_maxout_are_marked(x, attributes, groups):
    with mg.trace() as t:
        mg.maxout(leaf(x), **{"pieces": 2} | attributes)
    assert t.rows[-1].winners == groups


def test_numbers_have_four_digits_and_large_arrays_a_range():
    x = leaf(np.linspace(-1, 2, 7))
    with mg.trace() as t:
        y = (x * 12345.678).sum()
        small = x[:2] / 3
        y.backward()
    values = [str(t).splitlines()[i] for i in (1, 2)]
    assert re.search(r"x +leaf +\(7,\) +-1 \.\. 2 +1\.235e\+04 \.\. 1\.235e\+04", values[0])
    assert re.search(r"multiply +x, 1\.235e\+04 +\(7,\) +-1\.235e\+04 \.\. 2\.469e\+04", values[1])
    assert "[-0.3333 -0.1667]" in str(t)
    assert small.shape == (2,)


def test_nan_and_infinity_in_ranges():
    x = leaf([np.nan, 1.0, np.inf, 3.0, -2.0, 0.0, np.nan])
    bad = leaf([np.nan] * 7)
    with mg.trace() as t:
        x * 1.0
        bad * 1.0
    assert [str(t.rows[i].value) for i in (1, 3)] == ["-2 .. inf, 2 nan", "nan .. nan, 7 nan"]


def test_values_are_those_at_the_time_of_recording():
    x, data = leaf([1.0, 2.0]), mg.tensor([3.0, 4.0])
    with mg.trace() as t:
        x * data
        with mg.no_grad():
            x[0] = 9.0
            data.assign_([0.0, 0.0])
        x * data
    assert [row.name for row in t] == ["x", "data", "", "x%4", "data%5", ""]
    assert [row.value.tolist() for row in t][:2] == [[1, 2], [3, 4]]
    assert [operand.number for operand in t.rows[-1].operands] == [4, 5]


def test_attributes_only_where_they_are_not_the_defaults():
    x = leaf(np.ones((2, 3, 4)))
    with mg.trace() as t:
        x.sum()
        x.sum(axis=(0, 2), keepdims=True)
        x[0, ..., ::2]
        x[:, [0, 0]]
    texts = [row.step for row in t if row.operation in ("sum", "getitem")]
    assert texts[0] == "sum" and texts[1].startswith("sum axis=(0,2)")
    assert texts[2:] == ["getitem [0,...,::2]", "getitem [:,#]"]


def test_empty_trace_says_what_to_do():
    with mg.trace() as t:
        mg.tensor([1.0]) * 2
    assert "nothing was recorded" in str(t) and len(t) == 0
    assert t.to_mermaid().startswith("flowchart LR")


# ----------------------------------------------------------------------------- names and lines


def test_names_are_the_users_variables():
    space = run("""
    class Layer:
        def __init__(self):
            self.weight = mg.tensor([2.0], requires_grad=True)

        def __call__(self, inputs):
            return inputs * self.weight

    net, params = Layer(), {"bias": mg.tensor([1.0], requires_grad=True)}
    lists = [mg.tensor([3.0], requires_grad=True)]
    data = mg.tensor([1.0])

    def loss():
        hidden = net(data)
        return hidden + params["bias"] * lists[0]

    with mg.trace() as t:
        total = loss()
    """)
    assert [(row.name, row.operation, row.of) for row in space["t"]] == [
        ("data", "constant", ""),
        ("net.weight", "leaf", ""),
        ("", "multiply", "data, net.weight"),
        ("params['bias']", "leaf", ""),
        ("lists[0]", "leaf", ""),
        ("", "multiply", "params['bias'], lists[0]"),
        ("total", "add", "%3, %6"),
    ]
    assert [row.line for row in space["t"]] == ["net.py:7"] * 3 + ["net.py:15"] * 4


def test_one_name_for_two_tensors_is_made_unique():
    total = leaf(0.0)
    with mg.trace() as t:
        for value in (1.0, 2.0):
            w = leaf(value)
            total = total + w
    names = [row.name for row in t if row.operation == "leaf"]
    assert names == ["total", "w", "w%4"]
    assert [row.of for row in t][2] == "total, w" and t.rows[-1].of == "%3, w%4"
    assert t.rows[-1].name == "total%5"


def test_operands_that_are_no_tensors():
    x = leaf([1.0, 2.0])
    weights = np.array([3.0, 4.0], "f4")
    with mg.trace() as t:
        x * weights
        mg.add(x, [5.0, 6.0])
        2 - x
        mg.concatenate([x] * 6)
    of = [row.of for row in t if row.operation not in ("leaf", "constant")]
    assert of[0] == "x, weights"
    assert of[2:] == ["2, x", "x, x, x, x, 2 more"]
    assert "5" in of[1] and "6" in of[1]


# ----------------------------------------------------------------------------- the picture


def mermaid(t):
    """Take a flowchart apart: labels and classes by node, and edges; every line must be known."""
    head, *lines = t.to_mermaid().splitlines()
    assert head == "flowchart LR"
    nodes, edges, classes = {}, [], set()
    for line in lines:
        if match := re.fullmatch(r'    (n\d+)\["([^"]*)"\]:::(\w+)', line):
            nodes[match[1]] = (match[2], match[3])
        elif match := re.fullmatch(r'    (n\d+) -->(?:\|"(\d+)"\|)? (n\d+)', line):
            edges.append((match[1], match[3], match[2]))
        else:
            classes.add(re.fullmatch(r"    classDef (\w+) [\w#:,-]+", line)[1])
    assert all(a in nodes and b in nodes for a, b, _ in edges)
    assert {kind for _, kind in nodes.values()} <= classes
    return nodes, edges


def test_the_picture_has_a_node_per_step_and_an_edge_per_operand():
    nodes, edges = mermaid(run(NET)["t"])
    assert [kind for _, kind in nodes.values()] == [
        "constant", "leaf", "step", "leaf", "step", "step", "step"
    ]  # fmt: skip
    assert [(a, b) for a, b, _ in edges] == [
        ("n1", "n3"), ("n2", "n3"), ("n3", "n5"), ("n4", "n5"), ("n5", "n6"), ("n6", "n7")
    ]  # fmt: skip
    assert nodes["n6"][0] == (
        "maxout pieces=2<br/>h (1,2)<br/>[[7 1]]<br/>[[5 (7)] [-1 (1)]]<br/>grad [[1 1]]"
    )


def test_the_picture_escapes_names_and_writes_numbers_into_labels():
    odd = {'"]<b>#&`': leaf([1.0, 2.0])}
    with mg.trace() as t:
        p, q = mg.split(odd['"]<b>#&`'], 2)
        y = 2 - p * q
    nodes, edges = mermaid(t)
    assert "odd['#34;]#60;b#62;#35;#38;#96;']" in nodes["n1"][0]
    assert nodes["n4"][0].startswith("subtract 2, ·<br/>y (1,)")
    assert {("n2", "n3", "0"), ("n2", "n3", "1")} <= set(edges)
    assert "grad" not in t.to_mermaid()
    assert y.shape == (1,)


# ----------------------------------------------------------------------------- what backward holds


def test_saved_bytes_before_and_after_backward():
    space = run(NET)
    # matmul keeps x (2 floats) for w's gradient, and not w, which only the constant x would need;
    # maxout one byte per group; add and sum nothing.
    assert space["before"] == 4 * 2 + 2
    assert space["t"].saved_bytes() == 0


def test_memory_is_counted_once_and_a_view_as_what_is_under_it():
    x = leaf(np.ones(1000, "f4"))
    with mg.trace() as t:
        y = x * x
        z = x[:10] * x[10:20]
        e = mg.exp(x)
        both = e * e
    assert t.saved_bytes() == 4 * (1000 + 1000)
    assert [(row.step, size) for row, size in t.saved()] == [("multiply", 4000), ("exp", 4000)]
    del y, z, both
    assert t.saved_bytes() == 4000
    del e
    assert t.saved_bytes() == 0


def test_retained_graphs_are_still_held():
    x = leaf([1.0, 2.0])
    with mg.trace() as t:
        y = mg.exp(x).sum()
        y.backward(retain_graph=True)
        assert t.saved_bytes() == 8
        y.backward()
    assert t.saved_bytes() == 0


def test_the_trace_pins_no_memory(no_gc):
    def watched():
        x, data = leaf(np.ones(100)), mg.tensor(np.ones(100))
        with mg.trace() as t:
            hidden = mg.exp(x * data)
            y = hidden.sum()
            y.backward()
        alive = [weakref.ref(v) for v in (hidden._array, hidden._node, y, y._node)]
        operands = [weakref.ref(v) for v in (x, x._node, x._array, data, data._array)]
        del hidden, y
        # Also within the function: nobody keeps a dict of its variables.
        assert [r() for r in alive] == [None] * len(alive)
        return t, operands

    t, operands = watched()
    assert [r() for r in operands] == [None] * len(operands)
    assert "exp" in str(t) and len(mermaid(t)[0]) == 5


def test_the_variables_of_the_function_are_left_alone():
    x = leaf(1.0)
    own = locals()
    with mg.trace() as t:
        y = x * 2.0
    assert own["x"] is x and {"x", "y", "t"} <= set(locals())
    assert [row.name for row in t] == ["x", "y"]
    assert y.item() == 2.0


# ----------------------------------------------------------------------------- where it works


def test_nested_traces_both_see_the_inner_block():
    x = leaf(2.0)
    with mg.trace() as outer:
        y = x * 3.0
        with mg.trace() as inner:
            z = mg.exp(y)
        z.backward()
    assert steps(outer) == ["leaf", "multiply", "exp"]
    assert steps(inner) == ["multiply", "exp"] and inner.rows[0].name == "y"
    assert all(row.gradient is not None for row in outer)
    assert all(row.gradient is None for row in inner)


def test_a_trace_can_be_opened_again_but_not_inside_itself():
    x = leaf(2.0)
    with mg.trace() as t:
        x * 3.0
        with pytest.raises(RuntimeError, match="recorded already"), t:
            pass
    with t:
        x * 4.0
    assert steps(t) == ["leaf", "multiply", "multiply"]


def test_modes_come_back_after_an_exception():
    before = MODE.get().watch
    with pytest.raises(ZeroDivisionError), mg.trace() as t:
        x = leaf(1.0)
        y = x * 2.0
        raise ZeroDivisionError
    assert MODE.get().watch is before
    assert [row.name for row in t] == ["x", "y"] and y.item() == 2.0


def test_inside_transforms_and_recorded_passes():
    with mg.trace() as t:
        second = mg.grad(mg.grad(lambda v: v * v * v))(2.0)
    assert second.item() == 12.0
    passed = [row.reverse for row in t]
    assert passed == sorted(passed) and passed.count(True) >= 2
    assert str(t).count("-- recorded by a reverse pass:") == 1
    assert t.rows[0].gradient.item() == 12.0
    mermaid(t)


def test_a_recorded_backward():
    x = leaf([1.0, 2.0])
    with mg.trace() as t:
        mg.exp(x).sum().backward(create_graph=True)
    np.testing.assert_allclose(t.rows[0].gradient, np.exp([1, 2]), rtol=1e-6)
    assert any(row.reverse and row.operation == "multiply" for row in t)
    x.grad = None


def test_several_outputs():
    x = leaf([1.0, 2.0, 3.0])
    with mg.trace() as t:
        first, _, last = mg.split(x, 3)
        (first * last).backward(mg.tensor([1.0]))
    split, product = t.rows[1:3]
    assert split.name == "first, _, last" and split.names == ["first", None, "last"]
    assert product.of == "first, last" and product.operands == ((split, 0), (split, 2))
    assert [v.tolist() for v in split.value] == [[1], [2], [3]]
    assert [g.tolist() for g in split.gradient if g is not None] == [[3], [1]]
    assert re.search(r"\[1\], \[2\], \[3\]", str(t))


def test_checkpoint_is_a_step_and_its_replay_belongs_to_the_pass():
    x = leaf([0.5])
    with mg.trace() as t:
        y = mg.checkpoint(lambda v: mg.tanh(v) * 2.0)(x)
        (y * 3.0).sum().backward()
    assert "checkpoint" in steps(t)
    replayed = [row for row in t if row.reverse]
    assert [row.operation for row in replayed] == ["tanh", "multiply"]
    assert replayed[0].gradient.tolist() == [6.0]


def test_gradients_are_those_after_the_hooks():
    x = leaf([1.0, 2.0])
    with mg.trace() as t:
        y = x * 3.0
        y.register_hook(lambda g: g * 10.0)
        y.sum().backward()
    assert [row.gradient.tolist() for row in t][:2] == [[30, 30], [10, 10]]


def test_tensors_from_before_the_block():
    x = leaf([1.0, 2.0])
    y = mg.exp(x)
    with mg.trace() as t:
        z = (y * 2.0).sum()
        z.backward()
    assert [(row.name, row.operation, row.line == "") for row in t] == [
        ("y", "exp", True), ("", "multiply", False), ("z", "sum", False)
    ]  # fmt: skip
    assert t.rows[0].gradient.tolist() == [2, 2]


def test_another_backend(other):
    with backend.use(other):
        x = leaf([[5.0, 7.0, -1.0, 1.0]])
        w = leaf(np.ones((8, 4), "f4"))
        with mg.trace() as t, mg.detect_anomaly():
            y = mg.maxout(x * w, 2).sum()
            assert t.saved_bytes() == 4 * (4 + 32) + 16
            y.backward()
    assert [str(row.value) for row in t][1:3] == ["1 .. 1", "-1 .. 7"]
    assert t.rows[3].winners == "wins 0% 100%"
    assert all(isinstance(row.gradient, np.ndarray) or row.number in (2, 3, 4) for row in t)
    assert t.saved_bytes() == 0


def test_other_threads_are_seen_in_a_copied_context_only():
    x = leaf(2.0)
    with mg.trace() as t:
        copied = copy_context()
        for target in (lambda: x * 2.0, lambda: copied.run(lambda: x * 3.0)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert [row.of for row in t if row.operation == "multiply"] == ["x, 3"]


def test_the_public_names_are_functions_whatever_was_imported_first():
    code = """
    import sys, microgradnd as mg
    assert "microgradnd.tracing" not in sys.modules
    with mg.detect_anomaly(), mg.trace() as t: mg.exp(mg.tensor(1.0, requires_grad=True))
    with mg.detect_anomaly(), mg.trace() as t: mg.exp(mg.tensor(1.0, requires_grad=True))
    print(len(t))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


# ----------------------------------------------------------------------------- anomalies


def anomaly(source):
    """Run a module under `detect_anomaly`; give the message of the error."""
    with pytest.raises(FloatingPointError) as info, mg.detect_anomaly():
        run(source, "bad.py")
    assert MODE.get().watch is None and MODE.get().recording
    return str(info.value)


def test_a_convolution_that_a_recorder_watches_is_shown_without_what_that_keeps():
    model = mg.nn.Conv2d(1, 1, 3, padding=1)
    record = mg.diagnosis.Recorder(model, mg.optim.SGD(model.parameters(), lr=0.1))
    with mg.trace() as tape:
        model(mg.ones((1, 1, 4, 4)))
    assert "how=((1,1),((1,1),(1,1)),(1,1),1)" in str(tape)
    assert "record" not in str(tape)
    record.remove()


START = "x = mg.tensor([4.0, 0.0, -1.0], requires_grad=True)\n"


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("mg.log(x * 1.0)", ["forward of log at bad.py:2", "-inf at index [1], log(0)",
                             "(operands x: -1 .. 4)", "where(ok, log(where(ok, x, 1)), ...)"]),
        ("x / 0.0", ["forward of divide", "inf at index [0], divide(4, 0)", "y: 0 .. 0"]),
        ("x**0.5", ["power(-1, 0.5)", "where(ok, power(where(ok, x, 1), y), ...)"]),
        ("mg.sqrt(x)", ["forward of sqrt", "nan at index [2], sqrt(-1)"]),
        ("mg.matmul(x * 1e20, x * 1e20)", ["forward of matmul", "the result has inf (operands"]),
        ("mg.split(x * 1e38, 3)[0] * 100.0", ["forward of multiply", "inf at index [0]"]),
    ],
)  # fmt: skip
def test_forward(code, wanted):
    message = anomaly(START + code)
    assert all(part in message for part in wanted), message


def test_infinities_that_enter_are_meant_and_a_nan_that_is_not_selected_does_not_enter():
    hidden = leaf([np.nan, 1.0, 2.0, -np.inf])
    with mg.detect_anomaly():
        mg.exp(leaf([1.0, -np.inf])) * 2.0
        mg.where([True, False, True, True], -np.inf, leaf([1.0, 2.0, 3.0, 4.0])) * 2.0
        mg.where(mg.isnan(hidden), 0.0, hidden) * 2.0
        mg.max(leaf([1.0, 2.0]) + mg.tensor([-np.inf, 0.0])).backward()


ENTERED = """
import numpy as np
w = mg.tensor([1.0, 2.0], requires_grad=True)
bad = {bad}
y = w * 3.0
loss = {loss}
"""


@pytest.mark.parametrize(
    ("bad", "loss", "wanted"),
    [
        ("mg.tensor([0.0, np.nan])", "mg.mse(y, bad)",
         "forward of mse at bad.py:6: a NaN enters here, in target: bad, a constant, is nan "
         "at index [1] (operands x: 3 .. 6; target: 0 .. 0, 1 nan)"),
        ("mg.tensor([0.0, np.nan], requires_grad=True)", "mg.exp(mg.tanh(bad)) + y",
         "forward of tanh at bad.py:6: a NaN enters here, in x: bad, a leaf, is nan at"),
        ("np.array([0.0, np.nan], 'f4')", "y / bad", "in y: bad, a constant, is nan at index"),
        ("float('nan')", "y * bad", "in y: a number, is nan (operands"),
        ("[mg.log(mg.tensor([-1.0, 2.0]))]", "mg.stack([y, bad[0]])",
         "in operand 1: bad[0], a constant, is nan at index [0]"),
        ("mg.tensor([[np.nan], [1.0]])", "w @ bad", "forward of matmul at bad.py:6: a NaN enters"),
        ("mg.where(w > 1.0, np.nan, w)", "(y + 1.0).sum()", "forward of where at bad.py:4: a NaN "
         "enters here, in x: a number, is nan"),
    ],
)  # fmt: skip
def test_a_nan_that_enters_is_named_where_it_enters(bad, loss, wanted):
    with np.errstate(invalid="ignore"):
        assert wanted in anomaly(ENTERED.format(bad=bad, loss=loss))


def test_a_nan_of_before_the_block_or_written_over_a_result():
    x = leaf([1.0, 0.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        before = mg.log(x) * 0.0
    with mg.detect_anomaly():
        wanted = r"x: before, the result of multiply, recorded before the block, is nan at index"
        with pytest.raises(FloatingPointError, match=wanted):
            mg.exp(before)
        inside = x * 2.0
        with mg.no_grad():
            inside[1] = np.nan
        with pytest.raises(FloatingPointError, match=r"multiply at .*, overwritten since, is nan"):
            mg.exp(inside)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("x = mg.tensor([1.0, np.inf], requires_grad=True)\nx - x", "subtract at bad.py:2"),
        ("x = mg.tensor([3e38, 3e38], requires_grad=True)\nx.sum()", "forward of sum at bad.py:2"),
        ("x = mg.tensor([6e4], 'float16', True)\nx * 2.0", "has inf at index [0]"),
        ("x = mg.tensor([9e4], requires_grad=True)\nx.astype('float16')", "astype at bad.py:2"),
        ("x = mg.tensor([[-np.inf, -np.inf]], requires_grad=True)\nmg.softmax(x)", "of softmax"),
        ("x = mg.tensor([0.0, 4.0], requires_grad=True)\ny = x * 1.0\ny /= 0.0", "at bad.py:3"),
        ("x = mg.tensor([0.0, 0.0], requires_grad=True)\nmg.cosine_similarity(x, 1.0 / x, 0)",
         "forward of divide at bad.py:2"),
        ("x = mg.tensor([0.5], requires_grad=True)\n"
         "mg.checkpoint(lambda v: mg.log(v - 1.0))(x)", "forward of log at bad.py:2"),
        ("@mg.primitive(outputs=True)\ndef halves(xp, x, /):\n    return [x * 0.5, x / 0.0]\n"
         "halves.vjp_all(lambda xp, g, x: (g[0] * 0.5,))\n"
         "halves(mg.tensor([1.0], requires_grad=True))", "at bad.py:5: the result 1 has inf"),
    ],
)  # fmt: skip
def test_overflow_and_undefined_values(code, wanted):
    try:
        assert wanted in anomaly(code)
    finally:
        mg.REGISTRY.pop("halves", None)


def test_the_module_and_the_composite_are_named():
    class Root(mg.nn.Module):
        def forward(self, x):
            return mg.sqrt(x)

    body = mg.nn.Sequential(mg.nn.Identity(), Root())
    net = mg.nn.Sequential({"body": body, "act": mg.nn.Tanh()})
    place = r"test_trace.py:\d+ "

    def told(match):
        return pytest.raises(FloatingPointError, match=match)

    with mg.detect_anomaly():
        with told(rf"forward of sqrt at {place}\(in body.1 Root\):"):
            net(leaf([-1.0]))
        with told(rf"backward of sqrt, recorded at {place}\(in body.1 Root\):"):
            net(leaf([0.0])).sum().backward()
        with told(rf"forward of sqrt at {place}\(in Root\):"):
            body[1](leaf([-1.0]))
        with told(rf"forward of \w+ of cosine_similarity at {place}".strip()):
            mg.cosine_similarity(leaf([3e30, 1e30]), mg.tensor([1.0, 0.0]), 0)


def test_gradients_only_as_pytorch_does():
    x = leaf([4.0, -1.0])
    with mg.detect_anomaly(forward=False), np.errstate(invalid="ignore"):
        mg.where(x > 0, mg.log(x), 0.0).sum().backward()  # harmless: the gradient is 0 / -1
        assert x.grad.tolist() == [0.25, 0.0]
        loss = mg.where(x > 0, mg.sqrt(x), 0.0).sum()
        with pytest.raises(FloatingPointError) as info:
            loss.backward()
        told = str(info.value)
        assert "backward of sqrt" in told and "does not select this element" in told
        assert "It began before: forward of sqrt at test_trace.py" in told
        weight, bad = leaf([1.0, 1.0]), mg.tensor([1.0, np.nan])
        out = mg.relu(weight * bad)
        with pytest.raises(FloatingPointError, match=r"before: .* multiply .*: bad, a constant"):
            mg.where([True, False], out, 0.0).sum().backward()
        first, _ = mg.split(mg.log(leaf([-1.0, 1.0])), 2)
        with pytest.raises(FloatingPointError, match="It began before: forward of log at"):
            mg.where([False], mg.exp(first), 0.0).sum().backward()
    assert x.grad.tolist() == [0.25, 0.0]


def test_threads_are_watched_each_in_its_own_block():
    told, ready = {}, threading.Barrier(3)

    def work(i):
        with mg.detect_anomaly() if i else mg.enable_grad():
            ready.wait()
            try:
                for _ in range(50):
                    mg.exp(leaf([1.0])).sum().backward()
                with np.errstate(divide="ignore"):
                    mg.log(leaf([0.0] * i + [0.0]))
                told[i] = None
            except FloatingPointError as error:
                told[i] = str(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told[0] is None and all("forward of log" in told[i] for i in (1, 2))


@pytest.mark.parametrize(
    "backward",
    ["y.backward()", "y.backward(create_graph=True)", "y.backward(retain_graph=True)"],
)
def test_backward(backward):
    message = anomaly(START + f"""
r = mg.relu(x)
s = mg.sqrt(r)
y = s.sum()
{backward}""")
    assert "backward of sqrt, recorded at bad.py:4" in message
    assert "the gradient of x has inf at index [1], where 1 came in" in message
    assert "operands x: 0 .. 4" in message and "where()" not in message


@pytest.mark.parametrize(
    "use",
    ["mg.grad(f)(x)", "mg.checkpoint(f)(x).backward()", "mg.vjp(f, x)[1](mg.tensor(1.0))"],
)
def test_backward_through_transforms(use):
    message = anomaly(START + f"f = lambda v: mg.sqrt(mg.relu(v)).sum()\n{use}")
    assert "backward of sqrt" in message and "the gradient of x has inf" in message


@pytest.mark.parametrize("condition", ["r > 0", "(r > 0).numpy()"])
def test_the_where_that_does_not_select_it(condition):
    message = anomaly(START + f"""
r = mg.relu(x)
s = 2.0 * mg.sqrt(r)
y = mg.where({condition}, s, 0.0)
y.sum().backward()""")
    assert "backward of sqrt, recorded at bad.py:4" in message
    assert "nan at index [1], where 0 came in" in message
    assert "The where() at bad.py:5 does not select this element, but 0 * inf is NaN" in message
    assert "where(ok, sqrt(where(ok, x, 1)), ...)" in message


def test_the_recommended_safe_operand_is_one():
    x = leaf([4.0, 0.0, -1.0])
    with mg.detect_anomaly():
        ok = x > 0
        mg.where(ok, mg.sqrt(mg.where(ok, x, 1.0)), 0.0).sum().backward()
    assert x.grad.tolist() == [0.25, 0, 0]


@pytest.mark.parametrize(
    "code",
    [
        "(x * 1.0).backward(mg.tensor([1.0, np.nan, 1.0]))",
        "y = x * 1.0\ny.register_hook(lambda g: g / 0.0)\ny.sum().backward()",
        "y = x * 1.0\n((y * 1e38) * 2.0 + (y * 1e38) * 2.0).sum().backward(mg.tensor(1.0))",
    ],
)
def test_a_bad_gradient_that_no_formula_made(code):
    message = anomaly(START.replace("4.0", "0.1").replace("-1.0", "0.2") + code)
    assert "backward: the gradient of multiply at bad.py:2 is not finite" in message


def test_an_unwanted_gradient_is_no_anomaly():
    x, w = leaf([1.0]), leaf([0.0])
    with mg.detect_anomaly():
        g = mg.grad(lambda v: (v + mg.sqrt(w.detach() * 1.0)).sum())(x)
    assert g.tolist() == [1.0]


def test_overwritten_values_keep_their_own_error():
    x = leaf([1.0])
    with mg.detect_anomaly():
        hidden = x * 4.0
        y = mg.sqrt(hidden)
        with mg.no_grad():
            y[...] = 0.0
        with pytest.raises(RuntimeError, match="overwritten"):
            y.sum().backward()


def test_as_a_decorator_inside_a_trace_and_without_leftovers(no_gc):
    @mg.detect_anomaly()
    def loss(v):
        """Say what it is."""
        return mg.log(v).sum()

    x = leaf([1.0, 0.0])
    for _ in range(2):
        with mg.trace() as t, pytest.raises(FloatingPointError, match="log"):
            loss(x)
        assert steps(t) == ["leaf", "log"]
    assert loss.__doc__ == "Say what it is." and MODE.get().watch is None
    with mg.detect_anomaly():
        y = mg.exp(x)
        node = weakref.ref(y._node)
        y.sum().backward()
        del y
        assert node() is None
