"""`Model`: what every recommender here can do. Evaluate, recommend, save and load stand once.

A model has hyperparameters, `model.hp`; it is not one. `Network` is a model with weights and a
backend, `Baseline` (baselines.py) one that only has scores. Imports the data layer, the backends
and the files of models.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from gru4rec_np.backends import Ops, Weights
from gru4rec_np.backends import load as load_backend
from gru4rec_np.data.sessions import Sessions, check_cut_offs, check_k, index_of, item_list
from gru4rec_np.data.tables import Watch, as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import checkpoint
from gru4rec_np.models.hyperparameters import Checked
from gru4rec_np.ops.ranking import metrics, top

M = TypeVar("M", bound="Model")

# Called now and then in a training: the epoch, from 1, its events done, its events in all, and
# their mean loss so far.
OnChunk = Callable[[int, int, int, float], None]


class Model(ABC):
    """A recommender for sessions. Follows scikit-learn's conventions for its hyperparameters.

    The constructor takes the fields of `Hyperparameters` by name. `get_params` returns them as
    given, `set_params` and `model.name = value` check them as the constructor does. What trained
    weights depend on cannot change after `fit` or `load`.

    Attributes:
        hp: the checked hyperparameters; each can also be read as an attribute of the model.
        item_ids: (I,) after `fit`, the catalogue.
    """

    name: ClassVar[str]
    Hyperparameters: ClassVar[type[Checked]] = Checked
    hp: Any
    item_ids: np.ndarray
    _index: dict[str, int]
    _given: dict[str, Any]

    def __init__(self, **hyperparameters: Any) -> None:
        self._set({}, hyperparameters)

    def __init_subclass__(cls) -> None:
        """Give `help(cls)` the hyperparameters with their defaults."""
        super().__init_subclass__()
        fields = inspect.signature(cls.Hyperparameters).parameters.values()
        more = [p for n, p in inspect.signature(cls.__init__).parameters.items() if n == "backend"]
        cls.__signature__ = inspect.Signature([*fields, *more])  # type: ignore[attr-defined]

    # --- hyperparameters --------------------------------------------------------------------------

    def _set(self, before: dict[str, Any], changes: dict[str, Any]) -> None:
        """Check the hyperparameters and keep them, or change nothing.

        Raises:
            InputError: an unknown name, a value that is not allowed or does not fit the weights.
            TypeError: an unknown name, in the constructor.
        """
        names = list(self._names())
        for name in changes:
            if name not in names:
                raise (InputError if before else TypeError)(
                    f"{self.name}: unknown hyperparameter {name!r}; known are {', '.join(names)}"
                )
        given = {**before, **changes}
        hp = self.Hyperparameters(**{n: v for n, v in given.items() if n != "backend"})
        if hasattr(self, "item_ids"):
            for name in hp.fixed:
                if getattr(hp, name) != getattr(self.hp, name):
                    raise InputError(
                        f"{name}: cannot become {getattr(hp, name)!r}, the model is trained with "
                        f"{getattr(self.hp, name)!r}; make a new model instead"
                    )
        defaults = {n: getattr(hp, n) for n in names if n != "backend"}
        object.__setattr__(self, "_given", {**defaults, **given})
        object.__setattr__(self, "hp", hp)

    @classmethod
    def _names(cls) -> Iterator[str]:
        for field in dataclasses.fields(cls.Hyperparameters):
            yield field.name

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyperparameters as they were given, defaults included; for scikit-learn."""
        return {name: self._given[name] for name in self._names()}

    def set_params(self: M, **values: Any) -> M:
        """Change hyperparameters; nothing changes if one of them is refused.

        Raises:
            InputError: an unknown name, a value that is not allowed or does not fit the weights.
        """
        self._set(self._given, values)
        return self

    def hyperparameters(self) -> dict[str, Any]:
        """The checked hyperparameters as plain values, enough to build the same model again."""
        return self.hp.as_dict()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "hp":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = getattr(self.hp, name)
        return copy.copy(value) if isinstance(value, list) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._names():
            self.set_params(**{name: value})
        else:
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        fields = dataclasses.fields(self.Hyperparameters)
        default = {f.name: f.default for f in fields} | {"backend": "auto"}
        default |= {f.name: f.default_factory() for f in fields if callable(f.default_factory)}
        changed = (f"{n}={v!r}" for n, v in self.get_params().items() if v != default[n])
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """scikit-learn asks for this before it clones a model or searches over one."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False))

    # --- evaluation and recommendation ------------------------------------------------------------

    def _require_fit(self) -> None:
        if not hasattr(self, "item_ids"):
            raise InputError(f"{self.name}: the model is not trained, call fit or load first")

    def _set_catalogue(self, item_ids: np.ndarray) -> None:
        self.item_ids = item_ids
        self._index = index_of(item_ids)

    @abstractmethod
    def fit(self, train: Any) -> Model:
        """Train on sessions."""

    @abstractmethod
    def _ranks(self, test: Sessions, ties: str, watch: Watch | None) -> np.ndarray:
        """(cases,) ranks, for test sessions over the model's own catalogue."""

    @abstractmethod
    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        """(I,) scores of the catalogue after a session of items (n,), n >= 1."""

    def ranks(
        self, test: Any, ties: str = "conservative", watch: Watch | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank of the true next item among all items, for every case of the test sessions.

        Args:
            test: sessions over any catalogue, see `Sessions.restrict`; or a frame, as for `fit`.
            ties: how equal scores count, see `ranking.ranks`.
            watch: called now and then with the number of cases ranked so far, and of all.

        Returns:
            ranks (cases,) float64, and how many events the session had before each case's item
            (cases,), 1 or more.

        Raises:
            InputError: nothing is left to rank.
        """
        self._require_fit()
        test = as_sessions(test).restrict(self.item_ids)
        return self._ranks(test, ties, watch), test.positions[test.cases] + 1

    def evaluate(
        self, test: Any, k: int | Sequence[int] = (20,), ties: str = "conservative"
    ) -> dict[str, float]:
        """Recall@K and MRR@K of the next item, over the whole catalogue (Hidasi et al. 2016, §4).

        Args:
            test: as for `ranks`. Events of items that training did not have are dropped, then
                sessions shorter than 2.
            k: the cut-offs, or one. ties: see `ranking.ranks`.

        Returns:
            {"recall@20": ..., "mrr@20": ...}

        Raises:
            InputError: nothing is left to evaluate, or a cut-off < 1.
        """
        check_cut_offs(k)
        return metrics(self.ranks(test, ties)[0], k)

    def score(self, test: Any, y: None = None) -> float:
        """Recall@20 on test sessions: what scikit-learn's searches maximise by default."""
        return self.evaluate(test)["recall@20"]

    def _known(self, session: Any) -> tuple[np.ndarray, np.ndarray]:
        """A session's known items: their places in it (n,), and their indices (n,) int32.

        Raises:
            InputError: the session is no list of items, or none of them is known.
        """
        self._require_fit()
        found = [self._index.get(str(item), -1) for item in item_list(session)]
        indices = np.array(found, np.int32)
        places = np.flatnonzero(indices >= 0)
        if len(places) == 0:
            raise InputError(f"recommend: none of the {len(found)} items is known to the model")
        return places, indices[places]

    def recommend(self, session: Sequence[Any], k: int = 20) -> list[tuple[Any, float]]:
        """The k items that are most likely next.

        Args:
            session: item ids, oldest first; items that training did not have are ignored.
            k: how many.

        Returns:
            (item id, score), best first. Of equal scores, the first in `item_ids` comes first.

        Raises:
            InputError: the session is no list of items or has none that is known, or k < 1.
        """
        check_k(k)
        return top(self._scores_after(self._known(session)[1]), self.item_ids, k)

    # --- on disk ----------------------------------------------------------------------------------

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """All that was learnt, for a file."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """The inverse of `_arrays`, once `item_ids` is set.

        Raises:
            KeyError, ValueError: an array is missing, or has another shape or type.
        """

    def save(self, path: str | Path) -> None:
        """Write the trained model to one .npz file, see `checkpoint.save`."""
        self._require_fit()
        about = {"model": self.name, "hyperparameters": self.hyperparameters()}
        checkpoint.save(path, about, {**self._arrays(), **checkpoint.pack_ids(self.item_ids)})

    @classmethod
    def load(cls: type[M], path: str | Path, **more: Any) -> M:
        """Read a model that `save` wrote.

        Args:
            path: the .npz file, or the directory that holds it as model.npz.
            more: `backend`, for a network.

        Raises:
            InputError: the file is missing, damaged, of another model, or its parts do not fit
                together.
        """
        about, arrays = checkpoint.load(path)
        try:
            if about["model"] != cls.name:
                raise ValueError(f"it holds {about['model']}, not {cls.name}")
            # Files of version 0.1 have "parameters" for the baselines.
            hyperparameters = about.get("hyperparameters") or about.get("parameters", {})
            model = cls(**hyperparameters, **more)
            model._set_catalogue(checkpoint.unpack_ids(arrays))
            model._restore(arrays)
        except (KeyError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise InputError(f"{path}: the model file does not fit together: {error}") from error
        return model


class Network(Model):
    """A model with weights and a backend.

    Attributes:
        backend: what runs it, see `backends.load`. ops: its hot operations.
        weights: after `fit`, name to array.
        losses: (updates,) float64, the mean loss over the events of every update, in order.
        history: one dict for each epoch: epoch, loss (mean over its events), events, seconds,
            events_per_second.
    """

    ops: Ops
    weights: Weights
    losses: np.ndarray
    history: list[dict[str, float]]

    def __init__(self, backend: str = "auto", **hyperparameters: Any) -> None:
        super().__init__(backend=backend, **hyperparameters)

    def _set(self, before: dict[str, Any], changes: dict[str, Any]) -> None:
        ops = load_backend(changes["backend"]) if "backend" in changes else self.ops
        super()._set(before, changes)
        self.ops = ops

    @classmethod
    def _names(cls) -> Iterator[str]:
        yield from super()._names()
        yield "backend"

    @property
    def backend(self) -> str:
        """The name that was asked for, "auto" perhaps; `ops.name` is what it became."""
        return self._given["backend"]

    @abstractmethod
    def _shapes(self, n_items: int) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by name."""

    def _arrays(self) -> dict[str, np.ndarray]:
        return {f"weights/{name}": array for name, array in self.weights.items()}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.weights = checkpoint.take_weights(arrays, self._shapes(len(self.item_ids)))


@contextmanager
def progress(n_epochs: int, verbose: bool | None) -> Iterator[OnChunk]:
    """A tqdm bar over all events of all epochs of a training.

    Args:
        verbose: True always shows it, False never, None on a terminal and in a notebook.

    Yields:
        the `on_chunk` that moves it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where a notebook lacks ipywidgets
        from tqdm.auto import tqdm
    is_widget = any(parent.__name__ == "tqdm_notebook" for parent in tqdm.__mro__)
    hide = (False if is_widget else None) if verbose is None else not verbose
    with tqdm(unit=" events", unit_scale=True, dynamic_ncols=True, disable=hide) as bar:

        def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
            bar.total = total * n_epochs
            bar.set_description(f"epoch {epoch}/{n_epochs}", refresh=False)
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update((epoch - 1) * total + done - bar.n)

        yield on_chunk
