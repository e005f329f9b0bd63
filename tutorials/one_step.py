"""One training step of GRU4Rec as a picture, with shapes and one real click.

import one_step
one_step.show(4)        the part that notebook 4 is about, and its lines on the one page
"""

import math
import re
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt

PAGE = Path(__file__).with_name("gru4rec_on_one_page.py")

# Lane 1 at step 200 of `gru4rec_on_one_page.train` on 2,000 sessions; tests/test_one_page.py
# computes it again. Of vectors, the first unit.
CLICK = {
    "x": 569, "y": 728, "h": -0.139, "r": 0.663, "z": 0.165, "n": -0.113, "h_new": -0.135,
    "s": 2.12, "p": 0.0129,
}  # fmt: skip

ABOUT = """B = 32 lanes, H = 100 units, S = 512 negatives,
N = B + S = 544 scored items, I = 1,000 items.
The numbers are those of one lane: a shopper on item 569,
kind11.brand10, who clicks 728, kind18.brand10, next."""

FORWARD, BACK, QUIET, LOUD = "#0072B2", "#D55E00", "#eeeeee", "#ffe08a"

# Box: text, x, y, and the notebooks that are about it.
BOXES = {
    "batch": ("32 sessions\nside by side", 0, 2, (1, 5)),
    "x": ("click x  (B,)\n{x}", 1.15, 2, (1, 5)),
    "e": ("its row of V\ne  (B, H)", 2.3, 2, (3, 7)),
    "gru": ("GRU: new state h'  (B, H)\n= (1-z) h + z n\nunit 0: {h_new:.3f} =\n"
            "(1-{z:.2f})({h:.2f}) + {z:.2f}({n:.2f})", 3.75, 2, (3, 9, 10, 11)),
    "h": ("state h  (B, H)\nof the click before", 3.75, 3.25, (3, 5)),
    "s": ("scores s  (B, N)\nh' · rows of V\n+ b_y - log q\ntarget: {s:.2f}", 5.35, 2, (6, 7, 11)),
    "p": ("softmax p  (B, N)\ntarget: {p:.4f}", 6.75, 2, (6,)),
    "loss": ("loss  -log p\n{loss:.2f}", 8.0, 2, (6,)),
    "samples": ("next clicks y  (B,)   {y}\nand negatives  (S,)", 5.35, 3.25, (5, 7)),
    "ds": ("ds  (B, N)\ntarget: p - 1 = {ds:.2f}", 6.75, 0.75, (6,)),
    "dh": ("dh'  (B, H)", 5.35, 0.75, (4, 7)),
    "dgru": ("back through\nn, z, r: dW, dU, db", 3.75, 0.75, (4, 10, 11)),
    "de": ("de  (B, H)", 2.3, 0.75, (4,)),
    "adagrad": ("Adagrad: rows of V,\nW, U, b, b_y", 0.75, 0.75, (8, 10, 11)),
    "measure": ("evaluation: rank of y\namong all I items", 7.4, 3.25, (2, 12)),
}  # fmt: skip
ARROWS = [
    ("batch", "x"), ("x", "e"), ("e", "gru"), ("h", "gru"), ("gru", "s"), ("samples", "s"),
    ("s", "p"), ("p", "loss"), ("loss", "ds"), ("ds", "dh"), ("dh", "dgru"), ("dgru", "de"),
    ("de", "adagrad"),
]  # fmt: skip


def lines_of(number: int) -> list[tuple[str, int, int]]:
    """The sections of the one page that name a notebook: (title, first line, last line)."""
    text = PAGE.read_text(encoding="utf-8").splitlines()
    heads = [(i, m[1].strip()) for i, line in enumerate(text, 1)
             if (m := re.fullmatch(r"# --- (.*?) -+", line))]  # fmt: skip
    heads.append((len(text) + 1, ""))
    found = []
    for (first, title), (end, _) in pairwise(heads):
        if str(number) in re.findall(r"\d+", title.partition("(")[2]):
            found.append((title.partition(" (")[0], first, end - 1))
    return found


def show(number: int) -> None:
    """Draw the step, with what notebook `number` is about in yellow, and name its lines."""
    values = CLICK | {"loss": -math.log(CLICK["p"]), "ds": CLICK["p"] - 1}
    _, ax = plt.subplots(figsize=(11, 3.8))
    drawn = {}
    for name, (text, x, y, numbers) in BOXES.items():
        box = {
            "boxstyle": "round,pad=0.4",
            "facecolor": LOUD if number in numbers else QUIET,
            "edgecolor": BACK if y < 1 else FORWARD,
        }
        drawn[name] = ax.text(
            x,
            y,
            text.format(**values),
            ha="center",
            va="center",
            fontsize=8,
            color="black",
            bbox=box,
        )
    for source, target in ARROWS:
        is_back = BOXES[target][2] < 1
        ax.annotate(
            "", BOXES[target][1:3], BOXES[source][1:3],
            arrowprops={
                "arrowstyle": "->",
                "color": BACK if is_back else FORWARD,
                "patchA": drawn[source].get_bbox_patch(),
                "patchB": drawn[target].get_bbox_patch(),
            },
        )  # fmt: skip
    ax.text(-0.5, 2.55, "forward", color=FORWARD, fontsize=9)
    ax.text(-0.5, 0.15, "backward: the gradient of each, and the update", color=BACK, fontsize=9)
    ax.text(-0.5, 3.35, ABOUT, fontsize=8, va="center")
    ax.set(xlim=(-0.6, 8.5), ylim=(0, 3.7))
    ax.axis("off")
    plt.show()
    for title, first, last in lines_of(number):
        print(f"gru4rec_on_one_page.py, lines {first} to {last}: {title}")
