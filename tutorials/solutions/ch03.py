"""Solutions of notebook 3, recurrence."""

import numpy as np

from gru4rec_np.ops.activations import sigmoid

# exercise 3.1


def rnn(xW, h, U, b):
    return np.tanh(xW + h @ U + b)


# exercise 3.2


def look_up(x, W):
    return W[x]


# exercise 3.3


def gru(xW, h, U, b):
    xW_r, xW_z, xW_n = np.split(xW, 3, axis=1)
    U_r, U_z, U_n = np.split(U, 3, axis=1)
    b_r, b_z, b_n = np.split(b, 3)
    r = sigmoid(xW_r + h @ U_r + b_r)
    z = sigmoid(xW_z + h @ U_z + b_z)
    n = np.tanh(xW_n + (r * h) @ U_n + b_n)
    return (1 - z) * h + z * n


# exercise 3.4


def for_the_other_z(W, U, b):
    W, U, b = W.copy(), U.copy(), b.copy()
    H = len(U)
    for weight in (W, U, b):
        weight[..., H : 2 * H] *= -1
    return W, U, b


# exercise 3.5


def lstm(xW, hc, U, b):
    h, c = np.split(hc, 2, axis=1)
    a_i, a_f, a_o, a_n = np.split(xW + h @ U + b, 4, axis=1)
    i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)
    c_new = f * c + i * np.tanh(a_n)
    return np.hstack([o * np.tanh(c_new), c_new])


# exercise 3.6


def gru_reset_after(xW, h, U, b, c):
    x_r, x_z, x_n = np.split(xW + b, 3, axis=1)
    hU_r, hU_z, hU_n = np.split(h @ U + c, 3, axis=1)
    r, z = sigmoid(x_r + hU_r), sigmoid(x_z + hU_z)
    n = np.tanh(x_n + r * hU_n)
    return (1 - z) * h + z * n
