"""Incremental and Hyperband searches: blocks of a partition on all workers, dask-ml's decisions."""

from __future__ import annotations

import itertools
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import (
    Spec,
    equal_stores,
    repeated_units,
    start_run,
    wait_for_units,
)
from dask_ml.model_selection import HyperbandSearchCV
from distributed import Client
from sklearn.linear_model import LinearRegression, SGDRegressor
from sklearn.metrics import get_scorer
from sklearn.naive_bayes import GaussianNB
from sklearn.utils import check_random_state

from hpc_sweep import load_model
from hpc_sweep.calibration import calibrate
from hpc_sweep.errors import ClusterError, PlanError, SpecError, StoreError
from hpc_sweep.plan import Unit
from hpc_sweep.prepare import create, prepare
from hpc_sweep.source import open_source, windows, within
from hpc_sweep.source.reading import PlainReading
from hpc_sweep.spec import DataSpec, load_spec
from hpc_sweep.store import Store, run_folder
from hpc_sweep.strategies.incremental import brackets
from hpc_sweep.sweep import execute
from hpc_sweep.work import Bench, CollectionTasks, Context, open_bench
from hpc_sweep.work.collections import places, samples_of, split

WriteSpec = Callable[[Spec], Path]

SITES, SAMPLES, CHUNK = 3, 900, 100


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of few partitions with many samples in chunks; the last one is empty."""
    rng = np.random.default_rng(3)
    x, z = rng.normal(size=(2, SITES, SAMPLES))
    x += [[-1], [1], [0]]
    y = 2 * x - z + rng.normal(0, 0.3, (SITES, SAMPLES))
    x[0, ::7] = np.nan
    y[2] = np.nan
    warm = np.where(y > 3, 2, y > 0)
    warm[:, :CHUNK] = 1
    dims = ("site", "time")
    values = {"x": (dims, x), "z": (dims, z), "y": (dims, y), "warm": (dims, warm.astype("i4"))}
    made = xr.Dataset(values, coords={"site": [10, 20, 30]})
    path = tmp_path_factory.mktemp("long") / "long.zarr"
    made.chunk(site=1, time=CHUNK).to_zarr(path, consolidated=False)
    return path


@pytest.fixture
def spec(long: Path, tmp_path: Path) -> Spec:
    return {
        "data": {
            "store": str(long),
            "features": ["x", "z"],
            "target": "y",
            "partition_by": ["site"],
        },
        "models": [
            {
                "estimator": {"sklearn.linear_model.SGDRegressor": {"eta0": 0.001}},
                "param_distributions": {"alpha": [1.0e-5, 1.0e-3, 0.1, 1, 10]},
            }
        ],
        "search": {
            "strategy": "incremental",
            "n_initial_parameters": 4,
            "max_iter": 12,
            "block_samples": 100,
        },
        "cluster": {"kind": "local", "workers": 2, "memory": "1GB", "performance_report": False},
        "output": {"store": str(tmp_path / "results.zarr")},
    }


def bench_of(store: Store) -> Bench:
    return open_bench(str(store.path), store.spec.model_dump_json())


def parts_of(bench: Bench, site: int) -> list[dict[str, Any]]:
    """Return the blocks of a site, split."""
    return [split(samples_of(bench, each), each) for each in places(bench, np.array([site]))]


def held_out_of(parts: list[dict[str, Any]]) -> list[Any]:
    return [np.concatenate([part[name] for part in parts]) for name in ("X_test", "y_test")]


def test_scores_are_those_of_a_plain_loop(spec: Spec) -> None:
    outcome = execute(load_spec(spec))
    assert {name: count for name, count in outcome.counts.items() if count} == {
        "done": 2,
        "empty": 1,
    }
    found = outcome.store.dataset().load()
    bench = bench_of(outcome.store)
    for site in (0, 1):
        parts = parts_of(bench, site)
        assert len(parts) == 9
        seed = bench.seed(np.array([site]))
        rng, order = check_random_state(seed), []
        while len(order) < 12:
            some = list(range(9))
            rng.shuffle(some)
            order += some
        for row, candidate in enumerate(outcome.store.strategy.candidates):
            model = SGDRegressor(eta0=0.001, **candidate.params, random_state=seed)
            for number in order[:12]:
                model.partial_fit(parts[number]["X_train"], parts[number]["y_train"])
            assert found["test_score"].values[site, row, 0] == model.score(*held_out_of(parts))
    assert found["n_samples"].values.tolist() == [771, 900, 0]
    assert found["n_splits"].values.tolist() == [1, 1, 0]
    assert (found["partial_fit_calls"].values[:2] == 12).all()
    assert (found["survived"].values[:2] == 1).all()
    assert (found["best_index"].values[:2] == found["test_score"].values[:2, :, 0].argmax(1)).all()
    assert (found["fit_time"].values[:2] > 0).all()
    model = load_model(outcome.store.path, site=20)
    assert model.score(*held_out_of(parts_of(bench, 1))) == found["best_score"].values[1]


def test_hyperband_with_classes_that_blocks_lack(spec: Spec) -> None:
    """Two models in one search, of which one cannot be made."""
    spec["data"]["target"] = "warm"
    spec["models"] = [
        {
            "estimator": "sklearn.linear_model.SGDClassifier",
            "param_distributions": {"alpha": {"scipy.stats.loguniform": [1.0e-5, 10]}},
        },
        {
            "name": "other",
            "estimator": "sklearn.linear_model.SGDClassifier",
            "param_distributions": {
                "alpha": {"scipy.stats.loguniform": [1.0e-5, 10]},
                "loss": ["modified_huber", "no such loss"],
            },
        },
    ]
    spec["search"] = {"strategy": "hyperband", "max_iter": 9, "block_samples": 100}
    outcome = execute(load_spec(spec))
    found = outcome.store.dataset().isel(site=1).load()
    bracket, calls = found["bracket"].values, found["partial_fit_calls"].values
    each = len(outcome.store.strategy.candidates) // 2
    assert bracket.tolist() == 2 * ([2] * 9 + [1] * 5 + [0] * 3)
    assert each == 17
    for number, counts in ((2, {1: 12, 3: 4, 9: 2}), (1, {3: 7, 9: 3}), (0, {9: 6})):
        kinds, seen = np.unique(calls[bracket == number], return_counts=True)
        assert dict(zip(kinds.tolist(), seen.tolist(), strict=True)) == counts
    wrong = np.array(["no such loss" in text for text in found["param_loss"].values.tolist()])
    assert 0 < wrong.sum() < 17
    assert (found["status"].values[wrong] == 2).all()
    assert "no such loss" in found["message"].values[wrong][0]
    survived = found["survived"].values == 1
    assert (calls[survived & ~wrong] == 9).all()
    score = np.where(survived, found["test_score"].values[:, 0], np.nan)
    assert found["best_score"].values == np.nanmax(score)
    assert found["best_index"].values == np.nanargmax(score)
    bench = bench_of(outcome.store)
    model = load_model(outcome.store.path, site=20)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.score(*held_out_of(parts_of(bench, 1))) == found["best_score"].values


@pytest.mark.parametrize(("most", "eta"), [(9, 3), (81, 3), (100, 4), (16, 2), (2, 2)])
def test_brackets_are_dask_mls(most: int, eta: int) -> None:
    search = HyperbandSearchCV(SGDRegressor(), {}, max_iter=most, aggressiveness=eta)
    theirs = {
        each["bracket"]: (
            each["n_models"],
            each["SuccessiveHalvingSearchCV params"]["n_initial_iter"],
        )
        for each in search.metadata["brackets"]
    }
    ours = brackets(most, eta)
    assert [(each.n_candidates, each.n_calls) for each in ours] == [
        theirs[number] for number in sorted(theirs, reverse=True)
    ]


def test_candidates_leave_and_training_ends(spec: Spec) -> None:
    spec["data"]["target"] = None
    spec["models"] = [
        {
            "estimator": {"sklearn.cluster.MiniBatchKMeans": {"n_init": 1}},
            "param_distributions": {"n_clusters": [2, 3, 4, 5, 6, 7], "max_no_improvement": [3, 5]},
        }
    ]
    spec["search"] |= {"n_initial_parameters": 12, "decay_rate": 1.0, "max_iter": 9}
    found = execute(load_spec(spec)).store.dataset().isel(site=0).load()
    calls = found["partial_fit_calls"].values
    assert len(set(calls.tolist())) > 2
    survived = found["survived"].values == 1
    assert (calls[survived] == calls.max()).all()
    assert survived[int(found["best_index"])]


def test_a_candidate_that_raises_fails_alone(spec: Spec, faulty_on_workers: None) -> None:
    spec["models"] += [
        {"estimator": "faulty.FaultyByBlocks", "param_distributions": {"shift": [0, 1]}}
    ]
    found = execute(load_spec(spec)).store.dataset().load()
    assert found["status"].values.tolist() == [[1] * 6, [1] * 4 + [2] * 2, [3] * 6]
    assert found["message"].values[1, 5] == "RuntimeError: the data is too wet"
    assert np.isnan(found["test_score"].values[1, 4:]).all()
    assert np.isfinite(found["test_score"].values[1, :4]).all()


def test_a_candidate_that_kills_fails_its_partition(spec: Spec, faulty_on_workers: None) -> None:
    spec["models"] = [
        {
            "estimator": {"faulty.FaultyByBlocks": {"how": "kill"}},
            "param_distributions": {"shift": [0, 1]},
        }
    ]
    found = execute(load_spec(spec)).store.dataset().load()
    assert found["status"].values.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert found["message"].values[1, 0] == "site=20: its search killed workers twice"


def test_killed_and_gone_on_with(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    store = Path(spec["output"]["store"])
    process = start_run(write_spec(spec))
    wait_for_units(store, 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    execute(load_spec(spec))
    _, twice = repeated_units(store)
    assert not twice
    whole = {**spec, "output": {"store": str(tmp_path / "whole.zarr")}}
    equal_stores(store, execute(load_spec(whole)).store.path)
    assert not list(run_folder(store).parts.iterdir())


def test_interrupted(spec: Spec, write_spec: WriteSpec) -> None:
    spec["search"] |= {"max_iter": 2000}
    process = start_run(write_spec(spec))
    events = run_folder(Path(spec["output"]["store"])).events
    while not events.exists() or "unit_started" not in events.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1].endswith("the same command goes on from here")
    assert "Traceback" not in output


def test_a_chunk_that_is_damaged_fails_its_partition(spec: Spec, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(spec["data"]["store"], damaged)
    (damaged / "y" / "c" / "1" / "4").write_bytes(b"no chunk at all")
    spec["data"]["store"] = str(damaged)
    found = execute(load_spec(spec)).store.dataset().load()
    assert found["partition_status"].values.tolist() == [1, 2, 3]
    assert "reading failed" in found["message"].values[1, 0]


def test_each_chunk_is_read_once(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are made of whole chunks, and nothing is read anew for the splits or rounds."""
    read: list[tuple[str, int]] = []
    plain = PlainReading.read

    def counting(self: PlainReading, names: Any, box: Any) -> Any:
        time = box["time"]
        assert time.start % CHUNK == 0
        chunks = range(time.start // CHUNK, -(-time.stop // CHUNK))
        read.extend((name, chunk) for name in names for chunk in chunks)
        return plain(self, names, box)

    spec["search"] |= {"block_samples": 250, "max_iter": 7}
    prepared = prepare(load_spec(spec))
    store = create(prepared)
    bench = bench_of(store)
    monkeypatch.setattr(PlainReading, "read", counting)
    context = Context(str(store.path), store.spec.model_dump_json(), "", 60.0, {}, "", False)
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with Client(processes=False, **options) as client, CollectionTasks(context) as tasks:
        (outcome,) = tasks._outcomes(client, bench, Unit((1,), 0, 1, 0, 1), guarded=False)
    assert outcome.found.more["partial_fit_calls"].tolist() == [7] * 4
    assert sorted(read) == [(name, chunk) for name in "xyz" for chunk in range(9)]


@pytest.mark.parametrize(
    ("partition_by", "samples", "lengths"),
    [
        (["latitude", "longitude"], None, [60]),
        (["latitude"], 1, [4 * 60, 4 * 60]),
        (["latitude"], 241, [8 * 60]),
        (["longitude"], 1, [3 * 60, 3 * 60]),
        ("zone", 1, [4 * 60, 4 * 60, 4 * 60, 4 * 60]),
        ([{"latitude": 2}, "time.hour"], 1, [2 * 4 * 3, 2 * 4 * 3]),
    ],
)
def test_windows_cover_all_samples_at_borders_of_chunks(
    data: Path, partition_by: Any, samples: int | None, lengths: list[int]
) -> None:
    known = DataSpec(store=str(data), features=["wet", "hour"], partition_by=partition_by)
    source = open_source(known.model_copy(update={"dropna": False}))
    first = np.zeros((1, len(source.dims)), dtype=np.intp)
    made = windows(source, samples, first[0])
    parts = [next(within(source, window).read(first)) for window in made]
    assert [len(part) for part in parts] == lengths
    (whole,) = source.read(first)
    together = np.concatenate([part.X for part in parts])
    np.testing.assert_array_equal(together[np.lexsort(together.T)], whole.X[np.lexsort(whole.X.T)])


@pytest.mark.parametrize(
    ("theirs", "ours", "target", "scoring"),
    [
        ("dask_ml.naive_bayes.GaussianNB", GaussianNB(), "warm", "accuracy"),
        ("dask_ml.linear_model.LinearRegression", LinearRegression(), "y", "r2"),
    ],
)
def test_estimators_of_dask_ml_are_fitted_by_all_workers(
    spec: Spec, theirs: str, ours: Any, target: str, scoring: str
) -> None:
    grid = {"solver": ["lbfgs", "no such solver"]} if target == "y" else {}
    # dask-ml's naive Bayes fails with more classes than features
    spec["data"] |= {"target": target, "features": ["x", "z", "y"][: 2 + (target == "warm")]}
    spec["models"] = [{"estimator": theirs, "param_grid": grid}]
    spec["search"] = {"cv": 1, "scoring": scoring}
    prepared = prepare(load_spec(spec))
    assert prepared.strategy.on_blocks
    store = execute(load_spec(spec)).store
    found, bench = store.dataset().load(), bench_of(store)
    parts = parts_of(bench, 1)
    train = [np.concatenate([part[name] for part in parts]) for name in ("X_train", "y_train")]
    expected = get_scorer(scoring)(ours.fit(*train), *held_out_of(parts))
    assert found["test_score"].values[1, 0, 0] == pytest.approx(expected, abs=1e-3)
    assert found["n_samples"].values[1] == SAMPLES
    assert found["status"].values[1].tolist() == [1] + [2] * len(grid)
    if grid:
        assert "no such solver" in found["message"].values[1, 1]
    with pytest.raises(StoreError, match="dask-ml's, which a whole cluster fits"):
        load_model(store.path, site=20)


def test_what_dask_mls_estimators_cannot_is_a_fault(spec: Spec, tmp_path: Path) -> None:
    spec["models"] = [
        {"estimator": "dask_ml.linear_model.LinearRegression"},
        {"estimator": "sklearn.linear_model.Ridge"},
    ]
    spec["search"] = {"strategy": "halving", "timeout": 3}
    spec["data"]["holdout"] = {"mask": "late"}
    late = xr.open_zarr(spec["data"]["store"], chunks=None, consolidated=False).load()
    late["late"] = ("time", np.arange(SAMPLES) > 800)
    spec["data"]["store"] = str(tmp_path / "late.zarr")
    late.drop_encoding().to_zarr(spec["data"]["store"], consolidated=False)
    with pytest.raises(SpecError) as refused:
        prepare(load_spec(spec))
    assert {fault.path for fault in refused.value.faults} == {
        *("models.1", "search.strategy", "search.cv", "search.timeout", "data.holdout")
    }


def test_a_partition_is_read_once_for_all_its_units(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates of a grid are several units, that a stop loses few of them."""
    spec["models"] = [
        {
            "estimator": "dask_ml.linear_model.LinearRegression",
            "param_grid": {"C": [0.1, 1, 10], "solver": ["no such solver"]},
        }
    ]
    spec["search"] = {"cv": 1, "scoring": "r2"}
    prepared = prepare(load_spec(spec))
    store = create(prepared)
    assert prepared.plan.unit_columns == 1
    assert prepared.plan.read_factor == 1
    reads = mock.Mock(wraps=CollectionTasks._read)
    monkeypatch.setattr(CollectionTasks, "_read", lambda *arguments: reads(*arguments))
    context = Context(str(store.path), store.spec.model_dump_json(), "", 60.0, {}, "", False)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with Client(processes=False, **options) as client, CollectionTasks(context) as tasks:
        for chunk, first in itertools.product([(0,), (1,)], range(3)):
            unit = Unit(chunk, 0, 1, first, first + 1)
            (outcome,) = tasks._outcomes(client, bench_of(store), unit, guarded=False)
            assert outcome.status.tolist() == [2]
    assert reads.call_count == 2


def test_what_cannot_be_trained_by_blocks_is_a_fault(spec: Spec) -> None:
    spec["models"].append({"estimator": "sklearn.svm.SVR"})
    spec["search"] |= {"scoring": ["r2", "max_error"], "refit": "r2", "timeout": 3}
    with pytest.raises(SpecError) as refused:
        execute(load_spec(spec))
    faults = {fault.path: fault.message for fault in refused.value.faults}
    assert set(faults) == {"models.1.estimator", "search.scoring"}
    assert "SVR has no partial_fit" in faults["models.1.estimator"]
    with pytest.raises(SpecError) as refused:
        load_spec({**spec, "search": {**spec["search"], "cv": 5}})
    assert [fault.path for fault in refused.value.faults] == ["search.cv"]


def test_a_pair_of_a_loader_is_a_fault(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import numpy as np\ndef load():\n    return np.ones((50, 2)), np.ones(50)\n"
    (tmp_path / "pair_loader.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec["data"] = {"loader": "pair_loader:load", "partition_by": []}
    with pytest.raises(SpecError, match="cannot be read block by block"):
        prepare(load_spec(spec))


def test_a_partition_may_be_larger_than_a_worker(spec: Spec, tmp_path: Path) -> None:
    """20 million samples, of which there are metadata only."""
    group = zarr.create_group(tmp_path / "huge.zarr")
    for name in ("x", "z", "y"):
        shape, chunks = (1, 20_000_000), (1, 500_000)
        group.create_array(
            name, shape=shape, chunks=chunks, dtype="f4", dimension_names=("site", "time")
        )
    spec["data"]["store"] = str(tmp_path / "huge.zarr")
    spec["search"]["block_samples"] = 1_000_000
    prepared = prepare(load_spec(spec))
    plan = prepared.plan
    assert plan.workload.n_samples == 1_000_000
    assert plan.read_factor == 1
    assert plan.memory_bytes < 500_000_000
    with pytest.raises(ClusterError, match="cannot hold blocks that lie on all workers"):
        calibrate(prepared)
    spec["models"][0]["param_grid"] = spec["models"][0].pop("param_distributions")
    with pytest.raises(PlanError, match="a unit of one partition"):
        prepare(load_spec({**spec, "search": {"strategy": "grid"}}))
