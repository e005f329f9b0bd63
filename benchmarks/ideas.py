"""What each idea beyond the papers' GRU4Rec is worth: the ablation in docs/results.md.

    python benchmarks/ideas.py [--train train.tsv] [--logs shop repeat ...] [--seeds 1 2 3]
                               [--only "the default" "all items"]

Measures on validation days only: each log is cut a day before its end. `rsc15` is the log of
--train; the others are made here, with different structure. Time is the process's own on the CPU.
Prints Markdown.
"""

import argparse
from collections.abc import Callable

import numpy as np
from common import mean_and_std, table, trained

from gru4rec_np import GRU4Rec, Sessions, Shop, clean, read_table, split
from gru4rec_np.data.sessions import DAY
from gru4rec_np.models.hybrid import Hybrid

PAPERS = GRU4Rec.published
SAMPLES: dict[str, object] = {"n_sample": 2048}  # as published; the defaults have fewer
COSINE_12 = SAMPLES | {"cosine": 12.0}
UNFADED = COSINE_12 | {"fade": 0.0, "repeat": 0.0}
VARIANTS: dict[str, tuple[Callable, dict[str, object]]] = {
    # Each idea alone on top of the papers' model.
    "as published": (PAPERS, {}),
    "decay": (PAPERS, {"decay": True}),
    "skip": (PAPERS, {"skip": True}),
    "cosine": (PAPERS, COSINE_12),
    "dropout 0.2": (PAPERS, {"dropout_p_embed": 0.2}),
    "repeat": (PAPERS, {"repeat": 0.15}),
    "all items": (PAPERS, {"n_sample": "all"}),
    # Together.
    "skip, cosine, dropout 0.2": (GRU4Rec, UNFADED),
    "and fade": (GRU4Rec, COSINE_12 | {"repeat": 0.0}),
    "and fade 0.6": (GRU4Rec, COSINE_12 | {"fade": 0.6, "repeat": 0.0}),
    "and fade and repeat": (GRU4Rec, COSINE_12),
    "and repeat 0.1": (GRU4Rec, COSINE_12 | {"repeat": 0.1}),
    "and repeat 0.2": (GRU4Rec, COSINE_12 | {"repeat": 0.2}),
    "and cosine 11": (GRU4Rec, SAMPLES | {"cosine": 11.0}),
    "and cosine 10": (GRU4Rec, SAMPLES),
    "and cosine 10, 1,792 samples": (GRU4Rec, {"n_sample": 1792}),
    "and cosine 10, 1,536 samples: the default": (GRU4Rec, {}),
    "and cosine 9": (GRU4Rec, SAMPLES | {"cosine": 9.0}),
    "and decay": (GRU4Rec, UNFADED | {"decay": True}),
    "and decay, without skip": (GRU4Rec, UNFADED | {"decay": True, "skip": False}),
    "and decay, without cosine": (GRU4Rec, UNFADED | {"decay": True, "cosine": 0.0}),
    "and decay, cosine 8": (GRU4Rec, UNFADED | {"decay": True, "cosine": 8.0}),
    "the default, all items": (GRU4Rec, {"n_sample": "all"}),
    # Others.
    "hybrid of the default": (Hybrid, {}),
    "BPR-max, as published": (PAPERS, {
        "loss": "bpr-max", "sample_alpha": 0.5, "learning_rate": 0.05, "momentum": 0.2,
        "dropout_p_embed": 0.2,
    }),
}  # fmt: skip


def zipf(rng: np.random.Generator, n: int, exponent: float) -> np.ndarray:
    """(n,) probabilities of items, in random order of popularity."""
    weight = rng.permutation(1 / np.arange(1, n + 1) ** exponent)
    return weight / weight.sum()


def taste(rng: np.random.Generator) -> list[list[int]]:
    """No order: a session has two topics, and its clicks are drawn from them. Many items."""
    I, K = 6000, 200  # noqa: E741
    weight, of_item = zipf(rng, I, 0.8), rng.integers(0, K, (I, 2))
    members = [np.flatnonzero((of_item == k).any(axis=1)) for k in range(K)]
    share, popular = [weight[m] / weight[m].sum() for m in members], zipf(rng, K, 0.7)
    sessions = []
    for _ in range(20_000):
        topics = rng.choice(K, 2, p=popular)
        chosen = rng.choice(topics, 2 + rng.geometric(0.18), p=[0.7, 0.3])
        sessions.append([int(rng.choice(members[k], p=share[k])) for k in chosen])
    return sessions


def repeat(rng: np.random.Generator) -> list[list[int]]:
    """Long sessions; a third of the clicks repeats an earlier one, others follow the last item."""
    I = 5000  # noqa: E741
    popular = zipf(rng, I, 0.9)
    after, share = rng.choice(I, (I, 6), p=popular), [0.4, 0.2, 0.15, 0.1, 0.1, 0.05]
    sessions = []
    for _ in range(10_000):
        length, clicks = 2 + rng.geometric(0.1), [int(rng.choice(I, p=popular))]
        while len(clicks) < length:
            u = rng.random()
            if u < 0.35 and len(clicks) > 1:
                clicks.append(clicks[rng.integers(len(clicks))])
            elif u < 0.75:
                clicks.append(int(after[clicks[-1], rng.choice(6, p=share)]))
            else:
                clicks.append(int(rng.choice(I, p=popular)))
        sessions.append(clicks)
    return sessions


def rare(rng: np.random.Generator) -> list[list[int]]:
    """15,000 items, most of them rare; three quarters of the clicks stay near the last item."""
    I = 15_000  # noqa: E741
    popular, group = zipf(rng, I, 0.5), rng.integers(0, I // 25, I)
    members = [np.flatnonzero(group == g) for g in range(I // 25)]
    sessions = []
    for _ in range(20_000):
        length, clicks = 2 + rng.geometric(0.3), [int(rng.choice(I, p=popular))]
        while len(clicks) < length:
            near = members[group[clicks[-1]]]
            if rng.random() < 0.75:
                at = np.searchsorted(near, clicks[-1]) + rng.geometric(0.35)
                clicks.append(int(near[at % len(near)]))
            else:
                clicks.append(int(rng.choice(I, p=popular)))
        sessions.append(clicks)
    return sessions


def drift(rng: np.random.Generator) -> list[list[int]]:
    """Items come and go within days; the next click is near the last in a hidden space."""
    I, days, n = 5000, 10, 20_000  # noqa: E741
    born, life, popular = rng.uniform(-6, days, I), rng.exponential(4, I) + 1, zipf(rng, I, 0.9)
    place, sessions = rng.normal(size=(I, 6)), []
    for s in range(n):
        day = s / n * days
        alive = np.flatnonzero((born <= day) & (day < born + life))
        weight = popular[alive] / popular[alive].sum()
        length, clicks = 2 + rng.geometric(0.3), [int(rng.choice(alive, p=weight))]
        while len(clicks) < length:
            score = 1.2 * place[alive] @ place[clicks[-1]] + np.log(weight)
            p = np.exp(score - score.max())
            clicks.append(int(rng.choice(alive, p=p / p.sum())))
        sessions.append(clicks)
    return sessions


def log_of(make: Callable[[np.random.Generator], list[list[int]]], days: float = 10) -> Sessions:
    """A log of these sessions, which begin evenly over the days, 20 seconds a click."""
    rng = np.random.default_rng(0)
    log = Sessions.from_lists(make(rng))
    begins = np.sort(rng.uniform(0, days * DAY, log.n_sessions))
    nth = np.arange(log.n_events) - np.repeat(log.offsets[:-1], log.lengths)
    times = np.repeat(begins, log.lengths) + 20.0 * nth
    return clean(Sessions(log.items, log.offsets, times, log.item_ids, log.session_ids))


LOGS: dict[str, Callable[[], Sessions]] = {
    "shop": lambda: clean(Shop().simulate(20_000)),
    "shop, 3,000 items, repeats": lambda: clean(Shop(n_items=3000, repeat=0.4).simulate(20_000)),
    "shop, 10,000 items": lambda: clean(Shop(n_items=10_000, walk=0.6).simulate(20_000)),
    "taste": lambda: log_of(taste),
    "repeat": lambda: log_of(repeat),
    "rare": lambda: log_of(rare),
    "drift": lambda: log_of(drift),
}


def main() -> None:
    """Train every variant on every log with every seed; print a table for each log."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", help="a table of sessions, for rsc15")
    p.add_argument("--logs", nargs="+", default=["rsc15", *LOGS], help="default: all")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    p.add_argument("--only", nargs="+", default=[""], help="variants with one of these in the name")
    args = p.parse_args()
    for name in args.logs:
        if name == "rsc15" and args.train is None:
            continue
        train, valid = split(read_table(args.train) if name == "rsc15" else LOGS[name](), days=1)
        lines, first = [], None
        for label, (make, values) in VARIANTS.items():
            if not any(text in label for text in args.only):
                continue
            models = (make(**values, seed=seed) for seed in args.seeds)
            recall, mrr, seconds = trained(label, models, train, valid)
            first = first or (recall.mean(), mrr.mean())
            lines.append([
                label, mean_and_std(recall), f"{recall.mean() / first[0] - 1:+.1%}",
                mean_and_std(mrr), f"{mrr.mean() / first[1] - 1:+.1%}", f"{seconds.mean():.1f}",
            ])  # fmt: skip
        print(f"\n{name}: {train.n_events:,} events, {train.n_items:,} items\n", flush=True)
        head = ["GRU4Rec", "Recall@20", "", "MRR@20", "", "CPU seconds"]
        print(table(head, lines), flush=True)


if __name__ == "__main__":
    main()
