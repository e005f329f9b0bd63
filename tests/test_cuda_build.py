"""The CUDA kernels as compilers for GPUs see them, and what a step of them costs; without a GPU."""

import functools
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_compilers import FILES, REALS, BuildError, Nvcc, Nvrtc, build
from test_steps import run_steps

from conftest import EXPLORES
from gru4rec_np import GRU4Rec, Shop
from gru4rec_np.backends.cuda import operations as cuda

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

needs_emulator = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def compiler(name):
    """It, or the test is skipped."""
    kind = {"nvcc": Nvcc, "NVRTC": Nvrtc}[name]
    if not kind.here():
        pytest.skip(f"there is no {name}")
    return kind()


@pytest.mark.parametrize("name", ["nvcc", "NVRTC"])
def test_every_kernel_compiles_and_spills_nothing(name):
    """Without a warning, for float and double."""
    nvcc = compiler(name)
    lowest = next(a for a in ("sm_70", "sm_75", "sm_80") if a in nvcc.architectures)
    every = tuple(dict.fromkeys((lowest, "sm_80", "sm_90")))
    # Double serves checks, float users: `make explore` compiles double for all of them, too.
    architectures = {"float": every, "double": every if EXPLORES else every[:1]}
    found = build(nvcc, architectures)
    listed = {kernel for path in FILES for kernel in kernels_of(path)}
    assert {(kernel, a, real) for _, real, kernel, a in found} == {
        (kernel, a, real) for kernel in listed for real in REALS for a in architectures[real]
    }
    assert not {key: usage for key, usage in found.items() if usage.spilled}
    # A block has 65,536 registers, given out in portions of 8 a thread; else it is not launched.
    blocks = largest_blocks()
    wanted = {
        key: blocks[key[:3]] * -(-usage.registers // 8) * 8
        for key, usage in found.items()
        if key[:3] in blocks
    }
    assert len(wanted) > 20 and not {key: n for key, n in wanted.items() if n > 65_536}


def kernels_of(path):
    marked = re.compile(r'^extern "C" __global__ void (?:__launch_bounds__\(.*?\) )?(\w+)\(', re.M)
    return marked.findall(path.read_text(encoding="utf-8"))


@functools.cache
def largest_blocks():
    """(file, real, kernel) to the most threads of a block that a step launches it with."""
    most = {}

    def compile(path, options):
        def get_function(name):
            def launch(grid, block, args, shared_mem):  # takes attributes too, as CuPy's does
                key = path.name, options[0].removeprefix("-Dreal="), name
                most[key] = max(most.get(key, 0), int(np.prod(block)))

            return launch

        return SimpleNamespace(get_function=get_function)

    ops = cuda.CudaOps("cuda", "", np, compile, lambda launch: launch)
    log = Shop(n_items=40).simulate(40).compact()
    for more in ({"input": "onehot"}, {"reset_after": False}, {"input": "embedding"}):
        for dtype in (np.float32, np.float64):
            hp = GRU4Rec.published(
                layers=[1500], n_sample=900, batch_size=9, backend="numpy", **more
            )
            run_steps(hp, log, functools.partial(ops.stepper, hp), dtype, 500)
    return most


@pytest.mark.parametrize("name", ["nvcc", "NVRTC"])
def test_a_warning_is_an_error(name, tmp_path):
    file = tmp_path / "warns.cu"
    for body in ("int unused = 3;", "*x = 1"):
        file.write_text(f'extern "C" __global__ void f(real *x) {{ {body} }}')
        with pytest.raises(BuildError, match=r"unused|expected"):
            compiler(name).compile(file, "float", ("sm_80",))


@needs_emulator
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("input", ["onehot", "embedding", "shared"])
def test_a_step_is_at_most_12_launches(input, reset_after):
    """And one more for each chunk of steps, which finds their distinct items."""
    ops = cuda.emulated("asked for")
    hp = GRU4Rec.published(
        input=input, reset_after=reset_after, layers=[5], batch_size=4, n_sample=9, momentum=0.1,
        dropout_p_embed=0.1, dropout_p_hidden=0.1, logq=1, backend="numpy",
    )  # fmt: skip
    log = Shop(n_items=20).simulate(40).compact()
    losses = run_steps(hp, log, lambda W, m, s: ops.stepper(hp, W, m, s), np.float32, 8)[1]
    assert len(losses) > 8
    chunks = -(-len(losses) // 8)
    assert ops.launches - chunks <= 12 * len(losses)


@needs_emulator
@pytest.mark.parametrize("setting", ["A", "B"])
def test_a_step_moves_what_must_move(setting):
    pytest.importorskip("torch")
    import cuda_step

    log = Shop(n_items=300).simulate(400).compact()
    reports, hp, W, counts = cuda_step.profile(setting, log)
    assert reports[0].kernel == "collect" and len(reports) <= 1 + 12
    least = cuda_step.traffic(reports).ideal * cuda_step.SECTOR
    assert least >= cuda_step.must_move(hp, W, counts)


def test_what_must_move_by_hand():
    pytest.importorskip("torch")
    import cuda_step

    hp = GRU4Rec.published(layers=[3], input="shared", batch_size=2, n_sample=4, loss="bpr-max",
                 momentum=0.1, backend="numpy")  # fmt: skip
    W = {"V_y": np.zeros((10, 3)), "b_y": np.zeros(10), "U0": np.zeros((3, 9))}
    n = cuda_step.Counter(used=6, scored=5, fed=2)
    # A weight, its sum and its velocity, in and out: 6 rows, 5 biases, U0. The items: 2 + 2 + 4.
    assert cuda_step.must_move(hp, W, n) == 4 * (3 * 2 * (6 * 3 + 5 + 27) + 8)
