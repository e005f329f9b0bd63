"""Every model by its name, and the one function that reads any of them from a file.

Imports the models.
"""

from __future__ import annotations

from pathlib import Path

from gru4rec_np import checkpoint
from gru4rec_np.baselines import POP, SPOP, Baseline, Markov, Oracle
from gru4rec_np.errors import InputError
from gru4rec_np.factors import BPRMF
from gru4rec_np.gru4rec import GRU4Rec
from gru4rec_np.narm import NARM
from gru4rec_np.neighbours import VSKNN, ItemKNN

# All have fit, evaluate, ranks, recommend, save, load. The networks have a backend besides.
NETWORKS = {m.name: m for m in (GRU4Rec, NARM)}
BASELINES = {m.name: m for m in (POP, SPOP, ItemKNN, VSKNN, BPRMF, Markov, Oracle)}


def load(path: str | Path, backend: str = "auto") -> GRU4Rec | NARM | Baseline:
    """Read whichever model a file holds.

    Args:
        path: the .npz file or the directory that holds it as model.npz.
        backend: what a network runs on; the baselines have no choice.

    Raises:
        InputError: the file is missing, damaged, not ours, or its parts do not fit together.
    """
    name = checkpoint.load(path)[0].get("model", "GRU4Rec")
    if name in list(NETWORKS):  # a list takes anything, hashable or not
        return NETWORKS[name].load(path, backend)
    if name not in list(BASELINES):
        raise InputError(f"{path}: holds a model that is unknown here, {name!r}")
    return BASELINES[name].load(path)
