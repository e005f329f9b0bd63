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


ADDS = "NaN plus something is NaN. Write the result with `=`, not with += or atomicAdd"
EACH_ALL = "All threads write the same place. Share the work: each takes numbers of its own"
STRIDED = "for (int k = threadIdx.x; k < H; k += blockDim.x)"

# Each: the exercise, replacements in its solution, and words of the verdict.
PLANTED = {
    "each thread all weights": (
        "11.1",
        {
            "    const int i = blockIdx.x * blockDim.x + threadIdx.x;\n": "",
            "if (i < n)": "for (int i = 0; i < n; i++)",
        },
        EACH_ALL,
    ),
    "each thread the whole row": ("11.2", {STRIDED: "for (int k = 0; k < H; k++)"}, EACH_ALL),
    "an atomic sum of NaN": (
        "11.3",
        {"if (t == 0) out[row] = part[0]": "atomicAdd(&out[row], mine)"},
        ADDS,
    ),
    "a loop without an end": (
        "11.3",
        {"half > 0": "half >= 0"},
        "after 5 seconds.\n    line 11: __syncthreads();\nThe loop around this line does not end",
    ),
    "no maximum below the line": (
        "11.4",
        {"sum += expf(y[k] - top)": "sum += expf(y[k])"},
        "In the denominator, the sum, the maximum is not subtracted",
    ),
    "maximum below the line only": (
        "11.4",
        {"expf(y[k] - top) / sum": "expf(y[k]) / sum"},
        "In the numerator the maximum is not subtracted",
    ),
    "rows of N": ("11.5", {"A[row * K": "A[row * N"}, "row r begins at r * K, not at r * N"),
    "rows of K": (
        "11.5",
        {"B[(k0 + y) * N": "B[(k0 + y) * K"},
        "A matrix of 64 columns has row r at r * 64",
    ),
    "one tile": ("11.5", {"k0 < K;": "k0 < 16;"}, "Only the first tile is in the result"),
    "every block returns": ("11.6", {"other < b;": "other <= b;"}, "other < b"),
    "mean": (
        "11.6",
        {
            "float sum = 0;": "float sum = 0, many = 0;",
            "sum += d[other * H + k];": "{ many++; sum += d[other * H + k]; }",
            "= sum;": "= sum / many;",
        },
        "That is the mean of an item's rows",
    ),
    "past the row of G": (
        "11.6",
        {"k < H": "k <= H"},
        "A row of G has the numbers 0 to 95: one of the two goes past the end",
    ),
    "guard of rows": ("11.7", {"i >= B * H": "i >= B"}, "Only the first B numbers are written"),
    "no reset gate": ("11.7", {"+ r * hU": "+ hU"}, "The reset gate is missing"),
    "reset of h": (
        "11.7",
        {"+ r * hU[at + 2 * H]": "+ r * h[i]"},
        "R scales hU_n, not h",
    ),
    "whole numbers": (
        "11.8",
        {
            "softplus(d) / (N - 1)": "1 / (N - 1) * softplus(d)",
            "sigmoid(d) / (N - 1)": "1 / (N - 1) * sigmoid(d)",
        },
        "1 / (N - 1) divides whole numbers",
    ),
    "whole numbers in the loss": (
        "11.8",
        {"softplus(d) / (N - 1)": "1 / (N - 1) * softplus(d)"},
        "losses: all is 0: 1 / (N - 1) divides whole numbers",
    ),
    "pushed down": ("11.8", {"-sum": "sum"}, "The target's gradient has the wrong sign"),
    "no guard": ("11.1", {"if (i < n) ": ""}, "out of bounds: read at line 4 by thread"),
    "a guard one too low": ("11.1", {"i < n": "i < n - 1"}, "The last weight is never written"),
    "a guard one too high": ("11.1", {"i < n": "i <= n"}, "element 10000 of p (10000 elements)"),
    "only within the block": (
        "11.1",
        {"blockIdx.x * blockDim.x + ": ""},
        "race between blocks: write at line 4 by thread 0 of block 1",
    ),
    "uphill": ("11.1", {"p[i] - ": "p[i] + "}, "It goes up the slope"),
    "adds to nothing": ("11.1", {"out[i] = ": "out[i] += "}, ADDS),
    "nothing written": ("11.1", {"out[i] = ": "float y = "}, "Nothing is written to out"),
    "does not compile": ("11.1", {"p[i] -": "q[i] -"}, "It does not compile: "),
    "another name": ("11.1", {"void sgd": "void step"}, "has no kernel 'sgd'; it has step"),
    "the block's own row": ("11.2", {"row = x[b]": "row = b"}, "Block b copies row b"),
    "one round only": (
        "11.2",
        {"for (int k = threadIdx.x; k < H; k += blockDim.x)": "int k = threadIdx.x; if (k < H)"},
        "Only the first 32 numbers",
    ),
    "past the row": (
        "11.2",
        {"k < H": "k < H + 1"},
        "Block 0 goes one past the end of its own row: the last of 96 numbers is number 95",
    ),
    "no barrier before": (
        "11.3",
        {"mine;\n    __syncthreads();": "mine;"},
        "race: write at line 7 by thread",
    ),
    "no barrier in the loop": (
        "11.3",
        {"        __syncthreads();\n": ""},
        "line 10 (write and read): if (t < half) part[t] += part[t + half];\nOne thread "
        "writes on this line what another thread reads on it. In a loop, one of them may be a turn",
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
        "earlier, or after a `return` of some.\nwarp: thread 0 of block 0 waits at line ",
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
        {"        if (x[other] == x[b]) return;\n": ";"},
        "are the same item, so both blocks write to the same row of G",
    ),
    "atomics": (
        "11.6",
        {
            "        if (x[other] == x[b]) return;\n": ";",
            "if (x[other] == x[b]) sum += d": "if (other == b) sum = d",
            "G[x[b] * H + k] = sum": "atomicAdd(&G[x[b] * H + k], sum)",
        },
        "its last bits depend on which thread comes first",
    ),
    "first lane only": (
        "11.6",
        {"int other = b; other < n": "int other = b; other < b + 1"},
        "Only the first row of each item counts",
    ),
    "gates swapped": (
        "11.7",
        {"(1 - z) * h[i] + z *": "z * h[i] + (1 - z) *"},
        "z and 1 - z have changed",
    ),
    "rows of H": ("11.7", {"i / H * 3 * H + i % H": "i"}, "A row of xW and hU has 3H numbers"),
    "three matrices": (
        "11.7",
        {"i / H * 3 * H + i % H": "i", "at + H]": "at + B * H]", "at + 2 * H]": "at + 2 * B * H]"},
        "XW and hU are not three matrices one after another",
    ),
    "target its own negative": (
        "11.8",
        {"        if (j == b) continue;\n": ""},
        "The target is counted among its own negatives",
    ),
    "no pull": (
        "11.8",
        {"dr[b] = -sum": "dr[b] = 0"},
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
def test_a_mistaken_kernel_is_told_what_is_wrong(name, recwarn):
    number, changes, words = PLANTED[name]
    source = solution(number)
    for old, new in changes.items():
        assert old in source
        source = source.replace(old, new)
    verdict = judge(find(number), source)
    assert verdict.state == "wrong"
    assert "threadIdx.x == 0" not in verdict.text
    assert not recwarn.list
    assert words.lower() in verdict.text.lower()
    assert not re.search(r"(^|\s)/\w", verdict.text)  # no path of this machine


def test_what_the_notebook_says_of_a_sum_by_one_thread():
    exercise, by_halves = find("11.3"), solution("11.3")
    begin, end = by_halves.index("    for (int half"), by_halves.index("    if (t == 0)")
    alone = "    if (t == 0) for (int j = 1; j < 128; j++) mine += part[j];\n"
    alone = by_halves[:begin] + alone + by_halves[end:].replace("part[0]", "mine")
    verdict = judge(exercise, alone)
    assert verdict.state == "short"
    assert re.fullmatch(r"its score is 1.01, but it makes 1,\d+ requests of shared.*", verdict.text)
    args = exercise.cases(np.random.default_rng(0))[0]
    seen = [exercise.run.run(text, args, profile=True)[1] for text in (by_halves, alone)]
    score, same = (exercise.run.score(report, args) for report in seen)
    assert score == same
    requests = [report.total("shared_loads").requests for report in seen]
    assert requests[0] == 136
    assert requests[1] > 1000


# Right, but beside the point: the exercise, replacements in its solution, and the score.
SHORT = {
    "one thread": (
        "11.1",
        {
            "    if (i < n)": "    if (i > 0) return;\n"
            "    for (int j = 0; j < n; j++) out[j] = p[j] - rate * g[j];\n    if (false)"
        },
        "8",
    ),
    "one thread a row": (
        "11.2",
        {STRIDED: "if (threadIdx.x == 0) for (int k = 0; k < H; k++)"},
        "8",
    ),
    "one thread reads": (
        "11.3",
        {"k = t; k < N; k += blockDim.x": "k = 0; k < N && t == 0; k++"},
        "8",
    ),
    "atomics": (
        "11.3",
        {
            "part[t] = mine;": "if (t == 0) part[0] = 0;",
            "    for (int half = 64": "    atomicAdd(&part[0], mine);\n    __syncthreads();\n"
            "    for (int half = 0",
        },
        "1.01",
    ),
    "no tiles": (
        "11.5",
        {
            "k0 += SIDE) {": "k0++)",
            "        A_tile[y][x] = row < M && k0 + x < K ? A[row * K + k0 + x] : 0;\n": "",
            "        B_tile[y][x] = k0 + y < K && column < N ? B[(k0 + y) * N + column] : 0;\n": "",
            "        for (int j = 0; j < SIDE; j++) sum += A_tile[y][j] * B_tile[j][x];\n"
            "        __syncthreads();\n    }\n": "",
            "        __syncthreads();\n": "        if (row < M && column < N)\n"
            "            sum += A[row * K + k0] * B[k0 * N + column];\n",
        },
        "20.1",
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_right_kernel_that_misses_the_goal(name, capsys):
    number, changes, score = SHORT[name]
    source = solution(number)
    for old, new in changes.items():
        assert old in source
        source = source.replace(old, new)
    verdict = judge(find(number), source)
    assert verdict.state == "short"
    assert verdict.text.startswith(f"its score is {score}, ")
    cuda.cost(number, source)
    said = capsys.readouterr().out
    assert f"Score: {score} times" in said
    assert f"the goal is not met: {verdict.text}." in said
    assert "the goal is met" not in said


def test_atomics_are_counted_among_the_requests():
    source = solution("11.3")
    begin = source.index("    part[t] = mine")
    adds = "if (t == 0) out[row] = 0;\n__syncthreads();\natomicAdd(&out[row], mine);\n}\n"
    verdict = judge(find("11.3"), source[:begin] + adds)
    assert verdict.state == "short"
    assert "it makes 1,024 requests of shared memory and atomic additions, one" in verdict.text


FIRST = "    for (int other = 0; other < b; other++)\n        if (x[other] == x[b]) return;\n"
ALONE = f"""    {STRIDED}
        for (int o = 0; o < n; o++) G[x[o] * H + k] += d[o * H + k];
}}
"""


def test_one_block_is_not_to_do_the_work_of_all(capsys):
    exercise, source = find("11.6"), solution("11.6")
    begin = source.index(FIRST)
    for idle, b in (("b > 0", 0), ("b < n - 1", 12)):
        alone = f"{source[:begin]}    if ({idle}) return;\n{ALONE}"
        verdict = judge(exercise, alone)
        assert verdict.state == "short"
        assert verdict.text == (
            f"block {b} does all the work. Each item has a block of its own, that of its first row"
        )
        cuda.cost("11.6", alone)
        assert f"the goal is not met: {verdict.text}." in capsys.readouterr().out
    # The block of the last row with an item is as good.
    last = source.replace("int other = 0; other < b", "int other = b + 1; other < n")
    last = last.replace("int other = b; other < n", "int other = 0; other <= b")
    assert judge(exercise, last).state == "right"


def test_another_order_of_halves_is_right():
    source = solution("11.3").replace(
        "for (int half = 64; half > 0; half /= 2)", "for (int half = 1; half < 128; half *= 2)"
    )
    source = source.replace("if (t < half)", "if (t % (2 * half) == 0)")
    assert judge(find("11.3"), source).state == "right"


def test_without_a_compiler_it_is_said_what_to_install(monkeypatch):
    source = solution("11.1").replace("rate * g", "rate*g")  # compiled by no other test
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"this notebook .*apt install g"):
        cuda.require_compiler()
    assert "this notebook compiles its kernels" in judge(find("11.1"), source).text


@pytest.mark.parametrize("number", NUMBERS)
def test_an_answer_that_is_no_text(number):
    assert "kernel's text" in judge(find(number), find(number).right).text
