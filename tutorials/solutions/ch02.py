"""Solutions of notebook 2, measuring."""

import numpy as np

# exercise 2.1


def rank(scores, targets):
    t = np.take_along_axis(scores, targets[:, None], axis=1)  # (n, 1)
    return (scores >= t).sum(axis=1)


# exercise 2.2


def recall_and_mrr(ranks, k):
    hit = ranks <= k
    return hit.mean(), (hit / ranks).mean()


# exercise 2.3


def count_followers(items, offsets, n_items):
    has_next = np.ones(len(items), bool)
    has_next[offsets[1:] - 1] = False
    e = np.flatnonzero(has_next)
    followers = np.zeros((n_items, n_items))
    np.add.at(followers, (items[e], items[e + 1]), 1)
    return followers


# exercise 2.4


def three_ranks(scores, targets):
    t = np.take_along_axis(scores, targets[:, None], axis=1)  # (n, 1)
    above = (scores > t).sum(axis=1)
    equal = (scores == t).sum(axis=1)
    return above + equal, above + 1, above + (equal + 1) / 2


# exercise 2.5


def s_pop(session, pop):
    return np.bincount(session, minlength=len(pop)) + pop


# exercise 2.6


def similarity(c, size):
    sim = c / np.sqrt(size[:, None] * size)
    np.fill_diagonal(sim, 0)
    return sim
