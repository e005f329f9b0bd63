"""ONNX Runtime computes our scores from an exported network, NumPy from a page's ten lines."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_commands import command, refuses

from conftest import examples
from gru4rec_np import GRU4Rec, Shop
from gru4rec_np import __version__ as VERSION
from gru4rec_np.data.sessions import id_array
from gru4rec_np.errors import InputError
from gru4rec_np.models import NARM, narm, network, onnx_graph
from gru4rec_np.models.baselines import POP
from gru4rec_np.models.hyperparameters import Hyperparameters

onnx = pytest.importorskip("onnx", reason="needs the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")

ROOT = Path(__file__).resolve().parents[1]
I = 11  # noqa: E741 - items
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


gru4recs = st.fixed_dictionaries(
    {
        "unit": st.sampled_from(["gru", "gru", "lstm", "rnn"]),
        "input": st.sampled_from(["onehot", "embedding", "shared", "weighted"]),
        "reset_after": st.booleans(),
        "layers": st.lists(st.integers(1, 5), min_size=1, max_size=3),
        "input_to_all_layers": st.booleans(),
        "feedforward": st.lists(st.integers(1, 5), max_size=2),
        "hidden_act": st.sampled_from(
            ["tanh", "sigmoid", "relu", "linear", "leaky-0.2", "elu-0.5", "selu"]
        ),
        "discount": st.sampled_from([0.3, 0.5, 0.99]),
        "final_act": st.sampled_from(["linear", "relu"]),
        "skip": st.booleans(),
        "fade": st.sampled_from([0.0, 0.6, 1.0]),
        "cosine": st.sampled_from([0.0, 0.0, 7.0]),
        "repeat": st.sampled_from([0.0, 0.1, 1.0]),
    }
)


def filled(model, seed=0, dtype=np.float32):
    """The model with weights drawn at random, biases included, instead of trained ones."""
    shapes = model._shapes(I)
    rng = np.random.default_rng(seed)
    model.weights = {n: rng.normal(0, 0.4, shape).astype(dtype) for n, shape in shapes.items()}
    model._set_catalogue(id_array(f"i{i}" for i in range(I)))
    if isinstance(model, GRU4Rec):
        scores = rng.normal(1.0, size=2), [onnx_graph.NEVER, 1.0], [1.0, onnx_graph.NEVER]
        model.repeat_scores = np.array(scores[seed % 3])
    return model


def runtime(model, graph, k=I):
    proto = onnx_graph.build(model, graph, k, VERSION)
    onnx.checker.check_model(proto, full_check=True)
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), chosen)


def drawn(lengths, seed):
    """Sessions of these lengths, and the same padded with valid indices."""
    rng = np.random.default_rng(seed)
    padded = rng.integers(0, I, (len(lengths), max(lengths)))
    return [row[:n] for row, n in zip(padded, lengths, strict=True)], padded


def same_sessions(model, sessions, padded, k=I):
    lengths = np.array([len(session) for session in sessions])
    items, scores = runtime(model, "sessions", k).run(None, {"items": padded, "lengths": lengths})
    assert items.shape == scores.shape == (len(sessions), min(k, I))
    for n, session in enumerate(sessions):
        best = model.recommend(model.item_ids[session].tolist(), k)
        ours = dict(model.recommend(model.item_ids[session].tolist(), I))
        np.testing.assert_allclose(scores[n], [score for _, score in best], **CLOSE)
        theirs = model.item_ids[items[n]].tolist()
        np.testing.assert_allclose(scores[n], [ours[item] for item in theirs], **CLOSE)


@examples(60)
@given(gru4recs, st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 99))
def test_gru4rec_in_both_graphs(chosen, lengths, seed):
    model = filled(GRU4Rec(**chosen, backend="numpy"), seed)
    sessions, padded = drawn(lengths, seed)
    same_sessions(model, sessions, padded)

    step = runtime(model, "step")
    width = step.get_inputs()[1].shape[1]
    state, live = np.zeros((len(lengths), width), np.float32), [model.session() for _ in lengths]
    for t in range(min(lengths)):
        state, scores = step.run(None, {"item": padded[:, t], "state": state})
        for n, session in enumerate(live):
            session.feed_index(int(padded[n, t]))
            np.testing.assert_allclose(scores[n], session.scores(), **CLOSE)
    assert state.shape == (len(lengths), width)


@pytest.mark.parametrize("normalise", [True, False])
def test_narm(normalise):
    model = filled(NARM(embedding=5, hidden=4, normalise=normalise, backend="numpy"))
    # 201 and 301 clicks: only a part of a long session is read, see `narm.pieces`.
    longest = narm.LONGEST
    same_sessions(model, *drawn([1, 3, longest, longest + 1, longest * 3 // 2 + 1], 1), k=5)


def test_weights_in_float64_become_float32():
    model = filled(GRU4Rec(layers=[4], backend="numpy"), dtype=np.float64)
    same_sessions(model, *drawn([3], 0))


@pytest.mark.parametrize(
    "ids",
    [np.arange(I) * 7, np.arange(I).astype("datetime64[D]"), np.arange(I).astype("datetime64[us]")],
    ids=["numbers", "days", "times"],
)
def test_ids_are_those_that_recommend_matches(ids):
    model = filled(GRU4Rec(layers=[2], backend="numpy"))
    model._set_catalogue(ids)
    (found,) = (
        prop.value
        for prop in onnx_graph.build(model, "step", I, VERSION).metadata_props
        if prop.key == "item_ids"
    )
    assert [model._index[str(item)] for item in json.loads(found)] == list(range(I))


def test_equal_scores_keep_the_order_of_the_items():
    model = filled(GRU4Rec(layers=[4], repeat=0, backend="numpy"))
    model.weights["V_y"][:] = model.weights["b_y"][:] = 0
    _, padded = drawn([2], 0)
    found = runtime(model, "sessions", 4).run(None, {"items": padded, "lengths": np.array([2])})
    assert found[0].tolist() == [[0, 1, 2, 3]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model with the defaults except its size, and its file."""
    path = tmp_path_factory.mktemp("trained") / "model.npz"
    small = {"layers": [8], "n_epochs": 1, "n_sample": 16, "backend": "numpy"}
    model = GRU4Rec(**small).fit(Shop(n_items=60).simulate(200))
    model.save(path)
    return model, path


@pytest.mark.parametrize("graph", onnx_graph.GRAPHS)
def test_the_command(trained, tmp_path, graph):
    model, path = trained
    out = tmp_path / "model.onnx"
    k = ["-k", 3] if graph == "sessions" else []
    done = command("export", path, out, "--graph", graph, *k)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: GRU4Rec, graph {graph}, {len(model.item_ids)} items, ")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(out)
    about = session.get_modelmeta().custom_metadata_map
    assert (about["model"], about["version"]) == ("GRU4Rec", VERSION)
    ids = json.loads(about["item_ids"])
    assert ids == model.item_ids.tolist()
    if graph == "sessions":
        items, _ = session.run(None, {"items": np.array([[3, 5]]), "lengths": np.array([2])})
        best = [item for item, _ in model.recommend([ids[3], ids[5]], 3)]
        assert [ids[i] for i in items[0]] == best


def test_the_command_says_if_there_are_fewer_items(trained, tmp_path):
    model, path = trained
    n = len(model.item_ids)
    too_many = f"-k {n + 1}: the model has {n} items, so the graph returns {n}\n"
    for k, said in ((n, ""), (n + 1, too_many)):
        done = command("export", path, tmp_path / "m.onnx", "--graph", "sessions", "-k", k)
        lines = done.stderr.splitlines(keepends=True)
        told = "".join(line for line in lines if not line.startswith("compiling, once"))
        assert (done.returncode, told) == (0, said)


def test_what_the_command_refuses(trained, tmp_path, monkeypatch):
    _, path = trained
    POP().fit(Shop(n_items=60).simulate(50)).save(tmp_path / "pop.npz")
    filled(NARM(embedding=2, hidden=2, backend="numpy")).save(tmp_path / "narm.npz")
    out = tmp_path / "model.onnx"
    refuses(command("export", tmp_path / "pop.npz", out), "POP cannot be exported", "NARM")
    refuses(command("export", tmp_path / "narm.npz", out), "--graph step: NARM", "sessions")
    refuses(command("export", path, tmp_path / "model.npz"), "must end in .onnx", "model.npz")
    refuses(command("export", path, out, "-k", 5), "-k: goes with --graph sessions")
    refuses(command("export", path, out, "--graph", "sessions", "-k", 0), "-k")
    refuses(command("export", path, tmp_path / "no" / "m.onnx"), tmp_path / "no" / "m.onnx")
    refuses(command("export", tmp_path / "none", out), "no such model file")
    monkeypatch.setitem(sys.modules, "onnx", None)
    refuses(command("export", path, out), "onnx is not installed; pip install onnx")
    assert not out.exists()


def test_a_model_too_large_for_the_format_is_refused(trained, monkeypatch):
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="an ONNX file holds less than 2"):
        onnx_graph.build(trained[0], "step", 20, VERSION)


# --- docs/model-file.md ---------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "model-file.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_ten_lines_of_numpy_serve_a_model(trained, tmp_path, monkeypatch):
    model, path = trained
    monkeypatch.chdir(path.parent)
    assert "gru4rec_np" not in SNIPPETS[0]
    scope = {}
    exec(SNIPPETS[0], scope)
    for session in (["9", model.item_ids[4]], model.item_ids[[7, 0, 7]].tolist()):
        found, best = scope["recommend"](session, 6), model.recommend(session, 6)
        assert [item for item, _ in found] == [item for item, _ in best]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in best], **CLOSE)


def test_the_onnx_examples_run(trained, tmp_path, monkeypatch):
    model, path = trained
    monkeypatch.chdir(tmp_path)
    for graph in onnx_graph.GRAPHS:
        command("export", path, "model.onnx", "--graph", graph)
        scope = {"session": model.item_ids[[2, 8]].tolist()}
        exec(SNIPPETS[1 + onnx_graph.GRAPHS.index(graph)], scope)
        assert scope["best"] == [item for item, _ in model.recommend(scope["session"], 20)]


def test_the_page_names_every_weight():
    """For all of GRU4Rec's options at once, and for NARM."""
    rows = re.findall(r"^\| `weights/(\w+)`", PAGE, re.MULTILINE)
    hp = Hyperparameters(layers=[2, 2], feedforward=[2], input="embedding")
    wanted = {*network.shapes(hp, I), *narm.shapes(narm.NARMHyperparameters(), I)}
    assert set(rows) == wanted - {"U1", "b1", "c1"}  # the page says: then U1, ...
