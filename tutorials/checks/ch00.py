"""Exercises of notebook 0, start here."""

from checks import Exercise
from gru4rec_np.ops.ranking import metrics
from solutions import ch00


def _recall(ranks, k):
    return metrics(ranks, k)[f"recall@{k}"]


EXERCISES = [
    Exercise(
        number="0.1",
        title="Recall@K from ranks",
        right=_recall,
        cases=lambda rng: [(rng.integers(1, 12, 30).astype(float), k) for k in (1, 5)],
        solution=ch00.recall,
        mistakes={
            "rank k itself counts too: k or better": {"<=": "<"},
            "that is how many; divide by the number of cases": {"mean": "sum"},
            "that is the share of ranks worse than k": {"<=": ">"},
            "the wrong way round: a small rank is a good one": {"<=": ">="},
            "that is one answer for each case; their share is asked for, one number": {
                "np.mean": ""
            },
            "that is the number of cases; how many have a rank of k or better?": {
                "np.mean(ranks <= k)": "len(ranks)"
            },
            "it takes 5, whatever k is": {"<= k": "<= 5"},
            "divide by the number of cases, not by k": {
                "np.mean(ranks <= k)": "np.sum(ranks <= k) / k"
            },
        },
        hints=[
            "ranks <= k is an array of True and False.",
            "The mean of True and False is the share of True.",
        ],
    ),
    Exercise(
        number="0.2",
        title="Recall@K after n clicks",
        right=lambda ranks, before, n, k: _recall(ranks[before == n], k),
        cases=lambda rng: [
            (rng.integers(1, 12, 200).astype(float), rng.integers(1, 6, 200), n, k)
            for n, k in ((2, 5), (4, 2))
        ],
        solution=ch00.recall_after,
        mistakes={
            "divide by the number of cases with n clicks, not by that of all cases": {
                "recall(ranks[before == n], k)": "np.mean((before == n) & (ranks <= k))"
            },
            "those with n clicks only, not n or fewer": {"==": "<="},
            "those with n clicks only, not n or more": {"==": ">="},
            "n is off by one: that is Recall@k after n - 1 clicks": {"== n": "== n - 1"},
            "n is off by one: that is Recall@k after n + 1 clicks": {"== n": "== n + 1"},
            "that is the share of all cases; before says which have n clicks": {
                "[before == n]": ""
            },
            "rank k itself counts too: k or better": {
                "recall(ranks[before == n], k)": "np.mean(ranks[before == n] < k)"
            },
        },
        hints=[
            "before == n is a mask; ranks[mask] are the ranks of those cases.",
            "recall(ranks[before == n], k)",
        ],
    ),
]
