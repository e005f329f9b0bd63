"""Optimisers, dense and row-sparse, and the sum of duplicate rows that must come before them.

One function serves both uses: `rows` says which rows of the weight the gradient g belongs to.
Weights and state change in place. Imports NumPy, and SciPy's sparse product.
"""

from types import EllipsisType

import numpy as np
from scipy.sparse import csr_array

EPSILON = 1e-6

OPTIMISERS = ("adagrad", "sgd")


def sum_rows(rows: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the gradients of the same row.

    An item that occurs twice in a step, as input, target or sample, has one gradient, the sum.
    Updating it once for each occurrence would be a different, order-dependent rule.

    Args:
        rows: (n,) row numbers, any order, with duplicates.
        g: (n, ...) a gradient for each.

    Returns:
        the distinct rows (m,), ascending, and their sums (m, ...). Duplicates are added in the
        order in which they came, so the same input gives the same bits.
    """
    if len(rows) == 0:
        return rows, g
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    ends = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1], [True]]))
    # As a product with a sparse matrix of ones, each row of it picking the duplicates of one item.
    picks = csr_array((np.ones(len(rows), g.dtype), order, ends), (len(ends) - 1, len(rows)))
    sums = picks @ g.reshape(len(g), -1)
    return rows[ends[:-1]], sums.reshape(len(sums), *g.shape[1:])


def init_state(p: np.ndarray, adapt: str, momentum: float) -> dict[str, np.ndarray]:
    """The optimiser's memory for the weight p: zeros, each of p's shape and dtype.

    Args:
        adapt: one of `OPTIMISERS`.

    Returns:
        {"a": sum of squared gradients} for adagrad, and "v", the velocity, with momentum.
    """
    names = (["a"] if adapt == "adagrad" else []) + (["v"] if momentum else [])
    return {name: np.zeros_like(p) for name in names}


def update(
    p: np.ndarray,
    g: np.ndarray,
    state: dict[str, np.ndarray],
    adapt: str,
    learning_rate: float,
    momentum: float = 0.0,
    rows: np.ndarray | EllipsisType = ...,
) -> None:
    """One step of the optimiser on the whole weight, or on some of its rows, in place.

    adagrad: a += g², step = learning_rate g / sqrt(a + 1e-6)    (Duchi et al. 2011)
    sgd:     step = learning_rate g
    then p -= step, or with momentum v = momentum v - step, p += v.

    A row that is not listed keeps its weight, its a and its v: with momentum it does not coast.

    Args:
        p: the weight. g: its gradient, p's shape, or (m, ...) for m listed rows.
        state: from `init_state`.
        adapt: one of `OPTIMISERS`.
        rows: (m,) distinct row numbers, or `...` for all.

    Raises:
        ValueError: `adapt` is not in `OPTIMISERS`.
    """
    match adapt:
        case "adagrad":
            a = state["a"][rows] + g * g
            state["a"][rows] = a
            step = learning_rate * g / np.sqrt(a + EPSILON)
        case "sgd":
            step = learning_rate * g
        case _:
            raise ValueError(f"adapt must be one of {', '.join(OPTIMISERS)}, not {adapt!r}")
    if momentum:
        v = momentum * state["v"][rows] - step
        state["v"][rows] = v
        p[rows] += v
    else:
        p[rows] -= step


def clip(gradients: list[np.ndarray], grad_cap: float) -> None:
    """Scale all gradients together so that their joint norm is at most grad_cap, in place.

    Pascanu et al. 2013 (arXiv 1211.5063), algorithm 1.

    Args:
        gradients: arrays of any shapes; duplicate rows must have been summed.
        grad_cap: the largest norm allowed, > 0.
    """
    norm = float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in gradients)))
    if norm > grad_cap:
        for g in gradients:
            g *= grad_cap / norm
