"""Paired bootstrap: which differences between methods are larger than chance.

Whole test sessions are resampled, because the cases of one session depend on each other. Seeds are
resampled too, where a method has several. All methods get the same sessions. Imports NumPy only.
"""

from collections.abc import Sequence

import numpy as np

# The largest number of session counts to hold at once.
COUNTS_AT_ONCE = 2**23


def resampled_means(
    values: Sequence[np.ndarray], session: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Each method's mean value over the cases, on resampled test sessions and resampled seeds.

    A resample draws S of the S sessions with replacement, the same for all methods (Efron 1979).
    Its mean is over all cases of the drawn sessions. From a method's n >= 2 seeds it also draws
    n - 1 with replacement and takes the mean over them. With n - 1 draws the variance of that mean
    is on average s²/n, which is right; with n draws it would be too small (Rao & Wu 1988). With one
    seed, the interval does not include the noise of seeds.

    Args:
        values: for each method (seeds, cases), such as 1 where the rank is <= K and 0 elsewhere.
        session: (cases,) the session of each case.
        n_resamples: R. seed: of the draws.

    Returns:
        (R, methods) float64.

    Raises:
        ValueError: there is no case.
    """
    _, row = np.unique(session, return_inverse=True)
    if len(row) == 0:
        raise ValueError("resampled_means: no cases")
    S = int(row.max()) + 1
    rng = np.random.default_rng(seed)
    # (S, runs + 1): each session's sum for each run (method and seed); last, its number of cases.
    runs = [run for method in values for run in method]
    sums = np.stack([np.bincount(row, run, S) for run in [*runs, np.ones(len(row))]], axis=1)
    means = np.empty((n_resamples, len(runs)))
    size = max(1, COUNTS_AT_ONCE // S)
    for first in range(0, n_resamples, size):
        n = min(size, n_resamples - first)
        drawn = rng.integers(0, S, (n, S)) + S * np.arange(n)[:, None]
        total = np.bincount(drawn.ravel(), minlength=n * S).reshape(n, S) @ sums
        means[first : first + n] = total[:, :-1] / total[:, -1:]

    out = np.empty((n_resamples, len(values)))
    ends = np.cumsum([len(method) for method in values])
    for m, (method, end) in enumerate(zip(values, ends, strict=True)):
        n = len(method)
        draws = rng.multinomial(n - 1, np.full(n, 1 / n), n_resamples) / (n - 1) if n > 1 else 1
        out[:, m] = (draws * means[:, end - n : end]).sum(axis=1)
    return out


def interval(differences: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Percentile interval of resampled differences: (2, ...), low and high.

    Args:
        differences: (R, ...), such as of two columns of `resampled_means`.
        level: the probability of the interval.
    """
    return np.quantile(differences, [(1 - level) / 2, (1 + level) / 2], axis=0)
