"""Optimisers, dense and row-sparse, and the sum of duplicate rows that a sparse update needs.

One function does both: `rows` says which rows of the weight the gradient g belongs to.
Weights and memory change in place.
"""

from types import EllipsisType

import numpy as np
from scipy.sparse import csr_array

EPSILON = 1e-6

# The published decay rates of the running means, and Adam's epsilon.
RMSPROP_DECAY, ADADELTA_DECAY = 0.9, 0.95
ADAM_DECAY_M, ADAM_DECAY_A, ADAM_EPSILON = 0.9, 0.999, 1e-8

# Optimiser -> names of the arrays that it keeps for each weight, see `init_memory`.
MEMORY = {"adagrad": "a", "sgd": "", "rmsprop": "a", "adam": "mat", "adadelta": "ad"}
OPTIMISERS = tuple(MEMORY)


def sum_rows(rows: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the gradients of the same row.

    An item can occur several times in a step, as input, target or sample. Its gradient is the sum.
    One update for each occurrence would give other weights, which depend on the order.

    Args:
        rows: (n,) row numbers, any order, with duplicates.
        g: (n, ...) the gradient of each.

    Returns:
        the distinct rows (m,), ascending, and their sums (m, ...). Duplicates are added in the
        order of `rows`, so the result is deterministic.
    """
    if len(rows) == 0:
        return rows, g
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    ends = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1], [True]]))
    # A sparse product adds in a fixed order. Each row of `picks` has a 1 for each duplicate.
    picks = csr_array((np.ones(len(rows), g.dtype), order, ends), (len(ends) - 1, len(rows)))
    sums = picks @ g.reshape(len(g), -1)
    return rows[ends[:-1]], sums.reshape(len(sums), *g.shape[1:])


def init_memory(p: np.ndarray, adapt: str, momentum: float) -> dict[str, np.ndarray]:
    """The optimiser's memory for the weight p: arrays of zeros, of p's dtype and, except t, shape.

    Args:
        p: the weight. adapt: one of `OPTIMISERS`. momentum: as in `update`.

    Returns:
        those of these that the optimiser needs: "a", sum or mean of the squared gradients; "m",
        mean of the gradients; "d", mean of the squared steps; "t", the number of updates of each
        row, (rows, 1, ...); "v", the velocity, if momentum is not 0.
    """
    names = MEMORY[adapt] + ("v" if momentum else "")
    return {name: np.zeros_like(p[:, :1] if name == "t" and p.ndim > 1 else p) for name in names}


def update(
    p: np.ndarray,
    g: np.ndarray,
    memory: dict[str, np.ndarray],
    adapt: str,
    learning_rate: float,
    momentum: float = 0.0,
    rows: np.ndarray | EllipsisType = ...,
) -> None:
    """One step of the optimiser on the whole weight, or on some of its rows, in place.

    adagrad:  a += g²; step = g / sqrt(a + 1e-6)                           (Duchi et al. 2011)
    sgd:      step = g
    rmsprop:  a = 0.9 a + 0.1 g²; step = g / sqrt(a + 1e-6)                (Tieleman & Hinton 2012)
    adam:     t += 1; m = 0.9 m + 0.1 g; a = 0.999 a + 0.001 g²            (Kingma & Ba 2015,
              step = m/(1 - 0.9^t) / (sqrt(a/(1 - 0.999^t)) + 1e-8)        algorithm 1)
    adadelta: a = 0.95 a + 0.05 g²; step = g sqrt((d + 1e-6) / (a + 1e-6))
              d = 0.95 d + 0.05 step²                                      (Zeiler 2012, alg. 1)
    then p -= learning_rate step, or with momentum v = momentum v - learning_rate step, p += v.

    A row that is not listed keeps its weight and its memory, momentum and means included. Adam's t
    counts the updates of each row. With a global step count, a row seen late would get almost no
    bias correction: its first step would be 0.1 / sqrt(0.001) = 3 times too large. Only where
    `adam_catch_up` is called first, t is that count, as if all rows had been updated.

    Args:
        p: the weight, changed in place. g: its gradient, p's shape, or (m, ...) for m listed rows.
        memory: from `init_memory`; changed in place.
        adapt: one of `OPTIMISERS`. learning_rate: > 0. momentum: in [0, 1), Polyak 1964.
        rows: (m,) distinct row numbers, or `...` for all.

    Raises:
        ValueError: `adapt` is not in `OPTIMISERS`.
    """
    match adapt:
        case "adagrad":
            a = memory["a"][rows] + g * g
            memory["a"][rows] = a
            step = learning_rate * g / np.sqrt(a + EPSILON)
        case "sgd":
            step = learning_rate * g
        case "rmsprop":
            a = _mean(memory["a"], rows, g * g, RMSPROP_DECAY)
            step = learning_rate * g / np.sqrt(a + EPSILON)
        case "adam":
            memory["t"][rows] += 1
            t = memory["t"][rows]
            m = _mean(memory["m"], rows, g, ADAM_DECAY_M) / (1 - ADAM_DECAY_M**t)
            a = _mean(memory["a"], rows, g * g, ADAM_DECAY_A) / (1 - ADAM_DECAY_A**t)
            step = learning_rate * m / (np.sqrt(a) + ADAM_EPSILON)
        case "adadelta":
            a = _mean(memory["a"], rows, g * g, ADADELTA_DECAY)
            step = g * np.sqrt((memory["d"][rows] + EPSILON) / (a + EPSILON))
            _mean(memory["d"], rows, step * step, ADADELTA_DECAY)
            step = learning_rate * step
        case _:
            raise ValueError(f"adapt must be one of {', '.join(OPTIMISERS)}, not {adapt!r}")
    if momentum:
        v = momentum * memory["v"][rows] - step
        memory["v"][rows] = v
        p[rows] += v
    else:
        p[rows] -= step


# --- Adam for rows that wait ----------------------------------------------------------------------

FORGOTTEN = 400  # steps after which 0.9^k leaves nothing of m


def adam_waits(moved: np.ndarray, step: int, learning_rate: float) -> None:
    """Add one step of Adam to `moved`, how far rows have gone that get no gradient since.

    Adam moves all rows in each step, for its m is not 0 where g is. A row that waited since step s
    would have been moved, by Kingma & Ba 2015, algorithm 1, with g = 0, in each later step u by

        learning_rate 0.9^(u-s) m / (1 - 0.9^u) / sqrt(0.999^(u-s) a / (1 - 0.999^u)).

    Up to the epsilon, that is m / sqrt(a) times a number that is the same for all rows which wait
    since s. moved[s] is the sum of these numbers. `adam_catch_up` needs nothing else.

    Args:
        moved: (steps + 1,) float64, at first 0; changed in place. step: from 1.
    """
    waits = np.arange(max(0, step - FORGOTTEN), step)
    decay = (ADAM_DECAY_M / np.sqrt(ADAM_DECAY_A)) ** (step - waits)
    corrected = np.sqrt(1 - ADAM_DECAY_A**step) / (1 - ADAM_DECAY_M**step)
    moved[waits] += learning_rate * corrected * decay


def adam_catch_up(
    p: np.ndarray, memory: dict[str, np.ndarray], rows: np.ndarray, step: int, moved: np.ndarray
) -> None:
    """Bring rows to where Adam's first `step` steps would have brought them, in place.

    Called for the rows of a step before it, `update` by "adam" then equals the update of the whole
    weight with a gradient of 0 elsewhere, at the cost of the rows. t is the step of a row's last
    update here.

    Args:
        p: (I, D) the weight. memory: from `init_memory`. rows: (m,) distinct row numbers.
        moved: see `adam_waits`.
    """
    t, m, a = (memory[name][rows] for name in "tma")
    waits = step - t
    p[rows] -= moved[t.astype(np.int64)].astype(p.dtype) * m / (np.sqrt(a) + ADAM_EPSILON)
    memory["m"][rows] = m * ADAM_DECAY_M**waits
    memory["a"][rows] = a * ADAM_DECAY_A**waits
    memory["t"][rows] = step


def _mean(
    mean: np.ndarray, rows: np.ndarray | EllipsisType, new: np.ndarray, decay: float
) -> np.ndarray:
    """The running means of these rows with `new` included; also written to `mean`."""
    new_mean = decay * mean[rows] + (1 - decay) * new
    mean[rows] = new_mean
    return new_mean


def clip(gradients: list[np.ndarray], grad_cap: float) -> None:
    """Scale all gradients by one factor so that their joint norm is at most grad_cap, in place.

    Pascanu et al. 2013 (arXiv 1211.5063), algorithm 1.

    Args:
        gradients: arrays of any shapes; without duplicate rows (see `sum_rows`).
        grad_cap: the largest norm allowed, > 0.
    """
    norm = float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in gradients)))
    if norm > grad_cap:
        for g in gradients:
            g *= grad_cap / norm
