"""The `weighted` input encoding: the session so far as one discounted, normalised vector.

The other encodings are plain row look-ups and need no function. Imports NumPy only.
"""

import math

import numpy as np

# An event whose weight has fallen below this part of the newest one's is left out: float32, with
# its 24 bits, would hardly see it, and a session's length no longer bounds the cost of a step.
SMALLEST_WEIGHT = 1e-6


def history_length(discount: float) -> int:
    """How many of the newest events count: those with discount^age >= `SMALLEST_WEIGHT`."""
    return 1 + math.floor(math.log(SMALLEST_WEIGHT) / math.log(discount))


def push(history: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The history with the items x put in front, the oldest fallen off the end.

    Args:
        history: (B, L) item indices, newest first, -1 where the session is younger.
        x: (B,) the lanes' current items.

    Returns:
        a new (B, L) array.
    """
    return np.concatenate([x[:, None], history[:, :-1]], axis=1)


def weighted(table: np.ndarray, history: np.ndarray, discount: float) -> tuple[np.ndarray, tuple]:
    """x W for x = Σ_k w_k (1-of-N vector of the event k steps ago), w_k ∝ discount^k, Σ w_k = 1.

    Hidasi et al. 2016 (arXiv 1511.06939), §3.1, leave discount and norm open; dividing by the sum
    keeps x on the scale of a 1-of-N vector, whatever the session's length.

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
    """Gradient of `weighted` with respect to the rows that it read.

    Args:
        dxW: (B, G); cache from `weighted`.

    Returns:
        items (n,) and their gradients (n, G), an item once for each time that it was read.
    """
    history, w = cache
    b, k = np.nonzero(history >= 0)
    return history[b, k], w[b, k, None] * dxW[b]
