"""Solutions of notebook 4, backward by hand."""

import numpy as np

# exercise 4.1


def numerical_gradient(f, x, eps=1e-5):
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        plus, minus = x.copy(), x.copy()
        plus[i] += eps
        minus[i] -= eps
        out[i] = (f(plus) - f(minus)) / (2 * eps)
    return out


# exercise 4.2


def sigmoid_backward(dy, y):
    return dy * y * (1 - y)


# exercise 4.3


def dense_backward(dy, cache, F):
    x, y = cache
    da = dy * (1 - y * y)
    return da @ F.T, x.T @ da, da.sum(axis=0)


# exercise 4.4


def mix_backward(dh_new, h, z, n):
    return dh_new * (n - h), dh_new * z, dh_new * (1 - z)


# exercise 4.5


def candidate_backward(dn, h, r, n, U_n):
    da_n = dn * (1 - n * n)
    drh = da_n @ U_n.T
    return da_n, drh * h, drh * r


# exercise 4.6


def gru_backward(dh_new, cache, U):
    h, r, z, n = cache
    U_r, U_z, U_n = np.split(U, 3, axis=1)
    dz, dn, dh = mix_backward(dh_new, h, z, n)
    da_n, dr, through_n = candidate_backward(dn, h, r, n, U_n)
    da_r, da_z = sigmoid_backward(dr, r), sigmoid_backward(dz, z)
    dh = dh + through_n + da_r @ U_r.T + da_z @ U_z.T
    dxW = np.hstack([da_r, da_z, da_n])
    dU = np.hstack([h.T @ da_r, h.T @ da_z, (r * h).T @ da_n])
    return dxW, dh, dU, dxW.sum(axis=0)


# exercise 4.7


def gru_reset_after_backward(dh_new, cache, U):
    h, r, z, n, hU_n = cache
    dz, dn, dh = mix_backward(dh_new, h, z, n)
    da_n = dn * (1 - n * n)
    da_r, da_z = sigmoid_backward(da_n * hU_n, r), sigmoid_backward(dz, z)
    dxW = np.hstack([da_r, da_z, da_n])
    dhU = np.hstack([da_r, da_z, da_n * r])
    return dxW, dh + dhU @ U.T, h.T @ dhU, dxW.sum(axis=0), dhU.sum(axis=0)


# exercise 4.8


def sum_rows(rows, g):
    distinct, place = np.unique(rows, return_inverse=True)
    sums = np.zeros((len(distinct), g.shape[1]))
    np.add.at(sums, place, g)
    return distinct, sums


# exercise 4.9


def gru_through_time(dout, caches, reset, U):
    dxW = np.empty((len(caches), dout.shape[1], U.shape[1]))
    dU, db, dh = np.zeros_like(U), np.zeros(U.shape[1]), 0
    for t in reversed(range(len(caches))):
        dxW[t], dh, dU_t, db_t = gru_backward(dout[t] + dh, caches[t], U)
        dU, db = dU + dU_t, db + db_t
        dh = dh * ~reset[t][:, None]
    return dxW, dU, db
