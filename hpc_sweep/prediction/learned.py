"""Whether data has the features that models have learned, and as they have learned them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from hpc_sweep.choices import Portion
from hpc_sweep.errors import Fault, SpecError, listed
from hpc_sweep.source import Described, Source, described, in_words, open_source
from hpc_sweep.spec import DataSpec, wanted_axes
from hpc_sweep.store import Store

PLACES = ("store", "loader")
"""Keys of ``data`` that a prediction's own argument stands for."""


@dataclass(frozen=True)
class Learned:
    """What the sweep's features were.

    Attributes
    ----------
    variables : mapping of str to Described
        The stored variables that they were made of; empty where that is not known.
    """

    variables: Mapping[str, Described]

    @classmethod
    def of(cls, store: Store, sweep: Source | None) -> Learned:
        """Return what a store has recorded, or else what the sweep's data has, where it is."""
        if store.header.features or sweep is None:
            return cls(store.header.features)
        return cls(sweep.described_features())

    def unit_faults(self, dataset: xr.Dataset) -> Iterator[Fault]:
        """Yield variables in other units."""
        for name, here in described(dataset, self.variables).items():
            mine, theirs = (each.get("units") for each in (here, self.variables[name]))
            if mine and theirs and mine != theirs:
                yield Fault(
                    f"variable '{name}'",
                    f"is in {mine} here, and models have learned it in {theirs}; convert it, or "
                    "use --ignore-units if that means the same",
                )

    def calendars(self, dataset: xr.Dataset) -> Iterator[str]:
        """Say which dates are of another calendar, of those that features are made of."""
        for name, here in described(dataset, self.variables).items():
            mine, theirs = (each.get("calendar") for each in (here, self.variables[name]))
            if mine and theirs and mine != theirs:
                yield (
                    f"warning: '{name}' has the calendar {mine}, and models have learned from "
                    f"{theirs}: days of the year may not mean the same"
                )

    def words(self, feature: str) -> str:
        """Say what the sweep had for a feature, or nothing where that is not known."""
        for name, facts in self.variables.items():
            if feature == name or feature.startswith((f"{name}@", f"{name}.")):
                return f" (the sweep used {in_words(facts)}: give the data the same)"
        return ""

    @property
    def dims(self) -> str:
        """Say what the sweep's features ran along, or nothing where that is not known."""
        dims = dict.fromkeys(dim for facts in self.variables.values() for dim in facts["dims"])
        return f" (the sweep's features run along {listed(dims)})" if dims else ""


def open_data(
    data: DataSpec,
    portion: Portion,
    learned: Learned,
    *,
    ignore_units: bool,
    say: Callable[[str], None],
) -> Source:
    """Open what is predicted.

    Raises
    ------
    SpecError
        With all that is wrong with it, in words of the data.
    """

    def check(dataset: xr.Dataset) -> Iterator[Fault]:
        for text in learned.calendars(dataset):
            say(text)
        if not ignore_units:
            yield from learned.unit_faults(dataset)

    try:
        return open_source(data, by_label=False, check=check)
    except SpecError as error:
        raise data_error(data, error.faults, portion, learned) from error.__cause__


def data_error(
    data: DataSpec, faults: Sequence[Fault], portion: Portion, learned: Learned
) -> SpecError:
    """Return the error that says what is wrong with the data, by its own names."""
    numbered = {f"data.features.{i}": (i, name) for i, name in enumerate(data.features)}
    ordered = sorted(faults, key=lambda fault: numbered.get(fault.path, (len(numbered), ""))[0])
    axes = {wanted.path: wanted.name for wanted in wanted_axes(data.partition_by)}
    told = []
    for fault in ordered:
        _, _, key = fault.path.partition("data.")
        path, more = fault.path, ""
        if fault.path in numbered:
            name = numbered[fault.path][1]
            path, more = f"feature '{name}'", learned.words(name)
        elif fault.path in axes:
            path, more = f"partitions by '{axes[fault.path]}'", learned.dims
        elif key in ("partition_by", "sample_dims"):
            path, more = "dimensions", learned.dims
        elif key == "where":
            path = f"mask '{data.where}'"
        elif key == "holdout":
            path = f"--split {portion}"
        elif key in PLACES:
            path = ""
        told.append(Fault(path, f"{fault.message}{more}"))
    return SpecError(told, f"the data {data.origin}")
