"""Exercises of notebook 6: the ranking losses and their gradients."""

import copy

import numpy as np

from checks import Exercise, Wrong, edited
from checks.common import softmax
from gru4rec_np.ops import losses
from solutions import ch06


def _softplus(x):
    return np.logaddexp(0, x)


def _lse(r):
    return np.logaddexp.reduce(r, axis=1)


def _target(r):
    return np.diagonal(r)[:, None]


def _is_target(r):
    return np.eye(*r.shape, dtype=bool)


def _without_target(r):
    """The scores with -inf for the target's."""
    return np.where(_is_target(r), -np.inf, r)


def _scores(rng, spread=1.0):
    """Lanes and columns of several sizes, B < N."""
    return [rng.normal(0, spread, shape) for shape in ((3, 5), (4, 4), (2, 7))]


def _large_scores():
    """Apart by up to 2e4, the target above, below and level."""
    r = np.random.default_rng(0).normal(size=(4, 6))
    r[0, 3] = r[1, 1] = 1e4
    r[2] *= 1e4
    r[3, 3] = -1e4
    return r


def _also_at(right, *large, mistakes=None):
    """A run for answers that are right on usual scores: they must be so on large ones too.

    mistakes: name to function, of those that show on large scores only.
    """

    def run(answer, args):
        result = answer(*args)
        if not _close(result, right(*args)):
            return result
        expected = right(*large)
        with np.errstate(all="ignore"):
            found = answer(*copy.deepcopy(large))
            if _close(found, expected):
                return result
            for name, mistake in (mistakes or {}).items():
                if np.allclose(found, mistake(*copy.deepcopy(large)), 1e-9, 1e-9, True):
                    raise Wrong(name)
        if not np.isfinite(found).all():
            raise Wrong(
                "it is right for small numbers; for such as 1e4 something overflows, or is "
                "rounded to 0 before a logarithm or a division: the result has inf or NaN"
            )
        at = np.argmax(np.abs(np.subtract(found, expected)))
        raise Wrong(
            "it is right for small numbers, but not for such as 1e4: an entry is "
            f"{np.ravel(found)[at]:g}, expected {np.ravel(expected)[at]:g}"
        )

    return run


def _close(found, expected):
    try:
        return np.shape(found) == np.shape(expected) and np.allclose(
            found, expected, 1e-6, 1e-6 * np.abs(expected).max()
        )
    except (TypeError, ValueError):  # a hole, or no numbers
        return False


# --- cross-entropy --------------------------------------------------------------------------------


def _cross_entropy(r):
    return losses.cross_entropy(r)[0]


def _one_maximum(r):
    """Its logarithm of 0 is -inf in each row that is far below the array's maximum."""
    return r.max() + np.log(np.exp(r - r.max()).sum(axis=1)) - np.diagonal(r)


def _cross_entropy_gradient(r):
    return losses.cross_entropy_backward(losses.cross_entropy(r)[1])


# --- BPR ------------------------------------------------------------------------------------------


def _bpr(r):
    loss, cache = losses.bpr(r)
    return loss, losses.bpr_backward(cache)


# --- TOP1 -----------------------------------------------------------------------------------------


def _top1(r):
    loss, cache = losses.top1(r)
    return loss, losses.top1_backward(cache)


# --- the -max losses ------------------------------------------------------------------------------


def _negatives_softmax(r):
    return softmax(_without_target(r))


def _bpr_max(r, bpreg):
    return losses.bpr_max(r, bpreg)[0]


def _bpr_max_gradient(r, bpreg):
    return losses.bpr_max_backward(losses.bpr_max(r, bpreg)[1], bpreg)


def _ranking_part(r, s):
    """-log Σ_j s_j σ(r_i - r_j), with the logarithm of each term."""
    with np.errstate(divide="ignore"):
        return -_lse(np.log(s) - _softplus(r - _target(r)))


def _size(r, s):
    return (s * r * r).sum(axis=1)


def _max_of(weights, regular):
    """bpr-max with other weights in its first and in its second part."""
    return lambda r, bpreg: _ranking_part(r, weights(r)) + bpreg * _size(r, regular(r))


def _no_weights(r):
    return ~_is_target(r) / (r.shape[1] - 1)


def _zeroed_softmax(r):
    return softmax(r) * ~_is_target(r)


# Rounds s to 0 where it is small: the right answer but for large scores.
_max_log_of_s = _max_of(_negatives_softmax, _negatives_softmax)


def _in_terms(gradient):
    """A gradient as three parts, each of which can be right by itself."""

    def terms(r, bpreg):
        dr = gradient(r, 0.0)
        return dr * ~_is_target(r), np.diagonal(dr), gradient(r, bpreg) - dr

    return terms


def _run_in_terms(answer, args):
    dr = _also_at(_bpr_max_gradient, _large_scores(), 0.5)(answer, args)
    if dr is None or dr is Ellipsis:
        return dr
    if np.shape(dr) != args[0].shape:
        raise Wrong(f"dr must have r's shape, {args[0].shape}; it has {np.shape(dr)}")
    return _in_terms(answer)(*args)


GRADIENT_MISTAKES = {
    "in the logarithm s is treated as a constant; it depends on the scores": {
        "s - p * sigmoid(r_i - r)": "p * sigmoid(r - r_i)"
    },
    "log Σ e^r of the negatives is treated as a constant; its derivative is s_j": {
        "s - p *": "-p *"
    },
    "for r_j only log A_j is differentiated; r_j is in the log-sum-exp of every log A_k, too": {
        "s - p * sigmoid(r_i - r)": "p * (s - sigmoid(r_i - r))"
    },
    "the negatives' sign is wrong in the logarithm's part: they would be pushed up": {
        "s - p * sigmoid(r_i - r)": "p * sigmoid(r_i - r) - s"
    },
    "the regularisation is subtracted": {"+ bpreg": "- bpreg"},
    "in the regularisation s is treated as a constant; it depends on the scores": {
        " + r * r - size": ""
    },
    "s is treated as a constant in both parts; it depends on the scores": {
        "s - p * sigmoid(r_i - r)": "p * sigmoid(r - r_i)",
        " + r * r - size": "",
    },
    "the regularisation's part is missing": {"+ bpreg": "+ 0"},
    "Σ_k s_k r_k² is missing: more weight for one negative is less for the others": {" - size": ""},
    "s_j r_j² stands where the row's sum Σ_k s_k r_k² belongs": {"- size": "- s * r * r"},
    "s stands where p belongs: p_j is s_j σ(r_i - r_j), divided by the sum": {
        "s - p *": "s - s *",
        "-(p *": "-(s *",
    },
    "s and p are swapped: it is s_j - p_j σ(r_i - r_j)": {"s - p *": "p - s *"},
    "σ(r_j - r_i) stands where σ(r_i - r_j) belongs": {"sigmoid(r_i - r)": "sigmoid(r - r_i)"},
    "the target's sign is turned: it would be pushed down": {"-(p *": "(p *"},
    "the target's gradient is missing": {"-(p * sigmoid(r - r_i)).sum(axis=1)": "0"},
    "the target's entry is minus the sum of the others. That holds without regularisation, "
    "but the regularisation does not contain r_i": {
        "-(p * sigmoid(r - r_i)).sum(axis=1)": "-dr.sum(axis=1)"
    },
}

EXERCISES = [
    Exercise(
        number="6.1",
        title="cross-entropy, at any score",
        right=_cross_entropy,
        cases=lambda rng: [(r,) for r in _scores(rng)],
        run=_also_at(
            _cross_entropy,
            _large_scores(),
            mistakes={
                "one maximum is taken for all rows; each row needs its own: "
                "r.max(axis=1, keepdims=True)": _one_maximum
            },
        ),
        solution=ch06.cross_entropy,
        mistakes={
            "column 0 is taken as every row's target; row b's target is column b": {
                "np.diagonal(r)": "r[:, 0]"
            },
            "the sum runs over the lanes (axis 0); it must run over the columns": lambda r: (
                np.diagonal(-np.log(softmax(r, axis=0)))
            ),
            "the row's maximum was subtracted and not added back: add it to the logarithm": {
                "top + np.log": "np.log"
            },
            "the sum runs over the negatives only; include the target's e^r": lambda r: (
                _lse(_without_target(r)) - np.diagonal(r)
            ),
            "its shape is (B, B): NumPy broadcast (B, 1) - (B,) to all pairs; take both as (B,), "
            "with [:, 0]": {"[:, 0]": ""},
            "that is the mean over the lanes; return each lane's loss": {
                "lse[:, 0] - np.diagonal(r)": "(lse[:, 0] - np.diagonal(r)).mean()"
            },
            "the target's score is missing: the loss is log Σ e^r - r_i": {" - np.diagonal(r)": ""},
        },
        hints=[
            "Subtract each row's maximum: top = r.max(axis=1, keepdims=True). Where is it added "
            "back?",
            "log Σ e^r = top + log Σ e^(r - top): no term is above 1, and one is 1, so the sum is "
            "between 1 and N.",
            "(top + np.log(np.exp(r - top).sum(axis=1, keepdims=True)))[:, 0] - np.diagonal(r)",
        ],
    ),
    Exercise(
        number="6.2",
        title="the gradient of cross-entropy",
        right=_cross_entropy_gradient,
        cases=lambda rng: [(r,) for r in _scores(rng)],
        run=_also_at(_cross_entropy_gradient, _large_scores()),
        solution=ch06.cross_entropy_gradient,
        mistakes={
            "that is the softmax alone; subtract 1 at each row's target": softmax,
            "1 is subtracted from every entry; subtract it at the target only": {
                "dr[lanes, lanes]": "dr"
            },
            "1 is subtracted in column 0; row b's target is column b": {
                "lanes, lanes]": "lanes, 0]"
            },
            "1 is subtracted in all of the first B columns; in row b subtract it in column b only: "
            "dr[lanes, lanes] with lanes = np.arange(B)": {"dr[lanes, lanes]": "dr[:, lanes]"},
            "it is divided by the number of lanes; return the gradient of each lane's own loss": {
                "return dr": "return dr / len(r)"
            },
            "the softmax runs over the lanes (axis 0); it must run over the columns": {
                "r.max(axis=1": "r.max(axis=0",
                "e.sum(axis=1": "e.sum(axis=0",
            },
            "the target's entry is right, the negatives' are 0: Σ e^r contains every"
            " score": lambda r: _cross_entropy_gradient(r) * _is_target(r),
            "p (1 - p) is the slope of p; the loss is minus the logarithm of p": {
                "dr[lanes, lanes] -= 1": "dr *= 1 - dr"
            },
        },
        hints=[
            "Two parts: log Σ_k e^(r_k), which contains all scores, and -r_i.",
            "The derivative of log Σ_k e^(r_k) with respect to r_j is e^(r_j) / Σ_k e^(r_k), the "
            "softmax.",
            "p = softmax(r), then p[lanes, lanes] -= 1 with lanes = np.arange(len(r)).",
        ],
    ),
    Exercise(
        number="6.3",
        title="softplus, at any score",
        right=_softplus,
        cases=lambda rng: [
            (rng.normal(0, 3, (3, 4)),),
            (np.array([-38.0, -45.0, -60.0]),),
        ],
        run=_also_at(_softplus, np.array([1e4, -1e4, 800.0, -800.0])),
        solution=ch06.softplus,
        mistakes={
            "that is log(1 + e^-x): the sign of x is wrong": {
                "np.maximum(x, 0)": "np.maximum(-x, 0)"
            },
            "that is max(x, 0) alone; near 0 it lacks log(1 + e^-|x|)": {
                " + np.log1p(np.exp(-np.abs(x)))": ""
            },
            "max(x, 0) is missing: for positive x, log(1 + e^x) = x + log(1 + e^-x)": {
                "np.maximum(x, 0) + ": ""
            },
            "1 + e^-60 is rounded to 1, so the logarithm is 0: np.log1p(y) is log(1 + y) without "
            "computing 1 + y": {"log1p(": "log(1 + "},
            "for negative x that is softplus(-x): it must be max(x, 0), not |x|, and log(1 + "
            "e^-|x|), not log(1 + e^-x)": {"np.maximum(x, 0)": "np.abs(x)"},
        },
        hints=[
            "Take e^x out of the sum: log(1 + e^x) = x + log(e^-x + 1). For which x is that "
            "better?",
            "Both cases in one: max(x, 0) + log(1 + e^-|x|).",
            "np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))",
        ],
    ),
    Exercise(
        number="6.4",
        title="BPR and its gradient",
        right=_bpr,
        cases=lambda rng: [(r,) for r in _scores(rng, 2.0)],
        parts=("loss", "gradient"),
        solution=ch06.bpr,
        mistakes={
            "the target counts as its own negative: r_i - r_i = 0 adds log 2": {
                "    np.fill_diagonal(loss, 0)\n": ""
            },
            "the target's entry has a part from the target itself, σ(0)/n; the sum runs over the "
            "negatives": {"    np.fill_diagonal(dr, 0)\n": ""},
            "the difference has the wrong sign: the loss is small where the target is below": {
                "softplus(d), sigmoid(d)": "softplus(-d), -sigmoid(-d)"
            },
            "σ(r_i - r_j) stands where σ(r_j - r_i) belongs: a negative far above must be pushed"
            " most": {"sigmoid(d)": "sigmoid(-d)"},
            "that is σ', the slope of σ; the slope of softplus is σ itself": {
                "sigmoid(d)": "sigmoid(d) * sigmoid(-d)"
            },
            "the target's sign is turned: its entry is minus the sum of the others, so that "
            "descent pushes it up": {"-dr.sum": "dr.sum"},
            "that is the logarithm of the mean; take the mean of the logarithms": {
                "softplus(d)": "sigmoid(-d)",
                "loss.sum(axis=1) / n": "-np.log(loss.sum(axis=1) / n)",
            },
            "the logarithm is missing": {"softplus(d)": "-sigmoid(-d)"},
            "1/n is missing, n = N - 1 the number of negatives": {
                "sigmoid(d) / n": "sigmoid(d)",
                "axis=1) / n": "axis=1)",
            },
            "it is divided by N; there are n = N - 1 negatives": {" - 1": ""},
            "the target's gradient is missing: each negative that is pushed down pushes it up": {
                "-dr.sum(axis=1)": "0"
            },
            "column 0 is taken as every row's target; row b's target is column b": {
                "np.diagonal(r)[:, None]": "r[:, :1]",
                "np.fill_diagonal(loss, 0)": "loss[:, 0] = 0",
                "np.fill_diagonal(dr, 0)": "dr[:, 0] = 0",
                "np.fill_diagonal(dr, -dr.sum(axis=1))": "dr[:, 0] = -dr.sum(axis=1)",
            },
        },
        hints=[
            "d = r - np.diagonal(r)[:, None] holds all r_j - r_i. The loss of one pair is "
            "softplus(d), and softplus' = σ.",
            "np.fill_diagonal(x, 0) takes the targets out of the sum, in place.",
            "dr = sigmoid(d) / n with 0 on the diagonal; then the diagonal is minus the row's sum.",
        ],
    ),
    Exercise(
        number="6.5",
        title="TOP1 and its gradient",
        right=_top1,
        cases=lambda rng: [(r,) for r in _scores(rng, 1.5)],
        parts=("loss", "gradient"),
        solution=ch06.top1,
        mistakes={
            "the regularisation σ(r_j²) is missing": {
                "above + size": "above",
                " + 2 * r * size * (1 - size)": "",
            },
            "the target is regularised, too; regularise the negatives only": {
                "np.fill_diagonal(loss, 0)": "np.fill_diagonal(loss, np.diagonal(size))",
                "-slope.sum(axis=1)": "np.diagonal(dr) - slope.sum(axis=1)",
            },
            "the target counts as its own negative": {"    np.fill_diagonal(loss, 0)\n": ""},
            "the target's entry has a part from the target itself, σ'(0)/n; the sum runs over the "
            "negatives": {"    np.fill_diagonal(slope, 0)\n": ""},
            "that is σ(r_j)²; it must be σ(r_j²)": {
                "above + size": "above + sigmoid(r) ** 2",
                "r * size * (1 - size)": "sigmoid(r) ** 2 * (1 - sigmoid(r))",
            },
            "the inner derivative of σ(r_j²), 2 r_j, is missing": {"2 * r * size": "size"},
            "the inner derivative of r_j² is 2 r_j; the 2 is missing": {"2 * r": "r"},
            "the target's entry is minus the sum of all; the regularisation does not contain r_i,"
            " so leave its part out": {"-slope.sum(axis=1)": "np.diagonal(dr) - dr.sum(axis=1)"},
            "σ stands where its slope belongs: σ' = σ (1 - σ)": {"above * (1 - above)": "above"},
            "the difference has the wrong sign: it must be r_j - r_i": {
                "r - np.diagonal(r)[:, None]": "np.diagonal(r)[:, None] - r",
                "above * (1": "-above * (1",
            },
            "the target's sign is turned: its entry is minus the sum of the slopes, so that "
            "descent pushes it up": {"-slope.sum": "slope.sum"},
            "1/n is missing, n = N - 1 the number of negatives": {
                "axis=1) / n, dr / n": "axis=1), dr"
            },
            "it is divided by N; there are n = N - 1 negatives": {"[1] - 1": "[1]"},
            "the target's gradient is missing: each negative that is pushed down pushes it up": {
                "-slope.sum(axis=1)": "0"
            },
        },
        hints=[
            "Two sums over the negatives. Only the first one contains r_i.",
            "With a = σ(r_j - r_i), its slope is a (1 - a). With c = σ(r_j²), its slope along r_j "
            "is 2 r_j c (1 - c).",
            "slope = a * (1 - a), diagonal 0. dr = slope + 2 * r * c * (1 - c), diagonal 0; then "
            "the diagonal is -slope.sum(axis=1). All of it / n.",
        ],
    ),
    Exercise(
        number="6.6",
        title="softmax over the negatives",
        right=_negatives_softmax,
        cases=lambda rng: [(r,) for r in _scores(rng)],
        run=_also_at(_negatives_softmax, _large_scores()),
        solution=ch06.negatives_softmax,
        mistakes={
            "the target's score is in the sum; leave it out": softmax,
            "the target's entry is zeroed, but its score is still in the sum: the negatives' "
            "shares must add up to 1": _zeroed_softmax,
            "the target's score is replaced by 0, and e^0 = 1: replace it by -inf": {
                "-np.inf": "0"
            },
            "the softmax runs over the lanes (axis 0); it must run over the columns": {
                "r.max(axis=1": "r.max(axis=0",
                "e.sum(axis=1": "e.sum(axis=0",
            },
            "column 0 is taken as every row's target; row b's target is column b": {
                "np.fill_diagonal(r, -np.inf)": "r[:, 0] = -np.inf"
            },
        },
        hints=[
            "Which score makes e^r exactly 0?",
            "Work on a copy: r = r.copy(); np.fill_diagonal(r, -np.inf).",
            "Then the usual softmax, shifted by the row's maximum.",
        ],
    ),
    Exercise(
        number="6.7",
        title="BPR-max, at any score",
        right=_bpr_max,
        cases=lambda rng: [
            (r, bpreg) for r, bpreg in zip(_scores(rng, 1.5), (1.0, 0.3, 2.0), strict=True)
        ],
        run=_also_at(
            _bpr_max,
            _large_scores(),
            0.0,
            mistakes={
                "it is the log of s, and s is rounded to 0: take r_j minus the negatives' "
                "log-sum-exp": _max_log_of_s
            },
        ),
        solution=ch06.bpr_max,
        mistakes={
            "the softmax includes the target; s is over the negatives": _max_of(softmax, softmax),
            "s comes from a softmax with the target, zeroed afterwards: the negatives' shares must "
            "add up to 1": _max_of(_zeroed_softmax, _zeroed_softmax),
            "the target is still in the log-sum-exp that makes s: log s_j is r_j minus the "
            "log-sum-exp of the negatives": _max_of(_zeroed_softmax, _negatives_softmax),
            "the target is still in the second log-sum-exp, that of the terms A_j; sum over the "
            "negatives only": {"logsumexp(q - ": "logsumexp(r - "},
            "the target is still in both log-sum-exps; put -inf on the diagonal first": _max_of(
                softmax, _negatives_softmax
            ),
            "all negatives have the same weight; weight them with s": _max_of(
                _no_weights, _no_weights
            ),
            "the regularisation is not weighted by s": _max_of(_negatives_softmax, _no_weights),
            "the regularisation is summed without its weights s": _max_of(
                _negatives_softmax, lambda r: ~_is_target(r)
            ),
            "the regularisation sums all r², even the target's, without weights s": _max_of(
                _negatives_softmax, np.ones_like
            ),
            "the target is regularised too": (
                lambda r, bpreg: _bpr_max(r, bpreg) + bpreg * _target(r)[:, 0] ** 2
            ),
            "the regularisation is missing": lambda r, bpreg: _bpr_max(r, 0.0),
            "bpreg is not used": lambda r, bpreg: _bpr_max(r, 1.0),
            "the regularisation is subtracted": lambda r, bpreg: _bpr_max(r, -bpreg),
            "the scores in the regularisation are not squared": {"* r * r": "* r"},
            "the difference has the wrong sign: it must be σ(r_i - r_j)": {
                "r - np.diagonal(r)[:, None]": "np.diagonal(r)[:, None] - r"
            },
            "the logarithm stands inside the sum; it belongs outside": {
                "logsumexp(q) - logsumexp(q - ": "(negatives_softmax(r) * ",
                "[:, None]))": "[:, None])).sum(axis=1)",
            },
        },
        hints=[
            "The logarithm of a sum of tiny numbers: how did you compute that in 6.1?",
            "log(s_j σ(r_i - r_j)) = log s_j - softplus(r_j - r_i), and log s_j is r_j minus the "
            "log Σ e^r of the negatives. Then the loss is minus a log-sum-exp of these.",
            "With q = r and -inf on its diagonal, lse the log-sum-exp of each row: "
            "lse(q) - lse(q - softplus(r - r_i)) + bpreg * (s * r * r).sum(axis=1)",
        ],
    ),
    Exercise(
        number="6.8",
        title="the gradient of BPR-max",
        right=_in_terms(_bpr_max_gradient),
        given=_bpr_max_gradient,
        run=_run_in_terms,
        parts=("the negatives' entries", "the target's entry", "the regularisation's part"),
        cases=lambda rng: [
            (r, bpreg) for r, bpreg in zip(_scores(rng, 1.5), (1.0, 0.3, 2.0), strict=True)
        ],
        mistakes={
            said: _in_terms(edited(ch06.bpr_max_gradient, edits))
            for said, edits in GRADIENT_MISTAKES.items()
        },
        hints=[
            "Chain rule through log A_j = r_j - lse - softplus(r_j - r_i), where lse is over the "
            "negatives and has the derivative s_j; -log Σ A_j has the derivative -p_j.",
            "dr_j = s_j - p_j σ(r_i - r_j), dr_i = -Σ_j p_j σ(r_j - r_i).",
            "And the regularisation: bpreg s_j (2 r_j + r_j² - Σ_k s_k r_k²), since "
            "∂s_k/∂r_j = s_k ([k = j] - s_j).",
        ],
    ),
]
