"""What a search may try: the hyperparameters' ranges, read from TOML.

    [layers]
    range = [64, 512]           # whole numbers, or with a decimal point any numbers
    step = 32                   # left out: any value; `log = true` draws on a logarithmic scale

    [bpreg]
    range = [0.0, 2.0]
    when = { loss = "bpr-max" }  # only where an earlier parameter has this value, or one of a list

    [input]
    values = ["shared"]         # one of these; a single value is fixed

`base = "gru4rec"` before all of it takes what the file leaves out from another space.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gru4rec_np.console import cli
from gru4rec_np.errors import InputError, naming
from gru4rec_np.models import BASELINES, NETWORKS
from gru4rec_np.models.base import Model

if TYPE_CHECKING:
    import optuna

# The spaces that are shipped with the program, by name.
SPACES = {p.stem: p for p in sorted(Path(__file__).with_name("spaces").glob("*.toml"))}
# The models that can be searched, by the names that --models takes.
MODELS: dict[str, type[Model]] = {
    model.name.lower(): model
    for model in (*NETWORKS.values(), *(BASELINES[n] for n in ("BPR-MF", "V-SKNN", "Item-KNN")))
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyperparameter and what it may be.

    Attributes:
        values: to choose from; empty if it has a range.
        low, high: of the range, both included. step: between values; None for any.
        log: draw on a logarithmic scale.
        when: earlier parameters, each with the values that make this one matter.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value, from a trial of Optuna. A single value is not Optuna's business."""
        if len(self.values) == 1:
            return self.values[0]
        if self.values:
            return trial.suggest_categorical(self.name, self.values)
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = int(self.step or 1)
            return trial.suggest_int(self.name, self.low, self.high, step=step, log=self.log)
        value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        # 0.30000000000000004 and 0.3 are one value in best.toml and trials.csv.
        return round(value, 12) if self.step else value

    def matters(self, chosen: dict[str, Any]) -> bool:
        """Whether the conditions hold for the earlier parameters' values."""
        return all(chosen.get(name) in values for name, values in self.when)


Space = tuple[Parameter, ...]


def suggest(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Hyperparameters of a trial. Those whose condition does not hold are left out."""
    chosen: dict[str, Any] = {}
    for parameter in space:
        if parameter.matters(chosen):
            chosen[parameter.name] = parameter.suggest(trial)
    return chosen


def make(model: type[Model], chosen: dict[str, Any], seed: int, backend: str) -> Model:
    """The untrained model of these hyperparameters.

    Raises:
        InputError: the model refuses a value.
    """
    known = model.__signature__.parameters
    values = {
        name: [value] if isinstance(known[name].default, list) and type(value) is int else value
        for name, value in chosen.items()
    }
    values |= {name: v for name, v in (("seed", seed), ("backend", backend)) if name in known}
    return model(**values)


def read_space(text: str | dict[str, Any], model: type[Model]) -> Space:
    """The space of a TOML file, or of a shipped name.

    Args:
        text: the file's path, what it holds, or one of `SPACES`.
        model: whose hyperparameters it names.

    Raises:
        InputError: no such file or name, or something in it that cannot be used.
    """
    path, tables = _tables(text)
    known = [n for n in model.__signature__.parameters if n not in ("seed", "backend", "shop")]
    found: list[Parameter] = []
    for name, table in tables.items():
        if name not in known:
            raise InputError(
                f"{path}: {name}: {model.name} has no such hyperparameter; it has "
                f"{', '.join(known)}"
            )
        try:
            found.append(_parameter(name, table, found))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: {name}: {error}") from None
    if not found:
        raise InputError(f"{path}: names no hyperparameter")
    space = tuple(found)
    _check_values(space, model, str(path))
    return space


def _tables(text: str | dict[str, Any], depth: int = 0) -> tuple[Path, dict[str, Any]]:
    """A space's file and its tables, with those of the space that it is based on.

    Raises:
        InputError: see `read_space`.
    """
    if isinstance(text, dict):
        path, tables = Path("space"), dict(text)
    else:
        path, tables = cli.read_toml(text, SPACES, "space")
    base = tables.pop("base", None)
    if base is None:
        return path, tables
    if not isinstance(base, str) or depth > 9:
        raise InputError(f"{path}: base: must be the name of another space, not {base!r}")
    return path, _tables(base, depth + 1)[1] | tables


def _parameter(name: str, table: Any, earlier: list[Parameter]) -> Parameter:
    """One table of the file.

    Raises:
        TypeError, ValueError: what is wrong with it.
    """
    if not isinstance(table, dict):
        raise ValueError('must be a table with "values" or "range"')
    if unknown := set(table) - {"values", "range", "step", "log", "when"}:
        raise ValueError(f"unknown {min(unknown)!r}; known are values, range, step, log, when")
    if ("values" in table) == ("range" in table):
        raise ValueError('needs one of "values" and "range"')
    when = []
    conditions = table.get("when", {})
    if not isinstance(conditions, dict):
        raise ValueError('when: must be like { loss = "bpr-max" }')
    for other, wanted in conditions.items():
        if other not in {p.name for p in earlier}:
            raise ValueError(f"when: {other!r} must be a parameter that stands before it")
        when.append((other, tuple(wanted) if isinstance(wanted, list) else (wanted,)))
    if "values" in table:
        values = table["values"]
        if not isinstance(values, list) or not values:
            raise ValueError("values: must be a list of at least one value")
        if {"step", "log"} & set(table):
            raise ValueError("step and log belong to a range")
        if any(isinstance(v, list | dict) for v in values):
            raise ValueError("values: must be numbers, texts, true or false")
        return Parameter(name, tuple(values), when=tuple(when))
    ends, step, log = table["range"], table.get("step"), table.get("log", False)
    numbers = [*ends, *([] if step is None else [step])] if isinstance(ends, list) else []
    if len(numbers) < 2 or not all(_is_number(v) for v in numbers) or len(ends) != 2:
        raise ValueError(f"range: must be two numbers, and step one, not {ends!r}")
    low, high = ends
    if not low < high:
        raise ValueError(f"range: must go up, not from {low} to {high}")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"step: must be > 0 and at most the range, not {step}")
    if not isinstance(log, bool):
        raise ValueError(f"log: must be true or false, not {log!r}")
    if log and (low <= 0 or step is not None):
        raise ValueError("log: needs a range above 0 and no step")
    if isinstance(low, int) and isinstance(high, int):
        if step is not None and not isinstance(step, int):
            raise ValueError(f"step: must be a whole number, as the range is, not {step}")
    else:
        low, high = float(low), float(high)
    if step is not None:  # the last value that the steps reach
        high = type(low)(round(low + math.floor((high - low) / step + 1e-9) * step, 12))
    return Parameter(name, (), low, high, step, log, tuple(when))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _check_values(space: Space, model: type[Model], path: str) -> None:
    """Let the model check the ends of each range and each value, in every valid combination.

    Raises:
        InputError: the model refuses one.
    """
    choices = [p for p in space if p.values]
    for values in itertools.islice(itertools.product(*(p.values for p in choices)), 256):
        fixed = {p.name: v for p, v in zip(choices, values, strict=True)}
        for end in ("low", "high"):
            chosen: dict[str, Any] = {}
            for p in space:
                if p.matters(chosen):
                    chosen[p.name] = fixed[p.name] if p.values else getattr(p, end)
            with naming(path):
                make(model, chosen, 0, "numpy")
