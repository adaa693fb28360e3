"""Core-hours and what a machine charges for them: arithmetic over sizes and event logs."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc_sweep.spec import ChargeSpec

NOT_OF_A_RUN = frozenset({"driver_submitted", "driver_started", "cancelled", "chain_ended"})
"""Events outside of runs, at any time."""


@dataclass(frozen=True)
class Spent:
    """What runs have used.

    Attributes
    ----------
    core_hours : float
        Of workers, and of the driver's job.
    charges : mapping of str to float
        What machines charged for that, by their units.
    units : int
        Units of work that were finished meanwhile.
    """

    core_hours: float = 0.0
    charges: Mapping[str, float] = field(default_factory=dict)
    units: int = 0

    def __add__(self, other: Spent) -> Spent:
        units = dict.fromkeys([*self.charges, *other.charges])
        charges = {u: self.charges.get(u, 0.0) + other.charges.get(u, 0.0) for u in units}
        return Spent(self.core_hours + other.core_hours, charges, self.units + other.units)


def charge_rate(charge: ChargeSpec, cores: int, memory_bytes: int | None) -> float:
    """Return what one hour of one worker's core is charged.

    Parameters
    ----------
    charge : ChargeSpec
        The machine's formula.
    cores : int
        Of a job, or of a node where whole nodes are charged.
    memory_bytes : int or None
        Of the same.
    """
    if charge.per_core_hour is None:
        return (charge.per_node_hour or 0.0) / cores
    share = 1.0
    if charge.memory_per_core and memory_bytes:
        share = max(share, memory_bytes / int(charge.memory_per_core) / cores)
    return charge.per_core_hour * share


def spent(events: Iterable[Mapping[str, Any]]) -> Spent:
    """Return what the runs of one event log have used.

    A run that was killed counts up to its last event; it writes one a minute at least.

    Parameters
    ----------
    events : iterable of mapping
        In order: ``run_started`` with ``own_cores`` of the driver's job, ``workers_apart`` from
        it, ``charge_rate`` and ``charge_unit``, then counts of ``workers`` whenever they change,
        until ``run_ended``.
    """
    total = Spent()
    cores = own = 0
    rate: float | None = None
    apart, unit, since = True, "", None
    for event in events:
        kind, now = event.get("event"), _seconds(event.get("time"))
        if now is None or kind in NOT_OF_A_RUN:
            continue
        if kind == "run_started":
            cores = own = int(event.get("own_cores", 0))
            apart = bool(event.get("workers_apart", True))
            rate, unit, since = event.get("charge_rate"), str(event.get("charge_unit", "")), now
        elif since is not None:
            hours = cores * max(0.0, now - since) / 3600
            charges = {} if rate is None else {unit: hours * rate}
            total += Spent(hours, charges, units=int(kind == "unit_done"))
            since = None if kind == "run_ended" else now
            if apart and isinstance(event.get("workers"), int):
                cores = own + event["workers"]
    return total


def _seconds(time: object) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return None
