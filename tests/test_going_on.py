"""Going on with new sessions: the baselines equal a fit on both logs, networks keep their bits."""

import itertools
import json
import shlex
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_baselines import all_scores, logs
from test_commands import command
from test_kernels import ops_of
from test_resume import stop_at

from conftest import examples
from gru4rec_np import GRU4Rec, InputError, Sessions, Shop, models, read_table
from gru4rec_np.models import BASELINES, ON_A_BACKEND, checkpoint, going_on
from gru4rec_np.models.baselines import POP, SPOP, Markov
from gru4rec_np.models.factors import BPRMF
from gru4rec_np.models.narm import NARM
from gru4rec_np.models.neighbours import VSKNN, ItemKNN
from gru4rec_np.models.training import Stopped

SHOP = Shop(n_items=80)
LOG = SHOP.simulate(500, seed=2)
# Each part lacks some of the items.
OLD, NEW = LOG[:350], LOG[350:]
OLD = OLD.keep_events(OLD.items % 7 != 0)
NEW = NEW.keep_events(NEW.items % 7 != 1)
OLD, NEW = (part.keep_sessions(part.lengths >= 2).compact() for part in (OLD, NEW))
SMALL = {"layers": [8], "batch_size": 8, "n_sample": 16, "n_epochs": 2, "seed": 3,
         "dropout_p_embed": 0.0}  # fmt: skip
NARM_SMALL = {"embedding": 5, "hidden": 6, "n_epochs": 2, "batch_size": 16, "n_sample": 20}
COUNTED = [
    POP(),
    SPOP(),
    Markov(),
    ItemKNN(neighbours=4),
    VSKNN(k=3, sample=4),
]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr("gru4rec_np.models.training.CHUNK", (8, 8))


def test_the_logs_overlap_and_have_new_items():
    known = set(OLD.item_ids.tolist())
    assert 0 < len(known - set(NEW.item_ids.tolist()))
    assert 0 < len(set(NEW.item_ids.tolist()) - known)


def same(a, b):
    assert a.weights.keys() == b.weights.keys()
    for name, p in a.weights.items():
        np.testing.assert_array_equal(p, b.weights[name], err_msg=name)


@pytest.mark.parametrize("method", COUNTED, ids=lambda m: m.name)
@examples(100)
@given(logs, logs, st.randoms(use_true_random=False))
def test_a_baseline_equals_a_fit_on_both_logs(method, first, second, random):
    both = Sessions.from_lists([*first, *second])
    times = np.array([random.randrange(50) for _ in both.items], float)
    times = np.concatenate([np.sort(times[both.offsets[s] : both.offsets[s + 1]])
                            for s in range(len(both))])  # fmt: skip
    both = Sessions(both.items, both.offsets, times, both.item_ids, both.session_ids)
    old, new = both[: len(first)], both[len(first) :]
    method = type(method)(**method.get_params())
    method.fit(old).fit_more(new)
    anew = type(method)(**method.get_params()).fit(both)
    # from_lists numbers the items by first appearance, so both have the same order.
    np.testing.assert_array_equal(method.item_ids, anew.item_ids)
    np.testing.assert_array_equal(all_scores(method, both), all_scores(anew, both))


@pytest.mark.parametrize("name", [*BASELINES, *ON_A_BACKEND])
def test_from_a_file_as_from_memory(name, tmp_path):
    cls = (BASELINES | ON_A_BACKEND)[name]
    values = {"oracle": {"shop": SHOP}, "GRU4Rec": SMALL, "NARM": NARM_SMALL, "hybrid": SMALL}
    values = values.get(name, {})
    model = cls(**values).fit(OLD)
    model.save(tmp_path / "model.npz")
    loaded = cls.load(tmp_path / "model.npz")
    if name in ON_A_BACKEND:
        getattr(model, "network", model).memory = None  # a file has none
    model.fit_more(NEW)
    loaded.fit_more(NEW)
    np.testing.assert_array_equal(model.item_ids[: OLD.n_items], OLD.item_ids)
    assert set(model.item_ids.tolist()) == {*OLD.item_ids.tolist(), *NEW.item_ids.tolist()}
    items = model.item_ids[[0, -1]]  # an old and a new one
    assert model.recommend(items) == loaded.recommend(items)
    model.save(tmp_path / "more.npz")
    assert cls.load(tmp_path / "more.npz").recommend(items) == model.recommend(items)


def test_bpr_mf_goes_on_from_its_vectors():
    model = BPRMF(factors=4, n_epochs=1, learning_rate=1e-9).fit(OLD)
    V = model.V.copy()
    model.fit_more(NEW)
    np.testing.assert_allclose(model.V[: len(V)], V, atol=1e-6)
    assert model.V[len(V) :].any(axis=1).all()


@pytest.mark.parametrize("old_file", [ItemKNN, VSKNN, POP])
def test_a_baseline_of_an_older_file_says_what_it_lacks(old_file, tmp_path):
    old_file().fit(OLD).save(tmp_path / "model.npz")
    about, arrays = checkpoint.load(tmp_path / "model.npz")
    about = {k: v for k, v in about.items() if k not in ("format", "version")}
    kept = {
        n: a for n, a in arrays.items() if n.split("/")[1:2] not in [[k] for k in old_file.kept]
    }
    checkpoint.save(tmp_path / "older.npz", about, kept)
    older = models.load(tmp_path / "older.npz")
    scores = older.recommend(OLD.session(0))
    with pytest.raises(InputError, match=r"older file, which lacks .*: fit it anew on both logs"):
        older.fit_more(NEW)
    assert older.recommend(OLD.session(0)) == scores


# --- the rows of new items ------------------------------------------------------------------------


@examples(200)
@given(logs, st.integers(0, 9))
def test_shares_are_those_of_the_sessions(lists, known):
    log = Sessions.from_lists([*lists, list(range(9))])
    known = min(known, log.n_items)
    found = going_on.shares(log, known).toarray()
    sets = [set(log.items[a:b].tolist()) for a, b in itertools.pairwise(log.offsets)]
    for new in range(known, log.n_items):
        wanted = np.array([sum({i, new} <= s for s in sets) for i in range(known)], float)
        wanted = wanted / wanted.sum() if wanted.any() else wanted
        np.testing.assert_allclose(found[new - known], wanted, atol=1e-15)


def test_a_new_item_starts_from_the_mean_of_its_company():
    first = Sessions.from_lists([["a", "b"], ["b", "c"], ["c", "a"]])
    model = GRU4Rec(**SMALL, input="embedding", embedding=4).fit(first)
    old = {name: p.copy() for name, p in model.weights.items()}
    # "new" is twice with a, once with b. "alone" and "other" share no session with a known item.
    more = Sessions.from_lists([["a", "new"], ["b", "new", "a"], ["alone", "other"]])
    model.set_params(learning_rate=1e-12)
    model.fit_more(more)
    a, b, new, alone = (model.item_ids.tolist().index(i) for i in ("a", "b", "new", "alone"))
    for name in ("V_y", "b_y", "E"):
        mean = (2 * old[name][a] + old[name][b]) / 3
        np.testing.assert_allclose(model.weights[name][new], mean, atol=1e-6, err_msg=name)
    fresh = GRU4Rec(**SMALL, input="embedding", embedding=4, learning_rate=1e-12)
    fresh.fit(more.extend(model.item_ids))
    assert np.abs(model.weights["V_y"][alone]).max() > 0


# --- networks -------------------------------------------------------------------------------------

SETTINGS = {
    "plain": {},
    "onehot, adam": {"input": "onehot", "adapt": "adam", "learning_rate": 0.01},
    "lstm, momentum": {"unit": "lstm", "momentum": 0.3, "loss": "bpr-max", "final_act": "elu-0.5"},
    "weighted, two layers": {"input": "weighted", "layers": [6, 5], "dropout_p_embed": 0.2},
    "uniform negatives": {"sample_alpha": 0.0, "logq": 1.0},
}


@pytest.mark.parametrize("backend", ["numpy", "numba", "cuda-emulated"])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_backend_goes_on(name, backend):
    ops_of(backend)
    values = SMALL | SETTINGS[name]
    plain = GRU4Rec(**values).fit(OLD)
    model = GRU4Rec(**values, backend=backend)
    model._set_catalogue(plain.item_ids)
    model.weights, model.memory, model.support = plain.weights, plain.memory, plain.support
    plain, model = plain.fit_more(NEW, keep_counts=True), model.fit_more(NEW, keep_counts=True)
    if not values.get("dropout_p_embed"):  # backends draw other masks
        np.testing.assert_allclose(model.losses, plain.losses, rtol=1e-3)
        for weight, p in plain.weights.items():
            np.testing.assert_allclose(model.weights[weight], p, atol=2e-3, err_msg=weight)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_bits_twice_and_the_other_rows_stay(name):
    values = SMALL | SETTINGS[name]
    a, b = (GRU4Rec(**values).fit(OLD).fit_more(NEW) for _ in range(2))
    same(a, b)
    assert [row["epoch"] for row in a.history] == [1, 2]


def test_memory_goes_on():
    with_memory, without = (GRU4Rec(**SMALL).fit(OLD) for _ in range(2))
    before = with_memory.memory["U0"]["a"].copy()
    without.memory = None
    with_memory.fit_more(NEW)
    without.fit_more(NEW)
    assert (with_memory.memory["U0"]["a"] >= before).all()
    assert not (without.memory["U0"]["a"] >= before).all()
    with_memory.set_params(adapt="adam")
    assert with_memory.memory is None
    with_memory.fit_more(NEW)


def test_momentum_may_come_and_go():
    model = GRU4Rec(**SMALL).fit(OLD)
    model.set_params(momentum=0.2)
    model.fit_more(NEW)
    model.set_params(momentum=0.0)
    model.fit_more(OLD)


def test_counts():
    model = GRU4Rec(**SMALL).fit(OLD)
    np.testing.assert_array_equal(model.support, OLD.support)
    kept, own = (GRU4Rec(**SMALL).fit(OLD).fit_more(NEW, keep_counts=c) for c in (True, False))
    new = NEW.extend(OLD.item_ids).support
    np.testing.assert_array_equal(own.support, new)
    new[: OLD.n_items] += OLD.support
    np.testing.assert_array_equal(kept.support, new)
    assert any((kept.weights[n] != own.weights[n]).any() for n in kept.weights)


def test_an_item_that_the_new_log_lacks_is_no_negative():
    """With sample_alpha > 0 its row gets no gradient; the counts of before bring it back."""
    missing = [i for i, item in enumerate(OLD.item_ids.tolist()) if item not in NEW.item_ids]
    for kept in (False, True):
        model = GRU4Rec(**SMALL).fit(OLD)
        before = model.weights["V_y"][missing].copy()
        model.fit_more(NEW, keep_counts=kept)
        assert (model.weights["V_y"][missing] != before).any() == kept


@pytest.mark.parametrize("kept", [False, True])
def test_the_corrected_logq_counts_only_what_can_be_drawn(kept, monkeypatch):
    """Targets come from the new log, samples from the counts that the sampler has."""
    model, found = GRU4Rec(**SMALL, logq_corrected=True, logq=1.0, sample_alpha=0.6), {}
    model.fit(OLD)
    plain = model.ops.stepper

    def watched(*args):
        found["log_c"] = args[-1]
        return plain(*args)

    monkeypatch.setattr(model.ops, "stepper", watched)
    model.fit_more(NEW, keep_counts=kept)
    targets = NEW.extend(OLD.item_ids).support
    samples = model.support**0.6 * (model.support > 0)
    assert (targets == 0).any() and (samples == 0).any() != kept
    wanted = 7 * targets / targets.sum() + 16 * samples / samples.sum()
    np.testing.assert_allclose(np.exp(found["log_c"]), wanted, rtol=1e-5)


@pytest.mark.parametrize("cls", [GRU4Rec, NARM])
def test_refused_and_unchanged(cls):
    values = SMALL if cls is GRU4Rec else NARM_SMALL
    with pytest.raises(InputError, match="the model is not trained"):
        cls(**values).fit_more(NEW)
    model = cls(**values).fit(OLD)
    before = model.recommend(OLD.session(0))
    with pytest.raises(InputError, match="nothing to train on"):
        model.fit_more(NEW[:0])
    with pytest.raises(InputError, match="those of the model are floats, '1' is whole numbers"):
        Sessions.from_lists([[1, 2]]).extend(np.array([1.5, 2.5]))
    with pytest.raises(InputError, match="those of the model are text, '1' is whole numbers"):
        model.fit_more([[1, 2], [2, 1]])
    model.set_params(learning_rate=1e30)
    with pytest.raises(InputError, match="diverged"):
        model.fit_more(NEW)
    assert model.recommend(OLD.session(0)) == before
    model.support = None
    with pytest.raises(InputError, match="older file, which has no counts"):
        model.fit_more(NEW, keep_counts=True)


def test_narm_goes_on():
    a, b = (NARM(**NARM_SMALL).fit(OLD).fit_more(NEW, keep_counts=True) for _ in range(2))
    same(a, b)
    assert len(a.weights["emb"]) == len(a.item_ids) > OLD.n_items


def test_a_stopped_one_resumes_to_the_same_bits(tmp_path):
    base = GRU4Rec(**SMALL).fit(OLD)
    base.save(tmp_path / "model.npz")
    memory = base.memory
    whole = base.fit_more(NEW)
    model = GRU4Rec.load(tmp_path / "model.npz")
    model.memory = memory
    with pytest.raises(Stopped):
        model.fit_more(NEW, on_chunk=stop_at(model, tmp_path / "stopped.npz", 3))
    model = GRU4Rec.load(tmp_path / "model.npz")
    model.memory = memory
    same(model.fit_more(NEW, resume=tmp_path / "stopped.npz"), whole)
    for other in (GRU4Rec(**{**SMALL, "n_epochs": 1}).fit(OLD).set_params(n_epochs=2),
                  GRU4Rec.load(tmp_path / "model.npz")):  # fmt: skip
        with pytest.raises(InputError, match="another model to start from"):
            other.fit_more(NEW, resume=tmp_path / "stopped.npz")
    with pytest.raises(InputError, match=r"another (log|model to start from)"):
        GRU4Rec(**SMALL).fit(NEW, resume=tmp_path / "stopped.npz")


# --- the command ----------------------------------------------------------------------------------


def run(line, cwd):
    name, *options = shlex.split(line)
    return command(name, *options, cwd=cwd)


def write(path, log):
    rows = (
        f"{log.session_ids[s]}\t{item}\t{log.times[log.offsets[s] + e]}"
        for s in range(len(log))
        for e, item in enumerate(log.session(s))
    )
    path.write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """old.tsv, new.tsv, and run, trained on old with its training.npz."""
    place = tmp_path_factory.mktemp("going-on")
    write(place / "old.tsv", OLD)
    write(place / "new.tsv", NEW)
    options = "--layers 8 --batch-size 8 --n-sample 16 --n-epochs 2 --seed 3 --backend numpy \
--dropout-p-embed 0"
    done = run(
        f"train --train old.tsv --split none --min-item-support 1 {options} --out run", place
    )
    assert done.returncode == 0, done.stderr
    return place


def test_the_command_is_fit_more(folder):
    done = run("train --start-from run --train new.tsv --test old.tsv --keep-counts", folder)
    assert done.returncode == 0, done.stderr
    assert f"{OLD.n_items} items are known, " in done.stdout and done.stderr == ""
    found = GRU4Rec.load(folder / "runs/new")
    old, new = (read_table(folder / name) for name in ("old.tsv", "new.tsv"))
    same(found, GRU4Rec(**SMALL, backend="numpy").fit(old).fit_more(new, keep_counts=True))
    again = run("train --config runs/new/config.toml --out again", folder)
    assert again.returncode == 0, again.stderr
    same(GRU4Rec.load(folder / "again"), found)


def test_without_a_test_set(folder):
    (folder / "alone").mkdir()
    shutil.copy(folder / "run/model.npz", folder / "alone")
    done = run("train --start-from alone/model.npz --train new.tsv --out bare --no-keep-training",
               folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "warning: alone/training.npz is missing, so adagrad's memory starts fresh and the model "
        "may become worse"
    ]
    assert "written to bare/: model.npz, config.toml, history.csv, curves.png\n" in done.stdout
    assert not (folder / "bare/metrics.json").exists()


def test_more_epochs(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    done = run(f"train --resume {tmp_path / 'run'} --n-epochs 4", folder)
    assert done.returncode == 0, done.stderr
    longer = GRU4Rec(**{**SMALL, "n_epochs": 4}, backend="numpy").fit(
        read_table(folder / "old.tsv")
    )
    same(GRU4Rec.load(tmp_path / "run"), longer)
    assert (tmp_path / "run/training.npz").exists()
    assert not (tmp_path / "run/training.toml").exists()
    assert json.loads((tmp_path / "run/config.toml").read_text().split("n_epochs = ")[1][0]) == 4


REFUSED = {
    "--start-from run": "start_from: needs the new sessions, --train FILE",
    "--start-from none --train new.tsv": "none: no such model file",
    "--start-from run --train new.tsv --layers 9": "layers: cannot become [9], the model is",
    "--start-from run --train new.tsv --unit lstm": "unit: cannot become 'lstm', the model is",
    "--start-from run --train new.tsv --split 0.1": "split: has no use with --start-from",
    "--start-from run --train new.tsv --baselines pop": "baselines: not with --start-from",
    "--start-from run --train new.tsv --params layers=8": "start_from: not with --config or",
    "--start-from run --train new.tsv --out run --overwrite": "--out run: is the run to start",
    "--start-from run --train ids.tsv": "ids.tsv: item ids: those of the model are text, '5' is",
    "--resume run": "resume: run: nothing to resume, the run is finished; --n-epochs N trains more",
    "--keep-counts": "keep_counts: has no use without --start-from",
    "--resume run --n-epochs 1": "run/training.npz: cannot resume from this file: it is in epoch 3",
    "--train old.tsv --out run": "--out run: run/model.npz is there already",
}


@pytest.mark.parametrize("options", REFUSED)
def test_refused_in_one_line(options, folder):
    (folder / "ids.tsv").write_text("SessionId\tItemId\tTime\n1\t5\t1\n1\t6\t2\n2\t5\t3\n2\t6\t4\n")
    before = sorted(folder.rglob("*"))
    done = run(f"train {options}", folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {REFUSED[options]}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", ["compare", "search"])
def test_others_need_a_test_set(command, folder):
    done = run(f"{command} --train old.tsv --split none", folder)
    assert done.returncode == 2
    assert "needs a test set, not none" in done.stderr
