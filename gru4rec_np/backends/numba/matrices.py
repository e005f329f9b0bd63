"""Matrices in compiled code: views of flat memory, transposes, and products by BLAS.

What numba_steps.py puts a training step together from, and nothing that knows of one. Imports
numba_math.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import linalg

from gru4rec_np.backends.numba.maths import inner, jit


@jit(inline="always")
def rows_of(flat, lo, hi, n):
    """The rows from lo to hi, (hi - lo, n), of a matrix (..., n) that begins where `flat` does."""
    return flat[lo * n : hi * n].reshape(hi - lo, n)


@jit(inline="always")
def line(a):
    """An array without gaps as one long row, (1, size)."""
    return a.reshape(1, a.size)


@inner
def add_columns(a, b):
    """a (rows, n) += b (rows, 1) in each column."""
    for j in range(len(a)):
        for i in range(a.shape[1]):
            a[j, i] += b[j, 0]


@inner
def sum_rows(a, total):
    """total (1, rows) <- the sums of the rows of a (rows, n)."""
    for j in range(len(a)):
        total[0, j] = a[j].sum()


# --- transposes -----------------------------------------------------------------------------------

BLOCK = 8  # rows and columns that are transposed at once: numbers of a vector, a power of two


@intrinsic
def _transpose_block(typingctx, a, i, k, out):
    """out[k : k + BLOCK, i : i + BLOCK] <- the transpose of a[i : i + BLOCK, k : k + BLOCK].

    Both have their rows in one piece. A vector holds a row of the block; if log2(BLOCK) times each
    row of the upper half is interleaved with its fellow of the lower, the vectors are the columns.
    """

    def codegen(context, builder, signature, args):
        number = context.get_data_type(a.dtype)
        block = ir.VectorType(number, BLOCK)

        def row(kind, array, i, k):
            array = context.make_array(kind)(context, builder, array)
            bytes_ = builder.mul(i, builder.extract_value(array.strides, 0))
            start = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [bytes_])
            start = builder.gep(builder.bitcast(start, number.as_pointer()), [k])
            return builder.bitcast(start, block.as_pointer())

        def after(i, j):
            return builder.add(i, ir.Constant(i.type, j))

        _, i, k, _ = args
        align = number.get_abi_size(context.codegen().target_data)
        rows = [builder.load(row(a, args[0], after(i, j), k), align=align) for j in range(BLOCK)]
        halves = [
            ir.Constant(
                ir.VectorType(ir.IntType(32), BLOCK),
                [first + j // 2 + j % 2 * BLOCK for j in range(BLOCK)],
            )
            for first in (0, BLOCK // 2)
        ]
        for _ in range(BLOCK.bit_length() - 1):
            pairs = zip(rows[: BLOCK // 2], rows[BLOCK // 2 :], strict=True)
            rows = [builder.shuffle_vector(x, y, half) for x, y in pairs for half in halves]
        for j, column in enumerate(rows):
            builder.store(column, row(out, args[3], after(k, j), i), align=align)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, out), codegen


@inner
def transpose(a, out):
    """out (columns, rows) <- a (rows, columns); the edges, where no block fits, one by one."""
    rows, columns = a.shape
    below, beside = rows // BLOCK * BLOCK, columns // BLOCK * BLOCK
    for i in range(0, below, BLOCK):
        for k in range(0, beside, BLOCK):
            _transpose_block(a, i, k, out)
    for i in range(rows):
        for k in range(beside if i < below else 0, columns):
            out[k, i] = a[i, k]


# --- products -------------------------------------------------------------------------------------


@intrinsic
def _gemm(typingctx, a, b, out, before):
    """out <- a b + before * out, by the BLAS that SciPy brings, as NumPy's `dot` in compiled code.

    Matrices of at least one row and column; out is C, the others C or, transposed, F. BLAS has its
    matrices by columns, so it is given b^T a^T.
    """

    def codegen(context, builder, signature, args):
        kinds, byte_p = signature.args, ir.IntType(8).as_pointer()
        arrays = zip(kinds[:3], args[:3], strict=True)
        a, b, out = (context.make_array(kind)(context, builder, x) for kind, x in arrays)
        (rows, inner), (_, columns) = (cgutils.unpack_tuple(builder, x.shape) for x in (a, b))

        def character(c):
            return ir.Constant(ir.IntType(8), ord(c))

        def address(number):
            return builder.bitcast(cgutils.alloca_once_value(builder, number), byte_p)

        def matrix(kind, array, shape):
            by_rows = kind.layout == "C"
            place = builder.bitcast(array.data, byte_p)
            return character("n" if by_rows else "t"), place, shape[by_rows]

        trans_a, at_a, width_a = matrix(kinds[0], a, (rows, inner))
        trans_b, at_b, width_b = matrix(kinds[1], b, (inner, columns))
        one = address(context.get_constant(kinds[2].dtype, 1))
        scale = address(context.cast(builder, args[3], kinds[3], kinds[2].dtype))
        call = (
            character(linalg.get_blas_kind(kinds[2].dtype)), trans_b, trans_a, columns, rows, inner,
            one, at_b, width_b, at_a, width_a, scale, builder.bitcast(out.data, byte_p), columns,
        )  # fmt: skip
        kind = ir.FunctionType(ir.IntType(32), [x.type for x in call])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "numba_xxgemm"), call)
        return context.get_dummy_value()

    return types.void(a, b, out, before), codegen


@inner
def dot(a, b, out):
    """out <- a b."""
    _gemm(a, b, out, 0)


@inner
def add_dot(a, b, out):
    """out += a b."""
    _gemm(a, b, out, 1)
