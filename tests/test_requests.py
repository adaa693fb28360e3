"""Searches that ask from the driver: the numbers of one worker, although all answer in slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Spec, equal_stores
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from hpc_sweep.choices import DONE, FAILED
from hpc_sweep.cli.plan import plan_facts, plan_text
from hpc_sweep.plan import Unit
from hpc_sweep.prepare import prepare
from hpc_sweep.search import Evaluator, Model, Setting, Slice, slices_of
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Answers, count_answers, read_events, run_folder
from hpc_sweep.sweep import execute
from hpc_sweep.work import evaluate_partitions, open_bench
from hpc_sweep.work.outcomes import part_of

SAMPLES = 400
LINEAR = "sklearn.linear_model"


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    rng = np.random.default_rng(5)
    made = xr.Dataset({f"f{i}": ("time", rng.normal(1, 1, SAMPLES)) for i in range(3)})
    made["y"] = 0.2 * made["f0"] + rng.normal(size=SAMPLES)  # so means are as good as models
    made["late"] = "time", np.arange(SAMPLES) >= 300
    made["f2"][::7] = np.nan
    made.chunk(time=100).to_zarr(tmp_path / "in.zarr", consolidated=False)
    return {
        "data": {
            "store": str(tmp_path / "in.zarr"),
            "features": ["f0", "f1", "f2"],
            "target": "y",
            "partition_by": [],
            "holdout": {"mask": "late"},
        },
        "models": [],
        "search": {"cv": 3},
        "cluster": {"kind": "local", "workers": 2, "memory": "1GB"},
        "output": {"store": str(tmp_path / "results.zarr")},
    }


def events(spec: Spec, kind: str) -> list[dict[str, Any]]:
    found = read_events(run_folder(spec["output"]["store"]).events)
    return [event for event in found if event["event"] == kind]


def test_halving_finds_the_same_although_a_candidate_kills_workers(
    spec: Spec, tmp_path: Path, faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered before a death is not asked again, and what is left is guarded."""
    forest = {"n_estimators": [3, 6], "max_depth": [2, 9]}
    spec["models"] = [
        {"estimator": "faulty.Slow"},  # notes its fits
        {
            "estimator": "sklearn.neighbors.KNeighborsRegressor",
            "param_grid": {"n_neighbors": [9, 3, 0]},
        },
        {"estimator": "sklearn.ensemble.RandomForestRegressor", "param_grid": forest},
        {"estimator": {f"{LINEAR}.Lasso": {"max_iter": 1, "alpha": 0.01}}},
        {"estimator": {"faulty.TooMuch": {"how": "kill", "most": 50}}},
    ]
    spec["search"] |= {"strategy": "halving", "factor": 2, "min_resources": 60}
    whole = {**spec, "output": {"store": str(tmp_path / "whole.zarr")}}
    whole["cluster"] = {**spec["cluster"], "workers": 1}
    with monkeypatch.context() as patch:
        patch.setattr("hpc_sweep.work.requests.LEAST_S", 1e-9)  # else they are too short to cut
        patch.setenv("TEST_SLOW_LOG", str(tmp_path / "fits.txt"))
        found = execute(load_spec(spec)).store
    assert [event["deaths"] for event in events(spec, "unit_lost")] == [1]
    dataset = found.dataset()
    assert dataset["status"].values.tolist() == [DONE] * 3 + [FAILED] + [DONE] * 5 + [FAILED]
    assert dataset["last_iteration"].values[-1] == 1
    assert "split 0 ended its process" in str(dataset["message"].values[-1])
    assert np.isfinite(dataset["holdout_score"])
    fits = (tmp_path / "fits.txt").read_text().splitlines()
    assert [fits.count(each) for each in fits[:3]] == [1, 1, 1]  # of the first request
    equal_stores(found.path, execute(load_spec(whole)).store.path)


def test_trials_are_those_of_one_process_where_fits_are_guarded(spec: Spec) -> None:
    """The partition that the search ran on is there for the best candidate, too."""
    space = {"alpha": {"scipy.stats.loguniform": [1e-3, 1e3]}, "max_iter": [1, 1000]}
    spec["models"] = [
        {"estimator": f"{LINEAR}.Lasso", "param_distributions": space},
        {"estimator": f"{LINEAR}.Ridge", "param_distributions": {"alpha": space["alpha"]}},
    ]
    spec["search"] |= {"strategy": "optuna", "n_trials": 7, "trials_at_once": 3, "timeout": 60}
    made = prepare(load_spec(spec))
    facts = plan_facts(made)
    assert facts["kept_partitions"] == facts["read_factor"] == 1
    assert "in slices by all workers" in plan_text(made, facts)
    store = execute(load_spec(spec)).store
    bench = open_bench(str(store.path), load_spec(spec).model_dump_json())
    (outcomes,) = evaluate_partitions(bench, Unit((), 0, 1, 0, 1), 0.0)
    part, dataset = part_of(bench, outcomes), store.dataset()
    np.testing.assert_array_equal(dataset["test_score"].values, part.scores["score"][0])
    np.testing.assert_array_equal(dataset["param_alpha"].values, part.more["param_alpha"][0])
    assert dataset["n_samples"] == outcomes[0].n_samples
    assert [*dataset["message"].values] == outcomes[0].found.messages
    assert dataset["best_index"] == outcomes[0].refit.index
    assert dataset["holdout_score"] == outcomes[0].refit.scores["score"]
    assert not [*store.run.parts.glob("*.answers")]
    workers = [event["worker"] for event in events(spec, "unit_done")]
    assert workers[0] == "driver" != workers[1]  # the best one is fitted again by a worker


def test_a_search_goes_on_where_another_driver_stopped(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was told is believed, so that a search may take several jobs."""
    spec["models"] = [
        {"estimator": f"{LINEAR}.Lasso", "param_grid": {"alpha": [0.01, 0.02, 0.05, 0.1]}}
    ]
    spec["search"] |= {"strategy": "halving", "factor": 2, "min_resources": 60}
    del spec["data"]["holdout"]
    spec["output"]["models"] = "none"
    with monkeypatch.context() as patch:
        patch.setattr(Answers, "remove", lambda self: None)
        patch.setattr("hpc_sweep.sweep.execution.remove_answers", lambda run: None)
        store = execute(load_spec(spec)).store
    first = store.dataset().load()
    answers = Answers(store.run, store.header.id, Unit((), 0, 1, 0, 1))
    told, lines = [*answers.read()], answers.path.read_bytes().splitlines(keepends=True)
    assert len(told) == count_answers(store.run) > 6
    assert {each["request"] for each in told} == {0, 1, 2}
    told.sort(key=lambda each: (each["request"], each["rows"], each["columns"]))
    made_up = told[0]
    made_up["scores"]["score"][0][0] += 1.0  # the best one of its iteration, now
    answers.path.write_bytes(lines[0].replace(b" ", b"  ", 1) + lines[-1][:40])  # damaged, short
    for each in told[:-1]:
        answers.add(each)
    for file in (store.path / "status").glob("c*"):
        file.unlink()
    assert execute(load_spec(spec)).progress is not None
    again = store.dataset().load()
    assert again["test_score"].values[0, 0, 0] == first["test_score"].values[0, 0, 0] + 1.0
    assert again["test_score"].values[1, 0, 1] == first["test_score"].values[1, 0, 1]
    assert again["last_iteration"].values[0] > 0
    assert count_answers(store.run) == 0


def test_what_does_not_fit_is_searched_by_one_worker(spec: Spec) -> None:
    spec["models"] = [{"estimator": f"{LINEAR}.Ridge", "param_grid": {"alpha": [0.1, 1.0]}}]
    spec["search"] |= {"strategy": "halving", "factor": 2}
    for change, asked in (
        ({}, True),
        ({"workers": 1}, False),
        ({"memory": f"{prepare(load_spec(spec)).plan.memory_bytes}B"}, True),
    ):
        made = prepare(load_spec({**spec, "cluster": {**spec["cluster"], **change}}))
        assert made.plan.is_asked == asked
        assert made.plan.unit_partitions == made.plan.n_units() == 1


def test_slices_keep_together_what_shares_its_work() -> None:
    tree, ridge = RandomForestRegressor(random_state=0), Ridge()
    piped = make_pipeline(StandardScaler(), SVR())
    models = [Model(each, None, lambda *about: 0.0) for each in (tree, ridge, Lasso(), piped)]
    settings = [
        *(Setting(0, {"n_estimators": n, "max_depth": d}) for n in (5, 10) for d in (2, 3)),
        *(Setting(1, {"alpha": alpha}) for alpha in (0.1, 1.0)),
        Setting(2, {}),
        *(Setting(3, {"svr__C": c}) for c in (1, 10)),
    ]
    evaluator = Evaluator(models, settings, ["score"])
    everything = {(row, column) for row in range(9) for column in range(3)}
    for wanted in (1, 2, 3, 8, 100):
        cut = slices_of(evaluator, 3, wanted)
        cells = [(row, column) for each in cut for row in each.rows for column in each.columns]
        assert len(cells) == len(everything)
        assert {*cells} == everything
        for together in ({0, 2}, {1, 3}, {4, 5}):
            assert all(len(together & {*each.rows}) in (0, 2) for each in cut)
        assert len(cut) >= min(wanted, 16)
        if wanted > 1:  # solved for all splits at once
            assert Slice((4, 5), (0, 1, 2)) in cut
