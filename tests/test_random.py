"""Philox4x64-10 with known answers, the stream of words, and what is drawn from it."""

import copy
import pickle
import threading

import numpy as np
import pytest

import microgradnd as mg
from microgradnd.backend.cupy_backend import _philox
from microgradnd.random import Generator

ONES = 2**64 - 1

# Counter, key and words of Random123's kat_vectors, "philox4x64 10".
KNOWN = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (ONES, ONES, ONES, ONES),
        (ONES, ONES),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]


def host(key, counter, n):
    return mg.backend.named("numpy").bits(key, counter, n)


def device(key, counter, n):
    return _philox(np, key, counter, n)


BOTH = pytest.mark.parametrize("words", [host, device])


@BOTH
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(words, counter, key, expected):
    block = sum(word << 64 * i for i, word in enumerate(counter))
    got = words(key, 4 * block, 4)
    assert got.dtype == "uint64" and tuple(got.tolist()) == expected


@pytest.mark.parametrize("key", [(0, 0), (1, 0), (0, 1), (0x0123456789ABCDEF, ONES)])
@pytest.mark.parametrize(
    "counter",
    [0, 1, 3, 4, 6, 1000, *(4 * 2**k - 6 for k in (32, 64, 128, 192, 256)), 4 * (2**128 - 1) + 2],
)
def test_the_device_formula_gives_numpys_words(key, counter):
    for n in (0, 1, 2, 5, 17):
        assert device(key, counter, n).tolist() == host(key, counter, n).tolist()


@BOTH
@pytest.mark.parametrize("start", [0, 4 * 2**64 - 8, 4 * 2**128 - 8])
def test_words_do_not_depend_on_where_a_draw_starts(words, start):
    whole = words((5, 6), start, 24).tolist()
    for a in range(9):
        for b in (a, a + 1, a + 7):
            assert words((5, 6), start + a, b - a).tolist() == whole[a:b]
    assert len(set(whole)) == 24


def test_the_generator_counts_words_in_blocks():
    g = Generator(2**64 * 7 + 5)
    assert g.state == {"seed": 2**64 * 7 + 5, "counter": 0}
    first = g.bits(3).tolist()
    assert g.state["counter"] == 4
    second = g.bits(5).tolist()
    assert g.state["counter"] == 12
    assert first == host((5, 7), 0, 3).tolist() and second == host((5, 7), 4, 5).tolist()


# ----------------------------------------------------------------------------- state


def draws(g):
    return [
        g.bits(3).tolist(), g.uniform(shape=5).tolist(), g.normal(shape=(2, 2)).tolist(),
        g.integers(0, 9, 4).tolist(), g.permutation(6).tolist(), g.bernoulli(0.5, 7).tolist(),
    ]  # fmt: skip


def test_state_can_be_saved_and_set():
    g = Generator(3)
    g.bits(10)
    state = g.state
    expected = draws(g)
    g.state = state
    assert draws(g) == expected
    other = Generator(99)
    other.state = state
    assert draws(other) == expected
    assert draws(Generator(3)) != expected


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies_go_on_from_the_same_place_on_their_own(how):
    g = Generator(3)
    g.bits(10)
    other = how(g)
    assert draws(other) == draws(g)
    other.bits(1)
    assert other.state != g.state


def test_manual_seed():
    mg.manual_seed(11)
    first = draws(mg.random.default_generator())
    assert mg.manual_seed(11) is mg.random.default_generator()
    assert draws(mg.random.default_generator()) == first == draws(Generator(11))
    mg.manual_seed(11)
    assert mg.random.uniform(shape=3).tolist() == Generator(11).uniform(shape=3).tolist()


@pytest.mark.parametrize("seed", [-1, 2**128])
def test_seeds_outside_the_range(seed):
    g = Generator(3)
    state = g.state
    with pytest.raises(ValueError, match=str(seed)):
        g.manual_seed(seed)
    assert g.state == state
    with pytest.raises(TypeError):
        Generator(1.5)


def test_threads_draw_from_ranges_of_their_own():
    g, drawn = Generator(1), []

    def draw():
        for _ in range(200):
            drawn.append(tuple(g.bits(4).tolist()))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert g.state["counter"] == 3200
    assert set(drawn) == {tuple(block) for block in host((1, 0), 0, 3200).reshape(-1, 4).tolist()}


# ----------------------------------------------------------------------------- distributions


N = 20_000  # so the deviations below are more than five standard errors


def test_uniform():
    x = Generator(1).uniform(-1.0, 3.0, N, "float64").numpy()
    assert x.min() >= -1.0 and x.max() < 3.0
    assert abs(x.mean() - 1.0) < 0.05 and abs(x.var() - 16 / 12) < 0.05
    assert np.histogram(x, 8)[0] / N == pytest.approx(0.125, abs=0.015)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform_stays_below_its_upper_end(dtype):
    x = Generator(2).uniform(shape=N, dtype=dtype)
    assert x.dtype == dtype and x.min().item() >= 0.0 and x.max().item() < 1.0
    x = Generator(2).uniform(1.0, 3.0, shape=N, dtype=dtype)  # coarser than the numbers below 1
    assert x.min().item() >= 1.0 and x.max().item() < 3.0


def test_normal():
    x = Generator(1).normal(5.0, 2.0, N, "float64").numpy()
    z = (x - 5.0) / 2.0
    assert abs(z.mean()) < 0.04 and abs(z.std() - 1.0) < 0.03
    assert abs((z**3).mean()) < 0.1 and abs((z**4).mean() - 3.0) < 0.2
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.04


def test_integers():
    x = Generator(1).integers(-2, 5, N)
    assert x.dtype == "int64"
    values, counts = np.unique(x.numpy(), return_counts=True)
    assert values.tolist() == list(range(-2, 5))
    assert counts / N == pytest.approx(1 / 7, abs=0.015)
    wide = Generator(1).integers(-(2**63), 2**63, N).numpy()
    assert abs((wide < 0).mean() - 0.5) < 0.02
    for low, high in ((3, 3), (3, 2)):
        with pytest.raises(ValueError, match="empty"):
            Generator(1).integers(low, high)


def test_permutation():
    g = Generator(1)
    assert sorted(g.permutation(50).tolist()) == list(range(50))
    assert g.permutation(50).tolist() != g.permutation(50).tolist()
    counts = np.bincount([g.permutation(4).tolist()[0] for _ in range(2000)])
    assert counts / 2000 == pytest.approx(0.25, abs=0.06)
    assert g.permutation(0).tolist() == [] and g.permutation(0).dtype == "int64"


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli(p):
    mask = Generator(1).bernoulli(p, (N,))
    assert mask.dtype == bool
    share = mask.numpy().mean()
    assert share == p if p in (0.0, 1.0) else abs(share - p) < 0.02


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_bernoulli_outside_the_range(p):
    g = Generator(1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        g.bernoulli(p, 3)
    assert g.state["counter"] == 0


def test_masks_compare_raw_words():
    p = 0.3
    mask = Generator(5).bernoulli(p, 100).tolist()
    assert mask == [word < p * 2**64 for word in host((5, 0), 0, 100).tolist()]
    assert mask == [word < p * 2**64 for word in device((5, 0), 0, 100).tolist()]


@pytest.mark.parametrize("shape", [(), 3, (0,), (2, 0), (2, 3), [4]])
def test_shapes(shape):
    g = Generator(1)
    expected = np.zeros(shape).shape
    for x in (g.uniform(shape=shape), g.normal(shape=shape), g.integers(0, 2, shape),
              g.bernoulli(0.5, shape)):  # fmt: skip
        assert x.shape == expected and type(x._array) is np.ndarray


def test_dtypes():
    assert Generator(1).uniform().dtype == Generator(1).normal().dtype == "float32"
    for draw in (Generator(1).uniform, Generator(1).normal):
        with pytest.raises(TypeError, match="int32"):
            draw(dtype="int32")


def test_numpys_global_state_is_left_alone():
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    mg.manual_seed(5)
    draws(mg.random.default_generator())
    assert np.random.get_state()[1].tolist() == before
