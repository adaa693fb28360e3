"""Unfitted copies of estimators, and what makes two of them the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.number)

_TRUSTED = ("builtins", "lightgbm", "numpy", "scipy", "sklearn", "xgboost")
"""Packages that do not write into what they are given, unless they are told to."""

_WRITE = ("out", "overwrite", "overwrite_input")
"""Arguments that make them write; ``copy=False`` does, too."""


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
    params = estimator.get_params(deep=True).items()
    return is_known(estimator) and not any(_asks_to_write(*each) for each in params)


def is_known(estimator: Any) -> bool:
    """Return whether an estimator and all that acts in it are of packages that we know."""
    acting = [each for each in estimator.get_params(deep=True).values() if _acts(each)]
    return all(map(is_trusted, (estimator, *acting)))


def _acts(value: Any) -> bool:
    return hasattr(value, "get_params") or callable(value)


def _asks_to_write(name: str, value: Any) -> bool:
    """Return whether a parameter, or one in a dict of arguments, makes its owner write."""
    if isinstance(value, dict):
        return any(_asks_to_write(str(key), each) for key, each in value.items())
    last = name.rpartition("__")[2]
    return (last.startswith("copy") and value is False) or (last in _WRITE and bool(value))


def is_trusted(value: Any) -> bool:
    """Return whether an estimator or a function is of a package that we know."""
    if isinstance(value, partial):
        given = value.keywords.items()
        return is_trusted(value.func) and not any(_asks_to_write(*each) for each in given)
    home = getattr(value, "__module__", None) or type(value).__module__
    return home.partition(".")[0] in _TRUSTED


def own(values: Any) -> Any:
    """Return samples of one's own, which may be written into."""
    return values.copy() if hasattr(values, "copy") else copy.copy(values)


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
    if type(value) is np.ndarray:
        held: Any = value.ravel().tolist() if value.dtype.hasobject else value.tobytes()
        return (np.ndarray, value.shape, value.dtype.str, identity(held))
    if isinstance(value, slice):
        return (slice, identity((value.start, value.stop, value.step)))
    if _is_index(value):
        return (type(value), str(value.dtype), identity(value.tolist()))
    if hasattr(value, "get_params") and not isinstance(value, type):
        return _identity_of({**value.get_params(deep=False), **vars(value)}, value, without)
    if type(value).__module__.startswith("sklearn.") and hasattr(value, "__dict__"):
        return _identity_of(vars(value), value, without)  # a column selector, a splitter
    return ("object", id(value))


def _identity_of(held: Mapping[str, Any], value: Any, without: Iterable[str]) -> Hashable:
    dropped = set(without)
    names = sorted(name for name in held if name not in dropped)
    return (type(value), tuple((name, identity(held[name])) for name in names))


def _is_index(value: Any) -> bool:
    """Return whether a value is an index of pandas, as ``frame.columns`` is."""
    home = type(value).__module__.partition(".")[0]
    return home == "pandas" and type(value).__name__.endswith("Index")


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
