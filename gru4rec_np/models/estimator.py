"""`Estimator`: an object with hyperparameters, by scikit-learn's conventions.

All models derive from it. It knows nothing of sessions.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from typing import Any, ClassVar, TypeVar

from gru4rec_np.errors import InputError
from gru4rec_np.models.checked import Checked

E = TypeVar("E", bound="Estimator")


class Estimator:
    """Hyperparameters that are checked whenever they are set.

    The constructor takes the fields of `Hyperparameters` by name. `get_params` returns them as
    given. `set_params` and `model.name = value` check values as the constructor does. After `fit`
    or `load`, hyperparameters that would not fit the trained weights cannot change.

    Attributes:
        name: in messages, tables and files.
        hp: the checked hyperparameters. Each is also an attribute.
    """

    name: ClassVar[str]
    Hyperparameters: ClassVar[type[Checked]] = Checked
    __signature__: ClassVar[inspect.Signature]
    hp: Checked
    _given: dict[str, Any]

    def __init__(self, **hyperparameters: Any) -> None:
        self._check_names(hyperparameters, TypeError)
        self.hp = self.Hyperparameters(**hyperparameters)
        self._given = hyperparameters

    def __init_subclass__(cls) -> None:
        """Make `help(cls)` show the hyperparameters and their defaults."""
        super().__init_subclass__()
        defaults: dict[str, Any] = {}
        for field in dataclasses.fields(cls.Hyperparameters):
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            elif default is dataclasses.MISSING:
                default = inspect.Parameter.empty
            defaults[field.name] = default
        own = inspect.signature(cls.__init__).parameters
        defaults |= {n: p.default for n, p in own.items() if n == "backend"}
        keyword = inspect.Parameter.KEYWORD_ONLY
        cls.__signature__ = inspect.Signature(
            [inspect.Parameter(n, keyword, default=default) for n, default in defaults.items()]
        )

    def _is_trained(self) -> bool:
        """Whether there are weights, which some hyperparameters must fit."""
        return False

    def _check_names(self, values: dict[str, Any], error: type[Exception]) -> None:
        known = self.__signature__.parameters
        for name in values:
            if name not in known:
                raise error(
                    f"{self.name}: unknown hyperparameter {name!r}; known are {', '.join(known)}"
                )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyperparameters by name: the objects that were given, else the defaults.

        Args:
            deep: ignored; scikit-learn passes it.
        """
        return {n: self._given.get(n, getattr(self, n)) for n in self.__signature__.parameters}

    def set_params(self: E, **values: Any) -> E:
        """Change hyperparameters. If one is refused, none changes.

        Raises:
            InputError: an unknown name, or a value that is not allowed or does not fit the trained
                weights.
        """
        self._check_names(values, InputError)
        hp = dataclasses.replace(self.hp, **values)
        if self._is_trained():
            for name in hp.fixed:
                old, new = getattr(self.hp, name), getattr(hp, name)
                if new != old:
                    raise InputError(
                        f"{name}: cannot become {new!r}, the model is trained with {old!r}; make a "
                        "new model instead"
                    )
        self.hp, self._given = hp, {**self._given, **values}
        return self

    def hyperparameters(self) -> dict[str, Any]:
        """The checked hyperparameters as plain values, enough to build the same model again."""
        return self.hp.as_dict()

    def __getattr__(self, name: str) -> Any:
        # While a copy is being made there is no hp yet.
        if name.startswith("_") or not hasattr(vars(self).get("hp"), name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = getattr(self.hp, name)
        return copy.copy(value) if isinstance(value, list) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__signature__.parameters:
            self.set_params(**{name: value})
        else:
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        values = (
            (n, getattr(self, n), p.default) for n, p in self.__signature__.parameters.items()
        )
        changed = (f"{name}={value!r}" for name, value, default in values if value != default)
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """Asked for by scikit-learn before it searches over a model."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False))
