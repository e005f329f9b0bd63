"""Activation functions of the gates, the hidden layers and the output.

Every derivative is a function of the *output* y, so the forward pass does not store its input.
"""

import numpy as np

# Klambauer et al., "Self-Normalizing Neural Networks" (NIPS 2017), eq. 14.
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772

Activation = tuple[str, float]  # (kind, a), see `activate`
LINEAR: Activation = ("linear", 0.0)
TANH: Activation = ("tanh", 0.0)

ACTIVATIONS = ("linear", "tanh", "sigmoid", "relu", "leaky", "elu", "selu")


def exp_or_zero(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """e^x for x <= 0, elementwise, and 0 where e^x is negligible beside e^0 = 1.

    The limit is e^-80 in float32 and e^-701 in float64, a thousand times the smallest normal
    number. Smaller values make products denormal, which some processors compute a hundred times
    more slowly.

    Args:
        x: array of floats, any shape; -inf gives 0.
        out: array for the result; it may be x.

    Returns:
        array of x's shape and dtype.
    """
    far = x < np.log(np.finfo(x.dtype).tiny) + 7
    return np.exp(np.where(far, -np.inf, x) if far.any() else x, out=out)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function 1 / (1 + e^-x), elementwise.

    Args:
        x: array of floats, any shape.

    Returns:
        array of x's shape and dtype. It never overflows: only e^-|x| <= 1 is computed.
    """
    e = exp_or_zero(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def activate(x: np.ndarray, kind: str, a: float = 0.0) -> np.ndarray:
    """y = f(x) for the activation called `kind`, elementwise.

    Args:
        x: array of floats, any shape.
        kind: one of `ACTIVATIONS`.
        a: slope of `leaky` below 0, or factor of `elu` below 0: a (e^x - 1); others ignore it.

    Returns:
        array of x's shape and dtype (x itself for `linear`).

    Raises:
        ValueError: `kind` is not in `ACTIVATIONS`.
    """
    match kind:
        case "linear":
            return x
        case "tanh":
            return np.tanh(x)
        case "sigmoid":
            return sigmoid(x)
        case "relu":
            return np.maximum(x, 0)
        case "leaky":
            return np.where(x > 0, x, a * x)
        case "elu":
            # The minimum keeps e^x from overflowing where it is not used.
            return np.where(x > 0, x, a * np.expm1(np.minimum(x, 0)))
        case "selu":
            return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {kind!r}")


def activate_backward(dy: np.ndarray, y: np.ndarray, kind: str, a: float = 0.0) -> np.ndarray:
    """dx = dy * f'(x), with f' written in terms of the output y = f(x).

    Args:
        dy: gradient with respect to y, y's shape.
        y: what `activate` returned.
        kind, a: as in `activate`.

    Returns:
        the gradient with respect to x, y's shape (dy itself for `linear`).

    Raises:
        ValueError: `kind` is not in `ACTIVATIONS`.
    """
    match kind:
        case "linear":
            return dy
        case "tanh":
            return dy * (1 - y * y)
        case "sigmoid":
            return dy * y * (1 - y)
        case "relu":
            return dy * (y > 0)
        case "leaky":
            return np.where(y > 0, dy, a * dy)
        case "elu":
            return dy * np.where(y > 0, 1, y + a)
        case "selu":
            return dy * np.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA)
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {kind!r}")
