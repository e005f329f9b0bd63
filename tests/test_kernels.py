"""Backends: what `load` hands out. Every backend must equal the plain NumPy functions."""

import pytest

from gru4rec_np import InputError, cells, kernels, losses, optim, ranking, scoring


def test_the_numpy_backend_is_the_mathematics():
    ops = kernels.load("numpy")
    assert ops.gru is cells.gru and ops.gru_backward is cells.gru_backward
    assert ops.scores is scoring.scores and ops.loss_and_gradient is losses.loss_and_gradient
    assert ops.update is optim.update and ops.rank_targets is ranking.rank_targets


def test_auto_takes_what_is_there():
    assert kernels.load("auto").name in kernels.BACKENDS


def test_an_unknown_backend_is_named():
    with pytest.raises(InputError, match=r"backend: must be one of auto, numpy, not 'gpu'"):
        kernels.load("gpu")
