"""Activation functions of the gates, the hidden layers and the output.

Each derivative is a function of the output y, so the forward pass need not keep its input. Imports
NumPy only.
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
    """e^x for x <= 0, elementwise, but 0 where e^x is negligible beside e^0 = 1.

    The limit is a thousand times the smallest normal number: about e^-80 in float32, e^-701 in
    float64. Products with smaller numbers could be denormal, and some processors take a hundred
    times as long for these.

    Args:
        x: array of floats, any shape; -inf gives 0.
        out: array for the result; may be x.

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
        array of x's shape and dtype. Nothing overflows, because only e^-|x| <= 1 is computed.
    """
    e = exp_or_zero(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def activate(x: np.ndarray, kind: str, a: float = 0.0) -> np.ndarray:
    """y = f(x) for the activation called `kind`, elementwise.

    Args:
        x: array of floats, any shape.
        kind: one of `ACTIVATIONS`.
        a: for `leaky` the slope below 0, for `elu` the depth a (e^x - 1); else unused.

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
            # The minimum prevents an overflow of e^x for the x that do not need it.
            return np.where(x > 0, x, a * np.expm1(np.minimum(x, 0)))
        case "selu":
            return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {kind!r}")


def activate_backward(dy: np.ndarray, y: np.ndarray, kind: str, a: float = 0.0) -> np.ndarray:
    """dx = dy * f'(x), with f' as a function of the output y = f(x).

    At a kink (relu, leaky, elu, selu at 0) it is the derivative from the left.

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
