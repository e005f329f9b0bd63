"""Every model by its name, and `load`, which reads any of them from a file."""

from __future__ import annotations

from pathlib import Path

from gru4rec_np.errors import InputError
from gru4rec_np.models import checkpoint
from gru4rec_np.models.base import Model
from gru4rec_np.models.baselines import POP, SPOP, Markov, Oracle
from gru4rec_np.models.factors import BPRMF
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hybrid import Hybrid
from gru4rec_np.models.narm import NARM
from gru4rec_np.models.neighbours import VSKNN, ItemKNN

NETWORKS = {m.name: m for m in (GRU4Rec, NARM)}
ON_A_BACKEND: dict[str, type[Model]] = {**NETWORKS, Hybrid.name: Hybrid}
BASELINES = {m.name: m for m in (POP, SPOP, ItemKNN, VSKNN, BPRMF, Markov, Oracle)}


def load(path: str | Path, backend: str = "auto") -> Model:
    """Read whichever model a file holds.

    Args:
        path: the .npz file, or the directory that holds it as model.npz.
        backend: what a network runs on; the baselines have no choice.

    Raises:
        InputError: the file is missing, damaged, not ours, or its parts do not fit together.
    """
    name = checkpoint.load(path)[0].get("model", "GRU4Rec")
    if name in list(ON_A_BACKEND):  # a list takes any value, hashable or not
        return ON_A_BACKEND[name].load(path, backend=backend)
    if name not in list(BASELINES):
        raise InputError(f"{path}: holds a model that is unknown here, {name!r}")
    return BASELINES[name].load(path)
