"""Unfitted copies of estimators, and what makes two of them the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.number)

_TRUSTED = ("builtins", "lightgbm", "numpy", "scipy", "sklearn", "xgboost")
"""Packages that do not write into what they are given, unless they are told to."""


def copier(estimator: Any) -> Callable[[], Any]:
    """Return what makes unfitted copies of an estimator, as `sklearn.base.clone` does.

    Parameters
    ----------
    estimator : estimator
        As `clone` makes it.

    Notes
    -----
    Where an estimator of scikit-learn's own holds nothing that can be changed, copying its
    dictionary does.
    """
    if isinstance(estimator, Pipeline) and _is_pure(estimator, except_for="steps"):
        steps = [(name, copier(step)) for name, step in estimator.steps]

        def make() -> Any:
            made = copy.copy(estimator)
            made.steps = [(name, make_step()) for name, make_step in steps]
            return made

        return make
    if _is_pure(estimator):
        return lambda: copy.copy(estimator)
    if isinstance(estimator, str):  # passthrough
        return lambda: estimator
    return lambda: clone(estimator)


def _is_pure(estimator: Any, except_for: str = "") -> bool:
    kind = type(estimator)
    if not kind.__module__.startswith("sklearn.") or not hasattr(kind, "get_params"):
        return False
    held = vars(estimator)
    params = estimator.get_params(deep=False)
    return held.keys() >= params.keys() and all(
        name == except_for or _is_immutable(value) for name, value in held.items()
    )


def _is_immutable(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_immutable, value))
    return isinstance(value, _PLAIN)


def leaves_input(estimator: Any) -> bool:
    """Return whether an estimator is known not to write into the arrays that it is given."""
    if not _is_trusted(estimator):
        return False
    params = estimator.get_params(deep=True).items()
    for name, value in params:
        last = name.rpartition("__")[2]
        if (last.startswith("copy") and value is False) or (last == "overwrite" and value):
            return False
        acts = hasattr(value, "get_params") or callable(value)
        if acts and not _is_trusted(value):
            return False
    return True


def _is_trusted(value: Any) -> bool:
    if isinstance(value, partial):
        return "copy" not in value.keywords and _is_trusted(value.func)
    home = getattr(value, "__module__", None) or type(value).__module__
    return home.partition(".")[0] in _TRUSTED


def identity(value: Any, without: Iterable[str] = ()) -> Hashable:
    """Return what two values have in common when a fit cannot tell them apart.

    Parameters
    ----------
    value : object
        An estimator or a parameter's value. What has no identity that can be seen is the
        same as itself only; it must be kept alive.
    without : iterable of str
        Parameters of the estimator that do not count.
    """
    if isinstance(value, _PLAIN):
        return (type(value), repr(value))
    if isinstance(value, (list, tuple)):
        return (type(value), tuple(map(identity, value)))
    if isinstance(value, dict):
        return (dict, tuple((identity(key), identity(value[key])) for key in value))
    if type(value) is partial:
        return (partial, identity(value.func), identity(value.args), identity(value.keywords))
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return (np.ndarray, value.shape, value.dtype.str, value.tobytes())
    if hasattr(value, "get_params") and not isinstance(value, type):
        dropped = set(without)
        held = {**value.get_params(deep=False), **vars(value)}
        names = sorted(name for name in held if name not in dropped)
        return (type(value), tuple((name, identity(held[name])) for name in names))
    return ("object", id(value))


def kind(estimator: Any) -> str:
    """Return an estimator's package and class, like ``sklearn.PCA``; subclasses differ."""
    made_of = type(estimator)
    return f"{made_of.__module__.partition('.')[0]}.{made_of.__qualname__}"


def is_seeded(estimator: Any, deep: bool = True) -> bool:
    """Return whether every random state of an estimator, and of those in it, is an integer."""
    return all(
        isinstance(value, Integral)
        for name, value in estimator.get_params(deep=deep).items()
        if name.rpartition("__")[2] == "random_state"
    )
