"""One interface for all models; any of them is read back to the same bits, or refused."""

import numpy as np
import pytest

from gru4rec_np import GRU4Rec, InputError, Sessions, Shop, models
from gru4rec_np.models import BASELINES, ON_A_BACKEND, checkpoint

SHOP = Shop(n_items=60)
LOG = SHOP.simulate(300)
# None with the defaults: parameters must come back too.
PARAMETERS = {
    "Item-KNN": {"neighbours": 7, "lmbd": 3.0, "alpha": 0.4},
    "V-SKNN": {"k": 5, "sample": 9, "idf": 0.5, "decay": False},
    "BPR-MF": {"factors": 6, "n_epochs": 1, "seed": 5},
    "oracle": {"shop": SHOP},
    "GRU4Rec": {"layers": [4], "n_sample": 8, "n_epochs": 1},
    "hybrid": {"layers": [4], "n_sample": 8, "n_epochs": 1},
    "NARM": {"embedding": 3, "hidden": 4, "normalise": True, "n_epochs": 1},
}


@pytest.fixture(params=[*BASELINES, *ON_A_BACKEND])
def fitted(request):
    cls = (BASELINES | ON_A_BACKEND)[request.param]
    return cls(**PARAMETERS.get(request.param, {})).fit(LOG)


def test_every_model_comes_back_to_the_same_bits(fitted, tmp_path):
    path = tmp_path / "model.npz"
    fitted.save(path)
    for again in (models.load(tmp_path), type(fitted).load(path)):
        assert type(again) is type(fitted) and again.name == fitted.name
        assert again.item_ids.tolist() == fitted.item_ids.tolist()
        for ties in ("conservative", "median"):
            wanted, found = fitted.ranks(LOG, ties), again.ranks(LOG, ties)
            assert all(np.array_equal(w, f) for w, f in zip(wanted, found, strict=True))
        session = LOG.item_ids[[3, 5, 3]].tolist()
        assert again.recommend(session, 60) == fitted.recommend(session, 60)
        assert again.evaluate(LOG, (5, 20)) == fitted.evaluate(LOG, (5, 20))
        second = tmp_path / "again.npz"
        again.save(second)
        assert second.read_bytes() == path.read_bytes()


def test_number_ids_come_back_as_numbers(tmp_path):
    for name in ("POP", "V-SKNN"):
        BASELINES[name]().fit(Sessions.from_lists([[7, 8], [8, 7, 9]])).save(tmp_path / "m.npz")
        (best, _), *_ = models.load(tmp_path / "m.npz").recommend(["7"])
        assert type(best) is int


def test_nothing_to_save_or_to_ask(tmp_path):
    for name, cls in BASELINES.items():
        method = cls(**PARAMETERS.get(name, {}))
        for call in (
            lambda m=method: m.save(tmp_path / "m.npz"),
            lambda m=method: m.ranks(LOG),
            lambda m=method: m.recommend(["a"]),
        ):
            with pytest.raises(InputError, match=f"{name}: the model is not trained"):
                call()
    assert list(tmp_path.iterdir()) == []


def refused(load, path, *words):
    """Expect an InputError of one line with the path and the words."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and all(word in message for word in words), message
    assert len(message.splitlines()) == 1


def test_damaged_files(fitted, tmp_path):
    path = tmp_path / "model.npz"
    fitted.save(path)
    about, arrays = checkpoint.load(path)
    # What only `fit_more` or `repeat` needs; files of version 0.1 have none of it.
    optional = {
        "support",
        "repeat_scores",
        "GRU4Rec/support",
        *(f"learnt/{part}" for part in getattr(fitted, "kept", {})),
    }
    for name in arrays:
        broken = [{n: a for n, a in arrays.items() if n != name}] * (name not in optional)
        if not name.startswith("ids"):
            broken += [{**arrays, name: arrays[name][:-1]}, {**arrays, name: np.zeros((2, 2, 2))}]
        for parts in broken:
            checkpoint.save(path, about, parts)
            refused(models.load, path, "does not fit together")
        if name.endswith("/indices"):
            for wild in (-1, 10**6):
                checkpoint.save(path, about, {**arrays, name: np.full_like(arrays[name], wild)})
                refused(models.load, path, "does not fit together")
    for field in ("parameters", "hyperparameters"):
        if field in about:
            for value in ({"no such": 1}, 3, None):
                checkpoint.save(path, {**about, field: value}, arrays)
                refused(models.load, path, "does not fit together")
    fitted.save(path)
    path.write_bytes(path.read_bytes()[:-30])
    refused(models.load, path)


@pytest.mark.parametrize("name", ["nonesuch", 3, None, ["POP"], {}])
def test_a_model_that_is_unknown(name, tmp_path):
    checkpoint.save(tmp_path / "m.npz", {"model": name}, {})
    refused(models.load, tmp_path / "m.npz", "a model that is unknown here", repr(name))


def test_another_methods_file(tmp_path):
    BASELINES["POP"]().fit(LOG).save(tmp_path / "m.npz")
    refused(BASELINES["Markov"].load, tmp_path / "m.npz", "it holds POP, not Markov")
    refused(GRU4Rec.load, tmp_path / "m.npz", "does not fit together")
