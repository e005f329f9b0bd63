"""The weights of GRU4Rec and one training step, forward and backward, written out by hand.

Read it from top to bottom: the weights, the state that sessions carry, one recurrent step, a window
of steps with their loss, and the same backward. The hot operations come in as `ops`, see
`backends.base.Ops`, so this file is the same on every backend.

Weights by name, for I items and layers of H_0, H_1, ... units. A unit has G gates side by side: 3
for a GRU, 4 for an LSTM, 1 for a simple RNN (ops/cells.py):
    E        (I, X)            input embedding, with input=embedding only
    W_x      (X or I, GΣH)     from the input to the gates of each layer that sees it
    W1 ...   (H_0, GH_1) ...   from a layer to the next one's gates
    U0 ...   (H_0, GH_0) ...   from a layer's output to its own gates a step later
    b0 ...   (GH_0,) ...       and its biases; c0 ... the state's own, of a GRU with reset_after
    F0 ...   (H, D_0) ...      feed-forward layers, f0 ... (D_0,) ... their biases
    s        (D,)              with skip=True: how much of the last item's embedding scores items
    s_m      (D,)              and with fade > 0: how much of the earlier items' embeddings does
    V_y, b_y (I, D), (I,)      output table: an item's row scores it; with cosine, b_y stays 0
Weights with a row for each item are tables: a step reads and updates only some of their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from gru4rec_np.backends import Memory, Ops, Weights
from gru4rec_np.data.batches import Batches
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.ops import inputs
from gru4rec_np.ops.cells import (
    UNITS,
    State,
    dense,
    dense_backward,
    lstm,
    lstm_backward,
    rnn,
    rnn_backward,
)
from gru4rec_np.ops.optim import clip, sum_rows
from gru4rec_np.ops.scoring import (
    across,
    corrected,
    inverse_length,
    log_proposal,
    of_length,
    of_length_backward,
)

# The table of the encodings that embed an item.
EMBEDDING_TABLE = {"embedding": "E", "shared": "V_y"}

# --- the weights ----------------------------------------------------------------------------------


def gate_blocks(hp: Hyperparameters, n_items: int) -> dict[str, tuple[int, ...]]:
    """Each weight's blocks: a matrix's rows and the widths of its blocks, or a vector's length.

    Nothing is allocated, however large the weights would be.
    """
    W: dict[str, tuple[int, ...]] = {}
    G, _ = UNITS[hp.unit]
    H = hp.layers
    D = [H[-1], *hp.feedforward]
    seen = H if hp.input_to_all_layers else H[:1]
    X = n_items
    if hp.input == "embedding":
        X = hp.embedding or H[0]
        W["E"] = n_items, X
    elif hp.input == "shared":
        X = D[-1]
    W["W_x"] = X, *(width for width in seen for _ in range(G))
    for i, width in enumerate(H):
        if i > 0:
            W[f"W{i}"] = H[i - 1], *[width] * G
        W[f"U{i}"] = width, *[width] * G
        W[f"b{i}"] = (G * width,)
        if hp.unit == "gru" and hp.reset_after:
            W[f"c{i}"] = (G * width,)
    for i, width in enumerate(hp.feedforward):
        W[f"F{i}"] = D[i], width
        W[f"f{i}"] = (width,)
    if hp.skips:
        W["s"] = (D[-1],)
    if hp.fade_in_use:
        W["s_m"] = (D[-1],)
    W["V_y"] = n_items, D[-1]
    W["b_y"] = (n_items,)
    return W


def shapes(hp: Hyperparameters, n_items: int) -> dict[str, tuple[int, ...]]:
    """The shape of each weight, by name."""
    return {
        name: (rows, sum(columns)) if columns else (rows,)
        for name, (rows, *columns) in gate_blocks(hp, n_items).items()
    }


def init_weights(
    hp: Hyperparameters, n_items: int, rng: np.random.Generator, dtype: DTypeLike = np.float32
) -> Weights:
    """Fresh weights: each gate's block uniform in ±sqrt(6 / (rows + columns)), biases 0.

    Glorot & Bengio 2010, eq. 16; `sigma` and `init_as_normal` change scale and shape.

    Args:
        n_items: I.

    Returns:
        name to array, see the module's text for names and shapes.
    """

    def draw(rows: int, *columns: int) -> np.ndarray:
        """A matrix of blocks, each drawn at its own scale; or a vector of zeros."""
        if not columns:
            return np.zeros(rows, dtype)
        out = np.empty((rows, sum(columns)), dtype)
        at = 0
        for width in columns:
            scale = hp.sigma or np.sqrt(6 / (rows + width))
            if hp.init_as_normal:
                out[:, at : at + width] = rng.normal(0, scale, (rows, width))
            else:
                out[:, at : at + width] = rng.uniform(-scale, scale, (rows, width))
            at += width
        return out

    return {name: draw(*sizes) for name, sizes in gate_blocks(hp, n_items).items()}


# --- the state that sessions carry ----------------------------------------------------------------


def zero_state(hp: Hyperparameters, n_lanes: int, dtype: DTypeLike = np.float32) -> State:
    """The state of n_lanes sessions that have not begun."""
    L = inputs.history_length(hp.discount) if hp.input == "weighted" else 0
    _, S = UNITS[hp.unit]
    widths = [S * width for width in hp.layers]
    if hp.fade_in_use:
        widths.append([*hp.layers, *hp.feedforward][-1])
    return State(
        [np.zeros((n_lanes, width), dtype) for width in widths],
        np.full((n_lanes, L), -1, np.int32),
    )


def enter_step(state: State, keep: np.ndarray, reset: np.ndarray) -> State:
    """The state at the start of a step: without the lanes that are gone, zero for new sessions.

    Args:
        keep: (B of the step before,) bool. reset: (B,) bool. See `batches.Batches`.
    """
    old = ~reset[:, None]
    return State(
        [h[keep] * old for h in state.h],
        np.where(old, state.history[keep], -1),
    )


def enter_step_backward(
    dh: list[np.ndarray], keep: np.ndarray, reset: np.ndarray
) -> list[np.ndarray]:
    """Gradient of `enter_step`: zero for lanes that are gone, and past a reset."""
    out = []
    for d in dh:
        before = np.zeros((len(keep), d.shape[1]), d.dtype)
        before[keep] = d * ~reset[:, None]
        out.append(before)
    return out


# --- collecting gradients -------------------------------------------------------------------------


class Gradients:
    """Collects gradients: dense ones are summed as they come, those of table rows later.

    Attributes:
        dense: weight name to array of its shape.
        rows: weight name to (rows, gradients); distinct rows once `sum_rows` has run.
    """

    def __init__(self) -> None:
        self.dense: dict[str, np.ndarray] = {}
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, name: str, gradient: np.ndarray) -> None:
        """Add to the gradient of a whole weight."""
        if name in self.dense:
            self.dense[name] += gradient
        else:
            self.dense[name] = gradient

    def add_rows(self, name: str, rows: np.ndarray, gradient: np.ndarray) -> None:
        """Add gradients (n, ...) of rows (n,) of a table; rows may repeat."""
        self._parts.setdefault(name, []).append((rows, gradient))

    def sum_rows(self) -> None:
        """Sum what was added for the same row, over all uses in all steps.

        Rows of a weight that also has a dense gradient are added to that.
        """
        for name, parts in self._parts.items():
            if name in self.dense:
                for rows, gradient in parts:
                    np.add.at(self.dense[name], rows, gradient)
            else:
                rows, gradients = zip(*parts, strict=True)
                self.rows[name] = sum_rows(np.concatenate(rows), np.concatenate(gradients))

    def clip(self, grad_cap: float) -> None:
        """`optim.clip` over all gradients, after `sum_rows`; grad_cap 0: none."""
        if grad_cap:
            of_rows = [gradient for _, gradient in self.rows.values()]
            clip([*self.dense.values(), *of_rows], grad_cap)

    def merge(self, other: Gradients) -> None:
        """Add the gradients of another part of the batch, after `sum_rows` of both."""
        for name, gradient in other.dense.items():
            self.add(name, gradient)
        for name, of_other in other.rows.items():
            rows, gradients = zip(self.rows[name], of_other, strict=True)
            self.rows[name] = sum_rows(np.concatenate(rows), np.concatenate(gradients))


# --- one recurrent step ---------------------------------------------------------------------------


def dropout_mask(rng: np.random.Generator | None, like: np.ndarray, p: float) -> np.ndarray | None:
    """Inverted dropout: 0 with probability p, else 1/(1-p). None if there is nothing to drop."""
    if rng is None or p == 0:
        return None
    kept = rng.random(like.shape, np.float32) >= p
    return kept * (like.dtype.type(1) / like.dtype.type(1 - p))


def drop(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """x * mask. It is its own backward pass: dx = dy * mask."""
    return x if mask is None else x * mask


def encode(
    W: Weights,
    hp: Hyperparameters,
    x: np.ndarray,
    history: np.ndarray,
    rng: np.random.Generator | None,
) -> tuple[np.ndarray, tuple]:
    """xW = x W_x, the input's part of the gates of every layer that sees it.

    Dropout applies to the item's embedding, or to its row of W_x.

    Args:
        x: (B,) item indices. history: (B, L), for input=weighted.
        rng: draws the dropout mask; None for no dropout.

    Returns:
        (B, GH) or (B, GΣH), and the cache of `encode_backward`.
    """
    if hp.input in EMBEDDING_TABLE:
        embedded = W[EMBEDDING_TABLE[hp.input]][x]  # (B, X)
        mask = dropout_mask(rng, embedded, hp.dropout_p_embed)
        embedded = drop(embedded, mask)
        return embedded @ W["W_x"], (x, embedded, mask)
    cache: Any = x
    if hp.input == "onehot":
        rows = W["W_x"][x]
    else:
        rows, cache = inputs.weighted(W["W_x"], history, hp.discount)
    mask = dropout_mask(rng, rows, hp.dropout_p_embed)
    return drop(rows, mask), (cache, mask)


def encode_backward(
    dxW: np.ndarray,
    W: Weights,
    hp: Hyperparameters,
    cache: tuple,
    g: Gradients,
    de_skip: np.ndarray | None = None,
) -> None:
    """Gradients of `encode`, added into g.

    Args:
        dxW: of the shape of xW. de_skip: (B, X) the gradient that reaches the embedding past the
            gates; None without `skip`.
    """
    if hp.input in EMBEDDING_TABLE:
        x, embedded, mask = cache
        g.add("W_x", embedded.T @ dxW)
        de = dxW @ W["W_x"].T
        if de_skip is not None:
            de += de_skip
        g.add_rows(EMBEDDING_TABLE[hp.input], x, drop(de, mask))
        return
    read, mask = cache
    drows = drop(dxW, mask)
    if hp.input == "onehot":
        g.add_rows("W_x", read, drows)
    else:
        g.add_rows("W_x", *inputs.weighted_backward(drows, read))


def cell_of(hp: Hyperparameters, ops: Ops) -> tuple[Callable, Callable, str]:
    """The cell's step, its backward, and the letters of its weights other than W.

    Backends implement the GRU. The other units exist for comparison and run in NumPy.
    """
    if hp.unit == "lstm":
        return lstm, lstm_backward, "Ub"
    if hp.unit == "rnn":
        return rnn, rnn_backward, "Ub"
    if hp.reset_after:
        return ops.gru_reset_after, ops.gru_reset_after_backward, "Ubc"
    return ops.gru, ops.gru_backward, "Ub"


def recurrent(
    W: Weights,
    hp: Hyperparameters,
    ops: Ops,
    x: np.ndarray,
    state: State,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, State, tuple]:
    """Feed one item to each lane: input -> cells -> feed-forward layers.

    With `skip`, the item's embedding e (after dropout) is added: out + s e, number by number. So
    scores know the last item, of which a gate may have let little through. With `fade`, s_m m is
    added too, where m = fade e_{t-1} + fade² e_{t-2} + ... sums the session's earlier embeddings;
    STAMP (Liu et al. 2018, KDD) has the last embedding and the mean of all. With `cosine`, the
    returned vector has this length.

    Args:
        x: (B,) item indices. state: at the start of the step.
        rng: draws the dropout masks; None for no dropout (evaluation).

    Returns:
        the vector that scores items (B, D), the new state, and the cache of
        `recurrent_backward`. The next step starts from the output after dropout.
    """
    history = inputs.push(state.history, x) if state.history.shape[1] else state.history
    xW, encode_cache = encode(W, hp, x, history, rng)
    cell, _, letters = cell_of(hp, ops)
    G, _ = UNITS[hp.unit]
    out, at = np.empty(0), 0  # the first layer sees the input only
    new_h, cells, masks, denses = [], [], [], []
    for i, width in enumerate(hp.layers):
        if i == 0 or hp.input_to_all_layers:
            a = xW[:, at : at + G * width]
            at += G * width
            if i > 0:
                a = a + out @ W[f"W{i}"]
        else:
            a = out @ W[f"W{i}"]
        weights = (W[f"{letter}{i}"] for letter in letters)
        h, cache = cell(a, state.h[i], *weights, hp.hidden_activation)
        mask = dropout_mask(rng, h[:, :width], hp.dropout_p_hidden)
        out = drop(h[:, :width], mask)
        new_h.append(np.hstack([out, h[:, width:]]))  # an LSTM's memory is not dropped
        cells.append(cache)
        masks.append(mask)
    for i in range(len(hp.feedforward)):
        out, cache = dense(out, W[f"F{i}"], W[f"f{i}"], hp.hidden_activation)
        denses.append(cache)
    if hp.skips:
        _, embedded, _ = encode_cache
        out = out + W["s"] * embedded
        if hp.fade_in_use:
            m = state.h[-1]
            out = out + W["s_m"] * m
            new_h.append(hp.fade_in_use * (m + embedded))
    top, inverse = out, np.empty(0)
    if hp.cosine_in_use:
        out, inverse = of_length(top, hp.cosine_in_use)
    cache = encode_cache, new_h, cells, masks, denses, top, inverse, state.h[-1]
    return out, State(new_h, history), cache


def recurrent_backward(
    dout: np.ndarray,
    dh_next: list[np.ndarray],
    W: Weights,
    hp: Hyperparameters,
    ops: Ops,
    cache: tuple,
    g: Gradients,
) -> list[np.ndarray]:
    """Gradients of `recurrent`, added into g.

    Args:
        dout: (B, D) gradient with respect to the returned vector.
        dh_next: the gradient with respect to each array of the new state, from the next step.

    Returns:
        the gradient with respect to each array of the state at the start of the step.
    """
    encode_cache, new_h, cells, masks, denses, top, inverse, m = cache
    if hp.cosine_in_use:
        dout = of_length_backward(dout, top, inverse, hp.cosine_in_use)
    de_skip: Any = None
    if hp.skips:
        _, embedded, _ = encode_cache
        g.add("s", (dout * embedded).sum(axis=0))
        de_skip = dout * W["s"]
    dm = []
    if hp.fade_in_use:
        g.add("s_m", (dout * m).sum(axis=0))
        of_next = hp.fade_in_use * dh_next[-1]
        de_skip += of_next
        dm = [dout * W["s_m"] + of_next]
    for i in reversed(range(len(hp.feedforward))):
        dout, dF, df = dense_backward(dout, denses[i], W[f"F{i}"], hp.hidden_activation)
        g.add(f"F{i}", dF)
        g.add(f"f{i}", df)
    _, cell_backward, letters = cell_of(hp, ops)
    dxW, dh = [], []
    for i, width in reversed(list(enumerate(hp.layers))):
        # A layer's output is used by the next layer and by the next step.
        d = dh_next[i]
        dh_new = np.hstack([drop(dout + d[:, :width], masks[i]), d[:, width:]])
        da, dh_i, *dweights = cell_backward(dh_new, cells[i], W[f"U{i}"], hp.hidden_activation)
        dh.append(dh_i)
        for letter, dweight in zip(letters, dweights, strict=True):
            g.add(f"{letter}{i}", dweight)
        if i == 0 or hp.input_to_all_layers:
            dxW.append(da)
        if i > 0:
            g.add(f"W{i}", new_h[i - 1][:, : hp.layers[i - 1]].T @ da)
            dout = da @ W[f"W{i}"].T
    encode_backward(np.concatenate(dxW[::-1], axis=1), W, hp, encode_cache, g, de_skip)
    return dh[::-1] + dm


# --- a window of steps and its loss ---------------------------------------------------------------


class Window(NamedTuple):
    """Consecutive steps of an epoch, at most `bptt`, that share one update.

    Attributes:
        x, reset, keep: for each step the lanes' items (B,), and the flags of `batches.Batches`.
        items: for each step the scored items (B + n_sample,): the lanes' targets first. With
            n_sample=all only these, and all items are scored.
        log_q: for each step (B + n_sample,) or (B, B + n_sample), see `losses.loss_and_gradient`;
            or None.
    """

    x: list[np.ndarray]
    reset: list[np.ndarray]
    keep: list[np.ndarray]
    items: list[np.ndarray]
    log_q: list[np.ndarray | None]


def window_of(
    hp: Hyperparameters,
    batches: Batches,
    steps: range,
    samples: np.ndarray,
    log_support: np.ndarray,
) -> Window:
    """The given steps of an epoch as a window.

    Args:
        samples: (steps, n_sample) their extra negatives. log_support: as for `Ops.stepper`.
    """
    window = Window([], [], [], [], [])
    for t, extra in zip(steps, samples, strict=True):
        n = batches.lanes[t]
        before = batches.lanes[t - 1] if t else batches.x.shape[1]
        targets = batches.y[t, :n]
        window.x.append(batches.x[t, :n])
        window.reset.append(batches.reset[t, :n])
        window.keep.append(batches.keep[t, :before])
        window.items.append(np.concatenate([targets, extra]))
        log_q = None
        if hp.corrects:
            log_q = corrected(hp.logq * log_support[window.items[-1]], window.items[-1], n)
        elif hp.logq and hp.loss == "cross-entropy" and not hp.scores_all:
            log_q = hp.logq * log_proposal(log_support, targets, extra, hp.sample_alpha)
        window.log_q.append(log_q)
    return window


def compare_sampled(
    W: Weights,
    hp: Hyperparameters,
    ops: Ops,
    out: np.ndarray,
    items: np.ndarray,
    log_q: np.ndarray | None,
) -> tuple[np.ndarray, tuple]:
    """Score a step's targets and samples: each lane's loss (B,), and the cache of the backward.

    Args:
        out: (B, D) from `recurrent`. items, log_q: as in `Window`.
    """
    r, V = ops.scores(out, W["V_y"], W["b_y"], items)
    inverse = None
    if hp.cosine_in_use:  # b_y stays 0; out has the length `cosine`: r / |V_j| is the scaled cosine
        inverse = inverse_length(V)
        r *= inverse.T
    act = hp.final_activation
    losses, dr = ops.loss_and_gradient(r, hp.loss, act, hp.bpreg, hp.smoothing, log_q)
    return losses, (out, V, inverse, dr, items)


def compare_sampled_backward(
    cache: tuple, W: Weights, hp: Hyperparameters, ops: Ops, g: Gradients
) -> np.ndarray:
    """dout (B, D); the gradients of the scored rows are added into g."""
    out, V, inverse, dr, items = cache
    dr = dr / hp.batch_size
    if inverse is None:
        dout, dV, db = ops.scores_backward(dr, out, V)
        g.add_rows("b_y", items, db)
    else:
        dout, dV, _ = ops.scores_backward(dr * inverse.T, out, V)
        dV = across(dV, V, inverse)  # as in `of_length_backward`; dr has had its 1 / |V_j|
    g.add_rows("V_y", items, dV)
    return dout


def compare_all(
    W: Weights, hp: Hyperparameters, ops: Ops, out: np.ndarray, targets: np.ndarray, _: object
) -> tuple[np.ndarray, tuple]:
    """As `compare_sampled`, with all items: n_sample=all. targets: (B,). It needs no log_q."""
    V, inverse = of_length(W["V_y"]) if hp.cosine_in_use else (W["V_y"], None)
    losses, *gradients = ops.cut_cross_entropy(out, V, W["b_y"], targets)
    return losses, (inverse, *gradients)


def compare_all_backward(
    cache: tuple, W: Weights, hp: Hyperparameters, ops: Ops, g: Gradients
) -> np.ndarray:
    """As `compare_sampled_backward`. The table's gradient is dense: every row has one."""
    inverse, dout, dV, db = cache
    if inverse is None:
        g.add("b_y", db / hp.batch_size)
    else:
        dV = of_length_backward(dV, W["V_y"], inverse)
    dV /= hp.batch_size
    g.add("V_y", dV)
    return dout / hp.batch_size


def forward(
    W: Weights,
    hp: Hyperparameters,
    ops: Ops,
    window: Window,
    state: State,
    rng: np.random.Generator | None = None,
) -> tuple[float, State, list[tuple]]:
    """The loss of a window: over its steps, the sum over the lanes divided by batch_size.

    Args:
        state: at the end of the step before; (B,) lanes of that step.
        rng: draws the dropout masks; None for no dropout.

    Returns:
        loss, the state at the end, and the cache of `backward`.
    """
    loss, caches = 0.0, []
    for x, reset, keep, items, log_q in zip(*window, strict=True):
        state = enter_step(state, keep, reset)
        out, state, cache = recurrent(W, hp, ops, x, state, rng)
        compare = compare_all if hp.scores_all else compare_sampled
        losses, compared = compare(W, hp, ops, out, items, log_q)
        loss += float(losses.sum()) / hp.batch_size
        caches.append((cache, compared, keep, reset))
    return loss, state, caches


def backward(W: Weights, hp: Hyperparameters, ops: Ops, caches: list[tuple]) -> Gradients:
    """Gradient of `forward`'s loss with respect to every weight, through all steps of the window.

    The state at the start of the window is a constant; with bptt = 1 this is the reference's rule.

    Returns:
        Gradients, duplicate rows summed.
    """
    g = Gradients()
    dh = None
    for cache, compared, keep, reset in reversed(caches):
        compare_backward = compare_all_backward if hp.scores_all else compare_sampled_backward
        dout = compare_backward(compared, W, hp, ops, g)
        if dh is None:
            dh = zero_state(hp, len(dout), dout.dtype).h
        dh = recurrent_backward(dout, dh, W, hp, ops, cache, g)
        dh = enter_step_backward(dh, keep, reset)
    g.sum_rows()
    return g


def l2(W: Weights, g: Gradients, lmbd: float) -> float:
    """Add the gradient of lmbd/2 Σ p² to g, over all weights that the window used.

    Those are the dense ones, and each distinct row of a table once. A penalty on all rows would
    make the cost of a step grow with the catalogue.

    Returns:
        the penalty, a part of the loss.
    """
    penalty = 0.0
    for name, gradient in g.dense.items():
        gradient += lmbd * W[name]
        penalty += float(np.vdot(W[name], W[name]))
    for name, (rows, gradient) in g.rows.items():
        used = W[name][rows]
        gradient += lmbd * used
        penalty += float(np.vdot(used, used))
    return lmbd / 2 * penalty


def train_window(
    W: Weights,
    memory: Memory,
    hp: Hyperparameters,
    ops: Ops,
    window: Window,
    state: State,
    rng: np.random.Generator,
    rate: float | None = None,
) -> tuple[float, State]:
    """One update of the weights, in place: forward, backward, regularise, clip, optimise.

    Args:
        memory: weight name to the optimiser's, see `optim.init_memory`.
        rate: the learning rate; None: hp.learning_rate.

    Returns:
        the window's loss before the update, and the state at its end.
    """
    loss, state, caches = forward(W, hp, ops, window, state, rng)
    g = backward(W, hp, ops, caches)
    if hp.lmbd:
        loss += l2(W, g, hp.lmbd)
    g.clip(hp.grad_cap)
    how = hp.adapt, hp.learning_rate if rate is None else rate, hp.momentum
    for name, gradient in g.dense.items():
        ops.update(W[name], gradient, memory[name], *how)
    for name, (rows, gradient) in g.rows.items():
        ops.update(W[name], gradient, memory[name], *how, rows)
    return loss, state


class StepByStep:
    """Trains consecutive steps one after the other: the plain `backends.Stepper`, for any model.

    Args:
        W, memory: weights and optimiser memory, changed in place. ops: the hot operations.
        log_support: as for `Ops.stepper`.
    """

    def __init__(
        self, hp: Hyperparameters, W: Weights, memory: Memory, ops: Ops, log_support: np.ndarray
    ) -> None:
        self.hp, self.W, self.memory, self.ops = hp, W, memory, ops
        self.log_support = log_support
        self.draw_negatives = ops.draw_negatives

    def __call__(
        self,
        batches: Batches,
        steps: range,
        samples: np.ndarray,
        state: State,
        rng: np.random.Generator,
        rates: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """As `Stepper.__call__`."""
        hp, losses = self.hp, []
        for update, first in enumerate(range(0, len(steps), hp.bptt)):
            part = slice(first, first + hp.bptt)
            window = window_of(hp, batches, steps[part], samples[part], self.log_support)
            rate = None if rates is None else float(rates[update])
            loss, state = train_window(self.W, self.memory, hp, self.ops, window, state, rng, rate)
            losses.append(loss)
        return np.array(losses), state

    def fetch(self) -> None:
        """As `Stepper.fetch`: the arrays are always up to date."""
