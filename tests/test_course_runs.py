"""Mistakes of the course that show only while an answer runs, or only on large scores."""

import numpy as np
import pytest

from checks import ch05, ch06, ch08, find, judge
from checks.common import softmax


def _states_with(forget):
    """5.4 with another line for the reset."""

    def states(x, reset, W, U):
        h = np.zeros((x.shape[1], len(U)))
        out = []
        for t in range(len(x)):
            h = np.tanh(W[x[t]] + forget(h, reset[t]) @ U)
            out.append(h)
        return np.array(out)

    return states


def _two_axes_only(rows, g):
    distinct, place = np.unique(rows, return_inverse=True)
    sums = np.zeros((len(distinct), g.shape[1]))
    np.add.at(sums, place, g)
    return distinct, sums


def _reset_uncut(h, keep, reset):
    h = h * ~reset[:, None]
    return h[keep]


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        ("5.2", ch05._moves(begin=1), "a new session starts at place 1"),
        ("5.2", ch05._moves(more=1), "a lane asks for an event that its session does not have"),
        ("5.2", ch05._moves(stride=2), "a lane moves on by two events"),
        ("5.4", _states_with(lambda h, r: np.where(r, 0, h)), "reset[t][:, None] is (B, 1)"),
        ("5.4", _states_with(lambda h, r: h * ~r), "reset[t][:, None] is (B, 1)"),
        ("5.5", _reset_uncut, "so h[keep] comes first"),
        ("8.2", _two_axes_only, "it works for g of shape (n, H) but not of (n,)"),
        ("8.5", lambda u, p: np.where(u < p, 0.0, 1 / (1 - p)), "must have u's dtype"),
        ("8.5", lambda u, p: (u >= p) / (1 - p), "must have u's dtype"),
        ("8.5", lambda u, p: (u >= p).astype(float), "what is kept must be made larger"),
        (
            "8.5",
            lambda u, p: ch08.dropout_mask(u, p).astype(np.float32),
            "the mask is float32 and u is float64",
        ),
        ("8.8", ch08._epoch(keep=lambda b, t, h, n: h[b.keep[t]]), "cut keep[t] to len(h)"),
        ("6.1", ch06._one_maximum, "one maximum is taken for all rows"),
        ("6.1", lambda r: -np.log(np.diagonal(softmax(r))), "right for small numbers; for"),
        ("6.7", ch06._max_log_of_s, "it is the log of s, and s is rounded to 0"),
    ],
)
def test_a_mistake_that_its_run_names(number, answer, words):
    verdict = judge(find(number), answer)
    assert verdict.state == "wrong"
    assert words in verdict.text
