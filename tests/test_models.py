"""Models on demand are those that scikit-learn's own search would keep."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Spec, small_spec
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVR

import hpc_sweep
from hpc_sweep import source
from hpc_sweep.errors import StoreError, SweepError
from hpc_sweep.models import open_models
from hpc_sweep.models.labels import find_partition
from hpc_sweep.store import Store, run_folder


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished store of ridge, SVR and a random forest."""
    spec: Spec = small_spec(data, tmp_path_factory.mktemp("models") / "results.zarr")
    forest = {"sklearn.ensemble.RandomForestRegressor": {"n_estimators": 3}}
    spec["models"].append({"name": "forest", "estimator": forest})
    hpc_sweep.run(spec)
    return Path(spec["output"]["store"])


def arrays(data: Path, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    pixel = xr.open_zarr(data, chunks=None, consolidated=False).isel(latitude=row, longitude=column)
    X = np.stack([pixel[n].values for n in ("wet", "green", "hour")], axis=1).astype(float)
    y = pixel["slope"].values.astype(float)
    kept = ~np.isnan(X).any(axis=1) & ~np.isnan(y)
    return X[kept], y[kept]


def test_equals_best_estimator(store: Path, data: Path) -> None:
    results = xr.open_zarr(store, chunks=None).load()
    searches = {
        "ridge": GridSearchCV(Ridge(), {"alpha": [0.1, 1, 10]}, cv=3, scoring="r2"),
        "scaled-svr": None,
    }
    compared = 0
    for row, column in ((1, 1), (2, 3), (4, 6), (5, 7)):
        X, y = arrays(data, row, column)
        place = results.isel(latitude=row, longitude=column)
        model = hpc_sweep.load_model(
            store, latitude=place.latitude.item(), longitude=place.longitude.item()
        )
        search = searches.get(str(place.best_model.values))
        if search is not None:
            expected = search.fit(X, y).best_estimator_
            np.testing.assert_array_equal(model.predict(X), expected.predict(X))
            compared += 1
    assert compared


def test_the_same_every_time(store: Path, data: Path) -> None:
    X, _ = arrays(data, 2, 2)
    first = hpc_sweep.load_model(store, latitude=59.5, longitude=-0.5)
    again = hpc_sweep.load_model(store, latitude=59.5, longitude=-0.5)
    assert first is not again
    np.testing.assert_array_equal(first.predict(X), again.predict(X))
    assert not isinstance(first, SVR)  # a pipeline or a plain estimator, fitted


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"latitude": 59.5}, "one label for each of latitude, longitude"),
        ({"latitude": 59.4, "longitude": 0.0}, r"0 partitions have latitude=59.4; .* 59.5"),
        ({"latitude": 60.0, "longitude": -1.0}, "latitude=60.0, longitude=-1.0 has no best model"),
    ],
)
def test_no_such_model(store: Path, labels: dict[str, float], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        hpc_sweep.load_model(store, **labels)


def test_a_label_of_two_partitions_names_neither() -> None:
    coordinates = {"x": np.array([0.5, 0.5, 1.0])}
    assert find_partition(coordinates, {"x": 1}).tolist() == [2]
    with pytest.raises(StoreError, match=r"2 partitions have x=0.5, so it names none of them"):
        find_partition(coordinates, {"x": 0.5})


def test_models_asked_together_are_read_once_a_chunk(
    store: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Store.open(store)
    models = open_models(opened)
    partitions = np.array([[1, 1], [5, 7], [0, 0], [1, 2]])
    reads = []
    read = source.Source.read

    def counted(self: source.Source, partitions: np.ndarray) -> Any:
        reads.append(len(partitions))
        return read(self, partitions)

    monkeypatch.setattr(source.Source, "read", counted)
    found = models.of(partitions)
    chunks = partitions[[0, 1, 3]] // np.array(opened.header.read_chunks)
    assert sorted(reads) == sorted(np.unique(chunks, axis=0, return_counts=True)[1].tolist())
    assert found[2] is None  # no samples
    results = opened.dataset()
    for place, model in zip(partitions, found, strict=True):
        here = results.isel(latitude=place[0], longitude=place[1])
        if model is not None:
            labels = {"latitude": here.latitude.item(), "longitude": here.longitude.item()}
            X, _ = arrays(data, *place)
            expected = hpc_sweep.load_model(store, **labels).predict(X)
            np.testing.assert_array_equal(model.predict(X), expected)
    assert models.of(np.empty((0, 2), dtype=int)) == []


def test_a_run_tells_the_store_where_its_data_is_now(
    store: Path, data: Path, tmp_path: Path
) -> None:
    """Nothing is fitted again; models come from the new place, as `predict`'s cluster does."""
    copy = shutil.copytree(store, tmp_path / "results.zarr")
    shutil.copytree(run_folder(store).path, run_folder(copy).path)
    moved = shutil.copytree(data, tmp_path / "moved.zarr")
    spec = Store.open(store).spec.model_dump(mode="json")
    spec["data"]["store"], spec["output"]["store"] = str(moved), str(copy)
    before = (copy / "test_score" / "c.0.0.0.0").stat().st_mtime_ns
    hpc_sweep.run(spec, ["cluster.workers=1"])
    assert (copy / "test_score" / "c.0.0.0.0").stat().st_mtime_ns == before
    recorded = Store.open(copy).spec
    assert (recorded.data.store, recorded.cluster.workers) == (str(moved), 1)
    shutil.rmtree(moved)
    with pytest.raises(SweepError, match=r"moved.zarr"):
        hpc_sweep.load_model(copy, latitude=59.5, longitude=-0.5)
