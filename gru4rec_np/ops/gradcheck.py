"""Finite differences: check that a hand-written gradient is the derivative of its function.

Tests, tutorials and users share this function. Imports NumPy only.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np


class GradientError(AssertionError):
    """A gradient is not the derivative. The message names the entry with the largest error."""


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

    Each entry p of each array is changed in place by small steps e. The gradient's entry is
    compared with the difference of order four (Fornberg 1988, table 1)
        [8 (f(p+e) - f(p-e)) - (f(p+2e) - f(p-2e))] / 12e.
    Its error is about e⁴ f⁽⁵⁾/30, plus 2e-16 max(1, |f|) / e from the rounding of f. A gradient
    within ten times the rounding error passes.

    Kinks: the difference is wrong if f has a kink (ReLU at 0, a maximum of equals) within 2e of p.
    An entry that fails is therefore tried again with steps of eps/10 and eps/100 while the
    difference changes with the step. Where the one-sided differences disagree, a gradient that
    equals one of them passes: the right gradient does, at one kink or beside it. With several kinks
    it may equal neither, so any other gradient there is not an error, and a RuntimeWarning says so.
    The limit: within eps/50 of a kink a wrong gradient is not found.

        x = rng.normal(size=(3, 4))
        y, cache = thing(x)
        dy = rng.normal(size=y.shape)                # any weights: f = Σ dy * thing(x)
        gradcheck(lambda: (thing(x)[0] * dy).sum(), {"x": x}, {"x": thing_backward(dy, cache)})

    Args:
        f: computes a float from the arrays and reads them at each call. Random numbers in it, such
            as dropout masks, must be the same at each call.
        arrays: name to float64 array. Changed during the check and restored after it.
        gradients: name to the gradient of f with respect to that array, of its shape. Each name
            must be in `arrays`. Arrays without a gradient are not checked.
        rtol: largest relative error |gradient - difference| / max(|gradient|, |difference|).
        eps: the step e.
        entries: check at most this many entries of each array, drawn at random, those with a
            gradient other than 0 first. Check also the derivative along one random direction
            through the whole array, which every wrong entry changes. None: check every entry.
        seed: of the random numbers.

    Raises:
        GradientError: an entry disagrees. The message has the array, the index, both numbers and
            their ratio, which shows a wrong sign (-1) or factor (2, 0.5, 1/B).
        ValueError: a gradient's shape differs from its array's, an array is not float64, or f
            gives two values for the same arrays.
    """
    rng = np.random.default_rng(seed)
    here, again = float(f()), float(f())
    if here != again and not np.isnan(here):
        raise ValueError(
            f"f gives {here!r}, then {again!r} for the same arrays; draw its random numbers once, "
            "before the check"
        )
    failures: list[tuple[float, str]] = []
    kinks: list[str] = []
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
            error, difference, kink = _compare(f, here, array, direction, claimed, rtol, eps)
            if error > rtol and kink:
                kinks.append(f"{name}{place}")
            elif error > rtol:
                ratio = claimed / difference if difference else float("inf")
                text = (
                    f"{name}{place}: gradient {claimed:.9g}, finite difference {difference:.9g}, "
                    f"ratio {ratio:.6g}, relative error {error:.1e} > {rtol:g}"
                )
                failures.append((error, text))
    if failures:
        more = f" ({len(failures) - 1} more entries disagree)" if len(failures) > 1 else ""
        raise GradientError(max(failures, key=lambda failure: failure[0])[1] + more)
    if kinks:
        more = f" and {len(kinks) - 1} more entries" if len(kinks) > 1 else ""
        warnings.warn(
            f"{kinks[0]}{more} could not be checked: f has a kink within {eps / 50:g}, where the "
            "differences on its two sides disagree",
            RuntimeWarning,
            stacklevel=2,
        )


def _choose(gradient: np.ndarray, entries: int | None, rng: np.random.Generator) -> list[tuple]:
    """Indices to check: all, or at most `entries`, those with a gradient other than 0 first."""
    if entries is None or entries >= gradient.size:
        return list(np.ndindex(gradient.shape))
    flat = rng.permutation(gradient.size)
    flat = flat[np.argsort(gradient.ravel()[flat] == 0, kind="stable")][:entries]
    return [tuple(int(i) for i in np.unravel_index(j, gradient.shape)) for j in flat]


def _compare(
    f: Callable[[], float],
    here: float,
    array: np.ndarray,
    direction: np.ndarray,
    claimed: float,
    rtol: float,
    eps: float,
) -> tuple[float, float, bool]:
    """Compare the claimed derivative with the differences of f, whose value is `here`.

    Returns:
        the relative error (0 within rounding), the central difference, and whether f has a kink
        within the last step.
    """

    def error_to(difference: float) -> float:
        gap = abs(claimed - difference)
        if not np.isfinite(gap):
            return np.inf
        return 0.0 if gap <= noise else gap / max(abs(claimed), abs(difference))

    original = array.copy()
    error, difference, kink = np.inf, np.nan, False
    for e in (eps, eps / 10, eps / 100):
        values = []
        try:
            for k in (1, -1, 2, -2):
                array[...] = original + k * e * direction
                values.append(float(f()))
        finally:
            array[...] = original
        plus, minus, plus2, minus2 = values
        before, difference = difference, (8 * (plus - minus) - (plus2 - minus2)) / (12 * e)
        left = (3 * here - 4 * minus + minus2) / (2 * e)  # one-sided, both of order two
        right = (4 * plus - plus2 - 3 * here) / (2 * e)
        noise = 10 * np.finfo(np.float64).eps * max(1.0, abs(here), *map(abs, values)) / e
        # Without a kink these differ by about e³ f⁽⁴⁾/2 only.
        kink = abs(right - left) > max(noise, rtol * max(abs(claimed), abs(difference)))
        if abs(difference - before) <= noise:
            # The smaller step has found the same slope, so the larger step's error stands.
            return error, before, kink
        error = error_to(difference)
        if kink:
            error = min(error, error_to(left), error_to(right))
        if error <= rtol:
            break
    return error, difference, kink
