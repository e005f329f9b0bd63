"""Matrices in compiled code: views, transposes, and products by BLAS.

Views are intrinsics: to type and to lower Numba's own slices takes most of a kernel's compiling.
They do not look at bounds.
"""

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils, types
from numba.np import linalg

from gru4rec_np.backends.numba.compiled import Matrix, Vector, inner, intrinsic, kernel, make_view

# --- views ----------------------------------------------------------------------------------------


def _view(shape_of: Callable) -> Callable:
    """The codegen of a view: shape_of(builder, array's shape, numbers) is its start and shape."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        start, *shape = shape_of(builder, cgutils.unpack_tuple(builder, array.shape), args[1:])
        data = builder.gep(array.data, [start])
        return make_view(context, builder, signature.return_type, data, shape)

    return codegen


def _numbers(a, ndim: int, n: int):
    """The signature of a view of ndim dimensions that n numbers say."""
    return types.Array(a.dtype, ndim, "C")(a, *[types.intp] * n)


@intrinsic
def matrix_at(typingctx, a, start, rows, columns):
    """(rows, columns), beginning at the number `start` of a."""
    return _numbers(a, 2, 3), _view(lambda builder, shape, numbers: numbers)


@intrinsic
def vector_at(typingctx, a, start, size):
    """(size,), beginning at the number `start` of a."""
    return _numbers(a, 1, 2), _view(lambda builder, shape, numbers: numbers)


@intrinsic
def rows_of(typingctx, a, lo, hi):
    """The rows of a matrix from lo to hi."""

    def shape_of(builder, shape, numbers):
        lo, hi = numbers
        return builder.mul(lo, shape[1]), builder.sub(hi, lo), shape[1]

    return _numbers(a, 2, 2), _view(shape_of)


@intrinsic
def page(typingctx, a, i):
    """a[i], of three dimensions."""

    def shape_of(builder, shape, numbers):
        return builder.mul(numbers[0], builder.mul(shape[1], shape[2])), shape[1], shape[2]

    return _numbers(a, 2, 1), _view(shape_of)


@intrinsic
def line(typingctx, a):
    """A matrix as one long row, (1, size)."""

    def shape_of(builder, shape, numbers):
        one, zero = ir.Constant(shape[0].type, 1), ir.Constant(shape[0].type, 0)
        return zero, one, builder.mul(shape[0], shape[1])

    return _numbers(a, 2, 0), _view(shape_of)


@intrinsic
def flat(typingctx, a):
    """A matrix as a vector."""

    def shape_of(builder, shape, numbers):
        return ir.Constant(shape[0].type, 0), builder.mul(shape[0], shape[1])

    return _numbers(a, 1, 0), _view(shape_of)


@intrinsic
def zero(typingctx, a):
    """Fill a with zeros."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        size = builder.mul(array.nitems, array.itemsize)
        cgutils.memset(builder, array.data, size, 0)
        return context.get_dummy_value()

    return types.void(a), codegen


# --- sums and products of numbers -----------------------------------------------------------------


@kernel
def add(a: Vector, b: Vector) -> None:
    """a += b."""
    for j in range(len(a)):
        a[j] += b[j]


@kernel
def times(a: Vector, b: Vector) -> None:
    """a *= b."""
    for j in range(len(a)):
        a[j] *= b[j]


@kernel
def add_columns(a: Matrix, b: Matrix) -> None:
    """a (rows, n) += b (rows, 1) in each column."""
    for j in range(len(a)):
        for i in range(a.shape[1]):
            a[j, i] += b[j, 0]


@kernel
def sum_rows(a: Matrix, total: Matrix) -> None:
    """total (1, rows) <- the sums of the rows of a (rows, n)."""
    for j in range(len(a)):
        s = a[j, 0]
        for i in range(1, a.shape[1]):
            s += a[j, i]
        total[0, j] = s


# --- transposes -----------------------------------------------------------------------------------

SIDE = 8  # of a square that is transposed at once: the numbers of a vector, a power of two


@intrinsic
def _transpose_block(typingctx, a, i, k, out, out_i, out_k):
    """out[out_i :, out_k :] <- the transpose of a[i : i + SIDE, k : k + SIDE].

    A vector holds a row of the square. If each row of the upper half is interleaved log2(SIDE)
    times with its fellow of the lower half, the vectors are the columns.
    """

    def codegen(context, builder, signature, args):
        number = context.get_data_type(a.dtype)
        block = ir.VectorType(number, SIDE)

        def row(kind, array, i, k):
            array = context.make_array(kind)(context, builder, array)
            bytes_ = builder.mul(i, builder.extract_value(array.strides, 0))
            start = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [bytes_])
            start = builder.gep(builder.bitcast(start, number.as_pointer()), [k])
            return builder.bitcast(start, block.as_pointer())

        def after(i, j):
            return builder.add(i, ir.Constant(i.type, j))

        _, i, k, _, out_i, out_k = args
        align = number.get_abi_size(context.codegen().target_data)
        rows = [builder.load(row(a, args[0], after(i, j), k), align=align) for j in range(SIDE)]
        halves = [
            ir.Constant(
                ir.VectorType(ir.IntType(32), SIDE),
                [first + j // 2 + j % 2 * SIDE for j in range(SIDE)],
            )
            for first in (0, SIDE // 2)
        ]
        for _ in range(SIDE.bit_length() - 1):
            pairs = zip(rows[: SIDE // 2], rows[SIDE // 2 :], strict=True)
            rows = [builder.shuffle_vector(x, y, half) for x, y in pairs for half in halves]
        for j, column in enumerate(rows):
            builder.store(column, row(out, args[3], after(out_i, j), out_k), align=align)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, out, types.intp, types.intp), codegen


@kernel
def transpose(a: Matrix, first: int, columns: int, out: Matrix, out_first: int) -> None:
    """out[:columns, out_first :] <- the transpose of a[:, first : first + columns].

    The edges, where no block fits, go one number at a time.
    """
    rows = len(a)
    below, beside = rows // SIDE * SIDE, columns // SIDE * SIDE
    for i in range(0, below, SIDE):
        for k in range(0, beside, SIDE):
            _transpose_block(a, i, first + k, out, k, out_first + i)
    for i in range(rows):
        for k in range(beside if i < below else 0, columns):
            out[k, out_first + i] = a[i, first + k]


# --- products -------------------------------------------------------------------------------------


def _gemm(a, b, out, before):
    """out <- a b + before * out, by the BLAS that SciPy brings, as Numba's `dot`: an intrinsic.

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
        scale = address(context.get_constant(kinds[2].dtype, before))
        call = (
            character(linalg.get_blas_kind(kinds[2].dtype)), trans_b, trans_a, columns, rows, inner,
            one, at_b, width_b, at_a, width_a, scale, builder.bitcast(out.data, byte_p), columns,
        )  # fmt: skip
        kind = ir.FunctionType(ir.IntType(32), [x.type for x in call])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "numba_xxgemm"), call)
        return context.get_dummy_value()

    return types.void(a, b, out), codegen


@intrinsic
def dot(typingctx, a, b, out):
    """out <- a b."""
    return _gemm(a, b, out, 0)


@intrinsic
def add_dot(typingctx, a, b, out):
    """out += a b."""
    return _gemm(a, b, out, 1)


@inner
def product(a, b, out, small):
    """out <- a b, some rows of a at a time."""
    tile = tile_of(len(b), b.shape[1], small)
    for start in range(0, len(a), tile):
        end = min(start + tile, len(a))
        dot(rows_of(a, start, end), b, rows_of(out, start, end))


@inner
def add_product_T(a, b, out, small):
    """out += a^T b, some rows of both at a time."""
    tile = tile_of(a.shape[1], b.shape[1], small)
    for start in range(0, len(a), tile):
        end = min(start + tile, len(a))
        add_dot(rows_of(a, start, end).T, rows_of(b, start, end), out)


# At most so many rows of a gradient are made before they are used, so that they stay in the cache.
TILE_ROWS = 128


@inner
def tile_of(inner, columns, small):
    """How many rows of a product (rows, inner) (inner, columns) to make at once.

    Args:
        small: the most multiplications that BLAS does fastest in one piece.
    """
    rows = small // (inner * columns) // 16 * 16
    return min(rows, TILE_ROWS) if rows else TILE_ROWS
