"""What several chapters build their right answers and their mistakes from."""

import copy

import numpy as np

from gru4rec_np import Sessions


def in_place(change, n):
    """What a function that changes its first `n` arguments in place makes of copies of them."""

    def changed(*args):
        args = copy.deepcopy(args)
        change(*args)
        return args[:n]

    return changed


def softmax(r, axis=1):
    """Over the rows, or another axis."""
    e = np.exp(r - r.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sessions_of(items, offsets, n_items=None):
    """A log whose items and sessions have their numbers for names, and events theirs for times."""
    items = np.asarray(items, np.int32)
    return Sessions(
        items,
        np.asarray(offsets),
        np.arange(len(items), dtype=float),
        np.arange(items.max(initial=0) + 1 if n_items is None else n_items),
        np.arange(len(offsets) - 1),
    )


# --- gradients of rows that occur more than once --------------------------------------------------


def row_sums_as_they_came(rows, g):
    """The sums, with the rows in order of appearance."""
    distinct = np.array(list(dict.fromkeys(rows.tolist())))
    return distinct, np.array([g[rows == row].sum(axis=0) for row in distinct])


def rows_unsummed(rows, g):
    """The rows sorted, those that occur twice still there twice."""
    return np.sort(rows), g[np.argsort(rows, kind="stable")]
