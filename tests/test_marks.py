"""Data that changes while a sweep reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from hpc_sweep.errors import StoreError
from hpc_sweep.source import Watch, open_source
from hpc_sweep.spec import DataSpec, load_spec
from hpc_sweep.store import Ledger, Store
from hpc_sweep.sweep import execute

DIMS = ("y", "time")
PIXELS = 6


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(5)
    a = rng.normal(size=(PIXELS, 30))
    a[:, 0] += 10 * np.array([-30, -30, -30, 30, -30, -30])
    return xr.Dataset(
        {"a": (DIMS, a), "b": (DIMS, rng.normal(size=a.shape))},
        {"y": np.arange(PIXELS), "time": np.arange(30)},
    )


def zarr(data: xr.Dataset, path: Path) -> None:
    encoding = {name: {"chunks": (1, 30)} for name in data.data_vars}
    data.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def netcdf(data: xr.Dataset, path: Path) -> None:
    data.to_netcdf(path)


def table(data: xr.Dataset, path: Path) -> None:
    data.to_dataframe().reset_index().to_csv(path, index=False)


@pytest.mark.parametrize(
    ("save", "name"), [(zarr, "in.zarr"), (netcdf, "in.nc"), (table, "in.csv")]
)
def test_what_a_change_is(
    tmp_path: Path, save: Callable[[xr.Dataset, Path], None], name: str
) -> None:
    data, path = dataset(), tmp_path / name
    save(data, path)
    keys: dict[str, Any] = {"features": ["a"], "target": "b", "partition_by": ["y"]}
    watch = Watch(open_source(DataSpec(store=[str(path)], **keys)), None)

    def changed() -> bool:
        watch._next = 0.0  # ask, however long the last time took
        return watch.changed()

    def replaced(other: xr.Dataset) -> bool:
        _remove(path)
        save(other, path)
        return changed()

    assert not changed()
    assert not replaced(data), "newer files with the same in them"
    assert replaced(data.assign_coords(y=data["y"] + 1))
    assert replaced(data.isel(y=slice(1, None)))
    assert replaced(data.rename(a="c"))
    _remove(path)
    assert changed()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_a_store_that_changes_under_a_running_sweep(
    tmp_path: Path, faulty_on_workers: None
) -> None:
    data = dataset()
    zarr(data, tmp_path / "in.zarr")
    zarr(data.assign_coords(y=data["y"] + 1), tmp_path / "other.zarr")
    paths = {"path": str(tmp_path / "in.zarr"), "other": str(tmp_path / "other.zarr")}
    raw = {
        "data": {"store": paths["path"], "features": ["a"], "target": "b", "partition_by": ["y"]},
        "models": [{"estimator": {"faulty.Renaming": paths}}],
        "search": {"cv": 3, "scoring": "r2"},
        "cluster": {"kind": "local", "workers": 1, "memory": "1GB", "performance_report": False},
        "output": {"store": str(tmp_path / "results.zarr")},
    }
    with pytest.raises(StoreError, match="changed while the sweep read it"):
        execute(load_spec(raw))
    with pytest.raises(StoreError, match="other data"):
        execute(load_spec(raw))
    kept = Ledger.read(Store.open(tmp_path / "results.zarr")).cells_done()
    assert kept < PIXELS
    shutil.rmtree(tmp_path / "in.zarr")
    (tmp_path / "in.zarr.before").rename(tmp_path / "in.zarr")
    outcome = execute(load_spec(raw))
    assert outcome.progress is not None
    assert outcome.progress.cells_this_run == PIXELS - kept
    assert outcome.counts["done"] == PIXELS
