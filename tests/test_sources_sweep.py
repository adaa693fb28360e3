"""Whole sweeps over sources of other kinds: the numbers are scikit-learn's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

import hpc_sweep
from hpc_sweep.errors import SpecError, StoreError
from hpc_sweep.prepare import prepare
from hpc_sweep.source import open_source
from hpc_sweep.spec import load_spec

ONE_WORKER = {"kind": "local", "workers": 1, "memory": "1GB", "performance_report": False}
TREES = {"estimator": "sklearn.tree.DecisionTreeClassifier", "param_grid": {"max_depth": [1, 3]}}


def sweep(folder: Path, data: dict[str, Any], *models: dict[str, Any], **search: Any) -> Any:
    raw = {"data": data, "models": list(models), "search": {"cv": 3, **search}}
    return {**raw, "cluster": ONE_WORKER, "output": {"store": str(folder / "results.zarr")}}


def test_a_table_of_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"station": rng.choice(["a", "b"], 200), "wind": rng.normal(size=200)})
    table["sky"] = np.where(table.wind + rng.normal(size=200) > 0, "clear", "cloudy")
    table["before"] = table.groupby("station").wind.shift(1)
    table.drop(columns="before").to_csv(tmp_path / "in.csv", index=False)
    data = {
        "store": str(tmp_path / "in.csv"),
        "features": ["wind", "wind@-1"],
        "target": "sky",
        "partition_by": "station",
    }
    results = hpc_sweep.run(sweep(tmp_path, data, TREES, scoring="balanced_accuracy")).load()
    assert results["station"].values.tolist() == ["a", "b"]
    for station, rows in table.dropna().groupby("station"):
        tree = DecisionTreeClassifier(random_state=0)
        search = GridSearchCV(tree, TREES["param_grid"], cv=3, scoring="balanced_accuracy")
        search.fit(rows[["wind", "before"]].to_numpy(), rows["sky"].to_numpy())
        found = results["mean_test_score"].sel(station=station)
        np.testing.assert_array_equal(found, search.cv_results_["mean_test_score"])


def test_dates_of_another_calendar_are_in_the_results(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    time = xr.date_range("2001-02-28", periods=2, freq="D", calendar="360_day", use_cftime=True)
    values = rng.normal(size=(2, 40))
    source = xr.Dataset(
        {"a": (("time", "x"), values), "b": (("time", "x"), values + rng.normal(size=(2, 40)))},
        coords={"time": time},
    )
    source.to_netcdf(tmp_path / "in.nc")
    data = {"store": str(tmp_path / "in.nc"), "features": "a", "target": "b"}
    model = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [1.0, 9.0]}}
    results = hpc_sweep.run(sweep(tmp_path, data | {"partition_by": "time"}, model)).load()
    assert results["time"].values.tolist() == list(time)
    for day in range(2):
        here = source.isel(time=day)
        search = GridSearchCV(Ridge(), model["param_grid"], cv=3)
        search.fit(here["a"].values[:, np.newaxis], here["b"].values)
        found = results["mean_test_score"].isel(time=day)
        np.testing.assert_allclose(found, search.cv_results_["mean_test_score"], atol=1e-9)
    model_of_day = hpc_sweep.load_model(tmp_path / "results.zarr", time="2001-02-29")
    np.testing.assert_allclose(model_of_day.coef_, search.best_estimator_.coef_, atol=1e-9)


@pytest.mark.parametrize("name", ["param_alpha", "best_score", "model", "feature", "split", "x"])
@pytest.mark.parametrize("what", ["dimension", "coordinate"])
def test_names_of_the_results_are_refused(tmp_path: Path, name: str, what: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, 30))
    by = name if what == "dimension" else "x"
    source = xr.Dataset({"a": ((by, "t"), values), "b": ((by, "t"), values)})
    if what == "coordinate":
        source = source.assign_coords({name: ("x", [1, 2, 3])})
    source.to_netcdf(tmp_path / "in.nc")
    data = {"store": str(tmp_path / "in.nc"), "features": "a", "target": "b", "partition_by": by}
    model = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [1.0, 9.0]}}
    raw = sweep(tmp_path, data, model)
    if name == "x":
        prepare(load_spec(raw))
        return
    with pytest.raises(SpecError, match=f"'{name}' is .* rename it .*data.loader"):
        prepare(load_spec(raw))


# (X, y) of a loader

LOADER = """
import numpy as np
import scipy.sparse

TEXTS = [f"{word} {other} rain" for word in ("wet", "dry", "hot") for other in "abcdefgh"]
CLASSES = ["yes" if "wet" in text else "no" for text in TEXTS]

def texts():
    return TEXTS, CLASSES

def sparse():
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((60, 200), density=0.1, rng=rng, format="csr")
    return X, rng.integers(0, 2, 60)

def unequal():
    return [1, 2], [1]

def four():
    return 1, 2, 3, 4

def nothing():
    pass

def no_samples():
    return 3, [1]

def drawn():
    return np.random.default_rng().normal(size=(30, 2)), np.arange(30.0)
"""
TEXT_MODEL = {
    "pipeline": {
        "vect": "sklearn.feature_extraction.text.CountVectorizer",
        "clf": "sklearn.linear_model.LogisticRegression",
    },
    "param_grid": {"vect__binary": [True, False], "clf__C": [0.1, 1.0]},
}
REGRESSION = {"estimator": "sklearn.linear_model.LogisticRegression", "param_grid": {"C": [1, 9]}}


@pytest.fixture
def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "mine.py").write_text(LOADER)
    monkeypatch.chdir(tmp_path)
    return {"loader": "mine:texts", "partition_by": []}


def loaded(name: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(LOADER, namespace)
    return namespace[name]()


def test_texts(tmp_path: Path, loader: dict[str, Any]) -> None:
    results = hpc_sweep.run(sweep(tmp_path, loader, TEXT_MODEL)).load()
    assert results["mean_test_score"].dims == ("candidate",)
    assert int(results["n_samples"]) == 24
    spec = load_spec(sweep(tmp_path, loader, TEXT_MODEL))
    best = hpc_sweep.load_model(tmp_path / "results.zarr")
    search = GridSearchCV(best, TEXT_MODEL["param_grid"], cv=3).fit(*loaded("texts"))
    found = sorted(results["mean_test_score"].values)
    np.testing.assert_array_equal(found, sorted(search.cv_results_["mean_test_score"]))
    (samples,) = open_source(spec.data).read(np.zeros((1, 0), dtype=np.intp))
    assert isinstance(samples.X, list)
    assert best.predict(["wet day"]) == ["yes"]


@pytest.mark.parametrize("strategy", ["grid", "halving"])
def test_sparse_matrices(tmp_path: Path, loader: dict[str, Any], strategy: str) -> None:
    data = {**loader, "loader": "mine:sparse"}
    results = hpc_sweep.run(sweep(tmp_path, data, REGRESSION, strategy=strategy)).load()
    assert int(results["partition_status"]) == 1
    X, y = loaded("sparse")
    (samples,) = open_source(load_spec(sweep(tmp_path, data, REGRESSION)).data).read(
        np.zeros((1, 0))
    )
    assert scipy.sparse.issparse(samples.X)
    if strategy == "grid":
        search = GridSearchCV(LogisticRegression(), REGRESSION["param_grid"], cv=3).fit(X, y)
        found = results["mean_test_score"].values
        np.testing.assert_array_equal(found, search.cv_results_["mean_test_score"])


@pytest.mark.parametrize(
    ("name", "keys", "path", "words"),
    [
        ("unequal", {}, "data.loader", "2 in X, 1 in y"),
        ("four", {}, "data.loader", "4 things"),
        ("no_samples", {}, "data.loader", "no samples"),
        ("nothing", {}, "data.loader", "returned NoneType"),
        ("texts", {"features": ["a"]}, "data.features", "leave it out"),
        ("texts", {"partition_by": ["a"]}, "data.partition_by", "one partition"),
        ("texts", {"holdout": {"time": "2020"}}, "data.holdout", "names a variable"),
    ],
)
def test_refusals(
    tmp_path: Path, loader: dict[str, Any], name: str, keys: dict[str, Any], path: str, words: str
) -> None:
    spec = load_spec(sweep(tmp_path, {**loader, "loader": f"mine:{name}", **keys}, TEXT_MODEL))
    with pytest.raises(SpecError) as caught:
        prepare(spec)
    assert words in {fault.path: fault.message for fault in caught.value.faults}[path]
    assert not (tmp_path / "results.zarr").exists()


def test_samples_that_differ_each_time_are_refused(tmp_path: Path, loader: dict[str, Any]) -> None:
    model = {"estimator": "sklearn.linear_model.Ridge"}
    data = {**loader, "loader": "mine:drawn"}
    with pytest.raises(Exception, match=r"is not the data that.*returns the same each time"):
        hpc_sweep.run(sweep(tmp_path, data, model))
    with pytest.raises(StoreError, match="other data"):
        hpc_sweep.run(sweep(tmp_path, data, model))
