"""The exercise of notebook 0, start here."""

import numpy as np

from checks import Exercise
from gru4rec_np.ranking import metrics


def _recall(ranks, k):
    return metrics(ranks, k)[f"recall@{k}"]


EXERCISES = [
    Exercise(
        number="0.1",
        title="Recall@K from ranks",
        right=_recall,
        cases=lambda rng: [(rng.integers(1, 12, 30).astype(float), k) for k in (1, 5)],
        mistakes={
            "rank k itself counts too: k or better": lambda ranks, k: np.mean(ranks < k),
            "that is how many; divide by the number of cases": lambda ranks, k: np.sum(ranks <= k),
            "that is the share of ranks worse than k": lambda ranks, k: np.mean(ranks > k),
        },
        hints=[
            "ranks <= k is an array of True and False.",
            "The mean of True and False is the share of True.",
        ],
    )
]
