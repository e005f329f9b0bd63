"""The configurations that come with the program: each loads and trains; the published figures."""

import re

import numpy as np
import pytest
from test_commands import command, refuses

from gru4rec_np import GRU4Rec, InputError, Shop
from gru4rec_np.console.advice import fitting_config
from gru4rec_np.console.options import CONFIGURATIONS, read_config
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.train import settings


@pytest.fixture(scope="module")
def train():
    return Shop(n_items=40).simulate(120)


def test_there_are_some():
    assert {"rsc15-top1", "rsc15-100k-bpr-max", *PUBLISHED} <= set(CONFIGURATIONS)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_trains(name, train):
    _, model, _ = settings(
        ["--config", name, "--backend", "numpy", "--epochs", "1", "--layers", "16"]
    )
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
    default = GRU4Rec.published(backend="numpy").hyperparameters()
    same = GRU4Rec(**read_config("rsc15-100k-cross-entropy"), backend="numpy")
    assert same.hyperparameters() == default
    same = GRU4Rec(**read_config("rsc15-100k-cosine"), backend="numpy")
    assert same.hyperparameters() == GRU4Rec(backend="numpy").hyperparameters()


# Hidasi's best settings: the parameters that the two reference repositories have in their README,
# as a string for their --parameter_string. Then what we must train with.
SHARED = {"input": "shared", "n_sample": 2048, "n_epochs": 10, "final": ("linear", 0.0)}
PUBLISHED = {
    "rsc15": (
        "loss=cross-entropy,constrained_embedding=True,embedding=0,elu_param=0,layers=100,"
        "n_epochs=10,batch_size=32,dropout_p_embed=0.1,dropout_p_hidden=0,learning_rate=0.1,"
        "momentum=0,n_sample=2048,sample_alpha=0.75,bpreg=0,logq=1",
        SHARED | {
            "loss": "cross-entropy", "layers": [100], "batch_size": 32, "dropout_p_embed": 0.1,
            "dropout_p_hidden": 0, "learning_rate": 0.1, "momentum": 0, "sample_alpha": 0.75,
            "logq": 1,
        },
    ),
    "yoochoose": (
        "loss=cross-entropy,constrained_embedding=True,embedding=0,final_act=softmax,layers=480,"
        "n_epochs=10,batch_size=48,dropout_p_embed=0.0,dropout_p_hidden=0.2,learning_rate=0.07,"
        "momentum=0.0,n_sample=2048,sample_alpha=0.2,bpreg=0.0,logq=1.0",
        SHARED | {
            "loss": "cross-entropy", "layers": [480], "batch_size": 48, "dropout_p_embed": 0,
            "dropout_p_hidden": 0.2, "learning_rate": 0.07, "momentum": 0, "sample_alpha": 0.2,
            "logq": 1,
        },
    ),
    "rees46": (
        "loss=cross-entropy,constrained_embedding=True,embedding=0,elu_param=0,layers=512,"
        "n_epochs=10,batch_size=240,dropout_p_embed=0.45,dropout_p_hidden=0.0,"
        "learning_rate=0.065,momentum=0.0,n_sample=2048,sample_alpha=0.5,bpreg=0.0,logq=1.0",
        SHARED | {
            "loss": "cross-entropy", "layers": [512], "batch_size": 240, "dropout_p_embed": 0.45,
            "dropout_p_hidden": 0, "learning_rate": 0.065, "momentum": 0, "sample_alpha": 0.5,
            "logq": 1,
        },
    ),
    "coveo": (
        "loss=bpr-max,constrained_embedding=True,embedding=0,final_act=elu-1,layers=512,"
        "n_epochs=10,batch_size=144,dropout_p_embed=0.35,dropout_p_hidden=0.0,learning_rate=0.05,"
        "momentum=0.4,n_sample=2048,sample_alpha=0.2,bpreg=1.85,logq=0.0",
        SHARED | {
            "loss": "bpr-max", "layers": [512], "batch_size": 144, "dropout_p_embed": 0.35,
            "dropout_p_hidden": 0, "learning_rate": 0.05, "momentum": 0.4, "sample_alpha": 0.2,
            "bpreg": 1.85, "final": ("elu", 1.0),
        },
    ),
    "retailrocket": (
        "layers=224,batch_size=80,dropout_p_embed=0.5,dropout_p_hidden=0.05,learning_rate=0.05,"
        "momentum=0.4,n_sample=2048,sample_alpha=0.4,bpreg=1.95,logq=0.0,loss=bpr-max,"
        "constrained_embedding=True,elu_param=0.5,n_epochs=10",
        SHARED | {
            "loss": "bpr-max", "layers": [224], "batch_size": 80, "dropout_p_embed": 0.5,
            "dropout_p_hidden": 0.05, "learning_rate": 0.05, "momentum": 0.4, "sample_alpha": 0.4,
            "bpreg": 1.95, "final": ("elu", 0.5),
        },
    ),
    "diginetica": (
        "loss=bpr-max,constrained_embedding=True,embedding=0,elu_param=1,layers=512,n_epochs=10,"
        "batch_size=128,dropout_p_embed=0.5,dropout_p_hidden=0.3,learning_rate=0.05,momentum=0.15,"
        "n_sample=2048,sample_alpha=0.3,bpreg=0.9,logq=0.0",
        SHARED | {
            "loss": "bpr-max", "layers": [512], "batch_size": 128, "dropout_p_embed": 0.5,
            "dropout_p_hidden": 0.3, "learning_rate": 0.05, "momentum": 0.15, "sample_alpha": 0.3,
            "bpreg": 0.9, "final": ("elu", 1.0),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("source", ["--params", "--config"])
def test_the_six_published_best_settings(name, source):
    text, wanted = PUBLISHED[name]
    argument = text if source == "--params" else name
    _, model, _ = settings([source, argument, "--backend", "numpy"])
    assert {n: getattr(model.hp, n) for n in wanted if n != "final"} | {
        "final": model.hp.final_activation
    } == wanted
    # What they leave to their program: GRUs as cuDNN's, Adagrad, tanh, no other regularisation.
    rest = {n: getattr(model.hp, n) for n in ("unit", "reset_after", "hidden_act", "adapt", "bptt")}
    assert tuple(rest.values()) == ("gru", True, "tanh", "adagrad", 1)
    assert (model.lmbd, model.grad_cap, model.smoothing, model.sigma) == (0, 0, 0, 0)
    assert not (model.train_random_order or model.init_as_normal or model.feedforward)


def test_after_a_run_far_from_the_published_settings_the_configuration_is_named():
    assert fitting_config(Hyperparameters(), 10_000) is None
    for name in CONFIGURATIONS:
        assert fitting_config(Hyperparameters(**read_config(name)), 10_000) is None, name
    _, model, _ = settings(["--params", "loss=bpr-max", "--backend", "numpy"])
    line = fitting_config(model.hp, 60_000)
    assert "batch_size, momentum, dropout_p_embed;" in line
    assert line.endswith("--config rsc15-100k-bpr-max")
    line = fitting_config(model.hp, 60_000_000)
    assert line.endswith(("--config coveo", "--config retailrocket", "--config diginetica"))
    assert fitting_config(Hyperparameters(momentum=0.1), 60_000) is None  # not far
    assert fitting_config(Hyperparameters(unit="lstm", learning_rate=1, momentum=0.1), 9) is None


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
