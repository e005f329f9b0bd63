"""Sessions served click by click: alone, interleaved, from many threads, and for a long time."""

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import ops_of
from threadpoolctl import threadpool_info

from conftest import examples
from gru4rec_np import GRU4Rec, Sessions, Shop, backends, models
from gru4rec_np.backends import one_blas_thread
from gru4rec_np.models import BASELINES, ON_A_BACKEND
from gru4rec_np.ops import ranking

ALL, FAST = backends.BACKENDS[1:], ("numpy", "numba")  # FAST: with little to pay for a call
SMALL = {"n_sample": 32, "batch_size": 16, "n_epochs": 2, "seed": 3, "backend": "numpy"}
DAYS = [date(2020, 1, 2), date(2020, 1, 1)]
KINDS = {
    "usual": {"layers": [24]},
    "reset before": {"layers": [24], "reset_after": False, "input": "shared"},
    "deep": {"layers": [12, 10], "input_to_all_layers": True, "feedforward": [9]},
    "lstm": {"layers": [12], "unit": "lstm", "input": "weighted"},
    "the defaults": {"layers": [12], "skip": True, "fade": 0.8, "cosine": 10.0, "repeat": 0.3},
}


@pytest.fixture(scope="module")
def log():
    return Shop(n_items=100).simulate(1000)


@pytest.fixture(scope="module")
def served(log, tmp_path_factory):
    """served(kind, backend): the same trained weights on any backend."""
    folder, models = tmp_path_factory.mktemp("models"), {}

    def get(kind, backend):
        ops_of(backend)
        path = folder / f"{kind}.npz"
        if not path.exists():
            GRU4Rec.published(**SMALL, **KINDS[kind]).fit(log).save(path)
        if (kind, backend) not in models:
            models[kind, backend] = GRU4Rec.load(path, backend)
        return models[kind, backend]

    return get


def one_by_one(model, sessions):
    """For each session the bits of the scores after each of its clicks."""
    out = []
    for s in range(sessions.n_sessions):
        live = model.session()
        out.append([(live.feed(item), live.scores().tobytes())[1] for item in sessions.session(s)])
    return out


# --- one process, one thread ----------------------------------------------------------------------


def require_rows_alike(model):
    """The promise rests on a BLAS that treats all rows of a product alike, as those tried here do.

    So ask it, for every product of the model, about rows that are equal.
    """
    rng, W = np.random.default_rng(0), model.weights
    matrices = [array for array in W.values() if array.ndim == 2]
    for name, U in W.items():
        if name.startswith("U"):  # a GRU also multiplies its gates apart
            matrices += U[:, : 2 * len(U)], U[:, 2 * len(U) :]
    for W in matrices:
        row = np.tile(rng.normal(size=len(W)).astype(W.dtype), (ranking.PADDED_ROWS, 1))
        column = np.tile(rng.normal(size=W.shape[1]).astype(W.dtype), (ranking.PADDED_ROWS, 1))
        for product in (row @ W, (W @ column.T).T):
            if (product != product[0]).any():
                pytest.skip(f"BLAS adds the rows of a product with {W.shape} in different orders")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ALL)
def test_what_is_served_is_what_the_evaluation_ranks_by(served, log, backend, kind):
    """To the bit, for every case: the state, the scores of all items, and so the rank."""
    model = served(kind, backend)
    if model.ops.fed_lanes != ranking.PADDED_ROWS:
        pytest.skip("a GPU feeds more sessions at once than serving, equal up to rounding")
    one_blas_thread(require_rows_alike)(model)
    n = 600 if backend in FAST else 60
    some = log.keep_sessions(np.arange(log.n_sessions) < n).restrict(model.item_ids)
    found, _ = model.ranks(some)
    vectors, at = one_blas_thread(model._last_vectors)(some), 0
    compared = one_blas_thread(model.ops.catalogue_scores)(vectors, *model._output())
    for s in range(some.n_sessions):
        live = model.session()
        for item, target in pairwise(some.items[some.offsets[s] : some.offsets[s + 1]]):
            live.feed(model.item_ids[item])
            scores = live.scores()
            if kind == "the defaults":
                own = np.array(list(live._seen))  # no session here is longer than CLICKS
                floors = model._floors[np.where(own == item, 0, 1)]
                compared[at, own] = ranking.lift(compared[at, own], floors)
            assert live._out.tobytes() == vectors[at].tobytes()
            assert scores.tobytes() == compared[at].tobytes()
            assert ranking.ranks(scores[None], np.array([target])) == found[at]
            at += 1
    assert at == len(found)


def test_evaluation_of_more_sessions_side_by_side(served, log, monkeypatch):
    """As on a GPU."""
    model = served("usual", "numpy")
    some = log.keep_sessions(np.arange(log.n_sessions) < 100).restrict(model.item_ids)
    vectors = model._last_vectors(some)
    monkeypatch.setattr(model.ops, "fed_lanes", 30)
    np.testing.assert_allclose(model._last_vectors(some), vectors, atol=1e-5)


@pytest.mark.parametrize("backend", FAST)
@examples(6)
@given(seed=st.integers(0, 2**32), open_at_once=st.integers(1, 1000))
def test_interleaving_1000_sessions_does_not_show(served, log, backend, seed, open_at_once):
    model = served("usual", backend)
    assert log.n_sessions == 1000
    check_interleaving(model, log, seed, open_at_once)


@examples(5)
@given(seed=st.integers(0, 2**32), open_at_once=st.integers(1, 20))
@pytest.mark.parametrize("kind", ["usual", "lstm"])
@pytest.mark.parametrize("backend", [b for b in ALL if b not in FAST])
def test_interleaving_on_a_device(served, log, backend, kind, seed, open_at_once):
    some = log.keep_sessions(np.arange(log.n_sessions) < 20)
    check_interleaving(served(kind, backend), some, seed, open_at_once)


ALONE = {}


def check_interleaving(model, sessions, seed, open_at_once):
    """Feed clicks of `open_at_once` sessions in any order, always the next of one drawn."""
    key = id(model), sessions.n_sessions
    if key not in ALONE:
        ALONE[key] = one_by_one(model, sessions)
    rng = np.random.default_rng(seed)
    waiting, live = rng.permutation(sessions.n_sessions).tolist(), []
    while waiting or live:
        while waiting and len(live) < open_at_once:
            s = waiting.pop()
            live.append((s, model.session(), iter(zip(sessions.session(s), ALONE[key][s]))))  # noqa: B905
        i = int(rng.integers(len(live)))
        _, session, clicks = live[i]
        for item, alone in clicks:
            assert session.feed(item)
            assert session.scores().tobytes() == alone
            break
        else:
            live[i] = live[-1]
            live.pop()


# --- many threads ---------------------------------------------------------------------------------


@pytest.fixture
def impatient():
    """Threads take turns every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(n, work):
    """The results of work(0) ... work(n - 1), begun at once, each in a thread of its own."""
    start = threading.Barrier(n)

    def run(i):
        start.wait()
        return work(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


@pytest.mark.parametrize("backend", ALL)
def test_threads_share_a_model(served, log, backend, impatient):
    """Each makes sessions and feeds them while the others do; one asks and evaluates meanwhile."""
    model = served("usual", backend)
    n = 240 if backend in FAST else 24
    some = log.keep_sessions(np.arange(log.n_sessions) < n)
    alone, metrics = one_by_one(model, some), model.evaluate(some)
    asked = [model.recommend(some.session(s), 5) for s in range(n // 6)]
    before = {name: array.copy() for name, array in model.weights.items()}

    def work(i):
        if i == 0:
            return [model.recommend(some.session(s), 5) for s in range(n // 6)]
        if i == 1:
            return model.evaluate(some)
        mine = slice(i - 2, n, 4)
        lives = [(model.session(), some.session(s)) for s in range(n)[mine]]
        found = [[] for _ in lives]
        for t in range(some.lengths.max()):  # all of its sessions side by side
            for (live, items), out in zip(lives, found, strict=True):
                if t < len(items):
                    live.feed(items[t])
                    out.append(live.scores().tobytes())
        return found == alone[mine]

    assert in_threads(6, work) == [asked, metrics, True, True, True, True]
    assert all((model.weights[name] == array).all() for name, array in before.items())


@pytest.mark.parametrize("name", ["NARM", "hybrid", *(n for n in BASELINES if n != "oracle")])
def test_threads_share_other_models(log, name, impatient):
    small = log.keep_sessions(np.arange(log.n_sessions) < 200)
    on_numpy = {"n_epochs": 1, "backend": "numpy"} if name in ON_A_BACKEND else {}
    model = (ON_A_BACKEND | BASELINES)[name](**on_numpy)
    model.fit(small)
    alone = [model.recommend(small.session(s), 5) for s in range(40)]
    found = in_threads(4, lambda i: [model.recommend(small.session(s), 5) for s in range(40)])
    assert found == [alone] * 4


def blas_threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_the_blas_limit_holds_until_the_last_thread_is_out():
    """It is the process's: a thread that leaves must not lift it under another, nor keep it."""
    before, inside = blas_threads(), []
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    @one_blas_thread
    def first():
        first_in.set()
        assert second_in.wait(10)

    @one_blas_thread
    def second():
        second_in.set()
        assert first_out.wait(10)
        inside.append(blas_threads())

    a, b = threading.Thread(target=first), threading.Thread(target=second)
    a.start()
    assert first_in.wait(10)
    b.start()
    a.join()
    first_out.set()
    b.join()
    assert inside == [[1] * len(before)]
    assert blas_threads() == before


def test_the_blas_limit_is_lifted_after_an_error():
    before = blas_threads()

    @one_blas_thread
    def fails():
        assert set(blas_threads()) == {1}
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert blas_threads() == before


def test_threads_evaluate_at_once_whatever_layer_numba_has():
    pytest.importorskip("numba")
    code = (
        "import threading, numpy as np\n"
        "from gru4rec_np.backends import load\n"
        "ops, rng = load('numba'), np.random.default_rng(0)\n"
        "h, V = rng.random((2000, 16), 'f'), rng.random((4000, 16), 'f')\n"
        "args = h, V, np.zeros(4000, 'f'), rng.integers(0, 4000, 2000)\n"
        "alone, same = ops.rank_targets(*args), []\n"
        "def work():\n"
        "    same.extend((ops.rank_targets(*args) == alone).all() for _ in range(5))\n"
        "threads = [threading.Thread(target=work) for _ in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(len(same), all(same))"
    )
    env = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "15 True\n", done.stderr[-500:]


# --- a long time ----------------------------------------------------------------------------------

CALLS = int(os.environ.get("GRU4REC_NP_LEAK_CALLS", 10_000))
MAY_GROW = 2**20 * 4  # bytes; a leak of 50 bytes a call would be 5 MB in 100,000 calls


def resident():
    """Bytes of memory that this process holds."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        pytest.skip("this system does not say how much memory a process holds")
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_memory_is_flat_over_many_recommendations(served, log, backend):
    model = served("usual", backend)
    sessions = [log.session(s).tolist()[:3] for s in range(100)]
    for i in range(1000):
        model.recommend(sessions[i % 100], 10)
    before = resident()
    for i in range(CALLS):
        model.recommend(sessions[i % 100], 10)
    grown = resident() - before
    print(f"{backend}: {CALLS:,} calls, {grown / 2**20:+.2f} MB")
    assert grown < MAY_GROW


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_memory_is_flat_over_many_epochs(log, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    held, half = [], log.keep_sessions(np.arange(log.n_sessions) < log.n_sessions // 2)
    model = GRU4Rec.published(**{**SMALL, "n_epochs": 20, "backend": backend}, layers=[24])
    model.fit(half, on_epoch=lambda _: held.append(resident()))
    print(f"{backend}: 20 epochs, {(held[-1] - held[4]) / 2**20:+.2f} MB since the fifth")
    assert len(held) == 20 and held[-1] - held[4] < MAY_GROW


def test_a_served_session_of_10000_clicks_costs_what_one_click_does(served):
    """The state does not grow with the session."""
    model = served("lstm", "numpy")  # its input is weighted: the one with a history
    live = model.session()
    sizes = set()
    for i in range(10_000):
        live.feed(model.item_ids[i % 50])
        if i % 1000 == 0:
            sizes.add((live._state.h[0].nbytes, live._state.history.nbytes))
    assert len(sizes) == 1


@pytest.mark.parametrize(
    "ids",
    [
        [3, 1, 2],
        ["x", " x", "e\u0301"],
        [1.0, 2.5, 3.0],
        [True, False],
        DAYS,
        "".join("\u05d0b\U0001f600"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["GRU4Rec", "NARM", "hybrid", "Item-KNN"])
def test_ids_come_out_as_they_went_in(ids, name, tmp_path):
    """Of the type that the column held, from a file of the model too."""
    ids = list(ids)
    columns = {"SessionId": np.repeat(np.arange(8), len(ids)), "ItemId": 8 * ids}
    frame = pl.DataFrame({**columns, "Time": np.arange(8 * len(ids))})
    on_numpy = {"n_epochs": 1, "backend": "numpy"} if name in ON_A_BACKEND else {}
    model = (ON_A_BACKEND | BASELINES)[name](**on_numpy)
    model.fit(frame).save(tmp_path / "model.npz")
    for m in (model, models.load(tmp_path, "numpy")):
        best = [item for item, _ in m.recommend(ids[:2], len(ids))]
        assert sorted(best) == sorted(ids) and {type(i) for i in best} == {type(ids[0])}
    assert model.evaluate(frame)["recall@20"] == 1


def test_a_session_of_30000_clicks_among_normal_ones(log):
    """It is trained on, evaluated and asked about in time that grows with its clicks only."""
    rng = np.random.default_rng(0)
    names = log.item_ids.tolist()
    long = [names[i] for i in rng.integers(0, len(names), 30_000)]
    normal = [log.session(s).tolist() for s in range(200)]
    sessions = Sessions.from_lists([*normal[:100], long, *normal[100:]])
    backend = "numba" if find_spec("numba") else "numpy"
    model = GRU4Rec.published(**{**SMALL, "n_epochs": 1, "backend": backend}, layers=[8])
    began = time.perf_counter()
    model.fit(sessions)
    found, before = model.ranks(sessions)
    assert len(model.recommend(long, 5)) == 5
    took = time.perf_counter() - began
    print(f"{took:.1f} s")
    assert len(found) == len(sessions.cases) and before.max() == 29_999
    assert took < 90


def test_a_session_of_one_item_is_served():
    model = GRU4Rec.published(**SMALL, layers=[4]).fit(
        Sessions.from_lists([["a", "b"], ["b", "a"], ["c"]])
    )
    assert [item for item, _ in model.recommend(["a"], 5)] in (["a", "b"], ["b", "a"])
