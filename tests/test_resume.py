"""A training that is stopped and goes on ends with the bits of one that never was."""

import numpy as np
import pytest
from test_kernels import ops_of

from gru4rec_np import GRU4Rec, InputError, Shop
from gru4rec_np.models import checkpoint
from gru4rec_np.models.training import Stopped

LOG = Shop(n_items=120).simulate(700, seed=3)
SMALL = {"layers": [12], "batch_size": 8, "n_sample": 24, "n_epochs": 3, "seed": 5}
SETTINGS = {
    "plain": {},
    "everything": {
        "momentum": 0.3,
        "decay": True,
        "dropout_p_embed": 0.2,
        "dropout_p_hidden": 0.1,
        "train_random_order": True,
        "loss": "bpr-max",
        "final_act": "elu-0.5",
    },
    "embedding, adam, time": {"input": "embedding", "embedding": 8, "adapt": "adam", "bptt": 3,
                              "learning_rate": 0.01},
    "lstm, layers": {"unit": "lstm", "layers": [8, 6], "grad_cap": 1.0, "lmbd": 1e-5},
    "all items": {"n_sample": "all", "cosine": 8.0, "skip": True, "fade": 0.6, "batch_size": 12,
                  "dropout_p_embed": 0.2},
    "weighted": {"input": "weighted", "adapt": "adadelta", "learning_rate": 1.0},
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr("gru4rec_np.models.training.CHUNK", (64, 64))


def stop_at(model, path, chunk):
    """Callback that saves at a chunk, the first is 0, and stops there."""
    calls = iter(range(10**6))

    def on_chunk(*_):
        if next(calls) == chunk:
            model.training.save(path)
            raise Stopped

    return on_chunk


def stopped_and_resumed(settings, path, chunks, backend="numpy", **more):
    """A model trained in pieces, each in an object of its own."""
    for i, chunk in enumerate(chunks):
        model = GRU4Rec.published(**settings, backend=backend)
        with pytest.raises(Stopped):
            model.fit(LOG, stop_at(model, path, chunk), resume=path if i else None, **more)
    return GRU4Rec.published(**settings, backend=backend).fit(LOG, resume=path, **more)


def same(a, b):
    for name, p in a.weights.items():
        np.testing.assert_array_equal(p, b.weights[name], err_msg=name)
    np.testing.assert_array_equal(a.losses, b.losses)
    timed = ("seconds", "events_per_second")
    strip = [
        [{k: v for k, v in row.items() if k not in timed} for row in m.history] for m in (a, b)
    ]
    assert strip[0] == strip[1]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_bits(name, backend, tmp_path):
    if backend == "numba":
        pytest.importorskip("numba")
    settings = {**SMALL, **SETTINGS[name]}
    whole = GRU4Rec.published(**settings, backend=backend).fit(LOG)
    pieces = stopped_and_resumed(settings, tmp_path / "t.npz", [0, 2, 4], backend)
    same(whole, pieces)


def test_at_any_chunk(tmp_path):
    """Also the last of an epoch and the last of all."""
    settings = {**SMALL, **SETTINGS["everything"]}

    def on_chunk(*_):
        model.training.save(tmp_path / f"{len(list(tmp_path.iterdir()))}.npz")

    model = GRU4Rec.published(**settings, backend="numpy")
    model.fit(LOG, on_chunk)
    assert len(list(tmp_path.iterdir())) == 17
    for chunk in range(16):
        resumed = GRU4Rec.published(**settings, backend="numpy")
        same(model, resumed.fit(LOG, resume=tmp_path / f"{chunk}.npz"))


@pytest.mark.parametrize("backend", ["cuda-emulated", "cuda"])
def test_on_the_device(backend, tmp_path):
    ops_of(backend)
    settings = {**SMALL, "n_epochs": 2, "momentum": 0.2}
    few = Shop(n_items=60).simulate(150, seed=3)
    whole = GRU4Rec.published(**settings, backend=backend).fit(few)
    path = tmp_path / "t.npz"
    model = GRU4Rec.published(**settings, backend=backend)
    with pytest.raises(Stopped):
        model.fit(few, stop_at(model, path, 0))
    same(whole, GRU4Rec.published(**settings, backend=backend).fit(few, resume=path))


def test_more_epochs(tmp_path):
    whole = GRU4Rec.published(**SMALL, backend="numpy").fit(LOG)
    model, path = GRU4Rec.published(**{**SMALL, "n_epochs": 1}, backend="numpy"), tmp_path / "t.npz"
    model.fit(LOG, on_epoch=lambda row: model.training.save(path))
    same(whole, GRU4Rec.published(**SMALL, backend="numpy").fit(LOG, resume=path))


def test_validation(tmp_path):
    held_out = Shop(n_items=120).simulate(200, seed=9)
    settings = {**SMALL, "learning_rate": 0.3, "n_epochs": 12}
    whole = GRU4Rec.published(**settings, backend="numpy").fit(LOG, validation=held_out, patience=2)
    scores = [row["recall@20"] for row in whole.history]
    assert len(scores) < 12 and len(scores) == int(np.argmax(scores)) + 3
    assert whole.evaluate(held_out)["recall@20"] == max(scores)
    pieces = stopped_and_resumed(
        settings, tmp_path / "t.npz", [6, 3], validation=held_out, patience=2
    )
    same(whole, pieces)


def test_patience_needs_validation():
    with pytest.raises(InputError, match=r"patience: .* 0 without validation, not 2"):
        GRU4Rec.published(**SMALL, backend="numpy").fit(LOG, patience=2)


@pytest.fixture
def saved(tmp_path):
    model, path = GRU4Rec.published(**SMALL, backend="numpy"), tmp_path / "t.npz"
    with pytest.raises(Stopped):
        model.fit(LOG, stop_at(model, path, 1))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.2, "layers": [11]}, "other hyperparameters: layers, learning_rate"),
        ({"backend": "numba"}, "another backend, numpy instead of numba"),
        ({"log": Shop(n_items=120).simulate(700, seed=4)}, "trained with another log"),
    ],
)
def test_what_does_not_fit(saved, changes, words):
    model = GRU4Rec.published(
        **{"backend": "numpy", **SMALL, **{n: v for n, v in changes.items() if n != "log"}}
    )
    with pytest.raises(InputError, match=f"t.npz: cannot resume from this file: .*{words}"):
        model.fit(changes.get("log", LOG), resume=saved)


@pytest.mark.parametrize("name", ["weights/V_y", "memory/U0/a", "h/0", "losses", "lane_history"])
def test_damaged(saved, name):
    about, arrays = checkpoint.load(saved)
    for change in (lambda a: a[:-1], lambda a: a.astype(np.float16), None):
        altered = {
            n: (change(a) if n == name else a) for n, a in arrays.items() if change or n != name
        }
        if name == "losses" and change and change(arrays[name]).dtype == np.float64:
            continue  # any number of them will do
        checkpoint.save(saved, about, altered)
        with pytest.raises(InputError, match=r"t.npz: cannot resume from this file"):
            GRU4Rec.published(**SMALL, backend="numpy").fit(LOG, resume=saved)


def test_a_finished_model_is_no_training(tmp_path):
    GRU4Rec.published(**{**SMALL, "n_epochs": 1}, backend="numpy").fit(LOG).save(
        tmp_path / "model.npz"
    )
    with pytest.raises(InputError, match="it holds a finished model, GRU4Rec"):
        GRU4Rec.published(**SMALL, backend="numpy").fit(LOG, resume=tmp_path / "model.npz")


# --- divergence -----------------------------------------------------------------------------------


def test_divergence_says_where_and_what_to_try():
    model = GRU4Rec.published(
        layers=[8], batch_size=8, n_sample=16, loss="bpr-max", learning_rate=1e4, momentum=0.5,
        n_epochs=5, backend="numpy",
    )  # fmt: skip
    words = (
        r"training diverged: the loss is \S+ at step \d+ of epoch \d+; .*learning_rate than 10000, "
        r"a lower momentum than 0.5 or grad_cap=1"
    )
    with pytest.raises(InputError, match=words):
        model.fit(LOG)


def test_what_was_kept_is_from_before_the_divergence(tmp_path, monkeypatch):
    model, path = GRU4Rec.published(**SMALL, backend="numpy"), tmp_path / "t.npz"

    def on_chunk(epoch, done, *_):
        model.training.save(path)
        if epoch == 2:
            model.training.weights["V_y"][0] = np.nan

    with pytest.raises(InputError, match=r"diverged: the loss is nan at step \d+ of epoch 2"):
        model.fit(LOG, on_chunk)
    _, arrays = checkpoint.load(path)
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    assert (
        GRU4Rec.published(**SMALL, backend="numpy").fit(LOG, resume=path).history[-1]["epoch"] == 3
    )


def test_a_loss_that_explodes_is_seen_before_it_is_infinite():
    model = GRU4Rec.published(**{**SMALL, "loss": "top1", "learning_rate": 30.0, "adapt": "sgd"},
                    backend="numpy")  # fmt: skip
    model.fit(LOG)  # top1 is bounded: no false alarm however high the rate
    model = GRU4Rec.published(**{**SMALL, "lmbd": 10.0, "learning_rate": 1.0, "adapt": "sgd"},
                    backend="numpy")  # fmt: skip
    with pytest.raises(InputError, match=r"diverged: the loss is \d"):
        model.fit(LOG)
