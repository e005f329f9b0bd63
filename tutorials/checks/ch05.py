"""Exercises of notebook 5: mini-batches whose lanes are sessions, and a museum of mistakes."""

import numpy as np

from checks import Exercise, Wrong
from checks.common import sessions_of, softmax
from gru4rec_np import Sessions
from gru4rec_np.data import batches
from gru4rec_np.models import network
from gru4rec_np.ops.ranking import ranks
from solutions import ch05

# --- 5.2: session-parallel mini-batches -----------------------------------------------------------


def _session_parallel(sessions, B):
    b = batches.session_parallel(Sessions.from_lists(sessions), B)
    ids = np.append(Sessions.from_lists(sessions).item_ids, -1)  # so that -1 stays -1
    return ids[b.x], ids[b.y], b.reset


# Of mistakes that would go on for ever.
ENDS = {"len(lanes) >= 2": "len(lanes) >= 2 and len(x) < sum(map(len, sessions))"}

_BEGUN_AT_1 = "a new session starts at place 1: its first event is never fed. Start at 0"


_BY_TWO = "a lane moves on by two events: y becomes the next x, so the next place is at + 1"


class _Watched(list):
    """A session that writes down which of its events are asked for."""

    def __init__(self, events):
        super().__init__(events)
        self.asked = []

    def __getitem__(self, at):
        self.asked.append(at)
        return super().__getitem__(at)


def _moves_by_two(answer):
    """Whether a lane feeds its session's first event and then the third."""
    session = _Watched(range(5))
    try:
        answer([session, list(range(5, 10))], 2)
    except Exception:  # that it stops is known; asked is where it has been
        pass
    return session.asked[:3] == [0, 1, 2]


def _begins_at_1(answer):
    """Whether a session that takes over a lane is never fed its first event, here 6 and 9."""
    try:
        x, _, _ = answer([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]], 2)
        return 7 in x and 6 not in x
    except Exception:  # it has other mistakes than this one
        return False


def _run_lanes(answer, args):
    """What its frame raises, in words that name the rule."""
    try:
        return answer(*args)
    except IndexError as error:
        if "pop" in str(error):
            raise Wrong("waiting.pop(0), but nobody waits any more: then the lane goes") from error
        if _begins_at_1(answer):
            raise Wrong(_BEGUN_AT_1) from error
        if _moves_by_two(answer):
            raise Wrong(_BY_TWO) from error
        raise Wrong(
            "a lane asks for an event that its session does not have: a session's last event is "
            "only ever a target, so at place len(session) - 2 it is done"
        ) from error
    except ValueError as error:
        if "unpack" in str(error):
            raise Wrong("each entry of `after` must be a pair (session, place)") from error
        raise


def _some_sessions(rng):
    cases = []
    for n, B in ((9, 3), (7, 4), (2, 5)):
        lengths = rng.integers(2, 7, n)
        first = np.cumsum(lengths) - lengths
        cases.append(
            ([list(range(a, a + k)) for a, k in zip(first.tolist(), lengths, strict=True)], B)
        )
    cases.append(([[5, 6, 7], [7, 5], [9], [6, 6, 5, 9], [5, 7, 9]], 2))
    return cases


# --- 5.3: yesterday's answer ----------------------------------------------------------------------


def _questions(items, offsets):
    cases = sessions_of(items, offsets).cases
    return items[cases], items[cases + 1]


# --- 5.4: the state that outlived its shopper -----------------------------------------------------


RESET = "        h = np.where(reset[t][:, None], 0, h)\n"  # the first line of the loop


def _run_states(answer, args):
    try:
        return answer(*args)
    except ValueError as error:
        if "broadcast" not in str(error):
            raise
        raise Wrong(
            f"{error}. reset[t] has the shape (B,), h has (B, H): reset[t][:, None] is (B, 1), one "
            "entry for each row of h"
        ) from error


def _some_lanes(rng):
    cases = []
    for T, B, H, I in ((6, 3, 4, 5), (5, 4, 2, 7)):  # noqa: E741
        reset = rng.random((T, B)) < 0.3
        reset[0] = True
        reset[2] = np.arange(B) == 1
        reset[T - 1] = False
        weights = rng.normal(size=(I, H)), rng.normal(size=(H, H))
        cases.append((rng.integers(0, I, (T, B)), reset, *weights))
    return cases


# --- 5.5: the wrong chair -------------------------------------------------------------------------


def _enter_step(h, keep, reset):
    return network.enter_step(network.State([h], np.empty((len(h), 0), int)), keep, reset).h[0]


def _last_into_the_gap(h, keep, reset):
    order = np.arange(len(h))
    for b in np.flatnonzero(~keep):
        if b < len(reset):
            order[b] = np.flatnonzero(keep)[-1 - np.flatnonzero(~keep).tolist().index(b)]
    return h[order[: len(reset)]] * ~reset[:, None]


def _run_chairs(answer, args):
    try:
        return answer(*args)
    except (IndexError, ValueError) as error:
        raise Wrong(
            f"{error}. keep is about all B lanes of the step before, reset about the n that are "
            "left: h must have n rows when reset is used, so h[keep] comes first"
        ) from error


def _leaving(rng):
    cases = []
    for B, gone, new in ((5, [1], []), (6, [0, 3], [2]), (4, [], [0, 3]), (3, [2], [0])):
        keep = np.ones(B, bool)
        keep[gone] = False
        reset = np.zeros(int(keep.sum()), bool)
        reset[new] = True
        cases.append((rng.normal(size=(B, 3)), keep, reset))
    return cases


# --- 5.6: softened twice --------------------------------------------------------------------------


def _loss(h, V, target):
    return -np.log(softmax(h @ V.T)[np.arange(len(target)), target])


# The line of the solution that has the logarithm of the softmax.
LOG_P = "log_p = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))"


def _scores_and_targets(rng):
    cases = [
        (2 * rng.normal(size=(B, H)), rng.normal(size=(I, H)), rng.integers(0, I, B))
        for B, H, I in ((4, 3, 6), (7, 2, 9))  # noqa: E741
    ]
    # The first case with one more unit, which adds 1000 to every score.
    h, V, target = cases[0]
    large = np.hstack([h, np.full((len(h), 1), 1000.0)]), np.hstack([V, np.ones((len(V), 1))])
    return [*cases, (*large, target)]


# --- 5.7: learning to predict nothing -------------------------------------------------------------


def _padded(rng):
    cases = []
    for steps, I in (([4, 2, 1], 5), ([3, 5, 1, 2], 4)):  # noqa: E741
        y = rng.integers(0, I, (len(steps), max(steps)))
        y[0, 0] = 0
        y[np.arange(max(steps)) >= np.array(steps)[:, None]] = -1
        cases.append((np.log(softmax(rng.normal(size=(*y.shape, I)), axis=2)), y))
    return cases


EXERCISES = [
    Exercise(
        number="5.1",
        title="the share of padding",
        right=ch05.padding_share,
        cases=lambda rng: [(rng.integers(1, 9, n), B) for n, B in ((12, 4), (11, 4), (7, 3))],
        mistakes={
            "that is the share of cells in use; wanted is the rest": {"1 - ": ""},
            "every block is padded to the longest session of all; the longest of its own block "
            "is enough": {"/ cells": "/ (len(steps) * steps.max())"},
            "that is the mean of the blocks' shares; a wide block has more cells and counts more: "
            "add up the cells first": {
                "sum(len(block) * block.max() for": "[1 - block.mean() / block.max() for",
                "B)))": "B))]",
                "1 - steps.sum() / cells": "np.mean(cells)",
            },
            "the last block may hold fewer than B sessions; its cells are counted as if it were "
            "full": {"len(block)": "B"},
            "that is padding per used cell; divide by all cells": {
                "1 - steps.sum() / cells": "cells / steps.sum() - 1"
            },
            "the last block is left out where it has fewer than B sessions; its cells count too": {
                "B)))": "B)) if len(block) == B)"
            },
            "the last block is left out where it has fewer than B sessions; its cells and its "
            "questions count too": {
                "    cells =": "    steps = steps[: len(steps) // B * B]\n    cells ="
            },
        },
        hints=[
            "How many cells has one block? Its number of sessions times its longest one.",
            "Add up the cells of all blocks steps[i : i + B], i = 0, B, 2B, ...",
            "1 - steps.sum() / cells",
        ],
    ),
    Exercise(
        number="5.2",
        title="session-parallel mini-batches",
        right=_session_parallel,
        run=_run_lanes,
        cases=_some_sessions,
        parts=("x", "y", "reset"),
        solution=ch05.session_parallel,
        mistakes={
            "a session is given up one event too early: its last question is never asked": {
                "at + 2": "at + 3"
            },
            "the new session stands at the end of the row; it belongs where the old one was, or "
            "every lane behind it moves to another lane's state": {
                "after = []": "after, new = [], []",
                "after.append((waiting": "new.append((waiting",
                "lanes = after": "lanes = after + new",
            },
            "a lane leaves as soon as its session ends, though others wait": {
                "elif waiting": "elif False"
            },
            "the session that has waited longest is the first, waiting.pop(0)": {
                "append((waiting.pop(0)": "append((waiting.pop()"
            },
            _BEGUN_AT_1: {"append((waiting.pop(0), 0": "append((waiting.pop(0), 1"},
            "no lane moves on: the next place is at + 1": {
                "at + 2 <": "at <",
                "at + 1))": "at))",
                **ENDS,
            },
            _BY_TWO: {"at + 2": "at + 3", "(session, at + 1)": "(session, at + 2)"},
            "nobody waits, and a lane whose session is done still stays: it must leave": {
                "elif waiting": "else",
                "pop(0), 0))": "pop(0), 0) if waiting else (session, at))",
                **ENDS,
            },
            "when nobody waits, the lane goes; here it starts its old session again": {
                "elif waiting": "else",
                "pop(0), 0))": "pop(0), 0) if waiting else (session, 0))",
                **ENDS,
            },
        },
        hints=[
            "Build a new list. Each old lane puts one entry into it, or none.",
            "A session with len(session) events asks len(session) - 1 questions; after the one at "
            "place at, the next is at at + 1, if at + 2 < len(session).",
            "Three cases: (session, at + 1) while there is a question left; else "
            "(waiting.pop(0), 0) if waiting; else nothing.",
        ],
    ),
    Exercise(
        number="5.3",
        title="exhibit 1",
        right=_questions,
        cases=lambda rng: [
            (rng.integers(0, 30, 14), np.array([0, 3, 5, 9, 14])),
            (rng.integers(0, 30, 9), np.array([0, 2, 9])),
        ],
        parts=("x", "y"),
        solution=ch05.questions,
        mistakes={
            "the target is the input itself: the model learns to repeat what it was just told": {
                "a + 1 : z": "a : z - 1"
            },
            "the input is the target already: the model is told the answer": {
                "a : z - 1": "a + 1 : z"
            },
            "x and y both go one event too far: a session's last event has no next one, and "
            "items[z] is the next shopper's: x from items[a : z - 1], y from items[a + 1 : z]": {
                "a : z - 1": "a : z",
                "a + 1 : z": "a + 1 : z + 1",
            },
            "a session's last event has no next one: x from items[a : z - 1]": {"z - 1": "z"},
            "no event comes before a session's first one: y from items[a + 1 : z]": {
                "a + 1 : z": "a : z"
            },
            "y goes one event too far, items[z] is the next shopper's: y from items[a + 1 : z]": {
                "a + 1 : z": "a + 1 : z + 1"
            },
            "input and target are all events, each its own target": {
                "a : z - 1": "a : z",
                "a + 1 : z": "a : z",
            },
            "a session's last event asks for the first one of the next shopper: stop one "
            "earlier in each session": lambda items, offsets: (items[:-1], items[1:]),
            "input and target are swapped: it learns to predict the past": {
                "np.array(x), np.array(y)": "np.array(y), np.array(x)"
            },
            "each session's last question is missing": {"z - 1": "z - 2", "+ 1 : z": "+ 1 : z - 1"},
        },
        hints=[
            "Take the session [7, 8, 9]. Which pairs do you want, and which does the code make?",
            "7 asks for 8, 8 asks for 9: x is the session without its last event, y without its "
            "first.",
            "y.extend(items[a + 1 : z])",
        ],
    ),
    Exercise(
        number="5.4",
        title="exhibit 2",
        right=ch05.states,
        run=_run_states,
        cases=_some_lanes,
        mistakes={
            "no lane is ever reset: a new shopper starts with what the last one left": {
                "reset[t][:, None]": "False"
            },
            "all lanes are reset when one session starts: the other shoppers are still there, "
            "and are forgotten": {"reset[t][:, None]": "reset[t].any()"},
            "the lanes that go on are reset, those that start are not": {"reset[t]": "~reset[t]"},
            "the reset comes after the step: a session's first event is mixed with the last "
            "shopper's state, then forgotten itself": {
                RESET: "",
                "out.append(h)\n": "out.append(h)\n" + RESET,
            },
            "h[...] = 0 also writes into the array that is already in `out`: make a new array, "
            "say np.where(reset[t][:, None], 0, h)": {
                "h = np.where(reset[t][:, None], 0, h)": "h[reset[t]] = 0"
            },
            "the reset comes after the step, when a session's first event is already mixed with "
            "the last shopper's state; and h[...] = 0 also writes into what is in `out`": {
                RESET: "",
                "out.append(h)": "out.append(h)\n        h[reset[t]] = 0",
            },
            "what is zeroed is the state after the step; it must be the state before it": {
                RESET: "",
                "append(h)": "append(np.where(reset[t][:, None], 0, h))",
            },
        },
        hints=[
            "Which argument is never used?",
            "reset[t] (B,) tells which lanes start a session at step t: before that step their "
            "rows of h are zero, the others stay.",
            "First line of the loop: h = np.where(reset[t][:, None], 0, h)",
        ],
    ),
    Exercise(
        number="5.5",
        title="exhibit 3",
        right=_enter_step,
        run=_run_chairs,
        cases=_leaving,
        solution=ch05.enter_step,
        mistakes={
            "the first n states are kept, whoever left: if lane 1 of 5 leaves, lane 2 gets the "
            "state of lane 1": {"h[keep]": "h[: len(reset)].copy()"},
            "the last lane is moved into the gap; the lanes that stay must keep their order, as x "
            "and y do": _last_into_the_gap,
            "lanes that start a session are not reset": {"    h[reset] = 0\n": ""},
            "just the lanes that start keep their state; it is the other way round": {
                "h[reset]": "h[~reset]"
            },
            "the state of a lane that left is zeroed, but it still has its place": {
                "h[keep]": "(h * keep[:, None])[: len(reset)]"
            },
            "the reset comes before h[keep]: reset counts the lanes that are left, so after a gap "
            "it zeroes another lane's state": {
                "h = h[keep]": "h = h.copy()\n    h[: len(reset)][reset] = 0",
                "h[reset] = 0\n    return h": "return h[keep]",
            },
        },
        hints=[
            "Which argument is never used?",
            "Let lane 0 of 3 leave. Which two rows of h must be left?",
            "h[keep] has the rows of the lanes that stay, in their order, and is a copy.",
        ],
    ),
    Exercise(
        number="5.6",
        title="exhibit 4",
        right=_loss,
        solution=ch05.loss,
        cases=_scores_and_targets,
        mistakes={
            "it is right for small scores; for 1000 e^r overflows, and inf / inf is NaN: take each "
            "row's maximum away before exp": {
                LOG_P: "e = np.exp(scores)\n    log_p = np.log(e / e.sum(axis=1, keepdims=True))"
            },
            "it is right for small scores; for 1000 e^r overflows, and the loss is inf: take each "
            "row's maximum away before exp": {"scores.max(axis=1, keepdims=True)": "0"},
            "softmax is applied twice: `output` are probabilities already, and all of 0...1 "
            "looks nearly the same to a second one": {
                "    return": "    p = np.exp(log_p)\n"
                "    log_p = p - np.log(np.exp(p).sum(axis=1, keepdims=True))\n"
                "    return"
            },
            "now there is no softmax at all: that is minus the target's score": {
                "-log_p[": "-scores["
            },
            "the softmax runs over the lanes (axis 0); it must run over the items": {
                "scores.max(axis=1": "scores.max(axis=0",
                "sum(axis=1": "sum(axis=0",
            },
            "the logarithm is missing: that is minus the target's probability": {
                "-log_p[": "-np.exp(log_p)["
            },
            "log is missing before the sum: log p = r - log Σ e^r": {
                " - top - np.log(np.exp(scores - top)": " - (np.exp(scores)"
            },
        },
        hints=[
            "What does each row of `output` sum to? And what do the last lines make of `output`?",
            "`output` is p already. The last lines compute log softmax of what they get.",
            "Give the last lines the scores; the lines of e and output are then not needed.",
        ],
    ),
    Exercise(
        number="5.7",
        title="exhibit 5",
        right=ch05.padded_loss,
        cases=_padded,
        mistakes={
            "padding is counted: in NumPy -1 is an index, the last item's, so the model learns "
            "that it follows every session's end": {"[y >= 0]": ""},
            "padding is counted as if item 0 had been clicked": {"y][y >= 0]": "np.maximum(y, 0)]"},
            "padding adds nothing to the sum any more, but is still counted in the mean": {
                "log_p[s, t, y][y >= 0]": "(log_p[s, t, y] * (y >= 0))"
            },
            "that is the mean over sessions of their means; an event of a short session then "
            "counts more than one of a long session": {
                "[y >= 0].mean()": ".mean(axis=1, where=y >= 0).mean()"
            },
            "that is the mean over steps of their means; late events count too much": {
                "[y >= 0].mean()": ".mean(axis=0, where=y >= 0).mean()"
            },
            "that is the sum; wanted is the mean over the events": {"mean": "sum"},
            "the sum is divided by the number of sessions; divide by the number of events": {
                "mean()": "sum() / len(y)"
            },
            "y > 0 leaves item 0 out, which is an item like any other": {">=": ">"},
        },
        hints=[
            "What is log_p[s, t, -1]?",
            "Only cells with y >= 0 are events; sum and count must both leave the others out.",
            "-log_p[s, t, y][y >= 0].mean()",
        ],
    ),
    Exercise(
        number="5.8",
        title="exhibit 6",
        right=ranks,
        cases=lambda rng: [
            (rng.integers(0, 9, (B, I)).astype(float), rng.integers(0, I, B))
            for B, I in ((5, 20), (8, 30))  # noqa: E741
        ],
        solution=ch05.rank,
        mistakes={
            "the target only races against the other lanes' targets, not against all items": {
                "(scores >=": "1 + (scores[:, targets] >"
            },
            "ties are counted now, but the race is still among the batch's targets": {
                "(scores >=": "(scores[:, targets] >="
            },
            "ties are counted now, the target itself too (so add no 1), and the race is still "
            "among the batch's targets": {"(scores >=": "1 + (scores[:, targets] >="},
            "all items race now, but the diagonal of scores is no target's score: row b's target "
            "stands in column targets[b]; and ties must count": {
                "scores[np.arange(len(targets)), targets]": "np.diagonal(scores)",
                "(scores >=": "1 + (scores >",
            },
            "the diagonal of scores is no target's score: row b's target stands in column "
            "targets[b]": {"scores[np.arange(len(targets)), targets]": "np.diagonal(scores)"},
            "ties are decided for the target: an item with an equal score must count as better": {
                "(scores >=": "1 + (scores >"
            },
            "off by one: >= counts the target itself already, so add no 1": {
                "(scores >=": "1 + (scores >="
            },
            "the lowest score gets rank 1; the highest must": {">=": "<="},
            "off by one: the best rank is 1, and >= counts the target itself, so subtract no 1": {
                "axis=1)": "axis=1) - 1"
            },
            "the ranks begin at 0, and ties are decided for the target: > counts neither the "
            "target itself nor an item with an equal score, >= counts both": {">=": ">"},
            "< counts the items with a lower score; count those with a score >= the target's": {
                ">=": "<"
            },
            "1 plus the count of the items with a lower score gives the lowest score rank 1; count "
            "those with a score >= the target's": {"(scores >=": "1 + (scores <"},
        },
        hints=[
            "Against how many items does a target race here? Against how many should it?",
            "The target's score: scores[np.arange(len(targets)), targets]. The race: the whole "
            "row.",
            "The conservative rank counts the items of the row with a score >= the target's.",
        ],
    ),
]
