"""The pictures that exercises of the course refer to: shapes, gradients and threads.

import pictures
pictures.tie()          each function draws one picture

In all of them y grows downwards, as the rows of a matrix do. Colours: Wong 2011, as in
course.mplstyle, and tints of them under black text.
"""

import math
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

FORWARD, BACK, THIRD = "#0072B2", "#D55E00", "#009E73"
BLUE, ORANGE, GREEN, YELLOW = "#b3d7ee", "#f5c9a8", "#a8dccb", "#ffe08a"
PURPLE, QUIET = "#e9c6da", "#eeeeee"


# --- what the pictures share ----------------------------------------------------------------------


def canvas(width: float, x: tuple[float, float], y: tuple[float, float]) -> Axes:
    """Axes `width` inches wide, without a frame, from x[0] to x[1] and from y[0] down to y[1]."""
    size = width, width * (y[1] - y[0]) / (x[1] - x[0])
    figure = plt.figure(figsize=size, layout="none")
    ax = figure.add_axes((0, 0, 1, 1))  # so that it looks the same with every style
    ax.set(xlim=x, ylim=y[::-1], aspect="equal")
    ax.axis("off")
    return ax


def label(ax: Axes, x: float, y: float, text: object, **look: Any) -> None:
    """Text around a point."""
    ax.text(x, y, str(text), **({"ha": "center", "va": "center", "fontsize": 9} | look))


def cells(
    ax: Axes, x: float, y: float, texts: Iterable[object], fill: str = "white", size: float = 8
) -> None:
    """A row of boxes of 1 x 1, the first with its upper left corner at (x, y)."""
    for i, text in enumerate(texts):
        ax.add_patch(plt.Rectangle((x + i, y), 1, 1, facecolor=fill, edgecolor="0.5", lw=0.8))
        label(ax, x + i + 0.5, y + 0.5, text, fontsize=size)


def frame(ax: Axes, x: float, y: float, width: float, height: float, color: str) -> None:
    """A thick empty rectangle around cells; a later one lies above."""
    look = {"fill": False, "edgecolor": color, "lw": 2.4, "zorder": 3}
    ax.add_patch(plt.Rectangle((x, y), width, height, **look))


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, **look: Any
) -> None:
    """An arrow between two points."""
    look = {"arrowstyle": "-|>", "color": color, "lw": 1.5, "shrinkA": 0, "shrinkB": 0} | look
    ax.annotate("", end, start, arrowprops=look)


def brace(ax: Axes, x: float, end: float, y: float, text: str, **look: Any) -> None:
    """A line from x to end at height y, with a text above it."""
    ax.plot([x + 0.1, x + 0.1, end - 0.1, end - 0.1], [y + 0.2, y, y, y + 0.2], color="0.35", lw=1)
    label(ax, (x + end) / 2, y - 0.15, text, va="bottom", **look)


# --- notebook 2 -----------------------------------------------------------------------------------


def tie() -> None:
    """A ranking in which the target has the score of three others, and its three ranks."""
    ranking = [("shirt", 7), ("belt", 5), ("socks", 2), ("shoes", 2), ("scarf", 2), ("hat", 2),
               ("jacket", 1), ("phone", 0), ("lamp", 0)]  # fmt: skip
    ax = canvas(9.5, (-1.3, 14.2), (-1.6, 4))
    for i, (name, score) in enumerate(ranking):
        fill = ORANGE if name == "scarf" else YELLOW if score == 2 else QUIET
        label(ax, i + 0.5, -0.3, name, weight="bold" if name == "scarf" else "normal")
        cells(ax, i, 0, [score], fill, size=11)
        label(ax, i + 0.5, 1.35, i + 1)
    for y, text in ((-0.3, "item"), (0.5, "score"), (1.35, "place")):
        label(ax, -0.2, y, text, ha="right")
    brace(ax, 0, 2, -0.9, "a = 2 above")
    brace(ax, 2, 6, -0.9, "e = 4 equal, target included")
    label(ax, 9.6, -0.1, "target: scarf", ha="left", bbox={"fc": ORANGE, "ec": "0.5"})
    label(ax, 9.6, 1.1, "same score: a sort may leave\nthe yellow and orange cells\nin any order",
          ha="left", bbox={"fc": YELLOW, "ec": "0.5"})  # fmt: skip
    for place, at, text, color in (
        (3, 1.3, "standard\na + 1 = 3", FORWARD),
        (4.5, 4, "median\n(3 + 6) / 2 = 4.5", THIRD),
        (6, 6.7, "conservative\na + e = 6", BACK),
    ):
        arrow(ax, (at, 2.9), (place - 0.5, 1.65), color)
        label(ax, at, 3.4, text, color=color, weight="bold")
    label(ax, 9.4, 3.4, "Recall@5 counts a hit with standard\nor median, a miss with conservative.",
          ha="left")  # fmt: skip
    plt.show()


# --- notebook 4 -----------------------------------------------------------------------------------

# Node: text, x, y.
NODES = {
    "h": ("\nold\nstate\nh\n", 0, 0), "r": ("r = σ($a_r$)", 3.4, -2.6),
    "z": ("z = σ($a_z$)", 5, 2.6), "rh": ("r * h", 6.3, -1.5), "n": ("n = tanh($a_n$)", 9.2, -2.6),
    "h'": ("h' = (1-z) * h\n+ z * n", 12, 0), "out": ("scores,\nnext step", 15, 0),
    "xr": ("$x W_r$", 3.4, -4.5), "xn": ("$x W_n$", 9.2, -4.5), "xz": ("$x W_z$", 1.8, 3.4),
}  # fmt: skip
# From, to, the value that goes forward, the gradient that comes back.
EDGES = [
    ("h", "h'", "h", "part 1 of dh"), ("h", "rh", "h", "part 2 of dh"),
    ("h", "r", "h", "part 3 of dh"), ("h", "z", "h", "part 4 of dh"),
    ("r", "rh", "r", "dr"), ("rh", "n", "r*h", "drh"), ("n", "h'", "n", "dn"),
    ("z", "h'", "z", "dz"), ("xr", "r", "", "$da_r$"), ("xn", "n", "", "$da_n$"),
    ("xz", "z", "", "$da_z$"), ("h'", "out", "h'", "dh_new"),
]  # fmt: skip
DOORS = {
    "part 1 of dh": "1: (1-z) * dh_new", "part 2 of dh": "2: drh * r",
    "part 3 of dh": "3: $da_r$ through $U_r$", "part 4 of dh": "4: $da_z$ through $U_z$",
}  # fmt: skip


def gru_graph(gradients: bool = True, doors: bool = False) -> None:
    """One step of a GRU: values forward, gradients backward; doors: what the parts of dh are."""
    ax = canvas(11, (-0.5, 15.9), (-5, 3.9))
    boxes = {}
    for name, (text, x, y) in NODES.items():
        look = {"boxstyle": "round", "fc": "white", "ec": "0.6" if "W" in text else "black"}
        drawn = ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=look, zorder=3)
        boxes[name] = drawn.get_bbox_patch()
    for source, target, value, gradient in EDGES:
        x, y, x2, y2 = *NODES[source][1:], *NODES[target][1:]
        length = math.hypot(x2 - x, y2 - y)
        left_x, left_y = (y2 - y) / length, (x - x2) / length  # across the arrow
        turn = math.degrees(math.atan2(y - y2, x2 - x))
        back = DOORS.get(gradient, gradient) if doors else gradient
        for side, color, text in ((1, FORWARD, value), (-1, BACK, back))[: 1 + gradients]:
            off = 0.08 * side if gradients else 0
            ends = [(a + off * left_x, b + off * left_y) for a, b in ((x, y), (x2, y2))]
            names = [source, target]
            if side < 0:
                ends.reverse()
                names.reverse()
            patches = {"patchA": boxes[names[0]], "patchB": boxes[names[1]]}
            arrow(ax, *ends, color, **patches, shrinkA=2, shrinkB=2)
            upright = abs(turn) > 80
            off = 0.33 * side
            label(ax, (x + x2) / 2 + off * left_x, (y + y2) / 2 + off * left_y, text, color=color,
                  rotation=0 if upright else turn, ha="right" if upright else "center")  # fmt: skip
    label(ax, 15.8, -4.5, "blue: the value that goes forward", ha="right", color=FORWARD)
    if gradients:
        label(ax, 15.8, -4, "orange: its gradient, which comes back", ha="right", color=BACK)
    plt.show()


# --- notebook 6 -----------------------------------------------------------------------------------


def score_matrix() -> None:
    """The scores r (B, N) of a step: targets on the diagonal, all else negatives."""
    lanes = ["jeans", "phone", "shirt", "tent"]
    items = ["shirt", "charger", "socks", "stove", "lamp", "hat", "mug"]
    scores = [
        [2.1, -1.0, 1.4, -0.8, -0.3, 0.9, -1.2],
        [-0.7, 3.2, -0.4, 0.2, 1.1, -1.5, 0.1],
        [1.8, -1.1, 0.6, -0.9, -0.2, 1.2, -0.6],
        [-0.5, 0.3, 0.4, 2.4, 1.6, 0.5, 0.7],
    ]
    n_lanes, n_items, lane = len(lanes), len(items), 2
    ax = canvas(10, (-3.7, 12.2), (-2.1, 5.1))
    for column, name in enumerate(items):
        label(ax, column + 0.5, -0.25, f"{column}: {name}", fontsize=8, rotation=25, ha="left",
              va="bottom", rotation_mode="anchor")  # fmt: skip
    for b, row in enumerate(scores):
        label(ax, -0.2, b + 0.5, f"lane {b}, last click: {lanes[b]}", ha="right")
        for column, score in enumerate(row):
            fill = GREEN if b == column else ORANGE if column < n_lanes else QUIET
            cells(ax, column, b, [score], fill, size=9)
    frame(ax, 0, lane, n_items, 1, FORWARD)
    arrow(ax, (n_items + 0.1, lane + 0.5), (n_items + 0.9, lane + 0.5), FORWARD)
    label(ax, n_items + 1, lane + 0.5, f"lane {lane}: its target is column {lane}, {items[lane]};\n"
          f"its n = N - 1 = {n_items - 1} negatives are the rest.\n"
          f"One row gives one loss, L[{lane}].", ha="left", color=FORWARD)  # fmt: skip
    for x, text, fill in (
        (1, "target", GREEN), (3.6, "negative: target of another lane", ORANGE),
        (7.3, "negative: shared sample", QUIET),
    ):  # fmt: skip
        label(ax, x, n_lanes + 0.7, text, bbox={"fc": fill, "ec": "0.5"})
    brace(ax, 0, n_lanes, -1.25, f"B = {n_lanes}: the lanes' next clicks")
    brace(ax, n_lanes, n_items, -1.25, f"S = {n_items - n_lanes} shared samples")
    label(ax, n_items + 1, -1.25, f"r is (B, N), N = B + S = {n_items}", ha="left", weight="bold")
    plt.show()


# --- notebook 11 ----------------------------------------------------------------------------------


def memory() -> None:
    """The levels of a GPU's memory: who sees each and how large it is."""
    # NVIDIA, CUDA C++ Programming Guide: 65,536 registers of 4 bytes and 228 KB of shared memory a
    # multiprocessor (compute capability 9.0), hundreds of clock cycles for off-chip memory.
    # Data sheets: 50 MB of L2 (H100), 141 GB (H200).
    ax = canvas(11, (-0.2, 29), (-0.8, 10.3))
    for left in (0, 8.3):
        ax.add_patch(plt.Rectangle((left, 0), 7.7, 5.4, facecolor=QUIET, edgecolor="0.5"))
        label(ax, left + 3.85, 0.5, f"block {left > 0:d}, on a multiprocessor", weight="bold")
        for t in range(4):
            x = left + 0.3 + 1.8 * t
            ax.add_patch(plt.Rectangle((x, 1), 1.7, 1.9, facecolor=GREEN, edgecolor="0.5"))
            label(ax, x + 0.85, 1.95, f"thread {t}\nregisters", fontsize=7)
            arrow(ax, (x + 0.85, 2.9), (x + 0.85, 3.6), "0.35", arrowstyle="<|-|>", lw=1)
    for x, y, width, height, text, fill in (
        (0.3, 3.6, 7.1, 1.3, "shared memory", BLUE), (8.6, 3.6, 7.1, 1.3, "shared memory", BLUE),
        (0, 6.1, 16, 1.3, "L2 cache", YELLOW), (0, 8.1, 16, 2, "global memory", ORANGE),
    ):  # fmt: skip
        ax.add_patch(plt.Rectangle((x, y), width, height, facecolor=fill, edgecolor="0.5"))
        label(ax, x + width / 2, y + height / 2, text, weight="bold")
    for x, y, end in ((3.85, 5.4, 6.1), (12.15, 5.4, 6.1), (8, 7.4, 8.1)):
        arrow(ax, (x, y), (x, end), "0.35", arrowstyle="<|-|>", lw=1)
    for x, head in ((16.6, "who sees it"), (20.4, "on an H200"), (25, "in the puzzles")):
        label(ax, x, -0.3, head, ha="left", weight="bold")
    for y, who, size, what in (
        (1.95, "one thread", "256 KB for each\nmultiprocessor", "float sum; int i;"),
        (4.25, "the threads\nof one block", "228 KB for each\nmultiprocessor",
         "__shared__ float\npart[128];"),
        (6.75, "all threads", "50 MB", "keeps the sectors\nused last"),
        (9.1, "all threads", "141 GB; a read takes\nhundreds of cycles",
         "the arguments:\nx, E, out"),
    ):  # fmt: skip
        for x, text in ((16.6, who), (20.4, size), (25, what)):
            label(ax, x, y, text, ha="left", fontsize=8.5)
    plt.show()


def gather() -> None:
    """Which thread copies which number: a thread for each row, and a block for each row."""
    x, width = [4, 1, 3], 10
    ax = canvas(11, (-2.6, 28.4), (-3.2, 12.4))
    for left, is_block in ((0, False), (15, True)):
        title = "a block of 4 threads for each row" if is_block else "a thread for each row"
        label(ax, left + 5, -2.7, title, weight="bold", fontsize=10)
        for column in range(width):
            label(ax, left + column + 0.5, -0.4, column, fontsize=7, color="0.35")
        label(ax, left + 5, -1.2, "k", fontsize=8, color="0.35")
        for row in range(6):
            fill = [BLUE, YELLOW, PURPLE][x.index(row)] if row in x else "white"
            who = [k % 4 if is_block else x.index(row) for k in range(width)] if row in x else []
            cells(ax, left, row, who or [""] * width, fill)
            label(ax, left - 0.3, row + 0.5, f"E[{row}]", ha="right", fontsize=8)
        for b, row in enumerate(x):
            who = [k % 4 if is_block else b for k in range(width)]
            cells(ax, left, 7 + b, who, [BLUE, YELLOW, PURPLE][b])
            label(ax, left - 0.3, 7.5 + b, f"out[{b}]", ha="right", fontsize=8)
            name = f"x[{b}] = {row}" + (f", block {b}" if is_block else "")
            label(ax, left + width + 0.3, 7.5 + b, name, ha="left", fontsize=8)
        if is_block:
            frame(ax, left, 4, 4, 1, BACK)
            frame(ax, left, 7, 4, 1, BACK)
        else:
            for y in (1, 3, 4, 7, 8, 9):
                frame(ax, left, y, 1, 1, BACK)
        whose, where = ("threads 0 to 2", "far apart: a sector for each")
        if is_block:
            whose, where = ("block 0", "side by side: few sectors")
        label(ax, left + 5, 10.9, f"Framed: the first request of {whose},\n{where}.", color=BACK)
    label(ax, 12.5, 12.2, "Numbers in the cells: threadIdx.x of the thread that copies them.")
    plt.show()


def tiles() -> None:
    """The way of a block through the tiles of A and B, and what one of its threads does."""
    side, rows, depth, columns = 3, 6, 8, 6
    left, top = 10.5, 10.5  # of C; A is on its left, B above it
    ax = canvas(10.5, (-2.2, 27), (-1, 18.6))
    steps = [BLUE, YELLOW, PURPLE]
    for row in range(rows):
        for k in range(depth):
            fill = steps[k // side] if row < side else "white"
            text = f"{row},{k - side}" if row < side and k // side == 1 else ""
            cells(ax, k, top + row, [text], fill)
        for column in range(columns):
            ours = row < side <= column
            cells(ax, left + column, top + row, [f"{row},{column - side}" if ours else ""],
                  GREEN if ours else "white")  # fmt: skip
    for k in range(depth):
        for column in range(columns):
            fill = steps[k // side] if column >= side else "white"
            text = f"{k - side},{column - side}" if column >= side and k // side == 1 else ""
            cells(ax, left + column, k, [text], fill)
    edge = {"facecolor": PURPLE, "edgecolor": "0.5", "hatch": "////", "alpha": 0.5}
    ax.add_patch(plt.Rectangle((depth, top), 1, side, **edge))
    ax.add_patch(plt.Rectangle((left + side, depth), side, 1, **edge))
    label(ax, 4, top + rows + 0.6, "A (M, K)", weight="bold")
    label(ax, left + 3, -0.5, "B (K, N)", weight="bold")
    label(ax, left + 3, top + rows + 0.6, "C (M, N)", weight="bold")
    for i in range(3):
        label(ax, side * i + 1.5, top - 0.5, f"k0 = {side * i}", fontsize=8)
        label(ax, left + columns + 0.2, side * i + 1.5, f"k0 = {side * i}", ha="left", fontsize=8)
    for i in range(2):
        label(ax, -0.2, top + side * i + 1.5, f"blockIdx.y\n= {i}", ha="right", fontsize=8)
        label(ax, left + side * i + 1.5, top + rows + 1.4, f"blockIdx.x\n= {i}", fontsize=8)
    frame(ax, 3, top + 1, 3, 1, FORWARD)
    frame(ax, left + 5, 3, 1, 3, FORWARD)
    for x, y in ((5, top + 1), (left + 5, 4), (left + 5, top + 1)):
        frame(ax, x, y, 1, 1, BACK)
    label(ax, -2, 1.2, "Numbers in the cells: threadIdx.y, threadIdx.x.\n"
          "Here a block has 3 x 3 threads, in the puzzle 16 x 16.", ha="left")  # fmt: skip
    label(ax, -2, 3.2, "The block that makes C's green tile goes along K:\n"
          "blue, yellow, purple. Here it is at yellow, k0 = 3.", ha="left")  # fmt: skip
    label(ax, -2, 4.9, "Hatched: outside of the matrix, K is no multiple of 3.", ha="left")
    label(ax, left + 7.3, 11.5, "Thread (1,2) loads two numbers,\none of A's tile and one of B's,\n"
          "and makes one of C (orange).", ha="left", color=BACK)  # fmt: skip
    label(ax, left + 7.3, 14, "For this it reads row 1 of A's tile\nand column 2 of B's (blue).\n"
          "Other threads loaded the rest.", ha="left", color=FORWARD)  # fmt: skip
    plt.show()


def scatter() -> None:
    """Rows of d with the same item go to one row of G: by three blocks at once, or by one."""
    x = [3, 0, 3, 1, 3]
    ax = canvas(11, (-3, 33), (-2.5, 7.3))
    for left, title in (
        (0, "a block for each row of d: a race"),
        (18.5, "a block for each item: no race"),
    ):
        one_each = left > 0
        label(ax, left + 5.5, -2, title, weight="bold", fontsize=10)
        for at, text in ((1.5, "d"), (6.7, "block"), (12.4, "G")):
            label(ax, left + at, -0.5, text, weight="bold")
        for row in range(6):
            fill = ORANGE if row == 3 else BLUE if row in x else "white"
            cells(ax, left + 10.9, row, [""] * 3, fill)
            label(ax, left + 14.1, row + 0.5, row, ha="left", fontsize=8)
        for b, item in enumerate(x):
            y, first = b + 0.5, x.index(item)
            fill, color = (ORANGE, BACK) if item == 3 else (BLUE, FORWARD)
            cells(ax, left, y, [""] * 3, fill)
            label(ax, left - 0.2, y + 0.5, f"x[{b}] = {item}", ha="right", fontsize=8)
            idle = one_each and first != b
            lanes = [c for c in range(5) if x[c] == item] if one_each else [b]
            text = "nothing to do" if idle else " + ".join(f"d[{c}]" for c in lanes)
            box = {"facecolor": QUIET if idle else "white", "edgecolor": "0.5"}
            ax.add_patch(plt.Rectangle((left + 4.6, y + 0.1), 4.2, 0.8, **box))
            label(ax, left + 6.7, y + 0.5, f"{b}: {text}", fontsize=7.5)
            to = first if one_each else b
            arrow(ax, (left + 3.1, y + 0.5), (left + 4.5, to + 1), color)
            if not idle:
                arrow(ax, (left + 8.9, y + 0.5), (left + 10.8, item + 0.5), color)
    frame(ax, 10.9, 3, 3, 1, BACK)
    label(ax, 5.5, 6.8, "Blocks 0, 2 and 4 read and write row 3 at the same time.", color=BACK)
    label(ax, 24, 6.8, "Row 0 is the first with item 3: block 0 adds up all three.", color=BACK)
    plt.show()


def gates_row() -> None:
    """Where the three gates are in a row of xW and hU, and which numbers a thread reads."""
    n, H, i = 2, 4, 6
    lane, unit = divmod(i, H)
    ax = canvas(11, (-2.6, 20), (-1.8, 8.3))
    for top, name in ((0, "xW"), (4, "hU")):
        label(ax, -2.4, top + 1, name, ha="left", weight="bold", fontsize=11)
        for column in range(3 * H):
            label(ax, column + 0.5, top - 0.3, column, fontsize=7, color="0.35")
        for row in range(n):
            label(ax, -0.2, top + row + 0.5, f"row {row}", ha="right", fontsize=8)
            for gate, fill in enumerate((BLUE, YELLOW, PURPLE)):
                start = row * 3 * H + gate * H
                cells(ax, gate * H, top + row, range(start, start + H), fill)
        for gate in range(3):
            frame(ax, gate * H + unit, top + lane, 1, 1, BACK)
    for gate, text in enumerate(("r: columns 0 to H-1", "z: H to 2H-1", "n: 2H to 3H-1")):
        brace(ax, gate * H, gate * H + H, -0.9, text)
    for top, name in ((0, "h"), (4, "h_new")):
        label(ax, 17.5, top - 0.5, name, weight="bold", fontsize=11)
        for row in range(n):
            label(ax, 15.3, top + row + 0.5, f"row {row}", ha="right", fontsize=8)
            cells(ax, 15.5, top + row, range(row * H, row * H + H), GREEN)
        frame(ax, 15.5 + unit, top + lane, 1, 1, BACK)
    label(ax, -2.4, 7.3, f"H = {H}. Numbers in the cells: the place in memory. Orange: what thread "
          f"i = {i} reads, and the number of h_new that it writes.\n"
          f"Row: i / H = {i} / {H} = {lane} (integers: the rest is dropped). "
          f"Unit: i % H = {unit}, the rest.", ha="left", color=BACK)  # fmt: skip
    plt.show()
