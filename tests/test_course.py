"""The course's checks: right answers pass, open ones are met kindly, each mistake is named."""

import ast
import copy
import dataclasses
import itertools
import re

import numpy as np
import pytest

import checks
import run
from checks import Exercise, judge
from gru4rec_np import Sessions, course

EVERY = [e for number in range(13) for e in checks.chapter(number)]
PYTHON = [e for e in EVERY if not e.number.startswith("11.")]
MISTAKES = [(e, name) for e in EVERY for name in e.mistakes]


@pytest.fixture(autouse=True)
def progress_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GRU4REC_PROGRESS", str(tmp_path / "progress.json"))


def two(x, y):
    return x + y, x @ y


TOY = Exercise(
    number="0.9",
    title="a sum and a product",
    right=two,
    cases=lambda rng: [(rng.normal(size=(3, 3)), rng.normal(size=(3, 3))) for _ in range(2)],
    mistakes={
        "the second is subtracted": lambda x, y: (x - y, x @ y),
        "the product is taken the wrong way round": lambda x, y: (x + y, y @ x),
        "it looks where nothing is": lambda x, y: (x[9], y),
    },
    parts=("sum", "product"),
)


def test_right():
    assert judge(TOY, lambda x, y: (y + x, x.dot(y))).state == "right"
    assert judge(TOY, lambda x, y: ((x + y).astype(np.float32), x @ y)).state == "right"
    assert judge(TOY, lambda x, y: [x + y, x @ y]).state == "right"


def test_two_numbers_may_come_in_an_array():
    ends = Exercise("0.9", "t", lambda x: (x.min(), x.max()), lambda rng: [(rng.normal(size=9),)])
    assert judge(ends, lambda x: np.quantile(x, [0, 1])).state == "right"
    assert judge(ends, lambda x: x).text == "it must return 2 things"


def unwritten(x, y):
    raise NotImplementedError


@pytest.mark.parametrize("hole", [lambda x, y: ..., lambda x, y: None, unwritten])
def test_open(hole):
    assert judge(TOY, hole).state == "open"


def partly_filled(x, y):
    total = x + y  # noqa: F841
    ...


def nothing_returned(x, y):
    total = x + y
    product = x @ y  # noqa: F841
    total += 0


def filled_in_place(x, y):
    total, product = x + y, x @ y
    return total, np.fill_diagonal(product, 0)


def test_a_forgotten_return_is_no_hole():
    assert judge(TOY, partly_filled).state == "open"
    assert judge(TOY, lambda x, y: (..., ...)).state == "open"
    for answer in (nothing_returned, lambda x, y: print(end="")):
        verdict = judge(TOY, answer)
        assert verdict.state == "wrong"
        assert verdict.text.startswith("it returns None: is `return` missing?")
    assert "product: it is None" in judge(TOY, filled_in_place).text


def test_a_right_half_is_called_right(monkeypatch, capsys):
    verdict = judge(TOY, lambda x, y: (x + y, ...))
    assert (verdict.state, verdict.text) == ("half", "sum is right; product is still to do")
    verdict = judge(TOY, lambda x, y: (x - y, ...))
    assert verdict.state == "wrong"
    assert verdict.text == "sum: the second is subtracted; product is still to do"
    assert "sum is right" in judge(TOY, lambda x, y: (x + y, x * y)).text
    monkeypatch.setattr(checks, "chapter", lambda number: [TOY])
    assert checks.check("0.9", lambda x, y: (x + y, ...)) is two
    assert capsys.readouterr().out == "… 0.9: sum is right; product is still to do.\n"
    assert checks.progress() == []


def test_right_but_beside_the_point(monkeypatch, capsys):
    slow = Exercise(**{**vars(TOY), "goal": lambda answer, cases: "it takes an hour"})
    monkeypatch.setattr(checks, "chapter", lambda number: [slow])
    mine = lambda x, y: (x + y, x @ y)  # noqa: E731
    assert checks.check("0.9", mine) is mine
    said = capsys.readouterr().out
    assert said == "≈ 0.9 is right, but the goal is not met: it takes an hour.\n"
    assert checks.progress() == []


def test_no_warning_of_numpy_is_shown(recwarn):
    warns = lambda x, y: (x / np.zeros(3), np.mean([]) + x)  # noqa: E731
    assert judge(TOY, warns).state == "wrong"
    assert not recwarn.list


SUM = Exercise(
    number="0.9",
    title="a sum",
    right=lambda x, y: x + y,
    cases=TOY.cases,
    mistakes={
        "an array of three is added": [
            lambda x, y: x + np.ones(2),
            lambda x, y: x + np.ones(4),
            lambda x, y: x + 4,
        ],
        "the operands have to be split": lambda x, y: np.split(x, 2),
    },
)


def test_a_mistake_is_known_by_its_error_and_may_be_made_in_several_ways():
    for answer in (
        lambda x, y: np.ones(2) + x,
        lambda x, y: np.ones(4) + y,
        lambda x, y: (4 + x,),
    ):
        assert judge(SUM, answer).text.startswith("an array of three is added")
    assert judge(SUM, lambda x, y: x + np.ones(5)).text.startswith("it stopped with ValueError")
    assert judge(SUM, lambda x, y: np.split(y, 2)).text.startswith("the operands have to be split")


def product_of_sum(x, y):
    total = x + y
    return total @ y


def test_a_mistake_may_be_an_edit_of_the_solution():
    product = Exercise(
        **{
            **vars(SUM),
            "right": lambda x, y: (x + y) @ y,
            "mistakes": {
                "the sum is a difference": {"x + y": "x - y"},
                "the product is wrong": [{"total @ y": "total * y"}, {"@ y": "@ y[9]"}],
            },
            "solution": product_of_sum,
        }
    )
    assert judge(product, lambda x, y: x @ y - y @ y).text == "the sum is a difference"
    assert judge(product, lambda x, y: (x + y) * y).text == "the product is wrong"
    assert judge(product, lambda x, y: (x + y) @ y[9]).text.startswith("the product is wrong; it")
    for old, times in (("x * y", 0), ("y", 3)):
        with pytest.raises(ValueError, match=f"stands {times} times"):
            checks.edited(product_of_sum, {old: "z"})


def own_words(x, y):
    raise ValueError("array split does not result in an equal division")


def test_an_error_of_the_readers_own_is_not_numpys():
    assert judge(SUM, own_words).text.startswith("it stopped with ValueError: array split")


def test_an_array_is_not_to_come_in_a_list_or_a_tuple():
    assert judge(SUM, lambda x, y: x + y).state == "right"
    for answer, words in (
        (lambda x, y: (x + y,), "it returns a tuple with the right array in it"),
        (lambda x, y: list(x + y), "the numbers are right, but in a list"),
        (lambda x, y: (x + y).tolist(), "the numbers are right, but in a list"),
        (lambda x, y: ((x + y).T,), "it is transposed"),
    ):
        verdict = judge(SUM, answer)
        assert verdict.state == "wrong"
        assert verdict.text.startswith(words)
    assert judge(SUM, lambda x, y: (...,)).state == "open"


def changing(x, y):
    x += y
    return x, (x - y) @ y


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, y: (x - y, x @ y), "the second is subtracted"),
        (lambda x, y: (x - y, y @ x), "sum: the second is subtracted; product: the product is"),
        (lambda x, y: (x + y, -(x @ y)), "product: its sign is the opposite"),
        (lambda x, y: (2 * (x + y), x @ y), "sum: every entry is 2 times"),
        (lambda x, y: (3 * (x + y), 3 * (x @ y)), "sum, product: every entry is 3 times"),
        (lambda x, y: (x + y, (x @ y).T), "product: it is transposed"),
        (
            lambda x, y: (x @ y, x + y),
            "the right things in the wrong order; asked is (sum, product)",
        ),
        (lambda x, y: [x - y, y @ x], "sum: the second is subtracted; product: the product is"),
        (lambda x, y: (x + y, (x @ y) * 0), "product: all of it is 0.0"),
        (
            lambda x, y: (x + y, (x @ y) * (1 - 2 * np.eye(3))),
            "product: on the diagonal, and only there, its sign is the opposite of the right one",
        ),
        (
            lambda x, y: (x + y, (x @ y) * [0, 1, 1]),
            "product: in column 0, and only there, all of it is 0.0",
        ),
        (
            lambda x, y: (x + y, (x @ y) * [[1], [1], [2]]),
            "product: in row 2, and only there, every entry is 2 times the right one",
        ),
        (lambda x, y: (x + y, (x @ y)[:2]), "product: its shape is (2, 3), expected (3, 3)"),
        (lambda x, y: x + y, "must return 2 things (sum, product)"),
        (lambda x, y: (x, y, x), "must return 2 things (sum, product), not 3"),
        (lambda x, y: (x + y, x * y), "product: entry ["),
        (lambda x, y: (x + y, x @ y + [0, x[0, 0], 1]), "(6 of 9 entries differ, all in columns 1"),
        (lambda x, y: (x + np.nan, x @ y), "sum: 9 of 9 entries are NaN"),
        (lambda x, y: (x["a"], y), "it stopped with IndexError"),
        (lambda x, y: (y[9], x), "it looks where nothing is; it stopped with IndexError: index 9"),
        (lambda x, y: (x[8], y), "it stopped with IndexError: index 8"),
        (lambda x, y: ((x + y).tolist(), x @ y), "sum: the numbers are right, but in a list"),
        (changing, "it changes its arguments"),
        (lambda x, y: (x > 0, x @ y), "sum: entry ["),
        (lambda x, y: ("no", x @ y), "sum: 'no' where"),
    ],
)
def test_wrong(answer, words):
    verdict = judge(TOY, answer)
    assert verdict.state == "wrong"
    assert words in verdict.text


def test_a_dataclass_is_compared_by_its_fields():
    log = Sessions.from_lists([["a", "b"], ["b", "a"]])
    exercise = Exercise("0.9", "t", lambda log: log, lambda rng: [(log,)])
    assert judge(exercise, lambda log: log.keep_sessions(log.lengths > 0)).state == "right"
    verdict = judge(exercise, lambda log: log.keep_sessions(np.array([True, False])))
    assert verdict.text == "its items: its shape is (2,), expected (4,)"
    assert "expected" in judge(exercise, lambda log: 7).text


def test_check_gives_back_what_works(monkeypatch, capsys):
    monkeypatch.setattr(checks, "chapter", lambda number: [TOY])
    mine = lambda x, y: (x + y, x @ y)  # noqa: E731
    assert checks.check("0.9", mine) is mine
    assert checks.progress() == ["0.9"]
    assert "✓ 0.9 is right" in capsys.readouterr().out
    assert checks.check("0.9", unwritten) is two
    assert "… 0.9 not yet" in capsys.readouterr().out
    assert checks.progress() == ["0.9"]  # done stays done
    with pytest.raises(LookupError, match=r"there is no exercise 0.8"):
        checks.check("0.8", mine)


def test_hints_unfold(monkeypatch, capsys):
    toy = Exercise("0.9", "t", two, TOY.cases, hints=("first", "second"))
    monkeypatch.setattr(checks, "chapter", lambda number: [toy])
    for words in ("hint 1 of 2: first", "hint 2 of 2: second", "tutorials/solutions/ch00.py"):
        checks.hint("0.9")
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "7", "[1, null]"])
def test_damaged_progress_is_forgotten(text, tmp_path):
    (tmp_path / "progress.json").write_text(text)
    assert checks.progress() == []


# --- the exercises of the course ------------------------------------------------------------------


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.number)
def test_exercise_is_whole(exercise):
    assert exercise.title and exercise.hints
    assert judge(exercise, lambda *args: ...).state in ("open", "wrong")
    cases = list(exercise.cases(np.random.default_rng(0)))
    again = list(exercise.cases(np.random.default_rng(0)))
    assert cases and checks._same(again, cases, 0)


@pytest.mark.parametrize(("exercise", "name"), MISTAKES, ids=lambda x: getattr(x, "number", x))
def test_a_planted_mistake_is_named(exercise, name):
    """Each mistake that a check knows, made on purpose: its name and no other is said."""
    direct = Exercise(**{**vars(exercise), "run": lambda answer, args: answer(*args)})
    for planted in exercise.mistakes[name]:
        verdict = judge(direct, planted)
        assert verdict.state == "wrong"
        if not verdict.text.startswith("it stopped with"):
            said, *right = verdict.text.split(name)
            assert not said
            assert re.fullmatch(r"(; .* (is|are) right|; it stopped with .*)?", *right, re.DOTALL)


# How many mistakes of an exercise show by stopping, of those that are Python.
STOPS = {"1.1": 1, "1.5": 1, "3.2": 1, "3.3": 3, "3.5": 2, "3.6": 2, "5.2": 1, "7.1": 4, "7.3": 2,
         "7.4": 2, "7.5": 1, "7.6": 2}  # fmt: skip


@pytest.mark.parametrize("exercise", PYTHON, ids=lambda e: e.number)
def test_no_other_planted_mistake_stops(exercise):
    """A mistake that an edit broke would be named by its error, and pass as planted."""
    cases = list(exercise.cases(np.random.default_rng(0)))

    @np.errstate(all="ignore")
    def stops(mistake):
        for way, args in itertools.product(mistake, cases):
            try:
                way(*copy.deepcopy(args))
            except Exception:
                return True
        return False

    found = [name for name, mistake in exercise.mistakes.items() if stops(mistake)]
    assert len(found) == STOPS.get(exercise.number, 0), found


def solved(chapter):
    """The functions of a chapter's solutions by exercise, and what they need, by name."""
    names = {}
    exec((run.TUTORIALS / "solutions" / f"ch{chapter:02}.py").read_text(encoding="utf-8"), names)
    trees = {number: ast.parse(code) for number, code in run.solutions(chapter).items()}
    return names, {number: tree.body[-1] for number, tree in trees.items()}


def of_tree(function, names):
    """The function of a syntax tree, without a source that could be looked up."""
    module = ast.fix_missing_locations(ast.Module([function], []))
    exec(compile(module, "<answer>", "exec"), names)
    return names[function.name]


@pytest.mark.parametrize("exercise", PYTHON, ids=lambda e: e.number)
def test_what_is_said_of_solutions_that_return_otherwise(exercise):
    names, trees = solved(int(exercise.number.split(".")[0]))
    tree = trees[exercise.number]
    last = tree.body[-1]
    answer = of_tree(tree, dict(names))
    assert judge(exercise, answer).state == "right"
    if not isinstance(last, ast.Return):
        return  # it works in place

    forgetful = copy.deepcopy(tree)
    forgetful.body[-1] = ast.Expr(last.value)
    forgetful.body.insert(-1, ast.parse("_ = 0").body[0])
    assert "is `return` missing?" in judge(exercise, of_tree(forgetful, dict(names))).text

    found = answer(*exercise.cases(np.random.default_rng(0))[0])
    if not isinstance(found, tuple):
        return
    assert judge(exercise, lambda *args: list(answer(*args))).state in ("right", "wrong")
    backwards = judge(exercise, lambda *args: answer(*args)[::-1])
    assert backwards.state == "wrong"
    named = any(backwards.text.startswith(name) for name in exercise.mistakes)
    assert named or re.search("order|a tuple of four", backwards.text)
    half = judge(exercise, lambda *args: (answer(*args)[0], *[...] * (len(found) - 1)))
    assert "right" in half.text


# What a reader wrote, and words of what he is told. `np` and what the notebook gives are there.
ANSWERS = [
    ("0.1", "def f(ranks, k):\n    share = np.mean(ranks <= k)", "is `return` missing?"),
    ("0.2", "lambda ranks, before, n, k: np.mean(ranks[before == n - 1] <= k)", "n - 1 clicks"),
    ("0.2", "lambda ranks, before, n, k: np.mean(ranks[before == n + 1] <= k)", "n + 1 clicks"),
    (
        "2.1",
        "def f(scores, targets):\n"
        "    t = scores[np.arange(len(targets)), targets][:, None]\n"
        "    (scores >= t).sum(axis=1)",
        "is `return` missing?",
    ),
    ("2.2", "lambda ranks, k: [np.mean(ranks <= k), np.mean((ranks <= k) / ranks)]", "right"),
    (
        "2.2",
        "lambda ranks, k: [np.mean((ranks <= k) / ranks), np.mean(ranks <= k)]",
        "first recall, then MRR",
    ),
    ("2.2", "lambda ranks, k: [np.mean(ranks < k), np.mean((ranks < k) / ranks)]", "<=, not <"),
    (
        "2.3",
        "def f(items, offsets, n_items):\n"
        "    m = np.zeros((n_items, n_items))\n"
        "    for a, z in zip(offsets[:-1], offsets[1:]):\n"
        "        m[items[a : z - 1], items[a + 1 : z]] += 1\n"
        "    return m",
        "several times in a session is counted once",
    ),
    (
        "2.3",
        "def f(items, offsets, n_items):\n"
        "    m = np.zeros((n_items, n_items))\n"
        "    for a, z in zip(offsets[:-1], offsets[1:]):\n"
        "        for i, j in zip(items[a : z - 1], items[a + 1 : z]):\n"
        "            m[i, j] += i != j\n"
        "    return m",
        "an item that follows itself counts, too",
    ),
    (
        "2.6",
        "def f(c, size):\n"
        "    sim = c / np.sqrt(size[:, None] * size)\n"
        "    return np.fill_diagonal(sim, 0)",
        "as np.fill_diagonal does, returns None too",
    ),
    (
        "10.5",
        "def f(p, a, rows, g, lr, eps):\n"
        "    a = a.copy()\n"
        "    a[rows] += g * g\n"
        "    return p - lr * g[0] / np.sqrt(a + eps), a",
        "p and a are unchanged",
    ),
    ("6.3", "lambda x: np.maximum(x, 0) + np.log1p(np.exp(-x))", "not log(1 + e^-x)"),
]
BPR = """def f(r):
    n, d = r.shape[1] - 1, r - np.diagonal(r)[:, None]
    loss, dr = softplus(d), sigmoid(d) / n
    np.fill_diagonal(loss, 0)
    np.fill_diagonal(dr, 0)
    np.fill_diagonal(dr, -dr.sum(axis=1))
    return loss.sum(axis=1) / n, dr"""
TOP1 = """def f(r):
    n, d = r.shape[1] - 1, r - np.diagonal(r)[:, None]
    above, size = sigmoid(d), sigmoid(r * r)
    loss, slope = above + size, above * (1 - above)
    np.fill_diagonal(loss, 0)
    np.fill_diagonal(slope, 0)
    dr = slope + 2 * r * size * (1 - size)
    np.fill_diagonal(dr, -slope.sum(axis=1))
    return loss.sum(axis=1) / n, dr / n"""
MAX = """def f(r, bpreg):
    r_i = np.diagonal(r)[:, None]
    s = negatives_softmax(r)
    p = negatives_softmax(r - softplus(r - r_i))
    size = (s * r * r).sum(axis=1, keepdims=True)
    dr = s - p * sigmoid(r_i - r) + bpreg * s * (2 * r + r * r - size)
    np.fill_diagonal(dr, -(p * sigmoid(r - r_i)).sum(axis=1))
    return dr"""
ANSWERS += [
    (number, source.replace(old, new), words)
    for number, source, old, new, words in (
        ("6.4", BPR, "/ n, dr", "/ n, ...", "loss is right; gradient is still to do"),
        ("6.4", BPR, "/ n, dr", "/ r.shape[1], ...", "loss: it is divided by N"),
        ("6.4", BPR, "-dr.sum", "dr.sum", "so that descent pushes it up; loss is right"),
        (
            "6.4",
            BPR,
            "sigmoid(d) / n",
            "sigmoid(d) * sigmoid(-d) / n",
            "that is σ', the slope of σ",
        ),
        (
            "6.4",
            BPR,
            "/ n, dr",
            "/ n, dr / len(r)",
            "gradient: every entry is 1/r.shape[0] of the right one: do not divide",
        ),
        ("6.4", BPR, "loss.sum(axis=1) / n, dr", "dr, loss.sum(axis=1) / n", "wrong order"),
        ("6.5", TOP1, "-slope.sum", "slope.sum", "so that descent pushes it up; loss is right"),
        (
            "6.5",
            TOP1,
            "dr / n",
            "dr / n / len(r)",
            "gradient: every entry is 1/r.shape[0] of the right one: do not divide",
        ),
        ("6.5", TOP1, "dr / n", "np.fill_diagonal(dr, 0)", "gradient: it is None"),
        ("6.8", MAX, "- size)", ")", "Σ_k s_k r_k² is missing"),
        ("6.8", MAX, "dr, -(", "dr, (", "the target's sign is turned"),
        ("6.8", MAX, "- size)", "+ size)", "the target's entry are right"),
        (
            "6.8",
            MAX,
            "p = negatives_softmax(r - softplus(r - r_i))",
            "p = s * sigmoid(r_i - r); p = p / p.sum(axis=1, keepdims=True)",
            "it is right for small numbers; for such as 1e4",
        ),
    )
]


GRU = """def f(xW, h, U, b):
    xW_r, xW_z, xW_n = np.split(xW, 3, axis=1)
    U_r, U_z, U_n = np.split(U, 3, axis=1)
    b_r, b_z, b_n = np.split(b, 3)
    r = sigmoid(xW_r + h @ U_r + b_r)
    z = sigmoid(xW_z + h @ U_z + b_z)
    n = np.tanh(xW_n + (r * h) @ U_n + b_n)
    return (1 - z) * h + z * n"""
LSTM = """def f(xW, hc, U, b):
    h, c = np.split(hc, 2, axis=1)
    a_i, a_f, a_o, a_n = np.split(xW + h @ U + b, 4, axis=1)
    i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)
    c_new = f * c + i * np.tanh(a_n)
    return np.hstack([o * np.tanh(c_new), c_new])"""
RESET_AFTER = """def f(xW, h, U, b, c):
    x_r, x_z, x_n = np.split(xW + b, 3, axis=1)
    hU_r, hU_z, hU_n = np.split(h @ U + c, 3, axis=1)
    r, z = sigmoid(x_r + hU_r), sigmoid(x_z + hU_z)
    n = np.tanh(x_n + r * hU_n)
    return (1 - z) * h + z * n"""
OTHER_Z = """def f(W, U, b):
    W, U, b = W.copy(), U.copy(), b.copy()
    H = len(U)
    for weight in (W, U, b):
        weight[..., H : 2 * H] *= -1
    return W, U, b"""
CASES = """def f(offsets):
    m = np.ones(offsets[-1], bool)
    m[offsets[1:] - 1] = False
    return np.flatnonzero(m)"""
RESTRICT = """def f(log, item_ids):
    number = {item: i for i, item in enumerate(item_ids.tolist())}
    new = np.array([number.get(item, -1) for item in log.item_ids.tolist()])
    log = log.keep_events(new[log.items] >= 0)
    log = log.keep_sessions(log.lengths >= 2)
    return dataclasses.replace(log, items=new[log.items], item_ids=item_ids)"""
F = """def f(support, sample_alpha):
    cumulative = np.cumsum(support**sample_alpha)
    return cumulative / cumulative[-1]"""
BACKWARD = """def f(dr, h, V, items):
    rows, place = np.unique(items, return_inverse=True)
    dV, db = np.zeros((len(rows), h.shape[1])), np.zeros(len(rows))
    np.add.at(dV, place, dr.T @ h)
    np.add.at(db, place, dr.sum(axis=0))
    return dr @ V, rows, dV, db"""
COLLISIONS = """def f(items, B):
    hit = items == items[:B, None]
    hit[range(B), range(B)] = False
    return hit"""
LOG_Q = """def f(log_support, targets, samples, sample_alpha):
    return np.concatenate([log_support[targets], sample_alpha * log_support[samples]])"""
ANSWERS += [
    (number, source.replace(old, new), words)
    for number, source, old, new, words in (
        ("1.1", CASES, "[1:] - 1]", "[1:]]", "the sessions' last events are offsets[1:] - 1; it"),
        ("1.1", CASES, "np.flatnonzero(m)", "np.where(m)", "a tuple with the right array in it"),
        ("1.1", CASES, "np.flatnonzero(m)", "[i for i in range(len(m)) if m[i]]", "in a list"),
        ("1.5", RESTRICT, "{item: i for", "{i: item for", "it is to give the number for an id"),
        ("1.5", RESTRICT, "number.get(item, -1)", "number[item]", "number.get(id, -1) gives -1"),
        ("1.5", RESTRICT, "items=new[log.items], ", "", "but with their old numbers"),
        ("3.3", GRU, "np.split(b, 3)", "np.split(b, 3, axis=1)", "a bias has one axis, so"),
        ("3.3", GRU, "np.split(xW, 3, axis=1)", "np.split(xW, 3)", "gates are columns: axis=1"),
        ("3.3", GRU, "np.split(U, 3, axis=1)", "np.split(U, 3)", "gates are columns: axis=1"),
        ("3.3", GRU, "h @ U_z", "h @ U", "each wants its own third"),
        ("3.3", GRU, "r = sigmoid", "r = ", "r is a sum that has not gone through σ"),
        ("3.3", GRU, "z = sigmoid", "z = ", "z is a sum that has not gone through σ"),
        ("3.3", GRU, "np.tanh(xW_n + (r * h)", "r * np.tanh(xW_n + h", "the whole candidate"),
        ("3.3", GRU, "xW_n + (r * h) @ U_n + b_n", "r * (xW_n + h @ U_n + b_n)", "not x W_n"),
        (
            "3.3",
            GRU.replace("U_r, U_z, U_n", "U_z, U_n, U_r").replace("b_r, b_z, b_n", "b_z, b_n, b_r"),
            "xW_r, xW_z, xW_n",
            "xW_z, xW_n, xW_r",
            "you take them in another",
        ),
        ("3.4", OTHER_Z, "H = len(U)", "H = len(W)", "so len(W) is I; H is len(U)"),
        ("3.5", LSTM, "np.split(hc, 2, axis=1)", "np.split(hc, 2)", "columns: axis=1; it stopped"),
        ("3.5", LSTM, "+ b, 4, axis=1)", "+ b, 4)", "columns: axis=1; it stopped"),
        ("3.5", LSTM, "h @ U", "hc @ U", "only h goes through U"),
        ("3.5", LSTM, "np.hstack([o * np.tanh(c_new), c_new])", "o * np.tanh(c_new), c_new", "one"),
        (
            "3.5",
            LSTM,
            "np.hstack([o * np.tanh(c_new), c_new])",
            "[o * np.tanh(c_new), c_new]",
            "on",
        ),
        ("3.6", RESET_AFTER, "h @ U + c", "h @ U", "c is missing"),
        ("3.6", RESET_AFTER, "xW + b", "xW", "b is missing"),
        ("3.6", RESET_AFTER, "r, z = s", "z, r = s", "r and z have changed places"),
        ("3.6", RESET_AFTER, "xW + b, 3, axis=1", "xW + b, 3", "gates are columns: axis=1"),
        ("3.6", RESET_AFTER, "h @ U + c, 3, axis=1", "h @ U + c, 3", "gates are columns: axis=1"),
        ("3.6", RESET_AFTER, "    x_r", "    np.split(b, 3, axis=1)\n    x_r", "one axis"),
        ("7.2", F, "support**sample_alpha", "support", "sample_alpha is not used"),
        ("7.2", F, "support**s", "support * s", "multiplied by sample_alpha, which cancels"),
        ("7.2", F, "(support**", "(np.sort(support) ** ", "support is sorted first"),
        (
            "7.2",
            F,
            "/ cumulative[-1]",
            "/ support.sum()",
            "is divided by the sum of support itself",
        ),
        (
            "7.2",
            F,
            "return cumulative / cumulative[-1]",
            "return np.append(0, cumulative / cumulative[-1])",
            "there are I + 1 entries",
        ),
        (
            "7.2",
            F,
            "return cumulative / cumulative[-1]",
            "q = support**sample_alpha; return np.cumsum(q / q.sum())",
            "Divide the running sum F by its own last entry, F / F[-1]",
        ),
        ("7.4", BACKWARD, "dr @ V,", "dr @ V[items],", "V has the N rows already gathered"),
        ("7.4", BACKWARD, "np.add.at(dV, p", "V[items]; np.add.at(dV, p", "already gathered"),
        ("7.4", BACKWARD, "dr.sum(axis=0)", "dr.sum(axis=1)", "db sums over the wrong axis"),
        ("7.4", BACKWARD, "rows, dV", "rows, list(dV)", "dV: the numbers are right, but in a list"),
        (
            "7.4",
            BACKWARD,
            "    return",
            "    T, t = np.zeros((rows[-1] + 1, h.shape[1])), np.zeros(rows[-1] + 1)\n"
            "    T[rows], t[rows] = dV, db\n"
            "    return dr @ V, rows, T, t\n"
            "    return",
            "dV, db: that has a row for every number up to the largest item",
        ),
        ("7.5", COLLISIONS, "items[:B, None]", "items[:, None]", "compare with the lanes'"),
        ("7.5", COLLISIONS, "==", "!=", "it is the wrong way round"),
        ("7.6", LOG_Q, "[log_support[targets]", "[np.log(log_support[targets])", "already"),
        (
            "7.6",
            LOG_Q.replace("log_support[t", "np.log(log_support)[t"),
            "log_support[s",
            "np.log(log_support)[s",
            "you take the logarithm again",
        ),
        ("7.6", LOG_Q, "sample_alpha * log", "np.log(sample_alpha) + log", "log alpha is added"),
    )
]
SEEN = "def f(dr, h, V, items):\n    seen = list(dict.fromkeys(items.tolist()))\n"
ANSWERS += [
    ("1.1", "lambda offsets: (np.zeros(3, int),)", "its shape is (3,)"),
    (
        "1.1",
        "lambda offsets: np.delete(np.arange(offsets[-1]), offsets[1:])",
        "the sessions' last events are offsets[1:] - 1; it",
    ),
    (
        "1.4",
        "lambda times, offsets, d: np.where(times[offsets[:-1]] >= times.max() - d * 86_400)",
        "these are numbers; a mask is asked for",
    ),
    (
        "7.1",
        "lambda h, V_y, b_y, items: V_y[items] @ h.T + b_y[items]",
        "rows are lanes, so h stands left",
    ),
    (
        "1.4",
        "lambda times, offsets, days: times[offsets[:-1]] >= times[0] + days * 86_400",
        "the days are counted from the log's first click",
    ),
    (
        "1.5",
        "lambda log, item_ids: dataclasses.replace(log, item_ids=item_ids)",
        "only item_ids is the other catalogue's",
    ),
    ("3.1", "lambda xW, h, U, b: np.tanh(xW @ U + b)", "it is h that is multiplied by U"),
    ("3.1", "lambda xW, h, U, b: np.tanh(xW * h + b)", "are added, not multiplied"),
    ("3.2", "lambda x, W: x @ W", "x holds item numbers, not the 1-of-N vectors"),
    ("3.2", "lambda x, W: W.T[x]", "those are columns; an item is a row of W"),
    ("3.2", "lambda x, W: [W[i] for i in x]", "in a list"),
    ("7.1", "lambda h, V_y, b_y, items: h @ V_y[items].T + b_y", "+ b_y[items]; it stopped"),
    ("7.1", "lambda h, V_y, b_y, items: b_y + h @ V_y[items].T", "+ b_y[items]; it stopped"),
    ("7.1", "lambda h, V_y, b_y, items: h @ V_y[items] + b_y[items]", "h @ V_y[items].T; it"),
    (
        "7.1",
        "def f(h, V_y, b_y, items):\n"
        "    e = np.exp(h @ V_y[items].T + b_y[items])\n"
        "    return e / e.sum(axis=1, keepdims=True)",
        "that is a softmax of the scores",
    ),
    ("7.3", "lambda u, F: np.argmax(u < F)", "each u is to be compared with all of F"),
    ("7.3", 'lambda u, F: np.searchsorted(F, u, side="right")', "right"),
    ("7.3", 'lambda u, F: np.searchsorted(F, u, side="right").tolist()', "in a list"),
    ("7.3", 'lambda u, F: np.searchsorted(u, F, side="right")', "the first argument of"),
    (
        "7.4",
        SEEN + "    i = np.array([[x == s for x in items] for s in seen])\n"
        "    return dr @ V, np.array(seen), i @ dr.T @ h, i @ dr.sum(axis=0)",
        "the items are in the order in which they appear",
    ),
]


@pytest.mark.parametrize(("number", "source", "words"), ANSWERS)
def test_what_a_reader_is_told(number, source, words, recwarn):
    names, _ = solved(int(number.split(".")[0]))
    exec(source if source.startswith("def") else f"f = {source}", names)
    names["dataclasses"] = dataclasses
    verdict = judge(checks.find(number), names["f"])
    assert words in (verdict.text or verdict.state)
    assert not recwarn.list


WHOLE_TABLE = [
    "(h @ V_y.T)[:, items]",
    "(V_y @ h.T).T[:, items]",
    "np.dot(h, V_y.T)[:, items]",
    "np.inner(h, V_y)[:, items]",
    "np.tensordot(h, V_y, (1, 1))[:, items]",
    "np.einsum('bh,ih->bi', h, V_y)[:, items]",
    "h.dot(V_y.T)[:, items]",
    "V_y.dot(h.T).T[:, items]",
    "(h[:, None] * V_y).sum(axis=-1)[:, items]",
]
ITS_ROWS = [
    "h @ V_y[items].T",
    "np.matmul(h, np.take(V_y, items, axis=0).T)",
    "np.dot(h, V_y[items].T)",
    "np.inner(h, V_y[items])",
    "np.tensordot(h, V_y[items], (1, 1))",
    "np.einsum('bh,nh->bn', h, V_y[items])",
    "h.dot(V_y[items].T)",
    "V_y[items].dot(h.T).T",
    "(h[:, None] * V_y[items]).sum(axis=-1)",
    "np.array([[row @ V_y[i] for i in items] for row in h])",
]


def test_scores_of_a_few_items_are_not_picked_from_those_of_all():
    exercise = checks.find("7.1")
    for product in ITS_ROWS:
        for rest in ("return {} + b_y[items]", "r = {}; r += b_y[items]; return r"):
            names = {"np": np}
            exec("def f(h, V_y, b_y, items):\n    " + rest.format(product), names)
            assert judge(exercise, names["f"]).state == "right", product
    for product in WHOLE_TABLE:
        answer = eval(f"lambda h, V_y, b_y, items: {product} + b_y[items]", {"np": np})
        verdict = judge(exercise, answer)
        assert verdict.state == "wrong", product
        assert verdict.text.startswith("it computes with all 37 items"), product


def test_an_entry_of_exactly_p_is_not_dropped():
    exercise = checks.find("8.5")
    for answer in (
        lambda u, p: np.where(u < p, 0, 1 / (1 - p)).astype(u.dtype),
        lambda u, p: (1 - (u < p)).astype(u.dtype) / (1 - p),
    ):
        assert judge(exercise, answer).state == "right"
    for answer in (
        lambda u, p: np.where(u <= p, 0, 1 / (1 - p)).astype(u.dtype),
        lambda u, p: (u > p).astype(u.dtype) / (1 - p),
    ):
        verdict = judge(exercise, answer)
        assert verdict.state == "wrong"
        assert verdict.text.startswith("an entry where u is exactly p stays")


def least_sessions(d, s):
    low, high = 1, 1 << 40
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if 1.96 * s / middle**0.5 <= d else (middle + 1, high)
    return low


def test_the_least_number_of_sessions_where_it_is_exact():
    exercise = checks.find("12.5")
    for answer in (
        least_sessions,
        lambda d, s: int(np.ceil((1.96 * s) ** 2 / d**2)),
        lambda d, s: int(np.ceil(1.96**2 * s**2 / d**2)),
        lambda d, s: int(np.ceil(3.8416 * (s / d) ** 2)),
        lambda d, s: int(np.ceil((d / (1.96 * s)) ** -2)),
    ):
        assert judge(exercise, answer).state == "right"
    verdict = judge(exercise, lambda d, s: int((1.96 * s / d) ** 2) + 1)
    assert verdict.state == "wrong"
    assert "exactly |d|, S is enough" in verdict.text


# --- the command ----------------------------------------------------------------------------------


def test_overview(tmp_path):
    notebook = '{"cells": [{"source": ["# 3. Recurrence\\n", "text"]}]}'
    path = tmp_path / "03-recurrence.ipynb"
    path.write_text(notebook)
    text = course.overview({3: path}, checks)
    assert text.startswith("0 of ") and " 3  " in text and "Recurrence" in text


def test_no_course_here(tmp_path):
    with pytest.raises(course.InputError, match=r"--dir .*: the course is not there"):
        course.find_tutorials(str(tmp_path))


def test_no_notebook(tmp_path):
    path = tmp_path / "01-sessions.ipynb"
    path.write_text("no")
    with pytest.raises(course.InputError, match=r"01-sessions.ipynb: not a notebook"):
        course.title_of(path)


def test_a_factor_is_one_in_all_cases():
    """Of a single number, or in one case only, any two numbers would have a factor."""
    toy = Exercise("0.9", "t", lambda x: x, lambda rng: [(4.0,), (5.0,)])
    assert judge(toy, lambda x: 8.0).text == "it is 8, expected 4"
    toy = Exercise("0.9", "t", lambda x: x, lambda rng: [(np.arange(1.0, 4),), (np.ones(4),)])
    assert (
        judge(toy, lambda x: 2 * x).text == "every entry is 2 times the right one: a factor is off"
    )
    assert judge(toy, lambda x: x * x[-1]).text.startswith("entry [2] is 9, expected 3")
    cases = lambda rng: [(rng.normal(size=shape),) for shape in ((4, 2), (3, 5))]  # noqa: E731
    toy = Exercise("0.9", "t", lambda x: x, cases)
    for answer, factor in (
        (lambda x: x / len(x), "1/x.shape[0] of the right one: do not divide by x.shape[0]"),
        (lambda x: x * x.shape[1], "x.shape[1] times the right one: divide by x.shape[1]"),
    ):
        assert judge(toy, answer).text == f"every entry is {factor}"
    toy = Exercise("0.9", "t", lambda x: x > 1, lambda rng: [(np.arange(1.0, 4),)])
    assert (
        judge(toy, lambda x: x < 3).text
        == "entry [0] is True, expected False (2 of 3 entries differ)"
    )


def test_words_stay_as_they_are(monkeypatch, capsys):
    """They may begin with a variable: f is not F, σ is not Σ."""
    toy = Exercise("0.9", "t", two, TOY.cases, {"σ comes first": lambda x, y: (x, y)})
    monkeypatch.setattr(checks, "chapter", lambda number: [toy])
    checks.check("0.9", lambda x, y: (x, y))
    assert "✗ 0.9: σ comes first." in capsys.readouterr().out


def mended_soon(x, y):
    raise NotImplementedError("mend it, then take this line away")


def test_an_open_exercise_may_say_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(checks, "chapter", lambda number: [TOY])
    checks.check("0.9", mended_soon)
    assert (
        "not yet: a sum and a product; mend it, then take this line away."
        in capsys.readouterr().out
    )
