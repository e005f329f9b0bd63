"""Going on with each new day against training anew: the table in docs/results.md.

    python benchmarks/going_on.py --train train.tsv --test test.tsv [--seeds 1 2 3]

Trains on the first days, then goes on with each next day. After each day, the next one is the test
set, after the last day --test. Contenders: the first model as it is; going on; going on with fresh
weights for new items instead of means; training anew on all days. A case whose item a model does
not know counts as a miss. Time is the process's own on the CPU. Prints Markdown.
"""

import argparse
import time

import numpy as np
from common import mean_and_std, table
from scipy.sparse import csr_array

from gru4rec_np import GRU4Rec, read_table
from gru4rec_np.console.options import read_config
from gru4rec_np.data.sessions import DAY, Sessions
from gru4rec_np.models import going_on

CONFIGURATIONS = {
    "cross-entropy": "rsc15-100k-cross-entropy",
    "BPR-max": "rsc15-100k-bpr-max",
}
STALE, GOING, FRESH, ANEW = "first model", "going on", "going on, fresh rows", "trained anew"
SHARES = going_on.shares


def figures(model: GRU4Rec, test: Sessions, of: Sessions, new: np.ndarray) -> list[float]:
    """Recall@20, MRR@20 and Recall@20 of new items, over the cases of `of`.

    Args:
        test: as it was read. of: test over the whole catalogue. new: (I,) the item is new.
    """
    known = test.restrict(model.item_ids)
    ranks = model.ranks(known)[0]
    hit = ranks <= 20
    target = known.item_ids[known.items[known.cases + 1]]
    is_new = np.isin(target, of.item_ids[new])
    n, n_new = len(of.cases), int(new[of.items[of.cases + 1]].sum())
    return [hit.sum() / n, (hit / ranks).sum() / n, (hit & is_new).sum() / max(1, n_new)]


def main() -> None:
    """Train and go on, for each configuration and seed; print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", required=True, help="a table of sessions")
    p.add_argument("--test", required=True, help="a table of sessions, of the day after")
    p.add_argument("--first", type=int, default=3, help="days of the first training, default 3")
    p.add_argument("--epochs", type=int, default=5, help="of going on, default 5")
    p.add_argument(
        "--rate", type=float, default=0.5, help="share of the learning rate, default 0.5"
    )
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    args = p.parse_args()
    log, last = read_table(args.train), read_table(args.test)
    day = ((log.ends - log.times.min()) // DAY).astype(int)
    # What ends after the last full day belongs to it.
    day = np.minimum(day, int((log.times.max() - log.times.min() - DAY / 2) // DAY))
    n_days = int(day.max()) + 1
    parts = [log.keep_sessions(day == d) for d in range(n_days)]
    tests = [*parts, last]
    lines = []
    for name, config in CONFIGURATIONS.items():
        found: dict[tuple[int, str], list[list[float]]] = {}
        for seed in args.seeds:
            values = read_config(config) | {"seed": seed}
            begin = log.keep_sessions(day < args.first)
            models = {
                kind: GRU4Rec(**values).fit(begin, verbose=False) for kind in (STALE, GOING, FRESH)
            }
            first_items = models[STALE].item_ids
            for d in range(args.first, n_days):
                so_far = log.keep_sessions(day <= d)
                models[ANEW] = GRU4Rec(**values)
                of = tests[d + 1].restrict(so_far.compact().item_ids)
                new = ~np.isin(of.item_ids, first_items)
                for contender, model in models.items():
                    began = time.process_time()
                    if contender == ANEW:
                        model.fit(so_far, verbose=False)
                    elif contender != STALE:
                        rate = args.rate * values["learning_rate"]
                        model.set_params(n_epochs=args.epochs, learning_rate=rate)
                        going_on.shares = SHARES if contender == GOING else no_shares
                        model.fit_more(parts[d], keep_counts=True, verbose=False)
                    seconds = time.process_time() - began
                    row = [*figures(model, tests[d + 1], of, new), seconds]
                    found.setdefault((d, contender), []).append(row)
        for (d, contender), rows in found.items():
            recall, mrr, of_new, seconds = np.transpose(rows)
            cells = [mean_and_std(recall), mean_and_std(mrr), f"{of_new.mean():.3f}"]
            time_cell = "" if contender == STALE else f"{seconds.mean():.1f}"
            lines.append([name, d + 1, contender, *cells, time_cell])
    head = ["loss", "days", "model", "Recall@20", "MRR@20", "Recall@20 of new items", "CPU seconds"]
    print(table(head, lines))


def no_shares(sessions: Sessions, known: int) -> csr_array:
    """In place of `going_on.shares`: no new item has a mean."""
    return csr_array((sessions.n_items - known, known))


if __name__ == "__main__":
    main()
