"""Solutions of notebook 12, honest results."""

import numpy as np

# exercise 12.1


def spread(values):
    s = values.std(ddof=1)
    return values.mean(), s, s / np.sqrt(len(values))


# exercise 12.2


def resample(values, session, drawn):
    sums = np.bincount(session, values)
    counts = np.bincount(session)
    return sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)


# exercise 12.3


def paired_interval(a, b):
    return np.quantile(a - b, 0.025), np.quantile(a - b, 0.975)


# exercise 12.4


def to_report(validation, test):
    return test[np.argmax(validation)]


# exercise 12.5


def sessions_needed(d, s):
    return int(np.ceil((1.96 * s / d) ** 2))
