"""Notebook 11's puzzles: mistakes planted in the solutions, and what the checks say of them."""

import re
import shutil

import numpy as np
import pytest

import run
from checks import chapter, cuda, find, judge
from gru4rec_np.errors import InputError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")

NUMBERS = [exercise.number for exercise in chapter(11)]


def solution(number):
    """The text of the kernel that solves a puzzle."""
    code = run.solutions(11)[number]
    names = {}
    exec(code, names)
    return names[find(number).run.name]


@pytest.mark.parametrize("number", NUMBERS)
def test_solution_is_right_and_meets_the_goal(number):
    exercise, source = find(number), solution(number)
    assert judge(exercise, source).state == "right"
    args = exercise.cases(np.random.default_rng(0))[0]
    report = exercise.run.run(source, args, profile=True)[1]
    assert exercise.run.score(report, args) == pytest.approx(exercise.run.goal, rel=0.01)


@pytest.mark.parametrize("number", NUMBERS)
def test_template_is_open(number):
    cells = [c.source for c in _notebook().cells if run.exercise_of(c) == number]
    names = {"check": lambda number, answer: answer}
    exec(cells[0], names)
    template = names[find(number).run.name]
    assert cuda.HOLE in template
    assert judge(find(number), template).state == "open"


def _notebook():
    import nbformat

    return nbformat.read(run.notebooks()[11], as_version=4)


# Each: the exercise, replacements in its solution, and words of the verdict.
PLANTED = {
    "no guard": ("11.1", {"if (i < n) ": ""}, "out of bounds: read at line 4 by thread"),
    "a guard one too low": ("11.1", {"i < n": "i < n - 1"}, "The last weight is never written"),
    "a guard one too high": ("11.1", {"i < n": "i <= n"}, "element 10000 of p (10000 elements)"),
    "only within the block": (
        "11.1",
        {"blockIdx.x * blockDim.x + ": ""},
        "race between blocks: write at line 4 by thread 0 of block 1",
    ),
    "uphill": ("11.1", {"p[i] - ": "p[i] + "}, "It goes up the slope"),
    "adds to nothing": ("11.1", {"out[i] = ": "out[i] += "}, "All of out is NaN"),
    "does not compile": ("11.1", {"p[i] -": "q[i] -"}, "It does not compile: "),
    "another name": ("11.1", {"void sgd": "void step"}, "has no kernel 'sgd'; it has step"),
    "the block's own row": ("11.2", {"row = x[lane]": "row = lane"}, "Block b copies row b"),
    "one round only": (
        "11.2",
        {"for (int k = threadIdx.x; k < H; k += blockDim.x)": "int k = threadIdx.x; if (k < H)"},
        "Only the first 32 numbers",
    ),
    "past the row": (
        "11.2",
        {"k < H": "k < H + 1"},
        "race between blocks: write at line 4 by thread 0 of block 1",
    ),
    "no barrier before": (
        "11.3",
        {"mine;\n    __syncthreads();": "mine;"},
        "race: write at line 7 by thread",
    ),
    "no barrier in the loop": (
        "11.3",
        {"        __syncthreads();\n": ""},
        "race: write at line 10",
    ),
    "barrier in a branch": (
        "11.3",
        {"part[t + half];\n        __syncthreads();": "part[t + half], __syncthreads();"},
        "barrier: thread",
    ),
    "starts too low": ("11.3", {"half = 64": "half = 32"}, "Places 64 to 127 are left out"),
    "ends too early": ("11.3", {"half > 0": "half > 1"}, "The last halving is missing"),
    "starts too high": ("11.3", {"half = 64": "half = 128"}, "out of bounds: "),
    "never written": ("11.3", {"part[t] = mine": "if (t < N) part[t] = mine"}, "uninitialised: "),
    "one round of a row": (
        "11.4",
        {"for (int k = threadIdx.x; k < N; k += blockDim.x)": "if (int k = threadIdx.x; k < N)"},
        "Only the first 128 numbers of a row",
    ),
    "a barrier within the loop": (
        "11.4",
        {"fmaxf(top, y[k])": "block_max(fmaxf(top, y[k]))"},
        "barrier: ",
    ),
    "reduced by one thread": (
        "11.4",
        {"    sum = block_sum": "    if (threadIdx.x == 0) sum = block_sum"},
        "earlier, nor after a `return` of some.\nwarp: thread 0 of block 0 waits at line ",
    ),
    "overflow": ("11.4", {" - top": ""}, "For large scores e^y overflows"),
    "from zero": ("11.4", {"top = -INFINITY": "top = 0"}, "The maximum starts at 0"),
    "own maximum": ("11.4", {"top = block_max(top);": ""}, "Each thread subtracts the maximum"),
    "own sum": ("11.4", {"sum = block_sum(sum);": ""}, "Each thread divides by the sum of its own"),
    "whole tiles": ("11.5", {"k0 < K;": "k0 + SIDE <= K;"}, "The last tile is left out"),
    "stale tiles": (
        "11.5",
        {
            "A_tile[y][x] = row < M && k0 + x < K ? ": "if (row < M && k0 + x < K) A_tile[y][x] = ",
            "B_tile[y][x] = k0 + y < K && column < N ? ": "if (k0 + y < K && column < N) "
            "B_tile[y][x] = ",
            " : 0;": ";",
        },
        "uninitialised: read at line 13 by thread",
    ),
    "tile transposed": ("11.5", {"B_tile[j][x]": "B_tile[x][j]"}, "B's tile is used transposed"),
    "both tiles transposed": (
        "11.5",
        {"A_tile[y][j] * B_tile[j][x]": "A_tile[j][y] * B_tile[x][j]"},
        "Both tiles are used transposed",
    ),
    "no second barrier": (
        "11.5",
        {"B_tile[j][x];\n        __syncthreads();": "B_tile[j][x];"},
        "race: read at line 13 by thread (",
    ),
    "no guard of K": ("11.5", {" && k0 + x < K": ""}, "out of bounds: read at line 10"),
    "sum begins again": (
        "11.5",
        {"{\n        A_tile": "{\n        sum = 0; A_tile"},
        "Only the last tile is in the result",
    ),
    "all add at once": (
        "11.6",
        {"        if (x[other] == x[lane]) return;\n": ";"},
        "race between blocks: write at line 9",
    ),
    "atomics": (
        "11.6",
        {
            "        if (x[other] == x[lane]) return;\n": ";",
            "if (x[other] == x[lane]) sum += d": "if (other == lane) sum = d",
            "G[x[lane] * H + k] = sum": "atomicAdd(&G[x[lane] * H + k], sum)",
        },
        "its last bits depend on which thread comes first",
    ),
    "first lane only": (
        "11.6",
        {"int other = lane; other < n": "int other = lane; other < lane + 1"},
        "Only the first lane of each item counts",
    ),
    "gates swapped": (
        "11.7",
        {"(1 - z) * h[i] + z *": "z * h[i] + (1 - z) *"},
        "z and 1 - z have changed",
    ),
    "rows of H": ("11.7", {"i / H * 3 * H + i % H": "i"}, "A row of xW and hU has 3H numbers"),
    "three matrices": (
        "11.7",
        {"i / H * 3 * H + i % H": "i", "at + H]": "at + n * H]", "at + 2 * H]": "at + 2 * n * H]"},
        "XW and hU are not three matrices one after another",
    ),
    "target its own negative": (
        "11.8",
        {"        if (j == lane) continue;\n": ""},
        "The target is counted among its own negatives",
    ),
    "no pull": (
        "11.8",
        {"dr[lane] = -sum": "dr[lane] = 0"},
        "The target's own gradient is missing",
    ),
    "sums, not means": ("11.8", {" / (N - 1)": ""}, "Losses and gradients are sums"),
    "all write the sum": (
        "11.8",
        {"if (threadIdx.x == 0) {": "{"},
        "only one of them may write",
    ),
    "loss of thread 0": ("11.8", {"loss = block_sum(loss);": ""}, "losses: only thread 0's own"),
    "pull of thread 0": ("11.8", {"sum = block_sum(sum);": ""}, "dr: only thread 0's own columns"),
    "written to what is const": ("11.8", {"sum += dr[j]": "sum += r[j]"}, "does not compile"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_mistaken_kernel_is_told_what_is_wrong(name):
    number, changes, words = PLANTED[name]
    source = solution(number)
    for old, new in changes.items():
        assert old in source
        source = source.replace(old, new)
    verdict = judge(find(number), source)
    assert verdict.state == "wrong"
    assert words.lower() in verdict.text.lower()
    assert not re.search(r"(^|\s)/\w", verdict.text)  # no path of this machine


def test_what_the_notebook_says_of_a_sum_by_one_thread():
    exercise, by_halves = find("11.3"), solution("11.3")
    begin, end = by_halves.index("    for (int half"), by_halves.index("    if (t == 0)")
    alone = "    if (t == 0) for (int j = 1; j < 128; j++) mine += part[j];\n"
    alone = by_halves[:begin] + alone + by_halves[end:].replace("part[0]", "mine")
    assert judge(exercise, alone).state == "right"
    args = exercise.cases(np.random.default_rng(0))[0]
    seen = [exercise.run.run(text, args, profile=True)[1] for text in (by_halves, alone)]
    score, same = (exercise.run.score(report, args) for report in seen)
    assert score == same
    requests = [report.total("shared_loads").requests for report in seen]
    assert requests[0] == 136
    assert requests[1] > 1000


def test_without_a_compiler_it_is_said_what_to_install(monkeypatch):
    source = solution("11.1").replace("rate * g", "rate*g")  # compiled by no other test
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"this notebook .*apt install g"):
        cuda.require_compiler()
    assert "this notebook compiles its kernels" in judge(find("11.1"), source).text


@pytest.mark.parametrize("number", NUMBERS)
def test_an_answer_that_is_no_text(number):
    assert "kernel's text" in judge(find(number), find(number).right).text
