"""What stands against sample weights, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sklearn.base import clone

from hpc_sweep.errors import Fault
from hpc_sweep.estimators import build_estimator, parameter_value
from hpc_sweep.search import called, weight_parameter
from hpc_sweep.spec import ModelSpec
from hpc_sweep.strategies import Strategy


def weight_faults(strategy: Strategy) -> Iterator[Fault]:
    """Yield models, and values of their grids, that take no sample weights; and engines."""
    spec = strategy.spec
    name = spec.data.sample_weight
    given = "the loader's weights" if name is None else f"data.sample_weight: {name}"
    if strategy.on_blocks:
        yield Fault("data.sample_weight", f"blocks on all workers are not weighted ({given})")
        return
    if spec.search.engine == "dask-ml":
        text = f"dask-ml scores without weights ({given}); search.engine: shared weighs"
        yield Fault("search.engine", text)
    for index, model in enumerate(spec.models):
        place = f"models.{index}"
        key = "estimator" if model.pipeline is None else "pipeline"
        built = build_estimator(model.estimator, model.pipeline)
        settings = {f"{place}.{key}": built, **_changed(model, place, built)}
        for path, estimator in settings.items():
            if weight_parameter(estimator) is None:
                text = f"{called(estimator)}.fit takes no sample weights ({given})"
                yield Fault(path, f"{text}; leave the model or the weights out")


def _changed(model: ModelSpec, place: str, built: Any) -> Mapping[str, Any]:
    """Return by place the estimators that a grid or distribution makes by putting in others."""
    found: dict[str, Any] = {}
    for key in ("param_grid", "param_distributions"):
        space = getattr(model, key)
        for grid in [space] if isinstance(space, Mapping) else space:
            for name, values in grid.items():
                for number, value in enumerate(values if isinstance(values, list) else ()):
                    put = parameter_value(value)
                    if hasattr(put, "fit") or put is None or isinstance(put, str):
                        made = _with(built, name, put)
                        if made is not None:
                            found[f"{place}.{key}.{name}.{number}"] = made
    return found


def _with(built: Any, name: str, value: Any) -> Any:
    """Return an estimator with another value of a parameter; None where it cannot be set."""
    try:
        return clone(built).set_params(**{name: value})
    except ValueError:  # told elsewhere, or of a step that the grid puts in
        return None
