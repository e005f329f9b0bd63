"""A model's hyperparameters: given, read, changed, copied, searched over; and what it refuses."""

import copy
import inspect
import sys

import numpy as np
import pytest

from gru4rec_np import NARM, GRU4Rec, InputError, Shop
from gru4rec_np.models import BASELINES, NETWORKS
from gru4rec_np.models.base import progress
from gru4rec_np.models.hyperparameters import DEFAULTS

SHOP = Shop(n_items=30)
LOG = SHOP.simulate(60).compact()
SMALL = {
    "GRU4Rec": {"layers": [3], "n_sample": 4, "n_epochs": 1, "backend": "numpy"},
    "NARM": {"embedding": 3, "hidden": 2, "n_epochs": 1, "backend": "numpy"},
    "BPR-MF": {"factors": 3, "n_epochs": 1},
    "oracle": {"shop": SHOP},
}
MODELS = {**NETWORKS, **BASELINES}


def make(name):
    return MODELS[name](**SMALL.get(name, {}))


@pytest.mark.parametrize("name", MODELS)
def test_what_was_given_is_returned(name):
    given = SMALL.get(name, {})
    params = make(name).get_params()
    assert all(params[key] is value for key, value in given.items())
    assert set(params) == set(inspect.signature(MODELS[name]).parameters)


@pytest.mark.parametrize("name", MODELS)
def test_scikit_learn_clones_it(name):
    sklearn = pytest.importorskip("sklearn")
    model = make(name).fit(LOG)
    clone = sklearn.base.clone(model)
    assert not hasattr(clone, "item_ids") and clone.get_params() == model.get_params()


def test_scikit_learn_searches_over_it():
    pytest.importorskip("sklearn")
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(make("GRU4Rec"), {"layers": [[2], [4]], "loss": ["bpr-max"]}, cv=2)
    search.fit(LOG)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and search.best_score_ == scores.max()
    assert search.best_estimator_.loss == "bpr-max"
    assert search.best_estimator_.score(LOG) == search.best_estimator_.evaluate(LOG)["recall@20"]


def test_the_signature_shows_names_and_defaults():
    shown = inspect.signature(GRU4Rec).parameters
    assert shown["loss"].default == "cross-entropy" and shown["backend"].default == "auto"
    assert list(shown) == [*DEFAULTS, "backend"]


def test_repr_names_what_differs_from_the_defaults():
    assert repr(make("GRU4Rec")) == "GRU4Rec(layers=[3], n_sample=4, n_epochs=1, backend='numpy')"
    assert repr(BASELINES["POP"]()) == "POP()"


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_epochs", -3), ("learning_rate", -1), ("dropout_p_embed", 3), ("input", "zzz"),
     ("backend", "tpu"), ("embedding", 5)],
)  # fmt: skip
@pytest.mark.parametrize("fitted", [False, True])
def test_a_wrong_value_set_later_is_refused(name, value, fitted):
    model = make("GRU4Rec")
    if fitted:
        model.fit(LOG)
    before = model.get_params()
    for change in (lambda: setattr(model, name, value), lambda: model.set_params(**{name: value})):
        with pytest.raises(InputError, match=f"^{name}: "):
            change()
        assert model.get_params() == before and getattr(model, name) == before[name]


def test_of_several_values_none_is_set_if_one_is_wrong():
    model = make("GRU4Rec")
    with pytest.raises(InputError, match="n_epochs"):
        model.set_params(learning_rate=0.5, n_epochs=0)
    assert model.learning_rate == DEFAULTS["learning_rate"]


def test_an_unknown_name_is_refused():
    with pytest.raises(TypeError, match="unknown hyperparameter 'layer'; known are layers"):
        GRU4Rec(layer=[3])
    with pytest.raises(InputError, match="unknown hyperparameter 'layer'"):
        make("GRU4Rec").set_params(layer=[3])


@pytest.mark.parametrize(
    ("name", "changes"),
    [("GRU4Rec", {"layers": [5]}), ("GRU4Rec", {"unit": "lstm"}), ("GRU4Rec", {"input": "onehot"}),
     ("GRU4Rec", {"hidden_act": "relu"}), ("NARM", {"hidden": 4}), ("BPR-MF", {"factors": 4}),
     ("Item-KNN", {"neighbours": 7}), ("V-SKNN", {"sample": 7})],
)  # fmt: skip
def test_what_trained_weights_depend_on_stays(name, changes, tmp_path):
    model = make(name)
    model.set_params(**changes).set_params(**{**make(name).get_params()})  # before: as one likes
    model.fit(LOG)
    with pytest.raises(InputError, match=f"{next(iter(changes))}: cannot become"):
        model.set_params(**changes)
    model.save(tmp_path / "m.npz")
    again = MODELS[name].load(tmp_path / "m.npz")
    assert (again.ranks(LOG)[0] == model.ranks(LOG)[0]).all()


def test_others_change_after_training():
    model = make("GRU4Rec").fit(LOG)
    model.n_epochs, model.learning_rate = 2, 0.01
    assert len(model.fit(LOG).history) == 2


def test_the_backend_changes():
    model = GRU4Rec(backend="numpy")
    assert model.ops.name == "numpy"
    model.backend = "auto"
    assert model.backend == "auto" and model.ops.why != "chosen by --backend"


def test_lists_that_are_handed_out_or_in_do_not_reach_the_model():
    layers = [3]
    model = GRU4Rec(layers=layers, backend="numpy")
    layers.append(4)
    model.layers.append(5)
    assert model.layers == [3] and model.hp.layers == [3]


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_stands_alone(name):
    model = make(name).fit(LOG)
    other = copy.deepcopy(model)
    wanted = model.ranks(LOG)[0]
    if name in NETWORKS:
        other.weights[next(iter(other.weights))][:] = 0
    assert (model.ranks(LOG)[0] == wanted).all() and other.get_params() == model.get_params()


@pytest.mark.parametrize("model", [GRU4Rec, NARM])
def test_progress(model, capsys, monkeypatch):
    made = make(model.name)
    made.fit(LOG)
    assert capsys.readouterr().err == ""  # no terminal here
    made.fit(LOG, verbose=True)
    assert "epoch 1/1" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    made.fit(LOG, verbose=False)
    assert capsys.readouterr().err == ""
    with progress(2, None) as show:
        show(1, 5, 10, 0.5)
    assert "epoch 1/2" in capsys.readouterr().err
