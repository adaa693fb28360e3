"""Samples held out: no search sees them, and the refitted best is scored on them, once."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from conftest import equal_stores
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.tree import DecisionTreeRegressor
from yearly import (
    LASSO,
    SHAPE,
    InProcess,
    Spec,
    arrays,
    faults,
    in_process,
    samples,
    write,
    yearly_spec,
    years_data,
)

import hpc_sweep
from hpc_sweep.choices import DONE, EMPTY
from hpc_sweep.cli import main
from hpc_sweep.cli.plan import plan_facts, plan_text
from hpc_sweep.plan import Unit
from hpc_sweep.prepare import prepare
from hpc_sweep.results import best_rows
from hpc_sweep.spec import load_spec
from hpc_sweep.store import (
    Ledger,
    PartName,
    Store,
    choices,
    fold,
    read_events,
    run_folder,
    write_part,
)
from hpc_sweep.store.parts import read_part
from hpc_sweep.sweep import execute
from hpc_sweep.work.guard import Child, Guard, Limits
from hpc_sweep.work.outcomes import part_of

Held = Callable[[xr.Dataset], Any]
FROM_2004 = {"time": "2004-01-01"}


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
    spec = yearly_spec(data.attrs["path"], tmp_path / "results.zarr")
    spec["search"]["cv"] = 3
    spec["data"]["holdout"] = FROM_2004
    return spec


def searches(X: Any, y: Any, cv: Any = 3, groups: Any = None) -> list[GridSearchCV]:
    """Return scikit-learn's searches of the two models, best first."""
    both = [
        GridSearchCV(Lasso(), {"alpha": [0.01, 0.1, 0.5]}, cv=cv, scoring="r2"),
        GridSearchCV(
            DecisionTreeRegressor(random_state=0), {"max_depth": [2, 4]}, cv=cv, scoring="r2"
        ),
    ]
    return sorted((each.fit(X, y, groups=groups) for each in both), key=lambda s: -s.best_score_)


def year(pixel: xr.Dataset) -> Any:
    return pixel["time"].dt.year.values


WAYS: list[tuple[Spec, Held]] = [
    (FROM_2004, lambda pixel: year(pixel) >= 2004),
    ({**FROM_2004, "reverse": True}, lambda pixel: year(pixel) < 2004),
    ({"time.year": 2003}, lambda pixel: year(pixel) >= 2003),
    ({"rain": 1, "reverse": True}, lambda pixel: pixel["rain"].values < 1),
    ({"time.year": [2002, 2004]}, lambda pixel: np.isin(year(pixel), [2002, 2004])),
    ({"basin": ["Tay"], "reverse": True}, lambda pixel: pixel["basin"].values != "Tay"),
    ({"mask": "late"}, lambda pixel: pixel["late"].values),
    ({"mask": "late", "reverse": True}, lambda pixel: ~pixel["late"].values),
    ({"mask": "apart"}, lambda pixel: pixel["apart"].values),
]


@pytest.mark.parametrize(("holdout", "held"), WAYS)
@pytest.mark.parametrize("width", [None, 2])
def test_scores_are_those_of_best_estimator(
    spec: Spec, data: xr.Dataset, holdout: Spec, held: Held, width: int | None
) -> None:
    """Whether all candidates are in one unit, or the best one is known at the end only."""
    spec["data"]["holdout"] = holdout
    results = in_process(spec, width)
    compared = 0
    for place in np.ndindex(*SHAPE):
        found = results.isel(latitude=place[0], longitude=place[1])
        pixel = samples(data, place, *(["rain"] if "rain" in holdout else []))
        X, y = arrays(pixel)
        out = held(pixel)
        assert found["n_samples"] == (~out).sum()
        assert found["n_holdout"] == out.sum()
        if not (~out).any():
            assert found["partition_status"] == EMPTY
            assert np.isnan(found["holdout_score"])
            continue
        best = searches(X[~out], y[~out])[0]
        assert found["best_score"] == best.best_score_
        assert found["refit_message"] == ""
        if out.any():
            assert found["holdout_score"] == best.score(X[out], y[out])
            compared += 1
        else:
            assert found["partition_status"] == DONE
            assert np.isnan(found["holdout_score"])
    assert compared > 7


def test_no_samples_held_out_are_no_failure(spec: Spec) -> None:
    spec["data"]["holdout"] = {"mask": "apart"}
    found = in_process(spec).isel(latitude=0, longitude=1)
    assert found["n_holdout"] == 0
    assert np.isnan(found["holdout_score"])
    assert (found["status"] == DONE).all()
    assert found["refit_message"] == ""


def test_a_model_on_demand_has_not_seen_them(spec: Spec, data: xr.Dataset) -> None:
    results = in_process(spec)
    for place in ((0, 0), (2, 1)):
        found = results.isel(latitude=place[0], longitude=place[1])
        model = hpc_sweep.load_model(
            spec["output"]["store"],
            latitude=found["latitude"].item(),
            longitude=found["longitude"].item(),
        )
        pixel = samples(data, place)
        X, y = arrays(pixel)
        out = year(pixel) >= 2004
        assert model.score(X[out], y[out]) == found["holdout_score"]
        best = searches(X[~out], y[~out])[0]
        np.testing.assert_array_equal(model.predict(X), best.predict(X))


def test_groups_are_those_of_training_samples(spec: Spec, data: xr.Dataset) -> None:
    spec["search"]["cv"] = {"leave_one_group_out": "time.year"}
    results = in_process(spec)
    np.testing.assert_array_equal(results["split"], [2001, 2002, 2003])
    pixel = samples(data, (0, 0))
    X, y = arrays(pixel)
    out = year(pixel) >= 2004
    best = searches(X[~out], y[~out], LeaveOneGroupOut(), year(pixel)[~out])[0]
    found = results.isel(latitude=0, longitude=0)
    assert found["best_score"] == best.best_score_
    assert found["holdout_score"] == best.score(X[out], y[out])


def test_a_time_series_is_sorted_in_both_parts(spec: Spec, data: xr.Dataset) -> None:
    spec["search"]["cv"] = {"class": "sklearn.model_selection.TimeSeriesSplit", "n_splits": 3}
    from sklearn.model_selection import TimeSeriesSplit

    found = in_process(spec).isel(latitude=0, longitude=0)
    pixel = samples(data, (0, 0)).sortby("time")
    X, y = arrays(pixel)
    out = year(pixel) >= 2004
    best = searches(X[~out], y[~out], TimeSeriesSplit(3))[0]
    assert found["best_score"] == best.best_score_
    assert found["holdout_score"] == best.score(X[out], y[out])


@pytest.mark.parametrize("width", [None, 1])
def test_several_metrics(spec: Spec, data: xr.Dataset, width: int | None) -> None:
    spec["models"] = [
        {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 30, 1000]}}
    ]
    errors = "neg_mean_absolute_error"
    spec["search"] |= {"scoring": ["r2", errors], "refit": errors}
    results = in_process(spec, width)
    for place in ((0, 0), (2, 2)):
        pixel = samples(data, place)
        X, y = arrays(pixel)
        out = year(pixel) >= 2004
        grid = {"alpha": [0.1, 30, 1000]}
        search = GridSearchCV(Ridge(), grid, cv=3, scoring=["r2", errors], refit=errors)
        search.fit(X[~out], y[~out])
        found = results.isel(latitude=place[0], longitude=place[1])
        assert found["best_index"] == search.best_index_
        for metric in ("r2", errors):
            score = search.scorer_[metric](search.best_estimator_, X[out], y[out])
            assert found[f"holdout_{metric}"] == score


def test_without_a_target(spec: Spec, data: xr.Dataset) -> None:
    del spec["data"]["target"]
    spec["models"] = [{"estimator": "sklearn.cluster.KMeans", "param_grid": {"n_clusters": [2, 3]}}]
    spec["search"] = {"cv": 3}
    results = in_process(spec)
    model = hpc_sweep.load_model(spec["output"]["store"], latitude=60.0, longitude=-1.0)
    pixel = data.isel(latitude=0, longitude=0).dropna("time", subset=["wet", "green"])
    X, _ = arrays(pixel)
    score = model.score(X[year(pixel) >= 2004])
    assert results["holdout_score"].values[0, 0] == score


SPACE = {"alpha": {"scipy.stats.loguniform": [1e-3, 1]}}


@pytest.mark.parametrize(
    ("search", "model"),
    [
        ({"strategy": "random", "n_iter": 4}, {"param_distributions": SPACE}),
        ({"strategy": "halving"}, {"param_grid": {"alpha": [0.001, 0.01, 0.1, 0.3, 0.5]}}),
        ({"strategy": "optuna", "n_trials": 6}, {"param_distributions": SPACE}),
    ],
)
def test_every_strategy(spec: Spec, data: xr.Dataset, search: Spec, model: Spec) -> None:
    spec["search"] |= search
    spec["models"] = [{"estimator": LASSO, **model}]
    results = in_process(spec)
    for place in ((0, 0), (2, 2)):
        found = results.isel(latitude=place[0], longitude=place[1])
        refitted = hpc_sweep.load_model(
            spec["output"]["store"],
            latitude=found["latitude"].item(),
            longitude=found["longitude"].item(),
        )
        assert refitted.alpha == found["best_param_alpha"]
        pixel = samples(data, place)
        X, y = arrays(pixel)
        out = year(pixel) >= 2004
        assert found["holdout_score"] == refitted.score(X[out], y[out])


# what goes wrong


def test_a_refit_that_fails_says_why(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    spec["models"] = [{"estimator": {"faulty.TooMuch": {"most": 70}}}]
    results = in_process(spec)
    failed = results["refit_message"] == "RuntimeError: the data is too wet"
    assert 0 < failed.sum() < failed.size
    assert (results["refit_message"].where(~failed, "") == "").all()
    assert np.isnan(results["holdout_score"].where(failed)).all()
    assert (results["partition_status"].where(failed, DONE) == DONE).all()
    assert not np.isnan(results["best_score"].where(failed, 0)).any()


def test_scores_of_another_candidate_do_not_count(spec: Spec, tmp_path: Path) -> None:
    """A part may tell of a candidate that was the best of what was known then."""
    expected = in_process(spec)
    other = {**spec, "output": {"store": str(tmp_path / "other.zarr")}}
    sweep = InProcess(other)

    def lie(names: list[PartName]) -> None:
        (name,) = names
        folder = sweep.store.run.parts
        part = read_part(folder, name)
        assert part.refit is not None
        wrong = part.refit.index.copy()
        wrong[1:3] += 1
        scores = part.refit.scores["score"].copy()
        scores[1:3] = 100
        held_out = replace(part.refit, index=wrong, scores={"score": scores})
        part = replace(part, refit=held_out)
        names[:] = [write_part(folder, sweep.store.header.id, name.unit, part)]
        (folder / str(name)).unlink()

    found = sweep.run(lie)
    np.testing.assert_array_equal(found["holdout_score"], expected["holdout_score"])


@pytest.mark.parametrize("array", ["holdout_score", "best_index", "partition_status", "status"])
def test_a_fold_that_is_killed_is_done_again(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: str
) -> None:
    whole = tmp_path / "whole.zarr"
    in_process({**spec, "output": {"store": str(whole)}})
    sweep = InProcess(spec, width=2)
    write_array = Store.write

    def killed(self: Store, what: Any, *arguments: Any, **more: Any) -> None:
        write_array(self, what, *arguments, **more)
        if what.name == array:
            raise KeyboardInterrupt

    ledger = Ledger(sweep.store)
    for chunk in ledger.chunks:
        names = [sweep.leave(unit) for unit in sweep.units(chunk)]
        unscored = fold(sweep.store, chunk, names).unscored
        assert unscored
        last = sweep.store.strategy.n_columns
        unit = replace(sweep.units(chunk)[0], first=last, last=last)
        names.append(sweep.leave(unit, names))
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                fold(sweep.store, chunk, names)
    again = Ledger.read(sweep.store)
    for chunk in [*again.complete()]:
        assert again.fold(chunk, fold(sweep.store, chunk, again.parts[chunk])) == []
    assert again.is_complete
    equal_stores(sweep.store.path, whole)


@pytest.mark.parametrize(
    ("holdout", "words"),
    [
        ({"tme": "2004-01-01"}, "did you mean 'time'"),
        ({"latitude": 59.5}, "lacks the dimension time"),
        ({"time": "2009-01-01"}, "holds nothing out: 'time' goes from 2001-01-05 to 2004"),
        ({"time": "1999-01-01"}, "leaves no training samples: 'time' goes from 2001-01-05"),
        ({"time": "1999-01-01", "reverse": True}, "holds nothing out"),
        ({"time": 2004}, "holds dates, but 2004 is none"),
        ({"time": "2004-02-30"}, "holds dates, but '2004-02-30' is none"),
        ({"time": "now"}, "holds dates, but 'now' is none"),
        ({"time.year": "2004"}, "holds numbers, but '2004' is none"),
        ({"basin": "Tay"}, "or by a list of values: {basin: [Tay]}"),
        ({"basin": [3]}, "and 3 is not"),
        ({"basin": ["Ness"]}, "holds nothing out: 'basin' has none of the values Ness"),
        ({"basin": ["Tay", "Esk", "Dee"]}, "no training samples: 'basin' has no value but Tay,"),
        ({"time": ["2004-02-30"]}, "holds dates, but '2004-02-30' is none"),
        ({"time.year": []}, "needs the first value"),
        ({"mask": "rain"}, "a mask is boolean"),
        ({"mask": "lat"}, "did you mean 'late'"),
        ({"mask": "never"}, "holds nothing out: 'never' is false everywhere"),
        ({"mask": "never", "reverse": True}, "leaves no training samples"),
        ({"mask": 5}, "mask names a boolean variable"),
        ({"time": "2004-01-01", "rain": 1}, "write {time:"),
        ({"reverse": True}, "write {time:"),
        ({"time": "2004-01-01", "reverse": "yes"}, "reverse is true or false"),
        ({"time": True}, "needs the first value"),
    ],
)
def test_bad_holdouts_are_refused(spec: Spec, holdout: Spec, words: str) -> None:
    spec["data"]["holdout"] = holdout
    assert words in (
        _spec_fault(spec) if "write" in words or "needs" in words else faults(spec)["data.holdout"]
    )


def _spec_fault(spec: Spec) -> str:
    with pytest.raises(hpc_sweep.errors.SpecError) as caught:
        load_spec(spec)
    return str(caught.value)


def test_without_a_refit_there_is_nothing_to_score(spec: Spec) -> None:
    spec["search"]["refit"] = False
    assert "data.holdout scores the best model" in _spec_fault(spec)


def test_too_few_training_samples_are_refused(spec: Spec) -> None:
    spec["data"]["holdout"] = {"time": "2001-01-20"}
    assert "a partition has 2 samples at the most" in faults(spec)["search.cv"]


def test_other_calendars(spec: Spec, tmp_path: Path) -> None:
    data = years_data("noleap")
    spec["data"]["store"] = write(data, tmp_path / "calendar.zarr")
    spec["data"]["holdout"] = {"time": "2003-07"}
    found = in_process(spec).isel(latitude=0, longitude=0)
    pixel = samples(data, (0, 0))
    X, y = arrays(pixel)
    dates = pixel["time"].dt
    out = ((dates.year > 2003) | ((dates.year == 2003) & (dates.month >= 7))).values
    assert found["n_holdout"] == out.sum()
    assert found["holdout_score"] == searches(X[~out], y[~out])[0].score(X[out], y[out])


# on workers


def test_on_workers(spec: Spec, tmp_path: Path) -> None:
    """Few partitions: candidates in slices, and their best scored by units of its own."""
    spec["data"]["partition_by"] = ["latitude"]
    spec["data"]["features"] = ["wet", "green"]
    whole = tmp_path / "whole.zarr"
    in_process({**spec, "output": {"store": str(whole)}})
    outcome = execute(load_spec(spec))
    equal_stores(outcome.store.path, whole)
    units = [
        event["unit"].rpartition("_")[2]
        for event in read_events(outcome.store.run.events)
        if event["event"] == "unit_done"
    ]
    assert units.count("5-5") >= 1
    assert {*units} - {"0-5", "5-5"}


def test_by_dask_ml(spec: Spec, tmp_path: Path) -> None:
    whole = tmp_path / "whole.zarr"
    in_process({**spec, "output": {"store": str(whole)}})
    spec["search"]["engine"] = "dask-ml"
    outcome = execute(load_spec(spec))
    found = outcome.store.dataset().load()
    expected = xr.open_zarr(whole, chunks=None).load()
    for name in ("best_index", "best_score", "holdout_score", "n_holdout", "refit_message", "coef"):
        np.testing.assert_array_equal(found[name], expected[name])
    events = read_events(outcome.store.run.events)
    units = [event["unit"] for event in events if event["event"] == "unit_done"]
    assert {unit.rpartition("_")[2] for unit in units} == {"0-5"}  # none reads again to refit


@pytest.mark.parametrize(
    ("how", "timeout", "words"),
    [
        ("hang", 1, "took longer than search.timeout, 1 s, and was ended"),
        ("kill", None, "ended its process (exit code 7), 2 times"),
    ],
)
def test_a_refit_that_kills(
    spec: Spec, tmp_path: Path, faulty_on_workers: None, how: str, timeout: Any, words: str
) -> None:
    """Only the score that it was to give suffers."""
    spec["data"]["holdout"] = {"mask": "apart"}
    spec["models"] = [{"estimator": {"faulty.TooMuch": {"most": 84}}}, spec["models"][0]]
    spec["models"][1]["param_grid"] = {"alpha": [1e6]}
    whole = tmp_path / "whole.zarr"
    expected = in_process({**spec, "output": {"store": str(whole)}})
    raised = (expected["refit_message"] != "").values
    assert 0 < raised.sum() <= 3
    spec["models"][0] = {"estimator": {"faulty.TooMuch": {"most": 84, "how": how}}}
    spec["search"]["timeout"] = timeout
    found = execute(load_spec(spec)).store.dataset().load()
    assert [str(text) for text in found["refit_message"].values[raised]] == [words] * raised.sum()
    assert (found["refit_message"].values[~raised] == "").all()
    for name in ("status", "best_score", "holdout_score", "n_holdout"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_going_on_where_only_refits_are_left(spec: Spec, tmp_path: Path) -> None:
    """All parts are there, of some partitions those of refits too; nothing is folded."""
    whole = tmp_path / "whole.zarr"
    in_process({**spec, "output": {"store": str(whole)}})
    sweep = InProcess(spec, width=2)
    last = sweep.store.strategy.n_columns
    for chunk in Ledger(sweep.store).chunks:
        names = [sweep.leave(unit) for unit in sweep.units(chunk)]
        sweep.leave(Unit(chunk, 0, 1, last, last), names)
    outcome = execute(load_spec(spec))
    equal_stores(outcome.store.path, whole)
    units = [e["unit"] for e in read_events(outcome.store.run.events) if e["event"] == "unit_done"]
    assert {unit.rpartition("_")[2] for unit in units} == {"5-5"}
    assert not any("_0-" in unit for unit in units)
    assert outcome.progress is not None
    assert outcome.progress.cells_this_run == 0


def test_candidates_may_change(spec: Spec, tmp_path: Path) -> None:
    """Partitions whose best candidate is another one after it are scored anew, no others."""

    def ended(*alphas: float) -> xr.Dataset:
        spec["models"] = [{"estimator": LASSO, "param_grid": {"alpha": list(alphas)}}]
        return execute(load_spec(spec)).store.dataset().load()

    def refits() -> int:
        events = read_events(run_folder(spec["output"]["store"]).events)
        done = [e["unit"].split("_")[1:] for e in events if e["event"] == "unit_done"]
        rows = [rows.split("-") for rows, columns in done if len({*columns.split("-")}) == 1]
        return sum(int(stop) - int(start) for start, stop in rows)

    first = ended(0.1, 0.2)
    assert refits() == 0
    more = ended(0.1, 0.2, 0.02)
    changed = (more["best_index"] != first["best_index"]).values
    assert 0 < changed.sum() == refits()
    expected = [0.1, 0.2, 0.02]
    other = {**spec, "output": {"store": str(tmp_path / "whole.zarr")}}
    for found, alphas in ((more, expected), (ended(0.2, 0.02), expected[1:])):
        other["models"] = [{"estimator": LASSO, "param_grid": {"alpha": alphas}}]
        other["output"] = {"store": str(tmp_path / f"whole-{len(alphas)}.zarr")}
        whole = in_process(other)
        for name in ("best_score", "holdout_score", "n_holdout", "best_param_alpha"):
            np.testing.assert_array_equal(found[name], whole[name])


def test_refits_in_units_of_their_own_are_guarded(
    spec: Spec, tmp_path: Path, faulty_on_workers: None
) -> None:
    spec["data"]["holdout"] = {"mask": "apart"}
    spec["models"] = [{"estimator": {"faulty.TooMuch": {"most": 84}}}, spec["models"][0]]
    spec["models"][1]["param_grid"] = {"alpha": [1e6]}
    expected = in_process({**spec, "output": {"store": str(tmp_path / "whole.zarr")}})
    spec["models"][0] = {"estimator": {"faulty.TooMuch": {"most": 84, "how": "hang"}}}
    sweep = InProcess(spec, width=1)
    last, child = sweep.store.strategy.n_columns, Child()
    for chunk in Ledger(sweep.store).chunks:
        names = [sweep.leave(unit) for unit in sweep.units(chunk)]
        unit = Unit(chunk, 0, sweep.store.n_partitions(chunk), last, last)
        outcomes = Guard(child, Limits(seconds=2)).evaluate(
            str(sweep.store.path),
            sweep.prepared.spec.model_dump_json(),
            unit,
            time.perf_counter() + 60,
            choices(sweep.store, unit, names),
        )
        part = part_of(sweep.bench, outcomes)
        names.append(write_part(sweep.store.run.parts, sweep.store.header.id, unit, part))
        assert fold(sweep.store, chunk, names).unscored == ()
    child.end()
    found = sweep.store.dataset().load()
    raised = (expected["refit_message"] != "").values
    assert raised.any()
    texts = [str(text) for text in found["refit_message"].values[raised]]
    assert all("took longer than search.timeout, 2 s" in text for text in texts)
    for name in ("status", "best_score", "holdout_score", "n_holdout"):
        np.testing.assert_array_equal(found[name], expected[name])


# what is shown


def test_the_plan_tells_of_it(spec: Spec) -> None:
    """And of what is read again, where units cannot know the best candidates."""

    def facts(**data: Any) -> dict[str, Any]:
        return plan_facts(prepare(load_spec({**spec, "data": {**spec["data"], **data}})))

    spec["output"]["models"] = "none"  # else all are fitted again, for coefficients
    assert facts()["holdout"] == "time from 2004-01-01"
    prepared = prepare(load_spec(spec))
    assert "held out:   time from 2004-01-01\n" in plan_text(prepared, plan_facts(prepared))
    once = facts(holdout=None)["read_factor"]
    assert facts()["read_factor"] == once
    spec["search"]["engine"] = "dask-ml"
    assert facts()["read_factor"] == once
    spec["search"]["engine"] = "shared"
    spec["cluster"]["workers"] = 4
    by_latitude = {"partition_by": ["latitude"]}
    plain = facts(**by_latitude, holdout=None)
    slices = -(-5 // plain["candidates_per_unit"])
    assert slices > 1
    found = facts(**by_latitude, holdout={"mask": "late", "reverse": True})
    assert found["holdout"] == "where late is false"
    assert found["read_factor"] == plain["read_factor"]
    spec["search"]["engine"] = "dask-ml"  # keeps nothing
    apart, plain = (facts(**by_latitude, holdout=each) for each in ({"mask": "late"}, None))
    again = (slices + 1) / slices
    assert apart["read_factor"] == pytest.approx(again * plain["read_factor"], rel=1e-3)


def test_tables_show_it(spec: Spec) -> None:
    results = in_process(spec)
    rows = list(best_rows(results))
    assert rows[0]["holdout_score"] is not None
    assert {row["holdout_score"] for row in rows if row["status"] == "empty"} == {None}
    store = spec["output"]["store"]
    printed = CliRunner().invoke(main, ["results", store, "--format", "csv"]).output
    (first, *_) = csv.DictReader(io.StringIO(printed))
    assert float(first["holdout_score"]) == rows[0]["holdout_score"]
    table = CliRunner().invoke(main, ["results", store], env={"COLUMNS": "200"}).output
    assert "holdout_score" in table
    assert f"{rows[0]['holdout_score']:.4f}" in table


def test_targets_of_their_own(spec: Spec, data: xr.Dataset) -> None:
    spec["data"] |= {"target": ["slope", "kind"], "outputs": "separate"}
    spec["models"] = spec["models"][:1]
    results = in_process(spec)
    pixel = samples(data, (0, 0))
    X, _ = arrays(pixel)
    out = year(pixel) >= 2004
    for target in ("slope", "kind"):
        y = pixel[target].values
        search = GridSearchCV(Lasso(), {"alpha": [0.01, 0.1, 0.5]}, cv=3, scoring="r2")
        search.fit(X[~out], y[~out])
        found = results.isel(latitude=0, longitude=0).sel(target=target)
        assert found["holdout_score"] == search.score(X[out], y[out])
