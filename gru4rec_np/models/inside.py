"""What a model computes on the way to its scores: gates, hidden states, attention, belief.

For pictures and lessons. The forward pass is that of network.py, narm.py and ops/cells.py on plain
NumPy. This module keeps what they return.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gru4rec_np.backends import one_blas_thread
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import BRAND, KIND
from gru4rec_np.models import narm, network
from gru4rec_np.models.base import Model
from gru4rec_np.models.baselines import Oracle
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.narm import NARM
from gru4rec_np.ops.encoders import attend

# Unit -> gate -> its place in the cache that the cell's step returns, see ops/cells.py.
GATES: dict[str, dict[str, int]] = {
    "gru": {"update": 2, "reset": 1},
    "lstm": {"input": 2, "forget": 3, "output": 4},
    "rnn": {},
}
MOST_POINTS = 1000  # states that `plane` is made of

Layer = dict[str, np.ndarray]  # gate -> (n, H)


class Inside(NamedTuple):
    """What a network computes over a session of n clicks, in float32.

    Attributes:
        layers: for each recurrent layer, each gate's values (n, H) in (0, 1).
        states: (n + 1, H) the last layer's output before the first click and after each.
        attention: (n, n), row t has NARM's weights of clicks 0 ... t after click t; else None.
    """

    layers: list[Layer]
    states: np.ndarray
    attention: np.ndarray | None


@one_blas_thread
def inside(model: Model, items: np.ndarray) -> Inside | None:
    """Run a network over a session and keep what happens inside.

    Args:
        model: trained. items: (n,) int32 indices of `item_ids`, n from 1 to `narm.LONGEST`.

    Returns:
        None for a model that is no recurrent network.
    """
    if isinstance(model, GRU4Rec):
        steps, state = [], model._zero_state(1)
        last = len(model.layers) - 1
        states = [state.h[last]]
        for x in items:
            layers, state = _step(model, np.array([x], np.int32), state)
            steps.append(layers)
            states.append(state.h[last])
        joined = [
            {gate: np.concatenate([step[i][gate] for step in steps]) for gate in layer}
            for i, layer in enumerate(steps[0])
        ]
        return Inside(joined, np.concatenate(states)[:, : model.layers[-1]], None)
    if isinstance(model, NARM):
        layers, (q, k, h) = _encoded(model, items, np.ones((len(items), 1), bool))
        attention = np.zeros((len(items), len(items)), h.dtype)
        for t in range(len(items)):
            so_far = slice(t + 1)
            v, normalise = model.weights["v"], model.hp.normalise
            _, (_, a) = attend(q[t : t + 1], k[so_far], h[so_far], v, normalise)
            attention[t, so_far] = a[:, 0]
        return Inside(layers, np.concatenate([np.zeros_like(h[:1, 0]), h[:, 0]]), attention)
    return None


def _step(model: GRU4Rec, x: np.ndarray, state: Any) -> tuple[list[Layer], Any]:
    """One click x (B,) for each lane: each layer's gates (B, H), and the new state."""
    _, state, (_, _, caches, *_) = network.recurrent(model.weights, model.hp, narm.PLAIN, x, state)
    gates = GATES[model.unit]
    return [{gate: cache[i] for gate, i in gates.items()} for cache in caches], state


def _encoded(
    model: NARM, items: np.ndarray, there: np.ndarray
) -> tuple[list[Layer], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The gates (E, H) of sessions side by side, and q (E, H), k and h (T, B, H) of `attend`."""
    _, cache = narm.encode(model.weights, model.hp, narm.PLAIN, items, there)
    steps, (_, q, k, h) = cache[4], cache[5]
    layer = {gate: np.concatenate([s[i] for s in steps]) for gate, i in GATES["gru"].items()}
    return [layer], (q, k, h)


class Plane(NamedTuple):
    """The plane in which the states after one click vary most: their first two principal axes.

    Attributes:
        centre: (H,), axes: (H, 2). A state h lies at (h - centre) axes.
        share: (2,) the share of the variance along each axis.
        items: (m,) indices of the items clicked, points: (m, 2) where their states lie.
        orders: for each layer its units (H,), by the mean of its first gate at a first click.
    """

    centre: np.ndarray
    axes: np.ndarray
    share: np.ndarray
    items: np.ndarray
    points: np.ndarray
    orders: list[np.ndarray]

    def at(self, states: np.ndarray) -> np.ndarray:
        """(n, 2): where states (n, H) lie."""
        return (states - self.centre) @ self.axes


@one_blas_thread
def plane(model: Model) -> Plane | None:
    """A plane for pictures of a network's hidden states, from one click on each of many items.

    It depends on the model only, so a session's path stays where it is when clicks are added.

    Returns:
        None for a model that is no recurrent network.
    """
    if not isinstance(model, GRU4Rec | NARM):
        return None
    m = min(len(model.item_ids), MOST_POINTS)
    items = np.linspace(0, len(model.item_ids) - 1, m).astype(np.int32)
    if isinstance(model, GRU4Rec):
        layers, state = _step(model, items, model._zero_state(m))
        states = state.h[len(model.layers) - 1][:, : model.layers[-1]]
    else:
        layers, (_, _, h) = _encoded(model, items, np.ones((1, m), bool))
        states = h[0]
    centre = states.mean(axis=0)
    _, size, directions = np.linalg.svd(states - centre, full_matrices=False)
    axes, share = np.zeros((states.shape[1], 2), states.dtype), np.zeros(2)
    for i, direction in enumerate(directions[:2]):
        # SVD leaves the sign open.
        axes[:, i] = direction * np.sign(direction[np.abs(direction).argmax()])
        share[i] = size[i] ** 2 / max(float((size**2).sum()), np.finfo(np.float32).tiny)
    widths = [states.shape[1]] if isinstance(model, NARM) else model.layers
    orders = [
        np.argsort(next(iter(layer.values())).mean(axis=0), kind="stable")
        if layer
        else np.arange(width)
        for layer, width in zip(layers, widths, strict=True)
    ]
    return Plane(centre, axes, share, items, (states - centre) @ axes, orders)


def intents(oracle: Oracle, items: np.ndarray, best: np.ndarray) -> list[dict[str, Any]]:
    """What the simulated shop's shopper may be after, beside what a model recommends.

    The last item is on two ladders, each with two directions: four intents. For each: the oracle's
    belief in it, and how many of a model's best items are among those that it walks to next.

    Args:
        oracle: over the model's catalogue. items: (n,) the session. best: (k,) the model's best
            items. Both are indices of `item_ids`.

    Returns:
        for each intent {"ladder", "direction", "belief", "share"}. The last one, with ladder None,
        is every other intent. Beliefs sum to 1, and so do shares.
    """
    shop = oracle.hp.shop
    x, chosen = oracle._shop_item[items], oracle._shop_item[best]
    session = Sessions(x, np.array([0, len(x)]), np.zeros(len(x)), oracle.item_ids, np.zeros(1))
    belief = shop.intent_probabilities(session, np.array([len(x) - 1]))[0]
    names = str(oracle.item_ids[items[-1]]).split(".")
    found: list[dict[str, Any]] = []
    for side in (KIND, BRAND):
        for direction, word in enumerate(("dearer", "cheaper")):
            intent = 2 * int(shop.ladder[side, x[-1]]) + direction
            reached = np.isin(chosen, shop.goes_to[side, direction, x[-1]])
            share, chosen = int(reached.sum()) / len(best), chosen[~reached]
            row = {"ladder": names[side], "direction": word}
            found.append(row | {"belief": float(belief[intent]), "share": share})
    rest = {"belief": 1 - sum(row["belief"] for row in found), "share": len(chosen) / len(best)}
    return [*found, {"ladder": None, "direction": None} | rest]
