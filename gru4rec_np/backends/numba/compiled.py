"""`kernel`: a function that Numba compiles by itself, once, and that is called by its address.

Python, the driver of threads.py and other kernels all call the same machine code. So a kernel has
one version and one set of bits, and LLVM never sees more than one kernel at a time: the time it
takes grows faster than a function's size. cache.py keeps the machine code.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import math
import struct
import sys
import threading
import time
import typing
from collections.abc import Callable, Iterable
from functools import cache as once
from typing import Annotated, Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.core.typing.templates import infer_global, make_intrinsic_template
from numba.np import arrayobj
from tqdm import tqdm

from gru4rec_np import signals
from gru4rec_np.backends.base import quiet
from gru4rec_np.backends.numba.cache import cache

intrinsic: Any = extending.intrinsic
config: Any = numba.config
if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

# Kinds of parameters. `Floats` are float32 or float64, the same in all arguments of a call.
Vector = Annotated[np.ndarray, "f", 1]
Matrix = Annotated[np.ndarray, "f", 2]
Stack = Annotated[np.ndarray, "f", 3]
Doubles = Annotated[np.ndarray, types.float64, 1]
Ints = Annotated[np.ndarray, types.int64, 1]
IntMatrix = Annotated[np.ndarray, types.int64, 2]
Items = Annotated[np.ndarray, types.int32, 1]
ItemMatrix = Annotated[np.ndarray, types.int32, 2]
Flags = Annotated[np.ndarray, types.boolean, 2]
SCALARS = {int: (types.intp, "q"), float: (types.float64, "d"), bool: (types.boolean, "q")}

# Sums may be reordered and products fused, so that loops become vector instructions; the order is
# fixed when the code is compiled, so results repeat. NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "arcp", "nsz"}

# What kernels have no use for: closures, lists, array expressions, constant branches.
UNUSED_PASSES = (
    "WithLifting InlineClosureLikes RewriteSemanticConstants DeadBranchPrune GenericRewrites "
    "RewriteDynamicRaises MakeFunctionToJitFunction InlineInlinables FindLiterallyCalls "
    "LiteralUnroll LiteralPropagationSubPipelinePass InlineOverloads NopythonRewrites "
    "NoPythonSupportedFeatureValidation AnnotateTypes DumpParforDiagnostics"
)


class Pipeline(CompilerBase):
    """Numba's compiler without UNUSED_PASSES: they take a quarter of its time."""

    def define_pipelines(self):
        """The passes, in order."""
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        unused = UNUSED_PASSES.split()
        kept = [(p, text) for p, text in passes.passes if p.__name__ not in unused]
        passes = PassManager("kernel")
        for p, text in kept:
            passes.add_pass(p, text)
        passes.finalize()
        return [passes]


# Division as NumPy's. Without Numba's reference counts: they took a tenth of a training step.
OPTIONS = {
    "error_model": "numpy", "fastmath": FAST, "_nrt": False, "pipeline_class": Pipeline,
    "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}  # fmt: skip


def inner(function: Callable | None = None, **options: Any) -> Any:
    """numba.njit for what only kernels call: it becomes a part of each of them."""
    options = {**OPTIONS, "forceinline": True, **options}
    return numba.njit(**options)(function) if function else numba.njit(**options)


# Whoever loads: a second copy of a kernel would free the first while another thread runs it.
_loading = threading.RLock()


class Kernel:
    """A compiled function without a result; see `kernel`.

    Attributes:
        name: of the function. parameters: the names of its parameters.
    """

    def __init__(self, function: Callable, kinds: dict[str, Any], options: dict[str, Any]) -> None:
        self.__doc__, self.name, self.function = function.__doc__, function.__name__, function
        self.__module__ = function.__module__
        code = function.__code__
        self.parameters = code.co_varnames[: code.co_argcount]
        self.kinds = [kinds[name] for name in self.parameters]
        self.format = struct.Struct("".join(SCALARS.get(k, (0, "q"))[1] for k in self.kinds))
        arrays = [
            (i, *typing.get_args(k)[1:]) for i, k in enumerate(self.kinds) if k not in SCALARS
        ]
        # Types of arrays by their letters: to ask for a type of Numba's takes longer.
        self._arrays = [(i, _CODES[kind], ndim) for i, kind, ndim in arrays]
        self._options = options
        self._loaded: dict[Any, tuple[Any, ...]] = {}  # by the type of its floats

        def call(typingctx, *args):
            return self._call_from_compiled_code(args)

        names = inspect.signature(function).parameters.values()
        context = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        define: Any = call
        define.__signature__ = inspect.Signature([context, *names])
        template = make_intrinsic_template(self, define, self.name)
        infer_global(self, types.Function(template))

    # --- from Python ------------------------------------------------------------------------------

    def __call__(self, *args: Any) -> None:
        """Call the machine code; the GIL is released meanwhile.

        Raises:
            TypeError: an array has another type or number of dimensions, or is not C-contiguous; or
                some floats are float32 and some float64.
        """
        block, f = self.pack(args)
        if f not in self._loaded:
            prepare([self], f)
        self._loaded[f][0](block)

    def pack(self, args: Iterable[Any]) -> tuple[bytes, Any]:
        """The arguments as the machine code reads them, and the type of the floats.

        An array is the address of its PyArrayObject, which CPython gives as `id`: to ask NumPy for
        the address of its data costs microseconds.
        """
        values = list(args)
        floats = ""
        for i, codes, ndim in self._arrays:
            a = values[i]
            code = a.dtype.char
            if codes == FLOATS:
                codes = floats = floats or ("d" if code == "d" else "f")
            if code not in codes or a.ndim != ndim or not a.flags.c_contiguous:
                raise TypeError(f"{self.name}: {self.parameters[i]} is {a.dtype} {a.shape}")
            values[i] = id(a)
        f = types.float64 if floats == "d" else types.float32
        return self.format.pack(*values), f

    def address(self, f: Any) -> int:
        """Where the machine code for this type of floats begins."""
        return ctypes.cast(self.load(f)[0], ctypes.c_void_p).value or 0

    def load(self, f: Any) -> tuple[Any, ...]:
        """The entry for this type of floats, compiled if no process did so before."""
        with _loading:
            if f not in self._loaded:
                self._loaded[f] = self._load(f)
        return self._loaded[f]

    def _load(self, f: Any) -> tuple[Any, ...]:
        for other in self.needs():
            other.load(f)
        key = f"{self._symbol(f)} {_target()}"
        objects = cache.get(key)
        if objects is None:
            objects = self._compile(f)
            cache.put(key, objects)
        target = llvm.Target.from_default_triple().create_target_machine(jit=True)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
        for code in objects:
            engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        llvm.add_symbol(self._symbol(f), engine.get_function_address(self._symbol(f)))
        entry = engine.get_function_address(self._symbol(f) + ".entry")
        return ctypes.CFUNCTYPE(None, ctypes.c_char_p)(entry), engine

    def is_ready(self, f: Any) -> bool:
        """Whether nothing is left to compile."""
        return f in self._loaded or cache.get(f"{self._symbol(f)} {_target()}") is not None

    def needs(self) -> list[Kernel]:
        """The kernels that this one calls, directly or by what becomes a part of it."""
        found: list[Kernel] = []

        def look(function: Callable) -> None:
            for name in function.__code__.co_names:
                used: Any = function.__globals__.get(name)
                if isinstance(used, Kernel) and used not in found:
                    found.append(used)
                elif hasattr(used, "py_func"):
                    look(used.py_func)

        look(self.function)
        return found

    # --- from compiled code -----------------------------------------------------------------------

    def _call_from_compiled_code(self, args):
        f = next((args[i].dtype for i, codes, _ in self._arrays if codes == FLOATS), types.float32)
        wanted = self._types(f)
        for name, given, kind in zip(self.parameters, args, wanted, strict=True):
            if isinstance(kind, types.Array) and given != kind:
                raise TypingError(f"{self.name}: {name} is {given}, not {kind}")

        def codegen(context, builder, signature, values):
            kind = context.call_conv.get_function_type(types.none, wanted)
            function = cgutils.get_or_insert_function(builder.module, kind, self._symbol(f))
            context.call_conv.call_function(builder, function, types.none, wanted, values)
            return context.get_dummy_value()

        return types.none(*wanted), codegen

    def _symbol(self, f: Any) -> str:
        return f"gru4rec_np.{self.name}.{f}"

    def _types(self, f: Any) -> tuple[Any, ...]:
        """The parameters as Numba types them."""
        found: list[Any] = []
        for kind in self.kinds:
            if kind in SCALARS:
                found.append(SCALARS[kind][0])
            else:
                of, ndim = typing.get_args(kind)[1:]
                found.append(types.Array(f if of == "f" else of, ndim, "C"))
        return tuple(found)

    def _compile(self, f: Any) -> tuple[bytes, bytes]:
        """Two object files: the function; and the two ways in, whose names are ours."""
        wanted = self._types(f)
        dispatcher = numba.njit(**self._options)(self.function)
        dispatcher.compile(wanted)
        result = dispatcher.overloads[wanted]
        body = result.library._get_compiled_object()

        context = cpu_target.target_context
        module = context.create_module(self.name)
        kind = context.call_conv.get_function_type(types.none, wanted)
        function = ir.Function(module, kind, result.fndesc.llvm_func_name)
        direct = ir.Function(module, kind, self._symbol(f))
        builder = ir.IRBuilder(direct.append_basic_block())
        builder.ret(builder.call(function, direct.args, tail="musttail"))

        number = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [number.as_pointer()])
        entry = ir.Function(module, kind, self._symbol(f) + ".entry")
        builder = ir.IRBuilder(entry.append_basic_block())
        args = [
            _unpack(context, builder, kind, builder.gep(entry.args[0], [ir.Constant(number, i)]))
            for i, kind in enumerate(wanted)
        ]
        context.call_conv.call_function(builder, function, types.none, wanted, args)
        builder.ret_void()
        target = llvm.Target.from_default_triple().create_target_machine(jit=True)
        return body, target.emit_object(llvm.parse_assembly(str(module)))


FLOATS = "fd"
_CODES: dict[Any, str] = {
    "f": FLOATS, types.float32: "f", types.float64: "d", types.int64: "lq", types.int32: "i",
    types.boolean: "?",
}  # fmt: skip


def kernel(function: Callable | None = None, *, kinds: Any = None, **options: Any) -> Any:
    """Make a `Kernel` of a function.

    Args:
        kinds: parameter name to kind; by default the function's annotations.
        options: of numba.njit, where they differ from OPTIONS.
    """
    if function is None:
        return lambda function: kernel(function, kinds=kinds, **options)
    kinds = kinds or typing.get_type_hints(function, include_extras=True)
    return Kernel(function, kinds, {**OPTIONS, **options})


def float_type(dtype: Any) -> Any:
    """The Numba type of a kernel's floats."""
    return types.float64 if dtype == np.float64 else types.float32


def prepare(kernels: Iterable[Kernel], f: Any) -> None:
    """Load kernels for a type of floats.

    Where some must be compiled first and that takes longer than a second, stderr says so unless
    `base.quiet` is set: a bar on a terminal and in a notebook, else a line. Ctrl-C ends at once: a
    handler that waits for the end of a chunk of steps would wait for the compiler.
    """
    todo: list[Kernel] = []

    def add(k: Kernel) -> None:
        if k not in todo:
            for other in k.needs():
                add(other)
            todo.append(k)

    for k in kernels:
        add(k)
    new = [k for k in todo if not k.is_ready(f)]
    for k in todo:
        if k not in new:
            k.load(f)
    if new:
        what, plain = "compiling, once", not sys.stderr.isatty() and "ipykernel" not in sys.modules
        bar = tqdm(
            new, desc=what, unit="kernel", delay=1, mininterval=1, leave=False, file=sys.stderr,
            disable=quiet.get() or plain,
        )  # fmt: skip
        line_at = time.monotonic() + 1 if plain and not quiet.get() else math.inf
        with signals.handled(signals.stop):
            for n, k in enumerate(bar):
                if time.monotonic() > line_at:
                    tqdm.write(f"{what}: {n} of {len(new)} kernels", file=sys.stderr)
                    line_at = math.inf
                k.load(f)


# --- arrays in compiled code ----------------------------------------------------------------------


def make_view(context, builder, kind, data, shape):
    """A C-contiguous array of this Numba type: data, a pointer to its first number, and shape."""
    size = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype))
    )
    strides = [size]
    for n in reversed(shape[1:]):
        strides.insert(0, builder.mul(n, strides[0]))
    array = context.make_array(kind)(context, builder)
    arrayobj.populate_array(
        array, data=builder.bitcast(data, array.data.type), shape=shape, strides=strides,
        itemsize=size, meminfo=None, parent=None,
    )  # fmt: skip
    return array._getvalue()


def _unpack(context, builder, kind, place):
    """An argument from its 8 bytes, see `Kernel.pack`."""
    number, byte_p = ir.IntType(64), ir.IntType(8).as_pointer()
    if not isinstance(kind, types.Array):
        if kind == types.float64:
            return builder.load(builder.bitcast(place, ir.DoubleType().as_pointer()))
        value = builder.load(place)
        return builder.trunc(value, ir.IntType(1)) if kind == types.boolean else value
    # struct PyArrayObject: the head of all objects, char *data, int nd, npy_intp *dimensions.
    array, head = builder.inttoptr(builder.load(place), byte_p), object.__basicsize__

    def field(offset, kind):
        at = builder.gep(array, [ir.Constant(number, head + offset)])
        return builder.load(builder.bitcast(at, kind.as_pointer()))

    dims = field(16, number.as_pointer())
    shape = [builder.load(builder.gep(dims, [ir.Constant(number, i)])) for i in range(kind.ndim)]
    return make_view(context, builder, kind, field(0, byte_p), shape)


@once
def _target() -> str:
    """What machine code depends on beside its source."""
    processor = cpu_target.target_context.codegen().magic_tuple()
    about = numba.__version__, llvm.llvm_version_info, object.__basicsize__, processor
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]
