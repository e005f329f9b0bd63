"""The logs that the notebooks use beside the simulated shop."""

from __future__ import annotations

import os
from pathlib import Path

from gru4rec_np import Sessions, read_table

from . import TUTORIALS


def rsc15() -> tuple[Sessions, Sessions] | None:
    """Training and test sessions of real clicks, where they are at hand, else None.

    The first 100,000 clicks of the RecSys Challenge 2015, cleaned and split, as train.tsv and
    test.tsv (columns SessionId, ItemId, Time) in the folder that the variable RSC15 names, or in
    shared/data/rsc15-100k beside the checkout. Their licence keeps them out of this repository.
    """
    folder = Path(os.environ.get("RSC15") or TUTORIALS.parents[1] / "shared/data/rsc15-100k")
    if not (folder / "train.tsv").exists():
        return None
    return read_table(folder / "train.tsv"), read_table(folder / "test.tsv")
