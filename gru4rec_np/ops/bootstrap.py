"""Paired bootstrap: which differences between methods are more than noise.

Test sessions are drawn again, not cases, since the cases of a session hang together; and seeds are,
where a method has several. Every method sees the same draws. Imports NumPy only.
"""

from collections.abc import Sequence

import numpy as np

# The sessions' weights are held for as many resamples at once as fit in about this many numbers.
BLOCK = 2**23


def resampled_means(
    values: Sequence[np.ndarray], session: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Each method's mean value over the cases, on resampled test sessions and resampled seeds.

    A resample draws as many sessions as there are, with replacement, the same for all methods
    (Efron 1979); its mean is over all cases of the sessions drawn. Of a method's n >= 2 seeds it
    draws n - 1 with replacement, on its own, and takes the mean over them: with n - 1 draws, and
    not with n, the variance of that mean is on average the true one, s²/n (Rao, Wu 1988). One
    seed is always itself: of a method that has one but depends on it, the seed's noise is unseen.

    Args:
        values: of each method (seeds, cases), say 1 where the rank is <= K, 0 elsewhere.
        session: (cases,) which session each case is of.
        n_resamples: R. seed: of the draws.

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
    # Sums over each session, of every run and, last, of the number of cases: (S, runs + 1).
    runs = [run for method in values for run in method]
    sums = np.stack([np.bincount(at, run, S) for run in [*runs, np.ones(len(at))]], axis=1)
    means = np.empty((n_resamples, len(runs)))
    block = max(1, BLOCK // S)
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


def interval(differences: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Percentile interval of resampled differences: (2, ...), low and high.

    Args:
        differences: (R, ...), as of two columns of `resampled_means`. level: its probability.
    """
    return np.quantile(differences, [(1 - level) / 2, (1 + level) / 2], axis=0)
