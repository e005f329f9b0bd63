"""Every hyperparameter of GRU4Rec: its name, default, meaning and range.

The constructor, the command line, TOML files and `--params` all read this one list.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar

from gru4rec_np.errors import InputError
from gru4rec_np.models.checked import WIDEST, Check, Checked, declare, flag, number, whole
from gru4rec_np.ops.activations import ACTIVATIONS, Activation
from gru4rec_np.ops.cells import UNITS
from gru4rec_np.ops.losses import LOSSES
from gru4rec_np.ops.optim import OPTIMISERS

ALL = "all"  # of n_sample: score the whole catalogue instead of samples
INPUTS = ("onehot", "embedding", "shared", "weighted")

# GRU4Rec as its papers and the reference implementation have it, where the defaults differ. Files
# that lack one of these names mean this, too.
PUBLISHED: dict[str, Any] = {
    "skip": False, "fade": 0.0, "cosine": 0.0, "repeat": 0.0, "decay": False,
    "dropout_p_embed": 0.1, "n_sample": 2048,
}  # fmt: skip


def _whole_or_all(value: Any) -> int | str:
    """A whole number >= 0, or `ALL`."""
    if isinstance(value, str) and value == ALL:
        return value
    try:
        return whole(0)(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {ALL}") from None


def _sizes(at_least: int) -> Check:
    """A list of at least that many whole numbers >= 1."""
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


def parse_activation(text: str) -> Activation:
    """("elu", 0.5) for "elu-0.5". Without a number: 1 for elu, 0.01 for leaky."""
    kind, _, a = text.partition("-")
    return kind, float(a) if a else {"elu": 1.0, "leaky": 0.01}.get(kind, 0.0)


def _activation(*more: str) -> Check:
    """An activation, or one of `more`. leaky and elu take an optional number."""

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
        raise ValueError(f"one of {names} (leaky and elu take an optional number: elu-0.5)")

    return check


@dataclasses.dataclass(frozen=True)
class Hyperparameters(Checked):
    """The hyperparameters of GRU4Rec. Names follow the reference implementation."""

    fixed: ClassVar = (
        "layers", "unit", "input", "embedding", "discount", "reset_after", "hidden_act",
        "input_to_all_layers", "feedforward", "skip", "fade", "cosine",
    )  # fmt: skip

    earlier: ClassVar = PUBLISHED

    layers: Sequence[int] = declare([100], "units of each recurrent layer", _sizes(1))
    unit: str = declare(
        "gru", "recurrent unit; rnn is the simple one without gates", _one_of(UNITS)
    )
    input: str = declare(
        "shared",
        "input encoding: onehot (a row of the gates' weights), embedding (its own table), shared "
        "(the output table), weighted (1-of-N vectors of the session so far, discounted)",
        _one_of(INPUTS),
    )
    embedding: int = declare(
        0, "width of the embedding with input=embedding; 0: as layer 1", whole(0, WIDEST)
    )
    discount: float = declare(
        0.5,
        "with input=weighted: factor by which an event's weight falls with each later click",
        # With a discount near 1 the history that counts would have no bound.
        number(0, above=True, most=0.99),
    )
    reset_after: bool = declare(
        True,
        "with unit=gru: apply the reset gate after the recurrent product, as cuDNN does, not "
        "before it, as the paper does",
        flag,
    )
    hidden_act: str = declare(
        "tanh",
        "activation of the candidate state, of feed-forward layers, and of the LSTM's output",
        _activation(),
    )
    input_to_all_layers: bool = declare(False, "feed the input to every deeper layer too", flag)
    feedforward: Sequence[int] = declare(
        [], "units of each feed-forward layer after the recurrent ones", _sizes(0)
    )
    skip: bool = declare(
        True,
        "add the last item's embedding, each number of it weighted, to the vector that scores "
        "items; only where it is as wide: with input=shared, or embedding of that width",
        flag,
    )
    fade: float = declare(
        0.8,
        "with skip: add earlier items' embeddings too, weighted apart from the last one's; this is "
        "the factor by which one's share falls with each later click; 0: leave them out",
        number(0, most=1),
    )
    cosine: float = declare(
        10.0,
        "with loss=cross-entropy: score items by this times the cosine of vector and item, without "
        "biases; good values: 8 to 16; 0: by their product and a bias, as with the other losses",
        number(0),
    )
    repeat: float = declare(
        0.15,
        "with loss=cross-entropy: lifts the scores of the session's items, as if each had at least "
        "this share of the probability with which such items followed in training; 0: no lift",
        number(0, most=1),
    )
    bptt: int = declare(
        1, "steps of backpropagation through time; weights change once in so many steps", whole(1)
    )
    loss: str = declare("cross-entropy", "ranking loss", _one_of(LOSSES))
    final_act: str = declare(
        "auto",
        "activation of the scores; auto: elu with bpr-max if elu_param > 0, else linear",
        _activation("auto"),
    )
    elu_param: float = declare(
        0.5, "parameter of the elu that final_act=auto puts on bpr-max's scores; 0: none", number(0)
    )
    bpreg: float = declare(1.0, "score regularisation of bpr-max", number(0))
    smoothing: float = declare(0.0, "label smoothing of cross-entropy", number(0, 1))
    logq: float = declare(
        1.0,
        "strength of cross-entropy's correction for the sampling of negatives",
        number(0, most=4),  # support^-logq must stay within float32
    )
    logq_corrected: bool = declare(
        False,
        "with logq: a lane's target, which is not sampled, is not corrected, and is no negative of "
        "its own lane; the loss then estimates that of n_sample=all; without smoothing",
        flag,
    )
    n_sample: int | str = declare(
        1536,
        "extra negative samples of a step, shared by the batch; all: with loss=cross-entropy, "
        "compare with the whole catalogue instead, without logq and sample_alpha",
        _whole_or_all,
    )
    sample_alpha: float = declare(
        0.75, "negatives are drawn by support^sample_alpha; 0: uniform, 1: popularity", number(0)
    )
    batch_size: int = declare(32, "sessions trained side by side", whole(1))
    n_epochs: int = declare(5, "passes over the training sessions", whole(1))
    train_random_order: bool = declare(
        False, "shuffle the sessions before each epoch instead of ordering them by time", flag
    )
    adapt: str = declare("adagrad", "optimiser", _one_of(OPTIMISERS))
    learning_rate: float = declare(
        0.1,
        "step size; good values: 0.1 for adagrad, 0.002 adam, 0.01 rmsprop, 3 adadelta",
        number(0, above=True),
    )
    decay: bool = declare(
        False, "the step size falls to 0 in a straight line over all updates", flag
    )
    momentum: float = declare(0.0, "momentum of the optimiser", number(0, 1))
    dropout_p_embed: float = declare(0.2, "dropout of the input embedding", number(0, 1))
    dropout_p_hidden: float = declare(0.0, "dropout of each layer's output", number(0, 1))
    lmbd: float = declare(0.0, "L2 regularisation of the weights that a step uses", number(0))
    grad_cap: float = declare(0.0, "largest norm of a step's gradient; 0: no limit", number(0))
    sigma: float = declare(
        0.0, "scale of the initial weights; 0: sqrt(6 / (rows + columns))", number(0)
    )
    init_as_normal: bool = declare(
        False, "draw the initial weights from a normal distribution", flag
    )
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
        if self.logq_corrected and self.smoothing:
            raise InputError(f"smoothing: {self.smoothing} does not go with logq_corrected")
        plain = self.smoothing == 0 and self.final_activation[0] == "linear"
        if self.scores_all and not (self.loss == "cross-entropy" and plain):
            raise InputError(
                f"n_sample: {ALL} goes with loss='cross-entropy', smoothing=0 and a linear "
                f"final_act, not loss={self.loss!r}, smoothing={self.smoothing:g}, "
                f"final_act={self.final_act!r}"
            )
        if self.n_sample == 0 and self.batch_size < 2:
            raise InputError("batch_size: 1 lane needs n_sample > 0, there are no other negatives")

    @property
    def scores_all(self) -> bool:
        """Whether a step scores the whole catalogue, with n_sample=all."""
        return self.n_sample == ALL

    @property
    def n_extra(self) -> int:
        """Extra negatives that a step draws: `n_sample`, none with n_sample=all."""
        return 0 if isinstance(self.n_sample, str) else self.n_sample

    @property
    def skips(self) -> bool:
        """Whether `skip` has an embedding as wide as the vector that scores items."""
        width = [*self.layers, *self.feedforward][-1]
        own_width = self.embedding or self.layers[0]
        fits = self.input == "shared" or (self.input == "embedding" and own_width == width)
        return self.skip and fits

    @property
    def fade_in_use(self) -> float:
        """`fade` where `skip` is in use, else 0."""
        return self.fade if self.skips else 0.0

    @property
    def corrects(self) -> bool:
        """Whether `logq_corrected` has a logQ to correct, which is cross-entropy's."""
        is_used = self.loss == "cross-entropy" and not self.scores_all
        return self.logq_corrected and self.logq > 0 and is_used

    @property
    def cosine_in_use(self) -> float:
        """The factor of scores that are cosines, 0 for products: `cosine` is cross-entropy's."""
        return self.cosine if self.loss == "cross-entropy" else 0.0

    @property
    def repeat_in_use(self) -> float:
        """`repeat` where the network's scores give probabilities, else 0."""
        return self.repeat if self.loss == "cross-entropy" else 0.0

    @property
    def final_activation(self) -> Activation:
        """(kind, a) of the output activation, with `auto` resolved."""
        if self.final_act == "auto":
            use_elu = self.loss == "bpr-max" and self.elu_param > 0
            return ("elu", self.elu_param) if use_elu else ("linear", 0.0)
        return parse_activation(self.final_act)

    @property
    def hidden_activation(self) -> Activation:
        """(kind, a) of the candidate state's activation."""
        return parse_activation(self.hidden_act)

    def without_use(self, names: Iterable[str]) -> list[str]:
        """A sentence for each of these hyperparameters that is set and that others make idle."""
        of_loss = self.loss == "cross-entropy"
        needs: dict[str, tuple[Any, str]] = {
            "cosine": (self.cosine_in_use, "loss=cross-entropy"),
            "repeat": (self.repeat_in_use, "loss=cross-entropy"),
            "logq": (of_loss and not self.scores_all, "loss=cross-entropy and samples"),
            "logq_corrected": (self.corrects, "loss=cross-entropy, logq and samples"),
            "bpreg": (self.loss == "bpr-max", "loss=bpr-max"),
            "sample_alpha": (self.n_extra, "extra samples, n_sample"),
            "skip": (self.skips, "an embedding as wide as the vector that scores items"),
            "fade": (self.fade_in_use, "skip"),
            "reset_after": (self.unit == "gru", "unit=gru"),
            "discount": (self.input == "weighted", "input=weighted"),
        }
        return [
            f"{name}: has no use without {needs[name][1]}"
            for name in names
            if name in needs and getattr(self, name) and not needs[name][0]
        ]


FIELDS = {field.name: field for field in dataclasses.fields(Hyperparameters)}
NAMES = tuple(FIELDS)
DEFAULTS = Hyperparameters().as_dict()


def parse_value(name: str, text: str) -> Any:
    """Convert text to the type of a hyperparameter.

    Args:
        name: one of `NAMES`.
        text: `100/50`, `100,50` or `[100, 50]` for a list; `true` or `1`; `0.5`; a name; `all`.

    Raises:
        InputError: the text is not of that type.
    """
    kind, takes_all = type(DEFAULTS[name]), name == "n_sample"
    if takes_all and text == ALL:
        return text
    if kind is bool:
        return parse_flag(name, text)
    try:
        if kind is list:
            parts = re.split("[/,]", re.sub(r"^\[(.*)\]$", r"\1", text))
            return [int(part) for part in parts if part.strip()]
        return kind(text)
    except ValueError:
        wanted = {
            list: "whole numbers like 100 or 100/50",
            int: f"a whole number or {ALL}" if takes_all else "a whole number",
            float: "a number",
        }[kind]
        raise InputError(f"{name}: must be {wanted}, not {text[:60]!r}") from None


def parse_flag(name: str, text: str) -> bool:
    """True for `True` or `1`, False for `False` or `0`, in any case.

    Raises:
        InputError: neither.
    """
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise InputError(f"{name}: must be true or false, not {text[:60]!r}") from None


def check_names(names: Iterable[str], where: str) -> None:
    """Raise InputError for a name that is no hyperparameter."""
    for name in names:
        if name not in NAMES:
            raise InputError(f"{where}: unknown name {name[:60]!r}; known are {', '.join(NAMES)}")
