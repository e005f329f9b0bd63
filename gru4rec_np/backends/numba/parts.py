"""How a step is split into parts: what each part owns, and the arrays that parts share.

A part owns some of the units, from lo to hi, and some of the items, with their weights. Every
kernel of step.py computes what one part owns. It knows nothing of threads. `distinct_items` finds
the items of a step that a part owns. An item that was drawn several times is scored once and
weighted. count, weight and inverse have a row for each part, of its own items; counts, weights and
inverses are one part's copies of those of all items.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from gru4rec_np.backends.numba.compiled import (
    Doubles,
    Flags,
    IntMatrix,
    Ints,
    ItemMatrix,
    Matrix,
    Stack,
    Vector,
    inner,
    kernel,
)
from gru4rec_np.backends.numba.maths import exp, type_of
from gru4rec_np.backends.numba.matrices import TILE_ROWS, vector_at, zero

# --- the arrays of a step -------------------------------------------------------------------------

WEIGHTS = ("W_x", "U_rz", "U_n", "b", "c", "s", "s_m", "table", "V_y", "b_y")  # see FusedSteps

# Of the items that a part owns, in `sizes`: those scored; those scored or fed; rows fed of a table
# of the input's own; and the place of the first scored item among those of all parts.
SCORED, DISTINCT, FED, FIRST, SIZES = 0, 1, 2, 3, 8  # SIZES numbers fill a cache line


def shared_arrays(B: int, S: int, H: int, X: int, parts: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what all parts read."""
    return {
        "e": (B, X), "e_mask": (B, X),  # what the lanes feed in
        "h": (H * B,), "rh": (H * B,), "h_new": (H * B,),  # the state before, r * h, and after
        "m": (H * B,), "m_new": (H * B,),  # with fade: the sum of earlier embeddings, and the next
        "top": (H * B,),  # what scores items: h_new, with the skip h_new + s e + s_m m
        # With cosine: 1 / |V| of a part's items, cosine / |top| of a lane, and its top·dtop.
        "inverse": (parts, B + S), "lane_scale": (B,), "top_dtop": (parts, B),
        "log_own": (B,), "bias": (parts, B + S), "count": (parts, B + S), "weight": (parts, B + S),
        "log_weights": (parts,), "scores": (parts, (B + S) * B),  # of each part's items
        "raw": (B, B + S), "d_raw": (B, B + S), "db": (parts, B + S), "part_loss": (parts,),
        "dtop_T": (parts, B, H), "drh": (parts, H * B), "de_T": (parts, B, X),  # what parts add
    }  # fmt: skip


def own_arrays(B: int, S: int, H: int, X: int, K: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what only one part uses."""
    return {
        "V": (B + S, H), "a_bias": (1, B + S), "v_bias": (1, B + S),
        "counts": (B + S,), "weights": (B + S,), "inverses": (B + S,), "term": (B + S,),
        "lane_loss": (B,),
        "e_T": (X * B,), "xW": (3 * K * B,), "hU_rz": (2 * K * B,), "hU_n": (K * B,),
        "rz": (2 * K * B,), "n_gate": (K * B,), "h_mask": (K * B,),
        "dtop_own_T": (B * K,), "dtop": (K * B,), "dxW": (3 * K * B,), "dr": (K * B,),
        "g_n": (K * B,), "skip_de": (K * B,), "ds": (1, K), "ds_m": (1, K), "h_T": (B * H,),
        "rh_T": (B * H,), "top_T": (B * H,), "fed_sums": (B * X,),
        "tile": (TILE_ROWS * max(H, X),), "db_gates": (1, 3 * K),
    }  # fmt: skip


def index_arrays(B: int, S: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a part's int64 arrays of items: all it owns, distinct ones, and those fed."""
    return {"owned": (B + S,), "rows": (B + S + B,), "fed": (B,), "fed_rows": (B,)}


def _kinds() -> dict[str, Any]:
    """The kind of every parameter, by its name."""
    floats = shared_arrays(1, 1, 1, 1, 1) | own_arrays(1, 1, 1, 1, 1)
    kinds: dict[str, Any] = {
        name: (Vector, Matrix, Stack)[len(shape) - 1] for name, shape in floats.items()
    }
    kinds |= dict.fromkeys((*index_arrays(1, 1), "lanes", "before", "target", "first_row"), Ints)
    kinds |= {f"{of}{name}": Matrix for name in WEIGHTS for of in ("", "a_", "v_")}
    kinds |= dict.fromkeys(("x", "y", "samples", "mark"), ItemMatrix)
    kinds |= {"keep": Flags, "reset": Flags, "sizes": IntMatrix, "log_support": Vector}
    kinds |= dict.fromkeys(("onehot", "tied", "reset_after", "skip", "corrects"), bool)
    numbers = "step part parts lo hi H small stamp seed loss_kind batch_size"
    kinds |= dict.fromkeys(numbers.split(), int)
    numbers = "fade cosine tiny bpreg smoothing logq sample_alpha dropout_embed dropout_hidden"
    kinds |= dict.fromkeys(numbers.split(), float)
    return kinds | dict.fromkeys(("losses", "rates", "how", "hidden_act", "final_act"), Doubles)


phase = partial(kernel, kinds=_kinds())

# --- the items of a step --------------------------------------------------------------------------


@inner
def owner(item, parts):
    """The part, of a power of two, that owns an item: 16 at a time, as biases fill a cache line."""
    return item >> 4 & (parts - 1)


@inner
def _slot(item, stamp, size, mark, rows):
    """The item's slot among this step's distinct ones, a new one if it has none; their number.

    Without a branch, which the processor would guess wrong for every other item.
    """
    seen, old = mark[item, 0], mark[item, 1]
    new = seen != stamp
    slot = size if new else old
    mark[item, 0], mark[item, 1], rows[slot] = stamp, slot, item
    return slot, size + new


@phase
def distinct_items(
    step, part, parts, stamp, tied, logq, corrects, sample_alpha, lanes, x, y, samples, mark,
    log_support, owned, rows, fed, fed_rows, target, log_own, term, count, weight, log_weights,
    sizes,
):  # fmt: skip
    """The step's distinct items that the part owns, how often each is scored, and its weight.

    With logQ, a column of item i weighs e^-log_q: as a target 1/support^logq, as a sample
    1/support^(alpha logq). With `corrects`, alpha is 1 and log_support the log of
    `scoring.expected_columns`. An item's weight is the sum over its columns (see lane_losses), and
    log_weights the sum of the columns' log weights. target and log_own are filled for lanes whose
    target the part owns. fed is the place of each x that it owns, among rows if the input is tied
    to the output table, else among fed_rows; -1 for others.
    """
    f = type_of(log_own[0])
    n, S, stamp = lanes[step], samples.shape[1], stamp + step
    total, scored, m = f(0), 0, 0
    count = vector_at(count, part * count.shape[1], count.shape[1])
    weight = vector_at(weight, part * weight.shape[1], weight.shape[1])
    zero(count)
    zero(weight)
    for i in range(n):
        item = y[step, i]
        if owner(item, parts) == part:
            slot, scored = _slot(item, stamp, scored, mark, rows)
            target[i] = slot
            log_own[i] = f(0) if corrects else -f(logq) * log_support[item]
            weight[slot] += f(1)  # at first the columns as a target
            count[slot] += f(1)
    for i in range(S):  # apart, and without a branch, as in _slot
        owned[m] = samples[step, i]
        m += owner(samples[step, i], parts) == part
    for i in range(m):
        owned[i], scored = _slot(owned[i], stamp, scored, mark, rows)
    for i in range(m):  # apart: a count would wait for its slot, and all later ones too
        count[owned[i]] += f(1)
    if logq > 0:
        alpha = f(sample_alpha)
        for j in range(scored):  # apart, so that the next loop becomes vector instructions
            term[j] = f(logq) * log_support[rows[j]]
        for j in range(scored):
            log_q, as_target = term[j], weight[j]
            as_sample = count[j] - as_target
            weight[j] = as_target * exp(-log_q) + as_sample * exp(-alpha * log_q)
            total -= (as_target + alpha * as_sample) * log_q
    else:
        for j in range(scored):
            weight[j] = count[j]
    log_weights[part] = total
    distinct, n_fed = scored, 0
    for i in range(n):
        item = x[step, i]
        fed[i] = -1
        if owner(item, parts) == part:
            if tied:
                fed[i], distinct = _slot(item, stamp, distinct, mark, rows)
            else:
                fed[i] = n_fed
                for j in range(n_fed):
                    if fed_rows[j] == item:
                        fed[i] = j
                if fed[i] == n_fed:
                    fed_rows[n_fed] = item
                    n_fed += 1
    sizes[part, SCORED], sizes[part, DISTINCT], sizes[part, FED] = scored, distinct, n_fed
