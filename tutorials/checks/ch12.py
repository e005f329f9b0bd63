"""Exercises of notebook 12, honest results."""

import math

import numpy as np

from checks import Exercise
from gru4rec_np.ops.bootstrap import interval
from solutions import ch12


def _resample(values, session, drawn):
    S = session.max() + 1
    sums, counts = np.bincount(session, values, S), np.bincount(session, minlength=S)
    return sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)


def _each_once(values, session, drawn):
    return np.array([values[np.isin(session, row)].mean() for row in drawn])


def _resample_cases(rng):
    session = np.repeat(np.arange(6), [1, 3, 2, 7, 1, 2])
    return [
        (rng.random(len(session)), session, rng.integers(0, 6, (5, 6))),
        ((rng.random(len(session)) < 0.5).astype(float), session, rng.integers(0, 6, (5, 6))),
    ]


EXACT = 0.2205, 0.9  # 1.96 s / sqrt(S) is d at S = 64, in floating point too


EXERCISES = [
    Exercise(
        number="12.1",
        title="mean, standard deviation, standard error",
        right=ch12.spread,
        cases=lambda rng: [(rng.normal(size=n),) for n in (4, 7)],
        mistakes={
            "divide the sum of squares by n - 1, not by n: np.std has ddof for it": {
                "ddof=1": "ddof=0"
            },
            "the standard error is s divided by the root of n, not by n": {
                "np.sqrt(len(values))": "len(values)"
            },
            "s contains the n - 1 already; divide s by the root of n": {
                "len(values)": "len(values) - 1"
            },
            "that is the variance; its root is the standard deviation": {"std": "var"},
        },
        hints=["values.std(ddof=1) divides by n - 1.", "Three things: mean, s, s / np.sqrt(n)."],
        parts=("mean", "standard deviation", "standard error"),
    ),
    Exercise(
        number="12.2",
        title="a mean over resampled sessions",
        right=_resample,
        cases=_resample_cases,
        solution=ch12.resample,
        mistakes={
            "that is a mean of sessions' means; the mean is over cases, so a long session counts "
            "for more": {
                "sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)": "(sums / counts)[drawn]"
                ".mean(axis=1)"
            },
            "a session drawn twice counts twice": _each_once,
            "drawn lists sessions; values[drawn] takes the cases with those numbers": (
                lambda values, session, drawn: values[drawn].mean(axis=1)
            ),
            "those are sums; divide by the number of cases drawn": {
                " / counts[drawn].sum(axis=1)": ""
            },
            "divide by the number of cases drawn, not by that of all cases": {
                "counts[drawn].sum(axis=1)": "len(values)"
            },
        },
        hints=[
            "np.bincount(session, values) is the sum of the values of each session.",
            "sums[drawn] is (R, S): the sums of the drawn sessions. The numbers of cases likewise.",
            "sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)",
        ],
    ),
    Exercise(
        number="12.3",
        title="a paired interval",
        right=lambda a, b: tuple(interval(a - b)),
        cases=lambda rng: [
            ((common := rng.normal(size=500)) + 0.3 * rng.normal(size=500), common + 0.1)
        ],
        mistakes={
            "that is the unpaired interval: take the quantiles of the differences": lambda a, b: (
                tuple(np.quantile(a, [0.025, 0.975]) - np.quantile(b, [0.975, 0.025]))
            ),
            "quantiles of a minus the same quantiles of b are not quantiles of a - b": (
                lambda a, b: tuple(np.quantile(a, [0.025, 0.975]) - np.quantile(b, [0.025, 0.975]))
            ),
            "5% on each side leaves 90%; the middle 95% leaves 2.5% on each": lambda a, b: tuple(
                np.quantile(a - b, [0.05, 0.95])
            ),
            "the low end comes first": lambda a, b: tuple(np.quantile(a - b, [0.975, 0.025])),
            "1.96 standard deviations assume a normal distribution; take quantiles": (
                lambda a, b: tuple((a - b).mean() + 1.96 * (a - b).std() * np.array([-1, 1]))
            ),
            "np.percentile wants 2.5 and 97.5; 0.025 and 0.975 are for np.quantile": (
                lambda a, b: tuple(np.percentile(a - b, [0.025, 0.975]))
            ),
            "the difference is a - b": lambda a, b: tuple(np.quantile(b - a, [0.025, 0.975])),
        },
        hints=["First a - b, of each resample.", "np.quantile(a - b, 0.025) is the low end."],
        parts=("low", "high"),
    ),
    Exercise(
        number="12.4",
        title="choose on validation, report once",
        right=lambda validation, test: test[np.argmax(validation)],
        cases=lambda rng: [(rng.random(9), rng.random(9)) for _ in range(2)],
        mistakes={
            "that is the winner's curse: the best on the test set was chosen on the test set": (
                lambda validation, test: test.max()
            ),
            "that is the number of the setting; report its test result": lambda validation, test: (
                np.argmax(validation)
            ),
            "the setting was chosen on the test set; choose it by its validation result": (
                lambda validation, test: validation[np.argmax(test)]
            ),
            "the setting was chosen for its validation result, so that is too high on average; "
            "report its test result": lambda validation, test: validation.max(),
            "that is the mean of all settings; report the chosen one": lambda validation, test: (
                test.mean()
            ),
        },
        hints=[
            "Which setting has the best validation result? np.argmax.",
            "Report its test result.",
        ],
    ),
    Exercise(
        number="12.5",
        title="how many sessions it takes",
        right=lambda d, s: math.ceil((1.96 * s / d) ** 2),
        cases=lambda rng: [(0.01, 0.37), (0.003, 0.5), (0.1, 0.2), EXACT],
        solution=ch12.sessions_needed,
        mistakes={
            "the root is missing: solve 1.96 s / sqrt(S) <= d for S": {" ** 2": ""},
            "1.96 is missing: one standard error is not a 95% interval": {"1.96 * ": ""},
            "round up: with fewer sessions 1.96 s / sqrt(S) is more than |d|": {"ceil": "floor"},
            "where 1.96 s / sqrt(S) is exactly |d|, S is enough: at most |d|. Round up, ceil, and "
            "add nothing": {"np.ceil((1.96 * s / d) ** 2)": "np.floor((1.96 * s / d) ** 2) + 1"},
            "return a whole number of sessions: round up": {
                "int(np.ceil((1.96 * s / d) ** 2))": "(1.96 * s / d) ** 2"
            },
        },
        hints=["1.96 s / sqrt(S) = d. Square both sides.", "math.ceil((1.96 * s / d) ** 2)"],
        tolerance=1e-12,
    ),
]
