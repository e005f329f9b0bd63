"""Exercises of notebook 10, fast on a CPU."""

from functools import partial

import numpy as np

from checks import Exercise, Wrong, has_hole
from gru4rec_np.ops.losses import loss_and_gradient
from gru4rec_np.ops.optim import update


def _flops(B, H, N):
    return 3 * (2 * B * H * 3 * H + 2 * B * H * N)


def _numbers(B, H, N):
    return N * (H + 1) + B * 3 * H + H * 3 * H + 3 * H


def _roof(q, peak, bandwidth):
    return np.minimum(peak, q * bandwidth)


def _counted(t, r, m):
    # The long way: a column for each draw, lane by lane, the target first.
    columns = np.column_stack([t, np.repeat(r, m, axis=1)])
    lanes = [loss_and_gradient(lane[None], "cross-entropy")[0][0] for lane in columns]
    return np.array(lanes)


@np.errstate(all="ignore")
def _log_sum(t, r, m, top=lambda t, r: np.maximum(t, r.max(axis=1))):
    top = top(t, r)
    total = np.exp(t - top) + (m * np.exp(r - np.reshape(top, (-1, 1)))).sum(axis=1)
    return top + np.log(total) - t


def _adagrad(p, a, rows, g, lr, eps):
    p, a = p.copy(), a.copy()
    update(p, g, {"a": a}, "adagrad", lr, rows=rows)
    return p, a


def _in_place(p, a, rows, g, lr, eps):
    for k in range(len(rows)):
        i = rows[k]
        for j in range(p.shape[1]):
            a[i, j] += g[k, j] * g[k, j]
            p[i, j] -= lr * g[k, j] / np.sqrt(a[i, j] + eps)


def _mistaken_adagrad(step, where=lambda rows: rows):
    def mistake(p, a, rows, g, lr, eps):
        p, a = p.copy(), a.copy()
        rows = where(rows)
        before, after = a[rows], a[rows] + g * g
        a[rows] = after
        p[rows] -= lr * step(g, before, after)
        return p, a

    return mistake


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


LOG_2 = np.log(2)


def _reduce(x):
    n = np.floor(x / LOG_2 + 0.5)
    return n, x - n * LOG_2


def _mistaken_reduce(whole, log=LOG_2):
    def mistake(x):
        n = whole(x / log)
        return n, x - n * log

    return mistake


EXERCISES = [
    Exercise(
        number="10.1",
        title="the operations of a step",
        right=_flops,
        cases=lambda rng: [(32, 100, 2080), (80, 224, 2128)],
        mistakes={
            "a multiplication and an addition are two operations": lambda B, H, N: (
                _flops(B, H, N) / 2
            ),
            "that is the forward pass only; the backward pass has twice as many": lambda B, H, N: (
                _flops(B, H, N) / 3
            ),
            "in the backward pass each product becomes two: in all three times the forward pass": (
                lambda B, H, N: _flops(B, H, N) * 2 / 3
            ),
            "U has three gates: it is (H, 3H)": lambda B, H, N: 6 * (B * H * H + B * H * N),
            "the scores' product is missing, h V^T: (B, H) times (H, N)": lambda B, H, N: (
                18 * B * H * H
            ),
        },
        hints=[
            "h U is (B, H) times (H, 3H); h V^T is (B, H) times (H, N).",
            "Forward 2 B H 3H + 2 B H N, and twice that in the backward pass.",
        ],
    ),
    Exercise(
        number="10.2",
        title="the bytes that a step must move",
        right=lambda B, H, N: 16 * _numbers(B, H, N),
        cases=lambda rng: [(32, 100, 2080), (80, 224, 2128)],
        mistakes={
            "that is half of it: weights and Adagrad's sums both count, and both are read and "
            "written": lambda B, H, N: 8 * _numbers(B, H, N),
            "those are float32 numbers; each has 4 bytes": lambda B, H, N: 4 * _numbers(B, H, N),
            "that is the number of weights; each has 4 bytes and a sum of Adagrad, and both are "
            "read and written": lambda B, H, N: _numbers(B, H, N),
            "the rows of W_x are 3H wide, one H for each gate": lambda B, H, N: (
                16 * (_numbers(B, H, N) - 2 * B * H)
            ),
            "b_y is missing, a number for each of the N rows": lambda B, H, N: (
                16 * (_numbers(B, H, N) - N)
            ),
            "the rows of W_x are missing: B rows, each 3H wide": lambda B, H, N: (
                16 * (_numbers(B, H, N) - 3 * B * H)
            ),
            "a float32 has 4 bytes, not 8": lambda B, H, N: 32 * _numbers(B, H, N),
            "the biases are missing, b_y (N) and b (3H)": lambda B, H, N: (
                16 * (_numbers(B, H, N) - N - 3 * H)
            ),
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
        right=_roof,
        cases=lambda rng: [(np.geomspace(0.1, 100, 20), 5e10, 1e10), (2.0, 7e10, 1e10)],
        mistakes={
            "the lower of the two limits holds, not the higher": lambda q, peak, bandwidth: (
                np.maximum(peak, q * bandwidth)
            ),
            "multiply: flops per byte times bytes per second are flops per second": (
                lambda q, peak, bandwidth: np.minimum(peak, bandwidth / q)
            ),
            "the processor's limit is missing: no program does more than peak": (
                lambda q, peak, bandwidth: q * bandwidth
            ),
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
        mistakes={
            "the counts are missing: e^r_j counts m_j times": lambda t, r, m: _log_sum(t, r, 1),
            "the counts multiply e^r, not r": lambda t, r, m: _log_sum(t, r * m, 1),
            "e^t of the target is missing in the sum": lambda t, r, m: (
                (top := r.max(axis=1)) + np.log((m * np.exp(r - top[:, None])).sum(axis=1)) - t
            ),
            "e^r of a large score overflows: subtract the lane's largest score first": (
                partial(_log_sum, top=lambda t, r: np.zeros(len(t)))
            ),
            "with the largest score of all lanes, e^... is 0 in other lanes: each has its own": (
                partial(_log_sum, top=lambda t, r: max(t.max(), r.max()))
            ),
            "the target's score may be the largest: the maximum is of t and r": (
                partial(_log_sum, top=lambda t, r: r.max(axis=1))
            ),
            "add the largest score, which you subtracted, again after the log": lambda t, r, m: (
                _log_sum(t, r, m) - np.maximum(t, r.max(axis=1))
            ),
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
            "the gradient's row k belongs to row rows[k] of p and a": _mistaken_adagrad(
                lambda g, before, after: g / np.sqrt(after + 1e-6),
                lambda rows: np.arange(len(rows)),
            ),
            "add g² to a first: the root is that of the new a": _mistaken_adagrad(
                lambda g, before, after: g / np.sqrt(before + 1e-6)
            ),
            "eps belongs under the root": _mistaken_adagrad(
                lambda g, before, after: g / (np.sqrt(after) + 1e-6)
            ),
            "p moves against the gradient: -=, not +=": _mistaken_adagrad(
                lambda g, before, after: -g / np.sqrt(after + 1e-6)
            ),
            "the root is missing": _mistaken_adagrad(lambda g, before, after: g / (after + 1e-6)),
        },
        hints=[
            "i = rows[k] is the row of p and a; k is the row of g.",
            "First a[i, j] += g[k, j] * g[k, j], then p[i, j] -= ...",
        ],
        parts=("p", "a"),
        run=_run_in_place,
        tolerance=1e-9,
        given=_in_place,
    ),
    Exercise(
        number="10.6",
        title="e^x: make x small",
        right=_reduce,
        cases=lambda rng: [(10 * rng.normal(size=40),)],
        mistakes={
            "n is the nearest whole number, not the next one below: add 0.5 before np.floor": (
                _mistaken_reduce(np.floor)
            ),
            "you round towards 0; the nearest whole number gives the smallest |r|": (
                _mistaken_reduce(np.trunc)
            ),
            "use the natural logarithm: np.log(2) is 0.693": _mistaken_reduce(
                lambda y: np.floor(y + 0.5), np.log2(2)
            ),
            "r is x minus n log 2, not x / log 2 minus n": lambda x: (
                _reduce(x)[0],
                x / LOG_2 - _reduce(x)[0],
            ),
        },
        hints=[
            "n is x / log 2, rounded to the nearest whole number.",
            "np.floor(y + 0.5) rounds y; np.round does as well.",
        ],
        parts=("n", "r"),
    ),
]
