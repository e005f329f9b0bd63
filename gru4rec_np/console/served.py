"""Models in memory, ready to answer: what service.py sends, as JSON.

Knows nothing of HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np import models
from gru4rec_np.console.options import DATA_OPTIONS, read_config
from gru4rec_np.console.runs import run_of
from gru4rec_np.data.shop import Shop
from gru4rec_np.errors import InputError
from gru4rec_np.models.base import Model
from gru4rec_np.models.baselines import Oracle
from gru4rec_np.models.inside import Plane, inside, intents, plane
from gru4rec_np.ops.ranking import top_k

BELIEF_K = 10  # the model's best items that are compared with the belief
EXAMPLES_FROM = 200  # simulated sessions


class Served:
    """A model in memory, with what the page needs to know of it.

    Attributes:
        oracle: of the simulated shop that the model was trained on, or None.
        examples: sessions to begin with, of the simulated shop.
    """

    def __init__(
        self, name: str, model: Model, oracle: Oracle | None, titles: Mapping[str, str]
    ) -> None:
        self.name, self.model, self.oracle = name, model, oracle
        self._titles = titles
        self.examples = [] if oracle is None else _examples(oracle.hp.shop, model)

    def item(self, item: Any) -> dict[str, Any]:
        """An item as JSON: its id, and its title if it has one."""
        known = {"item": item if isinstance(item, int | float | str) else str(item)}
        title = self._titles.get(str(item))
        return known if title is None else known | {"name": title}

    def ranked(self, best: Sequence[tuple[Any, float]]) -> list[dict[str, Any]]:
        """A ranking as JSON; a score that is NaN or infinite becomes null."""
        return [
            self.item(item) | {"score": score if math.isfinite(score) else None}
            for item, score in best
        ]

    def unknown(self, session: Sequence[Any]) -> list[Any]:
        """The distinct items of a session that the model does not know."""
        return list(dict.fromkeys(i for i in session if str(i) not in self.model._index))

    @cached_property
    def plane(self) -> Plane | None:
        """The plane of `inside.plane`, computed when it is first needed."""
        return plane(self.model)

    @cached_property
    def _texts(self) -> list[str]:
        """(I,) for each item its id and title in lower case, to be searched."""
        ids = self.model.item_ids.tolist()
        return [f"{item} {self._titles.get(str(item), '')}".lower() for item in ids]

    def find(self, search: str, skip: int, k: int) -> list[dict[str, Any]]:
        """As JSON, k items that have all words of a search, from the one after `skip` of them."""
        words = search[:200].lower().split()
        matches = (i for i, text in enumerate(self._texts) if all(word in text for word in words))
        places = list(islice(matches, skip, skip + k))
        return [
            self.item(item) for item in self.model.item_ids[np.array(places, np.int64)].tolist()
        ]

    def about(self) -> dict[str, Any]:
        """The model as JSON."""
        about = {
            "name": self.name,
            "kind": self.model.name,
            "items": len(self.model.item_ids),
            "examples": [[self.item(item) for item in session] for session in self.examples],
        }
        if isinstance(self.model, Oracle):
            return about
        return about | {"hyperparameters": self.model.hyperparameters()}

    def inside(self, session: list[Any], k: int) -> dict[str, Any]:
        """As JSON, the ranking after a session, and what the model computes on the way to it."""
        model = self.model
        places, items = model._known(session)
        scores = model._scores_after(items)
        best = top_k(scores, model.item_ids, k)
        answer: dict[str, Any] = {
            "model": self.name,
            "items": self.ranked(best),
            "median": float(np.nan_to_num(np.median(scores))),
            "known": places.tolist(),
            "layers": None,
            "path": None,
            "attention": None,
            "intents": None,
        }
        seen, drawn = inside(model, items), self.plane
        if seen is not None and drawn is not None:
            answer["layers"] = [
                {gate: _rounded(values) for gate, values in layer.items()} for layer in seen.layers
            ]
            answer["path"] = _rounded(drawn.at(seen.states))
            if seen.attention is not None:
                answer["attention"] = _rounded(seen.attention)
        if self.oracle is not None:
            first = [model._index[str(item)] for item, _ in best[:BELIEF_K]]
            answer["intents"] = intents(self.oracle, items, np.array(first))
            answer["intents_k"] = len(first)
        return answer

    def map(self) -> dict[str, Any]:
        """As JSON, the plane in which the page draws hidden states."""
        found = self.plane
        if found is None:
            return {"model": self.name, "points": None}
        return {
            "model": self.name,
            "points": _rounded(found.points),
            "items": [str(item) for item in self.model.item_ids[found.items].tolist()],
            "share": _rounded(found.share),
            "orders": [order.tolist() for order in found.orders],
        }


def _rounded(values: np.ndarray) -> list[Any]:
    """Nested lists with 4 decimals, which is more than a picture shows."""
    return np.round(np.nan_to_num(values.astype(np.float64)), 4).tolist()


def load_runs(
    runs: Sequence[str], backend: str = "numpy", titles: Mapping[str, str] | None = None
) -> dict[str, Served]:
    """Read the models of runs, by name, in their order.

    A run's name is its folder's, or its whole path if two would have the same. A run of the
    simulated shop also brings the model `oracle`, the best possible ranking.

    Args:
        runs: folders of runs, or saved models. backend: what runs a network.
        titles: item id, as text, to title.

    Raises:
        InputError: a model or a configuration cannot be read.
    """
    served: dict[str, Served] = {}
    short = [_name(run) for run in runs]
    shops = list(dict.fromkeys(shop for shop in map(_shop_of, runs) if shop is not None))
    for run, name in zip(runs, short, strict=True):
        model = models.load(run, backend)
        name = name if short.count(name) == 1 and name != Oracle.name else str(run)
        served[name] = Served(name, model, _oracle(shops, model.item_ids), titles or {})
    oracle = next((one.oracle for one in served.values() if one.oracle), None)
    if oracle is not None:
        served[Oracle.name] = Served(Oracle.name, oracle, oracle, titles or {})
    return served


def _oracle(shops: Sequence[Shop], item_ids: np.ndarray) -> Oracle | None:
    """The oracle of the first shop that sells all of these items."""
    for shop in shops:
        oracle = Oracle(shop)
        oracle._set_catalogue(item_ids)
        with suppress(InputError):  # an item is not of this shop
            oracle._derive()
            return oracle
    return None


def _examples(shop: Shop, model: Model) -> list[list[Any]]:
    """Some sessions of the shop of 4 to 8 items, all known to the model."""
    sessions = shop.simulate(EXAMPLES_FROM, seed=shop.seed + 2)
    drawn = (sessions.session(s).tolist() for s in range(EXAMPLES_FROM))
    fitting = (s for s in drawn if 4 <= len(s) <= 8 and all(i in model._index for i in s))
    return list(islice(fitting, 20))


def _name(run: str) -> str:
    path = Path(run).resolve()
    return path.stem if path.suffix == ".npz" and path.stem != "model" else run_of(path).name


def _shop_of(run: str) -> Shop | None:
    """The simulated shop that a run was trained on; None for a log, and for a model by itself."""
    path = run_of(run) / "config.toml"
    if not path.is_file():
        return None
    values = {name: default for name, (default, _) in DATA_OPTIONS.items()}
    values |= read_config(str(path))
    return None if values["train"] else Shop(values["shop_items"], values["shop_seed"])
