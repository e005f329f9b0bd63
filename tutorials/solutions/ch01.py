"""Solutions of notebook 1, sessions."""

import dataclasses

import numpy as np

# exercise 1.1


def find_cases(offsets):
    has_next = np.ones(offsets[-1], bool)
    has_next[offsets[1:] - 1] = False
    return np.flatnonzero(has_next)


# exercise 1.2


def clean(log, min_support, min_length):
    log = log.keep_events(log.support[log.items] >= min_support)
    return log.keep_sessions(log.lengths >= min_length)


# exercise 1.3


def first_of_run(items, offsets):
    first = np.ones(len(items), bool)
    first[1:] = items[1:] != items[:-1]
    first[offsets[:-1]] = True
    return first


# exercise 1.4


def in_test(times, offsets, days):
    return times[offsets[:-1]] >= times.max() - days * 86_400


# exercise 1.5


def restrict(log, item_ids):
    number = {item: i for i, item in enumerate(item_ids.tolist())}
    new = np.array([number.get(item, -1) for item in log.item_ids.tolist()])
    log = log.keep_events(new[log.items] >= 0)
    log = log.keep_sessions(log.lengths >= 2)
    return dataclasses.replace(log, items=new[log.items], item_ids=item_ids)
