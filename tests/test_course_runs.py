"""Mistakes of the course that show only while an answer runs, or only on large scores."""

import numpy as np
import pytest

from checks import ch05, ch06, find, judge


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        ("5.2", ch05._moves(begin=1), "a new session starts at place 1"),
        ("5.2", ch05._moves(more=1), "a lane asks for an event that its session does not have"),
        ("6.1", ch06._one_maximum, "one maximum is taken for all rows"),
        ("6.1", lambda r: -np.log(np.diagonal(ch06._softmax(r))), "right for small numbers; for"),
        ("6.7", ch06._max_log_of_s, "it is the log of s, and s is rounded to 0"),
    ],
)
def test_a_mistake_that_its_run_names(number, answer, words):
    verdict = judge(find(number), answer)
    assert verdict.state == "wrong"
    assert words in verdict.text
