"""Exercises of notebook 8, training: Adagrad, rows that repeat, dropout, one step, one epoch."""

import copy

import numpy as np

from checks import Exercise, Wrong, edited
from checks.common import in_place, row_sums_as_they_came, rows_unsummed
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.ops import optim
from solutions import ch08

# --- 8.1 ------------------------------------------------------------------------------------------


def _adagrad(p, g, a, learning_rate):
    p, state = p.copy(), {"a": a.copy()}
    optim.update(p, g, state, "adagrad", learning_rate)
    return p, state["a"]


def _adagrad_cases(rng):
    # Small gradients too, which show where the 1e-6 stands.
    size = 10.0 ** rng.uniform(-4, 0.5, (4, 3))
    g = rng.normal(size=(4, 3)) * size
    g[0, 0] = 0
    return [
        (rng.normal(size=(4, 3)), g, np.zeros((4, 3)), 0.1),
        (rng.normal(size=(4, 3)), g, rng.random((4, 3)) * size**2, 0.05),
        (rng.normal(size=3), np.array([1e-5, -3e-5, 0]), np.array([0, 2e-9, 1e-9]), 0.1),
    ]


# --- 8.2 ------------------------------------------------------------------------------------------


def _run_sums(answer, args):
    """What stops it where g has one axis, in words that name the axis."""
    try:
        return answer(*args)
    except (IndexError, ValueError) as error:
        if args[1].ndim > 1:
            raise
        raise Wrong(
            f"it works for g of shape (n, H) but not of (n,), which is b_y's: {error}. sums has "
            "the shape (len(distinct), *g.shape[1:])"
        ) from error


def _all_rows(rows, g):
    sums = np.zeros((rows.max() + 1, *g.shape[1:]))
    np.add.at(sums, rows, g)
    return np.arange(len(sums)), sums


# --- 8.3 ------------------------------------------------------------------------------------------


def update(p, a, v, rows, g, learning_rate, momentum):
    optim.update(p, g, {"a": a, "v": v}, "adagrad", learning_rate, momentum, rows)


def _update_in_place(answer, args):
    """What an answer leaves in the arrays that it was to change."""
    args = copy.deepcopy(args)
    before = copy.deepcopy(args[:3])
    if answer(*args) is ...:
        return None
    if all(np.array_equal(x, y) for x, y in zip(args[:3], before, strict=True)):
        raise Wrong(
            "p, a and v are as they were: change them in place, as p[rows] += ... does; what the "
            "function returns is not looked at"
        )
    return args[:3]


def _update_cases(rng):
    def one(rows, momentum):
        rest = rng.normal(size=(len(rows), 3)), 0.1, momentum
        return rng.normal(size=(6, 3)), rng.random((6, 3)), rng.normal(size=(6, 3)), rows, *rest

    return [one(np.array([1, 3, 4]), 0.3), one(np.arange(6), 0.9)]


# --- 8.5 ------------------------------------------------------------------------------------------


def _run_mask(answer, args):
    """What an answer gives; right numbers of another dtype than u's are wrong."""
    found, (u, p) = answer(*args), args
    if (
        isinstance(found, np.ndarray)
        and found.dtype != u.dtype
        and found.shape == u.shape
        and np.allclose(found, ch08.dropout_mask(u, p))
    ):
        raise Wrong(
            f"the numbers are right, but the mask is {found.dtype} and u is {u.dtype}: the mask "
            "must have u's dtype, or all of the training is computed in the mask's; "
            ".astype(u.dtype)"
        )
    return found


def _mask_cases(rng):
    u = rng.random((6, 3))
    u[2, 1] = 0.4  # exactly p, which stays
    return [
        (rng.random((5, 4), np.float32), 0.3),
        (rng.random((8, 2), np.float32), 0.8),
        (u, 0.4),
    ]


# --- 8.6, 8.7 -------------------------------------------------------------------------------------


def _flat(answer):
    """An answer to 8.6 with its cache spread out, so that each part is compared by itself."""

    def flat(*args):
        found = answer(*args)
        if found is None or found is ...:
            return found
        if not isinstance(found, tuple) or len(found) != 3:
            raise Wrong("it must return losses, out and the cache (e, gru's cache, V, dr)")
        losses, out, cache = found
        if cache is ...:
            return losses, out, *[...] * 4
        if not isinstance(cache, tuple | list) or len(cache) != 4:
            raise Wrong("the third thing is a tuple of four: (e, gru's cache, V, dr)")
        if not isinstance(cache[1], tuple):
            raise Wrong("second in the cache comes gru's own cache: (e, gru's cache, V, dr)")
        e, cell, V, dr = cache
        return losses, out, e, np.stack(cell), V, dr

    return flat


def _weights(rng, n_items=7, H=3):
    return {
        "W_x": rng.normal(size=(H, 3 * H)),
        "U0": rng.normal(size=(H, 3 * H)),
        "b0": rng.normal(size=3 * H),
        "V_y": rng.normal(size=(n_items, H)),
        "b_y": rng.normal(size=n_items),
    }


def _step(rng):
    """Arguments of forward: 4 lanes, 3 extra samples, duplicates among them, both masks."""
    B, H = 4, 3
    x, items = np.array([2, 5, 2, 0]), np.array([5, 1, 5, 2, 6, 5, 0])
    masks = [ch08.dropout_mask(rng.random((B, H)), p) for p in (0.3, 0.4)]
    return _weights(rng), x, items, rng.random(len(items)), rng.normal(size=(B, H)), *masks


def _backward_cases(rng):
    W, x, items, log_q, h, mask_e, mask_h = _step(rng)
    _, out, cache = ch08.forward(W, x, items, log_q, h, mask_e, mask_h)
    return [(W, out, mask_e, mask_h, cache, 6)]


# --- 8.8 ------------------------------------------------------------------------------------------


def _toy_step(x, items, h):
    """A step whose loss tells who fed what, in which order, with which state."""
    if (x < 0).any() or (items < 0).any():
        raise Wrong(
            "the step gets the item -1, which stands where there is no lane: take the first n "
            "columns of x[t] and y[t], n = batches.lanes[t]"
        )
    if len(h) != len(x):
        raise Wrong(
            f"the step gets {len(x)} items, but the states of {len(h)} lanes: some have gone, and "
            "keep[t] says which stay"
        )
    place = 1 + np.arange(len(items))
    losses = h.sum(axis=1) + x * 0.1 + np.cos(items @ np.sqrt(place)) * (1 + np.arange(len(x)))
    return losses, 0.5 * h + np.cos(x[:, None] + np.arange(h.shape[1]))


def _run_epoch(answer, args):
    try:
        return answer(*args)
    except (IndexError, ValueError) as error:
        if "boolean index" not in str(error) and "broadcast" not in str(error):
            raise
        raise Wrong(
            f"{error}. keep[t] and reset[t] have an entry for each of the B lanes that the epoch "
            "began with: cut keep[t] to len(h), and reset[t] to n"
        ) from error


def _epoch_cases(rng):
    logs = [
        [[0, 1, 2], [3, 4], [5, 6, 7, 1, 2], [2, 3], [4, 4, 0, 1], [6, 1], [7, 0, 3]],
        [[1, 2], [5, 6, 7, 1, 2], [2, 3, 4, 0]],  # the leftmost lane is the first to go
    ]
    cases = []
    for log in logs:
        b = session_parallel(Sessions.from_lists(log), 3, min_lanes=1)
        samples = rng.integers(0, 8, (len(b), 2))
        cases.append((b, np.zeros((3, 2)), iter(list(samples)), _toy_step))
    return cases


UPDATE_MISTAKES = {
    "rows that are not listed move too: their velocity fades and they coast on; "
    "touch p[rows], a[rows], v[rows] only": {
        "v[rows] = momentum * v[rows] - step": "v *= momentum\n    v[rows] -= step",
        "p[rows] += v[rows]": "p += v",
    },
    "the new velocity is not kept: put it back, v[rows] = ...": {
        "v[rows] = momentum": "new = momentum",
        "+= v[rows]": "+= new",
    },
    "the new sum of squares is not kept: put it back, a[rows] = ...": {
        "a[rows] += g * g": "new = a[rows] + g * g",
        "a[rows] + 1e-6": "new + 1e-6",
    },
    "the momentum term is missing: v = momentum v - step": {"momentum * v[rows] - step": "-step"},
    "v is not used: v = momentum v - step, then p += v": {
        "    v[rows] = momentum * v[rows] - step\n": "",
        "+= v[rows]": "-= step",
    },
    "momentum is missing, so that the old velocity never fades: v = momentum v - step": {
        "momentum * v[rows]": "v[rows]"
    },
    "the step divides by the old a: a[rows] takes in g² first": {
        "    a[rows] += g * g\n": "",
        "p[rows] += v[rows]": "p[rows] += v[rows]\n    a[rows] += g * g",
    },
    "p moves by the old velocity: v is renewed first, then p += v": {
        "\n    p[rows] += v[rows]": "",
        "v[rows] = m": "p[rows] += v[rows]\n    v[rows] = m",
    },
    "the step's sign: v = momentum v - step, as p += v goes downhill": {"- step": "+ step"},
    "both signs are turned, v + step and p -= v: here v has the minus sign, v = momentum v "
    "- step, and p += v": {"- step": "+ step", "+= v[rows]": "-= v[rows]"},
    "p -= v goes uphill, for v has the minus sign already: p += v": {"+= v[rows]": "-= v[rows]"},
    "the step is counted twice: it is in v already, so p += v is all": {
        "+= v[rows]": "+= v[rows] - step"
    },
    "that is an average, (1 - momentum) times the step; here the whole step enters v": {
        "- step": "- (1 - momentum) * step"
    },
}

FORWARD_MISTAKES = {
    "the state handed on is the one before dropout: the next step starts from the dropped "
    "one, h' * mask_h": {"losses, out": "losses, h_new"},
    "the embeddings are not dropped: V_y[x] * mask_e": {" * mask_e": ""},
    "the two masks are swapped: mask_e is for the embeddings, mask_h for the new state": {
        "* mask_e": "* mask_h",
        "h_new * mask_h": "h_new * mask_e",
    },
    "log_q has the wrong sign: give it to the loss as it is": {"log_q=log_q": "log_q=-log_q"},
    "log_q is not given to the loss: loss_and_gradient(..., log_q=log_q)": {", log_q=log_q": ""},
    "the scores come from h' before dropout: score with out": {"scores(out": "scores(h_new"},
    "the bias b_y is missing from the scores": {'W["b_y"]': '0 * W["b_y"]'},
}

EXERCISES = [
    Exercise(
        number="8.1",
        title="Adagrad",
        right=_adagrad,
        cases=_adagrad_cases,
        parts=("p", "a"),
        solution=ch08.adagrad,
        mistakes={
            "the 1e-6 stands outside the root; it belongs under it: sqrt(a + 1e-6)": {
                "np.sqrt(a + 1e-6)": "(np.sqrt(a) + 1e-6)"
            },
            "the 1e-6 is missing: where every gradient was 0 so far, 0/0 is not a number": {
                " + 1e-6": ""
            },
            "the step divides by the old a: a takes in g² first, then the step is made": {
                "    a = a + g * g\n": "",
                "1e-6), a": "1e-6), a + g * g",
            },
            "a sums the gradients themselves; it is the sum of their squares": {
                "g * g": "g",
                "(a + 1e-6)": "(np.abs(a) + 1e-6)",
            },
            "a sums |g|; it is the sum of the squares g²": {"g * g": "np.abs(g)"},
            "every entry of a takes in the sum of all g²; each takes in its own g² only": {
                "g * g": "(g * g).sum()"
            },
            "a is only this step's g²: it must remember all those before, a + g²": {
                "a + g * g": "g * g"
            },
            "the root is missing: divide by sqrt(a + 1e-6), not by a + 1e-6": {"np.sqrt": ""},
            "it climbs: the loss falls against the gradient, so the step is taken away": {
                "p - ": "p + "
            },
            "a keeps the 1e-6, which would grow with every step; it is added under the root only": {
                "g * g": "g * g + 1e-6",
                "(a + 1e-6)": "(a)",
            },
            "the learning rate is missing: it multiplies the step": {"learning_rate * ": ""},
            "one number for the whole matrix: every entry has its own sum a": {
                "a + 1e-6": "a.sum() + 1e-6"
            },
        },
        hints=[
            "Two lines: first a takes in this gradient, then p moves.",
            "a = a + g², entry by entry. Then a step is g over the root of (a + 1e-6).",
            "a = a + g * g; p = p - learning_rate * g / np.sqrt(a + 1e-6). New arrays, no +=.",
        ],
    ),
    Exercise(
        number="8.2",
        title="one sum for each row",
        right=optim.sum_rows,
        run=_run_sums,
        cases=lambda rng: [
            (np.array([5, 2, 5, 0, 2, 5]), rng.normal(size=(6, 3))),
            (np.array([3, 1]), rng.normal(size=(2, 4))),
            (np.array([4, 4, 4, 1]), rng.normal(size=4)),
        ],
        parts=("rows", "sums"),
        solution=ch08.sum_rows,
        mistakes={
            "of a row that occurs more than once only the last gradient is left: "
            "sums[i] += g with a repeated i writes several times, it does not add": {
                "np.add.at(sums, place, g)": "sums[place] += g"
            },
            "of a row that occurs more than once only the first gradient is left": {
                "np.add.at(sums, place, g)": "sums[place[::-1]] = g[::-1]"
            },
            "the gradients of a row are averaged; they add up, for the loss is a sum over its "
            "uses": {"return distinct, sums": "return distinct, (sums.T / np.bincount(place)).T"},
            "the rows are in order of appearance; ascending is asked": row_sums_as_they_came,
            "rows that do not occur are there as well, with zeros: of a million items a step "
            "would touch them all": _all_rows,
            "nothing is summed: these are the rows sorted, the duplicates still there": (
                rows_unsummed
            ),
        },
        hints=[
            "np.unique can also say, for each entry, which of the distinct rows it is.",
            "distinct, place = np.unique(rows, return_inverse=True). place is (n,).",
            "np.add.at(sums, place, g) adds for every occurrence; sums[place] += g does not. "
            "sums starts as zeros of shape (len(distinct), *g.shape[1:]).",
        ],
    ),
    Exercise(
        number="8.3",
        title="momentum, on some rows",
        right=in_place(update, 3),
        given=update,
        run=_update_in_place,
        cases=_update_cases,
        parts=("p", "a", "v"),
        mistakes={
            said: in_place(edited(ch08.update, edits), 3) for said, edits in UPDATE_MISTAKES.items()
        },
        hints=[
            "a[rows] is a copy. Change it and put it back: a[rows] += ... does both.",
            "Four lines: a[rows], then step, then v[rows], then p[rows].",
            "a[rows] += g * g; step = learning_rate * g / np.sqrt(a[rows] + 1e-6); "
            "v[rows] = momentum * v[rows] - step; p[rows] += v[rows].",
        ],
    ),
    Exercise(
        number="8.4",
        title="initial weights, gate by gate",
        right=ch08.init_block,
        cases=lambda rng: [
            (np.random.default_rng(3), 5, [4, 4, 4]),
            (np.random.default_rng(4), 30, [2, 7]),
        ],
        mistakes={
            "the scale is that of the whole matrix: each gate is a matrix of its own, "
            "sqrt(6 / (rows + its width))": {"rows + width)": "rows + sum(widths))"},
            "it is drawn as one matrix: draw block after block, each with its own scale": {
                "in widths": "in [sum(widths)]"
            },
            "the 6 is outside the root: sqrt(6 / (rows + width))": {
                "np.sqrt(6 / (rows + width))": "6 / np.sqrt(rows + width)"
            },
            "the columns are not in the sum: sqrt(6 / (rows + width))": {"(rows + width)": "rows"},
            "all weights are positive: uniform between -s and s": {"-s, s": "0, s"},
            "a normal distribution; here it is uniform": {"6 /": "2 /", "uniform(-s": "normal(0"},
            "a normal distribution of standard deviation s; here it is uniform, from -s to s": {
                "uniform(-s": "normal(0"
            },
            "the root is missing: s = sqrt(6 / (rows + width))": {"np.sqrt": ""},
            "that is the root of the variance; a uniform draw from -s to s has the variance s²/3, "
            "so the 2 becomes a 6": {"6 /": "2 /"},
        },
        hints=[
            "One block after the other: each has its own scale, and the order of drawing counts.",
            "rng.uniform(-s, s, (rows, width)) is one block, with s = np.sqrt(6 / (rows + width)).",
            "np.hstack([...]) of the blocks, one for each width in widths.",
        ],
    ),
    Exercise(
        number="8.5",
        title="a dropout mask",
        right=ch08.dropout_mask,
        run=_run_mask,
        cases=_mask_cases,
        mistakes={
            "what is kept must be made larger, by 1 / (1 - p), or the mean shrinks": {
                " / (1 - p)": ""
            },
            "p is the share that is dropped, not the share that stays": {">=": "<"},
            "p is the share that is dropped, not the share that stays (nor is 1/p the scale)": {
                ">=": "<",
                "(1 - p)": "p",
            },
            "the scale is 1 / (1 - p): p of the entries go, 1 - p are left to make up for them": {
                "(1 - p)": "p"
            },
            "it drops as many, but others: 0 where u < p is asked": {"u >= p": "u < 1 - p"},
            "an entry where u is exactly p stays: 0 where u < p, not where u <= p": {">=": ">"},
            "what stays is made of u; u only says which entries stay, all with one number": {
                "(u >= p).astype(u.dtype)": "(u >= p) * u"
            },
            "what is kept must grow, not shrink: divide by 1 - p": {"/": "*"},
        },
        hints=[
            "u < p happens with probability p: those entries are dropped.",
            "(u >= p) is 1 where an entry stays; divide so that its mean over many draws is 1.",
        ],
    ),
    Exercise(
        number="8.6",
        title="a step forward",
        right=_flat(ch08.forward),
        given=ch08.forward,
        run=lambda answer, args: _flat(answer)(*args),
        cases=lambda rng: [_step(rng)],
        parts=("losses", "out", "e", "gru's cache", "V", "dr"),
        mistakes={
            said: _flat(edited(ch08.forward, edits)) for said, edits in FORWARD_MISTAKES.items()
        },
        hints=[
            "e is what the lanes feed in: rows x of the table V_y, times mask_e.",
            "The cell wants x W, here e @ W['W_x'], then h, W['U0'] and W['b0'].",
            "out = h_new * mask_h is both what is scored and the next state. "
            "scores(out, W['V_y'], W['b_y'], items) gives r and V.",
        ],
    ),
    Exercise(
        number="8.7",
        title="a step backward",
        right=ch08.backward,
        cases=_backward_cases,
        parts=("dW_x", "dU0", "db0", "dE", "dV", "db_y"),
        mistakes={
            "the gradient at h' is not dropped: what mask_h put out gets no gradient, dout * "
            "mask_h": {"dout * mask_h": "dout"},
            "the gradient at the embeddings is not dropped: times mask_e": {" * mask_e": ""},
            "divided by the lanes that are there; the loss is the sum over the lanes divided by "
            "batch_size, even when lanes have gone": {"/ batch_size": "/ len(out)"},
            "not divided by batch_size: dr / batch_size, once, at the start": {" / batch_size": ""},
            "that is dh, what flows to the step before; the embeddings' gradient comes through "
            "W_x: dxW @ W_x.T": {"dxW, _": "dxW, dh", 'dxW @ W["W_x"].T': "dh"},
            "the cache's e is dropped already; mask_e once more counts it twice": {
                "e.T": "(e * mask_e).T"
            },
            "W_x was fed the dropped embeddings: its gradient is e.T @ dxW with e from the cache": {
                "e.T": "(e / np.where(mask_e > 0, mask_e, 1)).T"
            },
        },
        hints=[
            "The forward step, from its last line to its first. dr is divided by batch_size.",
            "scores_backward(dr / batch_size, out, V) gives dout, dV, db_y. "
            "out = h' * mask_h, so dh' = dout * mask_h.",
            "gru_backward(dh', cell, W['U0']) gives dxW, dh, dU0, db0; dh goes into the past and "
            "is not used here. xW = e W_x: dW_x = e.T @ dxW, and de = dxW @ W_x.T.",
            "e = V_y[x] * mask_e, so dE = de * mask_e.",
        ],
    ),
    Exercise(
        number="8.8",
        title="an epoch",
        right=ch08.epoch,
        run=_run_epoch,
        cases=_epoch_cases,
        parts=("losses", "h"),
        mistakes={
            "the state is never reset: a new session starts from another shopper's": {
                " * ~batches.reset[t, :n, None]": ""
            },
            "the state is reset after the step, which wipes out a session's first click": {
                " * ~batches.reset[t, :n, None]": "",
                "losses.append": "h = h * ~batches.reset[t, :n, None]\n        losses.append",
            },
            "the state is not handed on: every step starts from zeros": {
                "losses.append": "h = 0 * h\n        losses.append"
            },
            "all states are reset as soon as one lane starts a session: only its own is": {
                "~batches.reset[t, :n, None]": "(not batches.reset[t, :n].any())"
            },
            "reset the wrong way round: where reset is True the state becomes 0": {
                "~batches": "batches"
            },
            "when a lane goes, the wrong states stay: h[:n] leaves out the last one, keep[t] "
            "says which": {"batches.keep[t, : len(h)]": ":n"},
            "the lanes' targets come first among the items, then the extra samples": {
                "[y, extra]": "[extra, y]"
            },
            "x and y are the wrong way round? x is fed in": {"batches.x": "batches.y"},
            "a step's sum is kept, where the mean over its lanes is asked": {"mean()": "sum()"},
            "a step's sum is divided by the lanes that the epoch began with; the mean is over the "
            "lanes that are there": {"mean()": "sum() / 3"},
            "the extra samples are not among the items: the targets, then extra": {
                "np.concatenate([y, extra])": "y"
            },
        },
        hints=[
            "Three things in each step: bring the state into this step, call step, keep the mean.",
            "h[batches.keep[t, :len(h)]] are the lanes that are still there; then times "
            "~batches.reset[t, :n, None].",
            "x = batches.x[t, :n]; items = np.concatenate([batches.y[t, :n], extra]).",
            "of_lanes, h = step(x, items, h); losses.append(of_lanes.mean()).",
        ],
    ),
]
