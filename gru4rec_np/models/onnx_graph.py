"""A network as an ONNX graph, built from primitive operators.

ONNX's own GRU and LSTM operators are not used: their gates have another order and their update gate
weighs the old state. The graphs compute in float32 what network.py and narm.py compute without
dropout. Read it from top to bottom: how nodes are collected, the cells, one step, NARM, the two
graphs. docs/model-file.md lists their inputs and outputs. The onnx package is imported by `build`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gru4rec_np.data.sessions import CLICKS
from gru4rec_np.errors import InputError
from gru4rec_np.models.base import Model
from gru4rec_np.models.gru4rec import NEVER, GRU4Rec
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.models.narm import LONGEST, NARM
from gru4rec_np.models.network import EMBEDDING_TABLE
from gru4rec_np.ops.activations import SELU_ALPHA, SELU_SCALE, TANH, Activation
from gru4rec_np.ops.cells import UNITS
from gru4rec_np.ops.scoring import TINY, of_length

GRAPHS = ("step", "sessions")
OPSET, IR_VERSION = 17, 8  # read by ONNX Runtime from 1.12 on
FLOAT, INT64 = 1, 7  # numbers of ONNX's types
MOST_BYTES = 2**31 - 2**20  # Protocol Buffers limit a file to 2 GiB

# --- collecting nodes -----------------------------------------------------------------------------


class Nodes:
    """Nodes of a graph, or of the body of a loop in it.

    Values are names. A body sees the names of the graph around it, so constants are all in the
    outer graph.
    """

    def __init__(self, around: Nodes | None = None) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = around.constants if around else []
        self._names: itertools.count[int] = around._names if around else itertools.count()

    def name(self) -> str:
        """A new name."""
        return f"v{next(self._names)}"

    def constant(self, value: Any, name: str | None = None) -> str:
        """A constant: an array, Python floats as float32, or Python integers as int64."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        self.constants.append(numpy_helper.from_array(array, name or self.name()))
        return str(self.constants[-1].name)

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; an input that is no name becomes a constant. Returns its outputs' names."""
        from onnx import helper

        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        found = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, names, found, **attributes))
        return found

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        """`add` for a node with one output."""
        return self.add(operator, *inputs, **attributes)[0]

    def split(self, x: str, widths: Sequence[int]) -> list[str]:
        """The column blocks of a matrix."""
        if len(widths) == 1:
            return [x]
        return self.add("Split", x, list(widths), outputs=len(widths), axis=1)


def declared(name: str, dtype: str, *shape: int | str) -> Any:
    """An input or output: its type and shape, where a text names a free dimension."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, dtype), shape)


# --- the cells, as in ops/cells.py ----------------------------------------------------------------


def activate(g: Nodes, x: str, kind: str, a: float) -> str:
    """`activations.activate`."""
    match kind:
        case "linear":
            return x
        case "tanh" | "sigmoid" | "relu":
            return g(kind.capitalize(), x)
        case "leaky":
            return g("LeakyRelu", x, alpha=a)
        case "elu":
            return g("Elu", x, alpha=a)
        case "selu":
            return g("Selu", x, alpha=SELU_ALPHA, gamma=SELU_SCALE)
    raise ValueError(kind)


def mix(g: Nodes, old: str, new: str, z: str) -> str:
    """(1-z)*old + z*new."""
    return g("Add", g("Mul", g("Sub", 1.0, z), old), g("Mul", z, new))


def gru(g: Nodes, xW: str, h: str, H: int, layer: str, act: Activation) -> str:
    """`cells.gru`. layer: its number, or "" for NARM."""
    U, b = f"U{layer}", f"b{layer}"
    U_rz, U_n = g.split(U, [2 * H, H])
    x_rz, x_n = g.split(g("Add", xW, b), [2 * H, H])
    r, z = g.split(g("Sigmoid", g("Add", x_rz, g("MatMul", h, U_rz))), [H, H])
    n = activate(g, g("Add", x_n, g("MatMul", g("Mul", r, h), U_n)), *act)
    return mix(g, h, n, z)


def gru_reset_after(g: Nodes, xW: str, h: str, H: int, layer: str, act: Activation) -> str:
    """`cells.gru_reset_after`."""
    hU_rz, hU_n = g.split(g("Add", g("MatMul", h, f"U{layer}"), f"c{layer}"), [2 * H, H])
    x_rz, x_n = g.split(g("Add", xW, f"b{layer}"), [2 * H, H])
    r, z = g.split(g("Sigmoid", g("Add", x_rz, hU_rz)), [H, H])
    return mix(g, h, activate(g, g("Add", x_n, g("Mul", r, hU_n)), *act), z)


def lstm(g: Nodes, xW: str, hc: str, H: int, layer: str, act: Activation) -> str:
    """`cells.lstm`."""
    h, c = g.split(hc, [H, H])
    a = g("Add", g("Add", xW, g("MatMul", h, f"U{layer}")), f"b{layer}")
    gates, candidate = g.split(a, [3 * H, H])
    i, f, o = g.split(g("Sigmoid", gates), [H, H, H])
    c = g("Add", g("Mul", f, c), g("Mul", i, activate(g, candidate, *act)))
    return g("Concat", g("Mul", o, activate(g, c, *act)), c, axis=1)


def rnn(g: Nodes, xW: str, h: str, H: int, layer: str, act: Activation) -> str:
    """`cells.rnn`."""
    return activate(g, g("Add", g("Add", xW, g("MatMul", h, f"U{layer}")), f"b{layer}"), *act)


# --- GRU4Rec: one step, as in network.py ----------------------------------------------------------


def gate_widths(hp: Hyperparameters) -> list[int]:
    """The columns of W_x for each layer that sees the input."""
    return [UNITS[hp.unit][0] * H for H in (hp.layers if hp.input_to_all_layers else hp.layers[:1])]


def state_widths(hp: Hyperparameters) -> list[int]:
    """The columns of a session's state: each layer's, then what scores need of the input.

    With `skip` that is the last item's embedding, and with `fade` the m of `network.recurrent`
    before it. For input=weighted it is its sums.

    Those sums are Σ_k discount^k W_x[item k steps ago], and Σ_k discount^k: they hold the history
    of `inputs.weighted` in a form that a step can update. `inputs.weighted` leaves out weights
    under a millionth of the newest; here they count.
    """
    sums = [sum(gate_widths(hp)), 1] if hp.input == "weighted" else []
    last = [[*hp.layers, *hp.feedforward][-1]] * (hp.skips + (hp.fade_in_use > 0))
    return [UNITS[hp.unit][1] * H for H in hp.layers] + sums + last


def recurrent(g: Nodes, hp: Hyperparameters, item: str, state: str) -> str:
    """The new state (n, S) after an item (n,) for each session, see `network.recurrent`."""
    old = g.split(state, state_widths(hp))
    new: list[str] = []
    more: list[str] = []  # what the state holds besides h
    if hp.input in EMBEDDING_TABLE:
        e = g("Gather", EMBEDDING_TABLE[hp.input], item)
        xW = g("MatMul", e, "W_x")
        if hp.skips:
            more = [e]
        if hp.fade_in_use:
            more = [g("Mul", g("Add", *old[-2:]), hp.fade_in_use), e]
    else:
        xW = g("Gather", "W_x", item)
    if hp.input == "weighted":
        total, norm = old[-2:]
        total = g("Add", xW, g("Mul", total, hp.discount))
        norm = g("Add", 1.0, g("Mul", norm, hp.discount))
        xW, more = g("Div", total, norm), [total, norm]
    seen = g.split(xW, gate_widths(hp))
    cell = {"lstm": lstm, "rnn": rnn, "gru": gru_reset_after if hp.reset_after else gru}[hp.unit]
    out = ""  # the first layer sees the input only
    for i, H in enumerate(hp.layers):
        parts = seen[i : i + 1] + ([g("MatMul", out, f"W{i}")] if i > 0 else [])
        a = g("Add", *parts) if len(parts) == 2 else parts[0]
        new.append(cell(g, a, old[i], H, str(i), hp.hidden_activation))
        out = output_of(g, hp, new[i], H)
    return g("Concat", *new, *more, axis=1)


def output_of(g: Nodes, hp: Hyperparameters, h: str, H: int) -> str:
    """A layer's output (n, H), the first columns of its state."""
    return g.split(h, [H, H])[0] if hp.unit == "lstm" else h


def scores(g: Nodes, hp: Hyperparameters, state: str) -> str:
    """The scores (n, I) after a state (n, S): feed-forward layers, then the output table."""
    parts = g.split(state, state_widths(hp))
    out = output_of(g, hp, parts[len(hp.layers) - 1], hp.layers[-1])
    for i in range(len(hp.feedforward)):
        a = g("Add", g("MatMul", out, f"F{i}"), f"f{i}")
        out = activate(g, a, *hp.hidden_activation)
    if hp.skips:
        out = g("Add", out, g("Mul", "s", parts[-1]))
    if hp.fade_in_use:
        out = g("Add", out, g("Mul", "s_m", parts[-2]))
    if not hp.cosine_in_use:
        return g("Gemm", out, "V_y", "b_y", transB=1)
    square = g("ReduceSum", g("Mul", out, out), [1])
    out = g("Mul", g("Div", out, g("Sqrt", g("Add", square, TINY))), hp.cosine_in_use)
    return g("Add", g("Mul", g("Gemm", out, "V_y", transB=1), "inverse"), "b_y")


# --- the items of the session, as in ranking.lift -------------------------------------------------


def recurrent_with_clicks(g: Nodes, hp: Hyperparameters, item: str, state: str) -> str:
    """`recurrent` on a state that also has the last clicks (n, CLICKS): index + 1, 0 for none."""
    old, clicks = g.split(state, [sum(state_widths(hp)), CLICKS])
    _, later = g.split(clicks, [1, CLICKS - 1])
    click = g("Add", g("Cast", g("Unsqueeze", item, [1]), to=FLOAT), 1.0)
    return g("Concat", recurrent(g, hp, item, old), later, click, axis=1)


def lift(g: Nodes, found: str, clicks: str, n_items: int, floors: np.ndarray) -> str:
    """Scores (n, I), those of the clicked items lifted.

    Args:
        clicks: (n, CLICKS) as in `recurrent_with_clicks`. floors: (2,), see `GRU4Rec._floors`.
    """

    def among(columns: str) -> str:
        """(n, I) bool: whether an item is in these columns of clicks."""
        rows, ones = g("Cast", columns, to=INT64), g("Expand", 1.0, g("Shape", columns))
        counts = g("ScatterElements", none, rows, ones, axis=1, reduction="add")
        return g("Greater", g.split(counts, [1, n_items])[1], 0.0)

    n = g("Shape", clicks, start=0, end=1)
    none = g("Expand", 0.0, g("Concat", n, [n_items + 1], axis=0))
    last = among(g.split(clicks, [CLICKS - 1, 1])[1])
    earlier = g("And", among(clicks), g("Not", last))
    for mask, floor in zip((last, earlier), floors.tolist(), strict=True):
        if floor > NEVER / 2:
            higher = g("Add", g("Softplus", g("Sub", found, floor)), floor)
            found = g("Where", mask, higher, found)
    return found


# --- whole sessions -------------------------------------------------------------------------------


def scan(
    g: Nodes, step: Callable[[Nodes, str, str], str], width: int, there: str, keep: bool = False
) -> list[str]:
    """Feed each session its items, from state 0.

    Args:
        step: from the body's nodes, items (n,) and state (n, width) to the new state.
        there: (T, n) bool, whether a session takes its item at a step.
        keep: return the states after each step too.

    Returns:
        the last state (n, width), and with `keep` those after each step (T, n, width).
    """
    from onnx import helper

    n = g("Shape", "lengths")
    zero = g("Expand", 0.0, g("Concat", n, [width], axis=0))
    body = Nodes(g)
    state, item, mask = (body.name() for _ in range(3))
    new = body("Where", body("Unsqueeze", mask, [1]), step(body, item, state), state)
    outputs = [new, body("Identity", new)][: 2 if keep else 1]
    graph = helper.make_graph(
        body.nodes,
        "step",
        [declared(state, "FLOAT", "n", width), declared(item, "INT64", "n"),
         declared(mask, "BOOL", "n")],
        [declared(name, "FLOAT", "n", width) for name in outputs],
    )  # fmt: skip
    return g.add(
        "Scan", zero, "items", there, outputs=len(outputs),
        body=graph, num_scan_inputs=2, scan_input_axes=[1, 0],
    )  # fmt: skip


def places(g: Nodes) -> str:
    """(T, 1): the numbers of the steps, 0 ... T-1."""
    T = g("Squeeze", g("Shape", "items", start=1, end=2), [0])
    return g("Unsqueeze", g("Range", np.array(0), T, np.array(1)), [1])


def narm_scores(g: Nodes, model: NARM) -> str:
    """The scores (n, I) of NARM after whole sessions, see `narm.encode`."""
    hp, H = model.hp, model.hp.hidden
    # Only the last piece of a long session counts, see `narm.pieces`.
    new = LONGEST // 2
    more = g("Max", g("Sub", "lengths", LONGEST), 0)
    first = g("Mul", g("Div", g("Add", more, new - 1), new), new)
    t = places(g)
    there = g("And", g("GreaterOrEqual", t, first), g("Less", t, "lengths"))

    def step(body: Nodes, item: str, state: str) -> str:
        xW = body("MatMul", body("Gather", "emb", item), "W_x")
        return gru(body, xW, state, H, "", TANH)

    h_t, h = scan(g, step, H, there, keep=True)
    s = g("Sigmoid", g("Add", g("MatMul", h_t, "A1"), g("MatMul", h, "A2")))  # (T, n, H)
    a = g("MatMul", s, "v")  # (T, n)
    if hp.normalise:
        a = g("Softmax", g("Where", there, a, -1e30), axis=0)
    else:
        a = g("Where", there, a, 0.0)
    c_l = g("ReduceSum", g("Mul", g("Unsqueeze", a, [2]), h), [0], keepdims=0)
    c = g("Concat", h_t, c_l, axis=1)
    return g("Gemm", g("Gemm", c, "B", transB=1), "emb", transB=1)


# --- the two graphs -------------------------------------------------------------------------------


def build(model: Model, graph: str, k: int, version: str) -> Any:
    """A trained network as an `onnx.ModelProto`.

    `step`: item (n,) int64, state (n, S) float32 -> new_state (n, S), scores (n, I) float32. A
    session begins with a state of 0.
    `sessions`: items (n, T) int64, lengths (n,) int64 -> top_items (n, k) int64, top_scores (n, k)
    float32, best first. The places past a session's length may hold any index.

    Items are indices of `model.item_ids`. Scores are those before `final_act`.

    Args:
        graph: one of `GRAPHS`. k: items to return with `sessions`; at most I are.
        version: written to the metadata, with the item ids and the model's name.

    Raises:
        InputError: the model is no network, is NARM and the graph is `step`, or is too large for an
            ONNX file.
        ImportError: the onnx package is not installed.
    """
    if not isinstance(model, GRU4Rec | NARM):
        raise InputError(f"export: {model.name} cannot be exported, only GRU4Rec and NARM")
    if isinstance(model, NARM) and graph == "step":
        raise InputError("--graph step: NARM reads whole sessions; use --graph sessions")
    ids = json.dumps(model.item_ids.tolist(), default=str)  # dates in ISO format
    size = len(ids) + 4 * sum(math.prod(w.shape) for w in model.weights.values())
    if size > MOST_BYTES:
        raise InputError(
            f"export: weights and item ids take {size / 2**30:.1f} GiB; an ONNX file holds less "
            "than 2"
        )
    from onnx import helper

    g, n_items = Nodes(), len(model.item_ids)
    for name, array in model.weights.items():
        g.constant(array, name)
    if isinstance(model, GRU4Rec) and model.hp.cosine_in_use:
        _, inverse = of_length(model.weights["V_y"])
        g.constant(inverse[:, 0], "inverse")
    if isinstance(model, NARM):
        found = narm_scores(g, model)
    else:
        hp, widths, floors = model.hp, [sum(state_widths(model.hp))], model._floors
        step = recurrent
        if floors is not None:
            widths, step = [*widths, CLICKS], recurrent_with_clicks
        width = sum(widths)
        if graph == "step":
            new = step(g, hp, "item", "state")
        else:
            there = g("Less", places(g), "lengths")
            (new,) = scan(g, lambda body, *x: step(body, hp, *x), width, there)
        network, *clicks = g.split(new, widths)
        found = scores(g, hp, network)
        if floors is not None:
            found = lift(g, found, clicks[0], n_items, floors)
    if graph == "step":
        inputs = [declared("item", "INT64", "n"), declared("state", "FLOAT", "n", width)]
        outputs = [(new, declared("new_state", "FLOAT", "n", width)),
                   (found, declared("scores", "FLOAT", "n", n_items))]  # fmt: skip
    else:
        k = min(k, n_items)
        best, items = g.add("TopK", found, [k], outputs=2)  # equal scores: the lower index first
        inputs = [declared("items", "INT64", "n", "T"), declared("lengths", "INT64", "n")]
        outputs = [(items, declared("top_items", "INT64", "n", k)),
                   (best, declared("top_scores", "FLOAT", "n", k))]  # fmt: skip
    for value, output in outputs:
        g.nodes.append(helper.make_node("Identity", [value], [output.name]))
    whole = helper.make_graph(
        g.nodes, graph, inputs, [output for _, output in outputs], initializer=g.constants
    )
    proto = helper.make_model(
        whole,
        producer_name="gru4rec_np",
        producer_version=version,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(proto, {"item_ids": ids, "model": model.name, "version": version})
    return proto
