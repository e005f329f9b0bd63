"""Checks of values, and `Checked`: hyperparameters whose fields check themselves.

A field has its default, its text for `--help` and its check in one place, see `declare`.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, ClassVar

from gru4rec_np.errors import InputError

# Takes the value given, returns the value kept. Raises ValueError with what is allowed.
Check = Callable[[Any], Any]

# Larger values never fit in memory, but NumPy would fail on them with something else than
# MemoryError.
MOST = 2**31 - 1  # largest count of anything
WIDEST = 2**28  # most units of a layer, whose matrices have up to four times the square


def number(
    low: float, below: float = math.inf, above: bool = False, most: float = math.inf
) -> Check:
    """low <= value < below, value <= most, or low < value with `above`; kept as float."""
    wanted = f"a number {'>' if above else '>='} {low}"
    wanted += f" and < {below}" if below < math.inf else ""
    wanted += f" and <= {most}" if most < math.inf else ""

    def check(value: Any) -> float:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not low <= value < below or value > most or (above and value == low):
            raise ValueError(wanted)
        return float(value)

    return check


def whole(low: int, most: float = MOST) -> Check:
    """low <= value <= most without a fraction; kept as int."""
    wanted = f"a whole number >= {low}" + (f" and <= {most}" if most < math.inf else "")

    def check(value: Any) -> int:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not low <= value <= most or value != int(value):
            raise ValueError(wanted)
        return int(value)

    return check


def flag(value: Any) -> bool:
    """True or False; not 0, 1 or text."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def allowed(check: Check) -> str:
    """The values that a check accepts, in words, without bounds that only memory sets."""
    try:
        check(object())
    except ValueError as error:
        return str(error).replace(f" and <= {MOST}", "").replace(f" and <= {WIDEST}", "")
    raise TypeError("this check accepts anything")


def declare(default: Any, help: str, check: Check) -> Any:
    """A dataclass field with its text for `--help` and its check."""
    metadata = {"help": help, "check": check}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Checked:
    """Hyperparameters of a model: a frozen dataclass with fields made by `declare`.

    Each field's check runs at construction and may convert the value.

    Attributes:
        fixed: the names on which trained weights depend.
        earlier: for names that files of earlier versions lack, what held then.

    Raises:
        InputError: a value is not allowed. The message has the name, the value and the range.
    """

    fixed: ClassVar[tuple[str, ...]] = ()
    earlier: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, field.metadata["check"](value))
            except (ValueError, OverflowError) as error:
                raise InputError(
                    f"{field.name}: must be {error}, not {repr(value)[:100]}"
                ) from None

    def as_dict(self) -> dict[str, Any]:
        """All of them as plain values."""
        return dataclasses.asdict(self)
