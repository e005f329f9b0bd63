"""The course's checks: right answers pass, open ones are met kindly, each mistake is named."""

import numpy as np
import pytest

import checks
from checks import Exercise, judge
from gru4rec_np import Sessions, course

EVERY = [e for number in range(13) for e in checks.chapter(number)]
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


def test_two_numbers_may_come_in_an_array():
    ends = Exercise("0.9", "t", lambda x: (x.min(), x.max()), lambda rng: [(rng.normal(size=9),)])
    assert judge(ends, lambda x: np.quantile(x, [0, 1])).state == "right"
    assert judge(ends, lambda x: x).text == "it must return 2 things"


def unwritten(x, y):
    raise NotImplementedError


@pytest.mark.parametrize("hole", [lambda x, y: ..., lambda x, y: None, unwritten])
def test_open(hole):
    assert judge(TOY, hole).state == "open"
    assert judge(TOY, lambda x, y: (x + y, ...)).state == "open"


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
        (lambda x, y: (x + y, (x @ y)[:2]), "product: its shape is (2, 3), expected (3, 3)"),
        (lambda x, y: x + y, "must return 2 things (sum, product)"),
        (lambda x, y: (x, y, x), "must return 2 things (sum, product), not 3"),
        (lambda x, y: (x + y, x * y), "product: entry ["),
        (lambda x, y: (x + np.nan, x @ y), "sum: 9 of 9 entries are NaN"),
        (lambda x, y: (x["a"], y), "it stopped with IndexError"),
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
    assert verdict.text == "its items: its shape is (2,), expected (4,)."
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
    planted = exercise.mistakes[name]
    direct = Exercise(**{**vars(exercise), "run": lambda answer, args: answer(*args)})
    verdict = judge(direct, planted)
    assert verdict.state == "wrong"
    if not verdict.text.startswith("it stopped with"):
        assert verdict.text == name


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
    assert judge(toy, lambda x: x * len(x)).text.startswith("entry [2] is 9, expected 3")
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
