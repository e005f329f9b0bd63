"""What several chapters build their right answers and their mistakes from."""

import numpy as np

from gru4rec_np import Sessions


def but(right, at, part):
    """The function `right`, but part number `at` of what it returns is another function's."""

    def mistake(*args):
        parts = list(right(*args))
        parts[at] = part(*args)
        return tuple(parts)

    return mistake


def in_order(right, *order):
    """The function `right`, but what it returns is in another order."""

    def mistake(*args):
        parts = right(*args)
        return tuple(parts[at] for at in order)

    return mistake


def softmax(r, axis=1):
    """Over the rows, or another axis."""
    e = np.exp(r - r.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sessions_of(items, offsets, n_items=None, times=None):
    """A log whose items, sessions and, without times, events have their numbers for names."""
    items = np.asarray(items, np.int32)
    return Sessions(
        items,
        np.asarray(offsets),
        np.arange(len(items), dtype=float) if times is None else times,
        np.arange(items.max(initial=0) + 1 if n_items is None else n_items),
        np.arange(len(offsets) - 1),
    )


# --- gradients of rows that occur more than once --------------------------------------------------


def row_sums(rows, g, at):
    """The distinct rows, and what `at` makes of the gradients of each."""
    distinct = np.unique(rows)
    return distinct, np.array([at(g[rows == row]) for row in distinct])


def row_sums_as_they_came(rows, g):
    """The sums, with the rows in order of appearance."""
    distinct = np.array(list(dict.fromkeys(rows.tolist())))
    return distinct, np.array([g[rows == row].sum(axis=0) for row in distinct])


def rows_unsummed(rows, g):
    """The rows sorted, those that occur twice still there twice."""
    return np.sort(rows), g[np.argsort(rows, kind="stable")]
