"""The CUDA kernels: every rung equals NumPy, passes all checks, and needs each of its barriers.

On the emulator and, where there is one, on a GPU too, with compute-sanitizer's checks.
"""

import fnmatch
import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import close, ops_of
from test_steps import run_steps

from conftest import examples
from gru4rec_np import GRU4Rec, InputError, Shop, backends
from gru4rec_np.backends import emulator
from gru4rec_np.backends.cuda import operations as cuda
from gru4rec_np.backends.cuda.device import Size, compiler_options, n_blocks, n_cut_parts
from gru4rec_np.data.batches import draw_negatives, guide_table, negative_distribution
from gru4rec_np.files import KERNELS
from gru4rec_np.ops import cells, losses, optim, ranking, scoring
from gru4rec_np.ops.activations import ACTIVATIONS
from gru4rec_np.ops.losses import LOSSES

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from cuda_ladder import (
    cross_entropy_rung,
    cut_plain,
    encode_plain,
    gru_backward_plain,
    gru_rung,
    rank_rung,
    scores_backward_h_plain,
    scores_rung,
    update_plain,
)

FILES = sorted(path.stem for path in KERNELS.glob("*.cu"))
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
on_devices = pytest.mark.parametrize("device", ["cuda-emulated", "cuda"])
dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32)


# --- equal to the mathematics ---------------------------------------------------------------------


@on_devices
@pytest.mark.parametrize("version", ["plain", "coalesced", "tiled"])
@examples(40)
@given(B=st.integers(1, 35), H=st.integers(1, 70), dtype=dtypes, seed=seeds)
def test_rungs_of_the_recurrent_step(device, version, B, H, dtype, seed):
    rng = np.random.default_rng(seed)
    args = [rng.normal(size=s).astype(dtype) for s in [(B, 3 * H), (B, H), (H, 3 * H), 3 * H]]
    act = ACTIVATIONS[seed % len(ACTIVATIONS)], 0.5
    wanted, cache = cells.gru(*args, act)
    close(gru_rung(ops_of(device), version, *args, act), wanted, H)
    dh_new = rng.normal(size=(B, H)).astype(dtype)
    got = gru_backward_plain(ops_of(device), dh_new, cache, args[2], act)
    for a, b in zip(got, cells.gru_backward(dh_new, cache, args[2], act), strict=False):
        close(a, b, H)


@on_devices
@pytest.mark.parametrize("version", ["plain", "coalesced", "tiled", "last"])
@examples(40)
@given(B=st.integers(1, 35), H=st.integers(1, 140), N=st.integers(1, 150), dtype=dtypes, seed=seeds)
def test_rungs_of_the_scores(device, version, B, H, N, dtype, seed):
    rng = np.random.default_rng(seed)
    h, V_y, b_y = (rng.normal(size=s).astype(dtype) for s in [(B, H), (50, H), 50])
    items = rng.integers(0, 50, N)
    wanted, V = scoring.scores(h, V_y, b_y, items)
    ops = ops_of(device)
    if version == "last":
        got, dh = ops.scores(h, V_y, b_y, items)[0], ops.scores_backward(wanted, h, V)[0]
    else:
        got = scores_rung(ops, version, h, V_y, b_y, items)
        dh = scores_backward_h_plain(ops, wanted, V)
    close(got, wanted, H)
    close(dh, wanted @ V, H * N)


@on_devices
@pytest.mark.parametrize("N", [1, 33, 3000])
def test_many_scored_columns(device, N):
    rng = np.random.default_rng(N)
    h, V_y, b_y = (rng.normal(size=s).astype(np.float32) for s in [(9, 20), (500, 20), 500])
    items = rng.integers(0, 500, N)
    wanted, V = scoring.scores(h, V_y, b_y, items)
    close(ops_of(device).scores(h, V_y, b_y, items)[0], wanted, 20)
    got = ops_of(device).scores_backward(wanted, h, V)
    for a, b in zip(got, scoring.scores_backward(wanted, h, V), strict=True):
        close(a, b, N)


@on_devices
@pytest.mark.parametrize("version", ["plain", "tree", "online"])
@examples(40)
@given(B=st.integers(1, 35), more=st.integers(1, 300), dtype=dtypes, seed=seeds)
def test_rungs_of_cross_entropy(device, version, B, more, dtype, seed):
    r = 3 * np.random.default_rng(seed).normal(size=(B, B + more)).astype(dtype)
    wanted = losses.loss_and_gradient(r, "cross-entropy")
    for a, b in zip(cross_entropy_rung(ops_of(device), version, r), wanted, strict=True):
        close(a, b, B + more)


@on_devices
@examples(40)
@given(B=st.integers(1, 35), N=st.integers(1, 70), H=st.integers(1, 40), dtype=dtypes, seed=seeds)
def test_first_rung_of_cut_cross_entropy(device, B, N, H, dtype, seed):
    rng = np.random.default_rng(seed)
    h, V, b = (rng.normal(size=s).astype(dtype) for s in [(B, H), (N, H), N])
    args = h / dtype(np.sqrt(H)), V, b, rng.integers(0, N, B)
    wanted = losses.cut_cross_entropy(*args)
    for a, same in zip(cut_plain(ops_of(device), *args), wanted, strict=True):
        close(a, same, max(B, N))


@on_devices
def test_parts_of_more_than_a_tile(device, monkeypatch):
    """Few parts, each of several rounds, the last one shorter."""
    rng = np.random.default_rng(0)
    h, V, b = (rng.normal(size=s).astype(np.float32) for s in [(70, 40), (900, 40), 900])
    args = h / np.float32(6), V, b, rng.integers(0, 900, 70)
    monkeypatch.setattr("gru4rec_np.backends.cuda.device.CUT_BLOCKS", 12)
    assert n_cut_parts(70, 900) == 4
    wanted = losses.cut_cross_entropy(*args)
    for a, same in zip(ops_of(device).cut_cross_entropy(*args), wanted, strict=True):
        close(a, same, 900)


@given(lanes=st.integers(1, 10**4), columns=st.integers(1, 10**6))
def test_no_part_is_empty(lanes, columns):
    """As items_of_part of cut.cu cuts them."""
    parts = n_cut_parts(lanes, columns)
    each = Size.CUT_SIDE * n_blocks(n_blocks(columns, Size.CUT_SIDE), parts)
    assert (parts - 1) * each < columns <= parts * each


@on_devices
@examples(40)
@given(
    rows=st.integers(1, 70), width=st.integers(1, 40),
    adapt=st.sampled_from(backends.OWN_OPTIMISERS), momentum=st.sampled_from([0.0, 0.3]),
    dtype=dtypes, seed=seeds,
)  # fmt: skip
def test_first_rung_of_the_update(device, rows, width, adapt, momentum, dtype, seed):
    rng = np.random.default_rng(seed)
    p = rng.normal(size=(rows, width)).astype(dtype)
    pick = rng.permutation(rows)[: 1 + rows // 2]
    g = rng.normal(size=(len(pick), width)).astype(dtype)
    found = []
    for update in (optim.update, functools.partial(update_plain, ops_of(device))):
        q, state = p.copy(), optim.init_memory(p, adapt, momentum)
        for _ in range(2):
            update(q, g, state, adapt, 0.1, momentum, pick)
        found.append([q, *state.values()])
    for a, b in zip(*found[::-1], strict=True):
        close(a, b)


@on_devices
@examples(40)
@given(
    n=st.integers(0, 3000), items=st.integers(1, 300), alpha=st.sampled_from([0.0, 0.75]),
    left_over=st.booleans(), seed=seeds,
)  # fmt: skip
def test_draws_on_the_device(device, n, items, alpha, left_over, seed):
    """Bit for bit, and the generator goes on as if it had drawn them."""
    support = np.random.default_rng(seed).integers(1, 1000, items)
    distribution = negative_distribution(support, alpha)
    args, found = (distribution, (n,), guide_table(distribution)), []
    for draw in (ops_of(device).draw_negatives, draw_negatives):
        rng = np.random.default_rng(seed)
        if left_over:
            rng.integers(2**32)  # takes half of a number
        found.append((draw(rng, *args).tolist(), rng.integers(2**32, size=3).tolist()))
    assert found[0] == found[1]


@on_devices
@examples(40)
@given(B=st.integers(1, 35), X=st.integers(1, 40), H=st.integers(1, 40), dtype=dtypes, seed=seeds)
def test_first_rung_of_the_input(device, B, X, H, dtype, seed):
    rng = np.random.default_rng(seed)
    table, W_x = rng.normal(size=(9, X)).astype(dtype), rng.normal(size=(X, 3 * H)).astype(dtype)
    x = rng.integers(0, 9, B)
    close(encode_plain(ops_of(device), x, table, W_x), table[x] @ W_x, X)


@on_devices
@pytest.mark.parametrize("version", ["plain", "spread"])
@examples(40)
@given(n=st.integers(1, 40), items=st.integers(1, 150), H=st.integers(1, 40), seed=seeds)
def test_rungs_of_the_rank(device, version, n, items, H, seed):
    """Equal items tie and all versions agree, since each score is one sum in one order."""
    rng = np.random.default_rng(seed)
    h, V_y = (rng.normal(size=(size, H)).astype(np.float32) for size in (n, items))
    V_y[rng.integers(items)] = V_y[0]
    b_y, targets = np.zeros(items, np.float32), rng.integers(0, items, n)
    got = rank_rung(ops_of(device), version, h, V_y, b_y, targets, parts=3)
    assert (got == ops_of(device).rank_targets(h, V_y, b_y, targets)).all()
    assert (got == ranking.ranks(ops_of(device).catalogue_scores(h, V_y, b_y), targets)).all()


# --- constants and documents ----------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("missing", ["real", "NOW_LANES"])
def test_a_missing_constant_is_an_error_that_names_it(missing):
    options = [o for o in compiler_options("float32") if not o.startswith(f"-D{missing}=")]
    with pytest.raises(InputError, match=rf"error: .*\b{missing}\b"):
        emulator.Module(KERNELS / "step.cu", tuple(options))


def test_the_readme_has_every_kernel():
    names = re.findall(r"`(\w+\*?)`", (KERNELS / "README.md").read_text(encoding="utf-8"))
    for file in FILES:
        text = (KERNELS / f"{file}.cu").read_text(encoding="utf-8")
        for kernel in re.findall(r"__global__ void (?:__launch_bounds__\(.*?\) )?(\w+)\(", text):
            assert any(fnmatch.fnmatchcase(kernel, name) for name in names), kernel


# --- no fault, and no barrier too many ------------------------------------------------------------


def steps_of(ops, **settings):
    """A few training steps, of 33 lanes, so that the last tile and the last warp are not full."""
    settings = {"layers": [37], "batch_size": 33, "n_sample": 70, "learning_rate": 0.1} | settings
    hp = GRU4Rec.published(**settings, backend="numpy")
    log = Shop(n_items=40).simulate(40).compact()
    few = SimpleNamespace(n=0)

    def make(W, memory, log_support):
        run = ops.stepper(hp, W, memory, log_support)

        def run_two(batches, steps, samples, state, rng, rates):
            few.n += 1
            if few.n > 1:  # the first and the last steps, where few lanes are left
                return run(batches, steps[-2:], samples[-2:], state, rng)
            run(batches, steps[:2], samples[:2], state, rng)
            return run(batches, steps[-2:], samples[-2:], state, rng)

        return run_two

    return run_steps(hp, log, make, np.float32, 1000)


def exercise(ops, file):
    """Run every kernel of a .cu file, with several warps and with blocks that are not full."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    if file == "gru":
        args = draw(6, 210), draw(6, 70), draw(70, 210), draw(210)
        for version in ("plain", "coalesced", "tiled"):
            gru_rung(ops, version, *args)
        gru_backward_plain(ops, draw(6, 70), ops.gru(*args)[1], args[2])
        for cell, more in (("gru", ()), ("gru_reset_after", (draw(210),))):
            _, cache = getattr(ops, cell)(*args, *more)
            getattr(ops, f"{cell}_backward")(draw(6, 70), cache, args[2])
    elif file == "scores":
        h, V_y, b_y, items = draw(35, 70), draw(90, 70), draw(90), rng.integers(0, 90, 70)
        for version in ("plain", "coalesced", "tiled"):
            scores_rung(ops, version, h, V_y, b_y, items)
        y, V = ops.scores(h, V_y, b_y, items)
        scores_backward_h_plain(ops, y, V)
        ops.scores_backward(y, h, V)
        ops.scores_backward(draw(2, 1600), draw(2, 5), draw(1600, 5))  # parts of more than a tile
    elif file == "loss":
        for version in ("plain", "tree", "online"):
            cross_entropy_rung(ops, version, draw(3, 150))
        for loss in LOSSES:
            smoothing = 0.1 if loss == "cross-entropy" else 0.0
            ops.loss_and_gradient(draw(3, 150), loss, ("elu", 0.5), 1.0, smoothing)
    elif file == "cut":
        args = draw(70, 40), draw(150, 40), draw(150), rng.integers(0, 150, 70)
        cut_plain(ops, *args)
        ops.cut_cross_entropy(*args)
        ops.cut_cross_entropy(draw(3, 5), draw(9000, 5), draw(9000), args[3][:3])
    elif file == "update":
        p, rows = draw(70, 37), rng.permutation(70)[:40]
        state = optim.init_memory(p, "adagrad", 0.1)
        for update in (ops.update, functools.partial(update_plain, ops)):
            update(p, draw(40, 37), state, "adagrad", 0.1, 0.1, rows)
        steps_of(ops)
        steps_of(ops, skip=True, fade=0.6, momentum=0.1, dropout_p_embed=0.2)
        steps_of(ops, layers=[260], batch_size=3, n_sample=5, input="onehot")
        steps_of(ops, input="onehot", layers=[130])
    elif file == "cosine":
        steps_of(ops, cosine=9.0, skip=True, momentum=0.1, dropout_p_embed=0.2)
        steps_of(ops, cosine=9.0, layers=[260], batch_size=3, n_sample=5, input="onehot")
    elif file == "draw":
        distribution = np.cumsum(np.ones(90)) / 90
        guide = guide_table(distribution)
        ops.draw_negatives(np.random.default_rng(0), distribution, (3, 900), guide)
    elif file == "rank":
        h, V_y, b_y, targets = draw(35, 37), draw(90, 37), draw(90), rng.integers(0, 90, 35)
        for version in ("plain", "spread"):
            rank_rung(ops, version, h, V_y, b_y, targets)
        ops.rank_targets(h, V_y, b_y, targets)
        ops.catalogue_scores(h[:3], V_y, b_y)
        ops.rank_targets(h[:3], draw(3000, 37), draw(3000), targets[:3])
    else:
        encode_plain(ops, rng.integers(0, 9, 6), draw(9, 37), draw(37, 111))
        steps_of(ops, input="onehot", loss="bpr-max", n_sample=1100, dropout_p_embed=0.2)
        steps_of(ops, input="embedding", embedding=20, layers=[50], dropout_p_hidden=0.2)
        steps_of(ops, input="embedding", skip=True, fade=0.6, dropout_p_embed=0.2)
        steps_of(ops, smoothing=0.1, logq=1.0, momentum=0.1, n_sample=1100)


@needs_compiler
@pytest.mark.parametrize("file", FILES)
def test_kernels_are_clean(file):
    """No race, nothing out of bounds, uninitialised or misaligned, in several orders of threads."""
    exercise(cuda.emulated("asked for", checks=True), file)


def one_file(path):
    """The text of a .cu file with what it includes."""
    included = re.compile(r'^#include "(.*)"', re.M)
    return included.sub(lambda found: one_file(path.parent / found[1]), path.read_text())


def barriers():
    """(file, the number of the barrier in it). Those of headers come once, with a file that uses
    them."""
    found = re.compile(r"^(?!\s*//).*__sync(?:threads|warp)\(\)", re.M)

    def count(name):
        return len(found.findall(one_file(KERNELS / name)))

    common, tile = count("common.cuh"), count("tile.cuh")
    first = {"loss": 0, "gru": common, "encode": tile}
    for file in FILES:
        for number in range(first.get(file, common), count(f"{file}.cu")):
            yield file, number


@needs_compiler
@pytest.mark.parametrize(("file", "number"), list(barriers()))
def test_a_barrier_less_is_a_fault(file, number):
    """Every barrier is needed: without it a check finds a race or its consequence."""
    path = KERNELS / f"{file}.cu"
    variants = emulator.without_barriers(one_file(path))
    line, source = variants[number]

    def compile(wanted, options):
        source_of = source if wanted == path else None
        return emulator.Module(wanted, options, checks=True, source=source_of)

    ops = cuda.CudaOps("cuda-emulated", "", np, compile, lambda launch: launch)
    with pytest.raises(emulator.Fault):
        exercise(ops, file)
        pytest.fail(f"{file}.cu runs clean without the barrier of line {line}: "
                    f"{one_file(path).splitlines()[line - 1].strip()}")  # fmt: skip


# --- the same on a GPU ----------------------------------------------------------------------------

# Each array is its own allocation here, so that memcheck sees accesses past its ends.
ON_A_GPU = """
import cupy
from test_cuda import FILES, exercise
from gru4rec_np.backends.cuda import operations as cuda
from gru4rec_np.files import KERNELS

cupy.cuda.set_allocator(None)
for file in FILES:
    exercise(cuda.on_gpu("asked for"), file)
"""
# The same for a kernel without a barrier.
WITHOUT_A_BARRIER = """
import cupy
from test_cuda import exercise, one_file
from gru4rec_np.backends import emulator
from gru4rec_np.backends.cuda import operations as cuda
from gru4rec_np.files import KERNELS

*_, (_, source) = emulator.without_barriers(one_file(KERNELS / "scores.cu"))
gpu = cuda.on_gpu("asked for")
gpu._compile = lambda path, options: cupy.RawModule(code=source, options=(*options, "-std=c++17"))
exercise(gpu, "scores")
"""


def sanitize(tool, code):
    """compute-sanitizer's return code, not 0 if it found something, and its output."""
    ops_of("cuda")
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("there is no compute-sanitizer")
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    run = subprocess.run([*command, sys.executable, "-c", code], cwd=Path(__file__).parent,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    return run.returncode, run.stdout


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_kernels_are_clean_on_a_gpu(tool):
    code, printed = sanitize(tool, ON_A_GPU)
    assert code == 0, printed[-3000:]


def test_a_barrier_less_is_a_fault_on_a_gpu():
    code, printed = sanitize("racecheck", WITHOUT_A_BARRIER)
    assert code == 9 and "hazard" in printed, printed[-3000:]


# --- the backend ----------------------------------------------------------------------------------


@needs_compiler
def test_masks_are_those_of_numba():
    """Both backends hash the same counters, so they train alike with dropout too."""
    pytest.importorskip("numba")
    log = Shop(n_items=40).simulate(60)
    settings = {"layers": [10], "batch_size": 8, "n_sample": 20, "n_epochs": 2,
                "dropout_p_embed": 0.3, "dropout_p_hidden": 0.2}  # fmt: skip
    a, b = (
        GRU4Rec.published(**settings, backend=name).fit(log) for name in ("numba", "cuda-emulated")
    )
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-4)


@needs_compiler
def test_a_captured_step_is_replayed():
    """As on a GPU: the launches of a step and of a group are captured once, and replayed."""
    captured = []

    def capture(launch):
        captured.append(launch)
        return launch

    ops = cuda.CudaOps("cuda", "", np, ops_of("cuda-emulated")._compile, capture)
    hp = GRU4Rec.published(layers=[5], batch_size=4, n_sample=9, backend="numpy")
    log = Shop(n_items=20).simulate(20).compact()
    run_steps(hp, log, functools.partial(ops.stepper, hp), np.float32, 8)
    assert [launch.__name__ for launch in captured] == ["launch_step", "launch_group"]


def test_a_layer_too_wide_for_a_block():
    class Kernel:
        @property
        def max_dynamic_shared_size_bytes(self):
            return 0

        @max_dynamic_shared_size_bytes.setter
        def max_dynamic_shared_size_bytes(self, size):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE")

    module = SimpleNamespace(get_function=lambda name: Kernel())
    ops = cuda.CudaOps("cuda", "", np, lambda *what: module, lambda launch: launch)
    x = np.ones((1, 15_000), np.float32)
    with pytest.raises(InputError, match=r"^backend: cuda has too little .*160,000 bytes.*numba$"):
        ops.gru(x, x[:, :5_000], np.ones((5_000, 1), np.float32), x[0])


def test_without_cupy_gpu_or_compiler(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(InputError, match=r"^backend: cuda needs CuPy.*pip install"):
        backends.load("cuda")
    no_gpu = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(
        getDeviceCount=lambda: 0)))  # fmt: skip
    monkeypatch.setitem(__import__("sys").modules, "cupy", no_gpu)
    with pytest.raises(InputError, match=r"no usable GPU \(no device\); cuda-emulated runs"):
        backends.load("cuda")
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    assert backends.load().name == "numba"
    assert "CuPy found no usable GPU (no device)" in backends.load().why
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"^backend: cuda-emulated needs g\+\+: install"):
        backends.load("cuda-emulated")
