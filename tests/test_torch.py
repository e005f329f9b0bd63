"""Our hand-written gradients and updates against PyTorch's, which we did not write.

In float64, where both agree to rounding. PyTorch differentiates formulas written down naively: true
1-of-N vectors, a mask instead of a trick, one number after the other.
"""

import contextlib
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_narm import gradients as narm_gradients
from test_narm import random_problem
from test_network import ITEMS, gradients, random_network

from conftest import examples
from gru4rec_np import NARM, GRU4Rec, Shop
from gru4rec_np.data.batches import draw_negatives, negative_distribution, session_parallel
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import INPUTS, parse_activation
from gru4rec_np.ops.activations import SELU_ALPHA, SELU_SCALE
from gru4rec_np.ops.cells import (
    UNITS,
    gru_reset_after,
    gru_reset_after_backward,
    lstm,
    lstm_backward,
    rnn,
    rnn_backward,
)
from gru4rec_np.ops.inputs import history_length
from gru4rec_np.ops.losses import LOSSES, loss_and_gradient
from gru4rec_np.ops.optim import EPSILON, init_memory, update
from gru4rec_np.ops.scoring import TINY

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
F = torch.nn.functional

FINAL_ACTS = ("linear", "tanh", "relu", "leaky-0.3", "elu-0.5", "selu")


def leaf(array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-10)


# --- the cell -------------------------------------------------------------------------------------


def gru_cell(x, h, W, U, b, c):
    """One step of PyTorch's GRU on weights in our layout. Its z weighs the old state: -z."""
    X, H = W.shape[0], h.shape[1]
    cell = torch.nn.GRUCell(X, H, dtype=torch.float64)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64).repeat_interleave(H)
    theirs = {
        "weight_ih": (W * sign).T,
        "weight_hh": (U * sign).T,
        "bias_ih": b * sign,
        "bias_hh": c * sign,
    }
    return torch.func.functional_call(cell, theirs, (x, h))


def rnn_cell(x, h, W, U, b):
    cell = torch.nn.RNNCell(W.shape[0], h.shape[1], dtype=torch.float64)
    theirs = {"weight_ih": W.T, "weight_hh": U.T, "bias_ih": b, "bias_hh": torch.zeros_like(b)}
    return torch.func.functional_call(cell, theirs, (x, h))


def lstm_cell(x, hc, W, U, b):
    """One step of PyTorch's LSTM, [h | c] to [h' | c']. Its gates are i, f, n, o: ours turned."""
    H = hc.shape[1] // 2
    i, f, o, n = torch.arange(4 * H).split(H)
    turned = torch.cat([i, f, n, o])
    cell = torch.nn.LSTMCell(W.shape[0], H, dtype=torch.float64)
    theirs = {
        "weight_ih": W[:, turned].T,
        "weight_hh": U[:, turned].T,
        "bias_ih": b[turned],
        "bias_hh": torch.zeros_like(b),
    }
    return torch.cat(torch.func.functional_call(cell, theirs, (x, hc.split(H, dim=1))), dim=1)


sizes, seeds = st.integers(1, 6), st.integers(0, 2**32)


@pytest.mark.parametrize("unit", ["rnn", "lstm"])
@given(B=sizes, X=sizes, H=sizes, seed=seeds)
def test_other_cells(unit, B, X, H, seed):
    rng = np.random.default_rng(seed)
    G, S = UNITS[unit]
    shapes = (B, X), (B, S * H), (X, G * H), (H, G * H), (G * H,)
    x, h, W, U, b = arrays = [rng.normal(size=shape) for shape in shapes]
    dh_new = rng.normal(size=(B, S * H))
    step, backward, peer = {
        "rnn": (rnn, rnn_backward, rnn_cell), "lstm": (lstm, lstm_backward, lstm_cell),
    }[unit]  # fmt: skip
    h_new, cache = step(x @ W, h, U, b)
    dxW, dh, dU, db = backward(dh_new, cache, U)

    leaves = [leaf(array) for array in arrays]
    theirs = peer(*leaves)
    theirs.backward(torch.from_numpy(dh_new))
    close(h_new, theirs)
    for ours, p in zip((dxW @ W.T, dh, x.T @ dxW, dU, db), leaves, strict=True):
        close(ours, p.grad)


@given(st.integers(1, 5), sizes, sizes, seeds)
def test_cell(B, X, H, seed):
    rng = np.random.default_rng(seed)
    shapes = (B, X), (B, H), (X, 3 * H), (H, 3 * H), (3 * H,), (3 * H,)
    x, h, W, U, b, c = arrays = [rng.normal(size=shape) for shape in shapes]
    dh_new = rng.normal(size=(B, H))
    h_new, cache = gru_reset_after(x @ W, h, U, b, c)
    dxW, dh, dU, db, dc = gru_reset_after_backward(dh_new, cache, U)

    leaves = [leaf(array) for array in arrays]
    theirs = gru_cell(*leaves)
    theirs.backward(torch.from_numpy(dh_new))
    close(h_new, theirs)
    for ours, p in zip((dxW @ W.T, dh, x.T @ dxW, dU, db, dc), leaves, strict=True):
        close(ours, p.grad)


# --- the losses -----------------------------------------------------------------------------------


def naive_loss(raw, loss, final_act=("linear", 0.0), bpreg=1.0, smoothing=0.0, log_q=None):
    """Each lane's loss as SPEC writes it down: (B,)."""
    kind, a = final_act
    r = {
        "linear": lambda: raw,
        "tanh": lambda: torch.tanh(raw),
        "relu": lambda: F.relu(raw),
        "leaky": lambda: F.leaky_relu(raw, a),
        "elu": lambda: F.elu(raw, a),
        "selu": lambda: F.selu(raw),
    }[kind]()
    if log_q is not None:
        r = r - torch.as_tensor(log_q)
    B, N = r.shape
    lanes = []
    for b in range(B):
        target, negatives = r[b, b], torch.cat([r[b, :b], r[b, b + 1 :]])
        s = F.softmax(negatives, 0)
        below, above = torch.sigmoid(target - negatives), torch.sigmoid(negatives - target)
        size = torch.sigmoid(negatives**2)
        if loss == "cross-entropy":
            log_p = F.log_softmax(r[b], 0)
            lanes.append(-(1 - smoothing) * log_p[b])
            if smoothing:
                lanes[b] -= smoothing / (N - 1) * (log_p.sum() - log_p[b])
        elif loss == "bpr":
            lanes.append(-below.log().mean())
        elif loss == "top1":
            lanes.append((above + size).mean())
        elif loss == "bpr-max":
            lanes.append(-(s * below).sum().log() + bpreg * (s * negatives**2).sum())
        else:
            lanes.append((s * (above + size)).sum())
    return torch.stack(lanes)


@pytest.mark.parametrize("final_act", FINAL_ACTS)
@pytest.mark.parametrize("loss", LOSSES)
@examples(10)
@given(B=st.integers(1, 4), S=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_losses(loss, final_act, B, S, seed):
    rng = np.random.default_rng(seed)
    raw = 3 * rng.normal(size=(B, B + S))
    how = dict(
        loss=loss,
        final_act=parse_activation(final_act),
        bpreg=rng.uniform(0, 2),
        smoothing=rng.choice([0, 0.2]),
        log_q=rng.normal(size=B + S) if rng.random() < 0.5 else None,
    )
    lanes, dr = loss_and_gradient(raw, **how)
    theirs = leaf(raw)
    loss_of_lanes = naive_loss(theirs, **how)
    loss_of_lanes.sum().backward()
    close(lanes, loss_of_lanes)
    close(dr, theirs.grad)


def test_selu_has_their_constants():
    close(SELU_SCALE, F.selu(torch.tensor(1.0, dtype=torch.float64)))
    close(-SELU_SCALE * SELU_ALPHA, F.selu(torch.tensor(-1e3, dtype=torch.float64)))


# --- the network ----------------------------------------------------------------------------------


def naive_network(hp, P, window, state):
    """The window's loss, of weights P (name to leaf); 1-of-N vectors multiplied out."""
    h = [torch.from_numpy(array) for array in state.h]
    sessions = [[int(i) for i in row if i >= 0] for row in state.history]  # newest item first
    total = 0.0
    for x, reset, keep, items, log_q in zip(*window, strict=True):
        h = [torch.where(torch.from_numpy(reset)[:, None], 0.0, array[keep]) for array in h]
        sessions = [session for session, stays in zip(sessions, keep, strict=True) if stays]
        sessions = [[i, *s] if not r else [i] for i, s, r in zip(x, sessions, reset, strict=True)]
        if hp.input == "weighted":
            inputs = torch.zeros(len(x), ITEMS, dtype=torch.float64)
            for b, session in enumerate(sessions):
                session = session[: history_length(hp.discount)]
                norm = sum(hp.discount**k for k in range(len(session)))
                for k, item in enumerate(session):
                    inputs[b, item] += hp.discount**k / norm
        elif hp.input == "onehot":
            inputs = F.one_hot(torch.from_numpy(x), ITEMS).double()
        else:
            inputs = F.embedding(torch.from_numpy(x), P["E" if hp.input == "embedding" else "V_y"])
        out = inputs
        for i in range(len(hp.layers)):
            W = P["W_x" if i == 0 else f"W{i}"]
            cell = {"gru": gru_cell, "lstm": lstm_cell, "rnn": rnn_cell}[hp.unit]
            h[i] = cell(out, h[i], W, *(P[f"{w}{i}"] for w in "Ubc" if f"{w}{i}" in P))
            out = h[i][:, : hp.layers[i]]
        if hp.skips:
            out = out + P["s"] * inputs
        if hp.fade_in_use:
            out = out + P["s_m"] * h[-1]
            h[-1] = hp.fade * (h[-1] + inputs)
        columns = np.arange(ITEMS) if hp.scores_all else items
        V = F.embedding(torch.from_numpy(columns), P["V_y"])
        if hp.cosine_in_use:
            out, V = (x / (x.square().sum(dim=1, keepdim=True) + TINY).sqrt() for x in (out, V))
            scores = hp.cosine_in_use * out @ V.T
        else:
            scores = out @ V.T + P["b_y"][columns]
        if hp.scores_all:
            lanes = F.cross_entropy(scores, torch.from_numpy(items), reduction="none")
        else:
            lanes = naive_loss(scores, hp.loss, hp.final_activation, hp.bpreg, hp.smoothing, log_q)
        total = total + lanes.sum() / hp.batch_size
    return total


@pytest.mark.parametrize("bptt", [1, 3])
@pytest.mark.parametrize("layers", [[4], [4, 3]], ids=str)
@pytest.mark.parametrize("encoding", INPUTS)
@examples(10)
@given(
    unit=st.sampled_from(tuple(UNITS)),
    loss=st.sampled_from(LOSSES),
    skip=st.booleans(),
    fade=st.sampled_from([0.0, 0.6]),
    cosine=st.sampled_from([0.0, 5.0]),
    n_sample=st.sampled_from([4, "all"]),
    corrected=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_network(encoding, layers, bptt, unit, loss, skip, fade, cosine, n_sample, corrected,
                 seed):  # fmt: skip
    """6 items on 5 lanes with 4 samples: always some item more than once; lanes reset and leave."""
    loss = "cross-entropy" if n_sample == "all" else loss
    hp = GRU4Rec.published(input=encoding, layers=layers, unit=unit, bptt=bptt, loss=loss,
                 n_sample=n_sample, batch_size=5, dropout_p_embed=0, seed=seed, skip=skip,
                 fade=fade, cosine=cosine, logq_corrected=corrected,
                 backend="numpy")  # fmt: skip
    W, window, state = random_network(hp)
    if bptt > 1:
        window.reset[1][0] = True
    ours, our_loss = gradients(hp, W, window, state)
    P = {name: leaf(array) for name, array in W.items()}
    loss = naive_network(hp, P, window, state)
    loss.backward()
    close(our_loss(), loss)
    assert ours.keys() == P.keys() - ({"b_y"} if hp.cosine_in_use else set())
    for name, gradient in ours.items():
        close(gradient, P[name].grad)


# --- NARM -----------------------------------------------------------------------------------------


def naive_narm(hp, P, problem):
    """The mean loss of padded sessions, of weights P (name to leaf), with masks; no dropout."""
    there = torch.from_numpy(problem["there"])  # (T, B)
    T, B = there.shape
    x, y = torch.zeros(T, B, dtype=torch.int64), torch.zeros(T, B, dtype=torch.int64)
    x[there], y[there] = torch.from_numpy(problem["x"]), torch.from_numpy(problem["y"])
    H = hp.hidden
    h, states, outputs = torch.zeros(B, H, dtype=torch.float64), [], []
    for t in range(T):
        a = F.embedding(x[t], P["emb"]) @ P["W_x"] + P["b"]
        r, z = torch.sigmoid(a[:, : 2 * H] + h @ P["U"][:, : 2 * H]).split(H, dim=1)
        n = torch.tanh(a[:, 2 * H :] + (r * h) @ P["U"][:, 2 * H :])
        h = torch.lerp(h, n, z)
        states.append(h)
        past = torch.stack(states, dim=1)  # (B, t + 1, H)
        a = torch.sigmoid((h @ P["A1"])[:, None] + past @ P["A2"]) @ P["v"]
        a = F.softmax(a, dim=1) if hp.normalise else a
        outputs.append(torch.cat([h, (a[:, :, None] * past).sum(dim=1)], dim=1) @ P["B"].T)
    out = torch.stack(outputs)[there]  # (E, X)
    if problem["samples"] is None:
        return F.cross_entropy(out @ P["emb"].T, y[there])
    # Column by column: those that are not the case's own target estimate the sum over all others.
    samples, chances = torch.from_numpy(problem["samples"]), torch.from_numpy(problem["chances"])
    y = y[there]
    items = torch.cat([y, samples])
    expected = (len(y) - 1) * chances[0] + len(samples) * chances[1]
    scores = out @ F.embedding(items, P["emb"]).T - expected.log()[items]
    scores = scores.masked_fill(items == y[:, None], -torch.inf)
    own = (out * F.embedding(y, P["emb"])).sum(dim=1)
    return (torch.logsumexp(torch.cat([own[:, None], scores], dim=1), dim=1) - own).mean()


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("n_sample", [0, 4])
@examples(25)
@given(n=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=seeds)
def test_narm(n_sample, normalise, n, seed):
    hp = NARM(embedding=3, hidden=4, normalise=normalise, n_sample=n_sample, dropout_p_embed=0,
              dropout_p_context=0, seed=seed, backend="numpy")  # fmt: skip
    W, problem = random_problem(hp, n)
    ours, our_loss = narm_gradients(hp, W, problem)
    P = {name: leaf(array) for name, array in W.items()}
    loss = naive_narm(hp, P, problem)
    loss.backward()
    close(our_loss(), loss)
    assert ours.keys() == P.keys()
    for name, gradient in ours.items():
        close(gradient, P[name].grad)


# --- the optimisers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "sizes"),
    [
        # Theirs divides by sqrt(a) + eps. Ours by sqrt(a + 1e-6): their a beginning at 1e-6.
        ({"adapt": "adagrad"}, lambda p, lr: torch.optim.Adagrad(
            p, lr, initial_accumulator_value=EPSILON, eps=0), (-6, 2)),
        ({"adapt": "sgd"}, torch.optim.SGD, (-6, 2)),
        # Theirs is v = m v + g, p -= lr v: the same while lr is constant.
        ({"adapt": "sgd", "momentum": 0.6}, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.6),
         (-6, 2)),
        # Here a fades, and only where it is large do sqrt(a) and sqrt(a + 1e-6) become the same.
        ({"adapt": "rmsprop"}, lambda p, lr: torch.optim.RMSprop(p, lr, alpha=0.9, eps=0), (4, 9)),
        ({"adapt": "adam"}, torch.optim.Adam, (-6, 2)),
        ({"adapt": "adadelta"}, lambda p, lr: torch.optim.Adadelta(p, lr, rho=0.95, eps=EPSILON),
         (-6, 2)),
    ],
    ids=["adagrad", "sgd", "momentum", "rmsprop", "adam", "adadelta"],
)  # fmt: skip
def test_optimisers(ours, theirs, sizes):
    rng = np.random.default_rng(0)
    p = rng.normal(size=(5, 3))
    q = leaf(p)
    memory = init_memory(p, ours["adapt"], ours.get("momentum", 0))
    optimiser = theirs([q], lr=0.1)
    for _ in range(20):
        g = rng.normal(size=p.shape) * 10.0 ** rng.integers(*sizes)
        q.grad = torch.from_numpy(g)
        optimiser.step()
        update(p, g, memory, learning_rate=0.1, **ours)
        close(p, q)


# --- whole epochs ---------------------------------------------------------------------------------


def graph_without_a_gpu(peer):
    """CUDA's graphs on a CPU: a capture runs nothing, a replay needs the same addresses."""

    def addresses():
        own = [peer.h, peer.losses, peer.k, *peer.chunk, *peer.dense, *peer.tables]
        return [p.data_ptr() for of in (own, *peer.dense_memory, *peer.table_memory) for p in of]

    @contextlib.contextmanager
    def capture(graph):
        at = addresses()
        with mock.patch.object(peer, "static_step") as step:
            yield

        def replay():
            assert addresses() == at
            for _ in step.mock_calls:
                peer.static_step()

        graph.replay = replay

    return mock.patch.multiple(
        torch.cuda, Stream=mock.MagicMock(), current_stream=mock.MagicMock(), graph=capture,
        stream=lambda stream: contextlib.nullcontext(), CUDAGraph=SimpleNamespace,
    )  # fmt: skip


EPOCHS = {
    "onehot": {"input": "onehot", "reset_after": False, "n_sample": 0, "logq": 0},
    "shared": {"n_sample": 50},
    "bpr-max": {"n_sample": 50, "loss": "bpr-max", "momentum": 0.4, "batch_size": 50},
}
PEERS = [(peer, name) for peer in ("plain", "tuned", "graph") for name in EPOCHS]
if shutil.which("g++"):
    PEERS.append(("compiled", "bpr-max"))  # once: it compiles for half a minute


@pytest.mark.parametrize(("peer", "name"), PEERS)
def test_an_epoch(peer, name):
    """The benchmarks' PyTorch models, given our weights and samples, end up at the same weights.

    The static step, which is captured or compiled, needs all lanes. Without a GPU, a capture is
    simulated.
    """
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "torch_peer.py"
    spec = importlib.util.spec_from_file_location("torch_peer", path)
    torch_peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(torch_peer)

    train = Shop(n_items=200).simulate(300).compact()
    model = GRU4Rec.published(**EPOCHS[name], layers=[10], dropout_p_embed=0, backend="numpy")
    rng = np.random.default_rng(0)
    W = network.init_weights(model, train.n_items, rng, np.float64)
    batches = session_parallel(train, model.batch_size, min_lanes=1 if model.n_sample else 2)
    steps = len(batches)
    if peer in ("graph", "compiled"):
        steps = int(np.count_nonzero(batches.lanes == model.batch_size))
    memory = {name: init_memory(p, model.adapt, model.momentum) for name, p in W.items()}
    state = network.zero_state(model, batches.x.shape[1], np.float64)
    distribution = negative_distribution(train.support, model.sample_alpha)
    samples = draw_negatives(rng, distribution, (steps, model.n_sample))

    theirs, gpu = [], peer == "graph" and torch.cuda.is_available()
    with torch.device("cuda" if gpu else "cpu"):
        kind = torch_peer.PlainPeer if peer == "plain" else torch_peer.Peer
        options = {peer: True} if peer in ("graph", "compiled") else {}
        peer = kind(model, W, train.support, **options)
        peer.begin(batches)
        with contextlib.nullcontext() if gpu else graph_without_a_gpu(peer):
            for first in range(0, steps, torch_peer.CHUNK):
                chunk = range(first, min(first + torch_peer.CHUNK, steps))
                drawn = torch_peer.index(samples[chunk.start : chunk.stop])
                theirs.extend(peer.train_chunk(chunk, drawn).tolist())
        assert (peer.replay is not None) == ("graph" in options)

    run = network.StepByStep(model, W, memory, model.ops, np.log(train.support))
    losses, _ = run(batches, range(steps), samples, state, rng)
    np.testing.assert_allclose(losses * model.batch_size, theirs, rtol=1e-10)
    for name, table in zip(("V_y", "b_y", "W_x"), peer.tables, strict=False):
        close(W[name], table[:-1].cpu())
        assert not table[-1].any()
