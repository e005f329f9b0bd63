"""ops/encoders.py compiled: a batch of whole sessions in one call.

The events of a batch are stored step after step, and lane b of step t is row starts[t] + b.
`starts` (T + 1,) ends with their number E. Sums are in loops that write nothing, see `apart`.
"""

from __future__ import annotations

from gru4rec_np.backends.numba.compiled import Ints, Matrix, Vector, inner, kernel
from gru4rec_np.backends.numba.maths import exp, sigmoid, tanh, type_of
from gru4rec_np.backends.numba.matrices import add_dot, matrix_at, rows_of, vector_at, zero

# --- the global encoder ---------------------------------------------------------------------------

FEW = 16  # lanes, fewer than which a product by BLAS would mostly rearrange the weights


@inner
def _add_product(a, w, out):
    """out (lanes, N) += a (lanes, K) w (K, N). Late steps have few lanes."""
    K, N = w.shape
    if len(a) >= FEW:
        add_dot(a, w, out)
        return
    fours = K // 4 * 4
    for i in range(len(a)):
        y = vector_at(out, i * N, N)
        for k in range(0, fours, 4):  # a number that is read from out is used four times
            a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            w0, w1 = vector_at(w, k * N, N), vector_at(w, (k + 1) * N, N)
            w2, w3 = vector_at(w, (k + 2) * N, N), vector_at(w, (k + 3) * N, N)
            for j in range(N):
                y[j] = y[j] + a0 * w0[j] + a1 * w1[j] + a2 * w2[j] + a3 * w3[j]
        for k in range(fours, K):
            w0, a0 = vector_at(w, k * N, N), a[i, k]
            for j in range(N):
                y[j] += a0 * w0[j]


@kernel
def unroll(
    xW: Matrix, starts: Ints, U_rz: Matrix, U_n: Matrix, b: Vector, hU: Matrix, before: Matrix,
    rz: Matrix, rh: Matrix, n: Matrix, h: Matrix,
) -> None:  # fmt: skip
    """encoders.unroll: h (E, H), and for its backward pass before, rz, rh and n.

    before: (E, H) the state before each event. hU: (B, 2H) scratch.
    """
    H = h.shape[1]
    one = type_of(b[0])(1)
    for t in range(len(starts) - 1):
        first, lanes = starts[t], starts[t + 1] - starts[t]
        old = rows_of(before, first, first + lanes)
        a, a_n = matrix_at(hU, 0, lanes, 2 * H), matrix_at(hU, 0, lanes, H)
        reset = rows_of(rh, first, first + lanes)
        zero(old)
        zero(a)
        if t > 0:  # else all that depends on the state is 0
            for i in range(lanes):
                for k in range(H):
                    old[i, k] = h[starts[t - 1] + i, k]
            _add_product(old, U_rz, a)
        for i in range(lanes):
            x = vector_at(xW, (first + i) * 3 * H, 3 * H)
            y, row = vector_at(rz, (first + i) * 2 * H, 2 * H), vector_at(a, i * 2 * H, 2 * H)
            for k in range(2 * H):
                y[k] = sigmoid(x[k] + row[k] + b[k])
            for k in range(H):
                reset[i, k] = y[k] * old[i, k]
        zero(a_n)
        if t > 0:
            _add_product(reset, U_n, a_n)
        for i in range(lanes):
            x = vector_at(xW, (first + i) * 3 * H + 2 * H, H)
            z, bias = vector_at(rz, (first + i) * 2 * H + H, H), vector_at(b, 2 * H, H)
            for k in range(H):
                n[first + i, k] = tanh(x[k] + a_n[i, k] + bias[k])
            for k in range(H):
                h[first + i, k] = (one - z[k]) * old[i, k] + z[k] * n[first + i, k]


@kernel
def unroll_backward(
    dh: Matrix, starts: Ints, U_rz_T: Matrix, U_n_T: Matrix, before: Matrix, rz: Matrix,
    n: Matrix, dstate: Matrix, da_n: Matrix, drh: Matrix, da_rz: Matrix, dxW: Matrix,
) -> None:  # fmt: skip
    """encoders.unroll_backward: dxW (E, 3H), from which all other gradients follow.

    dstate: (B, H) zeros. da_n, drh: (B, H), da_rz: (B, 2H), scratch.
    """
    H = dh.shape[1]
    one = type_of(dh[0, 0])(1)
    for t in range(len(starts) - 2, -1, -1):
        first, lanes = starts[t], starts[t + 1] - starts[t]
        for i in range(lanes):
            z = vector_at(rz, (first + i) * 2 * H + H, H)
            da_z = vector_at(dxW, (first + i) * 3 * H + H, H)
            dx_n = vector_at(dxW, (first + i) * 3 * H + 2 * H, H)
            y, old = vector_at(n, (first + i) * H, H), vector_at(before, (first + i) * H, H)
            for k in range(H):
                d = dh[first + i, k] + dstate[i, k]
                da_z[k] = d * (y[k] - old[k]) * z[k] * (one - z[k])
                da_n[i, k] = d * z[k] * (one - y[k] * y[k])
                dstate[i, k] = d * (one - z[k])
            for k in range(H):
                dx_n[k] = da_n[i, k]
        if t == 0:  # the state before is 0
            for i in range(lanes):
                zero(vector_at(dxW, (first + i) * 3 * H, H))
            return
        dr, both = matrix_at(drh, 0, lanes, H), matrix_at(da_rz, 0, lanes, 2 * H)
        zero(dr)
        _add_product(matrix_at(da_n, 0, lanes, H), U_n_T, dr)
        for i in range(lanes):
            r = vector_at(rz, (first + i) * 2 * H, H)
            dx = vector_at(dxW, (first + i) * 3 * H, 2 * H)
            for k in range(H):
                dx[k] = dr[i, k] * before[first + i, k] * r[k] * (one - r[k])
                dstate[i, k] += dr[i, k] * r[k]
            for k in range(2 * H):
                both[i, k] = dx[k]
        _add_product(both, U_rz_T, matrix_at(dstate, 0, lanes, H))


# --- the local encoder ----------------------------------------------------------------------------


@inner
def _softmax(a, n):
    """The first n numbers of a <- their softmax."""
    highest, total = a[0], type_of(a[0])(0)
    for j in range(n):
        highest = max(highest, a[j])
    for j in range(n):
        a[j] = exp(a[j] - highest)
    for j in range(n):
        total += a[j]
    for j in range(n):
        a[j] /= total


@kernel
def attention(
    qk: Matrix, h: Matrix, v: Vector, starts: Ints, normalise: bool, a: Vector, c: Matrix
) -> None:
    """encoders.local without its products: c (E, H). qk: (E, 2H) [q | k]. a: (T,) scratch."""
    H = len(v)
    zero(c)
    for lane in range(starts[1]):
        for t in range(len(starts) - 1):
            event = starts[t] + lane
            if event >= starts[t + 1]:
                break
            query, out = vector_at(qk, event * 2 * H, H), vector_at(c, event * H, H)
            for j in range(t + 1):
                key = vector_at(qk, (starts[j] + lane) * 2 * H + H, H)
                total = type_of(v[0])(0)
                for u in range(H):
                    total += v[u] * sigmoid(query[u] + key[u])
                a[j] = total
            if normalise:
                _softmax(a, t + 1)
            for j in range(t + 1):
                state, weight = vector_at(h, (starts[j] + lane) * H, H), a[j]
                for u in range(H):
                    out[u] += weight * state[u]


@kernel
def attention_backward(
    dc: Matrix, qk: Matrix, h: Matrix, v: Vector, starts: Ints, normalise: bool, s: Matrix,
    a: Vector, da: Vector, dqk: Matrix, dh: Matrix, dv: Vector,
) -> None:  # fmt: skip
    """The gradients of `attention`. s: (T, H), a, da: (T,) scratch: σ is computed again."""
    H = len(v)
    one = type_of(v[0])(1)
    zero(dqk)
    zero(dh)
    zero(dv)
    for lane in range(starts[1]):
        for t in range(len(starts) - 1):
            event = starts[t] + lane
            if event >= starts[t + 1]:
                break
            query, dout = vector_at(qk, event * 2 * H, H), vector_at(dc, event * H, H)
            dquery = vector_at(dqk, event * 2 * H, H)
            mean = type_of(v[0])(0)
            for j in range(t + 1):
                row = (starts[j] + lane) * H
                key, state = vector_at(qk, 2 * row + H, H), vector_at(h, row, H)
                y = vector_at(s, j * H, H)
                for u in range(H):
                    y[u] = sigmoid(query[u] + key[u])
                total, dtotal = type_of(v[0])(0), type_of(v[0])(0)
                for u in range(H):
                    total += v[u] * y[u]
                    dtotal += dout[u] * state[u]
                a[j], da[j] = total, dtotal
            if normalise:
                _softmax(a, t + 1)
                for j in range(t + 1):
                    mean += a[j] * da[j]
                for j in range(t + 1):
                    da[j] = a[j] * (da[j] - mean)
            for j in range(t + 1):
                row = (starts[j] + lane) * H
                dkey, dstate = vector_at(dqk, 2 * row + H, H), vector_at(dh, row, H)
                y = vector_at(s, j * H, H)
                weight, dweight = a[j], da[j]
                for u in range(H):
                    d = dweight * v[u] * y[u] * (one - y[u])
                    dquery[u] += d
                    dkey[u] += d
                for u in range(H):
                    dstate[u] += weight * dout[u]
                    dv[u] += dweight * y[u]
