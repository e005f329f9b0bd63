"""Exercises of notebook 11, CUDA by puzzles: each answer is the text of a kernel."""

from dataclasses import replace
from functools import partial

import numpy as np

from checks import Exercise
from checks.common import softmax
from checks.cuda import Launch, nothing
from gru4rec_np.backends.cuda.device import n_blocks
from gru4rec_np.ops.activations import sigmoid
from gru4rec_np.ops.cells import gru_reset_after
from gru4rec_np.ops.losses import bpr, bpr_backward
from solutions import ch06

NAN = np.float32(np.nan)
THREADS = 128  # of a block
SIDE = 16  # of a tile


def _numbers(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def _is_written(answer, written):
    """An answer with NaN wherever nothing was written."""
    return np.where(written, answer, NAN)


# --- map ------------------------------------------------------------------------------------------


def _sgd(p, g, rate):
    return p - rate * g


def _launch_sgd(p, g, rate):
    n, out = len(p), nothing(len(p))
    arguments = (p, g, np.float32(rate), np.int32(n), out)
    return (n_blocks(n, THREADS),), (THREADS,), arguments, (out,)


# --- gather ---------------------------------------------------------------------------------------


def _launch_gather(E, x):
    (n,), (_, H) = x.shape, E.shape
    out = nothing(n, H)
    return (n,), (32,), (E, x, np.int32(H), out), (out,)


def _gather_cases(rng):
    return [
        (_numbers(rng, I, H), rng.integers(0, I, n).astype(np.int32))
        for I, H, n in ((300, 96, 50), (40, 20, 7))  # noqa: E741
    ]


# --- sum ------------------------------------------------------------------------------------------


def _launch_row_sums(x):
    n, N = x.shape
    out = nothing(n)
    return (n,), (THREADS,), (x, np.int32(N), out), (out,)


def _of_places(x, chosen):
    """The sum over the numbers of those threads only for which `chosen` holds."""
    return np.where(chosen(np.arange(x.shape[1]) % THREADS), x, 0).sum(axis=1)


# --- softmax --------------------------------------------------------------------------------------


def _for_each_thread(y, reduce):
    """A reduction by each thread of the numbers that are its own, (n, N)."""
    out = np.empty_like(y)
    for t in range(min(THREADS, y.shape[1])):
        out[:, t::THREADS] = reduce(y[:, t::THREADS], axis=1, keepdims=True)
    return out


def _launch_softmax(y):
    n, N = y.shape
    out = nothing(n, N)
    return (n,), (THREADS,), (y, np.int32(N), out), (out,)


def _softmax_cases(rng):
    low = np.array([[0], [-1000], [0]], np.float32)  # a row whose scores are all far below 0
    return [(_numbers(rng, 6, 320) * 2,), (_numbers(rng, 3, 50) * 100 + low,)]


# --- product --------------------------------------------------------------------------------------


def _rows_of_A_as_long_as_those_of_B(A, B):
    at = np.arange(A.shape[0])[:, None] * B.shape[1] + np.arange(A.shape[1])
    return np.append(A.ravel(), np.zeros(at.size, A.dtype))[at] @ B


def _product_of(A, B, begin, end):
    """The product with only a part of A's columns and of B's rows."""
    return A[:, begin:end] @ B[begin:end]


def _stale(A, B):
    k0 = A.shape[1] // SIDE * SIDE  # of the last tile, which is not full
    return A @ B + _product_of(A, B, k0 - SIDE + A.shape[1] % SIDE, k0)


def _tiles_turned(A, B, of):
    """Each tile of A or B or both read as if it were transposed."""
    (M, K), N = A.shape, B.shape[1]

    def up(n):
        return n_blocks(n, SIDE) * SIDE

    A = np.pad(A, ((0, up(M) - M), (0, up(K) - K)))
    B = np.pad(B, ((0, up(K) - K), (0, up(N) - N)))
    for turned in [matrix for name, matrix in (("A", A), ("B", B)) if name in of]:
        for i in range(0, turned.shape[0], SIDE):
            for j in range(0, turned.shape[1], SIDE):
                tile = turned[i : i + SIDE, j : j + SIDE]
                tile[:] = tile.T.copy()
    return (A @ B)[:M, :N]


def _launch_product(A, B):
    (M, K), N = A.shape, B.shape[1]
    C = nothing(M, N)
    grid = (n_blocks(N, SIDE), n_blocks(M, SIDE))
    return grid, (SIDE, SIDE), (A, B, np.int32(M), np.int32(K), np.int32(N), C), (C,)


def _product_cases(rng):
    return [(_numbers(rng, M, K), _numbers(rng, K, N)) for M, K, N in ((48, 72, 64), (9, 21, 18))]


# --- scatter-add ----------------------------------------------------------------------------------

ITEMS = 40


def _scatter(x, d):
    G = np.zeros((ITEMS, d.shape[1]), d.dtype)
    for item in x:
        same = np.flatnonzero(x == item)
        G[item] = d[same].sum(axis=0)
    return G


def _two_blocks_of_scatter(arguments, one, other):
    x, _, _, H, _ = arguments
    if x[one] == x[other]:
        return (
            f"x[{other}] and x[{one}] are the same item, so both blocks write to the same row of "
            "G: only the block of the first row with an item may, and it adds up all of them."
        )
    return f"A row of G has the numbers 0 to {H - 1}: one of the two goes past the end of its own."


def _launch_scatter(x, d):
    n, H = d.shape
    G = np.zeros((ITEMS, H), np.float32)
    return (n,), (32,), (x, d, np.int32(n), np.int32(H), G), (G,)


def _scatter_cases(rng):
    runs = np.array([3, 3, 3, 9, 3, 0, 9, 9, 1, 3, 17, 9, 0], np.int32)
    drawn = (ITEMS * rng.random(32) ** 3).astype(np.int32)
    return [(drawn, _numbers(rng, 32, 96)), (runs, _numbers(rng, len(runs), 20))]


# --- the gates ------------------------------------------------------------------------------------


def _gates(xW, hU, h):
    H = h.shape[1]
    nil = np.zeros((H, 3 * H), h.dtype)  # the product is already in hU
    return gru_reset_after(xW, h, nil, nil[0], hU)[0]


def _gates_in_numpy(xW, hU, h):
    """The same once more, to make mistakes in."""
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(xW, 3, axis=1), np.split(hU, 3, axis=1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    return (1 - z) * h + z * n


def _launch_gates(xW, hU, h):
    B, H = h.shape
    h_new = nothing(B, H)
    arguments = (xW, hU, h, np.int32(B), np.int32(H), h_new)
    return (n_blocks(B * H, THREADS),), (THREADS,), arguments, (h_new,)


def _gates_cases(rng):
    return [
        (_numbers(rng, B, 3 * H), _numbers(rng, B, 3 * H), _numbers(rng, B, H))
        for B, H in ((12, 96), (5, 7))
    ]


# --- the loss -------------------------------------------------------------------------------------


def _bpr(r):
    losses, cache = bpr(r)
    return losses, bpr_backward(cache)


def _launch_bpr(r):
    B, N = r.shape
    losses, dr = nothing(B), nothing(B, N)
    return (B,), (THREADS,), (r, np.int32(N), dr, losses), (losses, dr)


def _bpr_cases(rng):
    return [(_numbers(rng, 16, 320) * 2,), (_numbers(rng, 5, 40) * 60,)]


EXERCISES = [
    Exercise(
        number="11.1",
        title="a step of gradient descent, one thread for each weight",
        right=_sgd,
        cases=lambda rng: [
            (_numbers(rng, n), _numbers(rng, n), np.float32(0.3)) for n in (10_000, 100)
        ],
        mistakes={
            "it goes up the slope: p - rate * g, not p + rate * g": lambda p, g, rate: p + rate * g,
            "the rate is missing": lambda p, g, rate: p - g,
            "the last weight is never written: i < n, not i < n - 1": lambda p, g, rate: (
                _is_written(_sgd(p, g, rate), np.arange(len(p)) < len(p) - 1)
            ),
            "weight 0 is never written: threads count from 0": lambda p, g, rate: _is_written(
                _sgd(p, g, rate), np.arange(len(p)) > 0
            ),
            "nothing is written to out": lambda p, g, rate: np.full_like(p, np.nan),
        },
        hints=[
            "Which weight is this thread's? Count the threads of the blocks before this one, then "
            "those before it in its own.",
            "int i = blockIdx.x * blockDim.x + threadIdx.x; and only if (i < n).",
            "if (i < n) out[i] = p[i] - rate * g[i];",
        ],
        run=Launch("sgd", _launch_sgd, goal=1),
        tolerance=1e-5,
    ),
    Exercise(
        number="11.2",
        title="rows of a table, one block for each row",
        right=lambda E, x: E[x],
        cases=_gather_cases,
        mistakes={
            "block b copies row b of the table; it must be row x[b]": lambda E, x: E[: len(x)],
            "the table lies row by row, so row r begins at r * H and its numbers are side by "
            "side": lambda E, x: E.ravel()[(x[:, None] + np.arange(E.shape[1]) * len(E)) % E.size],
            "only the first 32 numbers of a row are copied, one for each thread; H may be more: "
            "continue with k + blockDim.x": lambda E, x: _is_written(
                E[x], np.arange(E.shape[1]) < 32
            ),
            "the first number of each row is never copied": lambda E, x: _is_written(
                E[x], np.arange(E.shape[1]) > 0
            ),
        },
        hints=[
            "The block has 32 threads for H numbers: each takes every 32nd.",
            "for (int k = threadIdx.x; k < H; k += blockDim.x) ... ; number k of row r stands at "
            "r * H + k.",
            "out[blockIdx.x * H + k] = E[x[blockIdx.x] * H + k];",
            "If it is right, but its score is above 1.04: which read is the same in every turn of "
            "the loop? Put it before the loop.",
        ],
        run=Launch(
            "gather",
            _launch_gather,
            goal=1.04,
            least=lambda E, x: 4 * (len(x) + 2 * len(x) * E.shape[1]),  # not all of E
        ),
    ),
    Exercise(
        number="11.3",
        title="the sum of a row",
        right=lambda x: x.sum(axis=1),
        cases=lambda rng: [(_numbers(rng, 8, 1000),), (_numbers(rng, 3, 50),)],
        mistakes={
            "only thread 0's own numbers are in the sum; the other 127 places of `part` must be "
            "added, too": lambda x: _of_places(x, lambda t: t == 0),
            "the last halving is missing, that of places 0 and 1: continue while "
            "half > 0": lambda x: _of_places(x, lambda t: t % 2 == 0),
            "places 64 to 127 are left out: the first half is 64, half of the threads": lambda x: (
                _of_places(x, lambda t: t < 64)
            ),
            "nothing is written to out: thread 0 has the sum in part[0]": lambda x: np.full(
                len(x), np.nan
            ),
        },
        hints=[
            "Fold the array: the lower half of the places adds what stands in the upper half. Then "
            "the same with the lower half. How many times, for 128 places?",
            "After each folding, and before the first, all threads wait: __syncthreads(). It must "
            "stand outside of the if.",
            "for (int half = 64; half > 0; half /= 2) { if (t < half) part[t] += part[t + half]; "
            "__syncthreads(); }  One __syncthreads() before it, and out[row] by thread 0 after.",
        ],
        run=Launch("row_sums", _launch_row_sums, goal=1.01, on_chip=232),
        tolerance=1e-5,
    ),
    Exercise(
        number="11.4",
        title="the softmax of a row",
        right=lambda y: softmax(y),  # what is said of sizes calls them y's, as the kernel does
        cases=_softmax_cases,
        solution=softmax,
        mistakes={
            "for large scores e^y overflows, and ∞ / ∞ is NaN: subtract the row's maximum first": {
                "r.max(axis=axis, keepdims=True)": "0"
            },
            "the maximum starts at 0, so a row of negative scores is not shifted; where all of its "
            "e^y round to 0, 0 / 0 is NaN: start at -INFINITY": {
                "r.max(axis=axis, keepdims=True)": "r.max(axis=axis, keepdims=True, initial=0)"
            },
            "only the first 128 numbers of a row are done, one for each thread; N may be more: "
            "continue with k + blockDim.x": lambda y: _is_written(
                np.pad(softmax(y[:, :THREADS]), ((0, 0), (0, max(0, y.shape[1] - THREADS)))),
                np.arange(y.shape[1]) < THREADS,
            ),
            "the exponentials are not divided by their sum": {
                " / e.sum(axis=axis, keepdims=True)": ""
            },
            "in the denominator, the sum, the maximum is not subtracted": {
                "e.sum": "np.exp(r).sum"
            },
            "in the numerator the maximum is not subtracted": {"e / ": "np.exp(r) / "},
            "each thread subtracts the maximum of its own numbers; block_max gives that of the "
            "whole row": lambda y: (
                (e := np.exp(y - _for_each_thread(y, np.max))) / e.sum(axis=1, keepdims=True)
            ),
            "each thread divides by the sum of its own numbers; block_sum gives that of the whole "
            "row": lambda y: (
                (e := np.exp(y - y.max(axis=1, keepdims=True))) / _for_each_thread(e, np.sum)
            ),
        },
        hints=[
            "Three loops over the row, each like that of the gather: the maximum, the sum, the "
            "result. Between them, block_max and block_sum.",
            "float top = -INFINITY; a loop with top = fmaxf(top, y[k]); then top = block_max(top), "
            "outside of the loop: all threads must come to it, even those that had no number.",
            "float sum = 0; a loop with sum += expf(y[k] - top); sum = block_sum(sum); a loop with "
            "out[k] = expf(y[k] - top) / sum;",
        ],
        run=Launch("softmax", _launch_softmax, goal=2),
        tolerance=1e-5,
    ),
    Exercise(
        number="11.5",
        title="a matrix product",
        right=lambda A, B: A @ B,
        cases=_product_cases,
        mistakes={
            "the last tile is left out where K is no multiple of 16: continue while "
            "k0 < K": lambda A, B: _product_of(A, B, 0, len(B) // SIDE * SIDE),
            "only the last tile is in the result: sum is set to 0 again for each "
            "tile": lambda A, B: _product_of(A, B, (len(B) - 1) // SIDE * SIDE, len(B)),
            "only the first tile is in the result: the next ones begin at k0 = 16, 32, ... < K": (
                lambda A, B: _product_of(A, B, 0, SIDE)
            ),
            "a row of A has K numbers, so row r begins at r * K, not at r * N": (
                _rows_of_A_as_long_as_those_of_B
            ),
            "places of a tile outside of the matrix keep the numbers of the tile before: write 0 "
            "there": _stale,
            "B's tile is used transposed: multiply A_tile[y][j] by B_tile[j][x]": partial(
                _tiles_turned, of="B"
            ),
            "A's tile is used transposed: multiply A_tile[y][j] by B_tile[j][x]": partial(
                _tiles_turned, of="A"
            ),
            "both tiles are used transposed: thread (y, x) goes along row y of A's tile and down "
            "column x of B's, A_tile[y][j] and B_tile[j][x]": partial(_tiles_turned, of="AB"),
        },
        hints=[
            "For each k0 = 0, 16, 32, ... < K: each thread loads one number of A's tile and one of "
            "B's; all wait; each adds up 16 products; all wait.",
            "Thread (y, x) loads A[row][k0 + x] and B[k0 + y][column]: side by side in x. Outside "
            "of the matrix it loads 0.",
            "A_tile[y][x] = row < M && k0 + x < K ? A[row * K + k0 + x] : 0;  likewise B_tile[y][x]"
            " with k0 + y < K && column < N.",
            "sum += A_tile[y][j] * B_tile[j][x], for j from 0 to 15. A __syncthreads() before this "
            "loop and one after it.",
        ],
        run=Launch(
            "product",
            _launch_product,
            goal=2.76,
            far="without tiles, each number of A is read again for each column of C",
        ),
        tolerance=1e-5,
    ),
    Exercise(
        number="11.6",
        title="gradients of duplicate rows added up, the same bits every time",
        right=_scatter,
        cases=_scatter_cases,
        mistakes={
            "only the first row of each item counts; those that follow with the same item must "
            "be added": {"d[same].sum(axis=0)": "d[same[0]]"},
            "the first row of each item is counted twice": {
                "d[same].sum(axis=0)": "d[same].sum(axis=0) + d[same[0]]"
            },
            "the first row of each item is left out of its sum": {"d[same]": "d[same[1:]]"},
            "the sum ends at the first row with another item; the same item may come again later": {
                "d[same]": "d[same[same - same[0] == np.arange(len(same))]]"
            },
            "that is the mean of an item's rows; their sum is asked for": {"sum": "mean"},
            "G is still 0: every block returns, or nothing is written. x[b] equals itself, so look "
            "only at the rows before b: other < b": lambda x, d: np.zeros_like(_scatter(x, d)),
        },
        hints=[
            "The block of the first row with an item adds up all its rows. What do the others do?",
            "A row is not the first if an `other` before it has the same item: then the block "
            "returns at once.",
            "for (int other = 0; other < b; other++) if (x[other] == x[b]) return;",
            "Then for each k: sum d[other * H + k] over the others from b to n - 1 with "
            "x[other] == x[b], and G[x[b] * H + k] = sum.",
        ],
        run=Launch(
            "scatter_add",
            _launch_scatter,
            goal=3.35,
            least=lambda x, d: x.nbytes + d.nbytes + len(np.unique(x)) * d.shape[1] * 4,
            repeatable=True,
            between=_two_blocks_of_scatter,
            blocks="Each item has a block of its own, that of its first row",
        ),
        tolerance=1e-5,
    ),
    Exercise(
        number="11.7",
        title="the gates of a GRU, all in one kernel",
        right=_gates,
        cases=_gates_cases,
        solution=_gates_in_numpy,
        mistakes={
            "z and 1 - z have changed places: z multiplies the new n": {
                "(1 - z) * h + z * n": "z * h + (1 - z) * n"
            },
            "r and z have changed places: a row of xW and hU is [r | z | n]": {"r, z =": "z, r ="},
            "the reset gate must not scale xW_n: n = tanh(xW_n + r * hU_n)": {
                "x_n + r * h_n": "r * (x_n + h_n)"
            },
            "a row of xW and hU has 3H numbers: row b begins at 3 * H * b": {
                "    (x_r": "    B, H = h.shape\n"
                "    at = np.arange(B)[:, None] * H + np.arange(3 * H)\n"
                "    xW, hU = xW.ravel()[at], hU.ravel()[at]\n"
                "    (x_r"
            },
            "the reset gate is missing: n = tanh(xW_n + r * hU_n)": {"r * h_n": "h_n"},
            "r scales hU_n, not h: here the reset gate comes after the product h U": {
                "r * h_n": "r * h"
            },
            "only the first B numbers are written; h_new has B * H of them": lambda xW, hU, h: (
                _is_written(_gates(xW, hU, h), np.arange(h.size).reshape(h.shape) < len(h))
            ),
            "xW and hU are not three matrices one after another; each row is [r | z | n], so z is "
            "H places after r, and n is 2H places after r": {
                "    (x_r": "    xW, hU = (np.hstack(a.reshape(3, *h.shape)) for a in (xW, hU))\n"
                "    (x_r"
            },
        },
        hints=[
            "Thread i has row b = i / H, rounded down as C does with whole numbers, and unit "
            "k = i % H. Where in xW are its three numbers?",
            "At 3 * H * b + k, and H and 2 * H further on.",
            "float r = sigmoid(xW[at] + hU[at]); likewise z, with at + H; then n, with tanhf and "
            "at + 2 * H.",
        ],
        run=Launch("gates", _launch_gates, goal=1),
        tolerance=1e-5,
    ),
    Exercise(
        number="11.8",
        title="a sampled loss and its gradient, one block for each row",
        right=_bpr,
        cases=_bpr_cases,
        parts=("losses", "dr"),
        solution=ch06.bpr,  # in NumPy
        mistakes={
            "the target is counted among its own negatives, with r_b - r_b = 0": {
                "    np.fill_diagonal(loss, 0)\n": ""
            },
            "it divides by all N columns; N - 1 of them are negatives": {" - 1": ""},
            "losses and gradients are sums, not yet means: divide by N - 1": lambda r: tuple(
                (r.shape[1] - 1) * a for a in _bpr(r)
            ),
            "the target's own gradient is missing: minus the sum of the others'": {
                "    np.fill_diagonal(dr, -dr.sum(axis=1))\n": ""
            },
            "only thread 0's own columns are in the sum; block_sum gives that of the whole row": {
                "loss.sum": "loss[:, ::128].sum",
                "-dr.sum": "-dr[:, ::128].sum",
            },
            "the target's gradient has the wrong sign: it is minus the others' sum": {
                "-dr.sum": "dr.sum"
            },
            "all is 0: 1 / (N - 1) divides whole numbers, and C rounds that down. Write "
            "1.0f / (N - 1)": lambda r: tuple(0 * a for a in _bpr(r)),
            "the target is taken to be column 0; row b's is column b": {
                "np.diagonal(r)[:, None]": "r[:, :1]"
            },
            "the difference has the wrong sign: the loss is large where a negative is above the "
            "target, so softplus(r_j - r_b)": {
                "r - np.diagonal(r)[:, None]": "np.diagonal(r)[:, None] - r",
                "sigmoid(d)": "-sigmoid(d)",
            },
        },
        hints=[
            "Each thread goes over its columns j with two sums: of the losses and of the gradients "
            "that it writes. It skips j == b.",
            "For a negative j, with d = r[j] - r[b]: loss += softplus(d) / (N - 1), and "
            "dr[j] = sigmoid(d) / (N - 1).",
            "After the loop block_sum both. Thread 0 writes losses[b], and dr[b] = -(the sum "
            "of the gradients).",
        ],
        run=Launch("bpr", _launch_bpr, goal=1.12),
        tolerance=1e-5,
    ),
]
EXERCISES = [replace(exercise, goal=exercise.run.falls_short) for exercise in EXERCISES]
