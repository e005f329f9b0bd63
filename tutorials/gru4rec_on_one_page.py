"""GRU4Rec on one page: data, forward pass, backward pass, Adagrad, evaluation. Plain NumPy.

    python tutorials/gru4rec_on_one_page.py        # trains on the simulated shop, under a minute

Hidasi et al. 2016 (arXiv 1511.06939), with sampled cross-entropy and a shared item table (2018,
arXiv 1706.03847). Letters: B lanes, H units, I items, S samples, N = B + S scored items.
"""

from itertools import islice, pairwise

import numpy as np

from gru4rec_np import Shop

B, H, S, EPOCHS = 32, 100, 512, 3
LEARNING_RATE, ALPHA, EPSILON = 0.1, 0.75, 1e-6


# --- data: sessions side by side (notebooks 1 and 5) ----------------------------------------------


def steps(sessions, B):
    """For each step: x (n,) fed items, y (n,) next items, keep (lanes before,), new (n,).

    Lane b holds one session. When it has nothing left to predict, the next session takes the lane
    and starts from a zero state. When no session is left, the lane is removed.
    """
    queue = iter(sessions)
    lanes = [(session, 0) for session in islice(queue, B)]
    keep = new = [True] * len(lanes)
    while lanes:
        x = [session[t] for session, t in lanes]
        y = [session[t + 1] for session, t in lanes]
        yield np.array(x), np.array(y), np.array(keep), np.array(new)
        keep, new, going = [], [], []
        for session, t in lanes:
            ended = t + 2 == len(session)
            session, t = (next(queue, None), 0) if ended else (session, t + 1)
            keep.append(session is not None)
            if session is not None:
                going.append((session, t))
                new.append(ended)
        lanes = going


# --- weights (notebook 3) -------------------------------------------------------------------------


def init(n_items, H, rng):
    """V (I, H) items, b_y (I,); W (H, 3H) input, U (H, 3H) state, b (3H,): the gates r, z, n."""

    def glorot(rows, columns):
        limit = np.sqrt(6 / (rows + columns))
        return rng.uniform(-limit, limit, (rows, columns))

    W, U = (np.hstack([glorot(H, H) for _ in range(3)]) for _ in range(2))
    return {"V": glorot(n_items, H), "b_y": np.zeros(n_items), "W": W, "U": U, "b": np.zeros(3 * H)}


# --- forward (notebooks 3, 6 and 7) ---------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(w, x, h):
    """One step: items x (n,), state h (n, H) -> new state (n, H), and what backward needs.

    r = σ(e W_r + h U_r + b_r)        z = σ(e W_z + h U_z + b_z)
    n = tanh(e W_n + (r*h) U_n + b_n)            h' = (1-z)*h + z*n
    """
    H = h.shape[1]
    U_rz, U_n = w["U"][:, : 2 * H], w["U"][:, 2 * H :]
    e = w["V"][x]
    a = e @ w["W"] + w["b"]
    r, z = np.split(sigmoid(a[:, : 2 * H] + h @ U_rz), 2, axis=1)
    n = np.tanh(a[:, 2 * H :] + (r * h) @ U_n)
    return (1 - z) * h + z * n, (e, h, r, z, n)


def cross_entropy(w, h, items, log_q):
    """Lane i chooses its target, items[i], among all N -> loss of all lanes, ds (n, N).

    log_q (N,): how likely each was to be drawn. Without it, popular items would be pushed down too
    often, because they are drawn too often (notebook 7).
    """
    lane = np.arange(len(h))
    s = h @ w["V"][items].T + w["b_y"][items] - log_q
    s -= s.max(axis=1, keepdims=True)  # softmax does not change, and e^s cannot overflow
    p = np.exp(s)
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[lane, lane]).sum()
    p[lane, lane] -= 1  # dloss/ds = p - 1 at the target, p elsewhere
    return loss, p


# --- backward (notebook 4) ------------------------------------------------------------------------


def gru_backward(w, dh_new, cache):
    """dh_new (n, H) -> the gradient of e (n, H), and those of W, U, b.

    The state h before the step counts as a constant (the reference's rule).
    """
    e, h, r, z, n = cache
    U_n = w["U"][:, 2 * h.shape[1] :]
    da_n = dh_new * z * (1 - n * n)  # through h' = ... + z*n, and tanh' = 1 - n²
    da_z = dh_new * (n - h) * z * (1 - z)  # σ' = σ (1-σ)
    da_r = (da_n @ U_n.T) * h * r * (1 - r)
    da = np.hstack([da_r, da_z, da_n])
    dU = np.hstack([h.T @ da_r, h.T @ da_z, (r * h).T @ da_n])
    return da @ w["W"].T, {"W": e.T @ da, "U": dU, "b": da.sum(axis=0)}


# --- one training step (notebooks 7, 8, 10 and 11) ------------------------------------------------


def adagrad(p, a, g, rows=...):
    """a += g², p -= lr g / sqrt(a + ε), for the whole weight or some distinct rows."""
    a[rows] += g * g
    p[rows] -= LEARNING_RATE * g / np.sqrt(a[rows] + EPSILON)


def sum_rows(rows, g):
    """Distinct rows, and the sum of the gradients of each: a row is updated once in a step."""
    distinct, at = np.unique(rows, return_inverse=True)
    sums = np.zeros((len(distinct), *g.shape[1:]))
    np.add.at(sums, at, g)
    return distinct, sums


def train_step(w, a, x, y, samples, h, log_support):
    """Update w and Adagrad's sums a in place; returns the loss and the new state.

    x, y (n,); samples (S,) negatives that all lanes share; h (n, H) the state before.
    """
    items = np.concatenate([y, samples])  # the other lanes' targets are negatives, too
    log_q = np.concatenate([log_support[y], ALPHA * log_support[samples]])
    h, cache = gru(w, x, h)
    loss, ds = cross_entropy(w, h, items, log_q)
    ds /= B
    de, g = gru_backward(w, ds @ w["V"][items], cache)
    # The table is used twice, as output and as input: both gradients go to the same rows.
    V_rows, dV = sum_rows(np.concatenate([items, x]), np.concatenate([ds.T @ h, de]))
    b_rows, db = sum_rows(items, ds.sum(axis=0))
    adagrad(w["V"], a["V"], dV, V_rows)
    adagrad(w["b_y"], a["b_y"], db, b_rows)
    for name, gradient in g.items():
        adagrad(w[name], a[name], gradient)
    return loss, h


def train(sessions, n_items, rng):
    """Train on lists of items; prints the mean loss of each epoch and returns the weights."""
    support = np.bincount(np.concatenate(sessions), minlength=n_items)
    q = support**ALPHA / (support**ALPHA).sum()  # popular items are drawn more often
    log_support = np.log(np.maximum(support, 1))
    w = init(n_items, H, rng)
    a = {name: np.zeros_like(p) for name, p in w.items()}
    for epoch in range(1, EPOCHS + 1):
        h, total, events = np.zeros((min(B, len(sessions)), H)), 0.0, 0
        for x, y, keep, new in steps(sessions, B):
            h = np.where(new[:, None], 0, h[keep])
            samples = rng.choice(n_items, S, p=q)
            loss, h = train_step(w, a, x, y, samples, h, log_support)
            total, events = total + loss, events + len(x)
        print(f"epoch {epoch}   loss {total / events:.3f}")
    return w


# --- evaluation (notebooks 2 and 12) --------------------------------------------------------------


def evaluate(w, sessions, k=20):
    """Recall@k and MRR@k: the rank of each next item among all items, ties against the model."""
    ranks = []
    for session in sessions:
        h = np.zeros((1, w["U"].shape[0]))
        for x, y in pairwise(session):
            h, _ = gru(w, np.array([x]), h)
            s = (h @ w["V"].T + w["b_y"])[0]
            ranks.append(np.count_nonzero(s >= s[y]))
    ranks = np.array(ranks)
    return np.mean(ranks <= k), np.mean(np.where(ranks <= k, 1 / ranks, 0))


def lists(log):
    """The sessions of a log as arrays of items, in the order in which they started."""
    parts = np.split(log.items, log.offsets[1:-1])
    return [parts[i] for i in np.argsort(log.starts, kind="stable") if len(parts[i]) > 1]


if __name__ == "__main__":
    shop = Shop()
    weights = train(lists(shop.simulate(16_000)), shop.n_items, np.random.default_rng(0))
    recall, mrr = evaluate(weights, lists(shop.simulate(2_000, seed=2)))
    print(f"Recall@20 {recall:.4f}   MRR@20 {mrr:.4f}")
