"""The store that a spec finds where its results should go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_sweep.errors import StoreError
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store.runfolder import is_free, real_place
from hpc_sweep.store.store import Store


def existing_store(spec: SweepSpec, source: str) -> Store | None:
    """Return the store of a sweep, whatever candidates it has; None if there is none.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    source : str
        Identity of its data.

    Raises
    ------
    StoreError
        When what is there was made under other conditions, or of other data.
    """
    path = real_place(spec.output.store)
    if is_free(path):
        return None
    store = Store.open(path, "name another output.store")
    changes = _changes(store.spec.conditions(), spec.conditions())
    if changes:
        lines = "\n".join(f"  {change}" for change in changes)
        why = "" if store.strategy.is_parted else f"{spec.search.strategy} {WHY}; "
        raise StoreError(
            f"{path} holds results of another spec; changed:\n{lines}\n"
            f"{why}name another output.store, or delete this one"
        )
    kinds = store.spec.output.models, spec.output.models
    if kinds[0] != kinds[1] and "none" in kinds:
        raise StoreError(
            f"{path} was made with output.models: {kinds[0]}, and the spec has {kinds[1]}: one has "
            "arrays for coefficients and the other has not; put it back, or name another "
            "output.store (on_demand, skops and joblib may be exchanged)"
        )
    if store.header.source != source:
        raise StoreError(
            f"{path} holds results of other data: the variables' metadata or coordinates of "
            f"{spec.data.origin} changed since; name another output.store"
        )
    return store


WHY = "chooses by the results of a partition's other candidates, so none can be added or dropped"


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two specs, a line each, by dotted key."""
    old, new = _flat(before), _flat(after)
    absent = "(absent)"
    return [
        f"{key}: {old.get(key, absent)} in the store, {new.get(key, absent)} in the spec"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, absent) != new.get(key, absent)
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    items = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
        else None
    )
    if items is None:
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found.update(_flat(item, f"{path}.{key}" if path else str(key)))
    return found
