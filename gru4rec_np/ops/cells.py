"""Recurrent cells and the dense layer: one forward step, and its backward pass right below it.

A cell takes the product xW = x W instead of x, because for a 1-of-N input that product is a row
look-up. So cells do not depend on the input encoding. The gates are column blocks:
W = [W_r | W_z | W_n], and likewise U, b, c. A cell takes and returns one state array, whose first
H columns are its output.

Shapes: B lanes (sessions side by side), H hidden units. Rows are lanes.
"""

from typing import NamedTuple

import numpy as np

from gru4rec_np.ops.activations import TANH, Activation, activate, activate_backward, sigmoid

# Unit name -> (columns of its gates / H, columns of its state / H).
UNITS = {"gru": (3, 1), "lstm": (4, 2), "rnn": (1, 1)}


class State(NamedTuple):
    """The state of each lane between steps.

    Attributes:
        h: one (B, H) array for each recurrent layer. An LSTM's is (B, 2H): output and memory
            [h | c] in one array, so that resets and lane moves apply to both. With `fade` one more,
            the last: m (B, D), see `network.recurrent`.
        history: (B, L) item indices, newest first, -1 for none; L = 0 unless input=weighted.
    """

    h: list[np.ndarray]
    history: np.ndarray


def rnn(
    xW: np.ndarray, h: np.ndarray, U: np.ndarray, b: np.ndarray, hidden_act: Activation = TANH
) -> tuple[np.ndarray, tuple]:
    """One step of the simple recurrent network, h' = g(x W + h U + b).

    Elman 1990; Hidasi et al. 2016 (arXiv 1511.06939), eq. 1.

    Args:
        xW: (B, H) the input's part; for a 1-of-N input, rows of W.
        h: (B, H) the state before the step.
        U: (H, H), b: (H,).
        hidden_act: g as (kind, a), see `activations.activate`.

    Returns:
        h': (B, H), and the cache that `rnn_backward` takes. All floats, in the inputs' dtype.
    """
    h_new = activate(xW + h @ U + b, *hidden_act)
    return h_new, (h, h_new)


def rnn_backward(
    dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `rnn`.

    Args:
        dh_new: (B, H) gradient with respect to h'; cache, U, hidden_act as in the forward step.

    Returns:
        dxW (B, H), dh (B, H), dU (H, H), db (H,).
    """
    h, h_new = cache
    dxW = activate_backward(dh_new, h_new, *hidden_act)
    return dxW, dxW @ U.T, h.T @ dxW, dxW.sum(axis=0)


def lstm(
    xW: np.ndarray, hc: np.ndarray, U: np.ndarray, b: np.ndarray, hidden_act: Activation = TANH
) -> tuple[np.ndarray, tuple]:
    """One step of a long short-term memory.

        i  = σ(x W_i + h U_i + b_i)              input gate: weight of the candidate
        f  = σ(x W_f + h U_f + b_f)              forget gate: weight of the old memory
        o  = σ(x W_o + h U_o + b_o)              output gate: weight of the memory in h'
        n  = tanh(x W_n + h U_n + b_n)           the candidate
        c' = f*c + i*n
        h' = o*tanh(c')

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000, without peepholes.
    The order of the gates keeps those with σ adjacent.

    Args:
        xW: (B, 4H) the input's part of the gates; for a 1-of-N input, rows of W.
        hc: (B, 2H) the state before the step, [h | c]: output and memory.
        U: (H, 4H), b: (4H,).
        hidden_act: replaces both tanh, as (kind, a), see `activations.activate`.

    Returns:
        [h' | c']: (B, 2H), and the cache that `lstm_backward` takes. All floats, in the inputs'
        dtype.
    """
    H = hc.shape[1] // 2
    h, c = hc[:, :H], hc[:, H:]
    a = xW + h @ U + b
    ifo = sigmoid(a[:, : 3 * H])
    i, f, o = ifo[:, :H], ifo[:, H : 2 * H], ifo[:, 2 * H :]
    n = activate(a[:, 3 * H :], *hidden_act)
    c_new = f * c + i * n
    shown = activate(c_new, *hidden_act)
    return np.hstack([o * shown, c_new]), (h, c, i, f, o, n, shown)


def lstm_backward(
    dhc_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `lstm`: its formulas in reverse order.

    Args:
        dhc_new: (B, 2H) gradient with respect to [h' | c']; cache, U, hidden_act as in the forward
            step.

    Returns:
        dxW (B, 4H), d[h | c] (B, 2H), dU (H, 4H), db (4H,).
    """
    h, c, i, f, o, n, shown = cache
    H = h.shape[1]
    dh_new, dc_new = dhc_new[:, :H], dhc_new[:, H:]
    dxW = np.empty((len(h), 4 * H), h.dtype)

    # h' = o*tanh(c'). The next step reads h' and c', so c' has two gradients.
    do = dh_new * shown
    dc_new = dc_new + activate_backward(dh_new * o, shown, *hidden_act)
    # c' = f*c + i*n
    di = dc_new * n
    df = dc_new * c
    dn = dc_new * i
    dc = dc_new * f
    # n = tanh(...); i, f, o = σ(...), and σ' = σ (1-σ)
    dxW[:, :H] = di * i * (1 - i)
    dxW[:, H : 2 * H] = df * f * (1 - f)
    dxW[:, 2 * H : 3 * H] = do * o * (1 - o)
    dxW[:, 3 * H :] = activate_backward(dn, n, *hidden_act)
    return dxW, np.hstack([dxW @ U.T, dc]), h.T @ dxW, dxW.sum(axis=0)


def gru(
    xW: np.ndarray, h: np.ndarray, U: np.ndarray, b: np.ndarray, hidden_act: Activation = TANH
) -> tuple[np.ndarray, tuple]:
    """One step of a gated recurrent unit, the reset gate applied before the product with U_n.

        r  = σ(x W_r + h U_r + b_r)              reset gate: weight of the old state in n
        z  = σ(x W_z + h U_z + b_z)              update gate: weight of the candidate
        n  = tanh(x W_n + (r*h) U_n + b_n)       the candidate
        h' = (1-z)*h + z*n

    Hidasi et al. 2016 (arXiv 1511.06939), eqs. 2-5.

    Args:
        xW: (B, 3H) the input's part of the three gates; for a 1-of-N input, rows of W.
        h: (B, H) the state before the step.
        U: (H, 3H), b: (3H,).
        hidden_act: the candidate's activation as (kind, a), see `activations.activate`.

    Returns:
        h': (B, H), and the cache that `gru_backward` takes. All floats, in the inputs' dtype.
    """
    H = h.shape[1]
    rz = sigmoid(xW[:, : 2 * H] + h @ U[:, : 2 * H] + b[: 2 * H])
    r, z = rz[:, :H], rz[:, H:]
    n = activate(xW[:, 2 * H :] + (r * h) @ U[:, 2 * H :] + b[2 * H :], *hidden_act)
    return (1 - z) * h + z * n, (h, r, z, n)


def gru_backward(
    dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `gru`: its formulas in reverse order.

    Args:
        dh_new: (B, H) gradient with respect to h'. cache: from `gru`. U, hidden_act: as for it.

    Returns:
        dxW (B, 3H), dh (B, H), dU (H, 3H), db (3H,).
    """
    h, r, z, n = cache
    H = h.shape[1]
    dxW = np.empty((len(h), 3 * H), h.dtype)  # x W and b are added: the same gradient

    # h' = (1-z)*h + z*n
    dz = dh_new * (n - h)
    dn = dh_new * z
    dh = dh_new * (1 - z)
    # n = tanh(x W_n + (r*h) U_n + b_n)
    dxW[:, 2 * H :] = activate_backward(dn, n, *hidden_act)
    drh = dxW[:, 2 * H :] @ U[:, 2 * H :].T
    dr = drh * h
    dh += drh * r
    # z, r = σ(...), and σ' = σ (1-σ)
    dxW[:, :H] = dr * r * (1 - r)
    dxW[:, H : 2 * H] = dz * z * (1 - z)
    dh += dxW[:, : 2 * H] @ U[:, : 2 * H].T

    dU = np.empty_like(U)
    dU[:, : 2 * H] = h.T @ dxW[:, : 2 * H]
    dU[:, 2 * H :] = (r * h).T @ dxW[:, 2 * H :]
    return dxW, dh, dU, dxW.sum(axis=0)


def gru_reset_after(
    xW: np.ndarray,
    h: np.ndarray,
    U: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    hidden_act: Activation = TANH,
) -> tuple[np.ndarray, tuple]:
    """One step of the GRU variant that applies the reset gate after the product with U_n.

        r  = σ(x W_r + b_r + h U_r + c_r)
        z  = σ(x W_z + b_z + h U_z + c_z)
        n  = tanh(x W_n + b_n + r*(h U_n + c_n))
        h' = (1-z)*h + z*n

    This is the GRU of cuDNN and PyTorch, with one product h U for all gates. Their z is the weight
    of the old state: the same cell with W_z, U_z, b_z, c_z negated. In r and z only the sum b + c
    matters. Both are kept, as in cuDNN, because the sum of two biases learns twice as fast.

    Args:
        xW: (B, 3H), h: (B, H), U: (H, 3H), b: (3H,) as in `gru`; c: (3H,) the bias of h U.
        hidden_act: the candidate's activation as (kind, a), see `activations.activate`.

    Returns:
        h': (B, H), and the cache that `gru_reset_after_backward` takes. All floats, in the inputs'
        dtype.
    """
    H = h.shape[1]
    hU = h @ U + c
    rz = sigmoid(xW[:, : 2 * H] + b[: 2 * H] + hU[:, : 2 * H])
    r, z = rz[:, :H], rz[:, H:]
    hU_n = hU[:, 2 * H :]
    n = activate(xW[:, 2 * H :] + b[2 * H :] + r * hU_n, *hidden_act)
    return (1 - z) * h + z * n, (h, r, z, n, hU_n)


def gru_reset_after_backward(
    dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `gru_reset_after`.

    Args:
        dh_new: (B, H) gradient with respect to h'; cache, U, hidden_act as in the forward step.

    Returns:
        dxW (B, 3H), dh (B, H), dU (H, 3H), db (3H,), dc (3H,).
    """
    h, r, z, n, hU_n = cache
    H = h.shape[1]
    dxW = np.empty((len(h), 3 * H), h.dtype)

    # h' = (1-z)*h + z*n
    dz = dh_new * (n - h)
    dn = dh_new * z
    # n = tanh(x W_n + b_n + r*(h U_n + c_n))
    da_n = activate_backward(dn, n, *hidden_act)
    dr = da_n * hU_n
    # z, r = σ(...), and σ' = σ (1-σ)
    dxW[:, :H] = dr * r * (1 - r)
    dxW[:, H : 2 * H] = dz * z * (1 - z)
    dxW[:, 2 * H :] = da_n
    # hU = h U + c has the same gradient, except that the candidate's block is scaled by r.
    dhU = dxW.copy()
    dhU[:, 2 * H :] *= r
    dh = dh_new * (1 - z) + dhU @ U.T
    return dxW, dh, h.T @ dhU, dxW.sum(axis=0), dhU.sum(axis=0)


def dense(
    x: np.ndarray, F: np.ndarray, f: np.ndarray, act: Activation = TANH
) -> tuple[np.ndarray, tuple]:
    """A feed-forward layer y = act(x F + f), optional between the last cell and the output.

    Hidasi et al. 2016 (arXiv 1511.06939), fig. 1.

    Args:
        x: (B, X), F: (X, Y), f: (Y,); act as (kind, a), see `activations.activate`.

    Returns:
        y: (B, Y), and the cache that `dense_backward` takes.
    """
    y = activate(x @ F + f, *act)
    return y, (x, y)


def dense_backward(
    dy: np.ndarray, cache: tuple, F: np.ndarray, act: Activation = TANH
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `dense`.

    Args:
        dy: (B, Y); cache, F, act as in the forward step.

    Returns:
        dx (B, X), dF (X, Y), df (Y,).
    """
    x, y = cache
    da = activate_backward(dy, y, *act)
    return da @ F.T, x.T @ da, da.sum(axis=0)
