"""Write `docs/operations.md`, its pictures and `docs/conventions.md` from the registry.

Signatures, formulas and derivatives are printed from the source, so the page cannot say anything
else than the code does. A picture shows f and f' of a unary elementwise operation; it is a small
SVG written here, and `--check` compares its curves with freshly computed ones, not its bytes.

    python docs/tools/make_operations.py [--check]
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import sys
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import numpy as np

import microgradnd as mg
from describe import (
    ROOT,
    anchor,
    attached,
    call,
    docstring,
    emit,
    helpers,
    literal,
    markdown,
    module_of,
    public,
    report,
)

DOCS = ROOT / "docs"
PICTURES = "operations"
OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
    "matmul": "@", "and": "&", "or": "|", "xor": "^", "invert": "~", "neg": "-x", "pos": "+x",
    "abs": "abs(x)", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip


def modules() -> dict[ModuleType, list[Any]]:
    """Primitives and composites by the module that declares them, in the order of the source."""
    found: dict[ModuleType, list[Any]] = {}
    for thing in [*mg.REGISTRY.values(), *mg.COMPOSITES.values()]:
        if thing.__module__.startswith("microgradnd.ops"):
            found.setdefault(module_of(thing), []).append(thing)
    return dict(sorted(found.items(), key=lambda item: item[0].__name__))


def number(value: Any) -> str:
    """A number as it is read."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(number, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def interval(domain: Any) -> str:
    """A domain as text."""
    if callable(domain):
        return f"`{domain.__name__}`"
    if isinstance(domain, dict):
        return "; ".join(f"`{name}` {interval(d)}" for name, d in domain.items())
    return domain if isinstance(domain, str) else f"[{number(domain[0])}, {number(domain[1])}]"


def points(kinks: Any) -> str:
    """Kinks as text."""
    if isinstance(kinks, dict):
        return "; ".join(f"`{name}` {points(p)}" for name, p in kinks.items())
    return ", ".join(map(number, kinks)) or "none"


# ----------------------------------------------------------------------------- the page


def derivative(op: Any) -> list[str]:
    """The gradient formulas of a primitive, from its source."""
    lines = []
    for operand, node in attached(op).items():
        target = "all operands" if operand == "*" else f"`{operand}`"
        if isinstance(node, ast.Lambda):
            lines.append(f"- gradient to {target}: `{ast.unparse(node.body)}`")
        else:
            name = ast.unparse(node)
            source = inspect.getsource(op.forward.__globals__[name]).rstrip()
            lines.append(f"- gradient to {target}: `{name}`\n")
            lines.append("  ```python\n" + indent(source, "  ") + "\n  ```")
    for residual, node in attached(op, "recompute").items():
        body = node.body if isinstance(node, ast.Lambda) else node
        lines.append(f"- `{residual}` in a recorded pass: `{ast.unparse(body)}`")
    return lines


def called(ops: list[Any]) -> dict[str, str]:
    """The source of the functions that the formulas of a module call."""
    found = {}
    for op in ops:
        if isinstance(op, mg.Primitive):
            for node in [*attached(op).values(), *attached(op, "recompute").values()]:
                for name, function in helpers(op, node).items():
                    if not (isinstance(node, ast.Name) and name == node.id):
                        found[name] = inspect.getsource(function).rstrip()
    return dict(sorted(found.items()))


def facts(op: Any) -> list[str]:
    """What else there is to know about a primitive, as a list."""
    data = op.data
    lines = [f"- kept for the gradient: {', '.join(f'`{n}`' for n in op.needs) or 'nothing'}"]
    if not op.formulas:
        lines = ["- no gradient"]
    if "domain" in data:
        lines.append(f"- domain of the tests: {interval(data['domain'])}")
    if data.get("kinks"):
        lines.append(f"- the derivative jumps at: {points(data['kinks'])}")
    if data.get("kinks_second"):
        lines.append(f"- the second derivative jumps at: {points(data['kinks_second'])}")
    if op.numpy:
        names = [f"`np.{_numpy_name(f)}`" for f in op.numpy]
        lines.append(f"- takes over {', '.join(dict.fromkeys(names))}")
    if op.operator:
        lines.append(f"- operator: `{OPERATORS.get(op.operator, op.operator)}`")
    if op.method:
        lines.append(f"- method: `Tensor.{op.method}`")
    if data.get("recordable") is False:
        lines.append(f"- cannot be recorded: {data.get('why', '')}")
    if data.get("conventions"):
        lines.append("- see [the conventions](conventions.md)")
    return lines


def _numpy_name(function: Any) -> str:
    home = getattr(function, "__module__", "") or ""
    inner = "linalg." if "linalg" in home else ""
    return inner + str(function.__name__)


def entry(op: Any) -> str:
    """The section of one operation."""
    lines = [f"### {public(op)}", "", f"`{call(op)}`", ""]
    if picture_of(op) is not None:
        lines += [f"![{op.__name__} and its derivative]({PICTURES}/{op.__name__}.svg)", ""]
    lines += [markdown(docstring(op)), ""]
    if isinstance(op, mg.Primitive):
        lines += derivative(op) + facts(op)
    else:
        lines.append("- composed of primitives: differentiated through them")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The text of `operations.md`."""
    groups = modules()
    count = len([op for ops in groups.values() for op in ops if isinstance(op, mg.Primitive)])
    out = [
        "# Operations\n\n"
        "Generated by `docs/tools/make_operations.py` from the registry; do not edit.\n\n"
        f"{count} primitives. In the formulas `g` is the cotangent (the gradient of the result), "
        "`out` the result, `xp` the namespace of the backend, `shapes` those of the operands. The "
        "engine sums the gradient of an elementwise operation down to the operand's shape. In the "
        "pictures f is blue and f' orange; a dot marks the gradient chosen at a kink.\n\n"
    ]
    for module, ops in groups.items():
        short = module.__name__.rpartition(".")[2]
        names = ", ".join(f"[`{public(op)}`](#{anchor(op)})" for op in ops)
        out.append(f"- **{short}**: {names}\n")
    for module, ops in groups.items():
        short = module.__name__.rpartition(".")[2]
        out.append(f"\n## {short}\n\n{(module.__doc__ or '').strip()}\n\n")
        out.append("\n".join(entry(op) for op in ops))
        sources = called(ops)
        if sources:
            code = "\n\n\n".join(sources.values())
            out.append(
                f"\n<details><summary>Functions that these formulas call</summary>\n\n"
                f"```python\n{code}\n```\n\n</details>\n"
            )
    return "".join(out)


RULE = """# Gradients where they are a matter of choice

Generated by `docs/tools/make_operations.py` from the rows beside each primitive; do not edit. The
same rows are tests.

## The rule behind the table

1. Where there is a derivative, that is the gradient, however many zeros and infinities the usual
   formula meets on its way: products with zeros are exact, and far out the limit is taken.
2. At a kink of a convex function (abs, norms, maximum, max over an axis) many slopes would do: all
   whose planes stay below the function. We take the shortest one: 0 for abs and norms at 0, equal
   shares at a tie. Concave functions (minimum, min) are the mirror image.
3. What picks an element *and says which* (maxout, max pooling, the largest k, sorting, the median)
   sends its gradient to the element picked: among equals the first, in the order of the indices.
4. Shares are never negative, and sum to the gradient that came in.
5. An activation made of pieces takes at a joint the slope of one of its sides, PyTorch's choice;
   clip passes the gradient at its bounds. At a jump the gradient is 0, as beside it.
6. Where the slope grows without bound, as of sqrt and log at 0, it is infinite, without a warning.
7. A NaN stays a NaN in the value. Where the value shows which element it came from, that element
   gets the gradient. Where the value itself is undefined, so is the gradient.

At finite points second derivatives are finite wherever the first are, with the same choices. Other
frameworks differ at these points because mostly nobody chose: the formula that is right elsewhere
is evaluated there, so that at the zero vector the gradient of the length is 0 in PyTorch and NaN in
JAX, autograd and MyGrad, that of abs at 0 is 1 in JAX and 0 in the others, and the two operands of
`maximum` at a tie get a half each, or in MyGrad nothing.

## What no convention can mend

`where` hides a value, and not its gradient: that is 0 times an infinite slope, a NaN. Give the
function operands at which it is defined, with a `where` inside; `mg.detect_anomaly()` finds the
places.

```python
>>> import microgradnd as mg
>>> x = mg.tensor([0.0, 4.0])
>>> mg.grad(lambda x: mg.where(x > 0, mg.sqrt(x), x).sum())(x)
Tensor([ nan, 0.25])
>>> mg.grad(lambda x: mg.where(x > 0, mg.sqrt(mg.where(x > 0, x, 1.0)), x).sum())(x)
Tensor([1.  , 0.25])

```

## The table

The last column is the gradient of the sum of the result with respect to each operand; a dash: none
is laid down.

"""


def conventions() -> str:
    """The text of `conventions.md`."""
    out = [RULE, "| operation | case | operands | attributes | gradient |\n|---|---|---|---|---|\n"]
    for ops in modules().values():
        for op in ops:
            for case, operands, attrs, gradients in getattr(op, "data", {}).get("conventions", ()):
                values = [
                    "; ".join(number(v) for v in operands),
                    ", ".join(f"{k}={literal(v)}" for k, v in attrs.items()),
                    "; ".join("-" if g is None else number(g) for g in gradients),
                ]
                cells = " | ".join(f"`{v}`" if v else "" for v in values)
                out.append(
                    f"| [`{public(op)}`](operations.md#{anchor(op)}) | {case} | {cells} |\n"
                )
    return "".join(out)


# ----------------------------------------------------------------------------- the pictures

WIDTH, HEIGHT, MARGIN = 260, 180, 22
BLUE, ORANGE, GREY, INK = "#1f6fb4", "#e07b00", "#d0d0d0", "#404040"
SAMPLES = 161


def picture_of(op: Any) -> str | None:
    """The picture of a unary elementwise operation of floats; None for any other."""
    if not isinstance(op, mg.Primitive) or not op.elementwise or len(op.operands) != 1:
        return None
    if op.rest or op.name in ("astype", "identity", "positive"):
        return None
    if "f" not in op.data.get("dtypes", "f"):
        return None
    attrs = op.data.get("defaults_for_tests", {})
    kinks = op.data.get("kinks", ())
    kinks = next(iter(kinks.values()), ()) if isinstance(kinks, dict) else kinks
    low, high = op.data.get("domain", (-3, 3))
    low, high = min([low, *(k - 2 for k in kinks)]), max([high, *(k + 2 for k in kinks)])
    gap = 1e-6 * (high - low)
    pieces = []
    for start, stop in zip([low, *kinks], [*kinks, high], strict=True):
        n = max(9, round(SAMPLES * (stop - start) / (high - low)))
        x = np.linspace(start + gap, stop - gap, n)
        t = mg.tensor(x, requires_grad=True)
        y = op(t, **attrs)
        if y.dtype.kind != "f":
            return None
        if not y.requires_grad:
            return None
        y.sum().backward()
        assert t.grad is not None
        pieces.append((x, y.detach().numpy(), t.grad.numpy()))
    dots = []
    for _, operands, given, (gradient, *_rest) in op.data.get("conventions", ()):
        point = np.ravel(operands[0])
        if given == {} and point.size == 1 and low <= point[0] <= high and (
            math.isfinite(np.ravel(gradient)[0])
        ):
            dots.append((float(point[0]), float(np.ravel(gradient)[0])))
    return svg(op.name, pieces, dots)


def svg(name: str, pieces: list[Any], dots: list[tuple[float, float]]) -> str:
    """Draw curves in pieces: between two kinks each."""
    xs = np.concatenate([p[0] for p in pieces])
    ys = np.concatenate([q for p in pieces for q in p[1:]])
    x0, x1 = float(xs.min()), float(xs.max())
    y0, y1 = min(0.0, float(ys.min())), max(0.0, float(ys.max()))
    y0, y1 = max(y0, -6.0), min(y1, 6.0) if name != "threshold" else y1
    pad = 0.06 * (y1 - y0)
    y0, y1 = y0 - pad, y1 + pad

    def px(x: Any) -> Any:
        return MARGIN + (x - x0) / (x1 - x0) * (WIDTH - 2 * MARGIN)

    def py(y: Any) -> Any:
        return HEIGHT - MARGIN - (y - y0) / (y1 - y0) * (HEIGHT - 2 * MARGIN)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="9">',
        f"<title>{name} and its derivative</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<clipPath id="c"><rect x="{MARGIN}" y="{MARGIN}" width="{WIDTH - 2 * MARGIN}" '
        f'height="{HEIGHT - 2 * MARGIN}"/></clipPath>',
    ]
    for low, high, place, across in ((x0, x1, px, False), (y0, y1, py, True)):
        for tick in ticks(low, high):
            at = f"{place(tick):.1f}"
            colour = INK if tick == 0 else GREY
            line = (
                f'x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{at}" y2="{at}"' if across
                else f'x1="{at}" x2="{at}" y1="{MARGIN}" y2="{HEIGHT - MARGIN}"'
            )  # fmt: skip
            where = (
                f'x="{MARGIN - 4}" y="{place(tick) + 3:.1f}" text-anchor="end"' if across
                else f'x="{at}" y="{HEIGHT - MARGIN + 12}" text-anchor="middle"'
            )  # fmt: skip
            out.append(f'<line {line} stroke="{colour}" stroke-width="0.6"/>')
            out.append(f'<text {where} fill="{INK}">{tick:g}</text>')
    for which, colour, thick in ((2, ORANGE, 2.4), (1, BLUE, 1.3)):  # both show where f' is f
        for piece in pieces:
            y = np.clip(piece[which], y0 - 9, y1 + 9)
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px(piece[0]), py(y), strict=True))
            out.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" '
                f'stroke-width="{thick}" clip-path="url(#c)"/>'
            )
    for x, y in dots:
        out.append(f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6" fill="{ORANGE}"/>')
    out.append(
        f'<text x="{MARGIN}" y="14" fill="{INK}"><tspan fill="{BLUE}">{name}</tspan> and '
        f'<tspan fill="{ORANGE}">its derivative</tspan></text>'
    )
    return "\n".join([*out, "</svg>\n"])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers inside an interval, at most seven."""
    step = 10.0 ** math.floor(math.log10(high - low))
    while (high - low) / step > 7:
        step *= 2 if (high - low) / step <= 14 else 5
    while (high - low) / step < 3:
        step /= 2
    return [round(i * step, 9) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def drawn(text: str) -> tuple[str, list[float]]:
    """A picture as its text without numbers, and the numbers."""
    pattern = r"-?\d+\.\d+"
    return re.sub(pattern, "#", text), [float(n) for n in re.findall(pattern, text)]


def same(old: str, new: str) -> bool:
    """Whether two pictures show the same curves, up to a fifth of a pixel."""
    (frame, curve), (other, fresh) = drawn(old), drawn(new)
    return frame == other and bool(np.allclose(curve, fresh, rtol=0, atol=0.21))


def picture(path: Path, new: str, check: bool) -> bool:
    """Write a picture, or compare it with the one that is there."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if old and same(old, new):
        return True  # nothing to see: leave its bytes alone
    if check:
        print(f"{path.name}: the picture differs")
        return False
    return emit(path, new, check)


def main() -> int:
    """Write pages and pictures, or check them."""
    check = "--check" in sys.argv[1:]
    results = [
        emit(DOCS / "operations.md", page(), check),
        emit(DOCS / "conventions.md", conventions(), check),
    ]
    wanted = set()
    for op in mg.REGISTRY.values():
        new = picture_of(op)
        if new is not None and op.__module__.startswith("microgradnd.ops"):
            wanted.add(f"{op.name}.svg")
            results.append(picture(DOCS / PICTURES / f"{op.name}.svg", new, check))
    for path in sorted((DOCS / PICTURES).glob("*.svg")):
        if path.name not in wanted:
            print(f"{path.name}: no operation has this picture")
            results.append(False)
    return report(results, "make_operations.py")


if __name__ == "__main__":
    raise SystemExit(main())
