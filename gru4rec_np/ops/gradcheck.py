"""Finite differences: is a hand-written gradient the derivative of its function?

Tests, tutorials and users share this one function. Imports NumPy only.
"""

from collections.abc import Callable, Mapping

import numpy as np

Sides = tuple[float, float]  # the differences below and above p


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
    """Compare gradients with finite differences of f, entry by entry.

        x = rng.normal(size=(3, 4))
        y, cache = thing(x)
        dy = rng.normal(size=y.shape)                # any weights: f = Σ dy * thing(x)
        gradcheck(lambda: (thing(x)[0] * dy).sum(), {"x": x}, {"x": thing_backward(dy, cache)})

    The check moves an entry p in place by a small step e and calls f. It compares the gradient with
    the central difference [8 (f(p+e) - f(p-e)) - (f(p+2e) - f(p-2e))] / 12e. Its truncation error
    is e⁴ f⁽⁵⁾/30 (Abramowitz & Stegun 1964, table 25.2). Its rounding error is about
    2e-16 max(1, |f|) / e. A gradient within ten times the rounding error passes.

    A kink of f (ReLU at 0) within 2e of p spoils the central difference. So a failed entry is tried
    again with e/10 and e/100. If the differences above and below p disagree, there is a kink.
    Then a gradient that equals one of them passes too: the side without the kink is right.

    Limits: closer to a kink than eps/50, every gradient between the differences above and below p
    passes, because f does not show which one is right. One outside them fails, and the message
    gives both differences. Several kinks within 2e of an entry can hide one another; then even a
    right gradient can fail. A random direction that fails at a kink is halved, down to entries.

    Args:
        f: computes a float from the arrays, reading them at each call. Random numbers in it, such
            as dropout masks, must be the same at each call.
        arrays: name to array, float64. Changed during the check, restored after it.
        gradients: name to the gradient of f with respect to that array, of its shape. Every name
            must be in `arrays`. Arrays without a gradient are not checked.
        rtol: largest relative error |gradient - difference| / max(|gradient|, |difference|).
        eps: the first step e.
        entries: check only this many entries of each array, drawn at random; entries with a
            non-zero gradient come first. The derivative along one random direction through the
            whole array is checked too: any wrong entry changes it. None checks every entry.
        seed: of the drawing.

    Raises:
        GradientError: an entry disagrees. The message has the array, the index, both numbers and
            their ratio, which shows a wrong sign (-1) or factor (2, 0.5, 1/B) at once.
        KeyError: `arrays` lacks a name of `gradients`.
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
        # Each check moves some entries (flat indices) along a direction with these components.
        checks = [(np.array([j]), np.ones(1)) for j in _choose(gradient, entries, rng)]
        if entries is not None and array.size:
            random = rng.normal(size=array.shape) / np.sqrt(array.size)
            checks.append((np.arange(array.size), random.ravel()))
        for moved, direction in checks:
            claimed = float(gradient.ravel()[moved] @ direction)
            error, difference, sides = _compare(f, array, moved, direction, claimed, rtol, eps)
            if error <= rtol:
                continue
            if sides and len(moved) > 1:
                # Several kinks along it can hide one another. Both halves are checked instead.
                for half in np.array_split(np.arange(len(moved)), 2):
                    checks.append((moved[half], direction[half] if len(half) > 1 else np.ones(1)))
                continue
            place = " along a random direction"
            if len(moved) == 1:
                index = np.unravel_index(moved[0], array.shape)
                place = f"[{', '.join(map(str, index))}]"
            if sides:
                found = (
                    f"outside the one-sided differences {sides[0]:.9g} and {sides[1]:.9g} "
                    f"at a kink within {eps / 50:.3g}"
                )
            else:
                ratio = claimed / difference if difference else float("inf")
                found = f"finite difference {difference:.9g}, ratio {ratio:.6g}"
            text = f"gradient {claimed:.9g}, {found}, relative error {error:.1e} > {rtol:g}"
            failures.append((error, f"{name}{place}: {text}"))
    if failures:
        more = f" ({len(failures) - 1} more entries disagree)" if len(failures) > 1 else ""
        raise GradientError(max(failures, key=lambda failure: failure[0])[1] + more)


def _choose(gradient: np.ndarray, entries: int | None, rng: np.random.Generator) -> np.ndarray:
    """Flat indices to check: all, or at most `entries`, those with a non-zero gradient first."""
    if entries is None or entries >= gradient.size:
        return np.arange(gradient.size)
    flat = rng.permutation(gradient.size)
    return flat[np.argsort(gradient.ravel()[flat] == 0, kind="stable")][:entries]


def _compare(
    f: Callable[[], float],
    array: np.ndarray,
    moved: np.ndarray,
    direction: np.ndarray,
    claimed: float,
    rtol: float,
    eps: float,
) -> tuple[float, float, Sides | None]:
    """Relative error of the claimed derivative, the difference, and both sides' if they disagree.

    Errors within rounding count as 0.
    """
    original = array.flat[moved]

    def value(t: float) -> float:
        array.flat[moved] = original + t * direction
        return float(f())

    def error_from(low: float, high: float, noise: float) -> float:
        """How far the claimed derivative is outside [low, high]."""
        gap = max(low - claimed, claimed - high, 0.0)
        if gap <= noise < np.inf:
            return 0.0
        nearest = low if claimed < low else high
        error = gap / max(abs(claimed), abs(nearest))
        return error if np.isfinite(error) else np.inf

    error, difference, kink = np.inf, np.nan, False
    try:
        for e in (eps, eps / 10, eps / 100):
            values = [value(k * e) for k in (1, -1, 2, -2)]
            plus, minus, plus2, minus2 = values
            before, difference = difference, (8 * (plus - minus) - (plus2 - minus2)) / (12 * e)
            noise = 10 * np.finfo(np.float64).eps * max(1.0, *map(abs, values)) / e
            error_before, error = error, error_from(difference, difference, noise)
            if e == eps and error <= rtol:
                return error, difference, None
            middle, kink_before, kink = value(0), kink, False
            if not np.isfinite([middle, *values]).all():
                continue
            # From one side only, order two (Abramowitz & Stegun 1964, table 25.2).
            below = (3 * middle - 4 * minus + minus2) / (2 * e)
            above = (4 * plus - 3 * middle - plus2) / (2 * e)
            kink = _differ(below, above, noise, rtol)
            if abs(difference - before) <= noise and not (kink or kink_before):
                # The smaller step found the same slope, so the first error stands.
                return error_before, before, None
            if kink:
                error = min(error, *(error_from(side, side, 2 * noise) for side in (below, above)))
            if error <= rtol:
                return error, difference, None
        if not kink:
            return error, difference, None
        # Order one: here a kink between e and 2e does not count.
        sides = (middle - minus) / e, (plus - middle) / e
        error = error_from(min(sides), max(sides), 2 * noise)
        return error, sum(sides) / 2, sides if _differ(*sides, noise, rtol) else None
    finally:
        array.flat[moved] = original


def _differ(one: float, other: float, noise: float, rtol: float) -> bool:
    """Whether two differences are further apart than rounding and tolerance explain."""
    return abs(one - other) > noise + rtol * max(abs(one), abs(other))
