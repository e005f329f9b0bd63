"""The CUDA emulator: what kernels compute, which faults it finds, what memory traffic it counts.

tests/faults/ holds a kernel for each fault. Its first line has the kind and the launch. Lines that
the report must name are marked FAULT, once for each time. With MENDED defined it has no fault.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gru4rec_np.backends.emulator import Fault, Module, build, without_barriers
from gru4rec_np.errors import InputError

FAULTS = sorted((Path(__file__).parent / "faults").glob("*.cu"))
KINDS = {
    "race", "race between blocks", "out of bounds", "misaligned", "uninitialised", "const",
    "barrier", "warp", "deadlock", "order",
}  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def compiled(source, name="kernel", **more):
    """The kernel of a source given as text."""
    return Module(Path("test.cu"), source=source, **more).get_function(name)


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(7).random(shape).astype(dtype)


@pytest.mark.parametrize("checks", [False, True], ids=["plain", "checks"])
@pytest.mark.parametrize(
    "loop",
    [
        "for (int half = 4; half >= 0; half /= 2) {\n __syncthreads(); // HERE\n }",
        "for (int k = 0; k < n;) // HERE\n out[0] += x[k]; // HERE",
        "volatile int k = 0;\n while (k < n) // HERE\n k = 0; // HERE",
        "volatile float y[4] = {};\n for (int k = 0; k < n;) // HERE\n y[n % 4] += 1; // HERE",
        "volatile float y;\n for (int k = 0; k < n;) y = __shfl_sync(0xffffffff, x[k], 0); // HERE",
    ],
    ids=["barrier", "memory", "neither", "locals", "shuffle"],
)
def test_a_kernel_that_never_ends_is_stopped(loop, checks):
    source = 'extern "C" __global__ void kernel(const float *x, int n, volatile float *out) {\n'
    source += f"{loop}\n}}\n"
    x, out = np.ones(8, np.float32), np.zeros(1, np.float32)
    endless = compiled(source, checks=checks, seconds=0.1)
    began = time.process_time()
    with pytest.raises(Fault, match=r"endless: thread .* is at test.cu.* after 0.1 s") as fault:
        endless((1,), (32,), (x, np.int32(8), out))
    assert time.process_time() - began < 5
    lines = [i + 1 for i, text in enumerate(source.splitlines()) if "HERE" in text]
    assert fault.value.kind == "endless"
    assert fault.value.lines[0][1] in lines
    if "k < n" in loop:  # the next launch has as much time again
        endless((1,), (32,), (x, np.int32(0), out))


def test_a_limit_is_no_alarm():
    doubled = compiled(
        'extern "C" __global__ void kernel(float *x) { x[threadIdx.x] *= 2; }', seconds=0.5
    )
    x = numbers(32)
    expected = 2 * x
    doubled((1,), (32,), (x,))
    sum(range(30_000_000))  # more than its seconds, but after it
    assert np.array_equal(x, expected)


# --- what kernels compute -------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("checks", [False, True], ids=["plain", "checks"])
REALS = pytest.mark.parametrize("dtype", [np.float32, np.float64])
REAL = {np.float32: "-Dreal=float", np.float64: "-Dreal=double"}


@BOTH
def test_threads_and_blocks_of_three_dimensions(checks):
    kernel = compiled(
        """
        extern "C" __global__ void kernel(int *out) {
            int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
            int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
            int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
            out[4 * i] = i;
            out[4 * i + 1] = threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z;
            out[4 * i + 2] = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z;
            out[4 * i + 3] = __shfl_sync(0xffffffff, thread, 0);
        }
        """,
        checks=checks,
    )
    grid, block = (2, 3, 2), (5, 4, 3)
    out = np.full((12 * 60, 4), -1, np.int32)
    kernel(grid, block, (out,))
    thread, b = np.arange(12 * 60) % 60, np.arange(12 * 60) // 60
    assert np.array_equal(out[:, 0], np.arange(12 * 60))
    assert np.array_equal(out[:, 1], thread % 5 + 10 * (thread // 5 % 4) + 100 * (thread // 20))
    assert np.array_equal(out[:, 2], b % 2 + 10 * (b // 2 % 3) + 100 * (b // 6))
    assert np.array_equal(out[:, 3], thread // 32 * 32)  # warps count along x, then y, then z


@BOTH
@pytest.mark.parametrize("type", ["int", "unsigned", "float", "double", "long long"])
def test_shuffles(type, checks):
    kernel = compiled(
        """
        extern "C" __global__ void kernel(const T *x, T *out, int width) {
            int i = threadIdx.x, n = blockDim.x;
            out[i] = __shfl_sync(0xffffffff, x[i], i * 7, width);
            out[n + i] = __shfl_up_sync(0xffffffff, x[i], 3, width);
            out[2 * n + i] = __shfl_down_sync(0xffffffff, x[i], 5, width);
            out[3 * n + i] = __shfl_xor_sync(0xffffffff, x[i], 1, width);
        }
        """,
        options=(f"-DT={type}",),
        checks=checks,
    )
    names = {"int": "int32", "unsigned": "uint32", "float": "float32", "double": "float64"}
    x = (numbers(64) * 1000).astype(names.get(type, "int64"))
    thread = np.arange(64)
    for width in (32, 16, 8):
        out = np.zeros((4, 64), x.dtype)
        kernel((1,), (64,), (x, out, np.int32(width)))
        first = thread // width * width
        assert np.array_equal(out[0], x[first + thread * 7 % width])
        assert np.array_equal(out[1], x[np.where(thread - 3 < first, thread, thread - 3)])
        assert np.array_equal(out[2], x[np.where(thread + 5 >= first + width, thread, thread + 5)])
        assert np.array_equal(out[3], x[thread ^ 1])


@BOTH
def test_votes_of_a_warp_and_of_a_block(checks):
    kernel = compiled(
        """
        extern "C" __global__ void kernel(const int *x, unsigned *out) {
            int i = threadIdx.x, n = blockDim.x;
            unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
            out[i] = __ballot_sync(half, x[i]);
            out[n + i] = __any_sync(half, x[i]);
            out[2 * n + i] = __all_sync(half, x[i]);
            out[3 * n + i] = __syncthreads_count(x[i]);
            out[4 * n + i] = __syncthreads_or(x[i]);
            out[5 * n + i] = __syncthreads_and(x[i]);
            out[6 * n + i] = __popc(out[i]) + 100 * __ffs(out[i]) + 10000 * __clz(out[i]);
        }
        """,
        checks=checks,
    )
    for x in (numbers(96) > 0.5, np.ones(96), np.zeros(96)):
        x = x.astype(np.int32)
        out = np.zeros((7, 96), np.uint32)
        kernel((1,), (96,), (x, out))
        halves = x.reshape(6, 16)
        shift = np.where(np.arange(6) % 2, 16, 0)
        ballot = (halves << (np.arange(16) + shift[:, None])).sum(1)
        expected = np.repeat([ballot, halves.any(1), halves.all(1)], 16, axis=1)
        assert np.array_equal(out[:3], expected)
        assert (out[3] == x.sum()).all()
        assert (out[4] == x.any()).all()
        assert (out[5] == x.all()).all()
        bits = [f"{b:032b}" for b in out[0]]
        ffs = [b[::-1].find("1") + 1 for b in bits]
        clz = [b.find("1") if "1" in b else 32 for b in bits]
        popc = [b.count("1") for b in bits]
        assert np.array_equal(out[6], np.array([popc, ffs, clz]).T @ [1, 100, 10000])


@BOTH
@pytest.mark.parametrize(
    ("type", "dtype"),
    [("int", np.int32), ("unsigned", np.uint32), ("unsigned long long", np.uint64)],
)
def test_atomics_on_global_and_shared_memory(type, dtype, checks):
    kernel = compiled(
        """
        extern "C" __global__ void kernel(const T *x, T *out, float *f, double *d, unsigned *u) {
            __shared__ T sum;
            if (threadIdx.x == 0) sum = 0;
            __syncthreads();
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            atomicAdd(out, x[i]);
            atomicMin(out + 1, x[i]);
            atomicMax(out + 2, x[i]);
            atomicOr(out + 3, x[i]);
            atomicAnd(out + 4, x[i]);
            atomicXor(out + 5, x[i]);
            atomicExch(out + 6, (T)5);
            for (T old = 0, seen; ; old = seen) {  // add 1 by compare and swap
                seen = atomicCAS(out + 7, old, old + 1);
                if (seen == old) break;
            }
            atomicAdd(&sum, x[i]);
            atomicAdd(f, 1.5f);
            atomicAdd(d, 2.5);
            atomicInc(u, 10);
            atomicDec(u + 1, 10);
            __syncthreads();
            if (threadIdx.x == 0) atomicAdd(out + 8, sum);
        }
        """,
        options=(f"-DT={type}",),
        checks=checks,
    )
    x = (numbers(128) * 1e6).astype(dtype)
    out = np.zeros(9, dtype)
    out[1] = np.iinfo(dtype).max
    out[4] = -1 if dtype is np.int32 else np.iinfo(dtype).max
    f, d, u = np.zeros(1, np.float32), np.zeros(1), np.zeros(2, np.uint32)
    kernel((2,), (64,), (x, out, f, d, u))
    total = x.sum(dtype=dtype)
    bits = [np.bitwise_or, np.bitwise_and, np.bitwise_xor]
    expected = [total, x.min(), x.max(), *(b.reduce(x) for b in bits), 5, 128, total]
    assert out.tolist() == [int(v) for v in expected]
    assert (f[0], d[0]) == (192, 320)
    # atomicInc counts 0, 1, ..., 10, 0, 1; atomicDec 0, 10, 9, ...: 11 values each.
    assert u.tolist() == [128 % 11, (-128) % 11]


@BOTH
@REALS
def test_a_block_sums_and_multiplies(dtype, checks):
    module = Module(
        Path("test.cu"),
        (REAL[dtype],),
        checks,
        """
        constexpr int TILE = 8;
        template <class R> __device__ R block_sum(R v) {
            __shared__ R part[32];
            for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(0xffffffff, v, d);
            if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
            __syncthreads();
            v = 0;
            for (int w = 0; w < blockDim.x / 32; w++) v += part[w];
            return v;
        }
        extern "C" __global__ void __launch_bounds__(128)
        sum(const real *__restrict__ x, real *y, int n) {
            real v = 0;
            for (int i = threadIdx.x; i < n; i += blockDim.x) v += __ldg(x + i);
            v = block_sum(v);
            if (threadIdx.x == 0) *y = v;
        }
        extern "C" __global__ void product(const real *A, const real *B, real *C, int m, int n,
                                           int k) {
            __shared__ real a[TILE][TILE + 1], b[TILE][TILE];
            int tx = threadIdx.x, ty = threadIdx.y;
            int row = blockIdx.y * TILE + ty, column = blockIdx.x * TILE + tx;
            real s = 0;
            for (int p = 0; p < k; p += TILE) {
                a[ty][tx] = row < m && p + tx < k ? A[row * k + p + tx] : 0;
                b[ty][tx] = column < n && p + ty < k ? B[(p + ty) * n + column] : 0;
                __syncthreads();
                #pragma unroll
                for (int q = 0; q < TILE; q++) s += a[ty][q] * b[q][tx];
                __syncthreads();
            }
            if (row < m && column < n) C[row * n + column] = s;
        }
        extern "C" __global__ void reversed(const real *x, real *y) {
            extern __shared__ unsigned char memory[];
            real *values = reinterpret_cast<real *>(memory);
            int *places = reinterpret_cast<int *>(values + blockDim.x);
            values[threadIdx.x] = x[threadIdx.x];
            places[threadIdx.x] = blockDim.x - 1 - threadIdx.x;
            __syncthreads();
            y[threadIdx.x] = values[places[threadIdx.x]];
        }
        """,
    )
    x, y = numbers(1001, dtype=dtype), np.zeros(1, dtype)
    module.get_function("sum")((1,), (128,), (x, y, np.int32(1001)))
    assert np.isclose(y[0], x.sum(), rtol=1e-5 if dtype is np.float32 else 1e-13)
    for m, n, k in ((1, 1, 1), (17, 9, 23), (8, 16, 8)):
        A, B, C = numbers(m, k, dtype=dtype), numbers(k, n, dtype=dtype), np.zeros((m, n), dtype)
        sizes = [np.int32(size) for size in (m, n, k)]
        module.get_function("product")((-(-n // 8), -(-m // 8)), (8, 8), (A, B, C, *sizes))
        assert np.allclose(C, A @ B, rtol=1e-5 if dtype is np.float32 else 1e-13)
    x, y = numbers(77, dtype=dtype), np.zeros(77, dtype)
    size = 77 * (x.itemsize + 4)
    module.get_function("reversed")((1,), (77,), (x, y), shared_mem=size)
    assert np.array_equal(y, x[::-1])
    if checks:
        with pytest.raises(Fault, match="dynamic shared memory") as caught:
            module.get_function("reversed")((1,), (77,), (x, y), shared_mem=size - 1)
        assert caught.value.kind == "out of bounds"


@BOTH
def test_vectors_and_constants(checks):
    kernel = compiled(
        """
        __constant__ int weights[4] = {1, 10, 100, 1000};
        extern "C" __global__ void kernel(const float4 *x, float2 *y, int2 *z, double2 *w) {
            int i = threadIdx.x;
            float4 v = x[i];
            y[i] = make_float2(v.x + v.y, v.z + v.w);
            int4 k = make_int4(i, i + 1, i + 2, i + 3);
            k.y *= weights[1];
            k.z *= weights[2];
            z[i] = make_int2(k.x * weights[0] + k.y, k.z + k.w * weights[3]);
            w[i] = make_double2(v.x, v.w);
        }
        """,
        checks=checks,
    )
    x, y = numbers(32, 4), np.zeros((32, 2), np.float32)
    z, w = np.zeros((32, 2), np.int32), np.zeros((32, 2))
    kernel((1,), (32,), (x, y, z, w))
    i = np.arange(32)
    assert np.array_equal(y, x[:, ::2] + x[:, 1::2])
    assert np.array_equal(z, np.stack([i + 10 * (i + 1), 100 * (i + 2) + 1000 * (i + 3)], axis=1))
    assert np.array_equal(w, x[:, [0, 3]])


def test_mathematics():
    calls = {
        "__expf(a)": "exp(a)", "exp(a)": "exp(a)", "__logf(a)": "log(a)", "log1p(a)": "log1p(a)",
        "expm1(a)": "expm1(a)", "tanh(a)": "tanh(a)", "rsqrtf(a)": "1 / sqrt(a)",
        "sqrt(a)": "sqrt(a)", "__fdividef(a, b)": "a / b", "fminf(a, b)": "minimum(a, b)",
        "max(a, b)": "maximum(a, b)", "fma(a, b, a)": "a * b + a", "fabs(-a)": "a",
        "__int_as_float(__float_as_int(a) + 1)": "nextafter(a, float32(2))",
        "pow(a, b)": "a ** b", "pow(a, 2)": "a * a",
        "min(int(9 * a), 4)": "minimum((9 * a).astype(int), 4)",
        "max(3u, (unsigned)i)": "maximum(i, 3)", "__umulhi(1u << 31, 2 * i)": "i",
        "__saturatef(3 * a - 1)": "clip(3 * a - 1, 0, 1)",
        "__brev(1u << i) >> (31 - i)": "i * 0 + 1",
    }  # fmt: skip
    lines = "\n".join(f"out[{k} * n + i] = {call};" for k, call in enumerate(calls))
    kernel = compiled(
        """extern "C" __global__ void kernel(const float *x, float *out) {
            int i = threadIdx.x, n = blockDim.x;
            float a = x[i], b = x[n + i];
        """ + lines + "}"
    )  # fmt: skip
    x, out = numbers(2, 32) + np.float32(0.01), np.zeros((len(calls), 32), np.float32)
    kernel((1,), (32,), (x, out))
    names = {**vars(np), "a": x[0], "b": x[1], "i": np.arange(32)}
    for row, (call, expected) in zip(out, calls.items(), strict=True):
        assert np.allclose(row, eval(expected, names), rtol=1e-6), call


def test_many_blocks_of_many_threads_in_order():
    kernel = compiled(
        """
        extern "C" __global__ void kernel(int *next, int *out) {
            __syncthreads();
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            out[i] = atomicAdd(next, 1);
        }
        """
    )
    out = np.zeros(300 * 1024, np.int32)
    kernel((300,), (1024,), (np.zeros(1, np.int32), out))
    assert np.array_equal(out, np.arange(out.size))


def test_a_kernel_for_gdb_and_without_assembly(monkeypatch):
    source = """
        extern "C" __global__ void kernel(const float *x, float *y) {
            __shared__ float tile[64];
            tile[threadIdx.x] = __shfl_xor_sync(0xffffffff, x[threadIdx.x], 1);
            __syncthreads();
            y[threadIdx.x] = tile[63 - threadIdx.x];
        }
    """
    x = numbers(64)
    portable = (*build.COMMON, "-DEMU_UCONTEXT")
    for flags in (build.COMMON, portable):
        monkeypatch.setattr(build, "COMMON", flags)
        for more in ({}, {"debug": True}, {"checks": True}):
            y = np.zeros_like(x)
            compiled(source, **more)((1,), (64,), (x, y))
            assert np.array_equal(y, x[np.arange(64) ^ 1][::-1])


@pytest.mark.skipif(shutil.which("gdb") is None, reason="there is no gdb")
def test_gdb_stops_in_a_kernel_at_a_thread(tmp_path):
    (tmp_path / "twice.cu").write_text(
        """
extern "C" __global__ void twice(float *y) {
    float before = y[threadIdx.x];
    y[threadIdx.x] = 2 * before;
}
"""
    )
    script = tmp_path / "run.py"
    script.write_text(
        "import numpy as np\nfrom gru4rec_np.backends.emulator import Module\n"
        f"kernel = Module({str(tmp_path / 'twice.cu')!r}, debug=True).get_function('twice')\n"
        "kernel((1,), (64,), (np.arange(64, dtype=np.float32),))\n"
    )
    commands = [
        "set breakpoint pending on", "break twice.cu:4 if threadIdx.x == 40", "run",
        "print before", "backtrace 1",
    ]  # fmt: skip
    flags = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-batch", *flags, "--args", sys.executable, script],
        capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    if "not permitted" in done.stderr:
        pytest.skip("gdb may not trace processes here")
    assert "$1 = 40" in done.stdout, done.stdout + done.stderr
    assert re.search(r"twice \(y=0x\w+\) at .*twice\.cu:4", done.stdout)


# --- faults ---------------------------------------------------------------------------------------


def launch(path, options, checks=True, **more):
    kind, launch = re.match(r"// ([^:]+): (.+)\n", path.read_text()).groups()
    sizes = {"shared": 0} | {k: int(v) for k, v in (part.split() for part in launch.split(", "))}
    kernel = Module(path, options, checks, **more).get_function("kernel")
    x, y = numbers(128), np.zeros(128, np.float32)
    args = (x, y, np.int32(128))
    kernel((sizes["grid"],), (sizes["block"],), args, shared_mem=sizes["shared"])
    return kind, y


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_a_planted_fault_is_reported(path):
    text = path.read_text()
    kind = text[3 : text.index(":")]
    with pytest.raises(Fault) as caught:  # in one order of threads, except for that kind
        launch(path, (), orders=2 if kind == "order" else 1)
    marked = [
        (path.name, number)
        for number, line in enumerate(text.splitlines(), 1)
        for _ in range(line.count("FAULT"))
    ]
    assert caught.value.kind == kind, caught.value
    # A kernel may have more marked lines than one report names.
    assert set(caught.value.lines) <= set(marked)
    assert caught.value.lines or kind == "order"
    if kind.startswith("race"):
        assert sorted(caught.value.lines) == marked
    message = str(caught.value)
    assert message.startswith(f"kernel: {kind}: ") and "<" not in message
    if kind not in ("order", "deadlock"):
        assert re.search(r"thread \(\d+, 0, 0\) of block \(\d, 0, 0\)", message)


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_its_sound_twin_is_not(path):
    assert launch(path, ("-DMENDED",))[1].any() or path.stem in ("const_write", "order")


def test_every_kind_of_fault_is_planted():
    assert {path.read_text()[3:].partition(":")[0] for path in FAULTS} == KINDS


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.parametrize("mended", [(), ("-DMENDED",)], ids=["fault", "twin"])
def test_faults_are_cuda(mended, tmp_path):
    together = tmp_path / "all.cu"
    together.write_text(
        "".join(
            f'#define kernel {path.stem}\n#include "{path}"\n#undef kernel\n' for path in FAULTS
        )
    )
    command = ["nvcc", "-arch=sm_80", "-cubin", "-odir", tmp_path, *mended, together]
    done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


# --- checks: arrays, orders, barriers, stacks -----------------------------------------------------


def test_a_fault_leaves_the_arrays_as_they_were():
    kernel = compiled(
        """extern "C" __global__ void kernel(float *y, int n) {
            y[threadIdx.x] = 1;
            __syncthreads();
            if (threadIdx.x == 0) y[n] = 1;
        }""",
        checks=True,
    )
    y = np.zeros(32, np.float32)
    with pytest.raises(Fault, match="element 32 of argument 0 \\(y\\) \\(32 elements\\)"):
        kernel((1,), (32,), (y, np.int32(32)))
    assert not y.any()
    kernel((1,), (32,), (y, np.int32(31)))
    assert y.all()


def test_a_fault_in_an_intrinsic_is_that_of_its_caller():
    kernel = compiled(
        """extern "C" __global__ void kernel(const float *x, float *y) {
            y[threadIdx.x] = __ldg(&x[threadIdx.x]);
        }""",
        checks=True,
    )
    with pytest.raises(Fault, match=r"read at test\.cu:2 by thread") as caught:
        kernel((1,), (32,), (numbers(31), np.zeros(32, np.float32)))
    assert caught.value.lines == (("test.cu", 2),)


def test_arrays_that_share_memory():
    source = """
        extern "C" __global__ void kernel(const float *x, const float *z, float *y) {
            float sum = x[threadIdx.x] + z[threadIdx.x];
            y[threadIdx.x] = sum;
        }
    """
    for checks in (False, True):
        kernel = compiled(source, checks=checks)
        pool, z = numbers(96), numbers(48)
        expected = pool.copy()
        expected[:48] += z
        kernel((1,), (48,), (pool[:48], z, pool[:48]))  # in place
        assert np.array_equal(pool, expected)
        expected[48:] = expected[:48] + z
        kernel((1,), (48,), (pool[:48], z, pool[48:]))  # side by side
        assert np.array_equal(pool, expected)
    with pytest.raises(Fault, match=r"read at .* and write at|write at .* and read at") as caught:
        kernel((1,), (48,), (pool[1:49], z, pool[:48]))  # overlapping: neighbours race
    assert caught.value.kind == "race"
    with pytest.raises(Fault, match="element 48 of argument 0"):
        kernel((1,), (49,), (pool[:48], numbers(49), numbers(49)))  # in the pool, not in the array


def test_a_slice_that_does_not_start_where_vectors_may():
    kernel = compiled(
        """extern "C" __global__ void kernel(const float4 *x, float4 *y) {
            y[threadIdx.x] = x[threadIdx.x];
        }""",
        checks=True,
    )
    x, y = numbers(72), np.zeros(64, np.float32)
    kernel((1,), (16,), (x[4:68], y))
    assert np.array_equal(y, x[4:68])
    with pytest.raises(Fault, match=r"misaligned: read of 16 bytes .* 4 past .* element 0 of"):
        kernel((1,), (16,), (x[1:65], y))


def test_results_that_depend_on_the_order():
    source = """
        extern "C" __global__ void kernel(float *sum, int *next, int *place) {
            atomicAdd(sum, 1.0f / (blockIdx.x * blockDim.x + threadIdx.x + 1));
            place[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(next, 1);
        }
    """
    results = []
    for orders in (1, 2, 7):
        kernel = compiled(source, checks=True, orders=orders)
        args = [np.zeros(1, np.float32), np.zeros(1, np.int32), np.zeros(256, np.int32)]
        kernel((4,), (64,), tuple(args))
        assert kernel.depends_on_order == (orders > 1)
        results.append(np.concatenate([arg.astype(np.float64) for arg in args]))
    assert (results[0] == results).all()  # the result is that of the first order
    assert np.array_equal(args[2], np.arange(256))


def test_the_same_finding_each_time():
    messages = set()
    for _ in range(3):
        with pytest.raises(Fault) as caught:
            launch(planted("race_shared_reuse"), ())
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_every_barrier_of_a_kernel_is_missed():
    source = """
        __device__ float block_sum(float v) {
            __shared__ float part[32];
            part[threadIdx.x] = v;
            __syncthreads();  // 1
            for (int d = 16; d > 0; d /= 2) {
                if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
                __syncwarp();  // 2
            }
            v = part[0];
            __syncthreads();  // 3; and what follows is no barrier:
            // __syncthreads();
            return v;
        }
        extern "C" __global__ void kernel(const float *x, float *y) {
            float once = block_sum(x[threadIdx.x]);
            y[threadIdx.x] = once + block_sum(2 * x[threadIdx.x]);
        }
    """
    x, y = numbers(32), np.zeros(32, np.float32)
    compiled(source, checks=True)((1,), (32,), (x, y))
    assert np.allclose(y, 3 * x.sum())
    lines = source.splitlines()
    variants = without_barriers(source)
    assert [lines[line - 1].strip()[-1] for line, _ in variants[:2]] == ["1", "2"]
    assert len(variants) == 3
    for _, variant in variants:
        with pytest.raises(Fault, match="race"):
            compiled(variant, checks=True)((1,), (32,), (x, y))


def planted(name):
    return next(path for path in FAULTS if path.stem == name)


def test_what_is_found_without_checks():
    with pytest.raises(Fault, match=r"wait at __syncwarp of deadlock.cu:7.*; 0 have ended"):
        launch(planted("deadlock"), (), checks=False)
    with pytest.raises(Fault, match="with mask 0xffff, which does not name it: it is thread 16 of"):
        launch(planted("warp_mask"), (), checks=False)


def test_a_gpu_does_not_wait_for_those_that_have_ended():
    _, y = launch(planted("barrier_left"), (), checks=False)
    assert not y[:10].any() and (y[10:64] == 128).all()
    _, y = launch(planted("barrier_exited"), (), checks=False)
    assert np.array_equal(y[:100], numbers(128)[np.arange(100) ^ 1])
    _, y = launch(planted("warp_not_all"), (), checks=False)
    assert np.allclose(y[:20], numbers(20) + numbers(20)[np.arange(20) ^ 1])


def test_a_stack_that_overflows():
    kernel = compiled(
        """
        __device__ __noinline__ int deep(volatile int *y, int n) {
            return n == 0 ? y[0] : deep(y, n - 1) + y[n % 2];
        }
        extern "C" __global__ void kernel(int *y, int n) { y[2 + threadIdx.x] = deep(y, n); }
        """
    )
    y = np.ones(66, np.int32)
    kernel((1,), (64,), (y, np.int32(100)))
    assert (y[2:] == 101).all()
    with pytest.raises(Fault, match=r"local variables of .* need more than 128 KiB") as caught:
        kernel((1,), (1,), (y, np.int32(5000)))
    assert caught.value.kind == "stack overflow"


# --- memory traffic -------------------------------------------------------------------------------


def profile(body, block, *arrays, shared="float tile[32][32]", memory=0):
    """The report of `body`, from line 2 on, where i is the thread and x, y are arrays."""
    kernel = compiled(
        f'extern "C" __global__ void kernel(const float *x, float *y) {{ __shared__ {shared}; '
        f"int i = threadIdx.x, j = threadIdx.y;\n{body}\n}}",
        checks=True,
    )
    return kernel((1,), block, arrays, shared_mem=memory, profile=True)


X, Y = numbers(4096), np.zeros(4096, np.float32)


@pytest.mark.parametrize(
    ("index", "sectors", "ideal"),
    [
        ("i", 4, 4),  # 128 bytes in a row
        ("i + 1", 5, 4),  # the same, across one more sector
        ("2 * i", 8, 4),
        ("8 * i", 32, 4),  # a sector for each
        ("100 * i", 32, 4),
        ("31 - i", 4, 4),  # the order does not matter
        ("0", 1, 1),  # the same for all
        ("i / 8", 1, 1),
        ("i / 8 * 8", 4, 1),
        ("i ^ 1", 4, 4),
    ],
)
def test_sectors_of_a_request(index, sectors, ideal):
    report = profile(f"float v = x[{index}];\ny[i] = v;", (32,), X, Y)
    loads = report.lines["test.cu", 2].loads
    assert (loads.requests, loads.accesses, loads.bytes) == (1, 32, 128)
    assert (loads.sectors, loads.ideal) == (sectors, ideal)
    stores = report.lines["test.cu", 3].stores
    assert (stores.requests, stores.sectors, stores.ideal) == (1, 4, 4)
    assert (report.bytes_read, report.bytes_written) == (128, 128)
    assert report.lines["test.cu", 3].text == "y[i] = v;"


def test_requests_of_vectors_of_part_of_a_warp_and_of_several():
    body = "float4 v = reinterpret_cast<const float4 *>(x)[i];\ny[i] = v.x + v.w;"
    report = profile(body, (32,), X, Y)
    loads = report.lines["test.cu", 2].loads
    assert (loads.requests, loads.accesses, loads.sectors, loads.ideal) == (1, 32, 16, 16)
    report = profile("if (i % 4 == 0)\ny[i] = x[i];", (80,), X, Y)
    line = report.lines["test.cu", 3]
    assert (line.loads.requests, line.loads.accesses) == (3, 20)
    assert (line.loads.sectors, line.loads.ideal) == (10, 3)
    # Thread i runs the loop i + 1 times: 32 requests, each of one thread less.
    report = profile(
        "float s = 0;\nfor (int k = 0; k <= i; k++) s += x[32 * k + i];\ny[i] = s;", (32,), X, Y
    )
    loads = report.lines["test.cu", 3].loads
    assert (loads.requests, loads.accesses) == (32, 32 * 33 // 2)
    assert loads.sectors == 8 * (4 + 3 + 2 + 1)


def test_one_load_of_the_source_is_one_request():
    # Without -fno-thread-jumps g++ would copy line 3 into both branches of line 2.
    body = "float s = i < 16 ? x[i] : 0;\nfloat v = x[i + 32];\ny[i] = i < 16 ? v + s * s : v;"
    report = profile(body, (32,), X, Y)
    loads = report.lines["test.cu", 3].loads
    assert (loads.requests, loads.sectors) == (1, 4)
    # A vector of 12 bytes, 8 in one sector and 4 in the next, is one access.
    body = "float3 v = ((const float3 *)x)[i + 2];\nif (i == 0) y[i] = v.x + v.y + v.z;"
    loads = profile(body, (1,), X, Y).lines["test.cu", 2].loads
    assert (loads.requests, loads.bytes, loads.sectors, loads.ideal) == (1, 12, 2, 1)


@pytest.mark.parametrize(
    ("shared", "index", "conflicts"),
    [
        ("float tile[32][32]", "tile[0][i]", 0),
        ("float tile[32][32]", "tile[i][0]", 31),  # a column: all in one bank
        ("float tile[32][33]", "tile[i][0]", 0),  # the same, padded
        ("float tile[32][32]", "tile[3][5]", 0),  # one word, for all
        ("float tile[64]", "tile[2 * i]", 1),
        ("float tile[128]", "tile[4 * i]", 3),
        ("float tile[96]", "tile[3 * i]", 0),  # odd strides are free
        ("float tile[64]", "tile[i % 2 * 32]", 1),  # two words of a bank, for sixteen threads each
        ("double tile[32]", "tile[i]", 0),  # two rounds, the fewest possible
        ("double tile[64]", "tile[2 * i]", 2),
        ("float4 tile[32]", "tile[i].x", 3),  # 4 bytes of each 16
        ("unsigned char tile[32]", "tile[i]", 0),  # four threads a word
    ],
)
def test_bank_conflicts(shared, index, conflicts):
    name = re.search(r"(\w+)\[", shared)[1]
    fill = f"for (int k = i; k < sizeof {name} / 4; k += 32) ((float *){name})[k] = k;"
    body = f"{fill}\n__syncthreads();\ny[i] = {index};"
    line = profile(body, (32,), X, Y, shared=shared).lines["test.cu", 4]
    assert (line.shared_loads.requests, line.shared_loads.accesses) == (1, 32)
    assert line.shared_loads.conflicts == conflicts


def test_a_float4_of_shared_memory_takes_four_rounds_and_no_more():
    body = "tile[i] = make_float4(i, i, i, i);\nfloat4 v = tile[i ^ 1 ^ 1];\ny[i] = v.x + v.y;"
    report = profile(body, (32,), X, Y, shared="float4 tile[32]")
    assert report.total("shared_stores").conflicts == 0


def test_a_transposed_tile_with_and_without_padding():
    for width, conflicts in ((32, 31 * 32), (33, 0)):
        body = (
            "for (int k = 0; k < 32; k++)\ntile[k][i] = x[32 * k + i];\n__syncthreads();\n"
            "for (int k = 0; k < 32; k++)\ny[32 * k + i] = tile[i][k];"
        )
        report = profile(body, (32,), X, Y, shared=f"float tile[32][{width}]")
        read, write = report.lines["test.cu", 3], report.lines["test.cu", 6]
        assert (read.loads.requests, read.loads.sectors, read.loads.ideal) == (32, 128, 128)
        assert read.shared_stores.conflicts == 0
        assert (write.stores.requests, write.stores.sectors) == (32, 128)
        assert (write.shared_loads.requests, write.shared_loads.conflicts) == (32, conflicts)
        assert report.lines["test.cu", 4].barriers == report.barriers == 1


def test_traffic_in_a_device_function_and_of_atomics(tmp_path):
    path = tmp_path / "sum.cu"
    (tmp_path / "add.cuh").write_text(
        """__device__ void add(float *to, float v) {
    atomicAdd(to, v);
}
"""
    )
    path.write_text(
        """#include "add.cuh"
extern "C" __global__ void kernel(const float *x, float *y) {
    add(y, x[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0)
        add(y + 1, *y);
}
"""
    )
    with pytest.raises(Fault, match=r"add\.cuh:2") as caught:
        Module(path, checks=True).get_function("kernel")((1,), (64,), (X, Y[:1]))
    assert caught.value.kind == "out of bounds" and caught.value.lines == (("add.cuh", 2),)
    assert "add.cuh:2, called at sum.cu:6 by thread (0, 0, 0)" in str(caught.value)
    kernel = Module(path, checks=True).get_function("kernel")
    report = kernel((1,), (64,), (X, np.zeros(2, np.float32)), profile=True)
    assert report.lines["add.cuh", 2].atomics.accesses == 65
    assert report.lines["sum.cu", 3].loads.requests == 2
    assert report.lines["sum.cu", 6].loads.accesses == 1
    table = str(report)
    assert "add.cuh:2" in table and "atomicAdd(to, v);" in table
    assert (
        "kernel: reads 520 bytes in 9 sectors (ideal 9), writes 260 in 0 (ideal 0), 1 bar" in table
    )


# --- wrong calls ----------------------------------------------------------------------------------


def test_arguments_that_do_not_suit_the_kernel():
    kernel = compiled(
        """extern "C" __global__ void kernel(const float *x, int *y, float a, int n, double d,
                                             bool *flags, const int4 *fours) {
            if (flags) y[0] = x[0] * a + n + d + fours->y;
        }"""
    )
    x, y, flags = np.ones(4, np.float32), np.zeros(4, np.int32), np.ones(2, bool)
    good = [x, y, np.float32(2), np.int32(3), np.float64(4), flags, y.reshape(1, 4)]
    kernel((1,), (1,), tuple(good))
    assert y[0] == 9
    kernel((1,), (1,), (*good[:5], None, good[6]))  # the null pointer
    wrong = [
        (0, x.astype(np.float64), "argument 0 (x) must be an array of float32, not of float64"),
        (0, np.float32(1), "argument 0 (x) must be an array of float32"),
        (0, np.ones((4, 4), np.float32)[:, 0], "argument 0 (x) must be C-contiguous"),
        (1, y.astype(np.uint32), "argument 1 (y) must be an array of int32, not of uint32"),
        (1, np.frombuffer(bytes(16), np.int32), "argument 1 (y) must be writeable"),
        (2, np.float64(2), "argument 2 (a) must be an np.float32"),
        (2, 2.0, "argument 2 (a) must be an np.float32, not 2.0"),
        (3, np.int64(3), "argument 3 (n) must be an np.int32"),
        (3, y, "argument 3 (n) must be an np.int32"),
        (5, y, "argument 5 (flags) must be an array of bool, not of int32"),
        (6, x, "argument 6 (fours) must be an array of int32, not of float32"),
    ]
    for i, arg, message in wrong:
        args = good.copy()
        args[i] = arg
        with pytest.raises(InputError, match=re.escape(f"kernel: {message}")):
            kernel((1,), (1,), tuple(args))
    with pytest.raises(InputError, match="kernel takes 7 arguments, not 6"):
        kernel((1,), (1,), tuple(good[:6]))
    for grid, block in [
        ((0,), (1,)),
        ((1,), (1025,)),
        ((1,), (64, 32)),
        ((1,) * 4, (1,)),
        ((), (1,)),
    ]:
        with pytest.raises(InputError, match=r"kernel: (grid|block)"):
            kernel(grid, block, tuple(good))
    with pytest.raises(
        InputError, match=r"shared_mem 50000 .* max_dynamic_shared_size_bytes, 49152"
    ):
        kernel((1,), (1,), tuple(good), shared_mem=50000)
    kernel.max_dynamic_shared_size_bytes = 50000
    kernel((1,), (1,), tuple(good), shared_mem=50000)
    with pytest.raises(InputError, match=r"profile .* checks=True"):
        kernel((1,), (1,), tuple(good), profile=True)


def test_a_kernel_that_is_not_there():
    module = Module(
        Path("test.cu"),
        source='extern "C" { __global__ void one() {} __global__ void two(int *) {} }\n'
        "template <class T> __global__ void three(T x) {}",
    )
    assert list(module.kernels) == ["one", "two"]
    with pytest.raises(InputError, match=r"test\.cu has no kernel 'three'; it has one, two"):
        module.get_function("three")
    with pytest.raises(InputError, match=r"nowhere\.cu: No such file"):
        Module(Path("nowhere.cu"))


def test_what_the_compiler_says_is_shown():
    with pytest.raises(InputError, match=r"test\.cu:2:\d+: error: .*nonsense"):
        compiled('extern "C" __global__ void kernel() {\n    nonsense = 1;\n}')
    with pytest.raises(InputError, match=r"test\.cu:2.* frame size"):
        compiled(
            'extern "C" __global__ void kernel(float *y) { float v[99999];\n'
            "for (int i = 0; i < 99999; i++) v[i] = y[i]; y[0] = v[int(y[1])]; }"
        )


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"^backend: cuda-emulated needs g\+\+: install .*$"):
        compiled('extern "C" __global__ void kernel() {}')


def test_the_cache(tmp_path, monkeypatch):
    source = 'extern "C" __global__ void kernel(int *y) { y[0] = VALUE; }'
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    y = np.zeros(1, np.int32)
    binaries = []
    for value in (1, 2, 1):
        module = Module(Path("test.cu"), (f"-DVALUE={value}",), source=source)
        module.get_function("kernel")((1,), (1,), (y,))
        assert y[0] == value
        binaries.append(module.binary)
    assert binaries[0] == binaries[2] != binaries[1]
    assert binaries[0].is_relative_to(tmp_path / "cache" / "gru4rec_np" / "emulator")
    written = binaries[0].stat().st_mtime_ns
    Module(Path("test.cu"), ("-DVALUE=1",), source=source)
    assert binaries[0].stat().st_mtime_ns == written
    # A changed header is compiled again, and no partial file is left.
    (tmp_path / "value.cuh").write_text("#define VALUE 7\n")
    for value in (7, 8):
        (tmp_path / "value.cuh").write_text(f"#define VALUE {value}\n")
        module = Module(tmp_path / "test.cu", source='#include "value.cuh"\n' + source)
        module.get_function("kernel")((1,), (1,), (y,))
        assert y[0] == value
    names = [path.name for path in binaries[0].parent.iterdir()]
    assert not [name for name in names if re.search(r"\.\d+-\d+\.", name)]
    # A cache folder that is not writable.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    module = Module(Path("test.cu"), ("-DVALUE=3",), source=source)
    module.get_function("kernel")((1,), (1,), (y,))
    assert y[0] == 3
