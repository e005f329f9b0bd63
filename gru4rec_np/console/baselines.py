"""Which simple methods a training is compared with, and about how long each takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gru4rec_np.backends import multiplications
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.errors import InputError
from gru4rec_np.models.baselines import POP, SPOP, Baseline, Markov, Oracle
from gru4rec_np.models.factors import BPRMF
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.models.neighbours import VSKNN, ItemKNN

METHODS = (POP, SPOP, BPRMF, ItemKNN, VSKNN, Markov, Oracle)
NAMES = [method.name.lower() for method in METHODS]
SHORT = 10.0  # seconds; a method that takes less is no burden

# Seconds on one core of a server of 2023, from shops of 1,000 and 10,000 items.
# Ranking: for each case and item, and for each case.
RANKING = {
    "POP": (2e-9, 0.0),
    "S-POP": (16e-9, 0.0),
    "BPR-MF": (7e-9, 0.0),
    "Item-KNN": (6e-9, 0.0),
    "V-SKNN": (6e-9, 1e-4),
    "Markov": (6e-9, 0.0),
    "oracle": (80e-9, 0.0),
}
BPR_MF_EVENT = 7e-6  # BPR-MF: an event in an epoch
ITEM_KNN_PAIR = 1.5e-7  # Item-KNN: a pair of events of one session
MULTIPLICATION = 7e-11  # training: one of a step's
STEP = 1e-4  # training: what a step takes apart from them


def training_seconds(hp: Hyperparameters, train: Sessions) -> float:
    """About how long the training takes on a CPU."""
    steps = hp.n_epochs * max(1.0, (train.n_events - train.n_sessions) / hp.batch_size)
    return steps * (MULTIPLICATION * multiplications(hp, train.n_items) + STEP)


def seconds(name: str, train: Sessions, n_cases: int) -> float:
    """About how long a method takes to learn and to rank, from the sizes alone."""
    per_score, per_case = RANKING[name]
    ranking = n_cases * (per_score * train.n_items + per_case)
    if name == "BPR-MF":
        return ranking + BPR_MF_EVENT * BPRMF().hp.n_epochs * train.n_events
    if name == "Item-KNN":
        return ranking + ITEM_KNN_PAIR * float(np.square(train.lengths.astype(float)).sum())
    return ranking


def names_of(text: str) -> list[str] | None:
    """The methods that --baselines asks for, by their names in `NAMES`; None for `auto`.

    Raises:
        InputError: an unknown name.
    """
    if text == "auto":
        return None
    if text in ("all", "none"):
        return NAMES if text == "all" else []
    wanted = [name.strip().lower() for name in text.split(",")]
    for name in wanted:
        if name not in NAMES:
            raise InputError(
                f"baselines: unknown name {name[:60]!r}; allowed are all, none, auto, or some of "
                f"{', '.join(NAMES)}"
            )
    return wanted


def chosen(
    text: str,
    hp: Hyperparameters,
    train: Sessions,
    tests: Mapping[str, Sessions],
    shop: Shop | None,
) -> tuple[list[Baseline], list[str]]:
    """The methods to compare with, untrained, and the names of those that `auto` leaves out.

    Args:
        text: of --baselines. hp: of the training, whose seed BPR-MF gets too.

    Raises:
        InputError: an unknown name, or the oracle without the shop.
    """
    wanted = names_of(text)
    known = [m for m in METHODS if m is not Oracle or shop]
    left_out: list[str] = []
    if wanted is None:
        limit = max(SHORT, training_seconds(hp, train))
        n_cases = sum(len(test.cases) for test in tests.values())
        left_out = [m.name for m in known if seconds(m.name, train, n_cases) > limit]
        wanted = [m.name.lower() for m in known if m.name not in left_out]
    elif "oracle" in wanted and not shop and text != "all":
        raise InputError("baselines: the oracle knows the simulated shop only, not --train's log")
    return [_make(m, hp.seed, shop) for m in known if m.name.lower() in wanted], left_out


def _make(method: Any, seed: int, shop: Shop | None) -> Baseline:
    if method is BPRMF:
        return BPRMF(seed=seed)
    return Oracle(shop) if method is Oracle and shop else method()
