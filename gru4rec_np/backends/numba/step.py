"""One training step of the usual network, forward and backward: network.train_window compiled.

Read top to bottom: what enters a step, its forward pass, its backward pass and its updates, as
kernels in the order in which they run. PHASES at the end lists them by phase. A kernel reads only
what an earlier phase, or its own part, has made. It computes what its part owns, see parts.py; a
parameter's name is its key there, and its shape stands beside it. Formulas are those of
ops/cells.py, ops/losses.py and ops/scoring.py.

Matrices are (units, n) or (items, n) for n lanes, so that a part's rows are contiguous and lanes
fill vectors: h, h_new, m, top, xW, rz, dxW, dtop, scores. _T marks a transpose. Lanes come first
without it in e and e_mask (n, X), raw and its gradient d_raw (n, items); V is (items, H). Letters
are those of network.py: B lanes, S samples, H units, I items, X width of the input; K the units of
a part. r is the reset gate; scores are y, and `scores` holds their gradient dy after `loss`. a_ and
v_ are Adagrad's sums and the velocities of a weight.
"""

from __future__ import annotations

import math

from gru4rec_np.backends.numba.compiled import inner
from gru4rec_np.backends.numba.kernels import (
    blend_backward,
    candidate,
    dropout_mask,
    fetch_ahead,
    gate,
    reset_backward,
    update_matrix,
    update_rows,
)
from gru4rec_np.backends.numba.maths import lane_losses, type_of, uint
from gru4rec_np.backends.numba.matrices import (
    add,
    add_columns,
    add_product_T,
    dot,
    flat,
    line,
    matrix_at,
    page,
    product,
    rows_of,
    sum_rows,
    tile_of,
    times,
    transpose,
    vector_at,
    zero,
)
from gru4rec_np.backends.numba.parts import (
    DISTINCT,
    FED,
    FIRST,
    SCORED,
    distinct_items,
    owner,
    phase,
)

# --- what enters a step ---------------------------------------------------------------------------


@phase
def enter_step(
    step, part, lo, hi, fade, lanes, before, keep, reset, rates, how, h_new, h, m_new, m
):  # fmt: skip
    """h and m of the part's units, from what the lanes of the last step put out.

    See network.enter_step. The first part sets the step's learning rate. All parts read it in a
    later phase.
    """
    if part == 0:
        how[1] = rates[step]
    n, n_old, K = lanes[step], before[step], hi - lo
    _enter(step, keep, reset, matrix_at(h_new, lo * n_old, K, n_old), matrix_at(h, lo * n, K, n))
    if fade > 0:
        _enter(
            step, keep, reset, matrix_at(m_new, lo * n_old, K, n_old), matrix_at(m, lo * n, K, n)
        )


@inner
def _enter(step, keep, reset, old, new):
    """new: the columns of old whose lanes stay, 0 where a session starts."""
    (K, n), n_old = new.shape, old.shape[1]
    f = type_of(old[0, 0])
    if n_old == n:  # all lanes stay, as nearly always
        for k in range(K):
            for i in range(n):
                new[k, i] = f(0) if reset[step, i] else old[k, i]
        return
    lane = 0
    for i in range(n_old):
        if keep[step, i]:
            for k in range(K):
                new[k, lane] = f(0) if reset[step, lane] else old[k, i]
            lane += 1


@phase
def encode(step, seed, dropout_embed, lanes, x, fed, table, e, e_mask):
    """e: the table's rows of the items that are fed and that the part owns, after dropout.

    The table is the input's: W_x for a 1-of-N input, V_y for a tied one, else E.
    """
    X = e.shape[1]
    for i in range(lanes[step]):
        if fed[i] >= 0:
            item = x[step, i]
            if dropout_embed > 0:
                dropout_mask(rows_of(e_mask, i, i + 1), i * X, X, 1, seed, 2 * step, dropout_embed)
            for k in range(X):
                e[i, k] = table[item, k] * e_mask[i, k]


# --- forward --------------------------------------------------------------------------------------


@phase
def gates(
    step, lo, hi, H, onehot, reset_after, small, lanes, e, h, W_x, U_rz, b, c, e_T, xW, hU_rz, rz,
    rh,
):  # fmt: skip
    """xW, then r and z of the part's units; rh unless the reset comes after: see cells.gru."""
    n, K, X = lanes[step], hi - lo, e.shape[1]
    x = matrix_at(xW, 0, 3 * K, n)
    if onehot:
        for g in range(3):
            transpose(rows_of(e, 0, n), g * H + lo, K, rows_of(x, g * K, g * K + K), 0)
    else:
        own_e_T = matrix_at(e_T, 0, X, n)
        transpose(rows_of(e, 0, n), 0, X, own_e_T, 0)
        product(W_x, own_e_T, x, small)
    add_columns(x, b)
    hU, rz = matrix_at(hU_rz, 0, 2 * K, n), matrix_at(rz, 0, 2 * K, n)
    product(U_rz, matrix_at(h, 0, H, n), hU, small)
    if reset_after:
        add_columns(hU, rows_of(c, 0, 2 * K))
    gate(flat(rows_of(x, 0, 2 * K)), flat(hU), flat(rz))
    if not reset_after:
        own_h, own_rh = vector_at(h, lo * n, K * n), vector_at(rh, lo * n, K * n)
        r = flat(rz)
        for j in range(K * n):
            own_rh[j] = r[j] * own_h[j]


@phase
def new_state(
    step, lo, hi, H, reset_after, skip, fade, hidden_act, dropout_hidden, seed, small, lanes, e, h,
    m, rh, xW, rz, U_n, c, s, s_m, hU_n, n_gate, h_mask, h_new, m_new, top,
):  # fmt: skip
    """The candidate and the new state of the part's units, after dropout; what scores items."""
    n, K = lanes[step], hi - lo
    hU, own_new = matrix_at(hU_n, 0, K, n), matrix_at(h_new, lo * n, K, n)
    product(U_n, matrix_at(h if reset_after else rh, 0, H, n), hU, small)
    if reset_after:
        add_columns(hU, rows_of(c, 2 * K, 3 * K))
    candidate(
        vector_at(xW, 2 * K * n, K * n), flat(hU), vector_at(rz, 0, K * n),
        vector_at(rz, K * n, K * n), vector_at(h, lo * n, K * n), reset_after, hidden_act,
        vector_at(n_gate, 0, K * n), flat(own_new),
    )  # fmt: skip
    if dropout_hidden > 0:
        mask = matrix_at(h_mask, 0, K, n)
        dropout_mask(mask, lo, 1, H, seed, 2 * step + 1, dropout_hidden)
        times(flat(own_new), flat(mask))
    own_top = matrix_at(top, lo * n, K, n)
    for k in range(K):
        for i in range(n):
            own_top[k, i] = own_new[k, i] + s[k, 0] * e[i, uint(lo + k)] if skip else own_new[k, i]
    if fade > 0:
        own_m, own_new_m = matrix_at(m, lo * n, K, n), matrix_at(m_new, lo * n, K, n)
        factor = type_of(h_new[0])(fade)
        for k in range(K):
            for i in range(n):
                own_top[k, i] += s_m[k, 0] * own_m[k, i]
                own_new_m[k, i] = factor * (own_m[k, i] + e[i, uint(lo + k)])


@phase
def scores(
    step, part, H, cosine, tiny, small, lanes, rows, sizes, V_y, b_y, top, V, bias, inverse, scores,
):  # fmt: skip
    """scores (items, n) = V top, without biases; the rows V of the part's items are gathered."""
    f = type_of(bias[0, 0])
    n, scored = lanes[step], sizes[part, SCORED]
    sizes[part, FIRST] = 0
    for q in range(part):
        sizes[part, FIRST] += sizes[q, SCORED]
    columns = matrix_at(top, 0, H, n)
    tile = tile_of(n, H, small)
    rows = vector_at(rows, 0, scored)
    for start in range(0, scored, tile):
        end = min(start + tile, scored)
        for j in range(start, end):
            row = rows[j]
            fetch_ahead(V_y, rows, j)
            for k in range(H):  # a loop: a copied slice takes three times as long
                V[j, k] = V_y[row, k]
            bias[part, j] = b_y[row, 0]
            if cosine > 0:
                square = f(tiny)
                for k in range(H):
                    square += V[j, k] * V[j, k]
                inverse[part, j] = f(1) / f(math.sqrt(square))
        y = matrix_at(scores, part * scores.shape[1] + start * n, end - start, n)
        dot(rows_of(V, start, end), columns, y)


@phase
def loss(
    step, part, parts, H, cosine, tiny, loss_kind, final_act, bpreg, smoothing, corrects,
    batch_size, lanes, y, sizes, target, log_own, count, weight, log_weights, bias, inverse, counts,
    weights, inverses, top, lane_scale, term, raw, d_raw, scores, db, lane_loss, part_loss,
):  # fmt: skip
    """The loss of the part's lanes, and the gradient of their scores, which replaces the scores.

    Here the scored items are those of all parts. db is the part's share of their biases' gradient.
    """
    f = type_of(log_own[0])
    n, width, total = lanes[step], scores.shape[1], f(0)
    scored = sizes[parts - 1, FIRST] + sizes[parts - 1, SCORED]
    lo, hi = part * n // parts, (part + 1) * n // parts
    scale = f(1 / batch_size)
    own_raw, dy = rows_of(raw, lo, hi), rows_of(d_raw, lo, hi)
    if cosine > 0:
        of_lane = matrix_at(top, 0, H, n)
        for i in range(lo, hi):
            lane_scale[i] = f(tiny)
        for k in range(H):
            for i in range(lo, hi):
                lane_scale[i] += of_lane[k, uint(i)] * of_lane[k, uint(i)]
        for i in range(lo, hi):
            lane_scale[i] = f(cosine) / f(math.sqrt(lane_scale[i]))
    for q in range(parts):
        first, size = sizes[q, FIRST], sizes[q, SCORED]
        transpose(matrix_at(scores, q * width, size, n), lo, hi - lo, own_raw, first)
        for i in range(hi - lo):
            for j in range(size):
                if cosine > 0:
                    own_raw[i, uint(first + j)] *= inverse[q, j] * lane_scale[lo + i]
                else:
                    own_raw[i, uint(first + j)] += bias[q, j]
        for j in range(size):
            counts[uint(first + j)], weights[uint(first + j)] = count[q, j], weight[q, j]
            inverses[uint(first + j)] = inverse[q, j]
        total += log_weights[q]
        for i in range(lo, hi):
            if owner(y[step, i], parts) == q:
                target[i] += first
    lane_losses(
        own_raw, dy, scored, term, vector_at(target, lo, hi - lo), counts, weights,
        vector_at(log_own, lo, hi - lo), total, loss_kind, final_act, bpreg, smoothing, corrects,
        lane_loss,
    )  # fmt: skip
    own_db = vector_at(db, part * db.shape[1], scored)
    zero(own_db)
    for i in range(hi - lo):
        for j in range(scored):
            dy[i, j] *= scale
            own_db[j] += dy[i, j]
        if cosine > 0:  # of the products, whose cosines the scores are
            for j in range(scored):
                dy[i, j] *= inverses[j] * lane_scale[lo + i]
    for turn in range(parts):  # each part begins elsewhere, to avoid false sharing
        q = (part + turn) % parts
        first, size = sizes[q, FIRST], sizes[q, SCORED]
        transpose(dy, first, size, matrix_at(scores, q * width, size, n), lo)
    total = f(0)
    for i in range(hi - lo):
        total += lane_loss[i]
    part_loss[part] = total * scale


# --- backward -------------------------------------------------------------------------------------


@phase
def scores_backward(
    step, part, parts, H, cosine, small, lanes, sizes, scores, V, top, part_loss, dtop_T, top_dtop,
    losses,
):  # fmt: skip
    """What the part's items add to dtop, and to top·dtop; the loss of all lanes."""
    n, scored = lanes[step], sizes[part, SCORED]
    if part == 0:
        losses[step] = 0
        for q in range(parts):
            losses[step] += part_loss[q]
    dy = matrix_at(scores, part * scores.shape[1], scored, n)
    dtop_T = rows_of(page(dtop_T, part), 0, n)
    zero(dtop_T)
    add_product_T(dy, rows_of(V, 0, scored), dtop_T, small)
    if cosine > 0:
        of_lane = matrix_at(top, 0, H, n)
        for i in range(n):
            top_dtop[part, i] = 0
            for k in range(H):
                top_dtop[part, i] += dtop_T[i, k] * of_lane[k, i]


@phase
def state_backward(
    step, part, parts, lo, hi, H, reset_after, skip, fade, cosine, hidden_act, dropout_hidden,
    lanes, dtop_T, top, lane_scale, top_dtop, e, h, m, rz, n_gate, h_mask, U_n, s, dtop_own_T, dtop,
    dxW, drh, skip_de, ds, ds_m,
):  # fmt: skip
    """From dtop to the z and n rows of dxW, ds and ds_m; what the part's units add to drh.

    Past the skip, dtop is the gradient of h_new. The old state and m are constants, for bptt = 1.
    """
    n, K = lanes[step], hi - lo
    sums_T, dtop = matrix_at(dtop_own_T, 0, n, K), matrix_at(dtop, 0, K, n)
    zero(sums_T)
    for q in range(parts):
        for i in range(n):
            for k in range(K):
                sums_T[i, k] += dtop_T[q, i, uint(lo + k)]
    if cosine > 0:  # scoring.of_length_backward
        own_top = matrix_at(top, lo * n, K, n)
        for i in range(n):
            along = type_of(top_dtop[0, 0])(0)
            for q in range(parts):
                along += top_dtop[q, i]
            along *= (lane_scale[i] / type_of(along)(cosine)) ** 2
            for k in range(K):
                sums_T[i, k] -= along * own_top[k, i]
    transpose(sums_T, 0, K, dtop, 0)
    if skip:
        de = matrix_at(skip_de, 0, K, n)
        for k in range(K):
            ds[0, k] = 0
            for i in range(n):
                de[k, i] = dtop[k, i] * s[k, 0]
                ds[0, k] += dtop[k, i] * e[i, uint(lo + k)]
    if fade > 0:
        own_m = matrix_at(m, lo * n, K, n)
        for k in range(K):
            ds_m[0, k] = 0
            for i in range(n):
                ds_m[0, k] += dtop[k, i] * own_m[k, i]
    if dropout_hidden > 0:
        times(flat(dtop), vector_at(h_mask, 0, K * n))
    dx_n = matrix_at(dxW, 2 * K * n, K, n)
    blend_backward(
        flat(dtop), vector_at(h, lo * n, K * n), vector_at(rz, K * n, K * n),
        vector_at(n_gate, 0, K * n), hidden_act, vector_at(dxW, K * n, K * n), flat(dx_n),
    )  # fmt: skip
    if not reset_after:
        dot(U_n.T, dx_n, matrix_at(drh, part * drh.shape[1], H, n))


@phase
def gates_backward(
    step, part, parts, lo, hi, H, onehot, reset_after, skip, small, lanes, h, rz, hU_n, drh, W_x,
    dxW, dr, g_n, skip_de, de_T,
):  # fmt: skip
    """The r rows of dxW; and what these units add to the gradient of e.

    dr is drh h, or with reset_after dx_n (h U_n), and then g_n is the gradient of h U_n.
    """
    n, K = lanes[step], hi - lo
    dx, dr, r = matrix_at(dxW, 0, 3 * K, n), vector_at(dr, 0, K * n), vector_at(rz, 0, K * n)
    g_n, dx_n = vector_at(g_n, 0, K * n), vector_at(dxW, 2 * K * n, K * n)
    if reset_after:
        hU = vector_at(hU_n, 0, K * n)
        for j in range(K * n):
            dr[j] = dx_n[j] * hU[j]
            g_n[j] = dx_n[j] * r[j]
    else:
        zero(dr)
        for q in range(parts):
            add(dr, vector_at(drh, q * drh.shape[1] + lo * n, K * n))
        times(dr, vector_at(h, lo * n, K * n))
    reset_backward(dr, r, vector_at(dxW, 0, K * n))
    de_T = rows_of(page(de_T, part), 0, n)
    if onehot:
        for g in range(3):
            transpose(rows_of(dx, g * K, g * K + K), 0, n, de_T, g * H + lo)
    else:
        zero(de_T)
        add_product_T(dx, W_x, de_T, small)
    if skip:
        de = matrix_at(skip_de, 0, K, n)
        for k in range(K):
            for i in range(n):
                de_T[i, uint(lo + k)] += de[k, i]


# --- updates --------------------------------------------------------------------------------------


@phase
def update_units(
    step, lo, hi, H, onehot, reset_after, skip, fade, how, small, lanes, e, h, rh,
    dxW, g_n, ds, ds_m, h_T, rh_T, tile, db_gates, first_row, W_x, a_W_x, v_W_x,
    U_rz, a_U_rz, v_U_rz, U_n, a_U_n, v_U_n, b, a_b, v_b, c, a_c, v_c, s, a_s, v_s,
    s_m, a_s_m, v_s_m,
):  # fmt: skip
    """The part's rows of W_x, U, b, c, s, s_m, which no other part reads: they change at once."""
    n, K = lanes[step], hi - lo
    dx = matrix_at(dxW, 0, 3 * K, n)
    dhU_n = matrix_at(g_n, 0, K, n) if reset_after else rows_of(dx, 2 * K, 3 * K)
    h_T, rh_T = matrix_at(h_T, 0, n, H), matrix_at(rh_T, 0, n, H)
    transpose(matrix_at(h, 0, H, n), 0, n, h_T, 0)
    if not reset_after:
        transpose(matrix_at(rh, 0, H, n), 0, n, rh_T, 0)
    if not onehot:
        update_matrix(W_x, dx, rows_of(e, 0, n), a_W_x, v_W_x, how, small, tile, first_row)
    dx_rz = rows_of(dx, 0, 2 * K)
    update_matrix(U_rz, dx_rz, h_T, a_U_rz, v_U_rz, how, small, tile, first_row)
    in_n = h_T if reset_after else rh_T
    update_matrix(U_n, dhU_n, in_n, a_U_n, v_U_n, how, small, tile, first_row)
    sum_rows(dx, db_gates)
    update_rows(line(b), first_row, db_gates, line(a_b), line(v_b), how)
    if reset_after:  # c takes b's gradient, but for the candidate's rows, which r has scaled
        sum_rows(dhU_n, matrix_at(db_gates, 2 * K, 1, K))
        update_rows(line(c), first_row, db_gates, line(a_c), line(v_c), how)
    if skip:
        update_rows(line(s), first_row, ds, line(a_s), line(v_s), how)
    if fade > 0:
        update_rows(line(s_m), first_row, ds_m, line(a_s_m), line(v_s_m), how)


@inner
def _add_de(i, parts, de_T, e_mask, total, row):
    """total[row] += the gradient of what entered in lane i."""
    for q in range(parts):
        for k in range(e_mask.shape[1]):
            total[row, k] += de_T[q, i, k] * e_mask[i, k]


@inner
def _without_length(V, part, start, inverse, dV):
    """Take out of dV what would only change the lengths of the rows V: scoring.across."""
    for j in range(len(V)):
        along = type_of(dV[0, 0])(0)
        for k in range(V.shape[1]):
            along += dV[j, k] * V[j, k]
        along *= inverse[part, uint(start + j)] ** 2
        for k in range(V.shape[1]):
            dV[j, k] -= along * V[j, k]


@phase
def update_output(
    step, part, parts, H, tied, cosine, how, small, lanes, rows, fed, sizes,
    V, inverse, scores, top, top_T, de_T, e_mask, tile, V_y, a_V_y, v_V_y,
):  # fmt: skip
    """The part's rows of the output table; also as the input's, if it is tied."""
    n, scored, distinct = lanes[step], sizes[part, SCORED], sizes[part, DISTINCT]
    dy, top_T = matrix_at(scores, part * scores.shape[1], scored, n), matrix_at(top_T, 0, n, H)
    transpose(matrix_at(top, 0, H, n), 0, n, top_T, 0)
    some = tile_of(n, H, small)
    for start in range(0, distinct, some):
        end = min(start + some, distinct)
        has = max(0, min(end, scored) - start)  # rows that are scored; the others are only fed
        dV = matrix_at(tile, 0, end - start, H)
        if has:
            dot(rows_of(dy, start, start + has), top_T, rows_of(dV, 0, has))
            if cosine > 0:
                _without_length(rows_of(V, start, start + has), part, start, inverse, dV)
        zero(rows_of(dV, has, end - start))
        if tied:
            for i in range(n):
                row = fed[i] - start
                if 0 <= row < end - start:
                    _add_de(i, parts, de_T, e_mask, dV, row)
        update_rows(V_y, vector_at(rows, start, end - start), dV, a_V_y, v_V_y, how)


@phase
def update_output_bias(
    step, part, parts, cosine, how, rows, sizes, bias, db, a_bias, v_bias,
    first_row, b_y, a_b_y, v_b_y,
):  # fmt: skip
    """The biases of the part's items, gathered so that they fill vectors. None with cosine."""
    if cosine > 0:
        return
    first, scored, width = sizes[part, FIRST], sizes[part, SCORED], db.shape[1]
    rows, own_db = vector_at(rows, 0, scored), matrix_at(db, first, 1, scored)
    for q in range(1, parts):
        add(flat(own_db), vector_at(db, q * width + first, scored))
    own_bias = matrix_at(bias, part * width, 1, scored)
    a, v = matrix_at(a_bias, 0, 1, scored), matrix_at(v_bias, 0, 1, scored)
    adagrad, momentum = how[0] > 0, how[2] > 0
    for j in range(scored):
        if adagrad:
            a[0, j] = a_b_y[rows[j], 0]
        if momentum:
            v[0, j] = v_b_y[rows[j], 0]
    update_rows(own_bias, first_row, own_db, a, v, how)
    for j in range(scored):
        b_y[rows[j], 0] = own_bias[0, j]
        if adagrad:
            a_b_y[rows[j], 0] = a[0, j]
        if momentum:
            v_b_y[rows[j], 0] = v[0, j]


@phase
def update_input(
    step, part, parts, tied, how, lanes, fed, fed_rows, sizes, de_T,
    e_mask, fed_sums, table, a_table, v_table,
):  # fmt: skip
    """The part's rows of a table of its own that were fed; equal rows are summed first."""
    if tied:
        return
    n_fed, X = sizes[part, FED], e_mask.shape[1]
    sums = matrix_at(fed_sums, 0, n_fed, X)
    zero(sums)
    for i in range(lanes[step]):
        if fed[i] >= 0:
            _add_de(i, parts, de_T, e_mask, sums, fed[i])
    update_rows(table, vector_at(fed_rows, 0, n_fed), sums, a_table, v_table, how)


# In a phase, what a part reads was made in an earlier phase or by the part itself.
PHASES = (
    (enter_step, distinct_items, encode),
    (gates,),
    (new_state,),
    (scores,),
    (loss,),
    (scores_backward,),
    (state_backward,),
    (gates_backward, update_units),
    (update_output, update_output_bias, update_input),
)
