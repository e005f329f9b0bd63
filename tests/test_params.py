"""Hyperparameters of a model: scikit-learn's conventions, later changes, copies, the signature."""

import copy
import inspect
import pickle
import pydoc
import sys
from unittest import mock

import numpy as np
import pytest

from gru4rec_np import GRU4Rec, InputError, Shop, models
from gru4rec_np.models import BASELINES, NARM, ON_A_BACKEND
from gru4rec_np.models.neural import progress

SHOP = Shop(n_items=40)
LOG = SHOP.simulate(60)
SMALL = {
    "GRU4Rec": {"layers": [4], "n_sample": 8, "n_epochs": 1, "backend": "numpy"},
    "hybrid": {"layers": [4], "n_sample": 8, "n_epochs": 1, "backend": "numpy"},
    "NARM": {"embedding": 3, "hidden": 4, "n_epochs": 1, "backend": "numpy"},
    "BPR-MF": {"factors": 4, "n_epochs": 1},
    "oracle": {"shop": SHOP},
}
MODELS = ON_A_BACKEND | BASELINES


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param](**SMALL.get(request.param, {}))


@pytest.fixture(scope="module")
def trained():
    return GRU4Rec(**SMALL["GRU4Rec"]).fit(LOG)


# --- get_params, set_params, scikit-learn ---------------------------------------------------------


def test_what_was_given_is_returned(model):
    params = model.get_params()
    assert list(params) == list(inspect.signature(type(model)).parameters)
    again = type(model)(**params)
    assert all(value is params[name] for name, value in again.get_params().items())
    assert again.hp == model.hp


def test_values_are_converted_for_use_and_returned_as_given():
    layers = (8, 4.0)
    m = GRU4Rec(layers=layers, learning_rate=1, backend="numpy")
    assert m.get_params()["layers"] is layers and m.layers == [8, 4]
    assert type(m.get_params()["learning_rate"]) is int and type(m.learning_rate) is float
    m.set_params(dropout_p_embed=0)
    assert m.get_params()["layers"] is layers and m.get_params(deep=False)["dropout_p_embed"] == 0


def test_a_list_that_is_changed_later_changes_no_model():
    layers = [8]
    m = GRU4Rec(layers=layers, backend="numpy")
    layers.append(3)
    m.layers.append(3)
    m.get_params()["feedforward"].append(3)
    m.n_epochs = 2
    assert m.layers == [8] and m.feedforward == [] and GRU4Rec(backend="numpy").feedforward == []


def test_clone(model):
    base = pytest.importorskip("sklearn.base")
    again = base.clone(model)
    assert again is not model and repr(again) == repr(model)
    fresh = base.clone(model.fit(LOG))
    assert fresh.hp == model.hp and not hasattr(fresh, "item_ids")


def test_grid_search():
    selection = pytest.importorskip("sklearn.model_selection")
    grid = {"layers": [[3], [5]], "learning_rate": [0.01, 0.1]}
    search = selection.GridSearchCV(GRU4Rec(**SMALL["GRU4Rec"]), grid, cv=2, error_score="raise")
    search.fit(LOG)
    assert search.best_params_["layers"] in grid["layers"]
    best = search.best_estimator_
    assert best.layers == search.best_params_["layers"]
    assert best.item_ids.tolist() == LOG.compact().item_ids.tolist()  # refitted on all sessions
    # Each fold's score is that of a model trained on the other fold.
    first, second = next(selection.KFold(2).split(LOG))
    by_hand = GRU4Rec(**SMALL["GRU4Rec"]).set_params(layers=[3], learning_rate=0.01)
    expected = by_hand.fit(LOG[first]).score(LOG[second])
    assert search.cv_results_["split0_test_score"][0] == expected
    baseline = selection.cross_val_score(BASELINES["V-SKNN"](), LOG, cv=2, error_score="raise")
    assert baseline.shape == (2,) and (baseline > 0).all()


def test_scikit_learn_is_not_needed(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert copy.deepcopy(model).set_params(**model.get_params()).fit(LOG).score(LOG) > 0


# --- later changes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("n_epochs", -3, "n_epochs: must be a whole number >= 1 .*, not -3"),
        ("learning_rate", -1, "learning_rate: must be a number > 0, not -1"),
        ("dropout_p_embed", 3, "dropout_p_embed: must be a number >= 0 and < 1, not 3"),
        ("input", "zzz", "input: must be one of onehot, .*, not 'zzz'"),
        ("embedding", 7, "embedding: 7 goes with input='embedding', not 'shared'"),
        ("backend", "abacus", "backend: must be one of .*, not 'abacus'"),
        ("backend", None, "backend: must be one of .*, not None"),
    ],
)
def test_a_later_value_is_checked(name, value, words):
    m = GRU4Rec(backend="numpy")
    before, ops = m.get_params(), m.ops
    with pytest.raises(InputError, match=words):
        setattr(m, name, value)
    with pytest.raises(InputError, match=words):
        m.set_params(n_sample=7, **{name: value})
    assert m.get_params() == before and m.ops is ops
    with pytest.raises(InputError, match=words):
        GRU4Rec(**{"backend": "numpy", name: value})


def test_unknown_names():
    with pytest.raises(TypeError, match=r"GRU4Rec: unknown hyperparameter 'n_epoch'; .*n_epochs"):
        GRU4Rec(n_epoch=3)
    with pytest.raises(InputError, match=r"GRU4Rec: unknown hyperparameter 'n_epoch'; .*backend"):
        GRU4Rec(backend="numpy").set_params(n_epoch=3)
    with pytest.raises(InputError, match=r"POP: unknown hyperparameter 'backend'"):
        BASELINES["POP"]().set_params(backend="numpy")
    with pytest.raises(AttributeError, match="GRU4Rec has no attribute 'n_epoch'"):
        GRU4Rec(backend="numpy").n_epoch  # noqa: B018


def test_a_later_value_takes_effect():
    m = GRU4Rec(**SMALL["GRU4Rec"])
    m.n_epochs, m.layers = 2, (5,)
    m.fit(LOG)
    assert len(m.history) == 2 and m.weights["V_y"].shape[1] == 5
    again = GRU4Rec(**SMALL["GRU4Rec"]).set_params(n_epochs=2, layers=[5]).fit(LOG)
    assert all(np.array_equal(w, again.weights[n]) for n, w in m.weights.items())


def test_a_later_backend_takes_effect():
    m = GRU4Rec(**SMALL["GRU4Rec"])
    m.backend = "auto"
    assert m.backend == "auto" and m.get_params()["backend"] == "auto"
    m.set_params(backend="numpy", n_epochs=2)
    assert m.ops.name == "numpy" and m.n_epochs == 2
    for name in ("numba", "cuda-emulated"):
        try:
            m.backend = name
        except InputError:
            continue  # not installed
        assert m.ops.name == name


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (GRU4Rec, "layers", [20]),
        (GRU4Rec, "unit", "lstm"),
        (NARM, "hidden", 9),
        (NARM, "normalise", False),
        (BASELINES["BPR-MF"], "factors", 9),
        (BASELINES["Item-KNN"], "alpha", 0.1),
    ],
)
def test_trained_weights_must_fit(cls, name, value, tmp_path):
    m = cls(**SMALL.get(cls.name, {})).fit(LOG)
    old = getattr(m, name)
    setattr(m, name, old)  # the same value is no change
    with pytest.raises(InputError, match=f"{name}: cannot become .*, the model is trained with"):
        setattr(m, name, value)
    assert getattr(m, name) == old
    m.save(tmp_path / "m.npz")
    again = models.load(tmp_path / "m.npz", "numpy")
    with pytest.raises(InputError, match=f"{name}: cannot become"):
        again.set_params(**{name: value})
    assert again.recommend(LOG.session(0)) == m.recommend(LOG.session(0))


def test_what_only_training_uses_may_change(trained):
    m = copy.deepcopy(trained)
    m.n_epochs, m.learning_rate, m.seed = 3, 0.01, 5
    assert m.recommend(LOG.session(0)) == trained.recommend(LOG.session(0))
    with pytest.raises(InputError, match=r"loss: cannot become 'bpr-max'.* cosines"):
        m.loss = "bpr-max"
    plain = GRU4Rec.published(layers=[4], n_epochs=1, backend="numpy").fit(LOG)
    before = plain.recommend(LOG.session(0))
    plain.loss = "bpr-max"
    assert plain.recommend(LOG.session(0)) == before


# --- copies ---------------------------------------------------------------------------------------


def test_copies(model):
    model.fit(LOG)
    session, expected = LOG.session(0), model.recommend(LOG.session(0))
    for again in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert again.recommend(session) == expected and repr(again) == repr(model)
        assert again.get_params() == model.get_params()


def test_a_deep_copy_shares_no_weights(trained):
    again = copy.deepcopy(trained)
    again.weights["V_y"][:] = 0
    assert trained.weights["V_y"].any()
    shallow = copy.copy(trained)
    shallow.n_epochs = 9
    shallow.backend = "auto"
    assert trained.n_epochs == 1 and trained.backend == "numpy"


def test_a_copy_on_the_emulated_backend():
    m = GRU4Rec(**{**SMALL["GRU4Rec"], "backend": "numpy"}).fit(LOG)
    try:
        m.backend = "cuda-emulated"
    except InputError as error:
        pytest.skip(str(error))
    assert copy.deepcopy(m).ops.name == "cuda-emulated"


# --- what is shown --------------------------------------------------------------------------------


def test_repr():
    assert repr(GRU4Rec()) == "GRU4Rec()"
    m = GRU4Rec(layers=(100,), loss="bpr-max", backend="numpy")
    assert repr(m) == "GRU4Rec(loss='bpr-max', backend='numpy')"
    m.layers = np.array([8, 4])
    assert repr(m) == "GRU4Rec(layers=[8, 4], loss='bpr-max', backend='numpy')"
    assert eval(repr(m)).hp == m.hp
    assert repr(BASELINES["V-SKNN"](k=5)) == "VSKNN(k=5)" and repr(BASELINES["POP"]()) == "POP()"
    assert repr(BASELINES["oracle"](SHOP)).startswith("Oracle(shop=Shop(")


def test_help_shows_the_defaults():
    text = pydoc.render_doc(GRU4Rec, renderer=pydoc.plaintext)
    assert "layers=[100]" in text and "loss='cross-entropy'" in text and "backend='auto'" in text
    assert "factory" not in text
    signature = inspect.signature(NARM)
    assert signature.parameters["hidden"].default == NARM(backend="numpy").hidden
    assert "backend" not in inspect.signature(BASELINES["Item-KNN"]).parameters


# --- progress -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [GRU4Rec, NARM])
def test_progress(cls, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    m = cls(**{**SMALL[cls.name], "n_epochs": 2})
    for verbose, shown in ((True, True), (False, False), (None, False)):  # None: not a terminal
        m.fit(LOG, verbose=verbose)
        text = capsys.readouterr().err
        assert ("epoch 2/2" in text and "loss" in text) == shown and bool(text) == shown


@pytest.mark.parametrize("verbose", [True, False, None])
def test_progress_in_a_notebook(verbose, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress(2, verbose) as on_chunk:
        on_chunk(1, 30, 100, 0.5)
        on_chunk(2, 100, 100, 0.25)
    assert ("200/200" in capsys.readouterr().err) == (verbose is not False)


@pytest.mark.parametrize("verbose", [True, False, None])
def test_compiling_says_so_unless_fit_is_quiet(verbose, monkeypatch):
    compiled = pytest.importorskip("gru4rec_np.backends.numba.compiled")
    kernel = mock.Mock(**{"needs.return_value": [], "is_ready.return_value": False})
    bar = mock.Mock(side_effect=lambda new, **how: new)
    monkeypatch.setattr(compiled, "tqdm", bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(1, verbose):
        compiled.prepare([kernel], None)
    assert kernel.load.called
    assert bar.call_args.kwargs["disable"] == (verbose is False)
    compiled.prepare([kernel], None)
    assert not bar.call_args.kwargs["disable"]


@pytest.mark.parametrize("seconds", [0.2, 2])
def test_compiling_without_a_terminal_is_one_plain_line(seconds, monkeypatch, capsys):
    compiled = pytest.importorskip("gru4rec_np.backends.numba.compiled")
    some = [mock.Mock(**{"needs.return_value": [], "is_ready.return_value": False})
            for _ in range(4)]  # fmt: skip
    now = iter(np.arange(0, 100, seconds))
    monkeypatch.setattr(compiled.time, "monotonic", lambda: next(now))
    compiled.prepare(some, None)
    assert all(k.load.called for k in some)
    line = "compiling, once: 0 of 4 kernels\n"
    assert capsys.readouterr().err == line * (seconds > 1)


@pytest.mark.parametrize("verbose", [True, False, None])
def test_progress_on_a_terminal(verbose, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(1, verbose) as on_chunk:
        on_chunk(1, 100, 100, 0.25)
    assert ("100/100" in capsys.readouterr().err) == (verbose is not False)
