"""Splits that follow groups, and time: scikit-learn's on each partition's own samples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import equal_stores
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneGroupOut,
    LeavePGroupsOut,
    TimeSeriesSplit,
)
from sklearn.tree import DecisionTreeRegressor
from yearly import (
    EMPTY_PIXEL,
    LASSO,
    ONE_YEAR,
    SHAPE,
    InProcess,
    Since,
    Spec,
    arrays,
    faults,
    in_process,
    samples,
    write,
    yearly_spec,
    years_data,
)

from hpc_sweep.candidates import Candidate
from hpc_sweep.choices import DONE, EMPTY, FAILED, TIMED_OUT
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.search import Evaluations, Splits
from hpc_sweep.source import Samples
from hpc_sweep.spec import load_spec
from hpc_sweep.sweep import execute
from hpc_sweep.work.evaluation import Partition, task_of
from hpc_sweep.work.remains import Loss, Remains, token

SELECTION = "sklearn.model_selection."


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    made = years_data()
    made.attrs["path"] = write(made, tmp_path_factory.mktemp("years") / "data.zarr")
    return made


@pytest.fixture
def spec(data: xr.Dataset, tmp_path: Path) -> Spec:
    return yearly_spec(data.attrs["path"], tmp_path / "results.zarr")


GRIDS = [
    (Lasso(), {"alpha": [0.01, 0.1, 0.5]}),
    (DecisionTreeRegressor(random_state=0), {"max_depth": [2, 4]}),
]


def searched(X: Any, y: Any, cv: Any, groups: Any = None) -> Iterator[GridSearchCV]:
    for estimator, grid in GRIDS:
        yield GridSearchCV(estimator, grid, cv=cv, scoring="r2").fit(X, y, groups=groups)


def same_as_scikit_learn(found: xr.Dataset, searches: list[GridSearchCV], splits: Any) -> None:
    """Fail unless scores at some splits, means, ranks' winner are those of searches; no others."""
    theirs = [search.cv_results_ for search in searches]
    present = np.zeros(found.sizes["split"], dtype=bool)
    present[splits] = True
    expected = np.concatenate(
        [[each[f"split{i}_test_score"] for i in range(present.sum())] for each in theirs], axis=1
    )
    np.testing.assert_array_equal(found["test_score"].values[:, present], expected.T)
    assert np.isnan(found["test_score"].values[:, ~present]).all()
    assert np.isnan(found["fit_time"].values[:, ~present]).all()
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(found[name], np.concatenate([each[name] for each in theirs]))
    mean = np.concatenate([each["mean_test_score"] for each in theirs])
    assert found["best_index"] == mean.argmax()
    assert found["n_splits"] == present.sum()
    assert (found["status"] == DONE).all()


@pytest.mark.parametrize("width", [None, 2])
def test_a_year_at_a_time(spec: Spec, data: xr.Dataset, width: int | None) -> None:
    results = in_process(spec, width)
    np.testing.assert_array_equal(results["split"], [2001, 2002, 2003, 2004])
    assert results["split"].attrs["long_name"] == "time.year of the test samples"
    counts = set()
    for place in np.ndindex(*SHAPE):
        found = results.isel(latitude=place[0], longitude=place[1])
        if place in (ONE_YEAR, EMPTY_PIXEL):
            continue
        pixel = samples(data, place)
        years = pixel["time"].dt.year.values
        own, n_test = np.unique(years, return_counts=True)
        searches = list(searched(*arrays(pixel), LeaveOneGroupOut(), years))
        same_as_scikit_learn(found, searches, own - 2001)
        expected = np.zeros(4)
        expected[own - 2001] = n_test
        np.testing.assert_array_equal(found["n_test_samples"], expected)
        counts.add(len(own))
    assert counts == {3, 4}


def test_a_partition_of_one_group_fails_alone(spec: Spec) -> None:
    results = in_process(spec)
    found = results.isel(latitude=ONE_YEAR[0], longitude=ONE_YEAR[1])
    assert (found["status"] == FAILED).all()
    assert "fewer than 2 unique groups ([20" in str(found["message"].values[0])
    assert found["n_splits"] == 0
    assert np.isnan(found["best_score"])
    assert (results["partition_status"] == FAILED).sum() == 1
    assert (results["partition_status"] == EMPTY).sum() == 1


@pytest.mark.parametrize(
    ("cv", "ours", "name"),
    [
        ({"class": f"{SELECTION}GroupKFold", "n_splits": 3}, GroupKFold(3), "basin"),
        ({"class": f"{SELECTION}LeaveOneGroupOut"}, LeaveOneGroupOut(), "basin"),
        ({"class": f"{SELECTION}LeavePGroupsOut", "n_groups": 2}, LeavePGroupsOut(2), "time.year"),
        ({"class": f"{SELECTION}LeaveOneGroupOut"}, LeaveOneGroupOut(), "rain"),
        ({"class": "yearly.Since", "label": 2003}, Since(2003), "time.year"),
    ],
)
def test_groups_by_any_name(spec: Spec, data: xr.Dataset, cv: Spec, ours: Any, name: str) -> None:
    """Texts along two dimensions, parts of dates, numbers with gaps: a gap is in no group."""
    spec["search"]["cv"] = {**cv, "groups": name}
    results = in_process(spec)
    for place in ((0, 0), (0, 1), (2, 1)):
        pixel = samples(data, place, *(["rain"] if name == "rain" else []))
        groups = pixel[name].values
        found = results.isel(latitude=place[0], longitude=place[1])
        assert found["n_samples"] == pixel.sizes["time"]
        splits: Any = np.arange(ours.get_n_splits(groups=groups))
        if isinstance(ours, LeaveOneGroupOut):
            splits = np.isin(results["split"], groups)
        same_as_scikit_learn(found, list(searched(*arrays(pixel), ours, groups)), splits)


def test_ridge_is_solved_for_all_groups_at_once(spec: Spec, data: xr.Dataset) -> None:
    spec["models"] = [
        {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1]}}
    ]
    results = in_process(spec)
    for place in ((0, 1), (1, 0)):
        pixel = samples(data, place)
        years = pixel["time"].dt.year.values
        search = GridSearchCV(Ridge(), {"alpha": [0.1, 1]}, cv=LeaveOneGroupOut(), scoring="r2")
        expected = search.fit(*arrays(pixel), groups=years).cv_results_
        found = results.isel(latitude=place[0], longitude=place[1])
        np.testing.assert_allclose(
            found["mean_test_score"], expected["mean_test_score"], rtol=0, atol=1e-9
        )


def test_a_time_series_is_sorted_first(spec: Spec, data: xr.Dataset) -> None:
    spec["search"]["cv"] = {"class": f"{SELECTION}TimeSeriesSplit", "n_splits": 4}
    results = in_process(spec)
    for place in ((0, 0), (1, 2)):
        pixel = samples(data, place).sortby("time")
        searches = list(searched(*arrays(pixel), TimeSeriesSplit(4)))
        found = results.isel(latitude=place[0], longitude=place[1])
        same_as_scikit_learn(found, searches, [0, 1, 2, 3])


def test_other_splits_leave_the_order_of_the_store(spec: Spec, data: xr.Dataset) -> None:
    spec["search"]["cv"] = 3
    found = in_process(spec).isel(latitude=0, longitude=0)
    same_as_scikit_learn(found, list(searched(*arrays(samples(data, (0, 0))), 3)), [0, 1, 2])


def test_a_failure_names_the_group(spec: Spec, data: xr.Dataset) -> None:
    spec["models"] = [{"estimator": {LASSO: {"alpha": -1.0}}}]
    message = str(in_process(spec)["message"].values[1, 0, 0])  # which lacks 2001
    assert message.startswith("split 2002: InvalidParameterError")


@pytest.mark.parametrize(
    ("cv", "place", "words"),
    [
        ({"leave_one_group_out": "time.yaer"}, "leave_one_group_out", "did you mean 'year'"),
        ({"leave_one_group_out": "basn"}, "leave_one_group_out", "did you mean 'basin'"),
        ({"leave_one_group_out": "longitude"}, "leave_one_group_out", "lacks the dimension time"),
        ({"leave_one_group_out": "basin.year"}, "leave_one_group_out", "'basin' has no year"),
        ({"leave_one_group_out": 5}, "leave_one_group_out", "names a coordinate"),
        ({"leave_one_group_out": "basin", "n_splits": 3}, "", "stands alone"),
        ({"class": f"{SELECTION}GroupKFold", "n_splits": 3}, "", "needs groups"),
        ({"class": f"{SELECTION}GroupKFold", "n_splits": 9, "groups": "basin"}, "", "3 groups"),
        ({"class": f"{SELECTION}KFold", "groups": "basin"}, "groups", "does not look at groups"),
        ({"class": f"{SELECTION}KFold", "sorted_by": "tme"}, "sorted_by", "did you mean 'time'"),
    ],
)
def test_bad_splits_are_refused(spec: Spec, cv: Spec, place: str, words: str) -> None:
    spec["search"]["cv"] = cv
    found = faults(spec)
    assert words in found[f"search.cv.{place}".rstrip(".")]


def test_one_group_in_all_the_data_is_refused(spec: Spec, data: xr.Dataset, tmp_path: Path) -> None:
    one = data.isel(time=data["time"].dt.year == 2002).drop_encoding()
    one.to_zarr(tmp_path / "one.zarr", consolidated=False, zarr_format=2)
    spec["data"]["store"] = str(tmp_path / "one.zarr")
    assert "1 groups (time.year)" in faults(spec)["search.cv"]


def test_another_calendar(spec: Spec, tmp_path: Path) -> None:
    data = years_data("360_day")
    data.to_zarr(tmp_path / "calendar.zarr", consolidated=False, zarr_format=2)
    spec["data"]["store"] = str(tmp_path / "calendar.zarr")
    results = in_process(spec)
    pixel = samples(data, (0, 0))
    years = pixel["time"].dt.year.values
    searches = list(searched(*arrays(pixel), LeaveOneGroupOut(), years))
    same_as_scikit_learn(
        results.isel(latitude=0, longitude=0), searches, np.isin(results["split"], years)
    )


def test_by_dask_ml(spec: Spec, tmp_path: Path) -> None:
    expected = in_process(spec)
    spec["search"]["engine"] = "dask-ml"
    spec["output"]["store"] = str(tmp_path / "dask-ml.zarr")
    found = execute(load_spec(spec)).store.dataset().load()
    for name in ("split", "test_score", "mean_test_score", "n_test_samples", "message"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_partitions_by_labels(spec: Spec, data: xr.Dataset, tmp_path: Path) -> None:
    """Years of the samples of a zone, which is scattered over the grid."""
    zones = np.array([[3, 5, 3, 5], [5, 3, 5, 5], [3, 3, 5, 3]])
    zoned = data.assign(zone=(("latitude", "longitude"), zones))
    spec["data"] |= {"store": write(zoned, tmp_path / "zoned.zarr"), "partition_by": ["zone"]}
    spec["data"]["holdout"] = {"time": "2004-01-01"}
    results = in_process(spec)
    for zone in (3, 5):
        pixels = zoned.stack(sample=("latitude", "longitude", "time"))
        own = pixels.isel(sample=(pixels["zone"] == zone).values)
        own = own.dropna("sample", subset=["wet", "green", "slope"])
        years = own["time"].dt.year.values
        X, y = arrays(own)
        train = years < 2004
        searches = list(searched(X[train], y[train], LeaveOneGroupOut(), years[train]))
        found = results.sel(zone=zone)
        same_as_scikit_learn(found, searches, [0, 1, 2])
        best = max(searches, key=lambda search: search.best_score_)
        assert found["holdout_score"] == best.score(X[~train], y[~train])


def test_a_table(spec: Spec, data: xr.Dataset, tmp_path: Path) -> None:
    """Columns group, sort and hold out rows; each partition has groups of its own."""
    frame = data[["wet", "green", "slope"]].to_dataframe().reset_index()
    frame["campaign"] = frame["time"].dt.year.astype("int64")
    frame["late"] = frame["campaign"] == 2004
    frame = frame[frame["latitude"] == 60.0].sample(frac=1, random_state=0)
    frame.to_parquet(tmp_path / "table.parquet")
    spec["data"] |= {"store": str(tmp_path / "table.parquet"), "partition_by": ["longitude"]}
    spec["data"]["holdout"] = {"mask": "late"}
    spec["search"]["cv"] = {"leave_one_group_out": "campaign"}
    results = in_process(spec)
    for longitude in (-1.0, -0.75):
        own = frame[frame["longitude"] == longitude].dropna()
        X, y = own[["wet", "green"]].to_numpy(), own["slope"].to_numpy()
        train, groups = ~own["late"].to_numpy(), own["campaign"].to_numpy()
        searches = list(searched(X[train], y[train], LeaveOneGroupOut(), groups[train]))
        found = results.sel(longitude=longitude)
        same_as_scikit_learn(found, searches, np.unique(groups[train]) - 2001)
        best = max(searches, key=lambda search: search.best_score_)
        assert found["holdout_score"] == best.score(X[~train], y[~train])


class Cut(InProcess):
    """Units begin elsewhere, so that other partitions come together."""

    def units(self, chunk: Chunk) -> list[Unit]:
        (whole,) = super().units(chunk)
        return [replace(whole, stop=1), replace(whole, start=1)]


@pytest.mark.parametrize("strategy", ["grid", "halving"])
def test_partitions_of_other_numbers_of_splits_may_come_together(
    spec: Spec, tmp_path: Path, strategy: str
) -> None:
    spec["search"]["strategy"] = strategy
    together = []
    for number, kind in enumerate((InProcess, Cut)):
        spec["output"]["store"] = str(tmp_path / f"{number}.zarr")
        together.append(kind(spec).run())
    equal_stores(tmp_path / "0.zarr", tmp_path / "1.zarr")
    counts = together[0]["n_splits"].values
    assert {0, 3, 4} == {*counts.ravel().tolist()}
    assert (together[0]["partition_status"].values[counts > 0] == DONE).all()


def test_a_fit_that_is_ended_names_its_group() -> None:
    candidate = Candidate(0, "lasso", {"alpha": 1}, "")
    (found,) = Evaluations(1, [2], ("score",), names=[["2001", "2003"]])
    remains = Remains(candidates={(4, 0, token(candidate)): Loss(TIMED_OUT, "took too long", 1)})
    remains.give_up((4, 0, "key"), [candidate], found, lambda position: f"partition {position}")
    assert found.messages == [f"partition 4: {candidate.json}, split 2003 took too long"]


class Refuses:
    """Raises what a user's splitter may raise."""

    def split(self, X: Any, y: Any) -> Any:
        raise KeyError("season")


def test_what_a_splitter_raises_is_its_partitions_reason() -> None:
    bench: Any = SimpleNamespace(
        seed=lambda index: 0,
        strategy=SimpleNamespace(models=lambda first, last: [0]),
        splits={0: Splits(Refuses())},
    )
    partition = Partition(0, np.zeros(1, dtype=np.intp), Samples(np.zeros((5, 1))))
    unit: Any = SimpleNamespace(first=0, last=1)
    _, refused = task_of(bench, unit, partition)
    assert refused == {0: "5 samples cannot be split: KeyError: 'season'"}
