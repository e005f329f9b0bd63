"""Every hyperparameter of GRU4Rec: its name, default, meaning and what it may be.

The constructor, the command line, TOML files and `--params` strings all come from this one list.
Imports the names of units, losses, optimisers and activations.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar

from gru4rec_np.errors import InputError
from gru4rec_np.ops.activations import ACTIVATIONS, Activation
from gru4rec_np.ops.cells import UNITS
from gru4rec_np.ops.losses import LOSSES
from gru4rec_np.ops.optim import OPTIMISERS

INPUTS = ("onehot", "embedding", "shared", "weighted")


# What a hyperparameter may be: a function from the value given to the value kept, which raises
# ValueError with what is allowed.
Check = Callable[[Any], Any]

# Far beyond what fits in memory, where NumPy would fail in other ways than for want of memory.
MOST = 2**31 - 1  # of anything that is counted
WIDEST = 2**28  # units of a layer, whose matrices have up to four times the square


def number(
    low: float, below: float = math.inf, above: bool = False, most: float = math.inf
) -> Check:
    """low <= value < below, value <= most, or low < value with `above`; kept as float."""
    wanted = f"a number {'>' if above else '>='} {low}"
    wanted += f" and < {below}" if below < math.inf else ""
    wanted += f" and <= {most}" if most < math.inf else ""

    def check(value: Any) -> float:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not (low < value if above else low <= value) or not value < below:
            raise ValueError(wanted)
        if value > most:
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


def _sizes(at_least: int) -> Check:
    """A list of that many whole numbers >= 1 or more."""
    wanted, size = f"a list of whole numbers >= 1 and <= {WIDEST}", whole(1, WIDEST)

    def check(value: Any) -> list[int]:
        is_list = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
        sizes = list(value) if is_list else []
        if not is_list or len(sizes) < at_least:
            raise ValueError(wanted)
        try:
            return [size(v) for v in sizes]
        except ValueError:
            raise ValueError(wanted) from None

    return check


def _one_of(names: Collection[str]) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return value

    return check


def flag(value: Any) -> bool:
    """True or False, nothing that only counts as one."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def parse_activation(text: str) -> Activation:
    """("elu", 0.5) for "elu-0.5". Without a number: 1 for elu, 0.01 for leaky."""
    kind, _, a = text.partition("-")
    return kind, float(a) if a else {"elu": 1.0, "leaky": 0.01}.get(kind, 0.0)


def _activation(*more: str) -> Check:
    """An activation, leaky and elu possibly with a number; or one of `more`."""

    def check(value: Any) -> str:
        if isinstance(value, str):
            kind, dash, _ = value.partition("-")
            try:
                _, a = parse_activation(value)
            except ValueError:
                a = math.nan
            takes_it = not dash or kind in ("elu", "leaky")
            if value in more or (kind in ACTIVATIONS and takes_it and 0 <= a < math.inf):
                return value
        names = ", ".join((*more, *ACTIVATIONS))
        raise ValueError(f"one of {names} (leaky and elu with a number if you like: elu-0.5)")

    return check


def declare(default: Any, help: str, check: Check) -> Any:
    """A dataclass field, with what `--help` says of it and what it may be."""
    metadata = {"help": help, "check": check}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Checked:
    """Hyperparameters of a model: a frozen dataclass whose fields `declare` made.

    Each field's check runs at construction and may convert the value.

    Attributes:
        fixed: names of those that trained weights depend on.

    Raises:
        InputError: a value is not allowed; the message has name, value and what is.
    """

    fixed: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, field.metadata["check"](value))
            except (ValueError, OverflowError) as error:
                raise InputError(f"{field.name}: must be {error}, not {value!r}") from None

    def as_dict(self) -> dict[str, Any]:
        """All of them as plain values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Hyperparameters(Checked):
    """What GRU4Rec can be told. The names are those that GRU4Rec's users know.

    Raises:
        InputError: a value is not allowed; the message has name, value and what is.
    """

    fixed: ClassVar = (
        "layers", "unit", "input", "embedding", "discount", "reset_after", "hidden_act",
        "input_to_all_layers", "feedforward",
    )  # fmt: skip

    layers: Sequence[int] = declare([100], "units of each recurrent layer", _sizes(1))
    unit: str = declare(
        "gru",
        "what these are: gru, lstm, or rnn (the simple one, without gates)",
        _one_of(UNITS),
    )
    input: str = declare(
        "shared",
        "how an item enters: onehot (a row of the gates' weights), embedding (its own table), "
        "shared (the output table), weighted (the session so far, discounted, as 1-of-N)",
        _one_of(INPUTS),
    )
    embedding: int = declare(
        0, "width of the embedding, with input=embedding; 0: as layer 1", whole(0, WIDEST)
    )
    discount: float = declare(
        0.5,
        "with input=weighted, how much less an event counts one click later",
        # With a weaker one the history that counts would hardly end.
        number(0, above=True, most=0.99),
    )
    reset_after: bool = declare(
        True,
        "with unit=gru, its reset gate applies after the recurrent product (cuDNN), not before it "
        "(paper)",
        flag,
    )
    hidden_act: str = declare(
        "tanh",
        "activation of a unit's candidate state (with lstm, of its memory too, as it shows) and of "
        "feed-forward layers: " + ", ".join(ACTIVATIONS),
        _activation(),
    )
    input_to_all_layers: bool = declare(False, "the input also feeds every deeper layer", flag)
    feedforward: Sequence[int] = declare(
        [], "units of each feed-forward layer after the recurrent ones", _sizes(0)
    )
    bptt: int = declare(
        1,
        "steps that the gradient goes back in time; weights change after as many",
        whole(1),
    )
    loss: str = declare("cross-entropy", f"the ranking loss: {', '.join(LOSSES)}", _one_of(LOSSES))
    final_act: str = declare(
        "auto",
        "activation of the scores, or auto: elu for bpr-max if elu_param > 0, else linear",
        _activation("auto"),
    )
    elu_param: float = declare(
        0.5, "depth of the elu that bpr-max puts on its scores (auto); 0: none", number(0)
    )
    bpreg: float = declare(1.0, "score regularisation of bpr-max", number(0))
    smoothing: float = declare(0.0, "label smoothing of cross-entropy", number(0, 1))
    logq: float = declare(
        1.0,
        "strength of the correction of cross-entropy for how samples were drawn",
        number(0, most=4),  # support^-logq should stay a float32, whatever is sold most
    )
    n_sample: int = declare(2048, "extra negatives a step, shared by the lanes", whole(0))
    sample_alpha: float = declare(
        0.75, "they are drawn by support^sample_alpha: 0 uniform, 1 popularity", number(0)
    )
    batch_size: int = declare(32, "lanes: sessions side by side", whole(1))
    n_epochs: int = declare(5, "passes over the training sessions", whole(1))
    train_random_order: bool = declare(
        False, "shuffle the sessions before each epoch instead of using them by time", flag
    )
    adapt: str = declare("adagrad", f"the optimiser: {', '.join(OPTIMISERS)}", _one_of(OPTIMISERS))
    learning_rate: float = declare(
        0.1,
        "its step size: 0.1 suits adagrad, 0.002 adam, 0.01 rmsprop, 3 adadelta",
        number(0, above=True),
    )
    momentum: float = declare(0.0, "its momentum", number(0, 1))
    dropout_p_embed: float = declare(0.1, "share of the input embedding dropped", number(0, 1))
    dropout_p_hidden: float = declare(0.0, "share of each layer's output dropped", number(0, 1))
    lmbd: float = declare(0.0, "L2 regularisation of the weights that a step uses", number(0))
    grad_cap: float = declare(0.0, "largest norm of a step's gradient; 0: no limit", number(0))
    sigma: float = declare(
        0.0, "scale of the initial weights; 0: sqrt(6 / (rows + columns))", number(0)
    )
    init_as_normal: bool = declare(False, "draw them from a normal distribution", flag)
    seed: int = declare(0, "seed of everything random", whole(0, math.inf))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding and self.input != "embedding":
            raise InputError(
                f"embedding: {self.embedding} goes with input='embedding', not {self.input!r}"
            )
        if self.smoothing and self.loss != "cross-entropy":
            raise InputError(
                f"smoothing: {self.smoothing} goes with loss='cross-entropy', not {self.loss!r}"
            )
        if self.n_sample == 0 and self.batch_size < 2:
            raise InputError("batch_size: 1 lane needs n_sample > 0, there are no other negatives")

    @property
    def final_activation(self) -> Activation:
        """(kind, a) of the output activation, `auto` decided."""
        if self.final_act == "auto":
            use_elu = self.loss == "bpr-max" and self.elu_param > 0
            return ("elu", self.elu_param) if use_elu else ("linear", 0.0)
        return parse_activation(self.final_act)

    @property
    def hidden_activation(self) -> Activation:
        """(kind, a) of the candidate's activation."""
        return parse_activation(self.hidden_act)


FIELDS = {field.name: field for field in dataclasses.fields(Hyperparameters)}
NAMES = tuple(FIELDS)
DEFAULTS = Hyperparameters().as_dict()


def parse_value(name: str, text: str) -> Any:
    """The value that `text` stands for, of the type that the hyperparameter has.

    Args:
        name: one of `NAMES`. text: `100/50` or `100,50` for a list, `true`, `1`, `0.5`, a name.

    Raises:
        InputError: the text is not of that type.
    """
    kind = type(DEFAULTS[name])
    try:
        if kind is list:
            return [int(part) for part in text.replace(",", "/").split("/") if part]
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        wanted = {
            list: "whole numbers like 100 or 100/50",
            bool: "true or false",
            int: "a whole number",
            float: "a number",
        }[kind]
        raise InputError(f"{name}: must be {wanted}, not {text[:60]!r}") from None


def parse_params(text: str, input_before: str = "onehot") -> dict[str, Any]:
    """Hyperparameters from a string as GRU4Rec's users keep them.

    `layers=224,batch_size=80,loss=bpr-max,constrained_embedding=True`; lists as 100/50. There
    constrained_embedding=True means input=shared, embedding=N or embedding=layersize means
    input=embedding, neither means input=onehot (an explicit input= wins).

    Args:
        text: the string; an empty one sets nothing.
        input_before: the `input` that was set elsewhere and stays if the string says neither.

    Raises:
        InputError: a part is no name=value, a name is unknown or given twice, a value unusable.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"--params: {part!r} is not of the form name=value")
        if name != "constrained_embedding":
            check_names([name], "--params")
        if name in found:
            raise InputError(f"--params: {name} is given twice")
        found[name] = value
    if not found:
        return {}

    denied = "constrained_embedding" in found  # unless it is True, see below
    constrained = found.pop("constrained_embedding", "False")
    if constrained.lower() not in ("true", "false", "1", "0"):
        raise InputError(f"constrained_embedding: must be true or false, not {constrained!r}")
    if found.get("embedding") == "layersize":
        found["embedding"] = "0"
        own_table = True
    else:
        own_table = found.get("embedding", "0") != "0"
    encoding = "embedding" if own_table else input_before
    if denied and encoding == "shared":
        encoding = "onehot"
    if constrained.lower() in ("true", "1"):
        if own_table:
            raise InputError(
                "--params: constrained_embedding=True and embedding exclude each other"
            )
        encoding = "shared"
    found.setdefault("input", encoding)
    return {name: parse_value(name, value) for name, value in found.items()}


def check_names(names: Iterable[str], where: str) -> None:
    """Raise InputError for a name that is no hyperparameter."""
    for name in names:
        if name not in NAMES:
            raise InputError(f"{where}: unknown name {name!r}; known are {', '.join(NAMES)}")
