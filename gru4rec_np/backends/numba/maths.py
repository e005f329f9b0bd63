"""Elementary functions, activations and the losses of lanes, compiled for the CPU by Numba.

In float32, e^x and log(1 + x) are short polynomials: LLVM vectorises a loop over polynomials, but
not a loop over library calls. In float64 they are the library's. Each function states its error.
"""

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import overload

from gru4rec_np.backends.numba.compiled import (
    Doubles,
    Ints,
    Matrix,
    Vector,
    inner,
    intrinsic,
    kernel,
)
from gru4rec_np.backends.numba.matrices import vector_at
from gru4rec_np.ops.activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE
from gru4rec_np.ops.losses import LOSSES

# Cast an index that is a sum to unsigned: Numba's wrap-around check blocks vectorisation.
uint = np.uintp


# In these the order of the terms matters: it keeps digits that a reordered sum would lose.
EXACT: Any = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}


# --- elementary functions -------------------------------------------------------------------------


def in_float32(library):
    """Decorates the float32 form of a function; its float64 form is `library`, one of math's."""

    def decorate(short):
        @overload(short, jit_options=EXACT)
        def choose(x):
            return short if x == numba.float32 else lambda x: library(x)

        return short

    return decorate


@in_float32(math.exp)
def exp(x):
    """e^x. In float32 the relative error is below 2e-7; from 88 on it is e^88, up to -80 it is 0.

    That cut is far below what float32 sees beside 1, and it keeps softmax weights from becoming
    denormal numbers, which processors handle many times more slowly.
    """
    # x = n log 2 + r with |r| <= log(2)/2: e^x = 2^n e^r, the polynomial for e^r (Cephes expf), 2^n
    # by writing n into the exponent's bits. log 2 in two parts keeps r exact.
    f = np.float32
    # NaN is not below or above anything, so it stays.
    inside = f(-80.0) if x < f(-80.0) else x
    inside = f(88.0) if inside > f(88.0) else inside
    n = np.floor(inside * f(1.44269504) + f(0.5))
    r = (inside - n * f(0.693359375)) - n * f(-2.12194440e-4)
    p = f(1.9875691500e-4)
    p = p * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    p = p * r * r + r + f(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return f(0.0) if x <= f(-80.0) else p * power


@in_float32(math.log1p)
def log1p01(x):
    """log(1 + x) for x in [0, 1]. In float32 the relative error is below 3e-7."""
    # log(1 + x) = 2 atanh(s), s = x / (2 + x) <= 1/3, and atanh's series up to s^13.
    f = np.float32
    s = x / (f(2.0) + x)
    q = s * s
    p = f(1 / 13)
    p = p * q + f(1 / 11)
    p = p * q + f(1 / 9)
    p = p * q + f(1 / 7)
    p = p * q + f(1 / 5)
    p = p * q + f(1 / 3)
    return f(2.0) * (s + s * q * p)


@inner
def sigmoid(x):
    """1 / (1 + e^-x), from e^-|x| <= 1."""
    one = type_of(x)(1)
    e = exp(-abs(x))
    return (one if x >= 0 else e) / (one + e)


@inner
def softplus(x):
    """log(1 + e^x), from e^-|x| <= 1."""
    return max(x, type_of(x)(0)) + log1p01(exp(-abs(x)))


@inner(fastmath=False)
def shifted(y, by, x):
    """(y - by) + x in this order: y and `by` may be large and close."""
    return (y - by) + x


def type_of(x):
    """The type of a number, to make constants of: float32 * 1.0 would be float64."""
    return type(x)


@overload(type_of)
def _type_of(x):
    kind = np.float32 if x == numba.float32 else np.float64
    return lambda x: kind


@in_float32(math.tanh)
def tanh(x):
    """tanh x. In float32 as 2 σ(2x) - 1, with an absolute error below 2e-7."""
    f = np.float32
    return f(2.0) / (f(1.0) + exp(f(-2.0) * x)) - f(1.0)


# --- activations ----------------------------------------------------------------------------------

LINEAR, TANH, SIGMOID, RELU, LEAKY, ELU, SELU = range(len(ACTIVATIONS))


@kernel
def activate(y: Vector, act: Doubles) -> None:
    """y <- f(y) in place, y (n,). act: an index into ACTIVATIONS, and the activation's a."""
    kind, f = int(act[0]), type_of(y[0])
    zero, one, a = f(0), f(1), f(act[1])
    if kind == TANH:
        for j in range(len(y)):
            y[j] = tanh(y[j])
    elif kind == SIGMOID:
        for j in range(len(y)):
            y[j] = sigmoid(y[j])
    elif kind == RELU:
        for j in range(len(y)):
            y[j] = zero if y[j] < zero else y[j]
    elif kind == LEAKY:
        for j in range(len(y)):
            y[j] = y[j] if y[j] > zero else a * y[j]
    elif kind != LINEAR:
        alpha = a if kind == ELU else f(SELU_ALPHA)
        scale = one if kind == ELU else f(SELU_SCALE)
        for j in range(len(y)):
            below = alpha * (exp(zero if y[j] > zero else y[j]) - one)
            y[j] = scale * (y[j] if y[j] > zero else below)


@kernel
def activate_backward(g: Vector, y: Vector, act: Doubles) -> None:
    """g <- g * f'(x) in place, from the output y = f(x); both (n,)."""
    kind, f = int(act[0]), type_of(y[0])
    zero, one, a = f(0), f(1), f(act[1])
    if kind == TANH:
        for j in range(len(y)):
            g[j] *= one - y[j] * y[j]
    elif kind == SIGMOID:
        for j in range(len(y)):
            g[j] *= y[j] * (one - y[j])
    elif kind == RELU:
        for j in range(len(y)):
            g[j] = g[j] if y[j] > zero else zero
    elif kind == LEAKY:
        for j in range(len(y)):
            g[j] = g[j] if y[j] > zero else a * g[j]
    elif kind != LINEAR:
        alpha = a if kind == ELU else f(SELU_SCALE * SELU_ALPHA)
        scale = one if kind == ELU else f(SELU_SCALE)
        for j in range(len(y)):
            g[j] *= scale if y[j] > zero else y[j] + alpha


def _turn(builder, i):
    """An integer whose bits but the sign are turned around if it is negative; its own inverse."""
    sign = builder.ashr(i, ir.Constant(i.type, i.type.width - 1))
    return builder.xor(i, builder.and_(sign, ir.Constant(i.type, 2 ** (i.type.width - 1) - 1)))


@intrinsic
def ordered(typingctx, x):
    """The bits of a float32 or float64 as an int32 or int64 that grows with it.

    Of negative numbers the larger bits are the smaller number, so these are turned.
    """
    kind = types.int32 if x == types.float32 else types.int64

    def codegen(context, builder, signature, args):
        return _turn(builder, builder.bitcast(args[0], ir.IntType(kind.bitwidth)))

    return kind(x), codegen


@intrinsic
def unordered(typingctx, i):
    """The number that `ordered` made an integer of."""
    kind = types.float32 if i == types.int32 else types.float64

    def codegen(context, builder, signature, args):
        return builder.bitcast(_turn(builder, args[0]), context.get_value_type(kind))

    return kind(i), codegen


@inner
def largest(y, count):
    """max y_j over the items with count_j > 0; if a y_j is not a number, any number.

    By integers: LLVM makes vector instructions of their running maximum, but not of floats', for
    which NaN would have to be told from the rest.
    """
    lowest = ordered(type_of(y[0])(-3e38))
    highest = lowest
    for j in range(len(y)):
        place = ordered(y[j])  # by itself: what is only read at times fills no vector
        place = place if count[j] > 0 else lowest
        highest = place if place > highest else highest
    return unordered(highest)


# --- the losses of one lane -----------------------------------------------------------------------

CROSS_ENTROPY, BPR, TOP1, BPR_MAX, TOP1_MAX = range(len(LOSSES))


@kernel
def lane_losses(
    raw: Matrix, d_raw: Matrix, scored: int, term: Vector, targets: Ints, count: Vector,
    weight: Vector, log_own: Vector, log_weights: float, kind: int, act: Doubles, bpreg: float,
    smoothing: float, corrects: bool, losses: Vector,
) -> None:  # fmt: skip
    """The loss of each lane over *distinct* items, and its gradient; losses.py has the formulas.

    An item that was drawn c times is scored once and counts c times; loss and gradient are those
    of the c equal columns. The lane's target is one of the columns of item t: the others of that
    item are negatives like all.

    Args:
        raw: (n, >= scored) scores before the activation; activated on return.
        d_raw: as raw; on return, the gradient of each lane's loss with respect to its scores.
        scored: N, the number of distinct items. term: (N,) scratch.
        targets: (n,) each lane's t, the place of its target among the items.
        count: (N,) how many columns each item has; 0 leaves it out. Changed and restored.
        weight: (N,) for cross-entropy, each item's sum of e^-log_q over its columns: the logQ
            correction. Without correction the same as count.
        log_own: (n,) the target column's -log_q, 0 without correction.
        log_weights: sum of log e^-log_q over all columns, 0 without correction; for smoothing.
        kind: an index into LOSSES. act: see `activate`. bpreg, smoothing: as in losses.py.
        corrects: for cross-entropy, the target's weight is 1, with all columns of its item.
        losses: (n,) on return, the loss of each lane.
    """
    f = type_of(raw[0, 0])
    zero, one, two = f(0), f(1), f(2)
    N = scored
    width = raw.shape[1]
    for b in range(len(raw)):
        t = targets[b]
        y, g = vector_at(raw, b * width, N), vector_at(d_raw, b * width, N)
        activate(y, act)
        loss = zero
        pull = zero  # what the negatives together do to the target's score
        n = zero
        for j in range(N):
            n += count[j]
        n -= one

        highest = zero
        if kind != CROSS_ENTROPY:
            count[t] -= one
        if kind != BPR and kind != TOP1:
            highest = largest(y, count)

        if kind == CROSS_ENTROPY:
            of_target = weight[t]
            if corrects:
                weight[t] = one
            total = zero
            for j in range(N):
                g[j] = weight[j] * exp(y[j] - highest)
                total += g[j]
            inverse = one / total
            log_total = f(math.log(total))  # apart from the shift, which would cost it digits
            share = f(smoothing) / max(one, n)
            log_p = zero
            if smoothing > 0:
                for j in range(N):
                    g[j] = g[j] * inverse - share * count[j]
                    log_p += count[j] * shifted(y[j], highest, -log_total)
                log_p += f(log_weights)
            else:
                for j in range(N):
                    g[j] *= inverse
            weight[t] = of_target
            hit = one - f(smoothing) - share
            loss = -hit * (log_own[b] + shifted(y[t], highest, -log_total)) - share * log_p
            pull = hit
        elif kind == BPR or kind == TOP1:
            inverse = one / n
            for j in range(N):
                d = y[j] - y[t]
                above = sigmoid(d)
                if kind == BPR:
                    loss += count[j] * softplus(d)
                    g[j] = count[j] * above * inverse
                    pull += g[j]
                else:
                    size = sigmoid(y[j] * y[j])
                    loss += count[j] * (above + size)
                    d_above = count[j] * above * (one - above) * inverse
                    pull += d_above
                    g[j] = d_above + count[j] * two * y[j] * size * (one - size) * inverse
            loss *= inverse
        else:
            total = zero
            for j in range(N):
                term[j] = exp(y[j] - highest)
                g[j] = count[j] * term[j] if count[j] > 0 else zero
                total += g[j]
            inverse = one / total
            # σ(y_j - y_t) is e^y_j / (e^y_j + e^y_t), of exponentials that are there already;
            # unless y_t is so far below the highest that both may be 0, or so far above that σ may
            # be denormal.
            target = y[t]
            near = f(-40) < target - highest and target - highest < f(7)
            e_t = exp(target - highest)
            if kind == BPR_MAX:
                # Σ s_j σ(y_t - y_j), and the p_j by which its terms share it. Its terms are e^y_j
                # σ(y_t - y_j), the same as e^y_t σ(y_j - y_t): the first form, less e^highest,
                # keeps its largest term near 1 where the target is above all, the second, less
                # e^y_t, where it is not.
                first = one if target > highest else zero
                second = one - first
                chosen = zero
                size = zero
                for j in range(N):
                    above = term[j] / (term[j] + e_t) if near else sigmoid(y[j] - target)
                    size += g[j] * y[j] * y[j]
                    chosen += first * g[j] * (one - above) + second * count[j] * above
                    term[j] = above  # kept: an exponential costs more than a look
                size *= inverse
                reg = f(bpreg)
                below = second * (highest - target)
                loss = f(math.log(total)) - f(math.log(chosen)) + below + reg * size
                first /= chosen
                second /= chosen
                for j in range(N):
                    above, s = term[j], g[j] * inverse
                    p = first * g[j] * (one - above) + second * count[j] * above
                    pull += p * above
                    g[j] = s + reg * s * (two * y[j] + y[j] * y[j] - size) - p * (one - above)
            else:
                for j in range(N):
                    above = term[j] / (term[j] + e_t) if near else sigmoid(y[j] - target)
                    term[j] = above
                    g[j] *= inverse  # s_j
                    loss += g[j] * (above + sigmoid(y[j] * y[j]))
                for j in range(N):
                    above, size = term[j], sigmoid(y[j] * y[j])
                    d_above = g[j] * above * (one - above)
                    pull += d_above
                    s = g[j]
                    g[j] = s * (above + size - loss + two * y[j] * size * (one - size)) + d_above
        if kind != CROSS_ENTROPY:
            count[t] += one
        g[t] -= pull
        activate_backward(g, y, act)
        losses[b] = loss


# --- the softmax over all items -------------------------------------------------------------------


@kernel
def softmax_loss(r: Matrix, y: Ints, losses: Vector) -> None:
    """losses.softmax_loss: r (n, I) <- the gradient of the scores r, and losses (n,)."""
    one, zero = type_of(r[0, 0])(1), type_of(r[0, 0])(0)
    I = r.shape[1]  # noqa: E741
    for i in range(len(r)):
        p = vector_at(r, i * I, I)
        highest = ordered(p[0])  # see `largest`
        for j in range(I):
            place = ordered(p[j])
            highest = place if place > highest else highest
        highest, total = unordered(highest), zero
        target = p[y[i]] - highest
        for j in range(I):
            p[j] = exp(p[j] - highest)
            total += p[j]
        inverse = one / total
        for j in range(I):
            p[j] *= inverse
        p[y[i]] -= one
        losses[i] = type_of(total)(math.log(total)) - target
