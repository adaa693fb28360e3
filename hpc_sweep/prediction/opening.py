"""The data that a sweep has read, where it still is."""

from __future__ import annotations

from hpc_sweep.errors import SpecError
from hpc_sweep.source import Source, open_source
from hpc_sweep.spec import SweepSpec


def sweep_source(spec: SweepSpec) -> Source | None:
    """Open the data of a sweep; None where it is not there any more."""
    try:
        return open_source(spec.data, spec.search)
    except SpecError:
        return None
