"""Finite differences: is a hand-written gradient the derivative of what it claims to be?

Tests, tutorials and users share this one function.
"""

from collections.abc import Callable, Mapping

import numpy as np


class GradientError(AssertionError):
    """A gradient that is not the derivative; the message names the entry that is furthest off."""


def gradcheck(
    f: Callable[[], float],
    arrays: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    rtol: float = 1e-6,
    eps: float = 1e-4,
    entries: int | None = None,
    seed: int = 0,
) -> None:
    """Compare gradients with central differences of f, entry by entry.

    Each entry p of each array is moved in place by small steps e, f is called, and
    [8 (f(p+e) - f(p-e)) - (f(p+2e) - f(p-2e))] / 12e is compared with the gradient's entry. This
    difference of order four has an error of about e⁴ f⁽⁵⁾/30, and a rounding error of about
    2e-16 max(1, |f|) / e. Errors below ten times the latter pass.

    A kink of f (a ReLU's, say) within 2e of p spoils the difference. Then the check repeats with
    steps ten and a hundred times smaller. The limit: within the smallest step, eps / 100, the two
    one-sided differences disagree, and no difference can tell the derivative. There a gradient
    passes if it lies between them, and the message for any other one names the kink.

        x = rng.normal(size=(3, 4))
        y, cache = thing(x)
        dy = rng.normal(size=y.shape)                # any weights: f = Σ dy * thing(x)
        gradcheck(lambda: (thing(x)[0] * dy).sum(), {"x": x}, {"x": thing_backward(dy, cache)})

    Args:
        f: computes a float from the arrays, reading them at each call. Random numbers in it, such
            as dropout masks, must be the same at each call.
        arrays: name to array, float64; changed during the check and left as they were.
        gradients: name to the gradient of f with respect to that array, of its shape. Names that
            are not in `arrays` are an error, names missing from it are not checked.
        rtol: largest relative error |gradient - difference| / max(|gradient|, |difference|).
        eps: the step e.
        entries: check only this many entries of each array, drawn at random, those with a
            gradient that is not 0 first; and the derivative along one random direction through
            the whole array, which any wrong entry changes. None checks every entry.
        seed: of the drawing.

    Raises:
        GradientError: an entry disagrees. The message has the array, the index, both numbers and
            their ratio, which shows a sign (-1) or a factor (2, 0.5, 1/B) at once.
        ValueError: a gradient's shape differs from its array's, an array is not float64.
    """
    rng = np.random.default_rng(seed)
    failures: list[tuple[float, str]] = []
    for name, gradient in gradients.items():
        array = arrays[name]
        if array.dtype != np.float64:
            raise ValueError(f"{name} is {array.dtype}; finite differences need float64")
        if gradient.shape != array.shape:
            raise ValueError(f"{name} has shape {array.shape}, its gradient {gradient.shape}")
        checks = []  # (place, direction, claimed derivative)
        for index in _choose(gradient, entries, rng):
            direction = np.zeros_like(array)
            direction[index] = 1
            checks.append((f"[{', '.join(map(str, index))}]", direction, float(gradient[index])))
        if entries is not None and array.size:
            direction = rng.normal(size=array.shape) / np.sqrt(array.size)
            claimed = float((gradient * direction).sum())
            checks.append((" along a random direction", direction, claimed))
        for place, direction, claimed in checks:
            error, difference, kink = _compare(f, array, direction, claimed, rtol, eps)
            if error > rtol:
                ratio = claimed / difference if difference else float("inf")
                text = (
                    f"{name}{place}: gradient {claimed:.9g}, finite difference {difference:.9g}, "
                    f"ratio {ratio:.6g}, relative error {error:.1e} > {rtol:g}{kink}"
                )
                failures.append((error, text))
    if failures:
        more = f" ({len(failures) - 1} more entries disagree)" if len(failures) > 1 else ""
        raise GradientError(max(failures, key=lambda failure: failure[0])[1] + more)


def _choose(gradient: np.ndarray, entries: int | None, rng: np.random.Generator) -> list[tuple]:
    """Indices to check: all, or at most `entries`, live ones first."""
    if entries is None or entries >= gradient.size:
        return list(np.ndindex(gradient.shape))
    flat = rng.permutation(gradient.size)
    flat = flat[np.argsort(gradient.ravel()[flat] == 0, kind="stable")][:entries]
    return [tuple(int(i) for i in np.unravel_index(j, gradient.shape)) for j in flat]


def _compare(
    f: Callable[[], float],
    array: np.ndarray,
    direction: np.ndarray,
    claimed: float,
    rtol: float,
    eps: float,
) -> tuple[float, float, str]:
    """Relative error of the claimed derivative (0 within rounding), the difference, and a remark.

    The remark is about a kink, or empty.
    """
    original = array.copy()

    def at(step: float) -> float:
        array[...] = original + step * direction
        return float(f())

    def error_of(difference: float, noise: float) -> float:
        gap = abs(claimed - difference)
        error = 0.0 if gap <= noise < np.inf else gap / max(abs(claimed), abs(difference))
        return error if np.isfinite(error) else np.inf

    error, difference, smallest = np.inf, np.nan, eps / 100
    try:
        for e in (eps, eps / 10, smallest):
            values = plus, minus, plus2, minus2 = at(e), at(-e), at(2 * e), at(-2 * e)
            before, difference = difference, (8 * (plus - minus) - (plus2 - minus2)) / (12 * e)
            noise = 10 * np.finfo(np.float64).eps * max(1.0, *map(abs, values)) / e
            still = abs(difference - before) <= noise
            if still:  # the smaller step has found the same slope, so the first error stands
                difference = before
                break
            error = error_of(difference, noise)
            if error <= rtol:
                return error, difference, ""
        middle = at(0)
        sides = [(at(e) - middle) / e for e in (smallest, -smallest, eps / 10, -eps / 10)]
    finally:
        array[...] = original
    if not np.isfinite([middle, *sides]).all():
        return error, difference, ""
    # The gradient is wrong, or a kink lies near p. Where f is smooth, the gap between the one-sided
    # differences shrinks with the step. Where the step reaches over a kink, it does not.
    right, left = sides[:2]
    noise = 10 * np.finfo(np.float64).eps * max(1.0, abs(middle)) / smallest
    slack = noise + rtol * max(abs(left), abs(right))
    is_kink = abs(right - left) > 0.15 * abs(sides[2] - sides[3]) + slack
    inside = is_kink and min(left, right) - slack <= claimed <= max(left, right) + slack
    if inside or min(abs(claimed - left), abs(claimed - right)) <= slack:
        return 0.0, difference, ""
    if is_kink:
        kink = f"; f has a kink within {smallest:g}: one-sided differences {left:.6g}, {right:.6g}"
        return error, difference, kink
    if not still:  # a kink within two steps, but not within one
        difference = (left + right) / 2
        error = error_of(difference, noise)
    return error, difference, ""
