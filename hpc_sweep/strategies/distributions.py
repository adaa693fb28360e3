"""Distributions of parameters, by the names that a spec calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpc_sweep.errors import Fault, listed, nearest
from hpc_sweep.estimators import NameFault, import_object
from hpc_sweep.spec import json_like

Space = Mapping[str, Any]
"""Values by parameter: a list to choose from, or ``{import.path: arguments}``."""

USUAL = ("loguniform", "uniform", "randint", "norm", "expon")
"""Those of scipy.stats that a wrong name is compared with."""


def build_spaces(spaces: Space | Sequence[Space]) -> list[dict[str, Any]]:
    """Return spaces with their distributions made."""
    return [
        {name: build(values) for name, values in space.items()}
        for space in ([spaces] if isinstance(spaces, Mapping) else spaces)
    ]


def build(values: Any) -> Any:
    """Return a list as it is, and what ``{import.path: arguments}`` describes.

    Parameters
    ----------
    values : list or mapping
        ``{scipy.stats.loguniform: [1e-3, 1e3]}`` or ``{scipy.stats.loguniform: {a: …}}``.

    Raises
    ------
    NameFault
        When there is no such distribution, or it does not take these arguments.
    """
    if not isinstance(values, Mapping):
        return values
    ((path, given),) = values.items()
    if "." not in path:
        near = nearest(path, USUAL).replace("'", "'scipy.stats.", 1)
        raise NameFault(f"'{path}' is no import path such as scipy.stats.loguniform{near}")
    kind = import_object(path)
    if not (hasattr(kind, "rvs") or _is_optunas(kind)):
        near = nearest(path.rpartition(".")[2], USUAL).replace("'", "'scipy.stats.", 1)
        raise NameFault(f"'{path}' is no distribution (it lacks rvs){near}")
    try:
        return kind(**given) if isinstance(given, Mapping) else kind(*(given or ()))
    except Exception as error:  # a user's class may raise anything
        raise NameFault(f"'{path}' does not take {given!r}: {error}") from None


def _is_optunas(kind: Any) -> bool:
    """Return whether something is a distribution class of Optuna, which is optional."""
    return getattr(kind, "__module__", "").startswith("optuna.") and hasattr(
        kind, "to_internal_repr"
    )


def is_discrete(values: Mapping[str, Any]) -> bool:
    """Return whether a distribution gives integers; Optuna's are known by their names."""
    (path,) = values
    if path.startswith("optuna."):
        return "Int" in path
    return hasattr(import_object(path), "pmf")


def space_faults(place: str, spaces: Space | Sequence[Space]) -> Iterable[Fault]:
    """Yield distributions of the model at `place` that a number cannot be drawn from."""
    for name, values in _items(spaces):
        try:
            distribution = build(values)
            if isinstance(values, Mapping):
                _draw_one(distribution, next(iter(values)))
        except NameFault as fault:
            yield Fault(f"{place}.param_distributions.{name}", str(fault))


def _items(spaces: Space | Sequence[Space]) -> Iterable[tuple[str, Any]]:
    for space in [spaces] if isinstance(spaces, Mapping) else spaces:
        yield from space.items()


def _draw_one(distribution: Any, path: str) -> None:
    if not hasattr(distribution, "rvs"):
        raise NameFault(f"'{path}' has no rvs to draw with; scipy.stats has {listed(USUAL)}")
    try:
        drawn = distribution.rvs(random_state=0)
    except Exception as error:  # scipy finds wrong parameters when it draws
        raise NameFault(f"'{path}' cannot be drawn from: {error}") from None
    plain = json_like(drawn)
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        raise NameFault(f"'{path}' gives {drawn!r}, not a number")
