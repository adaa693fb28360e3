"""Sweeps whose spec changes between runs: only what is new is fitted, and equal is the result."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Spec, hpc_sweep, start_run, wait_for_units
from yearly import write, yearly_spec, years_data

import hpc_sweep as package
from hpc_sweep import submission
from hpc_sweep.cli.plan import plan_facts
from hpc_sweep.errors import PlanError, SpecError, StoreError
from hpc_sweep.plan import Share, Unit
from hpc_sweep.prepare import begin, prepare, with_memory
from hpc_sweep.spec import load_spec
from hpc_sweep.store import (
    Ledger,
    Store,
    choices,
    fold,
    read_events,
    run_folder,
    write_part,
)
from hpc_sweep.sweep import Outcome, execute
from hpc_sweep.work import evaluate_partitions, open_bench
from hpc_sweep.work.outcomes import part_of

WriteSpec = Callable[[Spec], Path]
LOGUNIFORM = {"scipy.stats.loguniform": [1e-3, 1e3]}
TREE = {"estimator": "sklearn.tree.DecisionTreeRegressor", "param_grid": {"max_depth": [2, 4]}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def run(spec: Spec, **more: Any) -> Outcome:
    return execute(load_spec(spec), **more)


@dataclass(frozen=True)
class Carried:
    """What `carry_on` did: cells searched, units that only scored the best on the hold-out."""

    store: Store
    cells: int
    refits: int


def carry_on(spec: Spec, retry: Sequence[str] = ()) -> Carried:
    """Do what is left of a sweep in this process, as a driver with its workers does."""
    prepared = prepare(load_spec(spec))
    run_folder(spec["output"]["store"]).make()
    store = begin(prepared, retry=retry)
    text, revision = prepared.spec.model_dump_json(), store.header.revision
    bench = open_bench(str(store.path), text, revision)
    ledger = Ledger.read(store)
    cells = refits = 0

    def leave(unit: Unit) -> None:
        known = ledger.parts.get(unit.chunk, [])
        best = None if unit.n_cells else choices(store, unit, known)
        found = evaluate_partitions(bench, unit, time.perf_counter() + 60, choices=best)
        part = part_of(bench, [outcome for batch in found for outcome in batch])
        ledger.add(write_part(store.run.parts, store.header.id, unit, part))

    for chunk in [chunk for chunk in ledger.chunks if chunk not in ledger.folded]:
        for unit in prepared.plan.units(chunk, ledger.covered(chunk)):
            leave(unit)
            cells += unit.n_cells
        while lacking := ledger.fold(chunk, fold(store, chunk, ledger.parts.get(chunk, [])), 4):
            for unit in lacking:
                leave(unit)
                refits += unit.stop - unit.start
    assert Ledger.read(store).is_complete
    assert not list(store.run.parts.iterdir())
    return Carried(store, cells, refits)


def by_id(path: Path) -> xr.Dataset:
    """Return results of what the spec asks for, in the order of ids; ``best_index`` as id."""
    found = xr.open_zarr(path, chunks=None).load()
    ids = np.array([*found["candidate_id"].values.tolist(), "none"], dtype=object)
    found["best_index"] = (found["best_index"].dims, ids[found["best_index"].values])
    found = found.isel(candidate=np.flatnonzero(found["in_spec"].values))
    return found.isel(candidate=np.argsort(found["candidate_id"].values.tolist()))


def equal(store: Path, spec: Spec, folder: Path) -> None:
    """Fail unless a store equals that of a spec which was so from the beginning."""
    fresh = copy.deepcopy(spec)
    fresh["output"]["store"] = str(folder / "fresh.zarr")
    carry_on(fresh)
    left, right = by_id(store), by_id(folder / "fresh.zarr")
    assert set(right.variables) <= set(left.variables)
    for name in set(map(str, right.variables)) - {
        "fit_time",
        "score_time",
        "candidate",
        "revision",
    }:
        a, b = left[name].values, right[name].values
        if "param_" in name and a.dtype.kind != b.dtype.kind:  # text for a dropped one's sake
            a = np.reshape([float(text or "nan") for text in a.ravel().tolist()], a.shape)
        if a.dtype.kind == "f":  # ridge is solved for all of its values together
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


def without_models(*specs: Spec) -> None:
    """Let nothing be fitted again for coefficients."""
    for spec in specs:
        spec["output"]["models"] = "none"


@pytest.fixture
def grown(spec: Spec) -> Spec:
    """Return `spec` with values and a model more."""
    more = copy.deepcopy(spec)
    more["models"][0]["param_grid"]["alpha"] = [0.01, 0.1, 1, 10]
    more["models"].insert(0, TREE)
    return more


@pytest.mark.parametrize("engine", ["shared", "dask-ml"])
def test_only_what_is_new_is_fitted(spec: Spec, grown: Spec, tmp_path: Path, engine: str) -> None:
    spec["search"]["engine"] = grown["search"]["engine"] = engine
    store = run(spec).store
    before = xr.open_zarr(store.path, chunks=None).load()
    told: list[str] = []
    outcome = run(grown, say=told.append)
    assert told == ["3 new candidates for 48 partitions; 5 kept"]
    assert outcome.progress is not None
    assert outcome.progress.fits == 3 * 3 * 48
    after = xr.open_zarr(store.path, chunks=None).load()
    np.testing.assert_array_equal(after["fit_time"][..., :5, :], before["fit_time"])
    np.testing.assert_array_equal(after["candidate_id"][:5], before["candidate_id"])
    equal(store.path, grown, tmp_path)


def test_dropping_and_taking_back_fit_nothing(spec: Spec, grown: Spec, tmp_path: Path) -> None:
    without_models(spec, grown)
    store = run(grown).store
    told: list[str] = []
    less = run(spec, say=told.append)
    assert less.progress is None
    assert less.ranked == 48
    equal(store.path, spec, tmp_path)
    back = run(grown, say=told.append)
    assert back.progress is None
    assert back.ranked == 48
    assert told == ["3 dropped; 5 kept", "3 taken back; 5 kept"]
    assert run(grown).ranked == 0
    events = [event for event in read_events(store.run.events) if event["event"] != "workers"]
    assert [event["event"] for event in events].count("run_started") == 1
    assert [event["event"] for event in events].count("candidates_changed") == 2


def test_coefficients_follow_the_best(spec: Spec, grown: Spec, tmp_path: Path) -> None:
    """And so does what `load_model` gives."""
    store = run(grown).store
    less = run(spec)
    assert less.progress is not None
    assert less.progress.fits == 0
    equal(store.path, spec, tmp_path)
    place = {"latitude": 59.0, "longitude": -0.25}
    model = package.load_model(store.path, **place)
    best = by_id(store.path)["best_model"].sel(place).item()
    assert type(model).__name__ == {"ridge": "Ridge", "scaled-svr": "Pipeline"}[best]


def test_much_is_ranked_by_workers(
    spec: Spec, grown: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = run(grown).store
    monkeypatch.setattr("hpc_sweep.prepare.beginning.RANKED_BY_DRIVER", 0)
    less = run(spec)
    assert less.progress is not None
    assert less.progress.fits == 0
    equal(store.path, spec, tmp_path)


def test_a_run_that_is_killed_while_it_extends(
    spec: Spec, write_spec: WriteSpec, tmp_path: Path
) -> None:
    store = run(spec).store.path
    spec["models"][1]["param_grid"] = {"svr__C": [1, 10, 100, 1000, 3000]}
    spec["models"].append(TREE)
    del spec["models"][0]["param_grid"]["alpha"][1]
    spec_file = write_spec(spec)
    done = len([e for e in read_events(run_folder(store).events) if e["event"] == "unit_done"])
    process = start_run(spec_file)
    wait_for_units(store, done + 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < Ledger.read(Store.open(store)).cells_done() < 48 * 9
    again = hpc_sweep("run", spec_file)
    assert again.returncode == 0, again.stderr
    assert "going on" in again.stdout
    equal(store, spec, tmp_path)
    assert not list(run_folder(store).parts.iterdir())


def test_a_worker_that_outlives_revisions(spec: Spec, grown: Spec, tmp_path: Path) -> None:
    """As a notebook does it: what is kept of a store is not that of an earlier revision."""
    place = {"latitude": 59.0, "longitude": -0.25}
    store = carry_on(spec).store.path
    package.load_model(store, **place)
    carry_on(grown)
    package.load_model(store, **place)
    carry_on(spec)
    assert type(package.load_model(store, **place)).__name__ in ("Ridge", "Pipeline")
    assert Store.open(store).header.revision == 2


def test_what_is_refused(spec: Spec, grown: Spec) -> None:
    store = carry_on(spec).store
    for key, value in (("cv", 4), ("scoring", "neg_median_absolute_error"), ("seed", 1)):
        other = copy.deepcopy(grown)
        other["search"][key] = value
        with pytest.raises(StoreError, match=f"search.{key}: .* in the store, {value} in the spec"):
            run(other)
    other = copy.deepcopy(grown)
    other["data"]["dtype"] = "float32"
    with pytest.raises(StoreError, match=r"data\.dtype: float64 in the store, float32 in the spec"):
        run(other)
    with pytest.raises(
        StoreError, match="other candidates than the spec; hpc-sweep submit --drivers"
    ):
        run(grown, share=Share(1, 2))
    grown["models"][1]["param_grid"]["alpha"] = [n / 7 for n in range(1, 900)]
    grown["output"]["max_files"] = 200
    with pytest.raises(PlanError, match=r"candidates the store would have .* output\.max_files"):
        run(grown)
    assert Store.open(store.path).header.revision == 0


def test_shares_of_an_extension(spec: Spec, grown: Spec, tmp_path: Path) -> None:
    """`submit --drivers` changes the store, its drivers do the rest."""
    without_models(spec, grown)
    store = carry_on(spec).store
    begin(prepare(load_spec(grown)))
    for index in (1, 2):
        run(grown, share=Share(index, 2))
    equal(store.path, grown, tmp_path)
    begin(prepare(load_spec(spec)))
    assert [run(spec, share=Share(index, 2)).ranked for index in (1, 2)] == [24, 24]


@pytest.mark.parametrize("retry", [(), ("failed",)])
def test_what_is_submitted_finds_the_store_changed(
    spec: Spec, grown: Spec, monkeypatch: pytest.MonkeyPatch, retry: tuple[str, ...]
) -> None:
    """Once, before the first link comes, and so that its walltime is that of the new work."""
    store = carry_on(spec).store
    grown["cluster"] = {
        **{"kind": "slurm", "workers": 1, "memory": "1GB", "queue": "debug"},
        **{"walltime": "01:00:00", "interface": "lo"},
    }
    loaded, told, walltimes = load_spec(grown), list[str](), list[float | None]()

    def submit_driver(queue: Any, run: Any, after: Any, walltime_s: Any, *share: Any) -> str:
        walltimes.append(walltime_s)
        return "7"

    monkeypatch.setattr(submission, "submit_driver", submit_driver)
    monkeypatch.setattr(submission, "make_queue", lambda kind: None)
    assert submission.submit(loaded, "it", submission.Way(retry=retry), told.append) == ["7"]
    more = ["to be done again: nothing (partition × candidate)"] if retry else []
    assert told == ["3 new candidates for 48 partitions; 5 kept", *more]
    assert Store.open(store.path).header.revision == 1
    assert prepare(loaded).change is None
    assert walltimes == [None]


def test_another_driver_was_faster(spec: Spec, grown: Spec) -> None:
    carry_on(spec)
    prepared = prepare(load_spec(grown))
    begin(prepared)
    with pytest.raises(StoreError, match="changed by another driver; run the same command again"):
        begin(prepared)


# with other pieces


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(years_data(), tmp_path_factory.mktemp("years") / "data.zarr")


def test_samples_held_out_are_scored_where_the_best_changes(years: str, tmp_path: Path) -> None:
    """Also when candidates are dropped: the refit of another best is the one fit that it takes."""
    spec = yearly_spec(years, tmp_path / "results.zarr")
    spec["data"]["holdout"] = {"time": "2004-01-01"}
    spec["search"]["cv"] = 3
    less = copy.deepcopy(spec)
    less["models"].pop()
    carry_on(less)
    before = by_id(tmp_path / "results.zarr")
    grown = carry_on(spec)
    after = by_id(tmp_path / "results.zarr")
    changed = (before["best_index"].values != after["best_index"].values) & (
        before["n_holdout"].values > 0
    )
    assert 0 < changed.sum() < changed.size
    assert grown.refits == changed.sum()
    equal(grown.store.path, spec, tmp_path)
    shrunk = carry_on(less)
    assert (shrunk.cells, shrunk.refits) == (0, changed.sum())
    (tmp_path / "less").mkdir()
    equal(grown.store.path, less, tmp_path / "less")


def test_held_out_refits_of_a_run(years: str, tmp_path: Path) -> None:
    spec = yearly_spec(years, tmp_path / "results.zarr")
    spec["data"]["holdout"] = {"time": "2004-01-01"}
    spec["search"]["cv"] = 3
    store = carry_on(spec).store.path
    spec["models"].pop()
    outcome = run(spec)
    assert outcome.progress is not None
    assert outcome.progress.fits == 0
    equal(store, spec, tmp_path)


def test_splits_that_partitions_lack(years: str, tmp_path: Path) -> None:
    spec = yearly_spec(years, tmp_path / "results.zarr")
    less = copy.deepcopy(spec)
    less["models"].pop(0)
    store = carry_on(less).store.path
    assert carry_on(spec).cells == 3 * 12
    assert xr.open_zarr(store)["split"].values.tolist() == [2001, 2002, 2003, 2004]
    equal(store, spec, tmp_path)


@pytest.mark.parametrize("axes", [[], "zone", {"latitude": 4, "longitude": 3}])
def test_any_partitions(spec: Spec, grown: Spec, tmp_path: Path, axes: Any) -> None:
    for each in (spec, grown):
        each["data"]["partition_by"] = axes
    store = carry_on(spec).store.path
    carry_on(grown)
    equal(store, grown, tmp_path)
    assert carry_on(spec).cells == 0


# what draws


def randomly(spec: Spec, space: Any, n_iter: int) -> Spec:
    drawn = copy.deepcopy(spec)
    ridge = {"estimator": "sklearn.linear_model.Ridge", "param_distributions": space}
    drawn["models"] = [ridge]
    drawn["search"] |= {"strategy": "random", "n_iter": n_iter}
    return drawn


def test_more_random_draws(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"alpha": LOGUNIFORM, "fit_intercept": [True, False]}
    store = carry_on(randomly(spec, space, 4)).store
    assert carry_on(randomly(spec, space, 7)).cells == 3 * 48
    equal(store.path, randomly(spec, space, 7), tmp_path)
    assert carry_on(randomly(spec, space, 2)).cells == 0
    assert carry_on(randomly(spec, space, 7)).cells == 0

    def others(*arguments: Any, **more: Any) -> Any:
        raise AssertionError("drawn from the store's own model")

    monkeypatch.setattr("hpc_sweep.strategies.random._text", others)
    assert carry_on(randomly(spec, space, 7)).cells == 0


def test_more_draws_from_lists_repeat_none(spec: Spec) -> None:
    space = {"alpha": [1, 2, 3, 4, 5, 6, 7], "tol": [1e-4, 1e-3]}
    first = [each.id for each in carry_on(randomly(spec, space, 5)).store.candidates]
    store = carry_on(randomly(spec, space, 9)).store
    ids = [each.id for each in store.candidates]
    assert ids[:5] == first
    assert len(set(ids)) == 9
    change = prepare(load_spec(randomly(spec, space, 99))).change
    assert change is not None
    assert change.facts() == {"new": 5, "taken_back": 0, "dropped": 0, "kept": 9}


def test_strategies_that_compare_refuse(spec: Spec) -> None:
    spec["search"] |= {"strategy": "halving"}
    carry_on(spec)
    spec["models"][0]["param_grid"]["alpha"] = [0.1, 1, 10, 100]
    with pytest.raises(StoreError, match=r"alpha: .*\n.*halving chooses by the results of"):
        carry_on(spec)


def test_optuna_refuses_more_trials(spec: Spec) -> None:
    spec["models"] = randomly(spec, {"alpha": LOGUNIFORM}, 1)["models"]
    spec["search"] |= {"strategy": "optuna", "n_trials": 2, "sampler": "random"}
    carry_on(spec)
    spec["search"]["n_trials"] = 3
    with pytest.raises(StoreError, match=r"n_trials: 2 in the store, 3 .*\n.*optuna chooses by"):
        carry_on(spec)


# what failed


def test_retrying_does_nothing_else_again(
    spec: Spec, write_spec: WriteSpec, tmp_path: Path, faulty_on_workers: None
) -> None:
    switch = tmp_path / "switch"
    spec["models"].append(
        {"estimator": {"faulty.Waiting": {"path": str(switch)}}, "param_grid": {"number": [0, 1]}}
    )
    spec_file = write_spec(spec)
    store = run(spec).store
    before = xr.open_zarr(store.path, chunks=None).load()
    assert int((before["status"] == 2).sum()) == 2 * 46
    nothing = hpc_sweep("run", spec_file, "--retry", "timed_out")
    assert "to be done again: nothing" in nothing.stderr
    assert nothing.returncode == 0
    switch.touch()
    done = hpc_sweep(
        "run", spec_file, "--retry", "failed", "--retry", "timed_out", "--memory", "2x"
    )
    assert done.returncode == 0, done.stderr
    assert "to be done again: 92 failed (partition × candidate)" in done.stderr
    assert "2.0 GB" in done.stdout
    after = xr.open_zarr(store.path, chunks=None).load()
    assert not (after["status"] == 2).any()
    np.testing.assert_array_equal(after["fit_time"][..., :5, :], before["fit_time"][..., :5, :])
    equal(store.path, spec, tmp_path)


def test_retrying_from_python(spec: Spec) -> None:
    with pytest.raises(ValueError, match="retry has empty; there are failed, timed_out"):
        package.run(spec, retry=["empty"])
    assert "best_score" in package.run(spec, retry=["failed"], memory="800MB")


@pytest.mark.parametrize(
    ("memory", "expected"), [("2x", 2_000_000_000), ("1.5x", 1_500_000_000), ("3GiB", 3 * 2**30)]
)
def test_memory(spec: Spec, memory: str, expected: int) -> None:
    assert with_memory(load_spec(spec), memory).cluster.memory == expected


@pytest.mark.parametrize("memory", ["x", "-2x", "much", "0x", ""])
def test_wrong_memory(spec: Spec, memory: str) -> None:
    with pytest.raises(SpecError, match=r"--memory: .* is no memory of a worker"):
        with_memory(load_spec(spec), memory)


def test_the_plan_tells_of_a_change(spec: Spec, grown: Spec, write_spec: WriteSpec) -> None:
    store = carry_on(spec).store
    planned = hpc_sweep("plan", write_spec(grown))
    assert "change:     3 new candidates for 48 partitions; 5 kept" in planned.stdout
    assert Store.open(store.path).header.revision == 0
    assert "change" not in hpc_sweep("plan", write_spec(spec)).stdout


def test_a_run_tells_of_a_change_that_it_has_made(spec: Spec, grown: Spec) -> None:
    """A parameter becomes text, so that what was known of its files is no longer so."""
    del spec["models"][1:], grown["models"][2:]
    without_models(spec, grown)
    carry_on(spec)
    prepared = prepare(load_spec(grown))
    facts = plan_facts(prepared, Ledger.read(begin(prepared)))
    assert facts["change"] == {"new": 3, "taken_back": 0, "dropped": 0, "kept": 3}
