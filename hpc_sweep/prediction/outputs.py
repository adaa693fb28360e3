"""What is predicted: the arrays of the result, their types, and what is missing in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError, listed
from hpc_sweep.estimators import build_estimator, is_classifier
from hpc_sweep.source import Source, as_estimators_take, blocks
from hpc_sweep.spec import SweepSpec

CLASS = "class"
"""The dimension of probabilities."""

MEANING = ("units", "standard_name", "long_name", "calendar")
"""Attributes of a target that its prediction has too."""

_FILLS: dict[str, tuple[str, Any]] = {
    "f": ("float64", np.nan),
    "i": ("int64", np.iinfo(np.int64).min),
    "u": ("int64", np.iinfo(np.int64).min),
    "b": ("int8", -1),
}
"""By kind of a target's type: the type of predicted classes, and what is none."""


@dataclass(frozen=True)
class Output:
    """One array of the result.

    Attributes
    ----------
    name : str
        In the result.
    dtype : str
        As a store names it.
    fill : object
        What samples have that are not predicted.
    attributes : dict
        Of the array.
    """

    name: str
    dtype: str
    fill: Any = field(compare=False)  # NaN is not equal to itself
    attributes: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Outputs:
    """All arrays of the result.

    Attributes
    ----------
    arrays : tuple of Output
        One for each target.
    separate : bool
        Whether each has a model of its own.
    classes : tuple or None
        Those that probabilities are for.
    """

    arrays: tuple[Output, ...]
    separate: bool
    classes: tuple[Any, ...] | None = None

    @property
    def method(self) -> str:
        """What models are asked for."""
        return "predict" if self.classes is None else "predict_proba"

    @property
    def more(self) -> tuple[int, ...]:
        """Lengths of the dimensions behind those of the data."""
        return () if self.classes is None else (len(self.classes),)

    def values(self, model: Any, X: NDArray[Any]) -> NDArray[Any]:
        """Predict samples, shape (n_samples, n_outputs of the model, *more)."""
        return self.arranged(model, np.asarray(getattr(model, self.method)(X)))

    def arranged(self, model: Any, found: NDArray[Any]) -> NDArray[Any]:
        """Return what a model gave, shape (n_samples, n_outputs of the model, *more)."""
        if self.classes is None:
            return found.reshape(len(found), -1)
        columns = [self.classes.index(each) for each in np.asarray(model.classes_).tolist()]
        spread = np.full((len(found), 1, len(self.classes)), np.nan)
        spread[:, 0, columns] = found
        return spread


def make_outputs(spec: SweepSpec, sweep: Source | None, *, proba: bool) -> Outputs:
    """Return what the models of a sweep predict.

    Parameters
    ----------
    spec : SweepSpec
        The sweep.
    sweep : Source or None
        Its data, where that can be opened.
    proba : bool
        Whether probabilities are asked for.

    Raises
    ------
    StoreError
        When its models cannot predict, or it is not known what.
    """
    classifies = _check_models(spec, proba=proba)
    targets = spec.targets or ("prediction",)
    separate = spec.data.outputs == "separate"
    if proba and len(targets) > 1 and not separate:
        raise StoreError(
            f"models of {spec.name} predict {listed(targets)} together, and probabilities of "
            "several outputs at once are not written; leave --proba out"
        )
    if (classifies or proba) and spec.targets and sweep is None:
        raise StoreError(
            f"which classes there are says the sweep's data, and {spec.data.origin} cannot be "
            "opened; bring it back"
        )
    if proba:
        found = _classes(sweep, spec.targets) if sweep is not None else ()
        return Outputs(
            tuple(
                Output(f"{name}_probability", "float64", np.nan, _probable(name))
                for name in targets
            ),
            separate,
            found,
        )
    arrays = tuple(_output(name, spec, sweep, classifies=classifies) for name in targets)
    return Outputs(arrays, separate)


def _check_models(spec: SweepSpec, *, proba: bool) -> bool:
    """Return whether models predict classes; refuse those that predict nothing."""
    method = "predict_proba" if proba else "predict"
    kinds = set()
    for model in spec.models:
        estimator = build_estimator(model.estimator, model.pipeline)
        name = type(getattr(estimator, "steps", [("", estimator)])[-1][1]).__name__
        kinds.add(is_classifier(estimator))
        # with other parameters it may have it: SVC(probability=True)
        if not hasattr(estimator, method) and not (proba and is_classifier(estimator)):
            hint = "; leave --proba out" if proba else ""
            raise StoreError(f"{name}, a model of {spec.name}, has no {method}{hint}")
    return kinds == {True}


def _output(name: str, spec: SweepSpec, sweep: Source | None, *, classifies: bool) -> Output:
    known = sweep is not None and name in sweep.dataset.variables
    attributes: dict[str, Any] = {"long_name": f"{name} predicted by {spec.name}"}
    dtype, fill = _FILLS["f"]
    if known and sweep is not None:
        variable = sweep.dataset[name]
        said = {key: variable.attrs[key] for key in MEANING if key in variable.attrs}
        attributes |= {**said, "comment": f"predicted by {spec.name}"}
        if classifies:
            kind = as_estimators_take(np.zeros(0, variable.dtype), spec.data.dtype).dtype.kind
            dtype, fill = _FILLS.get(kind, ("str", ""))
    elif not spec.targets and not _regresses(spec):  # labels of clusters, of outliers
        dtype, fill = _FILLS["i"]
    return Output(name, dtype, fill, attributes)


def _regresses(spec: SweepSpec) -> bool:
    from sklearn.base import is_regressor

    built = (build_estimator(model.estimator, model.pipeline) for model in spec.models)
    return any(is_regressor(estimator) for estimator in built)


def _probable(name: str) -> dict[str, Any]:
    return {"long_name": f"probability of each class of {name}", "units": "1"}


def _classes(sweep: Source, targets: Sequence[str]) -> tuple[Any, ...]:
    """Return the classes that models can have learned, sorted; reads the targets."""
    keys = sweep.keys
    known: set[Any] = set()
    for target in targets:
        names = [target, *([keys.held_by] if keys.held_by is not None else [])]
        for values in blocks(sweep.dataset, names):
            taken = as_estimators_take(values[target], sweep.data.dtype)
            known |= set(np.unique(taken[~keys.held(values)]).tolist())
    try:
        return tuple(sorted(known))
    except TypeError:
        kinds = listed(sorted({type(each).__name__ for each in known}))
        raise StoreError(
            f"classes of {listed(targets)} are of several types ({kinds}); probabilities are "
            "written for one"
        ) from None
