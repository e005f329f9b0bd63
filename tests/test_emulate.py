"""CUDA programs on the emulator: `python -m gru4rec_np.emulate`, half precision, groups of threads.

tests/cuda_samples/ holds whole programs, which check their own results. `PLANTED` has a fault for
each.
"""

import re
import shutil
import subprocess
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gru4rec_np import emulate
from gru4rec_np.backends.emulator import REMEDIES, Fault, Module, build, run_program
from gru4rec_np.console import cli

SAMPLES = sorted((Path(__file__).parent / "cuda_samples").glob("*.cu"))

# For each sample: what to replace, by what, the kind of fault, and the line that the report names;
# WRONG where the program's own check finds it.
WRONG = "wrong result"
PLANTED = {
    "vector_add": ("i < n)", "i <= n)", "out of bounds", "z[i] = x[i] + y[i]"),
    "saxpy": ("cudaMemcpyDeviceToHost", "cudaMemcpyHostToDevice", "wrong memory",
              "cudaMemcpy(result.data"),
    "transpose": ("    __syncthreads();\n", "", "race", "out[y * rows + x] = tile"),
    "scan": ("before = t >= by ? part[t - by] : 0;\n        __syncthreads();",
             "before = t >= by ? part[t - by] : 0;", "race", "part[t] += before"),
    "histogram": ("cudaMemset", "// cudaMemset", "uninitialised", "atomicAdd(&counts[b]"),
    "reduce_shared": ("part[t + half];\n        __syncthreads();",
                      "part[t + half], __syncthreads();", "barrier", "part[t + half], __sync"),
    "reduce_shuffle": ("v = lane < blockDim.x / warpSize ? warps[lane] : 0;",
                       "if (lane >= blockDim.x / warpSize) return;\n        v = warps[lane];",
                       "warp", "v += __shfl_down_sync"),
    "reduce_groups": ("    block.sync();\n", "    tile.sync();\n", "race",
                      "tops[tile.thread_rank()]"),
    "stencil_1d": ("        part[t + R + BLOCK] = i + BLOCK < n ? x[i + BLOCK] : 0;\n", "",
                   "uninitialised", "part[t + R + k]"),
    "stencil_2d": ("(d_from, d_to,", "(d_from, d_from,", "race", "to[i] = from[i]"),
    "matmul": ("b[k][x];\n        __syncthreads();", "b[k][x];", "race", "sum += a[y][k]"),
    "matvec": ("if (lane == 0) y[row]", "y[row]", "race", "y[row] = sum"),
    "softmax": ("64, n * sizeof(float)>>>", "64>>>", "out of bounds", "row[j] = own[j]"),
    "layer_norm": ("<<<rows, 32>>>", "<<<32, dim3(32, 64)>>>", "launch", "layer_norm<<<"),
    "bitonic_sort": ("length <= n;", "length < n;", WRONG, ""),
    "dot": ("half > 0; half /= 2) {", "half > 1; half /= 2) {", WRONG, ""),
    "compact": ("    cudaMemcpy(&count,", "    cudaFree(d_count);\n    cudaMemcpy(&count,",
                "out of bounds", "cudaMemcpy(&count"),
    "convolution": ("for (int dx = -R; dx <= R; dx++)\n            sum",
                    "for (int dx = -R; dx <= R + 1; dx++)\n            sum", "out of bounds",
                    "sum += weights[dy + R][dx + R]"),
    "axpy_half": ("cudaMemcpy(d_x, x.data(), n * sizeof(__half)",
                  "cudaMemcpy(d_x, x.data(), n * sizeof(float)", "out of bounds", "cudaMemcpy(d_x"),
    "half2_sum": ("<const __half2 *>(x)", "<const __half2 *>(x + 1)", "misaligned", "pairs[i]"),
    "managed": ("    cudaDeviceSynchronize();\n", "", "race with the host",
                "particles[i].position - position"),
    "monte_carlo_pi": ("double pi = 4.0 * count", "double pi = 4.0 * *d_count", "wrong memory",
                       "double pi = "),
}  # fmt: skip

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs the command. Returns the exit status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["emulate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.run(emulate.main)
        return ended.value.code, *capfd.readouterr()

    return run


# --- programs -------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_runs(path):
    assert run_program(path) == 0


def together(sources):
    """One program of several. Its first argument selects one of them, by name."""
    text = "#include <string>\n" + "".join(
        sorted({line for source in sources.values() for line in INCLUDE.findall(source)})
    )
    for name, source in sources.items():
        source = re.sub(r"\bint main\(\)", "int main(int, char **)", source)
        source = re.sub(r"\bint main\(", "int run(", source)
        text += f'namespace {name} {{\n#line 1 "{name}.cu"\n{source}}}\n'
    choice = "".join(f'if (name == "{n}") return {n}::run(argc - 1, argv + 1);\n' for n in sources)
    return text + f"int main(int argc, char **argv) {{\nstd::string name = argv[1];\n{choice}}}\n"


INCLUDE = re.compile("#include <.*\n")


@cache
def planted():
    """The sources of the samples with their faults."""
    sources = {path.stem: path.read_text() for path in SAMPLES}
    for name, (old, new, _, _) in PLANTED.items():
        assert sources[name].count(old) == 1
        sources[name] = sources[name].replace(old, new)
    return sources


@needs_compiler
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    _, _, kind, where = PLANTED[name]
    all_of_them = together(planted())
    if kind == WRONG:
        assert run_program("samples.cu", [name], all_of_them) == 1
        return
    with pytest.raises(Fault) as caught:
        run_program("samples.cu", [name], all_of_them)
    fault = caught.value
    assert fault.kind == kind, fault
    assert kind in REMEDIES
    assert {file for file, _ in fault.lines} == {f"{name}.cu"}
    lines = [planted()[name].splitlines()[line - 1] for _, line in fault.lines]
    assert any(where in line for line in lines), fault
    assert "<pc" not in str(fault) and "<at" not in str(fault)


def test_each_sample_has_a_fault():
    assert sorted(PLANTED) == [path.stem for path in SAMPLES]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_samples_are_cuda(tmp_path):
    """nvcc compiles them without a warning."""
    (tmp_path / "all.cu").write_text(together({path.stem: path.read_text() for path in SAMPLES}))
    done = subprocess.run(
        ["nvcc", "-arch=sm_80", "-std=c++17", "-Werror", "all-warnings", "-cubin", "-o",
         tmp_path / "all.cubin", tmp_path / "all.cu"],
        capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- the command ----------------------------------------------------------------------------------


@needs_compiler
def test_arguments_output_and_exit_status(command, tmp_path):
    path = tmp_path / "echo.cu"
    path.write_text(
        """
        #include <cstdio>
        #include <cstdlib>
        __global__ void hello(int n) { if (threadIdx.x == 0) printf("hello %d\\n", n); }
        int main(int argc, char **argv) {
            for (int i = 1; i < argc; i++) printf("%s\\n", argv[i]);
            hello<<<2, 32>>>(argc);  // prints once, though it runs in three orders
            if (argc > 3) abort();
            return 7;
        }
        """
    )
    assert command(path, "--number", "3") == (7, "--number\n3\nhello 3\nhello 3\n", "")
    status, _, err = command(path, "a", "b", "c")
    assert (status, err) == (128 + 6, f"{path}: ended by SIGABRT\n")


@needs_compiler
def test_a_finding_is_two_lines(command, tmp_path):
    path = tmp_path / "vector_add.cu"
    path.write_text(SAMPLES[-1].read_text().replace("i < n)", "i <= n)"))
    status, out, err = command(path, "100")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "add: out of bounds: read at vector_add.cu:17 by thread (100, 0, 0) of block (0, 0, 0): "
        "element 100 of d_x (100 elements)",
        "remedy: " + REMEDIES["out of bounds"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe\x00", "is not a text in UTF-8"),
        (b"__global__ void k() {}\n", "test.cu: has no main()"),
        (b"int main() {\n    return x;\n}\n", "test.cu:2:12: error: \u2018x\u2019 was not decl"),
        (b"int f();\nint main() { return f(); }\n", "undefined reference to `f()'"),
        (b"#include <nowhere.h>\nint main() {}\n", "test.cu:1:10: fatal error: nowhere.h: No such"),
        (b"__global__ void k(int *x) {}\nint main() { k<<<1, 1>>>(1.5); }\n", "test.cu:2:"),
        (b"int main() { k<<<1, 1>>>(", "test.cu:1:"),
    ],
)
@needs_compiler
def test_what_cannot_run_is_one_line(command, tmp_path, text, words):
    path = tmp_path / "test.cu"
    if text is not None:
        path.write_bytes(text)
    status, out, err = command(path)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and words in err and err.count("\n") == 1


def test_without_a_compiler_or_a_file(command, monkeypatch, tmp_path):
    status, _, err = command()
    assert status == 2 and "FILE.cu" in err
    assert command(tmp_path)[::2] == (2, f"error: {tmp_path}: Is a directory\n")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    status, _, err = command(SAMPLES[0])
    assert status == 2
    assert err == "error: emulate needs g++: install a C++ compiler (apt install g++)\n"


# --- the runtime ----------------------------------------------------------------------------------


KERNELS = """
__device__ int counter;
__constant__ float table[4] = {1, 2, 3, 4};
template <class T, int N> __global__ void add(T *x, T v) { x[threadIdx.x] += v * N; }
template <class T> __global__ void fill(T *x, T v) { x[threadIdx.x] = v; }
__global__ void count(int *x) { x[threadIdx.x] = atomicAdd(&counter, 1) - (int)threadIdx.x; }
__global__ void look_up(float *x) { x[threadIdx.x] = table[threadIdx.x]; }
struct View { float *data; int n; };
__global__ void through(View v) { if (threadIdx.x < v.n) v.data[threadIdx.x] *= 2; }
__global__ void dynamic(int *x) {
    extern __shared__ int all[];
    all[threadIdx.x * 512] = threadIdx.x;
    x[threadIdx.x] = all[threadIdx.x * 512];
}
__global__ void copy(char *to, const char *from, int n) { memcpy(to, from, n); }
__global__ void last(float *x) {
    counter = threadIdx.x;
    __syncthreads();
    if (threadIdx.x == 0) *x = counter;
}
"""


def program(body, kernels=KERNELS):
    """A source whose main has this body."""
    includes = "".join(f"#include <{name}>\n" for name in ("cstdio", "cstring", "cuda_runtime.h"))
    return f"{includes}{kernels}\nint main(int argc, char **argv) {{\n{body}\nreturn 0;\n}}\n"


@needs_compiler
def test_the_runtime():
    body = """
    #define IS(condition) if (!(condition)) { printf("%s\\n", #condition); return 1; }
    int devices = 0, device = -1, calls = 0;
    cudaDeviceProp properties;
    IS(cudaGetDeviceCount(&devices) == cudaSuccess && devices == 1)
    cudaGetDevice(&device);
    cudaGetDeviceProperties(&properties, device);
    IS(properties.warpSize == 32 && properties.maxThreadsPerBlock == 1024)
    IS(!strcmp(cudaGetErrorString(cudaGetLastError()), "no error"))
    IS(!strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory"))
    float *x, *y, host[64], four[4];
    IS(cudaMalloc(&y, size_t(1) << 40) == cudaErrorMemoryAllocation)
    cudaMalloc(&x, sizeof host);
    cudaMalloc(&y, sizeof host);
    IS((size_t)x % 256 == 0)
    const char *text = "k<<<1, 2>>>(3)";  // a text, not a launch
    IS(strlen(text) == 14)
    fill<<<1, 64>>>(x, 1.5f);  // T is deduced
    for (int i = 0; i < 2; i++)
        add<float, 4><<<dim3(1, 1, 1), dim3(calls++ + 64 - i - calls, 1), 0, nullptr>>>(x, 0.5f);
    IS(calls == 2)  // evaluated once, not for each thread or order
    through<<<1, 64>>>(View{x, 10});
    cudaMemcpyAsync(y, x, sizeof host, cudaMemcpyDeviceToDevice, 0);
    cudaMemset(x, 0, 4);
    cudaMemcpy(host, y, sizeof host, cudaMemcpyDeviceToHost);
    IS(host[0] == 11 && host[10] == 5.5f && host[63] == 1.5f)
    int *c, seen[64];
    cudaMalloc(&c, sizeof seen);
    count<<<1, 64>>>(c);
    count<<<1, 64>>>(c);  // the first order counts once, other orders leave no trace
    cudaMemcpy(seen, c, sizeof seen, cudaMemcpyDefault);
    IS(seen[0] == 64 && seen[63] == 64)
    int value = 0;
    cudaMemcpyFromSymbol(&value, counter, sizeof value);
    IS(value == 128)
    const float last = 9;
    cudaMemcpyToSymbol(table, &last, sizeof last, 3 * sizeof last);
    look_up<<<1, 4>>>(x);
    cudaMemcpy(four, x, sizeof four, cudaMemcpyDeviceToHost);
    IS(four[0] == 1 && four[3] == 9)
    cudaFuncSetAttribute(dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
    dynamic<<<1, 32, 64 << 10>>>(c);
    copy<<<1, 1>>>((char *)(c + 32), (char *)c, 32 * sizeof(int));
    cudaMemcpy(seen, c, sizeof seen, cudaMemcpyDeviceToHost);
    IS(seen[31] == 31 && seen[63] == 31)
    int *shared;
    cudaMallocManaged(&shared, 64 * sizeof(int), cudaMemAttachGlobal);
    for (int round = 0; round < 3; round++) {
        memset(shared, 0, 64 * sizeof(int));
        add<int, 2><<<1, 64>>>(shared, 3);
        cudaStreamSynchronize(0);
        IS(shared[round] == 6)
    }
    for (int i = 0; i < 2000; i++) {  // more than there is address space for at once
        float *some;
        IS(cudaMalloc(&some, 100) == cudaSuccess)
        cudaFree(some);
    }
    cudaFree(nullptr);
    float *pinned;
    cudaMallocHost(&pinned, 400);
    pinned[99] = 1;
    cudaFreeHost(pinned);
    IS(cudaFree(x) == cudaSuccess && cudaFree(y) == cudaSuccess && cudaDeviceReset() == cudaSuccess)
    """
    assert run_program("test.cu", source=program(body)) == 0


# What the host does, and what is reported of its last line or of a kernel's line.
REPORTS = [
    # Global memory that nobody wrote.
    ("fill<<<1, 32>>>(x, 1.0f);\nadd<float, 1><<<1, 64>>>(x, 1.0f);",
     r"add<float, 1>: uninitialised: read at test\.cu:7 by .*: element 32 of x \(64 elements\)"),
    ("cudaMemset(x, 0, 128);\ncudaMemcpy(y, x, 256, cudaMemcpyDeviceToDevice);\n"
     "add<float, 1><<<1, 32>>>(y, 1.0f);\nadd<float, 1><<<1, 33>>>(y, 1.0f);",
     r"uninitialised: read .*: element 32 of y"),
    ("copy<<<1, 1>>>((char *)y, (char *)x, 1);", r"copy: uninitialised: read at test\.cu:18 by"),
    # Wrong memory, and memory that is gone.
    ("fill<<<1, 1>>>(&host, 1.0f);", r"fill: wrong memory: write .* belongs to no array"),
    ("cudaFree(x);\nfill<<<1, 1>>>(x, 1.0f);", r"fill: out of bounds: .*: x, which cudaFree has"),
    ("cudaFree(x);\ncudaFree(x);", r"host: free: cudaFree at .* is freed already"),
    ("cudaFree(x + 1);", r"host: free: cudaFree at .*, which cudaMalloc did not return"),
    ("memcpy(x, &host, 4);", r"host: wrong memory: write at .* by the host of memory of the dev"),
    ("cudaMemset(&host, 0, 4);", r"host: wrong memory: cudaMemset at .* of memory of the host"),
    ("cudaMemset(x + 1, 0, 256);", r"host: out of bounds: cudaMemset .* 256 bytes: element 1 of x"),
    ("cudaMemcpyToSymbol(table, &host, 20);", r"host: out of bounds: copy at .* of 20 bytes"),
    ("int few[4];\nreturn few[argc + 9];", r"host: out of bounds: index 11 of .* by the host"),
    # Launches.
    ("fill<<<0, 1>>>(x, 1.0f);", r"host: launch: fill at .* with a grid of \(0, 1, 1\) and"),
    ("fill<<<1, 1, 50000>>>(x, 1.0f);", r"host: launch: fill at .* with 50000 bytes of dynamic"),
    # Memory that host and device share.
    ("count<<<1, 64>>>(m);\nm[0] = 1;",
     r"host: race with the host: write at .* by the host and write at test\.cu:9 by a kernel"),
    ("m[64] = 1;", r"host: out of bounds: write .* by the host: element 64 of m \(64 elements\)"),
    # Without atomics, another order of threads may not change a result.
    ("last<<<1, 64>>>(x);", r"last: order: the order of threads changes x"),
]  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("number", range(len(REPORTS)), ids=[body for body, _ in REPORTS])
def test_a_report(number):
    cases = "".join(f"case {k}: {{\n{body}\n}} break;\n" for k, (body, _) in enumerate(REPORTS))
    start = "float *x, *y, host = 0; int *m; cudaMallocManaged(&m, 256);"
    start += " cudaMalloc(&x, 256); cudaMalloc(&y, 256); (void)host;"
    source = program(f"{start}\nswitch (atoi(argv[1])) {{\n{cases}}}")
    body, message = REPORTS[number]
    with pytest.raises(Fault, match=message) as caught:
        run_program("test.cu", [str(number)], source)
    assert caught.value.kind in REMEDIES
    if message.startswith("host"):
        last = source[: source.index(f"{body}\n}} break;")].count("\n") + body.count("\n") + 1
        assert caught.value.lines[0] == ("test.cu", last)


@needs_compiler
def test_what_programs_include():
    """Atomics, virtual functions, threads, static objects of the host."""
    kernels = """
    #include <atomic>
    #include <functional>
    #include <iostream>
    #include <map>
    #include <memory>
    #include <random>
    #include <sstream>
    #include <stdexcept>
    #include <string>
    #include <thread>
    struct Shape { virtual int sides() { return 0; } virtual ~Shape() {} };
    struct Square : Shape { int sides() override { return 4; } };
    __device__ __noinline__ int twice(int i) { return 2 * i; }
    __global__ void kernel(int *x) { x[threadIdx.x] = min(twice(threadIdx.x), 5) + abs(-1); }
    const std::string &name() { static std::string text = "name"; return text; }
    """
    body = """
    std::shared_ptr<Shape> shape = std::make_shared<Square>();
    std::atomic<int> sum(1);
    std::thread other([&] { sum += 2; });
    other.join();
    std::map<std::string, int> sides{{name(), shape->sides()}};
    std::mt19937 generator(1);
    std::ostringstream text;
    text << sides["name"] << sum << (std::uniform_int_distribution<>(5, 5)(generator));
    int *x, host[32];
    cudaMalloc(&x, sizeof host);
    kernel<<<1, 32>>>(x);
    cudaMemcpy(host, x, sizeof host, cudaMemcpyDeviceToHost);
    try {
        throw std::runtime_error("x");
    } catch (std::exception &error) {
        return !(text.str() == "435" && host[1] == 3 && host[31] == 6);
    }
    """
    assert run_program("test.cu", source=program(body, kernels)) == 0


# --- half precision -------------------------------------------------------------------------------

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)
bits = st.integers(0, 2**16 - 1)


@cache
def half_kernels():
    """The kernels of this text, by name."""
    two = ["__hadd", "__hsub", "__hmul", "__hdiv", "__hmax", "__hmin"]
    cases = "".join(f"r[{k} * n + i] = {name}(a[i], b[i]);\n" for k, name in enumerate(two))
    operators = "".join(f"r[{k} * n + i] = a[i] {op} b[i];\n" for k, op in enumerate("+-*/"))
    of_pairs = ["__hadd2", "__hsub2", "__hmul2", "__h2div"]
    pairs = "".join(f"r2[{k} * n / 2 + i] = {f}(a2[i], b2[i]);\n" for k, f in enumerate(of_pairs))
    compared = "".join(
        f"c[{k} * n + i] = a[i] {op} b[i];\nc[{k + 6} * n + i] = __h{name}(a[i], b[i]);\n"
        for k, (op, name) in enumerate(
            {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}.items()
        )
    )
    start = "int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return;\n"
    begin = '}\nextern "C" __global__ void '
    source = f"""#include <cuda_fp16.h>
    extern "C" __global__ void from_float(const float *x, __half *r, int n) {{ {start}
    r[i] = __float2half(x[i]);
    {begin} from_double(const double *x, __half *r, int n) {{ {start}
    r[i] = __double2half(x[i]);
    {begin} to_float(const __half *x, float *r, int n) {{ {start}
    r[i] = i % 2 ? __half2float(x[i]) : float(x[i]);
    {begin} to_int(const __half *x, int *r, int n) {{ {start}
    r[i] = __half2int_rn(x[i]); r[n + i] = __half2int_rz(x[i]);
    {begin} arithmetic(const half *a, const half *b, half *r, int n) {{ {start} {cases}
    {begin} operators(const half *a, const half *b, half *r, int n) {{ {start} {operators}
    {begin} pairs(const half2 *a2, const half2 *b2, half2 *r2, int n) {{ {start}
    if (i < n / 2) {{ {pairs} }}
    {begin} comparisons(const half *a, const half *b, int *c, int n) {{ {start} {compared}
    {begin} one(const half *a, half *r, int n) {{ {start}
    r[i] = -a[i]; r[n + i] = __habs(a[i]); r[2 * n + i] = hsqrt(a[i]); r[3 * n + i] = hfloor(a[i]);
    {begin} fused(const half *a, const half *b, const half *c, half *r, int n) {{ {start}
    r[i] = __hfma(a[i], b[i], c[i]);
    {begin} parts(const half2 *a, float2 *f, half *r) {{ int i = threadIdx.x;
    f[i] = __half22float2(a[i]);
    half2 swapped = __lowhigh2highlow(a[i]);
    r[2 * i] = __low2half(swapped); r[2 * i + 1] = __high2half(swapped);
    half2 made = __floats2half2_rn(f[i].x, f[i].y), high = __high2half2(made);
    r[2 * i] += made.x * __float2half(0) + high.y * __float2half(0);
    }}"""
    return Module(Path("half.cu"), source=source).kernels


def half_call(name, *arrays, out=np.float16, rows=1):
    """What a kernel makes of arrays: (rows, n)."""
    n = arrays[0].size
    result = np.zeros((rows, n), out)
    half_kernels()[name]((-(-n // 256),), (256,), (*arrays, result, np.int32(n)))
    return result


def same(a, b):
    """Bit for bit; NaN's need not have the same payload."""
    a, b = np.asarray(a, np.float16), np.asarray(b, np.float16)
    return ((a.view(np.uint16) == b.view(np.uint16)) | (np.isnan(a) & np.isnan(b))).all()


@needs_compiler
def test_every_half_as_a_float():
    result = half_call("to_float", HALVES, out=np.float32)[0]
    expected = HALVES.astype(np.float32)
    assert np.array_equal(result.view(np.uint32)[~np.isnan(HALVES)],
                          expected.view(np.uint32)[~np.isnan(HALVES)])  # fmt: skip
    assert np.isnan(result[np.isnan(HALVES)]).all()
    assert same(half_call("from_float", expected)[0], HALVES)


@needs_compiler
def test_numbers_between_two_halves():
    """The middle, where ties go to the even one, and the floats and doubles next to it."""
    finite = np.sort(HALVES[np.isfinite(HALVES)].astype(np.float64))
    middles = np.append((finite[1:] + finite[:-1]) / 2, [65520, -65520, 2**-25])
    for dtype, name in ((np.float32, "from_float"), (np.float64, "from_double")):
        exact = middles.astype(dtype)
        for x in (exact, np.nextafter(exact, dtype(np.inf)), np.nextafter(exact, dtype(-np.inf))):
            with np.errstate(over="ignore"):
                assert same(half_call(name, x)[0], x.astype(np.float16))


@needs_compiler
@given(st.lists(st.floats(width=32), min_size=1), st.lists(st.floats(), min_size=1))
def test_conversions(floats, doubles):
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.array(floats, np.float32)
        assert same(half_call("from_float", x)[0], x.astype(np.float16))
        y = np.array(doubles)
        assert same(half_call("from_double", y)[0], y.astype(np.float16))


@needs_compiler
@given(st.lists(st.tuples(bits, bits), min_size=1).map(lambda pairs: pairs + pairs))
@example([(0x7C00, 0xFC00), (0x8000, 0x0000), (0x7E00, 0x3C00), (0x0001, 0x8001)])
def test_arithmetic_and_comparisons(pairs):
    a, b = np.array(pairs, np.uint16).T.copy().view(np.float16)
    with np.errstate(all="ignore"):
        expected = [a + b, a - b, a * b, a / b]
        assert same(half_call("operators", a, b, rows=4), expected)
        assert same(half_call("pairs", a, b, rows=4), expected)
        results = half_call("arithmetic", a, b, rows=6)
        assert same(results[:4], expected)
        zeros = (a == 0) & (b == 0)  # -0 is less than 0
        most = np.where(zeros, np.where(np.signbit(a), b, a), np.fmax(a, b))
        least = np.where(zeros, np.where(np.signbit(a), a, b), np.fmin(a, b))
        assert same(results[4:], [most, least])
        compared = half_call("comparisons", a, b, out=np.int32, rows=12)
        expected = np.array([a == b, a != b, a < b, a <= b, a > b, a >= b])
        assert np.array_equal(compared[:6], expected)
        ordered = ~np.isnan(a) & ~np.isnan(b)
        assert np.array_equal(compared[6:], expected & ordered)


@needs_compiler
def test_functions_of_one_half():
    with np.errstate(all="ignore"):
        root = np.sqrt(HALVES.astype(np.float64)).astype(np.float16)
        expected = [-HALVES, np.abs(HALVES), root, np.floor(HALVES)]
        assert same(half_call("one", HALVES, rows=4), expected)
    finite = HALVES[np.isfinite(HALVES)]
    expected = np.array([np.rint(finite), np.trunc(finite)]).astype(np.int32)
    assert np.array_equal(half_call("to_int", finite, out=np.int32, rows=2), expected)
    pairs = np.arange(64, dtype=np.float16).reshape(32, 2)
    floats, swapped = np.zeros((32, 2), np.float32), np.zeros((32, 2), np.float16)
    half_kernels()["parts"]((1,), (32,), (pairs, floats, swapped))
    assert np.array_equal(floats, pairs) and np.array_equal(swapped, pairs[:, ::-1])


@needs_compiler
@given(st.lists(st.tuples(bits, bits, bits), min_size=1))
@example([(0x3C01, 0x3C01, 0x0001), (0x7BFF, 0x7BFF, 0xFBFF), (0x0401, 0x2BFF, 0x3C00)])
def test_a_fused_multiply_add_is_rounded_once(triples):
    a, b, c = np.array(triples, np.uint16).T.copy().view(np.float16)
    for x, y, z, result in zip(a, b, c, half_call("fused", a, b, c)[0], strict=True):
        if np.isfinite(x) and np.isfinite(y) and np.isfinite(z):
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            assert abs(result) == nearest_half(abs(exact))
            assert exact == 0 or np.signbit(result) == (exact < 0)


def nearest_half(exact):
    """Of a number that is not negative, by comparing fractions."""
    if exact >= 65520:
        return np.inf
    positive = HALVES[:0x7C00]
    at = int(np.searchsorted(positive.astype(np.float64), float(exact)))
    near = [k for k in range(at - 2, at + 2) if 0 <= k < 0x7C00]
    distance = {k: abs(Fraction(float(positive[k])) - exact) for k in near}
    return positive[min(near, key=lambda k: (distance[k], k % 2))]


# Prints a sum of the bits of many results, of the host's functions.
ON_HOST = """#include <cuda_fp16.h>
#include <cstdio>
int main() {
    unsigned state = 1;
    unsigned long long sum = 0;
    auto half = [&] {
        state = state * 1664525 + 1013904223;
        return __ushort_as_half((unsigned short)(state >> 16));
    };
    auto add = [&](unsigned bits) { sum = sum * 31 + bits; };
    auto bits = [](__half h) { return __hisnan(h) ? 0x7fff : __half_as_ushort(h); };
    for (int i = 0; i < 100000; i++) {
        __half x = half(), y = half();
        __half2 p = __halves2half2(x, y), q = __halves2half2(y, half());
        add(bits(x + y)), add(bits(x - y)), add(bits(x * y)), add(bits(x / y));
        add(bits(__hmax(x, y))), add(bits(__hmin(x, y)));
        add(bits(__hadd_sat(x, y))), add(bits(__hsub_sat(x, y))), add(bits(__hmul_sat(x, y)));
        add(__heq(x, y) + 2 * __hne(x, y) + 4 * __hlt(x, y) + 8 * __hgeu(x, y) + 16 * (x != y));
        add(__hbeq2(p, q) + 2 * __hble2(p, q) + 4 * (p != q) + 8 * (__hisinf(x) + 1));
        add(bits(__low2half(__hgt2(p, q)))), add(bits(__high2half(p / q)));
        add(bits(__double2half((double)__half2float(x) * __half2float(y) * 1.0001)));
    }
    printf("%llx\\n", sum);
}
"""


@needs_compiler
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_halves_are_those_of_nvidia(tmp_path, capfd):
    (tmp_path / "host.cu").write_text(ON_HOST)
    subprocess.run(["nvcc", "-o", tmp_path / "host", tmp_path / "host.cu"], check=True)
    subprocess.run([tmp_path / "host"], check=True)
    expected = capfd.readouterr().out
    assert run_program(tmp_path / "host.cu") == 0
    assert capfd.readouterr().out == expected


# --- cooperative groups ---------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("size", [1, 4, 16, 32])
def test_tiles(size):
    source = """
    #include <cooperative_groups.h>
    namespace cg = cooperative_groups;
    extern "C" __global__ void kernel(const float *x, float *out) {
        cg::thread_block block = cg::this_thread_block();
        auto whole = cg::tiled_partition<32>(block);
        auto tile = cg::tiled_partition<SIZE>(whole);
        const int i = block.thread_rank(), n = block.size();
        const float v = x[i];
        out[i] = tile.shfl(v, 0);
        out[n + i] = tile.shfl_down(v, 1);
        out[2 * n + i] = tile.shfl_up(v, 1);
        out[3 * n + i] = tile.shfl_xor(v, tile.size() / 2);
        out[4 * n + i] = tile.any(v > 0.9f);
        out[5 * n + i] = tile.all(v > 0.1f);
        out[6 * n + i] = __popc(tile.ballot(v > 0.5f) & ((2u << tile.thread_rank()) - 1));
        out[7 * n + i] = cg::reduce(tile, (int)(100 * v), cg::plus<int>());
        out[8 * n + i] = cg::reduce(tile, v, cg::less<float>());
        out[9 * n + i] = tile.thread_rank() + 100 * tile.meta_group_rank() +
                         10000 * tile.meta_group_size() + tile.num_threads();
        cg::sync(tile);
        cg::sync(block);
    }
    """
    kernel = Module(Path("test.cu"), (f"-DSIZE={size}",), True, source).get_function("kernel")
    x, out = np.random.default_rng(3).random(96).astype(np.float32), np.zeros((10, 96), np.float32)
    kernel((1,), (96 // 2, 2), (x, out))
    tiles, own = x.reshape(-1, size), np.arange(96) % size
    first = np.arange(96) // size * size
    expected = [
        x[first],
        x[np.where(own + 1 < size, np.arange(96) + 1, np.arange(96)) % 96],
        x[np.where(own > 0, np.arange(96) - 1, np.arange(96))],
        x[np.arange(96) ^ size // 2],
        np.repeat((tiles > 0.9).any(1), size),
        np.repeat((tiles > 0.1).all(1), size),
        np.cumsum(tiles > 0.5, axis=1).ravel(),
        np.repeat((100 * tiles).astype(int).sum(1), size),
        np.repeat(tiles.min(1), size),
        own + 100 * (first % 32 // size) + 10000 * (32 // size) + size,
    ]
    assert np.array_equal(out, np.array(expected, np.float32))


@needs_compiler
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("tile.sync(); part[i] = i; y[i] = part[i ^ 1];", "race"),
        ("block.sync(); part[i] = i; tile.sync(); y[i] = part[i ^ 8];", "race"),  # of another tile
        ("if (i % 2) tile.sync(); y[i] = 0;", "warp"),
        ("if (i % 2) block.sync(); y[i] = 0;", "barrier"),
    ],
)
def test_faults_of_groups(body, kind):
    source = f"""#include <cooperative_groups.h>
    extern "C" __global__ void kernel(float *y) {{
        __shared__ float part[32];
        auto block = cooperative_groups::this_thread_block();
        auto tile = cooperative_groups::tiled_partition<8>(block);
        int i = block.thread_rank();
        part[i] = tile.size();
        {body}
    }}"""
    kernel = Module(Path("test.cu"), checks=True, source=source).get_function("kernel")
    with pytest.raises(Fault) as caught:
        kernel((1,), (32,), (np.zeros(32, np.float32),))
    assert caught.value.kind == kind
    assert caught.value.lines[0] == ("test.cu", 8)


def test_launches_are_rewritten():
    text = 'f(); n::k<A<int>, 3> <<<g(1, 2), b>>> (x, ")", y[__null]); "k<<<1>>>(2)"'
    text = build.with_launches(text)
    assert text.startswith('f(); EmuLauncher(g(1, 2), b)("n::k<A<int>, 3>", [=](auto... emu_a)')
    assert text.endswith('n::k<A<int>, 3>(emu_a...); }, x, ")", y[nullptr]); "k<<<1>>>(2)"')
    for other in ("a << b < c", "k<<<1, 2>>>", "k<<<1, 2", "x<<<y"):
        assert build.with_launches(other) == other
