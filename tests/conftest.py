"""Shared fixtures: a small generated data set, the ERA5 store, and a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

Spec = dict[str, Any]


def make_data(path: Path, *, shape: tuple[int, int] = (6, 8), samples: int = 60) -> Path:
    """Write a small data set: two features by pixel, one by time only; gaps and empty pixels."""
    rng = np.random.default_rng(7)
    size = (*shape, samples)
    wet = rng.normal(size=size).astype("float32")
    green = rng.normal(size=size).astype("float32")
    hour = np.sin(np.arange(samples) * 2 * np.pi / 24)
    slope = (0.7 * wet - 0.3 * green**2 + 0.2 * hour + rng.normal(0, 0.3, size)).astype("float32")
    wet[rng.random(size) < 0.05] = np.nan
    slope[0, 0] = slope[3, 5] = np.nan
    dims = ("latitude", "longitude", "time")
    data = xr.Dataset(
        {
            "wet": (dims, wet),
            "green": (dims, green),
            "hour": ("time", hour),
            "slope": (dims, slope),
            "both": (dims, (slope * 2 + wet).astype("float32")),
            "zone": (dims[:2], np.arange(shape[0] * shape[1]).reshape(shape) % 3),
        },
        coords={
            "latitude": ("latitude", 60 - np.arange(shape[0]) / 4, {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(shape[1]) / 4 - 1, {"units": "degrees_east"}),
            "time": np.datetime64("2019-03-01", "ns") + np.arange(samples) * np.timedelta64(1, "h"),
        },
    )
    chunks = {"latitude": 3, "longitude": 4, "time": samples}
    encoding = {n: {"chunks": [chunks[str(d)] for d in v.dims]} for n, v in data.items()}
    data.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a small data set; read only."""
    return make_data(tmp_path_factory.mktemp("data") / "data.zarr")


def small_spec(data: Path, store: Path) -> Spec:
    """Return a small spec: 48 pixels × 5 candidates × 3 splits on two local workers."""
    return {
        "name": "small",
        "data": {
            "store": str(data),
            "features": ["wet", "green", "hour"],
            "target": "slope",
            "partition_by": ["latitude", "longitude"],
        },
        "models": [
            {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1, 10]}},
            {
                "name": "scaled-svr",
                "pipeline": ["sklearn.preprocessing.StandardScaler", "sklearn.svm.SVR"],
                "param_grid": {"svr__C": [1, 10]},
            },
        ],
        "search": {"cv": 3, "scoring": "r2", "seed": 0},
        "cluster": {"kind": "local", "workers": 2, "memory": "1GB"},
        "output": {"store": str(store)},
    }


@pytest.fixture
def spec(data: Path, tmp_path: Path) -> Spec:
    """Return `small_spec` with its store in the test's own folder."""
    return small_spec(data, tmp_path / "results.zarr")


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[Spec], Path]:
    """Return a function that writes a spec as YAML."""
    from ruamel.yaml import YAML

    def write(spec: Spec) -> Path:
        path = tmp_path / "sweep.yaml"
        with path.open("w") as file:
            YAML(typ="safe", pure=True).dump(spec, file)
        return path

    return write


@pytest.fixture(scope="session")
def era5() -> Path:
    """Return the path of the ERA5 store, which is not part of the project."""
    path = REPOSITORY.parent / "shared" / "data" / "era5_uk_t2m.zarr"
    if not path.is_dir():
        pytest.skip("the ERA5 store is not here")
    return path


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a running Slurm of three nodes; ``SLURM_CONF`` is set while it runs.

    Without the right or the packages the tests are skipped, but with ``CI=true`` they fail.
    """
    from throwaway_slurm import SlurmError, ThrowawaySlurm

    folder = SHARED / f"slurm-{os.getpid()}"
    cluster = ThrowawaySlurm(folder)
    try:
        cluster.up()
    except SlurmError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no Slurm: {error}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(cluster.conf)
    try:
        yield cluster
    finally:
        cluster.down()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


SHARED = Path("/var/tmp")
"""Where all nodes of the throwaway Slurm see the same files; /tmp is each node's own."""


def hpc_sweep(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "hpc_sweep", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def equal_stores(first: Path, second: Path) -> None:
    """Fail unless all arrays of two stores are bit-equal, times aside."""
    left, right = (xr.open_zarr(path, chunks=None).load() for path in (first, second))
    assert set(left.variables) == set(right.variables)
    for name in left.variables:
        if name in ("fit_time", "score_time"):
            continue
        a, b = left[name].values, right[name].values
        same = (a == b) | ((a != a) & (b != b)) if a.dtype.kind == "f" else a == b
        assert same.all(), f"{name} differs in {(~same).sum()} of {same.size} places"
