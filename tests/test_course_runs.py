"""Mistakes of the course that show only while an answer runs, or only on large scores."""

import numpy as np
import pytest

from checks import ch06, edited, find, judge
from checks.common import softmax
from solutions import ch05, ch08


def _reset_uncut(h, keep, reset):
    h = h * ~reset[:, None]
    return h[keep]


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        (
            "5.2",
            edited(
                ch05.session_parallel, {"append((waiting.pop(0), 0": "append((waiting.pop(0), 1"}
            ),
            "a new session starts at place 1",
        ),
        (
            "5.2",
            edited(ch05.session_parallel, {"at + 2": "at + 1"}),
            "a lane asks for an event that its session does not have",
        ),
        (
            "5.2",
            edited(ch05.session_parallel, {"(session, at + 1)": "(session, at + 2)"}),
            "a lane moves on by two events",
        ),
        ("5.4", edited(ch05.states, {"[:, None]": ""}), "reset[t][:, None] is (B, 1)"),
        (
            "5.4",
            edited(ch05.states, {"np.where(reset[t][:, None], 0, h)": "h * ~reset[t]"}),
            "reset[t][:, None] is (B, 1)",
        ),
        ("5.5", _reset_uncut, "so h[keep] comes first"),
        (
            "8.2",
            edited(ch08.sum_rows, {"*g.shape[1:]": "g.shape[1]"}),
            "it works for g of shape (n, H) but not of (n,)",
        ),
        ("8.5", lambda u, p: np.where(u < p, 0.0, 1 / (1 - p)), "must have u's dtype"),
        ("8.5", lambda u, p: (u >= p) / (1 - p), "must have u's dtype"),
        ("8.5", lambda u, p: (u >= p).astype(float), "what is kept must be made larger"),
        (
            "8.5",
            lambda u, p: ch08.dropout_mask(u, p).astype(np.float32),
            "the mask is float32 and u is float64",
        ),
        ("8.8", edited(ch08.epoch, {"t, : len(h)": "t"}), "cut keep[t] to len(h)"),
        ("6.1", ch06._one_maximum, "one maximum is taken for all rows"),
        ("6.1", lambda r: -np.log(np.diagonal(softmax(r))), "right for small numbers; for"),
        ("6.7", ch06._max_log_of_s, "it is the log of s, and s is rounded to 0"),
    ],
)
def test_a_mistake_that_its_run_names(number, answer, words):
    verdict = judge(find(number), answer)
    assert verdict.state == "wrong"
    assert words in verdict.text
