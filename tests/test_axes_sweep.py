"""Sweeps over labels, tiles, groups and bins: scikit-learn's scores on what plain xarray picks."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import hpc_sweep as command_line
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor
from test_axes import CASES, CHUNKS, dataset, opened, picked

import hpc_sweep as package
from hpc_sweep.errors import StoreError
from hpc_sweep.partitions import partition_labels

MODELS: list[tuple[dict[str, Any], Any, float]] = [
    (
        {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1, 10]}},
        Ridge(),
        1e-9,
    ),
    (
        {
            "estimator": {"sklearn.tree.DecisionTreeRegressor": {"random_state": 0}},
            "param_grid": {"max_depth": [2, 4]},
        },
        DecisionTreeRegressor(random_state=0),
        0.0,
    ),
    (
        {
            "estimator": "sklearn.neighbors.KNeighborsRegressor",
            "param_grid": {"n_neighbors": [1, 3]},
        },
        KNeighborsRegressor(),
        0.0,
    ),
]
KINDS = [
    *("a zone", "tiles", "zone × season", "pixel × day and night", "periods", "elevations"),
    *("texts", "all"),
]


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return dataset()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data: xr.Dataset) -> str:
    path = str(tmp_path_factory.mktemp("axes") / "in.zarr")
    encoding = {n: {"chunks": [CHUNKS[str(d)] for d in v.dims]} for n, v in data.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    return path


def spec(store: str, out: Path, partition_by: Any, **keys: Any) -> dict[str, Any]:
    return {
        "name": "labels",
        "data": {
            "store": store,
            "features": ["a", "b", "hour"],
            "target": "t",
            "partition_by": partition_by,
            **keys,
        },
        "models": [model for model, _, _ in MODELS],
        "search": {"cv": 3, "scoring": "r2"},
        "cluster": {"kind": "local", "workers": 2, "memory": "1GB", "performance_report": False},
        "output": {"store": str(out)},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_scikit_learn(
    store: str, data: xr.Dataset, tmp_path: Path, kind: str
) -> None:
    partition_by, axes = CASES[kind]
    raw = spec(store, tmp_path / "out.zarr", partition_by)
    results = package.run(raw).load()
    dims = tuple(axes)
    assert results["best_score"].dims == dims
    source = opened(store, partition_by)
    rng = np.random.default_rng(5)
    every = np.indices(source.grid.shape).reshape(len(dims), source.grid.size).T
    compared = 0
    for index in rng.permutation(every)[:6]:
        labels = partition_labels(source.coordinates, dims, index)
        X, y = picked(source, data, axes, labels)
        place = dict(zip(dims, index.tolist(), strict=True))
        for dim in dims:
            assert results[dim].values[place[dim]] == source.coordinates[dim][place[dim]]
        here = results.isel(place)
        assert int(here["n_samples"]) == len(X)
        if len(X) < 12:
            assert kind != "all"
            continue
        compared += 1
        first = 0
        for model, estimator, tolerance in MODELS:
            found = GridSearchCV(estimator, model["param_grid"], cv=3, scoring="r2").fit(X, y)
            count = len(found.cv_results_["params"])
            expected = [found.cv_results_[f"split{split}_test_score"] for split in range(3)]
            scores = here["test_score"].values[first : first + count]
            np.testing.assert_allclose(scores, np.transpose(expected), rtol=tolerance, atol=0)
            first += count
    assert compared


def test_load_model_tables_and_messages_take_labels(
    store: str, data: xr.Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    package.run(spec(store, out, ["zone", {"time": {"bins": ["2019-01-20", "2019-02-20"]}}]))
    model = package.load_model(out, zone=3, time_bins="[2019-01-20, 2019-02-20)")
    here = (data["zone"] == 3) & (data["time"] < np.datetime64("2019-02-20"))
    full = xr.broadcast(here, data["a"], data["b"], data["hour"], data["t"])
    columns = [each.transpose("y", "x", "time").values.ravel() for each in full]
    some = np.stack(columns[1:], axis=1)[columns[0]]
    some = some[~np.isnan(some).any(axis=1)]
    again = type(model)(**model.get_params()).fit(some[:, :-1], some[:, -1])
    np.testing.assert_array_equal(model.predict(some[:9, :-1]), again.predict(some[:9, :-1]))
    rows = json.loads(command_line("results", out, "--format", "json").stdout)
    assert {row["zone"] for row in rows} == {1, 2, 3, 4}
    assert {row["time_bins"] for row in rows} == {"[2019-01-20, 2019-02-20)"}
    with pytest.raises(StoreError, match="0 partitions have zone=7; the nearest is 4"):
        package.load_model(out, zone=7, time_bins="[2019-01-20, 2019-02-20)")
    with pytest.raises(StoreError, match="give one label for each of zone, time_bins"):
        package.load_model(out, zone=1)
    results = package.open_results(out)
    assert results["zone"].attrs["long_name"] == "climate zone"
    assert results["zone"].dtype == np.int64


def test_labels_with_few_samples_fail_alone(tmp_path: Path, data: xr.Dataset, store: str) -> None:
    """One label has two samples, one has none with a value, one has nearly everything."""
    changed = data.copy(deep=True).drop_encoding()
    changed["place"] = (("y", "x"), np.full((7, 10), 5))
    changed["place"][2, 3], changed["place"][4, 4], changed["place"][6, 9] = 1, 2, 3
    changed["t"][2, 3, 2:] = np.nan
    changed["a"][2, 3, :2] = 1.0
    changed["t"][2, 3, :2] = 1.0
    changed["t"][4, 4] = np.nan
    path = tmp_path / "in.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed.chunk(y=3, x=4).to_zarr(path, zarr_format=3, consolidated=False)
    out = tmp_path / "out.zarr"
    results = package.run(spec(str(path), out, "place")).load()
    assert results["place"].values.tolist() == [1, 2, 3, 5]
    assert results["n_samples"].values.tolist()[:2] == [2, 0]
    states = ["failed", "empty", "done", "done"]
    meanings = results["partition_status"].attrs["flag_meanings"].split()
    assert [meanings[int(code)] for code in results["partition_status"]] == states
    assert "2 samples cannot be split" in str(results["message"].sel(place=1).values[0])
    shown = command_line("results", out).stdout
    assert "4 of 4 partitions" in shown
