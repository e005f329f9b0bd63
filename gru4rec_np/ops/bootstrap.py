"""Paired bootstrap: which differences between methods are larger than the noise.

It resamples test sessions, not cases, because the cases of a session are correlated. Of a method
with several seeds it also resamples the seeds. All methods get the same sessions.
"""

from collections.abc import Sequence

import numpy as np

# At most about this many drawn sessions are in memory at once.
MAX_DRAWS = 2**23


def resampled_means(
    values: Sequence[np.ndarray], session: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Each method's mean value over the cases, on resampled test sessions and resampled seeds.

    A resample draws all S sessions anew, with replacement (Efron 1979). The mean is over all cases
    of the drawn sessions. Of a method's n >= 2 seeds, a resample draws n - 1 with replacement and
    averages over them. With n - 1 draws the expected variance of that mean is s²/n, as it should
    be; with n draws it is too small (Rao & Wu 1988). With one seed, its noise is not counted.

    Args:
        values: one (seeds, cases) array for each method, such as 1 if the rank is <= K, else 0.
        session: (cases,) which session each case is of.
        n_resamples: R, the number of resamples. seed: of the draws.

    Returns:
        (R, methods) float64.

    Raises:
        ValueError: there is no case.
    """
    _, at = np.unique(session, return_inverse=True)
    if len(at) == 0:
        raise ValueError("resampled_means: no cases")
    S = int(at.max()) + 1
    rng = np.random.default_rng(seed)
    # (S, runs + 1): each session's sum of the values of every run, and its number of cases.
    runs = [run for method in values for run in method]
    sums = np.stack([np.bincount(at, run, S) for run in [*runs, np.ones(len(at))]], axis=1)
    means = np.empty((n_resamples, len(runs)))
    block = max(1, MAX_DRAWS // S)
    for first in range(0, n_resamples, block):
        n = min(block, n_resamples - first)
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


def interval(differences: np.ndarray) -> np.ndarray:
    """The 95 % percentile interval (Efron 1979) of resampled differences.

    Args:
        differences: (R, ...), such as one column of `resampled_means` minus another.

    Returns:
        (2, ...) float64, low and high.
    """
    return np.quantile(differences, [0.025, 0.975], axis=0)
