"""The configurations that come with the program: each loads and trains; the published figures."""

import re

import numpy as np
import pytest
from test_commands import command, refuses

from gru4rec_np import GRU4Rec, InputError, Shop
from gru4rec_np.console.options import CONFIGURATIONS, read_config
from gru4rec_np.train import settings


@pytest.fixture(scope="module")
def train():
    return Shop(n_items=40).simulate(120)


def test_there_are_some():
    assert {"rsc15-top1", "rsc15-100k-bpr-max", "retailrocket"} <= set(CONFIGURATIONS)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_trains(name, train):
    _, model, _ = settings(["--config", name, "--backend", "numpy", "--epochs", "1"])
    model.fit(train)
    assert np.isfinite(model.losses).all() and 0 <= model.evaluate(train)["mrr@20"] <= 1


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_names_its_source_and_says_all_that_matters(name):
    text = CONFIGURATIONS[name].read_text()
    assert re.match(r"#.*\n(#.*\n)*", text)[0].count(" ") > 10
    values = read_config(name)
    wanted = {"layers", "loss", "input", "n_sample", "batch_size", "n_epochs", "learning_rate"}
    assert wanted <= set(values)
    assert (values["n_sample"] > 0) == ("sample_alpha" in values)


def test_published_figures():
    """Hidasi et al. 2016, Table 2; the reference's settings for the first 100,000 clicks."""
    for name, *wanted in (
        ("rsc15-top1", "top1", 50, 0.5, 0.01, 0),
        ("rsc15-bpr", "bpr", 50, 0.2, 0.05, 0.2),
        ("rsc15-cross-entropy", "cross-entropy", 500, 0, 0.01, 0),
        ("retailrocket", "bpr-max", 80, 0.05, 0.05, 0.4),
    ):
        m = GRU4Rec(**read_config(name), backend="numpy")
        found = [m.loss, m.batch_size, m.dropout_p_hidden, m.learning_rate, m.momentum]
        assert found == wanted, name
    default = GRU4Rec(backend="numpy").hyperparameters()
    same = GRU4Rec(**read_config("rsc15-100k-cross-entropy"), backend="numpy")
    assert same.hyperparameters() == default


def test_a_file_wins_over_a_name_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "retailrocket").mkdir()
    assert read_config("retailrocket")["layers"] == [224]
    (tmp_path / "rsc15-bpr").write_text("layers = [7]\n")
    assert read_config("rsc15-bpr") == {"layers": [7]}


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(InputError) as error:
        read_config("rsc16")
    assert "rsc16" in str(error.value) and all(name in str(error.value) for name in CONFIGURATIONS)
    refuses(command("train", "--config", "rsc16"), "rsc16", "retailrocket")
    shown = "".join(command("train", "--help").stdout.split())
    assert all(name in shown for name in CONFIGURATIONS)
