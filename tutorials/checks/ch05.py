"""Exercises of notebook 5: mini-batches whose lanes are sessions, and a museum of mistakes."""

import numpy as np

from checks import Exercise, Wrong
from checks.common import but, in_order, sessions_of, softmax
from gru4rec_np import Sessions
from gru4rec_np.data import batches
from gru4rec_np.models import network
from gru4rec_np.ops.ranking import ranks

# --- 5.1: padding ---------------------------------------------------------------------------------


def _blocks(steps, B):
    return [steps[i : i + B] for i in range(0, len(steps), B)]


def _cells(steps, B):
    return sum(len(block) * block.max() for block in _blocks(steps, B))


def _padding_share(steps, B):
    return float(1 - steps.sum() / _cells(steps, B))


def _of_whole_blocks(steps, B):
    return steps[: len(steps) // B * B]


# --- 5.2: session-parallel mini-batches -----------------------------------------------------------


def _session_parallel(sessions, B):
    b = batches.session_parallel(Sessions.from_lists(sessions), B)
    ids = np.append(Sessions.from_lists(sessions).item_ids, -1)  # so that -1 stays -1
    return ids[b.x], ids[b.y], b.reset


def _lanes(sessions, B, move):
    """The exercise's frame; move(lanes, waiting) makes the next step's lanes."""
    waiting = [s for s in sessions if len(s) >= 2]
    lanes = [(waiting.pop(0), 0) for _ in range(min(B, len(waiting)))]
    B = len(lanes)
    x, y, reset = [], [], []
    while len(lanes) >= 2 and len(x) < sum(map(len, sessions)):
        gone = [-1] * (B - len(lanes))
        x.append([s[at] for s, at in lanes] + gone)
        y.append([s[at + 1] for s, at in lanes] + gone)
        reset.append([at == 0 for s, at in lanes] + [False] * len(gone))
        lanes = move(lanes, waiting)
    return np.array(x), np.array(y), np.array(reset)


def _moves(more=2, take=0, begin=0, at_the_end=False, refill=True, stride=1, else_stays_at=None):
    """A rule for what lanes do after a step; as it stands the right one.

    Args:
        else_stays_at: where a lane stays whose session is done while nobody waits, from its place.
    """

    def move(lanes, waiting):
        there, new = [], []
        for session, at in lanes:
            if at + more < len(session):
                there.append((session, at + stride))
            elif waiting and refill:
                (new if at_the_end else there).append((waiting.pop(take), begin))
            elif else_stays_at:
                there.append((session, else_stays_at(at)))
        return there + new

    return lambda sessions, B: _lanes(sessions, B, move)


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


def _last_left_out(items, offsets):
    cases = sessions_of(items, offsets).cases
    inside = np.isin(cases + 1, cases)
    return items[cases[inside]], items[cases[inside] + 1]


# --- 5.4: the state that outlived its shopper -----------------------------------------------------


def _states(x, reset, W, U):
    h = np.zeros((x.shape[1], len(U)))
    out = []
    for t in range(len(x)):
        h = np.where(reset[t][:, None], 0, h)
        h = np.tanh(W[x[t]] + h @ U)
        out.append(h)
    return np.array(out)


def _reset_after(x, reset, W, U):
    before = np.roll(reset, 1, axis=0)
    before[0] = False
    return _states(x, before, W, U)


def _stored_state_zeroed(x, reset, W, U):
    h = np.zeros((x.shape[1], len(U)))
    out = []
    for t in range(len(x)):
        h[reset[t]] = 0
        h = np.tanh(W[x[t]] + h @ U)
        out.append(h)
    return np.array(out)


def _stored_state_zeroed_after(x, reset, W, U):
    out = _reset_after(x, reset, W, U)
    out[reset] = 0
    return out


def _output_zeroed(x, reset, W, U):
    out = _states(x, np.zeros_like(reset), W, U)
    out[reset] = 0
    return out


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


def _first_lanes(h, keep, reset):
    return h[: len(reset)] * ~reset[:, None]


def _last_into_the_gap(h, keep, reset):
    order = np.arange(len(h))
    for b in np.flatnonzero(~keep):
        if b < len(reset):
            order[b] = np.flatnonzero(keep)[-1 - np.flatnonzero(~keep).tolist().index(b)]
    return h[order[: len(reset)]] * ~reset[:, None]


def _reset_before_keep(h, keep, reset):
    h = h.copy()
    h[: len(reset)][reset] = 0
    return h[keep]


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


def _pick(p, target):
    return p[np.arange(len(target)), target]


def _loss(h, V, target):
    return -np.log(_pick(softmax(h @ V.T), target))


def _log_of_plain_softmax(h, V, target):
    e = np.exp(h @ V.T)
    return -np.log(_pick(e / e.sum(axis=1, keepdims=True), target))


def _sum_of_exp(h, V):
    return np.exp(h @ V.T).sum(axis=1)


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


def _at(log_p, y):
    s, t = np.indices(y.shape)
    return log_p[s, t, y]


def _padded_loss(log_p, y):
    return -float(_at(log_p, y)[y >= 0].mean())


def _mean_of_means(log_p, y, axis):
    return -np.mean(_at(log_p, y), axis=axis, where=y >= 0).mean()


def _padded(rng):
    cases = []
    for steps, I in (([4, 2, 1], 5), ([3, 5, 1, 2], 4)):  # noqa: E741
        y = rng.integers(0, I, (len(steps), max(steps)))
        y[0, 0] = 0
        y[np.arange(max(steps)) >= np.array(steps)[:, None]] = -1
        cases.append((np.log(softmax(rng.normal(size=(*y.shape, I)), axis=2)), y))
    return cases


# --- 5.8: a flattering race -----------------------------------------------------------------------


def _in_batch(scores, targets, ties="conservative"):
    """The rank among the batch's targets only."""
    return ranks(scores[:, targets], np.arange(len(targets)), ties)


def _lower_scores(scores, targets):
    return (scores < scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)


EXERCISES = [
    Exercise(
        number="5.1",
        title="the share of padding",
        right=_padding_share,
        cases=lambda rng: [(rng.integers(1, 9, n), B) for n, B in ((12, 4), (11, 4), (7, 3))],
        mistakes={
            "that is the share of cells in use; wanted is the rest": (
                lambda steps, B: steps.sum() / _cells(steps, B)
            ),
            "every block is padded to the longest session of all; the longest of its own block "
            "is enough": lambda steps, B: 1 - steps.sum() / (len(steps) * steps.max()),
            "that is the mean of the blocks' shares; a wide block has more cells and counts more: "
            "add up the cells first": lambda steps, B: np.mean(
                [_padding_share(block, B) for block in _blocks(steps, B)]
            ),
            "the last block may hold fewer than B sessions; its cells are counted as if it were "
            "full": lambda steps, B: (
                1 - steps.sum() / sum(B * block.max() for block in _blocks(steps, B))
            ),
            "that is padding per used cell; divide by all cells": (
                lambda steps, B: _cells(steps, B) / steps.sum() - 1
            ),
            "the last block is left out where it has fewer than B sessions; its cells count too": (
                lambda steps, B: 1 - steps.sum() / _cells(_of_whole_blocks(steps, B), B)
            ),
            "the last block is left out where it has fewer than B sessions; its cells and its "
            "questions count too": lambda steps, B: _padding_share(_of_whole_blocks(steps, B), B),
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
        mistakes={
            "a session is given up one event too early: its last question is never asked": _moves(
                more=3
            ),
            "the new session stands at the end of the row; it belongs where the old one was, or "
            "every lane behind it moves to another lane's state": _moves(at_the_end=True),
            "a lane leaves as soon as its session ends, though others wait": _moves(refill=False),
            "the session that has waited longest is the first, waiting.pop(0)": _moves(take=-1),
            _BEGUN_AT_1: _moves(begin=1),
            "no lane moves on: the next place is at + 1": _moves(more=0, stride=0),
            _BY_TWO: _moves(more=3, stride=2),
            "nobody waits, and a lane whose session is done still stays: it must leave": _moves(
                else_stays_at=lambda at: at
            ),
            "when nobody waits, the lane goes; here it starts its old session again": _moves(
                else_stays_at=lambda at: 0
            ),
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
        mistakes={
            "the target is the input itself: the model learns to repeat what it was "
            "just told": in_order(_questions, 0, 0),
            "the input is the target already: the model is told the answer": (
                in_order(_questions, 1, 1)
            ),
            "x and y both go one event too far: a session's last event has no next one, and "
            "items[z] is the next shopper's: x from items[a : z - 1], y from items[a + 1 : z]": (
                lambda items, offsets: (items, items[1:])
            ),
            "a session's last event has no next one: x from items[a : z - 1]": but(
                _questions, 0, lambda items, offsets: items
            ),
            "no event comes before a session's first one: y from items[a + 1 : z]": but(
                _questions, 1, lambda items, offsets: items
            ),
            "y goes one event too far, items[z] is the next shopper's: y from items[a + 1 : z]": (
                but(_questions, 1, lambda items, offsets: items[1:])
            ),
            "input and target are all events, each its own target": (
                lambda items, offsets: (items, items)
            ),
            "a session's last event asks for the first one of the next shopper: stop one "
            "earlier in each session": lambda items, offsets: (items[:-1], items[1:]),
            "input and target are swapped: it learns to predict the past": (
                in_order(_questions, 1, 0)
            ),
            "each session's last question is missing": _last_left_out,
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
        right=_states,
        run=_run_states,
        cases=_some_lanes,
        mistakes={
            "no lane is ever reset: a new shopper starts with what the last one left": (
                lambda x, reset, W, U: _states(x, np.zeros_like(reset), W, U)
            ),
            "all lanes are reset when one session starts: the other shoppers are still there, "
            "and are forgotten": lambda x, reset, W, U: _states(
                x, np.zeros_like(reset) | reset.any(axis=1, keepdims=True), W, U
            ),
            "the lanes that go on are reset, those that start are not": (
                lambda x, reset, W, U: _states(x, ~reset, W, U)
            ),
            "the reset comes after the step: a session's first event is mixed with the last "
            "shopper's state, then forgotten itself": _reset_after,
            "h[...] = 0 also writes into the array that is already in `out`: make a new array, "
            "say np.where(reset[t][:, None], 0, h)": _stored_state_zeroed,
            "the reset comes after the step, when a session's first event is already mixed with "
            "the last shopper's state; and h[...] = 0 also writes into what is in `out`": (
                _stored_state_zeroed_after
            ),
            "what is zeroed is the state after the step; it must be the state before it": (
                _output_zeroed
            ),
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
        mistakes={
            "the first n states are kept, whoever left: if lane 1 of 5 leaves, lane 2 gets the "
            "state of lane 1": _first_lanes,
            "the last lane is moved into the gap; the lanes that stay must keep their order, as x "
            "and y do": _last_into_the_gap,
            "lanes that start a session are not reset": lambda h, keep, reset: h[keep],
            "just the lanes that start keep their state; it is the other way round": (
                lambda h, keep, reset: h[keep] * reset[:, None]
            ),
            "the state of a lane that left is zeroed, but it still has its place": (
                lambda h, keep, reset: _first_lanes(h * keep[:, None], keep, reset)
            ),
            "the reset comes before h[keep]: reset counts the lanes that are left, so after a gap "
            "it zeroes another lane's state": _reset_before_keep,
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
        cases=_scores_and_targets,
        mistakes={
            "it is right for small scores; for 1000 e^r overflows, and inf / inf is NaN: take each "
            "row's maximum away before exp": _log_of_plain_softmax,
            "it is right for small scores; for 1000 e^r overflows, and the loss is inf: take each "
            "row's maximum away before exp": lambda h, V, target: (
                np.log(_sum_of_exp(h, V)) - _pick(h @ V.T, target)
            ),
            "softmax is applied twice: `output` are probabilities already, and all of 0...1 "
            "looks nearly the same to a second one": lambda h, V, target: (
                -np.log(_pick(softmax(softmax(h @ V.T)), target))
            ),
            "now there is no softmax at all: that is minus the target's score": (
                lambda h, V, target: -_pick(h @ V.T, target)
            ),
            "the softmax runs over the lanes (axis 0); it must run over the items": (
                lambda h, V, target: -np.log(_pick(softmax(h @ V.T, axis=0), target))
            ),
            "the logarithm is missing: that is minus the target's probability": (
                lambda h, V, target: -_pick(softmax(h @ V.T), target)
            ),
            "log is missing before the sum: log p = r - log Σ e^r": (
                lambda h, V, target: _sum_of_exp(h, V) - _pick(h @ V.T, target)
            ),
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
        right=_padded_loss,
        cases=_padded,
        mistakes={
            "padding is counted: in NumPy -1 is an index, the last item's, so the model learns "
            "that it follows every session's end": lambda log_p, y: -_at(log_p, y).mean(),
            "padding is counted as if item 0 had been clicked": (
                lambda log_p, y: -_at(log_p, np.maximum(y, 0)).mean()
            ),
            "padding adds nothing to the sum any more, but is still counted in the mean": (
                lambda log_p, y: -(_at(log_p, y) * (y >= 0)).mean()
            ),
            "that is the mean over sessions of their means; an event of a short session then "
            "counts more than one of a long session": lambda log_p, y: _mean_of_means(log_p, y, 1),
            "that is the mean over steps of their means; late events count too much": (
                lambda log_p, y: _mean_of_means(log_p, y, 0)
            ),
            "that is the sum; wanted is the mean over the events": (
                lambda log_p, y: -_at(log_p, y)[y >= 0].sum()
            ),
            "the sum is divided by the number of sessions; divide by the number of events": (
                lambda log_p, y: -_at(log_p, y)[y >= 0].sum() / len(y)
            ),
            "y > 0 leaves item 0 out, which is an item like any other": (
                lambda log_p, y: -_at(log_p, y)[y > 0].mean()
            ),
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
        mistakes={
            "the target only races against the other lanes' targets, not against all items": (
                lambda scores, targets: _in_batch(scores, targets, "standard")
            ),
            "ties are counted now, but the race is still among the batch's targets": _in_batch,
            "ties are counted now, the target itself too (so add no 1), and the race is still "
            "among the batch's targets": lambda *args: 1 + _in_batch(*args),
            "all items race now, but the diagonal of scores is no target's score: row b's target "
            "stands in column targets[b]; and ties must count": lambda scores, targets: ranks(
                scores, np.arange(len(targets)), "standard"
            ),
            "the diagonal of scores is no target's score: row b's target stands in column "
            "targets[b]": lambda scores, targets: ranks(scores, np.arange(len(targets))),
            "ties are decided for the target: an item with an equal score must count as "
            "better": lambda *args: ranks(*args, "standard"),
            "off by one: >= counts the target itself already, so add no 1": (
                lambda *args: 1 + ranks(*args)
            ),
            "the lowest score gets rank 1; the highest must": (
                lambda scores, targets: ranks(-scores, targets)
            ),
            "off by one: the best rank is 1, and >= counts the target itself, so subtract no 1": (
                lambda *args: ranks(*args) - 1
            ),
            "the ranks begin at 0, and ties are decided for the target: > counts neither the "
            "target itself nor an item with an equal score, >= counts both": (
                lambda *args: ranks(*args, "standard") - 1
            ),
            "< counts the items with a lower score; count those with a score >= the target's": (
                _lower_scores
            ),
            "1 plus the count of the items with a lower score gives the lowest score rank 1; count "
            "those with a score >= the target's": lambda scores, targets: (
                1 + _lower_scores(scores, targets)
            ),
        },
        hints=[
            "Against how many items does a target race here? Against how many should it?",
            "The target's score: scores[np.arange(len(targets)), targets]. The race: the whole "
            "row.",
            "The conservative rank counts the items of the row with a score >= the target's.",
        ],
    ),
]
