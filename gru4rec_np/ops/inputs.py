"""The `weighted` input encoding: the session so far as a normalised sum of discounted vectors.

The other encodings are row look-ups and need no function.
"""

import math

import numpy as np

# Events with a smaller weight relative to the newest are left out. They hardly change a float32,
# and the cost of a step does not grow with the session's length.
SMALLEST_WEIGHT = 1e-6


def history_length(discount: float) -> int:
    """L, the number of newest events that count: discount^age >= `SMALLEST_WEIGHT`."""
    return 1 + math.floor(math.log(SMALLEST_WEIGHT) / math.log(discount))


def push(history: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The history with the items x in front and without the oldest column.

    Args:
        history: (B, L) item indices, newest first, -1 for none.
        x: (B,) the lanes' current items.

    Returns:
        a new (B, L) array.
    """
    return np.concatenate([x[:, None], history[:, :-1]], axis=1)


def weighted(table: np.ndarray, history: np.ndarray, discount: float) -> tuple[np.ndarray, tuple]:
    """x W for x = Σ_k w_k (1-of-N vector of the event k steps ago), w_k ∝ discount^k, Σ w_k = 1.

    Hidasi et al. 2016 (arXiv 1511.06939), §3.1, do not specify the discount and the norm. Division
    by the sum keeps x on the scale of a 1-of-N vector for any session length.

    Args:
        table: (I, G) the weights W that a 1-of-N input would look up.
        history: (B, L) item indices, newest first, -1 for none. Column 0 must be an item.
        discount: in (0, 1).

    Returns:
        (B, G), and the cache that `weighted_backward` takes.
    """
    w = np.where(history >= 0, discount ** np.arange(history.shape[1]), 0)  # (B, L)
    w = (w / w.sum(axis=1, keepdims=True)).astype(table.dtype)
    # -1 looks up the last row; its weight is 0.
    return np.einsum("bl,blg->bg", w, table[history]), (history, w)


def weighted_backward(dxW: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of `weighted` with respect to the table's rows.

    Args:
        dxW: (B, G); cache from `weighted`.

    Returns:
        items (n,) and their gradients (n, G), one for each occurrence in the history.
    """
    history, w = cache
    b, k = np.nonzero(history >= 0)
    return history[b, k], w[b, k, None] * dxW[b]
