"""Exercises of notebook 10, fast on a CPU."""

import numpy as np

from checks import Exercise, Wrong, edited, has_hole
from checks.common import in_place
from gru4rec_np.ops.losses import loss_and_gradient
from gru4rec_np.ops.optim import update
from solutions import ch10


def _counted(t, r, m):
    # The long way: a column for each draw, lane by lane, the target first.
    columns = np.column_stack([t, np.repeat(r, m, axis=1)])
    lanes = [loss_and_gradient(lane[None], "cross-entropy")[0][0] for lane in columns]
    return np.array(lanes)


def _adagrad(p, a, rows, g, lr, eps):
    p, a = p.copy(), a.copy()
    update(p, g, {"a": a}, "adagrad", lr, rows=rows)
    return p, a


def _run_in_place(answer, args):
    p, a, rows, g, lr, eps = args
    new_p, new_a = p.copy(), a.copy()
    answer(new_p, new_a, rows, g, lr, eps)
    if np.array_equal(p, new_p) and np.array_equal(a, new_a):
        if has_hole(answer):
            raise NotImplementedError
        raise Wrong(
            "p and a are unchanged: change them in place, as p[i, j] -= ... does; the check "
            "ignores what the function returns"
        )
    return new_p, new_a


ADAGRAD_MISTAKES = {
    "the gradient's row k belongs to row rows[k] of p and a": {"rows[k]": "k"},
    "add g² to a first: the root is that of the new a": {
        "    a[i, j] +=": "    old = a[i, j]\n            a[i, j] +=",
        "a[i, j] + eps": "old + eps",
    },
    "eps belongs under the root": {"np.sqrt(a[i, j] + eps)": "(np.sqrt(a[i, j]) + eps)"},
    "p moves against the gradient: -=, not +=": {"p[i, j] -=": "p[i, j] +="},
    "the root is missing": {"np.sqrt": ""},
}

EXERCISES = [
    Exercise(
        number="10.1",
        title="the operations of a step",
        right=ch10.step_flops,
        cases=lambda rng: [(32, 100, 2080), (80, 224, 2128)],
        mistakes={
            "a multiplication and an addition are two operations": {
                "3 * forward": "3 * forward / 2"
            },
            "that is the forward pass only; the backward pass has twice as many": {
                "3 * forward": "forward"
            },
            "in the backward pass each product becomes two: in all three times the forward pass": {
                "3 * forward": "2 * forward"
            },
            "U has three gates: it is (H, 3H)": {"H * 3 * H": "H * H"},
            "the scores' product is missing, h V^T: (B, H) times (H, N)": {" + 2 * B * H * N": ""},
        },
        hints=[
            "h U is (B, H) times (H, 3H); h V^T is (B, H) times (H, N).",
            "Forward 2 B H 3H + 2 B H N, and twice that in the backward pass.",
        ],
    ),
    Exercise(
        number="10.2",
        title="the bytes that a step must move",
        right=ch10.step_bytes,
        cases=lambda rng: [(32, 100, 2080), (80, 224, 2128)],
        mistakes={
            "that is half of it: weights and Adagrad's sums both count, and both are read and "
            "written": {"2 * 2": "2"},
            "those are float32 numbers; each has 4 bytes": {" * 2 * 2": ""},
            "that is the number of weights; each has 4 bytes and a sum of Adagrad, and both are "
            "read and written": {"4 * numbers * 2 * 2": "numbers"},
            "the rows of W_x are 3H wide, one H for each gate": {"B * 3 * H": "B * H"},
            "b_y is missing, a number for each of the N rows": {" + N + ": " + "},
            "the rows of W_x are missing: B rows, each 3H wide": {" + B * 3 * H": ""},
            "a float32 has 4 bytes, not 8": {"4 * numbers": "8 * numbers"},
            "the biases are missing, b_y (N) and b (3H)": {" + N + ": " + ", " + 3 * H\n": "\n"},
        },
        hints=[
            "Count the weights first: N H + N + 3 B H + 3 H² + 3 H.",
            "Each weight has an Adagrad sum: times 2. Both are read and written: times 2. Each "
            "has 4 bytes: times 4. So 16 bytes for each weight.",
        ],
    ),
    Exercise(
        number="10.3",
        title="the roofline",
        right=ch10.roof,
        cases=lambda rng: [(np.geomspace(0.1, 100, 20), 5e10, 1e10), (2.0, 7e10, 1e10)],
        mistakes={
            "the lower of the two limits holds, not the higher": {"minimum": "maximum"},
            "multiply: flops per byte times bytes per second are flops per second": {
                "q * bandwidth": "bandwidth / q"
            },
            "the processor's limit is missing: no program does more than peak": {
                "np.minimum(peak, q * bandwidth)": "q * bandwidth"
            },
        },
        hints=[
            "Memory alone would allow q * bandwidth operations per second.",
            "np.minimum takes the lower of two, entry by entry; Python's min takes no arrays.",
        ],
    ),
    Exercise(
        number="10.4",
        title="cross-entropy with counts",
        right=_counted,
        cases=lambda rng: (
            [
                (
                    scale * rng.normal(size=4),
                    scale * rng.normal(size=(4, 6)),
                    np.array([1, 3, 1, 2, 7, 1]),
                )
                for scale in (1, 3000)
            ]
            # The target is far ahead of all, so that a top of the negatives alone overflows.
            + [(np.array([2000.0, -2000.0]), rng.normal(size=(2, 3)), np.array([2, 1, 3]))]
        ),
        solution=ch10.counted_cross_entropy,
        mistakes={
            "the counts are missing: e^r_j counts m_j times": {"m * np.exp": "np.exp"},
            "the counts multiply e^r, not r": {"    top = ": "    r, m = r * m, 1\n    top = "},
            "e^t of the target is missing in the sum": {
                "np.maximum(t, r.max(axis=1))": "r.max(axis=1)",
                "np.exp(t - top) + ": "",
            },
            "e^r of a large score overflows: subtract the lane's largest score first": {
                "np.maximum(t, r.max(axis=1))": "np.zeros(len(t))"
            },
            "with the largest score of all lanes, e^... is 0 in other lanes: each has its own": {
                "np.maximum(t, r.max(axis=1))": "np.full(len(t), max(t.max(), r.max()))"
            },
            "the target's score may be the largest: the maximum is of t and r": {
                "np.maximum(t, r.max(axis=1))": "r.max(axis=1)"
            },
            "add the largest score, which you subtracted, again after the log": {
                "top + np.log": "np.log"
            },
        },
        hints=[
            "top = np.maximum(t, r.max(axis=1)); e^(r - top) never overflows.",
            "log(e^t + Σ m e^r) = top + log(e^(t - top) + Σ m e^(r - top)).",
        ],
    ),
    Exercise(
        number="10.5",
        title="Adagrad on rows in one pass",
        right=_adagrad,
        cases=lambda rng: [
            (rng.normal(size=(9, 3)), rng.random((9, 3)), np.array([7, 0, 4]), g, 0.1, 1e-6)
            for g in (rng.normal(size=(3, 3)), 1e-3 * rng.normal(size=(3, 3)))
        ],
        mistakes={
            said: in_place(edited(ch10.adagrad_rows, edits), 2)
            for said, edits in ADAGRAD_MISTAKES.items()
        },
        hints=[
            "i = rows[k] is the row of p and a; k is the row of g.",
            "First a[i, j] += g[k, j] * g[k, j], then p[i, j] -= ...",
        ],
        parts=("p", "a"),
        run=_run_in_place,
        tolerance=1e-9,
        given=ch10.adagrad_rows,
    ),
    Exercise(
        number="10.6",
        title="e^x: make x small",
        right=ch10.reduce,
        cases=lambda rng: [(10 * rng.normal(size=40),)],
        mistakes={
            "n is the nearest whole number, not the next one below: add 0.5 before np.floor": {
                " + 0.5": ""
            },
            "you round towards 0; the nearest whole number gives the smallest |r|": {
                "np.floor(x / np.log(2) + 0.5)": "np.trunc(x / np.log(2))"
            },
            "use the natural logarithm: np.log(2) is 0.693": {
                "log(2) + 0.5": "log2(2) + 0.5",
                "n * np.log(2)": "n * np.log2(2)",
            },
            "r is x minus n log 2, not x / log 2 minus n": {
                "x - n * np.log(2)": "x / np.log(2) - n"
            },
        },
        hints=[
            "n is x / log 2, rounded to the nearest whole number.",
            "np.floor(y + 0.5) rounds y; np.round does as well.",
        ],
        parts=("n", "r"),
    ),
]
