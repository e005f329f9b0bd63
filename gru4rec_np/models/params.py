"""Parameter strings and parameter files of GRU4Rec's reference implementations.

hidasib/GRU4Rec (Theano) and hidasib/GRU4Rec_PyTorch_Official. What means the same here is
translated, what has no effect is reported, what would mean something else is refused.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from gru4rec_np.errors import InputError
from gru4rec_np.models.hyperparameters import PUBLISHED, check_names, parse_flag, parse_value
from gru4rec_np.ops.activations import SELU_ALPHA, SELU_SCALE

# What the constructor of GRU4Rec_PyTorch_Official (gru4rec_pytorch.py) takes for a name that a
# string leaves out. Its constrained_embedding=True is input=shared.
OFFICIAL: dict[str, Any] = {
    **PUBLISHED,
    "layers": [100],
    "loss": "cross-entropy",
    "batch_size": 64,
    "dropout_p_embed": 0.0,
    "dropout_p_hidden": 0.0,
    "learning_rate": 0.05,
    "momentum": 0.0,
    "sample_alpha": 0.5,
    "n_sample": 2048,
    "input": "shared",
    "n_epochs": 10,
    "bpreg": 1.0,
    "elu_param": 0.5,
    "logq": 0.0,
}
# Names of the reference that are options of the data here.
COLUMN_KEYS = {
    "session_key": "session_column",
    "item_key": "item_column",
    "time_key": "time_column",
}
_FOREIGN = ("constrained_embedding", "adapt_params", "time_sort", "device", *COLUMN_KEYS)


@dataclasses.dataclass
class Params:
    """What a `--params` string or file says.

    Attributes:
        values: hyperparameters by name, only those that it sets. `input` is among them only if
            the string determines it.
        columns: data options by name, such as {"item_column": "ItemId"}.
        ignored: its settings that have no effect here, as text.
    """

    values: dict[str, Any]
    columns: dict[str, str]
    ignored: list[str]


def parse_params(text: str) -> Params:
    """Read hyperparameters in the notation of the reference implementations.

    `layers=224,batch_size=80,loss=bpr-max,constrained_embedding=True`; lists as 100/50 or [100].
    constrained_embedding=True means input=shared. embedding=N or embedding=layersize mean
    input=embedding. constrained_embedding=False without them means input=onehot. An explicit
    input= wins.

    Args:
        text: the string, or the path of a parameter file that ends in .py. The file must assign
            literals to `gru4rec_params`, as those of hidasib/GRU4Rec do. It is parsed, never run.

    Raises:
        InputError: a part is not name=value, a name is unknown or given twice, a value cannot be
            used or would mean something else here, a file cannot be read.
    """
    if text.strip().lower().endswith(".py") and "=" not in text:
        found = _read_file(Path(text.strip()))
    else:
        found = {}
        for part in filter(None, (p.strip() for p in re.split(r",(?![^\[]*\])", text))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise InputError(f"--params: {part!r} is not of the form name=value")
            if name in found:
                raise InputError(f"--params: {name} is given twice")
            found[name] = value
    check_names((name for name in found if name not in _FOREIGN), "--params")

    columns = {COLUMN_KEYS[n]: found.pop(n) for n in COLUMN_KEYS if n in found}
    ignored = _drop_ignored(found)
    _translate_input(found)
    _translate_loss(found)
    if found.get("adapt") in ("None", "none"):
        found["adapt"] = "sgd"
    for name in ("hidden_act", "final_act"):
        if found.get(name, "").startswith("selu-"):
            found[name] = _translate_selu(name, found[name])
    return Params({n: parse_value(n, value) for n, value in found.items()}, columns, ignored)


def _read_file(path: Path) -> dict[str, str]:
    """The settings of a parameter file, as text.

    Raises:
        InputError: it cannot be read, or has anything but literals in `gru4rec_params`.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8-sig"))
        values = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == "gru4rec_params" for t in node.targets)
        ]
        if len(values) != 1:
            raise ValueError(f"gru4rec_params is assigned {len(values)} times, expected once")
        value = values[0]
        if isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:
            if not (isinstance(value.func, ast.Name) and value.func.id in ("OrderedDict", "dict")):
                raise ValueError("gru4rec_params is neither an OrderedDict nor a dict")
            value = value.args[0]
        literal = ast.literal_eval(value)
        pairs = list(literal.items() if isinstance(literal, dict) else literal)
        found = {str(name): str(setting) for name, setting in pairs}
        if len(found) < len(pairs):
            raise ValueError("a name is given twice")
        return found
    except FileNotFoundError:
        raise InputError(f"--params {path}: no such file") from None
    except OSError as error:
        raise InputError(f"--params {path}: cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"--params {path}: not a parameter file, which has gru4rec_params = "
            f"OrderedDict([('name', value), ...]) with literals only: {why}"
        ) from None


def _drop_ignored(found: dict[str, str]) -> list[str]:
    """Take out the names that change nothing here, and return them as text.

    Raises:
        InputError: a value would mean something that does not exist here.
    """
    ignored = []
    if "device" in found:
        ignored.append(f"device={found.pop('device')} (--backend chooses what runs the training)")
    if "time_sort" in found:
        if not parse_flag("time_sort", found.pop("time_sort")):
            raise InputError(
                "time_sort: False is not possible, sessions are ordered by time; "
                "train_random_order=True shuffles them"
            )
        ignored.append("time_sort=True (always so)")
    if "adapt_params" in found:
        text = found.pop("adapt_params")
        if text not in ("", "[]", "()", "None"):
            raise InputError(
                f"adapt_params: must be empty, not {text[:60]!r}; the optimisers here have no "
                "parameters but learning_rate and momentum"
            )
        ignored.append("adapt_params=[]")
    return ignored


def _translate_input(found: dict[str, str]) -> None:
    """constrained_embedding and embedding as `input`, unless neither is given or `input` is.

    Raises:
        InputError: they exclude each other.
    """
    shared = None
    if "constrained_embedding" in found:
        name = "constrained_embedding"
        shared = parse_flag(name, found.pop(name))
    own_table = found.get("embedding", "0") != "0"
    if found.get("embedding") == "layersize":
        found["embedding"] = "0"  # the width of layer 1
    if shared and own_table:
        raise InputError("--params: constrained_embedding=True and embedding exclude each other")
    if "input" not in found and (own_table or shared is not None):
        found["input"] = "embedding" if own_table else "shared" if shared else "onehot"


def _translate_loss(found: dict[str, str]) -> None:
    """The reference's two ways to write cross-entropy over a softmax.

    Raises:
        InputError: a softmax with a loss that does not take one.
    """
    loss, final = found.get("loss", "cross-entropy"), found.get("final_act")
    softmax = {"cross-entropy": "softmax", "xe_logit": "softmax_logit"}
    if final in softmax.values() or (loss == "xe_logit" and final is not None):
        if softmax.get(loss) != final:
            raise InputError(
                f"final_act: {final} with loss={loss} is not possible; softmax belongs to "
                "cross-entropy, softmax_logit to xe_logit"
            )
        del found["final_act"]
        found["loss"] = "cross-entropy"  # also where the string leaves the loss out
    elif loss == "xe_logit":
        found["loss"] = "cross-entropy"


def _translate_selu(name: str, text: str) -> str:
    """selu-X-Y, X * (x if x >= 0 else Y * (exp(x) - 1)), by the name that it has here.

    Raises:
        InputError: there is none.
    """
    try:
        scale, alpha = map(float, text.split("-")[1:])
    except ValueError:
        scale = alpha = math.nan
    if abs(scale - SELU_SCALE) < 1e-4 and abs(alpha - SELU_ALPHA) < 1e-4:
        return "selu"
    if scale == 1:
        return f"elu-{alpha}"
    raise InputError(
        f"{name}: {text[:60]!r} is not possible; selu-X-Y must have X=1, which is elu-Y, or "
        f"X={SELU_SCALE:.4f} and Y={SELU_ALPHA:.4f}, which is selu"
    )
