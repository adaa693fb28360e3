"""Sweeps by dask-ml: the same store as by our own engine, stops and failures included."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import (
    Spec,
    equal_stores,
    hpc_sweep,
    repeated_units,
    small_spec,
    start_run,
    wait_for_units,
)
from dask import delayed
from distributed import Client
from sklearn.base import BaseEstimator, RegressorMixin, is_classifier
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold, ParameterGrid
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR

from hpc_sweep.errors import SpecError
from hpc_sweep.estimators import build_scorers, build_splitter
from hpc_sweep.search import DaskML, Evaluation, Evaluator, Model, Setting, Task, unsuited
from hpc_sweep.spec import load_spec
from hpc_sweep.store import run_folder
from hpc_sweep.sweep import execute

WriteSpec = Callable[[Spec], Path]


@pytest.fixture
def spec(data: Path, tmp_path: Path) -> Spec:
    """Return a small spec of 12 pixels in 4 chunks: dask-ml is slow."""
    few = xr.open_zarr(data, chunks=None, consolidated=False).load()
    few = few.isel(latitude=slice(0, 2), longitude=slice(0, 6)).drop_encoding()
    few.chunk(latitude=1, longitude=3).to_zarr(tmp_path / "few.zarr", consolidated=False)
    return small_spec(tmp_path / "few.zarr", tmp_path / "results.zarr")


def by(engine: str, spec: Spec, **search: Any) -> Spec:
    """Return a spec that is searched by an engine, into a store of its own."""
    store = Path(spec["output"]["store"]).with_name(f"{engine}.zarr")
    return {
        **spec,
        "search": {**spec["search"], "engine": engine, **search},
        "output": {"store": str(store)},
    }


def without_algebra(spec: Spec) -> Spec:
    """Have candidates that our own engine fits as scikit-learn does, to the bit."""
    spec["models"][0] = {
        "estimator": "sklearn.linear_model.Lasso",
        "param_grid": {"alpha": [0.01, 0.1]},
    }
    return spec


def test_both_engines_leave_the_same_store(spec: Spec) -> None:
    spec = without_algebra(spec)
    theirs = execute(load_spec(by("dask-ml", spec)))
    assert theirs.progress is not None
    assert theirs.counts["done"] == 11
    ours = execute(load_spec(by("shared", spec)))
    equal_stores(theirs.store.path, ours.store.path)
    assert (theirs.store.dataset()["fit_time"].isel(latitude=1) > 0).all()


def test_several_metrics_random_states_and_failures(spec: Spec, faulty_on_workers: None) -> None:
    """A metric that fails, a model that raises at some pixels, one that draws."""
    spec["models"] = [
        {"estimator": "faulty.Faulty"},
        {"estimator": "faulty.Drawn"},
        {"estimator": "sklearn.linear_model.Lasso", "param_grid": {"alpha": [0.1, 1, 1.0e-2]}},
    ]
    scoring = {"good": "r2", "bad": "faulty:no_score"}
    spec["search"] = {"cv": 3, "scoring": scoring, "refit": "good"}
    theirs = execute(load_spec(by("dask-ml", spec))).store.path
    ours = execute(load_spec(by("shared", spec))).store.path
    equal_stores(theirs, ours)
    found = xr.open_zarr(ours, chunks=None).load()
    assert np.isfinite(found["test_good"].values[1, 1, 1:]).all()
    assert set(np.unique(found["status"].values)) == {2, 3}


def test_random_candidates(spec: Spec) -> None:
    spec["models"] = [
        {
            "pipeline": ["sklearn.preprocessing.StandardScaler", "sklearn.svm.SVR"],
            "param_distributions": {"svr__C": {"scipy.stats.loguniform": [0.1, 10]}},
        }
    ]
    theirs = execute(load_spec(by("dask-ml", spec, strategy="random", n_iter=3)))
    ours = execute(load_spec(by("shared", spec, strategy="random", n_iter=3)))
    equal_stores(theirs.store.path, ours.store.path)


@pytest.mark.parametrize("engine", ["dask-ml", "shared"])
def test_killed_and_gone_on_with_by_either_engine(
    spec: Spec, write_spec: WriteSpec, engine: str
) -> None:
    spec = without_algebra(spec)
    begun = by("dask-ml", spec)
    store = Path(begun["output"]["store"])
    process = start_run(write_spec(begun))
    wait_for_units(store, 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    half = {**by(engine, spec), "output": begun["output"]}
    execute(load_spec(half))
    again, twice = repeated_units(store)
    assert not twice
    assert len(again) <= 6
    whole = {**by("shared", spec), "output": {"store": str(store.with_name("whole.zarr"))}}
    equal_stores(store, execute(load_spec(whole)).store.path)
    assert execute(load_spec({**whole, "output": {"store": str(store)}})).progress is None
    assert not list(run_folder(store).parts.iterdir())


def test_interrupted(spec: Spec, write_spec: WriteSpec) -> None:
    """Its threads wait for the cluster when that is closed."""
    begun = by("dask-ml", without_algebra(spec))
    process = start_run(write_spec(begun))
    wait_for_units(Path(begun["output"]["store"]), 1, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1].endswith("the same command goes on from here")
    assert "Traceback" not in output


def test_an_estimator_that_kills_is_left_to_the_guard(spec: Spec, faulty_on_workers: None) -> None:
    """Given a client, dask-ml would try it for ever."""
    spec["models"] = [
        {"estimator": {"faulty.Faulty": {"how": "kill"}}},
        {"estimator": "sklearn.linear_model.Lasso"},
    ]
    spec["data"] = {**spec["data"], "partition_by": ["longitude"]}
    outcome = execute(load_spec(by("dask-ml", spec)))
    status = outcome.store.dataset()["status"].values
    assert 0 < (status[:, 0] == 2).sum() <= 6
    assert (status[:, 1] == 1).all()


@pytest.mark.slurm
def test_on_slurm(spec: Spec, slurm_cluster: Spec) -> None:
    spec, slurm_cluster["workers"] = without_algebra(spec), 2
    there = execute(load_spec({**by("dask-ml", spec), "cluster": slurm_cluster}))
    here = execute(load_spec(by("shared", spec)))
    equal_stores(there.store.path, here.store.path)


def test_plan_names_the_engine(spec: Spec, write_spec: WriteSpec) -> None:
    assert "splits), by dask-ml" in hpc_sweep("plan", write_spec(by("dask-ml", spec))).stdout
    assert "work shared where" in hpc_sweep("plan", write_spec(by("shared", spec))).stdout


def test_what_dask_ml_cannot_do_is_a_fault(spec: Spec) -> None:
    spec["models"][1]["param_grid"] = {"memory": [None], "svr__C": [1]}
    with pytest.raises(SpecError) as refused:
        execute(load_spec(by("dask-ml", spec, timeout=3)))
    faults = {fault.path: fault.message for fault in refused.value.faults}
    assert set(faults) == {"search.timeout", "models.1.param_grid.memory"}
    assert "search.engine: shared can" in faults["search.timeout"]
    assert "a parameter of the pipeline itself" in faults["models.1.param_grid.memory"]
    assert not Path(by("dask-ml", spec)["output"]["store"]).exists()


def test_a_union_that_passes_features_through_is_unsuited() -> None:
    union = FeatureUnion([("scale", MinMaxScaler()), ("as they are", "passthrough")])
    estimator = make_pipeline(union, SVR())
    found = unsuited(estimator, ["featureunion__scale__clip", "svr__C", "featureunion"])
    assert list(found) == ["featureunion__scale__clip"]


# numbers, without a sweep

SCALED_SVR = make_pipeline(StandardScaler(), SVR())


class Writing(RegressorMixin, BaseEstimator):
    """Writes into what it is given."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def fit(self, X: Any, y: Any) -> Writing:
        X *= self.factor
        self.mean_ = float(np.abs(X).mean() + y.mean())
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(
        processes=False, dashboard_address="127.0.0.1:0", n_workers=1, threads_per_worker=1
    ) as made:
        yield made


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (RandomForestRegressor(3, random_state=0), {"max_features": [1, 1.0]}),
        (
            make_pipeline(StandardScaler(), SVR()),
            {"standardscaler": ["passthrough", MinMaxScaler()]},
        ),
        (make_pipeline("passthrough", StandardScaler(), SVR()), {"svr__C": [1, 10]}),
        (make_pipeline(StandardScaler(), Writing()), {"writing__factor": [2.0, 3.0, 0.5]}),
        (Writing(), {"factor": [2.0, 3.0, 0.5]}),
        (SVC(), {"C": [0.1, 1, -1]}),
        (KMeans(2, n_init=1, random_state=0), {"max_iter": [1, 9]}),
        (
            make_pipeline(FeatureUnion([("a", MinMaxScaler()), ("b", StandardScaler())]), SVR()),
            {"featureunion__a__clip": [True, False], "svr__C": [1, 2]},
        ),
    ],
    ids=["1 and 1.0", "passthrough", "passes", "last writes", "writes", "classes", "no y", "union"],
)
def test_numbers_and_messages_are_our_own(estimator: Any, grid: Any, client: Client) -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(3, 2, (60, 4))
    y: Any = X @ [1.0, 2.0, 0.0, -1.0] + rng.normal(size=60)
    if is_classifier(estimator):
        y = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    if isinstance(estimator, KMeans):
        y = None
    splitter = build_splitter(3, is_classifier(estimator)) if y is not None else KFold(3)
    model = Model(estimator, splitter, build_scorers(estimator, None))
    own = Evaluator([model], [Setting(0, params) for params in ParameterGrid(grid)], ["score"])
    splits = {0: list(splitter.split(X, y))}

    def explain(task: Task, rows: Any) -> Evaluation:
        settings = [own.settings[row] for row in rows]
        return Evaluator([model], settings, ["score"]).evaluate([Task(X, y, splits)])[0]

    def compute(graph: Any, keys: Any) -> Any:
        return client.get(graph, keys, sync=True)

    lazy = Task(delayed(X), None if y is None else delayed(y), splits)
    found = DaskML(own, compute, explain).evaluate([lazy])[0]
    expected = own.evaluate([Task(X, y, splits)])[0]
    np.testing.assert_array_equal(found.scores["score"], expected.scores["score"])
    assert found.messages == expected.messages
    np.testing.assert_array_equal(found.failed, expected.failed)
