"""A small data set of four years in no order, and sweeps on it in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from hpc_sweep.errors import SpecError
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.prepare import create, prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Ledger, PartName, Store, choices, fold, write_part
from hpc_sweep.work import Bench, open_bench
from hpc_sweep.work.evaluation import evaluate_partitions
from hpc_sweep.work.outcomes import part_of

Spec = dict[str, Any]
SHAPE = (3, 4)
DAYS = 120
ONE_YEAR, EMPTY_PIXEL = (1, 2), (2, 3)
LASSO, TREE = "sklearn.linear_model.Lasso", "sklearn.tree.DecisionTreeRegressor"


class Since:
    """A splitter of a user's: trains before a group's label, and tests from it on."""

    def __init__(self, label: int) -> None:
        self.label = label

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return 1."""
        return 1

    def split(self, X: Any, y: Any, groups: Any) -> Iterator[tuple[Any, Any]]:
        """Yield indices of training and of test samples."""
        yield np.flatnonzero(groups < self.label), np.flatnonzero(groups >= self.label)


def years_data(calendar: str = "standard") -> xr.Dataset:
    """Return four years of samples in no order; pixels lack some years, one all but one."""
    rng = np.random.default_rng(11)
    times = xr.date_range(
        "2001-01-05", periods=DAYS, freq="12D", calendar=calendar, use_cftime=calendar != "standard"
    )
    shuffled = times[rng.permutation(DAYS)]
    size = (*SHAPE, DAYS)
    wet, green = rng.normal(size=size), rng.normal(size=size)
    slope = wet - 0.4 * green**2 + rng.normal(0, 0.3, size)
    years = np.array([each.year for each in shuffled])
    for number, place in enumerate(np.ndindex(*SHAPE)):
        if number % 3 == 1:
            slope[place][years == 2001 + number % 4] = np.nan
    slope[ONE_YEAR][years != 2003] = np.nan
    slope[EMPTY_PIXEL] = np.nan
    wet[rng.random(size) < 0.04] = np.nan
    dims = ("latitude", "longitude", "time")
    basin = np.array(["Tay", "Esk", "Dee"])[np.arange(SHAPE[0] * DAYS).reshape(SHAPE[0], DAYS) % 3]
    apart = rng.random(size) < 0.25
    apart[0, 1] = False
    return xr.Dataset(
        {
            "wet": (dims, wet),
            "green": (dims, green),
            "slope": (dims, slope),
            "kind": (dims, (slope > 0).astype("int64")),
            "rain": (
                dims,
                np.where(rng.random(size) < 0.2, np.nan, np.clip(np.round(wet), -1, 1)),
            ),
            "late": ("time", years >= 2003),
            "never": ("time", np.zeros(DAYS, dtype=bool)),
            "apart": (dims, apart),
        },
        coords={
            "latitude": 60 - np.arange(SHAPE[0]) / 4,
            "longitude": np.arange(SHAPE[1]) / 4 - 1,
            "time": shuffled,
            "basin": (("latitude", "time"), basin),
        },
    )


def write(data: xr.Dataset, path: Path) -> str:
    """Write a data set in chunks of two by two pixels."""
    encoding = {name: {"chunks": (2, 2, DAYS)} for name in ("wet", "green", "slope", "rain")}
    data.to_zarr(path, consolidated=False, zarr_format=2, encoding=encoding)
    return str(path)


def yearly_spec(store: str, results: Path) -> Spec:
    """Return a spec of five candidates of two models."""
    return {
        "data": {
            "store": store,
            "features": ["wet", "green"],
            "target": "slope",
            "partition_by": ["latitude", "longitude"],
        },
        "models": [
            {"estimator": LASSO, "param_grid": {"alpha": [0.01, 0.1, 0.5]}},
            {"estimator": TREE, "param_grid": {"max_depth": [2, 4], "random_state": [0]}},
        ],
        "search": {"cv": {"leave_one_group_out": "time.year"}, "scoring": "r2"},
        "cluster": {"kind": "local", "workers": 1, "memory": "1GB", "performance_report": False},
        "output": {"store": str(results)},
    }


def samples(data: xr.Dataset, place: tuple[int, ...], *more: str) -> xr.Dataset:
    """Return the samples of a pixel, in the store's order."""
    pixel = data.isel(dict(zip(("latitude", "longitude"), place, strict=True)))
    return pixel.dropna("time", subset=["wet", "green", "slope", *more])


def arrays(pixel: xr.Dataset) -> tuple[Any, Any]:
    """Return X and y."""
    return np.stack([pixel["wet"].values, pixel["green"].values], axis=1), pixel["slope"].values


def faults(spec: Spec) -> dict[str, str]:
    """Return what is wrong with a spec, by key; nothing is written."""
    with pytest.raises(SpecError) as caught:
        prepare(load_spec(spec))
    assert not Path(spec["output"]["store"]).exists()
    assert not Path(spec["output"]["store"] + ".run").exists()
    return {fault.path: fault.message for fault in caught.value.faults}


class InProcess:
    """A sweep without a cluster: units of so many candidates, the last ones first.

    Parameters
    ----------
    spec : dict
        The spec.
    width : int, optional
        Candidates of a unit; all by default.
    """

    def __init__(self, spec: Spec, width: int | None = None) -> None:
        self.prepared = prepare(load_spec(spec))
        self.store: Store = create(self.prepared)
        self.store.run.make()
        self.width = width or self.store.strategy.n_columns
        self.bench: Bench = open_bench(str(self.store.path), self.prepared.spec.model_dump_json())

    def units(self, chunk: Chunk) -> list[Unit]:
        """Return the units of a result chunk."""
        columns = self.store.strategy.n_columns
        firsts = reversed(range(0, columns, self.width))
        whole = Unit(chunk, 0, self.store.n_partitions(chunk), 0, columns)
        return [replace(whole, first=f, last=min(f + self.width, columns)) for f in firsts]

    def leave(self, unit: Unit, parts: list[PartName] | None = None) -> PartName:
        """Evaluate a unit and write its part."""
        best = None if unit.n_cells else choices(self.store, unit, parts or [])
        found = evaluate_partitions(self.bench, unit, time.perf_counter() + 60, choices=best)
        part = part_of(self.bench, [outcome for batch in found for outcome in batch])
        return write_part(self.store.run.parts, self.store.header.id, unit, part)

    def run(self, change: Callable[[list[PartName]], None] = lambda names: None) -> xr.Dataset:
        """Do all units and fold; `change` is given the parts of each chunk before."""
        ledger = Ledger(self.store)
        for chunk in ledger.chunks:
            names = [self.leave(unit) for unit in self.units(chunk)]
            change(names)
            complete = [ledger.add(name) for name in names]
            assert complete[-1]
            while lacking := ledger.fold(chunk, fold(self.store, chunk, ledger.parts[chunk]), 2):
                assert len(lacking) < 10
                known = list(ledger.parts[chunk])
                complete = [ledger.add(self.leave(unit, known)) for unit in lacking]
                assert complete == [*(False for _ in lacking[1:]), True]
        assert ledger.is_complete
        assert not list(self.store.run.parts.iterdir())
        return self.store.dataset().load()


def in_process(spec: Spec, width: int | None = None) -> xr.Dataset:
    """Run a sweep in this process and return its results."""
    return InProcess(spec, width).run()
