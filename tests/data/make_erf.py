r"""Print the coefficients of `microgradnd/backend/special.py`; needs mpmath.

Three families of polynomials, each a weighted minimax fit by Remez' exchange in 60 digits:

* head: p with erf(x) = x + x p(x^2) for abs(x) < 1, relative error of erf;
* tail: q with erfc(x) = exp(-x^2) q(s) / (x + K), s = (x - K) / (x + K), for x > 1, error absolute,
  because the result is only subtracted from one;
* full: the same q from zero down to underflow, relative error.

The map s sends [0, inf) to [-1, 1), and dividing by x + K takes away the tail of exp(x^2) erfc(x),
so that q is nearly flat and its Horner scheme hardly cancels. A larger K needs fewer terms and
loses more digits near zero; K = 2 balances the two. The tables are printed highest power first,
rounded to the precision that they are used in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Function = Callable[[mp.mpf], mp.mpf]


def horner(coefficients: list[mp.mpf], x: mp.mpf) -> mp.mpf:
    """Evaluate a polynomial whose highest power comes first."""
    result = mp.mpf(0)
    for c in coefficients:
        result = result * x + c
    return result


def remez(f: Function, weight: Function, lo: float, hi: float, degree: int) -> list[mp.mpf]:
    """Polynomial p that minimises max abs(weight (p - f)) on [lo, hi], highest power first."""
    n = degree + 2
    middle, half = (mp.mpf(hi) + lo) / 2, (mp.mpf(hi) - lo) / 2
    grid = [middle - half * mp.cos(mp.pi * k / (40 * n)) for k in range(40 * n + 1)]
    values, weights = [f(x) for x in grid], [weight(x) for x in grid]
    picks = [40 * n * k // (n - 1) for k in range(n)]
    for _ in range(12):
        rows = [[grid[i] ** (degree - j) for j in range(degree + 1)] for i in picks]
        for sign, (row, i) in enumerate(zip(rows, picks, strict=True)):
            row.append((-1) ** sign / weights[i])
        solution = list(mp.lu_solve(mp.matrix(rows), mp.matrix([values[i] for i in picks])))
        p, level = solution[:-1], abs(solution[-1])
        error = [w * (horner(p, x) - y) for x, y, w in zip(grid, values, weights, strict=True)]
        # One pick per run of equal sign: where the error is largest in that run.
        runs: list[int] = []
        for i, e in enumerate(error):
            if runs and (error[runs[-1]] > 0) == (e > 0):
                if abs(e) > abs(error[runs[-1]]):
                    runs[-1] = i
            else:
                runs.append(i)
        worst = max(map(abs, error))
        if len(runs) < n or worst < level * mp.mpf("1.01"):
            break
        while len(runs) > n:
            runs.pop(0 if abs(error[runs[0]]) < abs(error[runs[-1]]) else -1)
        picks = runs
    print(f"# degree {degree}: error {mp.nstr(worst, 3)}", file=sys.stderr)
    return p


def head(degree: int) -> list[mp.mpf]:
    """Fit p on [0, 1] in z = x^2, error relative to erf."""

    def ratio(z: mp.mpf) -> mp.mpf:
        return mp.erf(mp.sqrt(z)) / mp.sqrt(z) if z else 2 / mp.sqrt(mp.pi)

    return remez(lambda z: ratio(z) - 1, lambda z: 1 / ratio(z), 0, 1, degree)


def tail(degree: int, k: int, lo: float, hi: float, relative: bool) -> list[mp.mpf]:
    """Fit q on lo <= x <= hi in s = (x - k) / (x + k)."""

    def unmap(s: mp.mpf) -> mp.mpf:
        return k * (1 + s) / (1 - s)

    def q(s: mp.mpf) -> mp.mpf:
        x = unmap(s)
        return (x + k) * mp.exp(x * x) * mp.erfc(x)

    def weight(s: mp.mpf) -> mp.mpf:
        return 1 / q(s) if relative else mp.exp(-(unmap(s) ** 2)) / (unmap(s) + k)

    return remez(q, weight, (mp.mpf(lo) - k) / (lo + k), (mp.mpf(hi) - k) / (hi + k), degree)


def show(name: str, coefficients: list[mp.mpf], dtype: type) -> None:
    """Print one table as a Python tuple, in the shortest digits that give the same number back."""
    print(f"{name} = (")
    for c in coefficients:
        print(f"    {dtype(mp.nstr(c, 30))!s},")
    print(")")


if __name__ == "__main__":
    show("_HEAD32", head(6), np.float32)
    show("_TAIL32", tail(4, 2, 1, 4, relative=False), np.float32)
    show("_FULL32", tail(10, 2, 0, 10.1, relative=True), np.float64)
    show("_HEAD64", head(11), np.float64)
    show("_TAIL64", tail(11, 2, 1, 6, relative=False), np.float64)
    show("_FULL64", tail(24, 2, 0, 27, relative=True), np.float64)
