"""Maxout keeps the largest number of each group, and only that one gets the gradient.

Two layers small enough to check with pencil and paper, the numbers of the lecture: the first
computes (5, 7) and (-1, 1) and keeps 7 and 1, the second (1, 2) and (4, 3) and keeps 2 and 4.
Neighbours form a group. The size of the groups is chosen beforehand and must divide the layer's
width. In a tie the first of the largest wins, so that exactly one number of a group learns.
"""

import lesson

import microgradnd as mg

W1 = [[2.0, 3.0], [3.0, 4.0], [-2.0, 1.0], [0.0, 1.0]]
W2 = [[0.0, 1.0], [1.0, -5.0], [1.0, -3.0], [0.0, 3.0]]


def routed(numbers, pieces):
    """Give what Maxout makes of a list, and the gradient of its sum."""
    y, pull = mg.vjp(lambda x: mg.maxout(x, pieces), mg.tensor(numbers))
    return y.tolist(), pull(mg.ones_like(y))[0].tolist()


def measure(seed):
    """Give values and gradients of both layers, and of single groups; the seed changes nothing."""
    x = mg.tensor([1.0, 1.0])
    w1, w2 = mg.tensor(W1, requires_grad=True), mg.tensor(W2, requires_grad=True)
    with mg.trace() as tape:
        z1 = w1 @ x
        a1 = mg.maxout(z1, 2)
        z2 = w2 @ a1
        a2 = mg.maxout(z2, 2)
        loss = a2.sum()
        loss.backward()
    found = {row.name: (row.value.tolist(), row.gradient.tolist())
             for row in tape if row.name in ("z1", "a1", "z2", "a2")}  # fmt: skip
    found |= {"tape": str(tape), "loss": loss.item(), "rows": w1.grad.tolist()}
    found["alone"] = routed([5.0, 7.0, -1.0, 1.0], 2)
    found["three"] = routed([5.0, 7.0, -1.0, 1.0, 2.0, 0.0], 3)
    found["tie"] = routed([3.0, 3.0, 3.0], 3)
    try:
        mg.maxout(mg.tensor([5.0, 7.0, -1.0, 1.0]), 3)
        found["error"] = ""
    except ValueError as error:
        found["error"] = str(error)
    return found


def report(found):
    """Print the tape, single groups, and what does not divide."""
    print(found["tape"], "\n")
    rows = [("two in a group", [5, 7, -1, 1], *found["alone"]),
            ("three in a group", [5, 7, -1, 1, 2, 0], *found["three"]),
            ("all equal", [3, 3, 3], *found["tie"])]  # fmt: skip
    lesson.table(("Maxout alone", "numbers", "keeps", "gradient of the sum"), rows)
    print(f"four numbers in groups of three: {found['error']}\n")
    return {"layer 1": found["a1"][0], "layer 2": found["a2"][0],
            "gradient 1": found["alone"][1], "gradient 2": found["z2"][1]}  # fmt: skip


def check(found):
    """All of it is exact."""
    assert found["z1"][0] == [5, 7, -1, 1] and found["a1"][0] == [7, 1]
    assert found["z2"][0] == [1, 2, 4, 3] and found["a2"][0] == [2, 4] and found["loss"] == 6
    assert found["z2"][1] == [0, 1, 1, 0]  # only the winners of layer 2
    assert found["a1"][1] == [2, -8]  # the sum of their rows in W2, (1, -5) and (1, -3)
    assert found["z1"][1] == [0, 2, 0, -8]  # handed to the winners of layer 1
    assert found["rows"] == [[0, 0], [2, 2], [0, 0], [-8, -8]]  # a loser's weights learn nothing
    assert found["alone"] == ([7, 1], [0, 1, 0, 1])
    assert found["three"] == ([7, 2], [0, 1, 0, 0, 1, 0])
    assert found["tie"] == ([3], [1, 0, 0])  # one winner: what comes in goes out, once
    assert "not divisible" in found["error"]


def draw(found, plt):
    """The two layers as boxes: values, winners in colour, the gradient under each number."""
    figure, ax = plt.subplots(figsize=(9, 4.4))
    columns = {"x": 0.0, "z1": 2.2, "a1": 4.4, "z2": 6.6, "a2": 8.8}
    titles = {"x": "input", "z1": "W₁ x", "a1": "largest\nof each pair", "z2": "W₂ a",
              "a2": "largest\nof each pair"}  # fmt: skip
    values = {name: found.get(name, ([1, 1], None)) for name in columns}
    heights = {4: (3, 2, 0.6, -0.4), 2: (2.5, 0.1)}
    for name, left in columns.items():
        numbers, gradients = values[name]
        ax.text(left, 4.2, titles[name], ha="center", va="center")
        for i, (y, number) in enumerate(zip(heights[len(numbers)], numbers, strict=True)):
            won = gradients is not None and gradients[i] != 0
            colour = "tab:orange" if won else "white" if name != "x" else "whitesmoke"
            ax.text(left, y, f"{number:g}", ha="center", va="center", fontsize=13,
                    bbox={"boxstyle": "square,pad=0.45", "fc": colour, "ec": "black"})  # fmt: skip
            if gradients is not None:
                ax.text(left + 0.42, y, f"{gradients[i]:g}", va="center", color="tab:blue")
    for left, right in (("z1", "a1"), ("z2", "a2")):
        for i, y in enumerate(heights[4]):
            won = values[left][1][i] != 0
            ax.annotate("", (columns[right] - 0.4, heights[2][i // 2]), (columns[left] + 0.8, y),
                        arrowprops={"arrowstyle": "->", "lw": 2 if won else 0.7, "shrinkB": 2,
                                    "color": "tab:orange" if won else "lightgrey"})  # fmt: skip
    for left, right in (("x", "z1"), ("a1", "z2")):
        for start in heights[2]:
            for end in heights[4]:
                near = columns[left] + (0.3 if left == "x" else 0.75)
                ax.plot((near, columns[right] - 0.35), (start, end), lw=0.6,
                        color="silver", zorder=0)  # fmt: skip
    ax.set(title="only the largest of each pair goes on (orange) and gets a gradient (blue)",
           xlim=(-0.6, 9.8), ylim=(-1.1, 4.7))  # fmt: skip
    ax.axis("off")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
